/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-observe.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/record.h"

#define SESSION_CACHE_LINE 64 /* on all that Xen runs on; another one costs time and nothing else */

/* The sight is a member of its session. */
static struct session *session_of(struct sight *sight)
{
    return (struct session *)(void *)((char *)sight - offsetof(struct session, sight));
}

void session_tell_change(struct sight *sight, enum p2mg_reason reason, const char *key, json_t *before, json_t *now)
{
    record_emit(session_of(sight), "session.changed", "{s:s,s:{s:o},s:{s:o}}", "reason", p2mg_reason_name(reason),
                "before", key, before, "now", key, now);
}

void session_map(struct session *session)
{
    int error = sight_map(&session->sight);

    if (error)
        log_warning("session %s: the shared info page cannot be mapped: %s", session->id, strerror(-error));
}

/* Only a guest that counts has a generation. */
static void session_write_down_generation(struct session *session, int64_t now_ms)
{
    const struct sight_figures *baseline = &session->sight.baseline;

    if (baseline->has_info && baseline->info.p2m_cr3)
        history_sample(session->history, HISTORY_GENERATION, now_ms, session->sight.generation);
}

void session_finish_baseline(struct session *session)
{
    session->gate_opened = session->store_unreachable = false;
    sight_finish_baseline(&session->sight, session->report.target_kib);
    session_write_down_generation(session, clock_now_ms());
}

/* ---- looks ---- */

bool session_is_over(const struct session *session)
{
    return session->leaving || session->sight.torn_down;
}

bool session_glance(struct session *session, int64_t now_ms)
{
    if (session->step != STEP_HELD || !session->sight.p2m)
        return false;
    sight_count_glance(&session->sight, now_ms);
    if (!session_is_over(session)) {
        if (sight_compare_counter(&session->sight, now_ms))
            session_write_down_generation(session, now_ms);
    }
    return true;
}

/* The next one was fetched a step before, so that nobody waits for the pointers to its pages. */
void session_fetch_ahead(const struct session *session, bool polled)
{
    const struct session *next = session->next, *second = next ? next->next : NULL;

    if (second) {
        size_t bytes = polled ? offsetof(struct session, sight.baseline) : offsetof(struct session, sight.seen);
        for (size_t at = 0; at < bytes; at += SESSION_CACHE_LINE)
            __builtin_prefetch((const char *)second + at);
    }
    if (second && polled)
        __builtin_prefetch(&second->gate.journal.cap_kib);
    if (next)
        sight_fetch_page(&next->sight);
    if (next && polled)
        sight_fetch_tables(&next->sight);
}

void session_observe(struct session *session, const struct hypervisor_domain *domain, int64_t now_ms)
{
    struct sight *sight = &session->sight;

    if (session->step == STEP_THAWING || session->step == STEP_GONE)
        return;
    if (!domain || domain->dying || strcmp(domain->uuid, sight->seen.uuid) != 0) {
        session_post(session, EVENT_GONE);
        return;
    }
    if (domain->tot_pages != sight->seen.tot_pages) {
        session->moved_ms = now_ms;
        session->pending &= ~(1u << EVENT_STILL);
        history_sample(session->history, HISTORY_TOT, now_ms, domain->tot_pages * sight_page_kib(sight));
    }
    sight_see(sight, domain, now_ms);
    if (session->step == STEP_HELD && !session_is_over(session))
        sight_compare(sight, now_ms);
    if (!domain->suspended && session->options.hold == P2MG_HOLD_SUSPENDED) {
        session_stop(session, P2MG_REASON_GUEST_RESUMED, P2MG_OUTCOME_FAILED);
        return;
    }
    if (session->step == STEP_SETTLING && now_ms - session->moved_ms >= session->options.policy.settle_ms)
        session_post(session, EVENT_STILL);
    else if (session->gate.taken && !session->away &&
             domain->max_pages * sight_page_kib(sight) != session->gate.journal.cap_kib)
        session_post(session, EVENT_TOUCHED);
}

/* ---- verdicts ---- */

void session_look(struct session *session)
{
    struct hypervisor_domain domain;
    int error = hypervisor_get(session->host->hypervisor, session->gate.journal.domid, &domain);

    if (!error)
        session_observe(session, &domain, clock_now_ms());
    else if (error == -ESRCH)
        session_observe(session, NULL, clock_now_ms());
    /* Any other failure leaves the gap since the last observation to speak for itself. */
}

/* All that can be looked at on the loop. What only the surveyor can read is surveyed before, when it is asked for. */
static void session_look_closely(struct session *session, struct sight_figures *now)
{
    int64_t now_ms = clock_now_ms();

    session_look(session);
    sight_read_sizes(&session->sight, now);
    if (session->step != STEP_HELD || session_is_over(session))
        return;
    session_glance(session, now_ms);
    /* A verdict that waited for a look at all of the p2m has just had it. */
    sight_look_closely(&session->sight, now, session->check_ending);
}

/* `now`: what a close look has just found, and compared; NULL where there was none. */
static struct verdict_facts session_facts(const struct session *session, const struct sight_figures *now)
{
    struct verdict_facts facts = {
        .state = session_state(session),
        .ended_by = session->ending,
        .gate_opened = session->gate_opened,
        .unwatched = session->unwatched || session->resumed,
        .store_unreachable = session->store_unreachable,
        .max_gap_ms = session->host->max_gap_ms,
        .attempt = session->attempt,
        .attempts = session->options.policy.attempts,
    };
    int64_t gap_ms = session->step == STEP_HELD ? clock_now_ms() - session->sight.seen_ms : 0;

    sight_fill_facts(&session->sight, now, &facts);
    if (gap_ms > facts.longest_gap_ms)
        facts.longest_gap_ms = gap_ms;
    return facts;
}

struct verdict session_known_verdict(const struct session *session)
{
    struct verdict_facts facts = session_facts(session, NULL);

    return verdict_judge(&facts);
}

struct verdict session_judge(struct session *session, bool silent, bool binding, struct verdict_facts *facts,
                             struct sight_figures *now)
{
    *now = (struct sight_figures){.time_ms = clock_wall_ms(), .target_kib = session->report.target_kib};
    sight_read_sizes(&session->sight, now);
    if (session->step == STEP_HELD)
        session_look_closely(session, now);
    *facts = session_facts(session, session->step == STEP_HELD && !session_is_over(session) ? now : NULL);
    facts->store_unreachable |= silent;
    struct verdict verdict = verdict_judge(facts);
    if (binding)
        session_start_grace(session, verdict.verdict);
    return verdict;
}
