/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Has a domain held and let go again and again, and says how long it took until its gate was closed, until it was held,
 * and until all was put back.
 *
 * holds SOCKET DOMAIN REPETITIONS REST_MS: the pause before each, in which the guest's target stays the same.
 */
#include <unistd.h>

#include <jansson.h>

#include "tests/bench/bench.h"

static FILE *in;
static int fd;

static void refuse(const char *what)
{
    fprintf(stderr, "holds: %s: %s\n", what, errno ? strerror(errno) : "not what was expected");
    exit(1);
}

/* Asks, and says when: how a client makes its request is its own business. */
static double ask(json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t length = text ? strlen(text) : 0;

    json_decref(request);
    if (!text)
        refuse("out of memory");
    text[length++] = '\n';
    double at_us = now_us();
    if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        refuse("send");
    free(text);
    return at_us;
}

/* The line that has this in it, before anything else is done with it; NULL when an error has come instead. */
static const char *wait_for(const char *part, double *at_us)
{
    static char *line;
    static size_t room;

    errno = 0;
    while (getline(&line, &room, in) > 0) {
        *at_us = now_us();
        if (strstr(line, part))
            return line;
        if (strstr(line, "\"error\":{")) {
            fprintf(stderr, "%s", line);
            refuse(part);
        }
    }
    refuse(part);
    return NULL;
}

static json_t *call(const char *method, json_t *params)
{
    return json_pack("{s:s,s:i,s:s,s:o}", "jsonrpc", "2.0", "id", 1, "method", method, "params", params);
}

static void run(const char *domain, double *gated_us, double *held_us, double *gone_us)
{
    json_t *params = json_pack("{s:s,s:b,s:{s:i}}", "domain", domain, "wait", 1, "policy", "rest_ms", 100);
    double began_us = ask(call("guard.begin", params)), at_us;

    wait_for("\"session.gated\"", &at_us);
    *gated_us = at_us - began_us;
    json_t *answer = json_loads(wait_for("\"id\":1", &at_us), 0, NULL);
    *held_us = at_us - began_us;
    const char *session = json_string_value(json_object_get(json_object_get(answer, "result"), "session"));
    if (!session)
        refuse("no session");
    began_us = ask(call("guard.end", json_pack("{s:s,s:s}", "session", session, "outcome", "failed")));
    json_decref(answer);
    wait_for("\"id\":1", &at_us);
    *gone_us = at_us - began_us;
}

static void say(const char *name, const double *took_us, size_t count, const char *after)
{
    printf("\"%s\": {", name);
    print_samples(took_us, count);
    printf("}%s", after);
}

int main(int argc, char **argv)
{
    size_t count = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
    double *gated_us = calloc(count + 1, sizeof(double)), *held_us = calloc(count + 1, sizeof(double));
    double *gone_us = calloc(count + 1, sizeof(double)), at_us;

    if (!count || !gated_us || !held_us || !gone_us) {
        fprintf(stderr, "usage: holds SOCKET DOMAIN REPETITIONS REST_MS\n");
        return 2;
    }
    useconds_t rest_us = (useconds_t)strtoul(argv[4], NULL, 10) * 1000;
    fd = open_socket(argv[1]);
    if (!(in = fdopen(fd, "r")))
        refuse(argv[1]);
    ask(call("events.subscribe", json_object()));
    wait_for("\"id\":1", &at_us);
    for (size_t i = 0; i < count; i++) {
        usleep(rest_us);
        run(argv[2], &gated_us[i], &held_us[i], &gone_us[i]);
    }
    printf("{");
    say("gated", gated_us, count, ", ");
    say("held", held_us, count, ", ");
    say("gone", gone_us, count, "}\n");
    return 0;
}
