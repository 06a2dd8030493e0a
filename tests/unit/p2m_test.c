/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/p2m.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/p2m-image.h"
#include "tests/unit/p2m-reference.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HUGE_STEP UINT32_MAX

/* Where a new entry of the top table begins, in the part of virtual memory that kernels use. */
#define GOOD_8 UINT64_C(0xffffc90000000000)
#define GOOD_4 UINT64_C(0xc0000000)

/* Of a kernel's list: the last pages of 512 GiB, so that a list of more than 700 pages goes on under another L3. */
#define VADDR_8 (GOOD_8 - UINT64_C(700) * P2M_PAGE_BYTES)
#define VADDR_4 (GOOD_4 - UINT64_C(700) * P2M_PAGE_BYTES)

static uint64_t vaddr_of(unsigned layout)
{
    return layout == LIST_8 ? VADDR_8 : layout == LIST_4 ? VADDR_4 : 0;
}

static unsigned pfns_per_leaf(const struct image *image)
{
    return P2M_PAGE_BYTES / image->layout->width;
}

/* ---- What is found ---- */

/* All calls of a sink, one after the other: level, first, count, frames. */
struct calls {
    uint64_t *words;
    size_t count, room;
};

static void calls_add(struct calls *calls, uint64_t word)
{
    if (calls->count == calls->room) {
        calls->room = calls->room ? calls->room * 2 : 1024;
        calls->words = realloc(calls->words, calls->room * sizeof(*calls->words));
        assert_non_null(calls->words);
    }
    calls->words[calls->count++] = word;
}

static void take_call(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count)
{
    assert_true(count > 0);
    calls_add(context, level);
    calls_add(context, first);
    calls_add(context, count);
    for (unsigned i = 0; i < count; i++)
        calls_add(context, frames[i]);
}

static void describe(const struct image *image, struct p2m *p2m)
{
    assert_int_equal(p2m_describe(&image->info, p2m), P2M_NO_PROBLEM);
    assert_int_equal(p2m->kind, image->layout->kind);
    assert_true(p2m->leaves == image->leaves);
    assert_true(p2m->root == image->layout->root);
}

/* A step may end up to a batch of tables, and the tables above them, later than it was told to. */
static uint64_t most_pages(const struct p2m *p2m, unsigned entries, unsigned batch)
{
    return (uint64_t)entries / (1u << p2m->index_bits) * p2m->levels + batch + 2 * p2m->levels;
}

static int walk_in_steps(struct image *image, const struct p2m *p2m, struct p2m_walk *walk, unsigned entries,
                         unsigned batch, struct calls *calls)
{
    const struct p2m_source source = image_source(image, batch);
    const struct p2m_sink sink = {take_call, calls};
    int more;

    do {
        uint64_t before = walk->next, mapped_before = image->pages_mapped;
        more = p2m_walk_step(walk, &source, entries, &sink);
        assert_int_equal(image->mapped_now, 0);
        assert_true(image->pages_mapped - mapped_before <= most_pages(p2m, entries, batch));
        assert_true(more < 0 || walk->next > before);
    } while (more == 1);
    assert_true(image->mapped_at_once <= batch);
    return more;
}

/* From the root to the end, or to what is wrong. */
static int walk_image(struct image *image, unsigned entries, unsigned batch, struct p2m_walk *walk, struct calls *calls)
{
    struct p2m p2m;

    describe(image, &p2m);
    *walk = (struct p2m_walk){.p2m = &p2m, .lowest = 1};
    *calls = (struct calls){0};
    image->mapped_at_once = 0;
    int error = walk_in_steps(image, &p2m, walk, entries, batch, calls);
    walk->p2m = NULL;
    return error;
}

static const void *page_of_image(void *context, uint64_t frame)
{
    return image_words(context, frame);
}

static void look_at(struct image *image, uint64_t leaf, struct reference_look *look)
{
    reference_look(&image->info, leaf, page_of_image, image, look);
}

/* The call at *at, which is moved to the one behind it; NULL after the last. */
static const uint64_t *next_call(const struct calls *calls, size_t *at)
{
    const uint64_t *call = &calls->words[*at];

    if (*at == calls->count)
        return NULL;
    *at += 3 + call[2];
    return call;
}

/*
 * Every leaf page's frame, from the calls of a whole walk. A table without content is a hole, or the one before once
 * more.
 */
static uint64_t *leaves_of(struct image *image, const struct calls *calls)
{
    uint64_t *leaves = calloc(image->leaves, sizeof(*leaves));
    uint64_t end = 0, last_first = 0, last_frame = 0;
    size_t at = 0;

    assert_non_null(leaves);
    for (const uint64_t *call; (call = next_call(calls, &at)) != NULL;) {
        assert_true(call[0] > 0 && call[1] == end && call[2] == 1);
        if (call[0] > 1)
            continue;
        uint64_t first = end, frame = call[3];
        end = image_table_end(image, 1, first);
        if (at < calls->count && calls->words[at] == 0) {
            call = next_call(calls, &at);
            assert_true(call[1] == first && call[2] == end - first);
            memcpy(&leaves[first], &call[3], call[2] * sizeof(*leaves));
        } else if (frame != 0) {
            assert_true(frame == last_frame &&
                        (image->first_page + last_first) % (1u << image->layout->index_bits) == 0);
            memcpy(&leaves[first], &leaves[last_first], (end - first) * sizeof(*leaves));
        }
        last_first = first;
        last_frame = frame;
    }
    assert_true(end == image->leaves);
    return leaves;
}

/* All tables of all levels are there, each where it belongs, and all leaf pages. */
static void check_calls(struct image *image, const struct calls *calls)
{
    uint64_t tables[5] = {0}, *leaves = leaves_of(image, calls);
    struct reference_look look;
    size_t at = 0;

    for (const uint64_t *call; (call = next_call(calls, &at)) != NULL;) {
        assert_true(call[0] <= image->layout->levels);
        if (call[0] == 0)
            continue;
        look_at(image, call[1], &look);
        assert_true(call[3] == look.frames[call[0]]);
        tables[call[0]]++;
    }
    for (unsigned level = 1; level <= image->layout->levels; level++)
        assert_true(tables[level] == image_table_count(image, level));
    for (uint64_t leaf = 0; leaf < image->leaves; leaf++) {
        look_at(image, leaf, &look);
        assert_int_equal(look.problem, P2M_NO_PROBLEM);
        assert_true(leaves[leaf] == look.frames[0]);
    }
    free(leaves);
}

static void check_whole(struct image *image)
{
    struct p2m_walk walk;
    struct calls calls;

    assert_int_equal(walk_image(image, HUGE_STEP, P2M_BATCH, &walk, &calls), 0);
    assert_int_equal(walk.problem, P2M_NO_PROBLEM);
    check_calls(image, &calls);
    free(calls.words);
}

/* A p2m without holes whose leaf pages all differ. */
static void fill(struct image *image)
{
    for (uint64_t leaf = 0; leaf < image->leaves; leaf++)
        image_put(image, 1, leaf, image_new_frame(image));
}

/* ---- Whole p2ms ---- */

static void leaf_pages_come_out_as_they_were_put_in(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct p2m_walk walk;
        struct calls calls;
        struct image image;
        uint64_t put[3000];

        image_init(&image, layout, vaddr_of(layout), COUNT(put) * (P2M_PAGE_BYTES / image_layouts[layout].width));
        assert_int_equal(image.leaves, COUNT(put));
        for (unsigned i = 0; i < COUNT(put); i++) {
            put[i] = image_new_frame(&image);
            image_put(&image, 1, i, put[i]);
        }
        assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &walk, &calls), 0);
        uint64_t *got = leaves_of(&image, &calls);
        assert_memory_equal(got, put, sizeof(put));
        check_calls(&image, &calls);
        uint64_t tables = 0;
        for (unsigned level = 1; level <= image.layout->levels; level++)
            tables += image_table_count(&image, level);
        assert_int_equal(walk.pages, tables + COUNT(put));
        free(got);
        free(calls.words);
        image_free(&image);
    }
}

static void a_walk_is_the_same_in_steps_of_any_size(void **state)
{
    static const unsigned steps[] = {1, 7, 512, HUGE_STEP}, batches[] = {1, 3, P2M_BATCH};
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct p2m_walk walk, first_walk;
        struct calls calls, first_calls;
        struct image image;

        image_init(&image, layout, vaddr_of(layout), 70000 * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
        fill(&image);
        assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &first_walk, &first_calls), 0);
        for (unsigned i = 0; i < COUNT(steps) * COUNT(batches); i++) {
            assert_int_equal(walk_image(&image, steps[i / COUNT(batches)], batches[i % COUNT(batches)], &walk, &calls),
                             0);
            assert_int_equal(calls.count, first_calls.count);
            assert_memory_equal(calls.words, first_calls.words, calls.count * sizeof(*calls.words));
            assert_int_equal(walk.pages, first_walk.pages);
            free(calls.words);
        }
        free(first_calls.words);
        image_free(&image);
    }
}

static void a_list_begins_and_ends_anywhere_in_its_tables(void **state)
{
    static const struct {
        unsigned layout;
        uint64_t before; /* this many pages before the next L3, or the next entry of the L3 */
    } places[] = {{LIST_8, 0}, {LIST_8, 1},   {LIST_8, 511}, {LIST_8, 512}, {LIST_8, 513},
                  {LIST_4, 0}, {LIST_4, 511}, {LIST_4, 512}, {LIST_4, 513}};
    static const uint64_t lengths[] = {1, 2, 511, 512, 513, 1030};
    (void)state;

    for (unsigned i = 0; i < COUNT(places) * COUNT(lengths); i++) {
        unsigned layout = places[i / COUNT(lengths)].layout;
        uint64_t boundary = layout == LIST_8 ? GOOD_8 : GOOD_4;
        uint64_t vaddr = boundary - places[i / COUNT(lengths)].before * P2M_PAGE_BYTES;
        struct image image;

        image_init(&image, layout, vaddr, lengths[i % COUNT(lengths)] * (P2M_PAGE_BYTES / image_layouts[layout].width));
        fill(&image);
        check_whole(&image);
        image_free(&image);
    }
}

static void a_frame_has_all_the_bits_of_an_address(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        unsigned bits = image_layouts[layout].frame_bits;
        struct p2m_walk walk;
        struct calls calls;
        struct image image;

        image_init(&image, layout, vaddr_of(layout), bits * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
        for (unsigned bit = 0; bit < bits; bit++)
            image_put(&image, 1, bit, UINT64_C(1) << bit);
        assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &walk, &calls), 0);
        uint64_t *got = leaves_of(&image, &calls);
        for (unsigned bit = 0; bit < bits; bit++)
            assert_true(got[bit] == UINT64_C(1) << bit);
        free(got);
        free(calls.words);
        image_free(&image);
    }
}

/* One more than the highest: 512 numbers of 8 bytes are a page, the 513th begins another. */
static void max_pfn_is_a_count(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct image image;
        struct p2m p2m;

        image_init(&image, layout, vaddr_of(layout), 1);
        unsigned pfns = pfns_per_leaf(&image);
        const uint64_t cases[][2] = {{1, 1}, {pfns - 1, 1}, {pfns, 1}, {pfns + 1, 2}, {2 * pfns, 2}, {2 * pfns + 1, 3}};
        for (unsigned i = 0; i < COUNT(cases); i++) {
            image.info.max_pfn = cases[i][0];
            assert_int_equal(p2m_describe(&image.info, &p2m), P2M_NO_PROBLEM);
            assert_int_equal(p2m.leaves, cases[i][1]);
            assert_int_equal(p2m.max_pfn, cases[i][0]);
        }
        image_free(&image);
    }
}

/* ---- Large guests, most of them missing ---- */

/* As Linux has it: one page stands for all that is missing, and so does one table of each level. */
static void share_what_is_missing(struct image *image)
{
    unsigned entries = 1u << image->layout->index_bits;
    uint64_t below = image_new_frame(image);

    for (unsigned level = 1; level < image->layout->levels; level++) {
        uint64_t table = image_add_page(image);
        for (unsigned i = 0; i < entries; i++)
            image_write_at(image, table, i, image_entry(image, below));
        below = table;
        uint64_t leaf = 0;
        for (; level == image->layout->levels - 1 && leaf < image->leaves; leaf = image_table_end(image, level, leaf))
            image_put(image, level + 1, leaf, table);
    }
}

/* A leaf page of its own among the missing ones: its tables are copies of the shared ones. */
static void put_among_missing(struct image *image, uint64_t leaf)
{
    for (unsigned level = image->layout->levels - 1; level > 0; level--) {
        uint64_t shared = image_table(image, level, leaf), own = image_add_page(image);
        memcpy(image_words(image, own), image_words(image, shared), P2M_PAGE_BYTES);
        image_put(image, level + 1, leaf, own);
    }
    image_put(image, 1, leaf, image_new_frame(image));
}

/* The longest there can be; the 64-bit list is that of 64 TiB, which is 128 GiB long. */
static void a_large_sparse_guest_is_read_fast(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct p2m_walk walk;
        struct calls calls;
        struct image image;

        image_init(&image, layout, layout == LIST_8 ? VADDR_8 : 0, image_layouts[layout].most_pfns);
        share_what_is_missing(&image);
        put_among_missing(&image, 0);
        put_among_missing(&image, image.leaves / 2);
        put_among_missing(&image, image.leaves - 1);
        clock_t begun = clock();
        assert_int_equal(walk_image(&image, 32768, P2M_BATCH, &walk, &calls), 0);
        assert_true(clock() - begun < 5 * CLOCKS_PER_SEC);
        /* Own tables and shared ones, those above them again in each step, and nothing that grows with the leaf pages.
         */
        assert_true(image.pages_mapped < 4 * image_table_count(&image, 2) + 50);
        assert_int_equal(walk.next, image.leaves);

        uint64_t *got = leaves_of(&image, &calls);
        const uint64_t samples[] = {0, 1, image.leaves / 2 - 1, image.leaves / 2, image.leaves - 2, image.leaves - 1};
        for (unsigned i = 0; i < COUNT(samples); i++) {
            struct reference_look look;
            look_at(&image, samples[i], &look);
            assert_true(got[samples[i]] == look.frames[0]);
        }
        free(got);
        free(calls.words);
        image_free(&image);
    }
}

/* A table that is read from its middle, as a list's first one may be, does not speak for a second entry to it. */
static void only_a_table_read_whole_speaks_for_the_next(void **state)
{
    struct p2m_walk walk;
    struct calls calls;
    struct image image;
    (void)state;

    /* 188 leaf pages of the first table; then the same table four times more, the last time half of it. */
    image_init(&image, LIST_8, VADDR_8, (188 + 3 * 512 + 256) * UINT64_C(512));
    for (uint64_t leaf = 188; leaf < 188 + 512; leaf++)
        image_put(&image, 1, leaf, image_new_frame(&image));
    uint64_t table = image_table(&image, 1, 188);
    for (uint64_t leaf = 0; leaf < image.leaves; leaf = image_table_end(&image, 1, leaf))
        image_put(&image, 2, leaf, table);
    assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &walk, &calls), 0);
    check_calls(&image, &calls);
    size_t at = 0;
    unsigned contents = 0;
    for (const uint64_t *call; (call = next_call(&calls, &at)) != NULL;)
        contents += call[0] == 0;
    assert_int_equal(contents, 2);
    free(calls.words);
    image_free(&image);
}

static void a_page_met_several_times_in_a_row_counts_once(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct p2m_walk walk;
        struct calls calls;
        struct image image;

        /* Leaf pages: one, another, and the first again; a hole in a tree takes the place of the other. */
        image_init(&image, layout, layout == LIST_8 ? GOOD_8 : 0,
                   UINT64_C(2048) * (P2M_PAGE_BYTES / image_layouts[layout].width));
        uint64_t frame = image_new_frame(&image), tables = 0;
        bool tree = image.layout->kind == P2M_TREE;
        for (uint64_t leaf = 0; leaf < image.leaves; leaf++)
            image_put(&image, 1, leaf, frame);
        image_write(&image, 1, 1200, tree ? 0 : image_entry(&image, image_new_frame(&image)));
        for (unsigned level = 1; level <= image.layout->levels; level++)
            tables += image_table_count(&image, level);
        assert_int_equal(walk_image(&image, 1, P2M_BATCH, &walk, &calls), 0);
        assert_int_equal(walk.pages, tables + (tree ? 2 : 3));
        free(calls.words);
        image_free(&image);
    }
}

/* ---- Holes ---- */

static void a_tree_has_holes_of_two_kinds(void **state)
{
    static const uint64_t holes[] = {0, UINT64_MAX};
    (void)state;

    for (unsigned layout = TREE_8; layout <= TREE_4; layout++) {
        for (unsigned i = 0; i < COUNT(holes); i++) {
            struct p2m_walk walk;
            struct calls calls;
            struct image image;

            image_init(&image, layout, 0, 5000 * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
            fill(&image);
            uint64_t second = image_table_end(&image, 1, 0), third = image_table_end(&image, 1, second);
            image_write(&image, 1, 0, holes[i]);
            image_write(&image, 1, 7, holes[i]);
            image_write(&image, 1, 4999, holes[i]);
            image_write(&image, 2, second, holes[i]);
            assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &walk, &calls), 0);
            check_calls(&image, &calls);
            uint64_t *got = leaves_of(&image, &calls);
            assert_int_equal(got[0], 0);
            assert_int_equal(got[7], 0);
            assert_int_equal(got[4999], 0);
            for (uint64_t leaf = second; leaf < third; leaf++)
                assert_int_equal(got[leaf], 0);
            assert_true(got[third] != 0);
            free(got);
            free(calls.words);
            image_free(&image);
        }
    }
}

/* All ones in half an entry is a frame like others in a 64-bit tree. */
static void half_a_hole_is_a_frame(void **state)
{
    struct p2m_walk walk;
    struct calls calls;
    struct image image;
    (void)state;

    image_init(&image, TREE_8, 0, 512);
    image_write(&image, 1, 0, UINT32_MAX);
    assert_int_equal(walk_image(&image, HUGE_STEP, 1, &walk, &calls), 0);
    uint64_t *got = leaves_of(&image, &calls);
    assert_true(got[0] == UINT32_MAX);
    free(got);
    free(calls.words);
    image_free(&image);
}

/* ---- What can be wrong with one entry ---- */

/* The walk ends with this problem, at the same place in steps of any size. */
static void check_problem(struct image *image, enum p2m_problem problem, unsigned level, uint64_t leaf)
{
    static const unsigned steps[] = {1, 512, HUGE_STEP};

    for (unsigned i = 0; i < COUNT(steps); i++) {
        struct reference_look look;
        struct p2m_walk walk;
        struct calls calls;

        assert_int_equal(walk_image(image, steps[i], 1, &walk, &calls), -EBADMSG);
        assert_string_equal(p2m_problem_name(walk.problem), p2m_problem_name(problem));
        assert_int_equal(walk.problem_level, level);
        assert_int_equal(walk.problem_leaf, leaf);
        look_at(image, leaf, &look);
        assert_int_equal(look.problem, problem);
        assert_int_equal(look.level, level);
        free(calls.words);
    }
}

/* The first leaf page behind a second entry of the first table of this level, or a later one; 0 if there is none. */
static uint64_t leaf_to_spoil(const struct image *image, unsigned level)
{
    uint64_t leaf = level == 1 ? 5 : image_table_end(image, level - 1, 0);

    return leaf < image->leaves ? leaf : 0;
}

static void spoil_each_level(unsigned layout, enum p2m_problem problem, unsigned from_level,
                             uint64_t (*spoil)(const struct image *image, uint64_t entry))
{
    for (unsigned level = from_level; level <= image_layouts[layout].levels; level++) {
        for (unsigned second = 0; second < 2; second++) {
            struct image image;
            image_init(&image, layout, vaddr_of(layout),
                       3000 * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
            fill(&image);
            uint64_t leaf = second ? leaf_to_spoil(&image, level) : 0;
            image_write(&image, level, leaf, spoil(&image, image_entry(&image, image_table(&image, level - 1, leaf))));
            check_problem(&image, problem, level, leaf);
            image_free(&image);
        }
    }
}

static uint64_t not_present(const struct image *image, uint64_t entry)
{
    (void)image;
    return entry & ~UINT64_C(1);
}

static uint64_t large(const struct image *image, uint64_t entry)
{
    (void)image;
    return entry | 0x80;
}

static uint64_t frame_zero(const struct image *image, uint64_t entry)
{
    (void)entry;
    return image_entry(image, 0);
}

static uint64_t one_bit_too_many(const struct image *image, uint64_t entry)
{
    (void)image;
    return entry | UINT64_C(1) << 40;
}

static void an_entry_that_is_not_present_ends_the_walk(void **state)
{
    (void)state;
    spoil_each_level(LIST_8, P2M_NOT_PRESENT, 1, not_present);
    spoil_each_level(LIST_4, P2M_NOT_PRESENT, 1, not_present);
}

static void a_large_page_ends_the_walk(void **state)
{
    (void)state;
    spoil_each_level(LIST_8, P2M_SUPERPAGE, 2, large);
    spoil_each_level(LIST_4, P2M_SUPERPAGE, 2, large);
}

/* The same bit of a lowest entry is about caching. */
static void a_cached_otherwise_page_is_no_large_page(void **state)
{
    (void)state;

    for (unsigned layout = LIST_8; layout <= LIST_4; layout++) {
        struct image image;
        image_init(&image, layout, vaddr_of(layout), 1);
        image_write(&image, 1, 0, large(&image, image_entry(&image, image_new_frame(&image))));
        check_whole(&image);
        image_free(&image);
    }
}

/* A list has no holes: nothing of a guest is at frame 0. */
static void frame_0_in_a_list_ends_the_walk(void **state)
{
    (void)state;
    spoil_each_level(LIST_8, P2M_FRAME_IMPOSSIBLE, 1, frame_zero);
    spoil_each_level(LIST_4, P2M_FRAME_IMPOSSIBLE, 1, frame_zero);
}

static void a_frame_beyond_40_bits_in_a_tree_ends_the_walk(void **state)
{
    (void)state;
    spoil_each_level(TREE_8, P2M_FRAME_IMPOSSIBLE, 1, one_bit_too_many);
}

static void a_table_that_cannot_be_mapped_ends_the_walk(void **state)
{
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        for (unsigned level = 1; level <= image_layouts[layout].levels; level++) {
            struct image image;
            image_init(&image, layout, vaddr_of(layout),
                       3000 * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
            fill(&image);
            uint64_t leaf = image_table_end(&image, level, 0);
            if (leaf == image.leaves)
                leaf = 0;
            image_hide(&image, image_table(&image, level, leaf));
            check_problem(&image, P2M_UNMAPPABLE, level, leaf);
            image_free(&image);
        }
    }
}

/* Several tables are mapped at once, all or none: the place is the first of them. */
static void one_table_of_many_that_cannot_be_mapped(void **state)
{
    struct p2m_walk walk;
    struct calls calls;
    struct image image;
    (void)state;

    image_init(&image, LIST_8, VADDR_8, UINT64_C(100) * 512 * 512);
    fill(&image);
    uint64_t leaf = 188 + 512 + 512 * 63; /* in the second 64 tables of the L2 that 512 GiB end before */
    image_hide(&image, image_table(&image, 1, leaf));
    assert_int_equal(walk_image(&image, HUGE_STEP, P2M_BATCH, &walk, &calls), -EBADMSG);
    assert_int_equal(walk.problem, P2M_UNMAPPABLE);
    assert_int_equal(walk.problem_level, 1);
    assert_true(walk.problem_leaf <= leaf && leaf < walk.problem_leaf + UINT64_C(512) * P2M_BATCH);
    free(calls.words);
    image_free(&image);
}

/* Whatever the source says but -EFAULT is not about the guest; a walk ends with it, and nothing stays mapped. */
static void a_sources_own_error_is_passed_on(void **state)
{
    static const int errors[] = {-ENOMEM, -EINTR, -EPERM, -E2BIG};
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        for (unsigned fail_at = 1;; fail_at++) {
            struct p2m_walk walk;
            struct calls calls;
            struct image image;

            image_init(&image, layout, vaddr_of(layout),
                       3000 * (uint64_t)(P2M_PAGE_BYTES / image_layouts[layout].width));
            fill(&image);
            image.fail_at = fail_at;
            image.fail_with = errors[fail_at % COUNT(errors)];
            int error = walk_image(&image, HUGE_STEP, 2, &walk, &calls);
            bool ended = image.maps < fail_at;
            assert_int_equal(error, ended ? 0 : image.fail_with);
            assert_int_equal(walk.problem, P2M_NO_PROBLEM);
            free(calls.words);
            image_free(&image);
            if (ended)
                break;
            assert_true(fail_at < 100);
        }
    }
}

/* ---- A glance ---- */

/* Nothing is said of tables below: they may be missing altogether. */
static void a_glance_reads_the_tables_near_the_root(void **state)
{
    static const unsigned tables_read[IMAGE_LAYOUTS] = {3, 1, 1, 1};
    (void)state;

    for (unsigned layout = 0; layout < IMAGE_LAYOUTS; layout++) {
        struct image image;
        struct p2m p2m;

        image_init(&image, layout, layout == LIST_8 ? VADDR_8 : 0, image_layouts[layout].most_pfns);
        unsigned lowest = image.layout->kind == P2M_LIST ? 3 : 2;
        for (uint64_t leaf = 0; leaf < image.leaves; leaf = image_table_end(&image, lowest - 1, leaf))
            image_put(&image, lowest, leaf, image_new_frame(&image));
        describe(&image, &p2m);
        assert_int_equal(p2m_top_level(&p2m), lowest);
        struct p2m_walk walk = {.p2m = &p2m, .lowest = p2m_top_level(&p2m)};
        struct calls calls = {0};
        assert_int_equal(walk_in_steps(&image, &p2m, &walk, 1, 1, &calls), 0);
        assert_true(image.pages_mapped <= tables_read[layout] + 1);

        uint64_t next = 0, named = 0;
        size_t at = 0;
        for (const uint64_t *call; (call = next_call(&calls, &at)) != NULL;) {
            assert_true(call[1] == next && call[0] >= lowest - 1);
            for (uint64_t i = 0; call[0] == lowest - 1 && i < call[2]; i++) {
                assert_true(call[3 + i] == image_table(&image, lowest - 1, next));
                next = image_table_end(&image, lowest - 1, next);
                named++;
            }
        }
        assert_true(next == image.leaves);
        assert_true(named == image_table_count(&image, lowest - 1));
        free(calls.words);
        image_free(&image);
    }
}

/* ---- What is refused at once ---- */

#define LIST8(max, at)                                                                                                 \
    {                                                                                                                  \
        .width = 8, .max_pfn = (max), .p2m_cr3 = 0x1000, .p2m_vaddr = (at)                                             \
    }
#define LIST4(max, at)                                                                                                 \
    {                                                                                                                  \
        .width = 4, .max_pfn = (max), .p2m_cr3 = 0x1000, .p2m_vaddr = (at)                                             \
    }
#define ROOT8(cr3)                                                                                                     \
    {                                                                                                                  \
        .width = 8, .max_pfn = 1, .p2m_cr3 = (cr3), .p2m_vaddr = GOOD_8                                                \
    }
#define TREE(bytes, max, top)                                                                                          \
    {                                                                                                                  \
        .width = (bytes), .max_pfn = (max), .pfn_to_mfn_frame_list_list = (top)                                        \
    }
#define TWO(power) (UINT64_C(1) << (power))

/* A page holds 512 numbers of a 64-bit guest, 1024 of a 32-bit one. */
static const struct {
    enum p2m_problem problem;
    struct sharedinfo info;
} descriptions[] = {
    {P2M_WIDTH_UNKNOWN, {.width = 0, .max_pfn = 1, .p2m_cr3 = 0x1000, .p2m_vaddr = GOOD_8}},
    {P2M_WIDTH_UNKNOWN, {.width = 5, .max_pfn = 1, .p2m_cr3 = 0x1000, .p2m_vaddr = GOOD_8}},
    {P2M_WIDTH_UNKNOWN, {.width = 16, .max_pfn = 1, .p2m_cr3 = 0x1000, .p2m_vaddr = GOOD_8}},

    {P2M_NOT_SET_UP, {.width = 8, .max_pfn = 1}},
    {P2M_NOT_SET_UP, {.width = 4, .max_pfn = 1}},
    {P2M_NOT_SET_UP, TREE(8, 1, UINT64_MAX)},
    {P2M_NOT_SET_UP, TREE(4, 1, UINT32_MAX)},
    {P2M_NO_PROBLEM, TREE(8, 1, UINT32_MAX)},
    {P2M_NO_PROBLEM, TREE(4, 1, UINT32_MAX - 1)},
    {P2M_NO_PROBLEM, TREE(8, 1, 1)},

    {P2M_MAX_PFN_ZERO, LIST8(0, GOOD_8)},
    {P2M_MAX_PFN_ZERO, LIST4(0, GOOD_4)},
    {P2M_MAX_PFN_ZERO, TREE(8, 0, 1)},
    {P2M_MAX_PFN_ZERO, TREE(4, 0, 1)},
    {P2M_NO_PROBLEM, LIST8(1, GOOD_8)},
    {P2M_NO_PROBLEM, LIST8(TWO(34), GOOD_8)},
    {P2M_MAX_PFN_TOO_LARGE, LIST8(TWO(34) + 1, GOOD_8)},
    {P2M_MAX_PFN_TOO_LARGE, LIST8(TWO(40), GOOD_8)},
    {P2M_MAX_PFN_TOO_LARGE, LIST8(UINT64_MAX, GOOD_8)},
    {P2M_NO_PROBLEM, TREE(8, TWO(27), 1)},
    {P2M_MAX_PFN_TOO_LARGE, TREE(8, TWO(27) + 1, 1)},
    {P2M_MAX_PFN_TOO_LARGE, TREE(8, UINT64_MAX, 1)},
    {P2M_NO_PROBLEM, TREE(4, TWO(30), 1)},
    {P2M_MAX_PFN_TOO_LARGE, TREE(4, TWO(30) + 1, 1)},
    {P2M_MAX_PFN_TOO_LARGE, TREE(4, UINT32_MAX, 1)},

    {P2M_ROOT_IMPOSSIBLE, ROOT8(1)},
    {P2M_ROOT_IMPOSSIBLE, ROOT8(0xfff)},
    {P2M_NO_PROBLEM, ROOT8(0x1fff)},
    {P2M_NO_PROBLEM, ROOT8(TWO(52) - 1)},
    {P2M_ROOT_IMPOSSIBLE, ROOT8(TWO(52))},
    {P2M_ROOT_IMPOSSIBLE, ROOT8(UINT64_MAX)},
    {P2M_NO_PROBLEM, {.width = 4, .max_pfn = 1, .p2m_cr3 = 1, .p2m_vaddr = GOOD_4}},
    {P2M_NO_PROBLEM, {.width = 4, .max_pfn = 1, .p2m_cr3 = UINT32_MAX, .p2m_vaddr = GOOD_4}},
    {P2M_NO_PROBLEM, TREE(8, 1, TWO(40) - 1)},
    {P2M_ROOT_IMPOSSIBLE, TREE(8, 1, TWO(40))},
    {P2M_ROOT_IMPOSSIBLE, TREE(8, 1, UINT64_MAX - 1)},

    {P2M_VADDR_UNALIGNED, LIST8(1, GOOD_8 + 1)},
    {P2M_VADDR_UNALIGNED, LIST8(1, GOOD_8 + 8)},
    {P2M_VADDR_UNALIGNED, LIST8(1, GOOD_8 + 4095)},
    {P2M_VADDR_UNALIGNED, LIST4(1, GOOD_4 + 2048)},
    {P2M_NO_PROBLEM, LIST8(1, GOOD_8 + 4096)},

    {P2M_NO_PROBLEM, LIST8(512, UINT64_C(0xfffffffffffff000))},
    {P2M_VADDR_WRAPS, LIST8(513, UINT64_C(0xfffffffffffff000))},
    {P2M_VADDR_WRAPS, LIST8(TWO(34), UINT64_C(0xffffffff80000000))},
    {P2M_VADDR_WRAPS, LIST4(1025, 0xfffff000)},
    {P2M_VADDR_WRAPS, LIST4(TWO(30) - 1024, 4096 * 1024)},
    {P2M_VADDR_WRAPS, LIST4(UINT32_MAX, GOOD_4)},

    {P2M_NO_PROBLEM, LIST8(512, UINT64_C(0x00007ffffffff000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(513, UINT64_C(0x00007ffffffff000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(1, UINT64_C(0x0000800000000000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(512, UINT64_C(0x00fffffffffff000))},
    {P2M_VADDR_NOT_CANONICAL, LIST8(513, UINT64_C(0x00fffffffffff000))},
    {P2M_VADDR_NOT_CANONICAL, LIST8(1, UINT64_C(0x0100000000000000))},
    {P2M_VADDR_NOT_CANONICAL, LIST8(1, UINT64_C(0xfefffffffffff000))},
    {P2M_VADDR_NOT_CANONICAL, LIST8(513, UINT64_C(0xfefffffffffff000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(1, UINT64_C(0xff00000000000000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(512, UINT64_C(0xffff7ffffffff000))},
    {P2M_VADDR_FIVE_LEVELS, LIST8(513, UINT64_C(0xffff7ffffffff000))},

    {P2M_VADDR_HYPERVISOR, LIST8(1, UINT64_C(0xffff800000000000))},
    {P2M_VADDR_HYPERVISOR, LIST8(512, UINT64_C(0xffff87fffffff000))},
    {P2M_VADDR_HYPERVISOR, LIST8(513, UINT64_C(0xffff87fffffff000))},
    {P2M_NO_PROBLEM, LIST8(1, UINT64_C(0xffff880000000000))},
    {P2M_NO_PROBLEM, LIST4(1024, 0xf57ff000)},
    {P2M_VADDR_HYPERVISOR, LIST4(1025, 0xf57ff000)},
    {P2M_VADDR_HYPERVISOR, LIST4(1, 0xf5800000)},
    {P2M_VADDR_HYPERVISOR, LIST4(1024, 0xfffff000)},
    {P2M_NO_PROBLEM, LIST4(0x3d600000, 0)},
    {P2M_VADDR_HYPERVISOR, LIST4(0x3d600001, 0)},
};

static void what_cannot_be_is_refused(void **state)
{
    bool seen[P2M_PROBLEM_COUNT] = {false};
    (void)state;

    for (unsigned i = 0; i < COUNT(descriptions); i++) {
        const struct sharedinfo *info = &descriptions[i].info;
        struct p2m p2m;

        memset(&p2m, 0xee, sizeof(p2m));
        enum p2m_problem problem = p2m_describe(info, &p2m);
        if (problem != descriptions[i].problem)
            print_message("# description %u: max_pfn %#jx, vaddr %#jx\n", i, (uintmax_t)info->max_pfn,
                          (uintmax_t)info->p2m_vaddr);
        assert_string_equal(p2m_problem_name(problem), p2m_problem_name(descriptions[i].problem));
        assert_int_equal(p2m.kind, problem ? P2M_NONE : info->p2m_cr3 ? P2M_LIST : P2M_TREE);
        seen[problem] = true;
    }
    for (unsigned problem = 0; problem <= P2M_VADDR_HYPERVISOR; problem++)
        assert_true(seen[problem]);
}

/* Where both are named, the list is the one that is true. */
static void a_list_comes_before_a_tree(void **state)
{
    struct sharedinfo info = ROOT8(0x5000);
    struct p2m p2m;
    (void)state;

    info.pfn_to_mfn_frame_list_list = 0x77;
    assert_int_equal(p2m_describe(&info, &p2m), P2M_NO_PROBLEM);
    assert_int_equal(p2m.kind, P2M_LIST);
    assert_int_equal(p2m.root, 5);
    info.p2m_cr3 = 0;
    assert_int_equal(p2m_describe(&info, &p2m), P2M_NO_PROBLEM);
    assert_int_equal(p2m.kind, P2M_TREE);
    assert_int_equal(p2m.root, 0x77);
}

/* ---- Words ---- */

static void every_problem_has_words_of_its_own(void **state)
{
    (void)state;

    for (unsigned one = 0; one < P2M_PROBLEM_COUNT; one++) {
        assert_non_null(p2m_problem_name(one));
        assert_true(strlen(p2m_problem_name(one)) > 0);
        assert_true(strlen(p2m_problem_text(one)) > 0);
        assert_true(p2m_problem_text(one)[strlen(p2m_problem_text(one)) - 1] != '.');
        assert_int_equal(p2m_problem_may_pass(one),
                         one == P2M_NOT_PRESENT || one == P2M_UNMAPPABLE || one == P2M_MOVING);
        for (unsigned other = 0; other < one; other++) {
            assert_string_not_equal(p2m_problem_name(one), p2m_problem_name(other));
            assert_string_not_equal(p2m_problem_text(one), p2m_problem_text(other));
        }
    }
    assert_non_null(p2m_problem_name(P2M_PROBLEM_COUNT));
    assert_non_null(p2m_problem_text(P2M_PROBLEM_COUNT));
    assert_string_equal(p2m_kind_name(P2M_NONE), "none");
    assert_string_equal(p2m_kind_name(P2M_LIST), "list");
    assert_string_equal(p2m_kind_name(P2M_TREE), "tree");
    assert_non_null(p2m_kind_name(P2M_KIND_COUNT));
}

/* ---- Any p2m ---- */

static uint64_t random_state;

/* A linear congruence; its upper half is random enough. */
static uint64_t random_below(uint64_t limit)
{
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (random_state >> 24) % limit;
}

static uint64_t random_vaddr(unsigned layout)
{
    uint64_t near = UINT64_C(0x40000000) * (1 + random_below(2)); /* entries of an L3 */

    if (layout == LIST_8)
        near = GOOD_8 + random_below(3) * UINT64_C(0x8000000000);
    return (layout == LIST_8 || layout == LIST_4) ? near - random_below(2000) * P2M_PAGE_BYTES : 0;
}

/* Some tables stand twice or more often in a row, some leaf pages too, and a tree has holes. */
static void fill_randomly(struct image *image)
{
    uint64_t frame = image_new_frame(image), end;
    bool tree = image->layout->kind == P2M_TREE;

    for (uint64_t leaf = 0; leaf < image->leaves; leaf = end) {
        end = image_table_end(image, 1, leaf);
        uint64_t kind = random_below(8);
        if (kind < 3 && leaf > 0)
            image_put(image, 2, leaf, image_table(image, 1, leaf - 1));
        else if (kind == 3 && tree)
            image_write(image, 2, leaf, random_below(2) ? 0 : UINT64_MAX);
        for (uint64_t i = leaf; i < end && (kind > 3 || leaf == 0 || (kind == 3 && !tree)); i++) {
            if (random_below(4))
                frame = image_new_frame(image);
            image_write(image, 1, i, tree && random_below(16) == 0 ? 0 : image_entry(image, frame));
        }
    }
    /* What follows a table that is shared and shorter there is needed by the longer one. */
    for (uint64_t leaf = 0; leaf < image->leaves; leaf++) {
        struct reference_look look;
        look_at(image, leaf, &look);
        if (look.problem == P2M_NOT_PRESENT)
            image_put(image, 1, leaf, image_new_frame(image));
    }
}

static void init_randomly(struct image *image, unsigned round)
{
    unsigned layout = round % IMAGE_LAYOUTS, pfns = P2M_PAGE_BYTES / image_layouts[layout].width;

    random_state = round;
    image_init(image, layout, random_vaddr(layout), 1 + random_below(UINT64_C(5000) * pfns));
    fill_randomly(image);
}

static void any_p2m_is_read_as_the_reference_reads_it(void **state)
{
    (void)state;

    for (unsigned round = 0; round < 200; round++) {
        struct p2m_walk walk;
        struct calls calls;
        struct image image;

        init_randomly(&image, round);
        int error =
            walk_image(&image, 1 + (unsigned)random_below(4000), 1 + (unsigned)random_below(P2M_BATCH), &walk, &calls);
        assert_int_equal(error, 0);
        check_calls(&image, &calls);
        free(calls.words);
        image_free(&image);
    }
}

static void damage(struct image *image)
{
    unsigned level = 1 + (unsigned)random_below(image->layout->levels);
    uint64_t leaf = random_below(image->leaves);
    struct reference_look look;

    look_at(image, leaf, &look);
    if (look.problem || look.frames[level] == 0)
        return;
    uint64_t entry = image_entry(image, look.frames[level - 1]);
    switch (random_below(5)) {
    case 0:
        image_write(image, level, leaf, entry & ~UINT64_C(1));
        break;
    case 1:
        image_write(image, level, leaf, entry ^ UINT64_C(1) << random_below(64));
        break;
    case 2:
        image_write(image, level, leaf, entry | 0x80);
        break;
    case 3:
        image_write(image, level, leaf, image_entry(image, 0));
        break;
    default:
        image_hide(image, look.frames[level]);
        break;
    }
}

/* What the walk says about the place it ended at is what is there. */
static void any_damage_is_where_the_walk_says(void **state)
{
    bool seen[P2M_PROBLEM_COUNT] = {false};
    (void)state;

    for (unsigned round = 0; round < 400; round++) {
        struct reference_look look;
        struct p2m_walk walk;
        struct calls calls;
        struct image image;

        init_randomly(&image, round);
        damage(&image);
        damage(&image);
        int error = walk_image(&image, 1 + (unsigned)random_below(4000), 1, &walk, &calls);
        seen[walk.problem] = true;
        if (error == 0) {
            check_calls(&image, &calls);
        } else {
            assert_int_equal(error, -EBADMSG);
            assert_true(walk.problem_leaf < image.leaves);
            look_at(&image, walk.problem_leaf, &look);
            assert_string_equal(p2m_problem_name(look.problem), p2m_problem_name(walk.problem));
            assert_int_equal(look.level, walk.problem_level);
        }
        free(calls.words);
        image_free(&image);
    }
    assert_true(seen[P2M_NO_PROBLEM] && seen[P2M_NOT_PRESENT] && seen[P2M_SUPERPAGE] && seen[P2M_FRAME_IMPOSSIBLE] &&
                seen[P2M_UNMAPPABLE]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaf_pages_come_out_as_they_were_put_in),
        cmocka_unit_test(a_walk_is_the_same_in_steps_of_any_size),
        cmocka_unit_test(a_list_begins_and_ends_anywhere_in_its_tables),
        cmocka_unit_test(a_frame_has_all_the_bits_of_an_address),
        cmocka_unit_test(max_pfn_is_a_count),
        cmocka_unit_test(a_large_sparse_guest_is_read_fast),
        cmocka_unit_test(only_a_table_read_whole_speaks_for_the_next),
        cmocka_unit_test(a_page_met_several_times_in_a_row_counts_once),
        cmocka_unit_test(a_tree_has_holes_of_two_kinds),
        cmocka_unit_test(half_a_hole_is_a_frame),
        cmocka_unit_test(an_entry_that_is_not_present_ends_the_walk),
        cmocka_unit_test(a_large_page_ends_the_walk),
        cmocka_unit_test(a_cached_otherwise_page_is_no_large_page),
        cmocka_unit_test(frame_0_in_a_list_ends_the_walk),
        cmocka_unit_test(a_frame_beyond_40_bits_in_a_tree_ends_the_walk),
        cmocka_unit_test(a_table_that_cannot_be_mapped_ends_the_walk),
        cmocka_unit_test(one_table_of_many_that_cannot_be_mapped),
        cmocka_unit_test(a_sources_own_error_is_passed_on),
        cmocka_unit_test(a_glance_reads_the_tables_near_the_root),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(a_list_comes_before_a_tree),
        cmocka_unit_test(every_problem_has_words_of_its_own),
        cmocka_unit_test(any_p2m_is_read_as_the_reference_reads_it),
        cmocka_unit_test(any_damage_is_where_the_walk_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
