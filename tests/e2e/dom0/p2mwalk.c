/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mwalk DOMID COUNT   prints "PFN MFN", in hexadecimal, for the first COUNT pfns of a PV guest
 *
 * Finds the pages of the p2m with p2mguardd's own walker, and reads in them what nobody else told it: so that the list
 * of pages can be compared with what Xen's own tools make of the same guest.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/hypervisor.h"
#include "daemon/p2m.h"

struct leaves {
    uint64_t *frames;
    uint64_t count, room;
    bool torn; /* not in order, or with gaps */
};

static struct hypervisor *hypervisor;
static uint16_t domid;

static int map(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    (void)context;
    return hypervisor_map_frames(hypervisor, domid, frames, count, at);
}

static void unmap(void *context, const void *at, unsigned count)
{
    (void)context;
    hypervisor_unmap_frames(hypervisor, at, count);
}

static void take(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count)
{
    struct leaves *leaves = context;

    if (level > 0)
        return;
    /* A table that is entered again right away is read once; these are the pages without entries. */
    leaves->torn = leaves->torn || first < leaves->count;
    for (unsigned i = 0; i < count && first + i < leaves->room; i++)
        leaves->frames[first + i] = frames[i];
    leaves->count = first + count;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "p2mwalk: %s: %s\n", what, why);
    return 1;
}

static int print_leaf(const struct p2m *p2m, uint64_t frame, uint64_t first_pfn, uint64_t count)
{
    unsigned entries = P2M_PAGE_BYTES / p2m->width;
    const void *page;

    if (!frame || hypervisor_map_frames(hypervisor, domid, &frame, 1, &page))
        return fail("mapping a page of the p2m", "refused");
    for (unsigned i = 0; i < entries && first_pfn + i < count; i++)
        printf("%" PRIx64 " %" PRIx64 "\n", first_pfn + i,
               p2m->width == 8 ? ((const uint64_t *)page)[i] : (uint64_t)((const uint32_t *)page)[i]);
    hypervisor_unmap_frames(hypervisor, page, 1);
    return 0;
}

static int print_p2m(const struct p2m *p2m, const struct leaves *leaves, uint64_t count)
{
    unsigned entries = P2M_PAGE_BYTES / p2m->width;
    int error = 0;

    for (uint64_t leaf = 0; leaf * entries < count && !error; leaf++)
        error = print_leaf(p2m, leaves->frames[leaf], leaf * entries, count);
    return error;
}

int main(int argc, char **argv)
{
    struct hypervisor_domain domain;
    struct hypervisor_p2m *mapped;
    struct sharedinfo info;
    struct p2m p2m;
    struct leaves leaves = {0};
    struct p2m_source source = {map, unmap, NULL, P2M_BATCH};
    struct p2m_sink sink = {take, &leaves};

    if (argc != 3)
        return fail("expected", "DOMID COUNT");
    domid = (uint16_t)strtoul(argv[1], NULL, 10);
    uint64_t count = strtoull(argv[2], NULL, 0);
    int error = hypervisor_open(&hypervisor);
    if (!error)
        error = hypervisor_get(hypervisor, domid, &domain);
    if (!error)
        error = hypervisor_map_p2m(hypervisor, &domain, &mapped);
    if (error)
        return fail("looking at the domain", strerror(-error));
    hypervisor_read_shared_info(mapped, &info);
    enum p2m_problem problem = p2m_describe(&info, &p2m);
    if (problem)
        return fail("the p2m", p2m_problem_text(problem));
    if (count > p2m.max_pfn)
        return fail("COUNT", "more than the guest has");
    leaves.room = (count * p2m.width + P2M_PAGE_BYTES - 1) / P2M_PAGE_BYTES;
    leaves.frames = calloc(leaves.room, sizeof(*leaves.frames));
    if (!leaves.frames)
        return fail("memory", strerror(errno));
    struct p2m_walk walk = {.p2m = &p2m, .lowest = 1};
    while ((error = p2m_walk_step(&walk, &source, 4096, &sink)) > 0)
        ;
    if (error == -EBADMSG)
        return fail("the walk", p2m_problem_text(walk.problem));
    if (error || leaves.torn)
        return fail("the walk", error ? strerror(-error) : "out of order");
    return print_p2m(&p2m, &leaves, count);
}
