/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/p2m-image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* An entry of a guest's page table: present, writable, user, accessed, dirty; software bits and no-execute above. */
#define ENTRY_FLAGS UINT64_C(0x8ff0000000000067)

/* The 32-bit list's root lies above 4 GiB: only the folded cr3 can say so. */
const struct image_layout image_layouts[IMAGE_LAYOUTS] = {
    [LIST_8] = {"64-bit list", P2M_LIST, 8, 4, 9, 40, UINT64_C(0xfedcba9876), UINT64_C(1) << 34},
    [LIST_4] = {"32-bit list", P2M_LIST, 4, 3, 9, 40, UINT64_C(0xabcdef12), UINT64_C(0x3d600000)},
    [TREE_8] = {"64-bit tree", P2M_TREE, 8, 2, 9, 40, UINT64_C(0xfedcba9876), UINT64_C(1) << 27},
    [TREE_4] = {"32-bit tree", P2M_TREE, 4, 2, 10, 32, UINT64_C(0xabcdef12), UINT64_C(1) << 30},
};

/* ---- Pages ---- */

static struct image_page *image_find(const struct image *image, uint64_t frame)
{
    size_t at = (size_t)(frame * UINT64_C(0x9e3779b97f4a7c15) >> 20) % image->page_room;

    while (image->pages[at].frame != 0 && image->pages[at].frame != frame)
        at = (at + 1) % image->page_room;
    return &image->pages[at];
}

static void image_grow(struct image *image)
{
    struct image_page *old = image->pages;
    size_t old_room = image->page_room;

    image->page_room = old_room ? old_room * 2 : 64;
    image->pages = calloc(image->page_room, sizeof(*image->pages));
    assert_non_null(image->pages);
    for (size_t i = 0; i < old_room; i++) {
        if (old[i].frame)
            *image_find(image, old[i].frame) = old[i];
    }
    free(old);
}

static void image_add_page_at(struct image *image, uint64_t frame)
{
    if (image->page_count * 2 >= image->page_room)
        image_grow(image);
    struct image_page *page = image_find(image, frame);
    assert_int_equal(page->frame, 0);
    page->frame = frame;
    page->words = calloc(1, P2M_PAGE_BYTES);
    assert_non_null(page->words);
    image->page_count++;
}

/* Counting in steps of an odd number meets every number once, the top bits early. */
uint64_t image_new_frame(struct image *image)
{
    uint64_t frame, most = (UINT64_C(1) << image->layout->frame_bits) - 1;

    do
        frame = ++image->frames_used * UINT64_C(0xc2b2ae3d27d4eb4f) & most;
    while (frame == 0 || frame == most || image_find(image, frame)->frame);
    return frame;
}

uint64_t image_add_page(struct image *image)
{
    uint64_t frame = image_new_frame(image);

    image_add_page_at(image, frame);
    return frame;
}

uint64_t *image_words(const struct image *image, uint64_t frame)
{
    const struct image_page *page = image_find(image, frame);

    return page->frame && !page->hidden ? page->words : NULL;
}

void image_hide(struct image *image, uint64_t frame)
{
    assert_non_null(image_words(image, frame));
    image_find(image, frame)->hidden = true;
}

/* ---- The p2m in them ---- */

void image_init(struct image *image, unsigned layout, uint64_t vaddr, uint64_t max_pfn)
{
    const struct image_layout *chosen = &image_layouts[layout];
    unsigned pfns = P2M_PAGE_BYTES / chosen->width;

    *image = (struct image){.layout = chosen, .leaves = (max_pfn + pfns - 1) / pfns};
    image->info.width = chosen->width;
    image->info.max_pfn = max_pfn;
    if (chosen->kind == P2M_TREE) {
        image->info.pfn_to_mfn_frame_list_list = chosen->root;
    } else {
        image->first_page = vaddr >> 12;
        image->info.pfn_to_mfn_frame_list_list = chosen->width == 8 ? UINT64_MAX : UINT32_MAX;
        image->info.p2m_vaddr = vaddr;
        image->info.p2m_cr3 =
            chosen->width == 8 ? chosen->root << 12 : (uint32_t)(chosen->root << 12 | chosen->root >> 20);
    }
    image_grow(image);
    image_add_page_at(image, chosen->root);
}

void image_free(struct image *image)
{
    for (size_t i = 0; i < image->page_room; i++)
        free(image->pages[i].words);
    free(image->pages);
}

static unsigned image_index(const struct image *image, unsigned level, uint64_t leaf)
{
    unsigned bits = image->layout->index_bits;

    return (unsigned)((image->first_page + leaf) >> bits * (level - 1)) & ((1u << bits) - 1);
}

uint64_t image_entry(const struct image *image, uint64_t frame)
{
    return image->layout->kind == P2M_LIST ? frame << 12 | ENTRY_FLAGS : frame;
}

void image_write_at(struct image *image, uint64_t table, unsigned index, uint64_t entry)
{
    uint64_t *words = image_words(image, table);

    assert_non_null(words);
    if (image->layout->kind == P2M_TREE && image->layout->width == 4)
        memcpy((char *)words + 4 * (size_t)index, &(uint32_t){(uint32_t)entry}, 4);
    else
        words[index] = entry;
}

/* 0: nothing there. */
static uint64_t image_frame_at(const struct image *image, uint64_t table, unsigned index)
{
    const uint64_t *words = image_words(image, table);
    uint32_t half;

    assert_non_null(words);
    if (image->layout->kind == P2M_LIST)
        return words[index] >> 12 & ((UINT64_C(1) << 40) - 1);
    if (image->layout->width == 8)
        return words[index] == UINT64_MAX ? 0 : words[index];
    memcpy(&half, (const char *)words + 4 * (size_t)index, 4);
    return half == UINT32_MAX ? 0 : half;
}

uint64_t image_table(struct image *image, unsigned level, uint64_t leaf)
{
    uint64_t frame = image->layout->root;

    for (unsigned above = image->layout->levels; above > level; above--) {
        unsigned index = image_index(image, above, leaf);
        uint64_t below = image_frame_at(image, frame, index);
        if (!below) {
            below = image_add_page(image);
            image_write_at(image, frame, index, image_entry(image, below));
        }
        frame = below;
    }
    return frame;
}

void image_write(struct image *image, unsigned level, uint64_t leaf, uint64_t entry)
{
    image_write_at(image, image_table(image, level, leaf), image_index(image, level, leaf), entry);
}

void image_put(struct image *image, unsigned level, uint64_t leaf, uint64_t frame)
{
    image_write(image, level, leaf, image_entry(image, frame));
}

uint64_t image_table_end(const struct image *image, unsigned level, uint64_t leaf)
{
    unsigned bits = image->layout->index_bits * level;
    uint64_t table = (image->first_page + leaf) >> bits;
    uint64_t end = ((table + 1) << bits) - image->first_page;

    return end < image->leaves ? end : image->leaves;
}

uint64_t image_table_count(const struct image *image, unsigned level)
{
    unsigned bits = image->layout->index_bits * level;

    return ((image->first_page + image->leaves - 1) >> bits) - (image->first_page >> bits) + 1;
}

/* ---- As a source ---- */

/* A copy, so that what is used after it was unmapped, or beyond the last page, is found out by the sanitizer. */
static int image_map(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    struct image *image = context;

    assert_true(count > 0 && count <= P2M_BATCH);
    image->maps++;
    if (image->maps == image->fail_at)
        return image->fail_with;
    for (unsigned i = 0; i < count; i++) {
        if (!image_words(image, frames[i]))
            return -EFAULT;
    }
    /* One page more in front, for the account. */
    char *pages = malloc((count + 1) * (size_t)P2M_PAGE_BYTES);
    assert_non_null(pages);
    memcpy(pages, &count, sizeof(count));
    for (unsigned i = 0; i < count; i++)
        memcpy(pages + (i + 1) * (size_t)P2M_PAGE_BYTES, image_words(image, frames[i]), P2M_PAGE_BYTES);
    *at = pages + P2M_PAGE_BYTES;
    image->pages_mapped += count;
    image->mapped_now += count;
    if (image->mapped_at_once < image->mapped_now)
        image->mapped_at_once = image->mapped_now;
    return 0;
}

static void image_unmap(void *context, const void *at, unsigned count)
{
    struct image *image = context;
    char *pages = (char *)(uintptr_t)at - P2M_PAGE_BYTES;
    unsigned mapped;

    memcpy(&mapped, pages, sizeof(mapped));
    assert_int_equal(count, mapped);
    image->mapped_now -= count;
    free(pages);
}

struct p2m_source image_source(struct image *image, unsigned batch)
{
    return (struct p2m_source){image_map, image_unmap, image, batch};
}
