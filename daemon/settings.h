/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The configuration, read into one value that is then swapped in whole.
 *
 * INI form (p2mguard.conf(5)): [daemon], [policy] for guests in general, and [domain NAME-PATTERN] or [domain UUID] for
 * some of them. Of every key it is known where its value came from. What is wrong is an error with file and line, and
 * no settings come of it.
 *
 * Three files: settings-table.c has all keys in one table, settings-read.c reads files, settings.c the rest.
 */
#ifndef P2MGUARD_SETTINGS_H
#define P2MGUARD_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/helpers.h"
#include "protocol/policy.h"

#define SETTINGS_FILE "/etc/p2mguard/p2mguard.conf"
#define SETTINGS_VENDOR_FOLDER "/usr/lib/p2mguard/p2mguard.conf.d"

/* How many there are in the table. */
#define SETTINGS_KEYS 23

/* "domain " and a name, with the terminator. */
#define SETTINGS_SECTION_MAX 136

enum settings_source { SETTINGS_DEFAULT, SETTINGS_FROM_FILE, SETTINGS_FROM_COMMAND_LINE };

/* Where a value came from. */
struct settings_origin {
    enum settings_source source;
    int line;    /* of a file ... */
    size_t file; /* ... which is this one in settings.files */
};

/* How a guest is guarded, if its caller does not say otherwise. */
struct settings_guarding {
    bool guard; /* false: it cannot be */
    struct p2mg_policy policy;
};

/* One section [domain ...] as it stands in one place of a file. */
struct settings_domain {
    char section[SETTINGS_SECTION_MAX];
    bool is_uuid;
    struct settings_origin origin;                 /* of its header */
    struct settings_origin origins[SETTINGS_KEYS]; /* a key that it does not have is SETTINGS_DEFAULT */
    struct settings_guarding guarding;
};

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
    struct settings_guarding guarding;

    struct settings_origin origins[SETTINGS_KEYS];
    struct settings_domain *domains; /* in the order in which they were read */
    size_t domain_count;
    char **files; /* that were read, in that order */
    size_t file_count;
};

/* What is wrong with a configuration, and where. */
struct settings_problem {
    char file[1024];
    int line; /* 0: the file as such */
    char what[256];
};

/* "FILE:LINE: what" */
#define SETTINGS_PROBLEM_MAX 1312
const char *settings_problem_text(const struct settings_problem *problem, char text[SETTINGS_PROBLEM_MAX]);

/* The defaults, to be freed by settings_clear all the same. */
void settings_init(struct settings *settings);
void settings_clear(struct settings *settings);

/* Another one with the same values and origins, but without sections for domains. */
int settings_copy_values(struct settings *to, const struct settings *from);

/*
 * How this guest is guarded: [policy], over that all patterns that its name fits, in the order in which they were read,
 * over that its uuid's sections. `origins`, unless NULL, says where each key of it came from; `sections` which section:
 * NULL for [policy]. Returns the section that was laid over last, or NULL.
 */
const struct settings_domain *settings_guarding_of(const struct settings *settings, const char *name, const char *uuid,
                                                   struct settings_guarding *guarding,
                                                   struct settings_origin origins[SETTINGS_KEYS],
                                                   const struct settings_domain *sections[SETTINGS_KEYS]);

/* The last section of this name that has the key; NULL when there is none. */
const struct settings_domain *settings_find_domain(const struct settings *settings, const char *section, size_t key);

/* NULL where it came from no file. */
const char *settings_origin_file(const struct settings *settings, const struct settings_origin *origin);

/* ---- settings-read.c ---- */

/* The files of a configuration: one, and the drop-ins NAME.conf of folders. */
struct settings_sources {
    const char *file;
    bool required; /* else it need not exist */
    /* Those of the second hide those of the first with the same name. NULL, or a folder that need not exist. */
    const char *folders[2];
};

/*
 * Reads a configuration over the defaults: the file, then the drop-ins of both folders in the order of their names;
 * what is read later wins. 0, -EINVAL with the problem told of, or -ENOMEM; `settings` is not touched then.
 */
int settings_load(struct settings *settings, const struct settings_sources *sources, struct settings_problem *problem);

/* The same of these files alone, in this order. */
int settings_load_files(struct settings *settings, const char *const *files, size_t count,
                        struct settings_problem *problem);

/* The daemon's sources: the standard file, or `config`, and its drop-ins. `folder` is freed by the caller. */
int settings_sources_of(struct settings_sources *sources, const char *config, char **folder);

#endif
