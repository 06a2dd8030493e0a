/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * guest-socket DOMID SOCKET: what /dev/xen/xenbus is in a guest, as a UNIX socket.
 *
 * Whoever connects speaks to xenstored through the ring of that domain, and is that guest. One client at a time, as the
 * kernel has many; what a client leaves behind when it goes - watches, and replies on their way - is cleared away, as
 * the kernel does.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <xen/io/xs_wire.h>

#define MESSAGE_MAX (sizeof(struct xsd_sockmsg) + 4096)
#define WATCHES 16
#define WATCH_MAX 256

/* Bytes of a stream, until they are a whole message. */
struct assembly {
    char bytes[MESSAGE_MAX];
    size_t used;
};

struct watch {
    char text[WATCH_MAX]; /* path and token, each with its NUL; as the client sent it */
    size_t length;        /* 0 = none */
};

struct proxy {
    unsigned domid;
    struct xenstore_domain_interface *ring;
    int events, listener, client; /* client: -1 = none */
    struct assembly from_client, from_ring;
    struct watch watches[WATCHES];
    unsigned expected; /* replies that the client waits for */
    unsigned dropped;  /* replies before those that nobody waits for */
};

static const char *folder;

static void fail(const char *what)
{
    fprintf(stderr, "guest-socket: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the ring ---- */

static void proxy_kick(const struct proxy *proxy)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[108];
    uint32_t port = 0;

    snprintf(path, sizeof(path), "%s/port-%u", folder, proxy->domid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &port, sizeof(port)) != sizeof(port))
            port = 0;
        close(fd);
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/evtchn.sock", folder);
    sendto(proxy->events, &port, sizeof(port), MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address));
}

static void proxy_wait_ring(const struct proxy *proxy)
{
    struct pollfd fd = {.fd = proxy->events, .events = POLLIN};
    uint32_t port;

    if (poll(&fd, 1, 20) > 0)
        while (recv(proxy->events, &port, sizeof(port), MSG_DONTWAIT) > 0)
            ;
}

static void proxy_write_ring(struct proxy *proxy, const char *data, size_t length)
{
    volatile struct xenstore_domain_interface *ring = proxy->ring;

    while (length > 0) {
        uint32_t room = XENSTORE_RING_SIZE - (ring->req_prod - ring->req_cons);
        for (; room > 0 && length > 0; room--, length--) {
            ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = *data++;
            atomic_thread_fence(memory_order_seq_cst);
            ring->req_prod++;
        }
        proxy_kick(proxy);
        if (length > 0)
            proxy_wait_ring(proxy);
    }
}

static bool proxy_ring_has_data(const struct proxy *proxy)
{
    volatile struct xenstore_domain_interface *ring = proxy->ring;

    return ring->rsp_prod != ring->rsp_cons;
}

/* ---- messages ---- */

/* How many more bytes the message that is being put together needs; 0 when it is whole. */
static size_t assembly_lacks(const struct assembly *assembly)
{
    struct xsd_sockmsg header;

    if (assembly->used < sizeof(header))
        return sizeof(header) - assembly->used;
    memcpy(&header, assembly->bytes, sizeof(header));
    if (header.len > MESSAGE_MAX - sizeof(header))
        fail("a message that is too long");
    return sizeof(header) + header.len - assembly->used;
}

static void proxy_request(struct proxy *proxy, uint32_t type, const char *payload, size_t length)
{
    struct xsd_sockmsg header = {.type = type, .len = (uint32_t)length};

    proxy_write_ring(proxy, (const char *)&header, sizeof(header));
    proxy_write_ring(proxy, payload, length);
}

static void proxy_note_watch(struct proxy *proxy, const struct xsd_sockmsg *header, const char *payload)
{
    for (int i = 0; i < WATCHES; i++) {
        struct watch *watch = &proxy->watches[i];
        bool same = watch->length == header->len && memcmp(watch->text, payload, header->len) == 0;

        if (header->type == XS_UNWATCH && same)
            watch->length = 0;
        if (header->type == XS_WATCH && !watch->length && header->len <= WATCH_MAX) {
            memcpy(watch->text, payload, header->len);
            watch->length = header->len;
            return;
        }
    }
}

static void proxy_lose_client(struct proxy *proxy)
{
    close(proxy->client);
    proxy->client = -1;
    proxy->from_client.used = 0;
    proxy->dropped += proxy->expected;
    proxy->expected = 0;
    for (int i = 0; i < WATCHES; i++) {
        struct watch *watch = &proxy->watches[i];
        if (!watch->length)
            continue;
        proxy_request(proxy, XS_UNWATCH, watch->text, watch->length);
        proxy->dropped++;
        watch->length = 0;
    }
}

static void proxy_take_from_client(struct proxy *proxy)
{
    struct assembly *assembly = &proxy->from_client;
    struct xsd_sockmsg header;

    ssize_t length = recv(proxy->client, assembly->bytes + assembly->used, assembly_lacks(assembly), 0);
    if (length <= 0) {
        proxy_lose_client(proxy);
        return;
    }
    assembly->used += (size_t)length;
    if (assembly_lacks(assembly))
        return;
    memcpy(&header, assembly->bytes, sizeof(header));
    proxy_note_watch(proxy, &header, assembly->bytes + sizeof(header));
    proxy_write_ring(proxy, assembly->bytes, assembly->used);
    proxy->expected++;
    assembly->used = 0;
}

static void proxy_pass_on(struct proxy *proxy, const struct assembly *assembly)
{
    struct xsd_sockmsg header;

    memcpy(&header, assembly->bytes, sizeof(header));
    if (proxy->dropped) { /* what comes before the last of these is an earlier client's, events included */
        proxy->dropped -= header.type != XS_WATCH_EVENT;
        return;
    }
    if (header.type != XS_WATCH_EVENT)
        proxy->expected--;
    if (proxy->client >= 0 && send(proxy->client, assembly->bytes, assembly->used, MSG_NOSIGNAL) < 0)
        proxy_lose_client(proxy);
}

static void proxy_take_from_ring(struct proxy *proxy)
{
    volatile struct xenstore_domain_interface *ring = proxy->ring;
    struct assembly *assembly = &proxy->from_ring;
    bool some = false;

    while (ring->rsp_prod != ring->rsp_cons) {
        atomic_thread_fence(memory_order_seq_cst);
        assembly->bytes[assembly->used++] = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];
        atomic_thread_fence(memory_order_seq_cst);
        ring->rsp_cons++;
        some = true;
        if (assembly_lacks(assembly) == 0) {
            proxy_pass_on(proxy, assembly);
            assembly->used = 0;
        }
    }
    if (some)
        proxy_kick(proxy);
}

/* ---- life ---- */

static int bind_socket(int type, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(address.sun_path))
        fail(path);
    strcpy(address.sun_path, path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fail(path);
    return fd;
}

static void proxy_open(struct proxy *proxy, const char *path)
{
    char name[108];

    snprintf(name, sizeof(name), "%s/ring-%u", folder, proxy->domid);
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        fail(name);
    proxy->ring = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (proxy->ring == MAP_FAILED)
        fail(name);
    close(fd);
    snprintf(name, sizeof(name), "%s/guest-%u.sock", folder, proxy->domid);
    proxy->events = bind_socket(SOCK_DGRAM, name);
    proxy->listener = bind_socket(SOCK_STREAM, path);
    proxy->client = -1;
    if (listen(proxy->listener, 8) < 0)
        fail(path);
}

int main(int argc, char **argv)
{
    static struct proxy proxy;

    folder = getenv("P2MG_XS_DIR");
    if (argc != 3 || !folder) {
        fputs("usage: P2MG_XS_DIR=DIR guest-socket DOMID SOCKET\n", stderr);
        return 2;
    }
    proxy.domid = (unsigned)strtoul(argv[1], NULL, 10);
    proxy_open(&proxy, argv[2]);
    while (getppid() != 1) {
        struct pollfd fds[3] = {{.fd = proxy.events, .events = POLLIN},
                                {.fd = proxy.client, .events = POLLIN},
                                {.fd = proxy.client < 0 ? proxy.listener : -1, .events = POLLIN}};
        uint32_t port;
        if (poll(fds, 3, proxy_ring_has_data(&proxy) ? 0 : 1000) < 0 && errno != EINTR)
            fail("poll");
        if (fds[0].revents)
            while (recv(proxy.events, &port, sizeof(port), MSG_DONTWAIT) > 0)
                ;
        proxy_take_from_ring(&proxy);
        if (proxy.client >= 0 && fds[1].revents)
            proxy_take_from_client(&proxy);
        if (fds[2].revents & POLLIN)
            proxy.client = accept4(proxy.listener, NULL, NULL, SOCK_CLOEXEC);
    }
    return 0;
}
