/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/node.h"
#include "daemon/record.h"
#include "daemon/session-observe.h"

void session_submit(struct session *session, enum session_operation operation, uint64_t pin_kib, bool open,
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
    job->seq = session->agent.seq;
    job->lease_s = session->agent.lease_s;
    job->view = session->agent.view;
    job->wanted_before_kib = session_wanted_target_kib(session);
    job->young = domains_is_young(session->host->domains, session->gate.journal.uuid);
    job->rest = session->rest;
    job->tot_kib = sight_tot_kib(&session->sight);
    job->hvm = session->sight.seen.hvm;
    /* Nobody has said how the migration ends: it may go on without us. */
    job->gate.left = session->outcome == P2MG_OUTCOME_UNKNOWN;
    job->forward = session->outcome == P2MG_OUTCOME_COMPLETED || session->heir || job->gate.left;
    job->error = -ECANCELED; /* stays when the worker ends before its turn comes */
    session->away = true;
    if (session->check_wanted && operation == OPERATION_SYNC) {
        session->check_wanted = false;
        session->check_running = true;
        session->checks_running = session->checks_wanted;
    }
    job->judged = session->check_running;
    worker_submit(session->host->worker, &job->work);
}

void session_order_survey(struct session *session)
{
    struct session_order *order = calloc(1, sizeof(*order));

    if (!order || !session->host->surveyor) { /* none when the daemon is coming down */
        log_error("session %s: its p2m cannot be surveyed now", session->id);
        free(order);
        session_arm_step(session, SESSION_THAW_RETRY_MS);
        return;
    }
    order->order.work.done = session_order_done;
    order->order.domid = session->gate.journal.domid;
    order->order.p2m = session->sight.p2m;
    order->session = session;
    session->away = true;
    surveyor_submit(session->host->surveyor, &order->order);
}

/* How much of an HVM guest's size is video memory; only a first guess for the offset between size and target. */
static uint64_t session_job_read_videoram(const struct session_job *job, const struct worker_tools *tools)
{
    char text[JOURNAL_TARGET_MAX];

    if (!job->hvm || node_read(tools->store, job->gate.journal.domid, "memory/videoram", text, sizeof(text)) ||
        !journal_is_target(text))
        return 0;
    return strtoull(text, NULL, 10);
}

static void session_job_take(struct session_job *job, const struct worker_tools *tools)
{
    job->videoram_kib = session_job_read_videoram(job, tools);
    if (!rest_is_there(&job->rest, job->tot_kib, job->pin_kib, job->videoram_kib, job->hvm))
        job->pin_kib = 0;
    job->error = gate_take(&job->gate, tools, job->young, job->pin_kib, &job->report);
}

/* No look makes up for watches that were gone for a while without anybody knowing it yet. */
static void session_job_sync(struct session_job *job, const struct worker_tools *tools)
{
    if (job->judged && !store_hears(tools->store))
        job->error = -ENOTCONN;
    else
        job->error = gate_sync(&job->gate, tools, job->pin_kib, job->open, job->cap_pages, &job->report);
    /* A verdict may rest on this look: the agent's word is part of it. */
    if (!job->error && job->seq)
        job->listened = agent_listen(tools->store, job->gate.journal.domid, &job->view) == 0;
}

static void session_job_restore(struct session_job *job, const struct worker_tools *tools)
{
    if (!job->gate.taken && job->gate.doubt == GATE_SURE)
        job->error = 0;
    else if (job->forward)
        job->error = gate_hand_over(&job->gate, tools, &job->applied_to);
    else
        job->error = gate_restore(&job->gate, tools);
    job->passing = job->error == -EINPROGRESS;
    if (job->passing)
        job->error = 0;
}

void session_job_run(struct work *work, const struct worker_tools *tools)
{
    struct session_job *job = (struct session_job *)(void *)work;

    switch (job->operation) {
    case OPERATION_TAKE:
        session_job_take(job, tools);
        break;
    case OPERATION_ASK:
        job->error = agent_ask(&job->gate, tools, job->seq, job->lease_s, &job->view);
        break;
    case OPERATION_SYNC:
        session_job_sync(job, tools);
        break;
    case OPERATION_RESTORE:
        session_job_restore(job, tools);
        break;
    }
    if (job->error == -ENOTCONN)
        job->gate.doubt = job->operation == OPERATION_RESTORE ? GATE_PERHAPS_RESTORED : GATE_PERHAPS_CHANGED;
}

enum session_event session_job_event(const struct session_job *job)
{
    switch (job->error) {
    case 0:
        return job->report.deferred || job->report.reopened ? EVENT_DISTURBED : EVENT_DONE;
    case -ENODATA:
        return job->operation == OPERATION_ASK ? EVENT_ANSWERED : EVENT_FAILED; /* by there being nobody */
    case -ESRCH:
        return EVENT_GONE;
    case -EHOSTDOWN:
        return EVENT_NOT_READY;
    default:
        return EVENT_FAILED;
    }
}

static void session_job_log_failure(const struct session_job *job)
{
    const struct session *session = job->session;
    static const char *const doing[] = {"closing the gate", "asking the guest's agent", "keeping the gate",
                                        "putting everything back"};
    struct log_subject subject = {session->gate.journal.domid, session->id, NULL};

    log_about(LOG_WARNING, &subject, "%s failed: %s", doing[job->operation], strerror(-job->error));
}

/*
 * That the guest has not come up yet, has gone, or has no agent, is an answer; so is that nothing is left of the gate
 * of a domain that its toolstack takes apart: its nodes go before it does.
 */
static bool session_job_has_failed(const struct session_job *job)
{
    switch (job->error) {
    case 0:
    case -EHOSTDOWN:
    case -ESRCH:
        return false;
    case -ENODATA:
        return job->operation != OPERATION_ASK && !(job->operation == OPERATION_SYNC && session_is_over(job->session));
    default:
        return true;
    }
}

static void session_job_tell_gated(const struct session *session)
{
    const struct journal *journal = &session->gate.journal;

    record_emit(session, "session.gated", "{s:I,s:I,s:I}", "target_kib",
                (json_int_t)strtoull(journal->target, NULL, 10), "max_kib", (json_int_t)journal->max_kib, "cap_kib",
                (json_int_t)journal->cap_kib);
}

void session_job_tell(const struct session_job *job)
{
    const struct session *session = job->session;
    const struct gate_report *report = &job->report;
    const struct journal *journal = &session->gate.journal;
    uint64_t wanted_kib = session_wanted_target_kib(session);

    if (session_job_has_failed(job)) {
        session_job_log_failure(job);
        if (job->operation == OPERATION_RESTORE)
            metrics_count(METRICS_RESTORE_FAILURES);
    }
    if (job->operation == OPERATION_TAKE && !job->error)
        session_job_tell_gated(session);
    if (report->deferred) {
        metrics_count(METRICS_DEFERRED_TARGETS);
        record_emit(session, "target.deferred", "{s:I,s:I,s:{s:I},s:{s:I}}", "target_kib", (json_int_t)wanted_kib,
                    "pin_kib", (json_int_t)strtoull(journal->pin, NULL, 10), "before", "target_kib",
                    (json_int_t)job->wanted_before_kib, "now", "target_kib", (json_int_t)wanted_kib);
    }
    if (report->cap_restored) {
        metrics_count(METRICS_CAPS_RESTORED);
        record_emit(session, "cap.restored", "{s:I,s:I}", "max_kib", (json_int_t)journal->max_kib, "cap_kib",
                    (json_int_t)journal->cap_kib);
    }
    if (report->reopened) {
        metrics_count(METRICS_GATES_RESTORED);
        record_emit(session, "gate.restored", "{}");
    }
}
