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

/* systemd names the device and inode of the stream it gave us, so that a redirected stderr is told apart. */
void log_open(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    log_to_journal = stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
                     fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

static void log_send_journal(int level, const struct log_subject *subject, const char *text)
{
    char fields[5][256];
    struct iovec vector[5];
    int count = 0;

    snprintf(fields[count++], sizeof(fields[0]), "PRIORITY=%d", level);
    snprintf(fields[count++], sizeof(fields[0]), "SYSLOG_IDENTIFIER=p2mguardd");
    if (subject && subject->domid)
        snprintf(fields[count++], sizeof(fields[0]), "DOMID=%d", subject->domid);
    if (subject && subject->session)
        snprintf(fields[count++], sizeof(fields[0]), "SESSION=%s", subject->session);
    if (subject && subject->reason)
        snprintf(fields[count++], sizeof(fields[0]), "REASON=%s", subject->reason);

    char message[1100];
    struct iovec all[6];
    snprintf(message, sizeof(message), "MESSAGE=%s", text);
    for (int i = 0; i < count; i++) {
        vector[i] = (struct iovec){fields[i], strlen(fields[i])};
        all[i] = vector[i];
    }
    all[count] = (struct iovec){message, strlen(message)};
    sd_journal_sendv(all, count + 1);
}

void log_about(int level, const struct log_subject *subject, const char *format, ...)
{
    char text[1024];
    va_list arguments;

    if (!log_is_shown(level))
        return;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);

    if (log_to_journal) {
        log_send_journal(level, subject, text);
        return;
    }
    /* One write a line, so that lines of two threads do not mix. */
    char line[1200];
    int length;
    if (subject && subject->session)
        length = snprintf(line, sizeof(line), "p2mguardd: %s: %s: %s\n", log_level_name(level), subject->session, text);
    else if (subject && subject->domid)
        length =
            snprintf(line, sizeof(line), "p2mguardd: %s: domain %d: %s\n", log_level_name(level), subject->domid, text);
    else
        length = snprintf(line, sizeof(line), "p2mguardd: %s: %s\n", log_level_name(level), text);
    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return; /* nobody is left to be told */
}
