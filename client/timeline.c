/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl timeline: what happened in a session, and where its time went; as text, or as a picture.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/ctl.h"
#include "client/printable.h"
#include "client/timeline-svg.h"
#include "protocol/names.h"

enum { TIMELINE_NAME = 64, TIMELINE_BAR = 30 };

/* ---- which session ---- */

static bool timeline_fits(const json_t *session, const char *text)
{
    char domid[24];

    snprintf(domid, sizeof(domid), "%" PRId64, ctl_integer(session, "domid", -1));
    return strcmp(ctl_string(session, "name"), text) == 0 || strcmp(ctl_string(session, "uuid"), text) == 0 ||
           strcmp(domid, text) == 0;
}

/* A session's own name first; then the live one of a domain, or the one that was gone last: the list has that order. */
static const json_t *timeline_find(const json_t *sessions, const char *text)
{
    const json_t *session;
    size_t i;

    json_array_foreach(sessions, i, session) if (strcmp(ctl_string(session, "session"), text) == 0) return session;
    json_array_foreach(sessions, i, session) if (timeline_fits(session, text)) return session;
    return NULL;
}

static const json_t *timeline_latest(const json_t *sessions)
{
    const json_t *session, *latest = NULL;
    size_t i;

    json_array_foreach(sessions, i, session) if (!latest || ctl_integer(session, "begun_ms", 0) >
                                                                ctl_integer(latest, "begun_ms", 0)) latest = session;
    return latest;
}

static const char *timeline_clock(char text[32], int64_t time_ms)
{
    time_t seconds = (time_t)(time_ms / 1000);
    struct tm local;
    size_t length = localtime_r(&seconds, &local) ? strftime(text, 24, "%Y-%m-%d %H:%M:%S", &local) : 0;

    snprintf(text + length, 32 - length, ".%03d", (int)(time_ms % 1000));
    return text;
}

static int timeline_none(const json_t *list, const char *wanted)
{
    char since[32], name[TIMELINE_NAME];

    timeline_clock(since, ctl_integer(list, "history_begun_ms", 0));
    printable_cut(name, sizeof(name), wanted ? wanted : "", TIMELINE_NAME - 1);
    if (!wanted)
        return ctl_fail("there was no session yet; the history begins at %s, with the daemon", since);
    return ctl_fail("no session of '%s' is known; expected a session or a domain of which there was one. The history "
                    "begins at %s, with the daemon, and the last 64 that are gone are kept",
                    name, since);
}

/* 0 and the caller owns *history; else the exit status. */
static int timeline_fetch(struct ctl *ctl, const char *wanted, json_t **history)
{
    json_t *list;
    int status = ctl_call(ctl, "guard.history", NULL, &list);

    if (status)
        return status;
    const json_t *sessions = json_object_get(list, "sessions");
    const json_t *session = wanted ? timeline_find(sessions, wanted) : timeline_latest(sessions);
    status =
        session ? ctl_call(ctl, "guard.history", json_pack("{s:s}", "session", ctl_string(session, "session")), history)
                : timeline_none(list, wanted);
    json_decref(list);
    return status;
}

/* ---- events in words ---- */

static const char *timeline_reason(const json_t *event)
{
    const char *name = ctl_string(event, "reason");

    for (int reason = 1; reason < P2MG_REASON_COUNT; reason++)
        if (strcmp(p2mg_reason_name((enum p2mg_reason)reason), name) == 0)
            return p2mg_reason_text((enum p2mg_reason)reason);
    return name;
}

/* A member that is a size. */
static const char *timeline_size(char text[CTL_TEXT], const json_t *event, const char *key)
{
    return ctl_size(text, json_object_get(event, key));
}

static void timeline_tell_begun(const json_t *event)
{
    char size[CTL_TEXT];

    printf("begun; the guest has %s", timeline_size(size, event, "tot_kib"));
}

static void timeline_tell_gated(const json_t *event)
{
    char target[CTL_TEXT], cap[CTL_TEXT];

    printf("gate closed over a target of %s; the guest cannot grow beyond %s",
           timeline_size(target, event, "target_kib"), timeline_size(cap, event, "cap_kib"));
}

static void timeline_tell_pinned(const json_t *event)
{
    char pin[CTL_TEXT];

    printf("pinned at %s", timeline_size(pin, event, "pin_kib"));
}

static void timeline_tell_quiet(const json_t *event)
{
    char pin[CTL_TEXT];

    printf("gate shut over the pin of %s", timeline_size(pin, event, "pin_kib"));
}

static void timeline_tell_held(const json_t *event)
{
    char after[CTL_TEXT];

    printf("held, attempt %" PRId64 "; freezing took %s", ctl_integer(event, "attempt", 0),
           ctl_duration(after, ctl_integer(event, "after_ms", -1)));
}

static void timeline_tell_changed(const json_t *event)
{
    bool size = strcmp(ctl_string(event, "reason"), "tot-pages-changed") == 0;
    char before[CTL_TEXT], now[CTL_TEXT];

    printf("changed: %s", timeline_reason(event));
    if (size)
        printf(", from %s to %s", timeline_size(before, event, "before"), timeline_size(now, event, "now"));
    else if (json_is_integer(json_object_get(event, "now")))
        printf(", from %" PRId64 " to %" PRId64, ctl_integer(event, "before", 0), ctl_integer(event, "now", 0));
}

static void timeline_tell_asked(const json_t *event)
{
    (void)event;
    printf("the guest's agent was asked to freeze");
}

static void timeline_tell_answered(const json_t *event)
{
    const char *state = ctl_string(event, "state");

    printf("the guest's agent is %s", *state ? state : "not asked any more");
}

static void timeline_tell_deferred(const json_t *event)
{
    char target[CTL_TEXT], pin[CTL_TEXT];

    printf("a toolstack asked for %s; kept for later, the pin of %s went back",
           timeline_size(target, event, "target_kib"), timeline_size(pin, event, "pin_kib"));
}

static void timeline_tell_cap(const json_t *event)
{
    char max[CTL_TEXT], cap[CTL_TEXT];

    printf("a toolstack set max_pages to %s; the cap of %s went back", timeline_size(max, event, "max_kib"),
           timeline_size(cap, event, "cap_kib"));
}

static void timeline_tell_gate(const json_t *event)
{
    (void)event;
    printf("somebody opened the gate; it was shut again");
}

static void timeline_tell_verdict(const json_t *event)
{
    printf("verdict %s: %s", ctl_string(event, "verdict"), timeline_reason(event));
}

static void timeline_tell_retry(const json_t *event)
{
    printf("attempt %" PRId64 " begins", ctl_integer(event, "attempt", 0));
}

static void timeline_tell_adopted(const json_t *event)
{
    printf("taken over by process %" PRId64 ", hold %s", ctl_integer(event, "pid", 0), ctl_string(event, "hold"));
}

static void timeline_tell_failed(const json_t *event)
{
    printf("could not be held: %s", timeline_reason(event));
}

static void timeline_tell_thawing(const json_t *event)
{
    printf("thawing, outcome %s: %s", ctl_string(event, "outcome"), timeline_reason(event));
}

static void timeline_tell_gone(const json_t *event)
{
    char target[CTL_TEXT];

    printf("gone; the target is %s", timeline_size(target, event, "wanted_target_kib"));
    if (json_is_integer(json_object_get(event, "applied_to")))
        printf(", given to domain %" PRId64, ctl_integer(event, "applied_to", 0));
}

static const struct timeline_word {
    const char *type;
    void (*tell)(const json_t *event);
} timeline_words[] = {
    {"session.begun", timeline_tell_begun},      {"session.gated", timeline_tell_gated},
    {"session.pinned", timeline_tell_pinned},    {"session.quiet", timeline_tell_quiet},
    {"session.held", timeline_tell_held},        {"session.changed", timeline_tell_changed},
    {"agent.asked", timeline_tell_asked},        {"agent.answered", timeline_tell_answered},
    {"target.deferred", timeline_tell_deferred}, {"cap.restored", timeline_tell_cap},
    {"gate.restored", timeline_tell_gate},       {"session.verdict", timeline_tell_verdict},
    {"session.retry", timeline_tell_retry},      {"session.adopted", timeline_tell_adopted},
    {"session.failed", timeline_tell_failed},    {"session.thawing", timeline_tell_thawing},
    {"session.gone", timeline_tell_gone},
};

static void timeline_tell(const json_t *event)
{
    const char *type = ctl_string(event, "type");

    for (size_t i = 0; i < sizeof(timeline_words) / sizeof(timeline_words[0]); i++) {
        if (strcmp(timeline_words[i].type, type) == 0) {
            timeline_words[i].tell(event);
            return;
        }
    }
    printf("%s", type); /* of a newer daemon */
}

/* ---- the text ---- */

static void timeline_print_head(const json_t *history)
{
    char name[TIMELINE_NAME], lasted[CTL_TEXT], begun[32];
    const char *reason = timeline_reason(history);
    bool over = strcmp(ctl_string(history, "state"), "gone") == 0;

    printable_cut(name, sizeof(name), ctl_string(history, "name"), TIMELINE_NAME - 1);
    printf("%s (domain %" PRId64 "), session %s: ", name, ctl_integer(history, "domid", 0),
           ctl_string(history, "session"));
    printf("%s", over ? ctl_string(history, "outcome") : ctl_string(history, "state"));
    printf("%s%s\n", *reason ? ", " : "", reason);
    printf("begun %s, %s %s\n\n", timeline_clock(begun, ctl_integer(history, "begun_ms", 0)),
           over ? "lasted" : "has lasted", ctl_duration(lasted, ctl_integer(history, "lasted_ms", 0)));
}

static void timeline_print_events(const json_t *history)
{
    const json_t *event;
    size_t i;

    json_array_foreach(json_object_get(history, "events"), i, event)
    {
        int64_t count = ctl_integer(event, "count", 1);
        printf("%+10" PRId64 " ms  ", ctl_integer(event, "at_ms", 0));
        timeline_tell(event);
        if (count > 1)
            printf(" (%" PRId64 " times since %+" PRId64 " ms)", count, ctl_integer(event, "since_ms", 0));
        putchar('\n');
    }
    if (json_is_true(json_object_get(history, "thinned")))
        puts("\nThere was too much to be kept: events that are alike were put together, and short phases with the "
             "next.");
}

/* In the order in which they come; what took no time is left out. */
static void timeline_print_spent(const json_t *history)
{
    int64_t lasted_ms = ctl_integer(history, "lasted_ms", 0);
    char duration[CTL_TEXT];
    const char *phase;
    json_t *spent;

    puts("\nwhere the time went:");
    json_object_foreach(json_object_get(history, "spent_ms"), phase, spent)
    {
        int64_t ms = json_integer_value(spent);
        int length = lasted_ms > 0 && ms <= lasted_ms ? (int)(ms * TIMELINE_BAR / lasted_ms) : 0;
        if (ms == 0)
            continue;
        if (length == 0)
            length = 1;
        if (ms < 1000)
            snprintf(duration, sizeof(duration), "%" PRId64 " ms", ms);
        else
            ctl_duration(duration, ms);
        printf("  %-10s %10s  %.*s\n", phase, duration, length, "##############################");
    }
}

/* ---- the picture ---- */

static int timeline_write(const char *path, const char *text)
{
    bool to_file = strcmp(path, "-") != 0;
    FILE *file = to_file ? fopen(path, "we") : stdout;

    if (file && fputs(text, file) >= 0 && fflush(file) == 0 && (!to_file || fclose(file) == 0))
        return CTL_OK;
    return ctl_fail("writing the picture to %s failed: %s", to_file ? path : "standard output", strerror(errno));
}

static int timeline_draw(const json_t *history, const char *path)
{
    char *text = timeline_svg(history);
    int status = CTL_FAILED;

    if (text)
        status = timeline_write(path, text);
    else
        ctl_fail("out of memory");
    free(text);
    return status;
}

int timeline_command(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {{"svg", required_argument, NULL, 's'}, {NULL, 0, NULL, 0}};
    const char *picture = NULL;
    json_t *history;
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name != 's')
            return CTL_USAGE;
        picture = optarg;
    }
    if (argc - optind > 1)
        return ctl_usage_error("timeline", "expected one SESSION at most");
    setlocale(LC_CTYPE, "");
    int status = timeline_fetch(ctl, optind < argc ? argv[optind] : NULL, &history);
    if (status)
        return status;
    if (picture)
        status = timeline_draw(history, picture);
    if (ctl->json && (!picture || strcmp(picture, "-") != 0)) {
        ctl_print_json(history);
    } else if (!picture) {
        timeline_print_head(history);
        timeline_print_events(history);
        timeline_print_spent(history);
    }
    json_decref(history);
    return status;
}
