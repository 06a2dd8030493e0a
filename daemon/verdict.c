/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/verdict.h"

static bool verdict_is_over(const struct verdict_facts *facts)
{
    return facts->state != P2MG_STATE_FREEZING && facts->state != P2MG_STATE_HELD;
}

static bool verdict_is_freezing(const struct verdict_facts *facts)
{
    return facts->state == P2MG_STATE_FREEZING;
}

static bool verdict_tot_pages_changed(const struct verdict_facts *facts)
{
    return facts->tot_pages_changed;
}

static bool verdict_generation_changed(const struct verdict_facts *facts)
{
    return facts->generation_changed;
}

static bool verdict_structure_changed(const struct verdict_facts *facts)
{
    return facts->structure_changed;
}

static bool verdict_physmap_changed(const struct verdict_facts *facts)
{
    return facts->physmap_changed;
}

static bool verdict_target_changed(const struct verdict_facts *facts)
{
    return facts->target_changed;
}

static bool verdict_above_target(const struct verdict_facts *facts)
{
    return facts->above_target;
}

static bool verdict_agent_thawed(const struct verdict_facts *facts)
{
    return facts->agent_thawed;
}

static bool verdict_gate_opened(const struct verdict_facts *facts)
{
    return facts->gate_opened;
}

static bool verdict_store_unreachable(const struct verdict_facts *facts)
{
    return facts->store_unreachable;
}

static bool verdict_structure_unreadable(const struct verdict_facts *facts)
{
    return facts->structure_unreadable;
}

static bool verdict_has_gap(const struct verdict_facts *facts)
{
    return facts->unwatched || facts->longest_gap_ms > facts->max_gap_ms;
}

static bool verdict_always(const struct verdict_facts *facts)
{
    (void)facts;
    return true;
}

/* Only a change of the guest's uses up an attempt: the last one ends in abort. */
static const struct verdict_rule {
    bool (*applies)(const struct verdict_facts *facts);
    enum p2mg_verdict verdict;
    enum p2mg_reason reason;
} verdict_rules[] = {
    {verdict_is_over, P2MG_VERDICT_ABORT, P2MG_REASON_NONE}, /* the reason is why it is over */
    {verdict_is_freezing, P2MG_VERDICT_RETRY, P2MG_REASON_NOT_HELD_YET},
    {verdict_tot_pages_changed, P2MG_VERDICT_RETRY, P2MG_REASON_TOT_PAGES_CHANGED},
    {verdict_generation_changed, P2MG_VERDICT_RETRY, P2MG_REASON_GENERATION_CHANGED},
    {verdict_structure_changed, P2MG_VERDICT_RETRY, P2MG_REASON_STRUCTURE_CHANGED},
    {verdict_physmap_changed, P2MG_VERDICT_RETRY, P2MG_REASON_PHYSMAP_CHANGED},
    {verdict_target_changed, P2MG_VERDICT_RETRY, P2MG_REASON_TARGET_CHANGED},
    {verdict_above_target, P2MG_VERDICT_RETRY, P2MG_REASON_ABOVE_TARGET},
    {verdict_agent_thawed, P2MG_VERDICT_RETRY, P2MG_REASON_AGENT_THAWED},
    {verdict_gate_opened, P2MG_VERDICT_RETRY, P2MG_REASON_GATE_OPENED},
    {verdict_store_unreachable, P2MG_VERDICT_RETRY, P2MG_REASON_STORE_UNREACHABLE},
    {verdict_structure_unreadable, P2MG_VERDICT_RETRY, P2MG_REASON_STRUCTURE_UNREADABLE},
    {verdict_has_gap, P2MG_VERDICT_RETRY, P2MG_REASON_OBSERVATION_GAP},
    {verdict_always, P2MG_VERDICT_PROCEED, P2MG_REASON_UNCHANGED},
};

struct verdict verdict_judge(const struct verdict_facts *facts)
{
    const struct verdict_rule *rule = verdict_rules;

    while (!rule->applies(facts))
        rule++;
    struct verdict verdict = {rule->verdict, rule->reason};
    if (verdict_is_over(facts))
        verdict.reason = facts->ended_by;
    else if (verdict.verdict == P2MG_VERDICT_RETRY && facts->attempt >= facts->attempts)
        verdict = (struct verdict){P2MG_VERDICT_ABORT, P2MG_REASON_ATTEMPTS_EXHAUSTED};
    return verdict;
}

enum p2mg_reason verdict_against(const struct verdict_facts *facts, size_t index)
{
    for (const struct verdict_rule *rule = verdict_rules; rule->verdict != P2MG_VERDICT_PROCEED; rule++)
        if (rule->applies(facts) && index-- == 0)
            return verdict_is_over(facts) ? facts->ended_by : rule->reason;
    return P2MG_REASON_NONE;
}
