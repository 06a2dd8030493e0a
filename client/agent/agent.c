/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/hooks.h"
#include "client/agent/memory.h"
#include "client/agent/talk.h"
#include "client/agent/undo.h"
#include "config.h"
#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/timer.h"
#include "protocol/guest.h"

#define AGENT_SETTLE_LOOK_MS 10
#define AGENT_LOOK_MS 100

/* What takes longer than this is told to be under way. */
#define AGENT_BUSY_MS 100

/* For this long a thaw waits for the hooks, so that all is put back in order, before it puts back the memory anyway. */
#define AGENT_HOOKS_FIRST_MS 500

/* A journal that is found at the start waits for the domid so long. */
#define AGENT_START_MS 1000

/* After the local thaw xenstored gets this long to take the last words. */
#define AGENT_LAST_WORDS_MS 4000
#define AGENT_GRACE_MS 500

struct agent {
    struct agent_settings settings;
    struct memory memory;
    struct hooks *hooks;
    struct talk *talk;
    struct event *tick, *farewell;

    enum agent_step step;
    bool has_posted; /* an action has led to `posted`, which is handled next */
    enum agent_event posted;

    struct p2mg_request request; /* the freeze that an AGENT_ON_FREEZE is about */
    int64_t read_ms;             /* and when it was read */
    uint32_t seq;                /* of the freeze at hand */
    uint32_t ended;              /* the last one that has ended, which never freezes again; 0 = none */
    int64_t lease_until_ms;

    struct undo undo;
    bool hooked;      /* the hooks were run for this freeze */
    bool busy_told;   /* since the last other answer */
    int64_t since_ms; /* freezing, for how long it took; frozen, for how long it lasted */
    int64_t asked_ms; /* for this SEQ */
    int64_t ask_ms;   /* when AGENT_ASKING began */
    int64_t limit_ms; /* until which the step at hand has to lead somewhere */
    unsigned awaited; /* the number of the look that AGENT_ASKING waits for */

    char domid[UNDO_DOMID];
    bool introduced; /* our own last answer was read */
    bool stopping, quitting;
    bool lost;                      /* nothing is to be done any more, whatever happens */
    const char *why;                /* of a thaw */
    char refusal[P2MG_REFUSAL_MAX]; /* "" = none: the thaw is no refusal */
};

static void agent_handle(struct agent *agent, enum agent_event event);

/* ---- small things ---- */

static void agent_post(struct agent *agent, enum agent_event event)
{
    agent->has_posted = true;
    agent->posted = event;
}

static void agent_refuse(struct agent *agent, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void agent_refuse(struct agent *agent, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(agent->refusal, sizeof(agent->refusal), format, arguments);
    va_end(arguments);
    agent_post(agent, AGENT_ON_FAILED);
}

static void agent_answer(struct agent *agent, enum p2mg_answer_kind kind, uint32_t seq)
{
    struct p2mg_answer answer = {.kind = kind, .seq = seq};
    char text[P2MG_GUEST_TEXT_MAX];

    if (kind == P2MG_ANSWER_REFUSED)
        memcpy(answer.text, agent->refusal, sizeof(answer.text));
    p2mg_answer_format(&answer, text);
    agent->busy_told = kind == P2MG_ANSWER_BUSY;
    talk_answer(agent->talk, text);
}

static void agent_publish(struct agent *agent)
{
    struct p2mg_features features = {.protocol = P2MG_GUEST_PROTOCOL, .version = PACKAGE_VERSION};
    char text[P2MG_GUEST_TEXT_MAX];

    if (agent->stopping)
        return;
    if (memory_has_balloon(&agent->memory))
        features.has |= P2MG_FEATURE_BALLOON;
    if (memory_has_hotplug(&agent->memory))
        features.has |= P2MG_FEATURE_HOTPLUG;
    if (hooks_available(agent->hooks))
        features.has |= P2MG_FEATURE_HOOKS;
    p2mg_features_format(&features, text);
    talk_publish(agent->talk, text);
}

static bool agent_is_freezing(const struct agent *agent)
{
    return agent->step >= AGENT_SETTLING && agent->step <= AGENT_ASKING;
}

/* ---- actions ---- */

static void action_ignore(struct agent *agent)
{
    (void)agent;
}

/* Takes over the request that was just read. */
static void agent_take_request(struct agent *agent)
{
    agent->seq = agent->undo.seq = agent->request.seq;
    agent->lease_until_ms = agent->read_ms + (int64_t)agent->request.lease_s * 1000;
    agent->asked_ms = clock_now_ms();
    agent->busy_told = false;
}

static void agent_settle(struct agent *agent)
{
    agent->limit_ms = clock_now_ms() + agent->settings.settle_limit_ms;
}

static void action_begin(struct agent *agent)
{
    undo_init(&agent->undo);
    agent_take_request(agent);
    strcpy(agent->undo.domid, agent->domid);
    agent->since_ms = agent->asked_ms;
    agent->hooked = false;
    *agent->refusal = '\0';
    agent_settle(agent);
    int error = memory_hold_balloon(&agent->memory, &agent->undo);
    if (error)
        agent_refuse(agent, "the balloon driver cannot be held: %s", memory_explain(error));
}

/* What is frozen stays so; it is only looked at again for the new SEQ. */
static void action_adopt(struct agent *agent)
{
    agent_take_request(agent);
    if (agent->step == AGENT_HOOKING)
        agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
    agent_settle(agent);
    agent->memory.calm = 0;
    int error = undo_save(agent->settings.run, &agent->undo);
    if (error)
        agent_refuse(agent, "the agent cannot write its journal: %s", strerror(-error));
}

static void action_look_settling(struct agent *agent)
{
    int finding = memory_settle(&agent->memory, &agent->undo);
    int64_t now_ms = clock_now_ms();

    if (finding < 0)
        agent_refuse(agent, "the balloon driver cannot be read: %s", memory_explain(finding));
    else if (finding == MEMORY_STILL)
        agent_post(agent, AGENT_ON_STILL);
    else if (now_ms >= agent->limit_ms)
        agent_refuse(agent, "balloon driver does not stand still at %" PRIu64 " KiB", memory_size_kb(&agent->memory));
    else if (finding == MEMORY_DISTURBED)
        agent_post(agent, AGENT_ON_DISTURBED);
    else if (!agent->busy_told && now_ms - agent->asked_ms >= AGENT_BUSY_MS)
        agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
}

static void action_say_frozen(struct agent *agent)
{
    int64_t now_ms = clock_now_ms();

    log_notice("frozen for SEQ %" PRIu32 " after %" PRId64 " ms", agent->seq, now_ms - agent->asked_ms);
    agent_answer(agent, P2MG_ANSWER_FROZEN, agent->seq);
}

static bool guard_hooked(const struct agent *agent)
{
    return agent->hooked;
}

static void action_run_hooks(struct agent *agent)
{
    agent->hooked = true;
    int error = memory_hold_hotplug(&agent->memory, &agent->undo);
    if (error) {
        agent_refuse(agent, "memory hotplug cannot be held: %s", memory_explain(error));
        return;
    }
    int count = hooks_freeze(agent->hooks, &agent->undo);
    if (count < 0)
        agent_refuse(agent, "the hooks cannot be run: %s", strerror(-count));
    if (count == 0)
        agent_post(agent, AGENT_ON_HOOKS);
    if (count <= 0)
        return;
    agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
    agent->memory.calm = 0;
}

/* When no hook was run nothing has been disturbed since the last look, and this one is the last. */
static void action_settle_again(struct agent *agent)
{
    agent_settle(agent);
    action_look_settling(agent);
}

static void action_look(struct agent *agent)
{
    int finding = memory_look(&agent->memory, &agent->undo);

    if (finding < 0)
        agent_refuse(agent, "the balloon driver cannot be read: %s", memory_explain(finding));
    else if (finding == MEMORY_DISTURBED)
        agent_post(agent, AGENT_ON_DISTURBED);
}

/* After a resume on another host it is the kernel that sets a target, and it is right. */
static void action_ask(struct agent *agent)
{
    agent->ask_ms = clock_now_ms();
    agent->awaited = talk_look(agent->talk);
}

/* "frozen" is true no longer, whoever it was. */
static void action_ask_first(struct agent *agent)
{
    agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
    agent_settle(agent);
    action_ask(agent);
}

/* Asking may have taken long, which is nothing that the balloon driver has to answer for. */
static void action_put_back(struct agent *agent)
{
    agent->limit_ms += clock_now_ms() - agent->ask_ms;
    if (!agent->busy_told)
        agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
    int error = memory_put_back(&agent->memory, &agent->undo);
    if (error)
        agent_refuse(agent, "the balloon driver cannot be held: %s", memory_explain(error));
}

static void action_adopt_put_back(struct agent *agent)
{
    action_adopt(agent);
    if (!agent->has_posted)
        action_put_back(agent);
}

static void agent_start_thaw(struct agent *agent)
{
    agent->limit_ms = clock_now_ms() + AGENT_HOOKS_FIRST_MS;
    if (!hooks_thaw(agent->hooks, &agent->undo))
        agent_post(agent, AGENT_ON_HOOKS);
    else if (!agent->busy_told)
        agent_answer(agent, P2MG_ANSWER_BUSY, agent->seq);
}

static void action_thaw(struct agent *agent)
{
    *agent->refusal = '\0';
    agent_start_thaw(agent);
}

static void action_refuse(struct agent *agent)
{
    agent_start_thaw(agent);
}

/* The journal of an agent that was killed. */
static void action_recover(struct agent *agent)
{
    agent->seq = agent->undo.seq;
    agent->why = "an agent that ended has left it frozen";
    agent->introduced = true;
    agent->since_ms = clock_now_ms();
    agent_start_thaw(agent);
}

/*
 * False when who makes the changes does not answer. The journal is left to whoever comes next, and may be able to: the
 * unit has --thaw do it in everybody's mount namespace.
 */
static bool agent_release_memory(struct agent *agent)
{
    bool here = !*agent->undo.domid || !*agent->domid || strcmp(agent->undo.domid, agent->domid) == 0;
    int error = memory_release_hotplug(&agent->memory, &agent->undo);

    if (!error)
        error = memory_release_balloon(&agent->memory, &agent->undo, here);
    memory_let_go(&agent->memory);
    if (!error)
        return true;
    log_error("the guest cannot be thawed from here; the journal stays, for --thaw");
    agent->lost = true;
    agent->settings.lost(agent->settings.context);
    return false;
}

/* Hooks that hang do not keep the guest's memory from being free again. */
static void action_release_memory(struct agent *agent)
{
    if (agent_release_memory(agent))
        log_warning("hooks have not ended after %d ms; memory is free again, they go on", AGENT_HOOKS_FIRST_MS);
}

static void action_finish(struct agent *agent)
{
    if (!agent_release_memory(agent))
        return;
    int error = undo_remove(agent->settings.run);
    if (error)
        log_error("removing the journal failed: %s", strerror(-error));
    int64_t lasted_ms = clock_now_ms() - agent->since_ms;
    if (agent->seq)
        agent->ended = agent->seq;
    if (!agent->seq) { /* a journal that could not be read; the node tells, when it can be read */
        log_notice("thawed after %" PRId64 " ms: %s", lasted_ms, agent->why);
        agent->introduced = false;
    } else if (*agent->refusal) {
        log_notice("refused SEQ %" PRIu32 " after %" PRId64 " ms: %s", agent->seq, lasted_ms, agent->refusal);
        agent_answer(agent, P2MG_ANSWER_REFUSED, agent->seq);
    } else {
        log_notice("thawed SEQ %" PRIu32 " after %" PRId64 " ms: %s", agent->seq, lasted_ms, agent->why);
        agent_answer(agent, P2MG_ANSWER_THAWED, agent->seq);
    }
    if (agent->stopping)
        agent_post(agent, AGENT_ON_STOP);
    else
        talk_look(agent->talk); /* there may be another freeze by now */
}

static void agent_quit_when_quiet(struct agent *agent)
{
    if (agent->quitting && talk_is_quiet(agent->talk))
        agent->settings.over(agent->settings.context);
}

static void action_quit(struct agent *agent)
{
    talk_publish(agent->talk, NULL);
    agent->quitting = true;
    timer_arm(agent->farewell, AGENT_LAST_WORDS_MS);
    agent_quit_when_quiet(agent);
}

/* ---- the table ---- */

#define IF(guard) guard_##guard, #guard
#define ALWAYS NULL, NULL
#define DO(action) action_##action, #action
#define IGNORE(step, event)                                                                                            \
    {                                                                                                                  \
        step, event, ALWAYS, DO(ignore), step                                                                          \
    }

/* The first row that fits counts; there is one for every event in every step. */
static const struct agent_rule {
    enum agent_step step;
    enum agent_event event;
    bool (*guard)(const struct agent *agent);
    const char *guard_name;
    void (*action)(struct agent *agent);
    const char *action_name;
    enum agent_step next;
} agent_rules[] = {
    {AGENT_STARTING, AGENT_ON_FREEZE, ALWAYS, DO(recover), AGENT_THAWING},
    {AGENT_STARTING, AGENT_ON_SAME, ALWAYS, DO(recover), AGENT_THAWING},
    {AGENT_STARTING, AGENT_ON_RELEASE, ALWAYS, DO(recover), AGENT_THAWING},
    {AGENT_STARTING, AGENT_ON_LEASE, ALWAYS, DO(recover), AGENT_THAWING},
    {AGENT_STARTING, AGENT_ON_TICK, ALWAYS, DO(recover), AGENT_THAWING},
    IGNORE(AGENT_STARTING, AGENT_ON_STOP), /* finishing ends the program then */
    IGNORE(AGENT_STARTING, AGENT_ON_STILL),
    IGNORE(AGENT_STARTING, AGENT_ON_DISTURBED),
    IGNORE(AGENT_STARTING, AGENT_ON_HOOKS),
    IGNORE(AGENT_STARTING, AGENT_ON_FAILED),

    {AGENT_THAWED, AGENT_ON_FREEZE, ALWAYS, DO(begin), AGENT_SETTLING},
    {AGENT_THAWED, AGENT_ON_STOP, ALWAYS, DO(quit), AGENT_THAWED},
    IGNORE(AGENT_THAWED, AGENT_ON_SAME),
    IGNORE(AGENT_THAWED, AGENT_ON_RELEASE),
    IGNORE(AGENT_THAWED, AGENT_ON_LEASE),
    IGNORE(AGENT_THAWED, AGENT_ON_TICK),
    IGNORE(AGENT_THAWED, AGENT_ON_STILL),
    IGNORE(AGENT_THAWED, AGENT_ON_DISTURBED),
    IGNORE(AGENT_THAWED, AGENT_ON_HOOKS),
    IGNORE(AGENT_THAWED, AGENT_ON_FAILED),

    {AGENT_SETTLING, AGENT_ON_TICK, ALWAYS, DO(look_settling), AGENT_SETTLING},
    {AGENT_SETTLING, AGENT_ON_STILL, IF(hooked), DO(say_frozen), AGENT_FROZEN},
    {AGENT_SETTLING, AGENT_ON_STILL, ALWAYS, DO(run_hooks), AGENT_HOOKING},
    {AGENT_SETTLING, AGENT_ON_DISTURBED, ALWAYS, DO(ask), AGENT_ASKING},
    {AGENT_SETTLING, AGENT_ON_FREEZE, ALWAYS, DO(adopt), AGENT_SETTLING},
    IGNORE(AGENT_SETTLING, AGENT_ON_SAME),
    IGNORE(AGENT_SETTLING, AGENT_ON_HOOKS),

    {AGENT_HOOKING, AGENT_ON_HOOKS, ALWAYS, DO(settle_again), AGENT_SETTLING},
    {AGENT_HOOKING, AGENT_ON_FREEZE, ALWAYS, DO(adopt), AGENT_HOOKING},
    IGNORE(AGENT_HOOKING, AGENT_ON_SAME),
    IGNORE(AGENT_HOOKING, AGENT_ON_TICK), /* what the balloon driver does meanwhile is seen when they have ended */
    IGNORE(AGENT_HOOKING, AGENT_ON_STILL),
    IGNORE(AGENT_HOOKING, AGENT_ON_DISTURBED),

    {AGENT_FROZEN, AGENT_ON_TICK, ALWAYS, DO(look), AGENT_FROZEN},
    {AGENT_FROZEN, AGENT_ON_DISTURBED, ALWAYS, DO(ask_first), AGENT_ASKING},
    {AGENT_FROZEN, AGENT_ON_FREEZE, ALWAYS, DO(adopt), AGENT_SETTLING},
    IGNORE(AGENT_FROZEN, AGENT_ON_SAME),
    IGNORE(AGENT_FROZEN, AGENT_ON_STILL),
    IGNORE(AGENT_FROZEN, AGENT_ON_HOOKS),

    {AGENT_ASKING, AGENT_ON_SAME, ALWAYS, DO(put_back), AGENT_SETTLING},
    {AGENT_ASKING, AGENT_ON_FREEZE, ALWAYS, DO(adopt_put_back), AGENT_SETTLING},
    IGNORE(AGENT_ASKING, AGENT_ON_TICK),
    IGNORE(AGENT_ASKING, AGENT_ON_STILL),
    IGNORE(AGENT_ASKING, AGENT_ON_DISTURBED),
    IGNORE(AGENT_ASKING, AGENT_ON_HOOKS),

    {AGENT_THAWING, AGENT_ON_TICK, ALWAYS, DO(release_memory), AGENT_THAWING},
    {AGENT_THAWING, AGENT_ON_HOOKS, ALWAYS, DO(finish), AGENT_THAWED},
    IGNORE(AGENT_THAWING, AGENT_ON_FREEZE), /* looked at when this one has ended */
    IGNORE(AGENT_THAWING, AGENT_ON_SAME),
    IGNORE(AGENT_THAWING, AGENT_ON_RELEASE),
    IGNORE(AGENT_THAWING, AGENT_ON_LEASE),
    IGNORE(AGENT_THAWING, AGENT_ON_STILL),
    IGNORE(AGENT_THAWING, AGENT_ON_DISTURBED),
    IGNORE(AGENT_THAWING, AGENT_ON_FAILED),
    IGNORE(AGENT_THAWING, AGENT_ON_STOP),

/* Every freeze ends alike. */
#define WHILE_FREEZING(step)                                                                                           \
    {step, AGENT_ON_RELEASE, ALWAYS, DO(thaw), AGENT_THAWING},                                                         \
        {step, AGENT_ON_LEASE, ALWAYS, DO(thaw), AGENT_THAWING},                                                       \
        {step, AGENT_ON_STOP, ALWAYS, DO(thaw), AGENT_THAWING},                                                        \
    {                                                                                                                  \
        step, AGENT_ON_FAILED, ALWAYS, DO(refuse), AGENT_THAWING                                                       \
    }
    WHILE_FREEZING(AGENT_SETTLING),
    WHILE_FREEZING(AGENT_HOOKING),
    WHILE_FREEZING(AGENT_FROZEN),
    WHILE_FREEZING(AGENT_ASKING),
};

#define AGENT_RULES (sizeof(agent_rules) / sizeof(agent_rules[0]))

static const struct agent_rule *agent_find_rule(const struct agent *agent, enum agent_event event)
{
    for (size_t i = 0; i < AGENT_RULES; i++) {
        const struct agent_rule *rule = &agent_rules[i];
        if (rule->step == agent->step && rule->event == event && (!rule->guard || rule->guard(agent)))
            return rule;
    }
    return NULL;
}

size_t agent_rule_count(void)
{
    return AGENT_RULES;
}

struct agent_rule_view agent_rule_at(size_t index)
{
    const struct agent_rule *rule = &agent_rules[index];

    return (struct agent_rule_view){rule->step, rule->event, rule->guard_name, rule->action_name, rule->next};
}

/* ---- the clock ---- */

/*
 * A lease is counted by CLOCK_BOOTTIME, which goes on while the guest is suspended: dom0 counts real time, too, and a
 * guest that wakes up after a long sleep is not to hold still for a migration that is long over. libevent's timers
 * stand still meanwhile, which is why the lease is looked at this often and not waited for in one go.
 */
static int64_t agent_delay_ms(const struct agent *agent)
{
    const struct undo *undo = &agent->undo;
    int64_t now_ms = clock_now_ms(), until_ms = now_ms;

    switch (agent->step) {
    case AGENT_THAWED:
    case AGENT_STEP_COUNT:
        return -1;
    case AGENT_THAWING:
        if (!undo->balloon && !undo->balloon_covered && !undo->hotplug && !undo->hotplug_covered)
            return -1; /* the hooks are all that is waited for */
        until_ms = agent->limit_ms;
        break;
    case AGENT_STARTING:
        until_ms = agent->limit_ms;
        break;
    case AGENT_SETTLING:
        until_ms = now_ms + AGENT_SETTLE_LOOK_MS;
        break;
    case AGENT_HOOKING:
    case AGENT_FROZEN:
    case AGENT_ASKING:
        until_ms = now_ms + AGENT_LOOK_MS;
        if (agent->lease_until_ms < until_ms)
            until_ms = agent->lease_until_ms;
        break;
    }
    return until_ms > now_ms ? until_ms - now_ms : 0;
}

static void agent_wind(struct agent *agent)
{
    int64_t delay_ms = agent_delay_ms(agent);

    event_del(agent->tick);
    if (delay_ms >= 0 && timer_arm(agent->tick, delay_ms))
        log_error("out of memory for a timer");
}

static void agent_step_to(struct agent *agent, enum agent_event event)
{
    const struct agent_rule *rule = agent_find_rule(agent, event);

    if (!rule)
        return;
    enum agent_step before = agent->step;
    agent->has_posted = false;
    rule->action(agent);
    agent->step = rule->next;
    if (agent->step != before || event == AGENT_ON_TICK)
        agent_wind(agent);
}

static void agent_handle(struct agent *agent, enum agent_event event)
{
    if (agent->lost)
        return;
    agent_step_to(agent, event);
    while (agent->has_posted)
        agent_step_to(agent, agent->posted);
}

static void agent_on_tick(evutil_socket_t fd, short what, void *context)
{
    struct agent *agent = context;
    (void)fd, (void)what;

    if (agent_is_freezing(agent) && clock_now_ms() >= agent->lease_until_ms) {
        agent->why = "the lease has ended";
        agent_handle(agent, AGENT_ON_LEASE);
    } else {
        agent_handle(agent, AGENT_ON_TICK);
    }
}

static void agent_on_hooks(void *context, const char *why)
{
    struct agent *agent = context;

    if (why && agent->step == AGENT_HOOKING) {
        snprintf(agent->refusal, sizeof(agent->refusal), "%s", why);
        agent_handle(agent, AGENT_ON_FAILED);
    } else {
        agent_handle(agent, AGENT_ON_HOOKS);
    }
}

/* ---- what dom0 says ---- */

/* A SEQ that an earlier agent has answered is over, and one that it was at work on is thawed: nothing is changed now.
 */
static void agent_introduce(struct agent *agent, const struct talk_look *look)
{
    struct p2mg_answer answer;

    agent->introduced = true;
    if (!*look->state || p2mg_answer_parse(look->state, strlen(look->state), &answer))
        return;
    agent->ended = answer.seq;
    if (answer.kind == P2MG_ANSWER_FROZEN || answer.kind == P2MG_ANSWER_BUSY)
        agent_answer(agent, P2MG_ANSWER_THAWED, answer.seq);
    else
        talk_answer(agent->talk, look->state);
}

/* A journal that could not be read does not have its SEQ; our own node has. */
static void agent_complete_journal(struct agent *agent, const struct talk_look *look)
{
    struct p2mg_answer answer;

    if (!agent->undo.seq && *look->state && p2mg_answer_parse(look->state, strlen(look->state), &answer) == 0)
        agent->undo.seq = answer.seq;
}

static enum agent_event agent_classify_freeze(struct agent *agent, const struct talk_look *look)
{
    uint32_t seq = agent->request.seq;

    agent->read_ms = look->read_ms;
    if (seq == agent->ended && !agent_is_freezing(agent))
        return AGENT_ON_RELEASE;
    if (!agent_is_freezing(agent) || seq != agent->seq)
        return seq == agent->ended ? AGENT_ON_RELEASE : AGENT_ON_FREEZE;
    if (look->read_ms >= agent->lease_until_ms) {
        agent->why = "the lease has ended";
        return AGENT_ON_LEASE;
    }
    /* Only what dom0 has written again, and not every look at it, says that it is alive. */
    if (look->asked)
        agent->lease_until_ms = look->read_ms + (int64_t)agent->request.lease_s * 1000;
    return AGENT_ON_SAME;
}

/* Who sees only the thaw of a freeze that came and went is told that it is thawed. */
static void agent_answer_idle(struct agent *agent, const struct talk_look *look)
{
    if (agent->step != AGENT_THAWED || !look->asked || agent->stopping || agent->request.seq == agent->ended)
        return;
    agent->ended = agent->request.seq;
    agent_answer(agent, P2MG_ANSWER_THAWED, agent->ended);
}

static enum agent_event agent_classify(struct agent *agent, const struct talk_look *look)
{
    if (look->moved && agent->step != AGENT_THAWED) {
        agent->why = "this is another domain now";
        return AGENT_ON_RELEASE;
    }
    if (look->error && look->error != -EMSGSIZE) {
        agent->why = "the request is gone";
        return AGENT_ON_RELEASE;
    }
    if (look->error || p2mg_request_parse(look->request, strlen(look->request), &agent->request)) {
        log_warning("the request cannot be understood; it counts as none");
        agent->why = "the request cannot be understood";
        return AGENT_ON_RELEASE;
    }
    if (agent->request.kind == P2MG_REQUEST_FREEZE) {
        agent->why = "another request has come in its place";
        return agent_classify_freeze(agent, look);
    }
    agent_answer_idle(agent, look);
    agent->why = "dom0 has asked for it";
    return AGENT_ON_RELEASE;
}

static void agent_on_looked(void *context, const struct talk_look *look)
{
    struct agent *agent = context;

    if (agent->quitting)
        return;
    strcpy(agent->domid, look->domid);
    agent_publish(agent);
    if (agent->step == AGENT_STARTING)
        agent_complete_journal(agent, look);
    else if (!agent->introduced && agent->step == AGENT_THAWED)
        agent_introduce(agent, look);
    /* An xenstored that has no memory or the like has not said that anything has changed. */
    if (look->error && look->error != -ENOENT && look->error != -EACCES && look->error != -EMSGSIZE && !look->moved)
        return;
    const char *why = agent->why;
    enum agent_event event = agent_classify(agent, look);
    if (agent->step == AGENT_THAWING || agent->step == AGENT_STARTING)
        agent->why = why;
    bool stale = agent->step == AGENT_ASKING && (int)(look->number - agent->awaited) < 0;
    if (stale && (event == AGENT_ON_SAME || event == AGENT_ON_FREEZE))
        return;
    if (!agent->stopping || event != AGENT_ON_FREEZE)
        agent_handle(agent, event);
}

static void agent_on_quiet(void *context)
{
    struct agent *agent = context;

    agent_quit_when_quiet(agent);
    if (agent->step == AGENT_THAWED && !agent->quitting && !agent->lost)
        agent->settings.idle(agent->settings.context);
}

static void agent_on_farewell(evutil_socket_t fd, short what, void *context)
{
    struct agent *agent = context;
    (void)fd, (void)what;

    log_warning("xenstore does not answer; dom0 is not told that the agent ends");
    agent->settings.over(agent->settings.context);
}

/* ---- life ---- */

void agent_stop(struct agent *agent)
{
    if (agent->stopping)
        return;
    agent->stopping = true;
    if (agent_is_freezing(agent))
        agent->why = "the agent is to end";
    agent_handle(agent, AGENT_ON_STOP);
}

static int agent_start(struct agent *agent)
{
    int error = undo_load(agent->settings.run, &agent->undo);

    agent->step = AGENT_THAWED;
    if (error == -ENOENT)
        return 0;
    if (error) {
        log_error("reading the journal in %s failed: %s", agent->settings.run, strerror(-error));
        return error;
    }
    agent->step = AGENT_STARTING;
    agent->limit_ms = clock_now_ms() + AGENT_START_MS;
    agent_wind(agent);
    return 0;
}

static int agent_set_up(struct agent *agent, struct event_base *base)
{
    const struct agent_settings *settings = &agent->settings;
    struct hooks_settings hooks = {.folder = settings->hooks,
                                   .run = settings->run,
                                   .limit_ms = settings->hook_limit_ms,
                                   .done = agent_on_hooks,
                                   .context = agent};
    struct memory_settings memory = {.sysfs = settings->sysfs, .run = settings->run, .socket = settings->sysfs_socket};
    struct talk_callbacks talk = {.looked = agent_on_looked, .quiet = agent_on_quiet, .context = agent};

    int error = memory_init(&agent->memory, &memory);
    if (error) {
        log_error("%s cannot be used: %s", settings->sysfs, strerror(-error));
        return error;
    }
    agent->tick = evtimer_new(base, agent_on_tick, agent);
    agent->farewell = evtimer_new(base, agent_on_farewell, agent);
    if (!agent->tick || !agent->farewell)
        return -ENOMEM;
    error = hooks_new(&agent->hooks, base, &hooks);
    if (!error)
        error = talk_new(&agent->talk, base, &talk);
    return error ? error : agent_start(agent);
}

int agent_new(struct agent **result, struct event_base *base, const struct agent_settings *settings)
{
    struct agent *agent = calloc(1, sizeof(*agent));

    if (!agent)
        return -ENOMEM;
    agent->settings = *settings;
    agent->why = "";
    int error = agent_set_up(agent, base);
    if (error) {
        agent_free(agent);
        return error;
    }
    *result = agent;
    return 0;
}

void agent_free(struct agent *agent)
{
    if (!agent)
        return;
    /* What the worker's thread still has in hand must stay where it is. */
    if (!talk_free(agent->talk, AGENT_GRACE_MS))
        return;
    memory_let_go(&agent->memory);
    hooks_free(agent->hooks);
    timer_free(agent->tick);
    timer_free(agent->farewell);
    free(agent);
}
