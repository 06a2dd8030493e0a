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
#include "daemon/guarding.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/record.h"
#include "daemon/text.h"
#include "daemon/timer.h"
#include "protocol/openrpc-text.h"

/* How long xenstored may take before a caller is told that it does not answer. */
#define METHODS_STORE_MS 2000
#define METHODS_VERDICT_MS 1000
#define METHODS_THAW_MS 10000

/* No call waits for xenstored for longer than this, whatever comes back meanwhile. */
#define METHODS_MOST_MS 30000

/* So many lookups are at the worker at the same time; a session's job waits for no more than these. */
#define METHODS_LOOKUPS_MOST 8

/* How soon it is looked again whether xenstored answers, when time was up but it did. */
#define METHODS_LOOK_MS 100

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

static void methods_reply_session(struct rpc_call *call, const struct session *session)
{
    record_write_session(rpc_text_begin(call), NULL, session);
    rpc_text_end(call);
}

static void methods_fail_not_held(struct rpc_call *call, struct session *session)
{
    enum p2mg_reason reason = session->ending;

    if (reason == P2MG_REASON_NOT_GUARDABLE) {
        methods_fail(call, P2MG_ERROR_NOT_GUARDABLE, "the domain cannot be guarded",
                     json_pack("{s:s,s:s,s:o}", "reason", p2mg_reason_name(reason), "what", p2mg_reason_text(reason),
                               "session", record_session(session)));
        return;
    }
    methods_fail(call, P2MG_ERROR_NOT_HELD, "the guest could not be held",
                 json_pack("{s:s,s:s,s:o}", "reason", p2mg_reason_name(reason), "what", p2mg_reason_text(reason),
                           "session", record_session(session)));
}

/* ---- waiters ---- */

/* Its caller's turn goes with the last of its lookups. */
static void waiter_leave_queue(struct waiter *waiter)
{
    struct lookup_caller *caller = waiter->caller;

    if (!caller)
        return;
    waiter->caller = NULL;
    TAILQ_REMOVE(&caller->waiting, waiter, turn);
    if (!TAILQ_EMPTY(&caller->waiting))
        return;
    TAILQ_REMOVE(&waiter->methods->callers, caller, link);
    free(caller);
}

static void waiter_free(struct waiter *waiter)
{
    if (waiter->caller) /* else it has come back */
        lookup_free(waiter->lookup);
    waiter_leave_queue(waiter);
    LIST_REMOVE(waiter, link);
    timer_free(waiter->timer);
    free(waiter->wanted);
    free(waiter);
}

static void waiter_give_verdict(struct rpc_call *call, struct session *session, bool final, bool store_silent);

/*
 * Many calls at once take their time without anything being wrong: as long as jobs come back, they are waited for. A
 * machine that has stood still has stood still for xenstored as well: what is late then is looked at once more, but for
 * a verdict, which is retry and costs nothing.
 */
static bool waiter_goes_on(struct waiter *waiter)
{
    struct worker *worker = guard_worker(waiter->methods->guard);
    bool silent = worker_busy_ms(worker) >= METHODS_VERDICT_MS;
    bool was_silent = waiter->silent || waiter->kind == WAIT_CHECKED;

    waiter->silent = silent;
    return clock_now_ms() < waiter->until_ms && worker_connected(worker) && !(silent && was_silent) &&
           timer_arm(waiter->timer, METHODS_LOOK_MS) == 0;
}

static void waiter_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct waiter *waiter = context;
    struct rpc_call *call = waiter->call;
    (void)fd, (void)what;

    if (waiter_goes_on(waiter))
        return;
    waiter->call = NULL;
    switch (waiter->kind) {
    case WAIT_LOOKUP:
        methods_fail(call, P2MG_ERROR_STORE, "xenstored does not answer",
                     methods_what(clock_now_ms() < waiter->until_ms ? "xenstored did not answer within 2 s"
                                                                    : "so much was asked of xenstored before that this "
                                                                      "had not had its turn after 30 s"));
        if (!waiter->caller)
            return; /* stays until its lookup comes back */
        break;
    case WAIT_GONE:
        methods_fail(call, P2MG_ERROR_STORE, "xenstored does not answer",
                     methods_what("not everything could be put back yet; the daemon goes on trying"));
        break;
    case WAIT_CHECKED:
        waiter_give_verdict(call, waiter->session, true, true);
        break;
    case WAIT_HELD:
        break;
    }
    waiter_free(waiter);
}

/* NULL, and the call failed, when memory runs out. A timeout of 0 is none. */
static struct waiter *waiter_new(struct methods *methods, enum wait_kind kind, struct rpc_call *call,
                                 struct session *session, int64_t timeout_ms)
{
    struct waiter *waiter = calloc(1, sizeof(*waiter));

    if (waiter)
        waiter->timer = evtimer_new(methods->base, waiter_on_timer, waiter);
    if (!waiter || !waiter->timer || (timeout_ms && timer_arm(waiter->timer, timeout_ms) < 0)) {
        if (waiter)
            timer_free(waiter->timer);
        free(waiter);
        methods_fail_errno(call, -ENOMEM);
        return NULL;
    }
    waiter->methods = methods;
    waiter->kind = kind;
    waiter->call = call;
    waiter->session = session;
    waiter->until_ms = clock_now_ms() + METHODS_MOST_MS;
    LIST_INSERT_HEAD(kind == WAIT_LOOKUP ? &methods->lookups : &methods->waiters, waiter, link);
    return waiter;
}

/* Takes the next waiter for this, or for a check up to this, out of the list; its call is the caller's to answer. */
static struct rpc_call *waiter_take(struct methods *methods, const struct session *session, enum wait_kind kind,
                                    uint64_t check)
{
    struct waiter *waiter;

    LIST_FOREACH(waiter, &methods->waiters, link)
    {
        if (waiter->session == session && waiter->kind == kind && waiter->check <= check) {
            struct rpc_call *call = waiter->call;
            waiter_free(waiter);
            return call;
        }
    }
    return NULL;
}

void methods_on_held(struct methods *methods, struct session *session)
{
    struct rpc_call *call;

    while ((call = waiter_take(methods, session, WAIT_HELD, 0)))
        methods_reply_session(call, session);
}

static void methods_give_verdicts(struct methods *methods, struct session *session, uint64_t check)
{
    struct rpc_call *call;

    while ((call = waiter_take(methods, session, WAIT_CHECKED, check)))
        waiter_give_verdict(call, session, true, false);
}

void methods_on_not_held(struct methods *methods, struct session *session)
{
    struct rpc_call *call;

    while ((call = waiter_take(methods, session, WAIT_HELD, 0)))
        methods_fail_not_held(call, session);
    methods_give_verdicts(methods, session, UINT64_MAX); /* no look is made any more */
}

void methods_on_checked(struct methods *methods, struct session *session)
{
    methods_give_verdicts(methods, session, session->checks_made);
}

void methods_on_gone(struct methods *methods, struct session *session)
{
    struct rpc_call *call;

    methods_on_not_held(methods, session);
    while ((call = waiter_take(methods, session, WAIT_GONE, 0)))
        methods_reply_session(call, session);
}

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

static void methods_drop_lookups(struct methods *methods, uint64_t connection);

void methods_on_close(uint64_t connection, void *context)
{
    struct methods *methods = context;

    methods_drop_lookups(methods, connection);
    guard_connection_closed(methods->guard, connection);
}

/* ---- looking up a domain ---- */

static void methods_begin_lookups(struct methods *methods);

static void methods_on_lookup(void *context, int error, const struct lookup_domain *domains, size_t count)
{
    struct waiter *waiter = context;
    struct methods *methods = waiter->methods;

    if (!waiter->call) {
        /* answered already: xenstored took too long */
    } else if (error == -ESRCH) {
        char cut[SESSION_NAME_MAX], what[SESSION_NAME_MAX + 64];
        text_cut(cut, sizeof(cut), waiter->wanted);
        snprintf(what, sizeof(what), "domain '%s' is not known; expected a domid, a name or a uuid", cut);
        methods_fail(waiter->call, P2MG_ERROR_NO_SUCH_DOMAIN, "no such domain",
                     json_pack("{s:s,s:s}", "domain", waiter->wanted, "what", what));
    } else if (error) {
        methods_fail_errno(waiter->call, error);
    } else {
        waiter->found(waiter, domains, count);
    }
    waiter_free(waiter);
    methods->looking--;
    methods_begin_lookups(methods);
}

static void methods_begin_lookups(struct methods *methods)
{
    struct lookup_caller *caller;

    while (methods->looking < METHODS_LOOKUPS_MOST && (caller = TAILQ_FIRST(&methods->callers))) {
        struct waiter *waiter = TAILQ_FIRST(&caller->waiting);
        TAILQ_REMOVE(&methods->callers, caller, link);
        TAILQ_INSERT_TAIL(&methods->callers, caller, link);
        waiter_leave_queue(waiter);
        methods->looking++;
        lookup_begin(waiter->lookup, guard_worker(methods->guard));
    }
}

static struct lookup_caller *methods_find_caller(struct methods *methods, uint64_t connection)
{
    struct lookup_caller *caller;

    TAILQ_FOREACH(caller, &methods->callers, link)
    {
        if (caller->connection == connection)
            return caller;
    }
    return NULL;
}

static int methods_queue_lookup(struct methods *methods, struct waiter *waiter)
{
    uint64_t connection = rpc_call_peer(waiter->call)->connection;
    struct lookup_caller *caller = methods_find_caller(methods, connection);

    if (!caller) {
        caller = calloc(1, sizeof(*caller));
        if (!caller)
            return -ENOMEM;
        caller->connection = connection;
        TAILQ_INIT(&caller->waiting);
        TAILQ_INSERT_TAIL(&methods->callers, caller, link);
    }
    waiter->caller = caller;
    TAILQ_INSERT_TAIL(&caller->waiting, waiter, turn);
    return 0;
}

/* Nobody is there any more to be answered. */
static void methods_drop_lookups(struct methods *methods, uint64_t connection)
{
    struct lookup_caller *caller = methods_find_caller(methods, connection);
    struct waiter *next;

    for (struct waiter *waiter = caller ? TAILQ_FIRST(&caller->waiting) : NULL; waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, turn); /* the caller goes with the last of them */
        if (waiter->obeyed)
            continue;
        methods_fail_errno(waiter->call, -ECANCELED);
        waiter_free(waiter);
    }
}

char *methods_domain_text(struct rpc_call *call, const json_t *params)
{
    const json_t *domain = json_object_get(params, "domain");
    char *text = NULL;

    if (json_is_string(domain) && *json_string_value(domain)) {
        text = strdup(json_string_value(domain));
    } else if (json_is_integer(domain) && json_integer_value(domain) >= 0) {
        if (asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(domain)) < 0)
            text = NULL;
    } else {
        methods_fail_param(call, "params.domain", "neither a name nor a domid", "a domid, a name or a uuid");
        return NULL;
    }
    if (!text)
        methods_fail_errno(call, -ENOMEM);
    return text;
}

struct waiter *methods_look_up(struct methods *methods, struct rpc_call *call, char *wanted, enum lookup_depth depth,
                               void (*found)(struct waiter *, const struct lookup_domain *, size_t))
{
    struct waiter *waiter = waiter_new(methods, WAIT_LOOKUP, call, NULL, METHODS_STORE_MS);

    if (!waiter) {
        free(wanted);
        return NULL;
    }
    waiter->wanted = wanted;
    waiter->found = found;
    waiter->lookup = lookup_new(wanted, depth, methods_on_lookup, waiter);
    if (!waiter->lookup || methods_queue_lookup(methods, waiter)) {
        lookup_free(waiter->lookup);
        methods_fail_errno(call, -ENOMEM);
        waiter_free(waiter);
        return NULL;
    }
    methods_begin_lookups(methods);
    return waiter;
}

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

static void run_begin(struct rpc_call *call, const json_t *params, void *context)
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

static void waiter_give_verdict(struct rpc_call *call, struct session *session, bool final, bool store_silent)
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

/* A final verdict uses up attempts. */
static bool verdict_reads(const json_t *params)
{
    const char *phase = json_string_value(json_object_get(params, "phase"));

    return phase && strcmp(phase, "precopy") == 0;
}

static void run_verdict(struct rpc_call *call, const json_t *params, void *context)
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
        waiter_give_verdict(call, session, final, !worker_connected(guard_worker(methods->guard)));
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

static void run_retry(struct rpc_call *call, const json_t *params, void *context)
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

static void run_adopt(struct rpc_call *call, const json_t *params, void *context)
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

static void run_end(struct rpc_call *call, const json_t *params, void *context)
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

static void run_show(struct rpc_call *call, const json_t *params, void *context)
{
    struct session *session = methods_session(context, call, params);

    if (session)
        methods_reply_session(call, session);
}

static void run_list(struct rpc_call *call, const json_t *params, void *context)
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

static void run_history(struct rpc_call *call, const json_t *params, void *context)
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

static void run_migrations(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    (void)params;

    rpc_reply(call, observations_record(guard_observations(methods->guard)));
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

static void methods_free_waiters(struct waiter_list *waiters)
{
    struct waiter *waiter;

    while ((waiter = LIST_FIRST(waiters))) {
        if (waiter->call)
            methods_fail(waiter->call, P2MG_ERROR_INTERNAL, "Internal error", methods_what("the daemon is stopping"));
        waiter_free(waiter);
    }
}

void methods_free(struct methods *methods)
{
    if (!methods)
        return;
    methods_free_waiters(&methods->lookups);
    methods_free_waiters(&methods->waiters);
    json_decref(methods->document);
    audit_free(methods->audit);
    free(methods);
}
