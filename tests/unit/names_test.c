/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/names.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The words are the protocol: this test repeats them, so that none is changed by accident. */
static void state_names_are_the_protocols(void **state)
{
    static const char *const words[] = {"freezing", "held", "failed", "thawing", "gone"};

    (void)state;
    assert_int_equal(sizeof words / sizeof *words, P2MG_STATE_COUNT);
    for (int i = 0; i < P2MG_STATE_COUNT; i++)
        assert_string_equal(p2mg_state_name((enum p2mg_state)i), words[i]);
}

static void verdict_names_are_the_protocols(void **state)
{
    (void)state;
    assert_string_equal(p2mg_verdict_name(P2MG_VERDICT_PROCEED), "proceed");
    assert_string_equal(p2mg_verdict_name(P2MG_VERDICT_RETRY), "retry");
    assert_string_equal(p2mg_verdict_name(P2MG_VERDICT_ABORT), "abort");
}

static void reason_names_are_the_protocols(void **state)
{
    static const char *const words[] = {"none",
                                        "unchanged",
                                        "not-held-yet",
                                        "tot-pages-changed",
                                        "generation-changed",
                                        "structure-changed",
                                        "physmap-changed",
                                        "target-changed",
                                        "above-target",
                                        "agent-thawed",
                                        "gate-opened",
                                        "observation-gap",
                                        "store-unreachable",
                                        "structure-unreadable",
                                        "attempts-exhausted",
                                        "freeze-timeout",
                                        "deadline",
                                        "grace-expired",
                                        "domain-gone",
                                        "domain-renamed",
                                        "under-guard",
                                        "guest-not-ready",
                                        "not-guardable",
                                        "agent-absent",
                                        "agent-refused",
                                        "agent-silent",
                                        "client-gone",
                                        "guest-resumed",
                                        "ended",
                                        "shutdown",
                                        "error"};

    (void)state;
    assert_int_equal(sizeof words / sizeof *words, P2MG_REASON_COUNT);
    for (int i = 0; i < P2MG_REASON_COUNT; i++)
        assert_string_equal(p2mg_reason_name((enum p2mg_reason)i), words[i]);
}

static void reasons_have_texts_without_full_stop(void **state)
{
    (void)state;
    for (int i = 0; i < P2MG_REASON_COUNT; i++) {
        const char *text = p2mg_reason_text((enum p2mg_reason)i);

        assert_true(strlen(text) > 5);
        assert_int_not_equal(text[strlen(text) - 1], '.');
    }
}

static void values_outside_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(p2mg_state_name(P2MG_STATE_COUNT), "unknown");
    assert_string_equal(p2mg_verdict_name(P2MG_VERDICT_COUNT), "unknown");
    assert_string_equal(p2mg_reason_name(P2MG_REASON_COUNT), "unknown");
    assert_string_equal(p2mg_reason_text(P2MG_REASON_COUNT), "unknown");
    assert_string_equal(p2mg_outcome_name(P2MG_OUTCOME_COUNT), "unknown");
    assert_string_equal(p2mg_require_name(P2MG_REQUIRE_COUNT), "unknown");
    assert_string_equal(p2mg_state_name((enum p2mg_state)7), "unknown");
}

static void outcomes_parse(void **state)
{
    (void)state;
    for (int i = 0; i < P2MG_OUTCOME_COUNT; i++) {
        enum p2mg_outcome outcome = P2MG_OUTCOME_COUNT;

        assert_int_equal(p2mg_outcome_parse(p2mg_outcome_name((enum p2mg_outcome)i), &outcome), 0);
        assert_int_equal(outcome, i);
    }
}

static void holds_are_the_protocols_and_parse(void **state)
{
    static const char *const words[] = {"connection", "detached", "retry", "suspended"};

    (void)state;
    assert_int_equal(sizeof words / sizeof *words, P2MG_HOLD_COUNT);
    for (int i = 0; i < P2MG_HOLD_COUNT; i++) {
        enum p2mg_hold hold = P2MG_HOLD_COUNT;

        assert_string_equal(p2mg_hold_name((enum p2mg_hold)i), words[i]);
        assert_int_equal(p2mg_hold_parse(words[i], &hold), 0);
        assert_int_equal(hold, i);
        assert_int_equal(p2mg_hold_parse("forever", &hold), -EINVAL);
    }
    assert_string_equal(p2mg_hold_name(P2MG_HOLD_COUNT), "unknown");
}

static void requires_parse(void **state)
{
    (void)state;
    for (int i = 0; i < P2MG_REQUIRE_COUNT; i++) {
        enum p2mg_require require = P2MG_REQUIRE_COUNT;

        assert_int_equal(p2mg_require_parse(p2mg_require_name((enum p2mg_require)i), &require), 0);
        assert_int_equal(require, i);
    }
}

static void other_words_do_not_parse(void **state)
{
    static const char *const words[] = {"", "Failed", "failed ", "fail", "gat", "gates", "\n"};
    enum p2mg_outcome outcome = P2MG_OUTCOME_FAILED;
    enum p2mg_require require = P2MG_REQUIRE_SETTLED;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        assert_int_equal(p2mg_outcome_parse(words[i], &outcome), -EINVAL);
        assert_int_equal(p2mg_require_parse(words[i], &require), -EINVAL);
    }
    assert_int_equal(outcome, P2MG_OUTCOME_FAILED);
    assert_int_equal(require, P2MG_REQUIRE_SETTLED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_names_are_the_protocols),
        cmocka_unit_test(verdict_names_are_the_protocols),
        cmocka_unit_test(reason_names_are_the_protocols),
        cmocka_unit_test(reasons_have_texts_without_full_stop),
        cmocka_unit_test(values_outside_are_unknown),
        cmocka_unit_test(outcomes_parse),
        cmocka_unit_test(requires_parse),
        cmocka_unit_test(holds_are_the_protocols_and_parse),
        cmocka_unit_test(other_words_do_not_parse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
