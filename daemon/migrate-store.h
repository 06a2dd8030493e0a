/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /tool/p2mguard/migrate: the nodes by which callers that speak only xenstore are served, as they stand in the store.
 *
 * A request is taken, and its node emptied, in the transaction that removes the answer to the one before. An "end"
 * alone stays until the whole node is removed: should the daemon be killed meanwhile, the next one still finds it.
 *
 * Worker thread only.
 */
#ifndef P2MGUARD_MIGRATE_STORE_H
#define P2MGUARD_MIGRATE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/journal.h"
#include "daemon/migrate-request.h"
#include "daemon/store.h"

#define MIGRATE_FOLDER JOURNAL_ROOT "/migrate"

/* What stands at a domain's node. */
struct migrate_found {
    bool present;
    bool asked;                            /* there was a request ... */
    int problem;                           /* ... that is none, where this is set: */
    char text[MIGRATE_ANSWER_MAX];         /* what is wrong with it */
    struct migrate_request request;        /* else */
    bool had_session;                      /* a session was named beside it ... */
    char uuid[HYPERVISOR_UUID_LENGTH + 1]; /* ... of the domain with this uuid, or "" */
};

/* What is to be written there. */
struct migrate_answer {
    char verdict[MIGRATE_ANSWER_MAX];
    bool names; /* the next two as well; "" is removed */
    char session[JOURNAL_SESSION_MAX];
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    bool takes_end; /* an "end" that stands there is emptied: it was refused */
};

/* Makes the folder, closed to guests, and has it watched. To be called on every new connection. */
int migrate_store_prepare(struct store *store, const char *token);

/* Removes the folder and all that is in it: nobody is served. */
int migrate_store_close(struct store *store);

/*
 * Calls `each` with the domid of every node there is. -E2BIG, or -ENOTCONN: there are more than xenstored can list;
 * then they are looked for one by one, with migrate_store_has.
 */
int migrate_store_each(struct store *store, int (*each)(void *context, uint16_t domid), void *context);

/* 1 when there is a node of this domid, 0 when there is none. */
int migrate_store_has(struct store *store, uint16_t domid);

/*
 * Before the guest of an earlier daemon is let go: whoever reads that it is held shall not any more. Without a caller
 * there is nothing to be done.
 */
int migrate_store_void(struct store *store, uint16_t domid);

/* Takes what is asked for. `whole`: says as well what an earlier daemon has left beside it. */
int migrate_store_take(struct store *store, uint16_t domid, bool whole, struct migrate_found *found);

/* -ENOENT when the node is gone: it is not made again. */
int migrate_store_answer(struct store *store, uint16_t domid, const struct migrate_answer *answer);

/* Removes the node and all below it; -EBUSY, and nothing done, when a request other than "end" stands there. */
int migrate_store_remove(struct store *store, uint16_t domid);

#endif
