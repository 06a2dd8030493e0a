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
#include "daemon/metrics.h"
#include "daemon/record.h"
#include "daemon/session-actions.h"
#include "daemon/session-agent.h"
#include "daemon/session-job.h"
#include "daemon/session-observe.h"
#include "daemon/timer.h"

/* A p2m that cannot be read may be in the middle of an update: it is looked at again this often for one verdict. */
#define SESSION_LOOKS 20
#define SESSION_LOOK_MS 10

/*
 * A domain that the guest has left is kept under guard until it is gone, this long at most: a toolstack that looked up
 * its name before the rename may still write a target there, and that wish is the guest's, wherever it runs.
 */
#define SESSION_LEAVE_MS 3000

/* ---- jobs, away and back ---- */

/* A timer that went off while a job was away, and was not looked at yet, is void once it is set anew. */
void session_arm_step(struct session *session, int64_t delay_ms)
{
    session->pending &= ~(1u << EVENT_TIMER);
    timer_arm(session->timer, delay_ms);
}

/* Events that came while a job was away are handled in the order of their weight, the heaviest first. */
static void session_handle_pending(struct session *session)
{
    static const enum session_event order[] = {EVENT_GONE,  EVENT_STOP,     EVENT_TIMEOUT, EVENT_RETRY,
                                               EVENT_TIMER, EVENT_ANSWERED, EVENT_STILL,   EVENT_TOUCHED};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]) && !session->away; i++) {
        if (session->pending & (1u << order[i])) {
            session->pending &= ~(1u << order[i]);
            session_handle(session, order[i]);
        }
    }
}

/* What stands in the store is known after a job alone; a wish that the pin took the place of is `wanted`. */
static void session_write_down_targets(struct session *session, const struct session_job *job)
{
    const struct journal *journal = &session->gate.journal;
    struct history *history = session->history;
    int64_t now_ms = clock_now_ms();
    bool restored = job->operation == OPERATION_RESTORE;

    if (job->error || !*journal->target)
        return;
    uint64_t wanted_kib = session_wanted_target_kib(session);
    history_sample(history, HISTORY_WANTED, now_ms, wanted_kib);
    history_sample(history, HISTORY_TARGET, now_ms, restored ? wanted_kib : job->report.target_kib);
    if (*journal->pin && !restored)
        history_sample(history, HISTORY_PIN, now_ms, strtoull(journal->pin, NULL, 10));
}

static void session_take_in_job(struct session *session, const struct session_job *job)
{
    bool looked = job->operation == OPERATION_SYNC;

    session->gate = job->gate;
    session->report = job->report;
    if (looked)
        session->store_unreachable = job->error != 0;
    if (job->operation == OPERATION_TAKE && !job->error)
        session->videoram_kib = job->videoram_kib;
    if (job->applied_to)
        session->applied_to = job->applied_to;
    session->passing = job->passing;
    if (job->operation == OPERATION_TAKE && job->error == -ENODATA)
        session->ending = P2MG_REASON_NOT_GUARDABLE;
    if (session->step == STEP_HELD && job->report.reopened)
        session->gate_opened = true;
    if (job->operation == OPERATION_ASK)
        session_agent_asked(session, job->error, &job->view);
    else if (job->listened)
        session_agent_hear(session, &job->view);
    session_write_down_targets(session, job);
    session_job_tell(job);
    if (job->report.deferred)
        session->host->deferred(session->host->context, session);
}

/* ---- the look that a verdict waits for ---- */

static void session_end_check(struct session *session)
{
    session->check_running = false;
    session->checks_made = session->checks_running;
    session->check_tries = 0;
    session->check_ending = true;
    session->host->checked(session->host->context, session);
    session->check_ending = false;
}

/* Only what nothing else speaks about yet is worth waiting for. */
static bool session_looks_again(const struct session *session)
{
    for (unsigned i = 0; i < CHANGE_COUNT; i++)
        if (session->sight.changed[i])
            return false;
    return !sight_survey_stands(&session->sight) && sight_survey_may_pass(&session->sight) &&
           session->check_tries < SESSION_LOOKS;
}

static void session_take_in_survey(struct session *session)
{
    sight_compare_survey(&session->sight);
    if (!session->check_running)
        return;
    if (session_looks_again(session)) {
        session->check_tries++;
        session_arm_step(session, SESSION_LOOK_MS);
    } else {
        session_end_check(session);
    }
}

static void session_go_on_checking(struct session *session)
{
    if (session->step != STEP_HELD)
        session_end_check(session);
    else if (sight_survey(&session->sight) == 0)
        session_take_in_survey(session);
    else
        session_order_survey(session);
}

/* ---- jobs and orders that are back ---- */

/* Going on only to be stopped at the next turn would show the guest another pin for nothing. */
static enum session_event session_prefer_stop(struct session *session, enum session_event event)
{
    if (!(session->pending & 1u << EVENT_STOP) || session->step == STEP_THAWING || event == EVENT_GONE)
        return event;
    session->pending &= ~(1u << EVENT_STOP);
    return EVENT_STOP;
}

void session_go_on(struct session *session)
{
    struct session_host *host = session->host;

    session_handle_pending(session);
    if (session->step == STEP_GONE && !session->away && !session->agent.away)
        host->gone(host->context, session);
}

/*
 * Not before it was tried to close the gate: a watch fires when it is set, so that nothing is missed, and nobody's gate
 * waits for it.
 */
void session_watch(struct session *session)
{
    if (!session->watched)
        session->host->watch(session->host->context, session);
    session->watched = true;
}

void session_job_done(struct work *work)
{
    struct session_job *job = (struct session_job *)(void *)work;
    struct session *session = job->session;
    enum session_event event = session_job_event(job);
    bool looked = job->operation == OPERATION_SYNC;

    session_take_in_job(session, job); /* still away: what this brings is handled after the job's own event */
    session_watch(session);
    session->away = false;
    free(job);
    session_handle(session, session_prefer_stop(session, event));
    if (looked && session->check_running && !session->away)
        session_go_on_checking(session);
    session_go_on(session);
}

void session_order_done(struct work *work)
{
    struct session_order *order = (struct session_order *)(void *)work;
    struct session *session = order->session;
    enum session_event event = session_prefer_stop(session, EVENT_SURVEYED);

    session->away = false;
    sight_take_survey(&session->sight, order->order.error, &order->order.result);
    free(order);
    if (event == EVENT_SURVEYED && session->step == STEP_HELD)
        session_take_in_survey(session);
    else
        session_handle(session, event);
    session_go_on(session);
}

/* ---- timers ---- */

void session_post(struct session *session, enum session_event event)
{
    if (session->away)
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

void session_quiet_timers(struct session *session)
{
    event_del(session->timer);
    event_del(session->freeze_timer);
    event_del(session->end_timer);
    event_del(session->grace_timer);
    session_agent_quiet_timers(session);
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
    {STEP_GATING, EVENT_DONE, IF(was_pinned), DO(trust_rest), STEP_CLOSING},
    {STEP_GATING, EVENT_DONE, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_PINNING, EVENT_DONE, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_PINNING, EVENT_DISTURBED, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_PINNING, EVENT_TIMER, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_QUIET, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_QUIET},
    {STEP_QUIET, EVENT_DISTURBED, ALWAYS, DO(open_window), STEP_QUIET},
    {STEP_QUIET, EVENT_TIMER, ALWAYS, DO(close), STEP_CLOSING},

    {STEP_CLOSING, EVENT_DONE, IF(wants_agent), DO(ask), STEP_ASKING},
    {STEP_CLOSING, EVENT_DONE, ALWAYS, DO(settle), STEP_SETTLING},
    {STEP_CLOSING, EVENT_DISTURBED, ALWAYS, DO(expose), STEP_PINNING},
    {STEP_CLOSING, EVENT_TIMER, ALWAYS, DO(close), STEP_CLOSING},

    {STEP_ASKING, EVENT_DONE, ALWAYS, DO(await_agent), STEP_ASKING},
    {STEP_ASKING, EVENT_ANSWERED, IF(agent_is_frozen), DO(settle), STEP_SETTLING},
    {STEP_ASKING, EVENT_ANSWERED, IF(agent_is_at_it), DO(await_agent), STEP_ASKING},
    {STEP_ASKING, EVENT_ANSWERED, IF(agent_thawed), DO(ask), STEP_ASKING},
    {STEP_ASKING, EVENT_ANSWERED, IF(agent_may_come), DO(await_agent), STEP_ASKING},
    {STEP_ASKING, EVENT_ANSWERED, IF(agent_is_required), DO(fail_agent), STEP_THAWING},
    {STEP_ASKING, EVENT_ANSWERED, ALWAYS, DO(do_without_agent), STEP_SETTLING},
    {STEP_ASKING, EVENT_TIMER, IF(agent_may_come), DO(ask), STEP_ASKING},
    {STEP_ASKING, EVENT_TIMER, IF(agent_is_awaited), DO(await_agent), STEP_ASKING},
    {STEP_ASKING, EVENT_TIMER, IF(agent_is_required), DO(fail_agent), STEP_THAWING},
    {STEP_ASKING, EVENT_TIMER, ALWAYS, DO(do_without_agent), STEP_SETTLING},
    {STEP_ASKING, EVENT_TIMEOUT, IF(agent_is_required), DO(fail_agent), STEP_THAWING},
    {STEP_ASKING, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_ASKING},
    {STEP_ASKING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_ASKING, EVENT_DISTURBED, ALWAYS, DO(await_agent), STEP_ASKING},

    {STEP_SETTLING, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_SETTLING},
    {STEP_SETTLING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_SETTLING, EVENT_STILL, IF(agent_is_lost), DO(ask), STEP_ASKING},
    {STEP_SETTLING, EVENT_STILL, IF(is_at_rest), DO(baseline), STEP_BASELINING},
    {STEP_SETTLING, EVENT_STILL, ALWAYS, DO(expose), STEP_PINNING},

    {STEP_BASELINING, EVENT_DONE, IF(baseline_holds), DO(survey), STEP_SURVEYING},
    {STEP_BASELINING, EVENT_DONE, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_BASELINING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_BASELINING, EVENT_DISTURBED, IF(baseline_holds), DO(survey), STEP_SURVEYING},
    {STEP_BASELINING, EVENT_DISTURBED, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_BASELINING, EVENT_TIMER, ALWAYS, DO(baseline), STEP_BASELINING},

    {STEP_SURVEYING, EVENT_SURVEYED, IF(size_moved), DO(settle_again), STEP_SETTLING},
    {STEP_SURVEYING, EVENT_SURVEYED, IF(agent_is_lost), DO(settle_again), STEP_SETTLING},
    {STEP_SURVEYING, EVENT_SURVEYED, IF(survey_stands), DO(hold), STEP_HELD},
    {STEP_SURVEYING, EVENT_SURVEYED, IF(needs_gate_only), DO(hold), STEP_HELD}, /* verdicts say that it is unknown */
    {STEP_SURVEYING, EVENT_SURVEYED, IF(survey_may_pass), DO(settle_again), STEP_SETTLING},
    {STEP_SURVEYING, EVENT_SURVEYED, ALWAYS, DO(fail_unreadable), STEP_THAWING},
    {STEP_SURVEYING, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_SURVEYING},
    {STEP_SURVEYING, EVENT_DONE, IF(baseline_holds), DO(survey), STEP_SURVEYING},
    {STEP_SURVEYING, EVENT_DONE, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_SURVEYING, EVENT_DISTURBED, IF(gate_was_open), DO(expose), STEP_PINNING},
    {STEP_SURVEYING, EVENT_DISTURBED, IF(baseline_holds), DO(survey), STEP_SURVEYING},
    {STEP_SURVEYING, EVENT_DISTURBED, ALWAYS, DO(settle_again), STEP_SETTLING},
    {STEP_SURVEYING, EVENT_TIMER, ALWAYS, DO(survey), STEP_SURVEYING},

    {STEP_HELD, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_HELD},
    {STEP_HELD, EVENT_TIMER, ALWAYS, DO(sync), STEP_HELD},
    {STEP_HELD, EVENT_FAILED, ALWAYS, DO(look_later), STEP_HELD},
    {STEP_HELD, EVENT_RETRY, IF(needs_gate_only), DO(retry_at_once), STEP_BASELINING},
    {STEP_HELD, EVENT_RETRY, ALWAYS, DO(back_off), STEP_BACKOFF},
    {STEP_HELD, EVENT_STOP, ALWAYS, DO(thaw), STEP_THAWING},
    {STEP_HELD, EVENT_GONE, ALWAYS, DO(end_of_domain), STEP_THAWING},

    {STEP_BACKOFF, EVENT_TOUCHED, ALWAYS, DO(sync), STEP_BACKOFF},
    {STEP_BACKOFF, EVENT_TIMER, ALWAYS, DO(expose), STEP_PINNING},

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
    WHILE_FREEZING(STEP_ASKING),
    WHILE_FREEZING(STEP_SETTLING),
    WHILE_FREEZING(STEP_BASELINING),
    WHILE_FREEZING(STEP_SURVEYING),
    WHILE_FREEZING(STEP_BACKOFF),
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

static enum history_phase session_history_phase(enum session_step step)
{
    static const enum history_phase phases[STEP_COUNT] = {
        [STEP_GATING] = HISTORY_GATING,       [STEP_PINNING] = HISTORY_PINNING,    [STEP_QUIET] = HISTORY_PINNING,
        [STEP_CLOSING] = HISTORY_PINNING,     [STEP_ASKING] = HISTORY_AGENT,       [STEP_SETTLING] = HISTORY_SETTLING,
        [STEP_BASELINING] = HISTORY_BASELINE, [STEP_SURVEYING] = HISTORY_BASELINE, [STEP_HELD] = HISTORY_HELD,
        [STEP_BACKOFF] = HISTORY_BACKOFF,     [STEP_THAWING] = HISTORY_THAWING,    [STEP_GONE] = HISTORY_GONE,
    };
    return phases[step];
}

/* What the step before wanted to hear is stale once the next one has begun. */
void session_enter(struct session *session, enum session_step step)
{
    if (session->step == step)
        return;
    event_del(session->timer);
    session->pending &= ~(1u << EVENT_TIMER | 1u << EVENT_STILL);
    session->step = step;
    history_enter(session->history, session_history_phase(step), clock_now_ms());
}

void session_handle(struct session *session, enum session_event event)
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
    static const char *const names[STEP_COUNT] = {"gating",     "pinning",   "quiet", "closing", "asking",  "settling",
                                                  "baselining", "surveying", "held",  "backoff", "thawing", "gone"};
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
    bool made = session->timer && session->freeze_timer && session->end_timer && session->grace_timer;
    return made ? session_agent_make_timers(session) : -ENOMEM;
}

static void session_name_itself(struct session *session)
{
    uint32_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = (uint32_t)clock_wall_ms();
    snprintf(session->id, sizeof(session->id), "%u-%08" PRIx32, session->sight.seen.domid, number);
}

int session_make(struct session **result, struct session_host *host, const struct hypervisor_domain *domain,
                 const struct session_options *options)
{
    struct session *session = calloc(1, sizeof(*session));

    if (!session)
        return -ENOMEM;
    session->host = host;
    session->options = *options;
    sight_init(&session->sight, host->hypervisor, host->survey, session_tell_change, domain);
    session->step = STEP_GATING;
    session->attempt = 1;
    session->held_after_ms = -1;
    session->begun_ms = session->moved_ms = clock_now_ms();
    session->begun_wall_ms = clock_wall_ms();
    session_name_itself(session);
    session->gate.journal.domid = domain->domid;
    strcpy(session->gate.journal.uuid, domain->uuid);
    strcpy(session->gate.journal.session, session->id);
    session->steady_ms = targets_steady_ms(host->targets, domain->domid, &session->steady_kib);
    rest_init(&session->rest, domains_offset_kib(host->domains, domain->uuid));
    session->history = history_new(session->begun_ms);
    if (!session->history || session_make_timers(session)) {
        session_free(session);
        return -ENOMEM;
    }
    *result = session;
    return 0;
}

int session_new(struct session **result, struct session_host *host, const struct hypervisor_domain *domain,
                const struct session_options *options)
{
    struct session *session;
    int error = session_make(&session, host, domain, options);

    if (error)
        return error;
    metrics_count(METRICS_SESSIONS_BEGUN);
    session_begin_freezing(session, session->begun_ms);
    session_arm_deadline(session);
    session_handle(session, EVENT_BEGIN); /* the worker closes the gate meanwhile */
    session_map(session);
    history_sample(session->history, HISTORY_TOT, session->begun_ms, sight_tot_kib(&session->sight));
    record_emit(session, "session.begun", "{s:I,s:s,s:I,s:I}", "tot_kib", (json_int_t)sight_tot_kib(&session->sight),
                "require", p2mg_require_name(options->policy.require), "pid", (json_int_t)options->pid, "uid",
                (json_int_t)options->uid);
    *result = session;
    return 0;
}

void session_free(struct session *session)
{
    if (!session)
        return;
    timer_free(session->timer);
    timer_free(session->freeze_timer);
    timer_free(session->end_timer);
    timer_free(session->grace_timer);
    session_agent_free_timers(session);
    sight_unmap(&session->sight);
    history_free(session->history);
    free(session);
}

void session_touched(struct session *session)
{
    session_post(session, EVENT_TOUCHED);
}

void session_set_heir(struct session *session, uint16_t domid, bool is_marked)
{
    session->heir = domid;
    session->heir_is_marked = is_marked;
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

void session_arm_deadline(struct session *session)
{
    timer_arm(session->end_timer, session_left_ms(session));
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
            session_arm_deadline(session);
        session->leaving = false;
    } else if (strncmp(name, before, length) == 0 && strcmp(name + length, away) == 0) {
        session->leaving = true;
        log_debug("session %s: the guest has left its domain, which is named %s now", session->id, name);
        timer_arm(session->end_timer, SESSION_LEAVE_MS);
    } else {
        session_stop(session, P2MG_REASON_DOMAIN_RENAMED, P2MG_OUTCOME_UNKNOWN);
    }
}

void session_adopt(struct session *session, const struct session_options *owner)
{
    session->options.hold = owner->hold;
    session->options.from_xenstore = owner->from_xenstore;
    session->options.connection = owner->connection;
    session->options.pid = owner->pid;
    session->options.uid = owner->uid;
    record_emit(session, "session.adopted", "{s:s,s:I,s:I}", "hold", p2mg_hold_name(owner->hold), "pid",
                (json_int_t)owner->pid, "uid", (json_int_t)owner->uid);
    if (owner->hold == P2MG_HOLD_SUSPENDED)
        session_look(session); /* it may run again by now */
    else if (owner->hold == P2MG_HOLD_RETRY)
        session_start_grace(session, P2MG_VERDICT_RETRY);
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

uint64_t session_check(struct session *session)
{
    session->check_wanted = true;
    session->checks_wanted++;
    session_post(session, EVENT_TOUCHED);
    return session->checks_wanted;
}

void session_start_grace(struct session *session, enum p2mg_verdict verdict)
{
    if (session->step != STEP_HELD || verdict == P2MG_VERDICT_PROCEED)
        event_del(session->grace_timer);
    else if (!evtimer_pending(session->grace_timer, NULL))
        timer_arm(session->grace_timer, session->options.policy.retry_grace_ms);
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
        [STEP_GATING] = "gate",       [STEP_PINNING] = "pin",      [STEP_QUIET] = "pin",
        [STEP_CLOSING] = "pin",       [STEP_ASKING] = "agent",     [STEP_SETTLING] = "settle",
        [STEP_BASELINING] = "settle", [STEP_SURVEYING] = "survey", [STEP_BACKOFF] = "backoff",
    };
    return phases[session->step];
}

uint64_t session_wanted_target_kib(const struct session *session)
{
    return strtoull(journal_wanted_target(&session->gate.journal), NULL, 10);
}

/* Twice as long each time, but not so long that freezing could not end in time. */
int64_t session_backoff_ms(const struct session *session, int64_t attempt)
{
    const struct p2mg_policy *policy = &session->options.policy;
    int64_t doublings = attempt - 2, most_ms = policy->freeze_timeout_ms / 2;
    int64_t backoff_ms = policy->retry_backoff_ms << (doublings < 16 ? doublings : 16);

    return backoff_ms < most_ms ? backoff_ms : most_ms;
}
