/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All sessions there are: finding them, having them looked at, and putting back what an earlier daemon left.
 *
 * Owns the sessions, a short memory of those that are gone, the poller and the worker; turns the worker's watch events
 * into calls on sessions and observations. Loop thread only.
 */
#ifndef P2MGUARD_GUARD_H
#define P2MGUARD_GUARD_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/domains.h"
#include "daemon/events.h"
#include "daemon/helpers.h"
#include "daemon/hypervisor.h"
#include "daemon/observation.h"
#include "daemon/poller.h"
#include "daemon/session.h"
#include "daemon/worker.h"

struct guard;

struct guard_settings {
    struct poller_settings polling;
    size_t max_sessions; /* and as many observations */
    enum helpers_watch watch_helpers;
};

/* What the guard tells its owner. The session callbacks are struct session_host's. */
struct guard_callbacks {
    void (*held)(void *context, struct session *session);
    void (*not_held)(void *context, struct session *session);
    void (*checked)(void *context, struct session *session);
    void (*thawing)(void *context, struct session *session);
    void (*gone)(void *context, struct session *session); /* still readable, and for a while after */
    void (*recovered)(void *context);             /* the journals of an earlier daemon are put back; told once */
    void (*changed)(void *context);               /* the number of sessions in some state */
    void (*back)(void *context);                  /* the connection to xenstored, once more, and all watches are gone */
    void (*domains)(void *context);               /* one has come or gone */
    void (*observed)(void *context);              /* sessions were looked at */
    void (*asked)(void *context, uint16_t domid); /* a node with the watch letter of migrate-work.h was touched */
    void *context;
};

int guard_new(struct guard **guard, struct event_base *base, struct events *events,
              const struct guard_settings *settings, const struct guard_callbacks *callbacks);

/* Frees everything; what is still under guard stays so, and its journal is what the next daemon puts back. */
void guard_free(struct guard *guard);

void guard_apply(struct guard *guard, const struct guard_settings *settings);

/*
 * Starts a session. -ESRCH: no such domain; -EBUSY: under guard already, *session is that session; -ENOSPC: too many
 * sessions; -EPERM: dom0; -EACCES: options->forbidden.
 */
int guard_begin(struct guard *guard, uint16_t domid, const struct session_options *options, struct session **session);

/* By id, among those alive and those remembered; NULL when there is none. */
struct session *guard_find(struct guard *guard, const char *id);

/* The live session of a domain, or NULL. */
struct session *guard_find_domain(struct guard *guard, uint16_t domid);

/* The live sessions in the order in which they began: the first for NULL. */
struct session *guard_next(struct guard *guard, const struct session *session);

/* Those remembered, the one that was gone last first; NULL when there are no more. */
struct session *guard_gone(struct guard *guard, size_t index);

size_t guard_count(const struct guard *guard, enum p2mg_state state);
size_t guard_live(const struct guard *guard);

/*
 * From one program to the next (reexec.h). All sessions, as the next one is to have them, who must all be at peace;
 * NULL for want of memory. What was saved is taken over once xenstored can be asked, before `recovered` is called.
 */
bool guard_is_at_peace(const struct guard *guard);
json_t *guard_save(const struct guard *guard);
void guard_take_over(struct guard *guard, json_t *saved);

/* Stops the sessions that live with this connection. */
void guard_connection_closed(struct guard *guard, uint64_t connection);

/* Stops all sessions and refuses new ones. */
void guard_stop_all(struct guard *guard, enum p2mg_reason reason);

struct worker *guard_worker(struct guard *guard);
struct hypervisor *guard_hypervisor(struct guard *guard);
struct surveyor *guard_surveyor(struct guard *guard);
const struct domains *guard_domains(const struct guard *guard);

/* As targets_steady_ms. */
int64_t guard_target_steady_ms(const struct guard *guard, uint16_t domid, uint64_t *target_kib);

/* Migrations that nobody announced, and how they are found. */
struct observations *guard_observations(struct guard *guard);
enum helpers_watch guard_mechanism(const struct guard *guard);

/* "connected", "stalled" (it has not answered for a while) or "lost". */
const char *guard_store_state(struct guard *guard);

#endif
