/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What others wrote, such as a guest's name, made fit for a terminal: characters that are not printed in one or two
 * columns become question marks, those that move the cursor, take no room or turn the direction of the text among them.
 *
 * Which characters there are is the locale's (LC_CTYPE) to say; in the C locale those of ASCII.
 */
#ifndef P2MGUARD_CLIENT_PRINTABLE_H
#define P2MGUARD_CLIENT_PRINTABLE_H

#include <stddef.h>

/* Writes at most so many columns of `text`, whole characters alone; returns how many it took. */
int printable_cut(char *out, size_t size, const char *text, int columns);

#endif
