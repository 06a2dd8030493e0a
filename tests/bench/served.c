/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The least that a server does which makes requests of xenstored for others, and whose loop never waits for them: a
 * line comes, a thread makes what a list (trips.h) names, a line goes. What that takes is measured from outside, where
 * the daemon's answers are measured as well.
 *
 * It has eventfds of its own and not the daemon's handover.h: what that takes is part of what is measured.
 *
 * served REPETITIONS REST_MS LIST: asks so often, with a pause before.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "tests/bench/bench.h"
#include "tests/bench/trips.h"

static struct trips_list list;
static int to_thread, to_loop;

static void ring(int fd)
{
    if (eventfd_write(fd, 1) < 0)
        die("eventfd");
}

static void hear(int fd)
{
    eventfd_t count;

    if (eventfd_read(fd, &count) < 0)
        die("eventfd");
}

static void *run_thread(void *context)
{
    struct xs_handle *store = xs_open(0), *watches = xs_open(0);
    (void)context;

    if (!store || !watches)
        die("xs_open");
    for (;;) {
        hear(to_thread);
        trips_make(&list, store, watches);
        ring(to_loop);
        trips_drain(watches);
    }
    return NULL;
}

static void on_line(struct bufferevent *stream, void *context)
{
    char *line = evbuffer_readln(bufferevent_get_input(stream), NULL, EVBUFFER_EOL_LF);
    (void)context;

    if (line)
        ring(to_thread);
    free(line);
}

static void on_made(evutil_socket_t fd, short what, void *context)
{
    (void)what;
    hear(fd);
    bufferevent_write(context, "made\n", 5);
}

static void serve(int fd)
{
    struct event_base *base = event_base_new();
    struct bufferevent *stream = base ? bufferevent_socket_new(base, fd, 0) : NULL;
    pthread_t thread;

    to_thread = eventfd(0, EFD_CLOEXEC);
    to_loop = eventfd(0, EFD_CLOEXEC);
    if (!stream || to_thread < 0 || to_loop < 0)
        die("a server");
    struct event *made = event_new(base, to_loop, EV_READ | EV_PERSIST, on_made, stream);
    if (!made || event_add(made, NULL) < 0)
        die("a server");
    errno = pthread_create(&thread, NULL, run_thread, NULL);
    if (errno)
        die("a thread");
    bufferevent_setcb(stream, on_line, NULL, NULL, NULL);
    bufferevent_enable(stream, EV_READ | EV_WRITE);
    event_base_dispatch(base);
}

static void ask(int fd)
{
    char answer[16];

    if (send(fd, "make\n", 5, MSG_NOSIGNAL) != 5 || recv(fd, answer, sizeof(answer), 0) <= 0)
        die("the server");
}

int main(int argc, char **argv)
{
    size_t repetitions = argc == 4 ? strtoul(argv[1], NULL, 10) : 0;
    double *took_us = calloc(repetitions + 1, sizeof(*took_us));
    int ends[2];

    if (!repetitions || !took_us) {
        fprintf(stderr, "usage: served REPETITIONS REST_MS LIST\n");
        return 2;
    }
    trips_read(&list, argv[3]);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        die("socketpair");
    pid_t pid = fork();
    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        evutil_make_socket_nonblocking(ends[1]);
        serve(ends[1]);
        return 1;
    }
    close(ends[1]);
    ask(ends[0]); /* it has started */
    useconds_t rest_us = (useconds_t)strtoul(argv[2], NULL, 10) * 1000;
    for (size_t round = 0; round < repetitions; round++) {
        usleep(rest_us);
        double began_us = now_us();
        ask(ends[0]);
        took_us[round] = now_us() - began_us;
    }
    kill(pid, SIGKILL);
    printf("{\"trips\": %zu, ", list.count);
    print_samples(took_us, repetitions);
    printf("}\n");
    free(took_us);
    return 0;
}
