/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration file, parsed into one value that is then swapped in whole.
 *
 * INI form (p2mguard.conf(5)): section [daemon], and [policy] for the defaults of sessions that do not say otherwise.
 * An unknown section or key, or a bad value, is an error with file and line; the value is then left as it was.
 */
#ifndef P2MGUARD_SETTINGS_H
#define P2MGUARD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/helpers.h"
#include "protocol/policy.h"

#define SETTINGS_FILE "/etc/p2mguard/p2mguard.conf"

struct settings {
    char socket[108];
    gid_t socket_group; /* may change things; (gid_t)-1 = root alone */
    mode_t socket_mode;
    int log_level;
    int64_t poll_interval_ms;
    int64_t generation_interval_ms;
    int64_t max_gap_ms;
    int64_t max_sessions;
    int64_t max_connections;
    bool xenstore_callers; /* migrate-nodes.h serves them */
    enum helpers_watch watch_helpers;
    struct p2mg_policy policy;
};

void settings_init(struct settings *settings);

/*
 * Reads `path` over `settings`. -ENOENT when there is no such file; -EINVAL when it is not right: what and where is put
 * into `problem`, for people.
 */
int settings_read(struct settings *settings, const char *path, char *problem, size_t problem_size);

#endif
