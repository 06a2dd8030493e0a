/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/events.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "daemon/writer.h"

/* Somebody who writes down what it is told, and may do something while it is. */
struct ear {
    struct events *events;
    struct events_listener *listener;
    size_t room; /* how many events it takes before it has no room */
    size_t heard;
    json_t *log[64];
    void (*act)(struct ear *ear, const json_t *event);
};

static bool ear_deliver(void *context, const char *text, size_t length)
{
    struct ear *ear = context;
    json_t *event;

    if (ear->heard >= ear->room)
        return false;
    assert_true(ear->heard < sizeof ear->log / sizeof *ear->log);
    event = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(event);
    ear->log[ear->heard++] = event;
    if (ear->act != NULL)
        ear->act(ear, event);
    return true;
}

static void ear_open(struct ear *ear, struct events *events, uint64_t from)
{
    ear->events = events;
    if (ear->room == 0)
        ear->room = 64;
    ear->listener = events_listen(events, from, ear_deliver, ear);
    assert_non_null(ear->listener);
}

static void ear_close(struct ear *ear)
{
    events_unlisten(ear->listener);
    for (size_t i = 0; i < ear->heard; i++)
        json_decref(ear->log[i]);
}

static json_int_t ear_number(const struct ear *ear, size_t i, const char *key)
{
    assert_true(i < ear->heard);
    return json_integer_value(json_object_get(ear->log[i], key));
}

static const char *ear_type(const struct ear *ear, size_t i)
{
    assert_true(i < ear->heard);
    return json_string_value(json_object_get(ear->log[i], "type"));
}

static void emit(struct events *events, size_t count)
{
    while (count-- > 0) {
        uint64_t next = events_next(events);

        assert_int_equal(events_emit(events, "test", json_object()), next);
    }
}

static void numbers_start_at_one_and_rise(void **state)
{
    struct events *events = events_new(4);

    (void)state;
    assert_int_equal(events_next(events), 1);
    assert_int_equal(events_oldest(events), 1);
    assert_int_equal(events_emit(events, "a", json_object()), 1);
    assert_int_equal(events_emit(events, "b", json_object()), 2);
    assert_int_equal(events_next(events), 3);
    assert_int_equal(events_oldest(events), 1);
    emit(events, 10);
    assert_int_equal(events_next(events), 13);
    assert_int_equal(events_oldest(events), 9);
    events_free(events);
}

static void events_say_number_time_and_type(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {0};
    json_int_t before = (json_int_t)time(NULL) * 1000;

    (void)state;
    ear_open(&ear, events, 1);
    events_emit(events, "session.held", json_pack("{s:i, s:s}", "domid", 7, "type", "not this"));
    assert_int_equal(ear.heard, 1);
    assert_string_equal(ear_type(&ear, 0), "session.held");
    assert_int_equal(ear_number(&ear, 0, "seq"), 1);
    assert_int_equal(ear_number(&ear, 0, "domid"), 7);
    assert_in_range(ear_number(&ear, 0, "time_ms"), before, before + 60 * 1000);
    ear_close(&ear);
    events_free(events);
}

static void an_event_may_be_written_without_a_tree(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {0};

    (void)state;
    ear_open(&ear, events, 1);
    for (int i = 0; i < 3; i++) {
        struct writer *event = events_begin(events, "session.held");
        assert_int_equal(ear.heard, i);
        writer_number(event, "domid", i);
        event->failed = i == 1; /* for want of memory */
        assert_int_equal(events_end(events), i == 1 ? 0 : i + 1);
        ear.heard += i == 1; /* nobody is told of it */
    }
    assert_int_equal(ear.heard, 3);
    assert_string_equal(ear_type(&ear, 0), "session.held");
    assert_int_equal(ear_number(&ear, 0, "domid"), 0);
    assert_int_equal(ear_number(&ear, 2, "seq"), 3);
    assert_int_equal(ear_number(&ear, 2, "domid"), 2);
    ear_close(&ear);
    events_free(events);
}

static void listener_gets_what_is_kept_first(void **state)
{
    struct events *events = events_new(8);
    struct ear ear = {0};

    (void)state;
    emit(events, 5);
    ear_open(&ear, events, 3);
    assert_int_equal(ear.heard, 0); /* not from inside events_listen */
    events_resume(ear.listener);
    assert_int_equal(ear.heard, 3);
    assert_int_equal(ear_number(&ear, 0, "seq"), 3);
    emit(events, 1);
    assert_int_equal(ear_number(&ear, 3, "seq"), 6);
    ear_close(&ear);
    emit(events, 1);
    events_free(events);
}

static void listener_that_comes_late_is_told_what_it_missed(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {0};

    (void)state;
    emit(events, 10);
    ear_open(&ear, events, 0); /* the same as 1: there is no event 0 to be missed */
    events_resume(ear.listener);
    assert_int_equal(ear.heard, 5);
    assert_string_equal(ear_type(&ear, 0), "events.lost");
    assert_int_equal(ear_number(&ear, 0, "from"), 1);
    assert_int_equal(ear_number(&ear, 0, "to"), 6);
    assert_int_equal(ear_number(&ear, 0, "seq"), 6);
    assert_int_equal(ear_number(&ear, 1, "seq"), 7);
    assert_int_equal(ear_number(&ear, 4, "seq"), 10);
    ear_close(&ear);
    events_free(events);
}

static void slow_listener_waits_and_is_told_what_it_missed(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {.room = 2};

    (void)state;
    ear_open(&ear, events, 1);
    emit(events, 20);
    assert_int_equal(ear.heard, 2);
    ear.room = 3; /* room for the bad news only */
    events_resume(ear.listener);
    assert_int_equal(ear.heard, 3);
    assert_string_equal(ear_type(&ear, 2), "events.lost");
    assert_int_equal(ear_number(&ear, 2, "from"), 3);
    assert_int_equal(ear_number(&ear, 2, "to"), 16);
    emit(events, 2); /* makes it miss 17 and 18 as well */
    ear.room = 64;
    events_resume(ear.listener);
    assert_int_equal(ear.heard, 8);
    assert_string_equal(ear_type(&ear, 3), "events.lost");
    assert_int_equal(ear_number(&ear, 3, "from"), 17);
    assert_int_equal(ear_number(&ear, 3, "to"), 18);
    assert_int_equal(ear_number(&ear, 7, "seq"), 22);
    ear_close(&ear);
    events_free(events);
}

static void listener_from_the_future_waits(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {0};

    (void)state;
    ear_open(&ear, events, 3);
    emit(events, 2);
    assert_int_equal(ear.heard, 0);
    emit(events, 1);
    assert_int_equal(ear.heard, 1);
    ear_close(&ear);
    events_free(events);
}

static void listeners_do_not_hold_up_each_other(void **state)
{
    struct events *events = events_new(16);
    struct ear slow = {.room = 1};
    struct ear fast = {0};

    (void)state;
    ear_open(&slow, events, 1);
    ear_open(&fast, events, 1);
    emit(events, 5);
    assert_int_equal(slow.heard, 1);
    assert_int_equal(fast.heard, 5);
    slow.room = 64;
    events_resume(slow.listener);
    assert_int_equal(slow.heard, 5);
    assert_int_equal(fast.heard, 5);
    ear_close(&slow);
    ear_close(&fast);
    events_free(events);
}

static void lost_memory_is_a_gap(void **state)
{
    struct events *events = events_new(4);
    struct ear ear = {0};

    (void)state;
    ear_open(&ear, events, 1);
    assert_int_equal(events_emit(events, "a", json_object()), 1);
    assert_int_equal(events_emit(events, "b", NULL), 0); /* what json_pack returns without memory */
    assert_int_equal(events_emit(events, "c", json_object()), 3);
    assert_int_equal(ear.heard, 2);
    assert_int_equal(ear_number(&ear, 1, "seq"), 3);
    ear_close(&ear);
    events_free(events);
}

static void act_emit_once(struct ear *ear, const json_t *event)
{
    if (strcmp(json_string_value(json_object_get(event, "type")), "test") == 0)
        events_emit(ear->events, "echo", json_object());
}

static void listener_may_emit(void **state)
{
    struct events *events = events_new(8);
    struct ear first = {0};
    struct ear actor = {.act = act_emit_once};
    struct ear last = {0};

    (void)state;
    ear_open(&first, events, 1);
    ear_open(&actor, events, 1);
    ear_open(&last, events, 1);
    events_emit(events, "test", json_object());
    assert_int_equal(first.heard, 2);
    assert_int_equal(actor.heard, 2);
    assert_int_equal(last.heard, 2);
    assert_string_equal(ear_type(&first, 0), "test");
    assert_string_equal(ear_type(&first, 1), "echo");
    assert_string_equal(ear_type(&last, 1), "echo");
    ear_close(&first);
    ear_close(&actor);
    ear_close(&last);
    events_free(events);
}

static void act_leave(struct ear *ear, const json_t *event)
{
    (void)event;
    events_unlisten(ear->listener);
    ear->listener = NULL;
}

static struct ear *victim;

static void act_remove_victim(struct ear *ear, const json_t *event)
{
    (void)ear;
    (void)event;
    events_unlisten(victim->listener);
    victim->listener = NULL;
}

static void listener_may_leave_and_remove_others(void **state)
{
    struct events *events = events_new(8);
    struct ear other = {0};
    struct ear leaver = {.act = act_leave};
    struct ear remover = {.act = act_remove_victim};

    (void)state;
    ear_open(&other, events, 1);
    ear_open(&leaver, events, 1);
    emit(events, 3);
    assert_int_equal(leaver.heard, 1);
    assert_int_equal(other.heard, 3);
    victim = &other;
    ear_open(&remover, events, 4);
    emit(events, 1);
    assert_int_equal(remover.heard, 1);
    assert_int_equal(other.heard, 3);
    remover.act = NULL;
    emit(events, 1);
    assert_int_equal(other.heard, 3);
    ear_close(&other);
    ear_close(&leaver);
    ear_close(&remover);
    events_free(events);
}

static void ring_of_none_keeps_one(void **state)
{
    struct events *events = events_new(0);
    struct ear ear = {0};

    (void)state;
    ear_open(&ear, events, 1);
    emit(events, 3);
    assert_int_equal(ear.heard, 3);
    assert_int_equal(events_oldest(events), 3);
    ear_close(&ear);
    events_free(events);
    events_free(NULL);
    events_unlisten(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_start_at_one_and_rise),
        cmocka_unit_test(events_say_number_time_and_type),
        cmocka_unit_test(an_event_may_be_written_without_a_tree),
        cmocka_unit_test(listener_gets_what_is_kept_first),
        cmocka_unit_test(listener_that_comes_late_is_told_what_it_missed),
        cmocka_unit_test(slow_listener_waits_and_is_told_what_it_missed),
        cmocka_unit_test(listener_from_the_future_waits),
        cmocka_unit_test(listeners_do_not_hold_up_each_other),
        cmocka_unit_test(lost_memory_is_a_gap),
        cmocka_unit_test(listener_may_emit),
        cmocka_unit_test(listener_may_leave_and_remove_others),
        cmocka_unit_test(ring_of_none_keeps_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
