/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/guard.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "daemon/domid-set.h"
#include "daemon/heirs.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/migrate-work.h"
#include "daemon/newcomers.h"
#include "daemon/node.h"
#include "daemon/record.h"
#include "daemon/recovery.h"
#include "daemon/targets.h"
#include "daemon/timer.h"

/* Sessions that are gone and can still be shown. */
#define GUARD_REMEMBERED 64

/* One job at xenstored is a few round trips; longer than this and something is wrong there. */
#define GUARD_STALLED_MS 500

#define GUARD_RECOVER_AGAIN_MS 1000

/* Of the index by uuid: one session a bucket, more or less, when there are as many as are allowed by default. */
#define GUARD_BUCKETS 4096

struct guard {
    struct session_host host;   /* first: sessions point at it */
    struct hypervisor *workers; /* the worker's own handle */
    struct newcomers *newcomers;
    struct heirs *heirs;
    struct targets *targets;
    struct observation_host observing;
    struct observations *observations;
    struct helpers *helpers;
    struct poller *poller; /* looks at the sessions and at the observations */
    struct guard_callbacks callbacks;
    struct guard_settings settings;
    struct session *live, **live_end;
    size_t live_count;
    struct session *by_domid[65536]; /* the live ones; what is not used of it takes no memory */
    struct session *by_uuid[GUARD_BUCKETS];
    struct session *gone[GUARD_REMEMBERED]; /* a ring; gone_next is the oldest */
    size_t gone_next;
    struct event *recover_again;
    bool recovered;
    json_t *saved;             /* sessions of the program before this one, until xenstored can be asked about them */
    bool passing;              /* a wish waits for a guest's new domain to have a target */
    struct domid_set put_back; /* of these domains, which was told */
    bool stopping;
};

/* ---- which sessions there are ---- */

static struct session **guard_bucket(struct guard *guard, const char *uuid)
{
    return &guard->by_uuid[XXH3_64bits(uuid, strlen(uuid)) % GUARD_BUCKETS];
}

static void guard_link(struct guard *guard, struct session *session)
{
    struct session **bucket = guard_bucket(guard, session->gate.journal.uuid);

    *guard->live_end = session;
    guard->live_end = &session->next;
    guard->live_count++;
    session->next_in_bucket = *bucket;
    *bucket = session;
    guard->by_domid[session->gate.journal.domid] = session;
}

static void guard_unlink(struct guard *guard, struct session *session)
{
    struct session **link = &guard->live, **bucket = guard_bucket(guard, session->gate.journal.uuid);

    while (*link != session)
        link = &(*link)->next;
    *link = session->next;
    if (!*link)
        guard->live_end = link;
    session->next = NULL;
    guard->live_count--;
    while (*bucket != session)
        bucket = &(*bucket)->next_in_bucket;
    *bucket = session->next_in_bucket;
    guard->by_domid[session->gate.journal.domid] = NULL;
}

/* ---- watches: set and cleared by the worker, told to the loop ---- */

struct guard_watch {
    struct work work;
    uint16_t domid;
    bool set;
    bool agent; /* its answers as well; they are first watched when it is asked */
};

/* The name is watched because a rename ends a session. */
static const struct {
    char letter;
    const char *node;
} guard_watches[] = {{'m', "memory"}, {'n', "name"}};

static void guard_watch_run(struct work *work, const struct worker_tools *tools)
{
    struct guard_watch *watch = (struct guard_watch *)(void *)work;

    for (size_t i = 0; i < sizeof(guard_watches) / sizeof(guard_watches[0]); i++) {
        int error = node_watch(tools->store, watch->domid, guard_watches[i].node, guard_watches[i].letter, watch->set);
        if (error && error != -ENOTCONN) /* without a connection there are no watches; they are set when it is back */
            log_warning("domain %u: watching %s: %s", watch->domid, guard_watches[i].node, strerror(-error));
    }
    if (watch->agent && watch->set)
        agent_watch(tools->store, watch->domid);
    else if (watch->agent)
        agent_unwatch(tools->store, watch->domid);
}

static void guard_watch_done(struct work *work)
{
    free(work);
}

static void guard_watch(struct guard *guard, uint16_t domid, bool agent, bool set)
{
    struct guard_watch *watch = calloc(1, sizeof(*watch));

    if (!watch) {
        log_error("domain %u: out of memory for its watches", domid);
        return;
    }
    watch->work.run = guard_watch_run;
    watch->work.done = guard_watch_done;
    watch->domid = domid;
    watch->set = set;
    watch->agent = agent;
    worker_submit(guard->host.worker, &watch->work);
}

/* Migrations that nobody announces are looked for: a helper may belong to each session, and to each observation. */
static void guard_apply_helpers(struct guard *guard)
{
    helpers_apply(guard->helpers, guard->settings.watch_helpers, 2 * guard->settings.max_sessions);
}

/* ---- what an earlier daemon left ---- */

struct guard_recovery {
    struct work work;
    struct guard *guard;
    struct domid_set live;    /* domains with a session of ours: their journals are in use */
    struct domid_set passing; /* put back, but for a wish that waits for the guest's new domain */
    unsigned failures, count, waiting;
    int error;
    const struct worker_tools *tools;
    struct journal put_back[256]; /* the first of them, to tell of */
};

static void guard_resume(struct guard *guard);

static int guard_recover_one(void *context, uint16_t domid)
{
    struct guard_recovery *recovery = context;
    struct journal journal;

    if (domid_set_has(&recovery->live, domid))
        return 0;
    int error = recovery_put_back(recovery->tools, domid, &journal);
    if (error == -ENOENT || error == -EBADMSG)
        return 0;
    if (error == -EINPROGRESS) {
        domid_set_add(&recovery->passing, domid);
        recovery->waiting++;
    } else if (error) {
        recovery->failures++;
        return error == -ENOTCONN ? error : 0;
    }
    if (recovery->count < sizeof(recovery->put_back) / sizeof(recovery->put_back[0]))
        recovery->put_back[recovery->count] = journal;
    recovery->count++;
    return 0;
}

static void guard_recovery_run(struct work *work, const struct worker_tools *tools)
{
    struct guard_recovery *recovery = (struct guard_recovery *)(void *)work;

    recovery->tools = tools;
    recovery->error = journal_prepare(tools->store);
    /* Both tell of domains as such; they are watched for as long as the connection lives. */
    if (!recovery->error)
        recovery->error = store_watch(tools->store, "@introduceDomain", "introduce");
    if (!recovery->error)
        recovery->error = store_watch(tools->store, "@releaseDomain", "release");
    if (!recovery->error)
        recovery->error = journal_each(tools->store, guard_recover_one, recovery);
}

static void guard_tell_recovered(struct guard *guard, const struct journal *journal)
{
    uint64_t target_kib = strtoull(journal_wanted_target(journal), NULL, 10);

    recovery_log(journal);
    metrics_count(METRICS_DOMAINS_RECOVERED);
    events_emit(guard->host.events, "domain.recovered",
                json_pack("{s:i,s:s,s:I,s:I}", "domid", (int)journal->domid, "session", journal->session, "target_kib",
                          (json_int_t)target_kib, "max_kib", (json_int_t)journal->max_kib));
}

static void guard_recovery_done(struct work *work)
{
    struct guard_recovery *recovery = (struct guard_recovery *)(void *)work;
    struct guard *guard = recovery->guard;
    unsigned told = recovery->count < 256 ? recovery->count : 256;

    for (unsigned i = 0; i < told; i++)
        if (!domid_set_has(&guard->put_back, recovery->put_back[i].domid))
            guard_tell_recovered(guard, &recovery->put_back[i]);
    guard->put_back = recovery->passing;
    guard->passing = recovery->waiting > 0;
    if (recovery->error && recovery->error != -ECANCELED && recovery->error != -ENOTCONN)
        log_error("preparing " JOURNAL_ROOT " failed: %s", strerror(-recovery->error));
    bool whole = !recovery->error && !recovery->failures;
    free(recovery);
    /* Without a connection the next "back" starts over. */
    if ((!whole || guard->passing) && worker_connected(guard->host.worker) && !guard->stopping)
        timer_arm(guard->recover_again, GUARD_RECOVER_AGAIN_MS);
    if (whole && !guard->recovered) {
        guard->recovered = true;
        guard_apply_helpers(guard);
        guard_resume(guard);
        guard->callbacks.recovered(guard->callbacks.context);
    }
}

/* Their sessions are taken over, once xenstored can be asked about them. */
static void guard_spare_saved(const struct guard *guard, struct domid_set *live)
{
    json_t *saved;
    size_t i;

    json_array_foreach(guard->saved, i, saved)
    {
        json_int_t domid = json_integer_value(json_object_get(saved, "domid"));
        if (domid > 0 && domid <= UINT16_MAX)
            domid_set_add(live, (uint16_t)domid);
    }
}

static void guard_start_recovery(struct guard *guard)
{
    struct guard_recovery *recovery = calloc(1, sizeof(*recovery));

    if (!recovery) {
        log_error("out of memory for looking at the journals of an earlier daemon");
        return;
    }
    recovery->work.run = guard_recovery_run;
    recovery->work.done = guard_recovery_done;
    recovery->guard = guard;
    recovery->error = -ECANCELED;
    for (const struct session *session = guard->live; session; session = session->next) {
        domid_set_add(&recovery->live, session->gate.journal.domid);
    }
    guard_spare_saved(guard, &recovery->live);
    worker_submit(guard->host.worker, &recovery->work);
}

static void guard_on_recover_again(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    guard_start_recovery(context);
}

/* ---- from the worker ---- */

struct guard_name {
    struct work work;
    struct guard *guard;
    uint16_t domid;
    char name[SESSION_NAME_MAX];
    int error;
};

static void guard_name_run(struct work *work, const struct worker_tools *tools)
{
    struct guard_name *name = (struct guard_name *)(void *)work;

    name->error = node_read_name(tools->store, name->domid, name->name, sizeof(name->name));
}

static void guard_name_done(struct work *work)
{
    struct guard_name *name = (struct guard_name *)(void *)work;
    struct session *session = guard_find_domain(name->guard, name->domid);

    if (session && !name->error)
        session_renamed(session, name->name);
    free(name);
}

static void guard_read_name(struct guard *guard, uint16_t domid)
{
    struct guard_name *name = calloc(1, sizeof(*name));

    if (!name)
        return; /* the session then lives until the domain goes, or its deadline */
    name->work.run = guard_name_run;
    name->work.done = guard_name_done;
    name->guard = guard;
    name->domid = domid;
    name->error = -ECANCELED;
    worker_submit(guard->host.worker, &name->work);
}

/* ---- domains that come and go ---- */

/* A domain is introduced when its memory has arrived, before it runs and before it has the guest's name. */
static void guard_look_for_heir(struct guard *guard, const struct hypervisor_domain *domain)
{
    struct session *session = *guard_bucket(guard, domain->uuid);

    for (; session && !domain->dying; session = session->next_in_bucket)
        if (session->gate.journal.domid != domain->domid && strcmp(session->gate.journal.uuid, domain->uuid) == 0)
            heirs_appeared(guard->heirs, session, domain->domid);
}

static void guard_see(void *context, const struct hypervisor_domain *domain)
{
    struct guard *guard = context;

    newcomers_see(guard->newcomers, domain, targets_see(guard->targets, domain));
}

static void guard_see_introduced(void *context, const struct hypervisor_domain *domain)
{
    struct guard *guard = context;

    guard_look_for_heir(guard, domain); /* first: a migration may be about to end */
    guard_see(guard, domain);
}

/* Domains have come, or gone. */
static void guard_look(struct guard *guard, bool introduced)
{
    newcomers_begin(guard->newcomers);
    targets_begin(guard->targets);
    int error =
        domains_look(guard->host.domains, guard->host.hypervisor, introduced ? guard_see_introduced : guard_see, guard);
    if (error) {
        log_warning("listing domains failed: %s", strerror(-error));
        return;
    }
    newcomers_end(guard->newcomers);
    targets_end(guard->targets);
}

static void guard_on_touched(void *context, const char *path, const char *token)
{
    struct guard *guard = context;
    (void)path;

    if (strcmp(token, "introduce") == 0 || strcmp(token, "release") == 0) {
        guard_look(guard, *token == 'i');
        if (guard->passing) /* a domain is introduced when it has its target, and before the guest runs there */
            guard_start_recovery(guard);
        poller_look(guard->poller);
        guard->callbacks.domains(guard->callbacks.context);
        return;
    }
    unsigned domid;
    char letter;
    if (sscanf(token, "%c%u", &letter, &domid) != 2 || domid > UINT16_MAX)
        return;
    struct session *session = guard_find_domain(guard, (uint16_t)domid);
    /* First: a pin that was written over goes back before anybody else reads the target. */
    if (session && letter == TARGETS_WATCH_LETTER)
        session_touched(session);
    if (letter == NEWCOMERS_WATCH_LETTER)
        newcomers_touched(guard->newcomers, (uint16_t)domid);
    else if (letter == TARGETS_WATCH_LETTER)
        targets_touched(guard->targets, (uint16_t)domid);
    else if (letter == MIGRATE_WATCH_LETTER)
        guard->callbacks.asked(guard->callbacks.context, (uint16_t)domid);
    else if (letter == OBSERVATION_WATCH_LETTER)
        observations_touched(guard->observations, (uint16_t)domid);
    if (!session)
        return; /* an event that was under way when its watch was removed */
    if (letter == 'm')
        session_touched(session);
    else if (letter == 'n')
        guard_read_name(guard, (uint16_t)domid);
    else if (letter == AGENT_WATCH_LETTER)
        session_agent_touched(session);
}

static void guard_on_lost(void *context)
{
    struct guard *guard = context;

    log_error("lost the connection to xenstored");
    metrics_count(METRICS_STORE_LOSSES);
    events_emit(guard->host.events, "store.lost", json_object());
    observations_store_lost(guard->observations);
    for (struct session *session = guard->live; session; session = session->next)
        session_store_lost(session);
}

/* Everything known of the store is void: watches are gone, and nobody saw what was written meanwhile. */
static void guard_on_back(void *context)
{
    struct guard *guard = context;

    log_notice("connected to xenstored");
    if (guard->recovered)
        events_emit(guard->host.events, "store.back", json_object());
    guard_start_recovery(guard);
    newcomers_back(guard->newcomers);
    targets_back(guard->targets);
    guard_look(guard, false);
    observations_store_back(guard->observations);
    for (struct session *session = guard->live; session; session = session->next) {
        guard_watch(guard, session->gate.journal.domid, session->agent.asked, true);
        session_touched(session);
        session_agent_touched(session);
    }
    if (guard->recovered)
        guard->callbacks.back(guard->callbacks.context);
}

/* ---- migrations that nobody announced ---- */

static bool guard_on_helper(void *context, const struct helper *helper)
{
    struct guard *guard = context;

    /* Announced: its session sees all that there is to be seen, and goes on doing so when the helper ends. */
    if (guard->stopping || guard_find_domain(guard, helper->domid))
        return true;
    if (!observations_begin(guard->observations, helper))
        return false;
    poller_mind(guard->poller);
    poller_start_glancing(guard->poller);
    return true;
}

static void guard_on_helper_ended(void *context, const struct helper *helper)
{
    struct guard *guard = context;

    observations_helper_ended(guard->observations, helper);
}

static void guard_on_observation_over(void *context)
{
    struct guard *guard = context;

    poller_mind(guard->poller);
    helpers_look_again(guard->helpers); /* there may be another one that saves the same domain */
}

static bool guard_hears(void *context)
{
    return strcmp(guard_store_state(context), "connected") == 0;
}

static void guard_on_observed(void *context)
{
    struct guard *guard = context;

    guard->callbacks.observed(guard->callbacks.context);
}

static int guard_start_polling(struct guard *guard)
{
    const struct poller_host host = {
        .base = guard->host.base,
        .hypervisor = guard->host.hypervisor,
        .sessions = &guard->live,
        .observations = guard->observations,
        .hears = guard_hears,
        .observed = guard_on_observed,
        .context = guard,
    };

    return poller_new(&guard->poller, &host);
}

static int guard_start_observing(struct guard *guard)
{
    const struct helpers_callbacks callbacks = {guard_on_helper, guard_on_helper_ended, guard};
    const struct session_host *host = &guard->host;

    guard->observing = (struct observation_host){
        .base = host->base,
        .events = host->events,
        .domains = host->domains,
        .surveyor = host->surveyor,
        .hypervisor = host->hypervisor,
        .survey = host->survey,
        .over = guard_on_observation_over,
        .context = guard,
    };
    int error = observations_new(&guard->observations, &guard->observing);
    if (!error)
        error = guard_start_polling(guard);
    return error ? error : helpers_new(&guard->helpers, host->base, &callbacks);
}

/* ---- from sessions ---- */

static void guard_on_watch(void *context, struct session *session)
{
    guard_watch(context, session->gate.journal.domid, session->agent.asked, true);
}

static void guard_on_deferred(void *context, struct session *session)
{
    struct guard *guard = context;

    heirs_wished(guard->heirs, session);
}

static void guard_on_held(void *context, struct session *session)
{
    struct guard *guard = context;

    poller_start_glancing(guard->poller);
    guard->callbacks.held(guard->callbacks.context, session);
    guard->callbacks.changed(guard->callbacks.context);
}

static void guard_on_not_held(void *context, struct session *session)
{
    struct guard *guard = context;

    guard->callbacks.not_held(guard->callbacks.context, session);
    guard->callbacks.changed(guard->callbacks.context);
}

static void guard_on_checked(void *context, struct session *session)
{
    struct guard *guard = context;

    guard->callbacks.checked(guard->callbacks.context, session);
}

static void guard_on_thawing(void *context, struct session *session)
{
    struct guard *guard = context;

    guard->callbacks.thawing(guard->callbacks.context, session);
}

/* Its journal is looked at like those that an earlier daemon has left, and was told of already. */
static void guard_wait_for_new_domain(struct guard *guard, uint16_t domid)
{
    domid_set_add(&guard->put_back, domid);
    guard->passing = true;
    if (!guard->stopping)
        timer_arm(guard->recover_again, GUARD_RECOVER_AGAIN_MS);
}

static void guard_on_gone(void *context, struct session *session)
{
    struct guard *guard = context;

    guard_unlink(guard, session);
    if (session->passing)
        guard_wait_for_new_domain(guard, session->gate.journal.domid);
    guard_watch(guard, session->gate.journal.domid, session->agent.asked, false);
    session_free(guard->gone[guard->gone_next]);
    guard->gone[guard->gone_next] = session;
    guard->gone_next = (guard->gone_next + 1) % GUARD_REMEMBERED;
    poller_mind(guard->poller);
    guard->callbacks.gone(guard->callbacks.context, session);
    guard->callbacks.changed(guard->callbacks.context);
}

/* ---- from one program to the next ---- */

static int guard_resume_one(struct guard *guard, const json_t *saved)
{
    struct session *session;
    int error = session_resume(&session, &guard->host, saved);

    if (error)
        return error;
    guard_link(guard, session);
    session_go_on_holding(session);
    return 0;
}

/* Where one cannot be taken over, its journal is what an earlier daemon has left. */
static void guard_resume(struct guard *guard)
{
    json_t *all = guard->saved, *saved;
    bool lost = false;
    size_t i;

    guard->saved = NULL;
    json_array_foreach(all, i, saved)
    {
        int error = guard_resume_one(guard, saved);
        if (error)
            log_error("domain %" PRId64 ": its session is not taken over: %s",
                      (int64_t)json_integer_value(json_object_get(saved, "domid")), strerror(-error));
        lost |= error != 0;
    }
    json_decref(all);
    if (lost)
        timer_arm(guard->recover_again, 0);
    poller_mind(guard->poller);
}

json_t *guard_save(const struct guard *guard)
{
    json_t *all = json_array();

    for (const struct session *session = guard->live; session && all; session = session->next) {
        if (json_array_append_new(all, session_save(session)) < 0) {
            json_decref(all);
            all = NULL;
        }
    }
    return all;
}

void guard_take_over(struct guard *guard, json_t *saved)
{
    guard->saved = json_incref(saved);
}

bool guard_is_at_peace(const struct guard *guard)
{
    for (const struct session *session = guard->live; session; session = session->next)
        if (!session_is_at_peace(session))
            return false;
    return guard->recovered;
}

/* ---- from outside ---- */

void guard_apply(struct guard *guard, const struct guard_settings *settings)
{
    guard->settings = *settings;
    guard->host.max_gap_ms = guard->observing.max_gap_ms = settings->polling.max_gap_ms;
    guard->observing.most = settings->max_sessions;
    poller_apply(guard->poller, &settings->polling);
    if (guard->recovered) /* before, there may be no xenstored to read names from */
        guard_apply_helpers(guard);
}

static int guard_start_worker(struct guard *guard, struct event_base *base)
{
    const struct worker_callbacks callbacks = {guard_on_touched, guard_on_lost, guard_on_back, guard};
    struct worker_settings settings = {.watches_apart = true};
    int error = hypervisor_open(&settings.hypervisor);

    if (!error)
        error = worker_new(&guard->host.worker, base, &settings, &callbacks);
    if (error) {
        hypervisor_close(settings.hypervisor);
        return error;
    }
    newcomers_use(guard->newcomers, guard->host.worker);
    targets_use(guard->targets, guard->host.worker);
    guard->host.targets = guard->targets;
    guard->observing.worker = guard->host.worker;
    guard->workers = settings.hypervisor;
    return 0;
}

int guard_new(struct guard **result, struct event_base *base, struct events *events,
              const struct guard_settings *settings, const struct guard_callbacks *callbacks)
{
    struct guard *guard = calloc(1, sizeof(*guard));

    if (!guard)
        return -ENOMEM;
    guard->callbacks = *callbacks;
    guard->live_end = &guard->live;
    guard->host = (struct session_host){
        .base = base,
        .events = events,
        .watch = guard_on_watch,
        .deferred = guard_on_deferred,
        .held = guard_on_held,
        .not_held = guard_on_not_held,
        .checked = guard_on_checked,
        .thawing = guard_on_thawing,
        .gone = guard_on_gone,
        .context = guard,
    };
    guard->host.domains = domains_new();
    guard->recover_again = evtimer_new(base, guard_on_recover_again, guard);
    int error = guard->recover_again && guard->host.domains ? 0 : -ENOMEM;
    if (!error)
        error = hypervisor_open(&guard->host.hypervisor);
    if (!error)
        error = domains_look(guard->host.domains, guard->host.hypervisor, NULL, NULL);
    if (!error)
        error = newcomers_new(&guard->newcomers, base, events);
    if (!error)
        error = heirs_new(&guard->heirs, base, &guard->live);
    if (!error)
        error = targets_new(&guard->targets);
    if (!error)
        error = survey_new(&guard->host.survey);
    if (!error)
        error = surveyor_new(&guard->host.surveyor, base);
    if (!error)
        error = guard_start_observing(guard);
    if (!error)
        error = guard_start_worker(guard, base);
    if (error) {
        guard_free(guard);
        return error;
    }
    guard_apply(guard, settings);
    *result = guard;
    return 0;
}

void guard_free(struct guard *guard)
{
    struct session *next;

    if (!guard)
        return;
    helpers_free(guard->helpers);
    if (guard->observations)
        observations_stop(guard->observations);
    /* What the surveyor gives back may still become a job for the worker, not the other way round. */
    surveyor_free(guard->host.surveyor);
    guard->host.surveyor = NULL;
    if (worker_free(guard->host.worker, 1000))
        hypervisor_close(guard->workers);
    for (struct session *session = guard->live; session; session = next) {
        next = session->next;
        session_free(session);
    }
    for (size_t i = 0; i < GUARD_REMEMBERED; i++)
        session_free(guard->gone[i]);
    json_decref(guard->saved);
    observations_free(guard->observations);
    newcomers_free(guard->newcomers);
    heirs_free(guard->heirs);
    targets_free(guard->targets);
    survey_free(guard->host.survey);
    poller_free(guard->poller);
    timer_free(guard->recover_again);
    domains_free(guard->host.domains);
    hypervisor_close(guard->host.hypervisor);
    free(guard);
}

int guard_begin(struct guard *guard, uint16_t domid, const struct session_options *options, struct session **session)
{
    struct hypervisor_domain domain;

    if (domid == 0)
        return -EPERM;
    *session = guard_find_domain(guard, domid);
    if (*session)
        return -EBUSY;
    if (options->forbidden)
        return -EACCES;
    if (guard->stopping || guard->live_count >= guard->settings.max_sessions)
        return -ENOSPC;
    int error = hypervisor_get(guard->host.hypervisor, domid, &domain);
    if (error)
        return error;
    if (domain.dying)
        return -ESRCH;
    error = session_new(session, &guard->host, &domain, options);
    if (error)
        return error;
    guard_link(guard, *session);
    observations_guarded(guard->observations, domid, (*session)->id);
    poller_mind(guard->poller);
    guard->callbacks.changed(guard->callbacks.context);
    return 0;
}

struct session *guard_find(struct guard *guard, const char *id)
{
    unsigned long domid = strtoul(id, NULL, 10); /* an id begins with it */
    struct session *live = domid <= UINT16_MAX ? guard->by_domid[domid] : NULL;

    if (live && strcmp(live->id, id) == 0)
        return live;
    for (size_t i = 0; i < GUARD_REMEMBERED; i++)
        if (guard->gone[i] && strcmp(guard->gone[i]->id, id) == 0)
            return guard->gone[i];
    return NULL;
}

struct session *guard_find_domain(struct guard *guard, uint16_t domid)
{
    return guard->by_domid[domid];
}

struct session *guard_next(struct guard *guard, const struct session *session)
{
    return session ? session->next : guard->live;
}

struct session *guard_gone(struct guard *guard, size_t index)
{
    if (index >= GUARD_REMEMBERED)
        return NULL;
    return guard->gone[(guard->gone_next + GUARD_REMEMBERED - 1 - index) % GUARD_REMEMBERED];
}

size_t guard_count(const struct guard *guard, enum p2mg_state state)
{
    size_t count = 0;

    for (const struct session *session = guard->live; session; session = session->next)
        count += session_state(session) == state;
    return count;
}

size_t guard_live(const struct guard *guard)
{
    return guard->live_count;
}

void guard_connection_closed(struct guard *guard, uint64_t connection)
{
    struct session *next;

    for (struct session *session = guard->live; session; session = next) {
        next = session->next;
        if (session->options.hold == P2MG_HOLD_CONNECTION && session->options.connection == connection)
            session_stop(session, P2MG_REASON_CLIENT_GONE, P2MG_OUTCOME_UNKNOWN);
    }
}

void guard_stop_all(struct guard *guard, enum p2mg_reason reason)
{
    struct session *next;

    guard->stopping = true;
    for (struct session *session = guard->live; session; session = next) {
        next = session->next;
        session_stop(session, reason, P2MG_OUTCOME_UNKNOWN);
    }
}

struct worker *guard_worker(struct guard *guard)
{
    return guard->host.worker;
}

struct hypervisor *guard_hypervisor(struct guard *guard)
{
    return guard->host.hypervisor;
}

struct surveyor *guard_surveyor(struct guard *guard)
{
    return guard->host.surveyor;
}

int64_t guard_target_steady_ms(const struct guard *guard, uint16_t domid, uint64_t *target_kib)
{
    return targets_steady_ms(guard->targets, domid, target_kib);
}

const struct domains *guard_domains(const struct guard *guard)
{
    return guard->host.domains;
}

struct observations *guard_observations(struct guard *guard)
{
    return guard->observations;
}

enum helpers_watch guard_mechanism(const struct guard *guard)
{
    return helpers_mechanism(guard->helpers);
}

const char *guard_store_state(struct guard *guard)
{
    if (!worker_connected(guard->host.worker))
        return "lost";
    return worker_busy_ms(guard->host.worker) > GUARD_STALLED_MS ? "stalled" : "connected";
}
