/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is remembered about domains from one session to the next: when each was first seen, and the learned offset.
 *
 * Owns a table keyed by uuid, which a migrated guest keeps. It is bounded: domains that are gone are forgotten,
 * oldest first. Loop thread only.
 */
#ifndef P2MGUARD_DOMAINS_H
#define P2MGUARD_DOMAINS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"

struct domains;

struct domains *domains_new(void);
void domains_free(struct domains *domains);

/*
 * Looks at all domains there are, and shows each to `each` where there is one. The first look finds only old ones: they
 * were there before us.
 */
int domains_look(struct domains *domains, struct hypervisor *hypervisor,
                 void (*each)(void *context, const struct hypervisor_domain *domain), void *context);

/* Whether the guest was first seen less than a guest's boot ago, and did not come from another domain of this host. */
bool domains_is_young(const struct domains *domains, const char *uuid);

/* NULL when it was never learned; valid until the next call that changes the table. */
const int64_t *domains_offset_kib(const struct domains *domains, const char *uuid);
void domains_learn_offset(struct domains *domains, const char *uuid, int64_t offset_kib);

#endif
