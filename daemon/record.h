/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sessions and events in the form the control socket shows them (protocol/CONTROL.md).
 *
 * Owns nothing. Functions return new references, NULL when memory ran out.
 */
#ifndef P2MGUARD_RECORD_H
#define P2MGUARD_RECORD_H

#include <jansson.h>

#include "daemon/session.h"

json_t *record_session(const struct session *session);
json_t *record_verdict(struct session *session, const struct verdict *verdict, bool final);
json_t *record_policy(const struct p2mg_policy *policy);
json_t *record_figures(const struct session_figures *figures);

/* The deferred target as a number, or null. */
json_t *record_deferred(const struct session *session);

/* Emits an event about a session; `format` and what follows are json_pack's, for an object of further members. */
void record_emit(const struct session *session, const char *type, const char *format, ...);

#endif
