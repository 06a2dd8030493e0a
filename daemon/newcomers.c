/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/newcomers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/agent.h"
#include "daemon/clock.h"
#include "daemon/domid-set.h"
#include "daemon/log.h"
#include "daemon/node.h"
#include "daemon/record.h"
#include "daemon/timer.h"

/* Waited for at the same time; of more than that nothing is told. */
#define NEWCOMERS_MOST 64

/* How long a domain is waited for. A guest that boots takes its time until it starts its agent. */
#define NEWCOMERS_WAIT_MS 60000

/* An agent that has something to say says it right after its features. */
#define NEWCOMERS_SILENCE_MS 1000

/* A guest may write as often as it likes: what comes faster than this is left to the next sweep. */
#define NEWCOMERS_READ_MS 20

#define NEWCOMERS_SWEEP_MS 500

struct newcomer {
    uint16_t domid;
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    int64_t since_ms, present_ms; /* when it appeared, and when its features did; 0 = not yet */
    int64_t read_ms;              /* the last reading */
    bool reading, again;          /* one is at the worker; another one is due */
    bool stale;                   /* the one at the worker is about the domain that had the number before */
};

struct newcomers {
    struct events *events;
    struct worker *worker;
    struct event *sweep;
    bool looked;
    struct domid_set seen; /* the domids there are at this look */
    struct newcomer waiting[NEWCOMERS_MOST];
    size_t count;
};

/* ---- at the worker ---- */

enum newcomer_task { NEWCOMER_WATCH, NEWCOMER_READ, NEWCOMER_UNWATCH };

struct newcomer_work {
    struct work work;
    struct newcomers *newcomers;
    enum newcomer_task task;
    uint16_t domid;
    char name[SESSION_NAME_MAX];
    struct agent_view view;
    int error;
};

static void newcomer_run(struct work *work, const struct worker_tools *tools)
{
    struct newcomer_work *task = (struct newcomer_work *)(void *)work;

    if (task->task == NEWCOMER_READ) {
        node_read_name(tools->store, task->domid, task->name, sizeof(task->name));
        task->error = agent_look(tools->store, task->domid, &task->view);
        return;
    }
    task->error =
        node_watch(tools->store, task->domid, P2MG_GUEST_FOLDER, NEWCOMERS_WATCH_LETTER, task->task == NEWCOMER_WATCH);
}

static void newcomer_done(struct work *work);

static void newcomers_submit(struct newcomers *newcomers, enum newcomer_task what, uint16_t domid)
{
    struct newcomer_work *task = calloc(1, sizeof(*task));

    if (!task) {
        log_error("domain %u: out of memory for its agent", domid);
        return;
    }
    task->work.run = newcomer_run;
    task->work.done = newcomer_done;
    task->newcomers = newcomers;
    task->task = what;
    task->domid = domid;
    task->error = -ECANCELED;
    worker_submit(newcomers->worker, &task->work);
}

/* ---- who is waited for ---- */

static struct newcomer *newcomers_find(struct newcomers *newcomers, uint16_t domid)
{
    for (size_t i = 0; i < newcomers->count; i++)
        if (newcomers->waiting[i].domid == domid)
            return &newcomers->waiting[i];
    return NULL;
}

static void newcomers_add(struct newcomers *newcomers, const struct hypervisor_domain *domain)
{
    struct newcomer *newcomer = newcomers_find(newcomers, domain->domid); /* that had the number before */
    bool watched = newcomer, reading = newcomer && newcomer->reading;

    if (!newcomer && newcomers->count == NEWCOMERS_MOST)
        return;
    if (!newcomer)
        newcomer = &newcomers->waiting[newcomers->count++];
    *newcomer = (struct newcomer){
        .domid = domain->domid, .since_ms = clock_now_ms(), .reading = reading, .stale = reading, .again = watched};
    memcpy(newcomer->uuid, domain->uuid, sizeof(newcomer->uuid));
    if (!watched)
        newcomers_submit(newcomers, NEWCOMER_WATCH, domain->domid);
    if (!evtimer_pending(newcomers->sweep, NULL))
        timer_arm(newcomers->sweep, NEWCOMERS_SWEEP_MS);
}

static void newcomers_remove(struct newcomers *newcomers, struct newcomer *newcomer)
{
    newcomers_submit(newcomers, NEWCOMER_UNWATCH, newcomer->domid);
    *newcomer = newcomers->waiting[--newcomers->count];
}

static void newcomers_tell(struct newcomers *newcomers, const struct newcomer *newcomer, const char *name,
                           const struct agent_view *view)
{
    struct log_subject subject = {newcomer->domid, NULL, NULL};

    log_about(LOG_NOTICE, &subject, "its agent %s is here%s%s", view->features.version, view->answered ? ", " : "",
              view->answered ? p2mg_answer_name(view->answer.kind) : "");
    events_emit(newcomers->events, "agent.arrived",
                json_pack("{s:i,s:s,s:s,s:o}", "domid", (int)newcomer->domid, "name", name, "uuid", newcomer->uuid,
                          "agent", record_agent(view)));
}

/* True when there is nothing more to wait for. One that says "frozen" or "busy" is about to thaw, or will be told of.
 */
static bool newcomer_is_here(const struct newcomer *newcomer, const struct agent_view *view, int64_t now_ms)
{
    if (!view->present)
        return false;
    if (view->answered)
        return view->answer.kind == P2MG_ANSWER_THAWED || view->answer.kind == P2MG_ANSWER_REFUSED ||
               now_ms - newcomer->since_ms >= NEWCOMERS_WAIT_MS;
    return newcomer->present_ms && now_ms - newcomer->present_ms >= NEWCOMERS_SILENCE_MS;
}

static void newcomer_read(struct newcomers *newcomers, struct newcomer *newcomer)
{
    int64_t now_ms = clock_now_ms();

    newcomer->again = newcomer->reading || now_ms - newcomer->read_ms < NEWCOMERS_READ_MS;
    if (newcomer->again)
        return;
    newcomer->reading = true;
    newcomer->read_ms = now_ms;
    newcomers_submit(newcomers, NEWCOMER_READ, newcomer->domid);
}

static void newcomer_heard(struct newcomers *newcomers, const struct newcomer_work *task)
{
    struct newcomer *newcomer = newcomers_find(newcomers, task->domid);
    int64_t now_ms = clock_now_ms();

    if (!newcomer)
        return;
    bool stale = newcomer->stale;
    newcomer->reading = newcomer->stale = false;
    if (task->error || stale)
        return;
    if (newcomer_is_here(newcomer, &task->view, now_ms)) {
        newcomers_tell(newcomers, newcomer, task->name, &task->view);
        newcomers_remove(newcomers, newcomer);
        return;
    }
    if (task->view.present && !newcomer->present_ms)
        newcomer->present_ms = now_ms;
}

static void newcomer_done(struct work *work)
{
    struct newcomer_work *task = (struct newcomer_work *)(void *)work;

    if (task->task == NEWCOMER_READ)
        newcomer_heard(task->newcomers, task);
    free(task);
}

/* Those that have been silent since their features came are looked at once more; those that never came are let be. */
static void newcomers_on_sweep(evutil_socket_t fd, short what, void *context)
{
    struct newcomers *newcomers = context;
    int64_t now_ms = clock_now_ms();
    (void)fd, (void)what;

    for (size_t i = newcomers->count; i-- > 0;) {
        struct newcomer *newcomer = &newcomers->waiting[i];
        int64_t age_ms = now_ms - newcomer->since_ms;
        if (age_ms >= NEWCOMERS_WAIT_MS + NEWCOMERS_SILENCE_MS)
            newcomers_remove(newcomers, newcomer);
        else if (newcomer->again || newcomer->present_ms || age_ms >= NEWCOMERS_WAIT_MS)
            newcomer_read(newcomers, newcomer);
    }
    if (newcomers->count)
        timer_arm(newcomers->sweep, NEWCOMERS_SWEEP_MS);
}

/* ---- from outside ---- */

int newcomers_new(struct newcomers **result, struct event_base *base, struct events *events)
{
    struct newcomers *newcomers = calloc(1, sizeof(*newcomers));

    if (newcomers)
        newcomers->sweep = evtimer_new(base, newcomers_on_sweep, newcomers);
    if (!newcomers || !newcomers->sweep) {
        free(newcomers);
        return -ENOMEM;
    }
    newcomers->events = events;
    *result = newcomers;
    return 0;
}

void newcomers_free(struct newcomers *newcomers)
{
    if (!newcomers)
        return;
    timer_free(newcomers->sweep);
    free(newcomers);
}

void newcomers_use(struct newcomers *newcomers, struct worker *worker)
{
    newcomers->worker = worker;
}

void newcomers_begin(struct newcomers *newcomers)
{
    memset(&newcomers->seen, 0, sizeof(newcomers->seen));
}

void newcomers_see(struct newcomers *newcomers, const struct hypervisor_domain *domain, bool is_new)
{
    domid_set_add(&newcomers->seen, domain->domid);
    if (newcomers->looked && is_new)
        newcomers_add(newcomers, domain);
}

void newcomers_end(struct newcomers *newcomers)
{
    newcomers->looked = true;
    for (size_t i = newcomers->count; i-- > 0;)
        if (!domid_set_has(&newcomers->seen, newcomers->waiting[i].domid))
            newcomers_remove(newcomers, &newcomers->waiting[i]);
}

void newcomers_touched(struct newcomers *newcomers, uint16_t domid)
{
    struct newcomer *newcomer = newcomers_find(newcomers, domid);

    if (newcomer)
        newcomer_read(newcomers, newcomer);
}

void newcomers_back(struct newcomers *newcomers)
{
    for (size_t i = 0; i < newcomers->count; i++)
        newcomers_submit(newcomers, NEWCOMER_WATCH, newcomers->waiting[i].domid);
}
