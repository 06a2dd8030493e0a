/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/verdict.h"

static const struct verdict_facts well = {
    .state = P2MG_STATE_HELD, .longest_gap_ms = 1000, .max_gap_ms = 1000, .attempt = 1, .attempts = 3};

static void expect(const struct verdict_facts *facts, enum p2mg_verdict verdict, enum p2mg_reason reason)
{
    struct verdict given = verdict_judge(facts);

    assert_string_equal(p2mg_verdict_name(given.verdict), p2mg_verdict_name(verdict));
    assert_string_equal(p2mg_reason_name(given.reason), p2mg_reason_name(reason));
}

static void nothing_changed_is_proceed(void **state)
{
    (void)state;
    expect(&well, P2MG_VERDICT_PROCEED, P2MG_REASON_UNCHANGED);
}

/* Every single thing that is not well, and all of them together, keep from proceed. */
static void proceed_needs_all_to_be_well(void **state)
{
    (void)state;
    for (unsigned bits = 1; bits < 8192; bits++) {
        struct verdict_facts facts = well;
        facts.tot_pages_changed = bits & 1;
        facts.gate_opened = bits & 2;
        facts.store_unreachable = bits & 4;
        if (bits & 8)
            facts.longest_gap_ms = 1001;
        facts.unwatched = bits & 32;
        facts.generation_changed = bits & 64;
        facts.structure_changed = bits & 128;
        facts.physmap_changed = bits & 256;
        facts.structure_unreadable = bits & 512;
        facts.agent_thawed = bits & 1024;
        facts.target_changed = bits & 2048;
        facts.above_target = bits & 4096;
        if (bits & 16)
            facts.state = P2MG_STATE_FREEZING;
        assert_int_equal(verdict_judge(&facts).verdict, P2MG_VERDICT_RETRY);
        facts.attempt = 3;
        expect(&facts, P2MG_VERDICT_ABORT, P2MG_REASON_ATTEMPTS_EXHAUSTED);
    }
}

static void each_trouble_has_its_reason(void **state)
{
    struct verdict_facts facts = well;
    (void)state;

    facts.longest_gap_ms = 1001;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_OBSERVATION_GAP);
    facts.structure_unreadable = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_STRUCTURE_UNREADABLE);
    facts.store_unreachable = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_STORE_UNREACHABLE);
    facts.gate_opened = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_GATE_OPENED);
    facts.above_target = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_ABOVE_TARGET);
    facts.target_changed = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_TARGET_CHANGED);
    facts.physmap_changed = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_PHYSMAP_CHANGED);
    facts.structure_changed = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_STRUCTURE_CHANGED);
    facts.generation_changed = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_GENERATION_CHANGED);
    facts.tot_pages_changed = true;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_TOT_PAGES_CHANGED);
    facts.state = P2MG_STATE_FREEZING;
    expect(&facts, P2MG_VERDICT_RETRY, P2MG_REASON_NOT_HELD_YET);
}

static void all_that_speaks_against_proceed_is_told(void **state)
{
    struct verdict_facts facts = well;
    (void)state;

    assert_int_equal(verdict_against(&facts, 0), P2MG_REASON_NONE);
    facts.longest_gap_ms = 1001;
    facts.generation_changed = true;
    facts.attempt = facts.attempts;
    expect(&facts, P2MG_VERDICT_ABORT, P2MG_REASON_ATTEMPTS_EXHAUSTED);
    assert_int_equal(verdict_against(&facts, 0), P2MG_REASON_GENERATION_CHANGED);
    assert_int_equal(verdict_against(&facts, 1), P2MG_REASON_OBSERVATION_GAP);
    assert_int_equal(verdict_against(&facts, 2), P2MG_REASON_NONE);
}

static void what_is_over_is_aborted_with_its_reason(void **state)
{
    static const enum p2mg_state over[] = {P2MG_STATE_FAILED, P2MG_STATE_THAWING, P2MG_STATE_GONE};
    (void)state;

    for (size_t i = 0; i < 3; i++) {
        struct verdict_facts facts = well;
        facts.state = over[i];
        facts.ended_by = P2MG_REASON_DOMAIN_GONE;
        expect(&facts, P2MG_VERDICT_ABORT, P2MG_REASON_DOMAIN_GONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_changed_is_proceed),
        cmocka_unit_test(proceed_needs_all_to_be_well),
        cmocka_unit_test(each_trouble_has_its_reason),
        cmocka_unit_test(all_that_speaks_against_proceed_is_told),
        cmocka_unit_test(what_is_over_is_aborted_with_its_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
