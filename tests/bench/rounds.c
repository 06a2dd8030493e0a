/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Asks a server on a UNIX socket the same thing again and again, with some clients at a time, each of which waits for
 * its answer before it asks again; says how long the answers took. The same for all servers that are compared: an
 * answer is a line, or so many bytes where its protocol has other ends.
 *
 * rounds SOCKET CLIENTS MILLISECONDS BYTES SAY… REQUEST
 *
 * SAY is what a client says first, each answered by a line; "-" waits for a line and says nothing. BYTES of 0 is a
 * line.
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define CLIENTS_MAX 1024
#define SAMPLES_MAX (16 * 1024 * 1024)
#define WARM_MS 200

struct client {
    int fd;
    uint64_t asked_ns;
    size_t had;  /* bytes of the answer */
    bool is_out; /* a request is; none are sent any more at the end */
};

static const char *request;
static size_t request_length, answer_bytes, last_bytes;
static uint32_t *samples;
static size_t sample_count;

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void say(int fd, const char *text, size_t length)
{
    while (length) {
        ssize_t said = send(fd, text, length, MSG_NOSIGNAL);
        if (said < 0 && errno != EINTR)
            die("send");
        if (said > 0) {
            text += said;
            length -= (size_t)said;
        }
    }
}

/* The bytes that are there, at most to the end of the line; whether that has been reached. */
static bool hear(struct client *client, size_t wanted)
{
    static char buffer[1024 * 1024];
    ssize_t got = recv(client->fd, buffer, sizeof(buffer), 0);

    if (got <= 0) {
        errno = got ? errno : ECONNRESET;
        die("recv");
    }
    client->had += (size_t)got;
    return wanted ? client->had >= wanted : buffer[got - 1] == '\n';
}

static void open_client(struct client *client, const char *path, char **sayings, int count)
{
    client->fd = open_socket(path);
    for (int i = 0; i < count; i++) {
        if (strcmp(sayings[i], "-") != 0)
            say(client->fd, sayings[i], strlen(sayings[i]));
        while (!hear(client, 0)) {
        }
    }
}

static void ask(struct client *client)
{
    client->had = 0;
    client->is_out = true;
    client->asked_ns = now_ns();
    say(client->fd, request, request_length);
}

/* Whether the answer is whole; counted when it is, unless the machine is just being warmed up. */
static bool answered(struct client *client, uint64_t counted_from_ns)
{
    if (!hear(client, answer_bytes))
        return false;
    uint64_t now = now_ns();
    if (client->asked_ns >= counted_from_ns && sample_count < SAMPLES_MAX)
        samples[sample_count++] = (uint32_t)(now - client->asked_ns);
    last_bytes = client->had;
    client->is_out = false;
    return true;
}

/* One client needs nothing to be told of: it waits where it reads. */
static void run_one(struct client *client, uint64_t counted_from_ns, uint64_t until_ns)
{
    while (now_ns() < until_ns) {
        ask(client);
        while (!answered(client, counted_from_ns)) {
        }
    }
}

static void run_many(struct client *clients, size_t count, uint64_t counted_from_ns, uint64_t until_ns)
{
    struct epoll_event events[64];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    size_t out = count;

    if (epoll < 0)
        die("epoll_create1");
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &event) < 0)
            die("epoll_ctl");
        ask(&clients[i]);
    }
    while (out) {
        int ready = epoll_wait(epoll, events, 64, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (!answered(client, counted_from_ns))
                continue;
            if (now_ns() < until_ns)
                ask(client);
            else
                out--;
        }
    }
    close(epoll);
}

static int compare(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;

    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    static struct client clients[CLIENTS_MAX];

    if (argc < 6) {
        fprintf(stderr, "usage: rounds SOCKET CLIENTS MILLISECONDS BYTES [SAY...] REQUEST\n");
        return 2;
    }
    size_t count = strtoul(argv[2], NULL, 10);
    uint64_t measured_ns = strtoull(argv[3], NULL, 10) * 1000000U;
    answer_bytes = strtoul(argv[4], NULL, 10);
    request = argv[argc - 1];
    request_length = strlen(request);
    samples = malloc(SAMPLES_MAX * sizeof(*samples));
    if (!samples || count < 1 || count > CLIENTS_MAX || !measured_ns) {
        fprintf(stderr, "rounds: there are 1 to %d clients\n", CLIENTS_MAX);
        return 2;
    }
    for (size_t i = 0; i < count; i++)
        open_client(&clients[i], argv[1], argv + 5, argc - 6);

    uint64_t from_ns = now_ns() + WARM_MS * 1000000U, until_ns = from_ns + measured_ns;
    if (count == 1)
        run_one(&clients[0], from_ns, until_ns);
    else
        run_many(clients, count, from_ns, until_ns);
    double seconds = (double)(now_ns() - from_ns) / 1e9;
    if (!sample_count) {
        fprintf(stderr, "rounds: no answer in time\n");
        return 1;
    }
    qsort(samples, sample_count, sizeof(*samples), compare);
    printf("{\"requests\": %zu, \"per_second\": %.0f, \"p50_us\": %.3f, \"p99_us\": %.3f, \"most_us\": %.1f, "
           "\"answer_bytes\": %zu}\n",
           sample_count, (double)sample_count / seconds, samples[sample_count / 2] / 1e3,
           samples[sample_count - 1 - sample_count / 100] / 1e3, samples[sample_count - 1] / 1e3, last_bytes);
    return 0;
}
