/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is remembered about domains, and for how long. Time passes when a test says so. */
#include "daemon/domains.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* As daemon/domains.c has it. */
#define MOST 8192

/* ---- The clock, and the hypervisor ---- */

static int64_t now_ms;

int __wrap_clock_gettime(clockid_t id, struct timespec *now);

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
    (void)id;
    *now = (struct timespec){.tv_sec = now_ms / 1000, .tv_nsec = now_ms % 1000 * 1000000};
    return 0;
}

static struct {
    size_t count; /* domains 1 to this */
    int error;
    uint16_t error_from; /* asked from there on */
} xen;

static void print_uuid(unsigned number, char uuid[HYPERVISOR_UUID_LENGTH + 1])
{
    snprintf(uuid, HYPERVISOR_UUID_LENGTH + 1, "%08x-0000-4000-8000-000000000000", number);
}

int hypervisor_list(struct hypervisor *hypervisor, uint16_t first, size_t room, struct hypervisor_domain *domains)
{
    size_t count = 0;
    (void)hypervisor;

    if (xen.error && first >= xen.error_from)
        return xen.error;
    for (; count < room && first + count <= xen.count; count++) {
        memset(&domains[count], 0, sizeof(domains[count]));
        domains[count].domid = (uint16_t)(first + count);
        print_uuid((unsigned)(first + count), domains[count].uuid);
    }
    return (int)count;
}

/* ---- Tests ---- */

static int open_domains(void **state)
{
    memset(&xen, 0, sizeof(xen));
    now_ms = 1000000;
    *state = domains_new();
    return *state ? 0 : -1;
}

static int close_domains(void **state)
{
    domains_free(*state);
    return 0;
}

static void learn(struct domains *domains, unsigned number, int64_t offset_kib)
{
    char uuid[HYPERVISOR_UUID_LENGTH + 1];

    print_uuid(number, uuid);
    domains_learn_offset(domains, uuid, offset_kib);
}

static const int64_t *offset_of(struct domains *domains, unsigned number)
{
    char uuid[HYPERVISOR_UUID_LENGTH + 1];

    print_uuid(number, uuid);
    return domains_offset_kib(domains, uuid);
}

static bool is_young(struct domains *domains, unsigned number)
{
    char uuid[HYPERVISOR_UUID_LENGTH + 1];

    print_uuid(number, uuid);
    return domains_is_young(domains, uuid);
}

static void count_domain(void *context, const struct hypervisor_domain *domain)
{
    unsigned *count = context;

    assert_int_equal(domain->domid, ++*count);
}

static void offset_is_kept_until_another_is_learned(void **state)
{
    assert_null(offset_of(*state, 1));
    learn(*state, 1, 64);
    learn(*state, 2, -4);
    assert_int_equal(*offset_of(*state, 1), 64);
    learn(*state, 1, 68);
    assert_int_equal(*offset_of(*state, 1), 68);
    assert_int_equal(*offset_of(*state, 2), -4);
    xen.count = 3;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    assert_int_equal(*offset_of(*state, 1), 68);
    assert_null(offset_of(*state, 3));
}

static void only_who_came_after_us_is_young(void **state)
{
    xen.count = 2;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    assert_false(is_young(*state, 1));
    xen.count = 3;
    assert_true(is_young(*state, 3)); /* nobody has seen it yet */
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    assert_true(is_young(*state, 3));
    now_ms += 9999;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    assert_true(is_young(*state, 3));
    now_ms++;
    assert_false(is_young(*state, 3));
}

/* Each is shown once, in the order of their numbers, whatever fits into one answer of the hypervisor's. */
static void any_number_of_domains_is_looked_at(void **state)
{
    static const size_t counts[] = {0, 1, 255, 256, 257, 512, 1000};

    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        unsigned seen = 0;

        xen.count = counts[i];
        assert_int_equal(domains_look(*state, NULL, count_domain, &seen), 0);
        assert_int_equal(seen, counts[i]);
    }
}

/* Who was there before us is told apart in the first look that saw all of them, not in one that was broken off. */
static void look_that_fails_is_none(void **state)
{
    unsigned seen = 0;

    xen.count = 300;
    xen.error = -EPERM;
    assert_int_equal(domains_look(*state, NULL, count_domain, &seen), -EPERM);
    assert_int_equal(seen, 0);
    xen.error_from = 257;
    assert_int_equal(domains_look(*state, NULL, count_domain, &seen), -EPERM);
    assert_int_equal(seen, 256);
    xen.error = 0;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    assert_false(is_young(*state, 1));
    assert_false(is_young(*state, 300));
}

/* A full table forgets who was seen longest ago, and nobody who is there. */
static void one_seen_longest_ago_makes_room(void **state)
{
    enum { THERE = 10, MORE = 3000 };

    xen.count = THERE;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    for (unsigned number = 1; number <= MOST; number++) {
        now_ms++;
        learn(*state, number, number);
    }
    now_ms++;
    assert_int_equal(domains_look(*state, NULL, NULL, NULL), 0);
    for (unsigned number = 1; number <= MOST; number++)
        assert_int_equal(*offset_of(*state, number), number);
    for (unsigned number = MOST + 1; number <= MOST + MORE; number++) {
        now_ms++;
        learn(*state, number, number);
    }
    for (unsigned number = 1; number <= MOST + MORE; number++) {
        if (number > THERE && number <= THERE + MORE)
            assert_null(offset_of(*state, number));
        else
            assert_int_equal(*offset_of(*state, number), number);
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_domains, close_domains)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(offset_is_kept_until_another_is_learned), CASE(only_who_came_after_us_is_young),
        CASE(any_number_of_domains_is_looked_at),      CASE(look_that_fails_is_none),
        CASE(one_seen_longest_ago_makes_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
