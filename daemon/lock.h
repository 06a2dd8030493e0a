/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * That there is one daemon for a control socket, and that nobody puts back without it what it is holding.
 *
 * The lock is flock's, on a file beside the socket ("/run/p2mguard/control.lock"): it is free at the very moment at
 * which its holder has ended, however it ended, and asking for it starts no daemon, as a look at a socket of systemd's
 * would. The file stays where it is: once it is removed, two could have a lock each. Nobody but root can open it, so
 * that nobody else can keep the daemon from it.
 */
#ifndef P2MGUARD_LOCK_H
#define P2MGUARD_LOCK_H

#include <stdint.h>
#include <sys/types.h>

/*
 * Takes the lock that belongs to the socket's path, and waits for it for up to wait_ms; makes the folder where that is
 * missing. It is held until *fd is closed. -EWOULDBLOCK: process *holder has it (0: it has not said yet who it is).
 */
int lock_take(const char *socket, int64_t wait_ms, int *fd, pid_t *holder);

#endif
