/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writing for people: tables that fit the terminal, colours, and text that others wrote made harmless.
 *
 * A table is collected row by row and then written at once. On a terminal it fits its width: columns that can be done
 * without are left out, and long texts are cut, with a mark. Elsewhere nothing is left out or cut.
 */
#ifndef P2MGUARD_CLIENT_TABLE_H
#define P2MGUARD_CLIENT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum table_colors { TABLE_COLORS_AUTO, TABLE_COLORS_ALWAYS, TABLE_COLORS_NEVER };

/* Before anything is written. AUTO: on a terminal that can, unless NO_COLOR is set. */
void table_set_colors(enum table_colors colors);

/*
 * A copy in which nothing controls a terminal: each byte of a control character, of one that changes the direction of
 * writing, or of none in the locale, is written as \xNN. NULL: out of memory.
 */
char *table_safe(const char *text);

/* Writes a text made harmless, in the colour of a state, verdict or outcome where it is one. */
void table_put(FILE *to, const char *text);

struct table_column {
    const char *heading; /* NULL in the first: no headings */
    bool right;          /* numbers */
    bool painted;        /* holds states, verdicts or outcomes */
    bool wrapped;        /* what is too long goes on in the next line; for the last column */
    size_t least;        /* may be cut to this width; 0 = never cut */
    int spare;           /* 0 = always kept; else left out where there is no room, the highest first */
};

struct table;

/* `columns` must outlive the table. NULL: out of memory; the others take that. */
struct table *table_new(const struct table_column *columns, size_t count);

/* One row; `cells` has as many as there are columns. Copies them. */
void table_add(struct table *table, const char *const *cells);

/* Writes to standard output and frees. 0, or -ENOMEM. */
int table_write(struct table *table);

#endif
