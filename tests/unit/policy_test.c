/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <errno.h>

#include <cmocka.h>

#include "protocol/policy.h"

static void defaults_are_in_range(void **state)
{
    struct p2mg_policy policy;
    (void)state;

    p2mg_policy_init(&policy);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        assert_int_equal(p2mg_policy_get(&policy, member), member->standard);
        assert_int_equal(p2mg_policy_set(&policy, member, member->least), 0);
        assert_int_equal(p2mg_policy_set(&policy, member, member->most), 0);
        assert_int_equal(p2mg_policy_set(&policy, member, member->least - 1), -ERANGE);
        assert_int_equal(p2mg_policy_set(&policy, member, member->most + 1), -ERANGE);
        assert_int_equal(p2mg_policy_get(&policy, member), member->most);
        assert_ptr_equal(p2mg_policy_find(member->name), member);
    }
    assert_null(p2mg_policy_find("attempt"));
}

static void members_are_taken_as_asked(void **state)
{
    struct p2mg_policy policy, from, before;
    const struct p2mg_policy_member *attempts = p2mg_policy_find("attempts");
    unsigned all = p2mg_policy_bit(NULL);
    (void)state;

    memset(&policy, 0, sizeof(policy)); /* what lies between the members is compared as well */
    p2mg_policy_init(&policy);
    memcpy(&from, &policy, sizeof(from));
    memcpy(&before, &policy, sizeof(before));
    from.require = P2MG_REQUIRE_AGENT;
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        assert_int_equal(p2mg_policy_set(&from, member, member->most), 0);
        assert_int_equal(all & p2mg_policy_bit(member), 0);
        all |= p2mg_policy_bit(member);
    }
    p2mg_policy_take(&policy, &from, p2mg_policy_bit(attempts));
    assert_int_equal(policy.attempts, from.attempts);
    policy.attempts = before.attempts;
    assert_memory_equal(&policy, &before, sizeof(policy));
    p2mg_policy_take(&policy, &from, all);
    assert_memory_equal(&policy, &from, sizeof(policy));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_in_range),
        cmocka_unit_test(members_are_taken_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
