/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/timeline-svg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WHOLE                                                                                                          \
    "{\"session\":\"7-1f3a9c02\",\"domid\":7,\"name\":\"web\",\"state\":\"gone\",\"reason\":\"ended\","                \
    "\"outcome\":\"completed\",\"attempt\":2,\"begun_ms\":1700000000000,\"lasted_ms\":4000,\"thinned\":false,"         \
    "\"events\":["                                                                                                     \
    "{\"type\":\"target.deferred\",\"at_ms\":500,\"since_ms\":100,\"count\":3,\"target_kib\":307200},"                 \
    "{\"type\":\"session.verdict\",\"at_ms\":1000,\"since_ms\":1000,\"count\":1,\"verdict\":\"retry\","                \
    "\"reason\":\"tot-pages-changed\"},"                                                                               \
    "{\"type\":\"session.verdict\",\"at_ms\":2000,\"since_ms\":2000,\"count\":1,\"verdict\":\"proceed\","              \
    "\"reason\":\"unchanged\"}],"                                                                                      \
    "\"phases\":[{\"phase\":\"gating\",\"at_ms\":0},{\"phase\":\"held\",\"at_ms\":400},{\"phase\":\"gone\","           \
    "\"at_ms\":4000}],\"spent_ms\":{\"gating\":400,\"held\":3600},\"target_kib\":[],"                                  \
    "\"wanted_target_kib\":[[0,262144],[500,307200]],\"pin_kib\":[[0,262144]],"                                        \
    "\"tot_kib\":[[0,262144],[900,262140]],\"generation\":[[400,2],[1000,6]]}"

static char *draw(const char *text)
{
    json_t *history = json_loads(text, JSON_DECODE_ANY, NULL);

    assert_non_null(history);
    char *picture = timeline_svg(history);
    assert_non_null(picture);
    json_decref(history);
    return picture;
}

static void assert_has(const char *picture, const char *part)
{
    if (!strstr(picture, part))
        fail_msg("there is no %s in %s", part, picture);
}

static void test_everything_is_drawn(void **state)
{
    static const char *const parts[] = {"web (domain 7): completed",
                                        "session 7-1f3a9c02, begun 2023-11-14 22:13:20 UTC, lasted 4.00 s, attempt 2",
                                        "class=\"tot\"",
                                        "class=\"pin\"",
                                        "class=\"wanted\"",
                                        "class=\"generation\"",
                                        "<title>500 ms: target of 307200 KiB",
                                        "3 times since 100 ms",
                                        "retry: tot-pages-changed",
                                        "proceed: unchanged",
                                        ">held<",
                                        "gating 400 ms",
                                        "held 3.60 s",
                                        ">MiB<",
                                        "seconds since the session began",
                                        "<rect width=\"960\""};
    char *picture = draw(WHOLE);
    (void)state;

    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        assert_has(picture, parts[i]);
    assert_int_equal(strncmp(picture, "<svg xmlns=", 11), 0);
    assert_int_equal(strcmp(picture + strlen(picture) - 7, "</svg>\n"), 0);
    free(picture);
}

/* From 92 to 936 are 4000 ms; the second of two samples is where 500 ms are. */
static void test_time_is_to_scale(void **state)
{
    char *picture = draw(WHOLE);
    (void)state;

    assert_has(picture, "class=\"wanted\" d=\"M92.0");
    assert_has(picture, "H197.5V");
    assert_has(picture, "H936.0\"/>");
    free(picture);
}

/* What a guest calls itself is text, whatever it is. */
static void test_names_are_escaped(void **state)
{
    char *picture = draw("{\"name\":\"<script>\\\"&'\\u001b[2J\\u202e\\ufffe\",\"domid\":1}");
    (void)state;

    assert_null(strstr(picture, "<script>"));
    assert_null(strchr(picture, '\x1b'));
    assert_has(picture, "&#60;script&#62;&#34;&#38;&#39;?[2J?");
    free(picture);
    picture = draw("{\"name\":\"\\ufffe\\u65e5\\u200f\\ud83d\\udc11x\",\"domid\":1}");
    assert_has(picture, ">?\xe6\x97\xa5??x (domain 1)");
    free(picture);
}

static void test_long_names_are_cut(void **state)
{
    char *picture = draw("{\"name\":\"aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd\",\"domid\":1}");
    (void)state;

    assert_has(picture, ">aaaaaaaaaabbbbbbbbbbcccccccccc\xe2\x80\xa6 (domain 1)");
    free(picture);
}

/* A newer daemon, or none at all: what there is is drawn. */
static void test_whatever_comes_is_drawn(void **state)
{
    static const char *const inputs[] = {
        "{}",
        "[]",
        "7",
        "null",
        "{\"lasted_ms\":-5,\"tot_kib\":7,\"phases\":[7,{\"phase\":3}],\"events\":[null,{\"verdict\":1}]}",
        "{\"lasted_ms\":9223372036854775807,\"tot_kib\":[[0,0],[-9,9223372036854775807],[5],7,[\"a\",\"b\"]]}",
        "{\"lasted_ms\":1,\"pin_kib\":[[0,-9223372036854775807]],\"generation\":[[0,9223372036854775807]]}",
        "{\"begun_ms\":9223372036854775807}",
    };
    (void)state;

    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++) {
        char *picture = draw(inputs[i]);
        assert_has(picture, "</svg>");
        assert_null(strstr(picture, "nan"));
        assert_true(strlen(picture) < 100000);
        free(picture);
    }
}

/* Of verdicts that are close together the last one keeps its words; all keep their marks. */
static void test_the_last_verdict_has_room(void **state)
{
    char text[8192] = "{\"lasted_ms\":1000,\"events\":[";
    size_t used = strlen(text), marks = 0;
    (void)state;

    for (int i = 0; i < 20; i++)
        used += (size_t)sprintf(text + used,
                                "%s{\"type\":\"session.verdict\",\"verdict\":\"%s\",\"reason\":\"%s\",\"at_ms\":%d}",
                                i ? "," : "", i < 19 ? "retry" : "abort", i < 19 ? "unchanged" : "deadline", 900 + i);
    strcpy(text + used, "]}");
    char *picture = draw(text);
    assert_has(picture, ">abort: deadline</text>");
    assert_null(strstr(picture, ">retry: unchanged</text>"));
    for (const char *mark = picture; (mark = strstr(mark, "ms: retry: unchanged</title>")); mark++)
        marks++;
    assert_int_equal(marks, 19);
    free(picture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_is_drawn),     cmocka_unit_test(test_time_is_to_scale),
        cmocka_unit_test(test_names_are_escaped),       cmocka_unit_test(test_long_names_are_cut),
        cmocka_unit_test(test_whatever_comes_is_drawn), cmocka_unit_test(test_the_last_verdict_has_room),
    };

    return cmocka_run_group_tests_name("timeline-svg", tests, NULL, NULL);
}
