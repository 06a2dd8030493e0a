/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/record.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/session-agent.h"

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

json_t *record_wanted(const struct session *session)
{
    return record_kib_or_null(session_wanted_target_kib(session), session->gate.taken);
}

/* JSON's integers are signed here; a guest may write any 64 bits. */
json_t *record_number(uint64_t number)
{
    return json_integer(number < INT64_MAX ? (json_int_t)number : INT64_MAX);
}

static json_t *record_address(uint64_t address)
{
    char text[32];

    snprintf(text, sizeof(text), "0x%" PRIx64, address);
    return json_string(text);
}

json_t *record_digest(uint64_t digest)
{
    char text[32];

    snprintf(text, sizeof(text), "%016" PRIx64, digest);
    return json_string(text);
}

json_t *record_place(const struct sharedinfo *info)
{
    return json_pack("{s:o,s:o,s:o,s:o}", "max_pfn", record_number(info->max_pfn), "p2m_cr3",
                     record_address(info->p2m_cr3), "p2m_vaddr", record_address(info->p2m_vaddr), "frame_list_list",
                     record_address(info->pfn_to_mfn_frame_list_list));
}

json_t *record_physmap(const struct sight_figures *figures, uint64_t page_kib)
{
    if (!figures->has_physmap)
        return json_null();
    return json_pack("{s:o,s:o,s:o,s:o}", "highest_kib", record_number((figures->physmap.max_gfn + 1) * page_kib),
                     "on_demand_kib", record_number(figures->physmap.pod_entries * page_kib), "shared_kib",
                     record_number(figures->shared_kib), "paged_kib", record_number(figures->paged_kib));
}

json_t *record_figures(const struct sight_figures *figures, uint64_t page_kib)
{
    bool has_generation = figures->has_info && figures->info.p2m_cr3;

    return json_pack("{s:I,s:I,s:o,s:o,s:o,s:I}", "tot_kib", (json_int_t)figures->tot_kib, "target_kib",
                     (json_int_t)figures->target_kib, "generation",
                     has_generation ? record_number(figures->info.p2m_generation) : json_null(), "structure",
                     figures->has_structure ? record_digest(figures->structure) : json_null(), "physmap",
                     record_physmap(figures, page_kib), "time_ms", (json_int_t)figures->time_ms);
}

static json_t *record_range(const struct p2m *p2m)
{
    if (p2m->kind != P2M_LIST)
        return json_null();
    return json_pack("{s:o,s:o}", "first_vaddr", record_address(p2m->first_vaddr), "last_vaddr",
                     record_address(p2m->last_vaddr));
}

static json_t *record_problem(const struct survey_result *survey)
{
    if (!survey->problem)
        return json_null();
    return json_pack("{s:s,s:s,s:i,s:o}", "problem", p2m_problem_name(survey->problem), "text",
                     p2m_problem_text(survey->problem), "level", (int)survey->problem_level, "leaf",
                     record_number(survey->problem_leaf));
}

json_t *record_p2m(const struct survey_result *survey)
{
    const struct p2m *p2m = &survey->p2m;
    const struct sharedinfo *info = &survey->info;
    bool found = p2m->kind != P2M_NONE;

    return json_pack("{s:s,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "kind", p2m_kind_name(p2m->kind), "width_bits",
                     (int)info->width * 8, "levels", found ? json_integer(p2m->levels) : json_null(), "root_mfn",
                     found ? record_address(p2m->root) : json_null(), "range", record_range(p2m), "max_pfn",
                     record_number(info->max_pfn), "generation",
                     info->p2m_cr3 ? record_number(info->p2m_generation) : json_null(), "structure_pages",
                     survey->stands ? record_number(survey->pages) : json_null(), "structure",
                     survey->stands ? record_digest(survey->digest) : json_null(), "problem", record_problem(survey));
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

/* The gate may have found another target than the watch had told of by then. */
static json_t *record_steady(const struct session *session)
{
    if (!session->gate.taken)
        return json_null();
    return json_integer(strtoull(session->gate.journal.target, NULL, 10) == session->steady_kib ? session->steady_ms
                                                                                                : 0);
}

/* json_pack frees what it was given with "o" when it fails, and fails when any of it is NULL. */
json_t *record_session(const struct session *session)
{
    const struct journal *journal = &session->gate.journal;
    const struct session_options *options = &session->options;
    bool ended = session->ending != P2MG_REASON_NONE;
    int64_t left_ms = session->begun_ms + options->policy.max_hold_ms - clock_now_ms();
    json_t *object = json_pack(
        "{s:s,s:i,s:s,s:s,s:s,s:s?,s:s?,s:s?,s:s,s:s,s:{s:I,s:I,s:s,s:s?},s:o,s:s?,s:I,s:I}", "session", session->id,
        "domid", (int)journal->domid, "name", options->name, "uuid", journal->uuid, "state",
        p2mg_state_name(session_state(session)), "phase", session_phase(session), "reason",
        ended ? p2mg_reason_name(session->ending) : NULL, "text", ended ? p2mg_reason_text(session->ending) : NULL,
        "outcome", p2mg_outcome_name(session->outcome), "hold", p2mg_hold_name(options->hold), "owner", "pid",
        (json_int_t)options->pid, "uid", (json_int_t)options->uid, "via",
        options->from_xenstore ? "xenstore" : "socket", "caller", *options->caller ? options->caller : NULL, "policy",
        record_policy(&options->policy), "policy_section", *options->section ? options->section : NULL, "attempt",
        (json_int_t)session->attempt, "begun_ms", (json_int_t)session->begun_wall_ms);
    json_t *sizes = json_pack(
        "{s:o,s:I,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:I,s:b,s:I,s:o,s:I,s:o,s:o,s:o}", "held_after_ms",
        session->held_after_ms < 0 ? json_null() : json_integer(session->held_after_ms), "deadline_in_ms",
        (json_int_t)(left_ms > 0 ? left_ms : 0), "target_kib",
        record_kib_or_null(strtoull(journal->target, NULL, 10), session->gate.taken), "target_steady_ms",
        record_steady(session), "deferred_target_kib", record_deferred(session), "wanted_target_kib",
        record_wanted(session), "pin_kib", record_kib_or_null(strtoull(journal->pin, NULL, 10), *journal->pin),
        "offset_kib", session->rest.learned ? json_integer(session->rest.offset_kib) : json_null(), "cap_kib",
        record_kib_or_null(journal->cap_kib, session->gate.taken), "max_kib",
        record_kib_or_null(journal->max_kib, session->gate.taken), "baseline",
        session->has_baseline ? record_figures(&session->sight.baseline, record_page_kib(session)) : json_null(),
        "tot_kib", (json_int_t)(session->sight.seen.tot_pages * record_page_kib(session)), "suspended",
        (int)session->sight.seen.suspended, "changes", (json_int_t)session->sight.changes, "generation_changes",
        record_number(session->sight.generation_steps / 2), "longest_gap_ms", (json_int_t)session->sight.longest_gap_ms,
        "applied_to", session->applied_to ? json_integer(session->applied_to) : json_null(), "agent",
        session_agent_record(session), "last_verdict", record_last_verdict(session));

    if (!object || !sizes || json_object_update_missing(object, sizes) < 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(sizes);
    return object;
}

json_t *record_against(const struct verdict_facts *facts)
{
    json_t *list = json_array();
    enum p2mg_reason reason;

    for (size_t i = 0; list && (reason = verdict_against(facts, i)) != P2MG_REASON_NONE; i++) {
        if (json_array_append_new(list, json_string(p2mg_reason_name(reason))) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    return list;
}

static json_t *record_now(const struct session *session, const struct sight_figures *now)
{
    bool closed = session->gate.taken && !session->gate.open && session_state(session) == P2MG_STATE_HELD;
    json_t *figures = record_figures(now, record_page_kib(session));

    if (figures && json_object_set_new(figures, "gate", json_string(closed ? "closed" : "open")) < 0) {
        json_decref(figures);
        figures = NULL;
    }
    return figures;
}

json_t *record_verdict(const struct session *session, const struct verdict *verdict, const struct verdict_facts *facts,
                       const struct sight_figures *now, bool final)
{
    return json_pack(
        "{s:s,s:s,s:s,s:s,s:o,s:s,s:I,s:I,s:b,s:o,s:o,s:I,s:I,s:o,s:o}", "session", session->id, "verdict",
        p2mg_verdict_name(verdict->verdict), "reason", p2mg_reason_name(verdict->reason), "text",
        p2mg_reason_text(verdict->reason), "against", record_against(facts), "phase", final ? "final" : "precopy",
        "attempt", (json_int_t)session->attempt, "attempts", (json_int_t)session->options.policy.attempts, "suspended",
        (int)session->sight.seen.suspended, "baseline",
        session->has_baseline ? record_figures(&session->sight.baseline, record_page_kib(session)) : json_null(), "now",
        record_now(session, now), "longest_gap_ms", (json_int_t)facts->longest_gap_ms, "max_gap_ms",
        (json_int_t)facts->max_gap_ms, "deferred_target_kib", record_deferred(session), "backoff_ms",
        verdict->verdict == P2MG_VERDICT_RETRY ? json_integer(session_backoff_ms(session, session->attempt + 1))
                                               : json_null());
}

json_t *record_agent(const struct agent_view *view)
{
    json_t *features = json_array();

    if (!view->present) {
        json_decref(features);
        return json_null();
    }
    for (unsigned bit = 0; features && bit < 8 * sizeof(view->features.has); bit++) {
        if (view->features.has & 1u << bit &&
            json_array_append_new(features, json_string(p2mg_feature_name((enum p2mg_feature)(1u << bit)))) < 0) {
            json_decref(features);
            features = NULL;
        }
    }
    bool refused = view->answered && view->answer.kind == P2MG_ANSWER_REFUSED;
    return json_pack("{s:I,s:s?,s:o,s:s?,s:o,s:s?}", "protocol", (json_int_t)view->features.protocol, "version",
                     *view->features.version ? view->features.version : NULL, "features", features, "state",
                     view->answered ? p2mg_answer_name(view->answer.kind) : NULL, "seq",
                     view->answered ? json_integer(view->answer.seq) : json_null(), "text",
                     refused ? view->answer.text : NULL);
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
    record_note(session, type, fields);
    if (json_object_set_new(fields, "session", json_string(session->id)) < 0 ||
        json_object_set_new(fields, "domid", json_integer(session->gate.journal.domid)) < 0 ||
        json_object_set_new(fields, "name", json_string(session->options.name)) < 0) {
        json_decref(fields);
        return;
    }
    events_emit(session->host->events, type, fields);
}
