/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <errno.h>

#include <cmocka.h>

#include "daemon/journal.h"

static const struct journal full = {
    .session = "7-1f3a9c02",
    .uuid = "0f7a4c4e-1111-2222-3333-444455556666",
    .memory_perms = "n0,r7",
    .target_perms = "n0,r7",
    .target = "262144",
    .deferred = "307200",
    .pin = "0262144",
    .private_nodes = "a b",
    .max_kib = 263168,
    .cap_kib = 262144,
    .cap_past_kib = 262400,
    .agent_seq = 4294967295,
};

static void what_is_written_is_read_back(void **state)
{
    char text[JOURNAL_TEXT_MAX];
    struct journal back;
    (void)state;

    assert_int_equal(journal_encode(&full, text, sizeof(text)), 0);
    assert_int_equal(journal_decode(text, &back), 0);
    assert_memory_equal(&back, &full, sizeof(full));
}

static void empty_fields_survive(void **state)
{
    struct journal few = full, back;
    char text[JOURNAL_TEXT_MAX];
    (void)state;

    memset(few.deferred, 0, sizeof(few.deferred));
    memset(few.pin, 0, sizeof(few.pin));
    memset(few.private_nodes, 0, sizeof(few.private_nodes));
    assert_int_equal(journal_encode(&few, text, sizeof(text)), 0);
    assert_int_equal(journal_decode(text, &back), 0);
    assert_memory_equal(&back, &few, sizeof(few));
}

/* A journal that is cut at any byte, as no crash can do but a full store could, is refused and never half taken. */
static void every_cut_is_refused(void **state)
{
    static const struct journal none;
    char text[JOURNAL_TEXT_MAX];
    struct journal back;
    (void)state;

    assert_int_equal(journal_encode(&full, text, sizeof(text)), 0);
    for (size_t length = strlen(text); length-- > 0;) {
        text[length] = '\0';
        assert_int_equal(journal_decode(text, &back), -EINVAL);
        assert_memory_equal(&back, &none, sizeof(none));
    }
}

static void foreign_texts_are_refused(void **state)
{
    static const char *const texts[] = {"", "\n", "p2mguard 2\n", "p2mguard 1\n", "p2mguard 1\nuuid x\n", "garbage"};
    char text[JOURNAL_TEXT_MAX], more[JOURNAL_TEXT_MAX + 32];
    struct journal back;
    (void)state;

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        assert_int_equal(journal_decode(texts[i], &back), -EINVAL);
    assert_int_equal(journal_encode(&full, text, sizeof(text)), 0);
    snprintf(more, sizeof(more), "%sunknown 1\n", text);
    assert_int_equal(journal_decode(more, &back), -EINVAL);
    char *number = strstr(text, "max-kib ");
    number[8] = '-';
    assert_int_equal(journal_decode(text, &back), -EINVAL);
}

static void what_does_not_fit_is_refused(void **state)
{
    char text[64];
    (void)state;

    assert_int_equal(journal_encode(&full, text, sizeof(text)), -EMSGSIZE);
}

static void the_toolstacks_latest_wish_is_what_is_wanted(void **state)
{
    struct journal journal = full;
    (void)state;

    assert_string_equal(journal_wanted_target(&journal), "307200");
    journal.deferred[0] = '\0';
    assert_string_equal(journal_wanted_target(&journal), "262144");
}

static void targets_are_numbers(void **state)
{
    (void)state;
    assert_true(journal_is_target("0"));
    assert_true(journal_is_target("0262144"));
    assert_true(journal_is_target("18446744073709551615"));
    assert_false(journal_is_target(""));
    assert_false(journal_is_target("-1"));
    assert_false(journal_is_target("1 "));
    assert_false(journal_is_target("12k"));
    assert_false(journal_is_target("123456789012345678901234"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read_back), cmocka_unit_test(empty_fields_survive),
        cmocka_unit_test(every_cut_is_refused),         cmocka_unit_test(foreign_texts_are_refused),
        cmocka_unit_test(what_does_not_fit_is_refused), cmocka_unit_test(the_toolstacks_latest_wish_is_what_is_wanted),
        cmocka_unit_test(targets_are_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
