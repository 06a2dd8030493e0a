/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the kernel says of a process, read strictly: is this a program that saves a live guest, and which?
 *
 * Pure. A command line is written by the process itself: it is bytes with a length, nothing in it is believed that does
 * not fit, and nothing of it is kept but numbers. Whose process it is says the kernel, in another file.
 */
#ifndef P2MGUARD_HELPER_PARSE_H
#define P2MGUARD_HELPER_PARSE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Longer command lines are no helper's; those of the real ones have some 100 to 400 bytes. */
#define HELPER_COMMAND_MAX 4096

/* The program's name, by which a process is worth a closer look: NULL when it is none. `comm` is /proc/PID/comm. */
const char *helper_parse_comm(const char *comm, size_t size);

/*
 * /proc/PID/cmdline. 0: it saves a running guest, *domid, for a plain migration, and *program is the program's name.
 * -ENOENT: another program, or another use of it; -EBADMSG: not what a toolstack writes.
 */
int helper_parse_command(const char *command, size_t size, uint16_t *domid, const char **program);

/* /proc/PID/status: the one uid that the process has in every respect; -EPERM when there are several. */
int helper_parse_uid(const char *status, size_t size, uid_t *uid);

/* /proc/PID/stat: when it was forked, in clock ticks since boot. */
int helper_parse_start(const char *stat, size_t size, uint64_t *ticks);

/* A message of the kernel's process connector. */
struct helper_event {
    enum { HELPER_EVENT_OTHER, HELPER_EVENT_EXEC, HELPER_EVENT_ACK } what;
    pid_t pid;    /* of an exec */
    int error;    /* of an acknowledgement: 0 or a negative errno ... */
    uint32_t ack; /* ... for the request whose number is one less */
};

/* -EBADMSG for what the connector does not send. */
int helper_parse_event(const void *message, size_t size, struct helper_event *event);

#endif
