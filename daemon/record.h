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
#include "daemon/writer.h"

/* What stands in the nodes of a guest's agent; null when there is none. */
json_t *record_agent(const struct agent_view *view);

/* A session, and a verdict on it: asked for again and again, and so written without a tree (writer.h). */
void record_write_session(struct writer *writer, const char *key, const struct session *session);
void record_write_verdict(struct writer *writer, const struct session *session, const struct verdict *verdict,
                          const struct verdict_facts *facts, const struct sight_figures *now, bool final);

json_t *record_session(const struct session *session);
json_t *record_policy(const struct p2mg_policy *policy);
json_t *record_figures(const struct sight_figures *figures, uint64_t page_kib);
json_t *record_p2m(const struct survey_result *survey);

/* The names of all reasons that speak against proceed. */
json_t *record_against(const struct verdict_facts *facts);

/* Parts of them. A number that a guest writes is capped at what JSON can hold, 2^63 - 1. */
json_t *record_number(uint64_t number);
json_t *record_digest(uint64_t digest);
json_t *record_place(const struct sharedinfo *info);
json_t *record_physmap(const struct sight_figures *figures, uint64_t page_kib);

/* The deferred target as a number, or null; and the target that will be put back, null until one has been read. */
json_t *record_deferred(const struct session *session);
json_t *record_wanted(const struct session *session);

/*
 * What became of a session, live or gone; and the same in a few words. history-record.c has these, and what writes an
 * event down for them.
 */
json_t *record_history(const struct session *session);
json_t *record_history_summary(const struct session *session);
void record_note(const struct session *session, const char *type, const json_t *fields);

/* The last final verdict that was given, or null. */
void record_write_last_verdict(struct writer *writer, const char *key, const struct session *session);

/* Emits an event about a session; `format` and what follows are json_pack's, for an object of further members. */
void record_emit(const struct session *session, const char *type, const char *format, ...);

#endif
