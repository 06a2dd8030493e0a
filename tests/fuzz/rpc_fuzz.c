/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Feeds what a client may send to a channel, cut into lines as the server does, with methods that answer at once,
 * later, or with more than a message holds. Whatever comes in, each line that goes out is JSON and fits a message.
 */
#include "daemon/rpc.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/names.h"
#include "tests/fuzz/fuzz.h"

enum { LATER_MAX = 64 };

struct fuzz {
    struct rpc_call *later[LATER_MAX];
    size_t later_count;
};

static void check_line(void *context, const char *line, size_t length)
{
    json_t *message;

    (void)context;
    if (length == 0)
        return;
    if (length > P2MG_REPLY_MAX_BYTES || line[length - 1] != '\n' || memchr(line, '\n', length - 1) != NULL)
        abort();
    message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    if (message == NULL)
        abort();
    json_decref(message);
}

static void run_echo(struct rpc_call *call, const json_t *params, void *context)
{
    (void)context;
    rpc_reply(call, json_deep_copy(params));
}

static void run_fail(struct rpc_call *call, const json_t *params, void *context)
{
    (void)context;
    rpc_fail(call, P2MG_ERROR_STORE, "xenstored does not answer", json_deep_copy(params));
}

static void run_later(struct rpc_call *call, const json_t *params, void *context)
{
    struct fuzz *fuzz = context;

    (void)params;
    if (fuzz->later_count < LATER_MAX)
        fuzz->later[fuzz->later_count++] = call;
    else
        rpc_reply(call, json_true());
}

static void run_large(struct rpc_call *call, const json_t *params, void *context)
{
    static char text[40000];

    (void)params;
    (void)context;
    memset(text, 'x', sizeof text);
    rpc_reply(call, json_stringn(text, sizeof text));
}

static const struct rpc_param all_params[] = {
    {"s", RPC_STRING, false}, {"i", RPC_INTEGER, false},           {"b", RPC_BOOLEAN, false},
    {"o", RPC_OBJECT, true},  {"e", RPC_STRING_OR_INTEGER, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param any_params[] = {{"o", RPC_OBJECT, false}, {NULL, RPC_STRING, false}};
static const struct rpc_method methods[] = {
    {"e", RPC_READ, all_params, run_echo, NULL, NULL}, {"f", RPC_READ, any_params, run_fail, NULL, NULL},
    {"l", RPC_READ, NULL, run_later, NULL, NULL},      {"x", RPC_READ, NULL, run_large, NULL, NULL},
    {"c", RPC_CHANGE, NULL, run_later, NULL, NULL},    {NULL, RPC_READ, NULL, NULL, NULL, NULL}};

/* The first byte says whether calls that wait are answered while the channel is there, or after. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rpc_peer peer = {.connection = 1, .may_change = size > 0 && (data[0] & 2) != 0};
    bool close_first = size > 0 && (data[0] & 1) != 0;
    struct fuzz fuzz = {0};
    struct rpc_channel *channel = rpc_channel_new(methods, &fuzz, &peer, check_line, NULL);
    const char *line = (const char *)data + (size > 0);
    const char *end = (const char *)data + size;

    if (channel == NULL)
        return 0;
    for (const char *newline; line < end && (newline = memchr(line, '\n', (size_t)(end - line))) != NULL;
         line = newline + 1)
        rpc_channel_take_line(channel, line, (size_t)(newline - line));
    if (close_first)
        rpc_channel_free(channel);
    while (fuzz.later_count > 0)
        rpc_reply(fuzz.later[--fuzz.later_count], json_integer(1));
    if (!close_first) {
        if (rpc_channel_pending(channel) != 0)
            abort();
        rpc_channel_free(channel);
    }
    return 0;
}
