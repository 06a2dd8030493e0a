/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * follow [SOCKET]: lists the sessions, then prints every event, from a loop that waits for other things as well.
 *
 * Standard input is that other thing: the program ends when it does.
 */
#include <p2mguard.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

static void print(const struct p2mguard_record *record)
{
    char *json = p2mguard_record_json(record);

    if (json)
        puts(json);
    fflush(stdout);
    free(json);
}

static int print_events(struct p2mguard *guard)
{
    struct p2mguard_record *event;
    int come;

    while ((come = p2mguard_event(guard, 0, &event)) > 0) {
        print(event);
        p2mguard_record_free(event);
    }
    return come;
}

int main(int argc, char **argv)
{
    struct p2mguard *guard;
    struct p2mguard_record *list;

    if (p2mguard_connect(&guard, argc > 1 ? argv[1] : NULL) < 0) {
        fprintf(stderr, "follow: there is no p2mguardd\n");
        return 2;
    }
    int64_t subscribed = p2mguard_send(guard, "events.subscribe", NULL),
            listed = p2mguard_send(guard, "guard.list", "{}");
    int error = subscribed < 0 || listed < 0 ? -1 : 0;

    while (!error) {
        struct pollfd fds[] = {{p2mguard_fd(guard), p2mguard_poll_events(guard), 0}, {0, POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 || fds[1].revents)
            break;
        error = p2mguard_dispatch(guard);
        int come = listed ? p2mguard_reply(guard, listed, &list) : 0;
        if (come > 0) {
            print(list);
            p2mguard_record_free(list);
            listed = 0;
        }
        if (come < 0 || print_events(guard) < 0)
            error = -1;
    }
    if (error)
        fprintf(stderr, "follow: %s\n", p2mguard_error_text(guard));
    p2mguard_close(guard);
    return error ? 1 : 0;
}
