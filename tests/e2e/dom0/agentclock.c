/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * agentclock thaw UUID OLD_DOMID SECONDS
 *     Waits for a second domain with this uuid. Prints "DOMID MS ANSWER": how long after it was first seen running its
 *     agent said that it has thawed.
 * agentclock state DOMID WORD SECONDS
 *     Waits until the agent's state begins with WORD, prints the ms that took.
 * agentclock compare DOMID ROUNDS
 *     Prints "BARE_US FREEZE_US", one line a round: a write, a watch event in the guest and its write back; then a
 *     request to freeze and the answer.
 *
 * The tests' own eyes on a guest's agent. No p2mguardd has a part in it.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenstore.h>

static struct xs_handle *xs;

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* The node's value, "" when there is none. */
static void get(unsigned domid, const char *node, char value[256])
{
    char path[128];
    unsigned length = 0;

    snprintf(path, sizeof(path), "/local/domain/%u/%s", domid, node);
    char *data = xs_read(xs, XBT_NULL, path, &length);
    snprintf(value, 256, "%.*s", (int)length, data ? data : "");
    free(data);
}

static void put(unsigned domid, const char *node, const char *value)
{
    char path[128];
    struct xs_permissions perms[2] = {{.id = 0, .perms = XS_PERM_NONE}, {.id = domid, .perms = XS_PERM_READ}};

    snprintf(path, sizeof(path), "/local/domain/%u/%s", domid, node);
    bool there = xs_read(xs, XBT_NULL, path, &(unsigned){0}) != NULL;
    if (!xs_write(xs, XBT_NULL, path, value, (unsigned)strlen(value)) ||
        (!there && !xs_set_permissions(xs, XBT_NULL, path, perms, 2)))
        fprintf(stderr, "agentclock: writing %s failed\n", path);
}

static bool is_uuid(const xc_domaininfo_t *info, const char *uuid)
{
    char text[40] = "";

    for (int i = 0, at = 0; i < 16; i++)
        at += snprintf(text + at, sizeof(text) - (size_t)at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                       info->handle[i]);
    return strcmp(text, uuid) == 0;
}

/* A domain under construction is paused; one that is about to run has no cpu time yet. */
static int find_running(xc_interface *xc, const char *uuid, unsigned not_domid)
{
    static xc_domaininfo_t all[64];
    int count = xc_domain_getinfolist(xc, 1, 64, all);

    for (int i = 0; i < count; i++)
        if (all[i].domain != not_domid && is_uuid(&all[i], uuid) &&
            !(all[i].flags & (XEN_DOMINF_paused | XEN_DOMINF_dying | XEN_DOMINF_shutdown)) && all[i].cpu_time > 0)
            return all[i].domain;
    return -1;
}

/* Looking more often would take from the emulated host what is measured. */
static const struct timespec pause_between = {.tv_nsec = 5000000};

static int wait_for(unsigned domid, const char *word, int64_t until_us, char value[256])
{

    for (get(domid, "data/p2mguard/state", value); strncmp(value, word, strlen(word)) != 0;
         get(domid, "data/p2mguard/state", value)) {
        if (now_us() > until_us)
            return -1;
        nanosleep(&pause_between, NULL);
    }
    return 0;
}

static int thaw(const char *uuid, unsigned not_domid, int64_t until_us)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);
    char value[256];
    int domid;

    while ((domid = find_running(xc, uuid, not_domid)) < 0) {
        if (now_us() > until_us)
            return 1;
        nanosleep(&pause_between, NULL);
    }
    int64_t start_us = now_us();
    int failed = wait_for((unsigned)domid, "thawed ", until_us, value);
    printf("%d %" PRId64 " %s\n", domid, (now_us() - start_us) / 1000, value);
    return failed ? 1 : 0;
}

/* Waits on a watch until the node has this value. */
static int64_t until_is(unsigned domid, const char *node, const char *value)
{
    char now[256];

    for (get(domid, node, now); strcmp(now, value) != 0; get(domid, node, now)) {
        unsigned count;
        free(xs_read_watch(xs, &count));
    }
    return now_us();
}

static void compare(unsigned domid, unsigned rounds)
{
    char path[128], request[64], answer[64];

    alarm(10 + 2 * rounds); /* the emulator may lose the guest, and then no watch ever fires */
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "/local/domain/%u/%s", domid, i ? "data/echo" : "data/p2mguard/state");
        xs_watch(xs, path, "clock");
    }
    for (unsigned i = 1; i <= rounds; i++) {
        snprintf(request, sizeof(request), "%u", i);
        int64_t start_us = now_us();
        put(domid, "control/echo", request);
        int64_t bare_us = until_is(domid, "data/echo", request) - start_us;

        snprintf(request, sizeof(request), "freeze %u 30", 1000 + i);
        snprintf(answer, sizeof(answer), "frozen %u", 1000 + i);
        start_us = now_us();
        put(domid, "control/p2mguard", request);
        int64_t freeze_us = until_is(domid, "data/p2mguard/state", answer) - start_us;

        snprintf(request, sizeof(request), "thaw %u", 1000 + i);
        snprintf(answer, sizeof(answer), "thawed %u", 1000 + i);
        put(domid, "control/p2mguard", request);
        until_is(domid, "data/p2mguard/state", answer);
        printf("%" PRId64 " %" PRId64 "\n", bare_us, freeze_us);
    }
    snprintf(path, sizeof(path), "/local/domain/%u/control/p2mguard", domid);
    xs_rm(xs, XBT_NULL, path);
}

int main(int argc, char **argv)
{
    char value[256];
    int64_t start_us = now_us();

    xs = xs_open(0);
    if (!xs || argc < 4) {
        fprintf(stderr, "agentclock: no xenstore, or wrong arguments\n");
        return 2;
    }
    unsigned domid = (unsigned)strtoul(argv[2], NULL, 10);
    if (strcmp(argv[1], "compare") == 0) {
        compare(domid, (unsigned)strtoul(argv[3], NULL, 10));
        return 0;
    }
    int64_t until_us = start_us + strtoll(argv[argc - 1], NULL, 10) * 1000000;
    if (strcmp(argv[1], "thaw") == 0)
        return thaw(argv[2], (unsigned)strtoul(argv[3], NULL, 10), until_us);
    if (wait_for(domid, argv[3], until_us, value) != 0)
        return 1;
    printf("%" PRId64 "\n", (now_us() - start_us) / 1000);
    return 0;
}
