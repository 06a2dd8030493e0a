/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* p2mguardctl metrics: the daemon's page of metrics, on standard output or in a file for node_exporter. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl.h"
#include "protocol/metrics-up.h"

/* A daemon that is there and does not answer for so long is none to whoever watches it. */
#define METRICS_ANSWER_MS 5000

/* In either format. */
#define METRICS_DOWN                                                                                                   \
    "# TYPE " P2MG_METRICS_UP " gauge\n# HELP " P2MG_METRICS_UP " " P2MG_METRICS_UP_HELP "\n" P2MG_METRICS_UP " 0\n"

struct metrics_options {
    const char *format, *output;
};

static int metrics_read_options(struct metrics_options *options, int argc, char **argv)
{
    static const struct option names[] = {
        {"format", required_argument, NULL, 'f'}, {"output", required_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'f')
            options->format = optarg;
        else if (name == 'o')
            options->output = optarg;
        else
            return CTL_USAGE;
    }
    if (optind != argc)
        return ctl_usage_error("metrics", "unexpected argument '%s'", argv[optind]);
    if (strcmp(options->format, "openmetrics") != 0 && strcmp(options->format, "prometheus") != 0)
        return ctl_usage_error("metrics", "--format is '%s', expected openmetrics or prometheus", options->format);
    return CTL_OK;
}

/* ---- the daemon ---- */

/*
 * A daemon has the lock beside its socket (daemon/lock.h). Connecting would have systemd start one that was stopped on
 * purpose, every few seconds, and nobody would be told that it was down.
 */
static bool metrics_is_alone(const char *socket)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s.lock", socket) >= (int)sizeof(path))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT; /* else it is for others to look at, and connecting tells */
    bool alone = flock(fd, LOCK_SH | LOCK_NB) == 0;
    close(fd);
    return alone;
}

static int64_t metrics_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The whole response to a request; NULL and *failure set when there is none in time. */
static json_t *metrics_await(struct connection *connection, int64_t id, int *failure)
{
    int64_t until_ms = metrics_now_ms() + METRICS_ANSWER_MS, left_ms;
    json_t *reply;

    *failure = 0;
    while (!(reply = connection_reply(connection, id)) && !*failure) {
        left_ms = until_ms - metrics_now_ms();
        int ready = left_ms > 0 ? connection_wait(connection, (int)left_ms) : 0;
        if (ready > 0)
            *failure = connection_take_in(connection);
        else if (ready == 0)
            *failure = -ETIMEDOUT;
        else if (ready != -EINTR)
            *failure = ready;
    }
    return reply ? reply : connection_reply(connection, id);
}

/* CTL_OK and *result the caller's; CTL_NO_DAEMON, without a word, where nobody answers. */
static int metrics_ask(struct ctl *ctl, const char *format, json_t **result)
{
    int failure;

    if (metrics_is_alone(ctl->socket))
        return CTL_NO_DAEMON;
    failure = connection_open(&ctl->connection, ctl->socket);
    if (failure == -ECONNREFUSED || failure == -ENOENT)
        return CTL_NO_DAEMON;
    if (failure)
        return ctl_connect(ctl); /* which says what it is */
    int64_t id = connection_send(ctl->connection, "daemon.metrics", json_pack("{s:s}", "format", format));
    json_t *reply = NULL;
    if (id < 0)
        failure = (int)id;
    else
        reply = metrics_await(ctl->connection, id, &failure);
    if (!reply)
        return failure == -ETIMEDOUT || failure == -EPIPE ? CTL_NO_DAEMON : ctl_explain(failure, NULL);
    json_t *error = json_incref(json_object_get(reply, "error"));
    *result = json_incref(json_object_get(reply, "result"));
    json_decref(reply);
    return error ? ctl_explain(-EREMOTEIO, error) : CTL_OK;
}

/* ---- the file ---- */

static int metrics_fill(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        ssize_t written = write(fd, text, left);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -errno;
        text += written;
        left -= (size_t)written;
    }
    return fchmod(fd, 0644) < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* Whoever reads the file meets all of the old text or all of the new one; what it is made of is no *.prom. */
static int metrics_replace(const char *path, const char *text)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char temporary[PATH_MAX];

    if (snprintf(temporary, sizeof(temporary), "%.*s.%s.XXXXXX", (int)(base - path), path, base) >=
        (int)sizeof(temporary))
        return -ENAMETOOLONG;
    int fd = mkostemp(temporary, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int error = metrics_fill(fd, text);
    if (close(fd) < 0 && !error)
        error = -errno;
    if (!error && rename(temporary, path) < 0)
        error = -errno;
    if (error)
        unlink(temporary);
    return error;
}

/* The status that the asking has ended with, unless the file cannot be written. */
static int metrics_write_file(const struct metrics_options *options, const char *text, int status)
{
    char *down = NULL;
    int error = 0;

    if (!text && asprintf(&down, METRICS_DOWN "%s", strcmp(options->format, "openmetrics") == 0 ? "# EOF\n" : "") < 0)
        error = -ENOMEM;
    if (!error)
        error = metrics_replace(options->output, text ? text : down);
    if (!text)
        free(down);
    if (!error)
        return status;
    return ctl_fail("writing %s failed: %s", options->output, strerror(-error));
}

int metrics_command(struct ctl *ctl, int argc, char **argv)
{
    struct metrics_options options = {.format = "prometheus"};
    json_t *result = NULL;
    int status = metrics_read_options(&options, argc, argv);

    if (status)
        return status;
    status = metrics_ask(ctl, options.format, &result);
    const char *text = json_string_value(json_object_get(result, "text"));
    if (status == CTL_OK && !text)
        status = ctl_fail("the daemon's answer has no text");
    if (options.output)
        status = metrics_write_file(&options, text, status);
    else if (status == CTL_NO_DAEMON)
        ctl_say("nobody answers on %s; is p2mguardd running? systemctl status p2mguardd", ctl->socket);
    else if (status == CTL_OK && ctl->json)
        ctl_print_json(result);
    else if (status == CTL_OK)
        fputs(text, stdout);
    json_decref(result);
    return status;
}
