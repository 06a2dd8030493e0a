/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Requests of xenstored from a list, made one after the other with libxenstore.
 *
 * A line of a list is KIND, PATH and VALUE with tabs between them, VALUE in hexadecimal digits; what is between
 * TRANSACTION_START and TRANSACTION_END is in a transaction. What goes wrong ends the program.
 */
#ifndef P2MGUARD_TESTS_BENCH_TRIPS_H
#define P2MGUARD_TESTS_BENCH_TRIPS_H

#include <stddef.h>
#include <xenstore.h>

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

struct trip {
    enum kind kind;
    char *path;
    char *value;
    unsigned length;
    struct xs_permissions perms[PERMS_MAX];
    unsigned perms_count;
};

struct trips_list {
    struct trip trips[TRIPS_MAX];
    size_t count;
};

void trips_read(struct trips_list *list, const char *name);

/* Watches are set and removed on a connection of their own, as the daemon has them. */
void trips_make(const struct trips_list *list, struct xs_handle *store, struct xs_handle *watches);

/* Events that have come of them. */
void trips_drain(struct xs_handle *watches);

#endif
