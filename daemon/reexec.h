/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Executing the daemon's own program anew, with all that it holds: for an upgrade, which is to let nobody go.
 *
 * The process stays, and with it its lock, its socket and its connections. What else the new program has to know is one
 * value of JSON in a file without a name, whose descriptor an environment variable tells. Whatever the new program
 * cannot use it does without: what is not taken over is put back from the journals, as after any other death.
 */
#ifndef P2MGUARD_REEXEC_H
#define P2MGUARD_REEXEC_H

#include <jansson.h>
#include <stddef.h>

/* Rises whenever an older program's state would be misunderstood. */
#define REEXEC_FORMAT 1

/* To be called at the start: later on the path may name another program, which is the point of it. -errno. */
int reexec_remember_program(void);

/*
 * Executes what stands at the program's path now. `state` is borrowed; `fds` stay open, all others are closed. Returns
 * only when it fails: -errno, and everything is as it was.
 */
int reexec_run(const json_t *state, const int *fds, size_t count, char **argv);

/* What an earlier program has left us, for the caller to release; NULL when there is nothing that we understand. */
json_t *reexec_take(void);

/* Binary data in JSON, and back; NULL for want of memory. The latter is for the caller to free, NULL when it is none.
 */
json_t *reexec_pack_bytes(const void *bytes, size_t length);
void *reexec_unpack_bytes(const json_t *text, size_t *length);

#endif
