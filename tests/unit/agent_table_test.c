/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks the table of client/agent/agent.c: what must be true of it whatever it is changed to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/agent/agent.h"

/* The row for an event in a step, the last one (which must have no guard) when there are several. */
static bool find(enum agent_step step, enum agent_event event, struct agent_rule_view *found)
{
    bool any = false;

    for (size_t i = 0; i < agent_rule_count(); i++) {
        struct agent_rule_view rule = agent_rule_at(i);
        if (rule.step != step || rule.event != event)
            continue;
        if (any)
            assert_non_null(found->guard);
        *found = rule;
        any = true;
    }
    return any;
}

static struct agent_rule_view rule_for(enum agent_step step, enum agent_event event)
{
    struct agent_rule_view rule;

    assert_true(find(step, event, &rule));
    return rule;
}

static bool is_freezing(enum agent_step step)
{
    return step == AGENT_SETTLING || step == AGENT_HOOKING || step == AGENT_FROZEN || step == AGENT_ASKING;
}

static void every_event_has_a_reaction_in_every_step(void **state)
{
    (void)state;

    for (enum agent_step step = 0; step < AGENT_STEP_COUNT; step++)
        for (enum agent_event event = 0; event < AGENT_EVENT_COUNT; event++)
            assert_null(rule_for(step, event).guard);
}

static void ignoring_stays_where_it_is(void **state)
{
    (void)state;

    for (size_t i = 0; i < agent_rule_count(); i++) {
        struct agent_rule_view rule = agent_rule_at(i);
        if (strcmp(rule.action, "ignore") == 0)
            assert_int_equal(rule.step, rule.next);
    }
}

/* Release, lease and the program's end lead to a thaw from every step that has changed something; a failure as well. */
static void every_freeze_can_be_ended(void **state)
{
    static const enum agent_event ends[] = {AGENT_ON_RELEASE, AGENT_ON_LEASE, AGENT_ON_STOP, AGENT_ON_FAILED};
    (void)state;

    for (enum agent_step step = 0; step < AGENT_STEP_COUNT; step++)
        for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]) && is_freezing(step); i++)
            assert_int_equal(rule_for(step, ends[i]).next, AGENT_THAWING);
}

/* From every step: the lease's end, and then the hooks', leave nothing frozen. */
static void a_lease_that_ends_leads_to_thawed(void **state)
{
    (void)state;

    for (enum agent_step step = 0; step < AGENT_STEP_COUNT; step++) {
        enum agent_step next = rule_for(step, AGENT_ON_LEASE).next;
        if (next != AGENT_THAWED)
            assert_int_equal(rule_for(next, AGENT_ON_HOOKS).next, AGENT_THAWED);
    }
}

static void a_thaw_is_never_given_up(void **state)
{
    (void)state;

    for (enum agent_event event = 0; event < AGENT_EVENT_COUNT; event++) {
        enum agent_step next = rule_for(AGENT_THAWING, event).next;
        assert_true(next == AGENT_THAWING || (next == AGENT_THAWED && event == AGENT_ON_HOOKS));
    }
    assert_string_equal(rule_for(AGENT_THAWING, AGENT_ON_TICK).action, "release_memory");
    assert_string_equal(rule_for(AGENT_THAWING, AGENT_ON_HOOKS).action, "finish");
}

/* Frozen is said only where the balloon driver was just found at rest, and the hooks have been run. */
static void frozen_is_reached_one_way(void **state)
{
    (void)state;

    for (size_t i = 0; i < agent_rule_count(); i++) {
        struct agent_rule_view rule = agent_rule_at(i);
        if (rule.next != AGENT_FROZEN || rule.step == AGENT_FROZEN)
            continue;
        assert_int_equal(rule.step, AGENT_SETTLING);
        assert_int_equal(rule.event, AGENT_ON_STILL);
        assert_string_equal(rule.guard, "hooked");
        assert_string_equal(rule.action, "say_frozen");
    }
}

/* A journal that was found is undone before anything else is done, and a freeze begins only where nothing is changed.
 */
static void what_was_left_comes_first(void **state)
{
    (void)state;

    for (size_t i = 0; i < agent_rule_count(); i++) {
        struct agent_rule_view rule = agent_rule_at(i);
        if (rule.step == AGENT_STARTING)
            assert_true(rule.next == AGENT_STARTING || rule.next == AGENT_THAWING);
        if (strcmp(rule.action, "begin") == 0)
            assert_int_equal(rule.step, AGENT_THAWED);
        assert_false(rule.next == AGENT_STARTING && rule.step != AGENT_STARTING);
    }
    assert_int_equal(rule_for(AGENT_STARTING, AGENT_ON_TICK).next, AGENT_THAWING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_event_has_a_reaction_in_every_step),
        cmocka_unit_test(ignoring_stays_where_it_is),
        cmocka_unit_test(every_freeze_can_be_ended),
        cmocka_unit_test(a_lease_that_ends_leads_to_thawed),
        cmocka_unit_test(a_thaw_is_never_given_up),
        cmocka_unit_test(frozen_is_reached_one_way),
        cmocka_unit_test(what_was_left_comes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
