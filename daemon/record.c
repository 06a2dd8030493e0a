/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/record.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"

static json_t *record_kib_or_null(uint64_t kib, bool known)
{
    return known ? json_integer((json_int_t)kib) : json_null();
}

static uint64_t record_page_kib(const struct session *session)
{
    return hypervisor_page_kib(session->host->hypervisor);
}

json_t *record_deferred(const struct session *session)
{
    const char *deferred = session->gate.journal.deferred;

    return record_kib_or_null(strtoull(deferred, NULL, 10), *deferred);
}

json_t *record_figures(const struct session_figures *figures)
{
    return json_pack("{s:I,s:I,s:o,s:I}", "tot_kib", (json_int_t)figures->tot_kib, "target_kib",
                     (json_int_t)figures->target_kib, "generation",
                     figures->has_generation ? json_integer((json_int_t)figures->generation) : json_null(), "time_ms",
                     (json_int_t)figures->time_ms);
}

json_t *record_policy(const struct p2mg_policy *policy)
{
    json_t *object = json_pack("{s:s}", "require", p2mg_require_name(policy->require));

    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name && object; member++) {
        if (json_object_set_new(object, member->name, json_integer(p2mg_policy_get(policy, member))) < 0) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

/* json_pack frees what it was given with "o" when it fails, and fails when any of it is NULL. */
json_t *record_session(const struct session *session)
{
    const struct journal *journal = &session->gate.journal;
    const struct session_options *options = &session->options;
    bool ended = session->ending != P2MG_REASON_NONE;
    int64_t left_ms = session->begun_ms + options->policy.max_hold_ms - clock_now_ms();
    json_t *object = json_pack(
        "{s:s,s:i,s:s,s:s,s:s,s:s?,s:s?,s:s?,s:s,s:s,s:{s:I,s:I},s:o,s:I,s:I}", "session", session->id, "domid",
        (int)journal->domid, "name", options->name, "uuid", journal->uuid, "state",
        p2mg_state_name(session_state(session)), "phase", session_phase(session), "reason",
        ended ? p2mg_reason_name(session->ending) : NULL, "text", ended ? p2mg_reason_text(session->ending) : NULL,
        "outcome", p2mg_outcome_name(session->outcome), "hold", options->detached ? "detached" : "connection", "owner",
        "pid", (json_int_t)options->pid, "uid", (json_int_t)options->uid, "policy", record_policy(&options->policy),
        "attempt", (json_int_t)session->attempt, "begun_ms", (json_int_t)session->begun_wall_ms);
    json_t *sizes = json_pack("{s:o,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:b,s:I,s:I,s:o}", "held_after_ms",
                              session->held_after_ms < 0 ? json_null() : json_integer(session->held_after_ms),
                              "deadline_in_ms", (json_int_t)(left_ms > 0 ? left_ms : 0), "target_kib",
                              record_kib_or_null(strtoull(journal->target, NULL, 10), session->gate.taken),
                              "deferred_target_kib", record_deferred(session), "wanted_target_kib",
                              record_kib_or_null(session_wanted_target_kib(session), session->gate.taken), "pin_kib",
                              record_kib_or_null(strtoull(journal->pin, NULL, 10), *journal->pin), "offset_kib",
                              session->rest.learned ? json_integer(session->rest.offset_kib) : json_null(), "cap_kib",
                              record_kib_or_null(journal->cap_kib, session->gate.taken), "max_kib",
                              record_kib_or_null(journal->max_kib, session->gate.taken), "baseline",
                              session->has_baseline ? record_figures(&session->baseline) : json_null(), "tot_kib",
                              (json_int_t)(session->seen.tot_pages * record_page_kib(session)), "suspended",
                              (int)session->seen.suspended, "changes", (json_int_t)session->changes, "longest_gap_ms",
                              (json_int_t)session->longest_gap_ms, "applied_to",
                              session->applied_to ? json_integer(session->applied_to) : json_null());

    if (!object || !sizes || json_object_update_missing(object, sizes) < 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(sizes);
    return object;
}

json_t *record_verdict(struct session *session, const struct verdict *verdict, bool final)
{
    struct session_figures now = {.tot_kib = session->seen.tot_pages * record_page_kib(session),
                                  .target_kib = session->report.target_kib,
                                  .time_ms = clock_wall_ms()};
    bool closed = session->gate.taken && !session->gate.open && session_state(session) == P2MG_STATE_HELD;

    now.has_generation = session->p2m && hypervisor_read_generation(session->p2m, &now.generation);
    json_t *figures = record_figures(&now);
    if (figures && json_object_set_new(figures, "gate", json_string(closed ? "closed" : "open")) < 0) {
        json_decref(figures);
        figures = NULL;
    }
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I,s:b,s:o,s:o,s:I,s:I,s:o}", "session", session->id, "verdict",
                     p2mg_verdict_name(verdict->verdict), "reason", p2mg_reason_name(verdict->reason), "text",
                     p2mg_reason_text(verdict->reason), "phase", final ? "final" : "precopy", "attempt",
                     (json_int_t)session->attempt, "attempts", (json_int_t)session->options.policy.attempts,
                     "suspended", (int)session->seen.suspended, "baseline",
                     session->has_baseline ? record_figures(&session->baseline) : json_null(), "now", figures,
                     "longest_gap_ms", (json_int_t)session->longest_gap_ms, "max_gap_ms",
                     (json_int_t)session->host->max_gap_ms, "deferred_target_kib", record_deferred(session));
}

/* The log gets every event as well: what an operator reads there and what a client sees are the same story. */
static void record_log(const struct session *session, const char *type, const json_t *fields)
{
    const char *reason = json_string_value(json_object_get(fields, "reason"));
    struct log_subject subject = {session->gate.journal.domid, session->id, reason};
    char *text = json_dumps(fields, JSON_COMPACT);
    int level = strcmp(type, "session.failed") == 0 || strcmp(type, "session.changed") == 0 ? LOG_WARNING : LOG_INFO;

    log_about(level, &subject, "%s %s", type, text ? text : "");
    free(text);
}

void record_emit(const struct session *session, const char *type, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    json_t *fields = json_vpack_ex(NULL, 0, format, arguments);
    va_end(arguments);
    if (!fields) {
        log_error("session %s: out of memory for the event %s", session->id, type);
        return;
    }
    record_log(session, type, fields);
    if (json_object_set_new(fields, "session", json_string(session->id)) < 0 ||
        json_object_set_new(fields, "domid", json_integer(session->gate.journal.domid)) < 0 ||
        json_object_set_new(fields, "name", json_string(session->options.name)) < 0) {
        json_decref(fields);
        return;
    }
    events_emit(session->host->events, type, fields);
}
