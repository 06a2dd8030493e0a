/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/nearest.h"
#include "client/synopsis.h"
#include "protocol/policy.h"

int ctl_call(struct ctl *ctl, const char *method, json_t *params, json_t **result)
{
    json_t *error;
    int status = ctl_connect(ctl);

    if (status) {
        json_decref(params);
        return status;
    }
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
    if (!id)
        *status = ctl_fail("out of memory");
    return id;
}

const char *ctl_choices(const char *word)
{
    if (strcmp(word, "LEVEL") == 0)
        return "gate|settled|agent";
    return strchr(word, '|') && word[strspn(word, "abcdefghijklmnopqrstuvwxyz-|")] == '\0' ? word : NULL;
}

bool ctl_check_choice(const char *command, const char *name, const char *choices, const char *text)
{
    const char *at = choices, *choice;
    char word[NEAREST_MAX + 1];
    struct nearest nearest;
    size_t length;

    nearest_init(&nearest, text);
    while ((choice = synopsis_choice(&at, &length)), length > 0) {
        snprintf(word, sizeof(word), "%.*s", (int)length, choice);
        if (strcmp(word, text) == 0)
            return true;
        nearest_offer(&nearest, word);
    }
    ctl_usage_error(command, "%s%sis '%.64s', expected %s%s%s%s", name, *name ? " " : "the word ", text, choices,
                    *nearest.found ? "; did you mean '" : "", nearest.found, *nearest.found ? "'?" : "");
    return false;
}

bool ctl_policy_set(json_t *policy, const char *command, const char *assignment)
{
    const char *value = strchr(assignment, '=');
    struct nearest nearest;
    char name[64], *end;

    if (!value || (size_t)(value - assignment) >= sizeof(name)) {
        ctl_usage_error(command, "--policy is '%s', expected KEY=VALUE", assignment);
        return false;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(value - assignment), assignment);
    value++;
    if (strcmp(name, "require") == 0)
        return ctl_check_choice(command, "require", ctl_choices("LEVEL"), value) &&
               json_object_set_new(policy, name, json_string(value)) == 0;
    const struct p2mg_policy_member *member = p2mg_policy_find(name);
    if (!member) {
        nearest_init(&nearest, name);
        nearest_offer(&nearest, "require");
        for (member = p2mg_policy_members; member->name; member++)
            nearest_offer(&nearest, member->name);
        ctl_usage_error(command, "--policy names '%s', which is no member of a policy%s%s%s", name,
                        *nearest.found ? "; did you mean '" : "", nearest.found, *nearest.found ? "'?" : "");
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
    /* What others wrote is not to control a terminal. */
    json_dumpf(value, stdout, JSON_COMPACT | JSON_ENCODE_ANY | (isatty(STDOUT_FILENO) ? JSON_ENSURE_ASCII : 0));
    putchar('\n');
    fflush(stdout);
}

int ctl_show_result(const struct ctl *ctl, json_t *result)
{
    int status = CTL_OK;

    if (ctl->json)
        ctl_print_json(result);
    else
        status = show_record(result);
    json_decref(result);
    return status;
}

int ctl_on_session(struct ctl *ctl, const char *method, const char *session, const char *key, const char *value)
{
    int status;
    json_t *result;
    char *id = ctl_session_id(ctl, session, &status);

    if (!id)
        return status;
    status = ctl_call(ctl, method, json_pack("{s:s,s:s*}", "session", id, key ? key : "-", value), &result);
    free(id);
    return status ? status : ctl_show_result(ctl, result);
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

int ctl_open_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return signalfd(-1, &signals, SFD_CLOEXEC);
}
