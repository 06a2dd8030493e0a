/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What "p2mguardctl top" knows of the daemon and of the guests under guard: from guard.list and daemon.info, and from
 * events between them.
 *
 * Owns the rows, ordered by domid: a domain has one row, and a session that is gone keeps it for a few seconds. Pure;
 * all times are UNIX time in milliseconds, as the daemon's, which is on the same host.
 */
#ifndef P2MGUARD_CLIENT_TOP_LIST_H
#define P2MGUARD_CLIENT_TOP_LIST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct top_row {
    char session[40];
    char name[128];
    char state[16], phase[16];
    char verdict[16], reason[32];
    int64_t domid;
    int64_t begun_ms, held_ms;                          /* when it was held first; -1 before */
    int64_t tot_kib, pin_kib, wanted_kib, deferred_kib; /* -1: none, or not known */
    int64_t baseline_kib;                               /* tot_kib at the baseline, -1 before */
    int64_t generation, generation_changes;             /* at the baseline, -1 where there is none; since it was held */
    int64_t attempt, attempts, longest_gap_ms;
    int64_t gone_ms; /* when it was; 0 before */
};

struct top_daemon {
    char version[32], store[16];
    int64_t uptime_ms, max_gap_ms;
};

struct top_list {
    struct top_row *rows;
    size_t count, room;
    struct top_daemon daemon;
    bool stale; /* there was something that only guard.list can tell */
};

enum top_order { TOP_BY_DOMID, TOP_BY_NAME, TOP_BY_AGE, TOP_BY_SIZE, TOP_BY_STATE, TOP_ORDERS };

void top_list_free(struct top_list *list);

/* The answer of daemon.info. */
void top_list_take_info(struct top_list *list, const json_t *info);

/* The answer of guard.list; -ENOMEM, and the rows are as they were. */
int top_list_take_sessions(struct top_list *list, const json_t *result, int64_t now_ms);

/* The params of an event. What is about no session that is known makes the list stale. */
void top_list_take_event(struct top_list *list, const json_t *event);

/* Forgets those that have been gone for some time. True when there were any. */
bool top_list_expire(struct top_list *list, int64_t now_ms);

/* For how long it is held; while it never was, for how long there is a session. */
int64_t top_row_age_ms(const struct top_row *row, int64_t now_ms);

size_t top_list_count(const struct top_list *list, const char *state);

/* The longest time that nobody looked at a guest that is listed. */
int64_t top_list_longest_gap_ms(const struct top_list *list);

/* Pointers to all rows in an order; the caller frees the array. NULL when memory ran out. */
const struct top_row **top_list_sort(const struct top_list *list, enum top_order order);
const char *top_order_name(enum top_order order);

#endif
