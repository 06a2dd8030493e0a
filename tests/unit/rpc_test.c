/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/names.h"

/* A channel whose replies are kept, and calls that are ended when the test says so. */
struct fixture {
    struct rpc_channel *channel;
    char *lines[2048];
    size_t count; /* of lines */
    size_t empty; /* writes without a line */
    struct rpc_call *later[2048];
    size_t later_count;
    unsigned told; /* runs of "tell" */
    bool close_in_run;
    char asked[64];  /* note_asked */
    char ended[512]; /* note_ended */
};

static void keep_line(void *context, const char *line, size_t length)
{
    struct fixture *fixture = context;

    if (length == 0) {
        fixture->empty++;
        return;
    }
    assert_true(length <= P2MG_REPLY_MAX_BYTES);
    assert_int_equal(line[length - 1], '\n');
    assert_null(memchr(line, '\n', length - 1));
    assert_true(fixture->count < sizeof fixture->lines / sizeof *fixture->lines);
    fixture->lines[fixture->count++] = strndup(line, length - 1);
}

/* ---- The methods ---- */

static void run_subtract(struct rpc_call *call, const json_t *params, void *context)
{
    (void)context;
    rpc_reply(call, json_integer(json_integer_value(json_object_get(params, "minuend")) -
                                 json_integer_value(json_object_get(params, "subtrahend"))));
}

static void run_tell(struct rpc_call *call, const json_t *params, void *context)
{
    struct fixture *fixture = context;

    (void)params;
    fixture->told++;
    if (fixture->close_in_run) {
        rpc_channel_free(fixture->channel);
        fixture->channel = NULL;
        assert_null(rpc_call_channel(call));
    }
    rpc_reply(call, json_string("told"));
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
    size_t size = (size_t)json_integer_value(json_object_get(params, "size"));
    char *text = malloc(size + 1);

    (void)context;
    assert_non_null(text);
    memset(text, 'x', size);
    rpc_reply(call, json_stringn(text, size));
    free(text);
}

static void run_fail(struct rpc_call *call, const json_t *params, void *context)
{
    (void)params;
    (void)context;
    rpc_fail(call, P2MG_ERROR_NO_SUCH_DOMAIN, "No such domain", json_pack("{s:i}", "domain", 7));
}

static void run_nothing(struct rpc_call *call, const json_t *params, void *context)
{
    (void)params;
    (void)context;
    rpc_reply(call, NULL);
}

/* Changes something unless it is only asked to look. */
static bool either_reads(const json_t *params)
{
    return json_is_true(json_object_get(params, "look"));
}

/* One letter for each change that was asked for, and what became of it. */
static void note_asked(void *context, const struct rpc_peer *peer, const char *method, const json_t *params,
                       enum rpc_outcome outcome)
{
    struct fixture *fixture = context;
    size_t length = strlen(fixture->asked);

    assert_true(json_is_object(params) || json_is_array(params));
    assert_true(outcome == RPC_REFUSED || peer->may_change);
    assert_true(length < sizeof fixture->asked - 1);
    fixture->asked[length] = *method == 'c' ? "GRI"[outcome] : "gri"[outcome];
}

static const struct rpc_param either_params[] = {{"look", RPC_BOOLEAN, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param subtract_params[] = {
    {"subtrahend", RPC_INTEGER, true}, {"minuend", RPC_INTEGER, true}, {NULL, RPC_STRING, false}};
static const struct rpc_param typed_params[] = {
    {"string", RPC_STRING, false}, {"integer", RPC_INTEGER, false},          {"boolean", RPC_BOOLEAN, false},
    {"object", RPC_OBJECT, false}, {"either", RPC_STRING_OR_INTEGER, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param sized_params[] = {{"size", RPC_INTEGER, true}, {NULL, RPC_STRING, false}};

static const struct rpc_method methods[] = {{"subtract", RPC_READ, subtract_params, run_subtract, NULL, NULL},
                                            {"tell", RPC_READ, NULL, run_tell, NULL, NULL},
                                            {"typed", RPC_READ, typed_params, run_tell, NULL, NULL},
                                            {"change", RPC_CHANGE, NULL, run_tell, NULL, NULL},
                                            {"either", RPC_EITHER, either_params, run_tell, either_reads, "just look"},
                                            {"forgotten", 0, NULL, run_tell, NULL, NULL},
                                            {"later", RPC_READ, NULL, run_later, NULL, NULL},
                                            {"sized", RPC_READ, sized_params, run_sized, NULL, NULL},
                                            {"fail", RPC_READ, NULL, run_fail, NULL, NULL},
                                            {"nothing", RPC_READ, NULL, run_nothing, NULL, NULL},
                                            {NULL, RPC_READ, NULL, NULL, NULL, NULL}};

/* ---- Helpers ---- */

static int open_fixture(void **state)
{
    static const struct rpc_peer peer = {.connection = 5, .pid = 1, .uid = 1000, .gid = 1000};
    struct fixture *fixture = calloc(1, sizeof *fixture);

    if (fixture == NULL)
        return -1;
    fixture->channel = rpc_channel_new(methods, fixture, &peer, keep_line, fixture);
    *state = fixture;
    return fixture->channel != NULL ? 0 : -1;
}

static int close_fixture(void **state)
{
    struct fixture *fixture = *state;

    rpc_channel_free(fixture->channel);
    for (size_t i = 0; i < fixture->count; i++)
        free(fixture->lines[i]);
    free(fixture);
    return 0;
}

static void send_text(struct fixture *fixture, const char *text)
{
    rpc_channel_take_line(fixture->channel, text, strlen(text));
}

/* The replies to a line that gets exactly one line back, or none (NULL). */
static json_t *exchange(struct fixture *fixture, const char *text)
{
    size_t before = fixture->count;
    json_t *reply;

    send_text(fixture, text);
    if (fixture->count == before)
        return NULL;
    assert_int_equal(fixture->count, before + 1);
    reply = json_loads(fixture->lines[before], JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(reply);
    return reply;
}

static void assert_reply(struct fixture *fixture, const char *request, const char *expected)
{
    json_t *reply = exchange(fixture, request);
    json_t *wanted = json_loads(expected, 0, NULL);

    assert_non_null(reply);
    assert_non_null(wanted);
    if (!json_equal(reply, wanted))
        fail_msg("%s\n answered %s\n instead of %s", request, fixture->lines[fixture->count - 1], expected);
    json_decref(reply);
    json_decref(wanted);
}

static void assert_error(const json_t *reply, int code, const char *id, const char *where)
{
    const json_t *error = json_object_get(reply, "error");
    const json_t *data = json_object_get(error, "data");
    char *id_text = json_dumps(json_object_get(reply, "id"), JSON_ENCODE_ANY | JSON_COMPACT);

    assert_string_equal(json_string_value(json_object_get(reply, "jsonrpc")), "2.0");
    assert_null(json_object_get(reply, "result"));
    assert_int_equal(json_integer_value(json_object_get(error, "code")), code);
    assert_true(json_is_string(json_object_get(error, "message")));
    assert_true(json_string_length(json_object_get(data, "what")) > 0);
    assert_non_null(id_text);
    assert_string_equal(id_text, id);
    if (where != NULL)
        assert_string_equal(json_string_value(json_object_get(data, "where")), where);
    free(id_text);
}

static void assert_answers_error(struct fixture *fixture, const char *request, int code, const char *id,
                                 const char *where)
{
    json_t *reply = exchange(fixture, request);

    if (reply == NULL)
        fail_msg("no answer to %s", request);
    assert_error(reply, code, id, where);
    json_decref(reply);
}

/* ---- What the standard says ---- */

static void standard_named_parameters(void **state)
{
    assert_reply(*state,
                 "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"subtrahend\": 23, \"minuend\": 42},"
                 " \"id\": 3}",
                 "{\"jsonrpc\": \"2.0\", \"result\": 19, \"id\": 3}");
    assert_reply(*state,
                 "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"minuend\": 42, \"subtrahend\": 23},"
                 " \"id\": 4}",
                 "{\"jsonrpc\": \"2.0\", \"result\": 19, \"id\": 4}");
}

static void standard_positional_parameters_are_not_ours(void **state)
{
    assert_answers_error(*state, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": [42, 23], \"id\": 1}",
                         P2MG_ERROR_INVALID_PARAMS, "1", "params");
}

static void standard_no_positional_parameters_are_none(void **state)
{
    struct fixture *fixture = *state;

    assert_reply(fixture, "{\"jsonrpc\": \"2.0\", \"method\": \"tell\", \"params\": [], \"id\": 1}",
                 "{\"jsonrpc\": \"2.0\", \"result\": \"told\", \"id\": 1}");
    assert_answers_error(fixture, "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": [], \"id\": 2}",
                         P2MG_ERROR_INVALID_PARAMS, "2", "params.subtrahend");
}

static void standard_notification(void **state)
{
    struct fixture *fixture = *state;

    assert_null(exchange(fixture, "{\"jsonrpc\": \"2.0\", \"method\": \"tell\"}"));
    assert_int_equal(fixture->told, 1);
    assert_int_equal(fixture->empty, 1);
    assert_null(exchange(fixture, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar\"}"));
    assert_null(exchange(fixture, "{\"jsonrpc\": \"2.0\", \"method\": \"tell\", \"params\": [1]}"));
    assert_int_equal(fixture->told, 1);
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
}

static void standard_unknown_method(void **state)
{
    json_t *reply = exchange(*state, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar\", \"id\": \"1\"}");

    assert_error(reply, P2MG_ERROR_METHOD_NOT_FOUND, "\"1\"", NULL);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(json_object_get(reply, "error"), "data"), "method")),
        "foobar");
    json_decref(reply);
}

static void standard_invalid_json(void **state)
{
    assert_answers_error(*state, "{\"jsonrpc\": \"2.0\", \"method\": \"foobar, \"params\": \"bar\", \"baz]",
                         P2MG_ERROR_PARSE, "null", NULL);
    assert_answers_error(*state,
                         "[{\"jsonrpc\": \"2.0\", \"method\": \"tell\", \"id\": \"1\"},"
                         "{\"jsonrpc\": \"2.0\", \"method\"]",
                         P2MG_ERROR_PARSE, "null", NULL);
}

static void standard_invalid_request(void **state)
{
    assert_answers_error(*state, "{\"jsonrpc\": \"2.0\", \"method\": 1, \"params\": \"bar\"}",
                         P2MG_ERROR_INVALID_REQUEST, "null", "method");
}

static void standard_empty_batch(void **state)
{
    assert_answers_error(*state, "[]", P2MG_ERROR_INVALID_REQUEST, "null", "message");
}

static void standard_invalid_batches(void **state)
{
    json_t *reply = exchange(*state, "[1]");

    assert_int_equal(json_array_size(reply), 1);
    assert_error(json_array_get(reply, 0), P2MG_ERROR_INVALID_REQUEST, "null", "[0]");
    json_decref(reply);
    reply = exchange(*state, "[1,2,3]");
    assert_int_equal(json_array_size(reply), 3);
    assert_error(json_array_get(reply, 2), P2MG_ERROR_INVALID_REQUEST, "null", "[2]");
    json_decref(reply);
}

static void standard_batch(void **state)
{
    json_t *reply = exchange(
        *state, "[{\"jsonrpc\": \"2.0\", \"method\": \"tell\", \"id\": \"1\"},"
                "{\"jsonrpc\": \"2.0\", \"method\": \"tell\"},"
                "{\"jsonrpc\": \"2.0\", \"method\": \"subtract\", \"params\": {\"minuend\": 42, \"subtrahend\": 23},"
                " \"id\": \"2\"},"
                "{\"foo\": \"boo\"},"
                "{\"jsonrpc\": \"2.0\", \"method\": \"foo.get\", \"params\": {\"name\": \"myself\"}, \"id\": \"5\"},"
                "{\"jsonrpc\": \"2.0\", \"method\": \"tell\", \"id\": \"9\"}]");

    assert_int_equal(json_array_size(reply), 5);
    assert_string_equal(json_string_value(json_object_get(json_array_get(reply, 0), "result")), "told");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(reply, 1), "result")), 19);
    assert_error(json_array_get(reply, 2), P2MG_ERROR_INVALID_REQUEST, "null", "[3].jsonrpc");
    assert_error(json_array_get(reply, 3), P2MG_ERROR_METHOD_NOT_FOUND, "\"5\"", NULL);
    assert_string_equal(json_string_value(json_object_get(json_array_get(reply, 4), "id")), "9");
    json_decref(reply);
}

static void standard_batch_of_notifications(void **state)
{
    struct fixture *fixture = *state;

    assert_null(exchange(fixture, "[{\"jsonrpc\": \"2.0\", \"method\": \"tell\"},"
                                  "{\"jsonrpc\": \"2.0\", \"method\": \"no such\"},"
                                  "{\"jsonrpc\": \"2.0\", \"method\": \"tell\"}]"));
    assert_int_equal(fixture->told, 2);
    assert_int_equal(fixture->empty, 1);
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
}

/* ---- Requests ---- */

static void ids_come_back_exactly(void **state)
{
    static const char *const ids[] = {
        "0",    "-1",   "9223372036854775807", "-9223372036854775808",         "9007199254740993",
        "null", "\"\"", "\"a\\\"b\\\\c\\n\"",  "\"\xc3\xa4\xf0\x9f\x90\xa7\"", "1.5",
        "\"1\""};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char request[256];
        char expected[256];

        snprintf(request, sizeof request, "{\"id\": %s, \"method\": \"tell\", \"jsonrpc\": \"2.0\"}", ids[i]);
        snprintf(expected, sizeof expected, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":\"told\"}", ids[i]);
        send_text(fixture, request);
        assert_int_equal(fixture->count, i + 1);
        assert_string_equal(fixture->lines[i], expected);
    }
}

static void ids_of_other_types_are_refused(void **state)
{
    static const char *const ids[] = {"true", "false", "[]", "{}", "[1]"};

    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char request[256];

        snprintf(request, sizeof request, "{\"id\": %s, \"method\": \"tell\", \"jsonrpc\": \"2.0\"}", ids[i]);
        assert_answers_error(*state, request, P2MG_ERROR_INVALID_REQUEST, "null", "id");
    }
    assert_int_equal(((struct fixture *)*state)->told, 0);
}

static void ids_have_a_longest(void **state)
{
    char request[2048];
    char id[1200];
    struct fixture *fixture = *state;

    memset(id, 'i', sizeof id);
    snprintf(request, sizeof request, "{\"id\": \"%.*s\", \"method\": \"tell\", \"jsonrpc\": \"2.0\"}", 1022, id);
    json_decref(exchange(fixture, request));
    assert_int_equal(fixture->told, 1);
    snprintf(request, sizeof request, "{\"id\": \"%.*s\", \"method\": \"tell\", \"jsonrpc\": \"2.0\"}", 1023, id);
    assert_answers_error(fixture, request, P2MG_ERROR_INVALID_REQUEST, "null", "id");
    assert_int_equal(fixture->told, 1);
}

static void malformed_requests_keep_their_id(void **state)
{
    assert_answers_error(*state, "{\"id\": 7}", P2MG_ERROR_INVALID_REQUEST, "7", "jsonrpc");
    assert_answers_error(*state, "{\"id\": 7, \"jsonrpc\": 2.0, \"method\": \"tell\"}", P2MG_ERROR_INVALID_REQUEST, "7",
                         "jsonrpc");
    assert_answers_error(*state, "{\"id\": 7, \"jsonrpc\": \"1.0\", \"method\": \"tell\"}", P2MG_ERROR_INVALID_REQUEST,
                         "7", "jsonrpc");
    assert_answers_error(*state, "{\"id\": 7, \"jsonrpc\": \"2.0\"}", P2MG_ERROR_INVALID_REQUEST, "7", "method");
    assert_answers_error(*state, "{\"id\": 7, \"jsonrpc\": \"2.0\", \"method\": \"tell\", \"params\": null}",
                         P2MG_ERROR_INVALID_REQUEST, "7", "params");
    assert_answers_error(*state, "{\"id\": 7, \"jsonrpc\": \"2.0\", \"method\": \"tell\", \"params\": \"x\"}",
                         P2MG_ERROR_INVALID_REQUEST, "7", "params");
}

static void unknown_members_are_ignored(void **state)
{
    assert_reply(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1,\"auth\":\"x\",\"meta\":{}}",
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"told\"}");
}

static void members_given_twice_are_refused(void **state)
{
    assert_answers_error(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1,\"id\":2}",
                         P2MG_ERROR_INVALID_REQUEST, "null", NULL);
    assert_answers_error(*state,
                         "{\"jsonrpc\":\"2.0\",\"method\":\"typed\",\"id\":1,"
                         "\"params\":{\"integer\":1,\"integer\":2}}",
                         P2MG_ERROR_INVALID_REQUEST, "null", NULL);
    assert_int_equal(((struct fixture *)*state)->told, 0);
}

static void garbage_is_answered(void **state)
{
    static const char *const garbage[] = {"",
                                          " ",
                                          "\r",
                                          "hello",
                                          "{",
                                          "}",
                                          "{}x",
                                          "[1,",
                                          "\"\\ud800\"",
                                          "{\"jsonrpc\":\"2.0\",\"method\":\"\\u0000\",\"id\":1}",
                                          "{\"id\":123456789012345678901234567890}",
                                          "{\"id\":1e999}",
                                          "\xff\xfe",
                                          "{\"jsonrpc\":\"2.0\",\"method\":\"te\xffll\",\"id\":1}",
                                          "{\"jsonrpc\":\"2.0\",\"method\":\"\xed\xa0\x80\",\"id\":1}",
                                          "{\"\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4\xc3\xa4",
                                          "\x01\x02\x03"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        json_t *reply = exchange(fixture, garbage[i]);

        assert_error(reply, P2MG_ERROR_PARSE, "null", NULL);
        assert_true(
            json_is_integer(json_object_get(json_object_get(json_object_get(reply, "error"), "data"), "where")));
        json_decref(reply);
    }
    rpc_channel_take_line(fixture->channel, "\0\0\0", 3);
    assert_int_equal(fixture->count, 1 + sizeof garbage / sizeof *garbage);
}

static void scalars_are_no_requests(void **state)
{
    static const char *const scalars[] = {"1", "-0.5", "true", "null", "\"text\"", "{}"};

    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        assert_answers_error(*state, scalars[i], P2MG_ERROR_INVALID_REQUEST, "null",
                             scalars[i][0] == '{' ? "jsonrpc" : "message");
}

static void deep_nesting_is_refused(void **state)
{
    char text[60001];

    memset(text, '[', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    assert_answers_error(*state, text, P2MG_ERROR_PARSE, "null", NULL);
    for (size_t i = 0; i + 5 < sizeof text; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    assert_answers_error(*state, text, P2MG_ERROR_PARSE, "null", NULL);
    assert_reply(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}",
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"told\"}");
}

/* ---- Parameters and rights ---- */

static void assert_params_error(struct fixture *fixture, const char *method, const char *params, const char *where,
                                const char *expected)
{
    char request[1024];
    json_t *reply;
    const json_t *data;

    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":1}", method, params);
    reply = exchange(fixture, request);
    assert_error(reply, P2MG_ERROR_INVALID_PARAMS, "1", where);
    data = json_object_get(json_object_get(reply, "error"), "data");
    assert_string_equal(json_string_value(json_object_get(data, "expected")), expected);
    json_decref(reply);
}

static void parameters_are_checked(void **state)
{
    assert_params_error(*state, "subtract", "{}", "params.subtrahend", "an integer");
    assert_params_error(*state, "subtract", "{\"subtrahend\":1}", "params.minuend", "an integer");
    assert_params_error(*state, "subtract", "{\"subtrahend\":1,\"minuend\":1,\"x\":1}", "params.x",
                        "one of: subtrahend, minuend");
    assert_params_error(*state, "tell", "{\"x\":1}", "params.x", "no parameters");
    assert_params_error(*state, "typed", "{\"string\":1}", "params.string", "a string");
    assert_params_error(*state, "typed", "{\"integer\":1.0}", "params.integer", "an integer");
    assert_params_error(*state, "typed", "{\"integer\":null}", "params.integer", "an integer");
    assert_params_error(*state, "typed", "{\"boolean\":0}", "params.boolean", "true or false");
    assert_params_error(*state, "typed", "{\"object\":[]}", "params.object", "an object");
    assert_params_error(*state, "typed", "{\"either\":false}", "params.either", "a string or an integer");
    assert_params_error(*state, "typed", "[1]", "params", "an object");
    assert_int_equal(((struct fixture *)*state)->told, 0);
}

static void parameters_of_each_type_are_accepted(void **state)
{
    assert_reply(*state,
                 "{\"jsonrpc\":\"2.0\",\"method\":\"typed\",\"id\":1,\"params\":{\"string\":\"s\",\"integer\":-1,"
                 "\"boolean\":false,\"object\":{\"any\":[]},\"either\":\"7\"}}",
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"told\"}");
    assert_reply(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"typed\",\"id\":1,\"params\":{\"either\":7}}",
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"told\"}");
}

/* What a peer chose is repeated to it only in part, and never cut amid a character. */
static void long_names_are_cut(void **state)
{
    char name[4096];
    char request[8192];

    for (size_t i = 0; i + 2 < sizeof name; i += 2)
        memcpy(name + i, "\xc3\xa4", 2);
    name[sizeof name - 2] = '\0';
    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"%s\"}", name);
    assert_answers_error(*state, request, P2MG_ERROR_METHOD_NOT_FOUND, "1", NULL);
    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x%s\"}", name);
    assert_answers_error(*state, request, P2MG_ERROR_METHOD_NOT_FOUND, "1", NULL);
    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tell\",\"params\":{\"%s\":1}}", name);
    assert_answers_error(*state, request, P2MG_ERROR_INVALID_PARAMS, "1", NULL);
    assert_true(strlen(((struct fixture *)*state)->lines[2]) < 512);
}

static void changes_need_the_right(void **state)
{
    struct rpc_peer root = {.connection = 6, .may_change = true};
    struct fixture *fixture = *state;

    assert_answers_error(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"change\",\"id\":1}", P2MG_ERROR_NOT_PERMITTED, "1",
                         NULL);
    assert_null(exchange(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"change\"}"));
    assert_int_equal(fixture->told, 0);
    rpc_channel_free(fixture->channel);
    fixture->channel = rpc_channel_new(methods, fixture, &root, keep_line, fixture);
    assert_reply(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"change\",\"id\":1}",
                 "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"told\"}");
}

static void every_change_that_is_asked_for_is_told_of(void **state)
{
    static const char *const requests[] = {
        "{\"jsonrpc\":\"2.0\",\"method\":\"either\",\"params\":{\"look\":true},\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"either\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"either\",\"params\":{\"look\":1},\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"either\",\"params\":[true],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"forgotten\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":1}",
        "[{\"jsonrpc\":\"2.0\",\"method\":\"change\"},{\"jsonrpc\":\"2.0\",\"method\":\"change\",\"id\":1}]"};
    struct rpc_peer root = {.connection = 6, .may_change = true};
    struct fixture *fixture = *state;

    for (int turn = 0; turn < 2; turn++) {
        rpc_channel_on_asked(fixture->channel, note_asked);
        for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
            send_text(fixture, requests[i]);
        if (turn)
            break;
        assert_string_equal(fixture->asked, "rrrrRR");
        assert_int_equal(fixture->told, 2); /* the look, and "tell" */
        assert_non_null(strstr(fixture->lines[1], "just look"));
        memset(fixture->asked, 0, sizeof fixture->asked);
        rpc_channel_free(fixture->channel);
        fixture->channel = rpc_channel_new(methods, fixture, &root, keep_line, fixture);
    }
    assert_string_equal(fixture->asked, "giigGG");
}

static void note_ended(void *context, const char *method, int code)
{
    struct fixture *fixture = context;
    size_t length = strlen(fixture->ended);

    snprintf(fixture->ended + length, sizeof fixture->ended - length, "%s %d, ", method ? method : "-", code);
}

/* Those without an answer included, and those whose channel is gone. */
static void every_call_that_ends_is_told_of(void **state)
{
    static const char *const requests[] = {
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\"}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"params\":{\"x\":1},\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"change\",\"id\":1}",
        "[{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1},7]",
        "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":1}",
    };
    struct fixture *fixture = *state;

    rpc_channel_on_ended(fixture->channel, note_ended);
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        rpc_channel_take_line(fixture->channel, requests[i], strlen(requests[i]));
    rpc_channel_free(fixture->channel);
    fixture->channel = NULL;
    rpc_reply(fixture->later[0], json_true());
    assert_string_equal(fixture->ended, "tell 0, tell 0, fail -32001, nothing -32603, - -32601, tell -32602, "
                                        "change -32004, tell 0, later 0, ");
}

/* ---- Replies ---- */

static void errors_always_say_what(void **state)
{
    json_t *reply = exchange(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":1}");
    const json_t *data = json_object_get(json_object_get(reply, "error"), "data");

    assert_error(reply, P2MG_ERROR_NO_SUCH_DOMAIN, "1", NULL);
    assert_int_equal(json_integer_value(json_object_get(data, "domain")), 7);
    assert_string_equal(json_string_value(json_object_get(data, "what")), "No such domain");
    json_decref(reply);
    assert_answers_error(*state, "{\"jsonrpc\":\"2.0\",\"method\":\"nothing\",\"id\":1}", P2MG_ERROR_INTERNAL, "1",
                         NULL);
}

static void replies_come_when_they_are_ready(void **state)
{
    struct fixture *fixture = *state;

    send_text(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":1}");
    send_text(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":2}");
    assert_int_equal(fixture->count, 0);
    assert_int_equal(rpc_channel_pending(fixture->channel), 2);
    assert_int_equal(rpc_call_peer(fixture->later[0])->uid, 1000);
    assert_ptr_equal(rpc_call_channel(fixture->later[0]), fixture->channel);
    rpc_reply(fixture->later[1], json_true());
    assert_string_equal(fixture->lines[0], "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":true}");
    assert_int_equal(rpc_channel_pending(fixture->channel), 1);
    rpc_fail(fixture->later[0], P2MG_ERROR_STORE, "No answer", NULL);
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
    assert_string_equal(fixture->lines[1], "{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32006,"
                                           "\"message\":\"No answer\",\"data\":{\"what\":\"No answer\"}}}");
}

static void batch_waits_for_its_last_call(void **state)
{
    struct fixture *fixture = *state;

    send_text(fixture, "[{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":1},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"later\"},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":3}]");
    assert_int_equal(rpc_channel_pending(fixture->channel), 4);
    rpc_reply(fixture->later[2], json_integer(3));
    rpc_reply(fixture->later[0], json_integer(1));
    assert_int_equal(fixture->count, 0);
    rpc_reply(fixture->later[1], json_null());
    assert_int_equal(fixture->count, 1);
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
    assert_string_equal(fixture->lines[0], "[{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"told\"},"
                                           "{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":3},"
                                           "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":1}]");
}

static void calls_outlive_their_channel(void **state)
{
    struct fixture *fixture = *state;

    send_text(fixture, "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":1}");
    send_text(fixture, "[{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":2},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":3},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"later\"}]");
    rpc_channel_free(fixture->channel);
    fixture->channel = NULL;
    assert_null(rpc_call_channel(fixture->later[0]));
    assert_int_equal(rpc_call_peer(fixture->later[1])->connection, 5);
    for (size_t i = 0; i < 3; i++)
        rpc_reply(fixture->later[i], json_integer((json_int_t)i));
    assert_int_equal(fixture->count, 0);
    assert_int_equal(fixture->empty, 0);
}

static void channel_may_close_inside_a_method(void **state)
{
    struct fixture *fixture = *state;

    fixture->close_in_run = true;
    send_text(fixture, "[{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":2},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":3},"
                       "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":4}, 5]");
    assert_int_equal(fixture->told, 1);
    rpc_reply(fixture->later[0], json_true());
    assert_int_equal(fixture->count, 0);
}

/* ---- Limits ---- */

/* Valgrind takes minutes for megabytes, and sees nothing in them that it does not see in a few hundred bytes. */
static void skip_what_is_large(void)
{
    if (getenv("P2MGUARD_VALGRIND") && !getenv("P2MGUARD_LONG"))
        skip();
}

static void reply_of_the_longest_length_fits(void **state)
{
    /* {"jsonrpc":"2.0","id":1,"result":""} and a newline around it */
    const int frame = 37;
    struct fixture *fixture = *state;
    char request[128];

    skip_what_is_large();
    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":%d},\"id\":1}",
             P2MG_REPLY_MAX_BYTES - frame);
    send_text(fixture, request);
    assert_int_equal(strlen(fixture->lines[0]), P2MG_REPLY_MAX_BYTES - 1);
    snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":%d},\"id\":1}",
             P2MG_REPLY_MAX_BYTES - frame + 1);
    assert_answers_error(fixture, request, P2MG_ERROR_INTERNAL, "1", NULL);
    assert_non_null(strstr(fixture->lines[1], "longer than a message may be"));
}

static void batch_fills_a_message_and_no_more(void **state)
{
    skip_what_is_large();
    json_t *reply =
        exchange(*state, "[{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":1000000},\"id\":1},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":66500000},\"id\":2},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":60000000},\"id\":3},"
                         "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":10000000},\"id\":4}]");

    assert_int_equal(json_array_size(reply), 4);
    assert_int_equal(json_string_length(json_object_get(json_array_get(reply, 0), "result")), 1000000);
    assert_error(json_array_get(reply, 1), P2MG_ERROR_INTERNAL, "2", NULL);
    assert_int_equal(json_string_length(json_object_get(json_array_get(reply, 2), "result")), 60000000);
    assert_error(json_array_get(reply, 3), P2MG_ERROR_INTERNAL, "4", NULL);
    json_decref(reply);
}

/* What only reads is not even run when there is no room for its answer; what changes something is. */
static void full_batch_runs_no_more_than_it_has_to(void **state)
{
    struct rpc_peer root = {.connection = 6, .may_change = true};
    struct fixture *fixture = *state;

    rpc_channel_free(fixture->channel);
    fixture->channel = rpc_channel_new(methods, fixture, &root, keep_line, fixture);
    json_t *reply =
        exchange(fixture, "[{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":1100000},\"id\":1},"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2},"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"change\",\"id\":3}]");

    assert_int_equal(json_array_size(reply), 3);
    assert_error(json_array_get(reply, 1), P2MG_ERROR_INTERNAL, "2", NULL);
    assert_error(json_array_get(reply, 2), P2MG_ERROR_INTERNAL, "3", NULL);
    assert_int_equal(fixture->told, 1);
    json_decref(reply);
}

/* An answer that nobody waits for has cost as much to make. */
static void notifications_fill_a_batch_too(void **state)
{
    struct fixture *fixture = *state;
    json_t *reply = exchange(fixture, "[{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":600000}},"
                                      "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":1},"
                                      "{\"jsonrpc\":\"2.0\",\"method\":\"sized\",\"params\":{\"size\":600000}},"
                                      "{\"jsonrpc\":\"2.0\",\"method\":\"tell\"},"
                                      "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2}]");

    assert_int_equal(json_array_size(reply), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(reply, 0), "result")), "told");
    assert_error(json_array_get(reply, 1), P2MG_ERROR_INTERNAL, "2", NULL);
    assert_int_equal(fixture->told, 1);
    json_decref(reply);
}

/* A batch of `count` requests with ids of `id_length` characters. */
static char *make_batch(size_t count, size_t id_length, const char *method)
{
    char *text = malloc(count * (id_length + strlen(method) + 64) + 3);
    char *end = text;

    assert_non_null(text);
    *end++ = '[';
    for (size_t i = 0; i < count; i++)
        end += sprintf(end, "%s{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"id\":\"%0*zu\"}", i > 0 ? "," : "", method,
                       (int)id_length, i);
    strcpy(end, "]");
    return text;
}

static void batches_have_a_largest(void **state)
{
    char *text = make_batch(256, 8, "tell");
    json_t *reply = exchange(*state, text);

    assert_int_equal(json_array_size(reply), 256);
    json_decref(reply);
    free(text);
    text = make_batch(257, 8, "tell");
    assert_answers_error(*state, text, P2MG_ERROR_INVALID_REQUEST, "null", "message");
    free(text);
    assert_int_equal(((struct fixture *)*state)->told, 256);
}

/* Errors that are longer than the least, for as many entries as there may be. */
static void batch_of_errors_fits(void **state)
{
    static const char *const broken[] = {"no.such.method.with.a.name.that.is.rather.long.and.is.repeated.in.the.error",
                                         "nothing", "fail"};

    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        char *text = make_batch(256, 80, broken[i]);
        json_t *reply = exchange(*state, text);

        assert_int_equal(json_array_size(reply), 256);
        for (size_t k = 0; k < 256; k++)
            assert_non_null(json_object_get(json_array_get(reply, k), "error"));
        json_decref(reply);
        free(text);
    }
}

static void many_requests_may_be_in_flight(void **state)
{
    struct fixture *fixture = *state;

    for (int i = 0; i < 1000; i++) {
        char request[128];

        snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"id\":%d}", i);
        send_text(fixture, request);
    }
    assert_int_equal(rpc_channel_pending(fixture->channel), 1000);
    for (size_t i = 1000; i-- > 0;)
        rpc_reply(fixture->later[i], json_integer((json_int_t)i));
    assert_int_equal(fixture->count, 1000);
    assert_string_equal(fixture->lines[0], "{\"jsonrpc\":\"2.0\",\"id\":999,\"result\":999}");
    assert_string_equal(fixture->lines[999], "{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":0}");
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
}

static void notifications_of_ours_have_no_id(void **state)
{
    struct fixture *fixture = *state;
    static const char params[] = "{\"seq\":1}";

    rpc_channel_notify(fixture->channel, "event", params, sizeof params - 1);
    assert_string_equal(fixture->lines[0], "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"seq\":1}}");
}

/* ---- Memory ---- */

static long allocations_left;

static void *failing_malloc(size_t size)
{
    return allocations_left-- > 0 ? malloc(size) : NULL;
}

/* Whichever allocation of jansson's fails, a request is answered once, and nothing leaks or crashes. */
static void memory_may_run_out_anywhere(void **state)
{
    static const char *const requests[] = {
        "{\"jsonrpc\":\"2.0\",\"method\":\"subtract\",\"params\":{\"minuend\":42,\"subtrahend\":23},\"id\":\"x\"}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"params\":{\"x\":1},\"id\":2}",
        "[{\"jsonrpc\":\"2.0\",\"method\":\"tell\",\"id\":2},1,{\"jsonrpc\":\"2.0\",\"method\":\"none\",\"id\":2}]",
        "{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\"}",
        "not JSON"};
    struct fixture *fixture = *state;

    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        bool enough = false;

        for (long room = 0; !enough; room++) {
            size_t before = fixture->count;

            allocations_left = room;
            json_set_alloc_funcs(failing_malloc, free);
            send_text(fixture, requests[i]);
            json_set_alloc_funcs(malloc, free);
            enough = allocations_left >= 0;
            assert_int_equal(fixture->count, before + 1);
            json_decref(json_loads(fixture->lines[before], 0, NULL));
        }
    }
    assert_int_equal(rpc_channel_pending(fixture->channel), 0);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_fixture, close_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(standard_named_parameters),
        CASE(standard_positional_parameters_are_not_ours),
        CASE(standard_no_positional_parameters_are_none),
        CASE(standard_notification),
        CASE(standard_unknown_method),
        CASE(standard_invalid_json),
        CASE(standard_invalid_request),
        CASE(standard_empty_batch),
        CASE(standard_invalid_batches),
        CASE(standard_batch),
        CASE(standard_batch_of_notifications),
        CASE(ids_come_back_exactly),
        CASE(ids_of_other_types_are_refused),
        CASE(ids_have_a_longest),
        CASE(malformed_requests_keep_their_id),
        CASE(unknown_members_are_ignored),
        CASE(members_given_twice_are_refused),
        CASE(garbage_is_answered),
        CASE(scalars_are_no_requests),
        CASE(deep_nesting_is_refused),
        CASE(parameters_are_checked),
        CASE(parameters_of_each_type_are_accepted),
        CASE(long_names_are_cut),
        CASE(changes_need_the_right),
        CASE(every_change_that_is_asked_for_is_told_of),
        CASE(every_call_that_ends_is_told_of),
        CASE(errors_always_say_what),
        CASE(replies_come_when_they_are_ready),
        CASE(batch_waits_for_its_last_call),
        CASE(calls_outlive_their_channel),
        CASE(channel_may_close_inside_a_method),
        CASE(reply_of_the_longest_length_fits),
        CASE(batch_fills_a_message_and_no_more),
        CASE(full_batch_runs_no_more_than_it_has_to),
        CASE(notifications_fill_a_batch_too),
        CASE(batches_have_a_largest),
        CASE(batch_of_errors_fits),
        CASE(many_requests_may_be_in_flight),
        CASE(notifications_of_ours_have_no_id),
        CASE(memory_may_run_out_anywhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
