/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A machine of which only the pages of one guest's p2m exist, and that p2m, written as the guest's kernel would.
 *
 * Tables come into being when something is put below them, at frames scattered over all that a number can say. The
 * image is a p2m_source as well, and keeps an account of what it has given.
 */
#ifndef P2MGUARD_TESTS_P2M_IMAGE_H
#define P2MGUARD_TESTS_P2M_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/p2m.h"

struct image_layout {
    const char *name;
    enum p2m_kind kind;
    unsigned width, levels, index_bits;
    unsigned frame_bits; /* of an entry */
    uint64_t root;       /* frame of the top table */
    uint64_t most_pfns;
};

enum { LIST_8, LIST_4, TREE_8, TREE_4, IMAGE_LAYOUTS };
extern const struct image_layout image_layouts[IMAGE_LAYOUTS];

struct image_page {
    uint64_t frame; /* 0: a free place */
    bool hidden;
    uint64_t *words;
};

struct image {
    const struct image_layout *layout;
    struct sharedinfo info; /* what the guest says of its p2m */
    uint64_t first_page;    /* the list's address / 4096, tree: 0 */
    uint64_t leaves;
    struct image_page *pages; /* by frame, open addressing */
    size_t page_count, page_room;
    uint64_t frames_used;

    /* The account. */
    unsigned maps, mapped_now, mapped_at_once; /* mappings so far; pages now, and at most at once */
    uint64_t pages_mapped;                     /* one that is mapped again counts again */
    unsigned fail_at;                          /* the mapping (1 is the first) that fails, with: */
    int fail_with;
};

/* `vaddr` is where a list begins; a tree has none. */
void image_init(struct image *image, unsigned layout, uint64_t vaddr, uint64_t max_pfn);
void image_free(struct image *image);

/* A frame's number that was not given before. */
uint64_t image_new_frame(struct image *image);

/* A page of zeros, at a new frame. */
uint64_t image_add_page(struct image *image);

/* NULL when there is no such page, or it is hidden. */
uint64_t *image_words(const struct image *image, uint64_t frame);
void image_hide(struct image *image, uint64_t frame);

/* The frame of the table of this level that leads to a leaf page. */
uint64_t image_table(struct image *image, unsigned level, uint64_t leaf);

/* The entry that names a frame, as the layout has it; and entries in tables, by what they lead to or by index. */
uint64_t image_entry(const struct image *image, uint64_t frame);
void image_write(struct image *image, unsigned level, uint64_t leaf, uint64_t entry);
void image_write_at(struct image *image, uint64_t table, unsigned index, uint64_t entry);
void image_put(struct image *image, unsigned level, uint64_t leaf, uint64_t frame);

/* One more than the last leaf page that the table of this level which leads to `leaf` leads to. */
uint64_t image_table_end(const struct image *image, unsigned level, uint64_t leaf);

/* How many tables of this level the p2m has. */
uint64_t image_table_count(const struct image *image, unsigned level);

struct p2m_source image_source(struct image *image, unsigned batch);

#endif
