/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl doctor: runs the program that looks; see client/doctor/doctor.h.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl.h"

/* Returns only when the program cannot be had. It reads the rest of the command line itself. */
int doctor_command(struct ctl *ctl, int argc, char **argv)
{
    const char *program = getenv("P2MGUARD_DOCTOR");
    char **arguments = calloc((size_t)argc + 4, sizeof(*arguments));
    int count = 0;

    if (!arguments) {
        return ctl_fail("out of memory");
    }
    if (!program || !*program)
        program = DOCTOR_PROGRAM;
    arguments[count++] = (char *)(uintptr_t)program;
    if (ctl->socket_given) {
        arguments[count++] = (char *)(uintptr_t) "--socket";
        arguments[count++] = (char *)(uintptr_t)ctl->socket;
    }
    if (ctl->json)
        arguments[count++] = (char *)(uintptr_t) "--json";
    for (int i = 1; i < argc; i++)
        arguments[count++] = argv[i];
    execv(program, arguments);
    int status = ctl_fail("%s cannot be run: %s", program, strerror(errno));
    free(arguments);
    return status;
}
