/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/session-observe.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/record.h"

/* A guest that changes all the time is told of this often at most, of each kind; the newest figure is never lost. */
#define SESSION_TELL_MS 100

uint64_t session_page_kib(const struct session *session)
{
    return hypervisor_page_kib(session->host->hypervisor);
}

uint64_t session_tot_kib(const struct session *session)
{
    return session->seen.tot_pages * session_page_kib(session);
}

/* ---- what is mapped ---- */

void session_map(struct session *session)
{
    int error = hypervisor_map_p2m(session->host->hypervisor, &session->seen, &session->p2m);

    session->kept.hypervisor = session->host->hypervisor;
    session->kept.domid = session->seen.domid;
    session->p2m_missing = error && error != -ENODATA;
    if (session->p2m_missing)
        log_warning("session %s: the shared info page cannot be mapped: %s", session->id, strerror(-error));
}

void session_unmap(struct session *session)
{
    survey_kept_drop(&session->kept);
    hypervisor_unmap_p2m(session->p2m);
    session->p2m = NULL;
}

/* ---- figures ---- */

static void session_read_sizes(const struct session *session, struct session_figures *figures)
{
    uint64_t page_kib = session_page_kib(session);

    figures->tot_kib = session->seen.tot_pages * page_kib;
    figures->shared_kib = session->seen.shared_pages * page_kib;
    figures->paged_kib = session->seen.paged_pages * page_kib;
}

/* Costs two hypercalls for HVM and PVH, loads for PV. */
static void session_read_layout(struct session *session, struct session_figures *figures)
{
    figures->has_info = session->p2m != NULL;
    if (session->p2m)
        hypervisor_read_shared_info(session->p2m, &figures->info);
    figures->has_physmap = session->seen.hvm && hypervisor_get_physmap(session->host->hypervisor, session->seen.domid,
                                                                       &figures->physmap) == 0;
}

void session_begin_baseline(struct session *session)
{
    session->baseline = (struct session_figures){.time_ms = clock_wall_ms()};
    session_read_sizes(session, &session->baseline);
    session_read_layout(session, &session->baseline);
    survey_kept_drop(&session->kept);
    session->too_large = false;
}

void session_finish_baseline(struct session *session)
{
    struct session_figures *baseline = &session->baseline;

    baseline->target_kib = session->report.target_kib;
    baseline->time_ms = clock_wall_ms();
    memset(session->changed, 0, sizeof(session->changed));
    memset(session->told_ms, 0, sizeof(session->told_ms));
    session->gate_opened = session->store_unreachable = session->unwatched = false;
    session->structure_unreadable = false;
    session->told = *baseline;
    session->longest_gap_ms = 0;
    session->seen_ms = session->glanced_ms = clock_now_ms();
    session->generation = baseline->info.p2m_generation;
}

/* ---- surveys ---- */

/* On the loop, with pages that stay mapped; what would take more than a step is too much for it. */
static int session_survey_here(struct session *session, bool glance, const struct survey_result **result)
{
    struct p2m_source source = survey_kept_source(&session->kept);
    struct survey *survey = session->host->survey;

    survey_begin(survey, session->p2m, glance);
    int more = survey_step(survey, &source, SURVEY_STEP_ENTRIES);
    *result = survey_result(survey);
    return more > 0 ? -E2BIG : more;
}

void session_take_survey(struct session *session, int error, const struct survey_result *result)
{
    session->survey_error = error;
    if (!error)
        session->surveyed = *result;
}

int session_survey(struct session *session)
{
    const struct survey_result *result;

    if (!session->p2m)
        return 0;
    int error = session->too_large ? -E2BIG : session_survey_here(session, false, &result);
    if (error == -E2BIG) {
        /* The tables near the root stay mapped, in the place of whatever the attempt has brought. */
        if (!session->too_large)
            survey_kept_drop(&session->kept);
        session->too_large = true;
        return error;
    }
    session_take_survey(session, error, result);
    return 0;
}

/* The tables near the root; false when they cannot be read just now. */
static bool session_glance_structure(struct session *session, uint64_t *top)
{
    const struct survey_result *result;

    if (session_survey_here(session, true, &result) || !result->stands)
        return false;
    *top = result->digest;
    return true;
}

bool session_survey_stands(const struct session *session)
{
    return session->p2m ? !session->survey_error && session->surveyed.stands : !session->p2m_missing;
}

bool session_take_baseline_survey(struct session *session)
{
    struct session_figures *baseline = &session->baseline;

    if (!session->p2m)
        return session_survey_stands(session);
    baseline->has_structure = session_survey_stands(session) && session_glance_structure(session, &baseline->top);
    if (baseline->has_structure) {
        baseline->info = session->surveyed.info;
        baseline->structure = session->surveyed.digest;
    }
    return baseline->has_structure;
}

bool session_survey_may_pass(const struct session *session)
{
    return session->p2m &&
           (session->survey_error || session->surveyed.stands || p2m_problem_may_pass(session->surveyed.problem));
}

/* ---- changes ---- */

static bool session_may_tell(struct session *session, enum session_change change, int64_t now_ms)
{
    if (session->told_ms[change] && now_ms - session->told_ms[change] < SESSION_TELL_MS)
        return false;
    session->told_ms[change] = now_ms;
    return true;
}

/* Takes both references. */
static void session_tell(struct session *session, enum p2mg_reason reason, const char *key, json_t *before, json_t *now)
{
    record_emit(session, "session.changed", "{s:s,s:{s:o},s:{s:o}}", "reason", p2mg_reason_name(reason), "before", key,
                before, "now", key, now);
}

static void session_compare_size(struct session *session, int64_t now_ms)
{
    uint64_t tot_kib = session_tot_kib(session);

    if (tot_kib != session->baseline.tot_kib) {
        session->changed[CHANGE_TOT_PAGES] = true;
        session->changes++;
    }
    if (tot_kib == session->told.tot_kib || !session_may_tell(session, CHANGE_TOT_PAGES, now_ms))
        return;
    session_tell(session, P2MG_REASON_TOT_PAGES_CHANGED, "tot_kib", record_number(session->told.tot_kib),
                 record_number(tot_kib));
    session->told.tot_kib = tot_kib;
}

/* How far the counter has gone since it was read last, in the width that it has. */
static uint64_t session_steps(const struct sharedinfo *info, uint64_t before)
{
    uint64_t steps = info->p2m_generation - before;

    return info->width == 4 ? (uint32_t)steps : steps;
}

static void session_compare_generation(struct session *session, const struct sharedinfo *info, int64_t now_ms)
{
    uint64_t generation = info->p2m_generation;

    session->generation_steps += session_steps(info, session->generation);
    session->generation = generation;
    if (generation != session->baseline.info.p2m_generation || sharedinfo_is_updating(info))
        session->changed[CHANGE_GENERATION] = true;
    if (generation == session->told.info.p2m_generation || !session_may_tell(session, CHANGE_GENERATION, now_ms))
        return;
    session_tell(session, P2MG_REASON_GENERATION_CHANGED, "generation",
                 record_number(session->told.info.p2m_generation), record_number(generation));
    session->told.info.p2m_generation = generation;
}

static bool session_tell_structure(struct session *session, const char *key, uint64_t before, uint64_t now,
                                   int64_t now_ms)
{
    bool told = session_may_tell(session, CHANGE_STRUCTURE, now_ms);

    if (told)
        session_tell(session, P2MG_REASON_STRUCTURE_CHANGED, key, record_digest(before), record_digest(now));
    return told;
}

/* Whatever leads to the p2m: root, address, size. */
static void session_compare_place(struct session *session, const struct sharedinfo *info, int64_t now_ms)
{
    if (sharedinfo_same_place(info, &session->baseline.info) || session->changed[CHANGE_STRUCTURE])
        return;
    session->changed[CHANGE_STRUCTURE] = true;
    session_may_tell(session, CHANGE_STRUCTURE, now_ms);
    session_tell(session, P2MG_REASON_STRUCTURE_CHANGED, "p2m", record_place(&session->baseline.info),
                 record_place(info));
}

static void session_compare_top(struct session *session, int64_t now_ms)
{
    uint64_t top;

    if (!session->p2m || !session->baseline.has_structure || session->changed[CHANGE_STRUCTURE] ||
        !session_glance_structure(session, &top) || top == session->baseline.top)
        return;
    session->changed[CHANGE_STRUCTURE] = true;
    session_tell_structure(session, "top", session->baseline.top, top, now_ms);
}

void session_compare_survey(struct session *session)
{
    const struct session_figures *baseline = &session->baseline;

    if (!session->p2m)
        return;
    session->structure_unreadable = !session_survey_stands(session);
    if (session->structure_unreadable || !baseline->has_structure || session->surveyed.digest == baseline->structure)
        return;
    session->changed[CHANGE_STRUCTURE] = true;
    if (session->surveyed.digest == session->told.structure)
        return;
    if (session_tell_structure(session, "structure", session->told.structure, session->surveyed.digest, clock_now_ms()))
        session->told.structure = session->surveyed.digest;
}

static void session_tell_physmap(struct session *session, const struct session_figures *now, int64_t now_ms)
{
    session->changed[CHANGE_PHYSMAP] = true;
    if (!session_may_tell(session, CHANGE_PHYSMAP, now_ms))
        return;
    uint64_t page_kib = session_page_kib(session);
    session_tell(session, P2MG_REASON_PHYSMAP_CHANGED, "physmap", record_physmap(&session->told, page_kib),
                 record_physmap(now, page_kib));
    session->told = *now;
}

/*
 * What the poll's one hypercall tells of it, or with `whole` all that dom0 can learn. What is populated on demand is
 * shown and not compared: a migration engine populates it, by nothing more than reading (measured on Xen 4.17).
 */
static void session_compare_physmap(struct session *session, const struct session_figures *now, bool whole,
                                    int64_t now_ms)
{
    const struct session_figures *before = &session->baseline;
    struct session_figures merged = *now;

    if (!session->seen.hvm)
        return;
    if (!whole || !now->has_physmap) {
        merged.has_physmap = before->has_physmap;
        merged.physmap = before->physmap;
    }
    merged.tot_kib = session->told.tot_kib;
    if (merged.shared_kib != before->shared_kib || merged.paged_kib != before->paged_kib ||
        merged.physmap.max_gfn != before->physmap.max_gfn)
        session_tell_physmap(session, &merged, now_ms);
}

/* ---- looks ---- */

/*
 * Its toolstack has done with this domain: the guest runs elsewhere, or nowhere. What is taken apart now says nothing
 * of the guest's layout; should it be the guest's again after all, it is compared again.
 */
static bool session_is_over(const struct session *session)
{
    return session->leaving || session->torn_down;
}

bool session_glance(struct session *session, int64_t now_ms)
{
    struct sharedinfo info;

    if (session->step != STEP_HELD || !session->p2m)
        return false;
    if (now_ms - session->glanced_ms > session->longest_gap_ms)
        session->longest_gap_ms = now_ms - session->glanced_ms;
    session->glanced_ms = now_ms;
    if (session_is_over(session))
        return true;
    hypervisor_read_shared_info(session->p2m, &info);
    if (info.p2m_generation == session->told.info.p2m_generation && info.p2m_generation == session->generation &&
        !(info.p2m_generation & 1) && sharedinfo_same_place(&info, &session->baseline.info))
        return true;
    session_compare_generation(session, &info, now_ms);
    session_compare_place(session, &info, now_ms);
    return true;
}

static void session_compare(struct session *session, int64_t now_ms)
{
    struct session_figures now = {.time_ms = clock_wall_ms()};

    if (session->step != STEP_HELD || session_is_over(session))
        return;
    session_read_sizes(session, &now);
    session_compare_size(session, now_ms);
    session_compare_physmap(session, &now, false, now_ms);
    session_compare_top(session, now_ms);
}

/*
 * A guest that is suspended runs nowhere and changes nothing. When it loses pages then, it is its toolstack that takes
 * the domain apart ("xl save" does); the hypervisor calls it dying only later.
 */
static bool session_is_torn_down(const struct session *session, const struct hypervisor_domain *domain)
{
    return domain->suspended && session->seen.suspended &&
           (session->torn_down || domain->tot_pages < session->seen.tot_pages);
}

void session_observe(struct session *session, const struct hypervisor_domain *domain)
{
    int64_t now_ms = clock_now_ms();

    if (session->step == STEP_THAWING || session->step == STEP_GONE)
        return;
    if (!domain || domain->dying || strcmp(domain->uuid, session->gate.journal.uuid) != 0) {
        session_post(session, EVENT_GONE);
        return;
    }
    if (now_ms - session->seen_ms > session->longest_gap_ms)
        session->longest_gap_ms = now_ms - session->seen_ms;
    if (domain->tot_pages != session->seen.tot_pages) {
        session->moved_ms = now_ms;
        session->pending &= ~(1u << EVENT_STILL);
    }
    session->torn_down = session_is_torn_down(session, domain);
    session->seen = *domain;
    session->seen_ms = now_ms;
    session_compare(session, now_ms);
    if (session->options.hold == P2MG_HOLD_SUSPENDED && !domain->suspended) {
        session_stop(session, P2MG_REASON_GUEST_RESUMED, P2MG_OUTCOME_FAILED);
        return;
    }
    if (session->step == STEP_SETTLING && now_ms - session->moved_ms >= session->options.policy.settle_ms)
        session_post(session, EVENT_STILL);
    else if (session->gate.taken && !session->away &&
             domain->max_pages * session_page_kib(session) != session->gate.journal.cap_kib)
        session_post(session, EVENT_TOUCHED);
}

/* ---- verdicts ---- */

void session_look(struct session *session)
{
    struct hypervisor_domain domain;
    int error = hypervisor_get(session->host->hypervisor, session->gate.journal.domid, &domain);

    if (!error)
        session_observe(session, &domain);
    else if (error == -ESRCH)
        session_observe(session, NULL);
    /* Any other failure leaves the gap since the last observation to speak for itself. */
}

/* All that can be looked at on the loop. What only the surveyor can read is surveyed before, when it is asked for. */
static void session_look_closely(struct session *session, struct session_figures *now)
{
    int64_t now_ms = clock_now_ms();

    session_look(session);
    session_read_sizes(session, now);
    if (session->step != STEP_HELD || session_is_over(session))
        return;
    session_glance(session, now_ms);
    session_read_layout(session, now);
    session_compare_physmap(session, now, true, now_ms);
    /* A verdict that waited for a look at all of the p2m has just had it. */
    bool surveyed = session->check_ending;
    if (!surveyed && session->p2m && !session->too_large && session_survey(session) == 0) {
        session_compare_survey(session);
        surveyed = true;
    }
    now->has_structure = session->p2m && surveyed && session_survey_stands(session);
    now->structure = session->surveyed.digest;
}

static struct verdict_facts session_facts(const struct session *session)
{
    int64_t gap_ms = session->step == STEP_HELD ? clock_now_ms() - session->seen_ms : 0;
    bool blind = session->p2m_missing || (session->p2m && !session->baseline.has_structure);

    return (struct verdict_facts){
        .state = session_state(session),
        .ended_by = session->ending,
        .tot_pages_changed = session->changed[CHANGE_TOT_PAGES],
        .generation_changed = session->changed[CHANGE_GENERATION],
        .structure_changed = session->changed[CHANGE_STRUCTURE],
        .physmap_changed = session->changed[CHANGE_PHYSMAP],
        .agent_thawed = session->changed[CHANGE_AGENT],
        .gate_opened = session->gate_opened,
        .unwatched = session->unwatched,
        .store_unreachable = session->store_unreachable,
        .structure_unreadable = blind || session->structure_unreadable,
        .longest_gap_ms = gap_ms > session->longest_gap_ms ? gap_ms : session->longest_gap_ms,
        .max_gap_ms = session->host->max_gap_ms,
        .attempt = session->attempt,
        .attempts = session->options.policy.attempts,
    };
}

struct verdict session_known_verdict(const struct session *session)
{
    struct verdict_facts facts = session_facts(session);

    return verdict_judge(&facts);
}

struct verdict session_judge(struct session *session, bool silent, bool binding, struct verdict_facts *facts,
                             struct session_figures *now)
{
    *now = (struct session_figures){.time_ms = clock_wall_ms(), .target_kib = session->report.target_kib};
    session_read_sizes(session, now);
    if (session->step == STEP_HELD)
        session_look_closely(session, now);
    bool compared = session->step == STEP_HELD && !session_is_over(session);
    *facts = session_facts(session);
    facts->store_unreachable |= silent;
    facts->structure_unreadable |= compared && session->baseline.has_physmap && !now->has_physmap;
    struct verdict verdict = verdict_judge(facts);
    if (binding)
        session_start_grace(session, verdict.verdict);
    return verdict;
}
