/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a command's synopsis says: "[--phase precopy|final] SESSION" is an option with a value, and a word.
 *
 * The synopsis in the table of commands is the one place that knows a command's options and words; help, the check of
 * the command line and completion read it here. Pure functions.
 */
#ifndef P2MGUARD_CLIENT_SYNOPSIS_H
#define P2MGUARD_CLIENT_SYNOPSIS_H

#include <stdbool.h>
#include <stddef.h>

#define SYNOPSIS_TEXT 64

struct synopsis_item {
    bool option;
    bool anew;                 /* a "|" stands before it: words are counted from 0 again */
    char name[SYNOPSIS_TEXT];  /* "--phase", or the word: "SESSION", "completed|failed|cancelled" */
    char value[SYNOPSIS_TEXT]; /* of an option: "precopy|final", empty where it takes none */
};

/* The next item; *at goes on. False at the end, and at "--", what is behind that belongs to somebody else. */
bool synopsis_next(const char **at, struct synopsis_item *item);

/* The option that `text` names, in full or as an unambiguous beginning, up to a "=" in it. */
bool synopsis_find_option(const char *synopsis, const char *text, struct synopsis_item *item);

/* The next of what may stand at the n-th word, from 0; begins with *at at the synopsis and *place 0. */
bool synopsis_next_word(const char **at, size_t *place, size_t n, struct synopsis_item *item);

/* Takes the next of the words in "a|b|c"; *length is 0 at the end. */
const char *synopsis_choice(const char **at, size_t *length);

#endif
