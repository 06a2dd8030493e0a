/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command line: what is for every command is taken out of it, and the rest is checked against the command's
 * synopsis, so that each command's own getopt_long(3) finds options that exist, in front of the words.
 */
#ifndef P2MGUARD_CLIENT_LINE_H
#define P2MGUARD_CLIENT_LINE_H

#include <stdbool.h>

#include "client/ctl.h"

struct line {
    const struct ctl_command *command; /* NULL: none was named */
    bool help, version;
    int argc;    /* the command's: its name, its options, its words, "--" and what is behind that */
    char **argv; /* as argv of main, which it points into; ends with NULL */
};

/* Takes argv apart, in place. 0, or the exit status after having said what is wrong. */
int line_take(struct ctl *ctl, int argc, char **argv, struct line *line);

/* Says so, and what may have been meant; `who` is the command that was given the name. Returns CTL_USAGE. */
int line_unknown_command(const char *who, const char *text);

#endif
