/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/top-list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So long can be read what has become of a session. */
#define TOP_GONE_MS 5000

static const char *top_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static int64_t top_integer(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_integer(value) ? json_integer_value(value) : -1;
}

/* A long name may end in the middle of a character, then, which is shown as a question mark. */
#define top_copy(to, text) snprintf(to, sizeof(to), "%.*s", (int)sizeof(to) - 1, text)

void top_list_free(struct top_list *list)
{
    free(list->rows);
    *list = (struct top_list){.rows = NULL};
}

void top_list_take_info(struct top_list *list, const json_t *info)
{
    top_copy(list->daemon.version, top_string(info, "version"));
    top_copy(list->daemon.store, top_string(info, "store"));
    list->daemon.uptime_ms = top_integer(info, "uptime_ms");
    list->daemon.max_gap_ms = top_integer(info, "max_gap_ms");
}

/* ---- rows ---- */

/* Where a domain's row is, or belongs. */
static size_t top_list_place(const struct top_list *list, int64_t domid)
{
    size_t low = 0, high = list->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (list->rows[middle].domid < domid)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct top_row *top_list_find(struct top_list *list, int64_t domid)
{
    size_t place = top_list_place(list, domid);

    return place < list->count && list->rows[place].domid == domid ? &list->rows[place] : NULL;
}

static void top_row_read(struct top_row *row, const json_t *session)
{
    const json_t *verdict = json_object_get(session, "last_verdict"), *baseline = json_object_get(session, "baseline");
    int64_t held_after_ms = top_integer(session, "held_after_ms");

    *row = (struct top_row){.domid = top_integer(session, "domid"),
                            .begun_ms = top_integer(session, "begun_ms"),
                            .tot_kib = top_integer(session, "tot_kib"),
                            .pin_kib = top_integer(session, "pin_kib"),
                            .wanted_kib = top_integer(session, "wanted_target_kib"),
                            .deferred_kib = top_integer(session, "deferred_target_kib"),
                            .baseline_kib = top_integer(baseline, "tot_kib"),
                            .generation = top_integer(baseline, "generation"),
                            .generation_changes = top_integer(session, "generation_changes"),
                            .attempt = top_integer(session, "attempt"),
                            .attempts = top_integer(json_object_get(session, "policy"), "attempts"),
                            .longest_gap_ms = top_integer(session, "longest_gap_ms")};
    row->held_ms = held_after_ms < 0 ? -1 : row->begun_ms + held_after_ms;
    top_copy(row->session, top_string(session, "session"));
    top_copy(row->name, top_string(session, "name"));
    top_copy(row->state, top_string(session, "state"));
    top_copy(row->phase, top_string(session, "phase"));
    top_copy(row->verdict, top_string(verdict, "verdict"));
    top_copy(row->reason, top_string(verdict, "reason"));
}

static int top_compare_domids(const void *a, const void *b)
{
    const struct top_row *one = a, *other = b;

    return (one->domid > other->domid) - (one->domid < other->domid);
}

/* Those that were gone a moment ago are not in the new list, and stay where nobody has come after them. */
int top_list_take_sessions(struct top_list *list, const json_t *result, int64_t now_ms)
{
    const json_t *sessions = json_object_get(result, "sessions"), *session;
    size_t room = json_array_size(sessions) + list->count, index;
    struct top_list fresh = {.rows = calloc(room ? room : 1, sizeof(*fresh.rows)), .room = room ? room : 1};

    if (!fresh.rows)
        return -ENOMEM;
    json_array_foreach(sessions, index, session) top_row_read(&fresh.rows[fresh.count++], session);
    qsort(fresh.rows, fresh.count, sizeof(*fresh.rows), top_compare_domids);
    size_t live = fresh.count;
    for (size_t i = 0; i < list->count; i++) {
        const struct top_row *row = &list->rows[i];
        struct top_list known = {.rows = fresh.rows, .count = live};
        if (row->gone_ms && now_ms - row->gone_ms < TOP_GONE_MS && !top_list_find(&known, row->domid))
            fresh.rows[fresh.count++] = *row;
    }
    qsort(fresh.rows, fresh.count, sizeof(*fresh.rows), top_compare_domids);
    fresh.daemon = list->daemon;
    top_list_free(list);
    *list = fresh;
    return 0;
}

bool top_list_expire(struct top_list *list, int64_t now_ms)
{
    size_t kept = 0, count = list->count;

    for (size_t i = 0; i < count; i++)
        if (!list->rows[i].gone_ms || now_ms - list->rows[i].gone_ms < TOP_GONE_MS)
            list->rows[kept++] = list->rows[i];
    list->count = kept;
    return kept < count;
}

/* ---- events ---- */

static void top_row_be(struct top_row *row, const char *state, const char *phase)
{
    top_copy(row->state, state);
    top_copy(row->phase, phase);
}

static void top_on_pinned(struct top_row *row, const json_t *event)
{
    row->pin_kib = top_integer(event, "pin_kib");
    top_row_be(row, "freezing", "pin");
}

static void top_on_quiet(struct top_row *row, const json_t *event)
{
    (void)event;
    top_row_be(row, "freezing", "settle");
}

static void top_on_held(struct top_row *row, const json_t *event)
{
    const json_t *baseline = json_object_get(event, "baseline");

    top_row_be(row, "held", "");
    row->tot_kib = row->baseline_kib = top_integer(baseline, "tot_kib");
    row->pin_kib = top_integer(baseline, "target_kib");
    row->generation = top_integer(baseline, "generation");
    if (row->held_ms < 0)
        row->held_ms = top_integer(event, "time_ms");
}

static void top_on_changed(struct top_row *row, const json_t *event)
{
    const json_t *before = json_object_get(event, "before"), *now = json_object_get(event, "now");

    if (json_object_get(now, "tot_kib"))
        row->tot_kib = top_integer(now, "tot_kib");
    if (json_object_get(now, "generation") && top_integer(now, "generation") > top_integer(before, "generation"))
        row->generation_changes += (top_integer(now, "generation") - top_integer(before, "generation")) / 2;
}

static void top_on_deferred(struct top_row *row, const json_t *event)
{
    row->deferred_kib = row->wanted_kib = top_integer(event, "target_kib");
}

static void top_on_verdict(struct top_row *row, const json_t *event)
{
    top_copy(row->verdict, top_string(event, "verdict"));
    top_copy(row->reason, top_string(event, "reason"));
}

static void top_on_retry(struct top_row *row, const json_t *event)
{
    row->attempt = top_integer(event, "attempt");
    top_row_be(row, "freezing", "backoff");
}

static void top_on_failed(struct top_row *row, const json_t *event)
{
    top_row_be(row, "failed", "");
    top_copy(row->reason, top_string(event, "reason"));
    row->verdict[0] = '\0';
}

static void top_on_thawing(struct top_row *row, const json_t *event)
{
    (void)event;
    if (strcmp(row->state, "failed") != 0)
        top_row_be(row, "thawing", "");
}

static void top_on_gone(struct top_row *row, const json_t *event)
{
    top_row_be(row, "gone", "");
    row->gone_ms = top_integer(event, "time_ms");
    top_copy(row->verdict, top_string(event, "outcome"));
    top_copy(row->reason, top_string(event, "reason"));
}

static const struct top_rule {
    const char *type;
    void (*take)(struct top_row *row, const json_t *event);
} top_rules[] = {
    {"session.pinned", top_on_pinned},    {"session.quiet", top_on_quiet},     {"session.held", top_on_held},
    {"session.changed", top_on_changed},  {"session.verdict", top_on_verdict}, {"session.retry", top_on_retry},
    {"session.failed", top_on_failed},    {"session.thawing", top_on_thawing}, {"session.gone", top_on_gone},
    {"target.deferred", top_on_deferred},
};

void top_list_take_event(struct top_list *list, const json_t *event)
{
    const char *type = top_string(event, "type"), *session = top_string(event, "session");

    if (strcmp(type, "store.lost") == 0)
        top_copy(list->daemon.store, "lost");
    else if (strcmp(type, "store.back") == 0)
        top_copy(list->daemon.store, "connected");
    if (!*session || strncmp(type, "migration.", 10) == 0 || strncmp(type, "domain.", 7) == 0) {
        list->stale |= strcmp(type, "events.lost") == 0;
        return;
    }
    struct top_row *row = top_list_find(list, top_integer(event, "domid"));
    if (!row || strcmp(row->session, session) != 0) {
        list->stale = true;
        return;
    }
    for (size_t i = 0; i < sizeof(top_rules) / sizeof(top_rules[0]); i++)
        if (strcmp(top_rules[i].type, type) == 0)
            top_rules[i].take(row, event);
}

/* ---- asking ---- */

static int64_t top_row_since_ms(const struct top_row *row)
{
    return row->held_ms < 0 ? row->begun_ms : row->held_ms;
}

int64_t top_row_age_ms(const struct top_row *row, int64_t now_ms)
{
    int64_t age_ms = (row->gone_ms ? row->gone_ms : now_ms) - top_row_since_ms(row);

    return age_ms > 0 ? age_ms : 0;
}

size_t top_list_count(const struct top_list *list, const char *state)
{
    size_t count = 0;

    for (size_t i = 0; i < list->count; i++)
        count += strcmp(list->rows[i].state, state) == 0;
    return count;
}

int64_t top_list_longest_gap_ms(const struct top_list *list)
{
    int64_t longest_ms = 0;

    for (size_t i = 0; i < list->count; i++)
        if (list->rows[i].longest_gap_ms > longest_ms)
            longest_ms = list->rows[i].longest_gap_ms;
    return longest_ms;
}

/* ---- orders: each falls back to the domid ---- */

static int top_compare(int order, const struct top_row *one, const struct top_row *other)
{
    return order ? order : (one->domid > other->domid) - (one->domid < other->domid);
}

static const struct top_row *top_row_at(const void *entry)
{
    return *(const struct top_row *const *)entry;
}

static int top_by_domid(const void *a, const void *b)
{
    return top_compare(0, top_row_at(a), top_row_at(b));
}

static int top_by_name(const void *a, const void *b)
{
    return top_compare(strcmp(top_row_at(a)->name, top_row_at(b)->name), top_row_at(a), top_row_at(b));
}

/* The oldest first. */
static int top_by_age(const void *a, const void *b)
{
    int64_t one = top_row_since_ms(top_row_at(a)), other = top_row_since_ms(top_row_at(b));

    return top_compare((one > other) - (one < other), top_row_at(a), top_row_at(b));
}

static int top_by_size(const void *a, const void *b)
{
    int64_t one = top_row_at(a)->tot_kib, other = top_row_at(b)->tot_kib;

    return top_compare((one < other) - (one > other), top_row_at(a), top_row_at(b));
}

static int top_by_state(const void *a, const void *b)
{
    return top_compare(strcmp(top_row_at(a)->state, top_row_at(b)->state), top_row_at(a), top_row_at(b));
}

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} top_orders[TOP_ORDERS] = {
    [TOP_BY_DOMID] = {"domid", top_by_domid}, [TOP_BY_NAME] = {"name", top_by_name},
    [TOP_BY_AGE] = {"age", top_by_age},       [TOP_BY_SIZE] = {"size", top_by_size},
    [TOP_BY_STATE] = {"state", top_by_state},
};

const char *top_order_name(enum top_order order)
{
    return top_orders[order].name;
}

const struct top_row **top_list_sort(const struct top_list *list, enum top_order order)
{
    const struct top_row **rows = calloc(list->count ? list->count : 1, sizeof(*rows));

    for (size_t i = 0; rows && i < list->count; i++)
        rows[i] = &list->rows[i];
    if (rows)
        qsort(rows, list->count, sizeof(*rows), top_orders[order].compare);
    return rows;
}
