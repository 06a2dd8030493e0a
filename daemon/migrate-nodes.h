/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Callers that speak only xenstore: /tool/p2mguard/migrate/DOMID, as protocol/xenstore-paths.pandoc has it.
 *
 * Owns what is known of each of these nodes: what was asked there, the session that was begun for it, and what it was
 * answered last. Requests and answers are jobs of the worker (migrate-store.h); what is done about them is one table,
 * here. One request of a node is taken at a time, of all nodes together a few: a flood of them is worked off without
 * keeping the sessions' own jobs waiting. Loop thread only.
 */
#ifndef P2MGUARD_MIGRATE_NODES_H
#define P2MGUARD_MIGRATE_NODES_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/guard.h"
#include "daemon/settings.h"

struct migrate_nodes;

/*
 * `settings` is borrowed: its policy is what callers get that say nothing else. `settled` is called whenever
 * migrate_nodes_are_settled() becomes true.
 */
int migrate_nodes_new(struct migrate_nodes **nodes, struct event_base *base, const struct settings *settings,
                      void (*settled)(void *context), void *context);

/* Once the guard's worker has ended. Accepts NULL. */
void migrate_nodes_free(struct migrate_nodes *nodes);

/* Before all that follows; borrowed. */
void migrate_nodes_set_guard(struct migrate_nodes *nodes, struct guard *guard);

/* Begins to serve, with what was asked while nobody did. Where it does not serve it removes the folder instead. */
void migrate_nodes_start(struct migrate_nodes *nodes, bool serves);

/* Takes no more requests: those that come now are the next daemon's. */
void migrate_nodes_stop(struct migrate_nodes *nodes);

/* False while an answer is on its way to the store. */
bool migrate_nodes_are_settled(const struct migrate_nodes *nodes);

/* Before migrate_nodes_start: of the sessions that an earlier program has begun, those that it has begun for callers.
 */
void migrate_nodes_take_over(struct migrate_nodes *nodes);

/* For struct guard_callbacks. */
void migrate_nodes_on_touched(struct migrate_nodes *nodes, uint16_t domid);
void migrate_nodes_on_back(struct migrate_nodes *nodes);
void migrate_nodes_on_domains(struct migrate_nodes *nodes);
void migrate_nodes_on_observed(struct migrate_nodes *nodes);
void migrate_nodes_on_held(struct migrate_nodes *nodes, struct session *session);
void migrate_nodes_on_checked(struct migrate_nodes *nodes, struct session *session);
void migrate_nodes_on_thawing(struct migrate_nodes *nodes, struct session *session);
void migrate_nodes_on_gone(struct migrate_nodes *nodes, struct session *session);

#endif
