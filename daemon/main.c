/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardd: reads its settings, puts back what an earlier daemon left, and only then opens the control socket.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <systemd/sd-daemon.h>

#include "config.h"
#include "daemon/check-config.h"
#include "daemon/configuration.h"
#include "daemon/events.h"
#include "daemon/files.h"
#include "daemon/guard.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/methods.h"
#include "daemon/migrate-nodes.h"
#include "daemon/reexec.h"
#include "daemon/server.h"
#include "daemon/successor.h"
#include "daemon/timer.h"

#define MAIN_EVENTS_KEPT 4096

/* Longer than any thaw takes when xenstored answers; then the journals are left to the next daemon. */
#define MAIN_STOP_SECONDS 20

/* For a daemon that is just ending, or somebody who puts back what it left. */
#define MAIN_LOCK_MS 5000

/* What may be told to stop, to reload, or that a watchdog wants to hear of us. */
enum { MAIN_SIGTERM, MAIN_SIGINT, MAIN_SIGHUP, MAIN_SIGUSR1, MAIN_SIGNALS };

struct daemon {
    char **arguments;
    struct configuration_options options;
    struct configuration configuration;
    struct event_base *base;
    struct events *events;
    struct methods *methods;
    struct migrate_nodes *migrate_nodes;
    struct guard *guard;
    struct server *server;
    struct event *signals[MAIN_SIGNALS];
    struct event *watchdog;
    struct event *stop_timer;
    struct timeval watchdog_interval;
    struct successor *successor;
    json_t *state; /* what the program before this one has left us; NULL = there was none */
    int lock_fd;
    bool stopping;
    int exit_status;
};

static void main_usage(FILE *to)
{
    fputs("usage: p2mguardd [--socket PATH] [--config FILE] [--log-level LEVEL] [--version] [--help]\n"
          "       p2mguardd [--config FILE] --check-config [--json] [FILE...]\n"
          "Makes live migration of Xen guests safe; runs in the foreground of dom0.\n\n"
          "  --socket PATH      control socket (" P2MG_CONTROL_SOCKET ")\n"
          "  --config FILE      configuration (" SETTINGS_FILE "), with FILE.d\n"
          "  --log-level LEVEL  " LOG_LEVEL_NAMES "\n"
          "  --check-config     read the configuration, or these files alone, say what is wrong, and end\n",
          to);
}

/* Exits on a bad command line. */
static void main_parse(int argc, char **argv, struct configuration_options *options)
{
    static const struct option names[] = {{"socket", required_argument, NULL, 's'},
                                          {"config", required_argument, NULL, 'c'},
                                          {"log-level", required_argument, NULL, 'l'},
                                          {"check-config", no_argument, NULL, 'C'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    bool check = false, json = false;
    int name;

    *options = (struct configuration_options){.log_level = -1};
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 's':
            options->socket = optarg;
            break;
        case 'c':
            options->config = optarg;
            break;
        case 'l':
            if (log_level_parse(optarg, &options->log_level)) {
                fprintf(stderr, "p2mguardd: --log-level is '%s', expected " LOG_LEVEL_NAMES "\n", optarg);
                exit(2);
            }
            break;
        case 'C':
            check = true;
            break;
        case 'j':
            json = true;
            break;
        case 'V':
            puts("p2mguardd " PACKAGE_VERSION);
            exit(0);
        case 'h':
            main_usage(stdout);
            exit(0);
        default:
            main_usage(stderr);
            exit(2);
        }
    }
    if (check)
        exit(check_config(options->config, (const char *const *)(argv + optind), (size_t)(argc - optind), json));
    if (optind < argc) {
        fprintf(stderr, "p2mguardd: unexpected argument '%s'\n", argv[optind]);
        main_usage(stderr);
        exit(2);
    }
}

static int main_read_settings(struct daemon *daemon)
{
    struct settings_problem problem;
    char text[SETTINGS_PROBLEM_MAX];
    int error = configuration_load(&daemon->configuration, &daemon->options, &problem);

    if (error)
        log_error("%s", settings_problem_text(&problem, text));
    else
        log_set_level(daemon->configuration.latest.log_level);
    return error;
}

static void main_tell_status(struct daemon *daemon)
{
    char counts[128] = "";
    size_t used = 0;

    for (int state = 0; state < P2MG_STATE_GONE && daemon->guard; state++) {
        size_t count = guard_count(daemon->guard, (enum p2mg_state)state);
        if (count)
            used += (size_t)snprintf(counts + used, sizeof(counts) - used, "%s%zu %s", used ? ", " : "", count,
                                     p2mg_state_name((enum p2mg_state)state));
    }
    sd_notifyf(0, "STATUS=%s", !daemon->server ? "waiting for xenstored" : used ? counts : "no sessions");
}

static struct guard_settings main_guard_settings(const struct settings *settings)
{
    return (struct guard_settings){
        .polling = {.poll_interval_ms = settings->poll_interval_ms,
                    .generation_interval_ms = settings->generation_interval_ms,
                    .max_gap_ms = settings->max_gap_ms},
        .max_sessions = (size_t)settings->max_sessions,
        .watch_helpers = settings->watch_helpers,
    };
}

/* ---- from the guard and the server ---- */

static void main_on_held(void *context, struct session *session)
{
    struct daemon *daemon = context;

    methods_on_held(daemon->methods, session);
    migrate_nodes_on_held(daemon->migrate_nodes, session);
}

static void main_on_not_held(void *context, struct session *session)
{
    methods_on_not_held(((struct daemon *)context)->methods, session);
}

static void main_on_checked(void *context, struct session *session)
{
    struct daemon *daemon = context;

    methods_on_checked(daemon->methods, session);
    migrate_nodes_on_checked(daemon->migrate_nodes, session);
}

static void main_on_thawing(void *context, struct session *session)
{
    migrate_nodes_on_thawing(((struct daemon *)context)->migrate_nodes, session);
}

static void main_on_gone(void *context, struct session *session)
{
    struct daemon *daemon = context;

    methods_on_gone(daemon->methods, session);
    migrate_nodes_on_gone(daemon->migrate_nodes, session);
}

static void main_on_back(void *context)
{
    migrate_nodes_on_back(((struct daemon *)context)->migrate_nodes);
}

static void main_on_domains(void *context)
{
    migrate_nodes_on_domains(((struct daemon *)context)->migrate_nodes);
}

static void main_on_observed(void *context)
{
    migrate_nodes_on_observed(((struct daemon *)context)->migrate_nodes);
}

static void main_on_asked(void *context, uint16_t domid)
{
    migrate_nodes_on_touched(((struct daemon *)context)->migrate_nodes, domid);
}

/* All is put back, and those who can only read of it in xenstore can read it there. */
static bool main_is_done(const struct daemon *daemon)
{
    return guard_live(daemon->guard) == 0 && migrate_nodes_are_settled(daemon->migrate_nodes);
}

static void main_on_settled(void *context)
{
    struct daemon *daemon = context;

    if (daemon->stopping && main_is_done(daemon))
        event_base_loopexit(daemon->base, NULL);
}

static void main_on_changed(void *context)
{
    main_tell_status(context);
    main_on_settled(context);
}

static int main_listen_fd(const struct daemon *daemon, bool *ours)
{
    if (daemon->state)
        return server_saved_listener(json_object_get(daemon->state, "server"), ours);
    int count = sd_listen_fds(1);

    if (count > 1)
        log_warning("systemd passed %d sockets; only the first is used", count);
    return count > 0 ? SD_LISTEN_FDS_START : -1;
}

static void main_fail(struct daemon *daemon)
{
    daemon->exit_status = 1;
    event_base_loopbreak(daemon->base);
}

/* Whose connection has not come with us is as gone as one whose connection is lost. */
static void main_take_over_connections(struct daemon *daemon)
{
    struct session *next;

    server_take_over(daemon->server, json_object_get(daemon->state, "server"));
    for (struct session *session = guard_next(daemon->guard, NULL); session; session = next) {
        next = guard_next(daemon->guard, session);
        if (session->options.hold == P2MG_HOLD_CONNECTION &&
            !server_has_connection(daemon->server, session->options.connection))
            guard_connection_closed(daemon->guard, session->options.connection);
    }
    migrate_nodes_take_over(daemon->migrate_nodes);
}

static void main_tell_started(struct daemon *daemon, const char *where)
{
    size_t sessions = guard_live(daemon->guard);

    if (daemon->state) {
        events_emit(daemon->events, "daemon.reexecuted",
                    json_pack("{s:s,s:I,s:I}", "version", PACKAGE_VERSION, "sessions", (json_int_t)sessions,
                              "connections", (json_int_t)server_connections(daemon->server)));
        log_notice("p2mguardd " PACKAGE_VERSION " goes on for the program before it: %zu sessions, %u connections",
                   sessions, server_connections(daemon->server));
    } else {
        events_emit(daemon->events, "daemon.started", json_pack("{s:s}", "version", PACKAGE_VERSION));
        log_info("p2mguardd " PACKAGE_VERSION " ready on %s", where);
    }
    json_decref(daemon->state);
    daemon->state = NULL;
}

/* Everything journalled is back where it was: now callers may come. */
static void main_on_recovered(void *context)
{
    struct daemon *daemon = context;
    const struct settings *started = &daemon->configuration.started;
    bool ours = false;
    int listen_fd = main_listen_fd(daemon, &ours);
    struct server_options options = {
        .path = started->socket,
        .listen_fd = listen_fd,
        .listen_ours = ours,
        .group = daemon->configuration.latest.socket_group,
        .mode = started->socket_mode,
        .max_connections = (unsigned)started->max_connections,
        .max_descriptors = files_make_room(started->max_connections, started->max_sessions),
        .methods = methods_table,
        .method_context = daemon->methods,
        .events = daemon->events,
        .asked = methods_on_asked,
        .ended = methods_on_ended,
        .on_close = methods_on_close,
    };

    int error = server_new(&daemon->server, daemon->base, &options);
    if (error) {
        log_error("listening on %s failed: %s", options.path, strerror(-error));
        main_fail(daemon);
        return;
    }
    methods_set_server(daemon->methods, daemon->server);
    successor_set_server(daemon->successor, daemon->server);
    if (daemon->state)
        main_take_over_connections(daemon);
    migrate_nodes_start(daemon->migrate_nodes, started->xenstore_callers);
    main_tell_started(daemon, options.listen_fd < 0 ? options.path : "systemd's socket");
    sd_notify(0, "READY=1");
    main_tell_status(daemon);
}

/* ---- signals and timers ---- */

static void main_on_stop_timer(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    (void)fd, (void)what;

    log_error("%zu sessions could not be put back in %d s; the next start will do it", guard_live(daemon->guard),
              MAIN_STOP_SECONDS);
    main_fail(daemon);
}

static void main_on_stop(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    struct timeval limit = {.tv_sec = MAIN_STOP_SECONDS};
    (void)fd, (void)what;

    if (daemon->stopping)
        return;
    daemon->stopping = true;
    sd_notify(0, "STOPPING=1");
    log_info("stopping: putting everything back");
    successor_stop(daemon->successor);
    events_emit(daemon->events, "daemon.stopping", json_object());
    migrate_nodes_stop(daemon->migrate_nodes);
    guard_stop_all(daemon->guard, P2MG_REASON_SHUTDOWN);
    if (main_is_done(daemon))
        event_base_loopexit(daemon->base, NULL);
    else
        event_add(daemon->stop_timer, &limit);
}

/* What has changed, as configuration_reload tells it. */
static void main_log_changes(const json_t *changes)
{
    const json_t *change;
    size_t i;

    json_array_foreach(changes, i, change)
    {
        char *before = json_dumps(json_object_get(change, "before"), JSON_ENCODE_ANY);
        char *now = json_dumps(json_object_get(change, "now"), JSON_ENCODE_ANY);
        log_notice("[%s] %s: %s, was %s%s", json_string_value(json_object_get(change, "section")),
                   json_string_value(json_object_get(change, "key")), now ? now : "?", before ? before : "?",
                   json_is_true(json_object_get(change, "restart")) ? "; takes a restart" : "");
        free(before);
        free(now);
    }
}

static void main_apply_settings(struct daemon *daemon)
{
    const struct settings *settings = &daemon->configuration.latest;
    struct guard_settings guarding = main_guard_settings(settings);

    log_set_level(settings->log_level);
    guard_apply(daemon->guard, &guarding);
    if (daemon->server)
        server_set_group(daemon->server, settings->socket_group);
}

/* By SIGHUP, and by daemon.reload. Sessions under way keep the policy that they began with. */
static int main_reload(void *context, json_t **changes, struct settings_problem *problem)
{
    struct daemon *daemon = context;
    char text[SETTINGS_PROBLEM_MAX];
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    int error = configuration_reload(&daemon->configuration, changes, problem);
    if (error) {
        log_error("%s", settings_problem_text(problem, text));
        log_error("the configuration stays as it was");
    } else {
        main_apply_settings(daemon);
        main_log_changes(*changes);
        log_notice("configuration read again");
        events_emit(daemon->events, "daemon.reloaded", json_object());
    }
    if (daemon->server)
        sd_notify(0, "READY=1");
    main_tell_status(daemon);
    return error;
}

static void main_on_reload(evutil_socket_t fd, short what, void *context)
{
    struct settings_problem problem;
    json_t *changes = NULL;
    (void)fd, (void)what;

    if (main_reload(context, &changes, &problem) == 0)
        json_decref(changes);
}

static void main_on_reexec(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    successor_insist(((struct daemon *)context)->successor);
}

static void main_on_watchdog(evutil_socket_t fd, short what, void *context)
{
    struct daemon *daemon = context;
    (void)fd, (void)what;

    sd_notify(0, "WATCHDOG=1");
    event_add(daemon->watchdog, &daemon->watchdog_interval);
}

static int main_add_signal(struct daemon *daemon, int index, int number, event_callback_fn handler)
{
    daemon->signals[index] = evsignal_new(daemon->base, number, handler, daemon);
    return daemon->signals[index] && event_add(daemon->signals[index], NULL) == 0 ? 0 : -ENOMEM;
}

static int main_set_up_events(struct daemon *daemon)
{
    uint64_t watchdog_usec;

    if (main_add_signal(daemon, MAIN_SIGTERM, SIGTERM, main_on_stop) ||
        main_add_signal(daemon, MAIN_SIGINT, SIGINT, main_on_stop) ||
        main_add_signal(daemon, MAIN_SIGHUP, SIGHUP, main_on_reload) ||
        main_add_signal(daemon, MAIN_SIGUSR1, SIGUSR1, main_on_reexec))
        return -ENOMEM;
    daemon->stop_timer = evtimer_new(daemon->base, main_on_stop_timer, daemon);
    daemon->watchdog = evtimer_new(daemon->base, main_on_watchdog, daemon);
    if (!daemon->stop_timer || !daemon->watchdog)
        return -ENOMEM;
    if (sd_watchdog_enabled(0, &watchdog_usec) > 0) {
        daemon->watchdog_interval.tv_sec = (time_t)(watchdog_usec / 2000000);
        daemon->watchdog_interval.tv_usec = (suseconds_t)(watchdog_usec / 2 % 1000000);
        main_on_watchdog(-1, 0, daemon);
    }
    return 0;
}

/* ---- life ---- */

/*
 * Before anything is looked at: what another daemon holds is not to be taken for what an earlier one left. The
 * descriptor is closed by the end of the process alone, for as long as there is a thread of ours nobody else may begin.
 */
static int main_lock(struct daemon *daemon)
{
    pid_t holder = 0;

    if (daemon->state) { /* it goes with the descriptor */
        daemon->lock_fd = (int)json_integer_value(json_object_get(daemon->state, "lock"));
        return fcntl(daemon->lock_fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
    }
    int error = lock_take(daemon->configuration.started.socket, MAIN_LOCK_MS, &daemon->lock_fd, &holder);

    if (error == -EWOULDBLOCK)
        log_error("process %d has the lock %s.lock: another p2mguardd, or a thaw without one", (int)holder,
                  daemon->configuration.started.socket);
    else if (error)
        log_error("the lock %s.lock cannot be had: %s", daemon->configuration.started.socket, strerror(-error));
    return error;
}

static int main_set_up(struct daemon *daemon)
{
    struct guard_callbacks callbacks = {.held = main_on_held,
                                        .not_held = main_on_not_held,
                                        .checked = main_on_checked,
                                        .thawing = main_on_thawing,
                                        .gone = main_on_gone,
                                        .recovered = main_on_recovered,
                                        .changed = main_on_changed,
                                        .back = main_on_back,
                                        .domains = main_on_domains,
                                        .observed = main_on_observed,
                                        .asked = main_on_asked,
                                        .context = daemon};
    struct guard_settings settings = main_guard_settings(&daemon->configuration.latest);

    daemon->base = event_base_new();
    daemon->events = events_new(MAIN_EVENTS_KEPT);
    if (!daemon->base || !daemon->events || main_set_up_events(daemon)) {
        log_error("out of memory");
        return -ENOMEM;
    }
    int error =
        methods_new(&daemon->methods, daemon->base, daemon->events, &daemon->configuration, main_reload, daemon);
    if (!error)
        error = migrate_nodes_new(&daemon->migrate_nodes, daemon->base, &daemon->configuration.latest, main_on_settled,
                                  daemon);
    if (error) {
        log_error("out of memory");
        return error;
    }
    error = guard_new(&daemon->guard, daemon->base, daemon->events, &settings, &callbacks);
    if (error) {
        log_error("asking the hypervisor failed: %s (is this a Xen dom0, and is xen-privcmd loaded?)",
                  strerror(-error));
        return error;
    }
    if (daemon->state) {
        events_continue(daemon->events, (uint64_t)json_integer_value(json_object_get(daemon->state, "events")));
        guard_take_over(daemon->guard, json_object_get(daemon->state, "sessions"));
    }
    const struct successor_parts parts = {.events = daemon->events,
                                          .guard = daemon->guard,
                                          .migrate_nodes = daemon->migrate_nodes,
                                          .configuration = &daemon->configuration,
                                          .arguments = daemon->arguments,
                                          .lock_fd = daemon->lock_fd};
    error = successor_new(&daemon->successor, daemon->base, &parts);
    if (error) {
        log_error("out of memory");
        return error;
    }
    methods_on_reexec(daemon->methods, successor_on_request, daemon->successor);
    methods_set_guard(daemon->methods, daemon->guard);
    migrate_nodes_set_guard(daemon->migrate_nodes, daemon->guard);
    return 0;
}

/* The server first: nobody is to see the rest going down. The guard before those that its worker's answers go to. */
static void main_tear_down(struct daemon *daemon)
{
    server_free(daemon->server);
    guard_free(daemon->guard);
    methods_free(daemon->methods);
    migrate_nodes_free(daemon->migrate_nodes);
    events_free(daemon->events);
    for (int i = 0; i < MAIN_SIGNALS; i++)
        timer_free(daemon->signals[i]);
    timer_free(daemon->stop_timer);
    timer_free(daemon->watchdog);
    successor_free(daemon->successor);
    json_decref(daemon->state);
    if (daemon->base)
        event_base_free(daemon->base);
    configuration_clear(&daemon->configuration);
}

int main(int argc, char **argv)
{
    static struct daemon daemon;

    main_parse(argc, argv, &daemon.options);
    log_open();
    signal(SIGPIPE, SIG_IGN); /* libxenstore writes to a socket whose other end may be gone */
    daemon.arguments = argv;
    int error = reexec_remember_program();
    if (error)
        log_warning("which program this is cannot be told, so that it cannot be executed anew: %s", strerror(-error));
    daemon.state = reexec_take();
    if (main_read_settings(&daemon))
        return 2;
    if (main_lock(&daemon)) {
        configuration_clear(&daemon.configuration);
        return 1;
    }
    if (main_set_up(&daemon)) {
        main_tear_down(&daemon);
        return 1;
    }
    main_tell_status(&daemon);
    event_base_dispatch(daemon.base);
    main_tear_down(&daemon);
    return daemon.exit_status;
}
