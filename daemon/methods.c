/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/methods-private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "daemon/audit.h"
#include "daemon/clock.h"
#include "daemon/metrics.h"
#include "daemon/record.h"
#include "protocol/openrpc-text.h"

/* ---- answers ---- */

json_t *methods_what(const char *what)
{
    return json_pack("{s:s}", "what", what);
}

void methods_fail(struct rpc_call *call, int code, const char *message, json_t *data)
{
    rpc_fail(call, code, message, data);
}

void methods_fail_errno(struct rpc_call *call, int error)
{
    if (error == -ENOTCONN || error == -ECANCELED)
        methods_fail(call, P2MG_ERROR_STORE, "xenstored does not answer",
                     methods_what("there is no connection to xenstored; it is tried again all the time"));
    else
        methods_fail(call, P2MG_ERROR_INTERNAL, "Internal error", methods_what(strerror(-error)));
}

void methods_fail_param(struct rpc_call *call, const char *where, const char *what, const char *expected)
{
    methods_fail(call, P2MG_ERROR_INVALID_PARAMS, "Invalid params",
                 json_pack("{s:s,s:s,s:s}", "where", where, "what", what, "expected", expected));
}

void methods_reply_session(struct rpc_call *call, const struct session *session)
{
    record_write_session(rpc_text_begin(call), NULL, session);
    rpc_text_end(call);
}

/* ---- who asks, and who leaves ---- */

/* A domain is told of in the caller's words where it has still to be looked up. */
void methods_on_asked(void *context, const struct rpc_peer *peer, const char *method, const json_t *params,
                      enum rpc_outcome outcome)
{
    static const char *const words[] = {
        [RPC_GRANTED] = "granted", [RPC_REFUSED] = "refused", [RPC_INVALID] = "invalid"};
    struct methods *methods = context;
    const json_t *domain = json_object_get(params, "domain");
    const char *id = json_string_value(json_object_get(params, "session"));
    const struct session *session = id ? guard_find(methods->guard, id) : NULL;
    char domid[24] = "";

    if (json_is_integer(domain))
        snprintf(domid, sizeof(domid), "%" JSON_INTEGER_FORMAT, json_integer_value(domain));
    struct audit_entry entry = {.method = method,
                                .outcome = words[outcome],
                                .pid = peer->pid,
                                .uid = peer->uid,
                                .domid = session ? session->gate.journal.domid : 0,
                                .domain = *domid ? domid : json_string_value(domain),
                                .session = id};
    if (outcome == RPC_REFUSED) {
        metrics_count(METRICS_AUDIT_REFUSALS);
        audit_write_refusal(methods->audit, &entry);
    } else {
        audit_write(&entry);
    }
}

void methods_on_close(uint64_t connection, void *context)
{
    struct methods *methods = context;

    methods_drop_lookups(methods, connection);
    guard_connection_closed(methods->guard, connection);
}

/* ---- the daemon itself ---- */

static void run_subscribe(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    const json_t *from = json_object_get(params, "from");
    uint64_t next = events_next(methods->events);

    if (from && json_integer_value(from) < 0) {
        methods_fail_param(call, "params.from", "negative", "the number of an event, 0 or more");
        return;
    }
    int error = server_subscribe(methods->server, rpc_call_peer(call)->connection,
                                 from ? (uint64_t)json_integer_value(from) : next);
    if (error && error != -ENOTCONN) {
        methods_fail_errno(call, error);
        return;
    }
    rpc_reply(call,
              json_pack("{s:I,s:I}", "next", (json_int_t)next, "oldest", (json_int_t)events_oldest(methods->events)));
}

static json_t *info_sessions(struct methods *methods)
{
    json_t *counts = json_object();

    for (int state = 0; state < P2MG_STATE_COUNT && counts; state++) {
        if (state == P2MG_STATE_GONE)
            continue;
        size_t count = guard_count(methods->guard, (enum p2mg_state)state);
        if (json_object_set_new(counts, p2mg_state_name((enum p2mg_state)state), json_integer((json_int_t)count)) < 0) {
            json_decref(counts);
            counts = NULL;
        }
    }
    return counts;
}

static void run_info(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    (void)params;

    rpc_reply(call,
              json_pack("{s:s,s:I,s:I,s:s,s:s,s:o,s:I,s:I,s:I,s:I,s:I,s:s,s:o,s:b}", "version", PACKAGE_VERSION, "pid",
                        (json_int_t)getpid(), "uptime_ms", (json_int_t)(clock_now_ms() - methods->started_ms),
                        "hypervisor", hypervisor_describe(guard_hypervisor(methods->guard)), "store",
                        guard_store_state(methods->guard), "sessions", info_sessions(methods), "migrations",
                        (json_int_t)observations_count(guard_observations(methods->guard)), "connections",
                        (json_int_t)server_connections(methods->server), "poll_interval_ms",
                        (json_int_t)methods->settings->poll_interval_ms, "generation_interval_ms",
                        (json_int_t)methods->settings->generation_interval_ms, "max_gap_ms",
                        (json_int_t)methods->settings->max_gap_ms, "watch_helpers",
                        helpers_watch_name(guard_mechanism(methods->guard)), "policy",
                        record_policy(&methods->settings->guarding.policy), "may_change",
                        (int)rpc_call_peer(call)->may_change));
}

static void run_reexec(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    (void)params;

    rpc_reply(call, json_pack("{s:s,s:I}", "version", PACKAGE_VERSION, "pid", (json_int_t)getpid()));
    methods->reexec(methods->reexec_context);
}

static void run_discover(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    (void)params;

    if (!methods->document)
        methods->document = json_loads(openrpc_text, 0, NULL);
    rpc_reply(call, json_incref(methods->document));
}

/* ---- the table ---- */

/* A final verdict uses up attempts. */
static bool verdict_reads(const json_t *params)
{
    const char *phase = json_string_value(json_object_get(params, "phase"));

    return phase && strcmp(phase, "precopy") == 0;
}

static const struct rpc_param begin_params[] = {{"domain", RPC_STRING_OR_INTEGER, true},
                                                {"policy", RPC_OBJECT, false},
                                                {"hold", RPC_STRING, false},
                                                {"wait", RPC_BOOLEAN, false},
                                                {"caller", RPC_STRING, false},
                                                {NULL, RPC_STRING, false}};
static const struct rpc_param verdict_params[] = {
    {"session", RPC_STRING, true}, {"phase", RPC_STRING, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param session_params[] = {{"session", RPC_STRING, true}, {NULL, RPC_STRING, false}};
static const struct rpc_param history_params[] = {{"session", RPC_STRING, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param adopt_params[] = {
    {"session", RPC_STRING, true}, {"hold", RPC_STRING, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param end_params[] = {
    {"session", RPC_STRING, true}, {"outcome", RPC_STRING, true}, {NULL, RPC_STRING, false}};
static const struct rpc_param domain_params[] = {{"domain", RPC_STRING_OR_INTEGER, true}, {NULL, RPC_STRING, false}};
static const struct rpc_param subscribe_params[] = {{"from", RPC_INTEGER, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param metrics_params[] = {{"format", RPC_STRING, false}, {NULL, RPC_STRING, false}};
static const struct rpc_param no_params[] = {{NULL, RPC_STRING, false}};

/* Every method is a read or a change here, and nowhere else. */
const struct rpc_method methods_table[] = {
    {"guard.begin", RPC_CHANGE, begin_params, run_begin, NULL, NULL},
    {"guard.verdict", RPC_EITHER, verdict_params, run_verdict, verdict_reads,
     "a final verdict uses up attempts, which only root and members of the configured group may; ask with \"phase\": "
     "\"precopy\""},
    {"guard.retry", RPC_CHANGE, session_params, run_retry, NULL, NULL},
    {"guard.adopt", RPC_CHANGE, adopt_params, run_adopt, NULL, NULL},
    {"guard.end", RPC_CHANGE, end_params, run_end, NULL, NULL},
    {"guard.list", RPC_READ, no_params, run_list, NULL, NULL},
    {"guard.show", RPC_READ, session_params, run_show, NULL, NULL},
    {"guard.history", RPC_READ, history_params, run_history, NULL, NULL},
    {"domain.list", RPC_READ, no_params, run_domain_list, NULL, NULL},
    {"domain.show", RPC_READ, domain_params, run_domain_show, NULL, NULL},
    {"domain.policy", RPC_READ, domain_params, run_domain_policy, NULL, NULL},
    {"migration.list", RPC_READ, no_params, run_migrations, NULL, NULL},
    {"events.subscribe", RPC_READ, subscribe_params, run_subscribe, NULL, NULL},
    {"daemon.info", RPC_READ, no_params, run_info, NULL, NULL},
    {"daemon.config", RPC_READ, no_params, run_config, NULL, NULL},
    {"daemon.reload", RPC_CHANGE, no_params, run_reload, NULL, NULL},
    {"daemon.reexec", RPC_CHANGE, no_params, run_reexec, NULL, NULL},
    {"daemon.metrics", RPC_READ, metrics_params, run_metrics, NULL, NULL},
    {"rpc.discover", RPC_READ, no_params, run_discover, NULL, NULL},
    {NULL, RPC_READ, NULL, NULL, NULL, NULL},
};

/* ---- life ---- */

int methods_new(struct methods **result, struct event_base *base, struct events *events,
                struct configuration *configuration, methods_reload *reload, void *context)
{
    struct methods *methods = calloc(1, sizeof(*methods));

    if (!methods)
        return -ENOMEM;
    int error = audit_new(&methods->audit, base);
    if (error) {
        free(methods);
        return error;
    }
    methods->base = base;
    methods->events = events;
    methods->settings = &configuration->latest;
    methods->configuration = configuration;
    methods->reload = reload;
    methods->reload_context = context;
    methods->started_ms = clock_now_ms();
    metrics_start();
    for (const struct rpc_method *method = methods_table; method->name; method++)
        metrics_know_method(method->name);
    LIST_INIT(&methods->waiters);
    LIST_INIT(&methods->lookups);
    TAILQ_INIT(&methods->callers);
    *result = methods;
    return 0;
}

void methods_set_guard(struct methods *methods, struct guard *guard)
{
    methods->guard = guard;
}

void methods_set_server(struct methods *methods, struct server *server)
{
    methods->server = server;
}

void methods_on_reexec(struct methods *methods, void (*wanted)(void *context), void *context)
{
    methods->reexec = wanted;
    methods->reexec_context = context;
}

void methods_free(struct methods *methods)
{
    if (!methods)
        return;
    methods_free_waiters(methods);
    json_decref(methods->document);
    audit_free(methods->audit);
    free(methods);
}
