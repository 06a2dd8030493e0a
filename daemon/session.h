/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One guest under guard, from begin to gone.
 *
 * Owns the session's state and its timers; everything that may block is handed to the worker, one job at a time, and
 * the state moves when the job comes back. The moves are one table (session_rules in session.c), what is done in each
 * is in session-actions.c, what is seen of the guest in session-observe.c. Loop thread only.
 *
 * The members are open for reading to those who report on sessions (record.c, methods*.c); only session*.c write them.
 */
#ifndef P2MGUARD_SESSION_H
#define P2MGUARD_SESSION_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/agent.h"
#include "daemon/domains.h"
#include "daemon/events.h"
#include "daemon/gate.h"
#include "daemon/history.h"
#include "daemon/hypervisor.h"
#include "daemon/rest.h"
#include "daemon/sight.h"
#include "daemon/surveyor.h"
#include "daemon/targets.h"
#include "daemon/verdict.h"
#include "daemon/worker.h"
#include "protocol/names.h"
#include "protocol/policy.h"

#define SESSION_NAME_MAX 128
#define SESSION_CALLER_MAX 33
#define SESSION_SECTION_MAX 136 /* SETTINGS_SECTION_MAX */

/* While something fails that should not, it is tried again this often. */
#define SESSION_THAW_RETRY_MS 1000

/* Finer than the states the protocol shows; session_state() folds them. */
enum session_step {
    STEP_GATING,     /* closing the gate */
    STEP_PINNING,    /* putting the pin in the target and showing it */
    STEP_QUIET,      /* the pin is visible; the quiet window runs */
    STEP_CLOSING,    /* closing the gate over the pin */
    STEP_ASKING,     /* the guest's agent was asked to freeze, and has not said that it is */
    STEP_SETTLING,   /* waiting for tot_pages to stand still */
    STEP_BASELINING, /* capping at the size reached, reading everything once more */
    STEP_SURVEYING,  /* reading the p2m's structure, the last part of the baseline */
    STEP_HELD,
    STEP_BACKOFF, /* the next attempt was asked for; the gate stays shut, and the guest is given time */
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
    EVENT_ANSWERED,  /* the agent has answered, or there is none */
    EVENT_SURVEYED,  /* the survey asked for is in `surveyed` */
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
    const struct targets *targets;
    struct surveyor *surveyor;
    struct hypervisor *hypervisor; /* the loop's own handle */
    struct survey *survey;         /* for surveys that are made on the loop, one after the other */
    int64_t max_gap_ms;
    void (*watch)(void *context, struct session *session);    /* its nodes are to be watched from now on */
    void (*deferred)(void *context, struct session *session); /* its toolstack has asked for another target */
    void (*held)(void *context, struct session *session);     /* reached held */
    void (*not_held)(void *context, struct session *session); /* left freezing without reaching it */
    void (*checked)(void *context, struct session *session); /* a look at the gate asked for with session_check ended */
    void (*thawing)(void *context, struct session *session); /* is about to put everything back */
    void (*gone)(void *context, struct session *session);    /* all is put back; may be freed from here on */
    void *context;
};

/* The guest's agent, as far as this session is concerned. */
struct session_agent {
    bool asked;             /* ever */
    uint32_t seq;           /* of the request that stands; 0 = none */
    uint32_t lease_s;       /* its lease */
    bool lost;              /* somebody wrote over it */
    bool was_frozen;        /* it was answered with "frozen" once */
    bool done_without;      /* for this attempt */
    struct agent_view view; /* what the guest's nodes said last */
    unsigned away;          /* readings and renewals at the worker */
    bool listening;         /* a reading is */
    int64_t listened_ms, told_ms;
    struct event *listen_timer, *lease_timer;
};

struct session_options {
    struct p2mg_policy policy;
    enum p2mg_hold hold;
    bool from_xenstore;              /* who asked has no connection, process or user that we could know of */
    uint64_t connection;             /* the client's, when the hold is its */
    char caller[SESSION_CALLER_MAX]; /* what it calls itself; "" = nothing */
    pid_t pid;
    uid_t uid;
    char name[SESSION_NAME_MAX];
    char section[SESSION_SECTION_MAX]; /* of the configuration, that the policy is from at last; "" = [policy] */
    bool forbidden;                    /* it says that this guest is not to be guarded */
};

struct session {
    struct session_host *host;
    struct session *next;           /* in the guard's list */
    struct session *next_in_bucket; /* in its index by uuid */
    /* Up to the sight's middle is what is read of every held guest many times a second. */
    enum session_step step;
    bool leaving;       /* renamed to NAME--migratedaway: the guest runs elsewhere, the domain is about to go */
    bool away;          /* a job is at the worker, or an order at the surveyor */
    bool watched;       /* host->watch was called */
    struct sight sight; /* what is seen of the guest, and its baseline once there is one */
    char id[JOURNAL_SESSION_MAX];
    struct session_options options;
    struct gate gate;          /* as of the last job that ended */
    struct gate_report report; /* what that job found */
    struct rest rest;
    struct history *history;
    uint64_t videoram_kib; /* as read when the gate was closed */
    struct session_agent agent;

    int64_t moved_ms; /* when tot_pages last changed, or the pin was shown */

    int64_t begun_ms, begun_wall_ms;
    uint64_t steady_kib;       /* the target as the watch on it knew it when the session began ... */
    int64_t steady_ms;         /* ... and for how long */
    int64_t freezing_since_ms; /* of this attempt */
    int64_t held_after_ms;     /* from begin to the first hold; -1 before */
    int64_t attempt;
    bool has_baseline;
    bool resumed;                /* in this attempt there was a moment in which nobody looked: reexec.h */
    bool gate_opened, unwatched; /* since the baseline */
    bool store_unreachable;      /* at the last look */

    enum p2mg_reason ending; /* why it failed, thaws or is gone */
    enum p2mg_outcome outcome;
    uint16_t heir;       /* a new domain of the guest's on this host, being migrated to; 0 = none seen */
    bool heir_is_marked; /* its target says that it is the pin */
    uint16_t applied_to; /* the new domain that was given the wanted target; 0 = none */
    bool passing;        /* or it waits for that one to have a target, in the journal */
    bool failed;

    unsigned pending;           /* bits of events that came meanwhile */
    bool check_wanted;          /* somebody waits for a look at everything that starts from now on */
    bool check_running;         /* such a look is under way */
    uint64_t checks_wanted;     /* how many were asked for, */
    uint64_t checks_running;    /* how many of them the one under way has begun after, */
    uint64_t checks_made;       /* and the last one that has ended */
    bool check_ending;          /* it has just been made: `surveyed` is of now */
    unsigned check_tries;       /* at the p2m, when there is something that may pass */
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

/* Reads a held guest's own counter: a few loads from its shared info page. False when there is none to be read. */
bool session_glance(struct session *session, int64_t now_ms);

/* An observation by the poll; NULL when the hypervisor does not know the domain any more. */
void session_observe(struct session *session, const struct hypervisor_domain *domain, int64_t now_ms);

/*
 * Has the processor fetch what the two above need of the sessions behind this one, `polled` or only glanced at: a
 * thousand sessions are in no cache.
 */
void session_fetch_ahead(const struct session *session, bool polled);

/* A watch below ~/memory fired, or the connection to xenstored came back. */
void session_touched(struct session *session);

/* A watch on the answers of the guest's agent fired. */
void session_agent_touched(struct session *session);

/* A second domain with the guest's uuid has come up on this host. */
void session_set_heir(struct session *session, uint16_t domid, bool is_marked);

/* The connection to xenstored is gone: whatever was written until it is back was not seen. */
void session_store_lost(struct session *session);

/* The domain's name is this now. */
void session_renamed(struct session *session, const char *name);

/* Thaws, for this reason. A session that thaws already keeps its first reason. */
void session_stop(struct session *session, enum p2mg_reason reason, enum p2mg_outcome outcome);

/* From now on it is this caller's, and held for as long as that says: hold, connection, pid and uid. */
void session_adopt(struct session *session, const struct session_options *owner);

/* Counts the next attempt and settles anew. -EINVAL unless held. */
int session_retry(struct session *session);

/*
 * Asks for a look at the gate and at all of the p2m that begins from now on, and gives it a number. host->checked tells
 * when one is done; the one asked for is when session->checks_made has come to that number.
 */
uint64_t session_check(struct session *session);

/*
 * Judges what is known now; asks the hypervisor once more, xenstore not: `silent` says that the look asked for did not
 * come to its end in time. A binding verdict, one that was given to somebody who may change things, starts the grace
 * period when it is a retry. `facts` is what the verdict rests on, `now` what was found.
 */
struct verdict session_judge(struct session *session, bool silent, bool binding, struct verdict_facts *facts,
                             struct sight_figures *now);

/* The verdict on what has been seen so far: asks nobody, and binds nobody. */
struct verdict session_known_verdict(const struct session *session);

enum p2mg_state session_state(const struct session *session);

/* What freezing is at ("gate", "pin", "agent", …), else NULL. */
const char *session_phase(const struct session *session);

/* How long the guest is left alone, its gate shut, before this attempt (2 or more) makes it settle. */
int64_t session_backoff_ms(const struct session *session, int64_t attempt);

/* What will be, or has been, put back as the target: the toolstack's latest wish. */
uint64_t session_wanted_target_kib(const struct session *session);

/* ---- from one program to the next: session-save.c ---- */

/* It is held, and nothing is under way. */
bool session_is_at_peace(const struct session *session);

/* All that the next program has to know; NULL for want of memory. */
json_t *session_save(const struct session *session);

/*
 * A session that session_save has saved, alive, and for its owner to be linked before session_go_on_holding() is called
 * once. -EINVAL: it was not; -ESRCH: its domain is gone.
 */
int session_resume(struct session **session, struct session_host *host, const json_t *saved);
void session_go_on_holding(struct session *session);

/* ---- between the parts of a session ---- */

/* One that has not begun. */
int session_make(struct session **session, struct session_host *host, const struct hypervisor_domain *domain,
                 const struct session_options *options);

/* Has it told of what is written in its domain's nodes, if it is not yet. */
void session_watch(struct session *session);

/* The time that is left until it is let go in any case. */
void session_arm_deadline(struct session *session);

/* Handles an event now, or when the job at hand is back. */
void session_post(struct session *session, enum session_event event);

/* Something that was away is back: handles what came meanwhile, and buries a session that waited for nothing else. */
void session_go_on(struct session *session);

/* Handles it at once: the last thing that an action does. */
void session_handle(struct session *session, enum session_event event);

/* Into this step, without an action. */
void session_enter(struct session *session, enum session_step step);

/* Sets the step's own timer; that it went off before is void then. */
void session_arm_step(struct session *session, int64_t delay_ms);
void session_quiet_timers(struct session *session);

/* The grace runs from the first of several retry verdicts; what has passed needs none. */
void session_start_grace(struct session *session, enum p2mg_verdict verdict);

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
