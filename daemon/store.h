/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xenstore as this daemon uses it: libxenstore with errors as negative errno and permissions as text.
 *
 * Owns the connection. Worker thread only; every call may block as long as xenstored does. -ENOTCONN means that the
 * connection is dead and store_reconnect is needed. Permissions are text as xenstore-ls -p shows it without the
 * blanks: "n0,r7".
 */
#ifndef P2MGUARD_STORE_H
#define P2MGUARD_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_PATH_MAX 160
#define STORE_PERMS_MAX 256

struct store;

/* A transaction in whose context a call runs; 0 = none. */
typedef uint32_t store_txn;

/* `watches_apart`: watches have a connection of their own, so that requests are answered without a thread between. */
int store_new(struct store **store, bool watches_apart);
void store_free(struct store *store);

/*
 * Opens a new connection. Looks whether somebody listens on the socket first: libxenstore would fall back to
 * /dev/xen/xenbus, where the first request of a dom0 without xenstored waits for ever.
 */
int store_reconnect(struct store *store);
void store_disconnect(struct store *store);

/* Becomes readable when a watch has fired; -1 without a connection. Says nothing of a dead connection. */
int store_fd(const struct store *store);

/* Whether the connection works, or both of them do. May ask xenstored. */
bool store_alive(struct store *store);

/* Watches that have fired until now are heard of, or will be: false once their connection is dead. One round trip. */
bool store_hears(struct store *store);

int store_watch(struct store *store, const char *path, const char *token);
int store_unwatch(struct store *store, const char *path, const char *token);

/* The next watch event, if any: 1 with both texts filled (cut to fit), 0 when there is none, or a negative errno. */
int store_next_event(struct store *store, char *path, size_t path_size, char *token, size_t token_size);

/* Reads a value as text. -EMSGSIZE when it does not fit or holds a NUL, -ENOENT when the node is absent. */
int store_read(struct store *store, store_txn txn, const char *path, char *value, size_t size);
int store_write(struct store *store, store_txn txn, const char *path, const char *value);

/* Removes a node and all below it; an absent node is no error. */
int store_remove(struct store *store, store_txn txn, const char *path);

/* Calls `each` with every child's name; stops at its first non-zero answer and returns that. */
int store_list(struct store *store, store_txn txn, const char *path, int (*each)(void *context, const char *name),
               void *context);

/*
 * How many lists in a row have cost the connection, as whoever asked for them counts them: oxenstored cannot tell more
 * than 4 KiB of names, and drops who asks for them.
 */
unsigned store_lists_lost(const struct store *store);
void store_count_list(struct store *store, bool lost);

int store_get_perms(struct store *store, store_txn txn, const char *path, char *text, size_t size);
int store_set_perms(struct store *store, store_txn txn, const char *path, const char *text);

/*
 * Runs `body` in a transaction, again on a conflict. A body that fails rolls everything back and its error is returned;
 * a conflict that goes on is -EAGAIN.
 */
int store_transact(struct store *store, int (*body)(struct store *store, store_txn txn, void *context), void *context);

/* Requests sent, and transactions made again because of a conflict, ever. Any thread may ask. */
struct store_counts {
    uint64_t round_trips, conflicts;
};
void store_counts(const struct store *store, struct store_counts *counts);

#endif
