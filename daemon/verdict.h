/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From what was observed to proceed, retry or abort.
 *
 * Pure: one table, first match counts. Whatever is not known to be well is a retry.
 */
#ifndef P2MGUARD_VERDICT_H
#define P2MGUARD_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/names.h"

struct verdict_facts {
    enum p2mg_state state;
    enum p2mg_reason ended_by; /* why it failed, thaws or is gone; for those states */
    bool tot_pages_changed;    /* since the baseline, at any observation */
    bool generation_changed;   /* since the baseline, or an update is under way */
    bool gate_opened;          /* since the baseline */
    bool store_unreachable;    /* the gate could not be looked at */
    bool unwatched;            /* the connection to xenstored was lost since the baseline */
    int64_t longest_gap_ms;    /* between two observations since the baseline */
    int64_t max_gap_ms;
    int64_t attempt, attempts;
};

struct verdict {
    enum p2mg_verdict verdict;
    enum p2mg_reason reason;
};

struct verdict verdict_judge(const struct verdict_facts *facts);

#endif
