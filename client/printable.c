/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/printable.h"

#include <stdbool.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

/* The bytes and columns of the character there; false when it is none that may be shown: `length` is to be skipped. */
static bool printable_next(const char *text, size_t *length, int *columns)
{
    mbstate_t state = {0};
    wchar_t character;
    size_t taken = mbrtowc(&character, text, strlen(text), &state);

    *length = 1;
    *columns = 1;
    if (taken == (size_t)-1 || taken == (size_t)-2 || taken == 0)
        return false;
    *length = taken;
    int width = wcwidth(character);
    if (!iswprint((wint_t)character) || width < 1)
        return false;
    *columns = width;
    return true;
}

int printable_cut(char *out, size_t size, const char *text, int columns)
{
    size_t used = 0, length;
    int taken = 0, width;

    for (; *text; text += length) {
        bool shown = printable_next(text, &length, &width);
        size_t bytes = shown ? length : 1;
        if (taken + width > columns || used + bytes >= size)
            break;
        memcpy(out + used, shown ? text : "?", bytes);
        used += bytes;
        taken += width;
    }
    out[used] = '\0';
    return taken;
}
