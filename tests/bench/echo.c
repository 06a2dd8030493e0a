/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The least that a server with libevent does: a line comes, a line goes. What goes is always the same, and as long as
 * the answer of the daemon that it is compared with, so that both carry the same bytes.
 *
 * echo SOCKET FILE [all]: the line is the file's. With "all" every connection is told when one of them says something.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

struct connection {
    LIST_ENTRY(connection) link;
    struct bufferevent *stream;
};

static LIST_HEAD(, connection) connections = LIST_HEAD_INITIALIZER(connections);
static char answer[1024 * 1024];
static size_t answer_length;
static int tells_all;

static void on_read(struct bufferevent *stream, void *context)
{
    struct evbuffer *in = bufferevent_get_input(stream);
    struct connection *connection;
    char *line;
    (void)context;

    while ((line = evbuffer_readln(in, NULL, EVBUFFER_EOL_LF))) {
        free(line);
        if (!tells_all) {
            bufferevent_write(stream, answer, answer_length);
            continue;
        }
        LIST_FOREACH(connection, &connections, link)
        {
            bufferevent_write(connection->stream, answer, answer_length);
        }
    }
}

static void on_event(struct bufferevent *stream, short what, void *context)
{
    struct connection *connection = context;
    (void)what;

    LIST_REMOVE(connection, link);
    bufferevent_free(stream);
    free(connection);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                      void *base)
{
    struct connection *connection = calloc(1, sizeof(*connection));
    (void)listener, (void)address, (void)length;

    if (!connection || !(connection->stream = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE))) {
        free(connection);
        close(fd);
        return;
    }
    LIST_INSERT_HEAD(&connections, connection, link);
    bufferevent_setcb(connection->stream, on_read, NULL, on_event, connection);
    bufferevent_enable(connection->stream, EV_READ | EV_WRITE);
}

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct event_base *base = event_base_new();
    FILE *file = argc == 3 || argc == 4 ? fopen(argv[2], "r") : NULL;

    if (!base || !file || strlen(argv[1]) >= sizeof(address.sun_path)) {
        fprintf(stderr, "usage: echo SOCKET FILE [all]\n");
        return 2;
    }
    tells_all = argc == 4;
    answer_length = fread(answer, 1, sizeof(answer), file);
    fclose(file);
    strcpy(address.sun_path, argv[1]);
    if (!evconnlistener_new_bind(base, on_accept, base, LEV_OPT_CLOSE_ON_FREE, 512, (struct sockaddr *)&address,
                                 sizeof(address))) {
        perror(argv[1]);
        return 1;
    }
    return event_base_dispatch(base) < 0;
}
