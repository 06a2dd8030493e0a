/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Migrations that nobody announced: guests that are seen being saved, watched without being touched.
 *
 * An observation is no session: it freezes nothing and writes nothing. It takes a baseline as soon as a toolstack's
 * helper is found at work (helpers.h), compares the guest with it as a session would (sight.h), and says in the end
 * what the verdict would have been, and what became of the domain as far as that shows. A domain under guard is not
 * observed; one that comes under guard is not observed any more.
 *
 * What happens when is one table (observation_rules in observation.c). Owns the observations and a short memory of
 * those that have ended. Loop thread only.
 */
#ifndef P2MGUARD_OBSERVATION_H
#define P2MGUARD_OBSERVATION_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/domains.h"
#include "daemon/events.h"
#include "daemon/helpers.h"
#include "daemon/sight.h"
#include "daemon/surveyor.h"
#include "daemon/worker.h"

#define OBSERVATION_NAME_MAX 128

/* The letter of its watches' tokens. */
#define OBSERVATION_WATCH_LETTER 'o'

enum observation_step {
    OBSERVATION_BASELINING, /* name, target and p2m are read; figures are compared already */
    OBSERVATION_WATCHING,
    OBSERVATION_CLOSING,   /* the helper has ended: target and p2m are read once more */
    OBSERVATION_LINGERING, /* judged; what becomes of the domain is waited for */
    OBSERVATION_OVER,
    OBSERVATION_STEPS
};

enum observation_event {
    OBSERVATION_LOOKED,  /* target and p2m were read, as far as they could be */
    OBSERVATION_ENDED,   /* the helper has */
    OBSERVATION_RENAMED, /* the domain, to NAME--migratedaway */
    OBSERVATION_RUNS,    /* it does, after the helper has ended */
    OBSERVATION_GONE,    /* the domain */
    OBSERVATION_GUARDED, /* it came under guard, or is being saved anew */
    OBSERVATION_TIMEOUT, /* nothing more became of it */
    OBSERVATION_EVENTS
};

/* What became of the domain. */
enum observation_outcome {
    OBSERVATION_UNKNOWN,
    OBSERVATION_COMPLETED, /* after the helper's end: renamed to NAME--migratedaway, or suspended and gone */
    OBSERVATION_STAYED,    /* it runs here: the migration has failed, or a copy was saved */
    OBSERVATION_LOST       /* gone while the helper was at work, or otherwise than suspended */
};

/* What observations need of the daemon; one per daemon, outlives them all. */
struct observation_host {
    struct event_base *base;
    struct worker *worker; /* set later, for it calls back */
    struct events *events;
    struct domains *domains;
    struct surveyor *surveyor;
    struct hypervisor *hypervisor; /* the loop's own handle */
    struct survey *survey;
    int64_t max_gap_ms;
    size_t most;                 /* at once */
    void (*over)(void *context); /* one has ended */
    void *context;
};

struct observation {
    struct observation_host *host;
    struct observations *all;
    struct observation *next;
    enum observation_step step;
    struct helper helper;
    struct sight sight;
    char name[OBSERVATION_NAME_MAX]; /* at the baseline; "" = not known */

    bool announced;       /* migration.seen was told */
    int64_t baseline_ms;  /* clock_now_ms() at the baseline ... */
    int64_t seen_wall_ms; /* ... and UNIX time */
    bool has_target;      /* as read last */
    uint64_t target_kib;  /* the same */
    uint64_t told_target_kib;
    int64_t told_target_ms;
    uint64_t target_changes;
    bool above_target;                /* at the baseline: more pages than the target and the guest's constant allow */
    bool unwatched;                   /* the connection to xenstored was lost meanwhile */
    bool store_unreachable;           /* at the last look */
    bool leaving;                     /* renamed to NAME--migratedaway */
    bool helper_ended, was_suspended; /* and the domain then */
    int64_t ended_ms;                 /* clock_now_ms() when it was noticed */
    bool judged;                      /* once: */
    struct verdict_facts facts;
    struct verdict verdict;
    struct sight_figures now;
    enum observation_outcome outcome;

    unsigned away;                /* jobs at the worker and orders at the surveyor that come back here */
    bool reading, read_again;     /* one of the former; it is to be made again */
    bool ordered;                 /* one of the latter */
    bool looking, read, surveyed; /* a look: what of it is done */
    unsigned tries;               /* at the p2m */
    struct event *timer;          /* the step's: for xenstored to answer, for the domain's fate */
    struct event *survey_timer;
};

struct observations;

/* The host is borrowed. */
int observations_new(struct observations **observations, struct observation_host *host);

/* From here on nothing is told and nobody is asked; what is away still comes back. */
void observations_stop(struct observations *observations);

/* Once surveyor and worker have ended. Accepts NULL. */
void observations_free(struct observations *observations);

/* A helper was found that saves this domain, which is not under guard. False: it cannot be observed now. */
bool observations_begin(struct observations *observations, const struct helper *helper);
void observations_helper_ended(struct observations *observations, const struct helper *helper);

/* The domain came under guard. */
void observations_guarded(struct observations *observations, uint16_t domid, const char *session);

/* A watch of this domain's fired; the connection to xenstored was lost; it is back, and all watches are gone. */
void observations_touched(struct observations *observations, uint16_t domid);
void observations_store_lost(struct observations *observations);
void observations_store_back(struct observations *observations);

/* Reads the guests' own counters. False when there is none to be read. */
bool observations_glance(struct observations *observations, int64_t now_ms);

/* By the poll; NULL when the hypervisor does not know the domain any more. */
void observation_see(struct observation *observation, const struct hypervisor_domain *domain);

/* Those that are not over, in the order in which they began: the first for NULL. */
struct observation *observations_next(struct observations *observations, const struct observation *observation);
size_t observations_count(const struct observations *observations);

/* What migration.list answers; a new reference, NULL when memory ran out. */
json_t *observations_record(struct observations *observations);

/* ---- between its two files ---- */

/* Judges what is known now, without looking. */
struct verdict observation_judge(const struct observation *observation, struct verdict_facts *facts);

/* The baseline was taken so long after the helper began that nobody knows what happened before. */
bool observation_is_late(const struct observation *observation);

sight_tell observation_tell_change;
void observation_tell_seen(const struct observation *observation);
void observation_tell_target(const struct observation *observation, uint64_t before_kib);
void observation_tell_ended(const struct observation *observation, const char *session);
json_t *observation_record(const struct observation *observation);

/* The table, for tests of it. */
struct observation_rule_view {
    enum observation_step step;
    enum observation_event event;
    const char *action;
    enum observation_step next;
};
size_t observation_rule_count(void);
struct observation_rule_view observation_rule_at(size_t index);

#endif
