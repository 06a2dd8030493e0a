/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session and its guest's agent: asking it to freeze, renewing the lease, hearing its answers.
 *
 * Owns session->agent. The agent's word is the guest's: it makes a verdict worse, never better. A session that does not
 * require it waits for it a moment and goes on without it. Loop thread only.
 */
#ifndef P2MGUARD_SESSION_AGENT_H
#define P2MGUARD_SESSION_AGENT_H

#include "daemon/session.h"
#include "daemon/writer.h"

int session_agent_make_timers(struct session *session);
void session_agent_free_timers(struct session *session);
void session_agent_quiet_timers(struct session *session);

/* The next attempt begins: what was done without is asked again. */
void session_agent_forget(struct session *session);

/* The job that asked is back: `error` is agent_ask's. */
void session_agent_asked(struct session *session, int error, const struct agent_view *view);

/* What stands in its nodes. */
void session_agent_hear(struct session *session, const struct agent_view *view);

/* It has answered "frozen" to the request that stands. */
bool session_agent_is_frozen(const struct session *session);

/* Everything that the policy requires of it is so. */
bool session_agent_holds(const struct session *session);

/* Why a session that requires it has not got it. */
enum p2mg_reason session_agent_reason(const struct session *session);

/* For clients: null when it was never asked. */
void session_agent_write(struct writer *writer, const char *key, const struct session *session);

#endif
