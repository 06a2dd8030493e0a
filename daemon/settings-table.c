/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/settings-table.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"

#define DAEMON(field) .name = #field, .offset = offsetof(struct settings, field)
#define POLICY(field)                                                                                                  \
    .of_policy = true, .name = #field,                                                                                 \
    .offset = offsetof(struct settings_guarding, policy) + offsetof(struct p2mg_policy, field)
#define RANGE(standard_, least_, most_)                                                                                \
    .kind = SETTINGS_NUMBER, .standard = (standard_), .least = (least_), .most = (most_)

const struct settings_key settings_keys[SETTINGS_KEYS] = {
    {DAEMON(socket), .kind = SETTINGS_PATH, .restart = true, .help = "Where to listen."},
    {DAEMON(socket_mode), .kind = SETTINGS_MODE, .restart = true,
     .help = "Permissions of the socket, in octal; who may connect may read."},
    {DAEMON(socket_group), .kind = SETTINGS_GROUP,
     .help = "The group whose members may change things, as root may; empty: root alone."},
    {DAEMON(log_level), .kind = SETTINGS_LOG_LEVEL, .help = "error, warning, notice, info or debug."},
    {DAEMON(poll_interval_ms), RANGE(50, 5, 10000), .help = "How often the guests' sizes are looked at."},
    {DAEMON(generation_interval_ms), RANGE(10, 1, 10000),
     .help = "How often a held PV guest's own count of p2m changes is read."},
    {DAEMON(max_gap_ms), RANGE(1000, 50, 60000),
     .help = "How long nobody may have looked at a guest without that counting against it."},
    {DAEMON(max_sessions), RANGE(4096, 1, 32767), .help = "How many guests may be under guard at once."},
    {DAEMON(max_connections), RANGE(1024, 1, 65535), .restart = true, .help = "How many clients may be connected."},
    {DAEMON(xenstore_callers), .kind = SETTINGS_YES_NO, .restart = true,
     .help = "Whether /tool/p2mguard/migrate in xenstore is served."},
    {DAEMON(watch_helpers), .kind = SETTINGS_HELPERS,
     .help = "How migrations that nobody announces are noticed: auto, exec, poll or no."},
    {.of_policy = true,
     .name = "guard",
     .kind = SETTINGS_YES_NO,
     .offset = offsetof(struct settings_guarding, guard),
     .help = "no: guests are not taken under guard; whoever asks is refused."},
    {POLICY(require), .kind = SETTINGS_REQUIRE,
     .help = "How much must be true before a guest counts as held: gate, settled or agent."},
    {POLICY(freeze_timeout_ms), .help = "How long it may take until a guest is held."},
    {POLICY(quiet_ms), .help = "How long its own size must have been the only target that a guest could see."},
    {POLICY(settle_ms), .help = "How long a guest's page count must have stood still."},
    {POLICY(rest_ms), .help = "How long a guest must have been at its target to be at rest already; 0: none is."},
    {POLICY(max_hold_ms), .help = "When a guest is let go in any case."},
    {POLICY(attempts), .help = "How many attempts at a migration may be made."},
    {POLICY(retry_grace_ms), .help = "How long a guest stays held after a retry verdict that nobody follows up."},
    {POLICY(retry_backoff_ms), .help = "How long a guest is left alone, its gate shut, before the second attempt."},
    {POLICY(agent_wait_ms), .help = "How long \"settled\" waits for the answer of an agent; 0: it is not asked."},
    {POLICY(agent_lease_ms), .help = "How long an agent keeps its guest frozen when it hears nothing more."},
};

size_t settings_key_find(bool of_policy, const char *name)
{
    size_t i = 0;

    while (i < SETTINGS_KEYS && (settings_keys[i].of_policy != of_policy || strcmp(settings_keys[i].name, name) != 0))
        i++;
    return i;
}

struct settings_range settings_key_range(const struct settings_key *key)
{
    const struct p2mg_policy_member *member = key->of_policy ? p2mg_policy_find(key->name) : NULL;

    if (member)
        return (struct settings_range){member->standard, member->least, member->most};
    return (struct settings_range){key->standard, key->least, key->most};
}

void *settings_key_base(struct settings *settings, const struct settings_key *key)
{
    return key->of_policy ? (void *)&settings->guarding : (void *)settings;
}

/* ---- each kind of value ---- */

__attribute__((format(printf, 3, 4))) static int settings_refuse(char *what, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, size, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static int parse_number(const struct settings_key *key, int64_t *value, const char *text, char *what, size_t size)
{
    struct settings_range range = settings_key_range(key);
    char *end;

    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < range.least || number > range.most)
        return settings_refuse(what, size, "%s is '%s', expected a number from %" PRId64 " to %" PRId64, key->name,
                               text, range.least, range.most);
    *value = number;
    return 0;
}

static int parse_yes_no(const struct settings_key *key, bool *value, const char *text, char *what, size_t size)
{
    if (strcmp(text, "yes") != 0 && strcmp(text, "no") != 0)
        return settings_refuse(what, size, "%s is '%s', expected yes or no", key->name, text);
    *value = *text == 'y';
    return 0;
}

static int parse_path(const struct settings_key *key, char *value, const char *text, char *what, size_t size)
{
    if (*text != '/' || strlen(text) >= sizeof(((struct settings *)NULL)->socket))
        return settings_refuse(what, size, "%s is '%s', expected an absolute path of at most 107 bytes", key->name,
                               text);
    strcpy(value, text);
    return 0;
}

static int parse_group(const struct settings_key *key, gid_t *value, const char *text, char *what, size_t size)
{
    const struct group *group = *text ? getgrnam(text) : NULL;

    if (*text && !group)
        return settings_refuse(what, size, "%s is '%s', expected the name of a group of this machine", key->name, text);
    *value = group ? group->gr_gid : (gid_t)-1;
    return 0;
}

static int parse_mode(const struct settings_key *key, mode_t *value, const char *text, char *what, size_t size)
{
    char *end;
    unsigned long mode = strtoul(text, &end, 8);

    if (end == text || *end || mode > 0777)
        return settings_refuse(what, size, "%s is '%s', expected octal digits such as 0660", key->name, text);
    *value = (mode_t)mode;
    return 0;
}

int settings_key_parse(const struct settings_key *key, void *base, const char *text, char *what, size_t size)
{
    void *value = (char *)base + key->offset;

    switch (key->kind) {
    case SETTINGS_NUMBER:
        return parse_number(key, value, text, what, size);
    case SETTINGS_YES_NO:
        return parse_yes_no(key, value, text, what, size);
    case SETTINGS_PATH:
        return parse_path(key, value, text, what, size);
    case SETTINGS_GROUP:
        return parse_group(key, value, text, what, size);
    case SETTINGS_MODE:
        return parse_mode(key, value, text, what, size);
    case SETTINGS_LOG_LEVEL:
        if (log_level_parse(text, value) == 0)
            return 0;
        return settings_refuse(what, size, "%s is '%s', expected " LOG_LEVEL_NAMES, key->name, text);
    case SETTINGS_HELPERS:
        if (helpers_watch_parse(text, value) == 0)
            return 0;
        return settings_refuse(what, size, "%s is '%s', expected " HELPERS_WATCH_NAMES, key->name, text);
    case SETTINGS_REQUIRE:
        if (p2mg_require_parse(text, value) == 0)
            return 0;
        return settings_refuse(what, size, "%s is '%s', expected gate, settled or agent", key->name, text);
    }
    return -EINVAL;
}

static void print_group(gid_t value, char text[SETTINGS_TEXT_MAX])
{
    const struct group *group = value != (gid_t)-1 ? getgrgid(value) : NULL;

    if (value == (gid_t)-1)
        *text = '\0';
    else if (group)
        snprintf(text, SETTINGS_TEXT_MAX, "%s", group->gr_name);
    else
        snprintf(text, SETTINGS_TEXT_MAX, "%u", (unsigned)value);
}

void settings_key_print(const struct settings_key *key, const void *base, char text[SETTINGS_TEXT_MAX])
{
    const void *value = (const char *)base + key->offset;

    switch (key->kind) {
    case SETTINGS_NUMBER:
        snprintf(text, SETTINGS_TEXT_MAX, "%" PRId64, *(const int64_t *)value);
        break;
    case SETTINGS_YES_NO:
        strcpy(text, *(const bool *)value ? "yes" : "no");
        break;
    case SETTINGS_PATH:
        snprintf(text, SETTINGS_TEXT_MAX, "%s", (const char *)value);
        break;
    case SETTINGS_GROUP:
        print_group(*(const gid_t *)value, text);
        break;
    case SETTINGS_MODE:
        snprintf(text, SETTINGS_TEXT_MAX, "%04o", (unsigned)*(const mode_t *)value);
        break;
    case SETTINGS_LOG_LEVEL:
        strcpy(text, log_level_name(*(const int *)value));
        break;
    case SETTINGS_HELPERS:
        strcpy(text, helpers_watch_name(*(const enum helpers_watch *)value));
        break;
    case SETTINGS_REQUIRE:
        strcpy(text, p2mg_require_name(*(const enum p2mg_require *)value));
        break;
    }
}

void settings_key_copy(const struct settings_key *key, void *to, const void *from)
{
    static const size_t sizes[] = {[SETTINGS_NUMBER] = sizeof(int64_t),
                                   [SETTINGS_YES_NO] = sizeof(bool),
                                   [SETTINGS_PATH] = sizeof(((struct settings *)NULL)->socket),
                                   [SETTINGS_GROUP] = sizeof(gid_t),
                                   [SETTINGS_MODE] = sizeof(mode_t),
                                   [SETTINGS_LOG_LEVEL] = sizeof(int),
                                   [SETTINGS_HELPERS] = sizeof(enum helpers_watch),
                                   [SETTINGS_REQUIRE] = sizeof(enum p2mg_require)};

    memcpy((char *)to + key->offset, (const char *)from + key->offset, sizes[key->kind]);
}

void settings_key_set_default(const struct settings_key *key, void *base)
{
    static const struct settings standard = {.socket = P2MG_CONTROL_SOCKET,
                                             .socket_group = (gid_t)-1,
                                             .socket_mode = 0660,
                                             .log_level = LOG_INFO,
                                             .xenstore_callers = true,
                                             .watch_helpers = HELPERS_AUTO,
                                             .guarding = {.guard = true, .policy = {.require = P2MG_REQUIRE_SETTLED}}};
    struct settings_range range = settings_key_range(key);

    if (key->kind == SETTINGS_NUMBER)
        memcpy((char *)base + key->offset, &range.standard, sizeof(int64_t));
    else
        settings_key_copy(key, base, key->of_policy ? (const void *)&standard.guarding : (const void *)&standard);
}
