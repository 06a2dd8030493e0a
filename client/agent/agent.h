/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent: from what dom0 asks to a guest that holds still, and back.
 *
 * The moves are one table (agent_rules in agent.c). Whatever happens, it ends thawed: a lease runs from the moment a
 * request is read, whether or not xenstored answers afterwards, and the journal (undo.h) tells the next start what one
 * that was killed has left behind. Loop thread only.
 */
#ifndef P2MGUARD_CLIENT_AGENT_AGENT_H
#define P2MGUARD_CLIENT_AGENT_AGENT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum agent_step {
    AGENT_STARTING, /* an earlier agent has left a journal; the domid is asked for, for a second at most */
    AGENT_THAWED,   /* nothing is changed */
    AGENT_SETTLING, /* the balloon driver is told to stay; it has to come to rest */
    AGENT_HOOKING,  /* the hooks are run with "freeze" */
    AGENT_FROZEN,
    AGENT_ASKING,  /* the balloon driver has another target: by the guest, or by a resume on another host? */
    AGENT_THAWING, /* the hooks are run with "thaw", then all is put back */
    AGENT_STEP_COUNT
};

enum agent_event {
    AGENT_ON_FREEZE,    /* dom0 asks for a freeze with a new SEQ */
    AGENT_ON_SAME,      /* and still asks for the one at hand */
    AGENT_ON_RELEASE,   /* it does not ask for one, or this is another domain */
    AGENT_ON_LEASE,     /* the lease has ended */
    AGENT_ON_TICK,      /* time to look */
    AGENT_ON_STILL,     /* the balloon driver is at rest */
    AGENT_ON_DISTURBED, /* it has another target, or moves */
    AGENT_ON_HOOKS,     /* all hooks were run */
    AGENT_ON_FAILED,    /* freezing is not possible, for the reason in `refusal` */
    AGENT_ON_STOP,      /* the program is to end */
    AGENT_EVENT_COUNT
};

struct agent;

struct agent_settings {
    const char *sysfs;
    const char *run;          /* where the journal is */
    const char *sysfs_socket; /* of agent-sysfs, which makes the changes in sysfs; NULL = the agent does */
    const char *hooks;
    int64_t hook_limit_ms;
    int64_t settle_limit_ms;
    /* Thawed, and all is said: nothing will have to be done for long. */
    void (*idle)(void *context);
    /* After agent_stop(): all is put back, and dom0 was told, or could not be. */
    void (*over)(void *context);
    /* The guest cannot be thawed from here. The program is to end at once; the journal says what is left to be done. */
    void (*lost)(void *context);
    void *context;
};

int agent_new(struct agent **agent, struct event_base *base, const struct agent_settings *settings);

/* Whatever xenstored does, within a second. */
void agent_free(struct agent *agent);

/* Thaws, says so, takes the features back, and calls `over`. */
void agent_stop(struct agent *agent);

/* ---- the table, for those who check it ---- */

struct agent_rule_view {
    enum agent_step step;
    enum agent_event event;
    const char *guard; /* NULL = always */
    const char *action;
    enum agent_step next;
};

size_t agent_rule_count(void);
struct agent_rule_view agent_rule_at(size_t index);

#endif
