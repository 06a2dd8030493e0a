/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/targets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/journal.h"
#include "daemon/log.h"
#include "daemon/node.h"

struct target {
    uint16_t domid;
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    bool seen;           /* at this look */
    bool reading, again; /* a reading is at the worker; another one is due, for there was an event meanwhile */
    bool known;
    uint64_t kib, videoram_kib;
    int64_t since_ms; /* when it was first read, or when the event of its last change came */
};

struct targets {
    struct worker *worker;
    struct target *all;
    size_t count, room;
};

enum target_task { TARGET_WATCH, TARGET_READ, TARGET_UNWATCH };

struct target_work {
    struct work work;
    struct targets *targets;
    enum target_task task;
    uint16_t domid;
    int64_t asked_ms;
    char text[JOURNAL_TARGET_MAX];
    int error;
};

/* A watch fires when it is set, which has the target read. */
static void target_run(struct work *work, const struct worker_tools *tools)
{
    struct target_work *task = (struct target_work *)(void *)work;
    bool set = task->task == TARGET_WATCH;

    if (task->task != TARGET_READ)
        task->error = node_watch(tools->store, task->domid, "memory/target", TARGETS_WATCH_LETTER, set);
    if (task->task != TARGET_UNWATCH)
        task->error = node_read(tools->store, task->domid, set ? "memory/videoram" : "memory/target", task->text,
                                sizeof(task->text));
}

static void target_done(struct work *work);

static bool targets_submit(struct targets *targets, enum target_task what, uint16_t domid)
{
    struct target_work *task = calloc(1, sizeof(*task));

    if (!task) {
        log_error("domain %u: out of memory for its target", domid);
        return false;
    }
    task->work.run = target_run;
    task->work.done = target_done;
    task->targets = targets;
    task->task = what;
    task->domid = domid;
    task->asked_ms = clock_now_ms();
    task->error = -ECANCELED;
    worker_submit(targets->worker, &task->work);
    return true;
}

static struct target *targets_find(const struct targets *targets, uint16_t domid)
{
    for (size_t i = 0; i < targets->count; i++)
        if (targets->all[i].domid == domid)
            return &targets->all[i];
    return NULL;
}

static void target_read(struct targets *targets, struct target *target)
{
    target->again = target->reading;
    if (!target->reading)
        target->reading = targets_submit(targets, TARGET_READ, target->domid);
}

static void target_learn(struct target *target, const struct target_work *task)
{
    bool number = !task->error && journal_is_target(task->text);
    uint64_t kib = number ? strtoull(task->text, NULL, 10) : 0;

    if (task->task == TARGET_WATCH) {
        target->videoram_kib = kib;
        return;
    }
    if (!number) {
        target->known = false;
        return;
    }
    if (!target->known || target->kib != kib)
        target->since_ms = task->asked_ms;
    target->known = true;
    target->kib = kib;
}

static void target_done(struct work *work)
{
    struct target_work *task = (struct target_work *)(void *)work;
    struct target *target = task->task == TARGET_UNWATCH ? NULL : targets_find(task->targets, task->domid);

    if (target)
        target_learn(target, task);
    if (target && task->task == TARGET_READ) {
        target->reading = false;
        if (target->again)
            target_read(task->targets, target);
    }
    free(task);
}

/* ---- from outside ---- */

int targets_new(struct targets **result)
{
    *result = calloc(1, sizeof(**result));
    return *result ? 0 : -ENOMEM;
}

void targets_free(struct targets *targets)
{
    if (!targets)
        return;
    free(targets->all);
    free(targets);
}

void targets_use(struct targets *targets, struct worker *worker)
{
    targets->worker = worker;
}

void targets_begin(struct targets *targets)
{
    for (size_t i = 0; i < targets->count; i++)
        targets->all[i].seen = false;
}

void targets_see(struct targets *targets, const struct hypervisor_domain *domain)
{
    struct target *target = targets_find(targets, domain->domid);

    if (domain->domid == 0 || domain->dying)
        return;
    if (!target && targets->count == targets->room) {
        size_t room = targets->room ? targets->room * 2 : 16;
        struct target *all = reallocarray(targets->all, room, sizeof(*all));
        if (!all) {
            log_error("domain %u: out of memory for its target", domain->domid);
            return;
        }
        targets->all = all;
        targets->room = room;
    }
    if (!target) {
        target = &targets->all[targets->count++];
        *target = (struct target){.domid = domain->domid};
    }
    bool first = !*target->uuid;
    if (strcmp(target->uuid, domain->uuid) != 0) {
        strcpy(target->uuid, domain->uuid);
        target->known = false;
        targets_submit(targets, TARGET_WATCH, domain->domid);
        if (!first) /* another domain of the same number: a watch that was there already does not fire */
            target_read(targets, target);
    }
    target->seen = true;
}

void targets_end(struct targets *targets)
{
    for (size_t i = targets->count; i-- > 0;) {
        if (targets->all[i].seen)
            continue;
        targets_submit(targets, TARGET_UNWATCH, targets->all[i].domid);
        targets->all[i] = targets->all[--targets->count];
    }
}

void targets_touched(struct targets *targets, uint16_t domid)
{
    struct target *target = targets_find(targets, domid);

    if (target)
        target_read(targets, target);
}

void targets_back(struct targets *targets)
{
    for (size_t i = 0; i < targets->count; i++) {
        targets->all[i].known = false;
        targets_submit(targets, TARGET_WATCH, targets->all[i].domid);
    }
}

uint64_t targets_videoram_kib(const struct targets *targets, uint16_t domid)
{
    const struct target *target = targets_find(targets, domid);

    return target ? target->videoram_kib : 0;
}

int64_t targets_steady_ms(const struct targets *targets, uint16_t domid, uint64_t *target_kib)
{
    const struct target *target = targets_find(targets, domid);
    bool known = target && target->known;

    *target_kib = known ? target->kib : 0;
    return known ? clock_now_ms() - target->since_ms : 0;
}
