/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what the agent may find for a journal when it starts. What is understood is written as a text that is
 * understood and says the same, and what is not leaves the journal alone.
 *
 * Input: the file.
 */
#include "client/agent/undo.h"

#include <errno.h>

#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct undo undo, again;
    char *input = malloc(size ? size : 1), *text = malloc(UNDO_TEXT_MAX), *same = malloc(UNDO_TEXT_MAX);

    MUST(input && text && same);
    if (size)
        memcpy(input, data, size);
    memset(&undo, UNTOUCHED, sizeof(undo));
    if (undo_decode(input, size, &undo)) {
        MUST(is_untouched(&undo, sizeof(undo)));
    } else {
        MUST(undo.hook_count <= UNDO_HOOKS);
        for (unsigned i = 0; i < undo.hook_count; i++)
            MUST(undo_is_hook_name(undo.hooks[i]));
        int length = undo_encode(&undo, text, UNDO_TEXT_MAX);
        MUST(length > 0 && undo_decode(text, (size_t)length, &again) == 0);
        MUST(undo_encode(&again, same, UNDO_TEXT_MAX) == length && memcmp(text, same, (size_t)length) == 0);
    }
    free(same);
    free(text);
    free(input);
    return 0;
}
