/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon says to a guest's agent, and what it reads of the agent's answers.
 *
 * The request is dom0's node, ~/control/p2mguard: readable for the guest, charged to dom0, and gone with the journal
 * that names it (gate_restore). The answers are the guest's own nodes; whatever stands there is text from somebody
 * hostile until protocol/guest.h has parsed it, and what does not parse is no answer.
 *
 * Functions block on the store: worker thread only. 0 or a negative errno.
 */
#ifndef P2MGUARD_AGENT_H
#define P2MGUARD_AGENT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/gate.h"
#include "daemon/store.h"
#include "daemon/worker.h"
#include "protocol/guest.h"

/* The watch on an agent's answers bears this letter and the domid as its token. */
#define AGENT_WATCH_LETTER 'a'

struct agent_view {
    bool present; /* there is a list of features, in our protocol */
    struct p2mg_features features;
    bool answered; /* there is an answer, to whatever request */
    struct p2mg_answer answer;
};

/* Reads both nodes. What is absent, or cannot be parsed, is not in the view and no error. */
int agent_look(struct store *store, uint16_t domid, struct agent_view *view);

/* The answer alone: for those who have seen the features. */
int agent_listen(struct store *store, uint16_t domid, struct agent_view *view);

/*
 * Asks the gate's domain to freeze, and names the request in its journal, in one transaction; watches for the
 * answer. Asking again with the same seq renews the lease. -ENODATA: nobody is there to be asked; -ESRCH: the domain is
 * gone, or its domid has been given to another.
 */
int agent_ask(struct gate *gate, const struct worker_tools *tools, uint32_t seq, uint32_t lease_s,
              struct agent_view *view);

/* Writes the same request once more, which is what renews its lease. -ESTALE: another text stands there, or none. */
int agent_renew(struct store *store, uint16_t domid, uint32_t seq, uint32_t lease_s);

/* Takes the request back: absent means thawed. */
int agent_release(struct store *store, store_txn txn, uint16_t domid);

int agent_watch(struct store *store, uint16_t domid);
int agent_unwatch(struct store *store, uint16_t domid);

#endif
