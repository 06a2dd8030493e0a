/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A survey of a PV guest's p2m: where it is, and one number for which frames make up its pages.
 *
 * The number is XXH3's 64-bit hash over all frames of tables and leaf pages, in order, and over where the p2m is. Its
 * seed is random and the process's own: a guest cannot look for two layouts that give the same, and numbers of two
 * daemons cannot be compared.
 *
 * A survey stands when the guest's own counter was even and the same before and after, and the root as well; what is
 * not present or cannot be mapped is reported as a problem that may pass, and is nothing to rely on.
 *
 * A survey belongs to one thread at a time. The first survey_new chooses the seed, before a second thread is there.
 */
#ifndef P2MGUARD_SURVEY_H
#define P2MGUARD_SURVEY_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/hypervisor.h"
#include "daemon/p2m.h"
#include "daemon/sharedinfo.h"

/* 64 full tables: with mapping them, well below a millisecond. */
#define SURVEY_STEP_ENTRIES (64 * 512)

struct survey_result {
    struct sharedinfo info; /* as it was before and after */
    struct p2m p2m;
    bool stands;
    uint64_t digest; /* when it stands */
    uint64_t pages;  /* tables and leaf pages read; one that is met several times in a row counts once */
    enum p2m_problem problem;
    unsigned problem_level; /* of the table, and the leaf page looked for */
    uint64_t problem_leaf;
};

struct survey;

int survey_new(struct survey **survey);
void survey_free(struct survey *survey);

/*
 * `notes`: only the tables near the root, and what is loaded of them is noted, to be of use as long as the source keeps
 * its pages. NULL: all of the p2m. The mapping must outlive the survey's steps, and so must the notes.
 */
void survey_begin(struct survey *survey, const struct hypervisor_p2m *p2m, struct p2m_notes *notes);

/* As p2m_walk_step, but a problem is a result: 1 = more to do, 0 = done, or the source's negative errno. */
int survey_step(struct survey *survey, const struct p2m_source *source, unsigned entries);

/* Of the survey that is done; valid until the next survey_begin. */
const struct survey_result *survey_result(const struct survey *survey);

/*
 * Pages of one guest that stay mapped, so that looking again costs memory loads alone: the small guest's whole p2m, and
 * of a large one the tables near the root. A page is found again by its frame; a frame stays what it is as long as it
 * is mapped.
 */
#define SURVEY_KEPT_PAGES 16

struct survey_kept {
    struct hypervisor *hypervisor;
    uint16_t domid;
    unsigned count;
    uint64_t frames[SURVEY_KEPT_PAGES];
    const void *pages[SURVEY_KEPT_PAGES];
};

/* Maps what it does not have yet; -E2BIG when that would be more than SURVEY_KEPT_PAGES. */
struct p2m_source survey_kept_source(struct survey_kept *kept);

void survey_kept_drop(struct survey_kept *kept);

/* Maps for one step each time. `context` is read while the source is in use. */
struct survey_pages {
    struct hypervisor *hypervisor;
    uint16_t domid;
};
struct p2m_source survey_pages_source(struct survey_pages *pages);

#endif
