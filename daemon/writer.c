/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/writer.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/text.h"

#define WRITER_ROOM_BYTES 1024

/* As much is kept for the next text. */
#define WRITER_KEPT_BYTES (64 * 1024)

static bool writer_grow(struct writer *writer, size_t length)
{
    size_t room = writer->room ? writer->room : WRITER_ROOM_BYTES;

    if (writer->failed)
        return false;
    while (room - writer->used < length)
        room *= 2;
    char *text = realloc(writer->text, room);
    writer->failed = text == NULL;
    if (writer->failed)
        return false;
    writer->text = text;
    writer->room = room;
    return true;
}

/* Whether there is room for so many bytes more; there is none in one that has failed. */
static inline bool writer_make_room(struct writer *writer, size_t length)
{
    return (length <= writer->room - writer->used && !writer->failed) || writer_grow(writer, length);
}

void writer_clear(struct writer *writer)
{
    free(writer->text);
    memset(writer, 0, sizeof(*writer));
}

void writer_reuse(struct writer *writer)
{
    if (writer->room > WRITER_KEPT_BYTES)
        writer_clear(writer);
    writer->used = 0;
    writer->failed = false;
}

static inline void writer_append(struct writer *writer, const char *bytes, size_t length)
{
    memcpy(writer->text + writer->used, bytes, length);
    writer->used += length;
}

void writer_bytes(struct writer *writer, const char *bytes, size_t length)
{
    if (length && writer_make_room(writer, length))
        writer_append(writer, bytes, length);
}

static inline void writer_byte(struct writer *writer, char byte)
{
    if (writer_make_room(writer, 1))
        writer->text[writer->used++] = byte;
}

/* A comma after a value before, and the key; and there is room for a value of so many bytes. False: there is not. */
static inline bool writer_lead(struct writer *writer, const char *key, size_t key_length, size_t value_length)
{
    if (!writer_make_room(writer, key_length + 4 + value_length))
        return false;
    char last = writer->used ? writer->text[writer->used - 1] : '{';
    if (last != '{' && last != '[' && last != ':')
        writer->text[writer->used++] = ',';
    if (!key)
        return true;
    writer->text[writer->used++] = '"';
    writer_append(writer, key, key_length);
    writer->text[writer->used++] = '"';
    writer->text[writer->used++] = ':';
    return true;
}

/* ---- texts ---- */

static bool writer_is_plain(unsigned char byte)
{
    return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

/* One character that does not stand for itself, or has more than one byte; how many it has. */
static size_t writer_character(struct writer *writer, const char *at)
{
    static const char shorts[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    static const char digits[] = "0123456789ABCDEF";
    unsigned char byte = (unsigned char)*at;
    const char *found = strchr(shorts, *at);
    size_t bytes = byte >= 0x80 ? text_character_bytes(at) : 1;

    if (found) {
        const char escape[] = {'\\', letters[found - shorts]};
        writer_bytes(writer, escape, sizeof(escape));
    } else if (byte < 0x20) {
        const char escape[] = {'\\', 'u', '0', '0', digits[byte >> 4], digits[byte & 15]};
        writer_bytes(writer, escape, sizeof(escape));
    } else if (!bytes) {
        writer_byte(writer, '?');
    } else {
        writer_bytes(writer, at, bytes);
    }
    return bytes ? bytes : 1;
}

void writer_put_text(struct writer *writer, const char *key, size_t key_length, const char *text)
{
    if (!text) {
        writer_put_word(writer, key, key_length, "null", 4);
        return;
    }
    if (!writer_lead(writer, key, key_length, 1))
        return;
    writer->text[writer->used++] = '"';
    while (*text) {
        size_t plain = 0;
        while (writer_is_plain((unsigned char)text[plain]))
            plain++;
        writer_bytes(writer, text, plain);
        text += plain;
        if (*text)
            text += writer_character(writer, text);
    }
    writer_byte(writer, '"');
}

/* ---- everything else ---- */

void writer_put_begin(struct writer *writer, const char *key, size_t key_length, char bracket)
{
    if (writer_lead(writer, key, key_length, 1))
        writer->text[writer->used++] = bracket;
}

void writer_end(struct writer *writer, char bracket)
{
    writer_byte(writer, bracket);
}

size_t writer_print_number(int64_t number, char text[WRITER_NUMBER_MAX])
{
    static const char pairs[] =
        "00010203040506070809101112131415161718192021222324252627282930313233343536373839404142434445464748"
        "49505152535455565758596061626364656667686970717273747576777879808182838485868788899091929394959697"
        "9899";
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    char digits[WRITER_NUMBER_MAX], *first = digits + sizeof(digits);

    for (; left >= 100; left /= 100)
        memcpy(first -= 2, pairs + left % 100 * 2, 2);
    if (left >= 10)
        memcpy(first -= 2, pairs + left * 2, 2);
    else
        *--first = (char)('0' + left);
    if (number < 0)
        *--first = '-';
    size_t length = (size_t)(digits + sizeof(digits) - first);
    memcpy(text, first, length);
    return length;
}

void writer_put_number(struct writer *writer, const char *key, size_t key_length, int64_t number)
{
    if (writer_lead(writer, key, key_length, WRITER_NUMBER_MAX))
        writer->used += writer_print_number(number, writer->text + writer->used);
}

void writer_put_plain(struct writer *writer, const char *key, size_t key_length, const char *text, size_t length)
{
    if (!writer_lead(writer, key, key_length, length + 2))
        return;
    writer->text[writer->used++] = '"';
    writer_append(writer, text, length);
    writer->text[writer->used++] = '"';
}

void writer_put_word(struct writer *writer, const char *key, size_t key_length, const char *word, size_t length)
{
    if (writer_lead(writer, key, key_length, length))
        writer_append(writer, word, length);
}

static int writer_on_dump(const char *bytes, size_t length, void *context)
{
    struct writer *writer = context;

    writer_bytes(writer, bytes, length);
    return writer->failed ? -1 : 0;
}

/* Not json_dumps, which leaves out a member's name, and goes on, when memory runs out right there. */
void writer_value(struct writer *writer, const char *key, json_t *value)
{
    writer_lead(writer, key, writer_key_length(key), 0);
    if (!value || json_dump_callback(value, writer_on_dump, writer, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
        writer->failed = true;
    json_decref(value);
}

void writer_members(struct writer *writer, const json_t *object)
{
    size_t length =
        writer->failed ? 0 : json_dumpb(object, writer->text + writer->used, writer->room - writer->used, JSON_COMPACT);

    if (length > writer->room - writer->used && writer_make_room(writer, length))
        length = json_dumpb(object, writer->text + writer->used, writer->room - writer->used, JSON_COMPACT);
    if (length < strlen("{}") || length > writer->room - writer->used) {
        writer->failed = true;
        return;
    }
    bool first = writer->text[writer->used - 1] == '{';
    if (length == strlen("{}"))
        return;
    if (first)
        memmove(writer->text + writer->used, writer->text + writer->used + 1, length - 1);
    else
        writer->text[writer->used] = ',';
    writer->used += length - 1 - first; /* without the brackets */
}

json_t *writer_take(struct writer *writer)
{
    json_t *value = writer->failed ? NULL : json_loadb(writer->text, writer->used, JSON_DECODE_ANY, NULL);

    writer_clear(writer);
    return value;
}
