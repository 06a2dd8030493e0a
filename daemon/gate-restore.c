/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Putting back what was there before the gate was closed. See gate.h. */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "daemon/agent.h"
#include "daemon/gate-private.h"
#include "daemon/node.h"

static bool gate_is_private(const struct journal *journal, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = journal->private_nodes; (at = strstr(at, name)); at += length)
        if ((at == journal->private_nodes || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0'))
            return true;
    return false;
}

/* A node made under a closed ~/memory was born closed; it gets what it would have had without us. */
static int gate_open_newborn(void *context, const char *name)
{
    const struct gate_walk *walk = context;
    const struct journal *journal = &walk->gate->journal;
    char node[NODE_MAX], path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];

    if (strcmp(name, "target") == 0 || gate_is_private(journal, name))
        return 0;
    snprintf(node, sizeof(node), "memory/%s", name);
    int error = store_get_perms(walk->store, walk->txn, gate_path(walk->gate, node, path), perms, sizeof(perms));
    if (error || strcmp(perms, GATE_CLOSED) != 0 || strcmp(journal->memory_perms, GATE_CLOSED) == 0)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    return store_set_perms(walk->store, walk->txn, path, journal->memory_perms);
}

static int gate_restore_perms(struct store *store, store_txn txn, const char *path, const char *wanted)
{
    char perms[STORE_PERMS_MAX];
    int error = store_get_perms(store, txn, path, perms, sizeof(perms));

    if (error == -ENOENT)
        return 0;
    if (error && error != -EMSGSIZE)
        return error;
    return error || strcmp(perms, wanted) != 0 ? store_set_perms(store, txn, path, wanted) : 0;
}

/* Parent first, target last: the target's event is what makes the guest look. */
static int gate_restore_body(struct store *store, store_txn txn, void *context)
{
    const struct gate_restoring *restoring = context;
    struct gate *gate = restoring->gate;
    const struct journal *journal = &gate->journal;
    struct gate_walk walk = {gate, store, txn};
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];

    int error = gate_check(gate, restoring->tools, txn);
    if (error)
        return error;
    gate_path(gate, "memory", path);
    error = gate_restore_perms(store, txn, path, journal->memory_perms);
    if (!error)
        error = store_list(store, txn, path, gate_open_newborn, &walk);
    if (error && error != -ENOENT)
        return error;

    error = store_read(store, txn, gate_path(gate, "memory/target", path), text, sizeof(text));
    if (!error && strcmp(text, gate_expected_target(gate)) != 0 && journal_is_target(text)) {
        /* Written since the last look: the latest wish, which stays. The commit would tell too late whose it is. */
        if (!gate_is_anothers(gate, restoring->tools))
            strcpy(gate->journal.deferred, text);
    } else if (!error && *journal->pin) {
        error = store_write(store, txn, path, journal_wanted_target(journal));
    }
    if (error && error != -ENOENT && error != -EMSGSIZE)
        return error;
    error = gate_restore_perms(store, txn, path, journal->target_perms);
    if (!error && journal->agent_seq)
        error = agent_release(store, txn, journal->domid);
    if (error)
        return error;
    return restoring->keeps_journal ? journal_write(store, txn, journal) : journal_drop(store, txn, journal->domid);
}

/* Any other max_pages than our cap is the toolstack's own, set since. */
static int gate_uncap(const struct gate *gate, const struct worker_tools *tools)
{
    const struct journal *journal = &gate->journal;
    uint64_t page_kib = gate_page_kib(tools);
    struct hypervisor_domain domain;
    int error = gate_look(gate, tools, &domain);

    if (error)
        return error;
    uint64_t max_kib = domain.max_pages * page_kib;
    if (!journal->cap_kib || (max_kib != journal->cap_kib && max_kib != journal->cap_past_kib))
        return 0;
    return hypervisor_set_max_pages(tools->hypervisor, journal->domid, journal->max_kib / page_kib);
}

int gate_put_all_back(struct gate *gate, const struct worker_tools *tools, bool keeps_journal)
{
    struct gate_restoring restoring = {gate, tools, keeps_journal};
    int error = gate_uncap(gate, tools);

    return error ? error : store_transact(tools->store, gate_restore_body, &restoring);
}

int gate_restore(struct gate *gate, const struct worker_tools *tools)
{
    int error = gate_resolve(gate, tools->store);

    if (error)
        return error == -ENOENT ? 0 : error;
    error = gate_put_all_back(gate, tools, false);
    return error == -ESRCH ? journal_drop(tools->store, 0, gate->journal.domid) : error;
}
