/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's way to agent-sysfs: has changes in sysfs made by a program that is in everybody's mount namespace.
 *
 * A connection is made for a freeze and closed after it: agent-sysfs takes away what a connection has covered when
 * that is closed. Each call waits for the answer, for a limited time; one that comes later than that changes nothing
 * that lasts. Loop thread only.
 */
#ifndef P2MGUARD_CLIENT_AGENT_ASK_H
#define P2MGUARD_CLIENT_AGENT_ASK_H

#include "client/agent/sysfs.h"

/* Nobody is there, or does not answer: whether it was done is not known. No outcome of a request. */
#define ASK_NOBODY (-ENOTCONN)

struct ask {
    const char *path; /* of the socket; NULL = nobody is to be asked */
    int fd;           /* -1 = no connection */
};

/* Begins with a new connection, which starts agent-sysfs where systemd listens for it. 0 when it has answered. */
int ask_ready(struct ask *ask);

/* The outcome, or ASK_NOBODY, which is logged. Asks again, once, when a connection that was there is lost. */
int ask_request(struct ask *ask, const struct sysfs_request *request);

void ask_close(struct ask *ask);

#endif
