/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One guest under guard, from begin to gone.
 *
 * Owns the session's state and its timers; everything that may block is handed to the worker, one job at a time, and
 * the state moves when the job comes back. The moves are one table (session_rules in session.c). Loop thread only.
 *
 * The members are open for reading to those who report on sessions (record.c, methods.c); only session.c writes them.
 */
#ifndef P2MGUARD_SESSION_H
#define P2MGUARD_SESSION_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/domains.h"
#include "daemon/events.h"
#include "daemon/gate.h"
#include "daemon/hypervisor.h"
#include "daemon/rest.h"
#include "daemon/verdict.h"
#include "daemon/worker.h"
#include "protocol/names.h"
#include "protocol/policy.h"

#define SESSION_NAME_MAX 128

/* Finer than the states the protocol shows; session_state() folds them. */
enum session_step {
    STEP_GATING,     /* closing the gate */
    STEP_PINNING,    /* putting the pin in the target and showing it */
    STEP_QUIET,      /* the pin is visible; the quiet window runs */
    STEP_CLOSING,    /* closing the gate over the pin */
    STEP_SETTLING,   /* waiting for tot_pages to stand still */
    STEP_BASELINING, /* capping at the size reached, reading everything once more */
    STEP_HELD,
    STEP_THAWING,
    STEP_GONE,
    STEP_COUNT
};

enum session_event {
    EVENT_BEGIN,
    EVENT_DONE,      /* the job succeeded and found everything as left */
    EVENT_DISTURBED, /* the job succeeded, and had to put something back first */
    EVENT_NOT_READY, /* the job says that the guest has not come up */
    EVENT_FAILED,    /* the job failed */
    EVENT_GONE,      /* the domain is gone */
    EVENT_STOP,      /* thaw, for the reason in ending */
    EVENT_TIMEOUT,   /* freezing has taken too long */
    EVENT_RETRY,     /* guard.retry */
    EVENT_TIMER,     /* the step's own timer */
    EVENT_STILL,     /* tot_pages has stood still for the settle window */
    EVENT_TOUCHED,   /* something under ~/memory, or max_pages, was written: look and put right */
    EVENT_COUNT
};

struct session;

/* What a session needs of the daemon; one per daemon, outlives all sessions. */
struct session_host {
    struct event_base *base;
    struct worker *worker;
    struct events *events;
    struct domains *domains;
    struct hypervisor *hypervisor; /* the loop's own handle */
    int64_t max_gap_ms;
    void (*held)(void *context, struct session *session);     /* reached held */
    void (*not_held)(void *context, struct session *session); /* left freezing without reaching it */
    void (*checked)(void *context, struct session *session); /* a look at the gate asked for with session_check ended */
    void (*gone)(void *context, struct session *session);    /* all is put back; may be freed from here on */
    void *context;
};

/* Sizes at the baseline, or now. */
struct session_figures {
    uint64_t tot_kib;
    uint64_t target_kib;
    bool has_generation;
    uint64_t generation; /* p2m_generation, for guests that have it */
    int64_t time_ms;     /* UNIX time */
};

struct session_options {
    struct p2mg_policy policy;
    bool detached;
    uint64_t connection; /* the client's, when not detached */
    pid_t pid;
    uid_t uid;
    char name[SESSION_NAME_MAX];
};

struct session {
    struct session_host *host;
    struct session *next; /* in the guard's list */
    char id[JOURNAL_SESSION_MAX];
    struct session_options options;
    enum session_step step;
    struct gate gate;          /* as of the last job that ended */
    struct gate_report report; /* what that job found */
    struct rest rest;
    uint64_t videoram_kib;

    struct hypervisor_p2m *p2m;    /* NULL when the guest has none, and while thawing */
    struct hypervisor_domain seen; /* the last observation */
    int64_t seen_ms;               /* when that was */
    int64_t moved_ms;              /* when tot_pages last changed, or the pin was shown */

    int64_t begun_ms, begun_wall_ms;
    int64_t freezing_since_ms; /* of this attempt */
    int64_t held_after_ms;     /* from begin to the first hold; -1 before */
    int64_t attempt;
    bool has_baseline;
    struct session_figures baseline;
    bool tot_pages_changed, generation_changed, gate_opened, unwatched; /* since the baseline */
    bool store_unreachable;                                             /* at the last look */
    int64_t longest_gap_ms;                                             /* since the baseline */
    uint64_t changes; /* observations that differed, since the first hold */

    enum p2mg_reason ending; /* why it failed, thaws or is gone */
    enum p2mg_outcome outcome;
    uint16_t heir;       /* a new domain of the guest's on this host, being migrated to; 0 = none seen */
    uint16_t applied_to; /* the new domain that was given the wanted target; 0 = none */
    bool failed;
    bool leaving; /* renamed to NAME--migratedaway: the guest runs elsewhere, the domain is about to go */

    struct session_job *job;    /* at the worker, or NULL */
    unsigned pending;           /* bits of events that came while the job was away */
    bool check_wanted;          /* somebody waits for a look at the gate that starts from now on */
    bool check_running;         /* the job at hand is such a look */
    struct event *timer;        /* the step's */
    struct event *freeze_timer; /* this attempt's time to hold */
    struct event *end_timer;    /* the deadline */
    struct event *grace_timer;  /* after a retry verdict */
};

/* Starts freezing. The session announces itself with session.begun. */
int session_new(struct session **session, struct session_host *host, const struct hypervisor_domain *domain,
                const struct session_options *options);

/* Only once it is gone, and no job is away. */
void session_free(struct session *session);

/* An observation by the poll; NULL when the hypervisor does not know the domain any more. */
void session_observe(struct session *session, const struct hypervisor_domain *domain);

/* A watch below ~/memory fired, or the connection to xenstored came back. */
void session_touched(struct session *session);

/* A second domain with the guest's uuid has come up on this host. */
void session_set_heir(struct session *session, uint16_t domid);

/* The connection to xenstored is gone: whatever was written until it is back was not seen. */
void session_store_lost(struct session *session);

/* The domain's name is this now. */
void session_renamed(struct session *session, const char *name);

/* Thaws, for this reason. A session that thaws already keeps its first reason. */
void session_stop(struct session *session, enum p2mg_reason reason, enum p2mg_outcome outcome);

/* Counts the next attempt and settles anew. -EINVAL unless held. */
int session_retry(struct session *session);

/* Asks for a look at the gate; host->checked tells when it is done. */
void session_check(struct session *session);

/*
 * Judges what is known now; asks the hypervisor once more, xenstore not: store_silent says that it does not answer. A
 * binding verdict, one that was given to somebody who may change things, starts the grace period when it is a retry.
 */
struct verdict session_judge(struct session *session, bool store_silent, bool binding);

enum p2mg_state session_state(const struct session *session);

/* "gate", "pin" or "settle" while freezing, else NULL. */
const char *session_phase(const struct session *session);

/* What will be, or has been, put back as the target: the toolstack's latest wish. */
uint64_t session_wanted_target_kib(const struct session *session);

/* The rule for an event in a step, for tests and checks of the table. NULL action names mean "ignored". */
struct session_rule_view {
    enum session_step step;
    enum session_event event;
    const char *guard, *action;
    enum session_step next;
};
size_t session_rule_count(void);
struct session_rule_view session_rule_at(size_t index);
const char *session_step_name(enum session_step step);

#endif
