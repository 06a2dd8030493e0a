/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/repeat.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Whoever polls says little. */
#define REPEAT_MAX_BYTES 512

/* Any number of so many digits fits an integer of JSON's. */
#define REPEAT_DIGITS_MAX 18

static const char repeat_key[] = "\"id\"";

static bool repeat_is_digit(char byte)
{
    return byte >= '0' && byte <= '9';
}

static size_t repeat_skip_space(const char *line, size_t at, size_t length)
{
    while (at < length && (line[at] == ' ' || line[at] == '\t'))
        at++;
    return at;
}

/*
 * Where the id's digits are. With a second "id" anywhere, a member of something else or a text, they are not looked
 * for: the one that the parser found may be the other. Nor with escapes, in which a name may be written as well.
 */
static void repeat_find_id(struct repeat *repeat)
{
    const char *line = repeat->line;
    const char *key = memmem(line, repeat->length, repeat_key, sizeof(repeat_key) - 1);

    if (!key || !json_is_integer(json_object_get(repeat->message, "id")) || memchr(line, '\\', repeat->length))
        return;
    size_t at = (size_t)(key - line) + sizeof(repeat_key) - 1;
    if (memmem(line + at, repeat->length - at, repeat_key, sizeof(repeat_key) - 1))
        return;
    at = repeat_skip_space(line, at, repeat->length);
    if (at == repeat->length || line[at] != ':')
        return;
    size_t from = repeat_skip_space(line, at + 1, repeat->length), to = from;
    while (to < repeat->length && repeat_is_digit(line[to]))
        to++;
    repeat->id_from = from;
    repeat->id_to = to > from ? to : 0;
    if (!repeat->id_to)
        repeat->id_from = 0;
}

/* The number that stands where the known line has its id; -1 when that is none that JSON knows, or another line. */
static int64_t repeat_read_id(const struct repeat *repeat, const char *line, size_t length)
{
    size_t after = repeat->length - repeat->id_to;
    size_t digits = length - repeat->id_from - after;
    int64_t id = 0;

    if (length < repeat->id_from + after + 1 || digits > REPEAT_DIGITS_MAX ||
        (digits > 1 && line[repeat->id_from] == '0'))
        return -1;
    if (memcmp(line, repeat->line, repeat->id_from) != 0 ||
        memcmp(line + length - after, repeat->line + repeat->id_to, after) != 0)
        return -1;
    for (size_t i = 0; i < digits; i++) {
        char digit = line[repeat->id_from + i];
        if (!repeat_is_digit(digit))
            return -1;
        id = id * 10 + (digit - '0');
    }
    return id;
}

json_t *repeat_find(struct repeat *repeat, const char *line, size_t length)
{
    if (!repeat->line)
        return NULL;
    if (repeat->id_to) {
        int64_t id = repeat_read_id(repeat, line, length);
        if (id < 0 || json_integer_set(json_object_get(repeat->message, "id"), id) < 0)
            return NULL;
    } else if (length != repeat->length || memcmp(line, repeat->line, length) != 0) {
        return NULL;
    }
    return json_incref(repeat->message);
}

void repeat_keep(struct repeat *repeat, const char *line, size_t length, json_t *message)
{
    bool again = repeat->was_asked;

    repeat_clear(repeat);
    repeat->was_asked = true;
    if (!again || length > REPEAT_MAX_BYTES || !json_is_object(message) || !(repeat->line = malloc(length)))
        return;
    memcpy(repeat->line, line, length);
    repeat->length = length;
    repeat->message = json_incref(message);
    repeat_find_id(repeat);
}

void repeat_clear(struct repeat *repeat)
{
    free(repeat->line);
    json_decref(repeat->message);
    memset(repeat, 0, sizeof(*repeat));
}
