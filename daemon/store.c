/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/store.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenstore.h>
#include <xenstore_lib.h>

/* More than the toolstacks of a busy host can collide; past that something is wrong with the store. */
#define STORE_TRANSACTION_TRIES 50

/* More entries than xenstored lets a guest set (5), enough for what dom0 tools make. */
#define STORE_PERMS_ENTRIES 16

/*
 * With the first watch libxenstore starts a thread that reads all of its connection, and from then on the answer to
 * each request wakes two threads: hence a connection for watches alone, for whoever makes many requests.
 */
struct store {
    bool apart;
    struct xs_handle *handle;
    struct xs_handle *watches; /* the same one unless they are apart; both are open, or none */
    unsigned lists_lost;
    atomic_uint_least64_t round_trips, conflicts; /* read by the loop */
};

/* For each request that is sent. */
static struct xs_handle *store_count_trip(struct store *store, struct xs_handle *handle)
{
    atomic_fetch_add_explicit(&store->round_trips, 1, memory_order_relaxed);
    return handle;
}

static struct xs_handle *store_ask(struct store *store)
{
    return store_count_trip(store, store->handle);
}

int store_new(struct store **store, bool watches_apart)
{
    *store = calloc(1, sizeof(**store));
    if (!*store)
        return -ENOMEM;
    (*store)->apart = watches_apart;
    return 0;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    store_disconnect(store);
    free(store);
}

static int store_probe(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    if (stat(path, &status) < 0)
        return -errno;
    if (!S_ISSOCK(status.st_mode))
        return 0; /* XENSTORED_PATH names the device: the only way in where xenstored runs in a stub domain */
    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    int error = connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    close(fd);
    return error == -EAGAIN ? -EBUSY : error;
}

int store_reconnect(struct store *store)
{
    store_disconnect(store);

    int error = store_probe(xs_daemon_socket());
    if (error)
        return error;
    store->handle = xs_open(0);
    store->watches = store->handle && store->apart ? xs_open(0) : store->handle;
    error = store->watches ? 0 : -errno;
    if (error)
        store_disconnect(store);
    return error;
}

void store_disconnect(struct store *store)
{
    if (store->watches && store->watches != store->handle)
        xs_close(store->watches);
    if (store->handle)
        xs_close(store->handle);
    store->handle = store->watches = NULL;
}

int store_fd(const struct store *store)
{
    return store->watches ? xs_fileno(store->watches) : -1;
}

int store_next_event(struct store *store, char *path, size_t path_size, char *token, size_t token_size)
{
    if (!store->watches)
        return -ENOTCONN;

    errno = 0;
    char **event = xs_check_watch(store->watches);
    if (!event)
        return errno == EAGAIN ? 0 : -ENOTCONN;
    snprintf(path, path_size, "%s", event[XS_WATCH_PATH]);
    snprintf(token, token_size, "%s", event[XS_WATCH_TOKEN]);
    free(event);
    return 1;
}

/* GET_DOMAIN_PATH is answered without looking at the tree: the cheapest question there is. */
static bool store_answers(struct store *store, struct xs_handle *handle)
{
    char *path = handle ? xs_get_domain_path(store_count_trip(store, handle), 0) : NULL;

    free(path);
    return path != NULL;
}

bool store_hears(struct store *store)
{
    return store_answers(store, store->watches);
}

bool store_alive(struct store *store)
{
    return store_answers(store, store->handle) && (store->watches == store->handle || store_hears(store));
}

/*
 * A dead connection shows as EBADF on later calls and as EINVAL on the one in flight; EINVAL is also how a quota error
 * of oxenstored looks, so ask once more.
 */
static int store_error(struct store *store)
{
    int error = errno;

    switch (error) {
    case EBADF:
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
        return -ENOTCONN;
    case EINVAL:
    case EIO:
        return store_alive(store) ? -error : -ENOTCONN;
    case 0:
        return -EIO;
    default:
        return -error;
    }
}

int store_watch(struct store *store, const char *path, const char *token)
{
    if (!store->handle)
        return -ENOTCONN;
    if (xs_watch(store_count_trip(store, store->watches), path, token) || errno == EEXIST)
        return 0;
    return store_error(store);
}

int store_unwatch(struct store *store, const char *path, const char *token)
{
    if (!store->handle)
        return -ENOTCONN;
    if (xs_unwatch(store_count_trip(store, store->watches), path, token) || errno == ENOENT)
        return 0;
    return store_error(store);
}

int store_read(struct store *store, store_txn txn, const char *path, char *value, size_t size)
{
    unsigned length;

    if (!store->handle)
        return -ENOTCONN;
    char *data = xs_read(store_ask(store), txn, path, &length);
    if (!data)
        return store_error(store);

    int error = 0;
    if (length >= size || memchr(data, '\0', length)) {
        error = -EMSGSIZE;
    } else {
        memcpy(value, data, length);
        value[length] = '\0';
    }
    free(data);
    return error;
}

int store_write(struct store *store, store_txn txn, const char *path, const char *value)
{
    if (!store->handle)
        return -ENOTCONN;
    if (xs_write(store_ask(store), txn, path, value, (unsigned)strlen(value)))
        return 0;
    return store_error(store);
}

int store_remove(struct store *store, store_txn txn, const char *path)
{
    if (!store->handle)
        return -ENOTCONN;
    if (xs_rm(store_ask(store), txn, path) || errno == ENOENT)
        return 0;
    return store_error(store);
}

int store_list(struct store *store, store_txn txn, const char *path, int (*each)(void *context, const char *name),
               void *context)
{
    unsigned count;
    int answer = 0;

    if (!store->handle)
        return -ENOTCONN;
    char **names = xs_directory(store_ask(store), txn, path, &count);
    int error = names ? 0 : store_error(store);
    if (error)
        return error;
    for (unsigned i = 0; i < count && !answer; i++)
        answer = each(context, names[i]);
    free(names);
    return answer;
}

unsigned store_lists_lost(const struct store *store)
{
    return store->lists_lost;
}

void store_count_list(struct store *store, bool lost)
{
    store->lists_lost = lost ? store->lists_lost + 1 : 0;
}

static char store_perm_letter(unsigned bits)
{
    if ((bits & XS_PERM_READ) && (bits & XS_PERM_WRITE))
        return 'b';
    if (bits & XS_PERM_READ)
        return 'r';
    return bits & XS_PERM_WRITE ? 'w' : 'n';
}

int store_get_perms(struct store *store, store_txn txn, const char *path, char *text, size_t size)
{
    unsigned count;
    size_t used = 0;
    int error = 0;

    if (!store->handle)
        return -ENOTCONN;
    struct xs_permissions *perms = xs_get_permissions(store_ask(store), txn, path, &count);
    if (!perms)
        return store_error(store);
    if (count > STORE_PERMS_ENTRIES)
        error = -EMSGSIZE;
    for (unsigned i = 0; i < count && !error; i++) {
        int length =
            snprintf(text + used, size - used, "%s%c%u", i ? "," : "", store_perm_letter(perms[i].perms), perms[i].id);
        if (length < 0 || (size_t)length >= size - used)
            error = -EMSGSIZE;
        else
            used += (size_t)length;
    }
    free(perms);
    return error;
}

static int store_parse_perms(const char *text, struct xs_permissions *perms, unsigned *count)
{
    static const struct {
        char letter;
        unsigned bits;
    } letters[] = {{'n', XS_PERM_NONE}, {'r', XS_PERM_READ}, {'w', XS_PERM_WRITE}, {'b', XS_PERM_READ | XS_PERM_WRITE}};

    for (*count = 0; *count < STORE_PERMS_ENTRIES; (*count)++) {
        struct xs_permissions *entry = &perms[*count];
        size_t i = 0;
        char *end;

        while (i < 4 && letters[i].letter != *text)
            i++;
        if (i == 4 || text[1] < '0' || text[1] > '9')
            return -EINVAL;
        entry->perms = letters[i].bits;
        entry->id = (unsigned)strtoul(text + 1, &end, 10);
        if (*end == '\0') {
            (*count)++;
            return 0;
        }
        if (*end != ',')
            return -EINVAL;
        text = end + 1;
    }
    return -EMSGSIZE;
}

int store_set_perms(struct store *store, store_txn txn, const char *path, const char *text)
{
    struct xs_permissions perms[STORE_PERMS_ENTRIES];
    unsigned count;

    if (!store->handle)
        return -ENOTCONN;
    memset(perms, 0, sizeof(perms)); /* the structure has members newer than some libraries */
    int error = store_parse_perms(text, perms, &count);
    if (error)
        return error;
    if (xs_set_permissions(store_ask(store), txn, path, perms, count))
        return 0;
    return store_error(store);
}

int store_transact(struct store *store, int (*body)(struct store *store, store_txn txn, void *context), void *context)
{
    for (int i = 0; i < STORE_TRANSACTION_TRIES; i++) {
        if (!store->handle)
            return -ENOTCONN;
        xs_transaction_t txn = xs_transaction_start(store_ask(store));
        if (txn == XBT_NULL)
            return store_error(store);

        int error = body(store, txn, context);
        if (xs_transaction_end(store_ask(store), txn, error != 0)) {
            if (error != -EAGAIN)
                return error;
        } else if (error) {
            return error;
        } else if (errno != EAGAIN) {
            return store_error(store);
        }
        atomic_fetch_add_explicit(&store->conflicts, 1, memory_order_relaxed);
    }
    return -EAGAIN;
}

void store_counts(const struct store *store, struct store_counts *counts)
{
    counts->round_trips = atomic_load_explicit(&store->round_trips, memory_order_relaxed);
    counts->conflicts = atomic_load_explicit(&store->conflicts, memory_order_relaxed);
}
