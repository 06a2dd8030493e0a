/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what was observed to proceed, retry or abort.
 *
 * Pure: one table, first match counts. Whatever is not known to be well is a retry.
 */
#ifndef P2MGUARD_VERDICT_H
#define P2MGUARD_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/names.h"

struct verdict_facts {
    enum p2mg_state state;
    enum p2mg_reason ended_by; /* why it failed, thaws or is gone; for those states */
    bool tot_pages_changed;    /* since the baseline, at any observation; so are the next eight */
    bool generation_changed;   /* or an update is under way */
    bool structure_changed;
    bool physmap_changed;
    bool target_changed; /* of a guest that is not held: a new target reached it */
    bool above_target;   /* the same: it had more pages than its target allowed, at the baseline */
    bool agent_thawed;   /* where it is required */
    bool gate_opened;
    bool unwatched;            /* the connection to xenstored was lost */
    bool store_unreachable;    /* the gate could not be looked at */
    bool structure_unreadable; /* the p2m could not be looked at, at the baseline or now */
    int64_t longest_gap_ms;    /* between two observations since the baseline */
    int64_t max_gap_ms;
    int64_t attempt, attempts;
};

struct verdict {
    enum p2mg_verdict verdict;
    enum p2mg_reason reason;
};

struct verdict verdict_judge(const struct verdict_facts *facts);

/* All that speaks against proceed, in the table's order: the index-th reason, P2MG_REASON_NONE after the last. */
enum p2mg_reason verdict_against(const struct verdict_facts *facts, size_t index);

#endif
