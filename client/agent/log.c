/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon/log.h for the agent: lines on standard error, without a library for the journal, which a guest need not have.
 */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool log_with_priority; /* the journal takes "<N>" off the line again */

void log_open(void)
{
    log_with_priority = getenv("JOURNAL_STREAM") != NULL;
}

void log_about(int level, const struct log_subject *subject, const char *format, ...)
{
    char text[512], line[600];
    va_list arguments;
    int length;
    (void)subject;

    if (!log_is_shown(level))
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
