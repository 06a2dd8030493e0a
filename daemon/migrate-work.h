/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What migrate-nodes.c hands to the worker: one small job for each thing that is done to a node in the store.
 */
#ifndef P2MGUARD_MIGRATE_WORK_H
#define P2MGUARD_MIGRATE_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/domid-set.h"
#include "daemon/migrate-store.h"
#include "daemon/session.h"
#include "daemon/worker.h"

#define MIGRATE_DOMIDS (UINT16_MAX + 1)

/* Where there are more nodes than can be listed, so many are looked for in one job. */
#define MIGRATE_PROBED 256

/* The watch on the folder has this letter; see worker.h. */
#define MIGRATE_WATCH_LETTER 'r'
#define MIGRATE_WATCH_TOKEN "r" MIGRATE_FOLDER

struct migrate_nodes;

enum migrate_task { MIGRATE_PREPARE, MIGRATE_PROBE, MIGRATE_CLOSE, MIGRATE_LOOK, MIGRATE_ANSWER, MIGRATE_REMOVE };

struct migrate_work {
    struct work work;
    struct migrate_nodes *nodes;
    enum migrate_task task;
    uint16_t domid;
    int error;
    struct domid_set *there; /* MIGRATE_PREPARE, MIGRATE_PROBE: what stood there ... */
    bool unlisted;           /* ... is not to be asked for at once, or could not be told */
    bool whole;              /* MIGRATE_LOOK ... */
    struct migrate_found found;
    char name[SESSION_NAME_MAX];
    struct migrate_answer answer; /* MIGRATE_ANSWER */
};

/* For the loop to fill in and submit; `done` frees it, `there` included. NULL, and told of, when memory runs out. */
struct migrate_work *migrate_work_new(struct migrate_nodes *nodes, enum migrate_task what, uint16_t domid,
                                      void (*done)(struct work *work));

/* The store is away, or we are: the node is looked at when it is back, or by the next daemon. */
bool migrate_work_is_away(int error);

void migrate_work_log_failure(const struct migrate_work *task);

#endif
