/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/record.h"
#include "daemon/session-job.h"

/* While the guest is not up, and while putting back fails, it is tried again this often. */
#define SESSION_READY_RETRY_MS 250
#define SESSION_THAW_RETRY_MS 1000

/*
 * A domain that the guest has left is kept under guard until it is gone, this long at most: a toolstack that looked up
 * its name before the rename may still write a target there, and that wish is the guest's, wherever it runs.
 */
#define SESSION_LEAVE_MS 3000

static void session_handle(struct session *session, enum session_event event);

/* ---- jobs, away and back ---- */

static uint64_t session_page_kib(const struct session *session)
{
    return hypervisor_page_kib(session->host->hypervisor);
}

static void session_arm(struct event *timer, int64_t delay_ms)
{
    struct timeval delay = {.tv_sec = (time_t)(delay_ms / 1000), .tv_usec = (suseconds_t)(delay_ms % 1000) * 1000};

    event_add(timer, &delay);
}

/* A timer that went off while a job was away, and was not looked at yet, is void once it is set anew. */
static void session_arm_step(struct session *session, int64_t delay_ms)
{
    session->pending &= ~(1u << EVENT_TIMER);
    session_arm(session->timer, delay_ms);
}

/* Events that came while a job was away are handled in the order of their weight, the heaviest first. */
static void session_handle_pending(struct session *session)
{
    static const enum session_event order[] = {EVENT_GONE,  EVENT_STOP,  EVENT_TIMEOUT, EVENT_RETRY,
                                               EVENT_TIMER, EVENT_STILL, EVENT_TOUCHED};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && !session->job; i++) {
        if (session->pending & (1u << order[i])) {
            session->pending &= ~(1u << order[i]);
            session_handle(session, order[i]);
        }
    }
}

static void session_take_in_job(struct session *session, const struct session_job *job)
{
    bool looked = job->operation == OPERATION_SYNC;

    session->gate = job->gate;
    session->report = job->report;
    if (looked)
        session->store_unreachable = job->error != 0;
    if (job->operation == OPERATION_TAKE && !job->error)
        session->videoram_kib = job->report.videoram_kib;
    if (job->applied_to)
        session->applied_to = job->applied_to;
    if (job->operation == OPERATION_TAKE && job->error == -ENODATA)
        session->ending = P2MG_REASON_NOT_GUARDABLE;
    if (session->step == STEP_HELD && job->report.reopened)
        session->gate_opened = true;
    session_job_tell(job);
}

static void session_job_done(struct work *work)
{
    struct session_job *job = (struct session_job *)(void *)work;
    struct session *session = job->session;
    struct session_host *host = session->host;
    enum session_event event = session_job_event(job);
    bool checked = session->check_running;

    session->job = NULL;
    session->check_running = false;
    session_take_in_job(session, job);
    free(job);
    /* Going on only to be stopped at the next turn would show the guest another pin for nothing. */
    if (session->pending & 1u << EVENT_STOP && session->step != STEP_THAWING && event != EVENT_GONE) {
        session->pending &= ~(1u << EVENT_STOP);
        event = EVENT_STOP;
    }
    session_handle(session, event);
    session_handle_pending(session);
    if (checked)
        host->checked(host->context, session);
    if (session->step == STEP_GONE && !session->job)
        host->gone(host->context, session);
}

/*
 * Without memory for the job the session fails by its timers: the freeze times out, or the deadline comes; a thaw
 * is tried again.
 */
static void session_submit(struct session *session, enum session_operation operation, uint64_t pin_kib, bool open,
                           uint64_t cap_pages)
{
    struct session_job *job = calloc(1, sizeof(*job));

    if (!job) {
        log_error("session %s: out of memory", session->id);
        session_arm_step(session, SESSION_THAW_RETRY_MS);
        return;
    }
    job->work.run = session_job_run;
    job->work.done = session_job_done;
    job->session = session;
    job->operation = operation;
    job->gate = session->gate;
    job->pin_kib = pin_kib;
    job->open = open;
    job->cap_pages = cap_pages;
    job->young = domains_is_young(session->host->domains, session->gate.journal.uuid);
    job->forward = session->outcome == P2MG_OUTCOME_COMPLETED || session->heir;
    job->error = -ECANCELED; /* stays when the worker ends before its turn comes */
    session->job = job;
    session->check_running = session->check_wanted && operation == OPERATION_SYNC;
    if (session->check_running)
        session->check_wanted = false;
    worker_submit(session->host->worker, &job->work);
}

/* ---- timers ---- */

static void session_post(struct session *session, enum session_event event)
{
    if (session->job)
        session->pending |= 1u << event;
    else
        session_handle(session, event);
}

static void session_on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    session_post(context, EVENT_TIMER);
}

static void session_on_freeze_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    session_post(context, EVENT_TIMEOUT);
}

static void session_on_deadline(evutil_socket_t fd, short what, void *context)
{
    struct session *session = context;
    (void)fd, (void)what;

    if (session->leaving)
        session_stop(session, P2MG_REASON_DOMAIN_RENAMED, P2MG_OUTCOME_COMPLETED);
    else
        session_stop(session, P2MG_REASON_DEADLINE, P2MG_OUTCOME_UNKNOWN);
}

static void session_on_grace_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    session_stop(context, P2MG_REASON_GRACE_EXPIRED, P2MG_OUTCOME_UNKNOWN);
}

static void session_quiet_timers(struct session *session)
{
    event_del(session->timer);
    event_del(session->freeze_timer);
    event_del(session->end_timer);
    event_del(session->grace_timer);
}

/* ---- actions ---- */

/* The guest's own counter; without one, its page count and the migration engine's checks have to do. */
static bool session_read_generation(const struct session *session, uint64_t *generation)
{
    *generation = 0;
    return session->p2m && hypervisor_read_generation(session->p2m, generation);
}

static uint64_t session_tot_kib(const struct session *session)
{
    return session->seen.tot_pages * session_page_kib(session);
}

static void action_take(struct session *session)
{
    session_submit(session, OPERATION_TAKE, 0, false, 0);
}

static void action_wait_until_up(struct session *session)
{
    session_arm_step(session, SESSION_READY_RETRY_MS);
}

static void session_emit_gated(struct session *session)
{
    const struct journal *journal = &session->gate.journal;

    record_emit(session, "session.gated", "{s:I,s:I,s:I}", "target_kib",
                (json_int_t)strtoull(journal->target, NULL, 10), "max_kib", (json_int_t)journal->max_kib, "cap_kib",
                (json_int_t)journal->cap_kib);
}

static uint64_t session_plan_pin(struct session *session)
{
    if (!session->rest.pinned)
        session_emit_gated(session);
    return rest_plan_pin(&session->rest, session_tot_kib(session), strtoull(session->gate.journal.target, NULL, 10),
                         session->videoram_kib);
}

/* Shows the guest a pin made for its present size; growth beyond that size is refused from now on. */
static void action_expose(struct session *session)
{
    uint64_t pin_kib = session_plan_pin(session);

    record_emit(session, "session.pinned", "{s:I}", "pin_kib", (json_int_t)pin_kib);
    session->moved_ms = clock_now_ms();
    session_submit(session, OPERATION_SYNC, pin_kib, true, session->seen.tot_pages);
}

/* Every write of somebody else's, and every change of the pin, starts the window anew. */
static void action_open_window(struct session *session)
{
    session->moved_ms = clock_now_ms();
    session_arm_step(session, session->options.policy.quiet_ms);
}

static void action_sync(struct session *session)
{
    session_submit(session, OPERATION_SYNC, 0, session->gate.open, 0);
}

static void action_close(struct session *session)
{
    session_submit(session, OPERATION_SYNC, 0, false, 0);
}

static void action_settle(struct session *session)
{
    record_emit(session, "session.quiet", "{s:I}", "pin_kib", (json_int_t)session->rest.pin_kib);
}

static void action_settle_again(struct session *session)
{
    session->moved_ms = clock_now_ms();
}

/* The gate is shut: the final pin is not for the guest but for the toolstack, whose configuration must agree with it.
 */
static void action_baseline(struct session *session)
{
    if (!session->rest.pinned)
        session_plan_pin(session);
    session->baseline.tot_kib = session_tot_kib(session);
    session->baseline.has_generation = session_read_generation(session, &session->baseline.generation);
    session_submit(session, OPERATION_SYNC, rest_pin_for(&session->rest, session->baseline.tot_kib), false,
                   session->seen.tot_pages);
}

static void action_hold(struct session *session)
{
    int64_t now_ms = clock_now_ms();

    event_del(session->freeze_timer);
    session->has_baseline = true;
    session->baseline.tot_kib = session->report.tot_pages * session_page_kib(session);
    session->baseline.target_kib = session->report.target_kib;
    session->baseline.time_ms = clock_wall_ms();
    session->tot_pages_changed = session->generation_changed = session->gate_opened = false;
    session->store_unreachable = session->unwatched = false;
    session->longest_gap_ms = 0;
    session->seen_ms = now_ms;
    if (session->held_after_ms < 0)
        session->held_after_ms = now_ms - session->begun_ms;
    if (session->rest.learned)
        domains_learn_offset(session->host->domains, session->gate.journal.uuid, session->rest.offset_kib);
    record_emit(session, "session.held", "{s:o,s:I,s:I,s:o}", "baseline", record_figures(&session->baseline),
                "after_ms", (json_int_t)(now_ms - session->freezing_since_ms), "attempt", (json_int_t)session->attempt,
                "offset_kib", session->rest.learned ? json_integer(session->rest.offset_kib) : json_null());
    session->host->held(session->host->context, session);
}

static void session_begin_freezing(struct session *session)
{
    session->freezing_since_ms = clock_now_ms();
    session_arm(session->freeze_timer, session->options.policy.freeze_timeout_ms);
}

static void session_count_attempt(struct session *session)
{
    session->attempt++;
    event_del(session->grace_timer);
    session_begin_freezing(session);
    record_emit(session, "session.retry", "{s:I}", "attempt", (json_int_t)session->attempt);
}

static void action_retry(struct session *session)
{
    session_count_attempt(session);
    action_expose(session);
}

static void action_retry_at_once(struct session *session)
{
    session_count_attempt(session);
    action_baseline(session);
}

/* xenstored may be away for a moment; what is held stays held, and is looked at again. */
static void action_look_later(struct session *session)
{
    session_arm_step(session, SESSION_THAW_RETRY_MS);
}

static void action_restore(struct session *session)
{
    session_submit(session, OPERATION_RESTORE, 0, false, 0);
}

static void session_unmap(struct session *session)
{
    hypervisor_unmap_p2m(session->p2m);
    session->p2m = NULL;
}

static void action_thaw(struct session *session)
{
    session_quiet_timers(session);
    session_unmap(session);
    record_emit(session, "session.thawing", "{s:s,s:s}", "reason", p2mg_reason_name(session->ending), "outcome",
                p2mg_outcome_name(session->outcome));
    action_restore(session);
}

/* Out of freezing without having reached held. */
static void action_give_up(struct session *session)
{
    session->host->not_held(session->host->context, session);
    action_thaw(session);
}

static void session_fail(struct session *session, enum p2mg_reason reason)
{
    if (session->ending == P2MG_REASON_NONE)
        session->ending = reason;
    session->failed = true;
    record_emit(session, "session.failed", "{s:s,s:s}", "reason", p2mg_reason_name(session->ending), "text",
                p2mg_reason_text(session->ending));
    action_give_up(session);
}

static void action_fail(struct session *session)
{
    session_fail(session, worker_connected(session->host->worker) ? P2MG_REASON_ERROR : P2MG_REASON_STORE_UNREACHABLE);
}

static void action_time_out(struct session *session)
{
    session_fail(session, P2MG_REASON_FREEZE_TIMEOUT);
}

static void action_give_up_waiting(struct session *session)
{
    session_fail(session, P2MG_REASON_GUEST_NOT_READY);
}

static void action_end_of_domain(struct session *session)
{
    if (session->leaving) {
        session->ending = P2MG_REASON_DOMAIN_RENAMED;
        session->outcome = P2MG_OUTCOME_COMPLETED;
    } else if (session->ending == P2MG_REASON_NONE) {
        session->ending = P2MG_REASON_DOMAIN_GONE;
    }
    action_give_up(session);
}

static void action_restore_later(struct session *session)
{
    session_arm_step(session, SESSION_THAW_RETRY_MS);
}

static void action_bury(struct session *session)
{
    record_emit(session, "session.gone", "{s:s,s:s,s:I,s:o,s:o}", "reason", p2mg_reason_name(session->ending),
                "outcome", p2mg_outcome_name(session->outcome), "wanted_target_kib",
                (json_int_t)session_wanted_target_kib(session), "deferred_target_kib", record_deferred(session),
                "applied_to", session->applied_to ? json_integer(session->applied_to) : json_null());
}

/* ---- guards ---- */

static bool guard_needs_gate_only(struct session *session)
{
    return session->options.policy.require == P2MG_REQUIRE_GATE;
}

/* The gate was found open: the guest may have read something else than the pin. */
static bool guard_gate_was_open(struct session *session)
{
    return session->report.reopened;
}

/* Evaluated once for a guest that has stood still; judging also learns. */
static bool guard_is_at_rest(struct session *session)
{
    return rest_judge(&session->rest, session_tot_kib(session));
}

/* Nothing moved while the baseline was being taken, and the driver does not say that it is at work. */
static bool guard_baseline_holds(struct session *session)
{
    bool updating = session->baseline.generation & 1;

    if (guard_needs_gate_only(session))
        return !session->report.reopened;
    return !session->report.balloon_active && !session->report.reopened && !updating &&
           session->report.tot_pages * session_page_kib(session) == session->baseline.tot_kib;
}

/* ---- the table ---- */

#define IF(guard) guard_##guard, #guard
#define ALWAYS NULL, NULL
#define DO(action) action_##action, #action

/* The first row that fits counts; no row means that the event is of no interest in that step. */
static const struct session_rule {
    enum session_step step;
    enum session_event event;
    bool (*guard)(struct session *session);
    const char *guard_name;
    void (*action)(struct session *session);
    const char *action_name;
    enum session_step next;
} session_rules[] = {
    {STEP_GATING, EVENT_BEGIN, ALWAYS, DO(take), STEP_GATING},
    {STEP_GATING, EVENT_NOT_READY, ALWAYS, DO(wait_until_up), STEP_GATING},
    {STEP_GATING, EVENT_TIMER, ALWAYS, DO(take), STEP_GATING},
    {STEP_GATING, EVENT_TIMEOUT, ALWAYS, DO(give_up_waiting), STEP_THAWING},
    {STEP_GATING, EVENT_DONE, IF(needs_gate_only), DO(baseline), STEP_BASELINING},
    {STEP_GATING, EVENT_DONE, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_PINNING, EVENT_DONE, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_PINNING, EVENT_DISTURBED, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_PINNING, EVENT_TIMER, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_QUIET, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_QUIET},
    {STEP_QUIET, EVENT_DISTURBED, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_QUIET, EVENT_TIMER, ALWAYS, DO(close), STEP_CLOSING},

    {STEP_CLOSING, EVENT_DONE, ALWAYS, DO(settle), STEP_SETTLING},
    {STEP_CLOSING, EVENT_DISTURBED, ALWAYS, DO(expose), STEP_PINNING},
    {STEP_CLOSING, EVENT_TIMER, ALWAYS, DO(close), STEP_CLOSING},

    {STEP_SETTLING, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_SETTLING},
    {STEP_SETTLING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_SETTLING, EVENT_STILL, IF(is_at_rest), DO(baseline), STEP_BASELINING},
    {STEP_SETTLING, EVENT_STILL, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_BASELINING, EVENT_DONE, IF(baseline_holds), DO(hold), STEP_HELD},
    {STEP_BASELINING, EVENT_DONE, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_BASELINING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_BASELINING, EVENT_DISTURBED, IF(baseline_holds), DO(hold), STEP_HELD},
    {STEP_BASELINING, EVENT_DISTURBED, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_BASELINING, EVENT_TIMER, ALWAYS, DO(baseline), STEP_BASELINING},

    {STEP_HELD, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_HELD},
    {STEP_HELD, EVENT_TIMER, ALWAYS, DO(sync), STEP_HELD},
    {STEP_HELD, EVENT_FAILED, ALWAYS, DO(look_later), STEP_HELD},
    {STEP_HELD, EVENT_RETRY, IF(needs_gate_only), DO(retry_at_once), STEP_BASELINING},
    {STEP_HELD, EVENT_RETRY, ALWAYS, DO(retry), STEP_PINNING},
    {STEP_HELD, EVENT_STOP, ALWAYS, DO(thaw), STEP_THAWING},
    {STEP_HELD, EVENT_GONE, ALWAYS, DO(end_of_domain), STEP_THAWING},

    {STEP_THAWING, EVENT_DONE, ALWAYS, DO(bury), STEP_GONE},
    {STEP_THAWING, EVENT_FAILED, ALWAYS, DO(restore_later), STEP_THAWING},
    {STEP_THAWING, EVENT_GONE, ALWAYS, DO(restore_later), STEP_THAWING},
    {STEP_THAWING, EVENT_TIMER, ALWAYS, DO(restore), STEP_THAWING},

/* Every step of freezing ends alike. */
#define WHILE_FREEZING(step)                                                                                           \
    {step, EVENT_TIMEOUT, ALWAYS, DO(time_out), STEP_THAWING}, {step, EVENT_FAILED, ALWAYS, DO(fail), STEP_THAWING},   \
        {step, EVENT_STOP, ALWAYS, DO(give_up), STEP_THAWING},                                                         \
    {                                                                                                                  \
        step, EVENT_GONE, ALWAYS, DO(end_of_domain), STEP_THAWING                                                      \
    }
    WHILE_FREEZING(STEP_GATING),
    WHILE_FREEZING(STEP_PINNING),
    WHILE_FREEZING(STEP_QUIET),
    WHILE_FREEZING(STEP_CLOSING),
    WHILE_FREEZING(STEP_SETTLING),
    WHILE_FREEZING(STEP_BASELINING),
};

#define SESSION_RULES (sizeof(session_rules) / sizeof(session_rules[0]))

static const struct session_rule *session_find_rule(struct session *session, enum session_event event)
{
    for (size_t i = 0; i < SESSION_RULES; i++) {
        const struct session_rule *rule = &session_rules[i];
        if (rule->step == session->step && rule->event == event && (!rule->guard || rule->guard(session)))
            return rule;
    }
    return NULL;
}

/* What the step before wanted to hear is stale once the next one has begun. */
static void session_enter(struct session *session, enum session_step step)
{
    if (session->step == step)
        return;
    event_del(session->timer);
    session->pending &= ~(1u << EVENT_TIMER | 1u << EVENT_STILL);
    session->step = step;
}

static void session_handle(struct session *session, enum session_event event)
{
    const struct session_rule *rule = session_find_rule(session, event);

    if (!rule)
        return;
    log_debug("session %s: %s in %s", session->id, rule->action_name, session_step_name(session->step));
    session_enter(session, rule->next);
    rule->action(session);
}

size_t session_rule_count(void)
{
    return SESSION_RULES;
}

struct session_rule_view session_rule_at(size_t index)
{
    const struct session_rule *rule = &session_rules[index];

    return (struct session_rule_view){rule->step, rule->event, rule->guard_name, rule->action_name, rule->next};
}

const char *session_step_name(enum session_step step)
{
    static const char *const names[STEP_COUNT] = {"gating",     "pinning", "quiet",   "closing", "settling",
                                                  "baselining", "held",    "thawing", "gone"};
    return step < STEP_COUNT ? names[step] : "unknown";
}

/* ---- from outside ---- */

static int session_make_timers(struct session *session)
{
    struct event_base *base = session->host->base;

    session->timer = evtimer_new(base, session_on_timer, session);
    session->freeze_timer = evtimer_new(base, session_on_freeze_timer, session);
    session->end_timer = evtimer_new(base, session_on_deadline, session);
    session->grace_timer = evtimer_new(base, session_on_grace_timer, session);
    return session->timer && session->freeze_timer && session->end_timer && session->grace_timer ? 0 : -ENOMEM;
}

static void session_name_itself(struct session *session)
{
    uint32_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = (uint32_t)clock_wall_ms();
    snprintf(session->id, sizeof(session->id), "%u-%08" PRIx32, session->seen.domid, number);
}

int session_new(struct session **result, struct session_host *host, const struct hypervisor_domain *domain,
                const struct session_options *options)
{
    struct session *session = calloc(1, sizeof(*session));

    if (!session)
        return -ENOMEM;
    session->host = host;
    session->options = *options;
    session->seen = *domain;
    session->step = STEP_GATING;
    session->attempt = 1;
    session->held_after_ms = -1;
    session->begun_ms = session->seen_ms = session->moved_ms = clock_now_ms();
    session->begun_wall_ms = clock_wall_ms();
    session_name_itself(session);
    session->gate.journal.domid = domain->domid;
    strcpy(session->gate.journal.uuid, domain->uuid);
    strcpy(session->gate.journal.session, session->id);
    rest_init(&session->rest, domains_offset_kib(host->domains, domain->uuid));
    if (session_make_timers(session)) {
        session_free(session);
        return -ENOMEM;
    }
    int error = hypervisor_map_p2m(host->hypervisor, domain, &session->p2m);
    if (error && error != -ENODATA)
        log_warning("session %s: p2m_generation cannot be read: %s", session->id, strerror(-error));
    record_emit(session, "session.begun", "{s:I,s:s,s:I,s:I}", "tot_kib", (json_int_t)session_tot_kib(session),
                "require", p2mg_require_name(options->policy.require), "pid", (json_int_t)options->pid, "uid",
                (json_int_t)options->uid);
    session_begin_freezing(session);
    session_arm(session->end_timer, options->policy.max_hold_ms);
    session_handle(session, EVENT_BEGIN);
    *result = session;
    return 0;
}

static void session_free_timer(struct event *timer)
{
    if (timer)
        event_free(timer);
}

void session_free(struct session *session)
{
    if (!session)
        return;
    session_free_timer(session->timer);
    session_free_timer(session->freeze_timer);
    session_free_timer(session->end_timer);
    session_free_timer(session->grace_timer);
    session_unmap(session);
    free(session);
}

/* Both figures against the baseline's; told once per new difference. */
static void session_compare(struct session *session, bool moved)
{
    uint64_t tot_kib = session_tot_kib(session), generation;
    bool differs = session_read_generation(session, &generation) != session->baseline.has_generation ||
                   generation != session->baseline.generation;

    if (differs && !session->generation_changed) {
        session->generation_changed = true;
        record_emit(session, "session.changed", "{s:s,s:{s:I},s:{s:I}}", "reason",
                    p2mg_reason_name(P2MG_REASON_GENERATION_CHANGED), "before", "generation",
                    (json_int_t)session->baseline.generation, "now", "generation", (json_int_t)generation);
    }
    if (tot_kib == session->baseline.tot_kib)
        return;
    session->tot_pages_changed = true;
    session->changes++;
    if (moved)
        record_emit(session, "session.changed", "{s:s,s:{s:I},s:{s:I}}", "reason",
                    p2mg_reason_name(P2MG_REASON_TOT_PAGES_CHANGED), "before", "tot_kib",
                    (json_int_t)session->baseline.tot_kib, "now", "tot_kib", (json_int_t)tot_kib);
}

void session_observe(struct session *session, const struct hypervisor_domain *domain)
{
    int64_t now_ms = clock_now_ms();

    if (session->step == STEP_THAWING || session->step == STEP_GONE)
        return;
    if (!domain || domain->dying || strcmp(domain->uuid, session->gate.journal.uuid) != 0) {
        session_post(session, EVENT_GONE);
        return;
    }
    bool moved = domain->tot_pages != session->seen.tot_pages;
    if (now_ms - session->seen_ms > session->longest_gap_ms)
        session->longest_gap_ms = now_ms - session->seen_ms;
    if (moved) {
        session->moved_ms = now_ms;
        session->pending &= ~(1u << EVENT_STILL);
    }
    session->seen = *domain;
    session->seen_ms = now_ms;

    /* A domain that the guest has left loses its pages before the hypervisor calls it dying. */
    if (session->step == STEP_HELD && !session->leaving)
        session_compare(session, moved);
    if (session->step == STEP_SETTLING && now_ms - session->moved_ms >= session->options.policy.settle_ms)
        session_post(session, EVENT_STILL);
    else if (session->gate.taken && !session->job &&
             domain->max_pages * session_page_kib(session) != session->gate.journal.cap_kib)
        session_post(session, EVENT_TOUCHED);
}

void session_touched(struct session *session)
{
    session_post(session, EVENT_TOUCHED);
}

void session_set_heir(struct session *session, uint16_t domid)
{
    session->heir = domid;
}

void session_store_lost(struct session *session)
{
    session->store_unreachable = true;
    session->unwatched = true;
}

static int64_t session_left_ms(const struct session *session)
{
    int64_t left_ms = session->begun_ms + session->options.policy.max_hold_ms - clock_now_ms();

    return left_ms > 0 ? left_ms : 0;
}

/* libxl renames the source when the guest has left it for good, and back when it could not be started elsewhere. */
void session_renamed(struct session *session, const char *name)
{
    static const char away[] = "--migratedaway";
    const char *before = session->options.name;
    size_t length = strlen(before);

    if (!*before) { /* it had none when it was looked up */
        snprintf(session->options.name, sizeof(session->options.name), "%s", name);
    } else if (strcmp(name, before) == 0) {
        if (session->leaving)
            session_arm(session->end_timer, session_left_ms(session));
        session->leaving = false;
    } else if (strncmp(name, before, length) == 0 && strcmp(name + length, away) == 0) {
        session->leaving = true;
        session_arm(session->end_timer, SESSION_LEAVE_MS);
    } else {
        session_stop(session, P2MG_REASON_DOMAIN_RENAMED, P2MG_OUTCOME_UNKNOWN);
    }
}

void session_stop(struct session *session, enum p2mg_reason reason, enum p2mg_outcome outcome)
{
    if (session->step == STEP_THAWING || session->step == STEP_GONE || (session->pending & 1u << EVENT_STOP))
        return;
    session->ending = reason;
    session->outcome = session->leaving && outcome == P2MG_OUTCOME_UNKNOWN ? P2MG_OUTCOME_COMPLETED : outcome;
    session_post(session, EVENT_STOP);
}

int session_retry(struct session *session)
{
    if (session->step != STEP_HELD)
        return -EINVAL;
    if (session->attempt >= session->options.policy.attempts)
        return -E2BIG;
    session_post(session, EVENT_RETRY);
    return 0;
}

void session_check(struct session *session)
{
    session->check_wanted = true;
    session_post(session, EVENT_TOUCHED);
}

static void session_look(struct session *session)
{
    struct hypervisor_domain domain;
    int error = hypervisor_get(session->host->hypervisor, session->gate.journal.domid, &domain);

    if (!error)
        session_observe(session, &domain);
    else if (error == -ESRCH)
        session_observe(session, NULL);
    /* Any other failure leaves the gap since the last observation to speak for itself. */
}

struct verdict session_judge(struct session *session, bool store_silent, bool binding)
{
    if (session->step == STEP_HELD)
        session_look(session);
    int64_t gap_ms = session->step == STEP_HELD ? clock_now_ms() - session->seen_ms : 0;
    struct verdict_facts facts = {
        .state = session_state(session),
        .ended_by = session->ending,
        .tot_pages_changed = session->tot_pages_changed,
        .generation_changed = session->generation_changed,
        .gate_opened = session->gate_opened,
        .store_unreachable = store_silent || session->store_unreachable,
        .unwatched = session->unwatched,
        .longest_gap_ms = gap_ms > session->longest_gap_ms ? gap_ms : session->longest_gap_ms,
        .max_gap_ms = session->host->max_gap_ms,
        .attempt = session->attempt,
        .attempts = session->options.policy.attempts,
    };
    struct verdict verdict = verdict_judge(&facts);
    if (!binding)
        return verdict;
    /* The grace runs from the first of several retry verdicts; what has passed needs none. */
    if (session->step != STEP_HELD || verdict.verdict == P2MG_VERDICT_PROCEED)
        event_del(session->grace_timer);
    else if (!evtimer_pending(session->grace_timer, NULL))
        session_arm(session->grace_timer, session->options.policy.retry_grace_ms);
    return verdict;
}

enum p2mg_state session_state(const struct session *session)
{
    switch (session->step) {
    case STEP_HELD:
        return P2MG_STATE_HELD;
    case STEP_THAWING:
        return session->failed ? P2MG_STATE_FAILED : P2MG_STATE_THAWING;
    case STEP_GONE:
        return P2MG_STATE_GONE;
    default:
        return P2MG_STATE_FREEZING;
    }
}

const char *session_phase(const struct session *session)
{
    static const char *const phases[STEP_COUNT] = {
        [STEP_GATING] = "gate", [STEP_PINNING] = "pin",     [STEP_QUIET] = "pin",
        [STEP_CLOSING] = "pin", [STEP_SETTLING] = "settle", [STEP_BASELINING] = "settle",
    };
    return phases[session->step];
}

uint64_t session_wanted_target_kib(const struct session *session)
{
    return strtoull(journal_wanted_target(&session->gate.journal), NULL, 10);
}
