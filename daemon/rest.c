/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/rest.h"

#include <string.h>

void rest_init(struct rest *rest, const int64_t *learned_kib)
{
    memset(rest, 0, sizeof(*rest));
    if (learned_kib) {
        rest->learned = true;
        rest->offset_kib = *learned_kib;
    }
}

uint64_t rest_pin_for(const struct rest *rest, uint64_t tot_kib)
{
    int64_t pin_kib = (int64_t)tot_kib - rest->offset_kib;

    return pin_kib > 0 ? (uint64_t)pin_kib : 1;
}

static bool rest_is_near(uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib)
{
    int64_t beyond_kib = (int64_t)tot_kib - (int64_t)target_kib - (int64_t)hint_kib;

    return beyond_kib >= -REST_NEAR_KIB && beyond_kib <= REST_NEAR_KIB;
}

bool rest_is_there(const struct rest *rest, uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib, bool hvm)
{
    if (rest->learned || !hvm)
        return (int64_t)tot_kib == (int64_t)target_kib + rest->offset_kib;
    return rest_is_near(tot_kib, target_kib, hint_kib);
}

static void rest_guess(struct rest *rest, uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib)
{
    if (rest_is_near(tot_kib, target_kib, hint_kib))
        rest->offset_kib = (int64_t)tot_kib - (int64_t)target_kib;
    else
        rest->offset_kib = (int64_t)hint_kib + REST_PROBE_KIB;
}

uint64_t rest_plan_pin(struct rest *rest, uint64_t tot_kib, uint64_t target_kib, uint64_t hint_kib)
{
    if (!rest->learned && !rest->pinned)
        rest_guess(rest, tot_kib, target_kib, hint_kib);
    rest->pin_kib = rest_pin_for(rest, tot_kib);
    rest->pinned_tot_kib = tot_kib;
    rest->pinned = true;
    return rest->pin_kib;
}

bool rest_judge(struct rest *rest, uint64_t tot_kib)
{
    int64_t offset_kib = (int64_t)tot_kib - (int64_t)rest->pin_kib;
    int64_t residual_kib = offset_kib - rest->offset_kib;
    /* At its cap a guest may want to grow and not be able to: that it stands still there says nothing. */
    bool tells = tot_kib < rest->pinned_tot_kib;

    if (residual_kib == 0 || (!rest->learned && !tells)) {
        rest->residual_kib = 0;
        rest->learned = rest->learned || (tells && residual_kib == 0);
        return true;
    }
    /* A guest that misses two pins by the same amount rests where it rests. One that misses one may be on its way:
     * its driver has been refused pages, or its host is slow. */
    if (tells && residual_kib == rest->residual_kib) {
        rest->learned = true;
        rest->offset_kib = offset_kib;
        rest->residual_kib = 0;
        return true;
    }
    rest->residual_kib = residual_kib;
    return false;
}
