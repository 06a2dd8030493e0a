/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of the gate share: gate.c takes it, gate-keep.c keeps it, gate-restore.c puts everything back, and
 * gate-heir.c passes a wish on to the guest's new domain. Worker thread only, as all of gate.h.
 */
#ifndef P2MGUARD_GATE_PRIVATE_H
#define P2MGUARD_GATE_PRIVATE_H

#include "daemon/gate.h"

#define GATE_CLOSED "n0"

/* A walk over the children of ~/memory. */
struct gate_walk {
    struct gate *gate;
    struct store *store;
    store_txn txn;
};

struct gate_restoring {
    struct gate *gate;
    const struct worker_tools *tools;
    bool keeps_journal; /* for there is more to be done than to put back */
};

/* A node below ~ of the gate's domain. */
const char *gate_path(const struct gate *gate, const char *node, char path[STORE_PATH_MAX]);

/* -ESRCH: it is gone, or another one has its number. */
int gate_look_at(const struct worker_tools *tools, uint16_t domid, const char *uuid, struct hypervisor_domain *domain);
int gate_look(const struct gate *gate, const struct worker_tools *tools, struct hypervisor_domain *domain);

/* What was read below its path before this was asked may have been another guest's. */
bool gate_is_anothers(const struct gate *gate, const struct worker_tools *tools);

/* gate_check of any domain. */
int gate_check_domain(const struct worker_tools *tools, store_txn txn, uint16_t domid, const char *uuid);

/* A node is absent: because the domain went away under our hands (-ESRCH), or because it never had one (-ENODATA). */
int gate_explain_absent(const struct gate *gate, const struct worker_tools *tools);

uint64_t gate_page_kib(const struct worker_tools *tools);
void gate_print_pin(uint64_t pin_kib, char pin[JOURNAL_TARGET_MAX]);

/* What should stand in the target now. */
const char *gate_expected_target(const struct gate *gate);

/* Sets max_pages, with the journal saying so before; what a toolstack has set meanwhile is what will be restored. */
int gate_cap(struct gate *gate, const struct worker_tools *tools, uint64_t cap_pages, struct gate_report *report);

/* After a commit that was not answered. -ENOENT: there is nothing to put back, or all of it was put back. */
int gate_resolve(struct gate *gate, struct store *store);

/* -ESRCH when the domain is gone. */
int gate_put_all_back(struct gate *gate, const struct worker_tools *tools, bool keeps_journal);

#endif
