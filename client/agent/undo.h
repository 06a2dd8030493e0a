/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's journal: what a freeze has changed, or is about to change, and what was there before.
 *
 * It is written before each change, so that whoever comes after a killed agent can put everything back. Putting back
 * what was never changed does no harm, so the journal may be ahead of the facts, never behind them. It lives in a
 * tmpfs: nothing that it speaks of outlives the kernel, and a journal of another boot is thrown away.
 *
 * undo_encode and undo_decode are pure. Loop thread only otherwise.
 */
#ifndef P2MGUARD_CLIENT_AGENT_UNDO_H
#define P2MGUARD_CLIENT_AGENT_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNDO_HOOKS 64
#define UNDO_HOOK_NAME 64
#define UNDO_DOMID 16
#define UNDO_BOOT 40
#define UNDO_ONLINE 32

/* Room for any journal. */
#define UNDO_TEXT_MAX (512 + UNDO_HOOKS * (UNDO_HOOK_NAME + 8))

struct undo {
    char boot[UNDO_BOOT];
    uint32_t seq;
    char domid[UNDO_DOMID]; /* on which the guest was frozen; "" = not known */

    bool balloon;         /* target_kb was, or is about to be, written */
    bool balloon_covered; /* a read-only mount may lie over its folder */
    uint64_t target_kb;   /* what was there */
    uint64_t wrote_kb;    /* what we wrote last, or are about to */
    uint64_t before_kb;   /* and what we wrote before that: a killed agent may not have got round to the last */
    bool has_wanted;
    uint64_t wanted_kb; /* what somebody else asked for meanwhile */

    bool hotplug; /* auto_online_blocks was, or is about to be, written */
    bool hotplug_covered;
    char online[UNDO_ONLINE]; /* what was there */

    unsigned hook_count; /* hooks that were started with "freeze", in this order */
    char hooks[UNDO_HOOKS][UNDO_HOOK_NAME];
};

/* The length of the text, or -EMSGSIZE. */
int undo_encode(const struct undo *undo, char *text, size_t size);

/* -EINVAL when it is no journal; `undo` is left alone then. */
int undo_decode(const char *text, size_t length, struct undo *undo);

/* Letters, digits, '_' and '-', and short enough: as run-parts(8) has it, so that "README.dpkg-old" is no hook. */
bool undo_is_hook_name(const char *name);

/* Empty, of this boot. */
void undo_init(struct undo *undo);

/* The file is replaced as a whole: it is the old journal or the new one. */
int undo_save(const char *folder, const struct undo *undo);

/*
 * -ENOENT when there is none, or only one of another boot, which is removed. One that cannot be understood is taken
 * to say that mounts may have to be taken away, which is found out by looking.
 */
int undo_load(const char *folder, struct undo *undo);

int undo_remove(const char *folder);

#endif
