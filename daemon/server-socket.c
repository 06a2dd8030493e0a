/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/server-socket.h"

#include <errno.h>
#include <libgen.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int address_fill(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (*path == '\0' || strlen(path) >= sizeof address->sun_path)
        return *path == '\0' ? -EINVAL : -ENAMETOOLONG;
    memcpy(address->sun_path, path, strlen(path));
    return 0;
}

/* 0 when nobody answers at the address, -EADDRINUSE when somebody does (or is too busy to). */
static int address_probe(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error;

    if (fd < 0)
        return -errno;
    error = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? errno : 0;
    close(fd);
    if (error == ECONNREFUSED || error == ENOENT)
        return 0;
    return error == 0 || error == EAGAIN ? -EADDRINUSE : -error;
}

/* Makes way for our socket: removes one that nobody listens on. */
static int address_clear(const struct sockaddr_un *address)
{
    struct stat status;
    int error;

    if (lstat(address->sun_path, &status) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(status.st_mode))
        return -ENOTSOCK;
    error = address_probe(address);
    if (error < 0)
        return error;
    return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int address_make_folder(const struct sockaddr_un *address)
{
    char copy[sizeof address->sun_path];

    memcpy(copy, address->sun_path, sizeof copy);
    if (mkdir(dirname(copy), 0755) < 0 && errno != EEXIST)
        return -errno;
    return 0;
}

/*
 * Binds with the right mode and owner before anybody can connect: the mode is the descriptor's when it is bound, and
 * a socket refuses connections until listen is called, which happens after this.
 */
static int server_socket_bind(struct server_socket *made, int fd, const struct sockaddr_un *address, mode_t mode,
                              gid_t group)
{
    struct stat status;

    if (fchmod(fd, mode) < 0 || bind(fd, (const struct sockaddr *)address, sizeof *address) < 0)
        return -errno;
    if ((group != (gid_t)-1 && lchown(address->sun_path, (uid_t)-1, group) < 0) ||
        lstat(address->sun_path, &status) < 0) {
        int error = -errno;

        unlink(address->sun_path);
        return error;
    }
    made->device = status.st_dev;
    made->inode = status.st_ino;
    return 0;
}

int server_socket_make(struct server_socket *made, mode_t mode, gid_t group)
{
    struct sockaddr_un address;
    int error = address_fill(&address, made->path);
    mode_t umask_before;
    int fd;

    if (error < 0)
        return error;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    umask_before = umask(0);
    error = address_make_folder(&address);
    if (error == 0)
        error = address_clear(&address);
    if (error == 0)
        error = server_socket_bind(made, fd, &address, mode, group);
    umask(umask_before);
    if (error < 0) {
        close(fd);
        return error;
    }
    return fd;
}

void server_socket_recognize(struct server_socket *made)
{
    struct stat status;

    if (lstat(made->path, &status) == 0 && S_ISSOCK(status.st_mode)) {
        made->device = status.st_dev;
        made->inode = status.st_ino;
    }
}

void server_socket_remove(const struct server_socket *made)
{
    struct stat status;

    if (made->path != NULL && made->inode != 0 && lstat(made->path, &status) == 0 && status.st_dev == made->device &&
        status.st_ino == made->inode)
        unlink(made->path);
}
