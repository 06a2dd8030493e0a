/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/nearest.h"

#include <stdbool.h>
#include <string.h>

static size_t nearest_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t nearest_distance(const char *a, const char *b, size_t limit)
{
    size_t rows[3][NEAREST_MAX + 1], a_length = strlen(a), b_length = strlen(b);
    size_t *before = rows[0], *last = rows[1], *row = rows[2];

    if (a_length > NEAREST_MAX || b_length > NEAREST_MAX)
        return limit + 1;
    for (size_t j = 0; j <= b_length; j++)
        before[j] = last[j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            row[j] = nearest_min(last[j], row[j - 1]) + 1;
            row[j] = nearest_min(row[j], last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = nearest_min(row[j], before[j - 2] + 1);
        }
        size_t *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return nearest_min(last[b_length], limit + 1);
}

void nearest_init(struct nearest *nearest, const char *wanted)
{
    nearest->wanted = wanted;
    nearest->found[0] = '\0';
    nearest->distance = (strlen(wanted) + 2) / 3 + 1; /* one letter in three may be wrong */
}

void nearest_offer(struct nearest *nearest, const char *candidate)
{
    size_t length = strlen(nearest->wanted), candidate_length = strlen(candidate);
    size_t distance = nearest_distance(nearest->wanted, candidate, nearest->distance);
    bool all_different = distance >= length || distance >= candidate_length;

    /* Who has written the beginning of a word has made one mistake. */
    if (length >= 3 && candidate_length > length && strncmp(nearest->wanted, candidate, length) == 0)
        distance = 1;
    else if (all_different)
        return;
    if (distance >= nearest->distance || candidate_length > NEAREST_MAX)
        return;
    nearest->distance = distance;
    strcpy(nearest->found, candidate);
}
