/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/survey.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/random.h>

#include <xxhash.h>

#include "daemon/clock.h"

struct survey {
    const struct hypervisor_p2m *guest;
    XXH3_state_t *state;
    uint64_t seed;
    bool begun;
    struct p2m_notes *notes; /* of a glance */
    struct p2m_walk walk;
    struct survey_result result;
};

static uint64_t survey_seed(void)
{
    static uint64_t seed;

    if (!seed && getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
        seed = (uint64_t)clock_now_ms();
    return seed;
}

int survey_new(struct survey **result)
{
    struct survey *survey = calloc(1, sizeof(*survey));

    if (survey)
        survey->state = XXH3_createState();
    if (!survey || !survey->state) {
        free(survey);
        return -ENOMEM;
    }
    survey->seed = survey_seed();
    *result = survey;
    return 0;
}

void survey_free(struct survey *survey)
{
    if (!survey)
        return;
    XXH3_freeState(survey->state);
    free(survey);
}

void survey_begin(struct survey *survey, const struct hypervisor_p2m *p2m, struct p2m_notes *notes)
{
    survey->guest = p2m;
    survey->notes = notes;
    if (notes)
        notes->count = 0;
    survey->begun = false;
}

static void survey_take(void *context, unsigned level, uint64_t first, const uint64_t *frames, unsigned count)
{
    XXH3_state_t *state = context;
    const uint64_t head[2] = {(uint64_t)level << 32 | count, first};

    XXH3_64bits_update(state, head, sizeof(head));
    XXH3_64bits_update(state, frames, count * sizeof(*frames));
}

/* The counter is read before the first table; nothing below may be loaded earlier. */
static bool survey_start(struct survey *survey)
{
    struct survey_result *result = &survey->result;

    *result = (struct survey_result){.problem = P2M_NO_PROBLEM};
    hypervisor_read_shared_info(survey->guest, &result->info);
    atomic_thread_fence(memory_order_acquire);
    result->problem = p2m_describe(&result->info, &result->p2m);
    if (!result->problem && sharedinfo_is_updating(&result->info))
        result->problem = P2M_MOVING;
    if (result->problem)
        return false;
    const uint64_t place[] = {result->p2m.kind, result->p2m.width, result->p2m.root, result->p2m.first_page,
                              result->p2m.max_pfn};
    XXH3_64bits_reset_withSeed(survey->state, survey->seed);
    XXH3_64bits_update(survey->state, place, sizeof(place));
    survey->walk = (struct p2m_walk){
        .p2m = &result->p2m, .notes = survey->notes, .lowest = survey->notes ? p2m_top_level(&result->p2m) : 1};
    survey->begun = true;
    return true;
}

static void survey_finish(struct survey *survey)
{
    struct survey_result *result = &survey->result;
    struct sharedinfo after;

    atomic_thread_fence(memory_order_acquire);
    hypervisor_read_shared_info(survey->guest, &after);
    if (!sharedinfo_same_place(&result->info, &after) || after.p2m_generation != result->info.p2m_generation)
        result->problem = P2M_MOVING;
    result->stands = result->problem == P2M_NO_PROBLEM;
    result->pages = survey->walk.pages;
    result->digest = XXH3_64bits_digest(survey->state);
}

int survey_step(struct survey *survey, const struct p2m_source *source, unsigned entries)
{
    const struct p2m_sink sink = {survey_take, survey->state};
    struct survey_result *result = &survey->result;

    if (!survey->begun && !survey_start(survey))
        return 0;
    int more = p2m_walk_step(&survey->walk, source, entries, &sink);
    if (more == -EBADMSG) {
        result->problem = survey->walk.problem;
        result->problem_level = survey->walk.problem_level;
        result->problem_leaf = survey->walk.problem_leaf;
        return 0;
    }
    if (more == 0)
        survey_finish(survey);
    return more;
}

const struct survey_result *survey_result(const struct survey *survey)
{
    return &survey->result;
}

/* ---- pages that stay mapped ---- */

static int survey_kept_map(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    struct survey_kept *kept = context;
    (void)count; /* 1, as this source says */

    for (unsigned i = 0; i < kept->count; i++) {
        if (kept->frames[i] == frames[0]) {
            *at = kept->pages[i];
            return 0;
        }
    }
    if (kept->count == SURVEY_KEPT_PAGES)
        return -E2BIG;
    int error = hypervisor_map_frames(kept->hypervisor, kept->domid, frames, 1, at);
    if (error)
        return error;
    kept->frames[kept->count] = frames[0];
    kept->pages[kept->count++] = *at;
    return 0;
}

static void survey_kept_unmap(void *context, const void *at, unsigned count)
{
    (void)context, (void)at, (void)count;
}

struct p2m_source survey_kept_source(struct survey_kept *kept)
{
    return (struct p2m_source){survey_kept_map, survey_kept_unmap, kept, 1};
}

void survey_kept_drop(struct survey_kept *kept)
{
    for (unsigned i = 0; i < kept->count; i++)
        hypervisor_unmap_frames(kept->hypervisor, kept->pages[i], 1);
    kept->count = 0;
}

/* ---- pages mapped for a step ---- */

static int survey_pages_map(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    struct survey_pages *pages = context;

    return hypervisor_map_frames(pages->hypervisor, pages->domid, frames, count, at);
}

static void survey_pages_unmap(void *context, const void *at, unsigned count)
{
    struct survey_pages *pages = context;

    hypervisor_unmap_frames(pages->hypervisor, at, count);
}

struct p2m_source survey_pages_source(struct survey_pages *pages)
{
    return (struct p2m_source){survey_pages_map, survey_pages_unmap, pages, P2M_BATCH};
}
