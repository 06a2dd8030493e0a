/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The target gate and the cap: what is done to one domain to make it hold still, and how it is put back.
 *
 * A closed gate is ~/memory and ~/memory/target both "n0": the guest gets no event and no value, and a target that is
 * removed and written again is born closed. An open gate shows the target alone (~/memory stays closed) and is used
 * just long enough for the guest to read the pin. The cap is max_pages at the guest's size: the hypervisor then
 * refuses growth.
 *
 * The pin is written with a leading zero ("0262144"). Everybody reads the same number, and a toolstack that asks
 * for exactly the pinned size is still told apart from ourselves, so that its wish is not lost.
 *
 * Functions block on the store: worker thread only. The caller owns struct gate and passes it to one call at a time.
 * They return 0 or a negative errno; -ESRCH means that the domain is gone (or its domid has been given to another).
 */
#ifndef P2MGUARD_GATE_H
#define P2MGUARD_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/journal.h"
#include "daemon/worker.h"

/*
 * When the connection is lost before a commit is answered, nobody knows whether it was made. The store does: what it
 * writes and the journal that says so are one transaction.
 */
enum gate_doubt { GATE_SURE, GATE_PERHAPS_CHANGED, GATE_PERHAPS_RESTORED };

struct gate {
    struct journal journal; /* as it stands in the store, once taken */
    bool taken;
    bool open;
    bool left;             /* nobody says how a migration ends: a new domain that has no target yet is waited for */
    enum gate_doubt doubt; /* for the caller to set, after -ENOTCONN; resolved by the next call */
};

/* What a call found, beside doing what it was asked. */
struct gate_report {
    uint64_t tot_pages;
    uint64_t target_kib; /* as the toolstack would read it now, the pin included */
    bool deferred;       /* a toolstack had written a target; the pin went back */
    bool cap_restored;   /* a toolstack had set max_pages; the cap went back */
    bool reopened;       /* somebody had changed the permissions; they went back */
    bool balloon_active; /* ~/control/balloon-active is "1" */
};

/*
 * For within a transaction: 0 when the domain is there, and still the gate's. One that is there after the transaction
 * has begun has the nodes that it reads, and one that takes its number later makes the commit fail: oxenstored makes a
 * commit all the same when every answer in it would be the same again, which is why ~/vm, with the uuid in it, is read.
 */
int gate_check(const struct gate *gate, const struct worker_tools *tools, store_txn txn);

/*
 * Closes the gate over a domain and caps it at its size, journal first. journal.domid, uuid and session must be filled
 * in. -EEXIST: there is a journal of it already; -ENODATA: there is no memory/target, or it is not a number;
 * -EHOSTDOWN: the guest has not come up far enough to have read its first target (only looked at when `young`). With
 * `pin_kib`, a target of that number is pinned at once.
 */
int gate_take(struct gate *gate, const struct worker_tools *tools, bool young, uint64_t pin_kib,
              struct gate_report *report);

/*
 * Makes the store and the hypervisor be as they should: the pin in the target (pin_kib; 0 = leave what is there, unless
 * somebody else wrote), the gate open or closed, the cap at cap_pages (0 = as it was). Whatever a toolstack wrote since
 * is kept in the journal. Without a difference this costs three reads.
 */
int gate_sync(struct gate *gate, const struct worker_tools *tools, uint64_t pin_kib, bool open, uint64_t cap_pages,
              struct gate_report *report);

/*
 * Puts everything back and drops the journal. `gate` may come from gate_take or from journal_read. A domain that is
 * gone only loses its journal. May be called again after any failure, and after one of gate_take when that left a
 * doubt.
 */
int gate_restore(struct gate *gate, const struct worker_tools *tools);

/*
 * A migration to this same host makes a second domain with the guest's uuid, whose target is the pin's number, read
 * from the old one's configuration. Writes it there as the pin is written, with its zero, while nobody else has written
 * to that domain yet: so that a toolstack that asks it for the very same number is told apart later. -ENOENT: it has no
 * target yet, or there is no pin (any more). -ESRCH: it is gone, or another guest's by now.
 */
int gate_mark(const struct journal *journal, const struct worker_tools *tools, uint16_t domid);

/*
 * gate_restore after a migration to this same host, or of what an earlier daemon left: also gives the guest's new
 * domain the target that the old one was kept from, with max_pages as far from it as before. Only where gate_mark's
 * text still stands, or the pin's number in a domain that was never marked: any other is a newer wish. The journal
 * stays until that is done. *domid is the new domain's, or 0 when nothing was to be done. -EINPROGRESS, where the gate
 * was `left`: all is put back, and the new domain has no target yet; to be called again, with the journal as it is
 * then.
 */
int gate_hand_over(struct gate *gate, const struct worker_tools *tools, uint16_t *domid);

#endif
