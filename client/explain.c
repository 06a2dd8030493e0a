/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What p2mguardctl says when something is wrong: what that was, and what to do or what may have been meant.
 */
#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/ctl.h"
#include "client/nearest.h"
#include "client/table.h"
#include "protocol/names.h"

#define EXPLAIN_TEXT 640

static struct ctl *explain_ctl;

void ctl_begin(struct ctl *ctl)
{
    explain_ctl = ctl;
}

/* ---- saying it ---- */

static void explain_write(const char *who, const char *text, const char *hint)
{
    char *safe = table_safe(text), *safe_hint = table_safe(hint);

    fflush(stdout);
    fprintf(stderr, "p2mguardctl%s%s: %s%s%s\n", *who ? " " : "", who, safe ? safe : "out of memory", *hint ? "; " : "",
            safe_hint ? safe_hint : "");
    free(safe);
    free(safe_hint);
}

/* `error` is the daemon's, or NULL. */
static void explain_tell(const char *who, const char *text, const char *hint, const json_t *error)
{
    json_t *data = json_object_get(error, "data"), *code = json_object_get(error, "code");

    explain_write(who, text, hint);
    if (!explain_ctl || !explain_ctl->json)
        return;
    json_t *line = json_pack("{s:{s:O?,s:s,s:O?,s:s?}}", "error", "code", code, "message",
                             error ? ctl_string(error, "message") : text, "data", data, "hint", *hint ? hint : NULL);
    if (line)
        ctl_print_json(line);
    json_decref(line);
}

void ctl_say(const char *format, ...)
{
    char text[EXPLAIN_TEXT];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    explain_write("", text, "");
}

int ctl_fail(const char *format, ...)
{
    char text[EXPLAIN_TEXT];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    explain_tell("", text, "", NULL);
    return CTL_FAILED;
}

int ctl_usage_error(const char *command, const char *format, ...)
{
    char text[EXPLAIN_TEXT], hint[64];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    snprintf(hint, sizeof(hint), "see p2mguardctl %.32s%s--help", command, *command ? " " : "");
    explain_tell(command, text, hint, NULL);
    return CTL_USAGE;
}

/* ---- who may ---- */

/* "root and members of the group 'xen'": the socket is given to the group that may change things. */
static void explain_who_may(const char *path, char *text, size_t size)
{
    struct stat socket;
    const struct group *group = NULL;

    if (stat(path, &socket) == 0 && socket.st_gid != 0 && (socket.st_mode & S_IWGRP))
        group = getgrgid(socket.st_gid);
    if (group)
        snprintf(text, size, "root may, and members of the group '%.64s' (usermod -aG %.64s USER)", group->gr_name,
                 group->gr_name);
    else
        snprintf(text, size, "root may, and members of the group that socket_group in p2mguard.conf names");
}

int ctl_connect(struct ctl *ctl)
{
    char text[EXPLAIN_TEXT], hint[256];

    if (ctl->connection)
        return CTL_OK;
    int error = connection_open(&ctl->connection, ctl->socket);
    if (!error)
        return CTL_OK;
    if (error == -EACCES || error == -EPERM) {
        snprintf(text, sizeof(text), "%.256s: %s", ctl->socket, strerror(-error));
        explain_who_may(ctl->socket, hint, sizeof(hint));
        explain_tell("", text, hint, NULL);
        return CTL_FAILED;
    }
    snprintf(text, sizeof(text), "nobody answers on %.256s (%s); is p2mguardd running?", ctl->socket, strerror(-error));
    explain_tell("", text, "systemctl start p2mguardd starts it, systemctl status p2mguardd says why it does not run",
                 NULL);
    return CTL_NO_DAEMON;
}

/* ---- what may have been meant ---- */

/* Asks without saying anything: a hint that cannot be had is none. */
static json_t *explain_ask(const char *method)
{
    json_t *result = NULL, *error = NULL;

    if (explain_ctl && explain_ctl->connection)
        connection_call(explain_ctl->connection, method, NULL, &result, &error);
    json_decref(error);
    return result;
}

static void explain_domain(const char *wanted, char *hint, size_t size)
{
    json_t *list = explain_ask("domain.list"), *domain;
    struct nearest nearest;
    size_t i;

    nearest_init(&nearest, wanted);
    json_array_foreach(json_object_get(list, "domains"), i, domain) nearest_offer(&nearest, ctl_string(domain, "name"));
    if (nearest.found[0])
        snprintf(hint, size, "did you mean '%s'?", nearest.found);
    else
        snprintf(hint, size, "p2mguardctl domains lists those there are");
    json_decref(list);
}

/* Whether it is a domain that nobody guards. */
static bool explain_is_domain(const char *wanted)
{
    json_t *list = explain_ask("domain.list"), *domain;
    bool found = false;
    size_t i;

    json_array_foreach(json_object_get(list, "domains"), i, domain)
    {
        char domid[24];
        snprintf(domid, sizeof(domid), "%" PRId64, ctl_integer(domain, "domid", -1));
        found = found || strcmp(domid, wanted) == 0 || strcmp(ctl_string(domain, "name"), wanted) == 0 ||
                strcmp(ctl_string(domain, "uuid"), wanted) == 0;
    }
    json_decref(list);
    return found;
}

static void explain_session(const char *wanted, char *hint, size_t size)
{
    json_t *list = explain_ask("guard.list"), *session;
    struct nearest nearest;
    size_t i;

    nearest_init(&nearest, wanted);
    json_array_foreach(json_object_get(list, "sessions"), i, session)
    {
        nearest_offer(&nearest, ctl_string(session, "name"));
        nearest_offer(&nearest, ctl_string(session, "session"));
    }
    if (explain_is_domain(wanted))
        snprintf(hint, size, "the domain '%.64s' is not under guard", wanted);
    else if (nearest.found[0])
        snprintf(hint, size, "did you mean '%s'?", nearest.found);
    else
        snprintf(hint, size, "p2mguardctl list shows those there are");
    json_decref(list);
}

static void explain_error(const json_t *error, char *text, char *hint, size_t hint_size)
{
    const json_t *data = json_object_get(error, "data");

    hint[0] = '\0';
    connection_error_text(error, text, EXPLAIN_TEXT);
    switch (ctl_integer(error, "code", 0)) {
    case P2MG_ERROR_NO_SUCH_DOMAIN:
        explain_domain(ctl_string(data, "domain"), hint, hint_size);
        break;
    case P2MG_ERROR_NO_SUCH_SESSION:
        snprintf(text, EXPLAIN_TEXT, "session '%.64s' is not known: %.256s", ctl_string(data, "session"),
                 ctl_string(data, "what"));
        explain_session(ctl_string(data, "session"), hint, hint_size);
        break;
    case P2MG_ERROR_NOT_PERMITTED:
        if (explain_ctl)
            explain_who_may(explain_ctl->socket, hint, hint_size);
        break;
    default:
        break;
    }
}

int ctl_explain(int failure, json_t *error)
{
    char text[EXPLAIN_TEXT], hint[256];
    int64_t code = ctl_integer(error, "code", 0);

    if (failure == -EPIPE) {
        explain_tell("", "the daemon closed the connection", "systemctl status p2mguardd says what became of it", NULL);
        return CTL_NO_DAEMON;
    }
    if (!error)
        return ctl_fail("talking to the daemon failed: %s", strerror(-failure));
    explain_error(error, text, hint, sizeof(hint));
    explain_tell("", text, hint, error);
    json_decref(error);
    return code == P2MG_ERROR_NOT_HELD || code == P2MG_ERROR_NOT_GUARDABLE ? CTL_NOT_HELD : CTL_FAILED;
}
