/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Since when each domain's memory/target has been what it is.
 *
 * A toolstack reads the target for the new domain's configuration before it starts to save, and nothing tells a guard
 * that comes later what it read: but a target that has not changed for long enough is the one. Costs a watch for each
 * domain, and a reading for each change. Loop thread only; the readings are the worker's.
 */
#ifndef P2MGUARD_TARGETS_H
#define P2MGUARD_TARGETS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/worker.h"

struct targets;

int targets_new(struct targets **targets);

/* Once the worker has ended. Accepts NULL. */
void targets_free(struct targets *targets);

void targets_use(struct targets *targets, struct worker *worker);

/*
 * All domains there are, between begin and end; those that are not seen are forgotten. True for a domain that was not
 * there at the last look, which one of another uuid was not, whatever its number.
 */
void targets_begin(struct targets *targets);
bool targets_see(struct targets *targets, const struct hypervisor_domain *domain);
void targets_end(struct targets *targets);

/* The watch with this letter and the domid as its token fired. */
#define TARGETS_WATCH_LETTER 't'
void targets_touched(struct targets *targets, uint16_t domid);

/* The connection to xenstored is back, and nobody knows what was written meanwhile. */
void targets_back(struct targets *targets);

/*
 * A domain's target, and how long, at least, it has been that; 0 and 0 when it is not known. A change that is so new
 * that its event has not been handled is not known of.
 */
int64_t targets_steady_ms(const struct targets *targets, uint16_t domid, uint64_t *target_kib);

#endif
