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
    char uuid[HYPERVISOR_UUID_LENGTH + 1]; /* the number may be another domain's at the next look */
    bool seen;                             /* at this look */
    bool reading, again; /* a reading is at the worker; another one is due, for there was an event meanwhile */
    bool known;
    uint64_t kib;
    int64_t first_ms; /* when the domain was first seen */
    int64_t since_ms; /* when it was first read, or when the event of its last change came */
};

struct targets {
    struct worker *worker;
    struct target *all; /* ordered by domid */
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

    if (task->task == TARGET_READ)
        task->error = node_read(tools->store, task->domid, "memory/target", task->text, sizeof(task->text));
    else
        task->error = node_watch(tools->store, task->domid, "memory/target", TARGETS_WATCH_LETTER, set);
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

/* Where it is, or belongs. */
static size_t targets_place(const struct targets *targets, uint16_t domid)
{
    size_t low = 0, high = targets->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (targets->all[middle].domid < domid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct target *targets_find(const struct targets *targets, uint16_t domid)
{
    size_t place = targets_place(targets, domid);

    return place < targets->count && targets->all[place].domid == domid ? &targets->all[place] : NULL;
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

    if (!number) {
        target->known = false;
        return;
    }
    if (!target->known || target->kib != kib)
        target->since_ms = task->asked_ms > target->first_ms ? task->asked_ms : target->first_ms;
    target->known = true;
    target->kib = kib;
}

static void target_done(struct work *work)
{
    struct target_work *task = (struct target_work *)(void *)work;
    struct target *target = task->task == TARGET_READ ? targets_find(task->targets, task->domid) : NULL;

    if (target) {
        target_learn(target, task);
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

/* NULL without memory; the next look tries again. */
static struct target *targets_insert(struct targets *targets, uint16_t domid)
{
    size_t place = targets_place(targets, domid);

    if (targets->count == targets->room) {
        size_t room = targets->room ? targets->room * 2 : 16;
        struct target *all = reallocarray(targets->all, room, sizeof(*all));
        if (!all) {
            log_error("domain %u: out of memory for its target", domid);
            return NULL;
        }
        targets->all = all;
        targets->room = room;
    }
    struct target *target = &targets->all[place];
    memmove(target + 1, target, (targets->count++ - place) * sizeof(*target));
    *target = (struct target){.domid = domid};
    return target;
}

bool targets_see(struct targets *targets, const struct hypervisor_domain *domain)
{
    if (domain->domid == 0 || domain->dying)
        return false;
    struct target *target = targets_find(targets, domain->domid);
    bool used_again = target && strcmp(target->uuid, domain->uuid) != 0;
    bool is_new = !target || used_again;
    if (!target)
        target = targets_insert(targets, domain->domid);
    if (!target)
        return false;
    target->seen = true;
    if (!is_new)
        return false;
    memcpy(target->uuid, domain->uuid, sizeof(target->uuid));
    target->first_ms = clock_now_ms();
    target->known = false;
    targets_submit(targets, TARGET_WATCH, domain->domid);
    if (used_again) /* a watch that was there already does not fire */
        target_read(targets, target);
    return true;
}

void targets_end(struct targets *targets)
{
    size_t kept = 0;

    for (size_t i = 0; i < targets->count; i++) {
        if (targets->all[i].seen)
            targets->all[kept++] = targets->all[i];
        else
            targets_submit(targets, TARGET_UNWATCH, targets->all[i].domid);
    }
    targets->count = kept;
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

int64_t targets_steady_ms(const struct targets *targets, uint16_t domid, uint64_t *target_kib)
{
    const struct target *target = targets_find(targets, domid);
    bool known = target && target->known;

    *target_kib = known ? target->kib : 0;
    return known ? clock_now_ms() - target->since_ms : 0;
}
