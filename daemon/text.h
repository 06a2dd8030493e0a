/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text that others wrote, on its way into JSON, which takes UTF-8 and nothing else.
 *
 * Pure functions; any thread.
 */
#ifndef P2MGUARD_TEXT_H
#define P2MGUARD_TEXT_H

#include <stddef.h>

/* Copies what fits of a UTF-8 text, never half a character. */
void text_cut(char *to, size_t room, const char *from);

/* How many bytes the character has that a text begins with; 0 when that is none of UTF-8. */
size_t text_character_bytes(const char *text);

/* Puts a question mark in the place of each byte that belongs to no character of UTF-8. */
void text_make_utf8(char *text);

#endif
