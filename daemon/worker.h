/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one thread that may block on xenstored.
 *
 * libxenstore's calls wait for their reply without a time limit, so none of them is made on the event loop: a stopped
 * xenstored then stops this thread and nothing else. Work is handed over by ownership, run in order, and handed back to
 * the loop, where `done` is called. The thread also turns watch events and a lost or regained connection into calls
 * on the loop. It has a store connection of its own.
 *
 * worker_new … worker_free and every callback belong to the loop thread; only work.run runs in the worker's.
 */
#ifndef P2MGUARD_WORKER_H
#define P2MGUARD_WORKER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/handover.h"
#include "daemon/hypervisor.h"
#include "daemon/store.h"

/* What work may use while it runs. `store` answers -ENOTCONN while there is no connection. */
struct worker_tools {
    struct store *store;
    struct hypervisor *hypervisor; /* the worker_settings' */
};

/*
 * Tokens are one of these words, or one of these letters followed by a domid ("m7"). At most one of each is on its way
 * to the loop at a time, which says "look again": what a guest, or a toolstack that makes one domain after the other,
 * can fire as often as it likes does not fill our memory.
 */
#define WORKER_LETTERS "mnagtro"
#define WORKER_WORDS                                                                                                   \
    {                                                                                                                  \
        "introduce", "release"                                                                                         \
    }

/*
 * A letter with a folder for a token ("r/tool/p2mguard/migrate") is for a watch on that folder, whose nodes are named
 * by domids: when node 7 is written or removed, the loop gets "r7". What is deeper, or has another name, is nobody's.
 */

struct worker_callbacks {
    void (*touched)(void *context, const char *path, const char *token); /* a watch fired */
    void (*lost)(void *context);                                         /* the connection is gone */
    void (*back)(void *context); /* connected: for the first time, or again. All watches are gone, set them anew. */
    void *context;
};

struct worker;

struct worker_settings {
    struct hypervisor
        *hypervisor;    /* for the work alone from here on; NULL in a guest, where there is none to be asked */
    bool watches_apart; /* see store_new */
    bool never_dies;    /* the connection is a guest's device, which outlives xenstored: no heartbeat */
};

int worker_new(struct worker **worker, struct event_base *base, const struct worker_settings *settings,
               const struct worker_callbacks *callbacks);

/*
 * Lets the work already handed over finish for at most grace_ms, ends the thread, calls `done` for what is left. False
 * when the thread has not ended: it and all that it uses are then left to the end of the process.
 */
bool worker_free(struct worker *worker, int64_t grace_ms);

/* Takes the work; its `done` is called later, never from inside this function. */
void worker_submit(struct worker *worker, struct work *work);

/* For how long the work at hand has been running, 0 when there is none: a large number means a stalled xenstored. */
int64_t worker_busy_ms(struct worker *worker);

bool worker_connected(struct worker *worker);

/* Its store, which is its own: for store_counts() and nothing else. */
const struct store *worker_store(const struct worker *worker);

#endif
