/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the agent needs of daemon/store.h, for the static program, on xenstore's wire protocol itself.
 *
 * libxenstore.a is made for programs without threads: its fd does not tell of watch events then. One request is under
 * way at a time; events that come before its reply are kept. Only the device or socket in XENSTORED_PATH is opened.
 */
#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <xen/io/xs_wire.h>

/* The device takes no more than this, the header included. */
#define WIRE_MESSAGE_MAX XENSTORE_PAYLOAD_MAX

struct wire_event {
    struct wire_event *next;
    char path[STORE_PATH_MAX], token[64];
};

struct store {
    int fd; /* -1 = no connection */
    struct wire_event *events, **events_end;
    char body[XENSTORE_PAYLOAD_MAX + 1]; /* of the message read last, with a NUL behind it */
};

/* ---- connection ---- */

int store_new(struct store **result, bool watches_apart)
{
    (void)watches_apart; /* there is no thread here */
    struct store *store = calloc(1, sizeof(*store));

    if (!store)
        return -ENOMEM;
    store->fd = -1;
    store->events_end = &store->events;
    *result = store;
    return 0;
}

void store_free(struct store *store)
{
    if (!store)
        return;
    store_disconnect(store);
    free(store);
}

void store_disconnect(struct store *store)
{
    if (store->fd >= 0)
        close(store->fd);
    store->fd = -1;
    while (store->events) {
        struct wire_event *event = store->events;
        store->events = event->next;
        free(event);
    }
    store->events_end = &store->events;
}

static int wire_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = -errno;
    close(fd);
    return error;
}

int store_reconnect(struct store *store)
{
    const char *path = getenv("XENSTORED_PATH");
    struct stat status;
    int fd;

    store_disconnect(store);
    if (!path || stat(path, &status) < 0)
        return path ? -errno : -ENOENT;
    if (S_ISSOCK(status.st_mode)) {
        fd = wire_connect(path);
    } else {
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            fd = -errno;
    }
    if (fd < 0)
        return fd;
    store->fd = fd;
    return 0;
}

int store_fd(const struct store *store)
{
    return store->fd;
}

/* ---- messages ---- */

/* Whatever fails half-way leaves a stream that cannot be followed any more. */
static int wire_lose(struct store *store)
{
    store_disconnect(store);
    return -ENOTCONN;
}

static bool wire_read_bytes(int fd, void *data, size_t length)
{
    char *to = data;

    while (length > 0) {
        ssize_t count = read(fd, to, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        to += count;
        length -= (size_t)count;
    }
    return true;
}

static bool wire_write_bytes(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t count = write(fd, data, length);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return false;
        data += count;
        length -= (size_t)count;
    }
    return true;
}

static int wire_read_message(struct store *store, struct xsd_sockmsg *header)
{
    if (!wire_read_bytes(store->fd, header, sizeof(*header)) || header->len > XENSTORE_PAYLOAD_MAX ||
        !wire_read_bytes(store->fd, store->body, header->len))
        return wire_lose(store);
    store->body[header->len] = '\0';
    return 0;
}

/* The body is a path and a token, each with its NUL. */
static int wire_keep_event(struct store *store, uint32_t length)
{
    size_t path_length = strnlen(store->body, length);
    struct wire_event *event = calloc(1, sizeof(*event));

    /* An event must not get lost unnoticed. */
    if (!event)
        return wire_lose(store);
    snprintf(event->path, sizeof(event->path), "%s", store->body);
    snprintf(event->token, sizeof(event->token), "%s", path_length < length ? store->body + path_length + 1 : "");
    *store->events_end = event;
    store->events_end = &event->next;
    return 0;
}

static int wire_errno(const char *name)
{
    for (size_t i = 0; i < sizeof(xsd_errors) / sizeof(xsd_errors[0]); i++)
        if (strcmp(xsd_errors[i].errstring, name) == 0)
            return -xsd_errors[i].errnum;
    return -EINVAL;
}

/* The reply's length, with the reply in store->body; or a negative errno. */
static int wire_request(struct store *store, uint32_t type, const char *payload, size_t length)
{
    char message[WIRE_MESSAGE_MAX];
    struct xsd_sockmsg header = {.type = type, .len = (uint32_t)length};

    if (store->fd < 0)
        return -ENOTCONN;
    if (length > sizeof(message) - sizeof(header))
        return -E2BIG;
    memcpy(message, &header, sizeof(header));
    memcpy(message + sizeof(header), payload, length);
    if (!wire_write_bytes(store->fd, message, sizeof(header) + length))
        return wire_lose(store);
    for (;;) {
        int error = wire_read_message(store, &header);
        if (!error && header.type == XS_WATCH_EVENT)
            error = wire_keep_event(store, header.len);
        if (error)
            return error;
        if (header.type == XS_ERROR)
            return wire_errno(store->body);
        if (header.type != XS_WATCH_EVENT)
            return header.type == type ? (int)header.len : wire_lose(store);
    }
}

/* Two texts, each with its NUL, or the second without it. */
static int wire_request_pair(struct store *store, uint32_t type, const char *first, const char *second, bool ends)
{
    char payload[WIRE_MESSAGE_MAX];
    size_t first_length = strlen(first) + 1, second_length = strlen(second) + (ends ? 1 : 0);

    if (first_length + second_length > sizeof(payload))
        return -E2BIG;
    memcpy(payload, first, first_length);
    memcpy(payload + first_length, second, second_length);
    int length = wire_request(store, type, payload, first_length + second_length);
    return length < 0 ? length : 0;
}

/* ---- requests ---- */

bool store_alive(struct store *store)
{
    return wire_request(store, XS_GET_DOMAIN_PATH, "0", 2) >= 0;
}

int store_watch(struct store *store, const char *path, const char *token)
{
    int error = wire_request_pair(store, XS_WATCH, path, token, true);

    return error == -EEXIST ? 0 : error;
}

int store_read(struct store *store, store_txn txn, const char *path, char *value, size_t size)
{
    (void)txn;
    int length = wire_request(store, XS_READ, path, strlen(path) + 1);

    if (length < 0)
        return length;
    if ((size_t)length >= size || memchr(store->body, '\0', (size_t)length))
        return -EMSGSIZE;
    memcpy(value, store->body, (size_t)length + 1);
    return 0;
}

int store_write(struct store *store, store_txn txn, const char *path, const char *value)
{
    (void)txn;
    return wire_request_pair(store, XS_WRITE, path, value, false);
}

int store_remove(struct store *store, store_txn txn, const char *path)
{
    (void)txn;
    int length = wire_request(store, XS_RM, path, strlen(path) + 1);

    return length < 0 && length != -ENOENT ? length : 0;
}

int store_next_event(struct store *store, char *path, size_t path_size, char *token, size_t token_size)
{
    struct pollfd fd = {.fd = store->fd, .events = POLLIN};
    struct xsd_sockmsg header;

    while (!store->events) {
        if (store->fd < 0)
            return -ENOTCONN;
        if (poll(&fd, 1, 0) <= 0)
            return 0;
        int error = wire_read_message(store, &header);
        /* No request is under way: what else comes is nothing that was asked for. */
        if (!error && header.type == XS_WATCH_EVENT)
            error = wire_keep_event(store, header.len);
        if (error)
            return error;
    }
    struct wire_event *event = store->events;
    store->events = event->next;
    if (!store->events)
        store->events_end = &store->events;
    snprintf(path, path_size, "%s", event->path);
    snprintf(token, token_size, "%s", event->token);
    free(event);
    return 1;
}
