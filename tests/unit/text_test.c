/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

/* jansson is the judge: it is what the text is for. */
static bool is_utf8(const char *text)
{
    json_t *string = json_string(text);

    json_decref(string);
    return string != NULL;
}

static void what_is_utf8_stays(void **state)
{
    static const char *const texts[] = {"",
                                        "web",
                                        "caf\xc3\xa9",
                                        "\x01\x7f",
                                        "\xc2\x80\xdf\xbf",
                                        "\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf",
                                        "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
                                        "a\xe2\x82\xac."};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[32];

        assert_true(is_utf8(texts[i]));
        snprintf(text, sizeof text, "%s", texts[i]);
        text_make_utf8(text);
        assert_string_equal(text, texts[i]);
    }
}

static void what_is_not_becomes_question_marks(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {{"caf\xe9", "caf?"},          {"\xe9t\xe9", "?t?"},         {"\x80", "?"},
                 {"\xc0\xaf", "??"},           {"\xe0\x9f\xbf", "???"},      {"\xed\xa0\x80", "???"},
                 {"\xf0\x8f\xbf\xbf", "????"}, {"\xf4\x90\x80\x80", "????"}, {"\xf5\x80", "??"},
                 {"\xff\xfe", "??"},           {"\xe2\x82", "??"},           {"\xe2\x82\xc3\xa9", "??\xc3\xa9"},
                 {"a\xf0\x90\x80", "a???"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];

        assert_false(is_utf8(cases[i].text));
        snprintf(text, sizeof text, "%s", cases[i].text);
        text_make_utf8(text);
        assert_string_equal(text, cases[i].expected);
        assert_true(is_utf8(text));
    }
}

/* All texts of up to four bytes, of those bytes at which something begins or ends. */
static void whatever_comes_in_utf8_comes_out(void **state)
{
    static const unsigned char bytes[] = {0,    'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2,
                                          0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff};
    enum { COUNT = sizeof bytes };

    (void)state;
    for (unsigned i = 0; i < COUNT * COUNT * COUNT * COUNT; i++) {
        char text[] = {(char)bytes[i % COUNT], (char)bytes[i / COUNT % COUNT], (char)bytes[i / COUNT / COUNT % COUNT],
                       (char)bytes[i / COUNT / COUNT / COUNT], '\0'};
        char before[sizeof text];

        memcpy(before, text, sizeof text);
        text_make_utf8(text);
        assert_true(is_utf8(text));
        if (is_utf8(before))
            assert_string_equal(text, before);
    }
}

static void cutting_leaves_characters_whole(void **state)
{
    static const char *const long_text = "a\xc3\xa9\xe2\x82\xac\xf0\x90\x80\x80z";
    static const size_t lengths[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};

    (void)state;
    for (size_t room = 1; room <= sizeof lengths / sizeof *lengths; room++) {
        char text[16];

        memset(text, 'x', sizeof text);
        text_cut(text, room, long_text);
        assert_int_equal(strlen(text), lengths[room - 1]);
        assert_memory_equal(text, long_text, strlen(text));
        assert_true(is_utf8(text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_utf8_stays),
        cmocka_unit_test(what_is_not_becomes_question_marks),
        cmocka_unit_test(whatever_comes_in_utf8_comes_out),
        cmocka_unit_test(cutting_leaves_characters_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
