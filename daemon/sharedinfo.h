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
    unsigned width;                      /* of the guest's long: 4 or 8 bytes */
    uint64_t max_pfn;                    /* one more than the highest pfn of the p2m */
    uint64_t pfn_to_mfn_frame_list_list; /* the tree's top; 0: not set up, all ones: see the list */
    uint64_t p2m_cr3;                    /* 0: no linear p2m, and the two below mean nothing */
    uint64_t p2m_vaddr;
    uint64_t p2m_generation; /* odd: an update is under way */
};

/* -EINVAL for a width that is neither 4 nor 8. `page` is a mapped page of the guest's. */
int sharedinfo_read(const volatile void *page, unsigned width, struct sharedinfo *info);

/*
 * The page still says all of that. False also for a width that is neither of the two, so that a zeroed `info` stands
 * for nothing known.
 */
bool sharedinfo_stands(const volatile void *page, const struct sharedinfo *info);

/* Has the processor fetch what the two above are about to load. */
void sharedinfo_fetch(const volatile void *page, unsigned width);

/* The guest says that it is changing the list's mapping right now. */
bool sharedinfo_is_updating(const struct sharedinfo *info);

/* Where the p2m is, apart from the counter: whether both lead to the same list or tree. */
bool sharedinfo_same_place(const struct sharedinfo *one, const struct sharedinfo *other);

#endif
