/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/p2m.h"

#include <errno.h>
#include <stddef.h>

/* Page table entries, as the processor has them (three and four levels, 64 bits each). */
#define ENTRY_PRESENT UINT64_C(1)
#define ENTRY_LARGE_PAGE UINT64_C(0x80)
#define ENTRY_FRAME UINT64_C(0x000ffffffffff000) /* all 52 bits of physical address: a PV guest may live anywhere */

#define PAGE_SHIFT 12
#define FRAME_BITS 40 /* 52 bits of physical address without the offset in a page */

/* What Xen keeps for itself of a guest's virtual memory: arch-x86/xen-x86_64.h, and xen-x86_32.h for PAE. */
#define HYPERVISOR_FIRST_8 UINT64_C(0xffff800000000000)
#define HYPERVISOR_LAST_8 UINT64_C(0xffff87ffffffffff)
#define HYPERVISOR_FIRST_4 UINT64_C(0xf5800000)
#define LAST_4 UINT64_C(0xffffffff)

#define TABLE_ENTRIES_MOST (P2M_PAGE_BYTES / 4)

/* ---- words ---- */

static const struct {
    const char *name, *text;
} p2m_problems[P2M_PROBLEM_COUNT] = {
    [P2M_NO_PROBLEM] = {"none", "nothing is wrong with it"},
    [P2M_WIDTH_UNKNOWN] = {"width-unknown", "the guest is neither 32 nor 64 bits wide"},
    [P2M_NOT_SET_UP] = {"not-set-up", "the guest has set up neither a list nor a tree"},
    [P2M_MAX_PFN_ZERO] = {"max-pfn-zero", "the guest says that its p2m has no entries"},
    [P2M_MAX_PFN_TOO_LARGE] = {"max-pfn-too-large", "the guest says that its p2m has more entries than it can have"},
    [P2M_ROOT_IMPOSSIBLE] = {"root-impossible", "the root is not the number of a frame"},
    [P2M_VADDR_UNALIGNED] = {"vaddr-unaligned", "the list's address is not that of a page"},
    [P2M_VADDR_WRAPS] = {"vaddr-wraps", "the list ends beyond the guest's virtual memory"},
    [P2M_VADDR_FIVE_LEVELS] = {"vaddr-five-levels", "the list's address needs five levels of page tables"},
    [P2M_VADDR_NOT_CANONICAL] = {"vaddr-not-canonical", "the list's address is not canonical"},
    [P2M_VADDR_HYPERVISOR] = {"vaddr-hypervisor", "the list overlaps the hypervisor's part of virtual memory"},
    [P2M_SUPERPAGE] = {"superpage", "the list is mapped with a large page"},
    [P2M_FRAME_IMPOSSIBLE] = {"frame-impossible", "an entry on the way is not the number of a guest's frame"},
    [P2M_NOT_PRESENT] = {"not-present", "an entry on the way to the list is not present"},
    [P2M_UNMAPPABLE] = {"unmappable", "a frame on the way to the p2m cannot be mapped"},
    [P2M_MOVING] = {"moving", "the guest was changing its p2m while it was read"},
};

const char *p2m_problem_name(enum p2m_problem problem)
{
    return (unsigned)problem < P2M_PROBLEM_COUNT ? p2m_problems[problem].name : "unknown";
}

const char *p2m_problem_text(enum p2m_problem problem)
{
    return (unsigned)problem < P2M_PROBLEM_COUNT ? p2m_problems[problem].text : "unknown";
}

bool p2m_problem_may_pass(enum p2m_problem problem)
{
    return problem >= P2M_NOT_PRESENT;
}

const char *p2m_kind_name(enum p2m_kind kind)
{
    static const char *const names[P2M_KIND_COUNT] = {"none", "list", "tree"};

    return (unsigned)kind < P2M_KIND_COUNT ? names[kind] : "unknown";
}

/* ---- where it is ---- */

static bool p2m_is_canonical(uint64_t vaddr, unsigned bits)
{
    uint64_t above = vaddr >> (bits - 1);

    return above == 0 || above == UINT64_MAX >> (bits - 1);
}

static enum p2m_problem p2m_check_range(const struct p2m *p2m)
{
    uint64_t first = p2m->first_vaddr, last = p2m->last_vaddr;

    if (first % P2M_PAGE_BYTES)
        return P2M_VADDR_UNALIGNED;
    if (last < first || (p2m->width == 4 && last > LAST_4))
        return P2M_VADDR_WRAPS;
    if (p2m->width == 4)
        return last >= HYPERVISOR_FIRST_4 ? P2M_VADDR_HYPERVISOR : P2M_NO_PROBLEM;
    if (!p2m_is_canonical(first, 48) || !p2m_is_canonical(last, 48))
        return p2m_is_canonical(first, 57) && p2m_is_canonical(last, 57) ? P2M_VADDR_FIVE_LEVELS
                                                                         : P2M_VADDR_NOT_CANONICAL;
    if (first <= HYPERVISOR_LAST_8 && last >= HYPERVISOR_FIRST_8)
        return P2M_VADDR_HYPERVISOR; /* a list with ends on both sides of what is not canonical, too */
    return P2M_NO_PROBLEM;
}

/* A 32-bit guest's cr3 holds the high bits of the frame in its low bits: "extended", for an L3 above 4 GiB. */
static uint64_t p2m_unfold_cr3(uint64_t cr3, unsigned width)
{
    return width == 8 ? cr3 >> PAGE_SHIFT : (uint32_t)(cr3 >> PAGE_SHIFT | cr3 << 20);
}

static enum p2m_problem p2m_describe_list(const struct sharedinfo *info, struct p2m *p2m)
{
    p2m->levels = info->width == 8 ? 4 : 3;
    p2m->index_bits = 9;
    p2m->entry_bytes = 8;
    p2m->root = p2m_unfold_cr3(info->p2m_cr3, info->width);
    p2m->first_vaddr = info->p2m_vaddr;
    p2m->last_vaddr = info->p2m_vaddr + (p2m->leaves * P2M_PAGE_BYTES - 1);
    p2m->first_page = (info->width == 8 ? info->p2m_vaddr & UINT64_C(0xffffffffffff) : info->p2m_vaddr) >> PAGE_SHIFT;
    if (p2m->max_pfn > P2M_MAX_PFNS)
        return P2M_MAX_PFN_TOO_LARGE;
    if (p2m->root == 0 || p2m->root >> FRAME_BITS)
        return P2M_ROOT_IMPOSSIBLE;
    return p2m_check_range(p2m);
}

static bool p2m_is_all_ones(uint64_t value, unsigned width)
{
    return value == (width == 8 ? UINT64_MAX : UINT32_MAX);
}

static enum p2m_problem p2m_describe_tree(const struct sharedinfo *info, struct p2m *p2m)
{
    uint64_t top = info->pfn_to_mfn_frame_list_list;

    p2m->levels = 2;
    p2m->index_bits = info->width == 8 ? 9 : 10;
    p2m->entry_bytes = info->width;
    p2m->root = top;
    if (top == 0 || p2m_is_all_ones(top, info->width))
        return P2M_NOT_SET_UP;
    if (p2m->max_pfn > UINT64_C(1) << 3 * p2m->index_bits)
        return P2M_MAX_PFN_TOO_LARGE;
    return top >> FRAME_BITS ? P2M_ROOT_IMPOSSIBLE : P2M_NO_PROBLEM;
}

enum p2m_problem p2m_describe(const struct sharedinfo *info, struct p2m *p2m)
{
    *p2m = (struct p2m){.width = info->width, .max_pfn = info->max_pfn};
    if (info->width != 4 && info->width != 8)
        return P2M_WIDTH_UNKNOWN;
    if (!info->p2m_cr3 && !info->pfn_to_mfn_frame_list_list)
        return P2M_NOT_SET_UP;
    if (info->max_pfn == 0)
        return P2M_MAX_PFN_ZERO;
    p2m->leaves = (info->max_pfn - 1) / (P2M_PAGE_BYTES / info->width) + 1;
    enum p2m_problem problem = info->p2m_cr3 ? p2m_describe_list(info, p2m) : p2m_describe_tree(info, p2m);
    if (problem == P2M_NO_PROBLEM)
        p2m->kind = info->p2m_cr3 ? P2M_LIST : P2M_TREE;
    return problem;
}

unsigned p2m_top_level(const struct p2m *p2m)
{
    return p2m->kind == P2M_LIST ? 3 : 2;
}

/* ---- the walk ---- */

static int p2m_stop(struct p2m_walk *walk, enum p2m_problem problem, unsigned level, uint64_t leaf)
{
    walk->problem = problem;
    walk->problem_level = level;
    walk->problem_leaf = leaf;
    return -EBADMSG;
}

/* How many leaf pages one table of this level leads to. */
static uint64_t p2m_reach(const struct p2m *p2m, unsigned level)
{
    return UINT64_C(1) << p2m->index_bits * level;
}

/* The entry of a table of this level that leads to a leaf page. */
static unsigned p2m_index(const struct p2m *p2m, unsigned level, uint64_t leaf)
{
    uint64_t page = p2m->first_page + leaf;

    return (unsigned)(page >> p2m->index_bits * (level - 1) & ((1u << p2m->index_bits) - 1));
}

/* The last leaf page that the table of this level which leads to `leaf` leads to as well. */
static uint64_t p2m_table_end(const struct p2m *p2m, unsigned level, uint64_t leaf)
{
    uint64_t reach = p2m_reach(p2m, level);
    uint64_t end = leaf + (reach - 1 - (p2m->first_page + leaf) % reach);

    return end < p2m->leaves - 1 ? end : p2m->leaves - 1;
}

/* The first leaf page, from `leaf` on, that is reached through the i-th entry behind the one that leads to `leaf`. */
static uint64_t p2m_leaf_behind(const struct p2m *p2m, unsigned level, uint64_t leaf, unsigned i)
{
    uint64_t reach = p2m_reach(p2m, level - 1);

    return i == 0 ? leaf : leaf + i * reach - (p2m->first_page + leaf) % reach;
}

static bool p2m_table_begins(const struct p2m *p2m, unsigned level, uint64_t leaf)
{
    return leaf == 0 || (p2m->first_page + leaf) % p2m_reach(p2m, level) == 0;
}

/* One load, which the compiler may neither split nor repeat: the guest may be writing. */
static uint64_t p2m_load(const void *table, unsigned index, unsigned bytes)
{
    return bytes == 4 ? ((const volatile uint32_t *)table)[index] : ((const volatile uint64_t *)table)[index];
}

/*
 * An entry's frame. 0 stands for the tree's holes, which a guest may mark with 0 or with all ones: nothing is below
 * them. A list has no holes, and nothing of a guest's is at frame 0.
 */
static enum p2m_problem p2m_decode(const struct p2m *p2m, unsigned level, uint64_t entry, uint64_t *frame)
{
    if (p2m->kind == P2M_LIST) {
        *frame = (entry & ENTRY_FRAME) >> PAGE_SHIFT;
        if (!(entry & ENTRY_PRESENT))
            return P2M_NOT_PRESENT;
        if (level > 1 && (entry & ENTRY_LARGE_PAGE))
            return P2M_SUPERPAGE;
        return *frame == 0 ? P2M_FRAME_IMPOSSIBLE : P2M_NO_PROBLEM;
    }
    *frame = p2m_is_all_ones(entry, p2m->width) ? 0 : entry;
    return *frame >> FRAME_BITS ? P2M_FRAME_IMPOSSIBLE : P2M_NO_PROBLEM;
}

static void p2m_note(struct p2m_notes *notes, const struct p2m *p2m, const void *table, unsigned index, uint64_t entry)
{
    if (notes->count < P2M_NOTES_MOST) {
        notes->entry_bytes = p2m->entry_bytes;
        notes->at[notes->count] = (const char *)table + index * p2m->entry_bytes;
        notes->entries[notes->count] = entry;
    }
    if (notes->count <= P2M_NOTES_MOST)
        notes->count++;
}

bool p2m_notes_stand(const struct p2m_notes *notes)
{
    if (notes->count == 0 || notes->count > P2M_NOTES_MOST)
        return false;
    for (unsigned i = 0; i < notes->count; i++)
        if (p2m_load(notes->at[i], 0, notes->entry_bytes) != notes->entries[i])
            return false;
    return true;
}

/* Reads the entries of a mapped table that lead to leaf pages from `leaf` on; *count of them, until the table ends. */
static int p2m_read_table(struct p2m_walk *walk, const void *table, unsigned level, uint64_t leaf, uint64_t *frames,
                          unsigned *count)
{
    const struct p2m *p2m = walk->p2m;
    unsigned first = p2m_index(p2m, level, leaf);
    unsigned last = p2m_index(p2m, level, p2m_table_end(p2m, level, leaf));

    *count = last - first + 1;
    for (unsigned i = 0; i < *count; i++) {
        uint64_t entry = p2m_load(table, first + i, p2m->entry_bytes);
        if (walk->notes)
            p2m_note(walk->notes, p2m, table, first + i, entry);
        enum p2m_problem problem = p2m_decode(p2m, level, entry, &frames[i]);
        if (problem)
            return p2m_stop(walk, problem, level, p2m_leaf_behind(p2m, level, leaf, i));
    }
    return 0;
}

static int p2m_map(struct p2m_walk *walk, const struct p2m_source *source, unsigned level, uint64_t leaf,
                   const uint64_t *frames, unsigned count, const void **at)
{
    int error = source->map(source->context, frames, count, at);

    return error == -EFAULT ? p2m_stop(walk, P2M_UNMAPPABLE, level, leaf) : error;
}

/* Reads a whole table, whose frame is known. */
static int p2m_read_frame(struct p2m_walk *walk, const struct p2m_source *source, unsigned level, uint64_t leaf,
                          uint64_t frame, uint64_t *frames, unsigned *count)
{
    const void *table;
    int error = p2m_map(walk, source, level, leaf, &frame, 1, &table);

    if (error)
        return error;
    error = p2m_read_table(walk, table, level, leaf, frames, count);
    source->unmap(source->context, table, 1);
    return error;
}

/* The table of level `lowest` + 1, or the root when there is none above, that leads to the next leaf page. */
static int p2m_descend(struct p2m_walk *walk, const struct p2m_source *source, const struct p2m_sink *sink,
                       unsigned *level, uint64_t *frame)
{
    const struct p2m *p2m = walk->p2m;
    uint64_t frames[TABLE_ENTRIES_MOST];
    unsigned count;

    *frame = p2m->root;
    for (*level = p2m->levels;; --*level) {
        if (p2m_table_begins(p2m, *level, walk->next)) {
            sink->take(sink->context, *level, walk->next, frame, 1);
            walk->pages++;
        }
        if (*level <= walk->lowest + 1)
            return 0;
        int error = p2m_read_frame(walk, source, *level, walk->next, *frame, frames, &count);
        if (error)
            return error;
        *frame = frames[0];
    }
}

/* What the entries of a table of the lowest level lead to. */
static void p2m_take_below(struct p2m_walk *walk, const struct p2m_sink *sink, uint64_t leaf, const uint64_t *frames,
                           unsigned count)
{
    sink->take(sink->context, walk->lowest - 1, leaf, frames, count);
    for (unsigned i = 0; i < count; i++) {
        walk->pages += frames[i] != walk->last_below && frames[i] != 0;
        walk->last_below = frames[i];
    }
}

/* Some tables of the lowest level, side by side under one of the level above. */
struct p2m_row {
    unsigned count, wanted;
    uint64_t leaf[P2M_BATCH];  /* the first leaf page that each leads to */
    uint64_t frame[P2M_BATCH]; /* 0: a hole */
    bool read[P2M_BATCH];      /* not a hole, and not the one before once more */
    uint64_t wanted_frames[P2M_BATCH];
};

static void p2m_choose_row(struct p2m_walk *walk, const uint64_t *frames, unsigned count, struct p2m_row *row)
{
    const struct p2m *p2m = walk->p2m;
    uint64_t leaf = walk->next;

    row->count = count;
    row->wanted = 0;
    for (unsigned i = 0; i < count; i++) {
        row->leaf[i] = leaf;
        row->frame[i] = frames[i];
        row->read[i] = frames[i] != 0 && frames[i] != walk->last_table;
        if (row->read[i])
            row->wanted_frames[row->wanted++] = frames[i];
        /* Only a table that was read from its first entry on says all that its twin would say. */
        walk->last_table = p2m_index(p2m, walk->lowest, leaf) == 0 ? frames[i] : 0;
        leaf = p2m_table_end(p2m, walk->lowest, leaf) + 1;
    }
    walk->next = leaf;
}

static int p2m_read_row(struct p2m_walk *walk, const void *tables, const struct p2m_row *row,
                        const struct p2m_sink *sink)
{
    uint64_t frames[TABLE_ENTRIES_MOST];
    unsigned count;

    for (unsigned i = 0; i < row->count; i++) {
        sink->take(sink->context, walk->lowest, row->leaf[i], &row->frame[i], 1);
        if (!row->read[i])
            continue;
        walk->pages++;
        int error = p2m_read_table(walk, tables, walk->lowest, row->leaf[i], frames, &count);
        if (error)
            return error;
        p2m_take_below(walk, sink, row->leaf[i], frames, count);
        tables = (const char *)tables + P2M_PAGE_BYTES;
    }
    return 0;
}

static int p2m_walk_row(struct p2m_walk *walk, const struct p2m_source *source, const uint64_t *frames, unsigned count,
                        uint64_t *cost, const struct p2m_sink *sink)
{
    uint64_t leaf = walk->next;
    struct p2m_row row;
    const void *tables = NULL;

    p2m_choose_row(walk, frames, count, &row);
    *cost += count + row.wanted * p2m_reach(walk->p2m, 1);
    int error = row.wanted ? p2m_map(walk, source, walk->lowest, leaf, row.wanted_frames, row.wanted, &tables) : 0;
    if (error)
        return error;
    error = p2m_read_row(walk, tables, &row, sink);
    if (row.wanted)
        source->unmap(source->context, tables, row.wanted);
    return error;
}

/* Goes on in the table above the lowest level that leads to the next leaf page, to its end if `entries` allow. */
static int p2m_walk_table(struct p2m_walk *walk, const struct p2m_source *source, uint64_t entries, uint64_t *cost,
                          const struct p2m_sink *sink)
{
    uint64_t frame, frames[TABLE_ENTRIES_MOST];
    unsigned level, count, batch;
    int error = p2m_descend(walk, source, sink, &level, &frame);

    if (!error)
        error = p2m_read_frame(walk, source, level, walk->next, frame, frames, &count);
    if (error)
        return error;
    *cost += count;
    if (level == walk->lowest) { /* the root is the only table to read */
        p2m_take_below(walk, sink, walk->next, frames, count);
        walk->next = p2m_table_end(walk->p2m, level, walk->next) + 1;
        return 0;
    }
    /* The first row is always done, so that every step gets on. */
    for (unsigned i = 0; i < count && (i == 0 || *cost < entries) && !error; i += batch) {
        batch = count - i < source->batch ? count - i : source->batch;
        error = p2m_walk_row(walk, source, &frames[i], batch, cost, sink);
    }
    return error;
}

int p2m_walk_step(struct p2m_walk *walk, const struct p2m_source *source, unsigned entries, const struct p2m_sink *sink)
{
    uint64_t cost = 0;

    while (walk->next < walk->p2m->leaves && cost < entries) {
        int error = p2m_walk_table(walk, source, entries, &cost, sink);
        if (error)
            return error;
    }
    return walk->next < walk->p2m->leaves;
}
