/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What methods.c and methods-domain.c share: calls that wait for something, and the answers that both give.
 *
 * A waiter owns its call until it is answered. Loop thread only.
 */
#ifndef P2MGUARD_METHODS_PRIVATE_H
#define P2MGUARD_METHODS_PRIVATE_H

#include "daemon/lookup.h"
#include "daemon/methods.h"

/* What a call waits for. */
enum wait_kind { WAIT_HELD, WAIT_GONE, WAIT_CHECKED, WAIT_LOOKUP };

struct waiter {
    struct methods *methods;
    struct waiter *next;
    enum wait_kind kind;
    struct rpc_call *call; /* NULL once answered: only a lookup outlives its answer */
    struct session *session;
    struct event *timer;
    int64_t until_ms;
    char *wanted; /* the domain a lookup is for */
    void (*found)(struct waiter *waiter, const struct lookup_domain *domains, size_t count);
    struct session_options options; /* guard.begin */
    bool wait;
};

struct methods {
    struct event_base *base;
    struct events *events;
    const struct settings *settings;
    struct guard *guard;
    struct server *server;
    struct waiter *waiters;
    int64_t started_ms;
};

json_t *methods_what(const char *what);
void methods_fail(struct rpc_call *call, int code, const char *message, json_t *data);
void methods_fail_errno(struct rpc_call *call, int error);

/* The text of params.domain, which may be a number; NULL and the call failed when it is neither. */
char *methods_domain_text(struct rpc_call *call, const json_t *params);

/* Takes `wanted` (NULL: all domains). NULL and the call failed when memory runs out. */
struct waiter *methods_look_up(struct methods *methods, struct rpc_call *call, char *wanted,
                               void (*found)(struct waiter *, const struct lookup_domain *, size_t));

void run_domain_list(struct rpc_call *call, const json_t *params, void *context);
void run_domain_show(struct rpc_call *call, const json_t *params, void *context);

#endif
