/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/handover.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/timer.h"

static void handover_ring(int fd)
{
    uint64_t one = 1;

    /* Can only fail when the counter is full, and then the other side is awake anyway. */
    if (write(fd, &one, sizeof(one)) < 0)
        return;
}

static void handover_silence(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        return;
}

static void handover_append(struct handover *handover, struct work ***end, struct work *work)
{
    work->next = NULL;
    pthread_mutex_lock(&handover->lock);
    **end = work;
    *end = &work->next;
    pthread_mutex_unlock(&handover->lock);
}

static struct work *handover_take_done(struct handover *handover)
{
    pthread_mutex_lock(&handover->lock);
    struct work *done = handover->done;
    handover->done = NULL;
    handover->done_end = &handover->done;
    pthread_mutex_unlock(&handover->lock);
    return done;
}

static void handover_give_back(struct work *done)
{
    while (done) {
        struct work *work = done;
        done = work->next;
        work->next = NULL;
        work->done(work);
    }
}

static void handover_on_ring(evutil_socket_t fd, short what, void *context)
{
    struct handover *handover = context;
    (void)what;

    handover_silence(fd);
    /* Taken first, given back last: whatever the thread told of before it finished them is heard before. */
    struct work *done = handover_take_done(handover);
    if (handover->rung)
        handover->rung(handover->context);
    handover_give_back(done);
}

static int handover_start_thread(pthread_t *thread, void *(*body)(void *context), void *context)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(thread, NULL, body, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

int handover_open(struct handover *handover, struct event_base *base, void *(*body)(void *context),
                  void (*rung)(void *context), void *context)
{
    pthread_mutex_init(&handover->lock, NULL);
    handover->todo_end = &handover->todo;
    handover->done_end = &handover->done;
    handover->rung = rung;
    handover->context = context;
    handover->to_thread = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    handover->to_loop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int error = handover->to_thread < 0 || handover->to_loop < 0 ? -errno : 0;
    if (!error) {
        handover->event = event_new(base, handover->to_loop, EV_READ | EV_PERSIST, handover_on_ring, handover);
        if (!handover->event || event_add(handover->event, NULL) < 0)
            error = -ENOMEM;
    }
    if (!error)
        error = handover_start_thread(&handover->thread, body, context);
    if (error)
        handover_close(handover);
    return error;
}

void handover_close(struct handover *handover)
{
    if (handover->event)
        handover_on_ring(handover->to_loop, 0, handover);
    for (struct work *work; (work = handover_next(handover));)
        work->done(work);
    timer_free(handover->event);
    if (handover->to_thread >= 0)
        close(handover->to_thread);
    if (handover->to_loop >= 0)
        close(handover->to_loop);
    pthread_mutex_destroy(&handover->lock);
}

void handover_submit(struct handover *handover, struct work *work)
{
    handover_append(handover, &handover->todo_end, work);
    handover_ring(handover->to_thread);
}

void handover_wake_thread(struct handover *handover)
{
    handover_ring(handover->to_thread);
}

struct work *handover_next(struct handover *handover)
{
    pthread_mutex_lock(&handover->lock);
    struct work *work = handover->todo;
    if (work) {
        handover->todo = work->next;
        if (!handover->todo)
            handover->todo_end = &handover->todo;
        work->next = NULL;
    }
    pthread_mutex_unlock(&handover->lock);
    return work;
}

void handover_finish(struct handover *handover, struct work *work)
{
    handover_append(handover, &handover->done_end, work);
    handover_ring(handover->to_loop);
}

void handover_wake_loop(struct handover *handover)
{
    handover_ring(handover->to_loop);
}

int handover_fd(const struct handover *handover)
{
    return handover->to_thread;
}

void handover_hear(struct handover *handover)
{
    handover_silence(handover->to_thread);
}
