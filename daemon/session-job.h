/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the worker does for a session: one call of gate.h or agent.h, with the session's copy of the gate.
 *
 * A job is owned by the session, then by the worker, then by the session again; the session keeps nothing of it but the
 * pointer that says that it is away. session_job_run is the worker's, the rest the loop's. Orders for
 * the surveyor are treated alike.
 */
#ifndef P2MGUARD_SESSION_JOB_H
#define P2MGUARD_SESSION_JOB_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/agent.h"
#include "daemon/gate.h"
#include "daemon/session.h"
#include "daemon/worker.h"

enum session_operation {
    OPERATION_TAKE,   /* pin_kib is gate_take's, if the guest rests at that */
    OPERATION_ASK,    /* the guest's agent, to freeze */
    OPERATION_SYNC,   /* pin_kib, open and cap_pages are gate_sync's */
    OPERATION_RESTORE /* and passes the target on to the guest's new domain */
};

struct session_job {
    struct work work;
    struct session *session;
    enum session_operation operation;
    struct gate gate; /* the worker's copy while the job is away */
    uint64_t pin_kib, cap_pages;
    uint64_t wanted_before_kib; /* the toolstack's wish as known before */
    bool open, young;
    bool judged;      /* OPERATION_SYNC: a verdict waits for it */
    struct rest rest; /* OPERATION_TAKE: these three say whether the guest rests at pin_kib */
    uint64_t tot_kib, videoram_kib;
    bool hvm;
    uint32_t seq, lease_s; /* of the request to the agent; 0 = none stands */
    struct agent_view view;
    bool listened;       /* its answer in `view` is of now */
    bool forward;        /* OPERATION_RESTORE: the guest may have a new domain on this host */
    uint16_t applied_to; /* after OPERATION_RESTORE: the domain that got the target */
    bool passing;        /* after OPERATION_RESTORE: it waits for the new domain to have one */
    struct gate_report report;
    int error;
};

/* The surveyor's, for a p2m that is too large for the loop. */
struct session_order {
    struct survey_order order; /* first */
    struct session *session;
};

/*
 * Hands a job over; the session is away until it is back. Without memory for it the session fails by its timers: the
 * freeze times out, or the deadline comes; a thaw is tried again.
 */
void session_submit(struct session *session, enum session_operation operation, uint64_t pin_kib, bool open,
                    uint64_t cap_pages);
void session_order_survey(struct session *session);

/* Called on the loop with what is back: session.c's. */
void session_job_done(struct work *work);
void session_order_done(struct work *work);

void session_job_run(struct work *work, const struct worker_tools *tools);

/* What a job that is back means for its session. */
enum session_event session_job_event(const struct session_job *job);

/* Tells operators and subscribers what the job found; the session has taken in the job's gate before. */
void session_job_tell(const struct session_job *job);

#endif
