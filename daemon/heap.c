/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/heap.h"

#include <stdlib.h> /* any of the C library's says whose it is */

#ifdef __GLIBC__
#include <malloc.h>

/* What malloc keeps for each thread. */
enum { CACHED_PIECES = 7, CACHED_LEAST_BYTES = 24, CACHED_MOST_BYTES = 1032, CACHED_STEP_BYTES = 16 };

/*
 * glibc keeps the last few pieces of every small size at hand, wherever they lie, and does not call them free: each of
 * them holds a page. In their place it is given others, which are made one after the other.
 */
static void heap_gather_small(size_t bytes)
{
    void *volatile pieces[2 * CACHED_PIECES]; /* or a compiler would see that nobody uses them */

    for (int i = 0; i < 2 * CACHED_PIECES; i++)
        pieces[i] = malloc(bytes);
    for (int i = 2 * CACHED_PIECES - 1; i >= 0; i--)
        free(pieces[i]);
}

/* malloc gives back by itself only what is at the end of its heap, where something always lies. */
void heap_give_back(void)
{
    for (size_t bytes = CACHED_LEAST_BYTES; bytes <= CACHED_MOST_BYTES; bytes += CACHED_STEP_BYTES)
        heap_gather_small(bytes);
    malloc_trim(0);
}
#else
void heap_give_back(void)
{
}
#endif
