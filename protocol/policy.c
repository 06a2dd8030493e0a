/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/policy.h"

#include <errno.h>
#include <string.h>

#define MEMBER(field, standard, least, most)                                                                           \
    {                                                                                                                  \
#field, offsetof(struct p2mg_policy, field), standard, least, most                                             \
    }

const struct p2mg_policy_member p2mg_policy_members[] = {
    MEMBER(freeze_timeout_ms, 60000, 100, 3600000),
    MEMBER(quiet_ms, 300, 20, 60000),
    MEMBER(settle_ms, 500, 20, 60000),
    MEMBER(rest_ms, 2000, 0, 3600000),
    MEMBER(max_hold_ms, 600000, 1000, 86400000),
    MEMBER(attempts, 3, 1, 100),
    MEMBER(retry_grace_ms, 30000, 0, 3600000),
    MEMBER(retry_backoff_ms, 200, 0, 60000),
    MEMBER(agent_wait_ms, 1000, 0, 3600000),
    MEMBER(agent_lease_ms, 10000, 1000, 3600000),
    {NULL, 0, 0, 0, 0},
};

static int64_t *policy_field(struct p2mg_policy *policy, const struct p2mg_policy_member *member)
{
    return (int64_t *)(void *)((char *)policy + member->offset);
}

void p2mg_policy_init(struct p2mg_policy *policy)
{
    policy->require = P2MG_REQUIRE_SETTLED;
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        *policy_field(policy, member) = member->standard;
}

const struct p2mg_policy_member *p2mg_policy_find(const char *name)
{
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        if (strcmp(member->name, name) == 0)
            return member;
    return NULL;
}

int64_t p2mg_policy_get(const struct p2mg_policy *policy, const struct p2mg_policy_member *member)
{
    return *(const int64_t *)(const void *)((const char *)policy + member->offset);
}

int p2mg_policy_set(struct p2mg_policy *policy, const struct p2mg_policy_member *member, int64_t value)
{
    if (value < member->least || value > member->most)
        return -ERANGE;
    *policy_field(policy, member) = value;
    return 0;
}

unsigned p2mg_policy_bit(const struct p2mg_policy_member *member)
{
    return member ? 2u << (member - p2mg_policy_members) : 1u;
}

void p2mg_policy_take(struct p2mg_policy *policy, const struct p2mg_policy *from, unsigned members)
{
    if (members & p2mg_policy_bit(NULL))
        policy->require = from->require;
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        if (members & p2mg_policy_bit(member))
            *policy_field(policy, member) = p2mg_policy_get(from, member);
}
