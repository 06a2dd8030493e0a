/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/history.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define BEGUN_MS 5000000
#define MOST_BYTES 8192

static int make(void **state)
{
    *state = history_new(BEGUN_MS);
    return *state ? 0 : -1;
}

static int unmake(void **state)
{
    history_free(*state);
    return 0;
}

static void test_begins_small(void **state)
{
    const struct history *history = *state;
    size_t count;
    const struct history_span *spans = history_spans(history, &count);

    assert_int_equal(count, 1);
    assert_int_equal(spans[0].phase, HISTORY_GATING);
    assert_int_equal(spans[0].at_ms, 0);
    assert_true(history_size(history) < 512);
    history_samples(history, HISTORY_TOT, &count);
    assert_int_equal(count, 0);
    assert_false(history->thinned);
}

static void test_only_changes_are_written_down(void **state)
{
    struct history *history = *state;
    static const uint64_t values[] = {7, 7, 7, 8, 8, 7};
    static const uint32_t at_ms[] = {0, 30, 50};
    size_t count;

    for (size_t i = 0; i < 6; i++)
        history_sample(history, HISTORY_PIN, BEGUN_MS + (int64_t)i * 10, values[i]);
    const struct history_sample *samples = history_samples(history, HISTORY_PIN, &count);
    assert_int_equal(count, 3);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(samples[i].at_ms, at_ms[i]);
}

/* What never goes: the first, the last, and the extremes, wherever they were. */
static void test_extremes_survive_thinning(void **state)
{
    struct history *history = *state;
    bool smallest = false, largest = false;
    size_t count;

    for (uint32_t i = 0; i < 100000; i++) {
        uint64_t value = 1000 + i % 7;
        if (i == 777)
            value = 3;
        else if (i == 31234)
            value = 1 << 20;
        history_sample(history, HISTORY_TOT, BEGUN_MS + i, value);
    }
    const struct history_sample *samples = history_samples(history, HISTORY_TOT, &count);
    assert_true(count > HISTORY_TOT_MOST / 3 && count <= HISTORY_TOT_MOST);
    assert_true(history->thinned);
    assert_int_equal(samples[0].at_ms, 0);
    assert_int_equal(samples[count - 1].at_ms, 99999);
    assert_int_equal(samples[count - 1].value, 1000 + 99999 % 7);
    for (size_t i = 0; i < count; i++) {
        assert_true(i == 0 || samples[i].at_ms > samples[i - 1].at_ms);
        smallest |= samples[i].value == 3 && samples[i].at_ms == 777;
        largest |= samples[i].value == 1 << 20 && samples[i].at_ms == 31234;
    }
    assert_true(smallest);
    assert_true(largest);
}

static void test_thinning_is_spread(void **state)
{
    struct history *history = *state;
    size_t count, early = 0;

    for (uint32_t i = 0; i < 10000; i++)
        history_sample(history, HISTORY_TOT, BEGUN_MS + i, i);
    const struct history_sample *samples = history_samples(history, HISTORY_TOT, &count);
    for (size_t i = 0; i < count; i++)
        early += samples[i].at_ms < 5000;
    assert_true(early > count / 4);
}

static void test_time_spent_stays_exact(void **state)
{
    struct history *history = *state;
    int64_t now_ms = BEGUN_MS;
    size_t count;

    for (int i = 0; i < 1000; i++) {
        history_enter(history, HISTORY_PINNING, now_ms += 2);
        history_enter(history, HISTORY_SETTLING, now_ms += 5);
        history_enter(history, HISTORY_GATING, now_ms += 7);
    }
    history_enter(history, HISTORY_HELD, now_ms += 10);
    assert_int_equal(history_spent_ms(history, HISTORY_GATING, now_ms), 2 + 999 * 2 + 10);
    assert_int_equal(history_spent_ms(history, HISTORY_PINNING, now_ms), 5000);
    assert_int_equal(history_spent_ms(history, HISTORY_SETTLING, now_ms), 7000);
    assert_int_equal(history_spent_ms(history, HISTORY_HELD, now_ms + 123), 123);
    const struct history_span *spans = history_spans(history, &count);
    assert_true(count <= HISTORY_SPANS_MOST);
    assert_int_equal(spans[0].at_ms, 0);
    assert_int_equal(spans[count - 1].phase, HISTORY_HELD);
    for (size_t i = 1; i < count; i++) {
        assert_true(spans[i].at_ms >= spans[i - 1].at_ms);
        assert_int_not_equal(spans[i].phase, spans[i - 1].phase);
    }
}

static struct history_event event(uint8_t kind, uint8_t reason, uint64_t number)
{
    return (struct history_event){.kind = kind, .reason = reason, .numbers = {number, HISTORY_NO_NUMBER}};
}

static void test_time_ends_with_the_session(void **state)
{
    struct history *history = *state;
    size_t count;

    history_enter(history, HISTORY_THAWING, BEGUN_MS + 40);
    history_enter(history, HISTORY_GONE, BEGUN_MS + 50);
    assert_int_equal(history_spent_ms(history, HISTORY_THAWING, BEGUN_MS + 9000), 10);
    assert_int_equal(history_spent_ms(history, HISTORY_GONE, BEGUN_MS + 9000), 0);
    history_note(history, event(1, 0, 0), BEGUN_MS + 51);
    const struct history_event *events = history_events(history, &count);
    assert_int_equal(count, 1);
    assert_int_equal(events[0].at_ms, 50);
}

static void test_floods_of_events_are_counted(void **state)
{
    struct history *history = *state;
    uint32_t deferred = 0, restored = 0;
    size_t count;

    history_note(history, event(1, 0, 0), BEGUN_MS);
    for (uint32_t i = 0; i < 10000; i++) {
        history_note(history, event(2, 0, i), BEGUN_MS + i);
        history_note(history, event(3, 0, i), BEGUN_MS + i);
        if (i == 5000)
            history_note(history, event(4, 9, 0), BEGUN_MS + i);
    }
    const struct history_event *events = history_events(history, &count);
    assert_true(count <= HISTORY_EVENTS_MOST);
    assert_int_equal(events[0].kind, 1);
    bool kept = false;
    for (size_t i = 0; i < count; i++) {
        deferred += events[i].kind == 2 ? events[i].count : 0;
        restored += events[i].kind == 3 ? events[i].count : 0;
        kept |= events[i].kind == 4 && events[i].at_ms == 5000;
        assert_true(events[i].since_ms <= events[i].at_ms);
        assert_true(i == 0 || events[i].at_ms >= events[i - 1].at_ms);
    }
    assert_int_equal(deferred, 10000);
    assert_int_equal(restored, 10000);
    assert_true(kept);
    assert_int_equal(events[count - 1].numbers[0], 9999);
}

static void test_events_that_are_all_different(void **state)
{
    struct history *history = *state;
    size_t count;

    for (uint8_t kind = 0; kind < 200; kind++)
        history_note(history, event(kind, 0, 0), BEGUN_MS + kind);
    const struct history_event *events = history_events(history, &count);
    assert_int_equal(count, HISTORY_EVENTS_MOST);
    assert_int_equal(events[0].kind, 0);
    assert_int_equal(events[1].kind, 200 - HISTORY_EVENTS_MOST + 1);
    assert_int_equal(events[count - 1].kind, 199);
}

/* Whatever is done to it. */
static void test_memory_is_bounded(void **state)
{
    struct history *history = *state;

    for (uint32_t i = 0; i < 20000; i++) {
        for (int figure = 0; figure < HISTORY_FIGURES; figure++)
            history_sample(history, (enum history_figure)figure, BEGUN_MS + i, i * 2654435761U);
        history_enter(history, (enum history_phase)(i % HISTORY_GONE), BEGUN_MS + i);
        history_note(history, event((uint8_t)(i * 7), (uint8_t)(i % 31), i), BEGUN_MS + i);
    }
    assert_true(history_size(history) <= MOST_BYTES);
}

static void test_times_that_cannot_be(void **state)
{
    struct history *history = *state;
    size_t count;

    history_sample(history, HISTORY_TOT, BEGUN_MS - 5, 1);
    history_sample(history, HISTORY_TOT, BEGUN_MS + INT64_C(0x200000000), 2);
    const struct history_sample *samples = history_samples(history, HISTORY_TOT, &count);
    assert_int_equal(samples[0].at_ms, 0);
    assert_int_equal(samples[1].at_ms, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_begins_small, make, unmake),
        cmocka_unit_test_setup_teardown(test_only_changes_are_written_down, make, unmake),
        cmocka_unit_test_setup_teardown(test_extremes_survive_thinning, make, unmake),
        cmocka_unit_test_setup_teardown(test_thinning_is_spread, make, unmake),
        cmocka_unit_test_setup_teardown(test_time_spent_stays_exact, make, unmake),
        cmocka_unit_test_setup_teardown(test_time_ends_with_the_session, make, unmake),
        cmocka_unit_test_setup_teardown(test_floods_of_events_are_counted, make, unmake),
        cmocka_unit_test_setup_teardown(test_events_that_are_all_different, make, unmake),
        cmocka_unit_test_setup_teardown(test_memory_is_bounded, make, unmake),
        cmocka_unit_test_setup_teardown(test_times_that_cannot_be, make, unmake),
    };

    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
