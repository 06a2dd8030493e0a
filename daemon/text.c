/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/text.h"

#include <string.h>

void text_cut(char *to, size_t room, const char *from)
{
    size_t length = strnlen(from, room);

    if (length == room) {
        length = room - 1;
        while (length > 0 && ((unsigned char)from[length] & 0xc0) == 0x80)
            length--;
    }
    memcpy(to, from, length);
    to[length] = '\0';
}

/* How many bytes a character has, as its first one says; 0 when none begins like that. */
static size_t character_announced(unsigned char first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first < 0xe0)
        return 2;
    if (first >= 0xe0 && first < 0xf0)
        return 3;
    return first >= 0xf0 && first < 0xf5 ? 4 : 0;
}

/* Never looks beyond the end of the text. */
size_t text_character_bytes(const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    size_t bytes = character_announced(at[0]);

    for (size_t i = 1; i < bytes; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    }
    /* What could be written shorter, surrogates, and what is beyond the last character. */
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf0 && at[1] < 0x90) ||
        (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return bytes;
}

void text_make_utf8(char *text)
{
    while (*text != '\0') {
        size_t bytes = text_character_bytes(text);

        if (bytes == 0) {
            *text = '?';
            bytes = 1;
        }
        text += bytes;
    }
}
