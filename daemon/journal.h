/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What must be put back, as it stands in xenstore.
 *
 * One node per domain under guard, /tool/p2mguard/session/DOMID/restore, that only dom0 can read. It is written before
 * (or in the same transaction as) what it describes, and goes away in the transaction that puts everything back, so
 * that at any instruction the store holds enough to undo what was done. One node and not one per field: a single
 * write replaces all of it or nothing.
 *
 * The text is lines of "KEY VALUE"; unknown keys are an error, because a daemon that does not understand a journal must
 * not pretend to have put everything back. Encoding and decoding are pure; reading and writing are for the worker
 * thread.
 */
#ifndef P2MGUARD_JOURNAL_H
#define P2MGUARD_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/store.h"

#define JOURNAL_ROOT "/tool/p2mguard"
#define JOURNAL_SESSIONS JOURNAL_ROOT "/session"

/* oxenstored takes at most 2048 bytes a value, from dom0 too. */
#define JOURNAL_TEXT_MAX 2048

/* Room for any number of KiB in decimal, a leading zero and the terminator. */
#define JOURNAL_TARGET_MAX 24

#define JOURNAL_SESSION_MAX 32
#define JOURNAL_PRIVATE_MAX 512

struct journal {
    uint16_t domid;
    char session[JOURNAL_SESSION_MAX];
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    char memory_perms[STORE_PERMS_MAX];
    char target_perms[STORE_PERMS_MAX];
    char target[JOURNAL_TARGET_MAX];         /* as it was at the begin */
    char deferred[JOURNAL_TARGET_MAX];       /* the toolstack's latest since, or "" */
    char pin[JOURNAL_TARGET_MAX];            /* what this daemon wrote in its place, or "" */
    char private_nodes[JOURNAL_PRIVATE_MAX]; /* children of ~/memory that were "n0" before; names with blanks between */
    uint64_t max_kib;                        /* the toolstack's latest max_pages */
    uint64_t cap_kib;      /* what this daemon set, or is about to set, in its place; 0 = nothing yet */
    uint64_t agent_seq;    /* of the request to the guest's agent that is to be taken back; 0 = none */
    uint64_t cap_past_kib; /* the cap before that one: a crash may have come before the change; 0 = none */
};

/* -EMSGSIZE when it does not fit. */
int journal_encode(const struct journal *journal, char *text, size_t size);

/* -EINVAL when the text is not one that journal_encode made. `journal` is all zero or complete afterwards. */
int journal_decode(const char *text, struct journal *journal);

/* Makes the root, unreadable for guests. To be called on every new connection. */
int journal_prepare(struct store *store);

int journal_write(struct store *store, store_txn txn, const struct journal *journal);
int journal_read(struct store *store, store_txn txn, uint16_t domid, struct journal *journal);
int journal_drop(struct store *store, store_txn txn, uint16_t domid);

/*
 * Beside the journal: the guest's new domain on this host, once its target was marked as the pin (gate_mark). 0 when
 * none was. Goes with the journal. Writing is -ENOENT when there is no journal (any more).
 */
int journal_write_heir(struct store *store, store_txn txn, uint16_t domid, uint16_t heir);
int journal_read_heir(struct store *store, uint16_t domid, uint16_t *heir);

/* Beside the journal as well: what max_pages of the new domain is about to be. Goes with the journal. */
struct journal_raise {
    uint16_t domid;     /* 0 = none */
    uint64_t max_kib;   /* the toolstack's */
    uint64_t given_kib; /* what this daemon set, or is about to set, in its place */
    uint64_t past_kib;  /* and before that: a crash may have come before the change; 0 = nothing */
};

int journal_write_raise(struct store *store, uint16_t domid, const struct journal_raise *raise);
int journal_read_raise(struct store *store, uint16_t domid, struct journal_raise *raise);

/*
 * Beside the journal: all of it was put back, and what is left is a wish that the guest's new domain is to be given
 * once it has a target. Nobody is held by such a journal. Goes with it. Writing is -ENOENT when there is none (any
 * more).
 */
int journal_write_passing(struct store *store, uint16_t domid);
int journal_read_passing(struct store *store, store_txn txn, uint16_t domid, bool *passing);

/* Calls `each` with the domid of every journal there is; stops at a non-zero answer and returns it. */
int journal_each(struct store *store, int (*each)(void *context, uint16_t domid), void *context);

/* The target that is to be put back: the toolstack's latest, else the one from before. */
const char *journal_wanted_target(const struct journal *journal);

/* True for what a toolstack may write as a target: decimal digits that fit. */
bool journal_is_target(const char *text);

#endif
