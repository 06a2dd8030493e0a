/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>

#include "daemon/heap.h"
#include "daemon/log.h"
#include "daemon/reexec.h"
#include "daemon/server-socket.h"
#include "daemon/timer.h"
#include "protocol/names.h"

enum {
    BACKLOG = 128,
    OUTPUT_MAX_BYTES = 256 * 1024,                /* queued for a peer before we stop reading from it ... */
    EVENTS_MAX_BYTES = 128 * 1024,                /* ... before its events wait in the ring ... */
    OUTPUT_LOW_BYTES = 64 * 1024,                 /* ... and when both go on */
    PENDING_MAX = 1024,                           /* calls a peer may have running before we stop reading from it */
    INPUT_MAX_BYTES = 2 * P2MG_MESSAGE_MAX_BYTES, /* read from a peer and not taken in yet */
    RESERVED_SHARE = 16,                          /* of connections and descriptors one in so many */
    TURN_US = 10 * 1000,   /* after which whoever is still to be served waits for the next turn of the loop */
    TURN_LINES = 8,        /* taken from a peer before the others, and the guests, get their turn */
    MODEST_BYTES = 512,    /* of requests that wait to be taken in */
    TURN_ACCEPTS = 64,     /* peers taken in, or turned away, likewise */
    OTHER_DESCRIPTORS = 64 /* below those of connections, as a rule */
};

/* How long a peer whose conversation is over may take to read the last words. */
static const struct timeval linger_time = {.tv_sec = 5};

/* After the next look at all descriptors and timers. */
static const struct timeval next_turn = {0};

/* How long after the end of a connection memory is given back, for all that end until then. */
static const struct timeval tidy_time = {.tv_sec = 2};

/* How long the listener rests when accept fails, which it would do again at once. */
static const struct timeval accept_rest = {.tv_usec = 200 * 1000};

LIST_HEAD(connection_list, connection);
TAILQ_HEAD(connection_queue, connection);

struct server {
    struct event_base *base;
    struct server_options options;
    struct server_socket socket; /* its path is ours */
    struct evconnlistener *listener;
    struct event *accept_again;
    struct connection_list connections;
    struct connection_queue modest;  /* wait for their turn, the next one first: those who ask for little */
    struct connection_queue leaving; /* those who take up a place, and ask for nothing */
    struct connection_queue greedy;  /* and those who ask for more, when there is time left */
    struct event *serve;
    struct event *tidy;
    struct timeval turn;   /* the loop's time in this turn, which makes it another one than the last */
    int64_t turn_began_us; /* when the first connection was served in it */
    unsigned count;
    unsigned descriptors; /* of all connections */
    unsigned accepted;    /* since the listener rested */
    bool starved;         /* accept failed the last time, and the log knows */
    uint64_t last_id;
};

struct connection {
    LIST_ENTRY(connection) link;
    TAILQ_ENTRY(connection) place;
    struct connection_queue *queue; /* where it waits, or NULL */
    struct server *server;
    uint64_t id;
    bool may_change;
    struct bufferevent *stream;
    struct event *wake; /* looks at the connection again from the loop; after the conversation, the linger timer */
    /*
     * Tells of a peer that is gone while we do not read, on a descriptor of its own: the loop cannot watch one
     * descriptor both for its level (the stream) and for its edge, and this must not fire over and over.
     */
    int hangup_fd;
    struct event *hangup;
    struct rpc_channel *channel; /* NULL once the conversation is over */
    struct events_listener *listener;
    unsigned caught; /* events in this turn, of those that it has to catch up with */
    bool behind;     /* there may be such */
    size_t scanned;  /* bytes of input known to hold no newline */
    bool listening;  /* the loop has turned since the subscription */
    bool paused;     /* not read from, until it drains */
    bool ended;      /* it will send no more */
    bool mute;       /* it will read no more */
    bool broken;     /* an answer was lost for want of memory: better no conversation than one with holes */
    bool shut_write; /* we have said our last word */
};

/* ---- Who is there ---- */

static bool groups_contain(const gid_t *groups, size_t count, gid_t group)
{
    for (size_t i = 0; i < count; i++) {
        if (groups[i] == group)
            return true;
    }
    return false;
}

/* Whether the peer had the group among its supplementary ones when it connected. When in doubt, it had not. */
static bool peer_has_group(int fd, gid_t group)
{
    socklen_t size = 0;
    gid_t *groups;
    bool found = false;

    /* With no room the kernel answers how much it takes. */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &size) == 0 || errno != ERANGE || size == 0)
        return false;
    groups = malloc(size);
    if (groups != NULL && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0)
        found = groups_contain(groups, size / sizeof *groups, group);
    free(groups);
    return found;
}

static int peer_read(int fd, gid_t group, struct rpc_peer *peer)
{
    struct ucred credentials;
    socklen_t size = sizeof credentials;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
        return -errno;
    peer->pid = credentials.pid;
    peer->uid = credentials.uid;
    peer->gid = credentials.gid;
    peer->may_change =
        credentials.uid == 0 || (group != (gid_t)-1 && (credentials.gid == group || peer_has_group(fd, group)));
    return 0;
}

/* ---- The end of a connection ---- */

static void connection_leave_queue(struct connection *connection)
{
    if (connection->queue != NULL)
        TAILQ_REMOVE(connection->queue, connection, place);
    connection->queue = NULL;
}

/* Ends the conversation: calls still running answer nobody, what the connection held is released. */
static void connection_retire(struct connection *connection)
{
    const struct server_options *options = &connection->server->options;

    if (connection->channel == NULL)
        return;
    rpc_channel_free(connection->channel);
    connection->channel = NULL;
    events_unlisten(connection->listener);
    connection->listener = NULL;
    event_del(connection->wake);
    connection_leave_queue(connection);
    if (options->on_close != NULL)
        options->on_close(connection->id, options->method_context);
}

/* We read again, and the end of the input will tell when the peer goes. */
static void connection_forget_hangup(struct connection *connection)
{
    timer_free(connection->hangup);
    connection->hangup = NULL;
    if (connection->hangup_fd < 0)
        return;
    close(connection->hangup_fd);
    connection->hangup_fd = -1;
    connection->server->descriptors--;
}

/* Frees whatever of a connection has come to exist, but for the descriptor it was made from. */
static void connection_dispose(struct connection *connection)
{
    connection_forget_hangup(connection);
    timer_free(connection->wake);
    rpc_channel_free(connection->channel);
    if (connection->stream != NULL)
        bufferevent_free(connection->stream);
    free(connection);
}

static void connection_free(struct connection *connection)
{
    int fd;

    connection_retire(connection);
    LIST_REMOVE(connection, link);
    connection->server->count--;
    connection->server->descriptors--;
    if (!evtimer_pending(connection->server->tidy, NULL))
        event_add(connection->server->tidy, &tidy_time);
    fd = bufferevent_getfd(connection->stream);
    connection_dispose(connection);
    close(fd);
}

/* What is queued for a peer that still reads. */
static size_t connection_queued(const struct connection *connection)
{
    return connection->mute ? 0 : evbuffer_get_length(bufferevent_get_output(connection->stream));
}

/*
 * After the conversation: lets the peer read what is queued, and throws away what it still sends, since closing with
 * input unread would take the last words from it. The linger timer sees to the end of it.
 */
static void connection_linger(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);

    evbuffer_drain(input, evbuffer_get_length(input));
    if (connection->mute || (connection->ended && connection_queued(connection) == 0)) {
        connection_free(connection);
        return;
    }
    if (connection_queued(connection) == 0 && !connection->shut_write) {
        connection->shut_write = true;
        shutdown(bufferevent_getfd(connection->stream), SHUT_WR);
    }
}

static void connection_finish(struct connection *connection)
{
    connection_retire(connection);
    if (event_add(connection->wake, &linger_time) < 0 || bufferevent_enable(connection->stream, EV_READ) < 0)
        connection_free(connection);
    else
        connection_linger(connection);
}

/* ---- Lines ---- */

/*
 * What the peer's buffer has room for is sent at once: to queue it takes the loop another turn, and three more system
 * calls. How much that was; an error is the stream's to find, in what is queued.
 */
static size_t connection_send(struct connection *connection, const char *line, size_t length)
{
    ssize_t sent;

    if (connection_queued(connection) > 0)
        return 0;
    sent = send(bufferevent_getfd(connection->stream), line, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent > 0 ? (size_t)sent : 0;
}

/* rpc_write: may run inside a method, so that nothing may be closed here. */
static void connection_write(void *context, const char *line, size_t length)
{
    struct connection *connection = context;
    size_t sent = length > 0 && !connection->mute ? connection_send(connection, line, length) : length;

    if (sent < length && bufferevent_write(connection->stream, line + sent, length - sent) < 0)
        connection->broken = true;
    if (connection->ended || connection->paused || connection->broken)
        event_active(connection->wake, EV_WRITE, 1);
}

static void connection_refuse_line(struct connection *connection)
{
    static const char refusal[] = "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32600,"
                                  "\"message\":\"Invalid Request\",\"data\":{"
                                  "\"what\":\"a message is at most 65536 bytes long, with its newline\","
                                  "\"where\":\"message\"}}}\n";
    _Static_assert(P2MG_MESSAGE_MAX_BYTES == 65536, "the refusal names another limit");

    connection_write(connection, refusal, sizeof refusal - 1);
}

/* The length of the first line, without its newline, or -1 while there is no end of it. */
static ssize_t connection_find_line(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);
    struct evbuffer_iovec first;
    struct evbuffer_ptr at;

    /* Most lines are short, and in one piece. */
    if (connection->scanned == 0 && evbuffer_peek(input, 1, NULL, &first, 1) > 0) {
        const char *end = memchr(first.iov_base, '\n', first.iov_len);

        if (end != NULL)
            return end - (const char *)first.iov_base;
    }
    if (evbuffer_ptr_set(input, &at, connection->scanned, EVBUFFER_PTR_SET) < 0)
        return -1;
    at = evbuffer_search_eol(input, &at, NULL, EVBUFFER_EOL_LF);
    if (at.pos < 0)
        connection->scanned = evbuffer_get_length(input);
    return at.pos;
}

/* Takes one line in. Returns whether there may be another. */
static bool connection_take_line(struct connection *connection, bool *oversized)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);
    ssize_t length = connection_find_line(connection);
    const unsigned char *line;

    *oversized =
        length >= P2MG_MESSAGE_MAX_BYTES || (length < 0 && evbuffer_get_length(input) >= P2MG_MESSAGE_MAX_BYTES);
    if (*oversized || length < 0)
        return false;
    line = evbuffer_pullup(input, length + 1);
    if (line == NULL) {
        connection->broken = true;
        return false;
    }
    rpc_channel_take_line(connection->channel, (const char *)line, (size_t)length);
    evbuffer_drain(input, (size_t)length + 1);
    connection->scanned = 0;
    return evbuffer_get_length(input) > 0;
}

/* ---- What next ---- */

static bool connection_is_full(const struct connection *connection)
{
    return connection_queued(connection) > OUTPUT_MAX_BYTES || rpc_channel_pending(connection->channel) > PENDING_MAX;
}

/* Whether the peer has closed both ways, and not just the one it sends on. */
static bool connection_is_deserted(const struct connection *connection)
{
    struct pollfd look = {.fd = bufferevent_getfd(connection->stream)};

    return connection->mute || (poll(&look, 1, 0) == 1 && (look.revents & POLLHUP) != 0);
}

/*
 * Whether nothing more can come of this connection. As long as we read, the end of the input will tell; a peer that
 * is gone may have left requests that are to be obeyed.
 */
static bool connection_is_done(const struct connection *connection)
{
    if (connection->ended && rpc_channel_pending(connection->channel) == 0 && connection_queued(connection) == 0)
        return true;
    return (connection->ended || connection->paused) && connection_is_deserted(connection);
}

/* The last ones, of whatever it is, are for those who may do more than read: nobody else is to keep them out. */
static bool server_has_left(unsigned used, unsigned most, bool may_change)
{
    return used < most && (may_change || used + most / RESERVED_SHARE < most);
}

static void connection_on_hangup(evutil_socket_t fd, short what, void *context);

/* From now on we may not read, and want to know all the same when the peer goes. False for want of a descriptor. */
static bool connection_mind_hangup(struct connection *connection)
{
    struct server *server = connection->server;

    if (connection->hangup != NULL)
        return true;
    if (!server_has_left(server->descriptors, server->options.max_descriptors, connection->may_change))
        return false;
    connection->hangup_fd = fcntl(bufferevent_getfd(connection->stream), F_DUPFD_CLOEXEC, 0);
    if (connection->hangup_fd < 0)
        return false;
    server->descriptors++;
    connection->hangup = event_new(server->base, connection->hangup_fd, EV_CLOSED | EV_ET | EV_PERSIST,
                                   connection_on_hangup, connection);
    return connection->hangup != NULL && event_add(connection->hangup, NULL) == 0;
}

static void connection_pause(struct connection *connection, bool pause)
{
    if (pause == connection->paused)
        return;
    connection->paused = pause;
    if (connection->ended)
        return;
    if (pause)
        bufferevent_disable(connection->stream, EV_READ);
    else if (bufferevent_enable(connection->stream, EV_READ) < 0)
        connection->broken = true;
}

static int64_t time_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* Whether connections have had their share of this turn of the loop. */
static bool server_is_through(struct server *server)
{
    struct timeval turn;
    int64_t now_us = time_us();

    if (event_base_gettimeofday_cached(server->base, &turn) == 0 &&
        (turn.tv_sec != server->turn.tv_sec || turn.tv_usec != server->turn.tv_usec)) {
        server->turn = turn;
        server->turn_began_us = now_us;
    }
    return now_us - server->turn_began_us >= TURN_US;
}

/*
 * Whoever waits for an answer before he asks again never has sent much: others may be kept waiting for him, and so may
 * those who only want to leave.
 */
static struct connection_queue *connection_choose_queue(const struct connection *connection)
{
    size_t asked = evbuffer_get_length(bufferevent_get_input(connection->stream));

    if (asked == 0 && (connection->ended || connection->mute))
        return &connection->server->leaving;
    if (asked > MODEST_BYTES || connection->behind || connection->mute)
        return &connection->server->greedy;
    return &connection->server->modest;
}

static void connection_wait(struct connection *connection)
{
    struct server *server = connection->server;

    if (connection->queue != NULL)
        return;
    connection->queue = connection_choose_queue(connection);
    TAILQ_INSERT_TAIL(connection->queue, connection, place);
    if (!evtimer_pending(server->serve, NULL))
        event_add(server->serve, &next_turn);
}

/* ---- Events ---- */

/* events_deliver */
static bool connection_deliver(void *context, const char *event, size_t length)
{
    struct connection *connection = context;

    if (!connection->listening || connection_queued(connection) > EVENTS_MAX_BYTES)
        return false;
    if (connection->behind && connection->caught > 0 && server_is_through(connection->server))
        return false;
    connection->caught++;
    rpc_channel_notify(connection->channel, "event", event, length);
    return true;
}

/* Sends what there is, as far as peer and turn allow. Returns whether the turn has not been enough. */
static bool connection_catch_up(struct connection *connection)
{
    if (!connection->behind || !connection->listening)
        return false;
    connection->caught = 0;
    if (connection->listener != NULL)
        events_resume(connection->listener);
    connection->behind = connection->caught > 0 && server_is_through(connection->server) &&
                         connection_queued(connection) <= EVENTS_MAX_BYTES;
    return connection->behind;
}

/* Takes in some of the lines there are, stops or starts reading, closes the connection when it is done. */
static void connection_serve(struct connection *connection)
{
    bool oversized = false;
    bool late = connection_catch_up(connection);
    bool more = true;

    for (int i = 0; i < TURN_LINES && more && (i == 0 || !server_is_through(connection->server)); i++)
        more = !connection_is_full(connection) && connection_take_line(connection, &oversized);
    connection_pause(connection, connection_is_full(connection));
    if (!connection->paused && !connection->ended)
        connection_forget_hangup(connection);
    else if (!connection_mind_hangup(connection))
        connection->broken = true;
    if (oversized)
        connection_refuse_line(connection);
    if (oversized || connection->broken)
        connection_finish(connection);
    else if (more || late)
        connection_wait(connection);
    else if (connection_is_done(connection))
        connection_free(connection);
}

/*
 * Moves a connection on after anything has happened to it; at once when nobody waits that comes before it, else when it
 * is its turn. Called last in every callback, since it may free the connection.
 */
static void connection_settle(struct connection *connection)
{
    struct server *server = connection->server;
    bool first = TAILQ_EMPTY(&server->modest) && TAILQ_EMPTY(connection_choose_queue(connection));

    if (connection->channel == NULL)
        connection_linger(connection);
    else if (!first || server_is_through(server))
        connection_wait(connection);
    else
        connection_serve(connection);
}

/* Each of those that wait in a queue once, as far as the time goes, and so many in any case. */
static void server_serve_queue(struct server *server, struct connection_queue *queue, int least)
{
    const struct connection *last = TAILQ_LAST(queue, connection_queue);
    struct connection *connection;
    bool was_last = false;

    while (!was_last && (connection = TAILQ_FIRST(queue)) != NULL && (least-- > 0 || !server_is_through(server))) {
        was_last = connection == last;
        connection_leave_queue(connection);
        /* Who has sent more since he came belongs elsewhere. */
        if (queue != &server->greedy && connection_choose_queue(connection) != queue)
            connection_wait(connection);
        else
            connection_serve(connection);
    }
}

static void server_on_serve(evutil_socket_t fd, short what, void *context)
{
    struct server *server = context;

    (void)fd;
    (void)what;
    server_serve_queue(server, &server->modest, 0);
    server_serve_queue(server, &server->leaving, 2 * TURN_ACCEPTS); /* never behind those who come */
    server_serve_queue(server, &server->greedy, 1);
    if (!TAILQ_EMPTY(&server->modest) || !TAILQ_EMPTY(&server->leaving) || !TAILQ_EMPTY(&server->greedy))
        event_add(server->serve, &next_turn);
}

/* ---- Subscriptions ---- */

static struct connection *connection_find(const struct server *server, uint64_t id)
{
    struct connection *connection;

    LIST_FOREACH(connection, &server->connections, link)
    {
        if (connection->id == id && connection->channel != NULL)
            return connection;
    }
    return NULL;
}

int server_subscribe(struct server *server, uint64_t id, uint64_t from)
{
    struct connection *connection = connection_find(server, id);
    struct events_listener *listener;

    if (connection == NULL)
        return -ENOTCONN;
    listener = events_listen(server->options.events, from, connection_deliver, connection);
    if (listener == NULL)
        return -ENOMEM;
    events_unlisten(connection->listener);
    connection->listener = listener;
    connection->listening = false;
    connection->behind = true;
    event_active(connection->wake, EV_WRITE, 1);
    return 0;
}

/* ---- Callbacks of the loop ---- */

static void connection_on_read(struct bufferevent *stream, void *context)
{
    (void)stream;
    connection_settle(context);
}

/* The output has come down to OUTPUT_LOW_BYTES. */
static void connection_on_drained(struct bufferevent *stream, void *context)
{
    struct connection *connection = context;

    (void)stream;
    connection->behind = connection->listener != NULL;
    connection_settle(connection);
}

static void connection_on_event(struct bufferevent *stream, short what, void *context)
{
    struct connection *connection = context;

    (void)stream;
    if ((what & BEV_EVENT_WRITING) != 0) {
        connection->mute = true;
        if (connection->channel != NULL)
            rpc_channel_deafen(connection->channel);
    } else {
        connection->ended = true;
    }
    connection_settle(connection);
}

static void connection_on_hangup(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    connection_settle(context);
}

static void connection_on_wake(evutil_socket_t fd, short what, void *context)
{
    struct connection *connection = context;

    (void)fd;
    (void)what;
    if (connection->channel == NULL) {
        connection_free(connection);
        return;
    }
    connection->listening = true;
    connection_settle(connection);
}

/* ---- The beginning of a connection ---- */

static int connection_open(struct connection *connection, struct event_base *base)
{
    struct bufferevent *stream = connection->stream;

    connection->wake = event_new(base, -1, 0, connection_on_wake, connection);
    if (connection->wake == NULL)
        return -ENOMEM;
    bufferevent_setcb(stream, connection_on_read, connection_on_drained, connection_on_event, connection);
    bufferevent_setwatermark(stream, EV_WRITE, OUTPUT_LOW_BYTES, 0);
    bufferevent_setwatermark(stream, EV_READ, 0, INPUT_MAX_BYTES);
    return bufferevent_enable(stream, EV_READ | EV_WRITE) < 0 ? -ENOMEM : 0;
}

/* Takes over `fd` when it succeeds. */
static int connection_new(struct server *server, int fd, uint64_t id, struct connection **result)
{
    struct rpc_peer peer = {.connection = id};
    struct connection *connection;
    int error = peer_read(fd, server->options.group, &peer);

    if (error < 0)
        return error;
    connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return -ENOMEM;
    connection->server = server;
    connection->id = peer.connection;
    connection->may_change = peer.may_change;
    connection->hangup_fd = -1;
    connection->stream = bufferevent_socket_new(server->base, fd, 0);
    connection->channel =
        rpc_channel_new(server->options.methods, server->options.method_context, &peer, connection_write, connection);
    error =
        connection->stream != NULL && connection->channel != NULL ? connection_open(connection, server->base) : -ENOMEM;
    if (error < 0) {
        connection_dispose(connection);
        return error;
    }
    rpc_channel_on_asked(connection->channel, server->options.asked);
    rpc_channel_on_ended(connection->channel, server->options.ended);
    LIST_INSERT_HEAD(&server->connections, connection, link);
    server->count++;
    server->descriptors++;
    *result = connection;
    return 0;
}

static bool server_has_place(const struct server *server, bool may_change)
{
    const struct server_options *options = &server->options;

    return server_has_left(server->count, options->max_connections, may_change) &&
           server_has_left(server->descriptors, options->max_descriptors, may_change);
}

static bool server_has_room(const struct server *server, int fd)
{
    struct rpc_peer peer = {0};

    if (server_has_place(server, false))
        return true;
    return server_has_place(server, true) && peer_read(fd, server->options.group, &peer) == 0 && peer.may_change;
}

/* Tells a peer that it is one too many. It is new, so its buffer has room. */
static void server_refuse(const struct server *server, int fd)
{
    char line[256];
    char unread[4096];
    int length = snprintf(line, sizeof line,
                          "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":%d,\"message\":\"a limit is reached\","
                          "\"data\":{\"what\":\"too many connections\",\"limit\":%u}}}\n",
                          P2MG_ERROR_LIMIT, server->options.max_connections);

    if (send(fd, line, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        return;
    /* Closing with input unread would show the peer a reset after our line, where it expects the end. */
    for (int i = 0; i < 16 && recv(fd, unread, sizeof unread, MSG_DONTWAIT) > 0; i++)
        continue;
}

/* Accepts nobody until then. */
static void server_rest(struct server *server, const struct timeval *how_long)
{
    server->accepted = 0;
    if (event_add(server->accept_again, how_long) == 0)
        evconnlistener_disable(server->listener);
}

static void server_on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                             void *context)
{
    struct server *server = context;
    struct connection *connection;
    int error;

    (void)listener;
    (void)address;
    (void)length;
    server->starved = false;
    if (++server->accepted >= TURN_ACCEPTS)
        server_rest(server, &next_turn);
    if (!server_has_room(server, fd)) {
        server_refuse(server, fd);
        close(fd);
        return;
    }
    error = connection_new(server, fd, server->last_id + 1, &connection);
    if (error < 0) {
        log_warning("a client was turned away: %s", strerror(-error));
        close(fd);
        return;
    }
    server->last_id++;
}

/* Out of descriptors, most likely. The peer stays in the backlog, and we would be called again at once. */
static void server_on_accept_error(struct evconnlistener *listener, void *context)
{
    struct server *server = context;

    (void)listener;
    if (!server->starved)
        log_warning("clients have to wait, accepting them fails: %s", strerror(errno));
    server->starved = true;
    server_rest(server, &accept_rest);
}

static void server_on_accept_again(evutil_socket_t fd, short what, void *context)
{
    struct server *server = context;

    (void)fd;
    (void)what;
    evconnlistener_enable(server->listener);
}

/* ---- What a crowd leaves behind ---- */

/*
 * libevent keeps a record for each descriptor that it has ever watched. Were they made one by one, between what belongs
 * to connections, then they would hold the pages of a crowd that has gone: so they are made now, side by side. What
 * cannot be made now is made when it is needed.
 */
static void server_make_records(struct server *server, int fd)
{
    int most = (int)server->options.max_descriptors + OTHER_DESCRIPTORS;
    struct event *event = event_new(server->base, fd, EV_READ, server_on_serve, server);
    int copy = -1;

    while (event != NULL && copy < most && (copy = fcntl(fd, F_DUPFD_CLOEXEC, copy + 1)) >= 0) {
        bool made = event_assign(event, server->base, copy, EV_READ, server_on_serve, server) == 0 &&
                    event_add(event, NULL) == 0 && event_del(event) == 0;

        close(copy);
        if (!made)
            break;
    }
    timer_free(event);
}

static void server_on_tidy(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    heap_give_back();
}

/* ---- The server ---- */

/* Starts to listen on `fd`, and takes it over when that succeeds. */
static int server_listen(struct server *server, int fd)
{
    /* A socket from activation listens already, with a backlog its unit chose: 0 leaves that as it is. */
    int backlog = server->socket.path != NULL ? BACKLOG : 0;

    if (evutil_make_socket_nonblocking(fd) < 0)
        return -errno;
    server->accept_again = evtimer_new(server->base, server_on_accept_again, server);
    server->serve = evtimer_new(server->base, server_on_serve, server);
    server->tidy = evtimer_new(server->base, server_on_tidy, server);
    if (server->accept_again == NULL || server->serve == NULL || server->tidy == NULL)
        return -ENOMEM;
    server_make_records(server, fd);
    errno = 0;
    server->listener = evconnlistener_new(server->base, server_on_accept, server,
                                          LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, backlog, fd);
    if (server->listener == NULL)
        return errno != 0 ? -errno : -ENOMEM;
    evconnlistener_set_error_cb(server->listener, server_on_accept_error);
    return 0;
}

/* Copies the options; the path only when we are to make a socket there. */
static struct server *server_make(struct event_base *base, const struct server_options *options)
{
    struct server *server = calloc(1, sizeof *server);

    if (server == NULL)
        return NULL;
    server->base = base;
    server->options = *options;
    server->socket.path = options->listen_fd < 0 || options->listen_ours ? strdup(options->path) : NULL;
    LIST_INIT(&server->connections);
    TAILQ_INIT(&server->modest);
    TAILQ_INIT(&server->leaving);
    TAILQ_INIT(&server->greedy);
    if ((options->listen_fd < 0 || options->listen_ours) && server->socket.path == NULL) {
        free(server);
        return NULL;
    }
    return server;
}

int server_new(struct server **result, struct event_base *base, const struct server_options *options)
{
    const int needed = EV_FEATURE_ET | EV_FEATURE_EARLY_CLOSE;
    struct server *server;
    int fd;
    int error;

    if ((event_base_get_features(base) & needed) != needed)
        return -ENOTSUP;
    server = server_make(base, options);
    if (server == NULL)
        return -ENOMEM;
    fd = options->listen_fd >= 0 ? options->listen_fd
                                 : server_socket_make(&server->socket, options->mode, options->group);
    if (fd >= 0 && options->listen_ours)
        server_socket_recognize(&server->socket);
    error = fd < 0 ? fd : server_listen(server, fd);
    if (error < 0) {
        if (fd >= 0 && options->listen_fd < 0)
            close(fd);
        server_free(server);
        return error;
    }
    *result = server;
    return 0;
}

/* Sends what the peer's buffer has room for. The stream keeps its output to itself otherwise. */
static void connection_flush(struct connection *connection)
{
    struct evbuffer *output = bufferevent_get_output(connection->stream);

    if (connection->mute)
        return;
    evbuffer_unfreeze(output, 1);
    while (evbuffer_get_length(output) > 0 && evbuffer_write(output, bufferevent_getfd(connection->stream)) > 0)
        continue;
}

void server_free(struct server *server)
{
    struct connection *connection;

    if (server == NULL)
        return;
    /* First, so that a client turned away finds no socket when it comes back at once. */
    server_socket_remove(&server->socket);
    if (server->listener != NULL)
        evconnlistener_free(server->listener);
    while ((connection = LIST_FIRST(&server->connections)) != NULL) {
        connection_flush(connection);
        connection_free(connection);
    }
    timer_free(server->accept_again);
    timer_free(server->serve);
    timer_free(server->tidy);
    free((char *)(uintptr_t)server->socket.path);
    free(server);
}

/* ---- from one program to the next ---- */

/* Nothing is owed to it, and all of what it has asked for has been taken in but for what is in its buffer still. */
static bool connection_is_at_peace(const struct connection *connection)
{
    return connection->channel != NULL && rpc_channel_pending(connection->channel) == 0 &&
           connection_queued(connection) == 0 && !connection->ended && !connection->mute && !connection->broken &&
           (connection->listener == NULL || !connection->behind);
}

unsigned server_waiting(const struct server *server)
{
    const struct connection *connection;
    unsigned waiting = 0;

    LIST_FOREACH(connection, &server->connections, link)
    {
        waiting += !connection_is_at_peace(connection);
    }
    return waiting;
}

static json_t *connection_save(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);
    size_t length = evbuffer_get_length(input);
    const unsigned char *bytes = length > 0 ? evbuffer_pullup(input, -1) : NULL;

    return json_pack(
        "{s:i,s:I,s:o,s:o}", "fd", (int)bufferevent_getfd(connection->stream), "id", (json_int_t)connection->id,
        "input", reexec_pack_bytes(bytes, bytes != NULL ? length : 0), "events",
        connection->listener != NULL ? json_integer((json_int_t)events_next(connection->server->options.events))
                                     : json_null());
}

json_t *server_save(struct server *server, int **fds, size_t *count)
{
    json_t *all = json_array(), *state;
    struct connection *connection;

    *count = 0;
    *fds = calloc(server->count + 1, sizeof **fds);
    if (*fds == NULL || all == NULL) {
        json_decref(all);
        return NULL;
    }
    (*fds)[(*count)++] = evconnlistener_get_fd(server->listener);
    LIST_FOREACH(connection, &server->connections, link)
    {
        connection_flush(connection);
        if (!connection_is_at_peace(connection))
            continue;
        if (json_array_append_new(all, connection_save(connection)) < 0) {
            json_decref(all);
            return NULL;
        }
        (*fds)[(*count)++] = bufferevent_getfd(connection->stream);
    }
    state = json_pack("{s:i,s:b,s:I,s:o}", "listener", (*fds)[0], "ours", (int)(server->socket.path != NULL), "last_id",
                      (json_int_t)server->last_id, "connections", all);
    return state;
}

int server_saved_listener(const json_t *saved, bool *ours)
{
    int fd = -1, made = 0;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:i,s:b}", "listener", &fd, "ours", &made) < 0)
        return -1;
    *ours = made;
    return fd;
}

/* What the earlier program had read, and not taken in. The stream lets nobody else add to it otherwise. */
static bool connection_put_input(struct connection *connection, const json_t *saved)
{
    struct evbuffer *input = bufferevent_get_input(connection->stream);
    size_t length;
    void *bytes = reexec_unpack_bytes(saved, &length);
    bool put;

    evbuffer_unfreeze(input, 0);
    put = bytes != NULL && evbuffer_add(input, bytes, length) == 0;
    evbuffer_freeze(input, 0);
    free(bytes);
    return put;
}

/* Takes over the descriptor in any case. */
static int server_take_one(struct server *server, const json_t *saved)
{
    struct connection *connection;
    json_int_t id, events = 0;
    json_t *input;
    int fd, error;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:i,s:I,s:o}", "fd", &fd, "id", &id, "input", &input) < 0)
        return -EINVAL;
    error = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : connection_new(server, fd, (uint64_t)id, &connection);
    if (error < 0) {
        close(fd);
        return error;
    }
    if (!connection_put_input(connection, input))
        connection->broken = true;
    events = json_integer_value(json_object_get(saved, "events"));
    if (events > 0 && server_subscribe(server, connection->id, (uint64_t)events) < 0)
        connection->broken = true;
    connection_wait(connection);
    return 0;
}

void server_take_over(struct server *server, const json_t *saved)
{
    json_t *connection;
    size_t i;

    server->last_id = (uint64_t)json_integer_value(json_object_get(saved, "last_id"));
    json_array_foreach(json_object_get(saved, "connections"), i, connection)
    {
        int error = server_take_one(server, connection);
        if (error < 0)
            log_warning("a connection is not taken over: %s", strerror(-error));
    }
}

bool server_has_connection(const struct server *server, uint64_t id)
{
    return connection_find(server, id) != NULL;
}

void server_set_group(struct server *server, gid_t group)
{
    gid_t owner = group != (gid_t)-1 ? group : getegid();

    server->options.group = group;
    if (server->socket.path != NULL && lchown(server->socket.path, (uid_t)-1, owner) < 0)
        log_warning("giving %s to the new group failed: %s", server->socket.path, strerror(errno));
}

unsigned server_connections(const struct server *server)
{
    return server->count;
}
