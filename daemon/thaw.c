/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * thaw: puts back all that the journals in xenstore say, without a daemon. p2mguardctl(8) runs it for "thaw --offline",
 * and systemd whenever the daemon has ended.
 *
 * A program of its own, so that p2mguardctl need not be linked with the hypervisor's libraries. It waits for nobody for
 * long: not for xenstored, nor for a daemon that holds the lock.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "daemon/clock.h"
#include "daemon/configuration.h"
#include "daemon/lock.h"
#include "daemon/log.h"
#include "daemon/lookup.h"
#include "daemon/node.h"
#include "daemon/recovery.h"

/* p2mguardctl(8) has them. */
enum thaw_status { THAW_DONE = 0, THAW_FAILED = 1, THAW_USAGE = 2, THAW_NO_STORE = 3, THAW_DAEMON = 7 };

/* For a daemon that is just ending, or another one of us. */
#define THAW_LOCK_MS 500

/* For a xenstored that is just starting ... */
#define THAW_STORE_MS 2000
#define THAW_STORE_AGAIN_MS 100

/* ... and for one that does not answer: libxenstore would wait for ever. For each guest anew. */
#define THAW_SILENCE_S 5

/* How often the connection may be lost on the way; xenstored has what is still to be done. */
#define THAW_PASSES 3

#define THAW_SOCKET_MAX sizeof(((struct settings *)NULL)->socket)

struct thaw {
    const char *socket, *config;
    const char *wanted; /* NULL: all */
    bool all, force, json;
    struct worker_tools tools;
    json_t *put_back;
    unsigned done, failed;
    bool found; /* a journal of the wanted domain */
};

static void thaw_usage(FILE *to)
{
    fputs("usage: thaw [--socket PATH] [--config FILE] [--force] [--json] --all | DOMAIN\n"
          "Puts back what a daemon that is no more has left; see p2mguardctl(8), thaw --offline.\n",
          to);
}

static void thaw_parse(int argc, char **argv, struct thaw *thaw)
{
    static const struct option names[] = {
        {"socket", required_argument, NULL, 's'}, {"config", required_argument, NULL, 'c'},
        {"force", no_argument, NULL, 'f'},        {"json", no_argument, NULL, 'j'},
        {"all", no_argument, NULL, 'a'},          {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    int name;

    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 's':
            thaw->socket = optarg;
            break;
        case 'c':
            thaw->config = optarg;
            break;
        case 'f':
            thaw->force = true;
            break;
        case 'j':
            thaw->json = true;
            break;
        case 'a':
            thaw->all = true;
            break;
        case 'V':
            puts("thaw (p2mguard) " PACKAGE_VERSION);
            exit(THAW_DONE);
        case 'h':
            thaw_usage(stdout);
            exit(THAW_DONE);
        default:
            thaw_usage(stderr);
            exit(THAW_USAGE);
        }
    }
    thaw->wanted = optind < argc ? argv[optind] : NULL;
    if (argc - optind > 1 || thaw->all == (thaw->wanted != NULL)) {
        thaw_usage(stderr);
        exit(THAW_USAGE);
    }
}

/* ---- the lock ---- */

/* A configuration that the daemon does not take either must not keep anybody frozen. */
static void thaw_read_socket(const struct thaw *thaw, char socket[THAW_SOCKET_MAX])
{
    const struct configuration_options options = {.config = thaw->config, .log_level = -1};
    struct configuration configuration;
    struct settings_problem problem;
    char text[SETTINGS_PROBLEM_MAX];

    strcpy(socket, P2MG_CONTROL_SOCKET);
    if (configuration_load(&configuration, &options, &problem)) {
        log_warning("%s", settings_problem_text(&problem, text));
        return;
    }
    strcpy(socket, configuration.latest.socket);
    configuration_clear(&configuration);
}

/* Held until the process ends. */
static int thaw_lock(const struct thaw *thaw)
{
    char configured[THAW_SOCKET_MAX];
    pid_t holder = 0;
    int fd;

    thaw_read_socket(thaw, configured);
    const char *socket = thaw->socket ? thaw->socket : configured;
    int error = lock_take(socket, THAW_LOCK_MS, &fd, &holder);
    if (!error)
        return THAW_DONE;
    if (error == -EWOULDBLOCK)
        log_error("%s: process %d has the lock %s.lock; a p2mguardd that runs puts back what it holds by itself",
                  thaw->force ? "going on all the same" : "refused", (int)holder, socket);
    else
        log_error("the lock %s.lock cannot be had: %s", socket, strerror(-error));
    if (thaw->force)
        return THAW_DONE;
    return error == -EWOULDBLOCK ? THAW_DAEMON : THAW_FAILED;
}

/* ---- xenstored ---- */

static void thaw_on_silence(int number)
{
    static const char text[] =
        "thaw: error: xenstored does not answer; what is not put back is in its journals still\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)number, (void)written;

    _exit(THAW_NO_STORE);
}

static int thaw_connect(const struct thaw *thaw)
{
    const struct timespec again = {.tv_nsec = THAW_STORE_AGAIN_MS * 1000000};
    int64_t until_ms = clock_now_ms() + THAW_STORE_MS;
    int error;

    while ((error = store_reconnect(thaw->tools.store)) != 0 && clock_now_ms() < until_ms)
        nanosleep(&again, NULL);
    return error;
}

/* ---- the journals ---- */

/* A domid goes before a name, as everywhere. A journal that cannot be read belongs to its domid alone. */
static bool thaw_wants(const struct thaw *thaw, uint16_t domid)
{
    char name[SESSION_NAME_MAX];
    struct journal journal;
    char *end;
    unsigned long number = strtoul(thaw->wanted ? thaw->wanted : "", &end, 10);

    if (!thaw->wanted)
        return true;
    if (end != thaw->wanted && *end == '\0')
        return number == domid;
    if (journal_read(thaw->tools.store, 0, domid, &journal) == 0 && strcasecmp(journal.uuid, thaw->wanted) == 0)
        return true;
    return node_read_name(thaw->tools.store, domid, name, sizeof(name)) == 0 && strcmp(name, thaw->wanted) == 0;
}

static void thaw_note(struct thaw *thaw, const struct journal *journal)
{
    thaw->done++;
    recovery_log(journal);
    if (!thaw->json)
        return;
    json_int_t target_kib = (json_int_t)strtoull(journal_wanted_target(journal), NULL, 10);
    if (json_array_append_new(thaw->put_back,
                              json_pack("{s:i,s:s,s:I,s:I}", "domid", (int)journal->domid, "session", journal->session,
                                        "target_kib", target_kib, "max_kib", (json_int_t)journal->max_kib)) < 0)
        log_error("out of memory for the answer; domain %u is put back all the same", journal->domid);
}

static int thaw_one(void *context, uint16_t domid)
{
    struct thaw *thaw = context;
    struct journal journal;

    alarm(THAW_SILENCE_S);
    if (!thaw_wants(thaw, domid))
        return 0;
    thaw->found = true;
    int error = recovery_put_back(&thaw->tools, domid, &journal);
    /* A wish for a new domain that has no target yet is left to the next daemon. */
    if (!error || error == -EINPROGRESS)
        thaw_note(thaw, &journal);
    else if (error == -ENOTCONN)
        return error;
    else if (error != -ENOENT)
        thaw->failed++;
    return 0;
}

/* oxenstored drops who asks for a list that is too long; the next pass goes without one. */
static int thaw_walk(struct thaw *thaw)
{
    int error = 0;

    for (int pass = 0; pass < THAW_PASSES; pass++) {
        alarm(THAW_SILENCE_S);
        error = thaw_connect(thaw);
        if (error)
            return error;
        thaw->failed = 0;
        error = journal_each(thaw->tools.store, thaw_one, thaw);
        if (!error && thaw->wanted && !thaw->found)
            error = lookup_exists(&thaw->tools, thaw->wanted);
        if (error != -ENOTCONN)
            break;
    }
    return error;
}

static int thaw_tell(struct thaw *thaw, int error)
{
    if (error == -ESRCH) {
        log_error("there is neither a domain nor a journal that '%s' means", thaw->wanted);
    } else if (error) {
        const char *path = getenv("XENSTORED_PATH");
        log_error("xenstored cannot be asked%s%s: %s; what is not put back is in its journals still",
                  path ? ", on " : "", path ? path : "", strerror(-error));
    }
    if (thaw->json) {
        json_t *answer = json_pack("{s:O,s:i}", "put_back", thaw->put_back, "failed", (int)thaw->failed);
        if (answer && json_dumpf(answer, stdout, JSON_COMPACT) == 0)
            putchar('\n');
        json_decref(answer);
    } else if (!error && thaw->done + thaw->failed == 0) {
        puts("nothing was left to be put back");
    } else if (!error) {
        printf("put back: %u, failed: %u\n", thaw->done, thaw->failed);
    }
    if (error && error != -ESRCH)
        return THAW_NO_STORE;
    return error || thaw->failed || fflush(stdout) != 0 ? THAW_FAILED : THAW_DONE;
}

int main(int argc, char **argv)
{
    static struct thaw thaw;

    thaw_parse(argc, argv, &thaw);
    log_set_program("thaw");
    log_open();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, thaw_on_silence);
    int status = thaw_lock(&thaw);
    if (status)
        return status;
    int error = hypervisor_open(&thaw.tools.hypervisor);
    if (error) {
        log_error("asking the hypervisor failed: %s (is this a Xen dom0, and is xen-privcmd loaded?)",
                  strerror(-error));
        return THAW_FAILED;
    }
    error = store_new(&thaw.tools.store, false);
    thaw.put_back = json_array();
    if (error || !thaw.put_back) {
        log_error("out of memory");
        status = THAW_FAILED;
    } else {
        status = thaw_tell(&thaw, thaw_walk(&thaw));
    }
    alarm(0);
    json_decref(thaw.put_back);
    store_free(thaw.tools.store);
    hypervisor_close(thaw.tools.hypervisor);
    return status;
}
