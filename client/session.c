/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commands that go through a session by hand: begin, verdict, retry, end.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl.h"
#include "client/table.h"

/* ---- verdict ---- */

static int verdict_status(const json_t *result)
{
    const char *verdict = ctl_string(result, "verdict");

    if (strcmp(verdict, "proceed") == 0)
        return CTL_OK;
    return strcmp(verdict, "retry") == 0 ? CTL_RETRY : CTL_ABORTED;
}

static void verdict_say(const json_t *result)
{
    table_put(stdout, ctl_string(result, "verdict"));
    printf(": %s (%s), attempt %" PRId64 " of %" PRId64 "\n", ctl_string(result, "text"), ctl_string(result, "reason"),
           ctl_integer(result, "attempt", 0), ctl_integer(result, "attempts", 0));
}

int verdict_command(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {{"phase", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0}};
    const char *phase = "final";
    json_t *result;
    int name, status;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name != 'p')
            return CTL_USAGE;
        phase = optarg;
    }
    if (optind + 1 != argc)
        return ctl_usage_error("verdict", "expected one SESSION");
    char *id = ctl_session_id(ctl, argv[optind], &status);
    if (!id)
        return status;
    status = ctl_call(ctl, "guard.verdict", json_pack("{s:s,s:s}", "session", id, "phase", phase), &result);
    free(id);
    if (status)
        return status;
    status = verdict_status(result);
    if (ctl->json)
        ctl_print_json(result);
    else
        verdict_say(result);
    json_decref(result);
    return status;
}

/* ---- begin ---- */

/* Holds until a signal or the daemon's end: the session goes with this process's connection. */
static int begin_stay(struct ctl *ctl, const char *session, int fd)
{
    json_t *result;
    int status = CTL_OK;

    if (fd < 0)
        return ctl_fail("waiting for signals failed: %s", strerror(errno));
    if (!ctl->json)
        puts("the guest is held as long as this command runs; Ctrl-C lets it go");
    fflush(stdout);
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = connection_fd(ctl->connection), .events = POLLIN}};
    while (poll(fds, 2, -1) >= 0 && !fds[0].revents && !status)
        if (fds[1].revents && connection_take_in(ctl->connection))
            status = ctl_explain(-EPIPE, NULL);
    close(fd);
    if (!status)
        status =
            ctl_call(ctl, "guard.end", json_pack("{s:s,s:s}", "session", session, "outcome", "cancelled"), &result);
    if (!status && ctl->json)
        ctl_print_json(result);
    if (!status)
        json_decref(result);
    return status;
}

struct begin_options {
    bool detached, wait;
    json_t *policy;
    const char *domain;
};

static int begin_parse(int argc, char **argv, struct begin_options *options)
{
    static const struct option names[] = {{"detached", no_argument, NULL, 'd'},
                                          {"require", required_argument, NULL, 'r'},
                                          {"policy", required_argument, NULL, 'p'},
                                          {"no-wait", no_argument, NULL, 'n'},
                                          {NULL, 0, NULL, 0}};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'd')
            options->detached = true;
        else if (name == 'n')
            options->wait = false;
        else if (name == 'r' && json_object_set_new(options->policy, "require", json_string(optarg)) < 0)
            return ctl_fail("out of memory");
        else if (name == '?' || (name == 'p' && !ctl_policy_set(options->policy, "begin", optarg)))
            return CTL_USAGE;
    }
    if (optind + 1 != argc)
        return ctl_usage_error("begin", "expected one DOMAIN");
    options->domain = argv[optind];
    return CTL_OK;
}

int begin_command(struct ctl *ctl, int argc, char **argv)
{
    struct begin_options options = {.wait = true, .policy = json_object()};
    json_t *result;

    int status = options.policy ? begin_parse(argc, argv, &options) : ctl_fail("out of memory");
    if (status) {
        json_decref(options.policy);
        return status;
    }
    status = ctl_call(ctl, "guard.begin",
                      json_pack("{s:s,s:o,s:s,s:b}", "domain", options.domain, "policy", options.policy, "hold",
                                options.detached ? "detached" : "connection", "wait", (int)options.wait),
                      &result);
    if (status)
        return status;
    /* Before it is said that the guest is held: who has read that may tell us to let it go. */
    int signals = options.detached ? -1 : ctl_open_signals();
    if (ctl->json)
        ctl_print_json(result);
    else
        puts(ctl_string(result, "session"));
    if (!options.detached)
        status = begin_stay(ctl, ctl_string(result, "session"), signals);
    json_decref(result);
    return status;
}

/* ---- retry, end ---- */

int retry_command(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return ctl_on_session(ctl, "guard.retry", argv[1], NULL, NULL);
}

int end_command(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return ctl_on_session(ctl, "guard.end", argv[1], "outcome", argv[2]);
}
