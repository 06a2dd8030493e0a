/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/methods-private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/guarding.h"
#include "daemon/metrics.h"
#include "daemon/record.h"
#include "daemon/text.h"

/* ---- guard.begin ---- */

static bool begin_read_member(struct rpc_call *call, struct p2mg_policy *policy, unsigned *named, const char *key,
                              const json_t *value)
{
    const struct p2mg_policy_member *member = p2mg_policy_find(key);
    char cut[61], where[96], expected[96];

    text_cut(cut, sizeof(cut), key);
    snprintf(where, sizeof(where), "params.policy.%s", cut);
    if (strcmp(key, "require") == 0) {
        *named |= p2mg_policy_bit(NULL);
        if (json_is_string(value) && p2mg_require_parse(json_string_value(value), &policy->require) == 0)
            return true;
        methods_fail_param(call, where, "not a strength of hold that this daemon knows",
                           "\"gate\", \"settled\" or \"agent\"");
        return false;
    }
    if (!member) {
        methods_fail_param(call, where, "unknown member", "a member of the policy as in the protocol");
        return false;
    }
    *named |= p2mg_policy_bit(member);
    if (json_is_integer(value) && p2mg_policy_set(policy, member, json_integer_value(value)) == 0)
        return true;
    snprintf(expected, sizeof(expected), "an integer from %lld to %lld", (long long)member->least,
             (long long)member->most);
    methods_fail_param(call, where, "not an integer, or out of range", expected);
    return false;
}

/* Who holds the guest from now on, and for how long: hold, caller, and the peer's credentials. */
static bool methods_read_owner(struct rpc_call *call, const json_t *params, struct session_options *options)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    const char *hold = json_string_value(json_object_get(params, "hold"));
    const char *caller = json_string_value(json_object_get(params, "caller"));
    const struct rpc_peer *peer = rpc_call_peer(call);

    options->connection = peer->connection;
    options->pid = peer->pid;
    options->uid = peer->uid;
    if (hold && p2mg_hold_parse(hold, &options->hold)) {
        methods_fail_param(call, "params.hold", "unknown kind of hold",
                           "\"connection\", \"detached\", or, of guard.adopt, \"retry\" or \"suspended\"");
        return false;
    }
    if (caller && (strlen(caller) >= SESSION_CALLER_MAX || strspn(caller, letters) < strlen(caller))) {
        methods_fail_param(call, "params.caller", "not a program's name",
                           "at most 32 letters, digits, dots, underscores and hyphens");
        return false;
    }
    snprintf(options->caller, sizeof(options->caller), "%s", caller ? caller : "");
    return true;
}

/* `named`: the members of the policy that the caller has named; the others are not set. */
static bool begin_read_options(struct rpc_call *call, const json_t *params, struct session_options *options,
                               unsigned *named)
{
    json_t *policy = json_object_get(params, "policy"), *value;
    const char *key;

    memset(options, 0, sizeof(*options));
    *named = 0;
    if (!methods_read_owner(call, params, options))
        return false;
    if (options->hold != P2MG_HOLD_CONNECTION && options->hold != P2MG_HOLD_DETACHED) {
        methods_fail_param(call, "params.hold", "a hold that cannot be begun with", "\"connection\" or \"detached\"");
        return false;
    }
    json_object_foreach(policy, key, value)
    {
        if (!begin_read_member(call, &options->policy, named, key, value))
            return false;
    }
    return true;
}

static void begin_fail(struct waiter *waiter, int error, const struct session *session)
{
    const struct settings *settings = waiter->methods->settings;
    struct rpc_call *call = waiter->call;

    switch (error) {
    case -EBUSY:
        methods_fail(call, P2MG_ERROR_BUSY, "the domain is under guard already",
                     json_pack("{s:s,s:s}", "session", session->id, "what",
                               "one session a domain; guard.show tells whose it is"));
        break;
    case -ENOSPC:
        methods_fail(call, P2MG_ERROR_LIMIT, "a limit is reached",
                     json_pack("{s:s,s:I}", "what", "no more sessions are taken, or the daemon is stopping", "limit",
                               (json_int_t)settings->max_sessions));
        break;
    case -EPERM:
        methods_fail(call, P2MG_ERROR_NOT_GUARDABLE, "the domain cannot be guarded",
                     json_pack("{s:s,s:s}", "reason", p2mg_reason_name(P2MG_REASON_NOT_GUARDABLE), "what",
                               "domain 0 is the host itself"));
        break;
    case -EACCES:
        methods_fail(call, P2MG_ERROR_NOT_GUARDABLE, "the domain cannot be guarded",
                     json_pack("{s:s,s:s}", "reason", p2mg_reason_name(P2MG_REASON_NOT_GUARDABLE), "what",
                               "the configuration has guard = no for it; p2mguardctl config --domain says where"));
        break;
    case -ESRCH:
        methods_fail(
            call, P2MG_ERROR_NO_SUCH_DOMAIN, "no such domain",
            json_pack("{s:s,s:s}", "domain", waiter->wanted, "what", "the domain went away while it was looked up"));
        break;
    default:
        methods_fail_errno(call, error);
    }
}

static void begin_found(struct waiter *waiter, const struct lookup_domain *domains, size_t count)
{
    struct methods *methods = waiter->methods;
    struct session *session;
    (void)count;

    /* The client may have gone while its domain was looked up: a hold for nobody would last until its deadline. */
    if (waiter->options.hold == P2MG_HOLD_CONNECTION && !rpc_call_channel(waiter->call)) {
        rpc_reply(waiter->call, json_null());
        return;
    }
    strcpy(waiter->options.name, domains[0].name);
    guarding_configure(&waiter->options, methods->settings, domains[0].name, domains[0].domain.uuid, waiter->named);
    int error = guard_begin(methods->guard, domains[0].domain.domid, &waiter->options, &session);
    if (error)
        begin_fail(waiter, error, session);
    else if (!waiter->wait)
        methods_reply_session(waiter->call, session);
    else if (!waiter_new(methods, WAIT_HELD, waiter->call, session, 0))
        session_stop(session, P2MG_REASON_ERROR, P2MG_OUTCOME_UNKNOWN);
}

void run_begin(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    struct session_options options;
    unsigned named;

    if (!begin_read_options(call, params, &options, &named))
        return;
    char *wanted = methods_domain_text(call, params);
    if (!wanted)
        return;
    struct waiter *waiter = methods_look_up(methods, call, wanted, LOOKUP_NAME, begin_found);
    if (waiter) {
        waiter->options = options;
        waiter->named = named;
        waiter->obeyed = true;
        waiter->wait = json_is_true(json_object_get(params, "wait"));
    }
}

/* ---- the rest of guard.* ---- */

static struct session *methods_session(struct methods *methods, struct rpc_call *call, const json_t *params)
{
    const char *id = json_string_value(json_object_get(params, "session"));
    struct session *session = guard_find(methods->guard, id);

    if (!session)
        methods_fail(call, P2MG_ERROR_NO_SUCH_SESSION, "no such session",
                     json_pack("{s:s,s:s}", "session", id, "what",
                               "it never was, or has been gone for so long that it is forgotten"));
    return session;
}

void methods_give_verdict(struct rpc_call *call, struct session *session, bool final, bool store_silent)
{
    struct verdict_facts facts;
    struct sight_figures now;
    struct verdict verdict = session_judge(session, store_silent, rpc_call_peer(call)->may_change, &facts, &now);

    metrics_count_verdict(&verdict, final);
    if (final)
        record_emit(session, "session.verdict", "{s:s,s:s,s:s,s:I}", "verdict", p2mg_verdict_name(verdict.verdict),
                    "reason", p2mg_reason_name(verdict.reason), "phase", "final", "attempt",
                    (json_int_t)session->attempt);
    record_write_verdict(rpc_text_begin(call), session, &verdict, &facts, &now, final);
    rpc_text_end(call);
}

void run_verdict(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    const char *phase = json_string_value(json_object_get(params, "phase"));
    bool final = !phase || strcmp(phase, "final") == 0;

    if (!final && strcmp(phase, "precopy") != 0) {
        methods_fail_param(call, "params.phase", "unknown phase", "\"precopy\" or \"final\"");
        return;
    }
    struct session *session = methods_session(methods, call, params);
    if (!session)
        return;
    if (!final || session_state(session) != P2MG_STATE_HELD) {
        methods_give_verdict(call, session, final, !worker_connected(guard_worker(methods->guard)));
        return;
    }
    struct waiter *waiter = waiter_new(methods, WAIT_CHECKED, call, session, METHODS_VERDICT_MS);
    if (waiter)
        waiter->check = session_check(session);
}

static void methods_fail_state(struct rpc_call *call, const struct session *session, const char *expected)
{
    methods_fail(call, P2MG_ERROR_WRONG_STATE, "the session is in another state",
                 json_pack("{s:s,s:s,s:s}", "state", p2mg_state_name(session_state(session)), "expected", expected,
                           "what", "this cannot be done to a session in that state"));
}

void run_retry(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    struct session *session = methods_session(methods, call, params);

    if (!session)
        return;
    if (session_state(session) != P2MG_STATE_HELD) {
        methods_fail_state(call, session, p2mg_state_name(P2MG_STATE_HELD));
        return;
    }
    if (session->attempt >= session->options.policy.attempts) {
        methods_fail(call, P2MG_ERROR_LIMIT, "a limit is reached",
                     json_pack("{s:s,s:I}", "what", "the policy allows no further attempt", "limit",
                               (json_int_t)session->options.policy.attempts));
        return;
    }
    if (waiter_new(methods, WAIT_HELD, call, session, 0))
        session_retry(session);
}

void run_adopt(struct rpc_call *call, const json_t *params, void *context)
{
    struct session_options owner = {.hold = P2MG_HOLD_CONNECTION};
    struct session *session;

    if (!methods_read_owner(call, params, &owner) || !(session = methods_session(context, call, params)))
        return;
    enum p2mg_state state = session_state(session);
    bool freezing = state == P2MG_STATE_FREEZING && owner.hold != P2MG_HOLD_RETRY;
    if (state != P2MG_STATE_HELD && !freezing) {
        methods_fail_state(call, session, p2mg_state_name(P2MG_STATE_HELD));
        return;
    }
    session_adopt(session, &owner);
    methods_reply_session(call, session);
}

void run_end(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    const char *text = json_string_value(json_object_get(params, "outcome"));
    enum p2mg_outcome outcome;

    if (p2mg_outcome_parse(text, &outcome) || outcome == P2MG_OUTCOME_UNKNOWN) {
        methods_fail_param(call, "params.outcome", "unknown outcome", "\"completed\", \"failed\" or \"cancelled\"");
        return;
    }
    struct session *session = methods_session(methods, call, params);
    if (!session)
        return;
    if (session_state(session) == P2MG_STATE_GONE) {
        methods_reply_session(call, session);
        return;
    }
    if (waiter_new(methods, WAIT_GONE, call, session, METHODS_THAW_MS))
        session_stop(session, P2MG_REASON_ENDED, outcome);
}

void run_show(struct rpc_call *call, const json_t *params, void *context)
{
    struct session *session = methods_session(context, call, params);

    if (session)
        methods_reply_session(call, session);
}

void run_list(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    struct writer *list = rpc_text_begin(call);
    (void)params;

    writer_begin(list, NULL, '{');
    writer_begin(list, "sessions", '[');
    for (struct session *session = guard_next(methods->guard, NULL); session;
         session = guard_next(methods->guard, session))
        record_write_session(list, NULL, session);
    writer_end(list, ']');
    writer_end(list, '}');
    rpc_text_end(call);
}

/* Takes both; NULL when memory ran out, now or before. */
static json_t *history_add(json_t *list, json_t *summary)
{
    if (list && json_array_append_new(list, summary) == 0)
        return list;
    if (!list)
        json_decref(summary);
    json_decref(list);
    return NULL;
}

/* Those under guard in the order in which they began, then those that are gone, the latest first. */
static json_t *history_list(struct guard *guard)
{
    json_t *list = json_array();
    const struct session *session = NULL;

    while ((session = guard_next(guard, session)))
        list = history_add(list, record_history_summary(session));
    for (size_t i = 0; (session = guard_gone(guard, i)); i++)
        list = history_add(list, record_history_summary(session));
    return list;
}

void run_history(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    int64_t began_ms = clock_wall_ms() - (clock_now_ms() - methods->started_ms);

    if (!json_object_get(params, "session")) {
        rpc_reply(call, json_pack("{s:I,s:o}", "history_begun_ms", (json_int_t)began_ms, "sessions",
                                  history_list(methods->guard)));
        return;
    }
    const struct session *session = methods_session(methods, call, params);
    if (session)
        rpc_reply(call, record_history(session));
}

void run_migrations(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    (void)params;

    rpc_reply(call, observations_record(guard_observations(methods->guard)));
}
