/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The real helper between libxl and the daemon.
 *
 * Everything is passed on byte for byte, but for one message: "suspend" waits for a final verdict. When that is not
 * proceed, libxl never sees it: the helper is answered in libxl's place that the guest could not be suspended, takes
 * its own way out of the save, which puts the guest right, and reports failure to libxl. Before that, while pages are
 * copied, it is told to stop as libxl does it, with SIGTERM.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/save-helper/save-helper.h"

/* A verdict comes within a second or says that it could not be given; a daemon that is silent for longer is none. */
#define RUN_VERDICT_MS 10000

enum { FD_SIGNALS, FD_STDIN, FD_STDOUT, FD_TO_HELPER, FD_FROM_HELPER, FD_PROCESS, FD_GUARD, FDS };

struct run {
    struct helper *helper;
    pid_t pid;
    int process; /* pidfd, -1 once it has ended */
    int to_helper, from_helper;
    int wait_status;
    bool libxl_there, stopping;
    bool holding;   /* a suspend message waits for a verdict */
    bool suspended; /* one has been passed on */
    bool refused;   /* one has not been */
    bool spoilt;    /* a verdict was not proceed, and another attempt may help */
    int64_t asked;  /* the request for a verdict that is under way, 0 = none */
    bool final;     /* which is for the message that waits */
    int retval;     /* what the helper's last message said */
};

/* ---- the helper's process ---- */

static void run_child(const struct helper *helper, const int in[2], const int out[2], pid_t parent)
{
    sigset_t none;

    /* libxl kills a helper that it has no more use for, and reckons with its being gone then. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (getppid() == parent && dup2(in[0], STDIN_FILENO) >= 0 && dup2(out[1], STDOUT_FILENO) >= 0)
        execv(helper->real, helper->arguments);
    _exit(127);
}

static int run_start(struct run *run)
{
    struct helper *helper = run->helper;
    pid_t parent = getpid();
    int in[2], out[2];

    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        return -errno;
    run->pid = fork();
    if (run->pid < 0)
        return -errno;
    if (run->pid == 0)
        run_child(helper, in, out, parent);
    close(in[0]);
    close(out[1]);
    run->to_helper = in[1];
    run->from_helper = out[0];
    run->process = pidfd_open(run->pid, 0);
    /* The receiver is to see the end of the stream when the helper and libxl have closed it. */
    if (helper->stream_fd > STDERR_FILENO)
        close(helper->stream_fd);
    if (helper->back_fd > STDERR_FILENO && helper->back_fd != helper->stream_fd)
        close(helper->back_fd);
    if (run->process < 0)
        return -errno;
    const int fds[] = {run->to_helper, run->from_helper, STDOUT_FILENO};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fcntl(fds[i], F_SETFL, fcntl(fds[i], F_GETFL) | O_NONBLOCK) < 0)
            return -errno;
    return 0;
}

static void run_stop(struct run *run)
{
    if (!run->stopping && run->pid > 0)
        kill(run->pid, SIGTERM);
    run->stopping = true;
}

static void run_reap(struct run *run)
{
    while (waitpid(run->pid, &run->wait_status, 0) < 0 && errno == EINTR)
        ;
    close(run->process);
    run->process = -1;
    run->pid = 0;
}

/* ---- verdicts ---- */

/* As long as it is open whether the guest is saved. */
static bool run_wants_verdicts(const struct run *run)
{
    return !run->suspended && !run->refused && !run->stopping;
}

static void run_ask(struct run *run, bool final)
{
    struct helper *helper = run->helper;
    char params[96];

    snprintf(params, sizeof(params), "{\"session\":\"%s\",\"phase\":\"%s\"}", helper->session,
             final ? "final" : "precopy");
    run->asked = p2mguard_send(helper->guard, "guard.verdict", params);
    run->final = final;
}

/* The message that waits goes on to libxl, or its answer to the helper: that the guest was not suspended. */
static void run_decide(struct run *run, bool proceed)
{
    struct helper *helper = run->helper;
    size_t length = stream_message(&helper->from_helper);
    int refused = 0;

    if (!run->holding)
        return;
    run->holding = false;
    if (proceed) {
        run->suspended = true;
        stream_put(&helper->to_libxl, helper->from_helper.bytes, length);
    } else {
        run->refused = true;
        stream_put(&helper->to_helper, &refused, sizeof(refused));
    }
    stream_drop(&helper->from_helper, length);
}

/*
 * The daemon has gone, or has no verdict to give. Whoever comes after it lets the guest go, which is then free to move
 * while it is copied; whatever the policy says of guests that were never held, this one is not saved.
 */
static void run_lose_guard(struct run *run, const char *why)
{
    struct helper *helper = run->helper;

    if (run->suspended)
        return; /* it has been vouched for, and does not run any more */
    helper_say(helper, SAY_ERROR, "retry: nobody guards domain %u any more: %s; the save ends, start again",
               helper->domid, why);
    p2mguard_close(helper->guard);
    helper->guard = NULL;
    run->asked = 0;
    if (run->holding)
        run_decide(run, false);
    else
        run_stop(run);
}

static void run_take_verdict(struct run *run, const struct p2mguard_record *record)
{
    struct helper *helper = run->helper;
    const char *verdict = p2mguard_record_text(record, "verdict"), *text = p2mguard_record_text(record, "text");
    bool proceed = verdict && strcmp(verdict, "proceed") == 0;

    run->asked = 0;
    if (!run_wants_verdicts(run))
        return;
    if (!proceed) {
        run->spoilt = verdict && strcmp(verdict, "retry") == 0;
        helper_say(helper, SAY_ERROR, "%s: domain %u: %s%s", verdict ? verdict : "no verdict", helper->domid,
                   text ? text : "", run->spoilt ? "; it is held, start again" : "");
    }
    if (run->holding && (run->final || !proceed))
        run_decide(run, proceed);
    else if (run->holding)
        run_ask(run, true); /* that one was asked for before */
    else if (!proceed)
        run_stop(run);
}

/* Events say when there is something to ask about. */
static void run_take_events(struct run *run)
{
    struct helper *helper = run->helper;
    struct p2mguard_record *event;
    int come;

    while ((come = p2mguard_event(helper->guard, 0, &event)) > 0) {
        const char *session = p2mguard_record_text(event, "session"), *type = p2mguard_record_text(event, "type");
        bool ours = session && strcmp(session, helper->session) == 0;
        bool about = type && (strcmp(type, "session.changed") == 0 || strcmp(type, "session.thawing") == 0);
        if (ours && about && !run->asked && run_wants_verdicts(run))
            run_ask(run, false);
        p2mguard_record_free(event);
    }
    if (come < 0)
        run_lose_guard(run, p2mguard_error_text(helper->guard));
}

static void run_hear_guard(struct run *run)
{
    struct helper *helper = run->helper;
    struct p2mguard_record *record = NULL;

    p2mguard_dispatch(helper->guard); /* what is wrong with it, the looks at answer and events tell */
    int status = run->asked ? p2mguard_reply(helper->guard, run->asked, &record) : 0;
    if (status > 0)
        run_take_verdict(run, record);
    else if (status < 0)
        run_lose_guard(run, p2mguard_error_text(helper->guard));
    p2mguard_record_free(record);
    if (helper->guard)
        run_take_events(run);
}

/* ---- passing on ---- */

/* As much as can be read, at most what there is room for. False at the end. */
static bool run_read(int fd, struct stream *stream)
{
    size_t room = sizeof(stream->bytes) - stream->used;
    ssize_t length = read(fd, stream->bytes + stream->used, room);

    if (length > 0)
        stream->used += (size_t)length;
    return length > 0 || (length < 0 && (errno == EAGAIN || errno == EINTR));
}

static bool run_write(int fd, struct stream *stream)
{
    ssize_t length = write(fd, stream->bytes, stream->used);

    if (length > 0)
        stream_drop(stream, (size_t)length);
    return length >= 0 || errno == EAGAIN || errno == EINTR;
}

/* Whole messages go on, as far as there is room, until one that has to wait. What the helper has said at its end goes
 * on as it is. */
static void run_pass_on(struct run *run)
{
    struct helper *helper = run->helper;
    struct stream *from = &helper->from_helper, *to = &helper->to_libxl;
    size_t length;

    while (!run->holding && (length = stream_message(from)) && length <= sizeof(to->bytes) - to->used) {
        if (stream_number(from) == STREAM_SUSPEND && (helper->guard || run->stopping || run->refused)) {
            run->holding = true;
            if (run->stopping || run->refused)
                run_decide(run, false); /* it had not noticed yet */
            else if (!run->asked)
                run_ask(run, true);
            continue;
        }
        if (stream_number(from) == STREAM_COMPLETE)
            run->retval = stream_retval(from);
        stream_put(to, from->bytes, length);
        stream_drop(from, length);
    }
    if (run->from_helper < 0 && !stream_message(from) && stream_put(to, from->bytes, from->used))
        from->used = 0;
}

static void run_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* libxl is gone: nobody is there to be told, and the guest is to run on as it was. */
static void run_lose_libxl(struct run *run)
{
    run->helper->to_libxl.used = 0;
    run->libxl_there = false;
    run_stop(run);
    if (run->holding)
        run_decide(run, false);
}

static void run_set_up(const struct run *run, struct pollfd fds[FDS])
{
    const struct helper *helper = run->helper;
    const struct stream *from = &helper->from_helper;
    bool room_for_replies = helper->to_helper.used < sizeof(helper->to_helper.bytes);

    fds[FD_SIGNALS] = (struct pollfd){helper->signals, POLLIN, 0};
    fds[FD_STDIN] = (struct pollfd){run->libxl_there ? STDIN_FILENO : -1, room_for_replies ? POLLIN : 0, 0};
    fds[FD_STDOUT] = (struct pollfd){helper->to_libxl.used ? STDOUT_FILENO : -1, POLLOUT, 0};
    fds[FD_TO_HELPER] = (struct pollfd){helper->to_helper.used ? run->to_helper : -1, POLLOUT, 0};
    fds[FD_FROM_HELPER] = (struct pollfd){from->used < sizeof(from->bytes) ? run->from_helper : -1, POLLIN, 0};
    fds[FD_PROCESS] = (struct pollfd){run->process, POLLIN, 0};
    fds[FD_GUARD] = (struct pollfd){helper->guard ? p2mguard_fd(helper->guard) : -1,
                                    helper->guard ? p2mguard_poll_events(helper->guard) : POLLIN, 0};
}

static void run_once(struct run *run)
{
    struct helper *helper = run->helper;
    struct signalfd_siginfo signal;
    struct pollfd fds[FDS];

    run_set_up(run, fds);
    int ready = poll(fds, FDS, run->asked ? RUN_VERDICT_MS : -1);
    if (ready == 0)
        run_lose_guard(run, "p2mguardd does not answer");
    if (ready <= 0)
        return;
    if (fds[FD_SIGNALS].revents && read(helper->signals, &signal, sizeof(signal)) > 0)
        run_stop(run);
    if (fds[FD_STDIN].revents && !run_read(STDIN_FILENO, &helper->to_helper))
        run_lose_libxl(run);
    if (fds[FD_FROM_HELPER].revents && !run_read(run->from_helper, &helper->from_helper))
        run_close(&run->from_helper);
    if (fds[FD_PROCESS].revents)
        run_reap(run);
    if (fds[FD_GUARD].revents)
        run_hear_guard(run);
    run_pass_on(run);
    if (fds[FD_STDOUT].revents && !run_write(STDOUT_FILENO, &helper->to_libxl))
        run_lose_libxl(run);
    if (fds[FD_TO_HELPER].revents && !run_write(run->to_helper, &helper->to_helper))
        helper->to_helper.used = 0; /* it has ended */
    /* Nobody answers any more, which it is to see; what it says has no listener either. */
    if (!run->libxl_there && !helper->to_helper.used)
        run_close(&run->to_helper);
    if (!run->libxl_there)
        helper->to_libxl.used = 0;
}

/* ---- from outside ---- */

static bool run_is_over(const struct run *run)
{
    return run->process < 0 && run->from_helper < 0 && !run->helper->to_libxl.used;
}

static int run_status(const struct run *run)
{
    return WIFEXITED(run->wait_status) ? WEXITSTATUS(run->wait_status) : 128 + WTERMSIG(run->wait_status);
}

int run_helper(struct helper *helper)
{
    struct run run = {
        .helper = helper, .process = -1, .to_helper = -1, .from_helper = -1, .libxl_there = true, .retval = -1};
    int error = run_start(&run);

    if (error) {
        helper_say(helper, SAY_ERROR, "starting %s failed: %s", helper->real, strerror(-error));
        if (run.pid > 0)
            kill(run.pid, SIGKILL);
        hold_end(helper, HOLD_END_FAILED);
        return 127;
    }
    while (!run_is_over(&run))
        run_once(&run);
    bool saved = run.suspended && run.retval == 0 && run.wait_status == 0;
    hold_end(helper, saved ? HOLD_END_SAVED : run.spoilt ? HOLD_END_RETRY : HOLD_END_FAILED);
    return run_status(&run);
}
