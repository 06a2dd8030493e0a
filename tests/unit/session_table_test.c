/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Walks the table of session.c: what must be true of it whatever it is changed to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/session.h"

/* The move for an event in a step, the last row (which must have no guard) counting when none is said to apply. */
static bool find(enum session_step step, enum session_event event, enum session_step *next)
{
    bool found = false;

    for (size_t i = 0; i < session_rule_count(); i++) {
        struct session_rule_view rule = session_rule_at(i);
        if (rule.step == step && rule.event == event) {
            *next = rule.next;
            found = true;
        }
    }
    return found;
}

static bool is_freezing(enum session_step step)
{
    return step <= STEP_SURVEYING || step == STEP_BACKOFF;
}

static void every_live_step_can_be_stopped(void **state)
{
    enum session_step next;
    (void)state;

    for (enum session_step step = STEP_GATING; step <= STEP_BACKOFF; step++) {
        assert_true(find(step, EVENT_STOP, &next));
        assert_int_equal(next, STEP_THAWING);
        assert_true(find(step, EVENT_GONE, &next));
        assert_int_equal(next, STEP_THAWING);
    }
}

static void freezing_always_ends(void **state)
{
    enum session_step next;
    (void)state;

    for (enum session_step step = STEP_GATING; step < STEP_COUNT; step++) {
        if (!is_freezing(step))
            continue;
        assert_true(find(step, EVENT_TIMEOUT, &next));
        assert_int_equal(next, STEP_THAWING);
        assert_true(find(step, EVENT_FAILED, &next));
        assert_int_equal(next, STEP_THAWING);
    }
}

/* Nothing is called gone before it was put back, and putting back is never given up. */
static void only_a_finished_thaw_is_gone(void **state)
{
    enum session_step next;
    (void)state;

    for (size_t i = 0; i < session_rule_count(); i++) {
        struct session_rule_view rule = session_rule_at(i);
        assert_int_not_equal(rule.step, STEP_GONE);
        if (rule.next == STEP_GONE) {
            assert_int_equal(rule.step, STEP_THAWING);
            assert_int_equal(rule.event, EVENT_DONE);
        }
        if (rule.step == STEP_THAWING)
            assert_true(rule.next == STEP_THAWING || rule.next == STEP_GONE);
    }
    assert_true(find(STEP_THAWING, EVENT_FAILED, &next));
    assert_int_equal(next, STEP_THAWING);
    assert_true(find(STEP_THAWING, EVENT_TIMER, &next));
}

/*
 * Held is only reached with a survey that stands, which is only made of a baseline that was found to hold; or without
 * one by those who asked for the gate alone.
 */
static void held_needs_a_baseline(void **state)
{
    (void)state;
    for (size_t i = 0; i < session_rule_count(); i++) {
        struct session_rule_view rule = session_rule_at(i);
        if (rule.next == STEP_HELD && rule.step != STEP_HELD) {
            assert_int_equal(rule.step, STEP_SURVEYING);
            assert_int_equal(rule.event, EVENT_SURVEYED);
            assert_true(strcmp(rule.guard, "survey_stands") == 0 || strcmp(rule.guard, "needs_gate_only") == 0);
        }
        if (rule.next == STEP_SURVEYING && rule.step != STEP_SURVEYING) {
            assert_int_equal(rule.step, STEP_BASELINING);
            assert_string_equal(rule.guard, "baseline_holds");
        }
    }
}

/* Rows after one without a guard could never apply. */
static void no_row_is_hidden(void **state)
{
    (void)state;
    for (size_t i = 0; i < session_rule_count(); i++)
        for (size_t j = i + 1; j < session_rule_count(); j++) {
            struct session_rule_view first = session_rule_at(i), second = session_rule_at(j);
            if (first.step == second.step && first.event == second.event && !first.guard)
                assert_string_equal(first.action, "give_up_waiting"); /* stands before the row for all of freezing */
        }
}

/* Every step can be left, and every step is reached. */
static void all_steps_are_on_the_way(void **state)
{
    bool reached[STEP_COUNT] = {[STEP_GATING] = true};
    (void)state;

    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < session_rule_count(); i++) {
            struct session_rule_view rule = session_rule_at(i);
            if (reached[rule.step] && !reached[rule.next])
                reached[rule.next] = more = true;
        }
    }
    for (int step = 0; step < STEP_COUNT; step++)
        assert_true(reached[step]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_live_step_can_be_stopped),
        cmocka_unit_test(freezing_always_ends),
        cmocka_unit_test(only_a_finished_thaw_is_gone),
        cmocka_unit_test(held_needs_a_baseline),
        cmocka_unit_test(no_row_is_hidden),
        cmocka_unit_test(all_steps_are_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
