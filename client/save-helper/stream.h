/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What libxl and its save helper say to each other: messages of a uint16_t length and as many bytes, the first two of
 * them the message's number, all in the host's byte order (tools/libs/light/libxl_save_msgs_gen.pl). Nothing here does
 * I/O.
 *
 * The numbers below are those of Xen 4.14 to 4.22; what has another number is passed on and not looked at. They are the
 * places in a list in that file; up to Xen 4.13 STREAM_COMPLETE was 9.
 */
#ifndef P2MGUARD_SAVE_HELPER_STREAM_H
#define P2MGUARD_SAVE_HELPER_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STREAM_LOG = 1, STREAM_SUSPEND = 3, STREAM_COMPLETE = 10 };

/* Length field and body. */
#define STREAM_MESSAGE_MAX (2 + 65535)

/* Bytes on their way. */
struct stream {
    char bytes[2 * STREAM_MESSAGE_MAX];
    size_t used;
};

/* The whole length of the message at the beginning; 0 when it is not whole yet. */
size_t stream_message(const struct stream *stream);

/* Its number, -1 when it is too short to have one. */
int stream_number(const struct stream *stream);

/* What STREAM_COMPLETE says: 0, or that the save has failed. -1 for any other message. */
int stream_retval(const struct stream *stream);

/* Appends; false when there is no room. */
bool stream_put(struct stream *stream, const void *bytes, size_t length);

/* As many bytes from the beginning are done with. */
void stream_drop(struct stream *stream, size_t length);

/* Appends a STREAM_LOG, which libxl shows as a line of the helper's at this level (xentoollog's), cut to fit. */
bool stream_put_log(struct stream *stream, uint32_t level, const char *text);

#endif
