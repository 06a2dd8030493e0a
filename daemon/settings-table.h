/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All keys of the configuration in one table: where the value is, what it may be, and what a reload makes of it.
 *
 * Files, the control socket, the manual page and the sample file go by it; tests see that the last two do.
 */
#ifndef P2MGUARD_SETTINGS_TABLE_H
#define P2MGUARD_SETTINGS_TABLE_H

#include "daemon/settings.h"

enum settings_kind {
    SETTINGS_NUMBER,
    SETTINGS_YES_NO,
    SETTINGS_PATH,
    SETTINGS_GROUP,
    SETTINGS_MODE,
    SETTINGS_LOG_LEVEL,
    SETTINGS_HELPERS,
    SETTINGS_REQUIRE
};

struct settings_key {
    bool of_policy; /* in [policy] and [domain ...], else in [daemon] */
    const char *name;
    enum settings_kind kind;
    size_t offset;                 /* in struct settings, or struct settings_guarding */
    int64_t standard, least, most; /* SETTINGS_NUMBER of [daemon]; those of a policy are p2mg_policy_members' */
    bool restart;                  /* a reload does not change it */
    const char *help;
};

extern const struct settings_key settings_keys[SETTINGS_KEYS];

/* A value as it would be written, with the terminator. */
#define SETTINGS_TEXT_MAX 128

/* SETTINGS_KEYS when there is none. */
size_t settings_key_find(bool of_policy, const char *name);

struct settings_range {
    int64_t standard, least, most;
};
struct settings_range settings_key_range(const struct settings_key *key);

/* `base` is what the offset is in. */
void *settings_key_base(struct settings *settings, const struct settings_key *key);
void settings_key_set_default(const struct settings_key *key, void *base);
void settings_key_print(const struct settings_key *key, const void *base, char text[SETTINGS_TEXT_MAX]);
void settings_key_copy(const struct settings_key *key, void *to, const void *from);

/* -EINVAL when the text is no value of it: `what` says so, and what was expected. */
int settings_key_parse(const struct settings_key *key, void *base, const char *text, char *what, size_t size);

#endif
