/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/record.h"

static void session_job_restore(struct session_job *job, const struct worker_tools *tools)
{
    job->error = job->gate.taken ? gate_restore(&job->gate, tools) : 0;
    if (job->error || !job->forward || !job->gate.taken)
        return;
    int error = gate_forward(&job->gate, tools, &job->applied_to);
    if (error)
        log_warning("domain %u: passing the target on to its new domain failed: %s", job->gate.journal.domid,
                    strerror(-error));
}

void session_job_run(struct work *work, const struct worker_tools *tools)
{
    struct session_job *job = (struct session_job *)(void *)work;

    switch (job->operation) {
    case OPERATION_TAKE:
        job->error = gate_take(&job->gate, tools, job->young, &job->report);
        break;
    case OPERATION_SYNC:
        job->error = gate_sync(&job->gate, tools, job->pin_kib, job->open, job->cap_pages, &job->report);
        break;
    case OPERATION_RESTORE:
        session_job_restore(job, tools);
        break;
    }
}

enum session_event session_job_event(const struct session_job *job)
{
    switch (job->error) {
    case 0:
        return job->report.deferred || job->report.reopened ? EVENT_DISTURBED : EVENT_DONE;
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
    static const char *const doing[] = {"closing the gate", "keeping the gate", "putting everything back"};
    struct log_subject subject = {session->gate.journal.domid, session->id, NULL};

    log_about(LOG_WARNING, &subject, "%s failed: %s", doing[job->operation], strerror(-job->error));
}

void session_job_tell(const struct session_job *job)
{
    const struct session *session = job->session;
    const struct gate_report *report = &job->report;
    const struct journal *journal = &session->gate.journal;

    if (job->error && job->error != -EHOSTDOWN && job->error != -ESRCH)
        session_job_log_failure(job);
    if (report->deferred)
        record_emit(session, "target.deferred", "{s:I,s:I}", "target_kib",
                    (json_int_t)session_wanted_target_kib(session), "pin_kib",
                    (json_int_t)strtoull(journal->pin, NULL, 10));
    if (report->cap_restored)
        record_emit(session, "cap.restored", "{s:I,s:I}", "max_kib", (json_int_t)journal->max_kib, "cap_kib",
                    (json_int_t)journal->cap_kib);
    if (report->reopened)
        record_emit(session, "gate.restored", "{}");
}
