/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Guests that are being migrated to this same host: when the pin in a new domain's target is marked as one (gate_mark).
 *
 * What is marked is told from a toolstack's wish for the pin's own number. As long as that is also what the guest's
 * toolstack has asked for last, there is nothing to be told apart; and the guest stands still until its new domain
 * runs: what can wait is not asked of xenstored before.
 *
 * Which new domain a session has, and whether it is marked, is the session's. Loop thread only.
 */
#ifndef P2MGUARD_HEIRS_H
#define P2MGUARD_HEIRS_H

#include <event2/event.h>
#include <stdint.h>

#include "daemon/session.h"

struct heirs;

/* `sessions` is the list of those that live, at any time. -ENOMEM. */
int heirs_new(struct heirs **heirs, struct event_base *base, struct session *const *sessions);

/* Once the worker has ended. Accepts NULL. */
void heirs_free(struct heirs *heirs);

/* The session's guest has a new domain on this host, which has just been introduced, or is once more. */
void heirs_appeared(struct heirs *heirs, struct session *session, uint16_t heir);

/* The session's toolstack has asked for another target: what stands in the new domain's is older than this wish. */
void heirs_wished(struct heirs *heirs, struct session *session);

#endif
