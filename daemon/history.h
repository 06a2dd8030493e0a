/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What became of one session, for people to look at afterwards: how its figures went, its phases, its events.
 *
 * Owns all of that, in memory alone: a daemon that is started again knows nothing of what was before. A figure is
 * written down when it has changed, and nothing is allocated before there is something to write down; a session in
 * which little happens takes less than 1 KiB. However much a guest or a toolstack does, it never takes more than 8 KiB
 * (HISTORY_*_MOST), for what is full is thinned:
 *
 * - a figure's samples: of the four in a row that lie closest together in time the smallest and the largest stay. What
 *   was crowded is told more coarsely, then, and the rest as it was; the first, the last and the extremes of all are
 *   never lost.
 * - phases: the one that was shortest becomes part of the one before it. How much time each kind of phase took is
 *   counted apart, and stays exact.
 * - events: the oldest one that a later one is like (same kind, reason and word) becomes part of the next such one,
 *   which then stands for both: how many, and since when. Where no two are alike the oldest but the first goes.
 *
 * Times are milliseconds since the session began, of the clock that only moves forward. Pure; loop thread only. The
 * members are open for reading to those who show them (history-record.c).
 */
#ifndef P2MGUARD_HISTORY_H
#define P2MGUARD_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_figure {
    HISTORY_TARGET, /* what stands in the node, as a toolstack reads it */
    HISTORY_WANTED, /* what toolstacks asked for last, and will be put back */
    HISTORY_PIN,
    HISTORY_TOT,
    HISTORY_GENERATION,
    HISTORY_FIGURES
};

enum history_phase {
    HISTORY_GATING,
    HISTORY_PINNING,
    HISTORY_AGENT,
    HISTORY_SETTLING,
    HISTORY_BASELINE,
    HISTORY_HELD,
    HISTORY_BACKOFF,
    HISTORY_THAWING,
    HISTORY_GONE,
    HISTORY_PHASES
};

enum {
    HISTORY_TARGET_MOST = 48,
    HISTORY_WANTED_MOST = 48,
    HISTORY_PIN_MOST = 32,
    HISTORY_TOT_MOST = 96,
    HISTORY_GENERATION_MOST = 48,
    HISTORY_EVENTS_MOST = 72,
    HISTORY_SPANS_MOST = 48
};

struct history_sample {
    uint64_t value;
    uint32_t at_ms;
};

/* A phase that was entered. */
struct history_span {
    uint32_t at_ms;
    uint8_t phase;
};

#define HISTORY_NO_NUMBER UINT64_MAX

/* The meaning of kind, word and numbers is the caller's. */
struct history_event {
    uint64_t numbers[2];
    uint32_t at_ms;
    uint32_t since_ms; /* the first of those that it stands for */
    uint32_t count;    /* how many these are */
    uint8_t kind;
    uint8_t reason;
    uint8_t word;
};

/* Entries of one size, in one piece that grows. */
struct history_list {
    void *entries;
    uint16_t count, room;
};

struct history {
    int64_t begun_ms;
    struct history_list figures[HISTORY_FIGURES]; /* of struct history_sample */
    struct history_list spans;                    /* of struct history_span */
    struct history_list events;                   /* of struct history_event */
    uint32_t spent_ms[HISTORY_PHASES];            /* without the phase that lasts */
    uint32_t entered_ms;                          /* when that one began */
    uint8_t phase;
    bool thinned; /* not everything is there any more */
};

/* NULL when memory ran out. It is in HISTORY_GATING. */
struct history *history_new(int64_t begun_ms);

/* Of a session that began earlier, with another program, and is held: what was before is not known any more. */
void history_go_on(struct history *history, int64_t begun_ms, int64_t now_ms);

/* Accepts NULL. */
void history_free(struct history *history);

/* Writes a figure down, if it is another than the last. Without memory it is left out, and `thinned` says so. */
void history_sample(struct history *history, enum history_figure figure, int64_t now_ms, uint64_t value);

void history_enter(struct history *history, enum history_phase phase, int64_t now_ms);

/* Steals nothing; times and count of the event need not be set. */
void history_note(struct history *history, struct history_event event, int64_t now_ms);

/* The time that a kind of phase has taken so far. */
int64_t history_spent_ms(const struct history *history, enum history_phase phase, int64_t now_ms);

const struct history_sample *history_samples(const struct history *history, enum history_figure figure, size_t *count);
const struct history_span *history_spans(const struct history *history, size_t *count);
const struct history_event *history_events(const struct history *history, size_t *count);

/* How much memory it takes. */
size_t history_size(const struct history *history);

#endif
