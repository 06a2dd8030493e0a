/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/migrate-private.h"

/* ---- what is to be said ---- */

/*
 * Somebody else has asked for another attempt, on the control socket. What this caller copies, he has begun to copy in
 * the one before: no hold of a later one that he has not asked for is his.
 */
static bool migrate_is_void(const struct migrate_node *node)
{
    const struct session *session = node->session;

    return session && session->attempt > node->attempt && !node->ended &&
           (session_state(session) == P2MG_STATE_HELD || session_state(session) == P2MG_STATE_FREEZING);
}

void migrate_state(const struct migrate_node *node, char text[MIGRATE_STATE_MAX])
{
    const struct session *session = node->session;
    enum p2mg_state state = session ? session_state(session) : P2MG_STATE_GONE;
    struct verdict verdict = {P2MG_VERDICT_ABORT, session ? session->ending : P2MG_REASON_NONE};

    if (!session) {
        strcpy(text, node->over);
        return;
    }
    if (node->ended && (state == P2MG_STATE_FREEZING || state == P2MG_STATE_HELD)) {
        verdict.reason = P2MG_REASON_ENDED; /* it is about to be */
    } else if (migrate_is_void(node)) {
        verdict = (struct verdict){P2MG_VERDICT_RETRY, P2MG_REASON_NOT_HELD_YET};
    } else if (state == P2MG_STATE_FREEZING || (state == P2MG_STATE_HELD && session->attempt < node->attempt)) {
        strcpy(text, "freezing");
        return;
    } else if (state == P2MG_STATE_HELD) {
        verdict = session_known_verdict(session);
    }
    if (verdict.verdict == P2MG_VERDICT_PROCEED)
        strcpy(text, p2mg_state_name(P2MG_STATE_HELD));
    else
        snprintf(text, MIGRATE_STATE_MAX, "%s %s", p2mg_verdict_name(verdict.verdict),
                 p2mg_reason_name(verdict.reason));
}

bool migrate_is_held(const struct migrate_node *node)
{
    return node->session && session_state(node->session) == P2MG_STATE_HELD &&
           node->session->attempt == node->attempt && !node->ended;
}

void migrate_describe(struct migrate_node *node, char text[MIGRATE_ANSWER_MAX])
{
    char state[MIGRATE_STATE_MAX];

    migrate_state(node, state);
    if (*node->answer && strcmp(state, node->beneath) != 0)
        *node->answer = '\0';
    if (node->checking && migrate_is_held(node))
        *text = '\0';
    else
        strcpy(text, *node->answer ? node->answer : state);
}

void migrate_say(struct migrate_node *node, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(node->answer, sizeof(node->answer), format, arguments);
    va_end(arguments);
    migrate_state(node, node->beneath);
}

/* ---- what is done about requests ---- */

enum migrate_stage {
    STAGE_NONE,     /* nothing was begun */
    STAGE_FOREIGN,  /* the domain is under guard, by somebody else's session */
    STAGE_FREEZING, /* begun here */
    STAGE_HELD,
    STAGE_VOID, /* this attempt, by somebody else's retry */
    STAGE_ENDING,
    STAGE_OVER, /* it is gone, and the caller has not said that he knows */
    STAGE_COUNT
};

static enum migrate_stage migrate_stage(struct migrate_nodes *nodes, const struct migrate_node *node)
{
    enum p2mg_state state = node->session ? session_state(node->session) : P2MG_STATE_GONE;

    if (migrate_is_held(node))
        return STAGE_HELD;
    if (migrate_is_void(node))
        return STAGE_VOID;
    if (node->session && !node->ended && (state == P2MG_STATE_FREEZING || state == P2MG_STATE_HELD))
        return STAGE_FREEZING;
    if (node->session)
        return STAGE_ENDING;
    if (*node->over)
        return STAGE_OVER;
    return guard_find_domain(nodes->guard, node->domid) ? STAGE_FOREIGN : STAGE_NONE;
}

static void migrate_fail_foreign(struct migrate_node *node, const struct session *session)
{
    migrate_say(node,
                "error domain %u is under guard by session %s, which was not begun here; expected to wait for its end",
                node->domid, session->id);
}

void migrate_begin(struct migrate_nodes *nodes, struct migrate_node *node, const struct session_options *options)
{
    struct session *session = NULL;
    int error = guard_begin(nodes->guard, node->domid, options, &session);

    switch (error) {
    case 0:
        migrate_forget(node);
        node->known = true;
        node->session = session;
        node->attempt = session->attempt;
        node->wants_verdict = node->checking = false;
        strcpy(node->uuid, session->gate.journal.uuid);
        return;
    case -EBUSY:
        migrate_fail_foreign(node, session);
        return;
    case -ENOSPC:
        migrate_say(node, "error no more sessions are taken, or the daemon is stopping; expected at most %lld",
                    (long long)nodes->settings->max_sessions);
        return;
    case -EPERM:
        migrate_say(node, "error domain 0 is the host itself; expected the domid of a guest");
        return;
    case -EACCES:
        migrate_say(
            node, "error the configuration has guard = no for domain %u; expected guard = yes, see p2mguardctl config",
            node->domid);
        return;
    case -ESRCH:
        migrate_say(node, "error there is no domain %u; expected the domid of a guest", node->domid);
        return;
    default:
        migrate_say(node, "error beginning failed: %s", strerror(-error));
    }
}

static void do_begin(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)request;
    migrate_begin(nodes, node, &node->options);
}

static void do_begin_later(struct migrate_nodes *nodes, struct migrate_node *node,
                           const struct migrate_request *request)
{
    (void)nodes, (void)request;
    node->begins_anew = true;
}

static void do_ask(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    node->checking = true;
    node->check = session_check(node->session);
}

static void do_ask_later(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    node->wants_verdict = true;
}

/* What is known is the answer. */
static void do_tell(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)node, (void)request;
}

static void do_end(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes;
    node->ended = true;
    node->begins_anew = false;
    session_stop(node->session, P2MG_REASON_ENDED, request->outcome);
}

static void do_remove(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)request;
    migrate_remove(nodes, node);
}

static void do_forget(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    migrate_forget(node);
}

static void fail_none(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    migrate_say(node, "error nothing was begun for domain %u; expected begin", node->domid);
}

static void fail_foreign(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    node->refuses_end = request->word == MIGRATE_END;
    migrate_fail_foreign(node, guard_find_domain(nodes->guard, node->domid));
}

static void fail_begun(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    migrate_say(node, "error session %s was begun here already; expected retry, verdict or end", node->session->id);
}

static void fail_freezing(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    (void)nodes, (void)request;
    migrate_say(node, "error the guest is still being frozen; expected to wait until it is held");
}

static void do_retry(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    struct session *session = node->session;
    int64_t attempt = session->attempt + 1;
    int error = session_retry(session);

    if (!error)
        node->attempt = attempt;
    else if (error == -EINVAL)
        fail_freezing(nodes, node, request);
    else
        migrate_say(node, "error no attempt is left, expected verdict or end: the policy has attempts=%lld",
                    (long long)session->options.policy.attempts);
}

typedef void migrate_action(struct migrate_nodes *nodes, struct migrate_node *node,
                            const struct migrate_request *request);

static migrate_action *const migrate_actions[MIGRATE_WORDS + 1][STAGE_COUNT] = {
    /* clang-format off */
    /*                    NONE       FOREIGN       FREEZING       HELD        VOID        ENDING          OVER */
    [MIGRATE_BEGIN]   = {do_begin,  fail_foreign, fail_begun,    fail_begun, fail_begun, do_begin_later, do_begin},
    [MIGRATE_RETRY]   = {fail_none, fail_foreign, fail_freezing, do_retry,   do_retry,   do_tell,        do_tell},
    [MIGRATE_VERDICT] = {fail_none, fail_foreign, do_ask_later,  do_ask,     do_tell,    do_tell,        do_tell},
    [MIGRATE_END]     = {do_remove, fail_foreign, do_end,        do_end,     do_end,     do_end,         do_remove},
    [MIGRATE_REMOVED] = {do_forget, do_forget,    do_end,        do_end,     do_end,     do_end,         do_forget},
    /* clang-format on */
};

void migrate_act(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request)
{
    enum migrate_stage stage = migrate_stage(nodes, node);

    log_debug("domain %u: request %d in stage %d from xenstore", node->domid, (int)request->word, (int)stage);
    migrate_actions[request->word][stage](nodes, node, request);
}
