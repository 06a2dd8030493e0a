/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work on its way from the event loop to a thread and back.
 *
 * Ownership is what is handed over: whoever has the work may touch it, nobody else. Two lists under one mutex and an
 * eventfd each way are all that the two sides share.
 */
#ifndef P2MGUARD_HANDOVER_H
#define P2MGUARD_HANDOVER_H

#include <event2/event.h>
#include <pthread.h>

struct worker_tools;

struct work {
    void (*run)(struct work *work, const struct worker_tools *tools); /* the thread's */
    void (*done)(struct work *work);                                  /* the loop's, who owns the work again */
    struct work *next;
};

struct handover {
    pthread_t thread;
    pthread_mutex_t lock;
    struct work *todo, **todo_end;
    struct work *done, **done_end;
    int to_thread, to_loop; /* eventfds */
    struct event *event;
    void (*rung)(void *context);
    void *context;
};

/*
 * Starts the thread: `body`, with all signals blocked, which are the loop's. `rung` is called on the loop each time the
 * thread has rung; it may be NULL. No work is handed back before `rung` was called for all that the thread has rung for
 * before it finished that work. Both get `context`.
 */
int handover_open(struct handover *handover, struct event_base *base, void *(*body)(void *context),
                  void (*rung)(void *context), void *context);

/* Once the thread has ended. Calls `done` for what is left, whether it ran or not. */
void handover_close(struct handover *handover);

/* ---- the loop's ---- */

void handover_submit(struct handover *handover, struct work *work);
void handover_wake_thread(struct handover *handover);

/* ---- the thread's ---- */

/* The next work, or NULL. */
struct work *handover_next(struct handover *handover);
void handover_finish(struct handover *handover, struct work *work);
void handover_wake_loop(struct handover *handover);

/* Readable when there is something to do; handover_hear quietens it. */
int handover_fd(const struct handover *handover);
void handover_hear(struct handover *handover);

#endif
