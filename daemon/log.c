/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

static bool log_to_journal;
static const char *log_program = "p2mguardd";

void log_set_program(const char *name)
{
    log_program = name;
}

/* systemd names the device and inode of the stream it gave us, so that a redirected stderr is told apart. */
void log_open(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    log_to_journal = stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
                     fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

#define LOG_FIELDS_MAX 16

static void log_send_journal(int level, const struct log_subject *subject, const char *const *more, const char *text)
{
    char fields[5][256], message[1100];
    struct iovec vector[LOG_FIELDS_MAX];
    int count = 0;

    snprintf(fields[count++], sizeof(fields[0]), "PRIORITY=%d", level);
    snprintf(fields[count++], sizeof(fields[0]), "SYSLOG_IDENTIFIER=%s", log_program);
    if (subject && subject->domid)
        snprintf(fields[count++], sizeof(fields[0]), "DOMID=%d", subject->domid);
    if (subject && subject->session)
        snprintf(fields[count++], sizeof(fields[0]), "SESSION=%s", subject->session);
    if (subject && subject->reason)
        snprintf(fields[count++], sizeof(fields[0]), "REASON=%s", subject->reason);
    for (int i = 0; i < count; i++)
        vector[i] = (struct iovec){fields[i], strlen(fields[i])};
    for (; more && *more && count < LOG_FIELDS_MAX - 1; more++)
        vector[count++] = (struct iovec){(char *)(uintptr_t)*more, strlen(*more)};
    snprintf(message, sizeof(message), "MESSAGE=%s", text);
    vector[count++] = (struct iovec){message, strlen(message)};
    sd_journal_sendv(vector, count);
}

/* One write a line, so that lines of two threads do not mix. */
static void log_write_line(int level, const struct log_subject *subject, const char *text)
{
    char line[1200];
    int length;

    if (subject && subject->session)
        length = snprintf(line, sizeof(line), "%s: %s: %s: %s\n", log_program, log_level_name(level), subject->session,
                          text);
    else if (subject && subject->domid)
        length = snprintf(line, sizeof(line), "%s: %s: domain %d: %s\n", log_program, log_level_name(level),
                          subject->domid, text);
    else
        length = snprintf(line, sizeof(line), "%s: %s: %s\n", log_program, log_level_name(level), text);
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nobody is left to be told */
}

/* `named` is whom the line names, where there is no journal with fields for that; NULL: the text says it. */
__attribute__((format(printf, 5, 0))) static void log_tell(int level, const struct log_subject *subject,
                                                           const struct log_subject *named, const char *const *fields,
                                                           const char *format, va_list arguments)
{
    char text[1024];

    vsnprintf(text, sizeof(text), format, arguments);
    if (log_to_journal)
        log_send_journal(level, subject, fields, text);
    else
        log_write_line(level, named, text);
}

void log_always(int level, const struct log_subject *subject, const char *const *fields, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    log_tell(level, subject, NULL, fields, format, arguments);
    va_end(arguments);
}

void log_about(int level, const struct log_subject *subject, const char *format, ...)
{
    va_list arguments;

    if (!log_is_shown(level))
        return;
    va_start(arguments, format);
    log_tell(level, subject, subject, NULL, format, arguments);
    va_end(arguments);
}
