/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What every fuzzer needs. */
#ifndef P2MGUARD_TESTS_FUZZ_H
#define P2MGUARD_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's entry point; no header of its own declares it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            abort();                                                                                                   \
    } while (0)

/* Has all of the input read, and then each line of it. */
static inline void fuzz_texts(const uint8_t *data, size_t size, void (*read)(const uint8_t *text, size_t length))
{
    const uint8_t *line = data, *end = data + size;

    read(data, size);
    while (line < end) {
        const uint8_t *newline = memchr(line, '\n', (size_t)(end - line));
        const uint8_t *line_end = newline ? newline : end;
        read(line, (size_t)(line_end - line));
        line = newline ? newline + 1 : end;
    }
}

#endif
