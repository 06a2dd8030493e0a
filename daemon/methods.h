/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the control socket can be asked: the methods of protocol/CONTROL.md, on guard.h.
 *
 * Owns the calls that wait: for a guest to be held, for everything to be put back, for a look at the gate, for
 * xenstored. Each of them is answered, with an error where what it waits for does not come. Loop thread only.
 */
#ifndef P2MGUARD_METHODS_H
#define P2MGUARD_METHODS_H

#include <event2/event.h>

#include "daemon/configuration.h"
#include "daemon/events.h"
#include "daemon/guard.h"
#include "daemon/rpc.h"
#include "daemon/server.h"

struct methods;

/* The table for server_options; its context is the struct methods. */
extern const struct rpc_method methods_table[];

/* Reads the configuration again and takes it over; as configuration_reload. */
typedef int methods_reload(void *context, json_t **changes, struct settings_problem *problem);

/* The configuration is borrowed. `context` is for `reload`. */
int methods_new(struct methods **methods, struct event_base *base, struct events *events,
                struct configuration *configuration, methods_reload *reload, void *context);

/* Before the first call: both are borrowed. Calls before methods_set_server's are not possible. */
void methods_set_guard(struct methods *methods, struct guard *guard);
void methods_set_server(struct methods *methods, struct server *server);

/* What daemon.reexec asks for; it is answered before. */
void methods_on_reexec(struct methods *methods, void (*wanted)(void *context), void *context);

/* Fails what still waits. */
void methods_free(struct methods *methods);

/* For struct guard_callbacks. */
void methods_on_held(struct methods *methods, struct session *session);
void methods_on_not_held(struct methods *methods, struct session *session);
void methods_on_checked(struct methods *methods, struct session *session);
void methods_on_gone(struct methods *methods, struct session *session);

/* For server_options; the context is the struct methods. */
rpc_asked methods_on_asked;
rpc_ended methods_on_ended;
void methods_on_close(uint64_t connection, void *methods);

#endif
