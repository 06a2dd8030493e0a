/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The administrator's own programs: each is run with "freeze" before a guest is called frozen, and those that were are
 * run with "thaw", the other way round, afterwards.
 *
 * One runs at a time, in a process group of its own, for a limited time. Which were started with "freeze" stands in
 * the journal before they are. Loop thread only; `done` is never called from inside one of these functions.
 */
#ifndef P2MGUARD_CLIENT_AGENT_HOOKS_H
#define P2MGUARD_CLIENT_AGENT_HOOKS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/undo.h"

#define HOOKS_WHY_MAX 160

struct hooks;

struct hooks_settings {
    const char *folder;
    const char *run; /* where the journal is */
    int64_t limit_ms;
    /* `why` is NULL when all went well; failures of "thaw" are logged and are no reason. */
    void (*done)(void *context, const char *why);
    void *context;
};

/* Takes over SIGCHLD. */
int hooks_new(struct hooks **hooks, struct event_base *base, const struct hooks_settings *settings);
void hooks_free(struct hooks *hooks);

/* Whether the folder is there. */
bool hooks_available(const struct hooks *hooks);

/* The number of hooks that will be run, all started one after the other, or a negative errno. 0: `done` is not called.
 */
int hooks_freeze(struct hooks *hooks, struct undo *undo);

/*
 * Ends a hook that runs, then runs those of the journal with "thaw", and strikes each out there when it has ended.
 * False when there is nothing to be done; `done` is not called then.
 */
bool hooks_thaw(struct hooks *hooks, struct undo *undo);

#endif
