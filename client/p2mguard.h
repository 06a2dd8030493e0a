/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libp2mguard: guards the live migration of a Xen guest, for toolstacks and migration engines.
 *
 * Speaks with p2mguardd over its control socket (protocol/CONTROL.md, installed as documentation, says what each
 * request does and what the daemon answers). Each request can be made in two ways: p2mguard_begin and its like wait for
 * the answer; p2mguard_send and p2mguard_reply leave the waiting to the caller's own loop, which polls p2mguard_fd.
 *
 * Errors. Functions that return int or int64_t return a negative number when they fail: a negative errno for what went
 * wrong on this side or between the two (-ECONNREFUSED or -ENOENT: there is no daemon; -EPIPE: it has gone; -ENOMEM),
 * or one of the codes below, which the daemon answered. p2mguard_error_text says it in a sentence.
 *
 * Ownership. A record belongs to the caller, who frees it; texts and records got from a record belong to that record.
 *
 * Threads. A connection, and what came from it, belongs to one thread at a time; several connections are independent of
 * each other. There is no global state, no thread of the library's own, and no signal is used or blocked. Descriptors
 * are close-on-exec.
 *
 * Sizes are in KiB (_kib), durations in milliseconds (_ms).
 */
#ifndef P2MGUARD_H
#define P2MGUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the daemon may answer instead of a result; protocol/CONTROL.md, "Errors". */
enum p2mguard_error {
    P2MGUARD_E_INVALID_REQUEST = -32600,
    P2MGUARD_E_METHOD_NOT_FOUND = -32601, /* the daemon is older than the library */
    P2MGUARD_E_INVALID_PARAMS = -32602,
    P2MGUARD_E_INTERNAL = -32603,
    P2MGUARD_E_NO_SUCH_DOMAIN = -32001,
    P2MGUARD_E_NO_SUCH_SESSION = -32002,
    P2MGUARD_E_BUSY = -32003, /* the domain is under guard already */
    P2MGUARD_E_NOT_PERMITTED = -32004,
    P2MGUARD_E_NOT_HELD = -32005, /* the guest could not be held */
    P2MGUARD_E_STORE = -32006,    /* xenstored does not answer */
    P2MGUARD_E_WRONG_STATE = -32007,
    P2MGUARD_E_LIMIT = -32008,
    P2MGUARD_E_NOT_GUARDABLE = -32009
};

/* A conversation with the daemon. */
struct p2mguard;

/* What the daemon says: a session, a verdict, an event, or a list of such. */
struct p2mguard_record;

/* A session's name, with its NUL. */
#define P2MGUARD_SESSION_SIZE 32

/* ---- a connection ---- */

/* `socket` is the daemon's socket, NULL its usual one. A guest held for a connection thaws when the connection goes. */
int p2mguard_connect(struct p2mguard **guard, const char *socket);

/* NULL is nothing to be closed. */
void p2mguard_close(struct p2mguard *guard);

/* Why the last call on this connection failed, for people, without a full stop; valid until the next call on it. */
const char *p2mguard_error_text(const struct p2mguard *guard);

/* ---- one answer at a time: each call waits for the daemon ---- */

enum p2mguard_flags {
    P2MGUARD_WAIT = 1,    /* return when the guest is held, or -32005 when it could not be */
    P2MGUARD_DETACHED = 2 /* the hold outlives this connection, until the session's deadline */
};

/*
 * Freezes a domain: its domid as digits, its name or its uuid. `policy` is NULL, or "KEY=VALUE" texts
 * (protocol/CONTROL.md, guard.begin) that end with NULL. `session` gets the name that all other calls ask for.
 */
int p2mguard_begin(struct p2mguard *guard, const char *domain, const char *const policy[], unsigned flags,
                   char session[P2MGUARD_SESSION_SIZE]);

enum p2mguard_verdict {
    P2MGUARD_PROCEED = 0, /* nothing has changed: stop and copy, or go on copying */
    P2MGUARD_RETRY = 1,   /* this attempt is spoilt; after p2mguard_retry another one can succeed */
    P2MGUARD_ABORT = 2    /* and no other one either */
};

enum p2mguard_phase {
    P2MGUARD_PRECOPY = 0, /* while pages are copied: costs little */
    P2MGUARD_FINAL = 1    /* before the guest is stopped: looks at everything */
};

/* An enum p2mguard_verdict, or a negative error. *record, where record is not NULL, gets the figures it rests on. */
int p2mguard_verdict(struct p2mguard *guard, const char *session, enum p2mguard_phase phase,
                     struct p2mguard_record **record);

/* Lets the guest settle again for the next attempt; returns when it is held again. */
int p2mguard_retry(struct p2mguard *guard, const char *session);

enum p2mguard_outcome { P2MGUARD_COMPLETED = 0, P2MGUARD_FAILED = 1, P2MGUARD_CANCELLED = 2 };

/*
 * Thaws; returns when everything has been put back. *record, where record is not NULL, gets the session as it was at
 * its end; its "deferred_target_kib" is what a toolstack asked for meanwhile.
 */
int p2mguard_end(struct p2mguard *guard, const char *session, enum p2mguard_outcome outcome,
                 struct p2mguard_record **record);

/* A session, and a list of those alive. */
int p2mguard_show(struct p2mguard *guard, const char *session, struct p2mguard_record **record);
int p2mguard_list(struct p2mguard *guard, struct p2mguard_record **list);

/* From now on there are events; `from` is the number of the first one wanted, 0 for those to come. */
int p2mguard_subscribe(struct p2mguard *guard, uint64_t from);

/* 1 with the next event in *record, 0 when none came within timeout_ms (-1: wait for ever; 0: what is there). */
int p2mguard_event(struct p2mguard *guard, int timeout_ms, struct p2mguard_record **record);

/*
 * ---- in a loop of the caller's own: none of these waits ----
 *
 * Poll the descriptor, call p2mguard_dispatch, then ask for all replies and all events there are: p2mguard_reply, and
 * p2mguard_event with a timeout of 0, look only at what has been read. The other calls above read as well, so ask once
 * more after one of them.
 */

/* The descriptor to poll; it belongs to the connection. */
int p2mguard_fd(const struct p2mguard *guard);

/* What to poll it for: POLLIN, and POLLOUT as long as a request has not been written as a whole. */
short p2mguard_poll_events(const struct p2mguard *guard);

/* To be called when the descriptor is ready: reads and writes what can be. -EPIPE: the daemon has gone. */
int p2mguard_dispatch(struct p2mguard *guard);

/* Sends a request; `params` is its parameters as the text of a JSON object, or NULL. Returns its number, above 0. */
int64_t p2mguard_send(struct p2mguard *guard, const char *method, const char *params);

/*
 * 1 with the answer to that request in *record, 0 when it has not come yet, or the error that was answered. -EPIPE when
 * it cannot come any more.
 */
int p2mguard_reply(struct p2mguard *guard, int64_t number, struct p2mguard_record **record);

/* ---- records ---- */

/*
 * Members are named as in protocol/CONTROL.md, those of members with a dot: "now.tot_kib". NULL, or false, where there
 * is none, or it is null, or of another type.
 */
const char *p2mguard_record_text(const struct p2mguard_record *record, const char *member);
bool p2mguard_record_number(const struct p2mguard_record *record, const char *member, int64_t *number);

/* The length of a list, and what is in it; NULL beyond its end. */
size_t p2mguard_record_count(const struct p2mguard_record *record);
const struct p2mguard_record *p2mguard_record_at(const struct p2mguard_record *record, size_t index);

/* All of it as one line of JSON, to be freed with free(); NULL when memory runs out. */
char *p2mguard_record_json(const struct p2mguard_record *record);

void p2mguard_record_free(struct p2mguard_record *record);

/* ---- in a migration engine ---- */

/* libxenguest's, from <xenguest.h>, which need not be included. */
struct precopy_stats;

/*
 * What p2mguard_precopy_policy needs, filled in by the engine, zeroed otherwise. The callbacks of xc_domain_save share
 * one pointer to data: let that point to a structure of the engine's own whose first member is this one.
 */
struct p2mguard_precopy {
    struct p2mguard *guard;
    const char *session;
    /* The engine's own choice of when to stop and copy, asked first; NULL: libxenguest's (few pages left, or long
     * enough). */
    int (*policy)(struct precopy_stats stats, void *data);
    /* Set when the save was refused: the verdict (or a negative error), and its reason as a word of
     * protocol/CONTROL.md. */
    int verdict;
    char reason[32];
    void *reserved[8];
};

/*
 * To be set as precopy_policy in struct save_callbacks: never makes an engine stop and copy earlier or later than it
 * would, but answers XGS_POLICY_ABORT when the guest's layout has changed, or nobody can say that it has not. Before
 * the guest is stopped the verdict is a final one.
 */
int p2mguard_precopy_policy(struct precopy_stats stats, void *data);

#ifdef __cplusplus
}
#endif

#endif
