/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The session: begun, adopted or borrowed, and what is left of it for the next attempt. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/save-helper/save-helper.h"
#include "daemon/clock.h"

#define HOLD_CALLER "save-helper"

/* A session that is in our way may end before we have it, and another one begin. */
#define HOLD_TRIES 3

/* The daemon answers sooner, or says that it cannot; freezing has a time limit of its own. */
#define HOLD_ANSWER_MS 15000

/* For how long a guest may be on its way to its target, how often that is looked at, and when it is there in any case:
 * one whose distance from its target nobody knows has arrived when it stands still. */
#define HOLD_ARRIVE_MS 30000
#define HOLD_LOOK_MS 200
#define HOLD_STILL_MS 3000

/* By this much libxl lets a new domain be larger than its target. */
#define HOLD_ROOM_KIB 1024

/* libxl has called the save off, or is gone: its end of our standard input is closed then. */
static bool hold_called_off(const struct pollfd *fds)
{
    return (fds[0].revents & POLLIN) || (fds[1].revents & (POLLHUP | POLLERR));
}

/* Waits for a request's answer, or for libxl to call it off: 1 and the record, an error, or -ECANCELED. */
static int hold_wait(struct helper *helper, int64_t request, struct p2mguard_record **record)
{
    if (request < 0)
        return (int)request;
    for (;;) {
        int status = p2mguard_reply(helper->guard, request, record);
        if (status)
            return status;
        struct pollfd fds[] = {{helper->signals, POLLIN, 0},
                               {STDIN_FILENO, 0, 0},
                               {p2mguard_fd(helper->guard), p2mguard_poll_events(helper->guard), 0}};
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return -errno;
        if (hold_called_off(fds))
            return -ECANCELED;
        p2mguard_dispatch(helper->guard); /* what is wrong with it, the next look at the answer tells */
    }
}

/* A request with these members; format as printf's. */
static int hold_ask(struct helper *helper, struct p2mguard_record **record, const char *method, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static int hold_ask(struct helper *helper, struct p2mguard_record **record, const char *method, const char *format, ...)
{
    char params[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(params, sizeof(params), format, arguments);
    va_end(arguments);
    return hold_wait(helper, p2mguard_send(helper->guard, method, params), record);
}

static bool hold_is(const struct p2mguard_record *record, const char *member, const char *word)
{
    const char *text = p2mguard_record_text(record, member);

    return text && strcmp(text, word) == 0;
}

/* The answer to a request that concerns our session is that session, whose name is needed from now on. */
static bool hold_keep_name(struct helper *helper, const struct p2mguard_record *record)
{
    const char *name = p2mguard_record_text(record, "session");

    if (!name || strlen(name) >= sizeof(helper->session))
        return false;
    strcpy(helper->session, name);
    return true;
}

/* ---- a toolstack that sends what it was asked for itself ---- */

/*
 * Such a one, libvirt, does not read the target from xenstore, where the pin is while a guest is held: for it a guest
 * that is held half-way to its target never fits. But it takes no new wishes while it migrates, so that the guest can
 * be let go until it has arrived, and be held there. A smaller one fits as well.
 */
static bool hold_has_room(const struct p2mguard_record *record, const char *target)
{
    int64_t tot_kib, target_kib, offset_kib = HOLD_ROOM_KIB;

    if (!p2mguard_record_number(record, "tot_kib", &tot_kib) || !p2mguard_record_number(record, target, &target_kib))
        return true; /* nobody gives it targets */
    p2mguard_record_number(record, "offset_kib", &offset_kib);
    return tot_kib <= target_kib + offset_kib;
}

/* Waits that long, or until libxl calls the save off. */
static int hold_pause(struct helper *helper)
{
    struct pollfd fds[] = {{helper->signals, POLLIN, 0}, {STDIN_FILENO, 0, 0}};

    if (poll(fds, 2, HOLD_LOOK_MS) < 0 && errno != EINTR)
        return -errno;
    return hold_called_off(fds) ? -ECANCELED : 1;
}

struct hold_arrival {
    int64_t tot_kib, target_kib;
    int64_t still_ms; /* since when it has this size */
};

/* What is known of the domain, some time after the last look at it. */
static bool hold_has_arrived(struct hold_arrival *arrival, const struct p2mguard_record *domain, int64_t now_ms)
{
    int64_t tot_kib = 0;

    p2mguard_record_number(domain, "tot_kib", &tot_kib);
    p2mguard_record_number(domain, "target_kib", &arrival->target_kib);
    if (tot_kib != arrival->tot_kib)
        arrival->still_ms = now_ms;
    arrival->tot_kib = tot_kib;
    return hold_has_room(domain, "target_kib") || now_ms - arrival->still_ms >= HOLD_STILL_MS;
}

/* 1 when the guest has arrived, or an error. */
static int hold_await_arrival(struct helper *helper, struct hold_arrival *arrival)
{
    int64_t start_ms = clock_now_ms();

    for (;;) {
        struct p2mguard_record *record = NULL;
        int status = hold_ask(helper, &record, "domain.show", "{\"domain\":%u}", helper->domid);
        int64_t now_ms = clock_now_ms();
        bool arrived = status > 0 && hold_has_arrived(arrival, record, now_ms);
        p2mguard_record_free(record);
        if (status <= 0 || arrived)
            return status;
        if (now_ms - start_ms >= HOLD_ARRIVE_MS) {
            helper_say(helper, SAY_ERROR, "retry: domain %u is still on its way to its target; start again later",
                       helper->domid);
            return -EAGAIN;
        }
        status = hold_pause(helper);
        if (status <= 0)
            return status;
    }
}

/* It goes nowhere but to its target, so that it fits as long as that has not become smaller. */
static bool hold_keeps_room(struct helper *helper, const struct p2mguard_record *session,
                            const struct hold_arrival *arrival)
{
    int64_t target_kib;

    if (!p2mguard_record_number(session, "target_kib", &target_kib) || target_kib >= arrival->target_kib)
        return true;
    helper_say(helper, SAY_ERROR, "retry: the target of domain %u has become smaller since; start again",
               helper->domid);
    return false;
}

/* ---- somebody guards the domain already ---- */

/* What an earlier attempt of ours has left: it is held until its grace is over, and settles once more. */
static int hold_adopt(struct helper *helper)
{
    struct p2mguard_record *record = NULL;
    int status = hold_ask(helper, &record, "guard.adopt", "{\"session\":\"%s\"}", helper->session);
    bool fits = status <= 0 || helper->sent == SENT_STORE || hold_has_room(record, "wanted_target_kib");

    p2mguard_record_free(record);
    record = NULL;
    if (!fits) {
        helper->mine = true;
        hold_end(helper, HOLD_END_CANCELLED);
        return P2MGUARD_E_NO_SUCH_SESSION;
    }
    if (status > 0)
        status = hold_ask(helper, &record, "guard.retry", "{\"session\":\"%s\"}", helper->session);
    p2mguard_record_free(record);
    helper->mine = status > 0;
    return status;
}

/* Somebody else's, p2mguardctl's for instance: it is asked for verdicts, and not ended. */
static int hold_borrow(struct helper *helper)
{
    struct p2mguard_record *record = NULL;
    int status = hold_ask(helper, &record, "guard.verdict", "{\"session\":\"%s\"}", helper->session);

    if (status > 0 && !hold_is(record, "verdict", "proceed")) {
        helper_say(helper, SAY_ERROR, "domain %u is guarded by somebody else, and not held: %s", helper->domid,
                   p2mguard_record_text(record, "text"));
        status = P2MGUARD_E_NOT_HELD;
    }
    p2mguard_record_free(record);
    return status;
}

static int hold_take_over(struct helper *helper)
{
    struct p2mguard_record *list;
    bool found = false, left = false;
    int64_t domid;
    int status = p2mguard_list(helper->guard, &list);

    if (status)
        return status;
    for (size_t i = 0; i < p2mguard_record_count(list) && !found; i++) {
        const struct p2mguard_record *session = p2mguard_record_at(list, i);
        found = p2mguard_record_number(session, "domid", &domid) && domid == helper->domid &&
                hold_keep_name(helper, session);
        left = found && hold_is(session, "owner.caller", HOLD_CALLER) && hold_is(session, "hold", "retry");
    }
    p2mguard_record_free(list);
    if (!found)
        return P2MGUARD_E_NO_SUCH_SESSION;
    return left ? hold_adopt(helper) : hold_borrow(helper);
}

/* ---- a new session ---- */

/*
 * The toolstack has read the target for the new domain's configuration, and sent it, before we were started; the new
 * domain gets no more memory than that. A guest that was on its way to another size then, or whose target has changed
 * since, does not fit into it.
 */
static bool hold_fits_configuration(struct helper *helper, const struct p2mguard_record *session)
{
    int64_t target_kib, pin_kib, steady_ms;

    if (!p2mguard_record_number(session, "target_kib", &target_kib) ||
        !p2mguard_record_number(session, "pin_kib", &pin_kib) ||
        !p2mguard_record_number(session, "target_steady_ms", &steady_ms))
        return true; /* an older daemon, or a weaker hold: it is as it was without us */
    if (target_kib != pin_kib)
        helper_say(helper, SAY_ERROR,
                   "retry: domain %u was on its way to another size (%" PRId64 " KiB; its target is %" PRId64
                   " KiB), and the configuration that was sent is of before; it is held now, start again",
                   helper->domid, pin_kib, target_kib);
    else if (steady_ms < helper->steady_ms)
        helper_say(helper, SAY_ERROR,
                   "retry: the target of domain %u has changed within the last %" PRId64
                   " ms, and the configuration that was sent may be of before; the guest is held now, start again",
                   helper->domid, helper->steady_ms);
    return target_kib == pin_kib && steady_ms >= helper->steady_ms;
}

static int hold_start(struct helper *helper)
{
    struct p2mguard_record *record = NULL;
    struct hold_arrival arrival = {.target_kib = 0};
    int status = helper->sent == SENT_STORE ? 1 : hold_await_arrival(helper, &arrival);

    if (status > 0)
        status = hold_ask(helper, &record, "guard.begin",
                          "{\"domain\":%u,\"wait\":true,\"caller\":\"" HOLD_CALLER "\"}", helper->domid);
    helper->mine = status > 0;
    if (status > 0 && !hold_keep_name(helper, record))
        status = -EPROTO;
    bool fits = status <= 0 || (helper->sent == SENT_STORE ? hold_fits_configuration(helper, record)
                                                           : hold_keeps_room(helper, record, &arrival));
    if (!fits) {
        hold_end(helper, helper->sent == SENT_STORE ? HOLD_END_RETRY : HOLD_END_CANCELLED);
        status = -EAGAIN;
    }
    p2mguard_record_free(record);
    return status;
}

/* ---- from outside ---- */

/* What went wrong is no fault of the guest's: the policy says whether it is saved all the same. */
static enum hold_result hold_do_without(struct helper *helper, const char *why)
{
    helper_say(helper, helper->strict ? SAY_ERROR : SAY_WARNING, "domain %u is %s: %s", helper->domid,
               helper->strict ? "not saved, for nobody guards it" : "saved without a guard", why);
    p2mguard_close(helper->guard);
    helper->guard = NULL;
    return helper->strict ? HOLD_REFUSED : HOLD_UNGUARDED;
}

enum hold_result hold_begin(struct helper *helper)
{
    int status = p2mguard_connect(&helper->guard, helper->control);

    if (status)
        return hold_do_without(helper, status == -ENOENT || status == -ECONNREFUSED ? "p2mguardd does not run"
                                                                                    : strerror(-status));
    struct p2mguard_record *record = NULL;
    status = hold_ask(helper, &record, "events.subscribe", "{}");
    p2mguard_record_free(record);
    for (int i = 0; status > 0 && i < HOLD_TRIES; i++) {
        status = hold_start(helper);
        if (status != P2MGUARD_E_BUSY || (status = hold_take_over(helper)) != P2MGUARD_E_NO_SUCH_SESSION)
            break;
        status = 1; /* the one that was there has just ended */
    }
    if (status > 0)
        return HOLD_HELD;
    if (status == -ECANCELED || status == -EAGAIN)
        return HOLD_REFUSED;
    if (status != P2MGUARD_E_NOT_HELD && status != P2MGUARD_E_LIMIT)
        return hold_do_without(helper, p2mguard_error_text(helper->guard));
    helper_say(helper, SAY_ERROR, "domain %u is not saved: %s", helper->domid, p2mguard_error_text(helper->guard));
    return HOLD_REFUSED;
}

void hold_end(struct helper *helper, enum hold_end end)
{
    static const struct {
        const char *method, *member, *word;
    } requests[] = {
        [HOLD_END_SAVED] = {"guard.adopt", "hold", "suspended"},
        [HOLD_END_RETRY] = {"guard.adopt", "hold", "retry"},
        [HOLD_END_FAILED] = {"guard.end", "outcome", "failed"},
        [HOLD_END_CANCELLED] = {"guard.end", "outcome", "cancelled"},
    };
    struct p2mguard_record *record = NULL;
    char params[128];

    if (!helper->guard || !helper->mine)
        return;
    helper->mine = false;
    snprintf(params, sizeof(params), "{\"session\":\"%s\",\"%s\":\"%s\"}", helper->session, requests[end].member,
             requests[end].word);
    int64_t request = p2mguard_send(helper->guard, requests[end].method, params);
    /* libxl may have gone, which is no reason not to wait. */
    while (request > 0 && p2mguard_reply(helper->guard, request, &record) == 0) {
        struct pollfd fd = {p2mguard_fd(helper->guard), p2mguard_poll_events(helper->guard), 0};
        if (poll(&fd, 1, HOLD_ANSWER_MS) == 0)
            break;
        p2mguard_dispatch(helper->guard);
    }
    p2mguard_record_free(record);
}
