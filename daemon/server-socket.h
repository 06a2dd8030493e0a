/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The socket that the server listens on, as a file: made in the right place, with the right owner, and removed again.
 */
#ifndef P2MGUARD_SERVER_SOCKET_H
#define P2MGUARD_SERVER_SOCKET_H

#include <sys/types.h>

struct server_socket {
    const char *path; /* NULL: it is somebody else's, systemd's for one */
    dev_t device;     /* of the socket we made, so that another's is not removed; inode 0: there is none */
    ino_t inode;
};

/*
 * A descriptor that is bound to the path and does not listen yet, or a negative errno: as server_new says. Replaces
 * what nobody answers on, and makes the folder where that is missing. With a group it is given to that one.
 */
int server_socket_make(struct server_socket *socket, mode_t mode, gid_t group);

/* An earlier program has made it. */
void server_socket_recognize(struct server_socket *socket);

/* Removes it, unless another has taken its place meanwhile. */
void server_socket_remove(const struct server_socket *socket);

#endif
