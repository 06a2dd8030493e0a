/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/talk.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/log.h"
#include "daemon/worker.h"

#define TALK_REQUEST "request"
#define TALK_DOMID "domid"

/* A node that is ours to write. */
enum talk_node { NODE_FEATURES, NODE_STATE, NODES };
static const char *const talk_paths[NODES] = {P2MG_GUEST_FEATURES, P2MG_GUEST_STATE};

/* What was last said about it; the worker may not have got round to it yet. */
struct talk_text {
    char text[P2MG_GUEST_TEXT_MAX]; /* "" = there is to be none */
    bool told;                      /* it is there, or on its way there */
    bool ever;                      /* something was said */
};

struct talk_write {
    struct work work; /* first: work is cast back */
    struct talk *talk;
    enum talk_node node;
    char text[P2MG_GUEST_TEXT_MAX];
    unsigned tree;
    unsigned number; /* of what was said about the node */
    int error;
};

struct talk_job {
    struct work work; /* first */
    struct talk *talk;
    struct talk_look look;
    char features[P2MG_GUEST_TEXT_MAX];
    char domid_before[UNDO_DOMID]; /* at the look before; "" = there was none */
    bool watches;                  /* set the watches first */
    bool whole;                    /* our own nodes were read as well */
    int watch_error;
    bool connected; /* all reads were answered */
};

struct talk {
    struct talk_callbacks callbacks;
    struct worker *worker;
    struct talk_text said[NODES];
    unsigned writing; /* writes on their way */
    bool complained[NODES];
    atomic_uint newest[NODES]; /* the number of the last write handed over; read by the worker's thread */
    unsigned tree;             /* counts the trees and connections seen: what was written to an earlier one is lost */

    struct talk_job job; /* one look at a time */
    bool away;
    unsigned number; /* of the last look that was begun */
    bool again, again_asked, again_watches, again_whole;
    bool looked; /* ever */
    bool closing;
    char domid[UNDO_DOMID];
};

/* ---- writing ---- */

/*
 * What a stalled xenstored has kept waiting may be true no longer: "frozen" is not to be read for even a moment when
 * "thawed" waits behind it.
 */
static void talk_write_run(struct work *work, const struct worker_tools *tools)
{
    struct talk_write *write = (struct talk_write *)(void *)work;
    const char *path = talk_paths[write->node];

    if (write->number != atomic_load(&write->talk->newest[write->node]))
        write->error = 0;
    else
        write->error =
            *write->text ? store_write(tools->store, 0, path, write->text) : store_remove(tools->store, 0, path);
}

static void talk_complain(struct talk *talk, const struct talk_write *write)
{
    const char *path = talk_paths[write->node];

    /* Without a connection everything is said again when there is one. */
    if (write->error == -ENOTCONN || talk->complained[write->node])
        return;
    talk->complained[write->node] = true;
    if (write->error == -EACCES)
        log_error(
            "xenstore lets this guest not write %s: the toolstack has to make its folder \"data\" the guest's own; "
            "dom0 will not know that an agent runs here",
            path);
    else
        log_error("writing %s to xenstore failed: %s", path, strerror(-write->error));
}

static void talk_write_done(struct work *work)
{
    struct talk_write *write = (struct talk_write *)(void *)work;
    struct talk *talk = write->talk;

    talk->writing--;
    if (write->error) {
        talk_complain(talk, write);
        /* Said again when there is a reason to look: an event, or a new connection. */
        if (write->tree == talk->tree && strcmp(write->text, talk->said[write->node].text) == 0)
            talk->said[write->node].told = false;
    } else {
        talk->complained[write->node] = false;
    }
    free(write);
    if (!talk->writing && !talk->closing)
        talk->callbacks.quiet(talk->callbacks.context);
}

static void talk_tell(struct talk *talk, enum talk_node node)
{
    struct talk_text *said = &talk->said[node];
    struct talk_write *write = said->ever && !said->told ? calloc(1, sizeof(*write)) : NULL;

    if (!write)
        return; /* nothing new; or no memory, and the next look tries again */
    write->work.run = talk_write_run;
    write->work.done = talk_write_done;
    write->talk = talk;
    write->node = node;
    write->tree = talk->tree;
    write->number = atomic_fetch_add(&talk->newest[node], 1) + 1;
    write->error = -ENOTCONN; /* of one that is never run */
    strcpy(write->text, said->text);
    said->told = true;
    talk->writing++;
    worker_submit(talk->worker, &write->work);
}

static void talk_say(struct talk *talk, enum talk_node node, const char *text)
{
    struct talk_text *said = &talk->said[node];

    if (!said->ever || strcmp(said->text, text) != 0) {
        snprintf(said->text, sizeof(said->text), "%s", text);
        said->ever = true;
        said->told = false;
    }
    talk_tell(talk, node);
}

void talk_answer(struct talk *talk, const char *text)
{
    talk_say(talk, NODE_STATE, text);
}

void talk_publish(struct talk *talk, const char *text)
{
    talk_say(talk, NODE_FEATURES, text ? text : "");
}

bool talk_is_quiet(const struct talk *talk)
{
    return talk->writing == 0;
}

static void talk_forget(struct talk *talk)
{
    talk->tree++;
    for (int node = 0; node < NODES; node++)
        talk->said[node].told = false;
}

/* ---- looking ---- */

/* A text, "" when it is not there or no text; -ENOTCONN when nobody answers. */
static int talk_read(struct store *store, const char *path, char *text, size_t size)
{
    int error = store_read(store, 0, path, text, size);

    if (error)
        *text = '\0';
    return error == -ENOTCONN ? error : 0;
}

/*
 * The request first: when the guest is resumed on another host before the domid is read, that does not fit, and an
 * event is on its way. Each read is a round trip that somebody waits for. A freeze is not kept waiting for more, for a
 * domid that has changed has an event of its own; nor a thaw after a resume, for a new tree has none of our nodes.
 */
static void talk_job_run(struct work *work, const struct worker_tools *tools)
{
    struct talk_job *job = (struct talk_job *)(void *)work;
    struct talk_look *look = &job->look;
    struct store *store = tools->store;

    if (job->watches) {
        job->watch_error = store_watch(store, P2MG_GUEST_REQUEST, TALK_REQUEST);
        if (!job->watch_error)
            job->watch_error = store_watch(store, "domid", TALK_DOMID);
    }
    look->error = store_read(store, 0, P2MG_GUEST_REQUEST, look->request, sizeof(look->request));
    look->read_ms = clock_now_ms();
    job->connected = look->error != -ENOTCONN;
    if (!job->connected || (!job->whole && !look->error && strncmp(look->request, "freeze", 6) == 0))
        return;
    job->connected = talk_read(store, "domid", look->domid, sizeof(look->domid)) == 0;
    job->whole = !*job->domid_before || strcmp(look->domid, job->domid_before) == 0;
    if (job->connected && job->whole)
        job->connected = talk_read(store, P2MG_GUEST_STATE, look->state, sizeof(look->state)) == 0 &&
                         talk_read(store, P2MG_GUEST_FEATURES, job->features, sizeof(job->features)) == 0;
}

static void talk_begin(struct talk *talk);

/* Whether the tree is not the one that we last wrote to. */
static bool talk_has_moved(struct talk *talk, const struct talk_job *job)
{
    const struct talk_text *said = &talk->said[NODE_FEATURES];
    bool moved = talk->looked && strcmp(job->look.domid, talk->domid) != 0;

    /* Only what was surely there can be missed. */
    if (job->whole && said->told && !talk->writing && strcmp(job->features, said->text) != 0)
        moved = true;
    return moved;
}

static void talk_take_in(struct talk *talk, struct talk_job *job)
{
    job->look.moved = talk_has_moved(talk, job);
    if (job->look.moved)
        talk_forget(talk);
    strcpy(talk->domid, job->look.domid);
    talk->looked = true;
    talk->callbacks.looked(talk->callbacks.context, &job->look);
    for (int node = 0; node < NODES; node++)
        talk_tell(talk, (enum talk_node)node);
}

static void talk_job_done(struct work *work)
{
    struct talk_job *job = (struct talk_job *)(void *)work;
    struct talk *talk = job->talk;

    talk->away = false;
    if (talk->closing)
        return;
    if (job->watches && job->watch_error && job->watch_error != -ENOTCONN)
        log_error("watching xenstore failed: %s; requests will not be heard", strerror(-job->watch_error));
    if (job->connected)
        talk_take_in(talk, job);
    if (talk->again && !talk->away)
        talk_begin(talk);
}

static void talk_begin(struct talk *talk)
{
    struct talk_job *job = &talk->job;

    memset(job, 0, sizeof(*job));
    job->work.run = talk_job_run;
    job->work.done = talk_job_done;
    job->talk = talk;
    job->look.number = ++talk->number;
    job->look.asked = talk->again_asked;
    job->watches = talk->again_watches;
    job->whole = talk->again_whole || !talk->looked;
    strcpy(job->look.domid, talk->domid);
    strcpy(job->domid_before, talk->domid);
    talk->again = talk->again_asked = talk->again_watches = talk->again_whole = false;
    talk->away = true;
    worker_submit(talk->worker, &job->work);
}

static void talk_want(struct talk *talk)
{
    talk->again = true;
    if (!talk->away)
        talk_begin(talk);
}

unsigned talk_look(struct talk *talk)
{
    unsigned number = talk->number + 1;

    talk_want(talk);
    return number;
}

/* ---- the worker's ---- */

static void talk_on_touched(void *context, const char *path, const char *token)
{
    struct talk *talk = context;
    (void)path;

    if (strcmp(token, TALK_REQUEST) == 0)
        talk->again_asked = true;
    else
        talk->again_whole = true;
    talk_want(talk);
}

static void talk_on_lost(void *context)
{
    (void)context;
    log_warning("the connection to xenstore is lost");
}

static void talk_on_back(void *context)
{
    struct talk *talk = context;

    log_debug("connected to xenstore");
    talk_forget(talk);
    talk->again_watches = talk->again_asked = talk->again_whole = true;
    talk_want(talk);
}

int talk_new(struct talk **result, struct event_base *base, const struct talk_callbacks *callbacks)
{
    struct worker_callbacks notices = {.touched = talk_on_touched, .lost = talk_on_lost, .back = talk_on_back};
    struct worker_settings settings = {.hypervisor = NULL};
    struct stat status;
    struct talk *talk = calloc(1, sizeof(*talk));

    if (!talk)
        return -ENOMEM;
    talk->callbacks = *callbacks;
    notices.context = talk;
    /* The device stays open whatever becomes of xenstored; a socket, as in dom0, does not. */
    const char *path = getenv("XENSTORED_PATH");
    if (!path) {
        free(talk);
        return -EINVAL;
    }
    settings.never_dies = stat(path, &status) < 0 || !S_ISSOCK(status.st_mode);
    if (access(path, F_OK) < 0)
        log_warning("%s is not there (is xenfs or the xenbus device missing?); waiting for it", path);
    int error = worker_new(&talk->worker, base, &settings, &notices);
    if (error) {
        free(talk);
        return error;
    }
    *result = talk;
    return 0;
}

bool talk_free(struct talk *talk, int64_t grace_ms)
{
    if (!talk)
        return true;
    talk->closing = true;
    if (!worker_free(talk->worker, grace_ms))
        return false;
    free(talk);
    return true;
}
