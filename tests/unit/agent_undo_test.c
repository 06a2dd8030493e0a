/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The agent's journal: what is written is what is read, and what is damaged is not taken for a journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>

#include <cmocka.h>

#include "client/agent/undo.h"

static struct undo full(void)
{
    struct undo undo = {.boot = "0123-4567",
                        .seq = 4294967295u,
                        .domid = "32751",
                        .balloon = true,
                        .balloon_covered = true,
                        .target_kb = 262144,
                        .wrote_kb = 131072,
                        .before_kb = 131076,
                        .has_wanted = true,
                        .wanted_kb = UINT64_MAX,
                        .hotplug = true,
                        .hotplug_covered = true,
                        .online = "online_movable"};

    undo.hook_count = UNDO_HOOKS;
    for (unsigned i = 0; i < UNDO_HOOKS; i++) {
        memset(undo.hooks[i], 'a', UNDO_HOOK_NAME - 1);
        undo.hooks[i][0] = (char)('0' + i % 10);
    }
    return undo;
}

static void what_is_written_is_read(void **state)
{
    struct undo before = full(), after, empty = {.boot = "b"};
    char text[UNDO_TEXT_MAX];
    (void)state;

    int length = undo_encode(&before, text, sizeof(text));
    assert_true(length > 0);
    assert_int_equal(undo_decode(text, (size_t)length, &after), 0);
    assert_memory_equal(&before, &after, sizeof(before));

    length = undo_encode(&empty, text, sizeof(text));
    assert_true(length > 0);
    assert_int_equal(undo_decode(text, (size_t)length, &after), 0);
    assert_memory_equal(&empty, &after, sizeof(empty));
}

static void no_room_is_an_error(void **state)
{
    struct undo undo = full();
    char text[UNDO_TEXT_MAX];
    (void)state;

    int length = undo_encode(&undo, text, sizeof(text));
    for (size_t size = 1; size <= (size_t)length; size++)
        assert_int_equal(undo_encode(&undo, text, size), -EMSGSIZE);
    assert_int_equal(undo_encode(&undo, text, (size_t)length + 1), length);
}

/* A journal is replaced as a whole, so one that is cut off was written by nobody. */
static void half_a_journal_is_none(void **state)
{
    struct undo undo = full(), after = {.seq = 5};
    char text[UNDO_TEXT_MAX];
    (void)state;

    int length = undo_encode(&undo, text, sizeof(text));
    for (int cut = 0; cut < length; cut++)
        assert_int_equal(undo_decode(text, (size_t)cut, &after), -EINVAL);
    assert_int_equal(after.seq, 5);
}

static void garbage_is_none(void **state)
{
    static const char *const texts[] = {
        "",
        "end\n",
        "p2mguard-agent-undo 2\nboot b\nend\n",
        "p2mguard-agent-undo 1\nend\n",
        "p2mguard-agent-undo 1\nboot b\nend\nmore\n",
        "p2mguard-agent-undo 1\nboot b\nnonsense 1\nend\n",
        "p2mguard-agent-undo 1\nboot b\nseq 4294967296\nend\n",
        "p2mguard-agent-undo 1\nboot b\nseq -1\nend\n",
        "p2mguard-agent-undo 1\nboot b\ntarget 18446744073709551616\nend\n",
        "p2mguard-agent-undo 1\nboot b\ntarget\nend\n",
        "p2mguard-agent-undo 1\nboot b\ntarget \nend\n",
        "p2mguard-agent-undo 1\nboot b\nonline a b\nend\n",
        "p2mguard-agent-undo 1\nboot b\ncovered moon\nend\n",
        "p2mguard-agent-undo 1\nboot b\nhook ../../bin/sh\nend\n",
    };
    struct undo undo;
    (void)state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(undo_decode(texts[i], strlen(texts[i]), &undo), -EINVAL);
}

static void hooks_have_plain_names(void **state)
{
    char name[UNDO_HOOK_NAME + 1];
    (void)state;

    assert_true(undo_is_hook_name("10-data_base"));
    assert_false(undo_is_hook_name(""));
    assert_false(undo_is_hook_name("README.md"));
    assert_false(undo_is_hook_name("a.dpkg-old"));
    assert_false(undo_is_hook_name(".."));
    assert_false(undo_is_hook_name("a/b"));
    assert_false(undo_is_hook_name("a\nb"));
    memset(name, 'a', UNDO_HOOK_NAME);
    name[UNDO_HOOK_NAME] = '\0';
    assert_false(undo_is_hook_name(name));
    name[UNDO_HOOK_NAME - 1] = '\0';
    assert_true(undo_is_hook_name(name));
}

static void files_are_kept_and_removed(void **state)
{
    char folder[] = "/tmp/agent-undo-XXXXXX";
    struct undo undo, after;
    (void)state;

    assert_non_null(mkdtemp(folder));
    assert_int_equal(undo_load(folder, &after), -ENOENT);
    undo_init(&undo);
    undo.seq = 7;
    assert_int_equal(undo_save(folder, &undo), 0);
    assert_int_equal(undo_load(folder, &after), 0);
    assert_memory_equal(&undo, &after, sizeof(undo));

    strcpy(undo.boot, "another");
    assert_int_equal(undo_save(folder, &undo), 0);
    assert_int_equal(undo_load(folder, &after), -ENOENT);
    assert_int_equal(undo_remove(folder), 0);
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(undo_save(folder, &undo), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read), cmocka_unit_test(no_room_is_an_error),
        cmocka_unit_test(half_a_journal_is_none),  cmocka_unit_test(garbage_is_none),
        cmocka_unit_test(hooks_have_plain_names),  cmocka_unit_test(files_are_kept_and_removed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
