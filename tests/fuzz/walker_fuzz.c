/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walks p2ms that a hostile guest has made up. The input is what the guest says in its shared info page, and up to 16
 * pieces of pages: any frame number leads to one of them, or to nothing, so that tables name each other in circles and
 * one table stands for many.
 *
 * Input: a byte of OPTIONS, a byte for the batch, a byte for the size of steps, a spare one; max_pfn, the tree's top,
 * cr3 and vaddr with 8 bytes each; pieces of 64 bytes, each repeated until it fills a page.
 */
#include "daemon/p2m.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/unit/p2m-reference.h"

enum { WIDE = 1, GLANCE = 2, MOVING = 4 }; /* OPTIONS */
enum { PIECE_BYTES = 64, PIECES_MOST = 16 };

/* A longer p2m is walked for so many steps only, and then cut off to be walked to its end. */
#define LEAVES_MOST 2600
#define STEPS_MOST 8

struct machine {
    bool moving; /* a page is another one each time it is mapped */
    unsigned pieces;
    uint64_t pages[PIECES_MOST][P2M_PAGE_BYTES / 8];

    unsigned batch, maps;
    uint64_t pages_mapped;
    const void *mapped; /* one mapping at a time */
    unsigned mapped_count;
};

static const void *machine_page(void *context, uint64_t frame)
{
    struct machine *machine = context;
    uint64_t piece = frame % (machine->pieces + 1);

    return piece < machine->pieces ? machine->pages[piece] : NULL;
}

/* Exactly as long as what was asked for: the sanitizer watches both ends, and what is used after unmap. */
static int machine_map(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    struct machine *machine = context;

    MUST(count > 0 && count <= machine->batch && !machine->mapped);
    machine->maps++;
    char *pages = malloc(count * (size_t)P2M_PAGE_BYTES);
    MUST(pages);
    for (unsigned i = 0; i < count; i++) {
        const void *page = machine_page(machine, machine->moving ? frames[i] + machine->maps : frames[i]);
        if (!page) {
            free(pages);
            return -EFAULT;
        }
        memcpy(pages + i * (size_t)P2M_PAGE_BYTES, page, P2M_PAGE_BYTES);
    }
    machine->pages_mapped += count;
    machine->mapped = *at = pages;
    machine->mapped_count = count;
    return 0;
}

static void machine_unmap(void *context, const void *at, unsigned count)
{
    struct machine *machine = context;

    MUST(at && at == machine->mapped && count == machine->mapped_count);
    free((void *)(uintptr_t)at);
    machine->mapped = NULL;
}

/* ---- What a sink sees ---- */

struct trace {
    const struct p2m *p2m;
    unsigned lowest;
    uint64_t first, next; /* of the lowest table entered last: its first leaf page, and the first that is not its */
    uint64_t frame, frame_before;
    bool open; /* its content has not come */
    uint64_t digest, calls;
    uint64_t leaves[LEAVES_MOST];
};

static uint64_t table_number(const struct p2m *p2m, unsigned level, uint64_t leaf)
{
    return (p2m->first_page + leaf) >> p2m->index_bits * level;
}

static uint64_t table_count(const struct p2m *p2m, unsigned level)
{
    return table_number(p2m, level, p2m->leaves - 1) - table_number(p2m, level, 0) + 1;
}

static uint64_t table_end(const struct p2m *p2m, unsigned level, uint64_t leaf)
{
    uint64_t end = ((table_number(p2m, level, leaf) + 1) << p2m->index_bits * level) - p2m->first_page;

    return end < p2m->leaves ? end : p2m->leaves;
}

static void trace_mix(struct trace *trace, uint64_t word)
{
    trace->digest = (trace->digest ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    trace->digest ^= trace->digest >> 29;
}

/* A table whose content did not come is a hole, or the one before once more. */
static void trace_close(struct trace *trace)
{
    if (trace->open)
        MUST(trace->frame == trace->frame_before || (trace->frame == 0 && trace->p2m->kind == P2M_TREE));
    trace->open = false;
}

static void trace_content(struct trace *trace, uint64_t first, const uint64_t *frames, unsigned count)
{
    const struct p2m *p2m = trace->p2m;

    MUST(trace->open && first == trace->first);
    MUST(count ==
         table_number(p2m, trace->lowest - 1, trace->next - 1) - table_number(p2m, trace->lowest - 1, first) + 1);
    for (unsigned i = 0; i < count; i++) {
        MUST(frames[i] >> 40 == 0);
        MUST(frames[i] != 0 || p2m->kind == P2M_TREE);
    }
    trace->open = false;
}

/* So that every leaf page is there to be compared, those of a table that is met again as well. */
static void trace_keep(struct trace *trace, uint64_t first, const uint64_t *frames, unsigned count)
{
    for (uint64_t i = 0; i < count && first + i < LEAVES_MOST; i++)
        trace->leaves[first + i] = frames ? frames[i] : 0;
}

static void trace_take(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count)
{
    struct trace *trace = context;

    trace->calls++;
    trace_mix(trace, (uint64_t)level << 32 | count);
    trace_mix(trace, first);
    for (unsigned i = 0; i < count; i++)
        trace_mix(trace, frames[i]);
    if (level == trace->lowest - 1) {
        trace_content(trace, first, frames, count);
        if (level == 0)
            trace_keep(trace, first, frames, count);
        return;
    }
    trace_close(trace);
    MUST(level <= trace->p2m->levels && count == 1 && first == trace->next);
    if (level > trace->lowest)
        return;
    uint64_t twin = trace->first;
    trace->frame_before = trace->frame;
    trace->frame = frames[0];
    trace->first = first;
    trace->next = table_end(trace->p2m, level, first);
    trace->open = true;
    if (level == 1 && first < LEAVES_MOST)
        trace_keep(trace, first, trace->frame ? &trace->leaves[twin] : NULL,
                   twin + (trace->next - first) <= LEAVES_MOST ? (unsigned)(trace->next - first) : 0);
}

/* ---- Walks ---- */

/*
 * What one step may cost is told by its size. What a walk may cost follows from the length of the p2m: each lowest
 * table is mapped once, and those above once for each of them that is gone through, and at each step's start.
 */
static int walk(struct machine *machine, struct p2m_walk *walk, unsigned entries, uint64_t most_steps,
                struct trace *trace)
{
    const struct p2m *p2m = walk->p2m;
    const struct p2m_source source = {machine_map, machine_unmap, machine, machine->batch};
    const struct p2m_sink sink = {trace_take, trace};
    uint64_t lowest_tables = table_count(p2m, walk->lowest), steps = 0;
    unsigned above = p2m->levels > walk->lowest ? p2m->levels - walk->lowest : 1;
    int more;

    trace->p2m = p2m;
    trace->lowest = walk->lowest;
    trace->first = trace->next = trace->frame = trace->frame_before = trace->digest = trace->calls = 0;
    trace->open = false;
    machine->maps = 0;
    machine->pages_mapped = 0;
    do {
        uint64_t before = walk->next, mapped_before = machine->pages_mapped;
        more = p2m_walk_step(walk, &source, entries, &sink);
        MUST(!machine->mapped);
        MUST(more == 0 || more == 1 || (more == -EBADMSG && walk->problem >= P2M_SUPERPAGE));
        MUST(more < 0 || walk->next > before);
        MUST(machine->pages_mapped - mapped_before <=
             (uint64_t)entries / (1u << p2m->index_bits) * (above + 1) + machine->batch + 2 * above);
        MUST(++steps <= lowest_tables);
    } while (more == 1 && steps < most_steps);
    MUST(machine->pages_mapped <= lowest_tables + (steps + table_count(p2m, walk->lowest + 1)) * above);
    if (more == 0) {
        trace_close(trace);
        MUST(trace->next == p2m->leaves && walk->next == p2m->leaves && walk->problem == P2M_NO_PROBLEM);
    }
    return more;
}

/* What the walk found at its end is what a look at that place finds. */
static void check_problem(struct machine *machine, const struct sharedinfo *info, const struct p2m_walk *walk)
{
    struct reference_look look;

    MUST(walk->problem_leaf < walk->p2m->leaves);
    if (walk->problem == P2M_UNMAPPABLE && machine->batch > 1)
        return; /* one of several */
    reference_look(info, walk->problem_leaf, machine_page, machine, &look);
    MUST(look.problem == walk->problem && look.level == walk->problem_level);
}

static void check_leaves(struct machine *machine, const struct sharedinfo *info, const struct trace *trace)
{
    struct reference_look look;

    for (uint64_t leaf = 0; leaf < trace->p2m->leaves; leaf++) {
        reference_look(info, leaf, machine_page, machine, &look);
        MUST(look.problem == P2M_NO_PROBLEM && look.frames[0] == trace->leaves[leaf]);
    }
}

/* To the end, in steps of three sizes, which must not make a difference. */
static void walk_whole(struct machine *machine, const struct sharedinfo *info, const struct p2m *p2m, unsigned lowest,
                       unsigned entries)
{
    static struct trace trace; /* too large for a stack */
    const unsigned sizes[] = {UINT32_MAX, 1, entries};
    struct p2m_walk first = {.p2m = p2m, .lowest = lowest};
    int error = walk(machine, &first, sizes[0], UINT64_MAX, &trace);
    uint64_t digest = trace.digest, calls = trace.calls;

    if (!machine->moving && error)
        check_problem(machine, info, &first);
    else if (!machine->moving && lowest == 1)
        check_leaves(machine, info, &trace);
    for (unsigned i = 1; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct p2m_walk again = {.p2m = p2m, .lowest = lowest};
        int error_again = walk(machine, &again, sizes[i], UINT64_MAX, &trace);
        if (machine->moving)
            continue;
        MUST(error_again == error && trace.digest == digest && trace.calls == calls);
        MUST(again.problem == first.problem && again.problem_level == first.problem_level);
        MUST(again.problem_leaf == first.problem_leaf && again.pages == first.pages);
    }
}

static void walk_guest(struct machine *machine, struct sharedinfo *info, bool glance, unsigned entries)
{
    static struct trace trace;
    struct p2m p2m;

    if (p2m_describe(info, &p2m) != P2M_NO_PROBLEM) {
        MUST(p2m.kind == P2M_NONE);
        return;
    }
    if (glance) {
        walk_whole(machine, info, &p2m, p2m_top_level(&p2m), entries);
        return;
    }
    if (p2m.leaves > LEAVES_MOST) {
        struct p2m_walk begun = {.p2m = &p2m, .lowest = 1};
        walk(machine, &begun, entries, STEPS_MOST, &trace);
        /* What is shorter, at the same place, is no worse. */
        info->max_pfn = LEAVES_MOST * (uint64_t)(P2M_PAGE_BYTES / info->width) - 5;
        MUST(p2m_describe(info, &p2m) == P2M_NO_PROBLEM && p2m.leaves == LEAVES_MOST);
    }
    walk_whole(machine, info, &p2m, 1, entries);
}

/* ---- The input ---- */

static void take_bytes(const uint8_t **data, size_t *size, void *to, size_t wanted)
{
    size_t length = *size < wanted ? *size : wanted;

    memset(to, 0, wanted);
    memcpy(to, *data, length);
    *data += length;
    *size -= length;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct machine machine;
    struct sharedinfo info = {0};
    uint64_t numbers[4], piece[PIECE_BYTES / 8];
    uint8_t head[4];

    if (size == 0)
        return 0;
    take_bytes(&data, &size, head, sizeof(head));
    take_bytes(&data, &size, numbers, sizeof(numbers));
    for (unsigned i = 0; i < 4 && !(head[0] & WIDE); i++)
        numbers[i] = (uint32_t)numbers[i];
    info.width = head[0] & WIDE ? 8 : 4;
    info.max_pfn = numbers[0];
    info.pfn_to_mfn_frame_list_list = numbers[1];
    info.p2m_cr3 = numbers[2];
    info.p2m_vaddr = numbers[3];
    machine.moving = head[0] & MOVING;
    machine.batch = 1 + head[1] % P2M_BATCH;
    for (machine.pieces = 0; size > 0 && machine.pieces < PIECES_MOST; machine.pieces++) {
        take_bytes(&data, &size, piece, sizeof(piece));
        for (unsigned i = 0; i < P2M_PAGE_BYTES / 8; i++)
            machine.pages[machine.pieces][i] = piece[i % (PIECE_BYTES / 8)];
    }
    walk_guest(&machine, &info, head[0] & GLANCE, 1 + head[2] * 40u);
    return 0;
}
