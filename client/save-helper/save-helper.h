/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The save-helper wrapper: what libxl starts instead of libxl-save-helper (environment variable LIBXL_SAVE_HELPER).
 *
 * main.c reads what libxl asks for, hold.c has the guest held, run.c runs the real helper between libxl and the daemon.
 * One process for each save, one thread.
 */
#ifndef P2MGUARD_SAVE_HELPER_H
#define P2MGUARD_SAVE_HELPER_H

#include <stdbool.h>
#include <stdint.h>

#include "client/p2mguard.h"
#include "client/save-helper/stream.h"

/* xentoollog's levels (xentoollog.h). */
enum { SAY_WARNING = 7, SAY_ERROR = 8 };

/* Which target a toolstack sends as the new domain's, before it starts us. */
enum sent_target {
    SENT_STORE, /* the one it has read from xenstore: the pin, when the guest was held then */
    SENT_ASKED  /* the one it was asked for last, itself */
};

struct helper {
    const char *control; /* the daemon's socket, NULL: the usual one */
    const char *real;    /* the helper to be run */
    char **arguments;    /* its, which are ours */
    bool strict;         /* no save without a guard */
    enum sent_target sent;
    int64_t steady_ms; /* for how long a target must have been the same to be the one that was sent */
    uint32_t domid;
    int stream_fd, back_fd;

    int signals;            /* signalfd for SIGTERM */
    struct p2mguard *guard; /* NULL: not guarded, or not any more */
    char session[P2MGUARD_SESSION_SIZE];
    bool mine; /* the session is ours to end; else somebody holds the guest who knows why */

    struct stream to_libxl, from_helper; /* the helper's messages, passed on and not looked at yet */
    struct stream to_helper;             /* libxl's replies */
};

/* Says something through libxl's log, as the helper does; standard error where that is closed. */
void helper_say(struct helper *helper, uint32_t level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Writes what is for libxl, waiting for it. */
void helper_flush(struct helper *helper);

enum hold_result {
    HOLD_HELD,      /* go ahead */
    HOLD_UNGUARDED, /* nobody guards this save, and the policy bears it */
    HOLD_REFUSED    /* this save is to fail; why has been said */
};

/* Has the guest held, before a page of it is copied. */
enum hold_result hold_begin(struct helper *helper);

/* What becomes of the hold when the helper has ended. */
enum hold_end {
    HOLD_END_SAVED,  /* the guest is suspended: until it runs again here, or is gone */
    HOLD_END_RETRY,  /* for the next attempt */
    HOLD_END_FAILED, /* thaw at once */
    HOLD_END_CANCELLED
};
void hold_end(struct helper *helper, enum hold_end end);

/* Runs the real helper; the exit status. */
int run_helper(struct helper *helper);

#endif
