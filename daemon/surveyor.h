/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The one thread that surveys large p2ms: mapping and reading them takes milliseconds, which the event loop does not
 * have.
 *
 * Orders are handed over by ownership (handover.h). They are carried out in turns, a step each, so that one guest's
 * huge p2m does not keep another's waiting; what only somebody's curiosity waits for comes after what a session waits
 * for. A hypervisor handle of its own, nothing of xenstored's.
 */
#ifndef P2MGUARD_SURVEYOR_H
#define P2MGUARD_SURVEYOR_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/handover.h"
#include "daemon/survey.h"

/* Set `done`, and either `p2m` (which then must outlive the order) or just `domid`; the rest is the surveyor's. */
struct survey_order {
    struct work work; /* first; its `done` is called on the loop */
    uint16_t domid;
    const struct hypervisor_p2m *p2m; /* NULL: the surveyor looks the domain up and maps its page itself */
    bool curious;                     /* nobody's verdict depends on it */

    int error; /* 0: `result` says what was found. -ENODATA: the domain has no p2m of its own; -ESRCH: it is gone */
    struct survey_result result;

    struct hypervisor_p2m *own; /* the surveyor's */
    struct survey *survey;
};

struct surveyor;

int surveyor_new(struct surveyor **surveyor, struct event_base *base);

/* Ends the thread; orders not carried out come back with -ECANCELED. Accepts NULL. */
void surveyor_free(struct surveyor *surveyor);

void surveyor_submit(struct surveyor *surveyor, struct survey_order *order);

#endif
