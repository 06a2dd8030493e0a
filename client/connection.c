/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/connection.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Longer than any list the daemon sends; a peer that goes on past it is not p2mguardd. */
#define CONNECTION_TEXT_MAX (16 * 1024 * 1024)

struct connection_text {
    char *bytes;
    size_t used, room;
};

struct connection {
    int fd;
    int64_t last_id;
    struct connection_text input;  /* what has been read and is not a whole line yet */
    struct connection_text output; /* what has not been written yet */
    json_t *replies;               /* array, in the order in which they came */
    json_t *events;
};

int connection_open(struct connection **result, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct connection *connection;
    int error;

    if (strlen(path) >= sizeof(address.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.sun_path, path);
    connection = calloc(1, sizeof(*connection));
    if (!connection)
        return -ENOMEM;
    connection->replies = json_array();
    connection->events = json_array();
    connection->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        error = -errno;
    else
        error = connection->replies && connection->events ? 0 : -ENOMEM;
    if (error) {
        connection_close(connection);
        return error;
    }
    *result = connection;
    return 0;
}

void connection_close(struct connection *connection)
{
    if (!connection)
        return;
    if (connection->fd >= 0)
        close(connection->fd);
    json_decref(connection->replies);
    json_decref(connection->events);
    free(connection->input.bytes);
    free(connection->output.bytes);
    free(connection);
}

int connection_fd(const struct connection *connection)
{
    return connection->fd;
}

short connection_poll_events(const struct connection *connection)
{
    return connection->output.used ? POLLIN | POLLOUT : POLLIN;
}

/* Room for `more` bytes. */
static int connection_make_room(struct connection_text *text, size_t more)
{
    size_t room = text->room ? text->room : 4096;

    while (room - text->used < more)
        room *= 2;
    if (room > CONNECTION_TEXT_MAX)
        return -EMSGSIZE;
    if (room == text->room)
        return 0;
    char *bytes = realloc(text->bytes, room);
    if (!bytes)
        return -ENOMEM;
    text->bytes = bytes;
    text->room = room;
    return 0;
}

static void connection_drop(struct connection_text *text, size_t length)
{
    text->used -= length;
    memmove(text->bytes, text->bytes + length, text->used);
}

static int connection_flush(struct connection *connection)
{
    struct connection_text *output = &connection->output;

    while (output->used > 0) {
        ssize_t written = send(connection->fd, output->bytes, output->used, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno == EAGAIN)
            return 0;
        if (written < 0)
            return errno == ECONNRESET ? -EPIPE : -errno;
        connection_drop(output, (size_t)written);
    }
    return 0;
}

static int connection_put(struct connection *connection, const char *line)
{
    struct connection_text *output = &connection->output;
    size_t length = strlen(line);
    int error = connection_make_room(output, length + 1);

    if (error)
        return error;
    memcpy(output->bytes + output->used, line, length);
    output->bytes[output->used + length] = '\n';
    output->used += length + 1;
    return connection_flush(connection);
}

int64_t connection_send(struct connection *connection, const char *method, json_t *params)
{
    int64_t id = ++connection->last_id;
    json_t *request =
        json_pack("{s:s,s:I,s:s,s:o*}", "jsonrpc", "2.0", "id", (json_int_t)id, "method", method, "params", params);
    char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    int error = text ? 0 : -ENOMEM;

    json_decref(request);
    if (!error)
        error = connection_put(connection, text);
    free(text);
    return error ? error : id;
}

/* What is neither a reply nor an event is of a newer protocol, and not for us. */
static int connection_take_line(struct connection *connection, const char *line, size_t length)
{
    json_t *message = json_loadb(line, length, 0, NULL);
    int error = 0;

    if (!json_is_object(message))
        error = -EPROTO;
    else if (json_object_get(message, "id"))
        error = json_array_append(connection->replies, message) < 0 ? -ENOMEM : 0;
    else if (json_object_get(message, "params"))
        error = json_array_append(connection->events, json_object_get(message, "params")) < 0 ? -ENOMEM : 0;
    json_decref(message);
    return error;
}

static int connection_take_lines(struct connection *connection)
{
    struct connection_text *input = &connection->input;
    char *start = input->bytes, *end;
    int error = 0;

    while (!error && (end = memchr(start, '\n', input->used - (size_t)(start - input->bytes)))) {
        error = connection_take_line(connection, start, (size_t)(end - start));
        start = end + 1;
    }
    connection_drop(input, (size_t)(start - input->bytes));
    return error;
}

static int connection_read(struct connection *connection)
{
    struct connection_text *input = &connection->input;

    for (;;) {
        int error = connection_make_room(input, 4096);
        if (error)
            return error;
        ssize_t length = recv(connection->fd, input->bytes + input->used, input->room - input->used, MSG_DONTWAIT);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return errno == EAGAIN ? 0 : -EPIPE;
        if (length == 0)
            return -EPIPE;
        input->used += (size_t)length;
        error = connection_take_lines(connection);
        if (error)
            return error;
    }
}

/* Reads also where nothing can be written any more: what came before the daemon went is worth having. */
int connection_take_in(struct connection *connection)
{
    int error = connection_flush(connection);
    int read_error = connection_read(connection);

    return read_error ? read_error : error;
}

static json_t *connection_remove(json_t *array, size_t index)
{
    json_t *item = json_incref(json_array_get(array, index));

    json_array_remove(array, index);
    return item;
}

json_t *connection_reply(struct connection *connection, int64_t id)
{
    json_t *reply;
    size_t i;

    json_array_foreach(connection->replies, i, reply) if (json_integer_value(json_object_get(reply, "id")) ==
                                                          id) return connection_remove(connection->replies, i);
    return NULL;
}

json_t *connection_event(struct connection *connection)
{
    return json_array_size(connection->events) ? connection_remove(connection->events, 0) : NULL;
}

static const char *connection_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

void connection_error_text(const json_t *error, char *text, size_t size)
{
    const json_t *data = json_object_get(error, "data");
    const char *message = connection_string(error, "message"), *what = connection_string(data, "what");
    const char *where = connection_string(data, "where"), *expected = connection_string(data, "expected");

    snprintf(text, size, "%s%s%s%s%s%s%s", *message ? message : "an error without a message", *what ? ": " : "", what,
             *where ? ", in " : "", where, *expected ? "; expected " : "", expected);
}

int connection_wait(struct connection *connection, int timeout_ms)
{
    struct pollfd fd = {.fd = connection->fd, .events = connection_poll_events(connection)};
    int count = poll(&fd, 1, timeout_ms);

    return count < 0 ? -errno : count;
}

int connection_call(struct connection *connection, const char *method, json_t *params, json_t **result, json_t **error)
{
    int64_t id = connection_send(connection, method, params);
    json_t *reply = NULL;
    int failure = id < 0 ? (int)id : 0;

    *result = NULL;
    *error = NULL;
    while (!failure && !(reply = connection_reply(connection, id))) {
        int ready = connection_wait(connection, -1);
        if (ready < 0 && ready != -EINTR)
            failure = ready;
        else if (ready > 0)
            failure = connection_take_in(connection);
        /* What came before the daemon went may hold the reply. */
        if (failure && (reply = connection_reply(connection, id)))
            break;
    }
    if (!reply)
        return failure;
    *error = json_incref(json_object_get(reply, "error"));
    *result = json_incref(json_object_get(reply, "result"));
    json_decref(reply);
    return *error ? -EREMOTEIO : 0;
}
