/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static const char *const worker_words[] = WORKER_WORDS;

struct worker {
    struct worker_tools tools; /* worker thread only */
    struct worker_callbacks callbacks;
    bool never_dies;
    struct handover handover;
    atomic_bool stop;
    atomic_bool connected;
    atomic_int_least64_t busy_since_ms; /* 0 = idle */

    pthread_mutex_t lock; /* over the notices */
    struct notice *notices, **notices_end;
    uint8_t coming[sizeof(WORKER_LETTERS) - 1][65536 / 8]; /* a letter and domid with a notice among them */
    uint8_t words_coming;
};

/* The bit for a token; NULL for one that is neither of the words nor a letter and a domid. */
static uint8_t *worker_coming(struct worker *worker, const char *token, uint8_t *bit)
{
    const char *letter = *token ? strchr(WORKER_LETTERS, *token) : NULL;
    char *end;

    for (size_t i = 0; i < sizeof(worker_words) / sizeof(worker_words[0]); i++)
        if (strcmp(token, worker_words[i]) == 0) {
            *bit = (uint8_t)(1u << i);
            return &worker->words_coming;
        }
    if (!letter || token[1] < '0' || token[1] > '9')
        return NULL;
    unsigned long domid = strtoul(token + 1, &end, 10);
    if (*end || domid > UINT16_MAX)
        return NULL;
    *bit = (uint8_t)(1u << domid % 8);
    return &worker->coming[letter - WORKER_LETTERS][domid / 8];
}

/* True when it was not set before. Under the lock. */
static bool worker_set_coming(struct worker *worker, const char *token)
{
    uint8_t bit = 0, *bits = worker_coming(worker, token, &bit);

    if (!bits)
        return true;
    bool before = *bits & bit;
    *bits |= bit;
    return !before;
}

static void worker_clear_coming(struct worker *worker, const char *token)
{
    uint8_t bit = 0, *bits = worker_coming(worker, token, &bit);

    if (bits)
        *bits &= (uint8_t)~bit;
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
    bool first = worker_set_coming(worker, token);
    if (first) {
        *worker->notices_end = notice;
        worker->notices_end = &notice->next;
    }
    pthread_mutex_unlock(&worker->lock);
    if (!first) {
        free(notice);
        return;
    }
    handover_wake_loop(&worker->handover);
}

/* Makes a folder's token that of one node in it. False when the event is not about a node of such a name. */
static bool worker_narrow_token(const char *path, char *token, size_t size)
{
    size_t length = strlen(token + 1);
    char letter = *token, *end;

    if (strncmp(path, token + 1, length) != 0 || path[length] != '/')
        return false;
    const char *name = path + length + 1;
    unsigned long domid = strtoul(name, &end, 10);
    if (*name < '0' || *name > '9' || (*name == '0' && name[1]) || *end || domid > UINT16_MAX)
        return false;
    snprintf(token, size, "%c%lu", letter, domid);
    return true;
}

static void worker_drain_events(struct worker *worker)
{
    char path[STORE_PATH_MAX], token[64];

    while (store_next_event(worker->tools.store, path, sizeof(path), token, sizeof(token)) == 1)
        if (token[0] == '\0' || token[1] != '/' || worker_narrow_token(path, token, sizeof(token)))
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

    while ((work = handover_next(&worker->handover))) {
        atomic_store(&worker->busy_since_ms, clock_now_ms());
        work->run(work, &worker->tools);
        atomic_store(&worker->busy_since_ms, 0);
        handover_finish(&worker->handover, work);
        worker_drain_events(worker);
    }
}

static void *worker_main(void *context)
{
    struct worker *worker = context;
    int64_t looked_ms = 0;

    while (!atomic_load(&worker->stop)) {
        int64_t now_ms = clock_now_ms();
        bool looks = !worker->never_dies || !atomic_load(&worker->connected) || store_fd(worker->tools.store) < 0;
        if (looks && now_ms - looked_ms >= WORKER_LOOK_MS) {
            atomic_store(&worker->busy_since_ms, now_ms);
            worker_mind_connection(worker);
            atomic_store(&worker->busy_since_ms, 0);
            looked_ms = clock_now_ms();
        }
        worker_drain_events(worker);
        worker_run_work(worker);

        struct pollfd fds[2] = {{.fd = handover_fd(&worker->handover), .events = POLLIN},
                                {.fd = store_fd(worker->tools.store), .events = POLLIN}};
        if (poll(fds, 2, looks ? WORKER_LOOK_MS : -1) > 0 && (fds[0].revents & POLLIN))
            handover_hear(&worker->handover);
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

static void worker_deliver_notices(void *context)
{
    struct worker *worker = context;

    pthread_mutex_lock(&worker->lock);
    struct notice *notices = worker->notices;
    for (struct notice *notice = notices; notice; notice = notice->next)
        worker_clear_coming(worker, notice->token);
    worker->notices = NULL;
    worker->notices_end = &worker->notices;
    pthread_mutex_unlock(&worker->lock);
    while (notices) {
        struct notice *notice = notices;
        notices = notice->next;
        worker_deliver_notice(worker, notice);
        free(notice);
    }
}

static void worker_discard(struct worker *worker)
{
    store_free(worker->tools.store);
    pthread_mutex_destroy(&worker->lock);
    free(worker);
}

int worker_new(struct worker **result, struct event_base *base, const struct worker_settings *settings,
               const struct worker_callbacks *callbacks)
{
    struct worker *worker = calloc(1, sizeof(*worker));

    if (!worker)
        return -ENOMEM;
    pthread_mutex_init(&worker->lock, NULL);
    worker->callbacks = *callbacks;
    worker->notices_end = &worker->notices;
    worker->never_dies = settings->never_dies;
    worker->tools.hypervisor = settings->hypervisor;
    int error = store_new(&worker->tools.store, settings->watches_apart);
    if (!error)
        error = handover_open(&worker->handover, base, worker_main, worker_deliver_notices, worker);
    if (error) {
        worker_discard(worker);
        return error;
    }
    *result = worker;
    return 0;
}

bool worker_free(struct worker *worker, int64_t grace_ms)
{
    struct timespec until;

    if (!worker)
        return true;
    atomic_store(&worker->stop, true);
    handover_wake_thread(&worker->handover);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += (time_t)(grace_ms / 1000);
    until.tv_nsec += (long)(grace_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    /* A thread that sits in a stopped xenstored cannot be woken. */
    if (pthread_timedjoin_np(worker->handover.thread, NULL, &until) != 0)
        return false;
    handover_close(&worker->handover);
    worker_discard(worker);
    return true;
}

void worker_submit(struct worker *worker, struct work *work)
{
    handover_submit(&worker->handover, work);
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

const struct store *worker_store(const struct worker *worker)
{
    return worker->tools.store;
}
