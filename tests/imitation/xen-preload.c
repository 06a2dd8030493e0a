/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lets Debian's real xenstored and oxenstored run on a machine without Xen.
 *
 * Preloaded into either daemon it stands in for the Xen libraries' functions that reach the hypervisor: a guest's ring
 * is the file ring-DOMID in $P2MG_XS_DIR, an event channel is a datagram socket there, and every domain exists.
 * oxenstored's socket is moved there as well; the C daemon has XENSTORED_RUNDIR for that.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenevtchn.h>
#include <xengnttab.h>

#define VIRQ_PORT 5
#define FIRST_PORT 10
#define PORTS 4200

static char handle; /* stands for every kind of handle */
static int event_fd = -1;
static uint32_t port_domain[PORTS];
static uint32_t next_port = FIRST_PORT;

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static const char *in_folder(char path[108], const char *name)
{
    const char *folder = getenv("P2MG_XS_DIR");

    snprintf(path, 108, "%s/%s", folder ? folder : ".", name);
    return path;
}

static const char *of_domain(char path[108], const char *kind, uint32_t domid, const char *ending)
{
    char name[64];

    snprintf(name, sizeof(name), "%s-%u%s", kind, domid, ending);
    return in_folder(path, name);
}

/* ---- libxenctrl ---- */

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild, unsigned flags)
{
    (void)logger, (void)dombuild, (void)flags;
    return (xc_interface *)(void *)&handle;
}

int xc_interface_close(xc_interface *xc)
{
    (void)xc;
    return 0;
}

int xc_domain_getinfo(xc_interface *xc, uint32_t first, unsigned count, xc_dominfo_t *info)
{
    (void)xc, (void)count;
    memset(info, 0, sizeof(*info));
    info->domid = first;
    info->running = 1;
    return 1;
}

int xc_domain_getinfolist(xc_interface *xc, uint32_t first, unsigned count, xc_domaininfo_t *info)
{
    (void)xc, (void)count;
    memset(info, 0, sizeof(*info));
    info->domain = (domid_t)first;
    info->flags = XEN_DOMINF_running;
    return 1;
}

int xc_evtchn_status(xc_interface *xc, xc_evtchn_status_t *status)
{
    (void)xc, (void)status;
    return -1;
}

/* ---- rings ---- */

static void *map_ring(uint32_t domid)
{
    char path[108];
    int (*open_file)(const char *, int, ...) = real("open");
    int fd = open_file(of_domain(path, "ring", domid, ""), O_RDWR | O_CREAT, 0600);

    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return NULL;
    void *ring = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return ring == MAP_FAILED ? NULL : ring;
}

void *xc_map_foreign_range(xc_interface *xc, uint32_t domid, int size, int protection, unsigned long frame)
{
    (void)xc, (void)size, (void)protection, (void)frame;
    return map_ring(domid);
}

xengnttab_handle *xengnttab_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return (xengnttab_handle *)(void *)&handle;
}

int xengnttab_close(xengnttab_handle *grants)
{
    (void)grants;
    return 0;
}

void *xengnttab_map_grant_ref(xengnttab_handle *grants, uint32_t domid, uint32_t reference, int protection)
{
    (void)grants, (void)reference, (void)protection;
    return map_ring(domid);
}

int xengnttab_unmap(xengnttab_handle *grants, void *start, uint32_t count)
{
    (void)grants;
    return munmap(start, 4096 * (size_t)count);
}

int xengnttab_set_max_grants(xengnttab_handle *grants, uint32_t count)
{
    (void)grants, (void)count;
    return 0;
}

/* ---- event channels ---- */

xenevtchn_handle *xenevtchn_open(xentoollog_logger *logger, unsigned flags)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int (*bind_socket)(int, const struct sockaddr *, socklen_t) = real("bind");
    (void)logger, (void)flags;

    event_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    in_folder(address.sun_path, "evtchn.sock");
    if (event_fd < 0 || bind_socket(event_fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return NULL;
    return (xenevtchn_handle *)(void *)&handle;
}

xenevtchn_handle *xenevtchn_fdopen(xentoollog_logger *logger, int fd, unsigned flags)
{
    (void)logger, (void)flags;
    event_fd = fd;
    return (xenevtchn_handle *)(void *)&handle;
}

int xenevtchn_close(xenevtchn_handle *events)
{
    (void)events;
    return 0;
}

int xenevtchn_fd(xenevtchn_handle *events)
{
    (void)events;
    return event_fd;
}

int xenevtchn_notify(xenevtchn_handle *events, evtchn_port_t port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)events;

    if (port < PORTS) {
        of_domain(address.sun_path, "guest", port_domain[port], ".sock");
        sendto(event_fd, &port, sizeof(port), MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&address,
               sizeof(address));
    }
    return 0;
}

/* Ports are handed out in the order of introduction; a guest reads its own from the file port-DOMID. */
xenevtchn_port_or_error_t xenevtchn_bind_interdomain(xenevtchn_handle *events, uint32_t domid, evtchn_port_t remote)
{
    char path[108];
    (void)events, (void)remote;

    if (next_port >= PORTS)
        next_port = FIRST_PORT + 1; /* the oldest guests of a long test are gone */
    port_domain[next_port] = domid;
    int (*open_file)(const char *, int, ...) = real("open");
    int fd = open_file(of_domain(path, "port", domid, ""), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, &next_port, sizeof(next_port)) != sizeof(next_port))
        return -1;
    close(fd);
    return (xenevtchn_port_or_error_t)next_port++;
}

xenevtchn_port_or_error_t xenevtchn_bind_virq(xenevtchn_handle *events, unsigned virq)
{
    (void)events, (void)virq;
    return VIRQ_PORT;
}

int xenevtchn_unbind(xenevtchn_handle *events, evtchn_port_t port)
{
    (void)events, (void)port;
    return 0;
}

xenevtchn_port_or_error_t xenevtchn_pending(xenevtchn_handle *events)
{
    uint32_t port;
    (void)events;

    if (read(event_fd, &port, sizeof(port)) != sizeof(port))
        return FIRST_PORT;
    return (xenevtchn_port_or_error_t)port;
}

int xenevtchn_unmask(xenevtchn_handle *events, evtchn_port_t port)
{
    (void)events, (void)port;
    return 0;
}

/* ---- files and sockets of a dom0 ---- */

static int fake_file(const char *path)
{
    int fd = -1;

    if (strcmp(path, "/proc/xen/xsd_port") == 0) {
        fd = memfd_create("xsd_port", 0);
        if (fd >= 0 && (write(fd, "1\n", 2) != 2 || lseek(fd, 0, SEEK_SET) < 0))
            return -1;
    } else if (strcmp(path, "/proc/xen/xsd_kva") == 0) {
        fd = memfd_create("xsd_kva", 0);
        if (fd >= 0 && ftruncate(fd, 4096) < 0)
            return -1;
    }
    return fd;
}

static int open_with(const char *name, const char *path, int flags, mode_t mode)
{
    int (*open_file)(const char *, int, ...) = real(name);
    int fd = strncmp(path, "/proc/xen/", 10) == 0 ? fake_file(path) : -1;

    return fd >= 0 ? fd : open_file(path, flags, mode);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        va_start(arguments, flags);                                                                                    \
        mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;                                                 \
        va_end(arguments);                                                                                             \
        return open_with(#name, path, flags, mode);                                                                    \
    }
OPEN(open)
OPEN(open64)

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
    (void)resource, (void)limit;
    return 0;
}

int setrlimit64(__rlimit_resource_t resource, const struct rlimit64 *limit)
{
    (void)resource, (void)limit;
    return 0;
}

static const char *moved(const char *path, char other[108])
{
    static const char socket_name[] = "/xenstored/socket";
    size_t length = strlen(path), tail = sizeof(socket_name) - 1;

    return length >= tail && strcmp(path + length - tail, socket_name) == 0 ? in_folder(other, "socket") : path;
}

int unlink(const char *path)
{
    char other[108];
    int (*unlink_file)(const char *) = real("unlink");

    return unlink_file(moved(path, other));
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    struct sockaddr_un other = {.sun_family = AF_UNIX};
    int (*bind_socket)(int, const struct sockaddr *, socklen_t) = real("bind");
    char path[108];

    if (address->sa_family != AF_UNIX)
        return bind_socket(fd, address, length);
    snprintf(other.sun_path, sizeof(other.sun_path), "%s",
             moved(((const struct sockaddr_un *)(const void *)address)->sun_path, path));
    return bind_socket(fd, (struct sockaddr *)&other, sizeof(other));
}
