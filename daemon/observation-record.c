/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Observations in the form the control socket and the log show them (protocol/CONTROL.md). */
#include "daemon/observation.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/record.h"

static const char *observation_outcome_name(enum observation_outcome outcome)
{
    static const char *const names[] = {"unknown", "completed", "stayed", "lost"};

    return names[outcome];
}

static json_t *observation_baseline(const struct observation *observation)
{
    return record_figures(&observation->sight.baseline, sight_page_kib(&observation->sight));
}

/* From the helper's start to its end, or to now. */
static int64_t observation_duration_ms(const struct observation *observation)
{
    int64_t end_ms = observation->ended_ms ? observation->ended_ms : clock_now_ms();

    return end_ms > observation->helper.started_ms ? end_ms - observation->helper.started_ms : 0;
}

/*
 * What was judged, or would be now. One that gave way before its helper ended has no verdict: the session gives one.
 * Takes `more`; NULL when memory runs out.
 */
static json_t *observation_add_judgement(const struct observation *observation, bool gave_way, json_t *more)
{
    struct verdict_facts facts = observation->facts;
    struct verdict verdict = observation->judged ? observation->verdict : observation_judge(observation, &facts);
    enum p2mg_reason reason = gave_way ? P2MG_REASON_UNDER_GUARD : verdict.reason;
    const struct sight *sight = &observation->sight;
    json_t *judgement =
        json_pack("{s:s?,s:s,s:s,s:o,s:I,s:o,s:I,s:I,s:I}", "verdict",
                  gave_way ? NULL : p2mg_verdict_name(verdict.verdict), "reason", p2mg_reason_name(reason), "text",
                  p2mg_reason_text(reason), "against", gave_way ? json_array() : record_against(&facts), "changes",
                  (json_int_t)sight->changes, "generation_changes", record_number(sight->generation_steps / 2),
                  "target_changes", (json_int_t)observation->target_changes, "longest_gap_ms",
                  (json_int_t)sight->longest_gap_ms, "duration_ms", (json_int_t)observation_duration_ms(observation));

    if (!more || !judgement || json_object_update(more, judgement) < 0) {
        json_decref(more);
        more = NULL;
    }
    json_decref(judgement);
    return more;
}

static const char *observation_state(const struct observation *observation)
{
    static const char *const names[OBSERVATION_STEPS] = {"baseline", "watched", "closing", "ended", "ended"};

    return names[observation->step];
}

json_t *observation_record(const struct observation *observation)
{
    const struct helper *helper = &observation->helper;
    const struct sight *sight = &observation->sight;
    bool over = observation->step == OBSERVATION_OVER;
    json_t *record =
        json_pack("{s:i,s:s,s:s,s:I,s:s,s:s,s:s,s:I,s:I,s:b,s:o,s:I,s:o,s:b,s:s?}", "domid", (int)helper->domid, "name",
                  observation->name, "uuid", sight->seen.uuid, "pid", (json_int_t)helper->pid, "program",
                  helper->program, "mechanism", helpers_watch_name(helper->mechanism), "state",
                  observation_state(observation), "seen_ms", (json_int_t)observation->seen_wall_ms, "baseline_after_ms",
                  (json_int_t)(observation->baseline_ms - helper->started_ms), "baseline_late",
                  (int)observation_is_late(observation), "baseline", observation_baseline(observation), "tot_kib",
                  (json_int_t)sight_tot_kib(sight), "target_kib",
                  observation->has_target ? record_number(observation->target_kib) : json_null(), "suspended",
                  (int)sight->seen.suspended, "outcome", over ? observation_outcome_name(observation->outcome) : NULL);

    return observation_add_judgement(observation, over && !observation->judged, record);
}

/* ---- events ---- */

/* Takes the fields. The log gets every event as well, as with sessions. */
static void observation_emit(const struct observation *observation, const char *type, int level, json_t *fields)
{
    struct log_subject subject = {observation->helper.domid, NULL,
                                  json_string_value(json_object_get(fields, "reason"))};
    char *text = fields ? json_dumps(fields, JSON_COMPACT) : NULL;

    if (!text) {
        log_error("domain %u: out of memory for the event %s", observation->helper.domid, type);
        json_decref(fields);
        return;
    }
    log_about(level, &subject, "%s %s", type, text);
    free(text);
    if (json_object_set_new(fields, "domid", json_integer(observation->helper.domid)) < 0 ||
        json_object_set_new(fields, "name", json_string(observation->name)) < 0) {
        json_decref(fields);
        return;
    }
    events_emit(observation->host->events, type, fields);
}

void observation_tell_seen(const struct observation *observation)
{
    const struct helper *helper = &observation->helper;

    observation_emit(observation, "migration.seen", LOG_NOTICE,
                     json_pack("{s:s,s:I,s:s,s:s,s:o,s:I,s:b}", "uuid", observation->sight.seen.uuid, "pid",
                               (json_int_t)helper->pid, "program", helper->program, "mechanism",
                               helpers_watch_name(helper->mechanism), "baseline", observation_baseline(observation),
                               "baseline_after_ms", (json_int_t)(observation->baseline_ms - helper->started_ms),
                               "baseline_late", (int)observation_is_late(observation)));
}

/* Takes both references. */
static void observation_tell_what(const struct observation *observation, const char *what, enum p2mg_reason reason,
                                  const char *key, json_t *before, json_t *now)
{
    observation_emit(observation, "migration.changed", LOG_WARNING,
                     json_pack("{s:I,s:s,s:s,s:{s:o},s:{s:o}}", "pid", (json_int_t)observation->helper.pid, "what",
                               what, "reason", p2mg_reason_name(reason), "before", key, before, "now", key, now));
}

/* The sight is a member of its observation. */
void observation_tell_change(struct sight *sight, enum p2mg_reason reason, const char *key, json_t *before, json_t *now)
{
    const struct observation *observation = (const void *)((const char *)sight - offsetof(struct observation, sight));

    observation_tell_what(observation, key, reason, key, before, now);
}

void observation_tell_target(const struct observation *observation, uint64_t before_kib)
{
    observation_tell_what(observation, "target_kib", P2MG_REASON_TARGET_CHANGED, "target_kib",
                          record_number(before_kib), record_number(observation->target_kib));
}

void observation_tell_ended(const struct observation *observation, const char *session)
{
    bool gave_way = !observation->judged;
    json_t *fields = json_pack("{s:s,s:I,s:s,s:s,s:s?}", "uuid", observation->sight.seen.uuid, "pid",
                               (json_int_t)observation->helper.pid, "exit", "unknown", "outcome",
                               observation_outcome_name(observation->outcome), "session", session);
    bool well = !gave_way && observation->verdict.verdict == P2MG_VERDICT_PROCEED;

    metrics_count_migration(gave_way ? NULL : &observation->verdict);
    observation_emit(observation, "migration.ended", well || gave_way ? LOG_NOTICE : LOG_WARNING,
                     observation_add_judgement(observation, gave_way, fields));
}
