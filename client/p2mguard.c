/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/p2mguard.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/connection.h"
#include "daemon/clock.h"
#include "protocol/names.h"

struct p2mguard {
    struct connection *connection;
    int lost; /* why no more can be read, 0 = it can */
    char error[512];
};

/* A record is the JSON value itself, counted by jansson. */
static json_t *record_json(const struct p2mguard_record *record)
{
    return (json_t *)(uintptr_t)record;
}

static struct p2mguard_record *record_from(json_t *json)
{
    return (struct p2mguard_record *)(void *)json;
}

/* Takes the json, for *record or for nobody. */
static void record_give(struct p2mguard_record **record, json_t *json)
{
    if (record)
        *record = record_from(json);
    else
        json_decref(json);
}

/* ---- errors ---- */

static int guard_fail(struct p2mguard *guard, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int guard_fail(struct p2mguard *guard, int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(guard->error, sizeof(guard->error), format, arguments);
    va_end(arguments);
    return error;
}

static int guard_fail_errno(struct p2mguard *guard, int error)
{
    return error == -EPIPE ? guard_fail(guard, error, "p2mguardd has closed the connection")
                           : guard_fail(guard, error, "speaking with p2mguardd: %s", strerror(-error));
}

/* An error object of the daemon's. */
static int guard_fail_answer(struct p2mguard *guard, const json_t *error)
{
    json_int_t code = json_integer_value(json_object_get(error, "code"));

    connection_error_text(error, guard->error, sizeof(guard->error));
    return code < 0 && code > INT32_MIN ? (int)code : -EPROTO;
}

const char *p2mguard_error_text(const struct p2mguard *guard)
{
    return guard->error;
}

/* ---- a connection ---- */

int p2mguard_connect(struct p2mguard **guard, const char *socket)
{
    struct p2mguard *made = calloc(1, sizeof(*made));
    int error = made ? connection_open(&made->connection, socket ? socket : P2MG_CONTROL_SOCKET) : -ENOMEM;

    if (error)
        free(made);
    else
        *guard = made;
    return error;
}

void p2mguard_close(struct p2mguard *guard)
{
    if (!guard)
        return;
    connection_close(guard->connection);
    free(guard);
}

/* Steals params. On success the caller owns *result, where that is asked for. */
static int guard_call(struct p2mguard *guard, const char *method, json_t *params, json_t **result)
{
    json_t *answer, *error_object;
    int error = params ? connection_call(guard->connection, method, params, &answer, &error_object) : -ENOMEM;

    if (!params)
        return guard_fail_errno(guard, error);
    if (error == -EREMOTEIO)
        error = guard_fail_answer(guard, error_object);
    else if (error)
        guard_fail_errno(guard, error);
    json_decref(error_object);
    if (!error && result)
        *result = answer;
    else
        json_decref(answer);
    return error;
}

static json_t *guard_of_session(const char *session)
{
    return json_pack("{s:s}", "session", session);
}

/* ---- requests ---- */

/* "KEY=VALUE": a number where it is one, else a word; the daemon says what is wrong with either. */
static int guard_add_policy(struct p2mguard *guard, json_t *policy, const char *text)
{
    const char *value = strchr(text, '=');
    char key[64], *end;

    if (!value || value == text || value - text >= (ptrdiff_t)sizeof(key))
        return guard_fail(guard, -EINVAL, "the policy has '%s', expected KEY=VALUE", text);
    memcpy(key, text, (size_t)(value - text));
    key[value - text] = '\0';
    value++;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    bool is_number = !errno && end != value && !*end;
    if (json_object_set_new(policy, key, is_number ? json_integer(number) : json_string(value)) < 0)
        return guard_fail(guard, -EINVAL, "the policy has '%s', which is not UTF-8", text);
    return 0;
}

int p2mguard_begin(struct p2mguard *guard, const char *domain, const char *const policy[], unsigned flags,
                   char session[P2MGUARD_SESSION_SIZE])
{
    json_t *members = json_object(), *record = NULL;
    int error = 0;

    for (size_t i = 0; members && policy && policy[i] && !error; i++)
        error = guard_add_policy(guard, members, policy[i]);
    if (error) {
        json_decref(members);
        return error;
    }
    error = guard_call(guard, "guard.begin",
                       json_pack("{s:s,s:o,s:s,s:b}", "domain", domain, "policy", members, "hold",
                                 flags & P2MGUARD_DETACHED ? "detached" : "connection", "wait",
                                 (flags & P2MGUARD_WAIT) != 0),
                       &record);
    if (error)
        return error;
    const char *name = json_string_value(json_object_get(record, "session"));
    if (name && strlen(name) < P2MGUARD_SESSION_SIZE)
        strcpy(session, name);
    else
        error = guard_fail(guard, -EPROTO, "p2mguardd gave the session no name that can be used");
    json_decref(record);
    return error;
}

int p2mguard_verdict(struct p2mguard *guard, const char *session, enum p2mguard_phase phase,
                     struct p2mguard_record **record)
{
    static const char *const words[] = {
        [P2MGUARD_PROCEED] = "proceed", [P2MGUARD_RETRY] = "retry", [P2MGUARD_ABORT] = "abort"};
    json_t *answer;
    int error = guard_call(
        guard, "guard.verdict",
        json_pack("{s:s,s:s}", "session", session, "phase", phase == P2MGUARD_PRECOPY ? "precopy" : "final"), &answer);

    if (error)
        return error;
    const char *word = json_string_value(json_object_get(answer, "verdict"));
    for (int i = 0; word && i < (int)(sizeof(words) / sizeof(words[0])); i++) {
        if (strcmp(word, words[i]) == 0) {
            record_give(record, answer);
            return i;
        }
    }
    json_decref(answer);
    return guard_fail(guard, -EPROTO, "p2mguardd's verdict is none of proceed, retry and abort");
}

int p2mguard_retry(struct p2mguard *guard, const char *session)
{
    return guard_call(guard, "guard.retry", guard_of_session(session), NULL);
}

/* A request whose answer is a record as it is. */
static int guard_ask(struct p2mguard *guard, const char *method, json_t *params, struct p2mguard_record **record)
{
    json_t *answer;
    int error = guard_call(guard, method, params, &answer);

    if (!error)
        record_give(record, answer);
    return error;
}

int p2mguard_end(struct p2mguard *guard, const char *session, enum p2mguard_outcome outcome,
                 struct p2mguard_record **record)
{
    const char *word = outcome == P2MGUARD_COMPLETED ? "completed"
                       : outcome == P2MGUARD_FAILED  ? "failed"
                                                     : "cancelled";

    return guard_ask(guard, "guard.end", json_pack("{s:s,s:s}", "session", session, "outcome", word), record);
}

int p2mguard_show(struct p2mguard *guard, const char *session, struct p2mguard_record **record)
{
    return guard_ask(guard, "guard.show", guard_of_session(session), record);
}

int p2mguard_list(struct p2mguard *guard, struct p2mguard_record **list)
{
    json_t *answer;
    int error = guard_call(guard, "guard.list", json_object(), &answer);

    if (error)
        return error;
    json_t *sessions = json_incref(json_object_get(answer, "sessions"));
    json_decref(answer);
    if (!sessions)
        return guard_fail(guard, -EPROTO, "p2mguardd's list has no sessions in it");
    record_give(list, sessions);
    return 0;
}

/* ---- events ---- */

int p2mguard_subscribe(struct p2mguard *guard, uint64_t from)
{
    json_t *params = json_object();

    if (params && from && json_object_set_new(params, "from", json_integer((json_int_t)from)) < 0) {
        json_decref(params);
        params = NULL;
    }
    return guard_call(guard, "events.subscribe", params, NULL);
}

/* Without a timeout only what has been taken in already is looked at: whoever polls must not have it read behind his
 * back. */
int p2mguard_event(struct p2mguard *guard, int timeout_ms, struct p2mguard_record **record)
{
    int64_t end_ms = clock_read_ms(CLOCK_MONOTONIC) + timeout_ms;

    for (;;) {
        json_t *event = connection_event(guard->connection);
        if (event) {
            record_give(record, event);
            return 1;
        }
        if (guard->lost) /* what came before the daemon went is told first */
            return guard_fail_errno(guard, guard->lost);
        int64_t left_ms = timeout_ms < 0 ? -1 : end_ms - clock_read_ms(CLOCK_MONOTONIC);
        if (timeout_ms >= 0 && left_ms <= 0)
            return 0;
        int ready = connection_wait(guard->connection, (int)left_ms);
        if (ready < 0 && ready != -EINTR)
            return guard_fail_errno(guard, ready);
        if (ready > 0)
            guard->lost = connection_take_in(guard->connection);
    }
}

/* ---- in the caller's own loop ---- */

int p2mguard_fd(const struct p2mguard *guard)
{
    return connection_fd(guard->connection);
}

short p2mguard_poll_events(const struct p2mguard *guard)
{
    return connection_poll_events(guard->connection);
}

int p2mguard_dispatch(struct p2mguard *guard)
{
    if (!guard->lost)
        guard->lost = connection_take_in(guard->connection);
    return guard->lost ? guard_fail_errno(guard, guard->lost) : 0;
}

int64_t p2mguard_send(struct p2mguard *guard, const char *method, const char *params)
{
    json_error_t where;
    json_t *object = params ? json_loads(params, 0, &where) : json_object();

    if (!object && params)
        return guard_fail(guard, -EINVAL, "the parameters are no JSON: %s", where.text);
    if (object && !json_is_object(object)) {
        json_decref(object);
        return guard_fail(guard, -EINVAL, "the parameters are JSON, but no object");
    }
    int64_t number = object ? connection_send(guard->connection, method, object) : -ENOMEM;
    return number < 0 ? guard_fail_errno(guard, (int)number) : number;
}

int p2mguard_reply(struct p2mguard *guard, int64_t number, struct p2mguard_record **record)
{
    json_t *reply = connection_reply(guard->connection, number);

    if (!reply)
        return guard->lost ? guard_fail_errno(guard, guard->lost) : 0;
    json_t *error = json_object_get(reply, "error");
    int status = 1;
    if (error)
        status = guard_fail_answer(guard, error);
    else
        record_give(record, json_incref(json_object_get(reply, "result")));
    json_decref(reply);
    return status;
}

/* ---- records ---- */

static const json_t *record_member(const struct p2mguard_record *record, const char *member)
{
    const json_t *json = record_json(record);

    while (json && *member) {
        char key[64];
        size_t length = strcspn(member, ".");
        if (length >= sizeof(key))
            return NULL;
        memcpy(key, member, length);
        key[length] = '\0';
        json = json_object_get(json, key);
        member += length + (member[length] == '.');
    }
    return json;
}

const char *p2mguard_record_text(const struct p2mguard_record *record, const char *member)
{
    return json_string_value(record_member(record, member));
}

bool p2mguard_record_number(const struct p2mguard_record *record, const char *member, int64_t *number)
{
    const json_t *json = record_member(record, member);

    if (!json_is_integer(json))
        return false;
    *number = json_integer_value(json);
    return true;
}

size_t p2mguard_record_count(const struct p2mguard_record *record)
{
    return json_array_size(record_json(record));
}

const struct p2mguard_record *p2mguard_record_at(const struct p2mguard_record *record, size_t index)
{
    return record_from(json_array_get(record_json(record), index));
}

char *p2mguard_record_json(const struct p2mguard_record *record)
{
    return json_dumps(record_json(record), JSON_COMPACT | JSON_ENCODE_ANY);
}

void p2mguard_record_free(struct p2mguard_record *record)
{
    json_decref(record_json(record));
}
