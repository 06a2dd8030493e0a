/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/save-helper/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct stream stream;

static void put(uint16_t length, const void *body, size_t there)
{
    assert_true(stream_put(&stream, &length, sizeof(length)));
    assert_true(stream_put(&stream, body, there));
}

static void test_message_is_there_when_it_is_whole(void **state)
{
    static const char suspend[] = {2, 0, STREAM_SUSPEND, 0};
    (void)state;

    stream.used = 0;
    for (size_t i = 0; i < sizeof(suspend); i++) {
        assert_int_equal(stream_message(&stream), 0);
        assert_int_equal(stream_number(&stream), -1);
        assert_true(stream_put(&stream, suspend + i, 1));
    }
    assert_int_equal(stream_message(&stream), sizeof(suspend));
    assert_int_equal(stream_number(&stream), STREAM_SUSPEND);
    assert_int_equal(stream_retval(&stream), -1);
}

static void test_messages_follow_each_other(void **state)
{
    static const char complete[] = {STREAM_COMPLETE, 0, 7, 0, 0, 0, 5, 0, 0, 0}, odd[] = {STREAM_COMPLETE};
    (void)state;

    stream.used = 0;
    put(1, odd, 1); /* too short for a number */
    put(0, odd, 0);
    put(5, complete, 5); /* too short for what it says */
    put(10, complete, 10);
    assert_int_equal(stream_message(&stream), 3);
    assert_int_equal(stream_number(&stream), -1);
    stream_drop(&stream, 3);
    assert_int_equal(stream_message(&stream), 2);
    assert_int_equal(stream_number(&stream), -1);
    stream_drop(&stream, 2);
    assert_int_equal(stream_number(&stream), STREAM_COMPLETE);
    assert_int_equal(stream_retval(&stream), -1);
    stream_drop(&stream, stream_message(&stream));
    assert_int_equal(stream_retval(&stream), 7);
    stream_drop(&stream, stream_message(&stream));
    assert_int_equal(stream.used, 0);
}

static void test_longest_message(void **state)
{
    static char body[65535];
    (void)state;

    stream.used = 0;
    put(65535, body, sizeof(body));
    put(65535, body, sizeof(body));
    assert_int_equal(stream.used, 2 * STREAM_MESSAGE_MAX);
    assert_int_equal(stream_message(&stream), STREAM_MESSAGE_MAX);
    assert_false(stream_put(&stream, body, 1));
    assert_false(stream_put_log(&stream, 8, "no room"));
    assert_int_equal(stream.used, 2 * STREAM_MESSAGE_MAX);
}

static void test_log_is_what_libxl_takes(void **state)
{
    /* length; number, level, error, "p2mguard", "held" */
    static const char expected[] = "\x20\0"
                                   "\x01\0\x07\0\0\0\xff\xff\xff\xff"
                                   "\x09\0\0\0p2mguard\0"
                                   "\x05\0\0\0held";
    char text[2000];
    (void)state;

    stream.used = 0;
    assert_true(stream_put_log(&stream, 7, "held"));
    assert_int_equal(stream.used, sizeof(expected));
    assert_memory_equal(stream.bytes, expected, sizeof(expected));
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    assert_true(stream_put_log(&stream, 7, text)); /* cut, and still a message */
    stream_drop(&stream, stream_message(&stream));
    assert_int_equal(stream_message(&stream), stream.used);
    assert_int_equal(stream.bytes[stream.used - 1], '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_message_is_there_when_it_is_whole),
        cmocka_unit_test(test_messages_follow_each_other),
        cmocka_unit_test(test_longest_message),
        cmocka_unit_test(test_log_is_what_libxl_takes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
