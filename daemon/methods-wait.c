/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/methods-private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/record.h"
#include "daemon/text.h"
#include "daemon/timer.h"

/* How long xenstored may take before a caller is told that it does not answer. */
#define METHODS_STORE_MS 2000

/* No call waits for xenstored for longer than this, whatever comes back meanwhile. */
#define METHODS_MOST_MS 30000

/* So many lookups are at the worker at the same time; a session's job waits for no more than these. */
#define METHODS_LOOKUPS_MOST 8

/* How soon it is looked again whether xenstored answers, when time was up but it did. */
#define METHODS_LOOK_MS 100

/* ---- calls that wait ---- */

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
        methods_give_verdict(call, waiter->session, true, true);
        break;
    case WAIT_HELD:
        break;
    }
    waiter_free(waiter);
}

struct waiter *waiter_new(struct methods *methods, enum wait_kind kind, struct rpc_call *call, struct session *session,
                          int64_t timeout_ms)
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

/* ---- what they waited for ---- */

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
        methods_give_verdict(call, session, true, false);
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

void methods_drop_lookups(struct methods *methods, uint64_t connection)
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

/* ---- the end ---- */

static void waiter_free_all(struct waiter_list *waiters)
{
    struct waiter *waiter;

    while ((waiter = LIST_FIRST(waiters))) {
        if (waiter->call)
            methods_fail(waiter->call, P2MG_ERROR_INTERNAL, "Internal error", methods_what("the daemon is stopping"));
        waiter_free(waiter);
    }
}

void methods_free_waiters(struct methods *methods)
{
    waiter_free_all(&methods->lookups);
    waiter_free_all(&methods->waiters);
}
