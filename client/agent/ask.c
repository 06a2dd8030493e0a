/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/ask.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/log.h"

/* The answer to the first request waits for a program to be started, in a guest that may be busy. */
#define ASK_START_MS 3000
#define ASK_ANSWER_MS 1000

/* Between two attempts at the first; twice that before the next, and so on. */
#define ASK_PAUSE_MS 10

void ask_close(struct ask *ask)
{
    if (ask->fd >= 0)
        close(ask->fd);
    ask->fd = -1;
}

static int ask_connect(struct ask *ask)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    ask_close(ask);
    if (strlen(ask->path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, ask->path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    ask->fd = fd;
    return 0;
}

/* -ECONNRESET when the other side has closed the connection. */
static int ask_receive(struct ask *ask, int64_t until_ms, int *outcome)
{
    char text[SYSFS_TEXT_MAX];
    struct pollfd wait = {.fd = ask->fd, .events = POLLIN};
    int ready;

    do {
        int64_t left_ms = until_ms - clock_now_ms();
        ready = poll(&wait, 1, left_ms > 0 ? (int)left_ms : 0);
    } while (ready < 0 && errno == EINTR);
    if (ready < 0)
        return -errno;
    if (ready == 0)
        return -ETIMEDOUT;
    ssize_t length = recv(ask->fd, text, sizeof(text), MSG_TRUNC);
    if (length < 0)
        return -errno;
    if (length == 0)
        return -ECONNRESET;
    return sysfs_answer_parse(text, (size_t)length, outcome) ? -EPROTO : 0;
}

/* One request and its answer. 0, or why there is none; the connection is closed then, so that none can come late. */
static int ask_once(struct ask *ask, const struct sysfs_request *request, int64_t limit_ms, int *outcome)
{
    char text[SYSFS_TEXT_MAX];
    int length = sysfs_request_format(request, text);
    int error = send(ask->fd, text, (size_t)length, MSG_NOSIGNAL) < 0 ? -errno : 0;

    if (!error)
        error = ask_receive(ask, clock_now_ms() + limit_ms, outcome);
    if (error)
        ask_close(ask);
    return error;
}

static bool ask_is_lost(int error)
{
    return error == -EPIPE || error == -ECONNRESET;
}

static int ask_try_start(struct ask *ask, int64_t until_ms)
{
    const struct sysfs_request request = {.verb = SYSFS_READY};
    int64_t left_ms = until_ms - clock_now_ms();
    int outcome = 0;
    int error = ask_connect(ask);

    if (!error)
        error = ask_once(ask, &request, left_ms > 0 ? left_ms : 0, &outcome);
    return error ? error : outcome;
}

/* Whoever connects while one ends is turned away, and has the next one started. */
static int ask_start(struct ask *ask)
{
    int64_t until_ms = clock_now_ms() + ASK_START_MS, pause_ms = ASK_PAUSE_MS;
    int error = ask_try_start(ask, until_ms);

    while (ask_is_lost(error) && clock_now_ms() + pause_ms < until_ms) {
        struct timespec pause = {.tv_sec = pause_ms / 1000, .tv_nsec = pause_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
        pause_ms *= 2;
        error = ask_try_start(ask, until_ms);
    }
    return error;
}

static int ask_give_up(const struct ask *ask, int error)
{
    log_error("nobody makes changes in sysfs for me, at %s: %s", ask->path, strerror(-error));
    return ASK_NOBODY;
}

int ask_ready(struct ask *ask)
{
    int error = ask_start(ask);

    return error ? ask_give_up(ask, error) : 0;
}

int ask_request(struct ask *ask, const struct sysfs_request *request)
{
    bool was_connected = ask->fd >= 0;
    int outcome = 0, error = was_connected ? 0 : ask_start(ask);

    if (!error)
        error = ask_once(ask, request, ASK_ANSWER_MS, &outcome);
    /* Killed, perhaps long ago. Doing it twice does no harm, and undoing it undoes both. */
    if (was_connected && ask_is_lost(error)) {
        error = ask_start(ask);
        if (!error)
            error = ask_once(ask, request, ASK_ANSWER_MS, &outcome);
    }
    return error ? ask_give_up(ask, error) : outcome;
}
