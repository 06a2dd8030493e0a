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

/* Says on standard error what is wrong with the command line; returns CTL_USAGE. */
int ctl_usage_error(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

void ctl_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* 0, or the exit status after having said why not. */
int ctl_connect(struct ctl *ctl);

/* Steals params. 0 and the caller owns *result; else the exit status, after having said what was wrong. */
int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result);

/* The exit status for a failed call; says what was wrong. Frees `error`. */
int ctl_explain(int failure, json_t *error);

/* The id of the session `text` means: itself, or the one that guards a domain of that name or domid. NULL: said why. */
char *ctl_session_id(struct ctl *ctl, const char *text, int *status);

/* Members of a policy from "KEY=VALUE"; false, and said why, when it is not of that form. */
bool ctl_policy_set(json_t *policy, const char *command, const char *assignment);

/* Writes a value as one line of JSON, flushed. */
void ctl_print_json(const json_t *value);

/* For people: "256.0 MiB", "0.8 s". Both write into the buffer and return it. */
#define CTL_TEXT 32
const char *ctl_size(char text[CTL_TEXT], const json_t *kib);
const char *ctl_duration(char text[CTL_TEXT], int64_t ms);

/* One line of an event, without the newline. */
void ctl_print_event(const json_t *event);

/* Shorthands for members that may be absent or null. */
const char *ctl_string(const json_t *object, const char *key);
int64_t ctl_integer(const json_t *object, const char *key, int64_t otherwise);

/* The commands with more to them. */
int migrate_command(struct ctl *ctl, int argc, char **argv);
int thaw_command(struct ctl *ctl, int argc, char **argv);
int reexec_command(struct ctl *ctl, int argc, char **argv);

#endif
