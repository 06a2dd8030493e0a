/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/observation.h"

static const struct observation_rule_view *find(enum observation_step step, enum observation_event event)
{
    static struct observation_rule_view rule;

    for (size_t i = 0; i < observation_rule_count(); i++) {
        rule = observation_rule_at(i);
        if (rule.step == step && rule.event == event)
            return &rule;
    }
    return NULL;
}

static void every_rule_can_be_reached(void **state)
{
    (void)state;
    for (size_t i = 0; i < observation_rule_count(); i++) {
        struct observation_rule_view rule = observation_rule_at(i), first = *find(rule.step, rule.event);
        assert_string_equal(rule.action, first.action); /* no second row for the same event */
        assert_int_not_equal(rule.step, OBSERVATION_OVER);
    }
}

/* A domain that goes, and one that comes under guard, end an observation at once wherever it is. */
static void nothing_outlives_its_domain_or_stays_beside_a_session(void **state)
{
    (void)state;
    for (enum observation_step step = 0; step < OBSERVATION_OVER; step++) {
        const struct observation_rule_view *rule = find(step, OBSERVATION_GONE);
        assert_non_null(rule);
        assert_int_equal(rule->next, OBSERVATION_OVER);
        rule = find(step, OBSERVATION_GUARDED);
        assert_non_null(rule);
        assert_int_equal(rule->next, OBSERVATION_OVER);
    }
}

/* A helper that has ended is never missed, and what follows ends by itself. */
static void every_way_leads_to_the_end(void **state)
{
    (void)state;
    assert_int_equal(find(OBSERVATION_BASELINING, OBSERVATION_ENDED)->next, OBSERVATION_BASELINING);
    assert_int_equal(find(OBSERVATION_BASELINING, OBSERVATION_LOOKED)->next, OBSERVATION_WATCHING);
    assert_int_equal(find(OBSERVATION_WATCHING, OBSERVATION_ENDED)->next, OBSERVATION_CLOSING);
    assert_int_equal(find(OBSERVATION_CLOSING, OBSERVATION_LOOKED)->next, OBSERVATION_LINGERING);
    assert_int_equal(find(OBSERVATION_LINGERING, OBSERVATION_TIMEOUT)->next, OBSERVATION_OVER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_can_be_reached),
        cmocka_unit_test(nothing_outlives_its_domain_or_stays_beside_a_session),
        cmocka_unit_test(every_way_leads_to_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
