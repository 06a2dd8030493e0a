/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a guest comes to rest: the relation between its target and its size.
 *
 * At rest a guest's size is its target plus a constant of its own (0 for PV; shared pages, video memory and the like
 * for PVH and HVM). The constant is learned, never assumed: a guest that has moved after the pin became visible, and
 * then stood still below its cap, and does so once more by as much, tells it. Until then the pin is a guess that is
 * safe either way: the target the guest had, when its size is close to it, else a little less than its size, so that it
 * moves and tells.
 *
 * Pure: sizes in, pin and judgement out.
 */
#ifndef P2MGUARD_REST_H
#define P2MGUARD_REST_H

#include <stdbool.h>
#include <stdint.h>

/* A guest that is within this of its target may be at rest there; libxl gives a domain that much room over its target.
 */
#define REST_NEAR_KIB 1024

/* How much less than its size a guest is asked to be so that it moves and shows where it rests. */
#define REST_PROBE_KIB 256

struct rest {
    bool learned;            /* offset_kib was seen, not guessed */
    int64_t offset_kib;      /* size minus target at rest; a guess unless learned */
    bool pinned;             /* the members below are about a pin that the guest has been shown */
    uint64_t pin_kib;        /* what it was shown */
    uint64_t pinned_tot_kib; /* its size then, which is its cap */
    int64_t residual_kib;    /* by how much it missed the pin before this one; 0 = it did not */
};

/* Starts over; `learned_kib` may be NULL. */
void rest_init(struct rest *rest, const int64_t *learned_kib);

/*
 * Whether a guest of this size is where that target takes it: exactly there, when its constant is known (a PV guest has
 * none, unless one was learned), or as near as a guest is that is left where it is.
 */
bool rest_is_there(const struct rest *rest, uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib, bool hvm);

/* Chooses the pin for a guest of this size. `target_kib` is the target it was last told, `hint_kib` a guessed offset.
 */
uint64_t rest_plan_pin(struct rest *rest, uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib);

/*
 * Judges a guest that has stood still: true when it is at rest with the pin it was shown. False: show it a pin made for
 * its present size.
 */
bool rest_judge(struct rest *rest, uint64_t tot_kib);

/* The pin that names this size exactly, for the toolstack to read. */
uint64_t rest_pin_for(const struct rest *rest, uint64_t tot_kib);

#endif
