/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon/log.h for the agent: lines on standard error, without a library for the journal, which a guest need not have.
 */
#include "daemon/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int log_level = LOG_INFO;
static bool log_with_priority; /* the journal takes "<N>" off the line again */

static const struct {
    const char *name;
    int level;
} log_levels[] = {
    {"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE}, {"info", LOG_INFO}, {"debug", LOG_DEBUG},
};

#define LOG_LEVELS (sizeof(log_levels) / sizeof(log_levels[0]))

void log_open(void)
{
    log_with_priority = getenv("JOURNAL_STREAM") != NULL;
}

void log_set_level(int level)
{
    atomic_store(&log_level, level);
}

int log_level_parse(const char *text, int *level)
{
    for (size_t i = 0; i < LOG_LEVELS; i++) {
        if (strcmp(log_levels[i].name, text) == 0) {
            *level = log_levels[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

static const char *log_level_name(int level)
{
    for (size_t i = 0; i < LOG_LEVELS; i++)
        if (log_levels[i].level == level)
            return log_levels[i].name;
    return "info";
}

void log_about(int level, const struct log_subject *subject, const char *format, ...)
{
    char text[512], line[600];
    va_list arguments;
    int length;
    (void)subject;

    if (level > atomic_load(&log_level))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    /* One write a line, so that lines of two threads do not mix. */
    if (log_with_priority)
        length = snprintf(line, sizeof(line), "<%d>%s\n", level, text);
    else
        length = snprintf(line, sizeof(line), "p2mguard-agent: %s: %s\n", log_level_name(level), text);
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nobody is left to be told */
}
