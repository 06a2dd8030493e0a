/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/audit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/timer.h"

/* Of a peer's own words: as much as any name of a domain that somebody would want to read has. */
#define AUDIT_WORDS_MAX 65

/* The refusals of one uid since a moment; free when that is AUDIT_WINDOW_MS ago and nothing is left to be told. */
struct audit_window {
    uid_t uid;
    int64_t since_ms; /* 0 = free */
    unsigned written, kept_back;
};

struct audit {
    struct audit_window windows[AUDIT_UIDS + 1]; /* the last one is for the uids beyond those */
    struct event *timer;
};

/* Nothing of what a peer says may look like a line of ours, nor do anything to a terminal. */
static const char *audit_words(char words[AUDIT_WORDS_MAX], const char *text)
{
    size_t length = 0;

    for (; text && text[length] && length < AUDIT_WORDS_MAX - 1; length++) {
        char c = text[length];
        words[length] = c > ' ' && c < 0x7f && c != '\'' ? c : '?';
    }
    words[length] = '\0';
    return words;
}

void audit_write(const struct audit_entry *entry)
{
    char domain[AUDIT_WORDS_MAX], session[AUDIT_WORDS_MAX], who[64] = "a node in xenstore", whom[160] = "";
    char fields[6][96];
    const char *list[7] = {"MESSAGE_ID=" AUDIT_MESSAGE_ID};
    struct log_subject subject = {.domid = entry->domid, .session = NULL};
    size_t count = 1;

    audit_words(domain, entry->domain);
    audit_words(session, entry->session);
    if (*session)
        subject.session = session;
    snprintf(fields[count], sizeof(fields[0]), "AUDIT=%s", entry->outcome), count++;
    snprintf(fields[count], sizeof(fields[0]), "METHOD=%s", entry->method), count++;
    if (*domain)
        snprintf(fields[count], sizeof(fields[0]), "DOMAIN=%s", domain), count++;
    if (!entry->xenstore) {
        snprintf(fields[count], sizeof(fields[0]), "CALLER_PID=%d", (int)entry->pid), count++;
        snprintf(fields[count], sizeof(fields[0]), "CALLER_UID=%u", (unsigned)entry->uid), count++;
        snprintf(who, sizeof(who), "pid %d, uid %u", (int)entry->pid, (unsigned)entry->uid);
    }
    for (size_t i = 1; i < count; i++)
        list[i] = fields[i];
    list[count] = NULL;
    if (entry->domid)
        snprintf(whom, sizeof(whom), ", domain %d", entry->domid);
    else if (*domain)
        snprintf(whom, sizeof(whom), ", domain '%s'", domain);
    if (*session)
        snprintf(whom + strlen(whom), sizeof(whom) - strlen(whom), ", session '%s'", session);
    log_always(LOG_NOTICE, &subject, list, "audit: %s %s to %s%s", entry->method, entry->outcome, who, whom);
}

/* ---- refusals ---- */

static void audit_tell_kept_back(struct audit_window *window, bool others)
{
    char kept_back[32], uid[32];
    const char *list[] = {"MESSAGE_ID=" AUDIT_MESSAGE_ID, "AUDIT=refused", kept_back, others ? NULL : uid, NULL};

    snprintf(kept_back, sizeof(kept_back), "KEPT_BACK=%u", window->kept_back);
    snprintf(uid, sizeof(uid), "CALLER_UID=%u", (unsigned)window->uid);
    if (others)
        log_always(LOG_WARNING, NULL, list, "audit: %u more were refused to other uids", window->kept_back);
    else
        log_always(LOG_WARNING, NULL, list, "audit: %u more were refused to uid %u", window->kept_back,
                   (unsigned)window->uid);
}

/* Ends the windows that are over, and comes again for the one that is over next and has something to tell. */
static void audit_sweep(struct audit *audit, bool all)
{
    int64_t now_ms = clock_now_ms(), next_ms = INT64_MAX;

    for (size_t i = 0; i <= AUDIT_UIDS; i++) {
        struct audit_window *window = &audit->windows[i];
        int64_t end_ms = window->since_ms + AUDIT_WINDOW_MS;
        if (!window->since_ms)
            continue;
        if (!all && end_ms > now_ms) {
            if (window->kept_back && end_ms < next_ms)
                next_ms = end_ms;
            continue;
        }
        if (window->kept_back)
            audit_tell_kept_back(window, i == AUDIT_UIDS);
        memset(window, 0, sizeof(*window));
    }
    if (!all && next_ms != INT64_MAX && timer_arm(audit->timer, next_ms - now_ms) < 0)
        log_error("out of memory for a timer; refusals are told of with the next one");
}

static void audit_on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    audit_sweep(context, false);
}

static struct audit_window *audit_find_window(struct audit *audit, uid_t uid)
{
    struct audit_window *window = NULL;

    for (size_t i = 0; i < AUDIT_UIDS; i++) {
        if (audit->windows[i].since_ms && audit->windows[i].uid == uid)
            return &audit->windows[i];
        if (!audit->windows[i].since_ms && !window)
            window = &audit->windows[i];
    }
    if (!window)
        window = &audit->windows[AUDIT_UIDS];
    if (!window->since_ms)
        *window = (struct audit_window){.uid = uid, .since_ms = clock_now_ms()};
    return window;
}

void audit_write_refusal(struct audit *audit, const struct audit_entry *entry)
{
    audit_sweep(audit, false);
    struct audit_window *window = audit_find_window(audit, entry->uid);

    if (window->written < AUDIT_BURST) {
        window->written++;
        audit_write(entry);
        return;
    }
    if (++window->kept_back == 1)
        audit_sweep(audit, false); /* for the timer */
}

/* ---- life ---- */

int audit_new(struct audit **result, struct event_base *base)
{
    struct audit *audit = calloc(1, sizeof(*audit));

    if (!audit)
        return -ENOMEM;
    audit->timer = evtimer_new(base, audit_on_timer, audit);
    if (!audit->timer) {
        free(audit);
        return -ENOMEM;
    }
    *result = audit;
    return 0;
}

void audit_free(struct audit *audit)
{
    if (!audit)
        return;
    audit_sweep(audit, true);
    timer_free(audit->timer);
    free(audit);
}
