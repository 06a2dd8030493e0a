/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every fuzzer needs. */
#ifndef P2MGUARD_TESTS_FUZZ_H
#define P2MGUARD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* libFuzzer's entry point; no header of its own declares it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

#endif
