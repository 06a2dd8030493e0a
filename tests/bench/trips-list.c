/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/bench/trips.h"

#include <stdbool.h>
#include <stdint.h>

#include "tests/bench/bench.h"

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

void trips_read(struct trips_list *list, const char *name)
{
    FILE *file = fopen(name, "r");
    char *line = NULL;
    size_t room = 0;

    if (!file)
        die(name);
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

void trips_make(const struct trips_list *list, struct xs_handle *store, struct xs_handle *watches)
{
    xs_transaction_t txn = XBT_NULL;

    for (size_t i = 0; i < list->count; i++)
        make(store, watches, &list->trips[i], &txn);
}

void trips_drain(struct xs_handle *watches)
{
    char **event;

    while ((event = xs_check_watch(watches)))
        free(event);
}
