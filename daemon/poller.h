/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Looks at everybody who is under guard or observed, as long as there is somebody: at all that one hypercall tells in
 * every poll, and at the counters of PV guests in every glance, which costs memory loads alone and can be more often.
 *
 * Owns the two timers, and knows for how long nobody has looked. Loop thread only.
 */
#ifndef P2MGUARD_POLLER_H
#define P2MGUARD_POLLER_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/observation.h"
#include "daemon/session.h"

struct poller;

struct poller_host {
    struct event_base *base;
    struct hypervisor *hypervisor;   /* the loop's own handle */
    struct session *const *sessions; /* where the first of the live ones is named */
    struct observations *observations;
    bool (*hears)(void *context);    /* xenstored answers */
    void (*observed)(void *context); /* everybody was looked at, or glanced at */
    void *context;
};

struct poller_settings {
    int64_t poll_interval_ms, generation_interval_ms;
    int64_t max_gap_ms;
};

/* Copies `host`; what that names must outlive it. Looks at nobody before poller_apply. */
int poller_new(struct poller **poller, const struct poller_host *host);
void poller_free(struct poller *poller);

void poller_apply(struct poller *poller, const struct poller_settings *settings);

/* Somebody has come, or gone. */
void poller_mind(struct poller *poller);

/* Somebody's counter is to be read from now on. */
void poller_start_glancing(struct poller *poller);

/* Looks at everybody at once, whenever the next poll is due. */
void poller_look(struct poller *poller);

#endif
