/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/save-helper/stream.h"

#include <string.h>

#define STREAM_CONTEXT "p2mguard"
#define STREAM_TEXT_MAX 1024

size_t stream_message(const struct stream *stream)
{
    uint16_t length;

    if (stream->used < sizeof(length))
        return 0;
    memcpy(&length, stream->bytes, sizeof(length));
    return stream->used - sizeof(length) >= length ? sizeof(length) + length : 0;
}

int stream_number(const struct stream *stream)
{
    uint16_t number;

    if (stream_message(stream) < 2 * sizeof(number))
        return -1;
    memcpy(&number, stream->bytes + sizeof(number), sizeof(number));
    return number;
}

int stream_retval(const struct stream *stream)
{
    int retval;

    if (stream_number(stream) != STREAM_COMPLETE || stream_message(stream) < 4 + sizeof(retval))
        return -1;
    memcpy(&retval, stream->bytes + 4, sizeof(retval));
    return retval;
}

bool stream_put(struct stream *stream, const void *bytes, size_t length)
{
    if (length > sizeof(stream->bytes) - stream->used)
        return false;
    memcpy(stream->bytes + stream->used, bytes, length);
    stream->used += length;
    return true;
}

void stream_drop(struct stream *stream, size_t length)
{
    stream->used -= length;
    memmove(stream->bytes, stream->bytes + length, stream->used);
}

bool stream_put_log(struct stream *stream, uint32_t level, const char *text)
{
    static const char context[] = STREAM_CONTEXT;
    char shown[STREAM_TEXT_MAX];
    size_t length = strnlen(text, sizeof(shown) - 1);
    uint32_t error = UINT32_MAX, context_length = sizeof(context), text_length = (uint32_t)length + 1;
    uint16_t number = STREAM_LOG; /* and no errno, whose text libxl would add */
    uint16_t body = (uint16_t)(sizeof(number) + 4 * sizeof(uint32_t) + context_length + text_length);

    if (2u + body > sizeof(stream->bytes) - stream->used)
        return false;
    memcpy(shown, text, length);
    shown[length] = '\0';
    stream_put(stream, &body, sizeof(body));
    stream_put(stream, &number, sizeof(number));
    stream_put(stream, &level, sizeof(level));
    stream_put(stream, &error, sizeof(error));
    stream_put(stream, &context_length, sizeof(context_length));
    stream_put(stream, context, context_length);
    stream_put(stream, &text_length, sizeof(text_length));
    return stream_put(stream, shown, text_length);
}
