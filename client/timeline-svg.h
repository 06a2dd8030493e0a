/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session's history (guard.history) as a picture: SVG 1.1 that needs nothing else, with a background of its own.
 *
 * Pure: what is missing or of another type is left out, and whatever a guest calls itself stays text.
 */
#ifndef P2MGUARD_CLIENT_TIMELINE_SVG_H
#define P2MGUARD_CLIENT_TIMELINE_SVG_H

#include <jansson.h>

/* The caller frees the text; NULL when memory ran out. */
char *timeline_svg(const json_t *history);

#endif
