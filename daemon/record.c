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
#include "daemon/writer.h"

/* Of an event's members, in the log. */
#define RECORD_LOG_MAX 1024

static uint64_t record_page_kib(const struct session *session)
{
    return hypervisor_page_kib(session->host->hypervisor);
}

static void record_write_known(struct writer *writer, const char *key, uint64_t kib, bool known)
{
    if (known)
        writer_number(writer, key, (int64_t)kib);
    else
        writer_null(writer, key);
}

static void record_write_deferred(struct writer *writer, const char *key, const struct session *session)
{
    const char *deferred = session->gate.journal.deferred;

    record_write_known(writer, key, strtoull(deferred, NULL, 10), *deferred);
}

static void record_write_wanted(struct writer *writer, const char *key, const struct session *session)
{
    record_write_known(writer, key, session_wanted_target_kib(session), session->gate.taken);
}

json_t *record_deferred(const struct session *session)
{
    struct writer writer = {0};

    record_write_deferred(&writer, NULL, session);
    return writer_take(&writer);
}

json_t *record_wanted(const struct session *session)
{
    struct writer writer = {0};

    record_write_wanted(&writer, NULL, session);
    return writer_take(&writer);
}

/* JSON's integers are signed here; a guest may write any 64 bits. */
static int64_t record_capped(uint64_t number)
{
    return number < INT64_MAX ? (int64_t)number : INT64_MAX;
}

json_t *record_number(uint64_t number)
{
    return json_integer(record_capped(number));
}

static json_t *record_address(uint64_t address)
{
    char text[32];

    snprintf(text, sizeof(text), "0x%" PRIx64, address);
    return json_string(text);
}

static const char *record_print_digest(uint64_t digest, char text[32])
{
    snprintf(text, 32, "%016" PRIx64, digest);
    return text;
}

json_t *record_digest(uint64_t digest)
{
    char text[32];

    return json_string(record_print_digest(digest, text));
}

json_t *record_place(const struct sharedinfo *info)
{
    return json_pack("{s:o,s:o,s:o,s:o}", "max_pfn", record_number(info->max_pfn), "p2m_cr3",
                     record_address(info->p2m_cr3), "p2m_vaddr", record_address(info->p2m_vaddr), "frame_list_list",
                     record_address(info->pfn_to_mfn_frame_list_list));
}

static void record_write_physmap(struct writer *writer, const char *key, const struct sight_figures *figures,
                                 uint64_t page_kib)
{
    if (!figures->has_physmap) {
        writer_null(writer, key);
        return;
    }
    writer_begin(writer, key, '{');
    writer_number(writer, "highest_kib", record_capped((figures->physmap.max_gfn + 1) * page_kib));
    writer_number(writer, "on_demand_kib", record_capped(figures->physmap.pod_entries * page_kib));
    writer_number(writer, "shared_kib", record_capped(figures->shared_kib));
    writer_number(writer, "paged_kib", record_capped(figures->paged_kib));
    writer_end(writer, '}');
}

json_t *record_physmap(const struct sight_figures *figures, uint64_t page_kib)
{
    struct writer writer = {0};

    record_write_physmap(&writer, NULL, figures, page_kib);
    return writer_take(&writer);
}

/* The members, for an object that may have more. */
static void record_write_members(struct writer *writer, const struct sight_figures *figures, uint64_t page_kib)
{
    char digest[32];

    writer_number(writer, "tot_kib", (int64_t)figures->tot_kib);
    writer_number(writer, "target_kib", (int64_t)figures->target_kib);
    record_write_known(writer, "generation", (uint64_t)record_capped(figures->info.p2m_generation),
                       figures->has_info && figures->info.p2m_cr3);
    writer_plain(writer, "structure", figures->has_structure ? record_print_digest(figures->structure, digest) : NULL);
    record_write_physmap(writer, "physmap", figures, page_kib);
    writer_number(writer, "time_ms", figures->time_ms);
}

static void record_write_figures(struct writer *writer, const char *key, const struct sight_figures *figures,
                                 uint64_t page_kib)
{
    writer_begin(writer, key, '{');
    record_write_members(writer, figures, page_kib);
    writer_end(writer, '}');
}

json_t *record_figures(const struct sight_figures *figures, uint64_t page_kib)
{
    struct writer writer = {0};

    record_write_figures(&writer, NULL, figures, page_kib);
    return writer_take(&writer);
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

static void record_write_policy(struct writer *writer, const char *key, const struct p2mg_policy *policy)
{
    writer_begin(writer, key, '{');
    writer_plain(writer, "require", p2mg_require_name(policy->require));
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        writer_number(writer, member->name, p2mg_policy_get(policy, member));
    writer_end(writer, '}');
}

json_t *record_policy(const struct p2mg_policy *policy)
{
    struct writer writer = {0};

    record_write_policy(&writer, NULL, policy);
    return writer_take(&writer);
}

/* The gate may have found another target than the watch had told of by then. */
static void record_write_steady(struct writer *writer, const char *key, const struct session *session)
{
    bool same = strtoull(session->gate.journal.target, NULL, 10) == session->steady_kib;

    record_write_known(writer, key, same ? (uint64_t)session->steady_ms : 0, session->gate.taken);
}

static void record_write_baseline(struct writer *writer, const char *key, const struct session *session)
{
    if (session->has_baseline)
        record_write_figures(writer, key, &session->sight.baseline, record_page_kib(session));
    else
        writer_null(writer, key);
}

/* Who it is, whose, and what has become of it. */
static void record_write_identity(struct writer *writer, const struct session *session)
{
    const struct session_options *options = &session->options;
    bool ended = session->ending != P2MG_REASON_NONE;

    writer_text(writer, "session", session->id);
    writer_number(writer, "domid", session->gate.journal.domid);
    writer_text(writer, "name", options->name);
    writer_text(writer, "uuid", session->gate.journal.uuid);
    writer_plain(writer, "state", p2mg_state_name(session_state(session)));
    writer_plain(writer, "phase", session_phase(session));
    writer_plain(writer, "reason", ended ? p2mg_reason_name(session->ending) : NULL);
    writer_plain(writer, "text", ended ? p2mg_reason_text(session->ending) : NULL);
    writer_plain(writer, "outcome", p2mg_outcome_name(session->outcome));
    writer_plain(writer, "hold", p2mg_hold_name(options->hold));
    writer_begin(writer, "owner", '{');
    writer_number(writer, "pid", options->pid);
    writer_number(writer, "uid", options->uid);
    writer_plain(writer, "via", options->from_xenstore ? "xenstore" : "socket");
    writer_text(writer, "caller", *options->caller ? options->caller : NULL);
    writer_end(writer, '}');
    record_write_policy(writer, "policy", &options->policy);
    writer_text(writer, "policy_section", *options->section ? options->section : NULL);
    writer_number(writer, "attempt", session->attempt);
    writer_number(writer, "begun_ms", session->begun_wall_ms);
}

static void record_write_sizes(struct writer *writer, const struct session *session)
{
    const struct journal *journal = &session->gate.journal;
    bool taken = session->gate.taken;

    record_write_known(writer, "target_kib", strtoull(journal->target, NULL, 10), taken);
    record_write_steady(writer, "target_steady_ms", session);
    record_write_deferred(writer, "deferred_target_kib", session);
    record_write_wanted(writer, "wanted_target_kib", session);
    record_write_known(writer, "pin_kib", strtoull(journal->pin, NULL, 10), *journal->pin);
    if (session->rest.learned)
        writer_number(writer, "offset_kib", session->rest.offset_kib);
    else
        writer_null(writer, "offset_kib");
    record_write_known(writer, "cap_kib", journal->cap_kib, taken);
    record_write_known(writer, "max_kib", journal->max_kib, taken);
}

void record_write_session(struct writer *writer, const char *key, const struct session *session)
{
    int64_t left_ms = session->begun_ms + session->options.policy.max_hold_ms - clock_now_ms();

    writer_begin(writer, key, '{');
    record_write_identity(writer, session);
    record_write_known(writer, "held_after_ms", (uint64_t)session->held_after_ms, session->held_after_ms >= 0);
    writer_number(writer, "deadline_in_ms", left_ms > 0 ? left_ms : 0);
    record_write_sizes(writer, session);
    record_write_baseline(writer, "baseline", session);
    writer_number(writer, "tot_kib", (int64_t)(session->sight.seen.tot_pages * record_page_kib(session)));
    writer_flag(writer, "suspended", session->sight.seen.suspended);
    writer_number(writer, "changes", (int64_t)session->sight.changes);
    writer_number(writer, "generation_changes", record_capped(session->sight.generation_steps / 2));
    writer_number(writer, "longest_gap_ms", session->sight.longest_gap_ms);
    record_write_known(writer, "applied_to", session->applied_to, session->applied_to);
    session_agent_write(writer, "agent", session);
    record_write_last_verdict(writer, "last_verdict", session);
    writer_end(writer, '}');
}

json_t *record_session(const struct session *session)
{
    struct writer writer = {0};

    record_write_session(&writer, NULL, session);
    return writer_take(&writer);
}

static void record_write_against(struct writer *writer, const char *key, const struct verdict_facts *facts)
{
    enum p2mg_reason reason;

    writer_begin(writer, key, '[');
    for (size_t i = 0; (reason = verdict_against(facts, i)) != P2MG_REASON_NONE; i++)
        writer_plain(writer, NULL, p2mg_reason_name(reason));
    writer_end(writer, ']');
}

json_t *record_against(const struct verdict_facts *facts)
{
    struct writer writer = {0};

    record_write_against(&writer, NULL, facts);
    return writer_take(&writer);
}

static void record_write_now(struct writer *writer, const char *key, const struct session *session,
                             const struct sight_figures *now)
{
    bool closed = session->gate.taken && !session->gate.open && session_state(session) == P2MG_STATE_HELD;

    writer_begin(writer, key, '{');
    record_write_members(writer, now, record_page_kib(session));
    writer_plain(writer, "gate", closed ? "closed" : "open");
    writer_end(writer, '}');
}

void record_write_verdict(struct writer *writer, const struct session *session, const struct verdict *verdict,
                          const struct verdict_facts *facts, const struct sight_figures *now, bool final)
{
    bool retry = verdict->verdict == P2MG_VERDICT_RETRY;

    writer_begin(writer, NULL, '{');
    writer_text(writer, "session", session->id);
    writer_plain(writer, "verdict", p2mg_verdict_name(verdict->verdict));
    writer_plain(writer, "reason", p2mg_reason_name(verdict->reason));
    writer_plain(writer, "text", p2mg_reason_text(verdict->reason));
    record_write_against(writer, "against", facts);
    writer_plain(writer, "phase", final ? "final" : "precopy");
    writer_number(writer, "attempt", session->attempt);
    writer_number(writer, "attempts", session->options.policy.attempts);
    writer_flag(writer, "suspended", session->sight.seen.suspended);
    record_write_baseline(writer, "baseline", session);
    record_write_now(writer, "now", session, now);
    writer_number(writer, "longest_gap_ms", facts->longest_gap_ms);
    writer_number(writer, "max_gap_ms", facts->max_gap_ms);
    record_write_deferred(writer, "deferred_target_kib", session);
    record_write_known(writer, "backoff_ms", retry ? (uint64_t)session_backoff_ms(session, session->attempt + 1) : 0,
                       retry);
    writer_end(writer, '}');
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
static void record_log(const struct session *session, const char *type, const char *reason, const char *members)
{
    struct log_subject subject = {session->gate.journal.domid, session->id, reason};
    int level = strcmp(type, "session.failed") == 0 || strcmp(type, "session.changed") == 0 ? LOG_WARNING : LOG_INFO;

    log_about(level, &subject, "%s {%s}", type, members);
}

/* As much of them as a line of the log may have. */
static void record_copy_members(char copy[RECORD_LOG_MAX], const struct writer *event, size_t from)
{
    size_t length = event->failed || event->used == from ? 0 : event->used - from - 1; /* without the first comma */

    if (length >= RECORD_LOG_MAX)
        length = RECORD_LOG_MAX - 1;
    if (length)
        memcpy(copy, event->text + from + 1, length);
    copy[length] = '\0';
}

void record_emit(const struct session *session, const char *type, const char *format, ...)
{
    char members[RECORD_LOG_MAX];
    va_list arguments;

    va_start(arguments, format);
    json_t *fields = json_vpack_ex(NULL, 0, format, arguments);
    va_end(arguments);
    if (!fields) {
        log_error("session %s: out of memory for the event %s", session->id, type);
        return;
    }
    struct writer *event = events_begin(session->host->events, type);
    size_t from = event->used;
    writer_members(event, fields);
    record_copy_members(members, event, from);
    writer_text(event, "session", session->id);
    writer_number(event, "domid", session->gate.journal.domid);
    writer_text(event, "name", session->options.name);
    events_end(session->host->events);
    record_note(session, type, fields);
    record_log(session, type, json_string_value(json_object_get(fields, "reason")), members);
    json_decref(fields);
}
