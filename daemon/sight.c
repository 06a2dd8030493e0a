/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/sight.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/record.h"

/* A guest that changes all the time is told of this often at most, of each kind; the newest figure is never lost. */
#define SIGHT_TELL_MS 100

uint64_t sight_page_kib(const struct sight *sight)
{
    return hypervisor_page_kib(sight->hypervisor);
}

uint64_t sight_tot_kib(const struct sight *sight)
{
    return sight->seen.tot_pages * sight_page_kib(sight);
}

/* ---- what is mapped ---- */

void sight_init(struct sight *sight, struct hypervisor *hypervisor, struct survey *survey, sight_tell *tell,
                const struct hypervisor_domain *domain)
{
    *sight = (struct sight){.hypervisor = hypervisor, .survey = survey, .tell = tell, .seen = *domain};
    sight->seen_ms = clock_now_ms();
}

int sight_map(struct sight *sight)
{
    int error = hypervisor_map_p2m(sight->hypervisor, &sight->seen, &sight->p2m);

    sight->kept.hypervisor = sight->hypervisor;
    sight->kept.domid = sight->seen.domid;
    sight->p2m_missing = error && error != -ENODATA;
    sight->page = sight->p2m ? hypervisor_shared_info_page(sight->p2m) : NULL;
    return sight->p2m_missing ? error : 0;
}

static void sight_drop_kept(struct sight *sight)
{
    survey_kept_drop(&sight->kept);
    sight->top_notes.count = 0; /* they say where in those pages */
}

/* What is seen next is compared with all that is known, whatever it was like before. */
static void sight_unsettle(struct sight *sight)
{
    sight->settled.width = 0;
    sight->sizes_settled = false;
}

void sight_unmap(struct sight *sight)
{
    sight_drop_kept(sight);
    hypervisor_unmap_p2m(sight->p2m);
    sight->p2m = NULL;
    sight->page = NULL;
    sight_unsettle(sight);
}

/* ---- figures ---- */

void sight_read_sizes(const struct sight *sight, struct sight_figures *figures)
{
    uint64_t page_kib = sight_page_kib(sight);

    figures->tot_kib = sight->seen.tot_pages * page_kib;
    figures->shared_kib = sight->seen.shared_pages * page_kib;
    figures->paged_kib = sight->seen.paged_pages * page_kib;
}

/* Costs two hypercalls for HVM and PVH, loads for PV. */
static void sight_read_layout(struct sight *sight, struct sight_figures *figures)
{
    figures->has_info = sight->p2m != NULL;
    if (sight->p2m)
        hypervisor_read_shared_info(sight->p2m, &figures->info);
    figures->has_physmap =
        sight->seen.hvm && hypervisor_get_physmap(sight->hypervisor, sight->seen.domid, &figures->physmap) == 0;
}

void sight_begin_baseline(struct sight *sight)
{
    sight->baseline = (struct sight_figures){.time_ms = clock_wall_ms()};
    sight_read_sizes(sight, &sight->baseline);
    sight_read_layout(sight, &sight->baseline);
    sight_drop_kept(sight);
    sight_unsettle(sight);
    sight->too_large = false;
}

void sight_finish_baseline(struct sight *sight, uint64_t target_kib)
{
    struct sight_figures *baseline = &sight->baseline;

    baseline->target_kib = target_kib;
    baseline->time_ms = clock_wall_ms();
    memset(sight->changed, 0, sizeof(sight->changed));
    memset(sight->told_ms, 0, sizeof(sight->told_ms));
    sight->structure_unreadable = false;
    sight->told = *baseline;
    sight->longest_gap_ms = 0;
    sight->seen_ms = sight->glanced_ms = clock_now_ms();
    sight->generation = baseline->info.p2m_generation;
    sight_unsettle(sight);
}

/* ---- surveys ---- */

/* On the loop, with pages that stay mapped; what would take more than a step is too much for it. */
static int sight_survey_here(struct sight *sight, bool glance, const struct survey_result **result)
{
    struct p2m_source source = survey_kept_source(&sight->kept);
    struct survey *survey = sight->survey;

    survey_begin(survey, sight->p2m, glance ? &sight->top_notes : NULL);
    int more = survey_step(survey, &source, SURVEY_STEP_ENTRIES);
    *result = survey_result(survey);
    return more > 0 ? -E2BIG : more;
}

void sight_take_survey(struct sight *sight, int error, const struct survey_result *result)
{
    sight->survey_error = error;
    if (!error)
        sight->surveyed = *result;
}

int sight_survey(struct sight *sight)
{
    const struct survey_result *result;

    if (!sight->p2m)
        return 0;
    int error = sight->too_large ? -E2BIG : sight_survey_here(sight, false, &result);
    if (error == -E2BIG) {
        /* The tables near the root stay mapped, in the place of whatever the attempt has brought. */
        if (!sight->too_large)
            sight_drop_kept(sight);
        sight->too_large = true;
        return error;
    }
    sight_take_survey(sight, error, result);
    return 0;
}

/* The tables near the root; false when they cannot be read just now. */
static bool sight_glance_structure(struct sight *sight, uint64_t *top)
{
    const struct survey_result *result;

    if (sight_survey_here(sight, true, &result) || !result->stands) {
        sight->top_notes.count = 0; /* nobody compared what they say */
        return false;
    }
    *top = result->digest;
    return true;
}

bool sight_survey_stands(const struct sight *sight)
{
    return sight->p2m ? !sight->survey_error && sight->surveyed.stands : !sight->p2m_missing;
}

bool sight_take_baseline_survey(struct sight *sight)
{
    struct sight_figures *baseline = &sight->baseline;

    if (!sight->p2m)
        return sight_survey_stands(sight);
    baseline->has_structure = sight_survey_stands(sight) && sight_glance_structure(sight, &baseline->top);
    if (baseline->has_structure) {
        baseline->info = sight->surveyed.info;
        sight_unsettle(sight);
        baseline->structure = sight->told.structure = sight->surveyed.digest;
    }
    return baseline->has_structure;
}

bool sight_survey_may_pass(const struct sight *sight)
{
    return sight->p2m &&
           (sight->survey_error || sight->surveyed.stands || p2m_problem_may_pass(sight->surveyed.problem));
}

/* ---- changes ---- */

static bool sight_may_tell(struct sight *sight, enum sight_change change, int64_t now_ms)
{
    if (sight->silent || (sight->told_ms[change] && now_ms - sight->told_ms[change] < SIGHT_TELL_MS))
        return false;
    sight->told_ms[change] = now_ms;
    return true;
}

static void sight_compare_size(struct sight *sight, int64_t now_ms)
{
    uint64_t tot_kib = sight_tot_kib(sight);

    if (tot_kib != sight->baseline.tot_kib) {
        sight->changed[CHANGE_TOT_PAGES] = true;
        sight->changes++;
    }
    if (tot_kib == sight->told.tot_kib || !sight_may_tell(sight, CHANGE_TOT_PAGES, now_ms))
        return;
    sight->tell(sight, P2MG_REASON_TOT_PAGES_CHANGED, "tot_kib", record_number(sight->told.tot_kib),
                record_number(tot_kib));
    sight->told.tot_kib = tot_kib;
}

/* How far the counter has gone since it was read last, in the width that it has. */
static uint64_t sight_steps(const struct sharedinfo *info, uint64_t before)
{
    uint64_t steps = info->p2m_generation - before;

    return info->width == 4 ? (uint32_t)steps : steps;
}

static void sight_compare_generation(struct sight *sight, const struct sharedinfo *info, int64_t now_ms)
{
    uint64_t generation = info->p2m_generation;

    sight->generation_steps += sight_steps(info, sight->generation);
    sight->generation = generation;
    if (generation != sight->baseline.info.p2m_generation || sharedinfo_is_updating(info))
        sight->changed[CHANGE_GENERATION] = true;
    if (generation == sight->told.info.p2m_generation || !sight_may_tell(sight, CHANGE_GENERATION, now_ms))
        return;
    sight->tell(sight, P2MG_REASON_GENERATION_CHANGED, "generation", record_number(sight->told.info.p2m_generation),
                record_number(generation));
    sight->told.info.p2m_generation = generation;
}

static bool sight_tell_structure(struct sight *sight, const char *key, uint64_t before, uint64_t now, int64_t now_ms)
{
    bool told = sight_may_tell(sight, CHANGE_STRUCTURE, now_ms);

    if (told)
        sight->tell(sight, P2MG_REASON_STRUCTURE_CHANGED, key, record_digest(before), record_digest(now));
    return told;
}

/* Whatever leads to the p2m: root, address, size. */
static void sight_compare_place(struct sight *sight, const struct sharedinfo *info, int64_t now_ms)
{
    if (sharedinfo_same_place(info, &sight->baseline.info) || sight->changed[CHANGE_STRUCTURE])
        return;
    sight->changed[CHANGE_STRUCTURE] = true;
    if (sight->silent)
        return;
    sight->told_ms[CHANGE_STRUCTURE] = now_ms; /* told whatever was told before: there is no later figure to tell */
    sight->tell(sight, P2MG_REASON_STRUCTURE_CHANGED, "p2m", record_place(&sight->baseline.info), record_place(info));
}

/*
 * The entries that the last walk has loaded are looked at first. One that differs need not be a change: the processor
 * marks entries that it has used. Another root shows in the shared info page (sight_compare_place).
 */
static void sight_compare_top(struct sight *sight, int64_t now_ms)
{
    uint64_t top;

    if (!sight->p2m || !sight->baseline.has_structure || sight->changed[CHANGE_STRUCTURE] ||
        p2m_notes_stand(&sight->top_notes) || !sight_glance_structure(sight, &top) || top == sight->baseline.top)
        return;
    sight->changed[CHANGE_STRUCTURE] = true;
    sight_tell_structure(sight, "top", sight->baseline.top, top, now_ms);
}

void sight_compare_survey(struct sight *sight)
{
    const struct sight_figures *baseline = &sight->baseline;

    if (!sight->p2m)
        return;
    sight->structure_unreadable = !sight_survey_stands(sight);
    if (sight->structure_unreadable || !baseline->has_structure || sight->surveyed.digest == baseline->structure)
        return;
    sight->changed[CHANGE_STRUCTURE] = true;
    if (sight->surveyed.digest == sight->told.structure)
        return;
    if (sight_tell_structure(sight, "structure", sight->told.structure, sight->surveyed.digest, clock_now_ms()))
        sight->told.structure = sight->surveyed.digest;
}

static void sight_tell_physmap(struct sight *sight, const struct sight_figures *now, int64_t now_ms)
{
    sight->changed[CHANGE_PHYSMAP] = true;
    if (!sight_may_tell(sight, CHANGE_PHYSMAP, now_ms))
        return;
    uint64_t page_kib = sight_page_kib(sight);
    sight->tell(sight, P2MG_REASON_PHYSMAP_CHANGED, "physmap", record_physmap(&sight->told, page_kib),
                record_physmap(now, page_kib));
    sight->told = *now;
}

/*
 * What the poll's one hypercall tells of it, or with `whole` all that dom0 can learn. What is populated on demand is
 * shown and not compared: a migration engine populates it, by nothing more than reading (measured on Xen 4.17).
 */
static void sight_compare_physmap(struct sight *sight, const struct sight_figures *now, bool whole, int64_t now_ms)
{
    const struct sight_figures *before = &sight->baseline;
    struct sight_figures merged = *now;

    if (!sight->seen.hvm)
        return;
    if (!whole || !now->has_physmap) {
        merged.has_physmap = before->has_physmap;
        merged.physmap = before->physmap;
    }
    merged.tot_kib = sight->told.tot_kib;
    if (merged.shared_kib != before->shared_kib || merged.paged_kib != before->paged_kib ||
        merged.physmap.max_gfn != before->physmap.max_gfn)
        sight_tell_physmap(sight, &merged, now_ms);
}

bool sight_compare_info(struct sight *sight, const struct sharedinfo *info, int64_t now_ms)
{
    uint64_t before = sight->generation;

    if (info->p2m_generation == sight->told.info.p2m_generation && info->p2m_generation == before &&
        !(info->p2m_generation & 1) && sharedinfo_same_place(info, &sight->baseline.info)) {
        sight->settled = *info;
        return false;
    }
    sight_compare_generation(sight, info, now_ms);
    sight_compare_place(sight, info, now_ms);
    return sight->generation != before;
}

bool sight_compare_counter(struct sight *sight, int64_t now_ms)
{
    struct sharedinfo info;

    if (sharedinfo_stands(sight->page, &sight->settled))
        return false;
    hypervisor_read_shared_info(sight->p2m, &info);
    return sight_compare_info(sight, &info, now_ms);
}

static void sight_compare_figures(struct sight *sight, int64_t now_ms)
{
    const struct sight_figures *baseline = &sight->baseline, *told = &sight->told;
    struct sight_figures now = {.time_ms = clock_wall_ms()};

    sight_read_sizes(sight, &now);
    sight_compare_size(sight, now_ms);
    sight_compare_physmap(sight, &now, false, now_ms);
    sight->sizes_settled = now.tot_kib == baseline->tot_kib && now.tot_kib == told->tot_kib &&
                           now.shared_kib == baseline->shared_kib && now.paged_kib == baseline->paged_kib;
}

void sight_compare(struct sight *sight, int64_t now_ms)
{
    if (!sight->sizes_settled)
        sight_compare_figures(sight, now_ms);
    sight_compare_top(sight, now_ms);
}

/* ---- looks ---- */

void sight_fetch_page(const struct sight *sight)
{
    if (sight->page)
        sharedinfo_fetch(sight->page, sight->settled.width);
}

void sight_fetch_tables(const struct sight *sight)
{
    for (unsigned i = 0; i < sight->top_notes.count && i < P2M_NOTES_MOST; i++)
        __builtin_prefetch(sight->top_notes.at[i]);
}

static void sight_count_gap(struct sight *sight, int64_t since_ms, int64_t now_ms)
{
    if (now_ms - since_ms > sight->longest_gap_ms)
        sight->longest_gap_ms = now_ms - since_ms;
}

void sight_count_glance(struct sight *sight, int64_t now_ms)
{
    sight_count_gap(sight, sight->glanced_ms, now_ms);
    sight->glanced_ms = now_ms;
}

/*
 * A guest that is suspended runs nowhere and changes nothing. When it loses pages then, it is its toolstack that takes
 * the domain apart ("xl save" does); the hypervisor calls it dying only later.
 */
static bool sight_is_torn_down(const struct sight *sight, const struct hypervisor_domain *domain)
{
    return domain->suspended && sight->seen.suspended &&
           (sight->torn_down || domain->tot_pages < sight->seen.tot_pages);
}

/*
 * Nothing but the time that it has run differs from the last observation. For every guest in every poll: the compiler
 * makes a handful of instructions of it.
 */
static bool sight_is_same(const struct sight *sight, const struct hypervisor_domain *domain)
{
    const char *before = (const char *)&sight->seen, *now = (const char *)domain;
    uint64_t differences = 0, one, other;

    _Static_assert(offsetof(struct hypervisor_domain, cpu_time_ns) % sizeof(one) == 0, "compared in words");
    for (size_t at = 0; at < offsetof(struct hypervisor_domain, cpu_time_ns); at += sizeof(one)) {
        memcpy(&one, before + at, sizeof(one));
        memcpy(&other, now + at, sizeof(other));
        differences |= one ^ other;
    }
    return differences == 0;
}

void sight_see(struct sight *sight, const struct hypervisor_domain *domain, int64_t now_ms)
{
    sight_count_gap(sight, sight->seen_ms, now_ms);
    sight->sizes_settled = sight->sizes_settled && sight_is_same(sight, domain);
    sight->torn_down = sight_is_torn_down(sight, domain);
    sight->seen = *domain;
    sight->seen_ms = now_ms;
}

void sight_look_closely(struct sight *sight, struct sight_figures *now, bool surveyed)
{
    sight_read_layout(sight, now);
    sight_compare_physmap(sight, now, true, clock_now_ms());
    if (!surveyed && sight->p2m && !sight->too_large && sight_survey(sight) == 0) {
        sight_compare_survey(sight);
        surveyed = true;
    }
    now->has_structure = sight->p2m && surveyed && sight_survey_stands(sight);
    now->structure = sight->surveyed.digest;
}

void sight_fill_facts(const struct sight *sight, const struct sight_figures *now, struct verdict_facts *facts)
{
    bool blind = sight->p2m_missing || (sight->p2m && !sight->baseline.has_structure) ||
                 (now && sight->baseline.has_physmap && !now->has_physmap);

    facts->tot_pages_changed = sight->changed[CHANGE_TOT_PAGES];
    facts->generation_changed = sight->changed[CHANGE_GENERATION];
    facts->structure_changed = sight->changed[CHANGE_STRUCTURE];
    facts->physmap_changed = sight->changed[CHANGE_PHYSMAP];
    facts->agent_thawed = sight->changed[CHANGE_AGENT];
    facts->structure_unreadable = blind || sight->structure_unreadable;
    facts->longest_gap_ms = sight->longest_gap_ms;
}
