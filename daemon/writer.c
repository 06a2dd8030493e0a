/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/writer.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/text.h"

#define WRITER_ROOM_BYTES 1024

/* Whether there is room for so many bytes more. */
static bool writer_make_room(struct writer *writer, size_t length)
{
    size_t room = writer->room ? writer->room : WRITER_ROOM_BYTES;

    if (writer->failed)
        return false;
    if (length <= writer->room - writer->used)
        return true;
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

void writer_clear(struct writer *writer)
{
    free(writer->text);
    memset(writer, 0, sizeof(*writer));
}

void writer_bytes(struct writer *writer, const char *bytes, size_t length)
{
    if (!length || !writer_make_room(writer, length))
        return;
    memcpy(writer->text + writer->used, bytes, length);
    writer->used += length;
}

static void writer_byte(struct writer *writer, char byte)
{
    if (writer_make_room(writer, 1))
        writer->text[writer->used++] = byte;
}

/* A comma after a value before, and the key. */
static void writer_lead(struct writer *writer, const char *key)
{
    size_t length = key ? strlen(key) : 0;

    if (!writer_make_room(writer, length + 4))
        return;
    char last = writer->used ? writer->text[writer->used - 1] : '{';
    if (last != '{' && last != '[' && last != ':')
        writer->text[writer->used++] = ',';
    if (!key)
        return;
    writer->text[writer->used++] = '"';
    memcpy(writer->text + writer->used, key, length);
    writer->used += length;
    writer->text[writer->used++] = '"';
    writer->text[writer->used++] = ':';
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

void writer_text(struct writer *writer, const char *key, const char *text)
{
    if (!text) {
        writer_null(writer, key);
        return;
    }
    writer_lead(writer, key);
    writer_byte(writer, '"');
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

void writer_begin(struct writer *writer, const char *key, char bracket)
{
    writer_lead(writer, key);
    writer_byte(writer, bracket);
}

void writer_end(struct writer *writer, char bracket)
{
    writer_byte(writer, bracket);
}

size_t writer_print_number(int64_t number, char text[WRITER_NUMBER_MAX])
{
    uint64_t left = number < 0 ? -(uint64_t)number : (uint64_t)number;
    size_t first = WRITER_NUMBER_MAX;

    do {
        text[--first] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (number < 0)
        text[--first] = '-';
    memmove(text, text + first, WRITER_NUMBER_MAX - first);
    return WRITER_NUMBER_MAX - first;
}

void writer_number(struct writer *writer, const char *key, int64_t number)
{
    char text[WRITER_NUMBER_MAX];

    writer_lead(writer, key);
    writer_bytes(writer, text, writer_print_number(number, text));
}

void writer_flag(struct writer *writer, const char *key, bool flag)
{
    writer_lead(writer, key);
    writer_bytes(writer, flag ? "true" : "false", flag ? 4 : 5);
}

void writer_null(struct writer *writer, const char *key)
{
    writer_lead(writer, key);
    writer_bytes(writer, "null", 4);
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
    writer_lead(writer, key);
    if (!value || json_dump_callback(value, writer_on_dump, writer, JSON_COMPACT | JSON_ENCODE_ANY) < 0)
        writer->failed = true;
    json_decref(value);
}

json_t *writer_take(struct writer *writer)
{
    json_t *value = writer->failed ? NULL : json_loadb(writer->text, writer->used, JSON_DECODE_ANY, NULL);

    writer_clear(writer);
    return value;
}
