/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Passes on what a save helper may write, as the wrapper does: in pieces, message by message. What goes out is what
 * came in, cut at the same places however it was cut on its way, and a line of the wrapper's own is a whole message.
 *
 * Input: a byte that says how large the pieces are, and the stream.
 */
#include "client/save-helper/stream.h"

#include "tests/fuzz/fuzz.h"

static struct stream from, to; /* as large as they are in the wrapper */

/* The length of the message that the bytes begin with, read in another way; 0 when it is not whole. */
static size_t message_at(const uint8_t *data, size_t size)
{
    size_t length = size >= 2 ? (size_t)(data[0] | data[1] << 8) + 2 : 0;

    return length <= size ? length : 0;
}

static void check_message(const uint8_t *data, size_t length)
{
    int number = length >= 4 ? data[2] | data[3] << 8 : -1, retval = -1;

    MUST(stream_number(&from) == number);
    if (number == STREAM_COMPLETE && length >= 8)
        memcpy(&retval, data + 4, sizeof(retval));
    MUST(stream_retval(&from) == retval);
}

static void pass_on(const uint8_t *data, size_t size, size_t piece)
{
    size_t given = 0, taken = 0, length;

    from.used = to.used = 0;
    while (given < size) {
        size_t more = size - given < piece ? size - given : piece;
        MUST(stream_put(&from, data + given, more));
        given += more;
        while ((length = stream_message(&from))) {
            MUST(length == message_at(data + taken, given - taken));
            check_message(data + taken, length);
            MUST(stream_put(&to, from.bytes, length));
            stream_drop(&from, length);
            taken += length;
        }
        MUST(message_at(data + taken, given - taken) == 0);
    }
    MUST(from.used == size - taken && memcmp(from.bytes, data + taken, from.used) == 0);
    MUST(to.used == taken && memcmp(to.bytes, data, taken) == 0);
}

/* Wherever it is put, as long as there is room. */
static void say(const uint8_t *data, size_t size, size_t used)
{
    char *text = malloc(size + 1);
    uint32_t level = size ? data[0] : 0;

    MUST(text);
    memcpy(text, data, size);
    text[size] = '\0';
    size_t length = strlen(text) < 1023 ? strlen(text) : 1023;
    to.used = used;
    bool fits = stream_put_log(&to, level, text);
    MUST(fits == (used + 2 + 2 + 4 * 4 + sizeof("p2mguard") + length + 1 <= sizeof(to.bytes)));
    if (fits) {
        stream_drop(&to, used);
        MUST(stream_message(&to) == to.used && stream_number(&to) == STREAM_LOG);
        MUST(memcmp(to.bytes + to.used - length - 1, text, length) == 0 && to.bytes[to.used - 1] == '\0');
    } else {
        MUST(to.used == used);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    pass_on(data + 1, size - 1, data[0] + 1u);
    say(data + 1, size - 1, 0);
    say(data + 1, size - 1, sizeof(to.bytes) - 4 * data[0] - 1);
    return 0;
}
