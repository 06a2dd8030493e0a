/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon.metrics: what others own is asked for, the rest is counted in metrics.c. */
#include "daemon/methods-private.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/metrics.h"

static uint64_t sample_resident_bytes(void)
{
    unsigned long long size, resident = 0;
    FILE *file = fopen("/proc/self/statm", "re");

    if (!file)
        return 0;
    if (fscanf(file, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Without the one that is open for counting them. */
static uint64_t sample_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    const struct dirent *entry;
    uint64_t count = 0;

    if (!folder)
        return 0;
    while ((entry = readdir(folder)))
        count += *entry->d_name != '.';
    closedir(folder);
    return count ? count - 1 : 0;
}

static void sample_sessions(struct guard *guard, struct metrics_sample *sample)
{
    int64_t now_ms = clock_now_ms();

    for (const struct session *session = guard_next(guard, NULL); session; session = guard_next(guard, session)) {
        enum p2mg_state state = session_state(session);
        int64_t held_ms = now_ms - session->begun_ms - session->held_after_ms;
        sample->sessions[state]++;
        if (state == P2MG_STATE_HELD && held_ms > (int64_t)sample->longest_hold_ms)
            sample->longest_hold_ms = (uint64_t)held_ms;
    }
}

static void methods_sample(struct methods *methods, struct metrics_sample *sample)
{
    struct store_counts store;

    *sample = (struct metrics_sample){
        .version = PACKAGE_VERSION,
        .migrations = observations_count(guard_observations(methods->guard)),
        .connections = server_connections(methods->server),
        .store_connected = strcmp(guard_store_state(methods->guard), "connected") == 0,
        .resident_bytes = sample_resident_bytes(),
        .open_files = sample_open_files(),
    };
    store_counts(worker_store(guard_worker(methods->guard)), &store);
    sample->store_round_trips = store.round_trips;
    sample->store_conflicts = store.conflicts;
    sample_sessions(methods->guard, sample);
}

void run_metrics(struct rpc_call *call, const json_t *params, void *context)
{
    const char *name = json_string_value(json_object_get(params, "format"));
    enum metrics_format format = METRICS_OPENMETRICS;
    struct metrics_sample sample;

    if (name && metrics_parse_format(name, &format)) {
        methods_fail_param(call, "params.format", "unknown format", "\"openmetrics\" or \"prometheus\"");
        return;
    }
    methods_sample(context, &sample);
    char *text = metrics_write(format, &sample);
    rpc_reply(call, text ? json_pack("{s:s,s:s}", "content_type", metrics_content_type(format), "text", text) : NULL);
    free(text);
}

void methods_on_ended(void *context, const char *method, int code)
{
    enum metrics_result result = METRICS_FAILED;
    (void)context;

    if (code == 0)
        result = METRICS_OK;
    else if (code == P2MG_ERROR_NOT_PERMITTED)
        result = METRICS_REFUSED;
    else if (code == P2MG_ERROR_METHOD_NOT_FOUND || code == P2MG_ERROR_INVALID_PARAMS)
        result = METRICS_INVALID;
    metrics_count_request(method, result);
}
