/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Faults for a daemon under test: the linker puts these functions before those that change the store or a domain
 * (--wrap, tests/fragment.am), and nothing in the daemon knows of them.
 *
 * Each call is two points: before it and after it. A file that the environment names, which the test maps as well
 * (tests/integration/test_crash_matrix.py knows the layout), counts them and says at which of them the process is
 * killed, or its connection to xenstored cut.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenstore.h>

#include "daemon/hypervisor.h"

#define FAULTS_ENVIRONMENT "P2MGUARD_FAULTS"
#define FAULTS_NAMES 1024
#define FAULTS_FDS 1024

enum fault { FAULT_NONE, FAULT_KILL_BEFORE, FAULT_KILL_AFTER, FAULT_CUT_BEFORE, FAULT_CUT_AFTER, FAULT_CUT_UNANSWERED };

struct faults {
    _Atomic uint64_t calls; /* made since the test has set this to 0 */
    _Atomic uint64_t at;    /* the call that is meant; 0 = none */
    _Atomic uint32_t how;   /* enum fault */
    _Atomic uint32_t fired;
    char padding[40];
    char names[FAULTS_NAMES][64]; /* of the calls made, for the test to tell of */
};

_Static_assert(sizeof(struct faults) == 64 + 64 * FAULTS_NAMES, "the layout is shared with test_crash_matrix.py");

static struct faults *faults_map(void)
{
    static struct faults *faults;
    const char *path = getenv(FAULTS_ENVIRONMENT);

    if (faults || !path)
        return faults;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        perror(path);
        abort(); /* a test without faults would pass */
    }
    close(fd);
    faults = at;
    return faults;
}

/* The worker thread makes all of these calls, one after the other. */
static enum fault faults_next(const char *what, const char *path)
{
    struct faults *faults = faults_map();

    if (!faults)
        return FAULT_NONE;
    uint64_t call = atomic_fetch_add(&faults->calls, 1);
    snprintf(faults->names[call % FAULTS_NAMES], sizeof(faults->names[0]), "%s %s", what, path);
    if (call + 1 != faults->at)
        return FAULT_NONE;
    faults->fired = 1;
    return (enum fault)faults->how;
}

static void faults_kill(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The handle keeps its socket to itself: it is the one whose other end has xenstored's name. */
static void faults_cut(void)
{
    struct sockaddr_un peer;

    for (int fd = 3; fd < FAULTS_FDS; fd++) {
        socklen_t length = sizeof(peer);
        memset(&peer, 0, sizeof(peer));
        if (getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && peer.sun_family == AF_UNIX &&
            strcmp(peer.sun_path, xs_daemon_socket()) == 0)
            shutdown(fd, SHUT_RDWR);
    }
}

static enum fault faults_before(const char *what, const char *path)
{
    enum fault fault = faults_next(what, path);

    if (fault == FAULT_KILL_BEFORE)
        faults_kill();
    if (fault == FAULT_CUT_BEFORE)
        faults_cut();
    return fault;
}

/* True when the caller is not to hear the answer, as with a connection that is lost before it has come. */
static bool faults_after(enum fault fault)
{
    int error = errno;

    if (fault == FAULT_KILL_AFTER)
        faults_kill();
    if (fault == FAULT_CUT_AFTER || fault == FAULT_CUT_UNANSWERED)
        faults_cut();
    errno = fault == FAULT_CUT_UNANSWERED ? EINVAL : error; /* what libxenstore says then */
    return fault == FAULT_CUT_UNANSWERED;
}

/* NAME is wrapped: PARAMETERS and ARGUMENTS are its own, LOST is what it returns without an answer. */
#define WRAP(type, name, lost, what, path, parameters, arguments)                                                      \
    type __real_##name parameters;                                                                                     \
    type __wrap_##name parameters;                                                                                     \
    type __wrap_##name parameters                                                                                      \
    {                                                                                                                  \
        enum fault fault = faults_before(what, path);                                                                  \
        type result = __real_##name arguments;                                                                         \
        return faults_after(fault) ? (lost) : result;                                                                  \
    }

WRAP(bool, xs_write, false, "write", path,
     (struct xs_handle * handle, xs_transaction_t txn, const char *path, const void *data, unsigned length),
     (handle, txn, path, data, length))
WRAP(bool, xs_rm, false, "remove", path, (struct xs_handle * handle, xs_transaction_t txn, const char *path),
     (handle, txn, path))
WRAP(bool, xs_set_permissions, false, "permissions", path,
     (struct xs_handle * handle, xs_transaction_t txn, const char *path, struct xs_permissions *perms, unsigned count),
     (handle, txn, path, perms, count))
WRAP(xs_transaction_t, xs_transaction_start, XBT_NULL, "begin", "", (struct xs_handle * handle), (handle))
WRAP(bool, xs_transaction_end, false, abandon ? "abort" : "commit", "",
     (struct xs_handle * handle, xs_transaction_t txn, bool abandon), (handle, txn, abandon))
/* A hypercall is always answered. */
WRAP(int, hypervisor_set_max_pages, result, "max_pages", "",
     (struct hypervisor * hypervisor, uint16_t domid, uint64_t max_pages), (hypervisor, domid, max_pages))
