/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Programs of toolstacks that save a running guest: finding them, and noticing their end.
 *
 * Two ways to find them. The kernel's process connector tells of every program that is started: at once, and for next
 * to nothing where few are, but only to who has CAP_NET_ADMIN and lives in the host's own network, process and user
 * namespaces. The process table can always be read, once a second: a helper that lives shorter than that may be missed.
 * A process that ends before it could be looked at is missed either way. Where the kernel tells of them, the table is
 * read once a minute besides.
 *
 * A helper is followed through a pidfd, taken before anything is read of it: what was read is of that very process,
 * and its end is its own, whoever has its number next. Only root's processes, and those of our own user, are believed.
 *
 * Owns descriptors and timers. Loop thread only.
 */
#ifndef P2MGUARD_HELPERS_H
#define P2MGUARD_HELPERS_H

#include <event2/event.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum helpers_watch {
    HELPERS_AUTO, /* HELPERS_EXEC where that can be had, else HELPERS_POLL */
    HELPERS_EXEC,
    HELPERS_POLL,
    HELPERS_NO,
    HELPERS_WATCH_COUNT
};

#define HELPERS_WATCH_NAMES "auto, exec, poll or no"

/* "unknown" outside the range; -EINVAL when there is none of that name. */
const char *helpers_watch_name(enum helpers_watch watch);
int helpers_watch_parse(const char *text, enum helpers_watch *watch);

/* How often the process table is read. */
#define HELPERS_POLL_MS 1000

struct helper {
    pid_t pid;
    uint16_t domid;
    const char *program;          /* static */
    enum helpers_watch mechanism; /* HELPERS_EXEC or HELPERS_POLL: how it was found */
    int64_t started_ms;           /* clock_now_ms() when it was forked; the kernel rounds this to 10 ms */
};

struct helpers_callbacks {
    /* One was found. True: told of once, and its end is told as well. False: it may be told of again. */
    bool (*seen)(void *context, const struct helper *helper);
    void (*ended)(void *context, const struct helper *helper);
    void *context;
};

struct helpers;

/* Looks for nothing before helpers_apply. */
int helpers_new(struct helpers **helpers, struct event_base *base, const struct helpers_callbacks *callbacks);

/* Tells of no more ends. Accepts NULL. */
void helpers_free(struct helpers *helpers);

/* Those that are known are followed on; `most` is how many may be. Those that run already are looked for first. */
void helpers_apply(struct helpers *helpers, enum helpers_watch watch, size_t most);

/* Looks through the process table once more, whatever the mechanism, unless that is HELPERS_NO. */
void helpers_look_again(struct helpers *helpers);

/* What is in force: HELPERS_EXEC, HELPERS_POLL or HELPERS_NO. */
enum helpers_watch helpers_mechanism(const struct helpers *helpers);

#endif
