/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/migrate-request.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/untouched.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct p2mg_policy defaults(void)
{
    struct p2mg_policy policy;

    p2mg_policy_init(&policy);
    return policy;
}

/* The parser gets a copy that ends where the heap's block does. */
static int parse(const char *bytes, size_t length, struct migrate_request *request, char problem[MIGRATE_ANSWER_MAX])
{
    char *copy = malloc(length ? length : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, length);
    memset(request, UNTOUCHED, sizeof(*request));
    memset(problem, UNTOUCHED, MIGRATE_ANSWER_MAX);
    int error = migrate_request_parse(copy, length, request, problem);
    free(copy);
    return error;
}

static void accept(const char *text, struct migrate_request *request)
{
    char problem[MIGRATE_ANSWER_MAX];

    assert_int_equal(parse(text, strlen(text), request, problem), 0);
    assert_true(is_untouched(problem, sizeof(problem)));
}

/* What the caller is told names both what was wrong and what was expected. */
static void refuse_bytes(const char *bytes, size_t length, const char *wrong, const char *expected)
{
    struct migrate_request request;
    char problem[MIGRATE_ANSWER_MAX];

    assert_int_equal(parse(bytes, length, &request, problem), -EINVAL);
    assert_true(is_untouched(&request, sizeof(request)));
    assert_non_null(memchr(problem, '\0', MIGRATE_ANSWER_MAX - 7)); /* "error " goes before it */
    for (const char *at = problem; *at; at++)
        assert_true(*at >= ' ' && *at <= '~');
    if (!strstr(problem, wrong) || !strstr(problem, expected))
        fail_msg("'%s' names not '%s' and '%s'", problem, wrong, expected);
}

static void refuse(const char *text, const char *wrong, const char *expected)
{
    refuse_bytes(text, strlen(text), wrong, expected);
}

static void test_words(void **state)
{
    struct migrate_request request;
    (void)state;

    accept("begin", &request);
    assert_int_equal(request.word, MIGRATE_BEGIN);
    struct p2mg_policy policy = defaults();
    assert_int_equal(request.policy.require, policy.require);
    assert_int_equal(request.named, 0);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        assert_int_equal(p2mg_policy_get(&request.policy, member), p2mg_policy_get(&policy, member));
    accept("retry", &request);
    assert_int_equal(request.word, MIGRATE_RETRY);
    accept("verdict", &request);
    assert_int_equal(request.word, MIGRATE_VERDICT);
    static const struct {
        const char *text;
        enum p2mg_outcome outcome;
    } ends[] = {{"end completed", P2MG_OUTCOME_COMPLETED},
                {"end failed", P2MG_OUTCOME_FAILED},
                {"end cancelled", P2MG_OUTCOME_CANCELLED}};
    for (size_t i = 0; i < COUNT(ends); i++) {
        accept(ends[i].text, &request);
        assert_int_equal(request.word, MIGRATE_END);
        assert_int_equal(request.outcome, ends[i].outcome);
    }
}

static void test_policy(void **state)
{
    struct migrate_request request;
    char text[96];
    (void)state;

    accept("begin require=gate max_hold_ms=1000 attempts=100", &request);
    assert_int_equal(request.policy.require, P2MG_REQUIRE_GATE);
    assert_int_equal(request.policy.max_hold_ms, 1000);
    assert_int_equal(request.policy.attempts, 100);
    assert_int_equal(request.policy.quiet_ms, defaults().quiet_ms);
    assert_int_equal(request.named, p2mg_policy_bit(NULL) | p2mg_policy_bit(p2mg_policy_find("max_hold_ms")) |
                                        p2mg_policy_bit(p2mg_policy_find("attempts")));
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        for (int i = 0; i < 2; i++) {
            int64_t value = i ? member->most : member->least;
            snprintf(text, sizeof(text), "begin %s=%lld", member->name, (long long)value);
            accept(text, &request);
            assert_int_equal(p2mg_policy_get(&request.policy, member), value);
            snprintf(text, sizeof(text), "begin %s=%lld", member->name, (long long)(i ? value + 1 : value - 1));
            refuse(text, member->name, "expected a number from");
        }
    }
}

static void test_all_members_fit(void **state)
{
    char text[MIGRATE_REQUEST_MAX];
    struct migrate_request request;
    size_t used = (size_t)snprintf(text, sizeof(text), "begin require=settled");
    (void)state;

    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, " %s=%lld", member->name, (long long)member->most);
    assert_true(used < sizeof(text));
    accept(text, &request);
}

static void test_refused(void **state)
{
    static const struct {
        const char *text, *wrong, *expected;
    } cases[] = {
        {"", "''", "expected begin"},
        {" begin", "''", "expected begin"},
        {"Begin", "'Begin'", "expected begin"},
        {"beginn", "'beginn'", "expected begin"},
        {"thaw", "'thaw'", "end completed|failed|cancelled"},
        {"begin ", "''", "KEY=VALUE"},
        {"begin  attempts=1", "''", "KEY=VALUE"},
        {"begin attempts=1 ", "''", "KEY=VALUE"},
        {"begin attempts", "'attempts'", "KEY=VALUE"},
        {"begin require", "'require'", "KEY=VALUE"},
        {"begin =1", "'=1'", "KEY=VALUE"},
        {"begin attempt=1", "'attempt=1'", "KEY=VALUE"},
        {"begin attempts=", "attempts is ''", "from 1 to 100"},
        {"begin attempts=-1", "'-1'", "from 1 to 100"},
        {"begin attempts=+1", "'+1'", "from 1 to 100"},
        {"begin attempts=0x1", "'0x1'", "from 1 to 100"},
        {"begin attempts=1.", "'1.'", "from 1 to 100"},
        {"begin attempts=18446744073709551617", "attempts is", "from 1 to 100"},
        {"begin attempts=1 attempts=1", "attempts is given twice", "once"},
        {"begin require=gate require=gate", "require is given twice", "once"},
        {"begin require=", "require is ''", "gate, settled or agent"},
        {"begin require=settledsettledsettled", "settledsettledsettled", "gate, settled or agent"},
        {"retry 1", "'1'", "nothing after"},
        {"retry ", "''", "nothing after"},
        {"verdict now", "'now'", "nothing after"},
        {"end", "''", "end completed, end failed or end cancelled"},
        {"end ", "''", "end completed, end failed or end cancelled"},
        {"end unknown", "'unknown'", "end completed, end failed or end cancelled"},
        {"end completedly", "'completedly'", "end completed, end failed or end cancelled"},
        {"end failed 1", "'1'", "nothing after"},
        {"begin\n", "byte 5 is 0x0a", "printable ASCII"},
        {"verdict\xff", "byte 7 is 0xff", "printable ASCII"},
    };
    (void)state;

    for (size_t i = 0; i < COUNT(cases); i++)
        refuse(cases[i].text, cases[i].wrong, cases[i].expected);
    refuse_bytes("begin\0", 6, "byte 5 is 0x00", "printable ASCII");
}

static void test_long(void **state)
{
    char text[4096];
    (void)state;

    memset(text, 'x', sizeof(text));
    refuse_bytes(text, sizeof(text), "4096 bytes", "at most 511");
    refuse_bytes(text, MIGRATE_REQUEST_MAX, "512 bytes", "at most 511");
    refuse_bytes(text, MIGRATE_REQUEST_MAX - 1, "'xxxxxxxx", "expected begin");
    memcpy(text, "begin ", 6);
    refuse_bytes(text, MIGRATE_REQUEST_MAX - 1, "'xxxxxxxx", "KEY=VALUE");
    memcpy(text, "end xx", 6);
    refuse_bytes(text, MIGRATE_REQUEST_MAX - 1, "'xxxxxxxx", "end completed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),   cmocka_unit_test(test_policy), cmocka_unit_test(test_all_members_fit),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_long),
    };
    return cmocka_run_group_tests_name("migrate_request", tests, NULL, NULL);
}
