/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Domains that have just appeared, until their agents have introduced themselves.
 *
 * A guest that was migrated here wakes frozen, finds no request, thaws and says so. Nobody here asked it to; this
 * module sees it and tells operators (agent.arrived), so that a guest that did not thaw does not go unnoticed. It only
 * reads. Loop thread only.
 */
#ifndef P2MGUARD_NEWCOMERS_H
#define P2MGUARD_NEWCOMERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/events.h"
#include "daemon/hypervisor.h"
#include "daemon/worker.h"

struct newcomers;

/* All are borrowed; the worker is set later, for it calls back. */
int newcomers_new(struct newcomers **newcomers, struct event_base *base, struct events *events);

/* Once the worker has ended. Accepts NULL. */
void newcomers_free(struct newcomers *newcomers);

void newcomers_use(struct newcomers *newcomers, struct worker *worker);

/*
 * All domains there are, between begin and end, and whether each of them is new: was not there at the last look. Those
 * of the first look are no newcomers.
 */
void newcomers_begin(struct newcomers *newcomers);
void newcomers_see(struct newcomers *newcomers, const struct hypervisor_domain *domain, bool is_new);
void newcomers_end(struct newcomers *newcomers);

/* The watch with this letter and the domid as its token fired. */
#define NEWCOMERS_WATCH_LETTER 'g'
void newcomers_touched(struct newcomers *newcomers, uint16_t domid);

/* The connection to xenstored is back, and all watches are gone. */
void newcomers_back(struct newcomers *newcomers);

#endif
