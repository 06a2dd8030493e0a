/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Shows that a function that fails leaves what it is to fill alone: memset to UNTOUCHED before, is_untouched after. */
#ifndef P2MGUARD_TESTS_UNTOUCHED_H
#define P2MGUARD_TESTS_UNTOUCHED_H

#include <stdbool.h>
#include <stddef.h>

#define UNTOUCHED 0xa5

static inline bool is_untouched(const void *object, size_t size)
{
    const unsigned char *bytes = object;

    for (size_t i = 0; i < size; i++)
        if (bytes[i] != UNTOUCHED)
            return false;
    return true;
}

#endif
