/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keeping a gate as it should be: the pin in the target, the permissions, the cap. See gate.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate-private.h"
#include "daemon/log.h"

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
