/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A request that comes again: who polls asks the same thing over and over, and only its id is another one. Such a line
 * need not be parsed; what it says is known.
 *
 * Nothing is kept of who asks once. Loop thread only.
 */
#ifndef P2MGUARD_REPEAT_H
#define P2MGUARD_REPEAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* All zeros to begin with. */
struct repeat {
    bool was_asked; /* once, at least */
    char *line;     /* the one that is known, NULL = none */
    size_t length;
    size_t id_from, id_to; /* the digits in it that make up its id, and may be others; both 0: none may */
    json_t *message;
};

/*
 * A line without its newline, as a message: exactly what json_loadb would make of it. A reference of the caller's own,
 * and not to be changed; NULL when it has to be parsed.
 */
json_t *repeat_find(struct repeat *repeat, const char *line, size_t length);

/* The line was parsed, and this came of it. What memory runs out for is not kept. */
void repeat_keep(struct repeat *repeat, const char *line, size_t length, json_t *message);

void repeat_clear(struct repeat *repeat);

#endif
