/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl reexec: has the daemon execute its program anew, as after an upgrade, with all that it holds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl.h"

/* The daemon waits for 10 s until nothing is under way; the new program needs xenstored, which may take its time. */
#define REEXEC_WAIT_MS 30000

/* The connection lives on, and the subscription with it: what became of it is an event like any other. */
static int reexec_await(struct ctl *ctl, json_t **event)
{
    for (;;) {
        while ((*event = connection_event(ctl->connection))) {
            const char *type = ctl_string(*event, "type");
            if (strcmp(type, "daemon.reexecuted") == 0 || strcmp(type, "daemon.reexec_failed") == 0)
                return 0;
            json_decref(*event);
        }
        int error = connection_wait(ctl->connection, REEXEC_WAIT_MS);
        if (error == 0)
            return -1;
        if (error > 0)
            error = connection_take_in(ctl->connection);
        if (error < 0)
            return error;
    }
}

int reexec_command(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *event;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "events.subscribe", NULL, &result);
    if (status)
        return status;
    json_decref(result);
    status = ctl_call(ctl, "daemon.reexec", NULL, &result);
    if (status)
        return status;
    json_decref(result);
    int error = reexec_await(ctl, &event);
    if (error) {
        return ctl_fail("the daemon has not said within %d s what became of it", REEXEC_WAIT_MS / 1000);
    }
    bool done = strcmp(ctl_string(event, "type"), "daemon.reexecuted") == 0;
    if (!done)
        status = ctl_fail("refused: %s; the daemon goes on as it was", ctl_string(event, "text"));
    else if (ctl->json)
        ctl_print_json(event);
    else
        printf("p2mguardd %s goes on, with %" PRId64 " sessions\n", ctl_string(event, "version"),
               ctl_integer(event, "sessions", 0));
    json_decref(event);
    return status;
}
