/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/agent.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/node.h"

/* What is no text of ours, for its length or for a NUL in it, reads as nothing. */
static int agent_read(struct store *store, uint16_t domid, const char *node, char text[P2MG_GUEST_TEXT_MAX])
{
    int error = node_read(store, domid, node, text, P2MG_GUEST_TEXT_MAX);

    return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
}

int agent_listen(struct store *store, uint16_t domid, struct agent_view *view)
{
    char text[P2MG_GUEST_TEXT_MAX];
    int error = agent_read(store, domid, P2MG_GUEST_STATE, text);

    view->answered = !error && p2mg_answer_parse(text, strlen(text), &view->answer) == 0;
    return error;
}

int agent_look(struct store *store, uint16_t domid, struct agent_view *view)
{
    char text[P2MG_GUEST_TEXT_MAX];
    int error = agent_read(store, domid, P2MG_GUEST_FEATURES, text);

    memset(view, 0, sizeof(*view));
    if (error)
        return error;
    view->present =
        p2mg_features_parse(text, strlen(text), &view->features) == 0 && view->features.protocol == P2MG_GUEST_PROTOCOL;
    return agent_listen(store, domid, view);
}

/* ---- asking ---- */

struct agent_asking {
    const struct gate *gate;
    const struct worker_tools *tools;
    struct journal journal; /* as it will be after the commit */
    char text[P2MG_GUEST_TEXT_MAX];
};

/*
 * Only below a ~/control that is there: a domain that went away meanwhile would get a stale tree. The node may be new
 * and have its parent's permissions, or an old one of somebody else's; permissions are compared before they are set,
 * for setting them fires watches too.
 */
static int agent_ask_body(struct store *store, store_txn txn, void *context)
{
    const struct agent_asking *asking = context;
    uint16_t domid = asking->journal.domid;
    char path[STORE_PATH_MAX], perms[STORE_PERMS_MAX], wanted[STORE_PERMS_MAX];

    int error = gate_check(asking->gate, asking->tools, txn);
    if (error)
        return error;
    error = store_get_perms(store, txn, node_path(domid, "control", path), perms, sizeof(perms));
    if (error)
        return error == -ENOENT ? -ENODATA : error;
    error = journal_write(store, txn, &asking->journal);
    if (!error)
        error = store_write(store, txn, node_path(domid, P2MG_GUEST_REQUEST, path), asking->text);
    if (!error)
        error = store_get_perms(store, txn, path, perms, sizeof(perms));
    snprintf(wanted, sizeof(wanted), "n0,r%u", domid);
    if (error == -EMSGSIZE || (!error && strcmp(perms, wanted) != 0))
        error = store_set_perms(store, txn, path, wanted);
    return error;
}

static void agent_format(uint32_t seq, uint32_t lease_s, char text[P2MG_GUEST_TEXT_MAX])
{
    struct p2mg_request request = {.kind = P2MG_REQUEST_FREEZE, .seq = seq, .lease_s = lease_s};

    p2mg_request_format(&request, text);
}

int agent_ask(struct gate *gate, const struct worker_tools *tools, uint32_t seq, uint32_t lease_s,
              struct agent_view *view)
{
    struct agent_asking asking = {.gate = gate, .tools = tools, .journal = gate->journal};
    struct store *store = tools->store;
    uint16_t domid = gate->journal.domid;
    int error = agent_look(store, domid, view);

    if (error)
        return error;
    if (!view->present)
        return -ENODATA;
    asking.journal.agent_seq = seq;
    agent_format(seq, lease_s, asking.text);
    error = agent_watch(store, domid);
    if (!error)
        error = store_transact(store, agent_ask_body, &asking);
    if (!error)
        gate->journal = asking.journal;
    return error;
}

struct agent_renewal {
    uint16_t domid;
    char text[P2MG_GUEST_TEXT_MAX];
};

static int agent_renew_body(struct store *store, store_txn txn, void *context)
{
    const struct agent_renewal *renewal = context;
    char path[STORE_PATH_MAX], text[P2MG_GUEST_TEXT_MAX];
    int error = store_read(store, txn, node_path(renewal->domid, P2MG_GUEST_REQUEST, path), text, sizeof(text));

    if (error == -ENOENT || error == -EMSGSIZE || (!error && strcmp(text, renewal->text) != 0))
        return -ESTALE;
    return error ? error : store_write(store, txn, path, renewal->text);
}

int agent_renew(struct store *store, uint16_t domid, uint32_t seq, uint32_t lease_s)
{
    struct agent_renewal renewal = {.domid = domid};

    agent_format(seq, lease_s, renewal.text);
    return store_transact(store, agent_renew_body, &renewal);
}

int agent_release(struct store *store, store_txn txn, uint16_t domid)
{
    char path[STORE_PATH_MAX];

    return store_remove(store, txn, node_path(domid, P2MG_GUEST_REQUEST, path));
}

/* ---- watching ---- */

int agent_watch(struct store *store, uint16_t domid)
{
    return node_watch(store, domid, P2MG_GUEST_FOLDER, AGENT_WATCH_LETTER, true);
}

int agent_unwatch(struct store *store, uint16_t domid)
{
    return node_watch(store, domid, P2MG_GUEST_FOLDER, AGENT_WATCH_LETTER, false);
}
