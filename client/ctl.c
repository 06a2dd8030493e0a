/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "protocol/names.h"
#include "protocol/policy.h"

void ctl_say(const char *format, ...)
{
    va_list arguments;

    fflush(stdout);
    fputs("p2mguardctl: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

int ctl_usage_error(const char *command, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "p2mguardctl%s%s: ", *command ? " " : "", command);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs("; see p2mguardctl --help\n", stderr);
    return CTL_USAGE;
}

int ctl_connect(struct ctl *ctl)
{
    int error = connection_open(&ctl->connection, ctl->socket);

    if (!error)
        return CTL_OK;
    if (error == -EACCES || error == -EPERM) {
        ctl_say("%s: %s; the socket is for root and the group the daemon is configured with", ctl->socket,
                strerror(-error));
        return CTL_FAILED;
    }
    ctl_say("nobody answers on %s (%s); is p2mguardd running? systemctl status p2mguardd", ctl->socket,
            strerror(-error));
    return CTL_NO_DAEMON;
}

int ctl_explain(int failure, json_t *error)
{
    int64_t code = ctl_integer(error, "code", 0);
    char text[512];

    if (failure == -EPIPE) {
        ctl_say("the daemon closed the connection");
        return CTL_NO_DAEMON;
    }
    if (!error) {
        ctl_say("talking to the daemon failed: %s", strerror(-failure));
        return CTL_FAILED;
    }
    connection_error_text(error, text, sizeof(text));
    ctl_say("%s", text);
    json_decref(error);
    return code == P2MG_ERROR_NOT_HELD || code == P2MG_ERROR_NOT_GUARDABLE ? CTL_NOT_HELD : CTL_FAILED;
}

int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result)
{
    json_t *error;
    int failure = connection_call(ctl->connection, method, params, result, &error);

    return failure ? ctl_explain(failure, error) : CTL_OK;
}

const char *ctl_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

int64_t ctl_integer(const json_t *object, const char *key, int64_t otherwise)
{
    const json_t *value = json_object_get(object, key);

    return json_is_integer(value) ? json_integer_value(value) : otherwise;
}

static bool ctl_session_fits(const json_t *session, const char *text)
{
    char domid[24];

    snprintf(domid, sizeof(domid), "%" PRId64, ctl_integer(session, "domid", -1));
    return strcmp(ctl_string(session, "session"), text) == 0 || strcmp(ctl_string(session, "name"), text) == 0 ||
           strcmp(ctl_string(session, "uuid"), text) == 0 || strcmp(domid, text) == 0;
}

char *ctl_session_id(struct ctl *ctl, const char *text, int *status)
{
    json_t *list = NULL, *session;
    char *id = NULL;
    size_t i;

    *status = ctl_call(ctl, "guard.list", NULL, &list);
    if (*status)
        return NULL;
    json_array_foreach(json_object_get(list, "sessions"), i, session) if (!id && ctl_session_fits(session, text)) id =
        strdup(ctl_string(session, "session"));
    json_decref(list);
    /* Sessions that are gone are not listed, but still known for a while. */
    if (!id)
        id = strdup(text);
    if (!id) {
        ctl_say("out of memory");
        *status = CTL_FAILED;
    }
    return id;
}

bool ctl_policy_set(json_t *policy, const char *command, const char *assignment)
{
    const char *value = strchr(assignment, '=');
    char name[64], *end;

    if (!value || (size_t)(value - assignment) >= sizeof(name)) {
        ctl_usage_error(command, "--policy is '%s', expected KEY=VALUE", assignment);
        return false;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(value - assignment), assignment);
    value++;
    if (strcmp(name, "require") == 0)
        return json_object_set_new(policy, name, json_string(value)) == 0;
    const struct p2mg_policy_member *member = p2mg_policy_find(name);
    if (!member) {
        ctl_usage_error(command, "--policy names '%s', which is no member of a policy", name);
        return false;
    }
    errno = 0;
    long long number = strtoll(value, &end, 10);
    if (errno || end == value || *end || number < member->least || number > member->most) {
        ctl_usage_error(command, "%s is '%s', expected a number from %" PRId64 " to %" PRId64, name, value,
                        member->least, member->most);
        return false;
    }
    return json_object_set_new(policy, name, json_integer(number)) == 0;
}

void ctl_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
    putchar('\n');
    fflush(stdout);
}

const char *ctl_size(char text[CTL_TEXT], const json_t *kib)
{
    if (!json_is_integer(kib))
        strcpy(text, "-");
    else if (json_integer_value(kib) < 10240)
        snprintf(text, CTL_TEXT, "%" JSON_INTEGER_FORMAT " KiB", json_integer_value(kib));
    else
        snprintf(text, CTL_TEXT, "%.1f MiB", (double)json_integer_value(kib) / 1024);
    return text;
}

const char *ctl_duration(char text[CTL_TEXT], int64_t ms)
{
    if (ms < 0)
        strcpy(text, "-");
    else if (ms < 10000)
        snprintf(text, CTL_TEXT, "%.2f s", (double)ms / 1000);
    else if (ms < 600000)
        snprintf(text, CTL_TEXT, "%.0f s", (double)ms / 1000);
    else
        snprintf(text, CTL_TEXT, "%" PRId64 " min", ms / 60000);
    return text;
}

/* "12:03:04.567  u  target.deferred  target_kib=307200 pin_kib=262144" */
void ctl_print_event(const json_t *event)
{
    int64_t time_ms = ctl_integer(event, "time_ms", 0);
    time_t seconds = (time_t)(time_ms / 1000);
    const char *key, *name = ctl_string(event, "name");
    struct tm local;
    char clock[16];
    json_t *value;

    localtime_r(&seconds, &local);
    strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    printf("%s.%03d  %-12s %-18s", clock, (int)(time_ms % 1000), *name ? name : "-", ctl_string(event, "type"));
    json_object_foreach((json_t *)(uintptr_t)event, key, value)
    {
        if (strcmp(key, "seq") == 0 || strcmp(key, "time_ms") == 0 || strcmp(key, "type") == 0 ||
            strcmp(key, "name") == 0 || strcmp(key, "domid") == 0)
            continue;
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        printf(" %s=%s", key, text ? text : json_is_string(value) ? json_string_value(value) : "?");
        free(text);
    }
    putchar('\n');
    fflush(stdout);
}
