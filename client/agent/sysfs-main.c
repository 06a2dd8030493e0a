/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * agent-sysfs: makes the agent's changes in sysfs, in everybody's mount namespace, and does nothing else.
 *
 * systemd starts it when the agent connects, and it ends when nobody has been connected for some seconds. It keeps no
 * record: what a freeze has changed stands in the agent's journal. But what a connection has covered is uncovered when
 * that is closed, so that an agent that is killed, or has given up waiting, leaves no cover. It may be killed at any
 * moment itself; the next one serves the same agent.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/agent/sysfs.h"
#include "config.h"
#include "daemon/log.h"

/* The first descriptor that systemd hands over, sd_listen_fds(3). */
#define SERVER_LISTEN_FD 3
#define SERVER_IDLE_MS 5000

/* Two agents never run at once, but one that is thawed by hand may follow closely. */
#define SERVER_PEERS 4

struct server {
    struct sysfs sysfs;
    bool is_apart;                       /* what is mounted here nobody else sees: no freeze is to begin */
    int peers[SERVER_PEERS];             /* descriptors; -1 = none */
    int holders[SYSFS_FOLDER_COUNT];     /* whose folder it is: a descriptor of these; -1 = nobody's */
    struct pollfd fds[1 + SERVER_PEERS]; /* the listening one first; as in `peers` */
};

/* ---- folders and who holds them ---- */

static bool server_is_others(const struct server *server, int peer, enum sysfs_folder folder)
{
    return server->holders[folder] >= 0 && server->holders[folder] != peer;
}

/* Uncovering is everybody's right; what else is done to a folder is its holder's, when it has one. */
static int server_do(struct server *server, int peer, const struct sysfs_request *request)
{
    enum sysfs_folder folder = request->folder;

    if (request->verb == SYSFS_READY)
        return server->is_apart ? -EXDEV : 0;
    if (request->verb != SYSFS_UNCOVER && server_is_others(server, peer, folder))
        return -EBUSY;
    /* Before it is covered: from here on it is to be uncovered. */
    if (request->verb == SYSFS_COVER)
        server->holders[folder] = peer;
    int error = sysfs_do(&server->sysfs, request);
    if (request->verb == SYSFS_UNCOVER && !error)
        server->holders[folder] = -1;
    return error;
}

static void server_let_go(struct server *server, int peer)
{
    for (int i = 0; i < SYSFS_FOLDER_COUNT; i++) {
        const struct sysfs_request request = {.verb = SYSFS_UNCOVER, .folder = (enum sysfs_folder)i};
        if (server->holders[i] != peer)
            continue;
        int error = sysfs_do(&server->sysfs, &request);
        server->holders[i] = -1;
        if (error)
            log_error("uncovering %s failed: %s", server->sysfs.folders[i], strerror(-error));
        else
            log_warning("%s is uncovered: the agent has gone", server->sysfs.folders[i]);
    }
}

/* ---- connections ---- */

static void server_drop(struct server *server, int index)
{
    int peer = server->peers[index];

    server_let_go(server, peer);
    server->peers[index] = -1;
    close(peer);
}

/* The socket is root's alone; a service manager that was told otherwise changes nothing about who may ask. */
static bool server_may_ask(int peer)
{
    struct ucred caller;
    socklen_t size = sizeof(caller);

    if (getsockopt(peer, SOL_SOCKET, SO_PEERCRED, &caller, &size) < 0) {
        log_warning("nobody knows who has connected: %s", strerror(errno));
        return false;
    }
    if (caller.uid == 0 || caller.uid == geteuid())
        return true;
    log_warning("process %ld of user %lu has connected, and is refused", (long)caller.pid, (unsigned long)caller.uid);
    return false;
}

/* There is room, or it would not have been listened to. */
static void server_add(struct server *server, int peer)
{
    int i = 0;

    while (server->peers[i] >= 0)
        i++;
    server->peers[i] = peer;
}

static void server_accept(struct server *server)
{
    int peer = accept4(SERVER_LISTEN_FD, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (peer < 0)
        log_warning("accepting a connection failed: %s", strerror(errno));
    else if (server_may_ask(peer))
        server_add(server, peer);
    else
        close(peer);
}

/*
 * True when the other side is still there. A request of somebody who has given up must not be done: this process may
 * have been stopped for long, and what was asked for been undone by others since.
 */
static bool server_is_awaited(int peer)
{
    struct pollfd look = {.fd = peer, .events = POLLRDHUP};

    return poll(&look, 1, 0) == 0;
}

/* False when the connection is to be closed. */
static bool server_serve(struct server *server, int peer)
{
    char text[SYSFS_TEXT_MAX], answer[SYSFS_TEXT_MAX];
    struct sysfs_request request;
    ssize_t length = recv(peer, text, sizeof(text), MSG_TRUNC);

    if (length < 0)
        return errno == EAGAIN || errno == EINTR;
    if (length == 0 || !server_is_awaited(peer))
        return false;
    bool is_request = sysfs_request_parse(text, (size_t)length, &request) == 0;
    int outcome = is_request ? server_do(server, peer, &request) : -EINVAL;
    if (!is_request)
        log_warning("what was asked is no request, and the connection closed");
    int size = sysfs_answer_format(outcome, answer);
    return send(peer, answer, (size_t)size, MSG_NOSIGNAL) == size && is_request;
}

/* ---- life ---- */

/* The number of connections. */
static int server_list(struct server *server)
{
    int count = 0;

    server->fds[0] = (struct pollfd){.fd = SERVER_LISTEN_FD, .events = POLLIN};
    for (int i = 0; i < SERVER_PEERS; i++) {
        server->fds[1 + i] = (struct pollfd){.fd = server->peers[i], .events = POLLIN};
        count += server->peers[i] >= 0;
    }
    /* Who finds no room waits for it, and may wait in vain. */
    if (count == SERVER_PEERS)
        server->fds[0].fd = -1;
    return count;
}

static int server_run(struct server *server)
{
    for (;;) {
        int count = server_list(server);
        int ready = poll(server->fds, 1 + SERVER_PEERS, count ? -1 : SERVER_IDLE_MS);
        if (ready == 0)
            return 0; /* whoever connects from here on is systemd's, and starts another one */
        if (ready < 0 && errno != EINTR)
            return -errno;
        if (ready < 0)
            continue;
        for (int i = 0; i < SERVER_PEERS; i++)
            if (server->peers[i] >= 0 && server->fds[1 + i].revents && !server_serve(server, server->peers[i]))
                server_drop(server, i);
        if (server->fds[0].revents)
            server_accept(server);
    }
}

/* systemd's way of handing over a socket, of which this needs no library. */
static bool server_has_socket(void)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    char own[32];
    int type = 0;
    socklen_t size = sizeof(type);

    snprintf(own, sizeof(own), "%ld", (long)getpid());
    return pid && count && strcmp(pid, own) == 0 && strcmp(count, "1") == 0 &&
           getsockopt(SERVER_LISTEN_FD, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
}

struct server_options {
    const char *sysfs;
    long everybody; /* a process that sees what everybody sees */
};

/* Those that tests need. */
static int server_parse(int argc, char **argv, struct server_options *options)
{
    static const struct option names[] = {{"sysfs", required_argument, NULL, 's'},
                                          {"everybody", required_argument, NULL, 'e'},
                                          {"version", no_argument, NULL, 'V'},
                                          {NULL, 0, NULL, 0}};
    int name;

    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (name == 'V') {
            puts("agent-sysfs " PACKAGE_VERSION);
            exit(0);
        } else if (name == 's') {
            options->sysfs = optarg;
        } else if (name == 'e') {
            options->everybody = strtol(optarg, NULL, 10);
        } else {
            return -EINVAL;
        }
    }
    return optind < argc ? -EINVAL : 0;
}

int main(int argc, char **argv)
{
    static struct server server;
    struct server_options options = {.sysfs = "/sys", .everybody = 1};

    if (server_parse(argc, argv, &options)) {
        fputs("usage: agent-sysfs [--sysfs DIR] [--everybody PID]; systemd starts it, for p2mguard-agent\n", stderr);
        return 2;
    }
    log_open();
    if (!server_has_socket()) {
        log_error("agent-sysfs is started by systemd, with a socket");
        return 2;
    }
    memset(server.peers, -1, sizeof(server.peers));
    memset(server.holders, -1, sizeof(server.holders));
    int error = sysfs_init(&server.sysfs, options.sysfs);
    server.is_apart = sysfs_is_apart_from(options.everybody);
    if (server.is_apart)
        log_error("agent-sysfs must not have a mount namespace of its own; p2mguard-agent(8), CONFINEMENT");
    if (!error)
        error = server_run(&server);
    if (error)
        log_error("agent-sysfs ends: %s", strerror(-error));
    return error ? 1 : 0;
}
