/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl thaw: lets guests go, whoever holds them; with --offline by the journals in xenstore, without a daemon.
 */
#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl.h"

struct thaw_options {
    bool all, offline, force;
    char *domain;
};

static int thaw_parse(int argc, char **argv, struct thaw_options *options)
{
    static const struct option names[] = {{"all", no_argument, NULL, 'a'},
                                          {"offline", no_argument, NULL, 'o'},
                                          {"force", no_argument, NULL, 'f'},
                                          {NULL, 0, NULL, 0}};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'a')
            options->all = true;
        else if (name == 'o')
            options->offline = true;
        else if (name == 'f')
            options->force = true;
        else
            return CTL_USAGE;
    }
    options->domain = optind < argc ? argv[optind] : NULL;
    if (argc - optind > 1 || options->all == (options->domain != NULL))
        return ctl_usage_error("thaw", "expected one DOMAIN, or --all");
    if (options->force && !options->offline)
        return ctl_usage_error("thaw", "--force is for --offline");
    return CTL_OK;
}

/* Becomes the program that does it; returns only when that cannot be had. */
static int thaw_offline(const struct ctl *ctl, const struct thaw_options *options)
{
    const char *program = getenv("P2MGUARD_THAW");
    char *arguments[8];
    int count = 0;

    if (!program || !*program)
        program = THAW_PROGRAM;
    arguments[count++] = (char *)(uintptr_t)program;
    if (ctl->socket_given) {
        arguments[count++] = (char *)(uintptr_t) "--socket";
        arguments[count++] = (char *)(uintptr_t)ctl->socket;
    }
    if (options->force)
        arguments[count++] = (char *)(uintptr_t) "--force";
    if (ctl->json)
        arguments[count++] = (char *)(uintptr_t) "--json";
    arguments[count++] = options->all ? (char *)(uintptr_t) "--all" : (char *)(uintptr_t) "--";
    if (options->domain)
        arguments[count++] = options->domain;
    arguments[count] = NULL;
    execv(program, arguments);
    return ctl_fail("%s cannot be run: %s", program, strerror(errno));
}

/* Ends one session; its record goes into `ended`. */
static int thaw_end(struct ctl *ctl, const char *session, json_t *ended)
{
    json_t *record;
    int status =
        ctl_call(ctl, "guard.end", json_pack("{s:s,s:s}", "session", session, "outcome", "cancelled"), &record);

    if (!status && json_array_append_new(ended, record) < 0)
        status = CTL_FAILED;
    return status;
}

static int thaw_all(struct ctl *ctl, json_t *ended)
{
    json_t *result, *session;
    size_t i;
    int status = ctl_call(ctl, "guard.list", NULL, &result), worst = status;

    if (status)
        return status;
    json_array_foreach(json_object_get(result, "sessions"), i, session)
    {
        status = thaw_end(ctl, ctl_string(session, "session"), ended);
        if (status)
            worst = status;
        if (status == CTL_NO_DAEMON)
            break;
    }
    json_decref(result);
    return worst;
}

static int thaw_online(struct ctl *ctl, const struct thaw_options *options, json_t *ended)
{
    int status = ctl_connect(ctl);

    if (status)
        return status;
    if (options->all)
        return thaw_all(ctl, ended);
    char *id = ctl_session_id(ctl, options->domain, &status);
    if (id)
        status = thaw_end(ctl, id, ended);
    free(id);
    return status;
}

int thaw_command(struct ctl *ctl, int argc, char **argv)
{
    struct thaw_options options = {.all = false};
    int status = thaw_parse(argc, argv, &options);

    if (status)
        return status;
    if (options.offline)
        return thaw_offline(ctl, &options);
    json_t *ended = json_array();
    status = ended ? thaw_online(ctl, &options, ended) : CTL_FAILED;
    if (ctl->json && (!status || json_array_size(ended) > 0))
        ctl_print_json(ended);
    else if (!status)
        printf("let go: %zu\n", json_array_size(ended));
    json_decref(ended);
    return status;
}
