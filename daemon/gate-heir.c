/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* On to the guest's new domain on this same host: its mark, its target, its max_pages. See gate.h. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate-private.h"
#include "daemon/node.h"

#define GATE_DOMAINS_A_CALL 256

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

/* 1: since the old domain was looked at, and within the transaction, a toolstack has asked it for another target. */
static int gate_is_overtaken(struct store *store, store_txn txn, const struct gate_heir *heir)
{
    const struct journal *journal = &heir->gate->journal;
    char path[STORE_PATH_MAX], text[JOURNAL_TARGET_MAX];
    int error = gate_check(heir->gate, heir->tools, txn);

    if (!error)
        error = store_read(store, txn, gate_path(heir->gate, "memory/target", path), text, sizeof(text));
    if (error)
        return error == -ESRCH || error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    return journal_is_target(text) && strcmp(text, journal->pin) != 0 &&
           strcmp(text, journal_wanted_target(journal)) != 0;
}

static int gate_forward_body(struct store *store, store_txn txn, void *context)
{
    struct gate_heir *heir = context;
    const struct journal *journal = &heir->gate->journal;
    char path[STORE_PATH_MAX], text[JOURNAL_TARGET_MAX];

    heir->done = false;
    int overtaken = gate_is_overtaken(store, txn, heir);
    if (overtaken)
        return overtaken < 0 ? overtaken : -EINPROGRESS;
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
