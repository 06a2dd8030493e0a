/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/log.h"

/* A dead xenstored does not show on libxenstore's fd, so it is looked for this often. */
#define WORKER_LOOK_MS 500

/* A watch event, or a change of the connection, on its way to the loop. */
enum notice_kind { NOTICE_TOUCHED, NOTICE_LOST, NOTICE_BACK };

struct notice {
    enum notice_kind what;
    char path[STORE_PATH_MAX];
    char token[64];
    struct notice *next;
};

struct worker {
    pthread_t thread;
    struct worker_tools tools; /* worker thread only */
    struct worker_callbacks callbacks;
    struct event *done_event;
    int wake_fd; /* loop -> worker */
    int done_fd; /* worker -> loop */
    atomic_bool stop;
    atomic_bool connected;
    atomic_int_least64_t busy_since_ms; /* 0 = idle */

    pthread_mutex_t lock; /* over the lists below */
    struct work *todo, **todo_end;
    struct work *done, **done_end;
    struct notice *notices, **notices_end;
};

static void worker_ring(int fd)
{
    uint64_t one = 1;

    /* Can only fail when the counter is full, and then the other side is awake anyway. */
    if (write(fd, &one, sizeof(one)) < 0)
        return;
}

static void worker_silence(int fd)
{
    uint64_t count;

    if (read(fd, &count, sizeof(count)) < 0)
        return;
}

static void worker_post_notice(struct worker *worker, enum notice_kind what, const char *path, const char *token)
{
    struct notice *notice = calloc(1, sizeof(*notice));

    if (!notice) {
        /* A lost event must not go unnoticed: drop the connection, which makes the loop look at everything anew. */
        log_error("out of memory for a watch event; connecting to xenstored anew");
        store_disconnect(worker->tools.store);
        return;
    }
    notice->what = what;
    strcpy(notice->path, path);
    strcpy(notice->token, token);
    pthread_mutex_lock(&worker->lock);
    *worker->notices_end = notice;
    worker->notices_end = &notice->next;
    pthread_mutex_unlock(&worker->lock);
    worker_ring(worker->done_fd);
}

static struct work *worker_next(struct worker *worker)
{
    pthread_mutex_lock(&worker->lock);
    struct work *work = worker->todo;
    if (work) {
        worker->todo = work->next;
        if (!worker->todo)
            worker->todo_end = &worker->todo;
        work->next = NULL;
    }
    pthread_mutex_unlock(&worker->lock);
    return work;
}

static void worker_finish(struct worker *worker, struct work *work)
{
    pthread_mutex_lock(&worker->lock);
    *worker->done_end = work;
    worker->done_end = &work->next;
    pthread_mutex_unlock(&worker->lock);
    worker_ring(worker->done_fd);
}

static void worker_drain_events(struct worker *worker)
{
    char path[STORE_PATH_MAX], token[64];

    while (store_next_event(worker->tools.store, path, sizeof(path), token, sizeof(token)) == 1)
        worker_post_notice(worker, NOTICE_TOUCHED, path, token);
}

/* Keeps `connected` true to the facts, and tells the loop when it changes. */
static void worker_mind_connection(struct worker *worker)
{
    bool before = atomic_load(&worker->connected);
    bool now = before;

    if (before && !store_alive(worker->tools.store)) {
        store_disconnect(worker->tools.store);
        now = false;
        worker_post_notice(worker, NOTICE_LOST, "", "");
    }
    if (!now && store_reconnect(worker->tools.store) == 0) {
        now = true;
        worker_post_notice(worker, NOTICE_BACK, "", "");
    }
    atomic_store(&worker->connected, now);
}

static void worker_run_work(struct worker *worker)
{
    struct work *work;

    while ((work = worker_next(worker))) {
        atomic_store(&worker->busy_since_ms, clock_now_ms());
        work->run(work, &worker->tools);
        atomic_store(&worker->busy_since_ms, 0);
        worker_finish(worker, work);
        worker_drain_events(worker);
    }
}

static void *worker_main(void *context)
{
    struct worker *worker = context;
    int64_t looked_ms = 0;

    while (!atomic_load(&worker->stop)) {
        int64_t now_ms = clock_now_ms();
        if (now_ms - looked_ms >= WORKER_LOOK_MS) {
            atomic_store(&worker->busy_since_ms, now_ms);
            worker_mind_connection(worker);
            atomic_store(&worker->busy_since_ms, 0);
            looked_ms = clock_now_ms();
        }
        worker_drain_events(worker);
        worker_run_work(worker);

        struct pollfd fds[2] = {{.fd = worker->wake_fd, .events = POLLIN},
                                {.fd = store_fd(worker->tools.store), .events = POLLIN}};
        if (poll(fds, 2, WORKER_LOOK_MS) > 0 && (fds[0].revents & POLLIN))
            worker_silence(worker->wake_fd);
    }
    return NULL;
}

static void worker_deliver_notice(struct worker *worker, const struct notice *notice)
{
    switch (notice->what) {
    case NOTICE_TOUCHED:
        worker->callbacks.touched(worker->callbacks.context, notice->path, notice->token);
        break;
    case NOTICE_LOST:
        worker->callbacks.lost(worker->callbacks.context);
        break;
    case NOTICE_BACK:
        worker->callbacks.back(worker->callbacks.context);
        break;
    }
}

static void worker_on_done(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;
    (void)what;

    worker_silence(fd);
    pthread_mutex_lock(&worker->lock);
    struct work *done = worker->done;
    struct notice *notices = worker->notices;
    worker->done = NULL;
    worker->done_end = &worker->done;
    worker->notices = NULL;
    worker->notices_end = &worker->notices;
    pthread_mutex_unlock(&worker->lock);

    while (notices) {
        struct notice *notice = notices;
        notices = notice->next;
        worker_deliver_notice(worker, notice);
        free(notice);
    }
    while (done) {
        struct work *work = done;
        done = work->next;
        work->next = NULL;
        work->done(work);
    }
}

/* Signals are the loop's: the thread starts with all of them blocked. */
static int worker_start_thread(struct worker *worker)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&worker->thread, NULL, worker_main, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -error;
}

static void worker_discard(struct worker *worker)
{
    if (worker->done_event)
        event_free(worker->done_event);
    if (worker->wake_fd >= 0)
        close(worker->wake_fd);
    if (worker->done_fd >= 0)
        close(worker->done_fd);
    store_free(worker->tools.store);
    hypervisor_close(worker->tools.hypervisor);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

int worker_new(struct worker **result, struct event_base *base, const struct worker_callbacks *callbacks)
{
    struct worker *worker = calloc(1, sizeof(*worker));
    int error;

    if (!worker)
        return -ENOMEM;
    pthread_mutex_init(&worker->lock, NULL);
    worker->callbacks = *callbacks;
    worker->todo_end = &worker->todo;
    worker->done_end = &worker->done;
    worker->notices_end = &worker->notices;
    worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    worker->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    error = worker->wake_fd < 0 || worker->done_fd < 0 ? -errno : 0;
    if (!error)
        error = store_new(&worker->tools.store);
    if (!error)
        error = hypervisor_open(&worker->tools.hypervisor);
    if (!error) {
        worker->done_event = event_new(base, worker->done_fd, EV_READ | EV_PERSIST, worker_on_done, worker);
        if (!worker->done_event || event_add(worker->done_event, NULL) < 0)
            error = -ENOMEM;
    }
    if (!error)
        error = worker_start_thread(worker);
    if (error) {
        worker_discard(worker);
        return error;
    }
    *result = worker;
    return 0;
}

void worker_free(struct worker *worker, int64_t grace_ms)
{
    struct timespec until;

    if (!worker)
        return;
    atomic_store(&worker->stop, true);
    worker_ring(worker->wake_fd);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(grace_ms / 1000);
    until.tv_nsec += (long)(grace_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    /* A thread that sits in a stopped xenstored cannot be woken: leave it and its data to the end of the process. */
    if (pthread_timedjoin_np(worker->thread, NULL, &until) != 0)
        return;
    worker_on_done(worker->done_fd, 0, worker);
    for (struct work *work; (work = worker_next(worker));)
        work->done(work);
    worker_discard(worker);
}

void worker_submit(struct worker *worker, struct work *work)
{
    work->next = NULL;
    pthread_mutex_lock(&worker->lock);
    *worker->todo_end = work;
    worker->todo_end = &work->next;
    pthread_mutex_unlock(&worker->lock);
    worker_ring(worker->wake_fd);
}

int64_t worker_busy_ms(struct worker *worker)
{
    int64_t since_ms = atomic_load(&worker->busy_since_ms);

    return since_ms ? clock_now_ms() - since_ms : 0;
}

bool worker_connected(struct worker *worker)
{
    return atomic_load(&worker->connected);
}
