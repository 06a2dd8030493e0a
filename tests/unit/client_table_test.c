/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/table.h"

static void assert_safe(const char *text, const char *expected)
{
    char *safe = table_safe(text);

    assert_non_null(safe);
    assert_string_equal(safe, expected);
    free(safe);
}

static void what_controls_a_terminal_is_escaped(void **state)
{
    (void)state;
    assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
    assert_safe("", "");
    assert_safe("web-1 (ü, 仮想)", "web-1 (ü, 仮想)");
    assert_safe("a\033[31mb\r\n\t\177", "a\\x1b[31mb\\x0d\\x0a\\x09\\x7f");
    assert_safe("\302\233x", "\\xc2\\x9bx");          /* U+009B: as ESC [ */
    assert_safe("\342\200\256x", "\\xe2\\x80\\xaex"); /* U+202E: writes backwards */
    assert_safe("\342\200\213x", "\\xe2\\x80\\x8bx"); /* U+200B: not to be seen */
    assert_safe("a\303", "a\\xc3");                   /* half a character */
    assert_safe("\377\300\200", "\\xff\\xc0\\x80");   /* none */
    assert_safe("\\x41 \\a", "\\x5cx41 \\a");         /* no escape of ours */
}

static void other_locales_get_ascii(void **state)
{
    (void)state;
    assert_non_null(setlocale(LC_CTYPE, "C"));
    assert_safe("\303\274ber", "\\xc3\\xbcber");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_controls_a_terminal_is_escaped),
        cmocka_unit_test(other_locales_get_ascii),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
