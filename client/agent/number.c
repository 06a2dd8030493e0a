/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/number.h"

#include <errno.h>

int number_parse(const char *digits, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;

    if (!*digits)
        return -EINVAL;
    for (; *digits; digits++) {
        uint64_t digit = (uint64_t)(*digits - '0');
        if (*digits < '0' || *digits > '9' || value > (most - digit) / 10)
            return -EINVAL;
        value = value * 10 + digit;
    }
    *number = value;
    return 0;
}
