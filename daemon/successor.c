/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/successor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/reexec.h"
#include "daemon/timer.h"

/* How long sessions and callers are waited for that are in the middle of something, and how often they are looked at.
 */
#define SUCCESSOR_WAIT_MS 10000
#define SUCCESSOR_LOOK_MS 10

/* How long callers are waited for then; whoever does not read what he has asked for is nobody's hindrance. */
#define SUCCESSOR_CALLERS_MS 2000

struct successor {
    struct successor_parts parts;
    struct server *server;
    struct event *timer; /* looks whether it can be done */
    int64_t asked_ms;
    int64_t until_ms; /* 0 = nobody has asked for it */
    bool stopped;
};

static json_t *successor_save(const struct successor *successor, int **fds, size_t *count)
{
    const struct successor_parts *parts = &successor->parts;
    json_t *server = server_save(successor->server, fds, count);

    return json_pack("{s:i,s:s,s:i,s:I,s:o,s:o}", "format", REEXEC_FORMAT, "version", PACKAGE_VERSION, "lock",
                     parts->lock_fd, "events", (json_int_t)events_next(parts->events), "server", server, "sessions",
                     guard_save(parts->guard));
}

/* What the next program could not start with is no reason to lose this one. False: `why` says what that is. */
static bool successor_can_start(const struct successor *successor, char why[SETTINGS_PROBLEM_MAX])
{
    static struct configuration next;
    const struct configuration *now = successor->parts.configuration;
    struct settings_problem problem;

    if (configuration_load(&next, &now->options, &problem)) {
        settings_problem_text(&problem, why);
        return false;
    }
    bool same = strcmp(next.started.socket, now->started.socket) == 0;
    if (!same)
        strcpy(why, "the socket is another one in the configuration, which takes a restart");
    configuration_clear(&next);
    return same;
}

static int successor_execute(const struct successor *successor)
{
    int *fds = NULL;
    size_t count = 0;
    int error = -ENOMEM;
    json_t *state = successor_save(successor, &fds, &count);
    int *all = state ? reallocarray(fds, count + 1, sizeof(*fds)) : NULL;

    if (all) {
        fds = all;
        fds[count++] = successor->parts.lock_fd;
        log_notice("executing the program anew");
        error = reexec_run(state, fds, count, successor->parts.arguments);
    }
    free(fds);
    json_decref(state);
    return error;
}

static void successor_give_up(struct successor *successor, const char *why)
{
    successor->until_ms = 0;
    log_error("the program is not executed anew: %s", why);
    events_emit(successor->parts.events, "daemon.reexec_failed", json_pack("{s:s}", "text", why));
}

static bool successor_is_at_peace(const struct successor *successor)
{
    const struct successor_parts *parts = &successor->parts;

    if (!guard_is_at_peace(parts->guard) || !migrate_nodes_are_settled(parts->migrate_nodes))
        return false;
    return clock_now_ms() - successor->asked_ms >= SUCCESSOR_CALLERS_MS || server_waiting(successor->server) == 0;
}

static void successor_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct successor *successor = context;
    bool at_peace = successor_is_at_peace(successor);
    char why[SETTINGS_PROBLEM_MAX] = "";
    (void)fd, (void)what;

    if (at_peace && successor_can_start(successor, why)) {
        int error = successor_execute(successor);
        successor_give_up(successor, strerror(-error));
    } else if (at_peace) {
        successor_give_up(successor, why);
    } else if (clock_now_ms() >= successor->until_ms) {
        successor_give_up(successor, "there are sessions that are neither held nor gone");
    } else {
        timer_arm(successor->timer, SUCCESSOR_LOOK_MS);
    }
}

static void successor_wait_until(struct successor *successor, int64_t until_ms)
{
    if (successor->stopped)
        return;
    if (!successor->until_ms)
        successor->asked_ms = clock_now_ms();
    if (successor->until_ms < until_ms)
        successor->until_ms = until_ms;
    timer_arm(successor->timer, SUCCESSOR_LOOK_MS);
}

/* ---- from outside ---- */

int successor_new(struct successor **result, struct event_base *base, const struct successor_parts *parts)
{
    struct successor *successor = calloc(1, sizeof(*successor));

    if (successor)
        successor->timer = evtimer_new(base, successor_on_timer, successor);
    if (!successor || !successor->timer) {
        free(successor);
        return -ENOMEM;
    }
    successor->parts = *parts;
    *result = successor;
    return 0;
}

void successor_free(struct successor *successor)
{
    if (!successor)
        return;
    event_free(successor->timer);
    free(successor);
}

void successor_set_server(struct successor *successor, struct server *server)
{
    successor->server = server;
}

void successor_on_request(void *successor)
{
    successor_wait_until(successor, clock_now_ms() + SUCCESSOR_WAIT_MS);
}

void successor_insist(struct successor *successor)
{
    successor_wait_until(successor, INT64_MAX);
}

void successor_stop(struct successor *successor)
{
    successor->stopped = true;
    event_del(successor->timer);
}
