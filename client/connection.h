/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One conversation with p2mguardd: JSON-RPC 2.0 over its UNIX socket (protocol/CONTROL.md).
 *
 * Usable with poll(2): wait for connection_poll_events on connection_fd, call connection_take_in, then ask for the
 * replies and events that have come; connection_call does so itself. Several requests may be under way. A connection
 * belongs to one thread at a time; there is no global state.
 */
#ifndef P2MGUARD_CLIENT_CONNECTION_H
#define P2MGUARD_CLIENT_CONNECTION_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

/* -ENOENT or -ECONNREFUSED: there is no daemon; -EACCES: the socket is not for this user. */
int connection_open(struct connection **connection, const char *path);
void connection_close(struct connection *connection);

int connection_fd(const struct connection *connection);

/* POLLIN, and POLLOUT while there is something that the daemon has not taken yet. */
short connection_poll_events(const struct connection *connection);

/*
 * Sends a request, without waiting: what the socket has no room for now is sent later. Steals `params` (an object, or
 * NULL for none). Returns its id, above 0, or a negative errno; -EPIPE: the daemon is gone.
 */
int64_t connection_send(struct connection *connection, const char *method, json_t *params);

/* Writes what is left of requests, and reads what is there, without waiting. 0, or -EPIPE when the daemon has closed
 * the connection. */
int connection_take_in(struct connection *connection);

/* The reply to a request, as the whole response object, or NULL when it has not come. The caller owns it. */
json_t *connection_reply(struct connection *connection, int64_t id);

/* The next event's params, or NULL. The caller owns it. */
json_t *connection_event(struct connection *connection);

/*
 * Sends a request and waits for its reply; events that come meanwhile are kept. On success *result is the caller's. An
 * error answer is -EREMOTEIO with *error (code, message, data) the caller's.
 */
int connection_call(struct connection *connection, const char *method, json_t *params, json_t **result, json_t **error);

/* An error answer for people: "MESSAGE: WHAT, in WHERE; expected EXPECTED", as far as they are there. */
void connection_error_text(const json_t *error, char *text, size_t size);

/* Waits until there is something for connection_take_in to do, at most timeout_ms (-1: for ever): 1, 0 when there was
 * not, -EINTR. */
int connection_wait(struct connection *connection, int timeout_ms);

#endif
