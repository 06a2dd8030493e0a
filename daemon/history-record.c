/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Histories in the form the control socket shows them (protocol/CONTROL.md), and events in the form they keep. */
#include "daemon/history.h"

#include <string.h>

#include "daemon/clock.h"
#include "daemon/record.h"

/* What is kept of each event: its reason, one word and two numbers. Changes have before and now instead. */
static const struct history_kind {
    const char *type;
    bool has_reason;
    const char *word;
    const char *numbers[2];
} history_kinds[] = {
    {"session.begun", false, NULL, {"tot_kib", NULL}},
    {"session.gated", false, NULL, {"target_kib", "cap_kib"}},
    {"session.pinned", false, NULL, {"pin_kib", NULL}},
    {"session.quiet", false, NULL, {"pin_kib", NULL}},
    {"session.held", false, NULL, {"attempt", "after_ms"}},
    {"session.changed", true, NULL, {"before", "now"}},
    {"agent.asked", false, "state", {NULL, NULL}},
    {"agent.answered", false, "state", {NULL, NULL}},
    {"target.deferred", false, NULL, {"target_kib", "pin_kib"}},
    {"cap.restored", false, NULL, {"max_kib", "cap_kib"}},
    {"gate.restored", false, NULL, {NULL, NULL}},
    {"session.verdict", true, "verdict", {"attempt", NULL}},
    {"session.retry", false, NULL, {"attempt", NULL}},
    {"session.adopted", false, "hold", {"pid", NULL}},
    {"session.failed", true, NULL, {NULL, NULL}},
    {"session.thawing", true, "outcome", {NULL, NULL}},
    {"session.gone", true, "outcome", {"wanted_target_kib", "applied_to"}},
};

#define HISTORY_KINDS (sizeof(history_kinds) / sizeof(history_kinds[0]))

/* All words there are; the first stands for none. */
static const char *const history_words[] = {
    "",       "proceed", "retry",  "abort", "unknown", "completed", "failed",    "cancelled",  "absent",
    "silent", "frozen",  "thawed", "busy",  "refused", "detached",  "suspended", "connection",
};

#define HISTORY_WORDS (sizeof(history_words) / sizeof(history_words[0]))

/* ---- writing down ---- */

static uint8_t history_word(const char *word)
{
    for (uint8_t i = 1; word && i < HISTORY_WORDS; i++)
        if (strcmp(history_words[i], word) == 0)
            return i;
    return 0;
}

static uint8_t history_reason(const char *reason)
{
    for (uint8_t i = 1; reason && i < P2MG_REASON_COUNT; i++)
        if (strcmp(p2mg_reason_name((enum p2mg_reason)i), reason) == 0)
            return i;
    return P2MG_REASON_NONE;
}

/* What has changed is one member of an object; of structure and place there is no number. */
static uint64_t history_number(const json_t *value)
{
    if (json_is_object(value))
        value = json_object_iter_value(json_object_iter((json_t *)(uintptr_t)value));
    return json_is_integer(value) && json_integer_value(value) >= 0 ? (uint64_t)json_integer_value(value)
                                                                    : HISTORY_NO_NUMBER;
}

void record_note(const struct session *session, const char *type, const json_t *fields)
{
    const json_t *agent = json_object_get(fields, "agent");
    uint8_t index = 0;

    while (index < HISTORY_KINDS && strcmp(history_kinds[index].type, type) != 0)
        index++;
    if (index == HISTORY_KINDS)
        return;
    const struct history_kind *kind = &history_kinds[index];
    struct history_event event = {.kind = index, .numbers = {HISTORY_NO_NUMBER, HISTORY_NO_NUMBER}};
    if (kind->has_reason)
        event.reason = history_reason(json_string_value(json_object_get(fields, "reason")));
    if (kind->word)
        event.word = history_word(json_string_value(json_object_get(agent ? agent : fields, kind->word)));
    for (size_t i = 0; i < 2; i++)
        if (kind->numbers[i])
            event.numbers[i] = history_number(json_object_get(fields, kind->numbers[i]));
    /* That it has begun is told of once the guest is mapped: that belongs to its beginning. */
    bool begun = strcmp(type, "session.begun") == 0;
    history_note(session->history, event, begun ? session->begun_ms : clock_now_ms());
}

/* ---- showing ---- */

static json_t *history_number_or_null(uint64_t number)
{
    return number == HISTORY_NO_NUMBER ? json_null() : record_number(number);
}

/* Both take what they are given, and a NULL for a failure that there has been. */
static json_t *history_set(json_t *object, const char *key, json_t *value)
{
    if (!object || json_object_set_new(object, key, value) < 0) {
        if (!object)
            json_decref(value);
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *history_append(json_t *list, json_t *value)
{
    if (!list || json_array_append_new(list, value) < 0) {
        if (!list)
            json_decref(value);
        json_decref(list);
        return NULL;
    }
    return list;
}

static json_t *history_show_event(const struct history_event *event)
{
    const struct history_kind *kind = &history_kinds[event->kind];
    json_t *object = json_pack("{s:s,s:I,s:I,s:I}", "type", kind->type, "at_ms", (json_int_t)event->at_ms, "since_ms",
                               (json_int_t)event->since_ms, "count", (json_int_t)event->count);

    if (kind->has_reason)
        object = history_set(object, "reason", json_string(p2mg_reason_name((enum p2mg_reason)event->reason)));
    if (kind->word)
        object = history_set(object, kind->word, event->word ? json_string(history_words[event->word]) : json_null());
    for (size_t i = 0; i < 2; i++)
        if (kind->numbers[i])
            object = history_set(object, kind->numbers[i], history_number_or_null(event->numbers[i]));
    return object;
}

static json_t *history_show_events(const struct history *history)
{
    json_t *list = json_array();
    size_t count;
    const struct history_event *events = history_events(history, &count);

    for (size_t i = 0; i < count; i++)
        list = history_append(list, history_show_event(&events[i]));
    return list;
}

static json_t *history_show_figure(const struct history *history, enum history_figure figure)
{
    json_t *list = json_array();
    size_t count;
    const struct history_sample *samples = history_samples(history, figure, &count);

    for (size_t i = 0; i < count; i++)
        list = history_append(
            list, json_pack("[I,o]", (json_int_t)samples[i].at_ms, history_number_or_null(samples[i].value)));
    return list;
}

static const char *const history_phase_names[HISTORY_PHASES] = {
    "gating", "pinning", "agent", "settling", "baseline", "held", "backoff", "thawing", "gone",
};

static json_t *history_show_phases(const struct history *history)
{
    json_t *list = json_array();
    size_t count;
    const struct history_span *spans = history_spans(history, &count);

    for (size_t i = 0; i < count; i++)
        list = history_append(list, json_pack("{s:s,s:I}", "phase", history_phase_names[spans[i].phase], "at_ms",
                                              (json_int_t)spans[i].at_ms));
    return list;
}

static json_t *history_show_spent(const struct history *history, int64_t now_ms)
{
    json_t *object = json_object();

    for (size_t i = 0; i < HISTORY_GONE; i++)
        object = history_set(object, history_phase_names[i],
                             json_integer(history_spent_ms(history, (enum history_phase)i, now_ms)));
    return object;
}

void record_write_last_verdict(struct writer *writer, const char *key, const struct session *session)
{
    size_t count;
    const struct history_event *events = history_events(session->history, &count);

    while (count > 0 && strcmp(history_kinds[events[count - 1].kind].type, "session.verdict") != 0)
        count--;
    if (!count) {
        writer_null(writer, key);
        return;
    }
    const struct history_event *last = &events[count - 1];
    writer_begin(writer, key, '{');
    writer_plain(writer, "verdict", history_words[last->word]);
    writer_plain(writer, "reason", p2mg_reason_name((enum p2mg_reason)last->reason));
    writer_number(writer, "attempt", (int64_t)last->numbers[0]); /* of a verdict it is always known */
    writer_number(writer, "time_ms", session->begun_wall_ms + last->at_ms);
    writer_end(writer, '}');
}

static json_t *record_last_verdict(const struct session *session)
{
    struct writer writer = {0};

    record_write_last_verdict(&writer, NULL, session);
    return writer_take(&writer);
}

/* How long the session has lasted; that is over when it is gone. */
static int64_t history_lasted_ms(const struct session *session)
{
    const struct history *history = session->history;

    return history->phase == HISTORY_GONE ? history->entered_ms : clock_now_ms() - history->begun_ms;
}

json_t *record_history_summary(const struct session *session)
{
    bool ended = session->ending != P2MG_REASON_NONE;

    return json_pack("{s:s,s:i,s:s,s:s,s:s,s:s?,s:s,s:I,s:I,s:I,s:o}", "session", session->id, "domid",
                     (int)session->gate.journal.domid, "name", session->options.name, "uuid",
                     session->gate.journal.uuid, "state", p2mg_state_name(session_state(session)), "reason",
                     ended ? p2mg_reason_name(session->ending) : NULL, "outcome", p2mg_outcome_name(session->outcome),
                     "attempt", (json_int_t)session->attempt, "begun_ms", (json_int_t)session->begun_wall_ms,
                     "lasted_ms", (json_int_t)history_lasted_ms(session), "last_verdict", record_last_verdict(session));
}

json_t *record_history(const struct session *session)
{
    const struct history *history = session->history;
    json_t *record = record_history_summary(session);
    json_t *more = json_pack(
        "{s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "thinned", (int)history->thinned, "events",
        history_show_events(history), "phases", history_show_phases(history), "spent_ms",
        history_show_spent(history, clock_now_ms()), "target_kib", history_show_figure(history, HISTORY_TARGET),
        "wanted_target_kib", history_show_figure(history, HISTORY_WANTED), "pin_kib",
        history_show_figure(history, HISTORY_PIN), "tot_kib", history_show_figure(history, HISTORY_TOT), "generation",
        history_show_figure(history, HISTORY_GENERATION));

    if (!record || !more || json_object_update_missing(record, more) < 0) {
        json_decref(record);
        record = NULL;
    }
    json_decref(more);
    return record;
}
