/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Putting back what a daemon that is no more has left, from its journals: for the next daemon (guard.c), and for the
 * program that does it without one (thaw.c).
 *
 * Functions block on the store: worker thread only, or a program without one.
 */
#ifndef P2MGUARD_RECOVERY_H
#define P2MGUARD_RECOVERY_H

#include <stdint.h>

#include "daemon/journal.h"
#include "daemon/worker.h"

/*
 * Puts back what the journal of this domain says, and drops it; whoever began that in xenstore is told. The log knows
 * of what fails. 0: done, and *journal is what was put back. -EINPROGRESS: so it is, but the guest is being migrated to
 * this same host, and its new domain has no target yet: to be called again, for it is to have the latest wish. -ENOENT:
 * there was nothing to be put back. -EBADMSG: the journal is none that we can read, and is left as it is. -ENOTCONN:
 * the connection is gone. Any other errno: to be tried again.
 */
int recovery_put_back(const struct worker_tools *tools, uint16_t domid, struct journal *journal);

/* One line on what was put back. */
void recovery_log(const struct journal *journal);

#endif
