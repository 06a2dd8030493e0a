/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/heirs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate.h"
#include "daemon/log.h"
#include "daemon/timer.h"
#include "daemon/worker.h"

/* A new domain is marked so long after it has come up, if nothing has to be told from the pin before. */
#define HEIRS_LATER_MS 1000

struct heirs {
    struct session *const *sessions;
    struct event *later;
};

struct heir_mark {
    struct work work;
    struct heirs *heirs;
    struct journal journal;
    uint16_t heir;
    int error;
};

static void heir_mark_run(struct work *work, const struct worker_tools *tools)
{
    struct heir_mark *mark = (struct heir_mark *)(void *)work;

    mark->error = gate_mark(&mark->journal, tools, mark->heir);
    if (mark->error && mark->error != -ENOENT && mark->error != -ESRCH)
        log_warning("domain %u: marking the target of its new domain %u failed: %s", mark->journal.domid, mark->heir,
                    strerror(-mark->error));
}

static struct session *heirs_find(const struct heirs *heirs, const char *id)
{
    struct session *session = *heirs->sessions;

    while (session && strcmp(session->id, id) != 0)
        session = session->next;
    return session;
}

/* One that is not marked, for it has no target yet or there is no connection, is tried again when it is introduced. */
static void heir_mark_done(struct work *work)
{
    struct heir_mark *mark = (struct heir_mark *)(void *)work;
    struct session *session = mark->error ? NULL : heirs_find(mark->heirs, mark->journal.session);

    if (session && session->heir == mark->heir)
        session_set_heir(session, mark->heir, true);
    free(mark);
}

static void heirs_mark(struct heirs *heirs, struct session *session, uint16_t heir)
{
    struct heir_mark *mark = calloc(1, sizeof(*mark));

    session_set_heir(session, heir, false);
    if (!mark) {
        log_error("session %s: out of memory for its new domain", session->id);
        return;
    }
    mark->work.run = heir_mark_run;
    mark->work.done = heir_mark_done;
    mark->heirs = heirs;
    mark->error = -ECANCELED;
    mark->journal = session->gate.journal;
    mark->heir = heir;
    worker_submit(session->host->worker, &mark->work);
}

static void heirs_on_later(evutil_socket_t fd, short what, void *context)
{
    struct heirs *heirs = context;
    (void)fd, (void)what;

    for (struct session *session = *heirs->sessions; session; session = session->next)
        if (session->heir && !session->heir_is_marked)
            heirs_mark(heirs, session, session->heir);
}

void heirs_appeared(struct heirs *heirs, struct session *session, uint16_t heir)
{
    bool can_wait = strtoull(session->gate.journal.pin, NULL, 10) == session_wanted_target_kib(session);

    if (session->heir == heir && session->heir_is_marked)
        return;
    if (can_wait && !evtimer_pending(heirs->later, NULL))
        can_wait = timer_arm(heirs->later, HEIRS_LATER_MS) == 0;
    if (can_wait)
        session_set_heir(session, heir, false);
    else
        heirs_mark(heirs, session, heir);
}

void heirs_wished(struct heirs *heirs, struct session *session)
{
    if (session->heir && !session->heir_is_marked)
        heirs_mark(heirs, session, session->heir);
}

int heirs_new(struct heirs **result, struct event_base *base, struct session *const *sessions)
{
    struct heirs *heirs = calloc(1, sizeof(*heirs));

    if (!heirs)
        return -ENOMEM;
    heirs->sessions = sessions;
    heirs->later = evtimer_new(base, heirs_on_later, heirs);
    if (!heirs->later) {
        free(heirs);
        return -ENOMEM;
    }
    *result = heirs;
    return 0;
}

void heirs_free(struct heirs *heirs)
{
    if (!heirs)
        return;
    timer_free(heirs->later);
    free(heirs);
}
