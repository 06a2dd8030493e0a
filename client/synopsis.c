/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/synopsis.h"

#include <stdio.h>
#include <string.h>

static const char decoration[] = "[]…"; /* bytes of it: no word has any of them */

/* One piece between spaces, without its brackets; `closed` says whether one was closed behind it. */
static bool synopsis_piece(const char **at, char *text, bool *opened, bool *closed)
{
    const char *from = *at + strspn(*at, " ");
    size_t used = 0;

    *opened = *from == '[';
    *closed = false;
    for (; *from && *from != ' '; from++) {
        *closed = *closed || *from == ']';
        if (!strchr(decoration, *from) && used + 1 < SYNOPSIS_TEXT)
            text[used++] = *from;
    }
    text[used] = '\0';
    *at = from;
    return used > 0;
}

bool synopsis_next(const char **at, struct synopsis_item *item)
{
    char next[SYNOPSIS_TEXT];
    bool opened, closed;

    item->anew = false;
    while (synopsis_piece(at, item->name, &opened, &closed) && strcmp(item->name, "|") == 0)
        item->anew = true;
    if (!item->name[0] || strcmp(item->name, "--") == 0)
        return false;
    item->value[0] = '\0';
    item->option = strncmp(item->name, "--", 2) == 0;
    if (!item->option || closed)
        return true;
    /* What follows in the same brackets is its value. */
    const char *after = *at;
    if (synopsis_piece(&after, next, &opened, &closed) && !opened && next[0] != '-' && strcmp(next, "|") != 0) {
        strcpy(item->value, next);
        *at = after;
    }
    return true;
}

bool synopsis_find_option(const char *synopsis, const char *text, struct synopsis_item *item)
{
    size_t length = strcspn(text, "=");
    struct synopsis_item one;
    unsigned found = 0;

    while (synopsis_next(&synopsis, &one)) {
        if (!one.option || strncmp(one.name, text, length) != 0)
            continue;
        *item = one;
        if (!one.name[length])
            return true;
        found++;
    }
    return found == 1 && length > 2;
}

bool synopsis_next_word(const char **at, size_t *place, size_t n, struct synopsis_item *item)
{
    while (synopsis_next(at, item)) {
        if (item->anew)
            *place = 0;
        if (!item->option && (*place)++ == n)
            return true;
    }
    return false;
}

const char *synopsis_choice(const char **at, size_t *length)
{
    const char *choice = *at;

    *length = strcspn(choice, "|");
    *at = choice + *length + (choice[*length] == '|');
    return choice;
}
