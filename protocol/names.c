/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/names.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

/*
 * Each list is written once, as an X macro, and expanded twice: into the table, and into a count that must equal the
 * enumeration's. Values are distinct (the compiler warns of a designator used twice), so an equal count means that
 * none is missing.
 */
#define STATES(X)                                                                                                      \
    X(P2MG_STATE_FREEZING, "freezing")                                                                                 \
    X(P2MG_STATE_HELD, "held")                                                                                         \
    X(P2MG_STATE_FAILED, "failed")                                                                                     \
    X(P2MG_STATE_THAWING, "thawing")                                                                                   \
    X(P2MG_STATE_GONE, "gone")

#define VERDICTS(X)                                                                                                    \
    X(P2MG_VERDICT_PROCEED, "proceed")                                                                                 \
    X(P2MG_VERDICT_RETRY, "retry")                                                                                     \
    X(P2MG_VERDICT_ABORT, "abort")

#define OUTCOMES(X)                                                                                                    \
    X(P2MG_OUTCOME_UNKNOWN, "unknown")                                                                                 \
    X(P2MG_OUTCOME_COMPLETED, "completed")                                                                             \
    X(P2MG_OUTCOME_FAILED, "failed")                                                                                   \
    X(P2MG_OUTCOME_CANCELLED, "cancelled")

#define REQUIRES(X)                                                                                                    \
    X(P2MG_REQUIRE_GATE, "gate")                                                                                       \
    X(P2MG_REQUIRE_SETTLED, "settled")                                                                                 \
    X(P2MG_REQUIRE_AGENT, "agent")

#define REASONS(X)                                                                                                     \
    X(P2MG_REASON_NONE, "none", "no reason was given")                                                                 \
    X(P2MG_REASON_UNCHANGED, "unchanged", "nothing changed since the baseline")                                        \
    X(P2MG_REASON_NOT_HELD_YET, "not-held-yet", "the guest is still being frozen")                                     \
    X(P2MG_REASON_TOT_PAGES_CHANGED, "tot-pages-changed", "the guest's page count changed since the baseline")         \
    X(P2MG_REASON_GENERATION_CHANGED, "generation-changed", "the guest changed its memory map since the baseline")     \
    X(P2MG_REASON_STRUCTURE_CHANGED, "structure-changed",                                                              \
      "the pages of the guest's memory map are not the baseline's")                                                    \
    X(P2MG_REASON_PHYSMAP_CHANGED, "physmap-changed",                                                                  \
      "the guest's physical memory was mapped anew since the baseline")                                                \
    X(P2MG_REASON_TARGET_CHANGED, "target-changed", "the guest was given a new memory target meanwhile")               \
    X(P2MG_REASON_ABOVE_TARGET, "above-target", "the guest had more pages than its memory target at the start")        \
    X(P2MG_REASON_AGENT_THAWED, "agent-thawed", "the guest's agent was not frozen all the time")                       \
    X(P2MG_REASON_GATE_OPENED, "gate-opened", "somebody let the guest read its memory target again")                   \
    X(P2MG_REASON_OBSERVATION_GAP, "observation-gap", "nobody watched the guest for too long")                         \
    X(P2MG_REASON_STORE_UNREACHABLE, "store-unreachable", "xenstored does not answer")                                 \
    X(P2MG_REASON_STRUCTURE_UNREADABLE, "structure-unreadable", "the guest's memory map cannot be read")               \
    X(P2MG_REASON_ATTEMPTS_EXHAUSTED, "attempts-exhausted", "something changed, and it was the last attempt")          \
    X(P2MG_REASON_FREEZE_TIMEOUT, "freeze-timeout", "the guest did not come to rest in time")                          \
    X(P2MG_REASON_DEADLINE, "deadline", "the session was held for as long as its policy allows")                       \
    X(P2MG_REASON_GRACE_EXPIRED, "grace-expired", "nobody followed up a retry verdict in time")                        \
    X(P2MG_REASON_DOMAIN_GONE, "domain-gone", "the domain is gone")                                                    \
    X(P2MG_REASON_DOMAIN_RENAMED, "domain-renamed", "the domain was renamed")                                          \
    X(P2MG_REASON_UNDER_GUARD, "under-guard", "the domain came under guard")                                           \
    X(P2MG_REASON_GUEST_NOT_READY, "guest-not-ready", "the guest has not read its first memory target yet")            \
    X(P2MG_REASON_NOT_GUARDABLE, "not-guardable", "the domain has no memory target")                                   \
    X(P2MG_REASON_AGENT_ABSENT, "agent-absent", "the guest runs no agent that could be asked")                         \
    X(P2MG_REASON_AGENT_REFUSED, "agent-refused", "the guest's agent cannot freeze its guest")                         \
    X(P2MG_REASON_AGENT_SILENT, "agent-silent", "the guest's agent did not say in time that it is frozen")             \
    X(P2MG_REASON_CLIENT_GONE, "client-gone", "the connection that held the session was closed")                       \
    X(P2MG_REASON_GUEST_RESUMED, "guest-resumed", "the guest runs again on this host")                                 \
    X(P2MG_REASON_ENDED, "ended", "the session was ended")                                                             \
    X(P2MG_REASON_SHUTDOWN, "shutdown", "the daemon is stopping")                                                      \
    X(P2MG_REASON_ERROR, "error", "something failed that should not have; the daemon's log says what")

#define HOLDS(X)                                                                                                       \
    X(P2MG_HOLD_CONNECTION, "connection")                                                                              \
    X(P2MG_HOLD_DETACHED, "detached") X(P2MG_HOLD_RETRY, "retry") X(P2MG_HOLD_SUSPENDED, "suspended")

#define WORD(value, word, ...) [value] = word,
#define TEXT(value, word, text) [value] = text,
#define PLUS_ONE(...) +1
#define ASSERT_COMPLETE(LIST, count) _Static_assert((0 LIST(PLUS_ONE)) == (count), #LIST " misses a value")

static const char *const state_names[] = {STATES(WORD)};
static const char *const verdict_names[] = {VERDICTS(WORD)};
static const char *const reason_names[] = {REASONS(WORD)};
static const char *const reason_texts[] = {REASONS(TEXT)};
static const char *const outcome_names[] = {OUTCOMES(WORD)};
static const char *const require_names[] = {REQUIRES(WORD)};
static const char *const hold_names[] = {HOLDS(WORD)};

ASSERT_COMPLETE(STATES, P2MG_STATE_COUNT);
ASSERT_COMPLETE(VERDICTS, P2MG_VERDICT_COUNT);
ASSERT_COMPLETE(REASONS, P2MG_REASON_COUNT);
ASSERT_COMPLETE(OUTCOMES, P2MG_OUTCOME_COUNT);
ASSERT_COMPLETE(REQUIRES, P2MG_REQUIRE_COUNT);
ASSERT_COMPLETE(HOLDS, P2MG_HOLD_COUNT);

/* Takes the value as unsigned: an enumeration may be a signed type, and what is negative is outside as well. */
static const char *name_get(const char *const *names, unsigned count, unsigned value)
{
    return value < count ? names[value] : "unknown";
}

static int name_find(const char *const *names, unsigned count, const char *text, unsigned *value)
{
    for (unsigned i = 0; i < count; i++) {
        if (strcmp(names[i], text) == 0) {
            *value = i;
            return 0;
        }
    }
    return -EINVAL;
}

const char *p2mg_state_name(enum p2mg_state state)
{
    return name_get(state_names, P2MG_STATE_COUNT, (unsigned)state);
}

const char *p2mg_verdict_name(enum p2mg_verdict verdict)
{
    return name_get(verdict_names, P2MG_VERDICT_COUNT, (unsigned)verdict);
}

const char *p2mg_reason_name(enum p2mg_reason reason)
{
    return name_get(reason_names, P2MG_REASON_COUNT, (unsigned)reason);
}

const char *p2mg_reason_text(enum p2mg_reason reason)
{
    return name_get(reason_texts, P2MG_REASON_COUNT, (unsigned)reason);
}

const char *p2mg_outcome_name(enum p2mg_outcome outcome)
{
    return name_get(outcome_names, P2MG_OUTCOME_COUNT, (unsigned)outcome);
}

const char *p2mg_require_name(enum p2mg_require require)
{
    return name_get(require_names, P2MG_REQUIRE_COUNT, (unsigned)require);
}

const char *p2mg_hold_name(enum p2mg_hold hold)
{
    return name_get(hold_names, P2MG_HOLD_COUNT, (unsigned)hold);
}

int p2mg_outcome_parse(const char *text, enum p2mg_outcome *outcome)
{
    unsigned value;
    int error = name_find(outcome_names, P2MG_OUTCOME_COUNT, text, &value);

    if (error == 0)
        *outcome = (enum p2mg_outcome)value;
    return error;
}

int p2mg_require_parse(const char *text, enum p2mg_require *require)
{
    unsigned value;
    int error = name_find(require_names, P2MG_REQUIRE_COUNT, text, &value);

    if (error == 0)
        *require = (enum p2mg_require)value;
    return error;
}

int p2mg_hold_parse(const char *text, enum p2mg_hold *hold)
{
    unsigned value;
    int error = name_find(hold_names, P2MG_HOLD_COUNT, text, &value);

    if (error == 0)
        *hold = (enum p2mg_hold)value;
    return error;
}
