/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of methods-*.c share: calls that wait for something (methods-wait.c), and the answers that all of them
 * give (methods.c).
 *
 * A waiter owns its call until it is answered. Loop thread only.
 */
#ifndef P2MGUARD_METHODS_PRIVATE_H
#define P2MGUARD_METHODS_PRIVATE_H

#include <sys/queue.h>

#include "daemon/lookup.h"
#include "daemon/methods.h"

/* How long xenstored may take with these. */
#define METHODS_VERDICT_MS 1000
#define METHODS_THAW_MS 10000

/* What a call waits for. */
enum wait_kind { WAIT_HELD, WAIT_GONE, WAIT_CHECKED, WAIT_LOOKUP };

/*
 * The lookups of one connection that have not begun. Those at the worker are few, and connections take turns: whoever
 * asks for a thousand domains at once is nobody's hindrance.
 */
struct lookup_caller {
    TAILQ_ENTRY(lookup_caller) link;
    uint64_t connection;
    TAILQ_HEAD(lookup_queue, waiter) waiting;
};

struct waiter {
    struct methods *methods;
    LIST_ENTRY(waiter) link;
    enum wait_kind kind;
    struct rpc_call *call;        /* NULL once answered: only a lookup at the worker outlives its answer */
    struct lookup_caller *caller; /* of a lookup that has not begun, which is ours as long */
    struct lookup *lookup;
    bool obeyed;              /* even when the caller is gone before it begins */
    TAILQ_ENTRY(waiter) turn; /* in the caller's queue */
    struct session *session;
    uint64_t check; /* WAIT_CHECKED: which one; else 0 */
    struct event *timer;
    int64_t until_ms;
    bool silent;  /* xenstored, when it was looked at last */
    char *wanted; /* the domain a lookup is for */
    void (*found)(struct waiter *waiter, const struct lookup_domain *domains, size_t count);
    struct session_options options; /* guard.begin */
    unsigned named;                 /* of its policy, the members that the caller has named */
    bool wait;
};

struct methods {
    struct event_base *base;
    struct events *events;
    const struct settings *settings; /* the configuration's */
    struct configuration *configuration;
    methods_reload *reload;
    void *reload_context;
    struct guard *guard;
    struct server *server;
    LIST_HEAD(waiter_list, waiter) waiters;            /* but for lookups */
    struct waiter_list lookups;                        /* those at the worker, and those that wait for their turn */
    TAILQ_HEAD(lookup_callers, lookup_caller) callers; /* with lookups that wait; the next one first */
    unsigned looking;
    json_t *document; /* OpenRPC's, once it was asked for */
    struct audit *audit;
    int64_t started_ms;
    void (*reexec)(void *context);
    void *reexec_context;
};

json_t *methods_what(const char *what);
void methods_fail(struct rpc_call *call, int code, const char *message, json_t *data);
void methods_fail_errno(struct rpc_call *call, int error);
void methods_fail_param(struct rpc_call *call, const char *where, const char *what, const char *expected);
void methods_reply_session(struct rpc_call *call, const struct session *session);

/* ---- calls that wait: methods-wait.c ---- */

/* NULL, and the call failed, when memory runs out. A timeout of 0 is none. */
struct waiter *waiter_new(struct methods *methods, enum wait_kind kind, struct rpc_call *call, struct session *session,
                          int64_t timeout_ms);

/* The text of params.domain, which may be a number; NULL and the call failed when it is neither. */
char *methods_domain_text(struct rpc_call *call, const json_t *params);

/* Takes `wanted` (NULL: all domains). NULL and the call failed when memory runs out. */
struct waiter *methods_look_up(struct methods *methods, struct rpc_call *call, char *wanted, enum lookup_depth depth,
                               void (*found)(struct waiter *, const struct lookup_domain *, size_t));

/* Nobody is there any more to be answered. */
void methods_drop_lookups(struct methods *methods, uint64_t connection);

/* Fails them all. */
void methods_free_waiters(struct methods *methods);

/* ---- methods-guard.c ---- */

void methods_give_verdict(struct rpc_call *call, struct session *session, bool final, bool store_silent);
void run_begin(struct rpc_call *call, const json_t *params, void *context);
void run_verdict(struct rpc_call *call, const json_t *params, void *context);
void run_retry(struct rpc_call *call, const json_t *params, void *context);
void run_adopt(struct rpc_call *call, const json_t *params, void *context);
void run_end(struct rpc_call *call, const json_t *params, void *context);
void run_list(struct rpc_call *call, const json_t *params, void *context);
void run_show(struct rpc_call *call, const json_t *params, void *context);
void run_history(struct rpc_call *call, const json_t *params, void *context);
void run_migrations(struct rpc_call *call, const json_t *params, void *context);

/* ---- methods-config.c, methods-domain.c, methods-metrics.c ---- */

void run_config(struct rpc_call *call, const json_t *params, void *context);
void run_reload(struct rpc_call *call, const json_t *params, void *context);
void run_domain_policy(struct rpc_call *call, const json_t *params, void *context);
void run_domain_list(struct rpc_call *call, const json_t *params, void *context);
void run_domain_show(struct rpc_call *call, const json_t *params, void *context);
void run_metrics(struct rpc_call *call, const json_t *params, void *context);

#endif
