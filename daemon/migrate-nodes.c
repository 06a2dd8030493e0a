/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit.h"
#include "daemon/clock.h"
#include "daemon/guarding.h"
#include "daemon/log.h"
#include "daemon/metrics.h"
#include "daemon/migrate-private.h"
#include "daemon/record.h"
#include "daemon/timer.h"

/* So many looks are at the worker at the same time; a session's job waits for no more than these. */
#define MIGRATE_LOOKS_MOST 8

/* What was answered about a domain that is not there stays for so long. */
#define MIGRATE_NOBODY_MS 10000

#define MIGRATE_SWEEP_MS 1000
#define MIGRATE_DOMAINS_A_CALL 256

static void migrate_done(struct work *work);

static void migrate_submit(struct migrate_work *task)
{
    worker_submit(guard_worker(task->nodes->guard), &task->work);
}

/* ---- which nodes there are ---- */

static struct migrate_node *migrate_get(struct migrate_nodes *nodes, uint16_t domid)
{
    struct migrate_node *node = nodes->by_domid[domid];

    if (node)
        return node;
    node = calloc(1, sizeof(*node));
    if (!node) {
        log_error("domain %u: out of memory for its caller in xenstore", domid);
        return NULL;
    }
    node->domid = domid;
    node->link = &nodes->all;
    node->next = nodes->all;
    if (node->next)
        node->next->link = &node->next;
    nodes->all = nodes->by_domid[domid] = node;
    return node;
}

static void migrate_drop(struct migrate_nodes *nodes, struct migrate_node *node)
{
    *node->link = node->next;
    if (node->next)
        node->next->link = node->link;
    nodes->by_domid[node->domid] = NULL;
    free(node->doubt);
    free(node);
}

/* Frees it when nothing is known of it and nothing is under way. */
static void migrate_tidy(struct migrate_nodes *nodes, struct migrate_node *node)
{
    if (!node->queued && !node->looking && !node->removing && !node->known && !node->doubt)
        migrate_drop(nodes, node);
}

void migrate_forget(struct migrate_node *node)
{
    node->removes = node->known = node->found = node->ended = node->named = node->unsaid = false;
    *node->uuid = *node->over = *node->answer = *node->said = '\0';
}

/* The uuid of the domain that there is, or "". */
static void migrate_look_up(struct migrate_nodes *nodes, uint16_t domid, char uuid[HYPERVISOR_UUID_LENGTH + 1])
{
    struct hypervisor_domain domain;
    bool there = hypervisor_get(guard_hypervisor(nodes->guard), domid, &domain) == 0 && !domain.dying;

    strcpy(uuid, there ? domain.uuid : "");
}

static void migrate_arm_sweep(struct migrate_nodes *nodes)
{
    if (!evtimer_pending(nodes->sweep, NULL))
        timer_arm(nodes->sweep, MIGRATE_SWEEP_MS);
}

/* Of which domain the node is from now on. What was said of another one that had its number is void. */
static void migrate_see_domain(struct migrate_nodes *nodes, struct migrate_node *node)
{
    char uuid[HYPERVISOR_UUID_LENGTH + 1];

    migrate_look_up(nodes, node->domid, uuid);
    if (strcmp(uuid, node->uuid) != 0) {
        *node->over = *node->answer = '\0';
        node->named = false;
    }
    strcpy(node->uuid, uuid);
    node->nobody_ms = clock_now_ms();
    if (!*uuid)
        migrate_arm_sweep(nodes);
}

/* ---- what is to be said ---- */

static void migrate_send(struct migrate_nodes *nodes, struct migrate_node *node, const char *text)
{
    struct migrate_work *task = migrate_work_new(nodes, MIGRATE_ANSWER, node->domid, migrate_done);

    if (!task) {
        node->unsaid = true;
        migrate_arm_sweep(nodes);
        return;
    }
    strcpy(node->said, text);
    strcpy(task->answer.verdict, text);
    task->answer.names = !node->named;
    task->answer.takes_end = node->refuses_end;
    if (node->session)
        strcpy(task->answer.session, node->session->id);
    strcpy(task->answer.uuid, node->uuid);
    node->named = true;
    node->refuses_end = false;
    nodes->writes++;
    migrate_submit(task);
}

/*
 * Writes what is new. A look that is under way may bring a request: what is known is no answer to that, and waits;
 * unless it must stand there before anything else happens.
 */
static void migrate_update(struct migrate_nodes *nodes, struct migrate_node *node, bool at_once)
{
    char text[MIGRATE_ANSWER_MAX];
    struct verdict_facts facts;
    struct sight_figures now;

    if ((node->looking || node->removing) && !at_once)
        return;
    migrate_describe(node, text);
    if (!*text || strcmp(text, node->said) == 0)
        return;
    /* A caller is about to be told, and the grace runs from then; judging looks once more. */
    if (migrate_is_held(node) && !*node->answer && strcmp(text, p2mg_state_name(P2MG_STATE_HELD)) != 0) {
        session_judge(node->session, false, true, &facts, &now);
        migrate_describe(node, text);
        if (!*text || strcmp(text, node->said) == 0)
            return;
    }
    migrate_send(nodes, node, text);
}

void migrate_remove(struct migrate_nodes *nodes, struct migrate_node *node)
{
    node->removes = true;
    if (node->looking || node->removing)
        return;
    struct migrate_work *task = migrate_work_new(nodes, MIGRATE_REMOVE, node->domid, migrate_done);
    if (!task)
        return;
    node->removing = true;
    nodes->writes++;
    migrate_submit(task);
}

/* ---- looks ---- */

static void migrate_look_at(struct migrate_nodes *nodes, struct migrate_node *node)
{
    struct migrate_work *task = migrate_work_new(nodes, MIGRATE_LOOK, node->domid, migrate_done);

    if (!task)
        return;
    task->whole = !node->known;
    node->looking = true;
    nodes->looks++;
    migrate_submit(task);
}

static void migrate_dispatch(struct migrate_nodes *nodes)
{
    while (nodes->queue && nodes->looks < MIGRATE_LOOKS_MOST && !nodes->stopping) {
        struct migrate_node *node = nodes->queue;
        nodes->queue = node->next_queued;
        if (!nodes->queue)
            nodes->queue_end = &nodes->queue;
        node->queued = false;
        migrate_look_at(nodes, node);
    }
}

static void migrate_touch(struct migrate_nodes *nodes, uint16_t domid, bool found)
{
    struct migrate_node *node = migrate_get(nodes, domid);

    if (!node)
        return;
    node->found |= found;
    if (node->looking || node->removing) {
        node->again = true;
    } else if (!node->queued) {
        node->queued = true;
        node->next_queued = NULL;
        *nodes->queue_end = node;
        nodes->queue_end = &node->next_queued;
        migrate_dispatch(nodes);
    }
}

static void migrate_name_over(struct migrate_node *node, enum p2mg_reason reason)
{
    snprintf(node->over, sizeof(node->over), "%s %s", p2mg_verdict_name(P2MG_VERDICT_ABORT), p2mg_reason_name(reason));
}

/*
 * An earlier daemon was killed, or told to stop: its guest has been thawed, and nobody may have told its caller. False
 * when that was another domain.
 */
static bool migrate_take_over(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_found *found)
{
    migrate_see_domain(nodes, node);
    if (!*node->uuid || (*found->uuid && strcmp(found->uuid, node->uuid) != 0))
        return false;
    migrate_name_over(node, P2MG_REASON_SHUTDOWN);
    node->named = *found->uuid;
    return true;
}

/* Only dom0 can write the node, which is all that is known of who it was. */
static void migrate_audit(const struct migrate_node *node, const char *word, bool sound)
{
    struct audit_entry entry = {.method = word,
                                .outcome = sound ? "granted" : "invalid",
                                .xenstore = true,
                                .domid = node->domid,
                                .session = node->session ? node->session->id : NULL};

    audit_write(&entry);
}

static void migrate_audit_request(const struct migrate_node *node, const struct migrate_found *found)
{
    if (found->problem)
        migrate_audit(node, "request", false);
    else if (found->request.word != MIGRATE_END || !node->ended) /* an end stays there until all is put back */
        migrate_audit(node, migrate_request_word(found->request.word), true);
}

static void migrate_take_request(struct migrate_nodes *nodes, struct migrate_node *node, struct migrate_work *task)
{
    const struct migrate_found *found = &task->found;
    const struct migrate_request *request = &found->request;

    *node->said = *node->answer = '\0';
    node->checking = node->wants_verdict = false;
    if (!node->session && (node->known || !found->had_session || !migrate_take_over(nodes, node, found)))
        migrate_see_domain(nodes, node);
    node->known = true;
    node->removes = false;
    migrate_audit_request(node, found);
    if (found->problem) {
        migrate_say(node, "error %.*s", MIGRATE_ANSWER_MAX - 8, found->text);
        return;
    }
    if (request->word == MIGRATE_BEGIN) {
        node->options =
            (struct session_options){.policy = request->policy, .hold = P2MG_HOLD_DETACHED, .from_xenstore = true};
        strcpy(node->options.name, task->name);
        guarding_configure(&node->options, nodes->settings, task->name, node->uuid, request->named);
    }
    migrate_act(nodes, node, request);
}

static void migrate_handle(struct migrate_nodes *nodes, struct migrate_node *node, struct migrate_work *task)
{
    static const struct migrate_request removed = {.word = MIGRATE_REMOVED, .outcome = P2MG_OUTCOME_CANCELLED};

    if (!task->found.present) {
        node->named = false;
        if (node->session && !node->ended)
            migrate_audit(node, "removal", true);
        if (node->known)
            migrate_act(nodes, node, &removed);
    } else if (task->found.asked) {
        migrate_take_request(nodes, node, task);
    } else if (node->doubt) {
        migrate_take_request(nodes, node, node->doubt); /* it was taken, and nobody has heard of it */
    } else if (!node->known && node->found) {
        node->known = true;
        node->removes = !migrate_take_over(nodes, node, &task->found);
    }
    node->found = false;
}

/* An "end" stays in its node, and is found there again. */
static bool migrate_is_doubtful(const struct migrate_work *task)
{
    return task->task == MIGRATE_LOOK && task->error == -ENOTCONN && task->found.asked &&
           (task->found.problem || task->found.request.word != MIGRATE_END);
}

static void migrate_looked(struct migrate_nodes *nodes, struct migrate_node *node, struct migrate_work *task)
{
    node->looking = false;
    nodes->looks--;
    if (!task->error)
        migrate_handle(nodes, node, task);
    if (!task->error || migrate_is_doubtful(task)) {
        free(node->doubt);
        node->doubt = task->error ? task : NULL;
    }
    if (node->removes)
        migrate_remove(nodes, node);
    else
        migrate_update(nodes, node, false);
}

static void migrate_removed(struct migrate_nodes *nodes, struct migrate_node *node, int error)
{
    node->removing = false;
    if (error == -EAGAIN)
        migrate_arm_sweep(nodes);
    else if (!migrate_work_is_away(error))
        migrate_forget(node);
    node->again |= error == -EBUSY;
}

static void migrate_answered(struct migrate_nodes *nodes, struct migrate_node *node, int error)
{
    if (error == -ENOENT) {
        migrate_touch(nodes, node->domid, false);
    } else if (error && !migrate_work_is_away(error)) {
        node->unsaid = true;
        migrate_arm_sweep(nodes);
    }
}

/* ---- what comes back from the worker ---- */

static void migrate_prepared(struct migrate_nodes *nodes)
{
    /* Whatever was on its way when the connection was lost may not have arrived. */
    for (struct migrate_node *node = nodes->all; node; node = node->next) {
        *node->said = '\0';
        node->named = false;
        migrate_touch(nodes, node->domid, false);
    }
}

static void migrate_submit_listing(struct migrate_nodes *nodes, enum migrate_task what, uint16_t first);

static void migrate_listed(struct migrate_nodes *nodes, const struct migrate_work *task)
{
    unsigned next = task->unlisted ? 0 : task->domid + MIGRATE_PROBED;

    if (task->task == MIGRATE_PREPARE)
        migrate_prepared(nodes);
    for (unsigned domid = 0; domid < MIGRATE_DOMIDS; domid++)
        if (domid_set_has(task->there, (uint16_t)domid))
            migrate_touch(nodes, (uint16_t)domid, true);
    if (task->unlisted || (task->task == MIGRATE_PROBE && next < MIGRATE_DOMIDS))
        migrate_submit_listing(nodes, MIGRATE_PROBE, (uint16_t)next);
}

static void migrate_done_at(struct migrate_nodes *nodes, struct migrate_node *node, struct migrate_work *task)
{
    if (task->task == MIGRATE_LOOK)
        migrate_looked(nodes, node, task);
    else if (task->task == MIGRATE_REMOVE)
        migrate_removed(nodes, node, task->error);
    else
        migrate_answered(nodes, node, task->error);
    if (node->again && !node->looking && !node->removing) {
        node->again = false;
        if (!migrate_work_is_away(task->error))
            migrate_touch(nodes, node->domid, false);
    }
    migrate_tidy(nodes, node);
}

static void migrate_done(struct work *work)
{
    struct migrate_work *task = (struct migrate_work *)(void *)work;
    struct migrate_nodes *nodes = task->nodes;
    struct migrate_node *node = nodes->by_domid[task->domid];
    bool is_write = task->task == MIGRATE_ANSWER || task->task == MIGRATE_REMOVE;

    if (task->error && !migrate_work_is_away(task->error) && task->error != -EBUSY && task->error != -ENOENT)
        migrate_work_log_failure(task);
    if (task->there && !task->error)
        migrate_listed(nodes, task);
    nodes->unlisted |= task->unlisted;
    nodes->writes -= is_write;
    if (node && (is_write || task->task == MIGRATE_LOOK))
        migrate_done_at(nodes, node, task);
    free(task->there);
    task->there = NULL;
    node = nodes->by_domid[task->domid]; /* it may be gone */
    if (!node || node->doubt != task)
        free(task);
    migrate_dispatch(nodes);
    if (is_write && nodes->writes == 0)
        nodes->settled(nodes->context);
}

/* ---- what nobody asks for any more ---- */

/* Without a session, nobody but we see to it that it goes away. */
static bool migrate_is_idle(const struct migrate_node *node)
{
    return node->known && !node->session;
}

/* Notes which domains there are, of those that a node without a session is about. False when that cannot be told. */
static bool migrate_see_domains(struct migrate_nodes *nodes)
{
    static struct hypervisor_domain chunk[MIGRATE_DOMAINS_A_CALL];
    unsigned first = 0;
    int count;

    do {
        count = hypervisor_list(guard_hypervisor(nodes->guard), (uint16_t)first, MIGRATE_DOMAINS_A_CALL, chunk);
        for (int i = 0; i < count; i++) {
            struct migrate_node *node = nodes->by_domid[chunk[i].domid];
            if (node && !chunk[i].dying)
                node->is_there = strcmp(node->uuid, chunk[i].uuid) == 0;
            first = chunk[i].domid + 1u;
        }
    } while (count == MIGRATE_DOMAINS_A_CALL && first <= UINT16_MAX);
    return count >= 0; /* domains.c has said why */
}

void migrate_nodes_on_domains(struct migrate_nodes *nodes)
{
    bool any = false;

    for (struct migrate_node *node = nodes->all; node; node = node->next) {
        any |= migrate_is_idle(node);
        node->is_there = !*node->uuid; /* that there is nobody is what was said of it; the sweep sees to that */
    }
    if (!any || !migrate_see_domains(nodes))
        return;
    for (struct migrate_node *node = nodes->all; node; node = node->next)
        if (migrate_is_idle(node) && !node->is_there)
            migrate_remove(nodes, node);
}

static void migrate_sweep(struct migrate_nodes *nodes, struct migrate_node *node, int64_t now_ms)
{
    bool for_nobody = migrate_is_idle(node) && !*node->uuid;

    if (node->unsaid) {
        node->unsaid = false;
        *node->said = '\0';
        migrate_update(nodes, node, false);
    }
    if (node->removes || (for_nobody && now_ms - node->nobody_ms >= MIGRATE_NOBODY_MS))
        migrate_remove(nodes, node);
    else if (for_nobody)
        migrate_arm_sweep(nodes);
}

static void migrate_on_sweep(evutil_socket_t fd, short what, void *context)
{
    struct migrate_nodes *nodes = context;
    int64_t now_ms = clock_now_ms();
    (void)fd, (void)what;

    for (struct migrate_node *node = nodes->all; node; node = node->next)
        migrate_sweep(nodes, node, now_ms);
}

/* ---- from the guard ---- */

/* The node for which a session was begun, or NULL. */
static struct migrate_node *migrate_find(const struct migrate_nodes *nodes, const struct session *session)
{
    struct migrate_node *node = nodes->by_domid[session->gate.journal.domid];

    return node && node->session == session ? node : NULL;
}

void migrate_nodes_on_touched(struct migrate_nodes *nodes, uint16_t domid)
{
    migrate_touch(nodes, domid, false);
}

static void migrate_submit_listing(struct migrate_nodes *nodes, enum migrate_task what, uint16_t first)
{
    struct migrate_work *task = migrate_work_new(nodes, what, first, migrate_done);
    struct domid_set *there = calloc(1, sizeof(*there));

    if (!task || !there) {
        log_error("out of memory: callers in xenstore are not served");
        free(task);
        free(there);
        return;
    }
    task->there = there;
    task->unlisted = what == MIGRATE_PREPARE && nodes->unlisted;
    migrate_submit(task);
}

void migrate_nodes_on_back(struct migrate_nodes *nodes)
{
    struct migrate_work *task;

    if (nodes->serves)
        migrate_submit_listing(nodes, MIGRATE_PREPARE, 0);
    else if ((task = migrate_work_new(nodes, MIGRATE_CLOSE, 0, migrate_done)))
        migrate_submit(task);
}

void migrate_nodes_on_observed(struct migrate_nodes *nodes)
{
    for (struct migrate_node *node = nodes->all; node; node = node->next)
        if (node->session)
            migrate_update(nodes, node, false);
}

static void migrate_begin_check(struct migrate_node *node)
{
    node->wants_verdict = false;
    node->checking = true;
    node->check = session_check(node->session);
}

void migrate_nodes_on_held(struct migrate_nodes *nodes, struct session *session)
{
    struct migrate_node *node = migrate_find(nodes, session);

    if (!node)
        return;
    if (node->wants_verdict && migrate_is_held(node))
        migrate_begin_check(node);
    migrate_update(nodes, node, false);
}

void migrate_nodes_on_checked(struct migrate_nodes *nodes, struct session *session)
{
    struct migrate_node *node = migrate_find(nodes, session);
    struct verdict_facts facts;
    struct sight_figures now;

    if (!node || !node->checking || node->check > session->checks_made)
        return;
    node->checking = false;
    node->wants_verdict = !migrate_is_held(node); /* somebody else has asked for a retry meanwhile */
    if (node->wants_verdict)
        return;
    struct verdict verdict = session_judge(session, false, true, &facts, &now);
    metrics_count_verdict(&verdict, true);
    record_emit(session, "session.verdict", "{s:s,s:s,s:s,s:I}", "verdict", p2mg_verdict_name(verdict.verdict),
                "reason", p2mg_reason_name(verdict.reason), "phase", "final", "attempt", (json_int_t)session->attempt);
    migrate_say(node, "%s %s", p2mg_verdict_name(verdict.verdict), p2mg_reason_name(verdict.reason));
    migrate_update(nodes, node, false);
}

/* Before the gate opens: nobody is to read that a guest is held that is not any more. */
void migrate_nodes_on_thawing(struct migrate_nodes *nodes, struct session *session)
{
    struct migrate_node *node = migrate_find(nodes, session);

    if (node)
        migrate_update(nodes, node, true);
}

void migrate_nodes_on_gone(struct migrate_nodes *nodes, struct session *session)
{
    struct migrate_node *node = migrate_find(nodes, session);
    char uuid[HYPERVISOR_UUID_LENGTH + 1];

    if (!node)
        return;
    migrate_state(node, node->over);
    node->session = NULL;
    node->checking = node->wants_verdict = false;
    migrate_look_up(nodes, node->domid, uuid);
    if (node->begins_anew) {
        node->begins_anew = node->ended = false;
        migrate_begin(nodes, node, &node->options);
        migrate_update(nodes, node, false);
    } else if (node->ended || strcmp(uuid, node->uuid) != 0) {
        migrate_remove(nodes, node);
    } else {
        migrate_update(nodes, node, false);
    }
}

/* ---- life ---- */

int migrate_nodes_new(struct migrate_nodes **result, struct event_base *base, const struct settings *settings,
                      void (*settled)(void *context), void *context)
{
    struct migrate_nodes *nodes = calloc(1, sizeof(*nodes));

    if (nodes)
        nodes->sweep = evtimer_new(base, migrate_on_sweep, nodes);
    if (!nodes || !nodes->sweep) {
        free(nodes);
        return -ENOMEM;
    }
    nodes->settings = settings;
    nodes->settled = settled;
    nodes->context = context;
    nodes->queue_end = &nodes->queue;
    *result = nodes;
    return 0;
}

void migrate_nodes_free(struct migrate_nodes *nodes)
{
    if (!nodes)
        return;
    while (nodes->all)
        migrate_drop(nodes, nodes->all);
    event_free(nodes->sweep);
    free(nodes);
}

void migrate_nodes_set_guard(struct migrate_nodes *nodes, struct guard *guard)
{
    nodes->guard = guard;
}

void migrate_nodes_take_over(struct migrate_nodes *nodes)
{
    for (struct session *session = guard_next(nodes->guard, NULL); session;
         session = guard_next(nodes->guard, session)) {
        const struct journal *journal = &session->gate.journal;
        struct migrate_node *node = session->options.from_xenstore ? migrate_get(nodes, journal->domid) : NULL;
        if (!node)
            continue;
        node->known = node->named = true;
        node->session = session;
        node->attempt = session->attempt;
        node->options = session->options;
        strcpy(node->uuid, journal->uuid);
    }
}

void migrate_nodes_start(struct migrate_nodes *nodes, bool serves)
{
    nodes->serves = serves;
    migrate_nodes_on_back(nodes);
}

void migrate_nodes_stop(struct migrate_nodes *nodes)
{
    nodes->stopping = true;
}

bool migrate_nodes_are_settled(const struct migrate_nodes *nodes)
{
    return nodes->writes == 0;
}
