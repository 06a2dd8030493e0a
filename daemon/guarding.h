/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what a caller asked for and what the configuration says of the guest to a session's options.
 */
#ifndef P2MGUARD_GUARDING_H
#define P2MGUARD_GUARDING_H

#include "daemon/session.h"
#include "daemon/settings.h"

/*
 * The members of options->policy in `named` (p2mg_policy_bit) are the caller's and stay; all others become those that
 * this guest gets. Sets options->section and ->forbidden as well.
 */
void guarding_configure(struct session_options *options, const struct settings *settings, const char *name,
                        const char *uuid, unsigned named);

#endif
