/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/repeat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static json_t *parse(const char *line)
{
    return json_loadb(line, strlen(line), JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
}

/* A line that has come twice. */
static void know(struct repeat *repeat, const char *line)
{
    for (int i = 0; i < 2; i++) {
        json_t *message = parse(line);

        assert_non_null(message);
        repeat_keep(repeat, line, strlen(line), message);
        json_decref(message);
    }
}

/* Is known, and says what the parser says. */
static void assert_found(struct repeat *repeat, const char *line)
{
    json_t *found = repeat_find(repeat, line, strlen(line));
    json_t *parsed = parse(line);

    assert_non_null(found);
    assert_true(json_equal(found, parsed));
    json_decref(found);
    json_decref(parsed);
}

static void assert_not_found(struct repeat *repeat, const char *line)
{
    assert_null(repeat_find(repeat, line, strlen(line)));
}

static void the_same_with_another_id(void **state)
{
    static const struct {
        const char *before, *after;
    } forms[] = {
        {"{\"jsonrpc\":\"2.0\",\"id\":", ",\"method\":\"guard.list\"}"},
        {"{\"method\":\"guard.list\", \"id\" : ", " , \"jsonrpc\":\"2.0\"}"},
        {"{\"method\":\"guard.verdict\",\"params\":{\"session\":\"1-12\"},\"jsonrpc\":\"2.0\",\"id\":", "}"},
    };
    static const char *const ids[] = {"7", "0", "8", "10", "123456789012345678", "1"};
    static const char *const no_ids[] = {"", "07", "-1", "1.5", "1e3", "\"7\"", "null", "7,", "1234567890123456789"};

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(*forms); i++) {
        struct repeat repeat = {0};
        char line[256];

        snprintf(line, sizeof(line), "%s%s%s", forms[i].before, "7", forms[i].after);
        know(&repeat, line);
        for (size_t j = 0; j < sizeof(ids) / sizeof(*ids); j++) {
            snprintf(line, sizeof(line), "%s%s%s", forms[i].before, ids[j], forms[i].after);
            assert_found(&repeat, line);
        }
        for (size_t j = 0; j < sizeof(no_ids) / sizeof(*no_ids); j++) {
            snprintf(line, sizeof(line), "%s%s%s", forms[i].before, no_ids[j], forms[i].after);
            assert_not_found(&repeat, line);
        }
        assert_not_found(&repeat, "");
        assert_not_found(&repeat, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"guard.show\"}");
        repeat_clear(&repeat);
    }
}

/* Only where nothing else can be meant by them are digits the id's. */
static void what_else_is_called_id(void **state)
{
    static const struct {
        const char *known, *other;
    } pairs[] = {
        {"{\"method\":\"m\",\"params\":{\"id\":1},\"id\":1}", "{\"method\":\"m\",\"params\":{\"id\":2},\"id\":1}"},
        {"{\"method\":\"m\",\"id\":1,\"params\":{\"id\":1}}", "{\"method\":\"m\",\"id\":2,\"params\":{\"id\":1}}"},
        {"{\"method\":\"m\",\"id\":1,\"params\":[\"id\"]}", "{\"method\":\"m\",\"id\":2,\"params\":[\"id\"]}"},
        {"{\"params\":{\"id\":1}}", "{\"params\":{\"id\":2}}"},
        {"{\"id\":\"1\"}", "{\"id\":\"2\"}"},
        {"{\"i\\u0064\":1,\"id2\":2}", "{\"i\\u0064\":3,\"id2\":2}"},
        {"{\"i\\u0064\":1,\"params\":{\"id\":1}}", "{\"i\\u0064\":1,\"params\":{\"id\":2}}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        struct repeat repeat = {0};

        know(&repeat, pairs[i].known);
        assert_found(&repeat, pairs[i].known);
        json_t *found = repeat_find(&repeat, pairs[i].other, strlen(pairs[i].other));
        json_t *parsed = parse(pairs[i].other);
        assert_true(!found || json_equal(found, parsed));
        json_decref(found);
        json_decref(parsed);
        repeat_clear(&repeat);
    }
}

static void who_asks_once_leaves_nothing(void **state)
{
    static const char line[] = "{\"id\":1}";
    struct repeat repeat = {0};
    json_t *message = parse(line);

    (void)state;
    repeat_keep(&repeat, line, strlen(line), message);
    assert_null(repeat.line);
    assert_not_found(&repeat, line);
    repeat_keep(&repeat, line, strlen(line), message);
    assert_found(&repeat, line);
    json_decref(message);
    repeat_clear(&repeat);
}

static void what_is_no_object_or_is_long_is_not_kept(void **state)
{
    struct repeat repeat = {0};
    char line[1024];

    (void)state;
    know(&repeat, "[{\"id\":1}]");
    assert_not_found(&repeat, "[{\"id\":1}]");
    snprintf(line, sizeof(line), "{\"id\":1,\"a\":\"%0600d\"}", 0);
    know(&repeat, line);
    assert_not_found(&repeat, line);
    repeat_keep(&repeat, "{", 1, NULL);
    assert_not_found(&repeat, "{");
    repeat_clear(&repeat);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_with_another_id),
        cmocka_unit_test(what_else_is_called_id),
        cmocka_unit_test(who_asks_once_leaves_nothing),
        cmocka_unit_test(what_is_no_object_or_is_long_is_not_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
