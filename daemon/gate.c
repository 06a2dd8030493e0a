/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/gate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/agent.h"
#include "daemon/log.h"
#include "daemon/node.h"

#define GATE_CLOSED "n0"

#define GATE_DOMAINS_A_CALL 256

/* A toolstack that changes max_pages more often than this while a journal is written does so for ever. */
#define GATE_CAP_TRIES 16

/* A node below ~ of the gate's domain. */
static const char *gate_path(const struct gate *gate, const char *node, char path[STORE_PATH_MAX])
{
    return node_path(gate->journal.domid, node, path);
}

/* -ESRCH: it is gone, or another one has its number. */
static int gate_look_at(const struct worker_tools *tools, uint16_t domid, const char *uuid,
                        struct hypervisor_domain *domain)
{
    int error = hypervisor_get(tools->hypervisor, domid, domain);

    if (error)
        return error;
    return domain->dying || strcmp(domain->uuid, uuid) != 0 ? -ESRCH : 0;
}

static int gate_look(const struct gate *gate, const struct worker_tools *tools, struct hypervisor_domain *domain)
{
    return gate_look_at(tools, gate->journal.domid, gate->journal.uuid, domain);
}

/* What was read below its path before this was asked may have been another guest's. */
static bool gate_is_anothers(const struct gate *gate, const struct worker_tools *tools)
{
    struct hypervisor_domain domain;

    return hypervisor_get(tools->hypervisor, gate->journal.domid, &domain) == 0 &&
           strcmp(domain.uuid, gate->journal.uuid) != 0;
}

static int gate_check_domain(const struct worker_tools *tools, store_txn txn, uint16_t domid, const char *uuid)
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

/* A node is absent: because the domain went away under our hands, or because it never had one. */
static int gate_explain_absent(const struct gate *gate, const struct worker_tools *tools)
{
    struct hypervisor_domain domain;

    return gate_look(gate, tools, &domain) == -ESRCH ? -ESRCH : -ENODATA;
}

static uint64_t gate_page_kib(const struct worker_tools *tools)
{
    return hypervisor_page_kib(tools->hypervisor);
}

/* The zero tells a pin from a toolstack's target of the very same number. */
static void gate_print_pin(uint64_t pin_kib, char pin[JOURNAL_TARGET_MAX])
{
    snprintf(pin, JOURNAL_TARGET_MAX, "0%" PRIu64, pin_kib);
}

/* ---- taking ---- */

struct gate_private {
    struct gate *gate;
    struct store *store;
    store_txn txn;
};

static int gate_note_private(void *context, const char *name)
{
    const struct gate_private *walk = context;
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
    struct gate_private walk = {gate, store, txn};
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
static int gate_cap(struct gate *gate, const struct worker_tools *tools, uint64_t cap_pages, struct gate_report *report)
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
static int gate_resolve(struct gate *gate, struct store *store)
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

/* ---- keeping ---- */

struct gate_wish {
    struct gate *gate;
    const struct worker_tools *tools;
    const char *pin;
    bool open;
    bool foreign;           /* somebody else's value stood in the target */
    struct journal journal; /* as it will be after the commit */
    struct gate_report *report;
};

static const char *gate_wanted_perms(const struct gate *gate, bool open)
{
    return open ? gate->journal.target_perms : GATE_CLOSED;
}

/* What should stand in the target now. */
static const char *gate_expected_target(const struct gate *gate)
{
    return *gate->journal.pin ? gate->journal.pin : gate->journal.target;
}

static int gate_sync_target(struct store *store, store_txn txn, struct gate_wish *wish)
{
    struct gate *gate = wish->gate;
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];
    bool foreign = false;

    gate_path(gate, "memory/target", path);
    int error = store_read(store, txn, path, text, sizeof(text));
    if (error == -EMSGSIZE)
        strcpy(text, "?"); /* no target, whatever else it is */
    else if (error)
        return error;
    if (strcmp(text, gate_expected_target(gate)) != 0) {
        foreign = true;
        if (journal_is_target(text))
            strcpy(wish->journal.deferred, text);
        else
            log_warning("domain %u: what was written to memory/target is not a number; the pin goes back",
                        gate->journal.domid);
    } else if (!*gate->journal.pin) {
        *wish->journal.deferred = '\0'; /* a wish that was taken back before a pin took its place */
    }
    if (*wish->pin)
        strcpy(wish->journal.pin, wish->pin);
    if (foreign || memcmp(&wish->journal, &gate->journal, sizeof(wish->journal)) != 0)
        error = journal_write(store, txn, &wish->journal);
    else
        error = 0;
    if (!error && *wish->journal.pin && strcmp(text, wish->journal.pin) != 0)
        error = store_write(store, txn, path, wish->journal.pin);
    wish->report->deferred |= foreign;
    return error;
}

/* Setting permissions fires watches even when they stay the same, so compare first. */
static int gate_sync_perms(struct store *store, store_txn txn, const struct gate *gate, const char *node,
                           const char *before, const char *wanted, struct gate_report *report)
{
    char path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];
    int error = store_get_perms(store, txn, gate_path(gate, node, path), perms, sizeof(perms));

    if (error == -EMSGSIZE)
        strcpy(perms, "?");
    else if (error)
        return error;
    if (strcmp(perms, before) != 0)
        report->reopened = true;
    return strcmp(perms, wanted) != 0 ? store_set_perms(store, txn, path, wanted) : 0;
}

static int gate_sync_body(struct store *store, store_txn txn, void *context)
{
    struct gate_wish *wish = context;
    struct gate *gate = wish->gate;

    wish->journal = gate->journal;
    wish->report->reopened = false;
    int error = gate_check(gate, wish->tools, txn);
    if (error)
        return error;
    error = gate_sync_perms(store, txn, gate, "memory", GATE_CLOSED, GATE_CLOSED, wish->report);
    if (error)
        return error;
    error = gate_sync_target(store, txn, wish);
    if (error == -ENOENT)
        return 0; /* removed: nothing to see for the guest, and not ours to make */
    if (error)
        return error;
    return gate_sync_perms(store, txn, gate, "memory/target", gate_wanted_perms(gate, gate->open),
                           gate_wanted_perms(gate, wish->open), wish->report);
}

static int gate_put_back_body(struct store *store, store_txn txn, void *context)
{
    struct gate_wish *wish = context;
    int error = gate_check(wish->gate, wish->tools, txn);

    wish->journal = wish->gate->journal;
    return error ? error : gate_sync_target(store, txn, wish);
}

/*
 * The pin over what a toolstack wrote, alone and before anything else: a migration that begins now reads the target,
 * and makes the new domain no larger than that.
 */
static int gate_put_back(struct gate *gate, const struct worker_tools *tools, struct gate_report *report)
{
    struct gate_wish wish = {.gate = gate, .tools = tools, .pin = "", .report = report};
    int error = store_transact(tools->store, gate_put_back_body, &wish);

    if (!error)
        gate->journal = wish.journal;
    return error == -ENOENT ? 0 : error; /* removed, which the next look sees as well */
}

/* 1 when the store is as it should be already. */
static int gate_is_in_order(struct gate_wish *wish, struct store *store)
{
    struct gate *gate = wish->gate;
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];

    int error = store_read(store, 0, gate_path(gate, "memory/target", path), text, sizeof(text));
    if (error)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    if (strcmp(text, gate_expected_target(gate)) != 0) {
        /* Kept whatever comes next: the domain may be about to go, and its tree with it. */
        wish->foreign = true;
        if (journal_is_target(text) && !gate_is_anothers(gate, wish->tools)) {
            strcpy(gate->journal.deferred, text);
            wish->report->deferred = true;
        }
        return 0;
    }
    if (wish->open != gate->open || (*wish->pin && strcmp(wish->pin, gate->journal.pin) != 0))
        return 0;
    error = store_get_perms(store, 0, path, text, sizeof(text));
    if (error || strcmp(text, gate_wanted_perms(gate, gate->open)) != 0)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    error = store_get_perms(store, 0, gate_path(gate, "memory", path), text, sizeof(text));
    if (error)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    return strcmp(text, GATE_CLOSED) == 0;
}

int gate_sync(struct gate *gate, const struct worker_tools *tools, uint64_t pin_kib, bool open, uint64_t cap_pages,
              struct gate_report *report)
{
    char pin[JOURNAL_TARGET_MAX] = "", path[STORE_PATH_MAX], active[8];
    struct gate_wish wish = {.gate = gate, .tools = tools, .pin = pin, .open = open, .report = report};

    memset(report, 0, sizeof(*report));
    if (pin_kib)
        gate_print_pin(pin_kib, pin);
    int error = gate_resolve(gate, tools->store);
    if (error && error != -ENOENT)
        return error;
    int in_order = gate_is_in_order(&wish, tools->store);
    if (wish.foreign && *gate->journal.pin) {
        error = gate_put_back(gate, tools, report);
        if (error)
            return error;
        in_order = gate_is_in_order(&wish, tools->store);
    }
    if (in_order < 0)
        return in_order;
    uint64_t cap = cap_pages ? cap_pages : gate->journal.cap_kib / gate_page_kib(tools);
    error = gate_cap(gate, tools, cap, report);
    if (error)
        return error;
    if (!in_order) {
        error = store_transact(tools->store, gate_sync_body, &wish);
        if (error)
            return error == -ENOENT ? gate_explain_absent(gate, tools) : error;
        gate->journal = wish.journal;
        gate->open = open;
    }
    report->target_kib = strtoull(gate_expected_target(gate), NULL, 10);
    report->balloon_active =
        store_read(tools->store, 0, gate_path(gate, "control/balloon-active", path), active, sizeof(active)) == 0 &&
        strcmp(active, "1") == 0;
    return 0;
}

/* ---- putting back ---- */

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
    const struct gate_private *walk = context;
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

struct gate_restoring {
    struct gate *gate;
    const struct worker_tools *tools;
    bool keeps_journal; /* for there is more to be done than to put back */
};

/* Parent first, target last: the target's event is what makes the guest look. */
static int gate_restore_body(struct store *store, store_txn txn, void *context)
{
    const struct gate_restoring *restoring = context;
    struct gate *gate = restoring->gate;
    const struct journal *journal = &gate->journal;
    struct gate_private walk = {gate, store, txn};
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

/* -ESRCH when the domain is gone. */
static int gate_put_all_back(struct gate *gate, const struct worker_tools *tools, bool keeps_journal)
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

/* ---- on to the new domain ---- */

struct gate_heir {
    const struct gate *gate;
    const struct worker_tools *tools;
    struct hypervisor_domain domain;
    uint16_t marked; /* the domain whose target was marked; 0 = none */
    struct journal_raise raise;
    bool done;
};

static int gate_find_heir(struct gate_heir *heir)
{
    const struct journal *journal = &heir->gate->journal;
    struct hypervisor_domain *chunk = calloc(GATE_DOMAINS_A_CALL, sizeof(*chunk));
    int count = chunk ? GATE_DOMAINS_A_CALL : -ENOMEM, error = -ESRCH;
    unsigned first = 1;

    while (count == GATE_DOMAINS_A_CALL && first <= UINT16_MAX && error) {
        count = hypervisor_list(heir->tools->hypervisor, (uint16_t)first, GATE_DOMAINS_A_CALL, chunk);
        for (int i = 0; i < count && error; i++) {
            first = chunk[i].domid + 1u;
            if (chunk[i].domid == journal->domid || chunk[i].dying || strcmp(chunk[i].uuid, journal->uuid) != 0)
                continue;
            heir->domain = chunk[i];
            error = 0;
        }
    }
    free(chunk);
    return count < 0 ? count : error;
}

/*
 * Whether the pin stands in the new domain's target, and nobody's newer wish. A domain that was not marked, for want of
 * a daemon or of a connection, has the pin's number as it was read from the old one's configuration.
 */
static bool gate_heir_has_pin(const struct gate_heir *heir, const char *text)
{
    const char *pin = heir->gate->journal.pin;

    if (strcmp(text, pin) == 0)
        return true;
    return heir->marked != heir->domain.domid && journal_is_target(text) &&
           strtoull(text, NULL, 10) == strtoull(pin, NULL, 10);
}

static int gate_forward_body(struct store *store, store_txn txn, void *context)
{
    struct gate_heir *heir = context;
    const struct journal *journal = &heir->gate->journal;
    char path[STORE_PATH_MAX], text[JOURNAL_TARGET_MAX];

    heir->done = false;
    int error = gate_check_domain(heir->tools, txn, heir->domain.domid, journal->uuid);
    if (error)
        return error;
    error = store_read(store, txn, node_path(heir->domain.domid, "memory/target", path), text, sizeof(text));
    if (error)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    if (!gate_heir_has_pin(heir, text))
        return 0;
    heir->done = true;
    return store_write(store, txn, path, journal_wanted_target(journal));
}

struct gate_marking {
    const struct journal *journal;
    const struct worker_tools *tools;
    uint16_t domid;
};

static int gate_mark_body(struct store *store, store_txn txn, void *context)
{
    const struct gate_marking *marking = context;
    const char *pin = marking->journal->pin;
    char path[STORE_PATH_MAX], text[JOURNAL_TARGET_MAX];

    int error = gate_check_domain(marking->tools, txn, marking->domid, marking->journal->uuid);
    if (!error)
        error = store_read(store, txn, node_path(marking->domid, "memory/target", path), text, sizeof(text));
    if (error)
        return error;
    if (!journal_is_target(text) || strtoull(text, NULL, 10) != strtoull(pin, NULL, 10))
        return 0;
    error = journal_write_heir(store, txn, marking->journal->domid, marking->domid);
    return !error && strcmp(text, pin) != 0 ? store_write(store, txn, path, pin) : error;
}

int gate_mark(const struct journal *journal, const struct worker_tools *tools, uint16_t domid)
{
    struct gate_marking marking = {journal, tools, domid};
    uint16_t marked;
    int error = journal_read_heir(tools->store, journal->domid, &marked);

    /* Once: the pin's number, without the zero, is a wish from then on. */
    if (error || marked == domid)
        return error;
    if (!*journal->pin)
        return -ENOENT;
    return store_transact(tools->store, gate_mark_body, &marking);
}

static uint64_t gate_heir_max_kib(const struct gate_heir *heir)
{
    return heir->domain.max_pages * gate_page_kib(heir->tools);
}

static int gate_heir_set_max_kib(const struct gate_heir *heir, uint64_t max_kib)
{
    struct hypervisor_domain domain;
    int error = gate_look_at(heir->tools, heir->domain.domid, heir->gate->journal.uuid, &domain);

    if (error)
        return error;
    return hypervisor_set_max_pages(heir->tools->hypervisor, heir->domain.domid, max_kib / gate_page_kib(heir->tools));
}

/* What an earlier try, of an earlier daemon's perhaps, has set stands there still. */
static bool gate_heir_is_raised(const struct gate_heir *heir)
{
    const struct journal_raise *raise = &heir->raise;
    uint64_t max_kib = gate_heir_max_kib(heir);

    return raise->domid == heir->domain.domid && (max_kib == raise->given_kib || max_kib == raise->past_kib);
}

/*
 * The toolstack's distance between target and max_pages is its own business; it is kept. Noted before it is done, lest
 * it be done twice.
 */
static int gate_raise_heir(struct gate_heir *heir)
{
    const struct journal *journal = &heir->gate->journal;
    uint64_t page_kib = gate_page_kib(heir->tools), now_kib = gate_heir_max_kib(heir);
    uint64_t wanted_kib = strtoull(journal_wanted_target(journal), NULL, 10);
    bool raised = gate_heir_is_raised(heir);
    struct journal_raise raise = {.domid = heir->domain.domid,
                                  .max_kib = raised ? heir->raise.max_kib : now_kib,
                                  .past_kib = raised ? now_kib : 0};

    raise.given_kib = (raise.max_kib + wanted_kib - strtoull(journal->pin, NULL, 10)) / page_kib * page_kib;
    heir->raise = raise;
    if (raise.given_kib == now_kib)
        return 0;
    int error = journal_write_raise(heir->tools->store, journal->domid, &raise);

    return error ? error : gate_heir_set_max_kib(heir, raise.given_kib);
}

/* The target is somebody's newer wish, and so is max_pages, unless it is still what was set here. */
static int gate_lower_heir(struct gate_heir *heir)
{
    int error = gate_look_at(heir->tools, heir->domain.domid, heir->gate->journal.uuid, &heir->domain);

    if (error || !gate_heir_is_raised(heir))
        return error == -ESRCH ? 0 : error;
    return gate_heir_set_max_kib(heir, heir->raise.max_kib);
}

static int gate_pass_on(struct gate_heir *heir)
{
    const char *wanted = journal_wanted_target(&heir->gate->journal);
    char path[STORE_PATH_MAX], text[JOURNAL_TARGET_MAX];
    int error =
        store_read(heir->tools->store, 0, node_path(heir->domain.domid, "memory/target", path), text, sizeof(text));

    if (error == -ENOENT && heir->gate->left)
        return -EINPROGRESS;
    if (error == -ENOENT || error == -EMSGSIZE)
        *text = '\0';
    else if (error)
        return error;
    heir->done = gate_heir_is_raised(heir) && strcmp(text, wanted) == 0; /* and nobody has heard of it */
    error = 0;
    if (gate_heir_has_pin(heir, text)) {
        error = gate_raise_heir(heir);
        if (!error)
            error = store_transact(heir->tools->store, gate_forward_body, heir);
    }
    if (!error && !heir->done)
        error = gate_lower_heir(heir);
    heir->done &= !error;
    return error;
}

static int gate_wish_body(struct store *store, store_txn txn, void *context)
{
    const struct gate_restoring *restoring = context;
    struct journal *journal = &restoring->gate->journal;
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];

    int error = gate_check(restoring->gate, restoring->tools, txn);
    if (!error)
        error = store_read(store, txn, gate_path(restoring->gate, "memory/target", path), text, sizeof(text));
    if (error)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    if (!journal_is_target(text) || strcmp(text, journal_wanted_target(journal)) == 0)
        return 0;
    strcpy(journal->deferred, text);
    return journal_write(store, txn, journal);
}

/* All was put back; what the toolstack has asked for since is the guest's as well, wherever it is going to run. */
static int gate_note_wish(struct gate *gate, const struct worker_tools *tools)
{
    struct gate_restoring noting = {.gate = gate, .tools = tools};

    return store_transact(tools->store, gate_wish_body, &noting);
}

/*
 * The old domain first, for the latest wish may stand in its target; of one that is gone there is only the journal.
 * That stays until the new domain has what is its: whoever is killed, or loses the connection, begins anew.
 */
static int gate_finish(struct gate *gate, struct gate_heir *heir, bool passing)
{
    struct store *store = heir->tools->store;
    uint16_t domid = gate->journal.domid;
    int error = passing ? gate_note_wish(gate, heir->tools) : gate_put_all_back(gate, heir->tools, true);

    if (!error || error == -ESRCH)
        error = journal_read_heir(store, domid, &heir->marked);
    if (!error)
        error = journal_read_raise(store, domid, &heir->raise);
    if (!error)
        error = gate_pass_on(heir);
    if (!error)
        return journal_drop(store, 0, domid);
    if (error != -EINPROGRESS || passing)
        return error;
    int failure = journal_write_passing(store, domid);
    return failure ? failure : error;
}

int gate_hand_over(struct gate *gate, const struct worker_tools *tools, uint16_t *domid)
{
    struct gate_heir heir = {.gate = gate, .tools = tools};
    bool passing = false;
    int error = gate_resolve(gate, tools->store);

    *domid = 0;
    if (error)
        return error == -ENOENT ? 0 : error;
    if (gate->left)
        error = journal_read_passing(tools->store, 0, gate->journal.domid, &passing);
    if (!error)
        error = *gate->journal.pin ? gate_find_heir(&heir) : -ESRCH;
    if (error == -ESRCH)
        return passing ? journal_drop(tools->store, 0, gate->journal.domid) : gate_restore(gate, tools);
    if (error)
        return error;
    error = gate_finish(gate, &heir, passing);
    if (heir.done)
        *domid = heir.domain.domid;
    return error;
}
