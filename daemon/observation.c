/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/observation.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/journal.h"
#include "daemon/log.h"
#include "daemon/node.h"
#include "daemon/rest.h"
#include "daemon/timer.h"

/* How long xenstored may take before it counts as unreachable, as for the verdicts of sessions. */
#define OBSERVATION_STORE_MS 1000

/* A p2m that cannot be read may be in the middle of an update: it is looked at again this often. */
#define OBSERVATION_LOOKS 20
#define OBSERVATION_LOOK_MS 10

/*
 * When the helper has ended, the toolstack renames and destroys the source, or resumes it, once the other side has
 * answered: after this long nothing is waited for.
 */
#define OBSERVATION_LINGER_MS 10000

#define OBSERVATION_TELL_MS 100

/* As many as sessions that are gone. */
#define OBSERVATIONS_REMEMBERED 64

struct observations {
    struct observation_host *host;
    struct observation *live, **live_end;
    size_t count;
    struct observation *leaving; /* over, and waiting for what is away */
    json_t *ended[OBSERVATIONS_REMEMBERED];
    size_t ended_next;
    bool complained; /* of too many */
    bool stopping;
};

static void observation_handle(struct observation *observation, enum observation_event event);

/* ---- what stands in xenstore ---- */

struct observation_reading {
    struct work work;
    struct observation *observation;
    uint16_t domid;
    bool judged; /* a verdict waits for it: watches that are gone without anybody knowing it speak against proceed */
    char name[OBSERVATION_NAME_MAX];
    bool has_target;
    uint64_t target_kib, videoram_kib;
    int error;
};

static bool observation_read_kib(struct store *store, uint16_t domid, const char *node, uint64_t *kib, int *error)
{
    char value[JOURNAL_TARGET_MAX];
    int failure = node_read(store, domid, node, value, sizeof(value));

    if (failure == -ENOTCONN)
        *error = failure;
    if (failure || !journal_is_target(value))
        return false;
    *kib = strtoull(value, NULL, 10);
    return true;
}

static void observation_reading_run(struct work *work, const struct worker_tools *tools)
{
    struct observation_reading *reading = (struct observation_reading *)(void *)work;
    struct store *store = tools->store;
    uint16_t domid = reading->domid;
    int error = node_read_name(store, domid, reading->name, sizeof(reading->name));

    reading->error = error == -ENOTCONN || (reading->judged && !store_hears(store)) ? -ENOTCONN : 0;
    reading->has_target = observation_read_kib(store, domid, "memory/target", &reading->target_kib, &reading->error);
    if (!observation_read_kib(store, domid, "memory/videoram", &reading->videoram_kib, &reading->error))
        reading->videoram_kib = 0;
}

static void observation_reading_done(struct work *work);

static void observation_read(struct observation *observation)
{
    struct observation_reading *reading = observation->reading ? NULL : calloc(1, sizeof(*reading));

    observation->read_again = !reading;
    if (!reading) {
        if (!observation->reading)
            log_error("domain %u: out of memory for its target", observation->helper.domid);
        return; /* a look that misses it takes xenstored for unreachable */
    }
    observation->reading = true;
    observation->away++;
    reading->work.run = observation_reading_run;
    reading->work.done = observation_reading_done;
    reading->observation = observation;
    reading->domid = observation->helper.domid;
    reading->judged = observation->step == OBSERVATION_CLOSING;
    reading->error = -ECANCELED;
    worker_submit(observation->host->worker, &reading->work);
}

/* ---- watches ---- */

struct observation_watch {
    struct work work;
    uint16_t domid;
    bool set;
};

static void observation_watch_run(struct work *work, const struct worker_tools *tools)
{
    static const char *const nodes[] = {"memory/target", "name"};
    struct observation_watch *watch = (struct observation_watch *)(void *)work;

    for (size_t i = 0; i < 2; i++) {
        int error = node_watch(tools->store, watch->domid, nodes[i], OBSERVATION_WATCH_LETTER, watch->set);
        if (error && error != -ENOTCONN) /* without a connection there are no watches; they are set when it is back */
            log_warning("domain %u: watching %s: %s", watch->domid, nodes[i], strerror(-error));
    }
}

static void observation_watch_done(struct work *work)
{
    free(work);
}

static void observation_watch(struct observation *observation, bool set)
{
    struct observation_watch *watch = calloc(1, sizeof(*watch));

    if (!watch) {
        log_error("domain %u: out of memory for its watches", observation->helper.domid);
        observation->unwatched = true;
        return;
    }
    watch->work.run = observation_watch_run;
    watch->work.done = observation_watch_done;
    watch->domid = observation->helper.domid;
    watch->set = set;
    worker_submit(observation->host->worker, &watch->work);
}

/* ---- a look at all of it: the nodes and the p2m, beside each other ---- */

static void observation_end_look(struct observation *observation)
{
    if (!observation->looking || !observation->read || !observation->surveyed)
        return;
    observation->looking = false;
    event_del(observation->timer);
    observation_handle(observation, OBSERVATION_LOOKED);
}

static void observation_take_survey(struct observation *observation)
{
    struct sight *sight = &observation->sight;

    if (!observation->looking)
        return;
    if (!sight_survey_stands(sight) && sight_survey_may_pass(sight) && observation->tries++ < OBSERVATION_LOOKS) {
        timer_arm(observation->survey_timer, OBSERVATION_LOOK_MS);
        return;
    }
    observation->surveyed = true;
    observation_end_look(observation);
}

struct observation_order {
    struct survey_order order; /* first */
    struct observation *observation;
};

static void observation_go_on(struct observation *observation);

static void observation_order_done(struct work *work)
{
    struct observation_order *order = (struct observation_order *)(void *)work;
    struct observation *observation = order->observation;

    observation->away--;
    observation->ordered = false;
    sight_take_survey(&observation->sight, order->order.error, &order->order.result);
    free(order);
    if (observation->judged)
        sight_unmap(&observation->sight);
    if (!observation->all->stopping)
        observation_take_survey(observation);
    observation_go_on(observation);
}

static void observation_survey(struct observation *observation)
{
    struct sight *sight = &observation->sight;

    if (sight_survey(sight) == 0) {
        observation_take_survey(observation);
        return;
    }
    struct observation_order *order = calloc(1, sizeof(*order));
    if (!order) {
        log_error("domain %u: its p2m cannot be surveyed now", observation->helper.domid);
        sight_take_survey(sight, -ENOMEM, NULL);
        observation_take_survey(observation);
        return;
    }
    order->order.work.done = observation_order_done;
    order->order.domid = observation->helper.domid;
    order->order.p2m = sight->p2m;
    order->observation = observation;
    observation->away++;
    observation->ordered = true;
    surveyor_submit(observation->host->surveyor, &order->order);
}

static void observation_look(struct observation *observation)
{
    observation->looking = true;
    observation->read = observation->surveyed = false;
    observation->tries = 0;
    timer_arm(observation->timer, OBSERVATION_STORE_MS);
    observation_read(observation);
    observation_survey(observation);
}

static void observation_on_survey_timer(evutil_socket_t fd, short what, void *context)
{
    struct observation *observation = context;
    (void)fd, (void)what;

    if (observation->looking)
        observation_survey(observation);
    observation_go_on(observation);
}

static void observation_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct observation *observation = context;
    (void)fd, (void)what;

    if (!observation->looking) {
        observation_handle(observation, OBSERVATION_TIMEOUT);
    } else {
        observation->store_unreachable = observation->store_unreachable || !observation->read;
        observation->read = true;
        observation_end_look(observation); /* a survey that is still away ends it later */
    }
    observation_go_on(observation);
}

/* ---- what was read ---- */

/* The receiver populates no more than the target and REST_NEAR_KIB; a guest that is still to shrink has more. */
static bool observation_is_above_target(const struct observation *observation, uint64_t videoram_kib)
{
    const struct sight *sight = &observation->sight;
    const int64_t *learned_kib = domains_offset_kib(observation->host->domains, sight->seen.uuid);
    int64_t offset_kib = learned_kib ? *learned_kib : sight->seen.hvm ? (int64_t)videoram_kib : 0;

    return (int64_t)sight->baseline.tot_kib - (int64_t)observation->target_kib - offset_kib > REST_NEAR_KIB;
}

static bool observation_is_left(const struct observation *observation, const char *name)
{
    static const char away[] = "--migratedaway";
    size_t length = strlen(observation->name);

    return length && strncmp(name, observation->name, length) == 0 && strcmp(name + length, away) == 0;
}

/* A guest that is suspended, or has left, reads no target any more. */
static bool observation_is_over(const struct observation *observation)
{
    return observation->leaving || observation->sight.torn_down;
}

static void observation_compare_target(struct observation *observation)
{
    int64_t now_ms = clock_now_ms();

    if (!observation->announced || observation->target_kib == observation->told_target_kib ||
        (observation->told_target_ms && now_ms - observation->told_target_ms < OBSERVATION_TELL_MS))
        return;
    uint64_t before_kib = observation->told_target_kib;
    observation->told_target_kib = observation->target_kib;
    observation->told_target_ms = now_ms;
    observation_tell_target(observation, before_kib);
}

static void observation_take_target(struct observation *observation, const struct observation_reading *reading)
{
    bool first = !observation->has_target;

    if (!reading->has_target || observation_is_over(observation) || observation->judged)
        return;
    if (!first && reading->target_kib != observation->target_kib)
        observation->target_changes++;
    observation->has_target = true;
    observation->target_kib = reading->target_kib;
    if (first) {
        observation->sight.baseline.target_kib = observation->told_target_kib = reading->target_kib;
        observation->above_target = observation_is_above_target(observation, reading->videoram_kib);
    }
    observation_compare_target(observation);
}

static void observation_take_reading(struct observation *observation, const struct observation_reading *reading)
{
    observation->store_unreachable = reading->error != 0;
    if (reading->error)
        return;
    if (!*observation->name)
        strcpy(observation->name, reading->name);
    observation->leaving = observation_is_left(observation, reading->name);
    observation_take_target(observation, reading);
}

static void observation_reading_done(struct work *work)
{
    struct observation_reading *reading = (struct observation_reading *)(void *)work;
    struct observation *observation = reading->observation;

    observation->away--;
    observation->reading = false;
    if (!observation->all->stopping && observation->step != OBSERVATION_OVER) {
        observation_take_reading(observation, reading);
        if (observation->read_again) {
            observation_read(observation);
        } else if (observation->looking) {
            observation->read = true;
            observation_end_look(observation);
        }
        if (observation->leaving)
            observation_handle(observation, OBSERVATION_RENAMED);
    }
    free(reading);
    observation_go_on(observation);
}

/* ---- verdicts ---- */

bool observation_is_late(const struct observation *observation)
{
    return observation->baseline_ms - observation->helper.started_ms > HELPERS_POLL_MS + observation->host->max_gap_ms;
}

struct verdict observation_judge(const struct observation *observation, struct verdict_facts *facts)
{
    int64_t late_ms = observation_is_late(observation) ? observation->baseline_ms - observation->helper.started_ms : 0;

    *facts = (struct verdict_facts){
        .state = P2MG_STATE_HELD,
        .target_changed = observation->target_changes > 0,
        .above_target = observation->above_target,
        .unwatched = observation->unwatched,
        .store_unreachable = observation->store_unreachable,
        .max_gap_ms = observation->host->max_gap_ms,
        .attempts = 1, /* one more is always left: whoever migrates counts for himself */
    };
    sight_fill_facts(&observation->sight, observation->now.time_ms ? &observation->now : NULL, facts);
    if (late_ms > facts->longest_gap_ms)
        facts->longest_gap_ms = late_ms;
    return verdict_judge(facts);
}

static void observation_conclude(struct observation *observation)
{
    if (observation->judged)
        return;
    observation->verdict = observation_judge(observation, &observation->facts);
    observation->judged = true;
    /* A mapping keeps a reference on the domain, which may be about to go. */
    if (!observation->ordered)
        sight_unmap(&observation->sight);
}

/* ---- what the table's rows do ---- */

static void action_announce(struct observation *observation)
{
    struct sight *sight = &observation->sight;

    /* What moved between the first look at the counter and the survey counts. */
    if (sight->p2m && !sight->survey_error && sight->surveyed.stands)
        sight_compare_info(sight, &sight->surveyed.info, clock_now_ms());
    sight_take_baseline_survey(sight);
    /* Without a target there is no telling whether a later one is new. */
    observation->unwatched = observation->unwatched || observation->store_unreachable;
    observation->announced = true;
    sight->silent = false;
    observation_tell_seen(observation);
    if (observation->helper_ended)
        observation_handle(observation, OBSERVATION_ENDED);
}

static void action_note_end(struct observation *observation)
{
    observation->helper_ended = true;
}

static bool observation_runs(const struct hypervisor_domain *domain)
{
    return !domain->shutdown && !domain->suspended;
}

static void observation_take_in(struct observation *observation, const struct hypervisor_domain *domain)
{
    struct sight *sight = &observation->sight;
    int64_t now_ms = clock_now_ms();

    if (!domain || domain->dying || strcmp(domain->uuid, sight->seen.uuid) != 0) {
        observation_handle(observation, OBSERVATION_GONE);
        return;
    }
    if (observation->judged) {
        if (observation_runs(domain))
            observation_handle(observation, OBSERVATION_RUNS);
        return;
    }
    sight_see(sight, domain, now_ms);
    if (!observation_is_over(observation)) {
        sight_compare(sight, now_ms);
        observation_compare_target(observation);
    }
}

static void observation_ask_hypervisor(struct observation *observation)
{
    struct hypervisor_domain domain;
    int error = hypervisor_get(observation->host->hypervisor, observation->helper.domid, &domain);

    if (!error || error == -ESRCH)
        observation_take_in(observation, error ? NULL : &domain);
}

static void action_look(struct observation *observation)
{
    observation->helper_ended = true;
    observation_ask_hypervisor(observation);
    if (observation->step == OBSERVATION_CLOSING) /* else it is gone */
        observation_look(observation);
}

static void action_judge(struct observation *observation)
{
    struct sight *sight = &observation->sight;

    if (!observation_is_over(observation)) {
        observation->now = (struct sight_figures){.time_ms = clock_wall_ms(), .target_kib = observation->target_kib};
        sight_read_sizes(sight, &observation->now);
        if (sight->p2m)
            sight_compare_counter(sight, clock_now_ms());
        sight_compare_survey(sight);
        sight_look_closely(sight, &observation->now, true);
    }
    observation_conclude(observation);
    observation->was_suspended = sight->seen.suspended;
    timer_arm(observation->timer, OBSERVATION_LINGER_MS);
    if (observation->leaving)
        observation_handle(observation, OBSERVATION_RENAMED);
    else if (observation_runs(&sight->seen))
        observation_handle(observation, OBSERVATION_RUNS);
}

static void observations_end(struct observation *observation, const char *session)
{
    struct observations *all = observation->all;
    struct observation **link = &all->live;

    while (*link != observation)
        link = &(*link)->next;
    *link = observation->next;
    if (!*link)
        all->live_end = link;
    all->count--;
    all->complained = false;
    event_del(observation->timer);
    event_del(observation->survey_timer);
    observation->looking = false;
    observation_watch(observation, false);
    if (observation->announced) {
        observation_tell_ended(observation, session);
        json_decref(all->ended[all->ended_next]);
        all->ended[all->ended_next] = observation_record(observation);
        all->ended_next = (all->ended_next + 1) % OBSERVATIONS_REMEMBERED;
    }
    observation->next = all->leaving;
    all->leaving = observation;
    observation->host->over(observation->host->context);
}

static void observation_finish(struct observation *observation, enum observation_outcome outcome)
{
    observation->outcome = outcome;
    observations_end(observation, NULL);
}

static void action_complete(struct observation *observation)
{
    observation_finish(observation, OBSERVATION_COMPLETED);
}

static void action_stay(struct observation *observation)
{
    observation_finish(observation, OBSERVATION_STAYED);
}

static void action_end_unknown(struct observation *observation)
{
    observation_finish(observation, OBSERVATION_UNKNOWN);
}

/* While the helper was at work: nobody has the guest. */
static void action_lose(struct observation *observation)
{
    observation->facts = (struct verdict_facts){.state = P2MG_STATE_GONE, .ended_by = P2MG_REASON_DOMAIN_GONE};
    observation->verdict = verdict_judge(&observation->facts);
    observation->judged = true;
    sight_read_sizes(&observation->sight, &observation->now);
    observation_finish(observation, OBSERVATION_LOST);
}

/* After the helper's end: what is known must do. */
static void action_leave(struct observation *observation)
{
    bool suspended = observation->judged ? observation->was_suspended : observation->sight.seen.suspended;

    observation_conclude(observation); /* unless it was in time */
    observation_finish(observation, suspended ? OBSERVATION_COMPLETED : OBSERVATION_LOST);
}

static void action_give_way(struct observation *observation)
{
    (void)observation; /* observations_guarded and observations_begin go on */
}

/* ---- the table ---- */

#define DO(action) action_##action, #action

/* No row means that the event is of no interest in that step. */
static const struct observation_rule {
    enum observation_step step;
    enum observation_event event;
    void (*action)(struct observation *observation);
    const char *action_name;
    enum observation_step next;
} observation_rules[] = {
    {OBSERVATION_BASELINING, OBSERVATION_LOOKED, DO(announce), OBSERVATION_WATCHING},
    {OBSERVATION_BASELINING, OBSERVATION_ENDED, DO(note_end), OBSERVATION_BASELINING},
    {OBSERVATION_BASELINING, OBSERVATION_GONE, DO(lose), OBSERVATION_OVER},
    {OBSERVATION_BASELINING, OBSERVATION_GUARDED, DO(give_way), OBSERVATION_OVER},

    {OBSERVATION_WATCHING, OBSERVATION_ENDED, DO(look), OBSERVATION_CLOSING},
    {OBSERVATION_WATCHING, OBSERVATION_GONE, DO(lose), OBSERVATION_OVER},
    {OBSERVATION_WATCHING, OBSERVATION_GUARDED, DO(give_way), OBSERVATION_OVER},

    {OBSERVATION_CLOSING, OBSERVATION_LOOKED, DO(judge), OBSERVATION_LINGERING},
    {OBSERVATION_CLOSING, OBSERVATION_GONE, DO(leave), OBSERVATION_OVER},
    {OBSERVATION_CLOSING, OBSERVATION_GUARDED, DO(give_way), OBSERVATION_OVER},

    {OBSERVATION_LINGERING, OBSERVATION_RENAMED, DO(complete), OBSERVATION_OVER},
    {OBSERVATION_LINGERING, OBSERVATION_RUNS, DO(stay), OBSERVATION_OVER},
    {OBSERVATION_LINGERING, OBSERVATION_GONE, DO(leave), OBSERVATION_OVER},
    {OBSERVATION_LINGERING, OBSERVATION_GUARDED, DO(give_way), OBSERVATION_OVER},
    {OBSERVATION_LINGERING, OBSERVATION_TIMEOUT, DO(end_unknown), OBSERVATION_OVER},
};

#define OBSERVATION_RULES (sizeof(observation_rules) / sizeof(observation_rules[0]))

static void observation_handle(struct observation *observation, enum observation_event event)
{
    for (size_t i = 0; i < OBSERVATION_RULES; i++) {
        const struct observation_rule *rule = &observation_rules[i];
        if (rule->step != observation->step || rule->event != event)
            continue;
        log_debug("migration of domain %u: %s", observation->helper.domid, rule->action_name);
        observation->step = rule->next;
        rule->action(observation);
        return;
    }
}

size_t observation_rule_count(void)
{
    return OBSERVATION_RULES;
}

struct observation_rule_view observation_rule_at(size_t index)
{
    const struct observation_rule *rule = &observation_rules[index];

    return (struct observation_rule_view){rule->step, rule->event, rule->action_name, rule->next};
}

/* ---- from outside ---- */

static void observation_free(struct observation *observation)
{
    sight_unmap(&observation->sight);
    timer_free(observation->timer);
    timer_free(observation->survey_timer);
    free(observation);
}

/* Something that was away is back: one that is over goes when it waited for nothing else. */
static void observation_go_on(struct observation *observation)
{
    struct observation **link = &observation->all->leaving;

    if (observation->step != OBSERVATION_OVER || observation->away)
        return;
    while (*link != observation)
        link = &(*link)->next;
    *link = observation->next;
    observation_free(observation);
}

static struct observation *observations_find(struct observations *all, uint16_t domid)
{
    for (struct observation *observation = all->live; observation; observation = observation->next)
        if (observation->helper.domid == domid)
            return observation;
    return NULL;
}

static struct observation *observation_new(struct observations *all, const struct helper *helper)
{
    struct observation *observation = calloc(1, sizeof(*observation));

    if (!observation)
        return NULL;
    observation->host = all->host;
    observation->all = all;
    observation->helper = *helper;
    observation->timer = evtimer_new(all->host->base, observation_on_timer, observation);
    observation->survey_timer = evtimer_new(all->host->base, observation_on_survey_timer, observation);
    if (!observation->timer || !observation->survey_timer) {
        observation_free(observation);
        return NULL;
    }
    return observation;
}

/* The sizes and the counter first of all: whatever changes from here on is a change. */
static void observation_begin(struct observation *observation, const struct hypervisor_domain *domain)
{
    struct sight *sight = &observation->sight;
    const struct observation_host *host = observation->host;

    sight_init(sight, host->hypervisor, host->survey, observation_tell_change, domain);
    sight->silent = true;
    int error = sight_map(sight);
    if (error)
        log_warning("domain %u: the shared info page cannot be mapped: %s", domain->domid, strerror(-error));
    sight_begin_baseline(sight);
    sight_finish_baseline(sight, 0);
    observation->baseline_ms = sight->seen_ms;
    observation->store_unreachable = true; /* until it has answered */
    observation->seen_wall_ms = sight->baseline.time_ms;
    observation_watch(observation, true);
    observation_look(observation);
}

bool observations_begin(struct observations *all, const struct helper *helper)
{
    struct hypervisor_domain domain;
    struct observation *before = observations_find(all, helper->domid), *observation;

    if (all->stopping || (before && before->step != OBSERVATION_LINGERING))
        return false;
    if (before) { /* saved anew: it is here */
        observation_handle(before, OBSERVATION_RUNS);
        observation_go_on(before);
    }
    if (all->count >= all->host->most) {
        if (!all->complained)
            log_warning("%zu migrations are observed already; no more are", all->count);
        all->complained = true;
        return false;
    }
    if (hypervisor_get(all->host->hypervisor, helper->domid, &domain) || domain.dying)
        return false;
    observation = observation_new(all, helper);
    if (!observation) {
        log_error("domain %u: out of memory for observing its migration", helper->domid);
        return false;
    }
    *all->live_end = observation;
    all->live_end = &observation->next;
    all->count++;
    observation_begin(observation, &domain);
    return true;
}

void observations_helper_ended(struct observations *all, const struct helper *helper)
{
    struct observation *observation = observations_find(all, helper->domid);

    if (!observation || observation->helper.pid != helper->pid || observation->helper_ended)
        return;
    observation->ended_ms = clock_now_ms();
    observation_handle(observation, OBSERVATION_ENDED);
    observation_go_on(observation);
}

void observations_guarded(struct observations *all, uint16_t domid, const char *session)
{
    struct observation *observation = observations_find(all, domid);

    if (!observation)
        return;
    observation_handle(observation, OBSERVATION_GUARDED);
    observations_end(observation, session);
    observation_go_on(observation);
}

void observations_touched(struct observations *all, uint16_t domid)
{
    struct observation *observation = observations_find(all, domid);

    if (observation)
        observation_read(observation);
}

void observations_store_lost(struct observations *all)
{
    for (struct observation *observation = all->live; observation; observation = observation->next)
        observation->unwatched = observation->unwatched || !observation->judged;
}

void observations_store_back(struct observations *all)
{
    for (struct observation *observation = all->live; observation; observation = observation->next) {
        observation_watch(observation, true);
        observation_read(observation);
    }
}

bool observations_glance(struct observations *all, int64_t now_ms)
{
    bool more = false;

    for (struct observation *observation = all->live; observation; observation = observation->next) {
        struct sight *sight = &observation->sight;
        if (observation->judged || !sight->p2m)
            continue;
        more = true;
        sight_count_glance(sight, now_ms);
        if (!observation_is_over(observation))
            sight_compare_counter(sight, now_ms);
    }
    return more;
}

void observation_see(struct observation *observation, const struct hypervisor_domain *domain)
{
    observation_take_in(observation, domain);
    observation_go_on(observation);
}

struct observation *observations_next(struct observations *all, const struct observation *observation)
{
    return observation ? observation->next : all->live;
}

size_t observations_count(const struct observations *all)
{
    return all->count;
}

/* ---- life ---- */

int observations_new(struct observations **result, struct observation_host *host)
{
    struct observations *all = calloc(1, sizeof(*all));

    if (!all)
        return -ENOMEM;
    all->host = host;
    all->live_end = &all->live;
    *result = all;
    return 0;
}

void observations_stop(struct observations *all)
{
    all->stopping = true;
    for (struct observation *observation = all->live; observation; observation = observation->next) {
        event_del(observation->timer);
        event_del(observation->survey_timer);
    }
}

void observations_free(struct observations *all)
{
    struct observation *next;

    if (!all)
        return;
    for (struct observation *observation = all->live; observation; observation = next) {
        next = observation->next;
        observation_free(observation);
    }
    for (struct observation *observation = all->leaving; observation; observation = next) {
        next = observation->next;
        observation_free(observation);
    }
    for (size_t i = 0; i < OBSERVATIONS_REMEMBERED; i++)
        json_decref(all->ended[i]);
    free(all);
}

static bool observations_append(json_t *list, json_t *record)
{
    return json_array_append_new(list, record) == 0;
}

json_t *observations_record(struct observations *all)
{
    json_t *live = json_array(), *ended = json_array();
    bool good = live && ended;

    for (struct observation *observation = all->live; observation && good; observation = observation->next)
        good = !observation->announced || observations_append(live, observation_record(observation));
    for (size_t i = 0; i < OBSERVATIONS_REMEMBERED && good; i++) {
        json_t *record = all->ended[(all->ended_next + i) % OBSERVATIONS_REMEMBERED];
        good = !record || observations_append(ended, json_incref(record));
    }
    if (!good) {
        json_decref(live);
        json_decref(ended);
        return NULL;
    }
    return json_pack("{s:o,s:o}", "migrations", live, "ended", ended);
}
