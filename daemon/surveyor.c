/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/surveyor.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>

struct surveyor {
    struct handover handover;
    atomic_bool stop;
    struct hypervisor *hypervisor;         /* the thread's, like what follows */
    struct work *turns[2], **turns_end[2]; /* orders begun: what sessions wait for, and what curiosity waits for */
};

static struct survey_order *surveyor_order(struct work *work)
{
    return (struct survey_order *)(void *)work;
}

static void surveyor_queue(struct surveyor *surveyor, struct survey_order *order)
{
    order->work.next = NULL;
    *surveyor->turns_end[order->curious] = &order->work;
    surveyor->turns_end[order->curious] = &order->work.next;
}

static struct survey_order *surveyor_take(struct surveyor *surveyor)
{
    for (unsigned i = 0; i < 2; i++) {
        struct work *work = surveyor->turns[i];
        if (!work)
            continue;
        surveyor->turns[i] = work->next;
        if (!work->next)
            surveyor->turns_end[i] = &surveyor->turns[i];
        return surveyor_order(work);
    }
    return NULL;
}

static int surveyor_start(struct surveyor *surveyor, struct survey_order *order)
{
    struct hypervisor_domain domain;
    int error = 0;

    if (!order->p2m) {
        error = hypervisor_get(surveyor->hypervisor, order->domid, &domain);
        if (!error)
            error = hypervisor_map_p2m(surveyor->hypervisor, &domain, &order->own);
    }
    if (error)
        return error;
    survey_begin(order->survey, order->p2m ? order->p2m : order->own, NULL);
    return 0;
}

static void surveyor_finish(struct surveyor *surveyor, struct survey_order *order, int error)
{
    order->error = error;
    if (!error)
        order->result = *survey_result(order->survey);
    hypervisor_unmap_p2m(order->own);
    survey_free(order->survey);
    order->own = NULL;
    order->survey = NULL;
    handover_finish(&surveyor->handover, &order->work);
}

static void surveyor_turn(struct surveyor *surveyor, struct survey_order *order)
{
    struct survey_pages pages = {surveyor->hypervisor, order->domid};
    struct p2m_source source = survey_pages_source(&pages);
    int more = 0;

    if (!order->survey) {
        more = survey_new(&order->survey);
        if (!more)
            more = surveyor_start(surveyor, order);
    }
    if (!more)
        more = survey_step(order->survey, &source, SURVEY_STEP_ENTRIES);
    if (more > 0)
        surveyor_queue(surveyor, order);
    else
        surveyor_finish(surveyor, order, more);
}

static void *surveyor_main(void *context)
{
    struct surveyor *surveyor = context;
    struct survey_order *order;
    struct work *work;

    while (!atomic_load(&surveyor->stop)) {
        while ((work = handover_next(&surveyor->handover)))
            surveyor_queue(surveyor, surveyor_order(work));
        order = surveyor_take(surveyor);
        if (order) {
            surveyor_turn(surveyor, order);
            continue;
        }
        struct pollfd fd = {.fd = handover_fd(&surveyor->handover), .events = POLLIN};
        if (poll(&fd, 1, -1) > 0)
            handover_hear(&surveyor->handover);
    }
    while ((order = surveyor_take(surveyor)))
        surveyor_finish(surveyor, order, -ECANCELED);
    return NULL;
}

int surveyor_new(struct surveyor **result, struct event_base *base)
{
    struct surveyor *surveyor = calloc(1, sizeof(*surveyor));

    if (!surveyor)
        return -ENOMEM;
    for (unsigned i = 0; i < 2; i++)
        surveyor->turns_end[i] = &surveyor->turns[i];
    int error = hypervisor_open(&surveyor->hypervisor);
    if (!error)
        error = handover_open(&surveyor->handover, base, surveyor_main, NULL, surveyor);
    if (error) {
        hypervisor_close(surveyor->hypervisor);
        free(surveyor);
        return error;
    }
    *result = surveyor;
    return 0;
}

void surveyor_free(struct surveyor *surveyor)
{
    if (!surveyor)
        return;
    atomic_store(&surveyor->stop, true);
    handover_wake_thread(&surveyor->handover);
    pthread_join(surveyor->handover.thread, NULL);
    handover_close(&surveyor->handover);
    hypervisor_close(surveyor->hypervisor);
    free(surveyor);
}

void surveyor_submit(struct surveyor *surveyor, struct survey_order *order)
{
    order->error = -ECANCELED; /* stays when the thread ends before its turn comes */
    order->own = NULL;
    order->survey = NULL;
    handover_submit(&surveyor->handover, &order->work);
}
