/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/reexec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "config.h"
#include "daemon/log.h"

#define REEXEC_VARIABLE "P2MGUARD_STATE_FD"

static char reexec_program[PATH_MAX];

int reexec_remember_program(void)
{
    ssize_t length = readlink("/proc/self/exe", reexec_program, sizeof(reexec_program) - 1);

    if (length < 0)
        return -errno;
    reexec_program[length] = '\0';
    return 0;
}

/* ---- going ---- */

/* The file that the new program reads: at its beginning, and with nobody else who could write to it. */
static int reexec_write_state(const json_t *state)
{
    int fd = memfd_create("p2mguardd", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0)
        return -errno;
    if (json_dumpfd(state, fd, JSON_COMPACT) < 0 || lseek(fd, 0, SEEK_SET) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK) < 0) {
        int error = errno ? -errno : -ENOMEM;
        close(fd);
        return error;
    }
    return fd;
}

static int reexec_keep_open(const int *fds, size_t count)
{
    if (close_range(STDERR_FILENO + 1, UINT_MAX, CLOSE_RANGE_CLOEXEC) < 0)
        return -errno;
    for (size_t i = 0; i < count; i++)
        if (fcntl(fds[i], F_SETFD, 0) < 0)
            return -errno;
    return 0;
}

static void reexec_close_on_exec(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
}

/* A signal that came before the new program has said what it means would end it. That one lets them in. */
static void reexec_block_signals(int how)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(how, &signals, NULL);
}

int reexec_run(const json_t *state, const int *fds, size_t count, char **argv)
{
    char number[16];
    int fd = reexec_write_state(state);

    if (fd < 0)
        return fd;
    snprintf(number, sizeof(number), "%d", fd);
    int error = setenv(REEXEC_VARIABLE, number, 1) < 0 ? -errno : reexec_keep_open(fds, count);
    if (!error && fcntl(fd, F_SETFD, 0) < 0)
        error = -errno;
    if (!error) {
        reexec_block_signals(SIG_BLOCK);
        execv(reexec_program, argv);
        error = -errno;
        reexec_block_signals(SIG_UNBLOCK);
    }
    unsetenv(REEXEC_VARIABLE);
    reexec_close_on_exec(fds, count);
    close(fd);
    return error;
}

/* ---- coming ---- */

json_t *reexec_take(void)
{
    const char *number = getenv(REEXEC_VARIABLE);
    json_error_t problem;
    int format = 0;

    if (!number)
        return NULL;
    int fd = atoi(number);
    unsetenv(REEXEC_VARIABLE);
    reexec_block_signals(SIG_UNBLOCK);
    json_t *state = fd > STDERR_FILENO ? json_loadfd(fd, JSON_REJECT_DUPLICATES, &problem) : NULL;
    if (state)
        close(fd);
    else
        log_warning("what an earlier program has left cannot be read; everything is put back");
    if (state && json_unpack(state, "{s:i}", "format", &format) == 0 && format == REEXEC_FORMAT)
        return state;
    if (state)
        log_warning("what an earlier program has left is of format %d, expected %d; everything is put back", format,
                    REEXEC_FORMAT);
    json_decref(state);
    close_range(STDERR_FILENO + 1, UINT_MAX, 0); /* its lock among them, which would keep us out */
    return NULL;
}

/* ---- bytes ---- */

json_t *reexec_pack_bytes(const void *bytes, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    char *text = malloc(2 * length + 1);

    if (!text)
        return NULL;
    for (size_t i = 0; i < length; i++) {
        text[2 * i] = digits[from[i] >> 4];
        text[2 * i + 1] = digits[from[i] & 15];
    }
    json_t *packed = json_stringn(text, 2 * length);
    free(text);
    return packed;
}

static int reexec_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

void *reexec_unpack_bytes(const json_t *packed, size_t *length)
{
    const char *text = json_string_value(packed);
    size_t count = json_string_length(packed) / 2;
    unsigned char *bytes = text ? malloc(count + 1) : NULL;

    for (size_t i = 0; i < count && bytes; i++) {
        int high = reexec_digit(text[2 * i]), low = reexec_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            free(bytes);
            return NULL;
        }
        bytes[i] = (unsigned char)(high << 4 | low);
    }
    *length = count;
    return bytes;
}
