/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-actions.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/record.h"
#include "daemon/session-agent.h"
#include "daemon/session-job.h"
#include "daemon/session-observe.h"
#include "daemon/timer.h"

/* While the guest is not up, and while putting back fails, it is tried again this often. */
#define SESSION_READY_RETRY_MS 250

/* Its target has been the same for long: it rests, if its size is what that makes. */
static bool session_is_steady(const struct session *session)
{
    int64_t rest_ms = session->options.policy.rest_ms;

    return rest_ms > 0 && session->steady_ms >= rest_ms && session->options.policy.require != P2MG_REQUIRE_GATE;
}

void action_take(struct session *session)
{
    session_submit(session, OPERATION_TAKE, session_is_steady(session) ? session->steady_kib : 0, false, 0);
}

void action_wait_until_up(struct session *session)
{
    session_arm_step(session, SESSION_READY_RETRY_MS);
}

static uint64_t session_plan_pin(struct session *session)
{
    return rest_plan_pin(&session->rest, sight_tot_kib(&session->sight),
                         strtoull(session->gate.journal.target, NULL, 10), session->videoram_kib);
}

static uint64_t session_pin(struct session *session)
{
    uint64_t pin_kib = session_plan_pin(session);

    record_emit(session, "session.pinned", "{s:I}", "pin_kib", (json_int_t)pin_kib);
    return pin_kib;
}

/* Shows the guest a pin made for its present size; growth beyond that size is refused from now on. */
void action_expose(struct session *session)
{
    uint64_t pin_kib = session_pin(session);

    session->moved_ms = clock_now_ms();
    session_submit(session, OPERATION_SYNC, pin_kib, true, session->sight.seen.tot_pages);
}

/* The guest has seen nothing but what is its pin now for long: it need not be shown that again. */
void action_trust_rest(struct session *session)
{
    session_pin(session);
    session->moved_ms = clock_now_ms() - session->steady_ms;
    session_handle(session, EVENT_DONE);
}

/* Every write of somebody else's, and every change of the pin, starts the window anew. */
void action_open_window(struct session *session)
{
    session->moved_ms = clock_now_ms();
    session_arm_step(session, session->options.policy.quiet_ms);
}

void action_sync(struct session *session)
{
    session_submit(session, OPERATION_SYNC, 0, session->gate.open, 0);
}

void action_close(struct session *session)
{
    session_submit(session, OPERATION_SYNC, 0, false, 0);
}

void action_settle(struct session *session)
{
    record_emit(session, "session.quiet", "{s:I}", "pin_kib", (json_int_t)session->rest.pin_kib);
    session_look(session); /* it may have stood still for long enough already */
}

void action_settle_again(struct session *session)
{
    session->moved_ms = clock_now_ms();
}

/* The gate is shut: the final pin is not for the guest but for the toolstack, whose configuration must agree with it.
 */
void action_baseline(struct session *session)
{
    if (!session->rest.pinned)
        session_plan_pin(session);
    session->unwatched = false; /* from here on: the connection may be lost before the guest is held */
    sight_begin_baseline(&session->sight);
    session_submit(session, OPERATION_SYNC, rest_pin_for(&session->rest, session->sight.baseline.tot_kib), false,
                   session->sight.seen.tot_pages);
}

void action_survey(struct session *session)
{
    if (sight_survey(&session->sight) == 0)
        session_handle(session, EVENT_SURVEYED);
    else
        session_order_survey(session);
}

void action_hold(struct session *session)
{
    int64_t now_ms = clock_now_ms();

    event_del(session->freeze_timer);
    session_finish_baseline(session);
    session->has_baseline = true;
    metrics_time_to_hold(now_ms - session->freezing_since_ms);
    if (session->held_after_ms < 0)
        session->held_after_ms = now_ms - session->begun_ms;
    if (session->rest.learned)
        domains_learn_offset(session->host->domains, session->gate.journal.uuid, session->rest.offset_kib);
    record_emit(session, "session.held", "{s:o,s:I,s:I,s:o}", "baseline",
                record_figures(&session->sight.baseline, sight_page_kib(&session->sight)), "after_ms",
                (json_int_t)(now_ms - session->freezing_since_ms), "attempt", (json_int_t)session->attempt,
                "offset_kib", session->rest.learned ? json_integer(session->rest.offset_kib) : json_null());
    session->host->held(session->host->context, session);
}

void session_begin_freezing(struct session *session, int64_t now_ms)
{
    session->freezing_since_ms = now_ms;
    timer_arm(session->freeze_timer, session->options.policy.freeze_timeout_ms);
}

static void session_count_attempt(struct session *session)
{
    session->attempt++;
    session->resumed = false;
    session_agent_forget(session);
    event_del(session->grace_timer);
    session_begin_freezing(session, clock_now_ms());
    metrics_count(METRICS_RETRIES);
    record_emit(session, "session.retry", "{s:I}", "attempt", (json_int_t)session->attempt);
}

/* A guest that has just changed something is likely to be at it still. */
void action_back_off(struct session *session)
{
    session_count_attempt(session);
    session_arm_step(session, session_backoff_ms(session, session->attempt));
}

void action_retry_at_once(struct session *session)
{
    session_count_attempt(session);
    action_baseline(session);
}

/* xenstored may be away for a moment; what is held stays held, and is looked at again. */
void action_look_later(struct session *session)
{
    session_arm_step(session, SESSION_THAW_RETRY_MS);
}

void action_restore(struct session *session)
{
    session_submit(session, OPERATION_RESTORE, 0, false, 0);
}

void action_thaw(struct session *session)
{
    session_quiet_timers(session);
    sight_unmap(&session->sight);
    if (session->held_after_ms >= 0)
        metrics_time_held(clock_now_ms() - session->begun_ms - session->held_after_ms);
    record_emit(session, "session.thawing", "{s:s,s:s}", "reason", p2mg_reason_name(session->ending), "outcome",
                p2mg_outcome_name(session->outcome));
    session->host->thawing(session->host->context, session);
    action_restore(session);
}

/* Out of freezing without having reached held. */
void action_give_up(struct session *session)
{
    session->host->not_held(session->host->context, session);
    action_thaw(session);
}

void session_fail(struct session *session, enum p2mg_reason reason)
{
    if (session->ending == P2MG_REASON_NONE)
        session->ending = reason;
    session->failed = true;
    record_emit(session, "session.failed", "{s:s,s:s}", "reason", p2mg_reason_name(session->ending), "text",
                p2mg_reason_text(session->ending));
    action_give_up(session);
}

void action_fail(struct session *session)
{
    session_fail(session, worker_connected(session->host->worker) ? P2MG_REASON_ERROR : P2MG_REASON_STORE_UNREACHABLE);
}

void action_time_out(struct session *session)
{
    session_fail(session, P2MG_REASON_FREEZE_TIMEOUT);
}

void action_fail_unreadable(struct session *session)
{
    const struct survey_result *surveyed = &session->sight.surveyed;

    log_warning("session %s: the guest's p2m cannot be read: %s", session->id,
                session->sight.p2m_missing ? "its shared info page cannot be mapped"
                                           : p2m_problem_text(surveyed->problem));
    session_fail(session, P2MG_REASON_STRUCTURE_UNREADABLE);
}

void action_give_up_waiting(struct session *session)
{
    session_fail(session, P2MG_REASON_GUEST_NOT_READY);
}

void action_end_of_domain(struct session *session)
{
    if (session->leaving) {
        session->ending = P2MG_REASON_DOMAIN_RENAMED;
        session->outcome = P2MG_OUTCOME_COMPLETED;
    } else if (session->ending == P2MG_REASON_NONE) {
        session->ending = P2MG_REASON_DOMAIN_GONE;
    }
    action_give_up(session);
}

void action_restore_later(struct session *session)
{
    session_arm_step(session, SESSION_THAW_RETRY_MS);
}

void action_bury(struct session *session)
{
    metrics_count_end(session->outcome, session->ending);
    record_emit(session, "session.gone", "{s:s,s:s,s:o,s:o,s:o}", "reason", p2mg_reason_name(session->ending),
                "outcome", p2mg_outcome_name(session->outcome), "wanted_target_kib", record_wanted(session),
                "deferred_target_kib", record_deferred(session), "applied_to",
                session->applied_to ? json_integer(session->applied_to) : json_null());
}

/* ---- guards ---- */

bool guard_needs_gate_only(struct session *session)
{
    return session->options.policy.require == P2MG_REQUIRE_GATE;
}

/* The gate was found open: the guest may have read something else than the pin. */
bool guard_gate_was_open(struct session *session)
{
    return session->report.reopened;
}

/* It was at rest, and still is: the gate was closed over its pin at once. */
bool guard_was_pinned(struct session *session)
{
    const struct journal *journal = &session->gate.journal;

    return *journal->pin && journal->cap_kib == sight_tot_kib(&session->sight);
}

/* Evaluated once for a guest that has stood still; judging also learns. */
bool guard_is_at_rest(struct session *session)
{
    return rest_judge(&session->rest, sight_tot_kib(&session->sight));
}

/* Nothing moved while the baseline was being taken, and the driver does not say that it is at work. */
bool guard_baseline_holds(struct session *session)
{
    if (guard_needs_gate_only(session))
        return !session->report.reopened;
    return !session->report.balloon_active && !session->report.reopened && session_agent_holds(session) &&
           session->report.tot_pages * sight_page_kib(&session->sight) == session->sight.baseline.tot_kib;
}

/* The guest changed its size while its p2m was surveyed. */
bool guard_size_moved(struct session *session)
{
    return !guard_needs_gate_only(session) && sight_tot_kib(&session->sight) != session->sight.baseline.tot_kib;
}

/* Evaluated once for each survey; it also becomes part of the baseline. */
bool guard_survey_stands(struct session *session)
{
    return sight_take_baseline_survey(&session->sight);
}

bool guard_survey_may_pass(struct session *session)
{
    return sight_survey_may_pass(&session->sight);
}
