/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Surveys of a guest in imitated memory: when they stand, what they tell apart, and what stays mapped. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/survey.h"
#include "tests/imitation/machine.h"

#define VADDR UINT64_C(0xffffc90000000000)
#define DOMID 1

/* Frames of the imitated guest; its first table of the lowest level is FIRST, others follow. */
enum { INFO = 1, ROOT, THIRD, SECOND, FIRST };

/* Byte offsets in a 64-bit guest's shared info page. */
enum { MAX_PFN = 3088, P2M_CR3 = 3112, P2M_VADDR = 3120, P2M_GENERATION = 3128 };

static struct machine *machine;
static struct hypervisor *hypervisor;
static struct hypervisor_p2m *p2m;
static struct survey *survey;
static struct survey_kept kept;
static struct survey_pages pages;

static uint64_t *words(unsigned frame)
{
    return (uint64_t *)(void *)machine->frames[frame];
}

static void set(unsigned member, uint64_t value)
{
    words(INFO)[member / 8] = value;
}

/* A list of this many GiB of guest, a table of the lowest level for each. */
static void make_guest(unsigned gib)
{
    uint64_t page = (VADDR & UINT64_C(0xffffffffffff)) >> 12;

    memset(machine->frames[INFO], 0, sizeof(machine->frames[INFO]));
    words(ROOT)[page >> 27] = (uint64_t)THIRD << 12 | 1;
    words(THIRD)[page >> 18 & 511] = (uint64_t)SECOND << 12 | 1;
    for (unsigned table = 0; table < gib; table++) {
        words(SECOND)[table] = (uint64_t)(FIRST + table) << 12 | 1;
        for (unsigned i = 0; i < 512; i++)
            words(FIRST + table)[i] = (UINT64_C(0x100000) + table * 512 + i) << 12 | 1;
    }
    set(MAX_PFN, (uint64_t)gib << 18);
    set(P2M_CR3, (uint64_t)ROOT << 12);
    set(P2M_VADDR, VADDR);
}

static int set_up(void **state)
{
    struct hypervisor_domain domain;
    char path[64];
    int fd = memfd_create("machine", 0);
    (void)state;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, sizeof(struct machine)) < 0 || setenv(MACHINE_ENVIRONMENT, path, 1) < 0)
        return -1;
    machine = machine_map();
    if (!machine || hypervisor_open(&hypervisor))
        return -1;
    machine->slots[DOMID].used = 1;
    machine->slots[DOMID].width = 8;
    machine->slots[DOMID].shared_info_frame = INFO;
    if (hypervisor_get(hypervisor, DOMID, &domain) || hypervisor_map_p2m(hypervisor, &domain, &p2m))
        return -1;
    kept = (struct survey_kept){.hypervisor = hypervisor, .domid = DOMID};
    pages = (struct survey_pages){hypervisor, DOMID};
    return survey_new(&survey);
}

static int tear_down(void **state)
{
    (void)state;
    survey_free(survey);
    survey_kept_drop(&kept);
    hypervisor_unmap_p2m(p2m);
    hypervisor_close(hypervisor);
    return munmap(machine, sizeof(*machine));
}

static struct p2m_notes notes; /* of the last glance */

static void take_nothing(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count)
{
    (void)context, (void)level, (void)first, (void)frames, (void)count;
}

/* A whole survey, in steps of this many entries. */
static const struct survey_result *look(const struct p2m_source *source, bool glance, unsigned entries)
{
    int more;

    survey_begin(survey, p2m, glance ? &notes : NULL);
    while ((more = survey_step(survey, source, entries)) > 0)
        ;
    assert_int_equal(more, 0);
    return survey_result(survey);
}

static uint64_t digest(bool glance)
{
    struct p2m_source source = survey_pages_source(&pages);
    const struct survey_result *result = look(&source, glance, SURVEY_STEP_ENTRIES);

    assert_true(result->stands);
    return result->digest;
}

static void digest_is_the_same_however_it_is_read(void **state)
{
    struct p2m_source mapping = survey_pages_source(&pages), keeping = survey_kept_source(&kept);
    (void)state;

    make_guest(3);
    uint64_t expected = look(&mapping, false, SURVEY_STEP_ENTRIES)->digest;
    assert_true(look(&mapping, false, 1)->digest == expected);
    assert_true(look(&keeping, false, SURVEY_STEP_ENTRIES)->digest == expected);
    assert_int_equal(survey_result(survey)->pages, 3 * 512 + 3 + 3);
    assert_int_equal(kept.count, 3 + 3);
    uint64_t maps = machine->maps;
    assert_true(look(&keeping, false, 600)->digest == expected);
    assert_int_equal(machine->maps, maps);
}

static void everything_that_makes_up_a_p2m_tells(void **state)
{
    (void)state;
    make_guest(2);
    uint64_t before = digest(false);

    set(MAX_PFN, (2 << 18) - 1); /* as many pages as before */
    assert_true(digest(false) != before);
    set(MAX_PFN, 2 << 18);
    words(FIRST + 1)[511] += 4096;
    assert_true(digest(false) != before);
    words(FIRST + 1)[511] -= 4096;
    memcpy(words(100), words(FIRST), 4096);
    words(SECOND)[0] = UINT64_C(100) << 12 | 1;
    assert_true(digest(false) != before);
    words(SECOND)[0] = (uint64_t)FIRST << 12 | 1;
    words(FIRST)[0] |= 0x60; /* accessed and dirty: the processor's own notes */
    words(FIRST)[1] |= UINT64_C(1) << 63;
    assert_true(digest(false) == before);
}

static void glance_sees_the_tables_near_the_root(void **state)
{
    (void)state;
    make_guest(1);
    uint64_t whole = digest(false), before = digest(true);

    words(FIRST)[3] += 4096;
    assert_true(digest(true) == before);
    assert_true(digest(false) != whole);
    memcpy(words(100), words(SECOND), 4096);
    words(THIRD)[0] = UINT64_C(100) << 12 | 1;
    assert_true(digest(true) != before);
    words(THIRD)[0] = (uint64_t)SECOND << 12 | 1;
}

static void noted_entries_stand_as_long_as_they_are_the_same(void **state)
{
    struct p2m_source keeping = survey_kept_source(&kept);
    (void)state;

    survey_kept_drop(&kept);
    make_guest(3);
    notes.count = 0;
    assert_false(p2m_notes_stand(&notes)); /* nothing is noted */
    assert_true(look(&keeping, true, SURVEY_STEP_ENTRIES)->stands);
    assert_int_equal(notes.count, 1 + 1); /* the root's entry, and the one of the table below */
    assert_true(p2m_notes_stand(&notes));
    words(FIRST)[3] += 4096; /* far from the root */
    assert_true(p2m_notes_stand(&notes));
    words(THIRD)[0] ^= 0x20; /* the processor has used it: another walk tells that it leads to the same */
    assert_false(p2m_notes_stand(&notes));
    words(THIRD)[0] ^= 0x20;
    assert_true(p2m_notes_stand(&notes));
    words(THIRD)[0] += 4096;
    assert_false(p2m_notes_stand(&notes));
    words(THIRD)[0] -= 4096;
    look(&keeping, true, SURVEY_STEP_ENTRIES); /* notes are of the last walk, and not of two */
    assert_int_equal(notes.count, 1 + 1);
    survey_kept_drop(&kept);
}

static void many_entries_are_not_noted(void **state)
{
    struct p2m p2m_of_many = {.kind = P2M_TREE,
                              .width = 8,
                              .levels = 2,
                              .index_bits = 9,
                              .entry_bytes = 8,
                              .root = THIRD,
                              .max_pfn = (P2M_NOTES_MOST + 1) << 18,
                              .leaves = (P2M_NOTES_MOST + 1) * 512};
    struct p2m_source keeping = survey_kept_source(&kept);
    struct p2m_sink sink = {take_nothing, NULL};
    (void)state;

    make_guest(1);
    for (unsigned most = P2M_NOTES_MOST; most <= P2M_NOTES_MOST + 1; most++) {
        p2m_of_many.leaves = most * 512;
        notes.count = 0;
        struct p2m_walk walk = {.p2m = &p2m_of_many, .notes = &notes, .lowest = p2m_top_level(&p2m_of_many)};
        for (unsigned i = 0; i < most; i++)
            words(THIRD)[i] = 100 + i;
        while (p2m_walk_step(&walk, &keeping, SURVEY_STEP_ENTRIES, &sink) > 0)
            ;
        assert_int_equal(notes.count, most);
        assert_int_equal(p2m_notes_stand(&notes), most == P2M_NOTES_MOST);
    }
    survey_kept_drop(&kept);
}

static void nothing_stands_during_an_update(void **state)
{
    struct p2m_source source = survey_pages_source(&pages);
    (void)state;

    make_guest(P2M_BATCH + 6); /* more than a step does at once */
    set(P2M_GENERATION, 1);
    assert_int_equal(look(&source, false, SURVEY_STEP_ENTRIES)->problem, P2M_MOVING);
    set(P2M_GENERATION, 2);
    assert_true(look(&source, false, SURVEY_STEP_ENTRIES)->stands);
    /* In the middle of it: the counter moves on, and is even again at the end. */
    survey_begin(survey, p2m, NULL);
    assert_int_equal(survey_step(survey, &source, 1), 1);
    set(P2M_GENERATION, 4);
    while (survey_step(survey, &source, SURVEY_STEP_ENTRIES) > 0)
        ;
    assert_int_equal(survey_result(survey)->problem, P2M_MOVING);
    assert_false(survey_result(survey)->stands);
    /* The root moves, and the counter does not. */
    survey_begin(survey, p2m, NULL);
    assert_int_equal(survey_step(survey, &source, 1), 1);
    set(P2M_CR3, UINT64_C(100) << 12);
    while (survey_step(survey, &source, SURVEY_STEP_ENTRIES) > 0)
        ;
    assert_int_equal(survey_result(survey)->problem, P2M_MOVING);
}

static void problem_is_a_result_and_no_error(void **state)
{
    struct p2m_source source = survey_pages_source(&pages);
    (void)state;

    make_guest(1);
    words(FIRST)[7] &= ~UINT64_C(1);
    const struct survey_result *result = look(&source, false, SURVEY_STEP_ENTRIES);
    assert_false(result->stands);
    assert_int_equal(result->problem, P2M_NOT_PRESENT);
    assert_int_equal(result->problem_level, 1);
    assert_int_equal(result->problem_leaf, 7);
    set(P2M_CR3, UINT64_C(0xffffff) << 12);
    assert_int_equal(look(&source, false, SURVEY_STEP_ENTRIES)->problem, P2M_UNMAPPABLE);
    set(MAX_PFN, UINT64_C(1) << 40);
    assert_int_equal(look(&source, false, SURVEY_STEP_ENTRIES)->problem, P2M_MAX_PFN_TOO_LARGE);
}

static void no_more_stays_mapped_than_is_allowed(void **state)
{
    struct p2m_source source = survey_kept_source(&kept);
    (void)state;

    make_guest(SURVEY_KEPT_PAGES);
    survey_kept_drop(&kept);
    survey_begin(survey, p2m, NULL);
    assert_int_equal(survey_step(survey, &source, SURVEY_STEP_ENTRIES), -E2BIG);
    assert_int_equal(kept.count, SURVEY_KEPT_PAGES);
    survey_kept_drop(&kept);
    assert_int_equal(kept.count, 0);
    assert_true(look(&source, true, SURVEY_STEP_ENTRIES)->stands); /* the tables near the root always fit */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digest_is_the_same_however_it_is_read),
        cmocka_unit_test(everything_that_makes_up_a_p2m_tells),
        cmocka_unit_test(glance_sees_the_tables_near_the_root),
        cmocka_unit_test(nothing_stands_during_an_update),
        cmocka_unit_test(problem_is_a_result_and_no_error),
        cmocka_unit_test(no_more_stays_mapped_than_is_allowed),
        cmocka_unit_test(noted_entries_stand_as_long_as_they_are_the_same),
        cmocka_unit_test(many_entries_are_not_noted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
