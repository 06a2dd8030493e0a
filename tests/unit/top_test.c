/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/top-list.h"
#include "client/top-screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS 1700000100000

/* A terminal without a screen: what is put somewhere stands there, and nothing may be put outside. */
struct paper {
    int lines, columns;
    char text[64][256];
};

static void paper_put(void *context, int line, int column, enum top_style style, const char *text)
{
    struct paper *paper = context;
    (void)style;

    assert_in_range(line, 0, paper->lines - 1);
    assert_true(column >= 0 && column + (int)strlen(text) <= paper->columns);
    memcpy(paper->text[line] + column, text, strlen(text));
}

static struct paper *paper_draw(struct paper *paper, const struct top_list *list, int columns, int lines, size_t first)
{
    const struct top_view view = {.list = list, .now_ms = NOW_MS, .columns = columns, .lines = lines, .first = first};
    const struct top_sink sink = {paper_put, paper};

    *paper = (struct paper){.lines = lines, .columns = columns};
    for (int i = 0; i < lines; i++)
        memset(paper->text[i], ' ', (size_t)columns);
    assert_int_equal(top_screen_draw(&view, &sink), 0);
    return paper;
}

static json_t *session(int domid, const char *name, const char *state)
{
    char id[16];

    snprintf(id, sizeof(id), "%d-00000000", domid);
    return json_pack("{s:s,s:i,s:s,s:s,s:n,s:I,s:i,s:i,s:i,s:i,s:n,s:{s:i},s:i,s:i,s:{s:i},s:i,s:n}", "session", id,
                     "domid", domid, "name", name, "state", state, "phase", "begun_ms", (json_int_t)NOW_MS - 63500,
                     "held_after_ms", 500, "tot_kib", 262144, "pin_kib", 262144, "wanted_target_kib", 262144,
                     "deferred_target_kib", "baseline", "generation", 4, "generation_changes", 0, "attempt", 1,
                     "policy", "attempts", 3, "longest_gap_ms", 40, "last_verdict");
}

static void take(struct top_list *list, int count)
{
    json_t *sessions = json_array(), *result = json_pack("{s:o}", "sessions", sessions);

    for (int domid = count; domid > 0; domid--)
        json_array_append_new(sessions, session(domid, domid == 1 ? "web" : "other", "held"));
    assert_int_equal(top_list_take_sessions(list, result, NOW_MS), 0);
    json_decref(result);
}

static void tell(struct top_list *list, json_t *event)
{
    assert_non_null(event);
    top_list_take_event(list, event);
    json_decref(event);
}

static void test_a_list_is_shown(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    (void)state;

    take(&list, 2);
    paper_draw(&paper, &list, 80, 24, 0);
    assert_non_null(strstr(paper.text[1], "2 under guard: 2 held, 0 freezing"));
    assert_non_null(strstr(paper.text[2], "DOMID NAME"));
    assert_non_null(strstr(paper.text[2], "VERDICT"));
    assert_non_null(strstr(paper.text[3], "    1 web"));
    assert_non_null(strstr(paper.text[3], "1:03  256.0M #####|     4 -"));
    assert_non_null(strstr(paper.text[4], "    2 other"));
    assert_non_null(strstr(paper.text[23], "q quit"));
    top_list_free(&list);
}

static void test_events_keep_it_up_to_date(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    (void)state;

    take(&list, 2);
    tell(&list,
         json_pack("{s:s,s:s,s:i,s:s,s:{s:i},s:{s:i}}", "type", "session.changed", "session", "1-00000000", "domid", 1,
                   "reason", "tot-pages-changed", "before", "tot_kib", 262144, "now", "tot_kib", 131072));
    tell(&list,
         json_pack("{s:s,s:s,s:i,s:s,s:{s:i},s:{s:i}}", "type", "session.changed", "session", "1-00000000", "domid", 1,
                   "reason", "generation-changed", "before", "generation", 4, "now", "generation", 10));
    tell(&list, json_pack("{s:s,s:s,s:i,s:i}", "type", "target.deferred", "session", "1-00000000", "domid", 1,
                          "target_kib", 307200));
    tell(&list, json_pack("{s:s,s:s,s:i,s:s,s:s}", "type", "session.verdict", "session", "1-00000000", "domid", 1,
                          "verdict", "retry", "reason", "tot-pages-changed"));
    assert_false(list.stale);
    paper_draw(&paper, &list, 130, 24, 0);
    assert_non_null(strstr(paper.text[3], "128.0M"));
    assert_non_null(strstr(paper.text[3], "###")); /* and the pin further on */
    assert_non_null(strstr(paper.text[3], "4+3"));
    assert_non_null(strstr(paper.text[3], "retry tot-pages-changed"));
    assert_non_null(strstr(paper.text[3], "300.0M"));
    top_list_free(&list);
}

static void test_what_is_not_known_is_asked_for(void **state)
{
    struct top_list list = {.rows = NULL};
    (void)state;

    take(&list, 2);
    tell(&list, json_pack("{s:s,s:s,s:i}", "type", "session.held", "session", "1-deadbeef", "domid", 1));
    assert_true(list.stale);
    list.stale = false;
    tell(&list, json_pack("{s:s,s:s,s:i}", "type", "session.begun", "session", "9-00000000", "domid", 9));
    assert_true(list.stale);
    list.stale = false;
    tell(&list, json_pack("{s:s,s:i,s:i}", "type", "events.lost", "from", 1, "to", 2));
    assert_true(list.stale);
    list.stale = false;
    tell(&list, json_pack("{s:s,s:i}", "type", "migration.seen", "domid", 1));
    tell(&list, json_pack("{}"));
    tell(&list, json_pack("[]"));
    assert_false(list.stale);
    top_list_free(&list);
}

static void test_who_is_gone_stays_for_a_moment(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    json_t *nobody = json_pack("{s:[]}", "sessions");
    (void)state;

    take(&list, 1);
    tell(&list, json_pack("{s:s,s:s,s:i,s:I,s:s,s:s}", "type", "session.gone", "session", "1-00000000", "domid", 1,
                          "time_ms", (json_int_t)NOW_MS, "outcome", "completed", "reason", "ended"));
    assert_int_equal(top_list_take_sessions(&list, nobody, NOW_MS + 1000), 0);
    paper_draw(&paper, &list, 80, 24, 0);
    assert_non_null(strstr(paper.text[1], "0 under guard"));
    assert_non_null(strstr(paper.text[3], "completed ended"));
    assert_false(top_list_expire(&list, NOW_MS + 1000));
    assert_true(top_list_expire(&list, NOW_MS + 6000));
    assert_int_equal(list.count, 0);
    take(&list, 1);
    tell(&list, json_pack("{s:s,s:s,s:i,s:I}", "type", "session.gone", "session", "1-00000000", "domid", 1, "time_ms",
                          (json_int_t)NOW_MS));
    take(&list, 1); /* it is under guard again */
    assert_int_equal(list.count, 1);
    assert_int_equal(list.rows[0].gone_ms, 0);
    json_decref(nobody);
    top_list_free(&list);
}

/* Every size there is: paper_put fails when anything is put outside. */
static void test_every_size_of_screen(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    (void)state;

    take(&list, 30);
    for (int columns = 1; columns <= 220; columns++)
        for (int lines = 1; lines <= 40; lines++)
            paper_draw(&paper, &list, columns, lines, 3);
    paper_draw(&paper, &list, 30, 10, 0);
    assert_non_null(strstr(paper.text[3], "web"));
    assert_non_null(strstr(paper.text[3], "held"));
    paper_draw(&paper, &list, 40, 10, 0);
    assert_non_null(strstr(paper.text[2], "AGE    SIZE")); /* what is left by what has no room */
    list.rows[0].tot_kib--;
    paper_draw(&paper, &list, 80, 10, 0);
    assert_non_null(strstr(paper.text[3], "####.|"));
    top_list_free(&list);
}

static void test_scrolling(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    (void)state;

    take(&list, 30);
    paper_draw(&paper, &list, 80, 10, 20);
    assert_non_null(strstr(paper.text[3], "   21 other"));
    assert_non_null(strstr(paper.text[9], "21-26 of 30"));
    top_list_free(&list);
}

static void test_hostile_names(void **state)
{
    struct top_list list = {.rows = NULL};
    struct paper paper;
    json_t *result = json_pack("{s:[o]}", "sessions", session(1, "a\x1b[2J\r\n\xe2\x80\xae", "held"));
    (void)state;

    assert_int_equal(top_list_take_sessions(&list, result, NOW_MS), 0);
    paper_draw(&paper, &list, 120, 24, 0);
    assert_null(strchr(paper.text[3], '\x1b'));
    assert_non_null(strstr(paper.text[3], "a?[2J???"));
    json_decref(result);
    top_list_free(&list);
}

static void test_orders(void **state)
{
    struct top_list list = {.rows = NULL};
    (void)state;

    take(&list, 3);
    strcpy(list.rows[2].name, "aaa");
    list.rows[1].tot_kib = 999999;
    list.rows[1].held_ms = NOW_MS;
    static const int64_t firsts[TOP_ORDERS] = {
        [TOP_BY_DOMID] = 1, [TOP_BY_NAME] = 3, [TOP_BY_AGE] = 1, [TOP_BY_SIZE] = 2, [TOP_BY_STATE] = 1};
    for (int order = 0; order < TOP_ORDERS; order++) {
        const struct top_row **rows = top_list_sort(&list, (enum top_order)order);
        assert_int_equal(rows[0]->domid, firsts[order]);
        if (order == TOP_BY_AGE)
            assert_int_equal(rows[2]->domid, 2);
        free(rows);
    }
    top_list_free(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_is_shown),
        cmocka_unit_test(test_events_keep_it_up_to_date),
        cmocka_unit_test(test_what_is_not_known_is_asked_for),
        cmocka_unit_test(test_who_is_gone_stays_for_a_moment),
        cmocka_unit_test(test_every_size_of_screen),
        cmocka_unit_test(test_scrolling),
        cmocka_unit_test(test_hostile_names),
        cmocka_unit_test(test_orders),
    };

    return cmocka_run_group_tests_name("top", tests, NULL, NULL);
}
