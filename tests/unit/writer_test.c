/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* What was written, as a string; clears the writer. */
static char *written(struct writer *writer)
{
    char *text = malloc(writer->used + 1);

    assert_non_null(text);
    assert_false(writer->failed);
    memcpy(text, writer->text, writer->used);
    text[writer->used] = '\0';
    writer_clear(writer);
    return text;
}

#define assert_written(writer, expected)                                                                               \
    do {                                                                                                               \
        char *assert_text = written(writer);                                                                           \
        assert_string_equal(assert_text, expected);                                                                    \
        free(assert_text);                                                                                             \
    } while (0)

static void everything(void **state)
{
    struct writer writer = {0};

    (void)state;
    writer_begin(&writer, NULL, '{');
    writer_text(&writer, "a", "x");
    writer_text(&writer, "b", NULL);
    writer_begin(&writer, "c", '[');
    writer_number(&writer, NULL, 0);
    writer_number(&writer, NULL, -7);
    writer_begin(&writer, NULL, '[');
    writer_end(&writer, ']');
    writer_begin(&writer, NULL, '{');
    writer_end(&writer, '}');
    writer_end(&writer, ']');
    writer_flag(&writer, "d", true);
    writer_flag(&writer, "e", false);
    writer_null(&writer, "f");
    writer_value(&writer, "g", json_pack("{s:[i,s]}", "h", 1, "i"));
    writer_end(&writer, '}');
    assert_written(&writer, "{\"a\":\"x\",\"b\":null,\"c\":[0,-7,[],{}],\"d\":true,\"e\":false,\"f\":null,"
                            "\"g\":{\"h\":[1,\"i\"]}}");
}

static void a_value_after_bytes_of_ones_own(void **state)
{
    struct writer writer = {0};

    (void)state;
    writer_bytes(&writer, "{\"params\":", 10);
    writer_value(&writer, NULL, json_integer(1));
    writer_bytes(&writer, "}\n", 2);
    assert_written(&writer, "{\"params\":1}\n");
}

/* jansson is the judge, of every byte, alone and between others. */
static void texts_are_as_jansson_has_them(void **state)
{
    (void)state;
    for (int byte = 1; byte < 0x80; byte++) {
        const char text[] = {'a', (char)byte, (char)byte, 'z', '\0'};
        struct writer writer = {0};
        json_t *string = json_string(text);
        char *expected = json_dumps(string, JSON_ENCODE_ANY);

        writer_text(&writer, NULL, text);
        assert_written(&writer, expected);
        free(expected);
        json_decref(string);
    }
}

static void characters_of_more_bytes_stay_and_what_is_none_does_not(void **state)
{
    struct writer writer = {0};

    (void)state;
    writer_text(&writer, NULL, "caf\xc3\xa9 \xe2\x82\xac \xf0\x90\x80\x80 \xe9 \xc3");
    assert_written(&writer, "\"caf\xc3\xa9 \xe2\x82\xac \xf0\x90\x80\x80 ? ?\"");
}

static void numbers(void **state)
{
    static const int64_t all[] = {0, 1, 9, 10, -1, -10, 1234567890, INT64_MAX, INT64_MIN};

    (void)state;
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
        struct writer writer = {0};
        json_t *number = json_integer(all[i]);
        char *expected = json_dumps(number, JSON_ENCODE_ANY);

        writer_number(&writer, NULL, all[i]);
        assert_written(&writer, expected);
        free(expected);
        json_decref(number);
    }
}

static void it_grows(void **state)
{
    struct writer writer = {0};

    (void)state;
    writer_begin(&writer, NULL, '[');
    for (int i = 0; i < 10000; i++)
        writer_text(&writer, NULL, "\x01 a text of some length");
    writer_end(&writer, ']');
    json_t *list = writer_take(&writer);
    assert_int_equal(json_array_size(list), 10000);
    assert_string_equal(json_string_value(json_array_get(list, 9999)), "\x01 a text of some length");
    json_decref(list);
    assert_null(writer.text);
}

static void write_members(struct writer *writer, json_t *object)
{
    writer_members(writer, object);
    json_decref(object);
}

static void members_of_an_object(void **state)
{
    struct writer writer = {0};
    char longer[3000];

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    writer_begin(&writer, NULL, '{');
    write_members(&writer, json_object());
    write_members(&writer, json_pack("{s:i,s:[i]}", "a", 1, "b", 2));
    write_members(&writer, json_object());
    write_members(&writer, json_pack("{s:s}", "c", longer));
    writer_number(&writer, "d", 3);
    writer_end(&writer, '}');
    json_t *object = writer_take(&writer);
    assert_int_equal(json_object_size(object), 4);
    assert_int_equal(json_integer_value(json_object_get(object, "a")), 1);
    assert_string_equal(json_string_value(json_object_get(object, "c")), longer);
    assert_int_equal(json_integer_value(json_object_get(object, "d")), 3);
    json_decref(object);
    writer_begin(&writer, NULL, '{');
    writer_members(&writer, NULL);
    assert_true(writer.failed);
    writer_clear(&writer);
}

static void a_value_that_memory_ran_out_for(void **state)
{
    struct writer writer = {0};

    (void)state;
    writer_begin(&writer, NULL, '{');
    writer_value(&writer, "a", NULL);
    writer_number(&writer, "b", 1);
    assert_true(writer.failed);
    assert_null(writer_take(&writer));
    assert_false(writer.failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything),
        cmocka_unit_test(a_value_after_bytes_of_ones_own),
        cmocka_unit_test(texts_are_as_jansson_has_them),
        cmocka_unit_test(characters_of_more_bytes_stay_and_what_is_none_does_not),
        cmocka_unit_test(numbers),
        cmocka_unit_test(it_grows),
        cmocka_unit_test(members_of_an_object),
        cmocka_unit_test(a_value_that_memory_ran_out_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
