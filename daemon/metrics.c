/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "protocol/metrics-up.h"

#define METRICS_METHODS_MOST 64
#define METRICS_BUCKETS_MOST 12

/* What is counted in each bucket is not counted in the next ones: that is done when a page is written. */
struct metrics_histogram {
    const int64_t *bounds_ms;
    size_t bounds;
    uint64_t counts[METRICS_BUCKETS_MOST + 1]; /* the last one: beyond all bounds */
    uint64_t sum_ms;
};

struct metrics_method {
    const char *name; /* NULL: there is none of that name */
    uint64_t requests[METRICS_RESULTS];
};

static const int64_t hold_bounds_ms[] = {50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000};
static const int64_t held_bounds_ms[] = {1000, 5000, 15000, 30000, 60000, 120000, 300000, 600000, 1800000, 3600000};

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))
#define BOUNDS(array) .bounds_ms = (array), .bounds = LENGTH(array)

static struct {
    int64_t started_wall_ms;
    uint64_t counters[METRICS_COUNTERS];
    uint64_t ended[P2MG_OUTCOME_COUNT][P2MG_REASON_COUNT];
    uint64_t verdicts[2][P2MG_VERDICT_COUNT][P2MG_REASON_COUNT]; /* precopy, final */
    uint64_t migrations[P2MG_VERDICT_COUNT + 1];                 /* the last one: without a verdict */
    uint64_t blind_ms[METRICS_BLINDNESSES];
    struct metrics_histogram hold, held;
    struct metrics_method methods[METRICS_METHODS_MOST]; /* the first one: of no such name */
    size_t method_count;
} metrics;

/* ---- counting ---- */

void metrics_start(void)
{
    memset(&metrics, 0, sizeof(metrics));
    metrics.started_wall_ms = clock_wall_ms();
    metrics.hold = (struct metrics_histogram){BOUNDS(hold_bounds_ms)};
    metrics.held = (struct metrics_histogram){BOUNDS(held_bounds_ms)};
    metrics.method_count = 1;
}

/* The first one, which is of no method, where the name is not known. */
static struct metrics_method *metrics_find_method(const char *name)
{
    for (size_t i = 1; name && i < metrics.method_count; i++)
        if (strcmp(metrics.methods[i].name, name) == 0)
            return &metrics.methods[i];
    return &metrics.methods[0];
}

void metrics_know_method(const char *method)
{
    if (metrics.method_count < METRICS_METHODS_MOST)
        metrics.methods[metrics.method_count++].name = method;
}

void metrics_count(enum metrics_counter counter)
{
    metrics.counters[counter]++;
}

void metrics_count_end(enum p2mg_outcome outcome, enum p2mg_reason reason)
{
    metrics.ended[outcome][reason]++;
}

void metrics_count_verdict(const struct verdict *verdict, bool final)
{
    metrics.verdicts[final][verdict->verdict][verdict->reason]++;
}

void metrics_count_migration(const struct verdict *verdict)
{
    metrics.migrations[verdict ? verdict->verdict : P2MG_VERDICT_COUNT]++;
}

static void metrics_observe(struct metrics_histogram *histogram, int64_t ms)
{
    size_t bucket = 0;

    ms = ms > 0 ? ms : 0;
    while (bucket < histogram->bounds && ms > histogram->bounds_ms[bucket])
        bucket++;
    histogram->counts[bucket]++;
    histogram->sum_ms += (uint64_t)ms;
}

void metrics_time_to_hold(int64_t ms)
{
    metrics_observe(&metrics.hold, ms);
}

void metrics_time_held(int64_t ms)
{
    metrics_observe(&metrics.held, ms);
}

void metrics_count_blind(enum metrics_blindness why, int64_t ms)
{
    metrics.blind_ms[why] += (uint64_t)(ms > 0 ? ms : 0);
}

void metrics_count_request(const char *method, enum metrics_result result)
{
    metrics_find_method(method)->requests[result]++;
}

/* ---- writing: one function for each shape of family ---- */

enum family_type { FAMILY_COUNTER, FAMILY_GAUGE, FAMILY_HISTOGRAM, FAMILY_INFO };

struct family {
    const char *name; /* without what the type appends: _total, _bucket, _info */
    enum family_type type;
    const char *unit; /* the end of its name, or NULL */
    const char *help;
    void (*write)(FILE *to, const struct family *family, const struct metrics_sample *sample);
    size_t which; /* a counter's number, or where in the sample a gauge stands */
};

static const char *family_suffix(const struct family *family)
{
    static const char *const suffixes[] = {
        [FAMILY_COUNTER] = "_total", [FAMILY_GAUGE] = "", [FAMILY_HISTOGRAM] = "", [FAMILY_INFO] = "_info"};

    return suffixes[family->type];
}

static void write_counter(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    fprintf(to, "%s_total %" PRIu64 "\n", family->name, metrics.counters[family->which]);
}

static uint64_t sample_at(const struct metrics_sample *sample, size_t where)
{
    uint64_t value;

    memcpy(&value, (const char *)sample + where, sizeof(value));
    return value;
}

static void write_sample(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    fprintf(to, "%s%s %" PRIu64 "\n", family->name, family_suffix(family), sample_at(sample, family->which));
}

static void write_seconds(FILE *to, uint64_t ms)
{
    fprintf(to, " %" PRIu64 ".%03" PRIu64 "\n", ms / 1000, ms % 1000);
}

static void write_longest_hold(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    fputs(family->name, to);
    write_seconds(to, sample->longest_hold_ms);
}

static void write_start(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    fputs(family->name, to);
    write_seconds(to, (uint64_t)metrics.started_wall_ms);
}

static void write_up(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    fprintf(to, "%s 1\n", family->name);
}

static void write_build(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    fprintf(to, "%s_info{version=\"%s\"} 1\n", family->name, sample->version);
}

static void write_sessions(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    for (int state = 0; state < P2MG_STATE_GONE; state++)
        fprintf(to, "%s{state=\"%s\"} %" PRIu64 "\n", family->name, p2mg_state_name((enum p2mg_state)state),
                sample->sessions[state]);
}

/*
 * A counter that appears with its first increment has no increase that an alert could see: what is to be expected of a
 * session is there from the start, at 0, and all else once it has happened.
 */
static bool end_is_expected(enum p2mg_outcome outcome, enum p2mg_reason reason)
{
    static const enum p2mg_reason failures[] = {P2MG_REASON_STORE_UNREACHABLE,
                                                P2MG_REASON_STRUCTURE_UNREADABLE,
                                                P2MG_REASON_FREEZE_TIMEOUT,
                                                P2MG_REASON_DEADLINE,
                                                P2MG_REASON_GRACE_EXPIRED,
                                                P2MG_REASON_DOMAIN_GONE,
                                                P2MG_REASON_DOMAIN_RENAMED,
                                                P2MG_REASON_GUEST_NOT_READY,
                                                P2MG_REASON_NOT_GUARDABLE,
                                                P2MG_REASON_AGENT_ABSENT,
                                                P2MG_REASON_AGENT_REFUSED,
                                                P2MG_REASON_AGENT_SILENT,
                                                P2MG_REASON_CLIENT_GONE,
                                                P2MG_REASON_SHUTDOWN,
                                                P2MG_REASON_ERROR};

    if (outcome != P2MG_OUTCOME_UNKNOWN)
        return reason == P2MG_REASON_ENDED ||
               (outcome == P2MG_OUTCOME_COMPLETED && reason == P2MG_REASON_DOMAIN_RENAMED);
    for (size_t i = 0; i < LENGTH(failures); i++)
        if (failures[i] == reason)
            return true;
    return false;
}

static void write_ended(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    for (int outcome = 0; outcome < P2MG_OUTCOME_COUNT; outcome++) {
        for (int reason = 0; reason < P2MG_REASON_COUNT; reason++) {
            uint64_t count = metrics.ended[outcome][reason];
            if (count || end_is_expected((enum p2mg_outcome)outcome, (enum p2mg_reason)reason))
                fprintf(to, "%s_total{outcome=\"%s\",reason=\"%s\"} %" PRIu64 "\n", family->name,
                        p2mg_outcome_name((enum p2mg_outcome)outcome), p2mg_reason_name((enum p2mg_reason)reason),
                        count);
        }
    }
}

static bool verdict_is_expected(enum p2mg_verdict verdict, enum p2mg_reason reason)
{
    static const enum p2mg_reason retries[] = {P2MG_REASON_NOT_HELD_YET,       P2MG_REASON_TOT_PAGES_CHANGED,
                                               P2MG_REASON_GENERATION_CHANGED, P2MG_REASON_STRUCTURE_CHANGED,
                                               P2MG_REASON_PHYSMAP_CHANGED,    P2MG_REASON_AGENT_THAWED,
                                               P2MG_REASON_GATE_OPENED,        P2MG_REASON_OBSERVATION_GAP,
                                               P2MG_REASON_STORE_UNREACHABLE,  P2MG_REASON_STRUCTURE_UNREADABLE};

    if (verdict != P2MG_VERDICT_RETRY)
        return reason == (verdict == P2MG_VERDICT_PROCEED ? P2MG_REASON_UNCHANGED : P2MG_REASON_ATTEMPTS_EXHAUSTED);
    for (size_t i = 0; i < LENGTH(retries); i++)
        if (retries[i] == reason)
            return true;
    return false;
}

static void write_verdicts_of(FILE *to, const struct family *family, bool final, enum p2mg_verdict verdict)
{
    for (int reason = 0; reason < P2MG_REASON_COUNT; reason++) {
        uint64_t count = metrics.verdicts[final][verdict][reason];
        if (count || verdict_is_expected(verdict, (enum p2mg_reason)reason))
            fprintf(to, "%s_total{verdict=\"%s\",reason=\"%s\",phase=\"%s\"} %" PRIu64 "\n", family->name,
                    p2mg_verdict_name(verdict), p2mg_reason_name((enum p2mg_reason)reason), final ? "final" : "precopy",
                    count);
    }
}

static void write_verdicts(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    for (int verdict = 0; verdict < P2MG_VERDICT_COUNT; verdict++) {
        write_verdicts_of(to, family, false, (enum p2mg_verdict)verdict);
        write_verdicts_of(to, family, true, (enum p2mg_verdict)verdict);
    }
}

static void write_migrations(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    for (int verdict = 0; verdict <= P2MG_VERDICT_COUNT; verdict++)
        fprintf(to, "%s_total{verdict=\"%s\"} %" PRIu64 "\n", family->name,
                verdict < P2MG_VERDICT_COUNT ? p2mg_verdict_name((enum p2mg_verdict)verdict) : "none",
                metrics.migrations[verdict]);
}

static void write_blind(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    static const char *const causes[] = {[METRICS_BLIND_POLL] = "poll", [METRICS_BLIND_STORE] = "store"};
    (void)sample;

    for (size_t i = 0; i < METRICS_BLINDNESSES; i++) {
        fprintf(to, "%s_total{cause=\"%s\"}", family->name, causes[i]);
        write_seconds(to, metrics.blind_ms[i]);
    }
}

/* Successes of every method from the start on, everything else once it has happened. */
static void write_requests(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    static const char *const results[] = {
        [METRICS_OK] = "ok", [METRICS_REFUSED] = "refused", [METRICS_INVALID] = "invalid", [METRICS_FAILED] = "failed"};
    (void)sample;

    for (size_t i = 0; i < metrics.method_count; i++) {
        const struct metrics_method *method = &metrics.methods[i];
        for (size_t result = 0; result < METRICS_RESULTS; result++)
            if (method->requests[result] || (method->name && result == METRICS_OK))
                fprintf(to, "%s_total{method=\"%s\",result=\"%s\"} %" PRIu64 "\n", family->name,
                        method->name ? method->name : "unknown", results[result], method->requests[result]);
    }
}

/* OpenMetrics wants "1.0" where others write "1". */
static void write_bound(char *text, size_t size, int64_t bound_ms)
{
    snprintf(text, size, "%g", (double)bound_ms / 1000);
    if (!strchr(text, '.'))
        strncat(text, ".0", size - strlen(text) - 1);
}

static void write_histogram(FILE *to, const struct family *family, const struct metrics_histogram *histogram)
{
    uint64_t count = 0;
    char bound[32];

    for (size_t i = 0; i < histogram->bounds; i++) {
        count += histogram->counts[i];
        write_bound(bound, sizeof(bound), histogram->bounds_ms[i]);
        fprintf(to, "%s_bucket{le=\"%s\"} %" PRIu64 "\n", family->name, bound, count);
    }
    count += histogram->counts[histogram->bounds];
    fprintf(to, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum", family->name, count, family->name);
    write_seconds(to, histogram->sum_ms);
    fprintf(to, "%s_count %" PRIu64 "\n", family->name, count);
}

static void write_hold(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    write_histogram(to, family, &metrics.hold);
}

static void write_held(FILE *to, const struct family *family, const struct metrics_sample *sample)
{
    (void)sample;
    write_histogram(to, family, &metrics.held);
}

/* ---- the table ---- */

#define COUNTER(name, counter, help)                                                                                   \
    {                                                                                                                  \
        "p2mguard_" name, FAMILY_COUNTER, NULL, help, write_counter, counter                                           \
    }
#define SAMPLE(name, type, unit, member, help)                                                                         \
    {                                                                                                                  \
        "p2mguard_" name, FAMILY_##type, unit, help, write_sample, offsetof(struct metrics_sample, member)             \
    }
#define OWN(name, type, unit, writer, help)                                                                            \
    {                                                                                                                  \
        "p2mguard_" name, FAMILY_##type, unit, help, writer, 0                                                         \
    }

/*
 * In the order in which they are written; p2mguard-metrics(7) lists the same. What Prometheus's libraries call
 * process_* has our name before it: node_exporter, which passes our file on, has its own.
 */
static const struct family families[] = {
    {P2MG_METRICS_UP, FAMILY_GAUGE, NULL, P2MG_METRICS_UP_HELP, write_up, 0},
    OWN("build", INFO, NULL, write_build, "The version that runs."),
    OWN("sessions", GAUGE, NULL, write_sessions, "Guests under guard, by state."),
    OWN("longest_hold_seconds", GAUGE, "seconds", write_longest_hold,
        "How long the guest that has been held the longest has been; 0 when none is."),
    COUNTER("sessions_begun", METRICS_SESSIONS_BEGUN, "Sessions that have begun."),
    OWN("sessions_ended", COUNTER, NULL, write_ended, "Sessions after which all was put back, by outcome and reason."),
    COUNTER("retries", METRICS_RETRIES, "Further attempts that were begun."),
    OWN("verdicts", COUNTER, NULL, write_verdicts, "Verdicts given, by verdict, reason and phase of the migration."),
    OWN("hold_seconds", HISTOGRAM, "seconds", write_hold, "From the beginning of an attempt until the guest was held."),
    OWN("held_seconds", HISTOGRAM, "seconds", write_held, "How long guests were under guard from their first hold on."),
    COUNTER("deferred_targets", METRICS_DEFERRED_TARGETS,
            "Targets that toolstacks wrote for a guest under guard, kept for later."),
    COUNTER("caps_restored", METRICS_CAPS_RESTORED, "Times that somebody had changed the max_pages of such a guest."),
    COUNTER("gates_restored", METRICS_GATES_RESTORED,
            "Times that somebody had let such a guest read its target again."),
    COUNTER("restore_failures", METRICS_RESTORE_FAILURES,
            "Attempts to put a guest's state back that have failed; each is made again."),
    COUNTER("domains_recovered", METRICS_DOMAINS_RECOVERED, "Guests that an earlier daemon had left under guard."),
    OWN("blind_seconds", COUNTER, "seconds", write_blind,
        "Time in which a guest was held and polls or xenstored did not come, by cause."),
    COUNTER("polls", METRICS_POLLS, "Looks at all guests under guard or observed."),
    COUNTER("poll_overruns", METRICS_POLL_OVERRUNS, "Polls that came more than an interval late."),
    COUNTER("poll_failures", METRICS_POLL_FAILURES, "Polls that the hypervisor did not answer."),
    SAMPLE("store_connected", GAUGE, NULL, store_connected, "Whether xenstored is connected and answers."),
    COUNTER("store_losses", METRICS_STORE_LOSSES, "Times that the connection to xenstored was lost."),
    SAMPLE("store_round_trips", COUNTER, NULL, store_round_trips, "Requests sent to xenstored."),
    SAMPLE("store_transactions_retried", COUNTER, NULL, store_conflicts,
           "Transactions made again because of somebody else's write."),
    SAMPLE("migrations", GAUGE, NULL, migrations, "Migrations that nobody announced, being observed."),
    OWN("migrations_seen", COUNTER, NULL, write_migrations,
        "Migrations that nobody announced and that have ended, by what the verdict would have been."),
    OWN("requests", COUNTER, NULL, write_requests, "Calls on the control socket, by method and result."),
    COUNTER("audit_refusals", METRICS_AUDIT_REFUSALS, "Changes that were refused to callers who may only read."),
    SAMPLE("connections", GAUGE, NULL, connections, "Connections to the control socket."),
    OWN("process_start_time_seconds", GAUGE, "seconds", write_start, "When the daemon started, in UNIX time."),
    SAMPLE("process_resident_memory_bytes", GAUGE, "bytes", resident_bytes, "Memory of the daemon's that is resident."),
    SAMPLE("process_open_fds", GAUGE, NULL, open_files, "Open file descriptors of the daemon."),
};

/* The older format calls a counter by the name of its samples, and knows of neither units nor information. */
static void write_head(FILE *to, enum metrics_format format, const struct family *family)
{
    static const char *const types[] = {[FAMILY_COUNTER] = "counter",
                                        [FAMILY_GAUGE] = "gauge",
                                        [FAMILY_HISTOGRAM] = "histogram",
                                        [FAMILY_INFO] = "info"};
    bool open = format == METRICS_OPENMETRICS;
    const char *suffix = open ? "" : family_suffix(family);

    fprintf(to, "# TYPE %s%s %s\n", family->name, suffix,
            !open && family->type == FAMILY_INFO ? "gauge" : types[family->type]);
    if (open && family->unit)
        fprintf(to, "# UNIT %s %s\n", family->name, family->unit);
    fprintf(to, "# HELP %s%s %s\n", family->name, suffix, family->help);
}

char *metrics_write(enum metrics_format format, const struct metrics_sample *sample)
{
    char *text = NULL;
    size_t size;
    FILE *to = open_memstream(&text, &size);

    if (!to)
        return NULL;
    for (size_t i = 0; i < LENGTH(families); i++) {
        write_head(to, format, &families[i]);
        families[i].write(to, &families[i], sample);
    }
    if (format == METRICS_OPENMETRICS)
        fputs("# EOF\n", to);
    bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

const char *metrics_content_type(enum metrics_format format)
{
    return format == METRICS_OPENMETRICS ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                         : "text/plain; version=0.0.4; charset=utf-8";
}

int metrics_parse_format(const char *text, enum metrics_format *format)
{
    static const char *const names[METRICS_FORMATS] = {"openmetrics", "prometheus"};

    for (int i = 0; i < METRICS_FORMATS; i++) {
        if (strcmp(names[i], text) == 0) {
            *format = (enum metrics_format)i;
            return 0;
        }
    }
    return -EINVAL;
}
