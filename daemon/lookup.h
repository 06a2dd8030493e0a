/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what a caller names - a domid, a uuid or a name - to domains, with what xenstore says of them.
 *
 * Reads the store, so the answer comes later, on the loop thread. Nothing is cached: names change under our feet, and
 * the wrong guest frozen is worse than a round trip.
 */
#ifndef P2MGUARD_LOOKUP_H
#define P2MGUARD_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/agent.h"
#include "daemon/hypervisor.h"
#include "daemon/session.h"
#include "daemon/worker.h"

/* How much is read of a domain; each has what the one before it has. */
enum lookup_depth {
    LOOKUP_NAME,
    LOOKUP_TARGET,
    LOOKUP_EVERYTHING,
};

struct lookup_domain {
    struct hypervisor_domain domain;
    char name[SESSION_NAME_MAX]; /* "" when it has none that fits */
    bool has_target;             /* LOOKUP_TARGET */
    uint64_t target_kib;
    bool has_static_max; /* LOOKUP_EVERYTHING; so is what follows */
    uint64_t static_max_kib;
    struct agent_view agent;
    char memory_perms[STORE_PERMS_MAX], target_perms[STORE_PERMS_MAX]; /* "" when there is no such node */
};

/* `domains` is borrowed. Error: -ESRCH for a domain that does not exist, -ENOTCONN without xenstored. */
typedef void lookup_done(void *context, int error, const struct lookup_domain *domains, size_t count);

struct lookup;

/* Whether there is such a domain: 0, or an error as above. Blocks on the store: for programs without a worker. */
int lookup_exists(const struct worker_tools *tools, const char *wanted);

/*
 * Looks for one domain, or for all with a NULL `wanted`. Once begun it frees itself after `done`, which is called in
 * any case; on a large host it takes several turns at the worker.
 */
struct lookup *lookup_new(const char *wanted, enum lookup_depth depth, lookup_done *done, void *context);
void lookup_begin(struct lookup *lookup, struct worker *worker);

/* Of one that has not been begun. Accepts NULL. */
void lookup_free(struct lookup *lookup);

#endif
