/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl migrate: holds a guest while a command migrates it.
 *
 * The guest is held for this process's connection, so that it is let go however this process ends.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl.h"

/* What the command's libxl is to run in place of its own save helper, where that finds the daemon, and what it does
 * when there is none: whoever has asked for a guard wants no migration without. */
#define MIGRATE_SAVE_HELPER "LIBXL_SAVE_HELPER"
#define MIGRATE_SOCKET "P2MGUARD_SOCKET"
#define MIGRATE_SAVE_POLICY "P2MGUARD_SAVE_POLICY"

/* How often the daemon is asked for a verdict while the command runs; a change is told at once by an event. */
#define MIGRATE_ASK_MS 200

extern char **environ;

struct migration {
    struct ctl *ctl;
    const char *domain;
    char **command;
    json_t *policy;
    char *session;
    bool terminal; /* standard error is one: draw a progress line */
    bool drawn;
    int signals; /* signalfd */
    bool cancelled;
    bool unguarded; /* the daemon went away while the command ran */
    int64_t begun_ms, held_after_ms;

    pid_t pid; /* the command, 0 = not running */
    int pidfd;
    int wait_status;
    int64_t started_ms;
    bool stopping; /* the command has been told to stop */
    int64_t asked; /* id of the verdict request under way, 0 = none */
    int64_t asked_ms;
    json_t *attempts; /* for --json */
    json_t *verdict;  /* the last one */
    json_t *record;   /* the session's, at its end */
    int64_t tot_kib, deferred_kib;
};

static int64_t migrate_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- for people ---- */

static void migrate_wipe(struct migration *migration)
{
    if (migration->drawn)
        fputs("\r\033[K", stderr);
    migration->drawn = false;
}

#define migrate_say(migration, ...) (migrate_wipe(migration), ctl_say(__VA_ARGS__))

static void migrate_draw(struct migration *migration, const char *doing)
{
    char elapsed[CTL_TEXT], deferred[CTL_TEXT + 16] = "";

    if (!migration->terminal)
        return;
    if (migration->deferred_kib)
        snprintf(deferred, sizeof(deferred), "  deferred %.1f MiB", (double)migration->deferred_kib / 1024);
    fprintf(stderr, "\r\033[K%s: %s  %s  attempt %zu  %.1f MiB%s", migration->domain, doing,
            ctl_duration(elapsed, migrate_now_ms() - migration->begun_ms), json_array_size(migration->attempts) + 1,
            (double)migration->tot_kib / 1024, deferred);
    migration->drawn = true;
}

/* ---- the command line ---- */

static bool migrate_parse_attempts(json_t *policy, const char *text)
{
    char assignment[64];

    snprintf(assignment, sizeof(assignment), "attempts=%.40s", text);
    return ctl_policy_set(policy, "migrate", assignment);
}

/* argv up to "--" is ours; what follows it is the command's. */
static int migrate_parse(struct migration *migration, int argc, char **argv)
{
    static const struct option names[] = {{"attempts", required_argument, NULL, 'a'},
                                          {"require", required_argument, NULL, 'r'},
                                          {"policy", required_argument, NULL, 'p'},
                                          {NULL, 0, NULL, 0}};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'a' && !migrate_parse_attempts(migration->policy, optarg))
            return CTL_USAGE;
        if (name == 'r' && json_object_set_new(migration->policy, "require", json_string(optarg)) < 0)
            return CTL_FAILED;
        if (name == 'p' && !ctl_policy_set(migration->policy, "migrate", optarg))
            return CTL_USAGE;
        if (name == '?')
            return CTL_USAGE;
    }
    if (optind >= argc || strcmp(argv[optind], "--") == 0)
        return ctl_usage_error("migrate", "expected DOMAIN -- COMMAND [ARG…]");
    migration->domain = argv[optind++];
    if (optind + 1 >= argc || strcmp(argv[optind], "--") != 0)
        return ctl_usage_error("migrate", "expected -- COMMAND [ARG…] after the domain");
    migration->command = argv + optind + 1;
    return CTL_OK;
}

/* ---- the command ---- */

/*
 * The save helper asks for the verdict at the one moment when it counts, before the guest is suspended, and ends the
 * save by libxl's own way out when there is none, because the daemon is dead for one. A helper that somebody has
 * configured is left alone.
 */
static int migrate_set_environment(struct migration *migration)
{
    const char *configured = getenv(MIGRATE_SAVE_HELPER), *program = getenv("P2MGUARD_SAVE_HELPER");

    if (!program || !*program)
        program = SAVE_HELPER_PROGRAM;
    if (configured && *configured)
        return 0;
    if (access(program, X_OK) < 0) {
        migrate_say(migration, "%s cannot be run (%s); a migration whose daemon dies goes on without a guard", program,
                    strerror(errno));
        return 0;
    }
    if (setenv(MIGRATE_SAVE_HELPER, program, 1) < 0 || setenv(MIGRATE_SAVE_POLICY, "strict", 0) < 0 ||
        (migration->ctl->socket_given && setenv(MIGRATE_SOCKET, migration->ctl->socket, 1) < 0)) {
        migrate_say(migration, "setting the command's environment failed: %s", strerror(errno));
        return -errno;
    }
    return 0;
}

/* In a process group of its own, with the terminal if there is one: ssh may want to ask for a password. */
static int migrate_start(struct migration *migration)
{
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_t files;
    sigset_t none, standard;

    sigemptyset(&none);
    sigemptyset(&standard);
    sigaddset(&standard, SIGPIPE);
    sigaddset(&standard, SIGTTOU);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &standard);
    if (migration->ctl->json)
        posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
    int error = posix_spawnp(&migration->pid, migration->command[0], &files, &attributes, migration->command, environ);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    if (error) {
        migration->pid = 0;
        migrate_wipe(migration);
        ctl_fail("starting '%s' failed: %s", migration->command[0], strerror(error));
        return -error;
    }
    migration->pidfd = pidfd_open(migration->pid, 0);
    if (isatty(STDIN_FILENO))
        tcsetpgrp(STDIN_FILENO, migration->pid);
    migration->started_ms = migrate_now_ms();
    migration->stopping = false;
    return 0;
}

static void migrate_reap(struct migration *migration)
{
    while (waitpid(migration->pid, &migration->wait_status, 0) < 0 && errno == EINTR)
        ;
    if (isatty(STDIN_FILENO))
        tcsetpgrp(STDIN_FILENO, getpgrp());
    if (migration->pidfd >= 0)
        close(migration->pidfd);
    migration->pidfd = -1;
    migration->pid = 0;
}

static bool migrate_has_ended(const struct migration *migration)
{
    siginfo_t info = {.si_pid = 0};

    return waitid(P_PID, (id_t)migration->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0;
}

static void migrate_stop_command(struct migration *migration)
{
    if (migration->stopping || !migration->pid)
        return;
    migration->stopping = true;
    kill(-migration->pid, SIGTERM);
}

/* ---- listening to the daemon ---- */

static void migrate_ask(struct migration *migration)
{
    int64_t id = connection_send(migration->ctl->connection, "guard.verdict",
                                 json_pack("{s:s,s:s}", "session", migration->session, "phase", "precopy"));

    migration->asked = id > 0 ? id : 0;
    migration->asked_ms = migrate_now_ms();
}

static void migrate_take_events(struct migration *migration)
{
    json_t *event;

    while ((event = connection_event(migration->ctl->connection))) {
        const char *type = ctl_string(event, "type");
        bool ours = migration->session && strcmp(ctl_string(event, "session"), migration->session) == 0;
        if (ours && strcmp(type, "target.deferred") == 0)
            migration->deferred_kib = ctl_integer(event, "target_kib", 0);
        if (ours && strcmp(type, "session.changed") == 0 && migration->pid && !migration->asked)
            migrate_ask(migration);
        json_decref(event);
    }
}

/*
 * A guest that is suspended for the last phase does not run, so its layout cannot change any more; and a toolstack that
 * is killed between the two hosts may leave the guest dead on both. Then the command is left alone.
 */
static void migrate_heed_verdict(struct migration *migration, json_t *verdict)
{
    const char *word = ctl_string(verdict, "verdict");
    bool suspended = json_is_true(json_object_get(verdict, "suspended"));

    migration->tot_kib = ctl_integer(json_object_get(verdict, "now"), "tot_kib", migration->tot_kib);
    if (strcmp(word, "proceed") == 0 || suspended || migration->stopping)
        return;
    migrate_say(migration, "%s: %s (%s); stopping the command", word, ctl_string(verdict, "text"),
                ctl_string(verdict, "reason"));
    migrate_stop_command(migration);
}

/* It was migrated, or saved, or destroyed: the command is about to end, and knows which it was. */
static bool migrate_guest_has_left(const json_t *verdict)
{
    const char *reason = ctl_string(verdict, "reason");

    return strcmp(reason, "domain-renamed") == 0 || strcmp(reason, "domain-gone") == 0;
}

static void migrate_take_verdict(struct migration *migration)
{
    json_t *reply = migration->asked ? connection_reply(migration->ctl->connection, migration->asked) : NULL;
    json_t *verdict = json_object_get(reply, "result");

    if (!reply)
        return;
    migration->asked = 0;
    /* An answer may be late, and be about an attempt that has ended since. */
    bool ours = ctl_integer(verdict, "attempt", 0) == (int64_t)json_array_size(migration->attempts) + 1;
    if (verdict && ours && !migrate_guest_has_left(verdict)) {
        json_decref(migration->verdict);
        migration->verdict = json_incref(verdict);
        migrate_heed_verdict(migration, verdict);
    }
    json_decref(reply);
}

static void migrate_listen(struct migration *migration)
{
    if (connection_take_in(migration->ctl->connection)) {
        migration->unguarded = true;
        migrate_say(migration, "the daemon went away; nobody guards the guest any more");
        return;
    }
    migrate_take_events(migration);
    migrate_take_verdict(migration);
}

static void migrate_take_signal(struct migration *migration)
{
    struct signalfd_siginfo signal;

    if (read(migration->signals, &signal, sizeof(signal)) != sizeof(signal))
        return;
    migration->cancelled = true;
    migrate_say(migration, "told to stop (%s)", strsignal((int)signal.ssi_signo));
    migrate_stop_command(migration);
}

/* Waits for signals, the daemon and the command; at most until it is time to ask again. */
static void migrate_turn(struct migration *migration)
{
    struct pollfd fds[3] = {
        {.fd = migration->signals, .events = POLLIN},
        {.fd = migration->unguarded ? -1 : connection_fd(migration->ctl->connection),
         .events = migration->unguarded ? POLLIN : connection_poll_events(migration->ctl->connection)},
        {.fd = migration->pid ? migration->pidfd : -1, .events = POLLIN},
    };

    poll(fds, 3, MIGRATE_ASK_MS);
    if (fds[0].revents)
        migrate_take_signal(migration);
    if (fds[1].revents)
        migrate_listen(migration);
    /* A kernel without pidfds leaves asking. */
    if (fds[2].revents || (migration->pid && migration->pidfd < 0 && migrate_has_ended(migration)))
        migrate_reap(migration);
}

static void migrate_run_command(struct migration *migration)
{
    migrate_take_verdict(migration);
    while (migration->pid) {
        if (!migration->unguarded && !migration->asked && migrate_now_ms() - migration->asked_ms >= MIGRATE_ASK_MS)
            migrate_ask(migration);
        migrate_draw(migration, migration->stopping ? "stopping" : "migrating");
        migrate_turn(migration);
    }
    migrate_wipe(migration);
}

/* Calls while signals and events are listened to. *error as for connection_call. */
static int migrate_call(struct migration *migration, const char *method, json_t *params, const char *doing,
                        json_t **result, json_t **error)
{
    int64_t id = connection_send(migration->ctl->connection, method, params);
    json_t *reply = NULL;

    *result = *error = NULL;
    if (id < 0)
        return (int)id;
    for (;;) {
        migrate_take_events(migration);
        reply = connection_reply(migration->ctl->connection, id);
        if (reply || migration->unguarded)
            break;
        migrate_draw(migration, doing);
        struct pollfd fds[2] = {{.fd = migration->signals, .events = POLLIN},
                                {.fd = connection_fd(migration->ctl->connection),
                                 .events = connection_poll_events(migration->ctl->connection)}};
        poll(fds, 2, MIGRATE_ASK_MS);
        if (fds[0].revents) {
            migrate_take_signal(migration);
            return -ECANCELED;
        }
        if (fds[1].revents && connection_take_in(migration->ctl->connection))
            migration->unguarded = true;
    }
    migrate_wipe(migration);
    if (!reply)
        return -EPIPE;
    *result = json_incref(json_object_get(reply, "result"));
    *error = json_incref(json_object_get(reply, "error"));
    json_decref(reply);
    return *error ? -EREMOTEIO : 0;
}

/* ---- the steps ---- */

static void migrate_keep_record(struct migration *migration, json_t *record)
{
    json_decref(migration->record);
    migration->record = record;
}

/* The record of a session that could not be held comes with the error. */
static int migrate_explain(struct migration *migration, int failure, json_t *error)
{
    json_t *record = json_object_get(json_object_get(error, "data"), "session");

    if (failure == -ECANCELED)
        return CTL_FAILED;
    if (json_is_object(record))
        migrate_keep_record(migration, json_incref(record));
    return ctl_explain(failure, error);
}

static int migrate_hold(struct migration *migration)
{
    json_t *record, *error;
    int failure =
        migrate_call(migration, "guard.begin",
                     json_pack("{s:s,s:O,s:b}", "domain", migration->domain, "policy", migration->policy, "wait", 1),
                     "freezing", &record, &error);

    if (failure)
        return migrate_explain(migration, failure, error);
    migrate_keep_record(migration, record);
    migration->session = strdup(ctl_string(record, "session"));
    if (!migration->session)
        return CTL_FAILED;
    migration->held_after_ms = ctl_integer(record, "held_after_ms", -1);
    migration->tot_kib = ctl_integer(record, "tot_kib", 0);
    migration->deferred_kib = ctl_integer(record, "deferred_target_kib", 0);
    migrate_say(migration, "%s is held, after %.2f s", migration->domain, (double)migration->held_after_ms / 1000);
    return CTL_OK;
}

static int migrate_hold_again(struct migration *migration)
{
    json_t *record, *error;
    int failure = migrate_call(migration, "guard.retry", json_pack("{s:s}", "session", migration->session), "settling",
                               &record, &error);

    if (failure)
        return migrate_explain(migration, failure, error);
    migrate_keep_record(migration, record);
    migrate_say(migration, "%s is held again; attempt %" PRId64, migration->domain, ctl_integer(record, "attempt", 0));
    return CTL_OK;
}

/* Tells the daemon how it ended; what it answers is the session's last record. */
static void migrate_end(struct migration *migration, const char *outcome)
{
    json_t *record, *error;

    if (migration->unguarded || !migration->session)
        return;
    int failure =
        connection_call(migration->ctl->connection, "guard.end",
                        json_pack("{s:s,s:s}", "session", migration->session, "outcome", outcome), &record, &error);
    if (failure)
        ctl_explain(failure, error);
    else
        migrate_keep_record(migration, record);
}

/* The verdict on an attempt that has failed; NULL without a daemon. */
static json_t *migrate_final_verdict(struct migration *migration)
{
    json_t *verdict, *error;

    if (migration->unguarded || migration->cancelled)
        return NULL;
    int failure = migrate_call(migration, "guard.verdict", json_pack("{s:s}", "session", migration->session), "judging",
                               &verdict, &error);
    if (failure) {
        migrate_explain(migration, failure, error);
        return NULL;
    }
    return verdict;
}

static void migrate_note_attempt(struct migration *migration, const json_t *verdict)
{
    bool exited = WIFEXITED(migration->wait_status);
    json_t *attempt = json_pack(
        "{s:I,s:I,s:o,s:o,s:s?,s:s?}", "attempt", (json_int_t)json_array_size(migration->attempts) + 1, "command_ms",
        (json_int_t)(migrate_now_ms() - migration->started_ms), "command_exit",
        exited ? json_integer(WEXITSTATUS(migration->wait_status)) : json_null(), "command_signal",
        exited ? json_null() : json_integer(WTERMSIG(migration->wait_status)), "verdict",
        verdict ? ctl_string(verdict, "verdict") : NULL, "reason", verdict ? ctl_string(verdict, "reason") : NULL);

    json_array_append_new(migration->attempts, attempt);
}

static void migrate_say_exit(struct migration *migration)
{
    if (WIFEXITED(migration->wait_status))
        migrate_say(migration, "the command ended with exit status %d", WEXITSTATUS(migration->wait_status));
    else
        migrate_say(migration, "the command was ended by %s", strsignal(WTERMSIG(migration->wait_status)));
}

/* After a failed attempt: the exit status, or CTL_RETRY when another one can begin. */
static int migrate_after_failure(struct migration *migration, const json_t *verdict)
{
    const char *word = ctl_string(verdict, "verdict");

    migrate_say_exit(migration);
    if (migration->cancelled) {
        migrate_end(migration, "cancelled");
        return CTL_FAILED;
    }
    if (strcmp(word, "retry") == 0) {
        migrate_say(migration, "retry: %s", ctl_string(verdict, "text"));
        int status = migrate_hold_again(migration);
        if (!status)
            return CTL_RETRY;
        migrate_end(migration, migration->cancelled ? "cancelled" : "failed");
        return status;
    }
    if (strcmp(word, "abort") == 0)
        migrate_say(migration, "abort: %s (%s)", ctl_string(verdict, "text"), ctl_string(verdict, "reason"));
    migrate_end(migration, "failed");
    return strcmp(word, "abort") == 0 ? CTL_ABORTED : CTL_FAILED;
}

static int migrate_attempt(struct migration *migration)
{
    if (migrate_start(migration)) {
        migrate_end(migration, "cancelled");
        return CTL_FAILED;
    }
    migrate_run_command(migration);
    if (WIFEXITED(migration->wait_status) && WEXITSTATUS(migration->wait_status) == 0) {
        migrate_note_attempt(migration, migration->verdict);
        migrate_end(migration, "completed");
        return CTL_OK;
    }
    /* The time the command took is noted before the verdict is waited for. */
    int64_t ended_ms = migrate_now_ms();
    json_t *verdict = migrate_final_verdict(migration);
    migration->started_ms += migrate_now_ms() - ended_ms;
    migrate_note_attempt(migration, verdict);
    int status = migrate_after_failure(migration, verdict);
    json_decref(verdict);
    return status;
}

/* ---- the end ---- */

/* For a shell: as it is where that is one word, else in quotes; the caller's. */
static char *migrate_quote(const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,_+:@%/-";
    char *quoted = malloc(strlen(word) * 4 + 3), *to = quoted;

    if (!quoted)
        return NULL;
    if (*word && word[strspn(word, plain)] == '\0')
        return strcpy(quoted, word);
    *to++ = '\'';
    for (; *word; word++)
        to = *word == '\'' ? stpcpy(to, "'\\''") : (*to = *word, to + 1);
    strcpy(to, "'");
    return quoted;
}

/*
 * The target that nobody has given the guest yet, as a command, the caller's; NULL when there is none. The command's
 * success counts and not the session's outcome: a domain that was saved is gone before anybody could say that it was
 * completed.
 */
static char *migrate_deferred_command(const struct migration *migration, int status)
{
    int64_t wanted_kib = ctl_integer(migration->record, "wanted_target_kib", 0);
    int64_t pin_kib = ctl_integer(migration->record, "pin_kib", 0);
    char *command = NULL;

    if (status != CTL_OK || wanted_kib == pin_kib || !pin_kib)
        return NULL;
    char *name = migrate_quote(ctl_string(migration->record, "name"));
    if (!name || asprintf(&command, "xl mem-set %s %" PRId64 "k", name, wanted_kib) < 0)
        command = NULL;
    free(name);
    return command;
}

static void migrate_tell_deferred(struct migration *migration, const char *command)
{
    char wanted[CTL_TEXT];
    int64_t applied_to = ctl_integer(migration->record, "applied_to", 0);

    ctl_size(wanted, json_object_get(migration->record, "wanted_target_kib"));
    if (applied_to)
        migrate_say(migration, "the target asked for meanwhile, %s, has been given to the new domain %" PRId64, wanted,
                    applied_to);
    else
        migrate_say(migration, "a target of %s was asked for meanwhile; where the guest runs next, run: %s", wanted,
                    command);
}

static const char *migrate_outcome(const struct migration *migration, int status)
{
    if (status == CTL_OK)
        return "migrated";
    if (migration->cancelled)
        return "cancelled";
    if (status == CTL_ABORTED)
        return "aborted";
    return status == CTL_NOT_HELD ? "not-held" : "command-failed";
}

static void migrate_summarize(struct migration *migration, int status, const char *command)
{
    const json_t *record = migration->record;
    json_t *deferred = json_object_get(record, "deferred_target_kib");
    json_t *summary =
        json_pack("{s:s?,s:o,s:s,s:i,s:o,s:O,s:I,s:I,s:I,s:O?,s:b,s:s?,s:b}", "session", migration->session, "domid",
                  record ? json_integer(ctl_integer(record, "domid", 0)) : json_null(), "outcome",
                  migrate_outcome(migration, status), "exit_status", status, "held_after_ms",
                  migration->held_after_ms < 0 ? json_null() : json_integer(migration->held_after_ms), "attempts",
                  migration->attempts, "changes", (json_int_t)ctl_integer(record, "changes", 0), "generation_changes",
                  (json_int_t)ctl_integer(record, "generation_changes", 0), "longest_gap_ms",
                  (json_int_t)ctl_integer(record, "longest_gap_ms", 0), "deferred_target_kib", deferred,
                  "deferred_applied", (int)(ctl_integer(record, "applied_to", 0) != 0), "deferred_command", command,
                  "unguarded", (int)migration->unguarded);

    if (summary)
        ctl_print_json(summary);
    json_decref(summary);
}

static int migrate_guarded(struct migration *migration)
{
    json_t *result;
    int status = ctl_connect(migration->ctl);

    if (!status)
        status = ctl_call(migration->ctl, "events.subscribe", NULL, &result);
    if (status)
        return status;
    json_decref(result);
    if (migrate_set_environment(migration))
        return CTL_FAILED;
    status = migrate_hold(migration);
    while (!status || status == CTL_RETRY) {
        status = migrate_attempt(migration);
        if (status == CTL_OK)
            break;
    }
    return status;
}

static int migrate_block_signals(struct migration *migration)
{
    signal(SIGTTOU, SIG_IGN); /* the terminal is the command's while it runs, and is taken back after */
    migration->signals = ctl_open_signals();
    return migration->signals < 0 ? -errno : 0;
}

int migrate_command(struct ctl *ctl, int argc, char **argv)
{
    struct migration migration = {.ctl = ctl, .held_after_ms = -1, .pidfd = -1, .signals = -1};

    migration.policy = json_object();
    migration.attempts = json_array();
    migration.terminal = isatty(STDERR_FILENO);
    migration.begun_ms = migrate_now_ms();
    int status = migration.policy && migration.attempts ? migrate_parse(&migration, argc, argv) : CTL_FAILED;
    if (!status && migrate_block_signals(&migration)) {
        status = ctl_fail("waiting for signals failed: %s", strerror(errno));
    }
    if (!status) {
        status = migrate_guarded(&migration);
        char *command = migrate_deferred_command(&migration, status);
        if (command)
            migrate_tell_deferred(&migration, command);
        if (status == CTL_OK)
            migrate_say(&migration, "%s has been migrated%s", migration.domain,
                        migration.unguarded ? ", at the end without a guard" : "");
        if (ctl->json && status != CTL_NO_DAEMON)
            migrate_summarize(&migration, status, command);
        free(command);
    }
    if (migration.signals >= 0)
        close(migration.signals);
    json_decref(migration.policy);
    json_decref(migration.attempts);
    json_decref(migration.verdict);
    json_decref(migration.record);
    free(migration.session);
    return status;
}
