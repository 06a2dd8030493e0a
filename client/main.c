/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl: a table of commands over the control socket.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/ctl.h"
#include "config.h"
#include "protocol/names.h"

/* ---- reading ---- */

static void list_row(const json_t *session)
{
    char tot[CTL_TEXT], held[CTL_TEXT], deferred[CTL_TEXT];

    printf("%-16s %6" PRId64 "  %-20s %-9s %4" PRId64 "/%-4" PRId64 " %10s %10s %12s\n", ctl_string(session, "session"),
           ctl_integer(session, "domid", 0), ctl_string(session, "name"), ctl_string(session, "state"),
           ctl_integer(session, "attempt", 0), ctl_integer(json_object_get(session, "policy"), "attempts", 0),
           ctl_duration(held, ctl_integer(session, "held_after_ms", -1)),
           ctl_size(tot, json_object_get(session, "tot_kib")),
           ctl_size(deferred, json_object_get(session, "deferred_target_kib")));
}

static int command_list(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *session;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "guard.list", NULL, &result);
    if (status)
        return status;
    json_t *sessions = json_object_get(result, "sessions");
    if (ctl->json) {
        ctl_print_json(sessions);
    } else if (json_array_size(sessions) == 0) {
        puts("no guest is under guard");
    } else {
        printf("%-16s %6s  %-20s %-9s %9s %10s %10s %12s\n", "SESSION", "DOMID", "NAME", "STATE", "ATTEMPT",
               "HELD AFTER", "SIZE", "DEFERRED");
        json_array_foreach(sessions, i, session) list_row(session);
    }
    json_decref(result);
    return CTL_OK;
}

/* "key: value" for every member, nested ones with their own names before them. */
static void show_members(const json_t *object, const char *prefix)
{
    const char *key;
    json_t *value;
    char name[64];

    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        snprintf(name, sizeof(name), "%s%s", prefix, key);
        if (json_is_object(value)) {
            char inner[66];
            snprintf(inner, sizeof(inner), "%s.", name);
            show_members(value, inner);
            continue;
        }
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf("%-26s %s\n", name, json_is_null(value) ? "-" : text ? text : json_string_value(value));
        free(text);
    }
}

static void show_result(const struct ctl *ctl, json_t *result)
{
    if (ctl->json)
        ctl_print_json(result);
    else
        show_members(result, "");
    json_decref(result);
}

/* For the methods that take a session and nothing else. */
static int on_session(struct ctl *ctl, const char *method, const char *text, const char *key, const char *value)
{
    int status;
    json_t *result;
    char *id = ctl_session_id(ctl, text, &status);

    if (!id)
        return status;
    status = ctl_call(ctl, method, json_pack("{s:s,s:s*}", "session", id, key ? key : "-", value), &result);
    free(id);
    if (!status)
        show_result(ctl, result);
    return status;
}

static int command_show(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return on_session(ctl, "guard.show", argv[1], NULL, NULL);
}

static int command_retry(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return on_session(ctl, "guard.retry", argv[1], NULL, NULL);
}

static int command_end(struct ctl *ctl, int argc, char **argv)
{
    (void)argc;
    return on_session(ctl, "guard.end", argv[1], "outcome", argv[2]);
}

static int command_info(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "daemon.info", NULL, &result);
    if (!status)
        show_result(ctl, result);
    return status;
}

static int command_domain(struct ctl *ctl, int argc, char **argv)
{
    json_t *result;
    (void)argc;

    int status = ctl_call(ctl, "domain.show", json_pack("{s:s}", "domain", argv[1]), &result);
    if (!status)
        show_result(ctl, result);
    return status;
}

static int command_domains(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *domain;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "domain.list", NULL, &result);
    if (status)
        return status;
    json_t *domains = json_object_get(result, "domains");
    if (ctl->json) {
        ctl_print_json(domains);
    } else {
        printf("%6s  %-20s %-4s %-9s %12s %12s %12s  %s\n", "DOMID", "NAME", "TYPE", "STATE", "SIZE", "MAXIMUM",
               "TARGET", "SESSION");
        json_array_foreach(domains, i, domain)
        {
            char tot[CTL_TEXT], max[CTL_TEXT], target[CTL_TEXT];
            const char *session = ctl_string(domain, "session");
            printf("%6" PRId64 "  %-20s %-4s %-9s %12s %12s %12s  %s\n", ctl_integer(domain, "domid", 0),
                   ctl_string(domain, "name"), ctl_string(domain, "type"), ctl_string(domain, "state"),
                   ctl_size(tot, json_object_get(domain, "tot_kib")), ctl_size(max, json_object_get(domain, "max_kib")),
                   ctl_size(target, json_object_get(domain, "target_kib")), *session ? session : "-");
        }
    }
    json_decref(result);
    return CTL_OK;
}

static void migrations_row(const json_t *migration)
{
    char tot[CTL_TEXT], duration[CTL_TEXT];
    const char *outcome = ctl_string(migration, "outcome"), *verdict = ctl_string(migration, "verdict");

    printf("%6" PRId64 "  %-20s %8" PRId64 " %-9s %10s %12s %-9s %-8s %s\n", ctl_integer(migration, "domid", 0),
           ctl_string(migration, "name"), ctl_integer(migration, "pid", 0), ctl_string(migration, "state"),
           ctl_duration(duration, ctl_integer(migration, "duration_ms", -1)),
           ctl_size(tot, json_object_get(migration, "tot_kib")), *outcome ? outcome : "-", *verdict ? verdict : "-",
           ctl_string(migration, "reason"));
}

static int command_migrations(struct ctl *ctl, int argc, char **argv)
{
    json_t *result, *migration;
    size_t i;
    (void)argc, (void)argv;

    int status = ctl_call(ctl, "migration.list", NULL, &result);
    if (status)
        return status;
    json_t *migrations = json_object_get(result, "migrations"), *ended = json_object_get(result, "ended");
    if (ctl->json) {
        ctl_print_json(result);
    } else if (json_array_size(migrations) + json_array_size(ended) == 0) {
        puts("no migration has been seen that nobody announced");
    } else {
        printf("%6s  %-20s %8s %-9s %10s %12s %-9s %-8s %s\n", "DOMID", "NAME", "PID", "STATE", "DURATION", "SIZE",
               "OUTCOME", "VERDICT", "REASON");
        json_array_foreach(ended, i, migration) migrations_row(migration);
        json_array_foreach(migrations, i, migration) migrations_row(migration);
    }
    json_decref(result);
    return CTL_OK;
}

/* ---- verdict ---- */

static int verdict_status(const json_t *result)
{
    const char *verdict = ctl_string(result, "verdict");

    if (strcmp(verdict, "proceed") == 0)
        return CTL_OK;
    return strcmp(verdict, "retry") == 0 ? CTL_RETRY : CTL_ABORTED;
}

static int command_verdict(struct ctl *ctl, int argc, char **argv)
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
        printf("%s: %s (%s), attempt %" PRId64 " of %" PRId64 "\n", ctl_string(result, "verdict"),
               ctl_string(result, "text"), ctl_string(result, "reason"), ctl_integer(result, "attempt", 0),
               ctl_integer(result, "attempts", 0));
    json_decref(result);
    return status;
}

/* ---- begin ---- */

/* Holds until a signal or the daemon's end: the session goes with this process's connection. */
static int begin_stay(struct ctl *ctl, const char *session)
{
    sigset_t signals;
    json_t *result;
    int status = CTL_OK;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (fd < 0) {
        ctl_say("waiting for signals failed: %s", strerror(errno));
        return CTL_FAILED;
    }
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
    if (!status)
        json_decref(result);
    return status;
}

static int command_begin(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {{"detached", no_argument, NULL, 'd'},
                                          {"require", required_argument, NULL, 'r'},
                                          {"policy", required_argument, NULL, 'p'},
                                          {"no-wait", no_argument, NULL, 'n'},
                                          {NULL, 0, NULL, 0}};
    json_t *policy = json_object(), *result;
    bool detached = false, wait = true, good = policy != NULL;
    int name;

    optind = 0;
    while (good && (name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'd')
            detached = true;
        else if (name == 'n')
            wait = false;
        else if (name == 'r')
            good = json_object_set_new(policy, "require", json_string(optarg)) == 0;
        else
            good = name == 'p' && ctl_policy_set(policy, "begin", optarg);
    }
    if (good && optind + 1 != argc) {
        ctl_usage_error("begin", "expected one DOMAIN");
        good = false;
    }
    if (!good) {
        json_decref(policy);
        return CTL_USAGE;
    }
    int status = ctl_call(ctl, "guard.begin",
                          json_pack("{s:s,s:o,s:s,s:b}", "domain", argv[optind], "policy", policy, "hold",
                                    detached ? "detached" : "connection", "wait", (int)wait),
                          &result);
    if (status)
        return status;
    if (ctl->json)
        ctl_print_json(result);
    else
        puts(ctl_string(result, "session"));
    if (!detached)
        status = begin_stay(ctl, ctl_string(result, "session"));
    json_decref(result);
    return status;
}

/* ---- watch ---- */

static int command_watch(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {{"from", required_argument, NULL, 'f'}, {NULL, 0, NULL, 0}};
    json_t *params = json_object(), *result, *event;
    int name, error;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        char *end = optarg;
        long long from = name == 'f' ? strtoll(optarg, &end, 10) : 0;
        if (name != 'f' || end == optarg || *end || from < 0) {
            json_decref(params);
            return name == 'f' ? ctl_usage_error("watch", "--from is '%s', expected the number of an event", optarg)
                               : CTL_USAGE;
        }
        json_object_set_new(params, "from", json_integer(from));
    }
    int status = ctl_call(ctl, "events.subscribe", params, &result);
    if (status)
        return status;
    json_decref(result);
    do {
        while ((event = connection_event(ctl->connection))) {
            if (ctl->json)
                ctl_print_json(event);
            else
                ctl_print_event(event);
            json_decref(event);
        }
        error = connection_wait(ctl->connection, -1);
        if (error > 0)
            error = connection_take_in(ctl->connection);
    } while (!error && !ferror(stdout));
    return ferror(stdout) ? CTL_FAILED : ctl_explain(error, NULL);
}

/* ---- the table ---- */

static const struct command {
    const char *name;
    const char *arguments;
    const char *help;
    int least, most; /* arguments; -1 = it counts for itself */
    int (*run)(struct ctl *ctl, int argc, char **argv);
} commands[] = {
    {"list", "", "guests under guard", 0, 0, command_list},
    {"show", "SESSION", "all about one session; SESSION may be the domain it guards", 1, 1, command_show},
    {"begin", "[--detached] [--require LEVEL] [--policy KEY=VALUE]… [--no-wait] DOMAIN", "hold a guest", -1, -1,
     command_begin},
    {"verdict", "[--phase precopy|final] SESSION", "may the migration proceed? (exit status 0, 6 retry, 4 abort)", -1,
     -1, command_verdict},
    {"retry", "SESSION", "settle anew for another attempt", 1, 1, command_retry},
    {"end", "SESSION completed|failed|cancelled", "let the guest go", 2, 2, command_end},
    {"thaw", "[--offline [--force]] --all | DOMAIN", "let guests go; --offline: without a daemon, by what it has left",
     -1, -1, thaw_command},
    {"migrate", "[--attempts N] [--require LEVEL] [--policy KEY=VALUE]… DOMAIN -- COMMAND [ARG…]",
     "hold the guest while COMMAND migrates it", -1, -1, migrate_command},
    {"watch", "[--from NUMBER]", "events as they come", -1, -1, command_watch},
    {"migrations", "", "migrations that nobody announced, under way and past", 0, 0, command_migrations},
    {"domains", "", "all domains of this host", 0, 0, command_domains},
    {"domain", "DOMAIN", "all about one domain", 1, 1, command_domain},
    {"reexec", "", "have the daemon execute its program anew, with all that it holds: after an upgrade", 0, 0,
     reexec_command},
    {"info", "", "the daemon, its defaults, and what it is doing", 0, 0, command_info},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void main_usage(FILE *to)
{
    fputs("usage: p2mguardctl [--socket PATH] [--json] COMMAND [ARGUMENT…]\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %s %s\n      %s\n", commands[i].name, commands[i].arguments, commands[i].help);
    fputs(
        "\nDOMAIN is a domid, a name or a uuid. --json is understood after COMMAND too.\n"
        "Exit status: 0 done or migrated, 1 refused or the command failed, 2 usage, 3 no daemon,\n"
        "4 aborted by verdict, 5 the guest could not be held, 6 verdict: retry, 7 thaw --offline: there is a daemon.\n",
        to);
}

static const struct command *main_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* Takes --json and --socket out wherever they stand before "--": what is behind it belongs to somebody else. */
static int main_take_global(struct ctl *ctl, int argc, char **argv)
{
    int kept = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) {
            while (i < argc)
                argv[kept++] = argv[i++];
            break;
        }
        if (strcmp(argv[i], "--json") == 0)
            ctl->json = true;
        else if (strcmp(argv[i], "--socket") == 0 && i + 1 < argc)
            ctl->socket = argv[++i], ctl->socket_given = true;
        else if (strncmp(argv[i], "--socket=", 9) == 0)
            ctl->socket = argv[i] + 9, ctl->socket_given = true;
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    return kept;
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.socket = P2MG_CONTROL_SOCKET};

    signal(SIGPIPE, SIG_IGN);
    argc = main_take_global(&ctl, argc, argv);
    if (argc < 2) {
        main_usage(stderr);
        return CTL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        main_usage(stdout);
        return CTL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("p2mguardctl " PACKAGE_VERSION);
        return CTL_OK;
    }
    const struct command *command = main_find(argv[1]);
    if (!command)
        return ctl_usage_error("", "'%s' is no command", argv[1]);
    if (command->least >= 0 && (argc - 2 < command->least || argc - 2 > command->most))
        return ctl_usage_error(command->name, "expected %s", *command->arguments ? command->arguments : "no arguments");
    /* These look at their command lines before they ask for a daemon, if they do. */
    bool by_itself = command->run == migrate_command || command->run == thaw_command;
    int status = by_itself ? CTL_OK : ctl_connect(&ctl);
    if (!status)
        status = command->run(&ctl, argc - 1, argv + 1);
    connection_close(ctl.connection);
    return status;
}
