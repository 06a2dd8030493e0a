/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * JSON-RPC 2.0 over lines: turns a line into calls, and calls into one reply line.
 *
 * Owns calls, batches and the method table's checks: form of the request, names and types of parameters, and whether
 * the peer may change things; whoever is to know of each change that is asked for is told (rpc_asked). Knows nothing of
 * sockets (server.h) nor of sessions (methods.h). Loop thread only.
 */
#ifndef P2MGUARD_RPC_H
#define P2MGUARD_RPC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "daemon/writer.h"

/* Who asks, as SO_PEERCRED told when the connection was made. */
struct rpc_peer {
    uint64_t connection; /* never used twice in a daemon's life */
    pid_t pid;
    uid_t uid;
    gid_t gid;
    bool may_change;
};

enum rpc_type { RPC_STRING, RPC_INTEGER, RPC_BOOLEAN, RPC_OBJECT, RPC_STRING_OR_INTEGER };

struct rpc_param {
    const char *name; /* NULL ends a list */
    enum rpc_type type;
    bool required;
};

struct rpc_call;

/*
 * Runs one method. `params` is an object, already checked against the method's list, borrowed, and valid until the
 * method returns. The method (or whoever it hands the call to) must end the call exactly once, now or later, with
 * rpc_reply or rpc_fail; whether anybody waits for the answer is no concern of its own.
 */
typedef void rpc_run(struct rpc_call *call, const json_t *params, void *context);

/* What a call of a method is. 0, which somebody may have forgotten to fill in, is not the harmless one. */
enum rpc_class {
    RPC_CHANGE, /* needs peer.may_change */
    RPC_READ,
    RPC_EITHER /* RPC_READ when method.reads says so of the parameters, else RPC_CHANGE */
};

struct rpc_method {
    const char *name; /* NULL ends a table */
    enum rpc_class class;
    const struct rpc_param *params;
    rpc_run *run;
    bool (*reads)(const json_t *params); /* RPC_EITHER; the parameters are not checked yet */
    const char *instead;                 /* RPC_EITHER: what a peer that may only read is told to ask for */
};

/* What became of a change that was asked for, before it is run. */
enum rpc_outcome { RPC_GRANTED, RPC_REFUSED, RPC_INVALID };

/* Told of every call of a method that is a change. `params` is an object, not checked, and valid during the call. */
typedef void rpc_asked(void *method_context, const struct rpc_peer *peer, const char *method, const json_t *params,
                       enum rpc_outcome outcome);

/*
 * Told of every call that has ended, also of one whose channel is gone: the method's name in the table, NULL where it
 * is in no table, and the error's code, 0 for none.
 */
typedef void rpc_ended(void *method_context, const char *method, int code);

/*
 * Where reply lines go; `line` ends with a newline and is at most P2MG_REPLY_MAX_BYTES long. Called with length 0
 * when calls ended that want no reply. rpc_channel_pending() counts the calls answered by it no more.
 */
typedef void rpc_write(void *context, const char *line, size_t length);

/* One end of a conversation: exists as long as its connection. */
struct rpc_channel;

struct rpc_channel *rpc_channel_new(const struct rpc_method *methods, void *method_context, const struct rpc_peer *peer,
                                    rpc_write *write, void *write_context);

void rpc_channel_on_asked(struct rpc_channel *channel, rpc_asked *asked);
void rpc_channel_on_ended(struct rpc_channel *channel, rpc_ended *ended);

/* The peer reads no more: from now on it is obeyed, and not told what it only wants to know. */
void rpc_channel_deafen(struct rpc_channel *channel);

/* Closes the channel: calls still running go on and their replies are dropped. Accepts NULL. */
void rpc_channel_free(struct rpc_channel *channel);

/* Takes in one line, without its newline. Never fails: whatever is wrong is answered on the channel. */
void rpc_channel_take_line(struct rpc_channel *channel, const char *line, size_t length);

/* Sends a notification of the server's own; `params` is an object's text of so many bytes. */
void rpc_channel_notify(struct rpc_channel *channel, const char *method, const char *params, size_t length);

/* How many calls have been taken in and not been answered yet; those of a batch are answered together. */
size_t rpc_channel_pending(const struct rpc_channel *channel);

const struct rpc_peer *rpc_call_peer(const struct rpc_call *call);

/* The channel the call came on, or NULL when it has been closed. */
struct rpc_channel *rpc_call_channel(const struct rpc_call *call);

/*
 * Both end the call and steal their json_t; a NULL result is sent as -32603 (it means that memory ran out). An error
 * without `data`, or without a "what" in it, gets its message for one. A reply longer than a message may be is sent
 * as -32603 instead.
 */
void rpc_reply(struct rpc_call *call, json_t *result);

/*
 * The same for a result that is written as text, and nothing else is done in between: where it is to be written, and
 * that it has been.
 */
struct writer *rpc_text_begin(const struct rpc_call *call);
void rpc_text_end(struct rpc_call *call);
void rpc_fail(struct rpc_call *call, int code, const char *message, json_t *data);

#endif
