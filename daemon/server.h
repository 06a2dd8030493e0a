/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket: listens, accepts, cuts the stream into lines and feeds each connection's rpc channel.
 *
 * Owns connections and their buffers. A connection that does not read its replies stops being read from; one that
 * does not read its events loses events, and is told which (events.h). Loop thread only.
 */
#ifndef P2MGUARD_SERVER_H
#define P2MGUARD_SERVER_H

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/events.h"
#include "daemon/rpc.h"

struct server;

struct server_options {
    const char *path; /* where to listen; unused when listen_fd >= 0 */
    int listen_fd;    /* from socket activation or an earlier program, or -1 */
    bool listen_ours; /* that one has made it, at `path` */
    gid_t group;      /* may change things, and owns the socket; (gid_t)-1 = root only */
    mode_t mode;      /* of the socket */
    unsigned max_connections;
    unsigned max_descriptors; /* of all of them: one each, and a second while one is not read from */
    const struct rpc_method *methods;
    void *method_context;
    rpc_asked *asked; /* of changes; or NULL */
    rpc_ended *ended; /* of all calls; or NULL */
    struct events *events;
    void (*on_close)(uint64_t connection, void *method_context); /* a connection is gone */
};

/*
 * Listens at once. Replaces a socket that nobody answers on; -EADDRINUSE when somebody does, -ENOTSOCK when something
 * else is in its place. Makes the folder it is in where that is missing. Takes over listen_fd when it succeeds.
 * The process must ignore SIGPIPE.
 */
int server_new(struct server **server, struct event_base *base, const struct server_options *options);

/*
 * Closes every connection (replies already queued are flushed as far as they go; on_close is called for each) and
 * removes the socket it made. Accepts NULL.
 */
void server_free(struct server *server);

/* Takes over a reloaded configuration's group; connections made before keep what they were granted. */
void server_set_group(struct server *server, gid_t group);

/*
 * Sends the connection events from number `from` on, in place of what it was subscribed to before. None is sent before
 * the loop turns, so that the reply to the request for them can go first. -ENOTCONN when the connection is gone.
 */
int server_subscribe(struct server *server, uint64_t connection, uint64_t from);

/*
 * From one program to the next (reexec.h). Saves the listening socket and all connections that wait for nothing; the
 * others end with this program. `fds` gets the descriptors that have to stay open, of which there are *count; both are
 * for the caller to free. NULL for want of memory.
 */
json_t *server_save(struct server *server, int **fds, size_t *count);

/* How many connections wait for an answer, or have not read it. */
unsigned server_waiting(const struct server *server);

/* The descriptor of a saved listening socket, and whether it is one that server_new made; -1: there is none. */
int server_saved_listener(const json_t *saved, bool *ours);

/* Goes on with the saved connections. */
void server_take_over(struct server *server, const json_t *saved);

bool server_has_connection(const struct server *server, uint64_t connection);

unsigned server_connections(const struct server *server);

#endif
