/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How many files the daemon may have to have open: what it raises its limit to, and what doctor compares it with.
 *
 * One for a connection, a second one while it is not read from, one for a program that saves a guest, of which there
 * may be one for each session and each observation, and some for everything else.
 */
#ifndef P2MGUARD_FILES_H
#define P2MGUARD_FILES_H

#include <stdint.h>

#define FILES_A_CONNECTION 2
#define FILES_ELSE 256

static inline uint64_t files_for_connections(int64_t max_connections)
{
    return FILES_A_CONNECTION * (uint64_t)max_connections;
}

static inline uint64_t files_for_the_rest(int64_t max_sessions)
{
    return 2 * (uint64_t)max_sessions + FILES_ELSE;
}

/* How many the limit of open files leaves for connections; it is raised first as far as it may be. */
unsigned files_make_room(int64_t max_connections, int64_t max_sessions);

#endif
