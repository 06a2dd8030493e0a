/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "daemon/repeat.h"
#include "daemon/text.h"
#include "daemon/writer.h"
#include "protocol/names.h"

/*
 * However short of memory or room we are, each request can be answered with one of these. Together with the limits
 * below this is what lets a batch promise that its reply fits a message: it reserves as much for each entry.
 */
#define MINIMAL_FORMAT                                                                                                 \
    "{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":{\"code\":-32603,\"message\":\"Internal error\","                        \
    "\"data\":{\"what\":\"%s\"}}}"
#define NO_MEMORY "memory ran out"
#define NO_ROOM "the reply is longer than a message may be"

enum {
    ID_MAX_BYTES = 1024, /* of an id as we send it back */
    BATCH_MAX_ENTRIES = 256,
    BATCH_FULL_BYTES = 1024 * 1024, /* with so much answered a reply to a batch takes in no more than it has to */
    NAME_MAX_BYTES = 128,           /* of a peer's own words that an error repeats; longer ones are cut */
    MINIMAL_MAX_BYTES = sizeof MINIMAL_FORMAT + sizeof NO_ROOM,
    BATCH_FRAME_BYTES = 2 /* the last bracket and the newline; the first bracket and the commas count with entries */
};

LIST_HEAD(call_list, rpc_call);
LIST_HEAD(batch_list, rpc_batch);

struct rpc_channel {
    const struct rpc_method *methods;
    void *method_context;
    struct rpc_peer peer;
    rpc_asked *asked; /* or NULL */
    rpc_ended *ended; /* or NULL */
    bool deaf;        /* nobody reads the answers */
    rpc_write *write;
    void *write_context;
    struct call_list calls;
    struct batch_list batches;
    size_t pending;
    struct repeat repeat;
};

/*
 * The replies to a batch, until all its calls have ended. `room`, the bytes allocated for `text`, is never less than
 * what the entries still open need when each is answered in the minimal way.
 */
struct rpc_batch {
    LIST_ENTRY(rpc_batch) link;
    struct rpc_channel *channel; /* NULL once that is closed */
    size_t entries;
    size_t open; /* entries not answered yet, and one more while they are being taken in */
    size_t reserved;
    char *text;
    size_t length;
    size_t room;
    size_t unwanted; /* bytes of answers that nobody waits for */
};

struct rpc_call {
    LIST_ENTRY(rpc_call) link;
    struct rpc_channel *channel; /* NULL once that is closed */
    struct rpc_batch *batch;     /* NULL for a request on a line of its own */
    size_t reserved;             /* its part of the batch's reserved */
    struct rpc_peer peer;
    rpc_ended *ended; /* with its context, for a call may outlive its channel */
    void *ended_context;
    const char *method; /* NULL: of that name there is none */
    bool notification;
    char id[]; /* as JSON text */
};

/* A request taken apart. Everything is borrowed from the message. */
struct request {
    const json_t *id; /* NULL for a notification */
    const char *method;
    const json_t *params; /* NULL when absent */
};

/* What is wrong with a request: `where` names the member, `what` says it. */
struct problem {
    char where[NAME_MAX_BYTES + 32];
    const char *what;
    char expected[256];
};

/* ---- Text ---- */

/* How long an id is as JSON text; 0 when it is of no valid type. */
static size_t id_size(const json_t *id)
{
    char number[WRITER_NUMBER_MAX];

    if (json_is_integer(id))
        return writer_print_number(json_integer_value(id), number);
    if (!json_is_string(id) && !json_is_number(id) && !json_is_null(id))
        return 0;
    return json_dumpb(id, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY);
}

/* Writes an id as JSON text; "null" when it has no valid type or is too long. */
static void id_write(const json_t *id, char text[ID_MAX_BYTES + 1])
{
    size_t size = id_size(id);

    if (json_is_integer(id)) {
        writer_print_number(json_integer_value(id), text);
    } else if (size == 0 || size > ID_MAX_BYTES ||
               json_dumpb(id, text, ID_MAX_BYTES, JSON_COMPACT | JSON_ENCODE_ANY) != size) {
        memcpy(text, "null", sizeof "null");
        return;
    }
    text[size] = '\0';
}

/* An error object; NULL when memory ran out. Steals `data`, and sees to it that it says what is wrong. */
static json_t *error_make(int code, const char *message, json_t *data)
{
    json_t *error;

    if (data == NULL)
        data = json_object();
    if (json_object_get(data, "what") == NULL && json_object_set_new(data, "what", json_string(message)) < 0) {
        json_decref(data);
        return NULL;
    }
    error = json_pack("{s:i, s:s, s:O}", "code", code, "message", message, "data", data);
    json_decref(data);
    return error;
}

/* What comes before the result, or the error. */
static void response_begin(struct writer *line, const char *id, const char *member)
{
    static const char begin[] = "{\"jsonrpc\":\"2.0\",\"id\":";

    writer_bytes(line, begin, sizeof begin - 1);
    writer_bytes(line, id, strlen(id));
    writer_bytes(line, ",\"", 2);
    writer_bytes(line, member, strlen(member));
    writer_bytes(line, "\":", 2);
}

/* ---- Batches ---- */

static size_t entry_reserve(const json_t *entry)
{
    size_t size = id_size(json_object_get(entry, "id"));

    if (size < strlen("null") || size > ID_MAX_BYTES)
        size = strlen("null");
    return MINIMAL_MAX_BYTES + size;
}

/* NULL when memory ran out. */
static struct rpc_batch *batch_new(struct rpc_channel *channel, const json_t *entries)
{
    struct rpc_batch *batch = calloc(1, sizeof *batch);
    const json_t *entry;
    size_t i;

    if (batch == NULL)
        return NULL;
    json_array_foreach(entries, i, entry) batch->reserved += entry_reserve(entry);
    batch->room = batch->reserved + BATCH_FRAME_BYTES;
    batch->text = malloc(batch->room);
    if (batch->text == NULL) {
        free(batch);
        return NULL;
    }
    batch->channel = channel;
    batch->entries = json_array_size(entries);
    batch->open = batch->entries + 1;
    channel->pending += batch->entries;
    LIST_INSERT_HEAD(&channel->batches, batch, link);
    return batch;
}

/* A line costs a peer next to nothing, and is to cost us no more than a few long answers. */
static bool batch_is_full(const struct rpc_batch *batch)
{
    return batch->length + batch->unwanted >= BATCH_FULL_BYTES;
}

/* Makes room for one more response, which stands in for `reserved` bytes; false when there is none to be had. */
static bool batch_make_room(struct rpc_batch *batch, size_t length, size_t reserved)
{
    size_t needed = batch->length + 1 + length + (batch->reserved - reserved) + BATCH_FRAME_BYTES;
    char *text;

    if (batch_is_full(batch) || needed > P2MG_REPLY_MAX_BYTES)
        return false;
    if (needed <= batch->room)
        return true;
    text = realloc(batch->text, needed);
    if (text == NULL)
        return false;
    batch->text = text;
    batch->room = needed;
    return true;
}

static void batch_append(struct rpc_batch *batch, const char *response, size_t length)
{
    batch->text[batch->length] = batch->length == 0 ? '[' : ',';
    memcpy(batch->text + batch->length + 1, response, length);
    batch->length += 1 + length;
}

/* Counts one entry as dealt with. The last one sends the replies and frees the batch. */
static void batch_entry_end(struct rpc_batch *batch, size_t reserved)
{
    struct rpc_channel *channel = batch->channel;

    batch->reserved -= reserved;
    batch->open--;
    if (batch->open > 0)
        return;
    if (channel != NULL) {
        LIST_REMOVE(batch, link);
        channel->pending -= batch->entries;
        if (batch->length > 0) {
            memcpy(batch->text + batch->length, "]\n", 2);
            batch->length += 2;
        }
        channel->write(channel->write_context, batch->text, batch->length);
    }
    free(batch->text);
    free(batch);
}

/* ---- Answers ---- */

/* Where an answer goes, and for which id. */
struct addressee {
    struct rpc_channel *channel; /* NULL once that is closed */
    struct rpc_batch *batch;
    size_t reserved;
    const char *id; /* NULL when nobody waits for it */
};

static bool answer_fits(const struct addressee *to, size_t length)
{
    if (to->batch != NULL)
        return batch_make_room(to->batch, length - 1, to->reserved);
    return length <= P2MG_REPLY_MAX_BYTES;
}

/* Hands over a response line. In a batch it loses its newline. */
static void answer_write(const struct addressee *to, const char *line, size_t length)
{
    if (to->batch == NULL) {
        to->channel->write(to->channel->write_context, line, length);
        return;
    }
    if (length > 0)
        batch_append(to->batch, line, length - 1);
    batch_entry_end(to->batch, to->reserved);
}

static void answer_write_minimal(const struct addressee *to, const char *what)
{
    char line[MINIMAL_MAX_BYTES + ID_MAX_BYTES + 2];
    int length = snprintf(line, sizeof line, MINIMAL_FORMAT "\n", to->id, what);

    answer_write(to, line, (size_t)length);
}

/* Nobody waits for the answer; a batch counts what it would have cost all the same. */
static void answer_drop(const struct addressee *to, size_t length)
{
    if (to->batch != NULL && to->batch->channel != NULL)
        to->batch->unwanted += length;
    if (to->batch != NULL)
        batch_entry_end(to->batch, to->reserved);
    else if (to->channel != NULL)
        answer_write(to, "", 0);
}

/* A response that lacks its end; or as little as says that this could not be done. */
static void answer_send_line(const struct addressee *to, struct writer *line)
{
    writer_bytes(line, "}\n", 2);
    if (line->failed)
        answer_write_minimal(to, NO_MEMORY);
    else if (!answer_fits(to, line->used))
        answer_write_minimal(to, NO_ROOM);
    else
        answer_write(to, line->text, line->used);
}

/* Answers with a result or an error; steals `value`, which is NULL when memory ran out. */
static void answer_send(const struct addressee *to, const char *member, json_t *value)
{
    struct writer line = {0};

    if (to->channel == NULL || to->id == NULL) {
        answer_drop(to, json_dumpb(value, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY));
        json_decref(value);
        return;
    }
    response_begin(&line, to->id, member);
    writer_value(&line, NULL, value);
    answer_send_line(to, &line);
    writer_clear(&line);
}

static void answer_send_error(const struct addressee *to, int code, const char *message, json_t *data)
{
    answer_send(to, "error", error_make(code, message, data));
}

/* Answers a line that is no request; there is no id to answer to. */
static void channel_reject(struct rpc_channel *channel, int code, const char *message, json_t *data)
{
    struct addressee to = {.channel = channel, .id = "null"};

    answer_send_error(&to, code, message, data);
}

/* ---- Calls ---- */

/* `id` as JSON text; NULL for a notification. */
static struct rpc_call *call_new(struct rpc_channel *channel, struct rpc_batch *batch, size_t reserved, const char *id)
{
    size_t room = id != NULL ? strlen(id) + 1 : 0;
    struct rpc_call *call = calloc(1, sizeof *call + room);

    if (call == NULL)
        return NULL;
    call->channel = channel;
    call->batch = batch;
    call->reserved = reserved;
    call->peer = channel->peer;
    call->ended = channel->ended;
    call->ended_context = channel->method_context;
    call->notification = id == NULL;
    if (id != NULL)
        memcpy(call->id, id, room);
    LIST_INSERT_HEAD(&channel->calls, call, link);
    if (batch == NULL)
        channel->pending++;
    return call;
}

/* 0, or the code of what is sent as an error; that may be NULL, when memory ran out. */
static int answer_code(const char *member, const json_t *value)
{
    if (strcmp(member, "error") != 0)
        return 0;
    return value != NULL ? (int)json_integer_value(json_object_get(value, "code")) : P2MG_ERROR_INTERNAL;
}

/*
 * The call is out of every list before its answer is written: whoever gets that sees the counts as they are then. Where
 * the answer goes; its id is the call's.
 */
static struct addressee call_leave(struct rpc_call *call, int code)
{
    struct addressee to = {.channel = call->channel,
                           .batch = call->batch,
                           .reserved = call->reserved,
                           .id = call->notification ? NULL : call->id};

    if (call->channel != NULL) {
        LIST_REMOVE(call, link);
        if (call->batch == NULL)
            call->channel->pending--;
    }
    if (call->ended != NULL)
        call->ended(call->ended_context, call->method, code);
    return to;
}

static void call_end(struct rpc_call *call, const char *member, json_t *value)
{
    struct addressee to = call_leave(call, answer_code(member, value));

    answer_send(&to, member, value);
    free(call);
}

void rpc_reply(struct rpc_call *call, json_t *result)
{
    if (result != NULL)
        call_end(call, "result", result);
    else
        rpc_fail(call, P2MG_ERROR_INTERNAL, "Internal error", json_pack("{s:s}", "what", NO_MEMORY));
}

/* Where results are written that are text: there is one at a time. */
static struct writer result_text;

struct writer *rpc_text_begin(const struct rpc_call *call)
{
    writer_reuse(&result_text);
    response_begin(&result_text, call->notification ? "null" : call->id, "result");
    return &result_text;
}

void rpc_text_end(struct rpc_call *call)
{
    if (result_text.failed) {
        rpc_reply(call, NULL);
        return;
    }
    struct addressee to = call_leave(call, 0);
    if (to.channel == NULL || to.id == NULL)
        answer_drop(&to, result_text.used);
    else
        answer_send_line(&to, &result_text);
    free(call);
}

void rpc_fail(struct rpc_call *call, int code, const char *message, json_t *data)
{
    call_end(call, "error", error_make(code, message, data));
}

const struct rpc_peer *rpc_call_peer(const struct rpc_call *call)
{
    return &call->peer;
}

struct rpc_channel *rpc_call_channel(const struct rpc_call *call)
{
    return call->channel;
}

/* ---- Checks ---- */

static const struct rpc_method *method_find(const struct rpc_method *methods, const char *name)
{
    for (; methods->name != NULL; methods++) {
        if (strcmp(methods->name, name) == 0)
            return methods;
    }
    return NULL;
}

static const struct rpc_param *param_find(const struct rpc_method *method, const char *name)
{
    const struct rpc_param *param;

    for (param = method->params; param != NULL && param->name != NULL; param++) {
        if (strcmp(param->name, name) == 0)
            return param;
    }
    return NULL;
}

static bool type_matches(enum rpc_type type, const json_t *value)
{
    switch (type) {
    case RPC_STRING:
        return json_is_string(value);
    case RPC_INTEGER:
        return json_is_integer(value);
    case RPC_BOOLEAN:
        return json_is_boolean(value);
    case RPC_OBJECT:
        return json_is_object(value);
    case RPC_STRING_OR_INTEGER:
        return json_is_string(value) || json_is_integer(value);
    }
    return false;
}

static const char *type_describe(enum rpc_type type)
{
    static const char *const texts[] = {[RPC_STRING] = "a string",
                                        [RPC_INTEGER] = "an integer",
                                        [RPC_BOOLEAN] = "true or false",
                                        [RPC_OBJECT] = "an object",
                                        [RPC_STRING_OR_INTEGER] = "a string or an integer"};

    return texts[type];
}

/* "one of: domain, policy", as far as it fits; "no parameters" where a method has none. */
static void params_describe(const struct rpc_method *method, char *text, size_t room)
{
    const struct rpc_param *param = method->params;
    size_t length;

    if (param == NULL || param->name == NULL) {
        snprintf(text, room, "no parameters");
        return;
    }
    length = (size_t)snprintf(text, room, "one of: %s", param->name);
    for (param++; param->name != NULL && length < room; param++)
        length += (size_t)snprintf(text + length, room - length, ", %s", param->name);
}

static void problem_set_param(struct problem *problem, const char *name, const char *what)
{
    char cut[NAME_MAX_BYTES];

    text_cut(cut, sizeof cut, name);
    snprintf(problem->where, sizeof problem->where, "params.%s", cut);
    problem->what = what;
}

static bool params_check_given(const struct rpc_method *method, const json_t *params, struct problem *problem)
{
    void *at;

    /* The iterator functions take a pointer to what may be changed, and change nothing. */
    json_t *object = (json_t *)(uintptr_t)params;

    for (at = json_object_iter(object); at != NULL; at = json_object_iter_next(object, at)) {
        const char *name = json_object_iter_key(at);
        const struct rpc_param *param = param_find(method, name);

        if (param == NULL) {
            problem_set_param(problem, name, "the method has no such parameter");
            params_describe(method, problem->expected, sizeof problem->expected);
            return false;
        }
        if (!type_matches(param->type, json_object_iter_value(at))) {
            problem_set_param(problem, name, "the parameter is of the wrong type");
            text_cut(problem->expected, sizeof problem->expected, type_describe(param->type));
            return false;
        }
    }
    return true;
}

static bool params_check_missing(const struct rpc_method *method, const json_t *params, struct problem *problem)
{
    const struct rpc_param *param;

    for (param = method->params; param != NULL && param->name != NULL; param++) {
        if (param->required && json_object_get(params, param->name) == NULL) {
            problem_set_param(problem, param->name, "the parameter is missing");
            text_cut(problem->expected, sizeof problem->expected, type_describe(param->type));
            return false;
        }
    }
    return true;
}

static bool params_check(const struct rpc_method *method, const json_t *params, struct problem *problem)
{
    if (!json_is_object(params)) {
        snprintf(problem->where, sizeof problem->where, "params");
        problem->what = "parameters are passed by name";
        snprintf(problem->expected, sizeof problem->expected, "an object");
        return false;
    }
    return params_check_given(method, params, problem) && params_check_missing(method, params, problem);
}

/* Takes a message apart. Returns the name of the member that is wrong, and *what is; NULL when none is. */
static const char *request_take_apart(const json_t *message, struct request *request, const char **what)
{
    const char *version = json_string_value(json_object_get(message, "jsonrpc"));

    *what = "a request is an object";
    if (!json_is_object(message))
        return "";
    request->id = json_object_get(message, "id");
    *what = "an id is a string, a number or null";
    if (request->id != NULL && id_size(request->id) == 0)
        return "id";
    *what = "the id is too long";
    if (request->id != NULL && id_size(request->id) > ID_MAX_BYTES)
        return "id";
    *what = "a request says \"jsonrpc\": \"2.0\"";
    if (version == NULL || strcmp(version, "2.0") != 0)
        return "jsonrpc";
    request->method = json_string_value(json_object_get(message, "method"));
    *what = "a request names its method, a string";
    if (request->method == NULL)
        return "method";
    request->params = json_object_get(message, "params");
    *what = "parameters are an object";
    if (request->params != NULL && !json_is_object(request->params) && !json_is_array(request->params))
        return "params";
    /* No parameters by position are no parameters by name: there are clients that always send a list. */
    if (json_is_array(request->params) && json_array_size(request->params) == 0)
        request->params = NULL;
    return NULL;
}

/* ---- Taking in ---- */

static void call_fail_unknown(struct rpc_call *call, const char *method)
{
    char cut[NAME_MAX_BYTES];

    text_cut(cut, sizeof cut, method);
    rpc_fail(call, P2MG_ERROR_METHOD_NOT_FOUND, "Method not found",
             json_pack("{s:s, s:s}", "what", "there is no such method", "method", cut));
}

static void call_fail_forbidden(struct rpc_call *call, const struct rpc_method *method)
{
    const char *what =
        method->instead ? method->instead : "only root and members of the configured group may change things";

    rpc_fail(call, P2MG_ERROR_NOT_PERMITTED, "not permitted",
             json_pack("{s:s, s:s}", "what", what, "method", method->name));
}

static void call_fail_params(struct rpc_call *call, const struct problem *problem)
{
    rpc_fail(
        call, P2MG_ERROR_INVALID_PARAMS, "Invalid params",
        json_pack("{s:s, s:s, s:s}", "what", problem->what, "where", problem->where, "expected", problem->expected));
}

static bool method_changes(const struct rpc_method *method, const json_t *params)
{
    return method->class != RPC_READ && !(method->class == RPC_EITHER && method->reads(params));
}

/* Whether the call may be run. A change is told of, whatever becomes of it. */
static bool call_check(struct rpc_call *call, const struct rpc_method *method, const json_t *params)
{
    struct rpc_channel *channel = call->channel;
    bool changes = method_changes(method, params);
    bool refused = changes && !call->peer.may_change;
    struct problem problem;
    bool sound = params_check(method, params, &problem);

    if (changes && channel->asked != NULL)
        channel->asked(channel->method_context, &call->peer, method->name, params,
                       refused ? RPC_REFUSED
                       : sound ? RPC_GRANTED
                               : RPC_INVALID);
    if (refused)
        call_fail_forbidden(call, method);
    else if (!sound)
        call_fail_params(call, &problem);
    return !refused && sound;
}

static void call_run(struct rpc_call *call, const struct rpc_method *methods, void *context,
                     const struct request *request)
{
    const struct rpc_method *method = method_find(methods, request->method);
    json_t *none = request->params == NULL ? json_object() : NULL;
    const json_t *params = request->params != NULL ? request->params : none;

    call->method = method != NULL ? method->name : NULL;
    if (method == NULL)
        call_fail_unknown(call, request->method);
    else if (params == NULL)
        rpc_reply(call, NULL);
    else if (call->batch != NULL && batch_is_full(call->batch) && !method_changes(method, params))
        rpc_fail(call, P2MG_ERROR_INTERNAL, "Internal error", json_pack("{s:s}", "what", NO_ROOM));
    else if (call->channel->deaf && !method_changes(method, params))
        rpc_fail(call, P2MG_ERROR_INTERNAL, "Internal error", json_pack("{s:s}", "what", "nobody is told"));
    else if (call_check(call, method, params))
        method->run(call, params, context);
    json_decref(none);
}

/* Answers one entry that is no request. What can be told of its id is returned, as the peer would look for it. */
static void entry_reject(const struct addressee *to, size_t index, const char *member, const char *what)
{
    char where[64];

    if (to->batch != NULL)
        snprintf(where, sizeof where, "[%zu]%s%s", index, *member != '\0' ? "." : "", member);
    else
        snprintf(where, sizeof where, "%s", *member != '\0' ? member : "message");
    answer_send_error(to, P2MG_ERROR_INVALID_REQUEST, "Invalid Request",
                      json_pack("{s:s, s:s}", "what", what, "where", where));
}

/* Takes in one request: a message of its own, or entry number `index` of a batch. */
static void entry_take(struct rpc_channel *channel, struct rpc_batch *batch, size_t index, const json_t *message)
{
    size_t reserved = batch != NULL ? entry_reserve(message) : 0;
    char id[ID_MAX_BYTES + 1];
    struct addressee to = {.channel = channel, .batch = batch, .reserved = reserved, .id = id};
    struct request request = {0};
    const char *what;
    const char *member = request_take_apart(message, &request, &what);
    struct rpc_call *call;

    id_write(request.id, id);
    if (member != NULL) {
        entry_reject(&to, index, member, what);
        return;
    }
    call = call_new(channel, batch, reserved, request.id != NULL ? id : NULL);
    if (call != NULL) {
        call_run(call, channel->methods, channel->method_context, &request);
        return;
    }
    to.id = request.id != NULL ? id : NULL;
    answer_send(&to, "error", NULL);
}

static void channel_reject_batch(struct rpc_channel *channel, const char *what)
{
    channel_reject(channel, P2MG_ERROR_INVALID_REQUEST, "Invalid Request",
                   json_pack("{s:s, s:s}", "what", what, "where", "message"));
}

static void channel_take_batch(struct rpc_channel *channel, const json_t *entries)
{
    struct rpc_batch *batch;
    const json_t *entry;
    size_t i;

    if (json_array_size(entries) == 0) {
        channel_reject_batch(channel, "a batch has at least one request");
        return;
    }
    if (json_array_size(entries) > BATCH_MAX_ENTRIES) {
        channel_reject_batch(channel, "a batch has at most 256 requests");
        return;
    }
    batch = batch_new(channel, entries);
    if (batch == NULL) {
        channel_reject(channel, P2MG_ERROR_INTERNAL, "Internal error", json_pack("{s:s}", "what", NO_MEMORY));
        return;
    }
    json_array_foreach(entries, i, entry)
    {
        /* A method may have closed the channel; nobody waits for the rest any more. */
        if (batch->channel == NULL)
            batch_entry_end(batch, entry_reserve(entry));
        else
            entry_take(channel, batch, i, entry);
    }
    batch_entry_end(batch, 0);
}

/* The parser's words may repeat the peer's bytes, and end amid a character: what is not plain ASCII is masked. */
static void text_mask(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || (unsigned char)*text > 0x7e)
            *text = '?';
    }
}

/* The parser gave up. A member given twice is JSON still, but no request; the rest is no JSON, or no memory. */
static void channel_reject_text(struct rpc_channel *channel, json_error_t *error)
{
    text_mask(error->text);
    if (json_error_code(error) == json_error_out_of_memory || error->text[0] == '\0') {
        channel_reject(channel, P2MG_ERROR_INTERNAL, "Internal error", json_pack("{s:s}", "what", NO_MEMORY));
    } else if (json_error_code(error) == json_error_duplicate_key) {
        channel_reject(channel, P2MG_ERROR_INVALID_REQUEST, "Invalid Request",
                       json_pack("{s:s+, s:o}", "what", "a member is given twice: ", error->text, "where",
                                 json_sprintf("byte %d", error->position)));
    } else {
        channel_reject(channel, P2MG_ERROR_PARSE, "Parse error",
                       json_pack("{s:s, s:i}", "what", error->text, "where", error->position));
    }
}

void rpc_channel_take_line(struct rpc_channel *channel, const char *line, size_t length)
{
    json_error_t error = {0};
    json_t *message = repeat_find(&channel->repeat, line, length);

    if (message == NULL) {
        message = json_loadb(line, length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
        repeat_keep(&channel->repeat, line, length, message);
    }
    if (message == NULL)
        channel_reject_text(channel, &error);
    else if (json_is_array(message))
        channel_take_batch(channel, message);
    else
        entry_take(channel, NULL, 0, message);
    json_decref(message);
}

/* ---- Channels ---- */

struct rpc_channel *rpc_channel_new(const struct rpc_method *methods, void *method_context, const struct rpc_peer *peer,
                                    rpc_write *write, void *write_context)
{
    struct rpc_channel *channel = calloc(1, sizeof *channel);

    if (channel == NULL)
        return NULL;
    channel->methods = methods;
    channel->method_context = method_context;
    channel->peer = *peer;
    channel->write = write;
    channel->write_context = write_context;
    LIST_INIT(&channel->calls);
    LIST_INIT(&channel->batches);
    return channel;
}

void rpc_channel_on_asked(struct rpc_channel *channel, rpc_asked *asked)
{
    channel->asked = asked;
}

void rpc_channel_on_ended(struct rpc_channel *channel, rpc_ended *ended)
{
    channel->ended = ended;
}

void rpc_channel_deafen(struct rpc_channel *channel)
{
    channel->deaf = true;
}

void rpc_channel_free(struct rpc_channel *channel)
{
    struct rpc_call *call;
    struct rpc_batch *batch;

    if (channel == NULL)
        return;
    while ((call = LIST_FIRST(&channel->calls)) != NULL) {
        LIST_REMOVE(call, link);
        call->channel = NULL;
    }
    while ((batch = LIST_FIRST(&channel->batches)) != NULL) {
        LIST_REMOVE(batch, link);
        batch->channel = NULL;
    }
    repeat_clear(&channel->repeat);
    free(channel);
}

void rpc_channel_notify(struct rpc_channel *channel, const char *method, const char *params, size_t length)
{
    static const char begin[] = "{\"jsonrpc\":\"2.0\",\"method\":\"", middle[] = "\",\"params\":";
    struct writer line = {0};

    writer_bytes(&line, begin, sizeof begin - 1);
    writer_bytes(&line, method, strlen(method));
    writer_bytes(&line, middle, sizeof middle - 1);
    writer_bytes(&line, params, length);
    writer_bytes(&line, "}\n", 2);
    if (!line.failed && line.used <= P2MG_REPLY_MAX_BYTES)
        channel->write(channel->write_context, line.text, line.used);
    writer_clear(&line);
}

size_t rpc_channel_pending(const struct rpc_channel *channel)
{
    return channel->pending;
}
