/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * "Did you mean …?": of many words the one that is most like what was written.
 *
 * Counted are letters that are missing, too many, others, or exchanged with their neighbours. Pure functions.
 */
#ifndef P2MGUARD_CLIENT_NEAREST_H
#define P2MGUARD_CLIENT_NEAREST_H

#include <stddef.h>

/* Longer words are like nothing. */
#define NEAREST_MAX 64

/* How far apart two words are, at most `limit`: else limit + 1. */
size_t nearest_distance(const char *a, const char *b, size_t limit);

struct nearest {
    const char *wanted;
    char found[NEAREST_MAX + 1]; /* empty as long as nothing is near enough */
    size_t distance;
};

void nearest_init(struct nearest *nearest, const char *wanted);
void nearest_offer(struct nearest *nearest, const char *candidate);

#endif
