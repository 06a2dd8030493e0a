/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sharedinfo.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/*
 * Where the p2m's members are, counted by hand: 32 vcpu_info of 64 bytes; a bit for each event channel (as many as a
 * long has bits, squared), twice; version, seconds and nanoseconds of the wall clock, and in 64-bit guests the upper
 * half of the seconds. Then struct arch_shared_info: max_pfn, the tree's top, nmi_reason, cr3, vaddr, generation.
 */
enum {
    CLOCK_4 = 32 * 64 + 2 * (32 * 32 / 8),
    ARCH_4 = CLOCK_4 + 3 * 4,
    CLOCK_8 = 32 * 64 + 2 * (64 * 64 / 8),
    ARCH_8 = CLOCK_8 + 4 * 4,
};

/* Every byte of the page differs from its neighbours: what is read from elsewhere, or too wide, shows. */
static uint64_t words[SHAREDINFO_BYTES / 8];

static int fill_page(void **state)
{
    unsigned char *bytes = (unsigned char *)words;
    (void)state;

    for (unsigned i = 0; i < SHAREDINFO_BYTES; i++)
        bytes[i] = (unsigned char)(i * 37 + i / 256 * 11 + 1);
    return 0;
}

static uint64_t member(unsigned arch, unsigned width, unsigned index)
{
    uint64_t value = 0;

    memcpy(&value, (const char *)words + arch + (size_t)index * width, width);
    return value;
}

static void members_are_where_the_guests_width_puts_them(void **state)
{
    static const unsigned widths[] = {4, 8};
    (void)state;

    for (unsigned i = 0; i < 2; i++) {
        unsigned width = widths[i], arch = width == 4 ? ARCH_4 : ARCH_8;
        struct sharedinfo info;

        memset(&info, 0xee, sizeof(info));
        assert_int_equal(sharedinfo_read(words, width, &info), 0);
        assert_int_equal(info.width, width);
        assert_true(info.max_pfn == member(arch, width, 0));
        assert_true(info.pfn_to_mfn_frame_list_list == member(arch, width, 1));
        assert_true(info.p2m_cr3 == member(arch, width, 3));
        assert_true(info.p2m_vaddr == member(arch, width, 4));
        assert_true(info.p2m_generation == member(arch, width, 5));
    }
}

static void a_narrow_guests_numbers_are_not_extended(void **state)
{
    uint64_t ones[SHAREDINFO_BYTES / 8];
    struct sharedinfo info;
    (void)state;

    memset(ones, 0xff, sizeof(ones));
    assert_int_equal(sharedinfo_read(ones, 4, &info), 0);
    assert_true(info.max_pfn == UINT32_MAX && info.pfn_to_mfn_frame_list_list == UINT32_MAX);
    assert_true(info.p2m_cr3 == UINT32_MAX && info.p2m_vaddr == UINT32_MAX && info.p2m_generation == UINT32_MAX);
    assert_int_equal(sharedinfo_read(ones, 8, &info), 0);
    assert_true(info.max_pfn == UINT64_MAX && info.p2m_generation == UINT64_MAX);
}

static void other_widths_are_refused(void **state)
{
    static const unsigned widths[] = {0, 1, 2, 3, 5, 7, 9, 16, 32, 64, UINT32_MAX};
    (void)state;

    for (unsigned i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        struct sharedinfo info;
        assert_int_equal(sharedinfo_read(words, widths[i], &info), -EINVAL);
    }
}

static void an_odd_counter_is_an_update(void **state)
{
    struct sharedinfo info = {.width = 8, .p2m_cr3 = 0x1000};
    (void)state;

    assert_false(sharedinfo_is_updating(&info));
    info.p2m_generation = 1;
    assert_true(sharedinfo_is_updating(&info));
    info.p2m_generation = UINT64_MAX;
    assert_true(sharedinfo_is_updating(&info));
    info.p2m_generation = 2;
    assert_false(sharedinfo_is_updating(&info));
}

/* Without a list the counter's place means nothing. */
static void a_tree_has_no_counter(void **state)
{
    const struct sharedinfo info = {.width = 8, .pfn_to_mfn_frame_list_list = 1, .p2m_generation = 1};
    (void)state;

    assert_false(sharedinfo_is_updating(&info));
}

static void the_place_is_all_but_the_counter(void **state)
{
    const struct sharedinfo one = {8, 1, 2, 3, 4, 5};
    struct sharedinfo others[] = {{4, 1, 2, 3, 4, 5}, {8, 9, 2, 3, 4, 5}, {8, 1, 9, 3, 4, 5},
                                  {8, 1, 2, 9, 4, 5}, {8, 1, 2, 3, 9, 5}, {8, 1, 2, 3, 4, 9}};
    (void)state;

    assert_true(sharedinfo_same_place(&one, &one));
    for (unsigned i = 0; i < 5; i++) {
        assert_false(sharedinfo_same_place(&one, &others[i]));
        assert_false(sharedinfo_same_place(&others[i], &one));
    }
    assert_true(sharedinfo_same_place(&one, &others[5]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(members_are_where_the_guests_width_puts_them),
        cmocka_unit_test(a_narrow_guests_numbers_are_not_extended),
        cmocka_unit_test(other_widths_are_refused),
        cmocka_unit_test(an_odd_counter_is_an_update),
        cmocka_unit_test(a_tree_has_no_counter),
        cmocka_unit_test(the_place_is_all_but_the_counter),
    };
    return cmocka_run_group_tests(tests, fill_page, NULL);
}
