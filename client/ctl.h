/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the commands of p2mguardctl share: options, exit statuses, asking the daemon, and writing for people.
 */
#ifndef P2MGUARD_CLIENT_CTL_H
#define P2MGUARD_CLIENT_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/connection.h"

/* The documented exit statuses. */
enum ctl_status {
    CTL_OK = 0,        /* also: migrated, or a verdict of proceed */
    CTL_FAILED = 1,    /* the request was refused; migrate: COMMAND failed for reasons of its own */
    CTL_USAGE = 2,     /* the command line is not right */
    CTL_NO_DAEMON = 3, /* nobody answers on the socket; thaw --offline: xenstored does not answer */
    CTL_ABORTED = 4,   /* a verdict of abort */
    CTL_NOT_HELD = 5,  /* the guest could not be held */
    CTL_RETRY = 6,     /* verdict: retry */
    CTL_DAEMON = 7     /* thaw --offline: there is a daemon */
};

struct ctl {
    const char *socket;
    bool socket_given; /* on the command line */
    bool json;
    struct connection *connection; /* opened by ctl_connect */
};

struct ctl_command {
    const char *name;
    const char *arguments; /* its synopsis, which says what options and words it has (synopsis.h) */
    const char *help;
    int least, most; /* words; -1 = it counts for itself */
    int (*run)(struct ctl *ctl, int argc, char **argv);
};

/* Ends with a command whose name is NULL. */
extern const struct ctl_command ctl_commands[];

const struct ctl_command *ctl_command_find(const char *name);

/* Those that are understood with every command, as a synopsis. */
#define CTL_GLOBAL "[--socket PATH] [--json] [--color auto|always|never] [--help] [--version]"

/*
 * A word of a synopsis whose meaning is a list of words: "LEVEL" is "gate|settled|agent". What is a list itself is
 * returned as it is; NULL where anything may be written.
 */
const char *ctl_choices(const char *word);

/* A process runs one command: the socket and the form of errors, from now on. */
void ctl_begin(struct ctl *ctl);

/*
 * Errors go to standard error, and under --json, as {"error": {"code", "message", "data", "hint"}} on a line of its
 * own, to standard output too.
 *
 * What is wrong with the command line; returns CTL_USAGE.
 */
int ctl_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Any other error that the daemon does not know of; returns CTL_FAILED. */
int ctl_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What is no error: how things go. */
void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* SIGINT, SIGTERM and SIGHUP do nothing from now on but come out of this descriptor; -1: errno says why not. */
int ctl_open_signals(void);

/* 0, also where there is a connection already, or the exit status after having said why not. */
int ctl_connect(struct ctl *ctl);

/*
 * Connects, where nobody has yet, and asks. Steals params. 0 and the caller owns *result; else the exit status, after
 * having said what was wrong.
 */
int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result);

/* The exit status for a failed call; says what was wrong, and what may have been meant. Frees `error`. */
int ctl_explain(int failure, json_t *error);

/* The id of the session `text` means: itself, or the one that guards a domain of that name or domid. NULL: said why. */
char *ctl_session_id(struct ctl *ctl, const char *text, int *status);

/* Whether `text` is one of "a|b|c"; else said why not. `name` is what it was given for: "--phase", or nothing. */
bool ctl_check_choice(const char *command, const char *name, const char *choices, const char *text);

/* Members of a policy from "KEY=VALUE"; false, and said why, when it is not of that form. */
bool ctl_policy_set(json_t *policy, const char *command, const char *assignment);

/* Writes a value as one line of JSON, flushed. */
void ctl_print_json(const json_t *value);

/* For people: "256.0 MiB", "0.8 s". Both write into the buffer and return it. */
#define CTL_TEXT 32
const char *ctl_size(char text[CTL_TEXT], const json_t *kib);
const char *ctl_duration(char text[CTL_TEXT], int64_t ms);

/* One line of an event. */
void ctl_print_event(const json_t *event);

/* Shorthands for members that may be absent or null. */
const char *ctl_string(const json_t *object, const char *key);
int64_t ctl_integer(const json_t *object, const char *key, int64_t otherwise);

/* All members of an object for people: "key  value", nested ones with their own names before them. */
int show_record(const json_t *record);

/* That, or under --json a line of JSON. Frees `result`. */
int ctl_show_result(const struct ctl *ctl, json_t *result);

/* For the methods that take a session and one string more, or none. */
int ctl_on_session(struct ctl *ctl, const char *method, const char *session, const char *key, const char *value);

/* The commands. */
int list_command(struct ctl *ctl, int argc, char **argv);
int show_command(struct ctl *ctl, int argc, char **argv);
int domains_command(struct ctl *ctl, int argc, char **argv);
int domain_command(struct ctl *ctl, int argc, char **argv);
int migrations_command(struct ctl *ctl, int argc, char **argv);
int info_command(struct ctl *ctl, int argc, char **argv);
int watch_command(struct ctl *ctl, int argc, char **argv);
int begin_command(struct ctl *ctl, int argc, char **argv);
int verdict_command(struct ctl *ctl, int argc, char **argv);
int retry_command(struct ctl *ctl, int argc, char **argv);
int end_command(struct ctl *ctl, int argc, char **argv);
int migrate_command(struct ctl *ctl, int argc, char **argv);
int config_command(struct ctl *ctl, int argc, char **argv);
int thaw_command(struct ctl *ctl, int argc, char **argv);
int reexec_command(struct ctl *ctl, int argc, char **argv);
int help_command(struct ctl *ctl, int argc, char **argv);

/* For the shells: what could stand where the cursor is. Says nothing but that, and gives up soon. */
int complete_command(struct ctl *ctl, int argc, char **argv);
int doctor_command(struct ctl *ctl, int argc, char **argv);
int metrics_command(struct ctl *ctl, int argc, char **argv);
int timeline_command(struct ctl *ctl, int argc, char **argv);
int top_command(struct ctl *ctl, int argc, char **argv);

#endif
