/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the thread tells of before it finishes a work is heard before that work is given back. */
#include "daemon/handover.h"

#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <event2/event.h>

struct scene {
    struct handover handover;
    struct work work;
    sem_t heard_first, finished;
    int rings;
    bool heard; /* the notice that precedes the work */
};

static struct scene scene;

/* A notice while nothing is finished; then, while the loop is at that, another one and a finished work. */
static void *thread_body(void *context)
{
    (void)context;
    handover_wake_loop(&scene.handover);
    sem_wait(&scene.heard_first);
    handover_wake_loop(&scene.handover);
    handover_finish(&scene.handover, &scene.work);
    sem_post(&scene.finished);
    return NULL;
}

/* The first time it has just taken the notices there are: the second one is not among them. */
static void on_rung(void *context)
{
    (void)context;
    if (scene.rings++ == 0) {
        sem_post(&scene.heard_first);
        sem_wait(&scene.finished);
    } else {
        scene.heard = true;
    }
}

static void on_done(struct work *work)
{
    (void)work;
    assert_true(scene.heard);
}

static void a_notice_is_heard_before_the_work_that_follows(void **state)
{
    struct event_base *base = event_base_new();
    (void)state;

    assert_non_null(base);
    scene.work.done = on_done;
    assert_int_equal(sem_init(&scene.heard_first, 0, 0), 0);
    assert_int_equal(sem_init(&scene.finished, 0, 0), 0);
    assert_int_equal(handover_open(&scene.handover, base, thread_body, on_rung, NULL), 0);
    while (!scene.heard)
        assert_int_equal(event_base_loop(base, EVLOOP_ONCE), 0);
    assert_int_equal(pthread_join(scene.handover.thread, NULL), 0);
    handover_close(&scene.handover);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_notice_is_heard_before_the_work_that_follows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
