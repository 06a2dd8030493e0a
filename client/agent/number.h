/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers in what others wrote. A pure function; any thread. */
#ifndef P2MGUARD_CLIENT_AGENT_NUMBER_H
#define P2MGUARD_CLIENT_AGENT_NUMBER_H

#include <stdint.h>

/* Decimal digits, all of the text and nothing else: 0, or -EINVAL, also for what is more than `most`. */
int number_parse(const char *digits, uint64_t most, uint64_t *number);

#endif
