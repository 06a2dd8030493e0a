/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands that only look: lists as tables, records member by member, events line by line.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl.h"
#include "client/table.h"

/* ---- lists ---- */

static const char *look_word(const json_t *object, const char *key)
{
    const char *text = ctl_string(object, key);

    return *text ? text : "-";
}

static const char *look_number(char text[CTL_TEXT], const json_t *object, const char *key)
{
    snprintf(text, CTL_TEXT, "%" PRId64, ctl_integer(object, key, 0));
    return text;
}

static const char *look_size(char text[CTL_TEXT], const json_t *object, const char *key)
{
    return ctl_size(text, json_object_get(object, key));
}

static int look_write(struct table *table)
{
    return table_write(table) ? ctl_fail("writing the table failed, or memory ran out") : CTL_OK;
}

static const struct table_column list_columns[] = {
    {.heading = "SESSION"},
    {.heading = "DOMID", .right = true},
    {.heading = "NAME", .least = 12},
    {.heading = "STATE", .painted = true},
    {.heading = "ATTEMPT", .right = true, .spare = 2},
    {.heading = "HELD AFTER", .right = true, .spare = 4},
    {.heading = "SIZE", .right = true, .spare = 3},
    {.heading = "DEFERRED", .right = true, .spare = 1},
};

static void list_row(struct table *table, const json_t *session)
{
    char domid[CTL_TEXT], attempt[2 * CTL_TEXT], held[CTL_TEXT], size[CTL_TEXT], deferred[CTL_TEXT];

    snprintf(attempt, sizeof(attempt), "%" PRId64 "/%" PRId64, ctl_integer(session, "attempt", 0),
             ctl_integer(json_object_get(session, "policy"), "attempts", 0));
    table_add(table, (const char *[]){look_word(session, "session"), look_number(domid, session, "domid"),
                                      look_word(session, "name"), look_word(session, "state"), attempt,
                                      ctl_duration(held, ctl_integer(session, "held_after_ms", -1)),
                                      look_size(size, session, "tot_kib"),
                                      look_size(deferred, session, "deferred_target_kib")});
}

int list_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *session;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "guard.list", NULL, &result);
    if (status)
        return status;
    json_t *sessions = json_object_get(result, "sessions");
    if (ctl->json) {
        ctl_print_json(sessions);
    } else if (json_array_size(sessions) == 0) {
        puts("no guest is under guard");
    } else {
        struct table *table = table_new(list_columns, sizeof(list_columns) / sizeof(list_columns[0]));
        json_array_foreach(sessions, i, session) list_row(table, session);
        status = look_write(table);
    }
    json_decref(result);
    return status;
}

static const struct table_column domains_columns[] = {
    {.heading = "DOMID", .right = true},
    {.heading = "NAME", .least = 12},
    {.heading = "TYPE", .spare = 3},
    {.heading = "STATE", .painted = true},
    {.heading = "SIZE", .right = true},
    {.heading = "MAXIMUM", .right = true, .spare = 2},
    {.heading = "TARGET", .right = true, .spare = 1},
    {.heading = "SESSION"},
};

static void domains_row(struct table *table, const json_t *domain)
{
    char domid[CTL_TEXT], size[CTL_TEXT], maximum[CTL_TEXT], target[CTL_TEXT];

    table_add(table, (const char *[]){look_number(domid, domain, "domid"), look_word(domain, "name"),
                                      look_word(domain, "type"), look_word(domain, "state"),
                                      look_size(size, domain, "tot_kib"), look_size(maximum, domain, "max_kib"),
                                      look_size(target, domain, "target_kib"), look_word(domain, "session")});
}

int domains_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *domain;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "domain.list", NULL, &result);
    if (status)
        return status;
    json_t *domains = json_object_get(result, "domains");
    if (ctl->json) {
        ctl_print_json(domains);
    } else {
        struct table *table = table_new(domains_columns, sizeof(domains_columns) / sizeof(domains_columns[0]));
        json_array_foreach(domains, i, domain) domains_row(table, domain);
        status = look_write(table);
    }
    json_decref(result);
    return status;
}

static const struct table_column migrations_columns[] = {
    {.heading = "DOMID", .right = true},
    {.heading = "NAME", .least = 12},
    {.heading = "PID", .right = true, .spare = 4},
    {.heading = "STATE", .painted = true, .spare = 1},
    {.heading = "DURATION", .right = true, .spare = 2},
    {.heading = "SIZE", .right = true, .spare = 3},
    {.heading = "OUTCOME", .painted = true},
    {.heading = "VERDICT", .painted = true},
    {.heading = "REASON"},
};

static void migrations_row(struct table *table, const json_t *migration)
{
    char domid[CTL_TEXT], pid[CTL_TEXT], duration[CTL_TEXT], size[CTL_TEXT];

    table_add(table, (const char *[]){look_number(domid, migration, "domid"), look_word(migration, "name"),
                                      look_number(pid, migration, "pid"), look_word(migration, "state"),
                                      ctl_duration(duration, ctl_integer(migration, "duration_ms", -1)),
                                      look_size(size, migration, "tot_kib"), look_word(migration, "outcome"),
                                      look_word(migration, "verdict"), look_word(migration, "reason")});
}

int migrations_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *migration;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "migration.list", NULL, &result);
    if (status)
        return status;
    json_t *migrations = json_object_get(result, "migrations"), *ended = json_object_get(result, "ended");
    if (ctl->json) {
        ctl_print_json(result);
    } else if (json_array_size(migrations) + json_array_size(ended) == 0) {
        puts("no migration has been seen that nobody announced");
    } else {
        struct table *table = table_new(migrations_columns, sizeof(migrations_columns) / sizeof(migrations_columns[0]));
        json_array_foreach(ended, i, migration) migrations_row(table, migration);
        json_array_foreach(migrations, i, migration) migrations_row(table, migration);
        status = look_write(table);
    }
    json_decref(result);
    return status;
}

/* ---- records ---- */

static const struct table_column record_columns[] = {
    {.heading = NULL},
    {.heading = NULL, .painted = true, .wrapped = true},
};

static bool look_ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);

    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* A number in the unit that its name says, and as people say it. */
static char *look_quantity(const char *key, const json_t *value)
{
    int64_t number = json_integer_value(value);
    char words[CTL_TEXT], *text = NULL;
    time_t seconds = (time_t)(number / 1000);
    struct tm local;
    int length;

    if (look_ends_with(key, "_kib") && number >= 10240) {
        length = asprintf(&text, "%" PRId64 " (%s)", number, ctl_size(words, value));
    } else if (strcmp(key, "begun_ms") == 0 || strcmp(key, "seen_ms") == 0 || strcmp(key, "time_ms") == 0) {
        localtime_r(&seconds, &local);
        strftime(words, sizeof(words), "%F %T", &local);
        length = asprintf(&text, "%" PRId64 " (%s)", number, words);
    } else {
        length = asprintf(&text, "%" PRId64, number);
    }
    return length < 0 ? NULL : text;
}

static char *look_value(const char *key, const json_t *value)
{
    if (json_is_null(value) || (json_is_array(value) && json_array_size(value) == 0))
        return strdup("-");
    if (json_is_string(value))
        return strdup(json_string_value(value));
    if (json_is_integer(value))
        return look_quantity(key, value);
    return json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
}

static void record_rows(struct table *table, const json_t *object, const char *prefix)
{
    const char *key;
    json_t *value;
    char name[96];

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value)) {
            record_rows(table, value, name);
            continue;
        }
        char *text = look_value(key, value);
        table_add(table, (const char *[]){name, text ? text : "out of memory"});
        free(text);
    }
}

int show_record(const json_t *record)
{
    struct table *table = table_new(record_columns, sizeof(record_columns) / sizeof(record_columns[0]));

    record_rows(table, record, "");
    return look_write(table);
}

int show_command(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return ctl_on_session(ctl, "guard.show", argv[1], NULL, NULL);
}

int info_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "daemon.info", NULL, &result);
    return status ? status : ctl_show_result(ctl, result);
}

int domain_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    (void)argc;

    int status = ctl_call(ctl, "domain.show", json_pack("{s:s}", "domain", argv[1]), &result);
    return status ? status : ctl_show_result(ctl, result);
}

/* ---- events ---- */

static bool event_is_told_already(const char *key)
{
    return strcmp(key, "seq") == 0 || strcmp(key, "time_ms") == 0 || strcmp(key, "type") == 0 ||
           strcmp(key, "name") == 0 || strcmp(key, "domid") == 0;
}

/* "12:03:04.567  u  target.deferred  target_kib=307200 pin_kib=262144" */
void ctl_print_event(const json_t *event)
{
    int64_t time_ms = ctl_integer(event, "time_ms", 0);
    time_t seconds = (time_t)(time_ms / 1000);
    char *name = table_safe(look_word(event, "name")), clock[16];
    const char *key;
    struct tm local;
    json_t *value;

    localtime_r(&seconds, &local);
    strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    printf("%s.%03d  %-12s %-18s", clock, (int)(time_ms % 1000), name ? name : "?", ctl_string(event, "type"));
    free(name);
    json_object_foreach((json_t *)(uintptr_t)event, key, value)
    {
        if (event_is_told_already(key))
            continue;
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf(" %s=", key);
        table_put(stdout, text ? text : json_is_string(value) ? json_string_value(value) : "?");
        free(text);
    }
    putchar('\n');
    fflush(stdout);
}

static int watch_parse(int argc, char **argv, json_t *params)
{
    static const struct option names[] = {{"from", required_argument, NULL, 'f'}, {NULL, 0, NULL, 0}};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name != 'f')
            return CTL_USAGE;
        char *end = optarg;
        long long from = strtoll(optarg, &end, 10);
        if (end == optarg || *end || from < 0)
            return ctl_usage_error("watch", "--from is '%s', expected the number of an event", optarg);
        if (json_object_set_new(params, "from", json_integer(from)) < 0)
            return ctl_fail("out of memory");
    }
    return optind < argc ? ctl_usage_error("watch", "'%s' is too much, expected no words", argv[optind]) : CTL_OK;
}

int watch_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *params = json_object(), *result, *event;
    int error, status = params ? watch_parse(argc, argv, params) : ctl_fail("out of memory");

    if (status) {
        json_decref(params);
        return status;
    }
    status = ctl_call(ctl, "events.subscribe", params, &result);
    if (status)
        return status;
    json_decref(result);
    do {
        while ((event = connection_event(ctl->connection))) {
            if (ctl->json)
                ctl_print_json(event);
            else
                ctl_print_event(event);
            json_decref(event);
        }
        error = connection_wait(ctl->connection, -1);
        if (error > 0)
            error = connection_take_in(ctl->connection);
    } while (!error && !ferror(stdout));
    return ferror(stdout) ? CTL_FAILED : ctl_explain(error, NULL);
}
