/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A line that is known, and another after a newline: where the second passes for the first with another id, it says
 * what the parser says that it says.
 */
#include "daemon/repeat.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

static json_t *parse(const char *line, size_t length)
{
    return json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *known = (const char *)data;
    const char *end = size > 0 ? memchr(known, '\n', size) : NULL;
    size_t length = end != NULL ? (size_t)(end - known) : size;
    const char *other = end != NULL ? end + 1 : known;
    size_t other_length = end != NULL ? size - length - 1 : size;
    struct repeat repeat = {0};
    json_t *message = parse(known, length);

    for (int i = 0; message != NULL && i < 2; i++)
        repeat_keep(&repeat, known, length, message);
    json_t *found = repeat_find(&repeat, other, other_length);
    if (found != NULL) {
        json_t *parsed = parse(other, other_length);
        if (!json_equal(found, parsed))
            abort();
        json_decref(parsed);
        json_decref(found);
    }
    json_decref(message);
    repeat_clear(&repeat);
    return 0;
}
