/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The p2m's members of a PV guest's shared info page (xen/include/public/arch-x86/xen.h, struct arch_shared_info).
 *
 * Pure. The guest writes these members as it likes: they are loaded once each, and are numbers, not pointers to follow.
 * The layout is the guest's (4 or 8 bytes a long), whatever dom0's own is.
 */
#ifndef P2MGUARD_SHAREDINFO_H
#define P2MGUARD_SHAREDINFO_H

#include <stdbool.h>
#include <stdint.h>

#define SHAREDINFO_BYTES 4096

struct sharedinfo {
    uint64_t max_pfn;
    uint64_t p2m_cr3; /* 0: no linear p2m, and the two below mean nothing */
    uint64_t p2m_vaddr;
    uint64_t p2m_generation; /* odd: an update is under way */
};

/* -EINVAL for a width that is neither 4 nor 8. `page` is a mapped page of the guest's. */
int sharedinfo_read(const volatile void *page, unsigned width, struct sharedinfo *info);

#endif
