/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/poller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/timer.h"

#define POLLER_DOMAINS_A_CALL 1024

struct poller {
    struct poller_host host;
    struct poller_settings settings;
    struct event *poll, *glance;
    bool polling;
    int64_t polled_ms; /* when everybody was observed last */
    int64_t seen_ms;   /* when that succeeded last */
    struct hypervisor_domain seen[POLLER_DOMAINS_A_CALL];
};

/* Somebody's guest is to be looked at. */
static bool poller_is_busy(const struct poller *poller)
{
    return *poller->host.sessions || observations_count(poller->host.observations);
}

static void poller_set_polling(struct poller *poller, bool polling)
{
    if (polling && !poller->polling)
        poller->seen_ms = clock_now_ms(); /* before, there was nobody to be seen */
    poller->polling = polling;
    if (polling) {
        timer_arm(poller->poll, poller->settings.poll_interval_ms);
    } else {
        event_del(poller->poll);
        event_del(poller->glance);
    }
}

/*
 * `*next` is where the one stands that follows whoever was picked last; 0 at first. Domids rise, so that from one to
 * another there are at most as many places as there are numbers: who asks in about their order is hardly searched for.
 */
static const struct hypervisor_domain *poller_pick(const struct poller *poller, size_t count, uint16_t domid,
                                                   size_t *next)
{
    size_t low = 0, high = count;

    if (*next < count && poller->seen[*next].domid <= domid) {
        size_t numbers = (size_t)domid - poller->seen[*next].domid + 1;
        low = *next;
        high = numbers < count - low ? low + numbers : count;
    } else if (*next < count) {
        size_t numbers = (size_t)poller->seen[*next].domid - domid;
        high = *next;
        low = numbers < high ? high - numbers : 0;
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (poller->seen[middle].domid < domid)
            low = middle + 1;
        else
            high = middle;
    }
    *next = low + 1;
    return low < count && poller->seen[low].domid == domid ? &poller->seen[low] : NULL;
}

/* Tells the sessions and observations with a domid from `first` to `last` what was seen of them. */
static void poller_tell(struct poller *poller, size_t count, unsigned first, unsigned last)
{
    struct session *next;
    struct observation *following;
    size_t picked = 0;

    for (struct session *session = *poller->host.sessions; session; session = next) {
        uint16_t domid = session->sight.seen.domid;
        next = session->next;
        if (domid < first || domid > last)
            continue;
        session_fetch_ahead(session, true);
        session_glance(session, poller->polled_ms);
        session_observe(session, poller_pick(poller, count, domid, &picked), poller->polled_ms);
    }
    for (struct observation *observation = observations_next(poller->host.observations, NULL); observation;
         observation = following) {
        uint16_t domid = observation->helper.domid;
        following = observations_next(poller->host.observations, observation);
        if (domid >= first && domid <= last)
            observation_see(observation, poller_pick(poller, count, domid, &picked));
    }
}

static void poller_widen(unsigned domid, unsigned *first, unsigned *last)
{
    *first = domid < *first ? domid : *first;
    *last = domid > *last ? domid : *last;
}

static bool poller_holds(const struct poller *poller)
{
    for (const struct session *session = *poller->host.sessions; session; session = session->next)
        if (session_state(session) == P2MG_STATE_HELD)
            return true;
    return false;
}

/*
 * What was not seen since the last look at everybody. A guest that is held by now is taken to have been held all that
 * time, so that this errs by an interval at most.
 */
static void poller_count_unseen(struct poller *poller)
{
    int64_t gap_ms = poller->polled_ms - poller->seen_ms;

    poller->seen_ms = poller->polled_ms;
    if (!poller->polling)
        return;
    if (gap_ms > 2 * poller->settings.poll_interval_ms)
        metrics_count(METRICS_POLL_OVERRUNS);
    if (!poller_holds(poller))
        return;
    if (gap_ms > poller->settings.max_gap_ms)
        metrics_count_blind(METRICS_BLIND_POLL, gap_ms);
    else if (!poller->host.hears(poller->host.context))
        metrics_count_blind(METRICS_BLIND_STORE, gap_ms);
}

/*
 * One hypercall for all, as long as the hypervisor knows fewer domains than fit; the next ones follow in another. False
 * when one has failed: the gap that this makes counts against proceed.
 */
static bool poller_poll(struct poller *poller)
{
    unsigned first = UINT16_MAX, last = 0;

    for (const struct session *session = *poller->host.sessions; session; session = session->next)
        poller_widen(session->sight.seen.domid, &first, &last);
    for (const struct observation *observation = observations_next(poller->host.observations, NULL); observation;
         observation = observations_next(poller->host.observations, observation))
        poller_widen(observation->helper.domid, &first, &last);
    poller->polled_ms = clock_now_ms();
    if (poller->polling)
        metrics_count(METRICS_POLLS);
    while (first <= last) {
        /* No more room than there can be domains: the call's buffer is locked memory, made for each call when it is
         * large. */
        size_t room = last - first + 1 < POLLER_DOMAINS_A_CALL ? last - first + 1 : POLLER_DOMAINS_A_CALL;
        int count = hypervisor_list(poller->host.hypervisor, (uint16_t)first, room, poller->seen);
        if (count < 0) {
            log_warning("observing domains failed: %s", strerror(-count));
            metrics_count(METRICS_POLL_FAILURES);
            return false;
        }
        bool all = count == 0 || (size_t)count < room;
        unsigned reached = all ? last : poller->seen[count - 1].domid;
        poller_tell(poller, (size_t)count, first, reached < last ? reached : last);
        first = reached + 1;
    }
    poller_count_unseen(poller);
    return true;
}

void poller_look(struct poller *poller)
{
    if (poller_poll(poller))
        poller->host.observed(poller->host.context);
}

static void poller_on_poll(evutil_socket_t fd, short what, void *context)
{
    struct poller *poller = context;
    (void)fd, (void)what;

    poller_look(poller);
    if (poller_is_busy(poller))
        timer_arm(poller->poll, poller->settings.poll_interval_ms);
}

/* Every guest's own counter: memory loads and no hypercall, so that it can be read far more often. */
static void poller_on_glance(evutil_socket_t fd, short what, void *context)
{
    struct poller *poller = context;
    int64_t now_ms = clock_now_ms();
    bool more = observations_glance(poller->host.observations, now_ms);
    (void)fd, (void)what;

    /* A poll that is due is made while we are awake anyway; its own timer goes off when nobody has a counter to be
     * read. It reads the counters as well. */
    if (poller_is_busy(poller) && now_ms - poller->polled_ms >= poller->settings.poll_interval_ms) {
        poller_poll(poller);
        more = poller_is_busy(poller);
        if (more)
            timer_arm(poller->poll, poller->settings.poll_interval_ms + poller->settings.generation_interval_ms);
    } else {
        for (struct session *session = *poller->host.sessions; session; session = session->next) {
            session_fetch_ahead(session, false);
            more |= session_glance(session, now_ms);
        }
    }
    poller->host.observed(poller->host.context);
    if (more)
        timer_arm(poller->glance, poller->settings.generation_interval_ms);
}

void poller_start_glancing(struct poller *poller)
{
    if (!evtimer_pending(poller->glance, NULL))
        timer_arm(poller->glance, poller->settings.generation_interval_ms);
}

/* ---- life ---- */

void poller_mind(struct poller *poller)
{
    bool busy = poller_is_busy(poller);

    if (busy != poller->polling)
        poller_set_polling(poller, busy);
}

void poller_apply(struct poller *poller, const struct poller_settings *settings)
{
    poller->settings = *settings;
    if (poller->polling)
        poller_set_polling(poller, true);
}

int poller_new(struct poller **result, const struct poller_host *host)
{
    struct poller *poller = calloc(1, sizeof(*poller));

    if (!poller)
        return -ENOMEM;
    poller->host = *host;
    poller->poll = evtimer_new(host->base, poller_on_poll, poller);
    poller->glance = evtimer_new(host->base, poller_on_glance, poller);
    if (!poller->poll || !poller->glance) {
        poller_free(poller);
        return -ENOMEM;
    }
    *result = poller;
    return 0;
}

void poller_free(struct poller *poller)
{
    if (!poller)
        return;
    timer_free(poller->poll);
    timer_free(poller->glance);
    free(poller);
}
