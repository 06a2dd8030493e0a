/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON written straight into text, for the answers that callers ask for again and again: no tree is built of it first.
 *
 * Values come one after the other, in an object each with its key, a name in this program that needs no escapes. When
 * memory runs out, nothing more is written, and `failed` says so. Texts are UTF-8; a byte that is none becomes a
 * question mark. Any thread, each with a writer of its own.
 */
#ifndef P2MGUARD_WRITER_H
#define P2MGUARD_WRITER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* All zeros to begin with. */
struct writer {
    char *text; /* `used` bytes, without an end */
    size_t used, room;
    bool failed;
};

/* Frees the text. */
void writer_clear(struct writer *writer);

/* As with all zeros, for the next text; the room of the last one is kept as long as that is not much. */
void writer_reuse(struct writer *writer);

/* As it is, without a comma before it. */
void writer_bytes(struct writer *writer, const char *bytes, size_t length);

/* For those below, which know how long a key is before the program runs. */
void writer_put_begin(struct writer *writer, const char *key, size_t key_length, char bracket);
void writer_put_text(struct writer *writer, const char *key, size_t key_length, const char *text);
void writer_put_number(struct writer *writer, const char *key, size_t key_length, int64_t number);
void writer_put_plain(struct writer *writer, const char *key, size_t key_length, const char *text, size_t length);
void writer_put_word(struct writer *writer, const char *key, size_t key_length, const char *word, size_t length);

static inline size_t writer_key_length(const char *key)
{
    return key ? strlen(key) : 0;
}

/* `key` is NULL in an array, and at the top. `bracket` is '{' or '['; the end takes '}' or ']'. */
static inline void writer_begin(struct writer *writer, const char *key, char bracket)
{
    writer_put_begin(writer, key, writer_key_length(key), bracket);
}

void writer_end(struct writer *writer, char bracket);

/* NULL is null. */
static inline void writer_text(struct writer *writer, const char *key, const char *text)
{
    writer_put_text(writer, key, writer_key_length(key), text);
}

/* One of this program's own, which needs no escapes; NULL is null. */
static inline void writer_plain(struct writer *writer, const char *key, const char *text)
{
    if (text)
        writer_put_plain(writer, key, writer_key_length(key), text, strlen(text));
    else
        writer_put_word(writer, key, writer_key_length(key), "null", 4);
}

static inline void writer_number(struct writer *writer, const char *key, int64_t number)
{
    writer_put_number(writer, key, writer_key_length(key), number);
}

static inline void writer_flag(struct writer *writer, const char *key, bool flag)
{
    writer_put_word(writer, key, writer_key_length(key), flag ? "true" : "false", flag ? 4 : 5);
}

static inline void writer_null(struct writer *writer, const char *key)
{
    writer_put_word(writer, key, writer_key_length(key), "null", 4);
}

/* Steals the value; NULL is one that memory ran out for. */
void writer_value(struct writer *writer, const char *key, json_t *value);

/* The members of an object, into the one that has begun; NULL is one that memory ran out for. */
void writer_members(struct writer *writer, const json_t *object);

/* What was written as a tree, for those who want to add to it; NULL when memory ran out. Frees the text. */
json_t *writer_take(struct writer *writer);

/* The number as text, without an end; how many bytes it has. */
#define WRITER_NUMBER_MAX 20
size_t writer_print_number(int64_t number, char text[WRITER_NUMBER_MAX]);

#endif
