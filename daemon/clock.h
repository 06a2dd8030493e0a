/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Two clocks: one that only ever moves forward, for durations; one that other machines share, for records. */
#ifndef P2MGUARD_CLOCK_H
#define P2MGUARD_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline int64_t clock_read_ms(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* CLOCK_BOOTTIME would count a suspended host's sleep as observation gaps, which is right: nobody watched. */
static inline int64_t clock_now_ms(void)
{
    return clock_read_ms(CLOCK_BOOTTIME);
}

static inline int64_t clock_wall_ms(void)
{
    return clock_read_ms(CLOCK_REALTIME);
}

#endif
