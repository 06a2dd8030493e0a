/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The way to one leaf page of a p2m, looked up entry by entry from the root each time: what daemon/p2m.c does in bulk,
 * written a second time in the plainest way there is, to compare the two.
 */
#ifndef P2MGUARD_TESTS_P2M_REFERENCE_H
#define P2MGUARD_TESTS_P2M_REFERENCE_H

#include <stdint.h>

#include "daemon/p2m.h"

/* The 4 KiB of a frame, aligned for 64-bit numbers; NULL when there is no such frame. */
typedef const void *(*reference_page)(void *context, uint64_t frame);

struct reference_look {
    enum p2m_problem problem;
    unsigned level;     /* of the table that has the bad entry, or that cannot be mapped */
    uint64_t frames[5]; /* [0] the leaf page, [1] the table that names it, up to the root; 0 below a tree's hole */
};

/* `info` must be one that p2m_describe accepts, `leaf` one of its leaf pages. */
void reference_look(const struct sharedinfo *info, uint64_t leaf, reference_page page, void *context,
                    struct reference_look *look);

#endif
