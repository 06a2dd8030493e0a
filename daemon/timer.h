/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libevent's timers, set in milliseconds like everything else here; and events that need not be there to be freed. */
#ifndef P2MGUARD_TIMER_H
#define P2MGUARD_TIMER_H

#include <event2/event.h>
#include <stdint.h>

/* As event_add: -1 when memory runs out. A timer that runs already starts anew. */
static inline int timer_arm(struct event *timer, int64_t delay_ms)
{
    struct timeval delay = {.tv_sec = (time_t)(delay_ms / 1000), .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};

    return event_add(timer, &delay);
}

/* Of signals and descriptors as well. NULL is nothing to be freed. */
static inline void timer_free(struct event *event)
{
    if (event)
        event_free(event);
}

#endif
