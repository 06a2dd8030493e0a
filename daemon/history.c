/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/history.h"

#include <stdlib.h>
#include <string.h>

enum { HISTORY_ROOM_FIRST = 4 };

static const uint16_t history_figure_most[HISTORY_FIGURES] = {
    [HISTORY_TARGET] = HISTORY_TARGET_MOST,
    [HISTORY_WANTED] = HISTORY_WANTED_MOST,
    [HISTORY_PIN] = HISTORY_PIN_MOST,
    [HISTORY_TOT] = HISTORY_TOT_MOST,
    [HISTORY_GENERATION] = HISTORY_GENERATION_MOST,
};

/* No session lasts for 49 days; one whose thaw fails for as long has its last entries at the same time. */
static uint32_t history_at(const struct history *history, int64_t now_ms)
{
    int64_t at_ms = now_ms - history->begun_ms;

    if (at_ms < 0)
        return 0;
    return at_ms < UINT32_MAX ? (uint32_t)at_ms : UINT32_MAX;
}

/* Room for one entry more; false when there can be none, for it is full or memory ran out. */
static bool history_make_room(struct history_list *list, size_t size, uint16_t most)
{
    uint16_t room = list->room ? (uint16_t)(list->room * 2) : HISTORY_ROOM_FIRST;

    if (list->count < list->room)
        return true;
    if (list->room >= most)
        return false;
    if (room > most)
        room = most;
    void *entries = reallocarray(list->entries, room, size);
    if (!entries)
        return false;
    list->entries = entries;
    list->room = room;
    return true;
}

/* ---- figures ---- */

/* Keeps the smallest and the largest of these four, in their order. */
static void history_keep_extremes(const struct history_sample *four, struct history_sample *two)
{
    size_t smallest = 0, largest = 0;

    for (size_t i = 1; i < 4; i++) {
        if (four[i].value < four[smallest].value)
            smallest = i;
        if (four[i].value >= four[largest].value)
            largest = i;
    }
    struct history_sample first = four[smallest < largest ? smallest : largest];
    struct history_sample second = four[smallest < largest ? largest : smallest];
    two[0] = first;
    two[1] = second;
}

/* Of the four in a row that lie closest together in time two go; the first and the last of all are in no four. */
static void history_thin_samples(struct history_list *list)
{
    struct history_sample *samples = list->entries;
    size_t closest = 1;

    for (size_t i = 2; i + 4 < list->count; i++)
        if (samples[i + 3].at_ms - samples[i].at_ms < samples[closest + 3].at_ms - samples[closest].at_ms)
            closest = i;
    history_keep_extremes(samples + closest, samples + closest);
    memmove(samples + closest + 2, samples + closest + 4, (list->count - closest - 4) * sizeof(*samples));
    list->count = (uint16_t)(list->count - 2);
}

void history_sample(struct history *history, enum history_figure figure, int64_t now_ms, uint64_t value)
{
    struct history_list *list = &history->figures[figure];
    uint32_t at_ms = history_at(history, now_ms);

    if (list->count) {
        const struct history_sample *samples = list->entries;
        if (samples[list->count - 1].value == value)
            return;
    }
    if (!history_make_room(list, sizeof(struct history_sample), history_figure_most[figure])) {
        history->thinned = true;
        if (list->count > 5)
            history_thin_samples(list);
        if (list->count == list->room)
            return;
    }
    struct history_sample *samples = list->entries;
    samples[list->count++] = (struct history_sample){.value = value, .at_ms = at_ms};
}

/* ---- phases ---- */

static void history_drop_span(struct history_list *list, uint16_t index)
{
    struct history_span *spans = list->entries;

    list->count--;
    memmove(spans + index, spans + index + 1, (size_t)(list->count - index) * sizeof(*spans));
}

/* The shortest of those that have ended becomes part of the one before it; what is now two alike becomes one. */
static void history_thin_spans(struct history_list *list)
{
    const struct history_span *spans = list->entries;
    uint16_t shortest = 1;

    for (uint16_t i = 2; i + 1 < list->count; i++)
        if (spans[i + 1].at_ms - spans[i].at_ms < spans[shortest + 1].at_ms - spans[shortest].at_ms)
            shortest = i;
    history_drop_span(list, shortest);
    if (shortest < list->count && spans[shortest].phase == spans[shortest - 1].phase)
        history_drop_span(list, shortest);
}

static void history_add_span(struct history *history, enum history_phase phase, uint32_t at_ms)
{
    struct history_list *list = &history->spans;

    if (!history_make_room(list, sizeof(struct history_span), HISTORY_SPANS_MOST)) {
        history->thinned = true;
        if (list->count > 2)
            history_thin_spans(list);
        if (list->count == list->room)
            return;
    }
    struct history_span *spans = list->entries;
    spans[list->count++] = (struct history_span){.at_ms = at_ms, .phase = (uint8_t)phase};
}

void history_enter(struct history *history, enum history_phase phase, int64_t now_ms)
{
    uint32_t at_ms = history_at(history, now_ms);

    if (history->phase == phase && history->spans.count)
        return;
    history->spent_ms[history->phase] += at_ms - history->entered_ms;
    history->entered_ms = at_ms;
    history->phase = (uint8_t)phase;
    history_add_span(history, phase, at_ms);
}

int64_t history_spent_ms(const struct history *history, enum history_phase phase, int64_t now_ms)
{
    int64_t spent_ms = history->spent_ms[phase];

    if (phase == history->phase && phase != HISTORY_GONE)
        spent_ms += history_at(history, now_ms) - history->entered_ms;
    return spent_ms;
}

/* ---- events ---- */

static bool history_alike(const struct history_event *one, const struct history_event *other)
{
    return one->kind == other->kind && one->reason == other->reason && one->word == other->word;
}

static void history_drop_event(struct history_list *list, uint16_t index)
{
    struct history_event *events = list->entries;

    list->count--;
    memmove(events + index, events + index + 1, (size_t)(list->count - index) * sizeof(*events));
}

static void history_thin_events(struct history_list *list)
{
    struct history_event *events = list->entries;

    for (uint16_t i = 0; i < list->count; i++) {
        for (uint16_t j = (uint16_t)(i + 1); j < list->count; j++) {
            if (!history_alike(&events[i], &events[j]))
                continue;
            events[j].since_ms = events[i].since_ms;
            events[j].count += events[i].count;
            history_drop_event(list, i);
            return;
        }
    }
    history_drop_event(list, 1);
}

void history_note(struct history *history, struct history_event event, int64_t now_ms)
{
    struct history_list *list = &history->events;

    if (!history_make_room(list, sizeof(event), HISTORY_EVENTS_MOST)) {
        history->thinned = true;
        if (list->count > 1)
            history_thin_events(list);
        if (list->count == list->room)
            return;
    }
    struct history_event *events = list->entries;
    /* That it is gone is told of once it is: that belongs to its end, and not after it. */
    bool gone = history->phase == HISTORY_GONE;
    event.at_ms = event.since_ms = gone ? history->entered_ms : history_at(history, now_ms);
    event.count = 1;
    events[list->count++] = event;
}

/* ---- all of it ---- */

struct history *history_new(int64_t begun_ms)
{
    struct history *history = calloc(1, sizeof(*history));

    if (!history)
        return NULL;
    history->begun_ms = begun_ms;
    history_enter(history, HISTORY_GATING, begun_ms);
    return history;
}

void history_go_on(struct history *history, int64_t begun_ms, int64_t now_ms)
{
    history->begun_ms = begun_ms;
    history->phase = HISTORY_HELD;
    history->entered_ms = (uint32_t)(now_ms - begun_ms);
    history->thinned = true;
}

void history_free(struct history *history)
{
    if (!history)
        return;
    for (size_t i = 0; i < HISTORY_FIGURES; i++)
        free(history->figures[i].entries);
    free(history->spans.entries);
    free(history->events.entries);
    free(history);
}

const struct history_sample *history_samples(const struct history *history, enum history_figure figure, size_t *count)
{
    *count = history->figures[figure].count;
    return history->figures[figure].entries;
}

const struct history_span *history_spans(const struct history *history, size_t *count)
{
    *count = history->spans.count;
    return history->spans.entries;
}

const struct history_event *history_events(const struct history *history, size_t *count)
{
    *count = history->events.count;
    return history->events.entries;
}

size_t history_size(const struct history *history)
{
    size_t size = sizeof(*history) + history->spans.room * sizeof(struct history_span) +
                  history->events.room * sizeof(struct history_event);

    for (size_t i = 0; i < HISTORY_FIGURES; i++)
        size += history->figures[i].room * sizeof(struct history_sample);
    return size;
}
