/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Log lines, to the journal with fields where standard error is connected to it, else to standard error as text.
 *
 * Levels are syslog's (LOG_ERR … LOG_DEBUG). Safe from any thread; log_open and log_set_level are for start-up and the
 * loop thread.
 */
#ifndef P2MGUARD_LOG_H
#define P2MGUARD_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

#include "protocol/names.h"

/* What a line is about; zeroed members are left out. */
struct log_subject {
    int domid; /* 0 = none: dom0 is never under guard */
    const char *session;
    const char *reason;
};

void log_open(void);
/* The name of the program, a constant; "p2mguardd" without it. The daemon's log alone. */
void log_set_program(const char *name);
void log_set_level(int level);
bool log_is_shown(int level);

/* One of LOG_LEVEL_NAMES; -EINVAL otherwise. */
#define LOG_LEVEL_NAMES "error, warning, notice, info or debug"
int log_level_parse(const char *text, int *level);
const char *log_level_name(int level);

void log_about(int level, const struct log_subject *subject, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * A line that no log_level keeps back, with `fields` ("NAME=value", ended by a NULL) for the journal. The daemon's log
 * alone.
 */
void log_always(int level, const struct log_subject *subject, const char *const *fields, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define log_error(...) log_about(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_about(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_about(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_about(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_about(LOG_DEBUG, NULL, __VA_ARGS__)

#endif
