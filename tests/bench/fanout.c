/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long it takes until all of many subscribers have been told of something that one caller asks for.
 *
 * fanout SOCKET SUBSCRIBERS REPETITIONS SUBSCRIBE TRIGGER MARK: SUBSCRIBE is what each of them says first, and is
 * answered
 * ("-": nothing), TRIGGER what the caller says; what they wait for is a line that has MARK in it.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define LINE_MAX_BYTES 8192

struct subscriber {
    int fd;
    size_t used;
    bool told;
    char line[LINE_MAX_BYTES];
};

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) != (ssize_t)strlen(text))
        die("send");
}

/* Takes in what is there; whether a line with the mark was among it. */
static bool hear(struct subscriber *subscriber, const char *mark)
{
    char *line = subscriber->line;
    bool found = false;
    ssize_t got = recv(subscriber->fd, line + subscriber->used, LINE_MAX_BYTES - 1 - subscriber->used, 0);

    if (got <= 0) {
        errno = got ? errno : ECONNRESET;
        die("recv");
    }
    subscriber->used += (size_t)got;
    line[subscriber->used] = '\0';
    for (char *end; (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        found |= strstr(line, mark) != NULL;
    }
    subscriber->used -= (size_t)(line - subscriber->line);
    memmove(subscriber->line, line, subscriber->used);
    if (subscriber->used == LINE_MAX_BYTES - 1)
        subscriber->used = 0;
    return found;
}

static double run(int epoll, int caller, const char *trigger, const char *mark, struct subscriber *all, size_t count)
{
    struct epoll_event events[64];
    size_t told = 0;
    char answer[LINE_MAX_BYTES];
    double began_us = now_us();

    for (size_t i = 0; i < count; i++)
        all[i].told = false;
    say(caller, trigger);
    while (told < count) {
        int ready = epoll_wait(epoll, events, 64, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct subscriber *subscriber = events[i].data.ptr;
            if (hear(subscriber, mark) && !subscriber->told) {
                subscriber->told = true;
                told++;
            }
        }
    }
    double took_us = now_us() - began_us;
    if (recv(caller, answer, sizeof(answer), 0) <= 0)
        die("recv");
    return took_us;
}

int main(int argc, char **argv)
{
    size_t count = argc == 7 ? strtoul(argv[2], NULL, 10) : 0, repetitions = argc == 7 ? strtoul(argv[3], NULL, 10) : 0;
    struct subscriber *all = calloc(count + 1, sizeof(*all));
    double *took_us = calloc(repetitions + 1, sizeof(*took_us));
    int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (!count || !repetitions || !all || !took_us || epoll < 0) {
        fprintf(stderr, "usage: fanout SOCKET SUBSCRIBERS REPETITIONS SUBSCRIBE TRIGGER MARK\n");
        return 2;
    }
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        all[i].fd = open_socket(argv[1]);
        if (strcmp(argv[4], "-") != 0) {
            say(all[i].fd, argv[4]);
            while (!hear(&all[i], "\"result\"")) {
            }
        }
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &event) < 0)
            die("epoll_ctl");
    }
    int caller = open_socket(argv[1]);
    for (size_t i = 0; i < repetitions; i++) {
        took_us[i] = run(epoll, caller, argv[5], argv[6], all, count);
        usleep(2000); /* the next is one of its own, and not a part of this one's end */
    }
    printf("{");
    print_percentiles(took_us, repetitions);
    printf("}\n");
    return 0;
}
