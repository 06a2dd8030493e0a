/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * library-client SOCKET: calls libp2mguard as it is told on standard input, one call a line, and answers each with one
 * line, "STATUS JSON-OR-TEXT".
 *
 *   begin DOMAIN FLAGS [KEY=VALUE…] | verdict SESSION PHASE | retry SESSION | end SESSION OUTCOME | show SESSION | list
 *   subscribe FROM | event TIMEOUT_MS | send METHOD [JSON] | reply NUMBER | wait NUMBER | dispatch
 *   member NAME            of the last record: its text or number
 *   precopy SESSION ITERATION DIRTY [DECISION]: what p2mguard_precopy_policy answers; DECISION is the engine's own
 * policy's
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xenctrl.h>

#include <xenguest.h>

#include "client/p2mguard.h"

#define WORDS_MOST 16

static struct p2mguard_record *last;

static void say(long long status, const struct p2mguard *guard)
{
    char *json = status >= 0 && last ? p2mguard_record_json(last) : NULL;

    printf("%lld %s\n", status, json ? json : status < 0 ? p2mguard_error_text(guard) : "");
    free(json);
}

/* As a caller's own loop would. */
static int wait_for(struct p2mguard *guard, int64_t number)
{
    int status;

    while ((status = p2mguard_reply(guard, number, &last)) == 0) {
        struct pollfd fd = {.fd = p2mguard_fd(guard), .events = p2mguard_poll_events(guard)};
        if (poll(&fd, 1, 30000) <= 0)
            return 0;
        p2mguard_dispatch(guard);
    }
    return status;
}

static void member(const char *name)
{
    const char *text = p2mguard_record_text(last, name);
    int64_t number;

    if (text)
        printf("1 %s\n", text);
    else if (p2mguard_record_number(last, name, &number))
        printf("1 %lld\n", (long long)number);
    else
        printf("0 %zu entries\n", p2mguard_record_count(last));
}

struct engine {
    struct p2mguard_precopy precopy;
    int decision;
};

static int engine_policy(struct precopy_stats stats, void *data)
{
    (void)stats;
    return ((const struct engine *)data)->decision;
}

static void precopy(struct p2mguard *guard, char **words, int count)
{
    struct engine engine = {.precopy = {.guard = guard, .session = words[1]}};
    struct precopy_stats stats = {.iteration = (unsigned)atoi(words[2]), .dirty_count = atol(words[3])};
    struct save_callbacks callbacks = {.precopy_policy = p2mguard_precopy_policy, .data = &engine};

    if (count > 4) {
        engine.decision = atoi(words[4]);
        engine.precopy.policy = engine_policy;
    }
    int decision = callbacks.precopy_policy(stats, callbacks.data);
    printf("%d %d %s\n", decision, engine.precopy.verdict, engine.precopy.reason);
}

static long long call(struct p2mguard *guard, char **words, int count)
{
    const char *command = words[0];
    const char *one = count > 1 ? words[1] : "";
    int two = count > 2 ? atoi(words[2]) : 0;
    char session[P2MGUARD_SESSION_SIZE];

    if (strcmp(command, "begin") == 0) {
        words[count] = NULL;
        int error =
            p2mguard_begin(guard, one, count > 3 ? (const char *const *)words + 3 : NULL, (unsigned)two, session);
        return error ? error : p2mguard_show(guard, session, &last);
    }
    if (strcmp(command, "verdict") == 0)
        return p2mguard_verdict(guard, one, two ? P2MGUARD_FINAL : P2MGUARD_PRECOPY, &last);
    if (strcmp(command, "retry") == 0)
        return p2mguard_retry(guard, one);
    if (strcmp(command, "end") == 0)
        return p2mguard_end(guard, one, (enum p2mguard_outcome)two, &last);
    if (strcmp(command, "show") == 0)
        return p2mguard_show(guard, one, &last);
    if (strcmp(command, "list") == 0)
        return p2mguard_list(guard, &last);
    if (strcmp(command, "subscribe") == 0)
        return p2mguard_subscribe(guard, strtoull(one, NULL, 10));
    if (strcmp(command, "event") == 0)
        return p2mguard_event(guard, atoi(one), &last);
    if (strcmp(command, "send") == 0)
        return p2mguard_send(guard, one, count > 2 ? words[2] : NULL);
    if (strcmp(command, "reply") == 0)
        return p2mguard_reply(guard, atoll(one), &last);
    if (strcmp(command, "wait") == 0)
        return wait_for(guard, atoll(one));
    if (strcmp(command, "dispatch") == 0)
        return p2mguard_dispatch(guard);
    fprintf(stderr, "library-client: what is '%s'?\n", command);
    exit(2);
}

int main(int argc, char **argv)
{
    struct p2mguard *guard;
    char line[4096], *words[WORDS_MOST + 1];
    int error = argc == 2 ? p2mguard_connect(&guard, argv[1]) : -1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("%d connected\n", error);
    while (!error && fgets(line, sizeof(line), stdin)) {
        int count = 0;
        for (char *word = strtok(line, " \n"); word && count < WORDS_MOST; word = strtok(NULL, " \n"))
            words[count++] = word;
        if (count > 1 && strcmp(words[0], "member") == 0) {
            member(words[1]);
            continue;
        }
        if (count > 3 && strcmp(words[0], "precopy") == 0) {
            precopy(guard, words, count);
            continue;
        }
        p2mguard_record_free(last);
        last = NULL;
        say(count ? call(guard, words, count) : 0, guard);
    }
    p2mguard_record_free(last);
    if (!error)
        p2mguard_close(guard);
    return error ? 1 : 0;
}
