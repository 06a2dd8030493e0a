/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A set of domids. Empty when it is all zeroes. */
#ifndef P2MGUARD_DOMID_SET_H
#define P2MGUARD_DOMID_SET_H

#include <stdbool.h>
#include <stdint.h>

struct domid_set {
    uint8_t bits[(UINT16_MAX + 1) / 8];
};

static inline void domid_set_add(struct domid_set *set, uint16_t domid)
{
    set->bits[domid / 8] |= (uint8_t)(1u << domid % 8);
}

static inline bool domid_set_has(const struct domid_set *set, uint16_t domid)
{
    return set->bits[domid / 8] & 1u << domid % 8;
}

#endif
