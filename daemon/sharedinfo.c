/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sharedinfo.h"

#include <errno.h>
#include <stddef.h>

/*
 * Byte offsets in the page. Before them stand 32 vcpu_info of 64 bytes, two bitmaps of (8 * width) longs, and the wall
 * clock, which is a word longer in 64-bit guests.
 */
static const struct sharedinfo_layout {
    unsigned width;
    size_t max_pfn, p2m_cr3, p2m_vaddr, p2m_generation;
} sharedinfo_layouts[] = {
    {4, 2316, 2328, 2332, 2336},
    {8, 3088, 3112, 3120, 3128},
};

/* One load, which the compiler may neither split nor repeat: the guest may be writing. */
static uint64_t sharedinfo_load(const volatile void *page, size_t offset, unsigned width)
{
    const volatile char *at = (const volatile char *)page + offset;

    return width == 4 ? *(const volatile uint32_t *)(const volatile void *)at
                      : *(const volatile uint64_t *)(const volatile void *)at;
}

int sharedinfo_read(const volatile void *page, unsigned width, struct sharedinfo *info)
{
    for (size_t i = 0; i < sizeof(sharedinfo_layouts) / sizeof(sharedinfo_layouts[0]); i++) {
        const struct sharedinfo_layout *layout = &sharedinfo_layouts[i];
        if (layout->width != width)
            continue;
        info->max_pfn = sharedinfo_load(page, layout->max_pfn, width);
        info->p2m_cr3 = sharedinfo_load(page, layout->p2m_cr3, width);
        info->p2m_vaddr = sharedinfo_load(page, layout->p2m_vaddr, width);
        info->p2m_generation = sharedinfo_load(page, layout->p2m_generation, width);
        return 0;
    }
    return -EINVAL;
}
