/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/server.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include <cmocka.h>

#include "protocol/names.h"

/* A server on a socket in a folder of its own, in the loop the test's clients live in as well. */
struct fixture {
    char folder[64];
    char path[96];
    struct event_base *base;
    struct events *events;
    struct server *server;
    struct server_options options;
    struct rpc_call *later[4096];
    size_t later_count;
    unsigned told;
    uint64_t connection; /* whose call came last */
    unsigned closed;
    uint64_t last_closed;
};

struct client {
    struct fixture *fixture;
    struct bufferevent *stream;
    bool ended;
    bool failed; /* ended by an error, not by the end of the stream */
};

/* ---- The methods ---- */

static void run_tell(struct rpc_call *call, const json_t *params, void *context)
{
    struct fixture *fixture = context;

    (void)params;
    fixture->told++;
    fixture->connection = rpc_call_peer(call)->connection;
    rpc_reply(call, json_string("told"));
}

static void run_peer(struct rpc_call *call, const json_t *params, void *context)
{
    const struct rpc_peer *peer = rpc_call_peer(call);

    (void)params;
    (void)context;
    rpc_reply(call, json_pack("{s:i, s:i, s:i, s:b}", "pid", (int)peer->pid, "uid", (int)peer->uid, "gid",
                              (int)peer->gid, "may_change", peer->may_change));
}

static void run_later(struct rpc_call *call, const json_t *params, void *context)
{
    struct fixture *fixture = context;

    (void)params;
    assert_true(fixture->later_count < sizeof fixture->later / sizeof *fixture->later);
    fixture->later[fixture->later_count++] = call;
}

static void run_sized(struct rpc_call *call, const json_t *params, void *context)
{
    struct fixture *fixture = context;
    size_t size = (size_t)json_integer_value(json_object_get(params, "size"));
    char *text = malloc(size + 1);

    fixture->told++;
    assert_non_null(text);
    memset(text, 'x', size);
    rpc_reply(call, json_stringn(text, size));
    free(text);
}

/* For longer than connections get in a turn of the loop. */
static void run_slow(struct rpc_call *call, const json_t *params, void *context)
{
    struct timespec start;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &start);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < 12 * 1000 * 1000);
    run_tell(call, params, context);
}

/* Subscribes, and has something happen before the reply: the reply is to come first all the same. */
static void run_subscribe(struct rpc_call *call, const json_t *params, void *context)
{
    struct fixture *fixture = context;
    uint64_t from = (uint64_t)json_integer_value(json_object_get(params, "from"));
    int error = server_subscribe(fixture->server, rpc_call_peer(call)->connection, from);

    events_emit(fixture->events, "subscribed", json_object());
    rpc_reply(call, json_integer(error));
}

static const struct rpc_param sized_params[] = {{"size", RPC_INTEGER, true}, {NULL, RPC_STRING, false}};
static const struct rpc_param subscribe_params[] = {{"from", RPC_INTEGER, true}, {NULL, RPC_STRING, false}};
static const struct rpc_method methods[] = {{"tell", RPC_READ, NULL, run_tell, NULL, NULL},
                                            {"peer", RPC_READ, NULL, run_peer, NULL, NULL},
                                            {"later", RPC_READ, NULL, run_later, NULL, NULL},
                                            {"sized", RPC_READ, sized_params, run_sized, NULL, NULL},
                                            {"change", RPC_CHANGE, sized_params, run_sized, NULL, NULL},
                                            {"slow", RPC_READ, NULL, run_slow, NULL, NULL},
                                            {"subscribe", RPC_READ, subscribe_params, run_subscribe, NULL, NULL},
                                            {NULL, RPC_READ, NULL, NULL, NULL, NULL}};

static void note_close(uint64_t connection, void *context)
{
    struct fixture *fixture = context;

    fixture->closed++;
    fixture->last_closed = connection;
}

/* ---- The loop ---- */

static void give_up(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    *(bool *)context = true;
}

/* Turns the loop until the condition is true; each turn waits for something to happen. */
#define WAIT_FOR(base, condition)                                                                                      \
    do {                                                                                                               \
        const struct timeval patience = {.tv_sec = getenv("P2MGUARD_VALGRIND") ? 120 : 20};                            \
        bool late = false;                                                                                             \
        struct event *alarm_event = evtimer_new(base, give_up, &late);                                                 \
                                                                                                                       \
        event_add(alarm_event, &patience);                                                                             \
        while (!(condition) && !late)                                                                                  \
            event_base_loop(base, EVLOOP_ONCE);                                                                        \
        event_free(alarm_event);                                                                                       \
        if (late)                                                                                                      \
            fail_msg("waited in vain for %s", #condition);                                                             \
    } while (0)

/* Turns the loop until there is nothing left that it could do at once. */
static void settle(struct fixture *fixture)
{
    for (int i = 0; i < 50; i++)
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
}

/* ---- Clients ---- */

static void client_on_event(struct bufferevent *stream, short what, void *context)
{
    struct client *client = context;

    (void)stream;
    if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0)
        client->ended = true;
    if ((what & BEV_EVENT_ERROR) != 0)
        client->failed = true;
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    strcpy(address.sun_path, path);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -errno;
    }
    return fd;
}

static void client_open(struct client *client, struct fixture *fixture)
{
    int fd = connect_to(fixture->path);

    assert_true(fd >= 0);
    evutil_make_socket_nonblocking(fd);
    *client = (struct client){.fixture = fixture};
    client->stream = bufferevent_socket_new(fixture->base, fd, BEV_OPT_CLOSE_ON_FREE);
    assert_non_null(client->stream);
    bufferevent_setcb(client->stream, NULL, NULL, client_on_event, client);
    bufferevent_enable(client->stream, EV_READ | EV_WRITE);
}

static void client_close(struct client *client)
{
    if (client->stream != NULL)
        bufferevent_free(client->stream);
    client->stream = NULL;
}

static size_t client_unsent(const struct client *client)
{
    return evbuffer_get_length(bufferevent_get_output(client->stream));
}

static size_t client_received(const struct client *client)
{
    return evbuffer_get_length(bufferevent_get_input(client->stream));
}

static void client_send(struct client *client, const char *text)
{
    assert_int_equal(bufferevent_write(client->stream, text, strlen(text)), 0);
}

static void client_send_request(struct client *client, const char *method, const char *params, int id)
{
    char line[256];

    snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":%d}\n", method, params,
             id);
    client_send(client, line);
}

static void client_shut(struct client *client)
{
    WAIT_FOR(client->fixture->base, client_unsent(client) == 0);
    shutdown(bufferevent_getfd(client->stream), SHUT_WR);
}

/* The next line, or NULL when the stream ends before it does. */
static json_t *client_read(struct client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->stream);
    char *line = NULL;
    json_t *message;

    WAIT_FOR(client->fixture->base, (line = evbuffer_readln(input, NULL, EVBUFFER_EOL_LF)) != NULL || client->ended);
    if (line == NULL)
        return NULL;
    message = json_loads(line, 0, NULL);
    assert_non_null(message);
    free(line);
    return message;
}

static json_int_t client_read_id(struct client *client)
{
    json_t *message = client_read(client);
    json_int_t id;

    assert_non_null(message);
    assert_non_null(json_object_get(message, "result"));
    id = json_integer_value(json_object_get(message, "id"));
    json_decref(message);
    return id;
}

static void client_expect_error(struct client *client, int code)
{
    json_t *message = client_read(client);
    const json_t *error = json_object_get(message, "error");

    assert_non_null(message);
    assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
    assert_true(json_is_string(json_object_get(json_object_get(error, "data"), "what")));
    json_decref(message);
}

/* The seq of the next message, which must be an event of the type. */
static json_int_t client_read_event(struct client *client, const char *type)
{
    json_t *message = client_read(client);
    const json_t *params = json_object_get(message, "params");
    json_int_t seq = json_integer_value(json_object_get(params, "seq"));

    assert_non_null(message);
    assert_string_equal(json_string_value(json_object_get(message, "method")), "event");
    if (type != NULL)
        assert_string_equal(json_string_value(json_object_get(params, "type")), type);
    json_decref(message);
    return seq;
}

static void client_expect_end(struct client *client)
{
    assert_null(client_read(client));
    assert_false(client->failed);
}

/* ---- Setting up ---- */

static int open_fixture(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    if (fixture == NULL)
        return -1;
    strcpy(fixture->folder, "/tmp/p2mguard-test-XXXXXX");
    if (mkdtemp(fixture->folder) == NULL) {
        free(fixture);
        return -1;
    }
    snprintf(fixture->path, sizeof fixture->path, "%s/run/control", fixture->folder);
    fixture->base = event_base_new();
    fixture->events = events_new(64);
    fixture->options = (struct server_options){.path = fixture->path,
                                               .listen_fd = -1,
                                               .group = (gid_t)-1,
                                               .mode = 0660,
                                               .max_connections = 8,
                                               .max_descriptors = 2000,
                                               .methods = methods,
                                               .method_context = fixture,
                                               .events = fixture->events,
                                               .on_close = note_close};
    *state = fixture;
    return 0;
}

static int open_wide_server(void **state)
{
    struct fixture *fixture;

    if (open_fixture(state) < 0)
        return -1;
    fixture = *state;
    fixture->options.max_connections = 1000;
    return server_new(&fixture->server, fixture->base, &fixture->options);
}

static int open_server(void **state)
{
    struct fixture *fixture;

    if (open_fixture(state) < 0)
        return -1;
    fixture = *state;
    return server_new(&fixture->server, fixture->base, &fixture->options);
}

static int close_fixture(void **state)
{
    struct fixture *fixture = *state;
    char folder[128];

    server_free(fixture->server);
    events_free(fixture->events);
    event_base_free(fixture->base);
    unlink(fixture->path);
    snprintf(folder, sizeof folder, "%s/run", fixture->folder);
    rmdir(folder);
    if (rmdir(fixture->folder) < 0)
        return -1;
    free(fixture);
    return 0;
}

/* ---- Lines ---- */

static void request_is_answered(void **state)
{
    struct client client;

    client_open(&client, *state);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

static void line_may_come_in_pieces(void **state)
{
    static const char line[] = "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}\r\n";
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    for (size_t i = 0; line[i] != '\0'; i++) {
        char piece[2] = {line[i], '\0'};

        assert_int_equal(fixture->told, 0);
        client_send(&client, piece);
        settle(fixture);
    }
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(fixture->told, 1);
    client_close(&client);
}

static void requests_may_be_pipelined(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    for (int i = 0; i < 1000; i++)
        client_send_request(&client, "tell", "{}", i);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(client_read_id(&client), i);
    assert_int_equal(fixture->told, 1000);
    client_close(&client);
}

static void garbage_does_not_end_the_conversation(void **state)
{
    static const char garbage[] = "\n{\nhello\n[1,2\n\xff\xfe\xfd\n\"\n";
    struct client client;

    client_open(&client, *state);
    client_send(&client, garbage);
    bufferevent_write(client.stream, "\0\n", 2);
    for (int i = 0; i < 7; i++)
        client_expect_error(&client, P2MG_ERROR_PARSE);
    client_send(&client, "[]\n1\n");
    client_expect_error(&client, P2MG_ERROR_INVALID_REQUEST);
    client_expect_error(&client, P2MG_ERROR_INVALID_REQUEST);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

static void deep_nesting_does_not_end_the_conversation(void **state)
{
    struct client client;
    char deep[60001];

    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    client_open(&client, *state);
    client_send(&client, deep);
    client_send(&client, "\n");
    client_expect_error(&client, P2MG_ERROR_PARSE);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

/* A request of `length` bytes with its newline. */
static char *make_long_request(size_t length)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}";
    char *line = malloc(length + 1);

    assert_non_null(line);
    memset(line, ' ', length);
    memcpy(line, request, sizeof request - 1);
    line[length - 1] = '\n';
    line[length] = '\0';
    return line;
}

static void longest_line_is_taken(void **state)
{
    struct client client;
    char *line = make_long_request(P2MG_MESSAGE_MAX_BYTES);

    client_open(&client, *state);
    client_send(&client, line);
    client_send_request(&client, "tell", "{}", 2);
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(client_read_id(&client), 2);
    client_close(&client);
    free(line);
}

static void longer_line_ends_the_conversation(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    char *line = make_long_request(P2MG_MESSAGE_MAX_BYTES + 1);

    client_open(&client, fixture);
    client_send_request(&client, "tell", "{}", 1);
    client_send(&client, line);
    client_send_request(&client, "tell", "{}", 2);
    assert_int_equal(client_read_id(&client), 1);
    client_expect_error(&client, P2MG_ERROR_INVALID_REQUEST);
    client_expect_end(&client);
    assert_int_equal(fixture->told, 1);
    assert_int_equal(fixture->closed, 1);
    client_close(&client);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 0);
    assert_int_equal(fixture->closed, 1);
    free(line);
}

/* Far more than the socket buffers hold: it must neither be kept nor block the peer from reading the refusal. */
static void endless_line_ends_the_conversation(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    char *part = make_long_request(1024 * 1024);

    part[1024 * 1024 - 1] = ' ';
    client_open(&client, fixture);
    for (int i = 0; i < 8; i++)
        client_send(&client, part);
    client_expect_error(&client, P2MG_ERROR_INVALID_REQUEST);
    client_expect_end(&client);
    assert_int_equal(fixture->told, 0);
    client_close(&client);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 0);
    free(part);
}

/* ---- Ends ---- */

static void last_line_without_newline_is_ignored(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send(&client, "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}\n"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2}");
    client_shut(&client);
    assert_int_equal(client_read_id(&client), 1);
    client_expect_end(&client);
    assert_int_equal(fixture->told, 1);
    client_close(&client);
}

static void half_closed_client_gets_its_replies(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send_request(&client, "later", "{}", 1);
    client_send_request(&client, "later", "{}", 2);
    client_shut(&client);
    WAIT_FOR(fixture->base, fixture->later_count == 2);
    settle(fixture);
    assert_int_equal(fixture->closed, 0);
    rpc_reply(fixture->later[1], json_true());
    assert_int_equal(client_read_id(&client), 2);
    settle(fixture);
    assert_int_equal(fixture->closed, 0);
    rpc_reply(fixture->later[0], json_true());
    assert_int_equal(client_read_id(&client), 1);
    client_expect_end(&client);
    assert_int_equal(fixture->closed, 1);
    client_close(&client);
}

static void half_closed_client_without_requests_is_closed(void **state)
{
    struct client client;

    client_open(&client, *state);
    client_shut(&client);
    client_expect_end(&client);
    client_close(&client);
}

static void half_closed_client_may_end_with_notifications(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send(&client, "[{\"jsonrpc\":\"2.0\",\"method\":\"later\"},{\"jsonrpc\":\"2.0\",\"method\":\"later\"}]\n");
    client_shut(&client);
    WAIT_FOR(fixture->base, fixture->later_count == 2);
    rpc_reply(fixture->later[0], json_true());
    settle(fixture);
    assert_int_equal(fixture->closed, 0);
    rpc_reply(fixture->later[1], json_true());
    client_expect_end(&client);
    client_close(&client);
}

static void requests_of_a_client_that_left_are_obeyed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    server_set_group(fixture->server, getegid());
    client_open(&client, fixture);
    for (int i = 0; i < 500; i++)
        client_send_request(&client, "change", "{\"size\":500}", i);
    WAIT_FOR(fixture->base, client_unsent(&client) == 0);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    assert_int_equal(fixture->told, 500);
    assert_int_equal(server_connections(fixture->server), 0);
}

/* They may be many, and what they ask for much: as soon as writing fails it is known that nobody wants to know. */
static void questions_of_a_client_that_left_are_not_answered(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    for (int i = 0; i < 500; i++)
        client_send_request(&client, "sized", "{\"size\":500}", i);
    WAIT_FOR(fixture->base, client_unsent(&client) == 0);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    assert_in_range(fixture->told, 1, 100);
    assert_int_equal(server_connections(fixture->server), 0);
}

static void client_that_leaves_during_a_call_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send_request(&client, "tell", "{}", 1);
    client_send_request(&client, "later", "{}", 2);
    WAIT_FOR(fixture->base, fixture->later_count == 1);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    assert_true(fixture->last_closed == fixture->connection);
    assert_null(rpc_call_channel(fixture->later[0]));
    rpc_reply(fixture->later[0], json_true());
}

/* The same when it had half-closed before: nothing but its hang-up tells then. */
static void half_closed_client_that_leaves_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send_request(&client, "later", "{}", 2);
    client_shut(&client);
    WAIT_FOR(fixture->base, fixture->later_count == 1);
    settle(fixture);
    assert_int_equal(fixture->closed, 0);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    rpc_reply(fixture->later[0], json_true());
}

/* ---- Pressure ---- */

static void client_that_does_not_read_is_not_read_from(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    unsigned told;

    client_open(&client, fixture);
    bufferevent_disable(client.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        client_send_request(&client, "sized", "{\"size\":10000}", i);
    settle(fixture);
    told = fixture->told;
    /* what we queue, and what the kernel's buffer holds */
    assert_in_range(told, 26, 200);
    settle(fixture);
    assert_int_equal(fixture->told, told);
    bufferevent_enable(client.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        assert_int_equal(client_read_id(&client), i);
    client_close(&client);
}

static void client_that_does_not_read_and_leaves_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    bufferevent_disable(client.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        client_send_request(&client, "sized", "{\"size\":10000}", i);
    settle(fixture);
    assert_int_equal(fixture->closed, 0);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    assert_int_equal(server_connections(fixture->server), 0);
}

static void half_closed_client_that_reads_late_gets_all(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    bufferevent_disable(client.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        client_send_request(&client, "sized", "{\"size\":10000}", i);
    client_shut(&client);
    settle(fixture);
    assert_true(fixture->told < 300);
    bufferevent_enable(client.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        assert_int_equal(client_read_id(&client), i);
    client_expect_end(&client);
    client_close(&client);
}

static void client_with_many_calls_is_not_read_from(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    for (int i = 0; i < 2000; i++)
        client_send_request(&client, "later", "{}", i);
    WAIT_FOR(fixture->base, fixture->later_count > 1024);
    settle(fixture);
    assert_int_equal(fixture->later_count, 1025);
    for (size_t i = 0; i < 100; i++)
        rpc_reply(fixture->later[i], json_true());
    WAIT_FOR(fixture->base, fixture->later_count == 1125);
    for (size_t i = 100; i < 2000; i++) {
        WAIT_FOR(fixture->base, fixture->later_count > i);
        rpc_reply(fixture->later[i], json_true());
    }
    for (int i = 0; i < 2000; i++)
        assert_int_equal(client_read_id(&client), i);
    client_close(&client);
}

static void client_with_many_calls_that_leaves_is_noticed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    for (int i = 0; i < 2000; i++)
        client_send_request(&client, "later", "{}", i);
    WAIT_FOR(fixture->base, fixture->later_count > 1024);
    settle(fixture);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    for (size_t i = 0; i < fixture->later_count; i++)
        rpc_reply(fixture->later[i], json_true());
}

static void one_slow_client_does_not_hold_up_another(void **state)
{
    struct fixture *fixture = *state;
    struct client slow;
    struct client quick;

    client_open(&slow, fixture);
    bufferevent_disable(slow.stream, EV_READ);
    for (int i = 0; i < 300; i++)
        client_send_request(&slow, "sized", "{\"size\":10000}", i);
    client_open(&quick, fixture);
    client_send_request(&quick, "tell", "{}", 1);
    assert_int_equal(client_read_id(&quick), 1);
    client_close(&quick);
    client_close(&slow);
}

/* However much a client has sent at once, and however cheap that was for it. */
static void client_with_many_requests_does_not_hold_up_another(void **state)
{
    struct fixture *fixture = *state;
    struct client busy;
    struct client modest;

    client_open(&busy, fixture);
    for (int i = 0; i < 1000; i++)
        client_send_request(&busy, "tell", "{}", i);
    WAIT_FOR(fixture->base, client_unsent(&busy) == 0);
    client_open(&modest, fixture);
    fixture->told = 0;
    client_send_request(&modest, "peer", "{}", 1);
    assert_int_equal(client_read_id(&modest), 1);
    assert_true(fixture->told < 100);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(client_read_id(&busy), i);
    client_close(&modest);
    client_close(&busy);
}

/* Many who ask for much wait for those who ask for little, and are served all the same. */
static void modest_clients_come_before_greedy_ones(void **state)
{
    struct fixture *fixture = *state;
    struct client busy[7];
    struct client modest;

    client_open(&modest, fixture);
    client_send_request(&modest, "tell", "{}", 0);
    assert_int_equal(client_read_id(&modest), 0);
    for (int i = 0; i < 7; i++) {
        client_open(&busy[i], fixture);
        for (int j = 0; j < 20; j++)
            client_send_request(&busy[i], "slow", "{}", j);
    }
    for (int i = 0; i < 7; i++)
        assert_int_equal(client_read_id(&busy[i]), 0);
    for (int i = 1; i < 4; i++) {
        fixture->told = 0;
        client_send_request(&modest, "tell", "{}", i);
        assert_int_equal(client_read_id(&modest), i);
        assert_in_range(fixture->told, 1, 8); /* itself, and one in each turn that its request and the reply take */
    }
    for (int i = 0; i < 7; i++) {
        for (int j = 1; j < 20; j++)
            assert_int_equal(client_read_id(&busy[i]), j);
        client_close(&busy[i]);
    }
    client_close(&modest);
}

/* Those who connect all the time leave the loop time for others. */
static void newcomers_are_let_in_by_and_by(void **state)
{
    struct fixture *fixture = *state;
    int fds[100];

    for (int i = 0; i < 100; i++)
        assert_true((fds[i] = connect_to(fixture->path)) >= 0);
    event_base_loop(fixture->base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    assert_in_range(server_connections(fixture->server), 1, 99);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 100);
    for (int i = 0; i < 100; i++)
        close(fds[i]);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 0);
}

/* ---- Events ---- */

static void reply_comes_before_the_first_event(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    events_emit(fixture->events, "old", json_object());
    client_open(&client, fixture);
    client_send_request(&client, "subscribe", "{\"from\":1}", 1);
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(client_read_event(&client, "old"), 1);
    assert_int_equal(client_read_event(&client, "subscribed"), 2);
    events_emit(fixture->events, "new", json_object());
    assert_int_equal(client_read_event(&client, "new"), 3);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    events_emit(fixture->events, "nobody listens", json_object());
}

/* Lines that are taken in before the loop turns take no event away. */
static void subscription_amid_requests(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    events_emit(fixture->events, "old", json_object());
    client_open(&client, fixture);
    client_send_request(&client, "subscribe", "{\"from\":1}", 0);
    for (int i = 1; i < 20; i++)
        client_send_request(&client, "slow", "{}", i);
    assert_int_equal(client_read_id(&client), 0);
    for (int seq = 0, id = 0; seq < 2 || id < 19;) {
        json_t *message = client_read(&client);

        if (json_object_get(message, "id") != NULL)
            assert_int_equal(json_integer_value(json_object_get(message, "id")), ++id);
        else
            assert_int_equal(json_integer_value(json_object_get(json_object_get(message, "params"), "seq")), ++seq);
        json_decref(message);
    }
    client_close(&client);
}

static void second_subscription_replaces_the_first(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send_request(&client, "subscribe", "{\"from\":1}", 1);
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(client_read_event(&client, "subscribed"), 1);
    client_send_request(&client, "subscribe", "{\"from\":1}", 2);
    assert_int_equal(client_read_id(&client), 2);
    assert_int_equal(client_read_event(&client, "subscribed"), 1);
    assert_int_equal(client_read_event(&client, "subscribed"), 2);
    events_emit(fixture->events, "new", json_object());
    assert_int_equal(client_read_event(&client, "new"), 3);
    settle(fixture);
    assert_int_equal(client_received(&client), 0);
    client_close(&client);
}

static void subscription_needs_a_connection(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    assert_int_equal(server_subscribe(fixture->server, 1, 1), -ENOTCONN);
    client_open(&client, fixture);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(server_subscribe(fixture->server, fixture->connection, 1), 0);
    client_close(&client);
    WAIT_FOR(fixture->base, fixture->closed == 1);
    assert_int_equal(server_subscribe(fixture->server, fixture->connection, 1), -ENOTCONN);
}

static void emit_sized(struct fixture *fixture, size_t size)
{
    char *text = malloc(size);

    assert_non_null(text);
    memset(text, 'e', size);
    events_emit(fixture->events, "sized", json_pack("{s:s%}", "text", text, size));
    free(text);
}

static void slow_listener_loses_events_and_is_told(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    json_int_t last = 0;
    json_int_t lost = 0;

    client_open(&client, fixture);
    client_send_request(&client, "subscribe", "{\"from\":1}", 1);
    assert_int_equal(client_read_id(&client), 1);
    assert_int_equal(client_read_event(&client, "subscribed"), 1);
    bufferevent_disable(client.stream, EV_READ);
    for (int i = 0; i < 400; i++) {
        emit_sized(fixture, 10000);
        event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    }
    bufferevent_enable(client.stream, EV_READ);
    for (last = 1; last < 401;) {
        json_t *message = client_read(&client);
        const json_t *params = json_object_get(message, "params");

        if (strcmp(json_string_value(json_object_get(params, "type")), "events.lost") == 0) {
            assert_int_equal(json_integer_value(json_object_get(params, "from")), last + 1);
            last = json_integer_value(json_object_get(params, "to"));
            lost++;
        } else {
            assert_int_equal(json_integer_value(json_object_get(params, "seq")), last + 1);
            last++;
        }
        json_decref(message);
    }
    assert_int_equal(lost, 1);
    client_close(&client);
}

/* Who has a history to read takes turns with others, and misses nothing. */
static void clients_that_catch_up_get_all_beside_a_busy_one(void **state)
{
    struct fixture *fixture = *state;
    struct client busy;
    struct client late[7];

    for (int i = 0; i < 50; i++)
        emit_sized(fixture, 10000);
    client_open(&busy, fixture);
    for (int i = 0; i < 20; i++)
        client_send_request(&busy, "slow", "{}", i);
    for (int i = 0; i < 7; i++) {
        client_open(&late[i], fixture);
        client_send_request(&late[i], "subscribe", "{\"from\":1}", 1);
    }
    for (int i = 0; i < 7; i++) {
        assert_int_equal(client_read_id(&late[i]), 1);
        for (json_int_t seq = 1; seq <= 50 + 7; seq++)
            assert_int_equal(client_read_event(&late[i], seq <= 50 ? "sized" : "subscribed"), seq);
        client_close(&late[i]);
    }
    client_close(&busy);
}

/* ---- Who is there ---- */

static json_t *ask_peer(struct client *client)
{
    json_t *message;
    json_t *result;

    client_send_request(client, "peer", "{}", 1);
    message = client_read(client);
    result = json_incref(json_object_get(message, "result"));
    json_decref(message);
    return result;
}

static void peer_is_who_it_is(void **state)
{
    struct client client;
    json_t *peer;

    client_open(&client, *state);
    peer = ask_peer(&client);
    assert_int_equal(json_integer_value(json_object_get(peer, "pid")), getpid());
    assert_int_equal(json_integer_value(json_object_get(peer, "uid")), geteuid());
    assert_int_equal(json_integer_value(json_object_get(peer, "gid")), getegid());
    assert_int_equal(json_is_true(json_object_get(peer, "may_change")), geteuid() == 0);
    json_decref(peer);
    client_close(&client);
}

/* In a child: becomes somebody else, asks, and says by its exit status whether it may change things. */
static _Noreturn void be_somebody(const char *path, uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
    static const char request[] = "{\"jsonrpc\":\"2.0\",\"method\":\"peer\",\"id\":1}\n";
    char reply[1024] = "";
    size_t length = 0;
    ssize_t got;
    int fd;

    if (setgroups(count, groups) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
        _exit(3);
    fd = connect_to(path);
    if (fd < 0 || write(fd, request, sizeof request - 1) != (ssize_t)sizeof request - 1)
        _exit(4);
    while (length < sizeof reply - 1 && strchr(reply, '\n') == NULL) {
        got = read(fd, reply + length, sizeof reply - 1 - length);
        if (got <= 0)
            _exit(5);
        length += (size_t)got;
    }
    _exit(strstr(reply, "\"may_change\":true") != NULL ? 1 : 0);
}

static void note_child(evutil_socket_t number, short what, void *context)
{
    (void)number;
    (void)what;
    *(bool *)context = true;
}

/* What somebody else's exit status says; 4 when it cannot connect. */
static int ask_as(struct fixture *fixture, uid_t uid, gid_t gid, const gid_t *groups, size_t count)
{
    bool ended = false;
    struct event *child_event = evsignal_new(fixture->base, SIGCHLD, note_child, &ended);
    pid_t child;
    int status;

    event_add(child_event, NULL);
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        be_somebody(fixture->path, uid, gid, groups, count);
    WAIT_FOR(fixture->base, ended);
    assert_int_equal(waitpid(child, &status, 0), child);
    event_free(child_event);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void group_may_change_things(void **state)
{
    struct fixture *fixture = *state;
    const gid_t groups[] = {3001, 3002, 3003};

    if (geteuid() != 0)
        skip();
    fixture->options.group = 3002;
    fixture->options.mode = 0666;
    assert_int_equal(chmod(fixture->folder, 0755), 0);
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), 0);
    assert_int_equal(ask_as(fixture, 2000, 3000, NULL, 0), 0);
    assert_int_equal(ask_as(fixture, 2000, 3002, NULL, 0), 1);
    assert_int_equal(ask_as(fixture, 2000, 3000, groups, 3), 1);
    assert_int_equal(ask_as(fixture, 2000, 3000, groups, 1), 0);
    assert_int_equal(ask_as(fixture, 0, 3000, NULL, 0), 1);
    server_set_group(fixture->server, 3001);
    assert_int_equal(ask_as(fixture, 2000, 3000, groups, 1), 1);
    assert_int_equal(ask_as(fixture, 2000, 3002, NULL, 0), 0);
    server_set_group(fixture->server, (gid_t)-1);
    assert_int_equal(ask_as(fixture, 2000, 3000, groups, 3), 0);
    assert_int_equal(ask_as(fixture, 2000, 0, NULL, 0), 0);
}

static void mode_and_group_keep_others_out(void **state)
{
    struct fixture *fixture = *state;
    const gid_t group = 3002;
    struct stat status;
    mode_t before;

    if (geteuid() != 0)
        skip();
    fixture->options.group = group;
    assert_int_equal(chmod(fixture->folder, 0755), 0);
    before = umask(077); /* which must not show */
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), 0);
    assert_int_equal(umask(before), 077);
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0660);
    assert_int_equal(status.st_gid, group);
    assert_int_equal(status.st_uid, 0);
    *strrchr(fixture->path, '/') = '\0';
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0755);
    fixture->path[strlen(fixture->path)] = '/';
    assert_int_equal(ask_as(fixture, 2000, 3000, &group, 1), 1);
    assert_int_equal(ask_as(fixture, 2000, 3000, NULL, 0), 4);
}

/* ---- Limits ---- */

static void one_too_many_is_told_and_closed(void **state)
{
    struct fixture *fixture = *state;
    struct client clients[9];

    for (int i = 0; i < 8; i++)
        client_open(&clients[i], fixture);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 8);
    client_open(&clients[8], fixture);
    client_expect_error(&clients[8], P2MG_ERROR_LIMIT);
    client_expect_end(&clients[8]);
    client_close(&clients[8]);
    client_send_request(&clients[0], "tell", "{}", 1);
    assert_int_equal(client_read_id(&clients[0]), 1);
    client_close(&clients[3]);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 7);
    client_open(&clients[3], fixture);
    client_send_request(&clients[3], "tell", "{}", 1);
    assert_int_equal(client_read_id(&clients[3]), 1);
    for (int i = 0; i < 8; i++)
        client_close(&clients[i]);
    WAIT_FOR(fixture->base, server_connections(fixture->server) == 0);
    assert_int_equal(fixture->closed, 9);
}

/* The second one is for a peer that does not read; once it has read everything there is room for another peer. */
static void second_descriptor_is_given_back(void **state)
{
    struct fixture *fixture = *state;
    struct client clients[2];

    fixture->options.max_descriptors = 2;
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), 0);
    client_open(&clients[0], fixture);
    client_send_request(&clients[0], "sized", "{\"size\":4000000}", 1);
    client_send_request(&clients[0], "tell", "{}", 2);
    assert_int_equal(client_read_id(&clients[0]), 1);
    assert_int_equal(client_read_id(&clients[0]), 2);
    client_open(&clients[1], fixture);
    client_send_request(&clients[1], "tell", "{}", 3);
    assert_int_equal(client_read_id(&clients[1]), 3);
    for (int i = 0; i < 2; i++)
        client_close(&clients[i]);
}

/* Without descriptors the listener rests rather than spins, and those who wait are let in afterwards. */
static void lack_of_descriptors_passes(void **state)
{
    struct fixture *fixture = *state;
    struct rlimit before;
    struct rlimit none;
    struct client client;
    struct timespec start;
    struct timespec end;

    if (getenv("P2MGUARD_VALGRIND"))
        skip(); /* it keeps to the limit itself: accepts, and closes the connection again */
    client_open(&client, fixture);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = (rlim_t)bufferevent_getfd(client.stream) + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    settle(fixture); /* fails to accept, and from then on waits for a timer */
    clock_gettime(CLOCK_MONOTONIC, &start);
    event_base_loop(fixture->base, EVLOOP_ONCE);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_true(end.tv_sec > start.tv_sec || end.tv_nsec - start.tv_nsec > 50 * 1000 * 1000);
    assert_int_equal(server_connections(fixture->server), 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

/* ---- The socket ---- */

static void stale_socket_is_replaced(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct client client;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    *strrchr(fixture->path, '/') = '\0';
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    fixture->path[strlen(fixture->path)] = '/';
    strcpy(address.sun_path, fixture->path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), 0);
    client_open(&client, fixture);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

static void socket_in_use_is_left_alone(void **state)
{
    struct fixture *fixture = *state;
    struct server *second = NULL;
    struct client client;

    assert_int_equal(server_new(&second, fixture->base, &fixture->options), -EADDRINUSE);
    assert_null(second);
    client_open(&client, fixture);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
}

static void other_files_are_left_alone(void **state)
{
    struct fixture *fixture = *state;
    int fd;

    *strrchr(fixture->path, '/') = '\0';
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    fixture->path[strlen(fixture->path)] = '/';
    fd = open(fixture->path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), -ENOTSOCK);
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void impossible_paths_are_refused(void **state)
{
    struct fixture *fixture = *state;
    char path[200];

    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    fixture->options.path = path;
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), -ENAMETOOLONG);
    fixture->options.path = "";
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), -EINVAL);
    fixture->options.path = "/no/such/folder/control";
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), -ENOENT);
}

static void socket_goes_with_the_server(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(access(fixture->path, F_OK), 0);
    server_free(fixture->server);
    fixture->server = NULL;
    assert_int_equal(access(fixture->path, F_OK), -1);
    server_free(NULL);
}

static void another_servers_socket_stays(void **state)
{
    struct fixture *fixture = *state;
    struct server *second = NULL;

    assert_int_equal(unlink(fixture->path), 0);
    assert_int_equal(server_new(&second, fixture->base, &fixture->options), 0);
    server_free(fixture->server);
    fixture->server = second;
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void activated_socket_is_used_as_it_is(void **state)
{
    struct fixture *fixture = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct client client;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    *strrchr(fixture->path, '/') = '\0';
    assert_int_equal(mkdir(fixture->path, 0700), 0);
    fixture->path[strlen(fixture->path)] = '/';
    strcpy(address.sun_path, fixture->path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 5), 0);
    fixture->options.listen_fd = fd;
    fixture->options.path = NULL;
    client_open(&client, fixture); /* before there is a server: it waits in the backlog */
    assert_int_equal(server_new(&fixture->server, fixture->base, &fixture->options), 0);
    client_send_request(&client, "tell", "{}", 1);
    assert_int_equal(client_read_id(&client), 1);
    client_close(&client);
    server_free(fixture->server);
    fixture->server = NULL;
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void replies_queued_are_flushed_at_the_end(void **state)
{
    struct fixture *fixture = *state;
    struct client client;

    client_open(&client, fixture);
    client_send_request(&client, "later", "{}", 1);
    client_send_request(&client, "later", "{}", 2);
    WAIT_FOR(fixture->base, fixture->later_count == 2);
    rpc_reply(fixture->later[0], json_true());
    server_free(fixture->server);
    fixture->server = NULL;
    assert_int_equal(fixture->closed, 1);
    rpc_reply(fixture->later[1], json_true());
    assert_int_equal(client_read_id(&client), 1);
    client_expect_end(&client);
    client_close(&client);
}

#define FREE_CASE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)
#define CASE(test) cmocka_unit_test_setup_teardown(test, open_server, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(request_is_answered),
        CASE(line_may_come_in_pieces),
        CASE(requests_may_be_pipelined),
        CASE(garbage_does_not_end_the_conversation),
        CASE(deep_nesting_does_not_end_the_conversation),
        CASE(longest_line_is_taken),
        CASE(longer_line_ends_the_conversation),
        CASE(endless_line_ends_the_conversation),
        CASE(last_line_without_newline_is_ignored),
        CASE(half_closed_client_gets_its_replies),
        CASE(half_closed_client_without_requests_is_closed),
        CASE(half_closed_client_may_end_with_notifications),
        CASE(requests_of_a_client_that_left_are_obeyed),
        CASE(questions_of_a_client_that_left_are_not_answered),
        CASE(client_that_leaves_during_a_call_is_noticed),
        CASE(half_closed_client_that_leaves_is_noticed),
        CASE(client_that_does_not_read_is_not_read_from),
        CASE(client_that_does_not_read_and_leaves_is_noticed),
        CASE(half_closed_client_that_reads_late_gets_all),
        CASE(client_with_many_calls_is_not_read_from),
        CASE(client_with_many_calls_that_leaves_is_noticed),
        CASE(one_slow_client_does_not_hold_up_another),
        CASE(client_with_many_requests_does_not_hold_up_another),
        CASE(modest_clients_come_before_greedy_ones),
        cmocka_unit_test_setup_teardown(newcomers_are_let_in_by_and_by, open_wide_server, close_fixture),
        CASE(reply_comes_before_the_first_event),
        CASE(subscription_amid_requests),
        CASE(second_subscription_replaces_the_first),
        CASE(subscription_needs_a_connection),
        CASE(slow_listener_loses_events_and_is_told),
        CASE(clients_that_catch_up_get_all_beside_a_busy_one),
        CASE(peer_is_who_it_is),
        FREE_CASE(group_may_change_things),
        FREE_CASE(mode_and_group_keep_others_out),
        CASE(one_too_many_is_told_and_closed),
        FREE_CASE(second_descriptor_is_given_back),
        CASE(lack_of_descriptors_passes),
        FREE_CASE(stale_socket_is_replaced),
        CASE(socket_in_use_is_left_alone),
        FREE_CASE(other_files_are_left_alone),
        FREE_CASE(impossible_paths_are_refused),
        CASE(socket_goes_with_the_server),
        CASE(another_servers_socket_stays),
        FREE_CASE(activated_socket_is_used_as_it_is),
        CASE(replies_queued_are_flushed_at_the_end),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
