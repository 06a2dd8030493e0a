/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/nearest.h"
#include "client/synopsis.h"

/* All of a synopsis in one line: "--option=VALUE", "WORD", and "|" before what begins anew. */
static void assert_items(const char *synopsis, const char *expected)
{
    struct synopsis_item item;
    char all[512] = "";
    size_t used = 0;

    while (synopsis_next(&synopsis, &item))
        used += (size_t)snprintf(all + used, sizeof(all) - used, "%s%s%s%s%s", used ? " " : "", item.anew ? "|" : "",
                                 item.name, *item.value ? "=" : "", item.value);
    assert_string_equal(all, expected);
}

static void items_of_a_synopsis(void **state)
{
    (void)state;
    assert_items("", "");
    assert_items("SESSION completed|failed|cancelled", "SESSION completed|failed|cancelled");
    assert_items("[--phase precopy|final] SESSION", "--phase=precopy|final SESSION");
    assert_items("[--offline [--force]] --all | DOMAIN", "--offline --force --all |DOMAIN");
    assert_items("[--attempts N] [--policy KEY=VALUE]… DOMAIN -- COMMAND [ARG…]",
                 "--attempts=N --policy=KEY=VALUE DOMAIN");
    assert_items("[--changed] [--domain DOMAIN] | check [FILE…] | reload",
                 "--changed --domain=DOMAIN |check FILE |reload");
}

static void options_are_found_by_their_beginning(void **state)
{
    const char *synopsis = "[--phase precopy|final] [--pha] [--policy KEY=VALUE] SESSION";
    struct synopsis_item item;
    (void)state;

    assert_true(synopsis_find_option(synopsis, "--policy=a=b", &item));
    assert_string_equal(item.value, "KEY=VALUE");
    assert_true(synopsis_find_option(synopsis, "--po", &item));
    assert_string_equal(item.name, "--policy");
    assert_true(synopsis_find_option(synopsis, "--pha", &item)); /* in full, though another one begins so */
    assert_string_equal(item.name, "--pha");
    assert_false(synopsis_find_option(synopsis, "--p", &item));
    assert_false(synopsis_find_option(synopsis, "--", &item));
    assert_false(synopsis_find_option(synopsis, "--polices", &item));
    assert_false(synopsis_find_option("", "--json", &item));
}

static void words_have_places(void **state)
{
    const char *at = "[--changed] | check [FILE…] | reload";
    struct synopsis_item item;
    size_t place = 0;
    (void)state;

    assert_true(synopsis_next_word(&at, &place, 0, &item));
    assert_string_equal(item.name, "check");
    assert_true(synopsis_next_word(&at, &place, 0, &item));
    assert_string_equal(item.name, "reload");
    assert_false(synopsis_next_word(&at, &place, 0, &item));
}

static void distances_of_words(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("web", "web", 3), 0);
    assert_int_equal(nearest_distance("wbe", "web", 3), 1); /* exchanged */
    assert_int_equal(nearest_distance("we", "web", 3), 1);
    assert_int_equal(nearest_distance("webb", "web", 3), 1);
    assert_int_equal(nearest_distance("wxb", "web", 3), 1);
    assert_int_equal(nearest_distance("", "web", 3), 3);
    assert_int_equal(nearest_distance("abcdef", "uvwxyz", 2), 3); /* beyond the limit */
}

static void assert_nearest(const char *wanted, const char *expected)
{
    static const char *const known[] = {"web", "database", "mail-01", "mail-02", "u"};
    struct nearest nearest;

    nearest_init(&nearest, wanted);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        nearest_offer(&nearest, known[i]);
    assert_string_equal(nearest.found, expected);
}

static void nearest_word_is_found(void **state)
{
    char longest[3 * NEAREST_MAX];
    (void)state;

    assert_nearest("wbe", "web");
    assert_nearest("databse", "database");
    assert_nearest("data", "database"); /* a beginning */
    assert_nearest("mail-03", "mail-01");
    assert_nearest("xyz", "");
    assert_nearest("v", ""); /* one letter, and that is wrong */
    assert_nearest("", "");
    memset(longest, 'w', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_nearest(longest, "");
    longest[NEAREST_MAX] = '\0';
    assert_nearest(longest, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_of_a_synopsis),   cmocka_unit_test(options_are_found_by_their_beginning),
        cmocka_unit_test(words_have_places),     cmocka_unit_test(distances_of_words),
        cmocka_unit_test(nearest_word_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
