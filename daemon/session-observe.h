/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a session does with what is seen of its guest (sight.h): when it is compared, who is told, and the verdict.
 *
 * The session's step is session.c's. Loop thread only.
 */
#ifndef P2MGUARD_SESSION_OBSERVE_H
#define P2MGUARD_SESSION_OBSERVE_H

#include "daemon/session.h"

/* The sight_tell of a session's sight. */
sight_tell session_tell_change;

/*
 * Its toolstack has done with this domain: the guest runs elsewhere, or nowhere. What is taken apart now says nothing
 * of the guest's layout; should it be the guest's again after all, it is compared again.
 */
bool session_is_over(const struct session *session);

/* An observation of its own, besides the poll's. */
void session_look(struct session *session);

/* Maps what can be mapped of the guest; failure is remembered and speaks against every proceed. */
void session_map(struct session *session);

/* The held guest is compared with the baseline from now on. */
void session_finish_baseline(struct session *session);

#endif
