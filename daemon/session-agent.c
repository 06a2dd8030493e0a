/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/record.h"
#include "daemon/session-actions.h"
#include "daemon/session-job.h"
#include "daemon/timer.h"

/* A guest may write as often as it likes; its answers are read this often at most. */
#define AGENT_LISTEN_MS 20

/* ... and told this often. */
#define AGENT_TELL_MS 100

/* Where an agent is required and may yet come, it is looked for this often. */
#define AGENT_LOOK_MS 250

/* A lease is renewed this many times before it would end. */
#define AGENT_RENEWALS 3

/* ---- what is known of it ---- */

static bool session_agent_has_answered(const struct session *session)
{
    const struct session_agent *agent = &session->agent;

    return agent->seq && agent->view.answered && agent->view.answer.seq == agent->seq;
}

static bool session_agent_says(const struct session *session, enum p2mg_answer_kind kind)
{
    return session_agent_has_answered(session) && session->agent.view.answer.kind == kind;
}

bool session_agent_is_frozen(const struct session *session)
{
    return session_agent_says(session, P2MG_ANSWER_FROZEN) && !session->agent.lost;
}

static bool session_agent_is_required(const struct session *session)
{
    return session->options.policy.require == P2MG_REQUIRE_AGENT;
}

bool session_agent_holds(const struct session *session)
{
    return !session_agent_is_required(session) || session_agent_is_frozen(session);
}

enum p2mg_reason session_agent_reason(const struct session *session)
{
    if (!session->agent.view.present)
        return P2MG_REASON_AGENT_ABSENT;
    return session_agent_says(session, P2MG_ANSWER_REFUSED) ? P2MG_REASON_AGENT_REFUSED : P2MG_REASON_AGENT_SILENT;
}

static const char *session_agent_state(const struct session *session)
{
    const struct session_agent *agent = &session->agent;

    if (!agent->view.present)
        return "absent";
    return session_agent_has_answered(session) ? p2mg_answer_name(agent->view.answer.kind) : "silent";
}

void session_agent_write(struct writer *writer, const char *key, const struct session *session)
{
    const struct session_agent *agent = &session->agent;
    const char *version = agent->view.features.version;

    if (!agent->asked) {
        writer_null(writer, key);
        return;
    }
    writer_begin(writer, key, '{');
    writer_text(writer, "state", session_agent_state(session));
    writer_number(writer, "seq", agent->seq);
    writer_text(writer, "version", *version ? version : NULL);
    writer_text(writer, "text", session_agent_says(session, P2MG_ANSWER_REFUSED) ? agent->view.answer.text : NULL);
    writer_end(writer, '}');
}

static json_t *session_agent_record(const struct session *session)
{
    struct writer writer = {0};

    session_agent_write(&writer, NULL, session);
    return writer_take(&writer);
}

/* ---- hearing ---- */

static void session_agent_tell(struct session *session)
{
    struct session_agent *agent = &session->agent;
    int64_t now_ms = clock_now_ms();

    if (agent->told_ms && now_ms - agent->told_ms < AGENT_TELL_MS)
        return;
    agent->told_ms = now_ms;
    record_emit(session, "agent.answered", "{s:o}", "agent", session_agent_record(session));
}

static bool session_agent_same_answer(const struct agent_view *a, const struct agent_view *b)
{
    return a->answered == b->answered &&
           (!a->answered || (a->answer.kind == b->answer.kind && a->answer.seq == b->answer.seq));
}

void session_agent_hear(struct session *session, const struct agent_view *view)
{
    struct session_agent *agent = &session->agent;
    bool same = session_agent_same_answer(&agent->view, view);

    agent->view.answered = view->answered;
    agent->view.answer = view->answer;
    agent->was_frozen |= session_agent_is_frozen(session);
    if (session->step == STEP_HELD && session->has_baseline && !session_agent_holds(session))
        session->sight.changed[CHANGE_AGENT] = true;
    if (same)
        return;
    session_agent_tell(session);
    session_post(session, EVENT_ANSWERED);
}

/* A reading of the answer, or a renewal: work beside the session's job, and it waits for both before it is gone. */
struct session_listening {
    struct work work;
    struct session *session;
    uint16_t domid;
    uint32_t seq, lease_s;
    struct agent_view view;
    int error;
};

static void session_agent_send(struct session *session, void (*run)(struct work *, const struct worker_tools *),
                               void (*done)(struct work *))
{
    struct session_listening *listening = calloc(1, sizeof(*listening));

    if (!listening) {
        log_error("session %s: out of memory for its agent", session->id); /* the lease, or a time-out, decides */
        return;
    }
    listening->work.run = run;
    listening->work.done = done;
    listening->session = session;
    listening->domid = session->gate.journal.domid;
    listening->seq = session->agent.seq;
    listening->lease_s = session->agent.lease_s;
    listening->view = session->agent.view;
    listening->error = -ECANCELED;
    session->agent.away++;
    worker_submit(session->host->worker, &listening->work);
}

static void session_listen_run(struct work *work, const struct worker_tools *tools)
{
    struct session_listening *listening = (struct session_listening *)(void *)work;

    listening->error = agent_listen(tools->store, listening->domid, &listening->view);
}

static void session_listen_done(struct work *work)
{
    struct session_listening *listening = (struct session_listening *)(void *)work;
    struct session *session = listening->session;

    session->agent.away--;
    session->agent.listening = false;
    if (!listening->error && listening->seq == session->agent.seq)
        session_agent_hear(session, &listening->view);
    free(listening);
    session_go_on(session);
}

static void session_on_listen(evutil_socket_t fd, short what, void *context)
{
    struct session *session = context;
    (void)fd, (void)what;

    session->agent.listening = true;
    session_agent_send(session, session_listen_run, session_listen_done);
}

void session_agent_touched(struct session *session)
{
    struct session_agent *agent = &session->agent;
    int64_t now_ms = clock_now_ms(), since_ms = now_ms - agent->listened_ms;

    if (!agent->seq || session->step == STEP_THAWING || session->step == STEP_GONE ||
        evtimer_pending(agent->listen_timer, NULL))
        return;
    if (since_ms >= AGENT_LISTEN_MS && !agent->listening) {
        agent->listened_ms = now_ms;
        session_on_listen(-1, 0, session);
    } else {
        agent->listened_ms = now_ms + AGENT_LISTEN_MS;
        timer_arm(agent->listen_timer, AGENT_LISTEN_MS);
    }
}

/* ---- the lease ---- */

static void session_renew_run(struct work *work, const struct worker_tools *tools)
{
    struct session_listening *listening = (struct session_listening *)(void *)work;

    listening->error = agent_renew(tools->store, listening->domid, listening->seq, listening->lease_s);
}

static void session_renew_done(struct work *work)
{
    struct session_listening *listening = (struct session_listening *)(void *)work;
    struct session *session = listening->session;
    bool current = listening->seq == session->agent.seq && session->step != STEP_THAWING && session->step != STEP_GONE;

    session->agent.away--;
    if (listening->error == -ESTALE && current) {
        log_warning("session %s: somebody wrote over the request to the guest's agent", session->id);
        session->agent.lost = true;
        session_agent_hear(session, &session->agent.view);
    }
    free(listening);
    session_go_on(session);
}

static void session_on_lease(evutil_socket_t fd, short what, void *context)
{
    struct session *session = context;
    (void)fd, (void)what;

    session_agent_send(session, session_renew_run, session_renew_done);
    timer_arm(session->agent.lease_timer, session->agent.lease_s * 1000 / AGENT_RENEWALS);
}

/* ---- asking ---- */

void session_agent_forget(struct session *session)
{
    session->agent.done_without = false;
}

/*
 * A request that was answered otherwise, or lost, is over; its number is not used again. Nor is one that was answered
 * with "frozen" once: an agent that has answered has no reason to answer again.
 */
static bool session_agent_needs_number(const struct session *session)
{
    const struct session_agent *agent = &session->agent;

    return !agent->seq || agent->lost || agent->was_frozen || session_agent_says(session, P2MG_ANSWER_THAWED) ||
           session_agent_says(session, P2MG_ANSWER_REFUSED);
}

static uint32_t session_agent_number(void)
{
    uint32_t seq = 0;

    if (getrandom(&seq, sizeof(seq), 0) != sizeof(seq))
        seq = (uint32_t)clock_wall_ms();
    return seq ? seq : 1;
}

void action_ask(struct session *session)
{
    struct session_agent *agent = &session->agent;
    int64_t lease_ms = session->options.policy.agent_lease_ms;

    if (session_agent_needs_number(session)) {
        agent->seq = session_agent_number();
        agent->lost = agent->was_frozen = false;
    }
    agent->asked = true;
    agent->lease_s = (uint32_t)((lease_ms + 999) / 1000);
    session_submit(session, OPERATION_ASK, 0, false, 0);
}

void session_agent_asked(struct session *session, int error, const struct agent_view *view)
{
    struct session_agent *agent = &session->agent;

    if (error && error != -ENODATA)
        return;
    agent->view = *view;
    if (error)
        return;
    record_emit(session, "agent.asked", "{s:o,s:I}", "agent", session_agent_record(session), "lease_ms",
                (json_int_t)agent->lease_s * 1000);
    timer_arm(agent->lease_timer, agent->lease_s * 1000 / AGENT_RENEWALS);
}

/* The step's timer: how long a session that does not require an answer waits for one, or looks for an agent again. */
void action_await_agent(struct session *session)
{
    if (!evtimer_pending(session->timer, NULL))
        session_arm_step(session,
                         session_agent_is_required(session) ? AGENT_LOOK_MS : session->options.policy.agent_wait_ms);
}

void action_do_without_agent(struct session *session)
{
    session->agent.done_without = true;
    if (session->agent.view.present)
        log_warning("session %s: the guest's agent is %s; going on without it", session->id,
                    session_agent_state(session));
    action_settle(session);
}

void action_fail_agent(struct session *session)
{
    session_fail(session, session_agent_reason(session));
}

/* ---- guards ---- */

bool guard_wants_agent(struct session *session)
{
    return !session->agent.done_without && !session_agent_is_frozen(session) &&
           (session_agent_is_required(session) || session->options.policy.agent_wait_ms > 0);
}

bool guard_agent_is_frozen(struct session *session)
{
    return session_agent_is_frozen(session);
}

/* It has not given its last word. An agent that says that it has thawed is asked anew. */
bool guard_agent_is_at_it(struct session *session)
{
    return session->agent.view.present && !session_agent_says(session, P2MG_ANSWER_REFUSED) &&
           !session_agent_says(session, P2MG_ANSWER_THAWED);
}

bool guard_agent_thawed(struct session *session)
{
    return session_agent_says(session, P2MG_ANSWER_THAWED);
}

/* It is required and there, whatever it says. */
bool guard_agent_is_awaited(struct session *session)
{
    return session_agent_is_required(session) && session->agent.view.present;
}

bool guard_agent_is_required(struct session *session)
{
    return session_agent_is_required(session);
}

/* It was frozen, and is not any more. */
bool guard_agent_is_lost(struct session *session)
{
    return !session_agent_holds(session);
}

/* A guest that has just come up, or just arrived, may not have started its agent yet. */
bool guard_agent_may_come(struct session *session)
{
    return session_agent_is_required(session) && !session->agent.view.present &&
           domains_is_young(session->host->domains, session->gate.journal.uuid);
}

/* ---- timers ---- */

int session_agent_make_timers(struct session *session)
{
    struct session_agent *agent = &session->agent;

    agent->listen_timer = evtimer_new(session->host->base, session_on_listen, session);
    agent->lease_timer = evtimer_new(session->host->base, session_on_lease, session);
    return agent->listen_timer && agent->lease_timer ? 0 : -ENOMEM;
}

void session_agent_free_timers(struct session *session)
{
    timer_free(session->agent.listen_timer);
    timer_free(session->agent.lease_timer);
}

void session_agent_quiet_timers(struct session *session)
{
    event_del(session->agent.listen_timer);
    event_del(session->agent.lease_timer);
}
