/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session's policy: what must hold before a guest counts as held, and how long anything may take.
 *
 * One table says each member's name, default and range; the control socket, the configuration file and the command
 * line all go through it, so that they cannot disagree.
 */
#ifndef P2MGUARD_PROTOCOL_POLICY_H
#define P2MGUARD_PROTOCOL_POLICY_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/names.h"

struct p2mg_policy {
    enum p2mg_require require;
    int64_t freeze_timeout_ms;
    int64_t quiet_ms;
    int64_t settle_ms;
    int64_t rest_ms;
    int64_t max_hold_ms;
    int64_t attempts;
    int64_t retry_grace_ms;
    int64_t retry_backoff_ms;
    int64_t agent_wait_ms;
    int64_t agent_lease_ms;
};

/* One numeric member. */
struct p2mg_policy_member {
    const char *name;
    size_t offset; /* of its int64_t in struct p2mg_policy */
    int64_t standard, least, most;
};

/* Ends with a member whose name is NULL. */
extern const struct p2mg_policy_member p2mg_policy_members[];

/* The documented defaults. */
void p2mg_policy_init(struct p2mg_policy *policy);

const struct p2mg_policy_member *p2mg_policy_find(const char *name);

int64_t p2mg_policy_get(const struct p2mg_policy *policy, const struct p2mg_policy_member *member);

/* -ERANGE, and nothing changed, when the value is outside the member's range. */
int p2mg_policy_set(struct p2mg_policy *policy, const struct p2mg_policy_member *member, int64_t value);

/* For sets of members: the bit of one; NULL is `require`. */
unsigned p2mg_policy_bit(const struct p2mg_policy_member *member);

/* Takes the members of this set from another policy. */
void p2mg_policy_take(struct p2mg_policy *policy, const struct p2mg_policy *from, unsigned members);

#endif
