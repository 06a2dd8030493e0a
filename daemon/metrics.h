/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon counts about itself, and the page of it that monitoring reads.
 *
 * Owns all counters and histograms; there is one set of them for the process, as there is one log, and whoever does
 * something that counts says so with one call. What is a state and not a count (sessions, connections) is nobody's to
 * keep here: it is asked for when a page is written (struct metrics_sample). The families are one table in metrics.c,
 * with name, type, unit and help. No domain has a series of its own, and every label's value is a word of ours: a
 * guest, or a caller, can make no series. Loop thread only.
 */
#ifndef P2MGUARD_METRICS_H
#define P2MGUARD_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/verdict.h"
#include "protocol/names.h"

/* Counters without labels. */
enum metrics_counter {
    METRICS_SESSIONS_BEGUN,
    METRICS_RETRIES,
    METRICS_DEFERRED_TARGETS,
    METRICS_CAPS_RESTORED,
    METRICS_GATES_RESTORED,
    METRICS_RESTORE_FAILURES,
    METRICS_DOMAINS_RECOVERED,
    METRICS_STORE_LOSSES,
    METRICS_POLLS,
    METRICS_POLL_OVERRUNS,
    METRICS_POLL_FAILURES,
    METRICS_AUDIT_REFUSALS,
    METRICS_COUNTERS
};

/* Why nobody saw what a held guest did. */
enum metrics_blindness { METRICS_BLIND_POLL, METRICS_BLIND_STORE, METRICS_BLINDNESSES };

/* What became of a call. */
enum metrics_result { METRICS_OK, METRICS_REFUSED, METRICS_INVALID, METRICS_FAILED, METRICS_RESULTS };

/* OpenMetrics 1.0, and the older text format, which is all that node_exporter's textfile collector reads. */
enum metrics_format { METRICS_OPENMETRICS, METRICS_PROMETHEUS, METRICS_FORMATS };

/* From nought; the process is taken to begin now. */
void metrics_start(void);

/* A method that requests will be counted of, so that its series are there before the first one. */
void metrics_know_method(const char *method);

void metrics_count(enum metrics_counter counter);
void metrics_count_end(enum p2mg_outcome outcome, enum p2mg_reason reason);
void metrics_count_verdict(const struct verdict *verdict, bool final);

/* An observation of a migration that nobody announced has ended; NULL: without a verdict. */
void metrics_count_migration(const struct verdict *verdict);

/* The guest is held, so long after its freezing began; it is let go, so long after it was first held. */
void metrics_time_to_hold(int64_t ms);
void metrics_time_held(int64_t ms);

void metrics_count_blind(enum metrics_blindness why, int64_t ms);

/* NULL: a method that there is not. */
void metrics_count_request(const char *method, enum metrics_result result);

/* What others own, as of now. */
struct metrics_sample {
    const char *version;
    uint64_t sessions[P2MG_STATE_COUNT];
    uint64_t longest_hold_ms; /* of the guests that are held now */
    uint64_t migrations, connections;
    uint64_t store_connected, store_round_trips, store_conflicts;
    uint64_t resident_bytes, open_files;
};

/* The whole page, to be freed; NULL when memory ran out. */
char *metrics_write(enum metrics_format format, const struct metrics_sample *sample);

const char *metrics_content_type(enum metrics_format format);

/* "openmetrics" or "prometheus"; -EINVAL for anything else. */
int metrics_parse_format(const char *text, enum metrics_format *format);

#endif
