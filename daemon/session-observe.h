/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is seen of a guest under guard: its figures, surveys of its p2m, and the comparison with the baseline.
 *
 * Writes those members of struct session that hold what was seen; the session's step is session.c's. Loop thread only.
 */
#ifndef P2MGUARD_SESSION_OBSERVE_H
#define P2MGUARD_SESSION_OBSERVE_H

#include "daemon/session.h"

uint64_t session_page_kib(const struct session *session);
uint64_t session_tot_kib(const struct session *session);

/* An observation of its own, besides the poll's. */
void session_look(struct session *session);

/* Maps what can be mapped of the guest; failure is remembered and speaks against every proceed. */
void session_map(struct session *session);
void session_unmap(struct session *session);

/* The baseline begins: from now on the guest must not change. Everything but the structure and the target. */
void session_begin_baseline(struct session *session);

/* The held guest is compared with the baseline from now on. */
void session_finish_baseline(struct session *session);

/*
 * Surveys the p2m. 0: the result is in `surveyed`, or there is nothing to survey; -E2BIG: this takes the surveyor.
 */
int session_survey(struct session *session);

/* What the surveyor found. */
void session_take_survey(struct session *session, int error, const struct survey_result *result);

/* What the survey found can be relied on; a guest without a p2m of its own needs none. */
bool session_survey_stands(const struct session *session);

/* It can, and so can the look at the tables near the root that completes it: both become part of the baseline. */
bool session_take_baseline_survey(struct session *session);

/* It could not be read just now, and looking again may help. */
bool session_survey_may_pass(const struct session *session);

/* Compares a survey with the baseline's. */
void session_compare_survey(struct session *session);

#endif
