/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The settings that are in force, and those that are to be.
 *
 * Owns both: `started` is what the daemon was started with and keeps until it ends, `latest` what was read last. A key
 * that a reload does not change is in force as started, every other one as read last. Both stay where they are for as
 * long as the configuration does. Loop thread only.
 */
#ifndef P2MGUARD_CONFIGURATION_H
#define P2MGUARD_CONFIGURATION_H

#include <jansson.h>

#include "daemon/settings-table.h"
#include "daemon/settings.h"

/* What the command line says. */
struct configuration_options {
    const char *config; /* NULL: the standard file, which need not exist */
    const char *socket; /* NULL: as configured */
    int log_level;      /* -1: as configured */
};

struct configuration {
    struct configuration_options options;
    struct settings started, latest;
};

/* As settings_load, for the start. */
int configuration_load(struct configuration *configuration, const struct configuration_options *options,
                       struct settings_problem *problem);

/*
 * Reads the files again; as settings_load. `changes` gets the keys that are others than before, as protocol/CONTROL.md
 * has them, those included that take a restart.
 */
int configuration_reload(struct configuration *configuration, json_t **changes, struct settings_problem *problem);

void configuration_clear(struct configuration *configuration);

/* The settings in which this key is in force. */
struct settings *configuration_of(struct configuration *configuration, const struct settings_key *key);

/* A value as JSON: a number, a text, or null for an empty one. */
json_t *configuration_value(const struct settings_key *key, const void *base);

#endif
