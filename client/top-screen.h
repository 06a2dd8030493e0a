/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What "p2mguardctl top" shows, put together for a screen of a given size.
 *
 * Knows of no terminal: pieces of text are handed to a sink, from left to right and from top to bottom. Whatever others
 * wrote is printable by then.
 */
#ifndef P2MGUARD_CLIENT_TOP_SCREEN_H
#define P2MGUARD_CLIENT_TOP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/top-list.h"

enum top_style { TOP_PLAIN, TOP_TITLE, TOP_GOOD, TOP_BUSY, TOP_BAD, TOP_DIM, TOP_STYLES };

struct top_sink {
    void (*put)(void *context, int line, int column, enum top_style style, const char *text);
    void *context;
};

struct top_view {
    const struct top_list *list;
    int64_t now_ms;
    int columns, lines; /* of the screen; lines 0: as many as it takes, and no footer */
    enum top_order order;
    size_t first; /* the row at the top */
    bool paused;
    const char *note; /* something that is to be said, or NULL */
};

/* How many rows fit: 0 when there is no end to them. */
size_t top_screen_rows(const struct top_view *view);

/* Draws all of it; -ENOMEM. */
int top_screen_draw(const struct top_view *view, const struct top_sink *sink);

#endif
