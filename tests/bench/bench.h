/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the programs that measure have in common: the clock, the order of what was measured, and a socket's other end.
 */
#ifndef P2MGUARD_TESTS_BENCH_H
#define P2MGUARD_TESTS_BENCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

static inline void die(const char *what)
{
    perror(what);
    exit(1);
}

static inline double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static inline int compare_us(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

/* Sorts them, and prints the two as members of a JSON object. */
static inline void print_percentiles(double *took_us, size_t count)
{
    qsort(took_us, count, sizeof(*took_us), compare_us);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f", took_us[count / 2], took_us[count - 1 - count / 100]);
}

/* All of them, as a member of a JSON object. */
static inline void print_samples(const double *took_us, size_t count)
{
    printf("\"us\": [");
    for (size_t i = 0; i < count; i++)
        printf("%s%.1f", i ? ", " : "", took_us[i]);
    printf("]");
}

static inline int open_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        die(path);
    return fd;
}

#endif
