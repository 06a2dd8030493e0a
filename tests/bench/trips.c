/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes the requests of xenstored that a list names, one after the other with libxenstore as the daemon makes its own,
 * and says how long that took: what the daemon does in between is what it adds to them.
 *
 * trips REPETITIONS REST_MS LIST…: each list in its turn, again and again, with a pause before, as
 * somebody has it who does not do this all day. A line of a list is KIND, PATH and VALUE with tabs
 * between them, VALUE in hexadecimal digits; what is between TRANSACTION_START and TRANSACTION_END is in a transaction.
 */
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include <xenstore.h>

#include "tests/bench/bench.h"

#define LISTS_MAX 8
#define TRIPS_MAX 256
#define PERMS_MAX 8

enum kind {
    READ,
    GET_PERMS,
    DIRECTORY,
    WRITE,
    SET_PERMS,
    RM,
    WATCH,
    UNWATCH,
    TRANSACTION_START,
    TRANSACTION_END,
    KINDS
};

static const char *const names[KINDS] = {
    [READ] = "READ",
    [GET_PERMS] = "GET_PERMS",
    [DIRECTORY] = "DIRECTORY",
    [WRITE] = "WRITE",
    [SET_PERMS] = "SET_PERMS",
    [RM] = "RM",
    [WATCH] = "WATCH",
    [UNWATCH] = "UNWATCH",
    [TRANSACTION_START] = "TRANSACTION_START",
    [TRANSACTION_END] = "TRANSACTION_END",
};

struct trip {
    enum kind kind;
    char *path;
    char *value;
    unsigned length;
    struct xs_permissions perms[PERMS_MAX];
    unsigned perms_count;
};

struct list {
    const char *file;
    struct trip trips[TRIPS_MAX];
    size_t count;
    double *took_us;
};

/* "n0", "r1" and the like, each with its NUL, as they are on the wire. */
static void read_perms(struct trip *trip)
{
    const char *at = trip->value, *end = trip->value + trip->length;

    for (; at < end && trip->perms_count < PERMS_MAX; at += strlen(at) + 1) {
        struct xs_permissions *perms = &trip->perms[trip->perms_count++];
        perms->id = (unsigned)strtoul(at + 1, NULL, 10);
        perms->perms = *at == 'r'   ? XS_PERM_READ
                       : *at == 'w' ? XS_PERM_WRITE
                       : *at == 'b' ? XS_PERM_READ | XS_PERM_WRITE
                                    : XS_PERM_NONE;
    }
}

static void read_trip(struct trip *trip, char *line)
{
    const char *kind = strsep(&line, "\t");
    const char *path = line ? strsep(&line, "\t") : "";
    const char *digits = line ? line : "";
    unsigned byte;

    while (trip->kind < KINDS && strcmp(kind, names[trip->kind]) != 0)
        trip->kind++;
    trip->path = strdup(path);
    trip->length = (unsigned)strlen(digits) / 2;
    trip->value = calloc(1, trip->length + 1);
    if (trip->kind == KINDS || !trip->path || !trip->value) {
        errno = trip->kind == KINDS ? EINVAL : ENOMEM;
        die(kind);
    }
    for (unsigned i = 0; i < trip->length && sscanf(digits + 2 * i, "%2x", &byte) == 1; i++)
        trip->value[i] = (char)byte;
    if (trip->kind == SET_PERMS)
        read_perms(trip);
}

static void read_list(struct list *list, const char *name, size_t repetitions)
{
    FILE *file = fopen(name, "r");
    char *line = NULL;
    size_t room = 0;

    if (!file)
        die(name);
    list->file = name;
    list->took_us = calloc(repetitions, sizeof(*list->took_us));
    if (!list->took_us)
        die("calloc");
    while (getline(&line, &room, file) > 0 && list->count < TRIPS_MAX) {
        line[strcspn(line, "\n")] = '\0';
        read_trip(&list->trips[list->count++], line);
    }
    free(line);
    fclose(file);
}

/* What is not there is not there: a request is answered all the same. */
static void make(struct xs_handle *store, struct xs_handle *watches, const struct trip *trip, xs_transaction_t *txn)
{
    unsigned length;
    bool good = true;

    switch (trip->kind) {
    case READ:
        free(xs_read(store, *txn, trip->path, &length));
        break;
    case GET_PERMS:
        free(xs_get_permissions(store, *txn, trip->path, &length));
        break;
    case DIRECTORY:
        free(xs_directory(store, *txn, trip->path, &length));
        break;
    case WRITE:
        good = xs_write(store, *txn, trip->path, trip->value, trip->length);
        break;
    case SET_PERMS: {
        struct xs_permissions perms[PERMS_MAX];
        memcpy(perms, trip->perms, sizeof(perms));
        good = xs_set_permissions(store, *txn, trip->path, perms, trip->perms_count);
        break;
    }
    case RM:
        good = xs_rm(store, *txn, trip->path) || errno == ENOENT;
        break;
    case WATCH:
        good = xs_watch(watches, trip->path, "bench");
        break;
    case UNWATCH:
        good = xs_unwatch(watches, trip->path, "bench") || errno == ENOENT;
        break;
    case TRANSACTION_START:
        *txn = xs_transaction_start(store);
        good = *txn != XBT_NULL;
        break;
    case TRANSACTION_END:
        good = xs_transaction_end(store, *txn, false);
        *txn = XBT_NULL;
        break;
    case KINDS:
        break;
    }
    if (!good)
        die(trip->path);
}

static void drain(struct xs_handle *store)
{
    char **event;

    while ((event = xs_check_watch(store)))
        free(event);
}

int main(int argc, char **argv)
{
    static struct list lists[LISTS_MAX];
    size_t repetitions = argc > 3 ? strtoul(argv[1], NULL, 10) : 0, count = argc > 3 ? (size_t)argc - 3 : 0;

    if (!repetitions || count > LISTS_MAX) {
        fprintf(stderr, "usage: trips REPETITIONS REST_MS LIST...\n");
        return 2;
    }
    for (size_t i = 0; i < count; i++)
        read_list(&lists[i], argv[3 + i], repetitions);
    struct xs_handle *store = xs_open(0), *watches = xs_open(0); /* as the daemon has them */
    if (!store || !watches)
        die("xs_open");
    useconds_t rest_us = (useconds_t)strtoul(argv[2], NULL, 10) * 1000;
    for (size_t round = 0; round < repetitions; round++) {
        usleep(rest_us);
        for (size_t i = 0; i < count; i++) {
            xs_transaction_t txn = XBT_NULL;
            double began_us = now_us();
            for (size_t trip = 0; trip < lists[i].count; trip++)
                make(store, watches, &lists[i].trips[trip], &txn);
            lists[i].took_us[round] = now_us() - began_us;
            drain(watches);
        }
    }
    printf("[");
    for (size_t i = 0; i < count; i++) {
        printf("%s{\"trips\": %zu, ", i ? ", " : "", lists[i].count);
        print_percentiles(lists[i].took_us, repetitions);
        printf("}");
    }
    printf("]\n");
    xs_close(watches);
    xs_close(store);
    return 0;
}
