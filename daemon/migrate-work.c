/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/migrate-work.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/node.h"

static int migrate_note(void *context, uint16_t domid)
{
    struct domid_set *there = context;

    domid_set_add(there, domid);
    return 0;
}

/* From task->domid on. */
static int migrate_probe(struct store *store, struct migrate_work *task)
{
    for (unsigned i = 0; i < MIGRATE_PROBED; i++) {
        uint16_t domid = (uint16_t)(task->domid + i);
        int there = migrate_store_has(store, domid);
        if (there < 0)
            return there;
        if (there)
            migrate_note(task->there, domid);
    }
    return 0;
}

/*
 * Oxenstored cannot list a folder of more than 4096 bytes of names, and when libxenstore then asks for it in parts, the
 * connection is lost. Once that has happened, nothing is listed any more.
 */
static int migrate_prepare(struct store *store, struct migrate_work *task)
{
    int error = migrate_store_prepare(store, MIGRATE_WATCH_TOKEN);

    if (error || task->unlisted)
        return error;
    error = migrate_store_each(store, migrate_note, task->there);
    task->unlisted = error == -E2BIG || error == -ENOTCONN;
    return error == -E2BIG ? 0 : error;
}

static void migrate_run(struct work *work, const struct worker_tools *tools)
{
    struct migrate_work *task = (struct migrate_work *)(void *)work;

    switch (task->task) {
    case MIGRATE_PREPARE:
        task->error = migrate_prepare(tools->store, task);
        break;
    case MIGRATE_PROBE:
        task->error = migrate_probe(tools->store, task);
        break;
    case MIGRATE_CLOSE:
        task->error = migrate_store_close(tools->store);
        break;
    case MIGRATE_LOOK:
        task->error = migrate_store_take(tools->store, task->domid, task->whole, &task->found);
        if (!task->error && task->found.asked && task->found.request.word == MIGRATE_BEGIN)
            node_read_name(tools->store, task->domid, task->name, sizeof(task->name));
        break;
    case MIGRATE_ANSWER:
        task->error = migrate_store_answer(tools->store, task->domid, &task->answer);
        break;
    case MIGRATE_REMOVE:
        task->error = migrate_store_remove(tools->store, task->domid);
        break;
    }
}

struct migrate_work *migrate_work_new(struct migrate_nodes *nodes, enum migrate_task what, uint16_t domid,
                                      void (*done)(struct work *work))
{
    struct migrate_work *task = calloc(1, sizeof(*task));

    if (!task) {
        log_error("domain %u: out of memory for its caller in xenstore", domid);
        return NULL;
    }
    task->work.run = migrate_run;
    task->work.done = done;
    task->nodes = nodes;
    task->task = what;
    task->domid = domid;
    task->error = -ECANCELED;
    return task;
}

bool migrate_work_is_away(int error)
{
    return error == -ENOTCONN || error == -ECANCELED;
}

void migrate_work_log_failure(const struct migrate_work *task)
{
    static const char *const doing[] = {"serving callers in xenstore",
                                        "looking for requests in xenstore",
                                        "removing " MIGRATE_FOLDER,
                                        "taking a request",
                                        "answering",
                                        "removing"};

    if (task->task <= MIGRATE_CLOSE)
        log_error("%s failed: %s", doing[task->task], strerror(-task->error));
    else
        log_warning("%s at " MIGRATE_FOLDER "/%u failed: %s", doing[task->task], task->domid, strerror(-task->error));
}
