/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The guest's memory as sysfs shows it: the balloon driver's target, and the switch for memory that is hot-plugged.
 *
 * Holding writes down in the journal what it is about to change, then changes it; releasing puts back what a journal
 * says, whether this process wrote it or one that was killed. The changes themselves are made here (sysfs.h), or by
 * somebody who is asked for each of them (ask.h). Loop thread only; nothing here blocks but for asking.
 */
#ifndef P2MGUARD_CLIENT_AGENT_MEMORY_H
#define P2MGUARD_CLIENT_AGENT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/ask.h"
#include "client/agent/sysfs.h"
#include "client/agent/undo.h"

struct memory_settings {
    const char *sysfs;
    const char *run;    /* where the journal is */
    const char *socket; /* of agent-sysfs, which makes the changes; NULL = they are made here */
};

struct memory {
    struct sysfs sysfs;
    struct ask ask;
    const char *run;
    unsigned calm;    /* looks in a row at which all was as it should be */
    uint64_t last_kb; /* current_kb at the last look */
};

enum memory_finding {
    MEMORY_MOVING,    /* on its way */
    MEMORY_STILL,     /* target and size are what we wrote, and have been for some looks */
    MEMORY_DISTURBED, /* somebody has written another target */
};

/* -errno when `sysfs` is no folder. The strings stay the caller's. */
int memory_init(struct memory *memory, const struct memory_settings *settings);

bool memory_has_balloon(const struct memory *memory);
bool memory_has_hotplug(const struct memory *memory);

/*
 * Makes the present size the target, and covers the folder. 0 as well when there is no balloon driver. Like all that
 * changes something ASK_NOBODY when who makes the changes does not answer; nothing was changed if `undo` does not say
 * so.
 */
int memory_hold_balloon(struct memory *memory, struct undo *undo);

/* Keeps memory from being onlined, and covers the folder. Once for each freeze; 0 when there is no hotplug. */
int memory_hold_hotplug(struct memory *memory, struct undo *undo);

/*
 * Looks whether the balloon driver has come to rest, and helps it when it is stuck on its way: an enum memory_finding,
 * or a negative errno.
 */
int memory_settle(struct memory *memory, struct undo *undo);

/* MEMORY_STILL or MEMORY_DISTURBED (the target or the size is another one), or a negative errno. */
int memory_look(struct memory *memory, const struct undo *undo);

/* Keeps the target that somebody has written as the wanted one, and puts ours back. */
int memory_put_back(struct memory *memory, struct undo *undo);

/* The size as it was last seen, for texts. */
uint64_t memory_size_kb(const struct memory *memory);

/* What went wrong, for texts. */
const char *memory_explain(int error);

/*
 * Undo what `undo` says, and strike it out there. What fails is logged. ASK_NOBODY when who makes the changes does not
 * answer: `undo` and the journal still say all that is to be done then.
 */
int memory_release_hotplug(struct memory *memory, struct undo *undo);

/* `here`: on the domain that was frozen. Elsewhere the kernel has read its target anew, and that one stays. */
int memory_release_balloon(struct memory *memory, struct undo *undo, bool here);

/* Who makes the changes is not needed until the next freeze, and takes away what is covered still. Any number of times.
 */
void memory_let_go(struct memory *memory);

#endif
