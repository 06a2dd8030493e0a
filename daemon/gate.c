/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/gate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate-private.h"
#include "daemon/node.h"

/* A toolstack that changes max_pages more often than this while a journal is written does so for ever. */
#define GATE_CAP_TRIES 16

const char *gate_path(const struct gate *gate, const char *node, char path[STORE_PATH_MAX])
{
    return node_path(gate->journal.domid, node, path);
}

int gate_look_at(const struct worker_tools *tools, uint16_t domid, const char *uuid, struct hypervisor_domain *domain)
{
    int error = hypervisor_get(tools->hypervisor, domid, domain);

    if (error)
        return error;
    return domain->dying || strcmp(domain->uuid, uuid) != 0 ? -ESRCH : 0;
}

int gate_look(const struct gate *gate, const struct worker_tools *tools, struct hypervisor_domain *domain)
{
    return gate_look_at(tools, gate->journal.domid, gate->journal.uuid, domain);
}

bool gate_is_anothers(const struct gate *gate, const struct worker_tools *tools)
{
    struct hypervisor_domain domain;

    return hypervisor_get(tools->hypervisor, gate->journal.domid, &domain) == 0 &&
           strcmp(domain.uuid, gate->journal.uuid) != 0;
}

int gate_check_domain(const struct worker_tools *tools, store_txn txn, uint16_t domid, const char *uuid)
{
    char path[STORE_PATH_MAX], vm[STORE_PATH_MAX];
    struct hypervisor_domain domain;
    int error = store_read(tools->store, txn, node_path(domid, "vm", path), vm, sizeof(vm));

    return error && error != -ENOENT && error != -EMSGSIZE ? error : gate_look_at(tools, domid, uuid, &domain);
}

int gate_check(const struct gate *gate, const struct worker_tools *tools, store_txn txn)
{
    return gate_check_domain(tools, txn, gate->journal.domid, gate->journal.uuid);
}

int gate_explain_absent(const struct gate *gate, const struct worker_tools *tools)
{
    struct hypervisor_domain domain;

    return gate_look(gate, tools, &domain) == -ESRCH ? -ESRCH : -ENODATA;
}

uint64_t gate_page_kib(const struct worker_tools *tools)
{
    return hypervisor_page_kib(tools->hypervisor);
}

/* The zero tells a pin from a toolstack's target of the very same number. */
void gate_print_pin(uint64_t pin_kib, char pin[JOURNAL_TARGET_MAX])
{
    snprintf(pin, JOURNAL_TARGET_MAX, "0%" PRIu64, pin_kib);
}

const char *gate_expected_target(const struct gate *gate)
{
    return *gate->journal.pin ? gate->journal.pin : gate->journal.target;
}

/* ---- taking ---- */

static int gate_note_private(void *context, const char *name)
{
    const struct gate_walk *walk = context;
    char node[NODE_MAX], path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];
    char *list = walk->gate->journal.private_nodes;
    size_t used = strlen(list);

    if (strcmp(name, "target") == 0)
        return 0;
    snprintf(node, sizeof(node), "memory/%s", name);
    int error = store_get_perms(walk->store, walk->txn, gate_path(walk->gate, node, path), perms, sizeof(perms));
    if (error || strcmp(perms, GATE_CLOSED) != 0)
        return error == -ENOENT ? 0 : error;
    int length = snprintf(list + used, JOURNAL_PRIVATE_MAX - used, "%s%s", used ? " " : "", name);
    return length < 0 || (size_t)length >= JOURNAL_PRIVATE_MAX - used ? -EMSGSIZE : 0;
}

struct gate_taking {
    struct gate *gate;
    const struct worker_tools *tools;
    uint64_t pin_kib;
};

/*
 * A journal that this daemon cannot read, or has not put back yet, knows what was there before: it must stay. What one
 * knows that was put back stands in the target.
 */
static int gate_find_no_journal(struct store *store, store_txn txn, uint16_t domid)
{
    struct journal other;
    bool passing = false;
    int error = journal_read(store, txn, domid, &other);

    if (error == -ENOENT)
        return 0;
    if (!error)
        error = journal_read_passing(store, txn, domid, &passing);
    if (!error && passing)
        return journal_drop(store, txn, domid);
    return !error || error == -EINVAL || error == -EMSGSIZE ? -EEXIST : error;
}

static int gate_take_body(struct store *store, store_txn txn, void *context)
{
    const struct gate_taking *taking = context;
    struct gate *gate = taking->gate;
    struct journal *journal = &gate->journal;
    char path[STORE_PATH_MAX];
    int error = gate_check(gate, taking->tools, txn);

    if (!error)
        error = gate_find_no_journal(store, txn, journal->domid);
    if (error)
        return error;
    error = store_read(store, txn, gate_path(gate, "memory/target", path), journal->target, sizeof(journal->target));
    if (error)
        return error == -ENOENT || error == -EMSGSIZE ? -ENODATA : error;
    if (!journal_is_target(journal->target))
        return -ENODATA;
    journal->pin[0] = '\0';
    if (taking->pin_kib && strtoull(journal->target, NULL, 10) == taking->pin_kib)
        gate_print_pin(taking->pin_kib, journal->pin);
    error = store_get_perms(store, txn, path, journal->target_perms, sizeof(journal->target_perms));
    if (error)
        return error;
    gate_path(gate, "memory", path);
    error = store_get_perms(store, txn, path, journal->memory_perms, sizeof(journal->memory_perms));
    if (error)
        return error;
    struct gate_walk walk = {gate, store, txn};
    journal->private_nodes[0] = '\0';
    error = store_list(store, txn, path, gate_note_private, &walk);
    if (!error)
        error = journal_write(store, txn, journal);
    if (!error)
        error = store_set_perms(store, txn, path, GATE_CLOSED);
    if (!error)
        error = store_set_perms(store, txn, gate_path(gate, "memory/target", path), GATE_CLOSED);
    if (!error && *journal->pin)
        error = store_write(store, txn, path, journal->pin);
    return error;
}

/*
 * Whether the guest has been in touch with xenstore. Linux announces what it can do with ~/control/shutdown in the same
 * phase of its boot in which the balloon driver sets its watch and reads its first target.
 */
static bool gate_guest_is_up(const struct gate *gate, struct store *store)
{
    static const char *const nodes[] = {"control/feature-suspend", "control/feature-poweroff", "control/feature-reboot",
                                        "control/feature-balloon"};
    char path[STORE_PATH_MAX], value[16];

    for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++)
        if (store_read(store, 0, gate_path(gate, nodes[i], path), value, sizeof(value)) == 0 && strcmp(value, "1") == 0)
            return true;
    return false;
}

/* The journal says what max_pages is about to be, and what it was. -EALREADY: the cap is there. */
static int gate_note_cap(struct gate *gate, const struct worker_tools *tools, const struct hypervisor_domain *domain,
                         uint64_t cap_pages, struct gate_report *report)
{
    struct journal *journal = &gate->journal, before = *journal;
    uint64_t page_kib = gate_page_kib(tools);
    uint64_t max_kib = domain->max_pages * page_kib, cap_kib = cap_pages * page_kib;
    bool ours = max_kib == journal->cap_kib || (journal->cap_past_kib && max_kib == journal->cap_past_kib);

    report->tot_pages = domain->tot_pages;
    if (max_kib == cap_kib && ours)
        return -EALREADY;
    if (!ours) {
        report->cap_restored = gate->taken;
        journal->max_kib = max_kib;
    }
    if (cap_kib != journal->cap_kib) {
        journal->cap_past_kib = journal->cap_kib;
        journal->cap_kib = cap_kib;
    }
    if (!memcmp(&before, journal, sizeof(before)))
        return 0;
    int error = journal_write(tools->store, 0, journal);
    if (error)
        *journal = before; /* so that it is written the next time */
    return error;
}

/*
 * Sets max_pages, with the journal saying so before; whatever a toolstack has set meanwhile becomes what is restored.
 * The hypervisor has no call that compares and sets. A toolstack that sets it while the journal is being written is
 * noticed; one that comes between the last look and the next hypercall is not.
 */
int gate_cap(struct gate *gate, const struct worker_tools *tools, uint64_t cap_pages, struct gate_report *report)
{
    struct hypervisor_domain domain, before;
    int error = gate_look(gate, tools, &domain);

    for (int i = 0; !error && i < GATE_CAP_TRIES; i++) {
        before = domain;
        error = gate_note_cap(gate, tools, &before, cap_pages, report);
        if (error == -EALREADY)
            return 0;
        if (!error)
            error = gate_look(gate, tools, &domain);
        if (!error && domain.max_pages == before.max_pages)
            break;
    }
    if (!error)
        error = hypervisor_set_max_pages(tools->hypervisor, gate->journal.domid, cap_pages);
    if (!error)
        gate->journal.cap_past_kib = 0; /* only a crash between the journal and the change needs it */
    return error;
}

int gate_take(struct gate *gate, const struct worker_tools *tools, bool young, uint64_t pin_kib,
              struct gate_report *report)
{
    struct journal *journal = &gate->journal;
    struct gate_taking taking = {gate, tools, pin_kib};
    struct hypervisor_domain domain;
    int error = gate_look(gate, tools, &domain);

    if (error)
        return error;
    if (young && !gate_guest_is_up(gate, tools->store))
        return -EHOSTDOWN;
    journal->max_kib = domain.max_pages * gate_page_kib(tools);
    journal->cap_kib = domain.tot_pages * gate_page_kib(tools);
    error = store_transact(tools->store, gate_take_body, &taking);
    if (error)
        return error == -ENODATA || error == -ENOENT ? gate_explain_absent(gate, tools) : error;
    memset(report, 0, sizeof(*report));
    report->target_kib = strtoull(journal->target, NULL, 10);
    /* From here on there is something to put back, whatever fails. */
    error = gate_cap(gate, tools, domain.tot_pages, report);
    gate->taken = true;
    return error;
}

/* ---- after a commit that was not answered ---- */

/*
 * What the store's journal says is what there is to be put back: max_pages is only set after it was written. A wish
 * that stands in the target is later than the journal's; where the pin stands, the journal has the latest, or there is
 * none.
 */
static int gate_learn(struct gate *gate, struct store *store, const struct journal *stored)
{
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];
    int error = store_read(store, 0, gate_path(gate, "memory/target", path), text, sizeof(text));

    if (error && error != -ENOENT && error != -EMSGSIZE)
        return error;
    struct journal learnt = *stored;
    bool latest = error ? !*gate->journal.deferred : strcmp(text, stored->pin) == 0;
    if (!latest)
        strcpy(learnt.deferred, gate->journal.deferred);
    gate->journal = learnt;
    return 0;
}

/* -ENOENT: there is nothing to put back, because nothing was taken, or because all of it was put back. */
int gate_resolve(struct gate *gate, struct store *store)
{
    struct journal stored;

    if (gate->doubt == GATE_SURE)
        return 0;
    int error = journal_read(store, 0, gate->journal.domid, &stored);
    if (error && error != -ENOENT)
        return error;
    bool found = !error && strcmp(stored.session, gate->journal.session) == 0;
    if (!found && (!gate->taken || gate->doubt == GATE_PERHAPS_RESTORED))
        return -ENOENT;
    if (found && gate->taken) {
        error = gate_learn(gate, store, &stored);
        if (error)
            return error;
    } else if (found) {
        gate->journal = stored;
        gate->taken = true;
    }
    gate->doubt = GATE_SURE;
    return 0;
}
