/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/metrics.h"

static const struct metrics_sample sample = {.version = "1.2.3",
                                             .sessions = {[P2MG_STATE_FREEZING] = 1, [P2MG_STATE_HELD] = 2},
                                             .longest_hold_ms = 61005,
                                             .migrations = 3,
                                             .connections = 4,
                                             .store_connected = 1,
                                             .store_round_trips = UINT64_MAX,
                                             .store_conflicts = 6,
                                             .resident_bytes = 7,
                                             .open_files = 8};

static int begin(void **state)
{
    (void)state;
    metrics_start();
    return 0;
}

/* How often a line is on the page. */
static size_t lines_like(enum metrics_format format, const char *line)
{
    char *page = metrics_write(format, &sample), *rest, *each;
    size_t count = 0;

    assert_non_null(page);
    for (each = strtok_r(page, "\n", &rest); each; each = strtok_r(NULL, "\n", &rest))
        count += strcmp(each, line) == 0;
    free(page);
    return count;
}

static void expect(const char *line)
{
    if (lines_like(METRICS_OPENMETRICS, line) != 1 || lines_like(METRICS_PROMETHEUS, line) != 1)
        fail_msg("not once in either format: %s", line);
}

static void expect_none(const char *line)
{
    if (lines_like(METRICS_OPENMETRICS, line) || lines_like(METRICS_PROMETHEUS, line))
        fail_msg("there is: %s", line);
}

static void a_sample_is_written(void **state)
{
    (void)state;
    expect("p2mguard_up 1");
    expect("p2mguard_build_info{version=\"1.2.3\"} 1");
    expect("p2mguard_sessions{state=\"freezing\"} 1");
    expect("p2mguard_sessions{state=\"held\"} 2");
    expect("p2mguard_sessions{state=\"thawing\"} 0");
    expect_none("p2mguard_sessions{state=\"gone\"} 0");
    expect("p2mguard_longest_hold_seconds 61.005");
    expect("p2mguard_migrations 3");
    expect("p2mguard_connections 4");
    expect("p2mguard_store_connected 1");
    expect("p2mguard_store_round_trips_total 18446744073709551615");
    expect("p2mguard_store_transactions_retried_total 6");
    expect("p2mguard_process_resident_memory_bytes 7");
    expect("p2mguard_process_open_fds 8");
}

static void counters_count(void **state)
{
    static const char *const names[METRICS_COUNTERS] = {"sessions_begun",    "retries",        "deferred_targets",
                                                        "caps_restored",     "gates_restored", "restore_failures",
                                                        "domains_recovered", "store_losses",   "polls",
                                                        "poll_overruns",     "poll_failures",  "audit_refusals"};
    char line[128];

    (void)state;
    for (unsigned i = 0; i < METRICS_COUNTERS; i++)
        for (unsigned times = 0; times <= i; times++)
            metrics_count((enum metrics_counter)i);
    for (unsigned i = 0; i < METRICS_COUNTERS; i++) {
        snprintf(line, sizeof(line), "p2mguard_%s_total %u", names[i], i + 1);
        expect(line);
    }
}

static void ends_are_counted_and_the_usual_ones_known_before(void **state)
{
    (void)state;
    expect("p2mguard_sessions_ended_total{outcome=\"completed\",reason=\"ended\"} 0");
    expect("p2mguard_sessions_ended_total{outcome=\"unknown\",reason=\"deadline\"} 0");
    expect_none("p2mguard_sessions_ended_total{outcome=\"failed\",reason=\"guest-resumed\"} 0");
    metrics_count_end(P2MG_OUTCOME_COMPLETED, P2MG_REASON_ENDED);
    metrics_count_end(P2MG_OUTCOME_COMPLETED, P2MG_REASON_ENDED);
    metrics_count_end(P2MG_OUTCOME_FAILED, P2MG_REASON_GUEST_RESUMED);
    expect("p2mguard_sessions_ended_total{outcome=\"completed\",reason=\"ended\"} 2");
    expect("p2mguard_sessions_ended_total{outcome=\"failed\",reason=\"guest-resumed\"} 1");
}

static void verdicts_are_counted(void **state)
{
    const struct verdict proceed = {P2MG_VERDICT_PROCEED, P2MG_REASON_UNCHANGED};
    const struct verdict deadline = {P2MG_VERDICT_ABORT, P2MG_REASON_DEADLINE};

    (void)state;
    expect("p2mguard_verdicts_total{verdict=\"retry\",reason=\"tot-pages-changed\",phase=\"final\"} 0");
    expect_none("p2mguard_verdicts_total{verdict=\"abort\",reason=\"deadline\",phase=\"final\"} 0");
    metrics_count_verdict(&proceed, true);
    metrics_count_verdict(&proceed, false);
    metrics_count_verdict(&proceed, false);
    metrics_count_verdict(&deadline, true);
    expect("p2mguard_verdicts_total{verdict=\"proceed\",reason=\"unchanged\",phase=\"final\"} 1");
    expect("p2mguard_verdicts_total{verdict=\"proceed\",reason=\"unchanged\",phase=\"precopy\"} 2");
    expect("p2mguard_verdicts_total{verdict=\"abort\",reason=\"deadline\",phase=\"final\"} 1");
    metrics_count_migration(&deadline);
    metrics_count_migration(NULL);
    expect("p2mguard_migrations_seen_total{verdict=\"abort\"} 1");
    expect("p2mguard_migrations_seen_total{verdict=\"none\"} 1");
    expect("p2mguard_migrations_seen_total{verdict=\"proceed\"} 0");
}

/* What is as long as a bound is within it. */
static void histograms_are_cumulative(void **state)
{
    (void)state;
    metrics_time_to_hold(-1);
    metrics_time_to_hold(100);
    metrics_time_to_hold(101);
    metrics_time_to_hold(60001);
    expect("p2mguard_hold_seconds_bucket{le=\"0.05\"} 1");
    expect("p2mguard_hold_seconds_bucket{le=\"0.1\"} 2");
    expect("p2mguard_hold_seconds_bucket{le=\"0.25\"} 3");
    expect("p2mguard_hold_seconds_bucket{le=\"1.0\"} 3");
    expect("p2mguard_hold_seconds_bucket{le=\"60.0\"} 3");
    expect("p2mguard_hold_seconds_bucket{le=\"+Inf\"} 4");
    expect("p2mguard_hold_seconds_sum 60.202");
    expect("p2mguard_hold_seconds_count 4");
    metrics_time_held(3600000);
    expect("p2mguard_held_seconds_bucket{le=\"1800.0\"} 0");
    expect("p2mguard_held_seconds_bucket{le=\"3600.0\"} 1");
    expect("p2mguard_held_seconds_sum 3600.000");
}

static void blind_time_adds_up(void **state)
{
    (void)state;
    metrics_count_blind(METRICS_BLIND_STORE, 1500);
    metrics_count_blind(METRICS_BLIND_STORE, 51);
    metrics_count_blind(METRICS_BLIND_POLL, -3);
    expect("p2mguard_blind_seconds_total{cause=\"store\"} 1.551");
    expect("p2mguard_blind_seconds_total{cause=\"poll\"} 0.000");
}

/* A caller's words make no series. */
static void requests_are_counted_by_known_methods(void **state)
{
    (void)state;
    metrics_know_method("guard.begin");
    expect("p2mguard_requests_total{method=\"guard.begin\",result=\"ok\"} 0");
    metrics_count_request("guard.begin", METRICS_OK);
    metrics_count_request("guard.begin", METRICS_REFUSED);
    metrics_count_request("guard.none", METRICS_INVALID);
    metrics_count_request(NULL, METRICS_INVALID);
    expect("p2mguard_requests_total{method=\"guard.begin\",result=\"ok\"} 1");
    expect("p2mguard_requests_total{method=\"guard.begin\",result=\"refused\"} 1");
    expect_none("p2mguard_requests_total{method=\"guard.begin\",result=\"failed\"} 0");
    expect("p2mguard_requests_total{method=\"unknown\",result=\"invalid\"} 2");
}

static void methods_have_an_end(void **state)
{
    static char names[100][16];

    (void)state;
    for (unsigned i = 0; i < 100; i++) {
        snprintf(names[i], sizeof(names[i]), "m%u", i);
        metrics_know_method(names[i]);
        metrics_count_request(names[i], METRICS_OK);
    }
    expect("p2mguard_requests_total{method=\"m0\",result=\"ok\"} 1");
    expect_none("p2mguard_requests_total{method=\"m99\",result=\"ok\"} 1");
    expect("p2mguard_requests_total{method=\"unknown\",result=\"ok\"} 37");
}

static void formats_differ_in_their_heads(void **state)
{
    (void)state;
    assert_int_equal(lines_like(METRICS_OPENMETRICS, "# TYPE p2mguard_polls counter"), 1);
    assert_int_equal(lines_like(METRICS_PROMETHEUS, "# TYPE p2mguard_polls_total counter"), 1);
    assert_int_equal(lines_like(METRICS_OPENMETRICS, "# TYPE p2mguard_build info"), 1);
    assert_int_equal(lines_like(METRICS_PROMETHEUS, "# TYPE p2mguard_build_info gauge"), 1);
    assert_int_equal(lines_like(METRICS_OPENMETRICS, "# UNIT p2mguard_held_seconds seconds"), 1);
    assert_int_equal(lines_like(METRICS_PROMETHEUS, "# UNIT p2mguard_held_seconds seconds"), 0);
    assert_int_equal(lines_like(METRICS_OPENMETRICS, "# EOF"), 1);
    assert_int_equal(lines_like(METRICS_PROMETHEUS, "# EOF"), 0);
}

static void a_page_ends_as_it_should(void **state)
{
    char *page = metrics_write(METRICS_OPENMETRICS, &sample);

    (void)state;
    assert_non_null(page);
    assert_string_equal(page + strlen(page) - 7, "\n# EOF\n");
    free(page);
}

static void formats_parse(void **state)
{
    enum metrics_format format;

    (void)state;
    assert_int_equal(metrics_parse_format("openmetrics", &format), 0);
    assert_int_equal(format, METRICS_OPENMETRICS);
    assert_int_equal(metrics_parse_format("prometheus", &format), 0);
    assert_int_equal(format, METRICS_PROMETHEUS);
    assert_int_equal(metrics_parse_format("", &format), -EINVAL);
    assert_int_equal(metrics_parse_format("Prometheus", &format), -EINVAL);
    assert_int_equal(format, METRICS_PROMETHEUS);
    assert_non_null(strstr(metrics_content_type(METRICS_OPENMETRICS), "openmetrics-text; version=1.0.0"));
    assert_non_null(strstr(metrics_content_type(METRICS_PROMETHEUS), "text/plain; version=0.0.4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_sample_is_written, begin),
        cmocka_unit_test_setup(counters_count, begin),
        cmocka_unit_test_setup(ends_are_counted_and_the_usual_ones_known_before, begin),
        cmocka_unit_test_setup(verdicts_are_counted, begin),
        cmocka_unit_test_setup(histograms_are_cumulative, begin),
        cmocka_unit_test_setup(blind_time_adds_up, begin),
        cmocka_unit_test_setup(requests_are_counted_by_known_methods, begin),
        cmocka_unit_test_setup(methods_have_an_end, begin),
        cmocka_unit_test_setup(formats_differ_in_their_heads, begin),
        cmocka_unit_test_setup(a_page_ends_as_it_should, begin),
        cmocka_unit_test_setup(formats_parse, begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
