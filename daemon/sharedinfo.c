/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sharedinfo.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#if defined(__x86_64__) || defined(__i386__)
#include <xen/foreign/x86_32.h>
#include <xen/foreign/x86_64.h>
#endif

/*
 * Byte offsets in the page. Before them stand 32 vcpu_info of 64 bytes, two bitmaps of (8 * width) longs, and the wall
 * clock, which is a word longer in 64-bit guests.
 */
enum {
    MAX_PFN_4 = 2316,
    FRAME_LIST_LIST_4 = 2320,
    P2M_CR3_4 = 2328,
    P2M_VADDR_4 = 2332,
    P2M_GENERATION_4 = 2336,
    MAX_PFN_8 = 3088,
    FRAME_LIST_LIST_8 = 3096,
    P2M_CR3_8 = 3112,
    P2M_VADDR_8 = 3120,
    P2M_GENERATION_8 = 3128,
};

/* Xen's own description of both widths, from the one header that has them side by side. */
#if defined(__x86_64__) || defined(__i386__)
#define SAME_OFFSET(constant, bits, member)                                                                            \
    _Static_assert(constant == offsetof(struct shared_info_x86_##bits, arch.member),                                   \
                   #constant " is not where Xen has it")
SAME_OFFSET(MAX_PFN_4, 32, max_pfn);
SAME_OFFSET(FRAME_LIST_LIST_4, 32, pfn_to_mfn_frame_list_list);
SAME_OFFSET(P2M_CR3_4, 32, p2m_cr3);
SAME_OFFSET(P2M_VADDR_4, 32, p2m_vaddr);
SAME_OFFSET(P2M_GENERATION_4, 32, p2m_generation);
SAME_OFFSET(MAX_PFN_8, 64, max_pfn);
SAME_OFFSET(FRAME_LIST_LIST_8, 64, pfn_to_mfn_frame_list_list);
SAME_OFFSET(P2M_CR3_8, 64, p2m_cr3);
SAME_OFFSET(P2M_VADDR_8, 64, p2m_vaddr);
SAME_OFFSET(P2M_GENERATION_8, 64, p2m_generation);
#endif

static const struct sharedinfo_layout {
    unsigned width;
    size_t max_pfn, frame_list_list, p2m_cr3, p2m_vaddr, p2m_generation;
} sharedinfo_layouts[] = {
    {4, MAX_PFN_4, FRAME_LIST_LIST_4, P2M_CR3_4, P2M_VADDR_4, P2M_GENERATION_4},
    {8, MAX_PFN_8, FRAME_LIST_LIST_8, P2M_CR3_8, P2M_VADDR_8, P2M_GENERATION_8},
};

/* One load, which the compiler may neither split nor repeat: the guest may be writing. */
static uint64_t sharedinfo_load(const volatile void *page, size_t offset, unsigned width)
{
    const volatile char *at = (const volatile char *)page + offset;

    return width == 4 ? *(const volatile uint32_t *)(const volatile void *)at
                      : *(const volatile uint64_t *)(const volatile void *)at;
}

static const struct sharedinfo_layout *sharedinfo_layout(unsigned width)
{
    for (size_t i = 0; i < sizeof(sharedinfo_layouts) / sizeof(sharedinfo_layouts[0]); i++)
        if (sharedinfo_layouts[i].width == width)
            return &sharedinfo_layouts[i];
    return NULL;
}

/*
 * The counter is loaded last and behind a barrier: a guest counts before and after it writes the others, so that an
 * update which began meanwhile shows in the counter. What was read before an update began stays to be told by the
 * counter as it was then, which the caller has.
 */
int sharedinfo_read(const volatile void *page, unsigned width, struct sharedinfo *info)
{
    const struct sharedinfo_layout *layout = sharedinfo_layout(width);

    if (!layout)
        return -EINVAL;
    info->width = width;
    info->max_pfn = sharedinfo_load(page, layout->max_pfn, width);
    info->pfn_to_mfn_frame_list_list = sharedinfo_load(page, layout->frame_list_list, width);
    info->p2m_cr3 = sharedinfo_load(page, layout->p2m_cr3, width);
    info->p2m_vaddr = sharedinfo_load(page, layout->p2m_vaddr, width);
    atomic_thread_fence(memory_order_acquire);
    info->p2m_generation = sharedinfo_load(page, layout->p2m_generation, width);
    return 0;
}

bool sharedinfo_stands(const volatile void *page, const struct sharedinfo *info)
{
    struct sharedinfo now;

    return sharedinfo_read(page, info->width, &now) == 0 && now.p2m_generation == info->p2m_generation &&
           sharedinfo_same_place(&now, info);
}

/* All of it is within 64 bytes, in either width. */
void sharedinfo_fetch(const volatile void *page, unsigned width)
{
    __builtin_prefetch((const char *)(uintptr_t)page + (width == 8 ? P2M_GENERATION_8 : P2M_GENERATION_4));
}

bool sharedinfo_is_updating(const struct sharedinfo *info)
{
    return info->p2m_cr3 && (info->p2m_generation & 1);
}

bool sharedinfo_same_place(const struct sharedinfo *one, const struct sharedinfo *other)
{
    return one->width == other->width && one->max_pfn == other->max_pfn &&
           one->pfn_to_mfn_frame_list_list == other->pfn_to_mfn_frame_list_list && one->p2m_cr3 == other->p2m_cr3 &&
           one->p2m_vaddr == other->p2m_vaddr;
}
