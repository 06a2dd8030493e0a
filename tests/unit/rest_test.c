/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/rest.h"

static void a_quiet_guest_is_left_where_it_is(void **state)
{
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    assert_int_equal(rest_plan_pin(&rest, 262208, 262144, 0), 262144);
    assert_true(rest_judge(&rest, 262208));
    assert_false(rest.learned); /* it may have been stuck there */
    assert_int_equal(rest_pin_for(&rest, 262208), 262144);
}

static void a_guest_on_its_way_shows_its_offset(void **state)
{
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    uint64_t pin_kib = rest_plan_pin(&rest, 300000, 262144, 0);
    assert_int_equal(pin_kib, 300000 - REST_PROBE_KIB);
    assert_false(rest_judge(&rest, pin_kib + 64)); /* it may be on its way still */
    assert_false(rest.learned);
    pin_kib = rest_plan_pin(&rest, pin_kib + 64, 262144, 0);
    assert_int_equal(pin_kib, 300000 - 2 * REST_PROBE_KIB + 64);
    assert_true(rest_judge(&rest, pin_kib + 64));
    assert_true(rest.learned);
    assert_int_equal(rest.offset_kib, 64);
    assert_int_equal(rest_pin_for(&rest, pin_kib + 64), pin_kib);
}

static void a_guest_that_is_stuck_at_its_cap_teaches_nothing(void **state)
{
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    rest_plan_pin(&rest, 300000, 400000, 0);
    assert_true(rest_judge(&rest, 300000));
    assert_false(rest.learned);
}

static void a_known_offset_is_used(void **state)
{
    int64_t known_kib = 64;
    struct rest rest;
    (void)state;

    rest_init(&rest, &known_kib);
    assert_int_equal(rest_plan_pin(&rest, 300000, 1, 0), 299936);
    assert_true(rest_judge(&rest, 300000));
}

/* Half-way: the driver waits before its next try, and looks as if it stood still. */
static void a_guest_that_missed_its_pin_is_pinned_where_it_is(void **state)
{
    int64_t known_kib = 0;
    struct rest rest;
    (void)state;

    rest_init(&rest, &known_kib);
    rest_plan_pin(&rest, 300000, 1, 0);
    assert_false(rest_judge(&rest, 299000));
    assert_int_equal(rest_plan_pin(&rest, 299000, 1, 0), 299000);
    assert_true(rest_judge(&rest, 299000));
    assert_int_equal(rest.offset_kib, 0);
}

/* It has seen a smaller target for a moment, and waits before it grows again. */
static void a_guest_below_its_pin_teaches_nothing(void **state)
{
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    assert_int_equal(rest_plan_pin(&rest, 407552, 407552, 0), 407552);
    assert_false(rest_judge(&rest, 391168));
    assert_int_equal(rest_plan_pin(&rest, 391168, 407552, 0), 391168);
    assert_true(rest_judge(&rest, 391168));
    assert_false(rest.learned);
    assert_int_equal(rest_pin_for(&rest, 391168), 391168);
}

/* Otherwise a wrong offset would shrink the guest a little at every try, for ever. */
static void a_guest_that_misses_twice_alike_is_believed(void **state)
{
    int64_t wrong_kib = 64;
    struct rest rest;
    (void)state;

    rest_init(&rest, &wrong_kib);
    rest_plan_pin(&rest, 300000, 1, 0); /* 299936 */
    assert_false(rest_judge(&rest, 299936));
    rest_plan_pin(&rest, 299936, 1, 0);
    assert_true(rest_judge(&rest, 299872));
    assert_int_equal(rest.offset_kib, 0);
}

static void video_memory_is_a_first_guess(void **state)
{
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    assert_int_equal(rest_plan_pin(&rest, 270400, 262144, 8192), 262144);
    rest_init(&rest, NULL);
    assert_int_equal(rest_plan_pin(&rest, 300000, 262144, 8192), 300000 - 8192 - REST_PROBE_KIB);
}

static void a_pin_is_never_nothing(void **state)
{
    int64_t known_kib = 4096;
    struct rest rest;
    (void)state;

    rest_init(&rest, &known_kib);
    assert_int_equal(rest_plan_pin(&rest, 4096, 1, 0), 1);
}

static void a_known_constant_tells_exactly_whether_a_guest_is_there(void **state)
{
    int64_t known_kib = 64;
    struct rest rest;
    (void)state;

    rest_init(&rest, NULL);
    assert_true(rest_is_there(&rest, 262144, 262144, 0, false));
    assert_false(rest_is_there(&rest, 262148, 262144, 0, false));
    assert_true(rest_is_there(&rest, 262208, 262144, 0, true));
    assert_true(rest_is_there(&rest, 270400, 262144, 8192, true));
    assert_false(rest_is_there(&rest, 270400, 262144, 0, true));
    assert_false(rest_is_there(&rest, 262144, 262144, 8192, true));
    rest_init(&rest, &known_kib);
    assert_true(rest_is_there(&rest, 262208, 262144, 8192, true));
    assert_false(rest_is_there(&rest, 262144, 262144, 0, true));
    assert_false(rest_is_there(&rest, 262144, 262144, 0, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_quiet_guest_is_left_where_it_is),
        cmocka_unit_test(a_guest_on_its_way_shows_its_offset),
        cmocka_unit_test(a_guest_that_is_stuck_at_its_cap_teaches_nothing),
        cmocka_unit_test(a_known_offset_is_used),
        cmocka_unit_test(a_guest_that_missed_its_pin_is_pinned_where_it_is),
        cmocka_unit_test(a_guest_below_its_pin_teaches_nothing),
        cmocka_unit_test(a_guest_that_misses_twice_alike_is_believed),
        cmocka_unit_test(video_memory_is_a_first_guess),
        cmocka_unit_test(a_pin_is_never_nothing),
        cmocka_unit_test(a_known_constant_tells_exactly_whether_a_guest_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
