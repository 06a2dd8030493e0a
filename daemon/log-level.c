/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the daemon's log and the agent's have in common; where the lines go is their own affair. */
#include "daemon/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

static atomic_int log_level = LOG_INFO;

static const struct {
    const char *name;
    int level;
} log_levels[] = {
    {"error", LOG_ERR}, {"warning", LOG_WARNING}, {"notice", LOG_NOTICE}, {"info", LOG_INFO}, {"debug", LOG_DEBUG},
};

#define LOG_LEVELS (sizeof(log_levels) / sizeof(log_levels[0]))

void log_set_level(int level)
{
    atomic_store(&log_level, level);
}

bool log_is_shown(int level)
{
    return level <= atomic_load(&log_level);
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

const char *log_level_name(int level)
{
    for (size_t i = 0; i < LOG_LEVELS; i++)
        if (log_levels[i].level == level)
            return log_levels[i].name;
    return "info";
}
