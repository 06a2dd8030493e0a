/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/settings.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ini.h>

#include "daemon/log.h"

/* The numeric keys of [daemon]. */
static const struct settings_number {
    const char *name;
    size_t offset;
    int64_t standard, least, most;
} settings_numbers[] = {
    {"poll_interval_ms", offsetof(struct settings, poll_interval_ms), 50, 5, 10000},
    {"generation_interval_ms", offsetof(struct settings, generation_interval_ms), 10, 1, 10000},
    {"max_gap_ms", offsetof(struct settings, max_gap_ms), 1000, 50, 60000},
    {"max_sessions", offsetof(struct settings, max_sessions), 4096, 1, 32767},
    {"max_connections", offsetof(struct settings, max_connections), 1024, 1, 65535},
};

#define SETTINGS_NUMBERS (sizeof(settings_numbers) / sizeof(settings_numbers[0]))

struct settings_reader {
    struct settings next;
    char *problem;
    size_t problem_size;
};

void settings_init(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    strcpy(settings->socket, P2MG_CONTROL_SOCKET);
    settings->socket_group = (gid_t)-1;
    settings->socket_mode = 0660;
    settings->log_level = LOG_INFO;
    settings->xenstore_callers = true;
    settings->watch_helpers = HELPERS_AUTO;
    for (size_t i = 0; i < SETTINGS_NUMBERS; i++)
        memcpy((char *)settings + settings_numbers[i].offset, &settings_numbers[i].standard, sizeof(int64_t));
    p2mg_policy_init(&settings->policy);
}

/* 0 is inih's "stop here". */
__attribute__((format(printf, 2, 3))) static int settings_refuse(struct settings_reader *reader, const char *format,
                                                                 ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reader->problem, reader->problem_size, format, arguments);
    va_end(arguments);
    return 0;
}

static int settings_parse_number(struct settings_reader *reader, const char *name, const char *value, int64_t least,
                                 int64_t most, int64_t *number)
{
    char *end;

    errno = 0;
    long long parsed = strtoll(value, &end, 10);
    if (errno || end == value || *end || parsed < least || parsed > most)
        return settings_refuse(reader, "%s is '%s', expected a number from %" PRId64 " to %" PRId64, name, value, least,
                               most);
    *number = parsed;
    return 1;
}

static int settings_take_group(struct settings_reader *reader, const char *value)
{
    const struct group *group = getgrnam(value);

    if (!group)
        return settings_refuse(reader, "socket_group is '%s', expected the name of a group of this machine", value);
    reader->next.socket_group = group->gr_gid;
    return 1;
}

static int settings_take_mode(struct settings_reader *reader, const char *value)
{
    char *end;
    unsigned long mode = strtoul(value, &end, 8);

    if (end == value || *end || mode > 0777)
        return settings_refuse(reader, "socket_mode is '%s', expected octal digits such as 0660", value);
    reader->next.socket_mode = (mode_t)mode;
    return 1;
}

static int settings_take_bool(struct settings_reader *reader, const char *name, const char *value, bool *flag)
{
    if (strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
        return settings_refuse(reader, "%s is '%s', expected yes or no", name, value);
    *flag = *value == 'y';
    return 1;
}

static int settings_take_daemon(struct settings_reader *reader, const char *name, const char *value)
{
    if (strcmp(name, "socket") == 0) {
        if (*value != '/' || strlen(value) >= sizeof(reader->next.socket))
            return settings_refuse(reader, "socket is '%s', expected an absolute path of at most 107 bytes", value);
        strcpy(reader->next.socket, value);
        return 1;
    }
    if (strcmp(name, "socket_group") == 0)
        return settings_take_group(reader, value);
    if (strcmp(name, "socket_mode") == 0)
        return settings_take_mode(reader, value);
    if (strcmp(name, "log_level") == 0) {
        if (log_level_parse(value, &reader->next.log_level))
            return settings_refuse(reader, "log_level is '%s', expected " LOG_LEVEL_NAMES, value);
        return 1;
    }
    if (strcmp(name, "xenstore_callers") == 0)
        return settings_take_bool(reader, name, value, &reader->next.xenstore_callers);
    if (strcmp(name, "watch_helpers") == 0) {
        if (helpers_watch_parse(value, &reader->next.watch_helpers))
            return settings_refuse(reader, "watch_helpers is '%s', expected " HELPERS_WATCH_NAMES, value);
        return 1;
    }
    for (size_t i = 0; i < SETTINGS_NUMBERS; i++) {
        const struct settings_number *number = &settings_numbers[i];
        if (strcmp(name, number->name) == 0)
            return settings_parse_number(reader, name, value, number->least, number->most,
                                         (int64_t *)(void *)((char *)&reader->next + number->offset));
    }
    return settings_refuse(reader, "unknown key '%s' in [daemon]", name);
}

static int settings_take_policy(struct settings_reader *reader, const char *name, const char *value)
{
    const struct p2mg_policy_member *member = p2mg_policy_find(name);
    int64_t number;

    if (strcmp(name, "require") == 0) {
        if (p2mg_require_parse(value, &reader->next.policy.require))
            return settings_refuse(reader, "require is '%s', expected gate, settled or agent", value);
        return 1;
    }
    if (!member)
        return settings_refuse(reader, "unknown key '%s' in [policy]", name);
    if (!settings_parse_number(reader, name, value, member->least, member->most, &number))
        return 0;
    return p2mg_policy_set(&reader->next.policy, member, number) == 0;
}

static int settings_on_line(void *context, const char *section, const char *name, const char *value)
{
    struct settings_reader *reader = context;

    if (*reader->problem)
        return 0; /* inih goes on after an error; the first is the one to tell */
    if (strcmp(section, "daemon") == 0)
        return settings_take_daemon(reader, name, value);
    if (strcmp(section, "policy") == 0)
        return settings_take_policy(reader, name, value);
    return settings_refuse(reader, "unknown section '[%s]', expected [daemon] or [policy]", section);
}

int settings_read(struct settings *settings, const char *path, char *problem, size_t problem_size)
{
    char text[256] = "";
    struct settings_reader reader = {*settings, text, sizeof(text)};

    errno = 0;
    int line = ini_parse(path, settings_on_line, &reader);
    if (line == 0) {
        *settings = reader.next;
        return 0;
    }
    if (line == -1) {
        int error = errno ? -errno : -EIO;
        snprintf(problem, problem_size, "%s: %s", path, strerror(-error));
        return error;
    }
    if (line < 0) {
        snprintf(problem, problem_size, "%s: out of memory", path);
        return -ENOMEM;
    }
    snprintf(problem, problem_size, "%s:%d: %s", path, line, *text ? text : "expected [section] or key = value");
    return -EINVAL;
}
