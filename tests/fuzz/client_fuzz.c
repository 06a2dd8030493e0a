/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is told by a daemon whatever the input says. The library reports what it can make something of, or an error with a
 * text; it never waits for more than there is, and gives no record where it gives an error.
 *
 * Input: what the daemon sends before it closes the connection.
 */
#include "client/p2mguard.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

static int listener = -1;
static char path[64];

static void remove_path(void)
{
    unlink(path);
}

static void listen_once(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(path, sizeof(path), "/tmp/p2mguard-fuzz-%d", (int)getpid());
    strcpy(address.sun_path, path);
    unlink(path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    MUST(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
         listen(listener, 4) == 0);
    atexit(remove_path);
}

/* A connection to a daemon that has said this, and is gone. */
static struct p2mguard *hear(const uint8_t *data, size_t size)
{
    struct p2mguard *guard = NULL;

    MUST(p2mguard_connect(&guard, path) == 0);
    int daemon = accept(listener, NULL, NULL);
    MUST(daemon >= 0 && send(daemon, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size);
    shutdown(daemon, SHUT_WR);
    /* Left open for reading: what the library still writes is to go somewhere, and not to end it at once. */
    dup2(daemon, 100);
    close(daemon);
    return guard;
}

static void look_at(const struct p2mguard_record *record)
{
    static const char *const members[] = {"verdict", "reason", "session", "type", "now.tot_kib", "seq", "a.b.c"};
    int64_t number;

    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const char *text = p2mguard_record_text(record, members[i]);
        MUST(!text || !p2mguard_record_number(record, members[i], &number));
    }
    size_t count = p2mguard_record_count(record);
    MUST(!p2mguard_record_at(record, count));
    MUST(count == 0 || p2mguard_record_at(record, count - 1));
    char *json = p2mguard_record_json(record);
    MUST(json && !strchr(json, '\n'));
    free(json);
}

static void check_answer(struct p2mguard *guard, int status, struct p2mguard_record *record, int good)
{
    MUST(status <= good);
    if (status < 0)
        MUST(!record && *p2mguard_error_text(guard));
    if (record)
        look_at(record);
    p2mguard_record_free(record);
}

/* In a loop of the caller's own. */
static void try_pieces(const uint8_t *data, size_t size)
{
    struct p2mguard *guard = hear(data, size);
    struct p2mguard_record *record = NULL;
    int64_t number = p2mguard_send(guard, "daemon.info", NULL);
    int status;

    p2mguard_dispatch(guard);
    status = p2mguard_reply(guard, number > 0 ? number : 1, &record);
    MUST(status != 0); /* it cannot come any more */
    check_answer(guard, status, record, 1);
    for (size_t i = 0; i <= size; i++) {
        record = NULL;
        status = p2mguard_event(guard, 0, &record);
        check_answer(guard, status, record, 1);
        if (status <= 0)
            break;
    }
    MUST(status < 0); /* it has gone, which is told after all events */
    p2mguard_close(guard);
}

/* One answer at a time. */
static void try_calls(const uint8_t *data, size_t size)
{
    struct p2mguard *guard = hear(data, size);
    struct p2mguard_record *record = NULL;
    char session[P2MGUARD_SESSION_SIZE];

    int status = p2mguard_begin(guard, "7", NULL, 0, session);
    MUST(status <= 0);
    if (status == 0)
        MUST(memchr(session, '\0', sizeof(session)));
    else
        MUST(*p2mguard_error_text(guard));
    status = p2mguard_verdict(guard, "x", P2MGUARD_FINAL, &record);
    check_answer(guard, status, record, P2MGUARD_ABORT);
    record = NULL;
    check_answer(guard, p2mguard_list(guard, &record), record, 0);
    p2mguard_close(guard);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (listener < 0)
        listen_once();
    try_pieces(data, size);
    try_calls(data, size);
    return 0;
}
