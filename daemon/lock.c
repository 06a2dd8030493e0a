/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/clock.h"

/* How often a lock that somebody has is asked for again. */
#define LOCK_AGAIN_MS 20

static int lock_open(const char *socket)
{
    char path[PATH_MAX], folder[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s.lock", socket) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    strcpy(folder, path);
    if (mkdir(dirname(folder), 0755) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

static pid_t lock_read_holder(int fd)
{
    char text[16];
    ssize_t length = pread(fd, text, sizeof(text) - 1, 0);

    text[length > 0 ? length : 0] = '\0';
    return (pid_t)strtol(text, NULL, 10);
}

/* Only ever read by people, so a disk that is full is no reason to do without the lock. */
static void lock_write_holder(int fd)
{
    char text[16];
    int length = snprintf(text, sizeof(text), "%d\n", (int)getpid());

    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)length, 0) < 0)
        return;
}

int lock_take(const char *socket, int64_t wait_ms, int *result, pid_t *holder)
{
    const struct timespec again = {.tv_nsec = LOCK_AGAIN_MS * 1000000};
    int64_t until_ms = clock_now_ms() + wait_ms;
    int fd = lock_open(socket), error = 0;

    if (fd < 0)
        return fd;
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        error = -errno;
        if (error != -EWOULDBLOCK || clock_now_ms() >= until_ms)
            break;
        error = 0;
        nanosleep(&again, NULL);
    }
    if (error) {
        *holder = lock_read_holder(fd);
        close(fd);
        return error;
    }
    lock_write_holder(fd);
    *result = fd;
    return 0;
}
