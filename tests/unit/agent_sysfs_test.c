/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The words between agent and agent-sysfs, and what is done to a folder that stands for sysfs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/agent/sysfs.h"
#include "tests/untouched.h"

static int parse(const char *text, struct sysfs_request *request)
{
    return sysfs_request_parse(text, strlen(text), request);
}

static void requests_are_read_as_they_are_written(void **state)
{
    const struct sysfs_request requests[] = {
        {.verb = SYSFS_READY},
        {.verb = SYSFS_COVER, .folder = SYSFS_BALLOON},
        {.verb = SYSFS_COVER, .folder = SYSFS_HOTPLUG},
        {.verb = SYSFS_UNCOVER, .folder = SYSFS_BALLOON},
        {.verb = SYSFS_UNCOVER, .folder = SYSFS_HOTPLUG},
        {.verb = SYSFS_TARGET, .folder = SYSFS_BALLOON, .kb = 0},
        {.verb = SYSFS_TARGET, .folder = SYSFS_BALLOON, .kb = UINT64_MAX},
        {.verb = SYSFS_ONLINE, .folder = SYSFS_HOTPLUG, .word = "online_movable"},
        {.verb = SYSFS_ONLINE, .folder = SYSFS_HOTPLUG, .word = "abcdefghijklmnopqrstuvwxyz_abcd"},
    };
    char text[SYSFS_TEXT_MAX];
    struct sysfs_request read;
    (void)state;

    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        int length = sysfs_request_format(&requests[i], text);
        assert_in_range(length, 1, SYSFS_TEXT_MAX - 1);
        assert_int_equal(sysfs_request_parse(text, (size_t)length, &read), 0);
        assert_int_equal(read.verb, requests[i].verb);
        assert_int_equal(read.folder, requests[i].folder);
        assert_true(read.kb == requests[i].kb);
        assert_string_equal(read.word, requests[i].word);
    }
}

static void all_else_is_no_request(void **state)
{
    static const char *const texts[] = {
        "",
        " ",
        "ready ",
        "ready\n",
        "Ready",
        "cover",
        "cover ",
        "cover  balloon",
        "cover balloon ",
        "cover balloon hotplug",
        "cover /etc",
        "cover ../balloon",
        "uncover 0",
        "target",
        "target ",
        "target -1",
        "target +1",
        "target 1 ",
        "target 0x10",
        "target 18446744073709551616",
        "target 99999999999999999999999999999999999999999",
        "online",
        "online ",
        "online on line",
        "online ONLINE",
        "online a/b",
        "online %s",
        "online abcdefghijklmnopqrstuvwxyz_abcde",
        "mount balloon",
        "done",
        "0123456789012345678901234567890123456789012345678901234567890123",
    };
    struct sysfs_request request;
    (void)state;

    memset(&request, UNTOUCHED, sizeof(request));
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(parse(texts[i], &request), -EINVAL);
    assert_int_equal(sysfs_request_parse("ready\0", 6, &request), -EINVAL);
    assert_int_equal(sysfs_request_parse("cover \0balloon", 14, &request), -EINVAL);
    /* Longer than any: its text is not looked at. */
    assert_int_equal(sysfs_request_parse(NULL, SIZE_MAX, &request), -EINVAL);
    assert_true(is_untouched(&request, sizeof(request)));
}

/* Whatever one byte more, less or changed makes of a request, it is none or is written as it was read. */
static void neighbours_of_requests(void **state)
{
    static const char *const texts[] = {"ready", "cover balloon", "uncover hotplug", "target 262144", "online offline"};
    char text[SYSFS_TEXT_MAX], again[SYSFS_TEXT_MAX];
    struct sysfs_request request;
    unsigned understood = 0;
    (void)state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        size_t length = strlen(texts[i]);
        for (size_t at = 0; at < length * 256; at++) {
            memcpy(text, texts[i], length);
            text[at / 256] = (char)(at % 256);
            if (sysfs_request_parse(text, length, &request))
                continue;
            understood++;
            int same = sysfs_request_format(&request, again);
            /* But for leading zeros. */
            if (request.verb != SYSFS_TARGET)
                assert_int_equal(same, length);
            if (same == (int)length)
                assert_memory_equal(text, again, length);
        }
    }
    assert_in_range(understood, 5 * 5, 2000);
}

static void answers(void **state)
{
    static const char *const broken[] = {"",          "done ",     "DONE",        "failed",    "failed ", "failed 0",
                                         "failed -1", "failed 1x", "failed 4096", "failed 1 ", "ready"};
    static const int outcomes[] = {0, -EPERM, -EROFS, -4095};
    char text[SYSFS_TEXT_MAX];
    int outcome = 7;
    (void)state;

    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++)
        assert_int_equal(sysfs_answer_parse(broken[i], strlen(broken[i]), &outcome), -EINVAL);
    assert_int_equal(outcome, 7);
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        int length = sysfs_answer_format(outcomes[i], text);
        assert_int_equal(sysfs_answer_parse(text, (size_t)length, &outcome), 0);
        assert_int_equal(outcome, outcomes[i]);
    }
}

/* ---- a folder ---- */

static char root[] = "/tmp/p2mg-sysfs-XXXXXX";

static void path_to(char path[PATH_MAX], const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s", root, name);
}

static void put(const char *name, const char *text)
{
    char path[PATH_MAX];

    path_to(path, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void expect(const char *name, const char *text)
{
    char path[PATH_MAX], line[64] = "";

    path_to(path, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    fclose(file);
    assert_string_equal(line, text);
}

static void make(const char *name)
{
    char path[PATH_MAX];

    path_to(path, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

#define BALLOON "devices/system/xen_memory/xen_memory0"
#define HOTPLUG "devices/system/memory"

static void changes(void **state)
{
    static const struct sysfs_request ready = {.verb = SYSFS_READY};
    static const struct sysfs_request target = {.verb = SYSFS_TARGET, .folder = SYSFS_BALLOON, .kb = 4096};
    static const struct sysfs_request online = {.verb = SYSFS_ONLINE, .folder = SYSFS_HOTPLUG, .word = "offline"};
    static const struct sysfs_request uncover = {.verb = SYSFS_UNCOVER, .folder = SYSFS_BALLOON};
    static const struct sysfs_request cover = {.verb = SYSFS_COVER, .folder = SYSFS_BALLOON};
    struct sysfs sysfs;
    (void)state;

    assert_int_equal(sysfs_init(&sysfs, "/nowhere/at/all"), -ENOENT);
    assert_non_null(mkdtemp(root));
    assert_int_equal(sysfs_init(&sysfs, root), 0);
    assert_int_equal(sysfs_do(&sysfs, &ready), 0);
    /* What a guest does not have. */
    assert_int_equal(sysfs_do(&sysfs, &target), -ENOENT);
    assert_int_equal(sysfs_do(&sysfs, &online), -ENOENT);
    assert_int_equal(sysfs_do(&sysfs, &cover), -ENOENT);
    assert_int_equal(sysfs_do(&sysfs, &uncover), 0);
    make("devices");
    make("devices/system");
    make("devices/system/xen_memory");
    make(BALLOON);
    make(HOTPLUG);
    put(BALLOON "/target_kb", "1\n");
    put(HOTPLUG "/auto_online_blocks", "online\n");
    assert_int_equal(sysfs_do(&sysfs, &target), 0);
    expect(BALLOON "/target_kb", "4096\n");
    assert_int_equal(sysfs_do(&sysfs, &online), 0);
    expect(HOTPLUG "/auto_online_blocks", "offline\n");
    assert_int_equal(sysfs_do(&sysfs, &uncover), 0);
    assert_int_equal(sysfs.target_fd, -1);
}

static int tidy(void **state)
{
    static const char *const names[] = {BALLOON "/target_kb",
                                        HOTPLUG "/auto_online_blocks",
                                        BALLOON,
                                        HOTPLUG,
                                        "devices/system/xen_memory",
                                        "devices/system",
                                        "devices",
                                        ""};
    char path[PATH_MAX];
    (void)state;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        path_to(path, names[i]);
        if (remove(path) < 0 && errno != ENOENT)
            return -1;
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_read_as_they_are_written),
        cmocka_unit_test(all_else_is_no_request),
        cmocka_unit_test(neighbours_of_requests),
        cmocka_unit_test(answers),
        cmocka_unit_test_teardown(changes, tidy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
