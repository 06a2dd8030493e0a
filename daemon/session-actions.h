/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the rows of a session's table do and ask: session_rules in session.c names them.
 *
 * An action is called once the step of its row has been entered; one that needs xenstored or the surveyor hands a job
 * over, and what comes of it is an event later on. Loop thread only.
 */
#ifndef P2MGUARD_SESSION_ACTIONS_H
#define P2MGUARD_SESSION_ACTIONS_H

#include <stdbool.h>

#include "daemon/session.h"

void action_take(struct session *session);
void action_wait_until_up(struct session *session);
void action_expose(struct session *session);
void action_trust_rest(struct session *session);
void action_open_window(struct session *session);
void action_sync(struct session *session);
void action_close(struct session *session);
void action_ask(struct session *session);
void action_await_agent(struct session *session);
void action_do_without_agent(struct session *session);
void action_fail_agent(struct session *session);
void action_settle(struct session *session);
void action_settle_again(struct session *session);
void action_baseline(struct session *session);
void action_survey(struct session *session);
void action_hold(struct session *session);
void action_back_off(struct session *session);
void action_retry_at_once(struct session *session);
void action_look_later(struct session *session);
void action_restore(struct session *session);
void action_thaw(struct session *session);
void action_give_up(struct session *session);
void action_fail(struct session *session);
void action_time_out(struct session *session);
void action_fail_unreadable(struct session *session);
void action_give_up_waiting(struct session *session);
void action_end_of_domain(struct session *session);
void action_restore_later(struct session *session);
void action_bury(struct session *session);

bool guard_needs_gate_only(struct session *session);
bool guard_gate_was_open(struct session *session);
bool guard_wants_agent(struct session *session);
bool guard_agent_is_frozen(struct session *session);
bool guard_agent_is_at_it(struct session *session);
bool guard_agent_thawed(struct session *session);
bool guard_agent_may_come(struct session *session);
bool guard_agent_is_awaited(struct session *session);
bool guard_agent_is_required(struct session *session);
bool guard_agent_is_lost(struct session *session);
bool guard_was_pinned(struct session *session);
bool guard_is_at_rest(struct session *session);
bool guard_baseline_holds(struct session *session);
bool guard_size_moved(struct session *session);
bool guard_survey_stands(struct session *session);
bool guard_survey_may_pass(struct session *session);

/* It could not be held, for this reason. */
void session_fail(struct session *session, enum p2mg_reason reason);

/* An attempt's time to hold begins. */
void session_begin_freezing(struct session *session, int64_t now_ms);

#endif
