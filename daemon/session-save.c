/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A session on its way from one program of this daemon's to the next (reexec.h).
 *
 * Only one that is held, and at peace, goes. The next program closes its gate over what is closed already, and takes a
 * baseline of its own; that nobody looked for a moment speaks against the attempt that is under way, and no longer.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/record.h"
#include "daemon/session-actions.h"
#include "daemon/session-observe.h"
#include "daemon/session.h"
#include "daemon/timer.h"

bool session_is_at_peace(const struct session *session)
{
    return session->step == STEP_HELD && !session->away && !session->agent.away && !session->pending &&
           !session->check_wanted && !session->check_running && !session->leaving && session->gate.doubt == GATE_SURE &&
           session->options.hold != P2MG_HOLD_SUSPENDED;
}

/* ---- going ---- */

static int64_t session_grace_left_ms(const struct session *session)
{
    struct timeval until, now;

    if (!evtimer_pending(session->grace_timer, &until))
        return -1;
    event_base_gettimeofday_cached(session->host->base, &now);
    int64_t left_ms = ((int64_t)until.tv_sec - now.tv_sec) * 1000 + (until.tv_usec - now.tv_usec) / 1000;
    return left_ms > 0 ? left_ms : 0;
}

static json_t *session_save_owner(const struct session_options *options)
{
    return json_pack("{s:s,s:s,s:s,s:b,s:I,s:s,s:I,s:I,s:o}", "name", options->name, "section", options->section,
                     "hold", p2mg_hold_name(options->hold), "from_xenstore", (int)options->from_xenstore, "connection",
                     (json_int_t)options->connection, "caller", options->caller, "pid", (json_int_t)options->pid, "uid",
                     (json_int_t)options->uid, "policy", record_policy(&options->policy));
}

static json_t *session_save_rest(const struct rest *rest)
{
    return json_pack("{s:b,s:I,s:b,s:I,s:I,s:I}", "learned", (int)rest->learned, "offset_kib",
                     (json_int_t)rest->offset_kib, "pinned", (int)rest->pinned, "pin_kib", (json_int_t)rest->pin_kib,
                     "pinned_tot_kib", (json_int_t)rest->pinned_tot_kib, "residual_kib",
                     (json_int_t)rest->residual_kib);
}

json_t *session_save(const struct session *session)
{
    char journal[JOURNAL_TEXT_MAX];

    if (journal_encode(&session->gate.journal, journal, sizeof(journal)))
        return NULL;
    return json_pack("{s:i,s:s,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I}", "domid",
                     (int)session->gate.journal.domid, "journal", journal, "owner",
                     session_save_owner(&session->options), "rest", session_save_rest(&session->rest), "videoram_kib",
                     (json_int_t)session->videoram_kib, "begun_ms", (json_int_t)session->begun_ms, "begun_wall_ms",
                     (json_int_t)session->begun_wall_ms, "steady_kib", (json_int_t)session->steady_kib, "steady_ms",
                     (json_int_t)session->steady_ms, "held_after_ms", (json_int_t)session->held_after_ms, "attempt",
                     (json_int_t)session->attempt, "changes", (json_int_t)session->sight.changes, "grace_left_ms",
                     (json_int_t)session_grace_left_ms(session), "heir", (json_int_t)session->heir, "heir_is_marked",
                     (int)session->heir_is_marked, "agent", (int)session->agent.asked, "agent_seq",
                     (json_int_t)session->agent.seq);
}

/* ---- coming ---- */

static int session_load_policy(const json_t *saved, struct p2mg_policy *policy)
{
    const struct p2mg_policy_member *member;
    const char *key;
    json_t *value;

    p2mg_policy_init(policy);
    json_object_foreach((json_t *)(uintptr_t)saved, key, value)
    {
        member = p2mg_policy_find(key);
        if (strcmp(key, "require") == 0
                ? !json_is_string(value) || p2mg_require_parse(json_string_value(value), &policy->require) != 0
                : !member || p2mg_policy_set(policy, member, json_integer_value(value)) != 0)
            return -EINVAL;
    }
    return 0;
}

static int session_load_owner(const json_t *saved, struct session_options *options)
{
    const char *name, *section, *hold, *caller;
    json_int_t connection, pid, uid;
    json_t *policy;
    int from_xenstore;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:s,s:s,s:s,s:b,s:I,s:s,s:I,s:I,s:o}", "name", &name, "section",
                    &section, "hold", &hold, "from_xenstore", &from_xenstore, "connection", &connection, "caller",
                    &caller, "pid", &pid, "uid", &uid, "policy", &policy) < 0 ||
        p2mg_hold_parse(hold, &options->hold) || strlen(name) >= sizeof(options->name) ||
        strlen(section) >= sizeof(options->section) || strlen(caller) >= sizeof(options->caller))
        return -EINVAL;
    strcpy(options->name, name);
    strcpy(options->section, section);
    strcpy(options->caller, caller);
    options->from_xenstore = from_xenstore;
    options->connection = (uint64_t)connection;
    options->pid = (pid_t)pid;
    options->uid = (uid_t)uid;
    return session_load_policy(policy, &options->policy);
}

static int session_load_rest(const json_t *saved, struct rest *rest)
{
    json_int_t offset_kib, pin_kib, pinned_tot_kib, residual_kib;
    int learned, pinned;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:b,s:I,s:b,s:I,s:I,s:I}", "learned", &learned, "offset_kib",
                    &offset_kib, "pinned", &pinned, "pin_kib", &pin_kib, "pinned_tot_kib", &pinned_tot_kib,
                    "residual_kib", &residual_kib) < 0)
        return -EINVAL;
    *rest = (struct rest){learned, offset_kib, pinned, (uint64_t)pin_kib, (uint64_t)pinned_tot_kib, residual_kib};
    return 0;
}

static int session_load_numbers(const json_t *saved, struct session *session, json_int_t *grace_left_ms)
{
    json_int_t videoram_kib, begun_ms, begun_wall_ms, steady_kib, steady_ms, held_after_ms, attempt, changes, heir, seq;
    int heir_is_marked, asked;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I}", "videoram_kib",
                    &videoram_kib, "begun_ms", &begun_ms, "begun_wall_ms", &begun_wall_ms, "steady_kib", &steady_kib,
                    "steady_ms", &steady_ms, "held_after_ms", &held_after_ms, "attempt", &attempt, "changes", &changes,
                    "grace_left_ms", grace_left_ms, "heir", &heir, "heir_is_marked", &heir_is_marked, "agent", &asked,
                    "agent_seq", &seq) < 0)
        return -EINVAL;
    session->videoram_kib = (uint64_t)videoram_kib;
    session->begun_ms = begun_ms;
    history_go_on(session->history, begun_ms, clock_now_ms());
    session->begun_wall_ms = begun_wall_ms;
    session->steady_kib = (uint64_t)steady_kib;
    session->steady_ms = steady_ms;
    session->held_after_ms = held_after_ms;
    session->attempt = attempt;
    session->sight.changes = (uint64_t)changes;
    session->heir = (uint16_t)heir;
    session->heir_is_marked = heir_is_marked;
    session->agent.asked = asked;
    session->agent.seq = (uint32_t)seq;
    session->agent.was_frozen = asked; /* that request has had its answer: it is asked with a number of its own */
    return 0;
}

static int session_load_journal(const json_t *saved, struct journal *journal)
{
    const char *text;
    int domid;

    if (json_unpack((json_t *)(uintptr_t)saved, "{s:s,s:i}", "journal", &text, "domid", &domid) < 0 || domid < 1 ||
        domid > UINT16_MAX)
        return -EINVAL;
    journal->domid = (uint16_t)domid;
    int error = journal_decode(text, journal);
    journal->domid = (uint16_t)domid;
    return error;
}

static int session_load(struct session *session, const json_t *saved, json_int_t *grace_left_ms)
{
    int error = session_load_numbers(saved, session, grace_left_ms);

    return error ? error : session_load_rest(json_object_get(saved, "rest"), &session->rest);
}

int session_resume(struct session **result, struct session_host *host, const json_t *saved)
{
    struct session_options options = {.name = ""};
    struct hypervisor_domain domain;
    struct session *session;
    struct journal journal;
    json_int_t grace_left_ms;
    int error = session_load_journal(saved, &journal);

    if (!error)
        error = session_load_owner(json_object_get(saved, "owner"), &options);
    if (!error)
        error = hypervisor_get(host->hypervisor, journal.domid, &domain);
    if (!error && (domain.dying || strcmp(domain.uuid, journal.uuid) != 0))
        error = -ESRCH;
    if (!error)
        error = session_make(&session, host, &domain, &options);
    if (error)
        return error;
    session->gate.journal = journal;
    session->gate.taken = true;
    strcpy(session->id, journal.session);
    error = session_load(session, saved, &grace_left_ms);
    if (error) {
        session_free(session);
        return error;
    }
    session->resumed = true;
    session_map(session);
    history_sample(session->history, HISTORY_TOT, clock_now_ms(), sight_tot_kib(&session->sight));
    if (grace_left_ms >= 0)
        timer_arm(session->grace_timer, grace_left_ms);
    session_begin_freezing(session, clock_now_ms());
    session_arm_deadline(session);
    *result = session;
    return 0;
}

/* As for a baseline that did not hold: what is closed stays closed, and the guest's agent is asked once more. */
void session_go_on_holding(struct session *session)
{
    session_watch(session);
    record_emit(session, "session.resumed", "{}");
    if (session->agent.asked) {
        session_enter(session, STEP_ASKING);
        action_ask(session);
    } else {
        session_enter(session, STEP_BASELINING);
        action_baseline(session);
    }
}
