/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what a process and the kernel may say of it: a command line, its status and stat, its name, and a message of
 * the process connector. What is accepted stands in the input as it is written by whoever is allowed to: no other
 * spelling of a number is taken for it.
 *
 * Input: all of it as each of these, the bytes as they are.
 */
#include "daemon/helper-parse.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

/* Exactly as large as the input, for the sanitizer to watch its ends. */
static char *copy_of(const uint8_t *data, size_t size)
{
    char *copy = malloc(size ? size : 1);

    MUST(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

static bool stands_in(const char *text, size_t size, const char *part, size_t length)
{
    return memmem(text, size, part, length) != NULL;
}

static void try_command(const char *text, size_t size)
{
    const char *program = NULL;
    char domid_text[16];
    uint16_t domid = 0;
    int error = helper_parse_command(text, size, &domid, &program);

    MUST(error == 0 || error == -ENOENT || error == -EBADMSG);
    if (error)
        return;
    MUST(domid > 0 && domid < 0x7ff0);
    MUST(program && stands_in(text, size, program, strlen(program) + 1));
    /* An argument of its own, the NULs on both sides included. */
    int length = snprintf(domid_text + 1, sizeof(domid_text) - 1, "%u", domid);
    domid_text[0] = '\0';
    MUST(stands_in(text, size, domid_text, (size_t)length + 2));
}

static void try_files(const char *text, size_t size)
{
    uint64_t ticks = 0;
    uid_t uid = 0;
    char line[128];

    const char *name = helper_parse_comm(text, size);
    MUST(!name || (size <= 16 && memcmp(text, name, size - 1) == 0));
    if (helper_parse_uid(text, size, &uid) == 0) {
        int length = snprintf(line, sizeof(line), "\nUid:\t%u\t%u\t%u\t%u\n", uid, uid, uid, uid);
        MUST(stands_in(text, size, line, (size_t)length));
    }
    if (helper_parse_start(text, size, &ticks) == 0) {
        int length = snprintf(line, sizeof(line), " %" PRIu64 " ", ticks);
        MUST(stands_in(text, size, line, (size_t)length));
    }
}

static void try_message(const char *message, size_t size)
{
    struct helper_event event;

    if (helper_parse_event(message, size, &event) == 0)
        MUST(event.error <= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy = copy_of(data, size);

    try_command(copy, size);
    try_files(copy, size);
    try_message(copy, size);
    free(copy);
    return 0;
}
