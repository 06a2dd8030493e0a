/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/unit/p2m-reference.h"

#include <stdbool.h>

static bool look_ends(struct reference_look *look, enum p2m_problem problem, unsigned level)
{
    look->problem = problem;
    look->level = level;
    return false;
}

/* Through a page table's entry to the frame below it. */
static bool look_through(struct reference_look *look, unsigned level, unsigned index, reference_page page,
                         void *context)
{
    const uint64_t *table = page(context, look->frames[level]);

    if (!table)
        return look_ends(look, P2M_UNMAPPABLE, level);
    uint64_t entry = table[index];
    if (entry % 2 == 0)
        return look_ends(look, P2M_NOT_PRESENT, level);
    if (level >= 2 && entry / 128 % 2 == 1)
        return look_ends(look, P2M_SUPERPAGE, level);
    look->frames[level - 1] = entry % (UINT64_C(1) << 52) / 4096;
    return look->frames[level - 1] != 0 || look_ends(look, P2M_FRAME_IMPOSSIBLE, level);
}

static void look_in_list(const struct sharedinfo *info, uint64_t leaf, reference_page page, void *context,
                         struct reference_look *look)
{
    uint64_t vaddr = info->p2m_vaddr + leaf * 4096;
    unsigned top;

    if (info->width == 8) {
        top = 4;
        look->frames[4] = info->p2m_cr3 / 4096;
    } else {
        top = 3;
        look->frames[3] = info->p2m_cr3 / 4096 + info->p2m_cr3 % 4096 * (1 << 20);
    }
    (void)((top < 4 || look_through(look, 4, vaddr >> 39 & 511, page, context)) &&
           look_through(look, 3, vaddr >> 30 & 511, page, context) &&
           look_through(look, 2, vaddr >> 21 & 511, page, context) &&
           look_through(look, 1, vaddr >> 12 & 511, page, context));
}

/* Below a hole all frames are 0. */
static void look_in_tree(const struct sharedinfo *info, uint64_t leaf, reference_page page, void *context,
                         struct reference_look *look)
{
    unsigned entries = 4096 / info->width;
    const unsigned indexes[3] = {0, (unsigned)(leaf % entries), (unsigned)(leaf / entries)};

    look->frames[2] = info->pfn_to_mfn_frame_list_list;
    for (unsigned level = 2; level > 0; level--) {
        const void *table = page(context, look->frames[level]);
        uint64_t frame;
        if (!table) {
            look_ends(look, P2M_UNMAPPABLE, level);
            return;
        }
        if (info->width == 8)
            frame = ((const uint64_t *)table)[indexes[level]];
        else
            frame = ((const uint32_t *)table)[indexes[level]];
        if (frame == 0 || frame == (info->width == 8 ? UINT64_MAX : UINT32_MAX))
            return;
        if (frame >= UINT64_C(1) << 40) {
            look_ends(look, P2M_FRAME_IMPOSSIBLE, level);
            return;
        }
        look->frames[level - 1] = frame;
    }
}

void reference_look(const struct sharedinfo *info, uint64_t leaf, reference_page page, void *context,
                    struct reference_look *look)
{
    *look = (struct reference_look){.problem = P2M_NO_PROBLEM};
    if (info->p2m_cr3)
        look_in_list(info, leaf, page, context, look);
    else
        look_in_tree(info, leaf, page, context, look);
}
