/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is seen of one guest: its figures, surveys of its p2m, and how both differ from a baseline.
 *
 * Shared by sessions, which hold their guest, and observations, which do not touch theirs. Owns the mappings of the
 * guest's pages; knows nothing of gates, jobs or steps: when to look, and whether a difference counts, is its owner's
 * to say. Loop thread only.
 */
#ifndef P2MGUARD_SIGHT_H
#define P2MGUARD_SIGHT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/survey.h"
#include "daemon/verdict.h"

/* What a guest is like at the baseline, or now. */
struct sight_figures {
    uint64_t tot_kib;
    uint64_t target_kib;
    bool has_info; /* PV: where the p2m is, and its generation */
    struct sharedinfo info;
    bool has_structure; /* PV: the p2m's pages could be read */
    uint64_t structure; /* one number for all of them ... */
    uint64_t top;       /* ... and for those near the root */
    bool has_physmap;   /* HVM and PVH */
    struct hypervisor_physmap physmap;
    uint64_t shared_kib, paged_kib; /* of tot_kib */
    int64_t time_ms;                /* UNIX time */
};

/* What can change while a guest is compared, in the order of the reasons that it makes. */
enum sight_change {
    CHANGE_TOT_PAGES,
    CHANGE_GENERATION,
    CHANGE_STRUCTURE,
    CHANGE_PHYSMAP,
    CHANGE_AGENT, /* the owner's: where an agent is required, it was not frozen all the time */
    CHANGE_COUNT
};

struct sight;

/* Tells subscribers of a change: what it was and is, as one member of this key. Takes both references. */
typedef void sight_tell(struct sight *sight, enum p2mg_reason reason, const char *key, json_t *before, json_t *now);

struct sight {
    struct hypervisor *hypervisor; /* the loop's own handle */
    struct survey *survey;         /* for surveys that are made on the loop, one after the other */
    sight_tell *tell;
    bool silent; /* nothing is told yet; what has changed by then is told later */

    /* What each poll of a guest that stands still reads is side by side: with a thousand of them it is not in the
     * processor's nearest cache. */
    bool p2m_missing;           /* a PV guest whose shared info page cannot be mapped */
    struct hypervisor_p2m *p2m; /* NULL when the guest has none, and while it is not mapped */
    const volatile void *page;  /* what that maps */
    struct sharedinfo settled;  /* the page when all that it said was as told and as at the baseline; width 0: never */
    int64_t glanced_ms;         /* when the generation was last read */
    int64_t longest_gap_ms;     /* since the baseline */
    int64_t seen_ms;            /* when the last observation was ... */
    struct hypervisor_domain seen; /* ... and what it was */
    bool sizes_settled;            /* ... and that was as told, and as at the baseline */
    bool torn_down;                /* suspended, and losing its pages: the toolstack has done with the domain */
    bool changed[CHANGE_COUNT];    /* since the baseline */
    bool structure_unreadable;     /* at the last look */
    uint64_t generation;           /* last read */
    struct p2m_notes top_notes;    /* of the last look at the tables near the root; in pages that are kept */
    struct sight_figures baseline;
    struct sight_figures told; /* what subscribers were told last ... */

    int64_t told_ms[CHANGE_COUNT]; /* ... and when: a guest may change all the time */
    uint64_t changes;              /* observations of tot_pages that differed, since the first baseline */
    uint64_t generation_steps;     /* how far it has counted while compared */
    struct survey_kept kept;       /* pages of its p2m that stay mapped */
    struct survey_result surveyed; /* the last survey of all of it ... */
    int survey_error;              /* ... that there was, unless this is set */
    bool too_large;                /* for the loop to survey */
};

/* The three pointers are borrowed. `domain` is the first observation. */
void sight_init(struct sight *sight, struct hypervisor *hypervisor, struct survey *survey, sight_tell *tell,
                const struct hypervisor_domain *domain);

uint64_t sight_page_kib(const struct sight *sight);
uint64_t sight_tot_kib(const struct sight *sight);

/* Maps what can be mapped of the guest; a failure is returned, and speaks against every proceed. */
int sight_map(struct sight *sight);
void sight_unmap(struct sight *sight);

/* An observation: how long nobody looked, and whether the domain is being taken apart. Compares nothing. */
void sight_see(struct sight *sight, const struct hypervisor_domain *domain, int64_t now_ms);

/* ---- the baseline ---- */

/* It begins: from now on the guest must not change. Everything but the structure and the target. */
void sight_begin_baseline(struct sight *sight);

/* The guest is compared with the baseline from now on. */
void sight_finish_baseline(struct sight *sight, uint64_t target_kib);

/* The last survey can be relied on, and so can the tables near the root: both become part of the baseline. */
bool sight_take_baseline_survey(struct sight *sight);

/* ---- surveys ---- */

/* Surveys the p2m. 0: the result is in `surveyed`, or there is nothing to survey; -E2BIG: this takes the surveyor. */
int sight_survey(struct sight *sight);

/* What the surveyor found. */
void sight_take_survey(struct sight *sight, int error, const struct survey_result *result);

/* What the survey found can be relied on; a guest without a p2m of its own needs none. */
bool sight_survey_stands(const struct sight *sight);

/* It could not be read just now, and looking again may help. */
bool sight_survey_may_pass(const struct sight *sight);

/* ---- comparing with the baseline ---- */

/* What the poll's one hypercall has told, and the tables near the root. */
void sight_compare(struct sight *sight, int64_t now_ms);

/*
 * The guest's own counter and place of its p2m: loads from its page. Only with a p2m. True when the counter is not what
 * it was when it was read last.
 */
bool sight_compare_counter(struct sight *sight, int64_t now_ms);

/* The same from a page that was read already. */
bool sight_compare_info(struct sight *sight, const struct sharedinfo *info, int64_t now_ms);

void sight_compare_survey(struct sight *sight);

/*
 * Have the processor fetch the guest's pages that sight_compare_counter, and sight_compare, are about to load from: of
 * a thousand guests they are in no cache.
 */
void sight_fetch_page(const struct sight *sight);
void sight_fetch_tables(const struct sight *sight);

/* The time since the counter was read last was a gap, and ends now. Only with a p2m. */
void sight_count_glance(struct sight *sight, int64_t now_ms);

/* Sizes alone, as seen last. */
void sight_read_sizes(const struct sight *sight, struct sight_figures *figures);

/*
 * All that can be looked at on the loop, compared: two hypercalls for HVM and PVH. `surveyed`: the last survey of all
 * of the p2m is of now, and has been compared.
 */
void sight_look_closely(struct sight *sight, struct sight_figures *now, bool surveyed);

/* Those facts that rest on what was seen. `now` comes from sight_look_closely; NULL: there was no such look. */
void sight_fill_facts(const struct sight *sight, const struct sight_figures *now, struct verdict_facts *facts);

#endif
