/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * imitated-guests: guests that really balloon, a thread each, as clients of the real xenstored.
 *
 * Each speaks to xenstored through its ring, as a guest does, and behaves like Linux's xen-balloon driver: a watch on
 * memory/target, a target that cannot be read is ignored, work goes on towards the last one that could, refused growth
 * is tried again after a delay that doubles. Pages come from and go to the imitated machine (machine.h).
 *
 * Commands come on standard input, one a line, and each is answered by one line, "ok …" or "error …":
 *
 *   start DOMID OFFSET_KIB MODE [rate=PAGES_PER_MS] [retry_ms=MS]   answered when it has read its first target
 *   wake DOMID           a "young" guest comes up
 *   read DOMID PATH      what the guest reads there
 *   write DOMID PATH VALUE
 *   status DOMID         target=KIB reads=N refused=N events=N
 *   stop DOMID
 *
 * Modes: normal; slow (reads late, works at a twentieth of the rate); stubborn (shrinks for ever, whatever the target);
 * deaf (no balloon driver); active (as normal, and says so in control/balloon-active); young (as normal, once awake).
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <xen/io/xs_wire.h>

#include "tests/imitation/machine.h"

#define RETRY_DOUBLINGS 5
#define REPLY_MAX 4096

enum mode { NORMAL, SLOW, STUBBORN, DEAF, ACTIVE, YOUNG, MODES };
static const char *const mode_names[MODES] = {"normal", "slow", "stubborn", "deaf", "active", "young"};

struct guest {
    unsigned domid;
    enum mode mode;
    int64_t offset_kib;
    uint64_t rate;
    int64_t retry_ms;
    struct machine_slot *slot;
    struct xenstore_domain_interface *ring;
    int events; /* datagrams from xenstored's event channel, and from the main thread */
    pthread_t thread;
    sem_t answered;

    /* A command, set by the main thread while the guest does not have one. */
    char command[32], path[256], argument[256];
    char answer[REPLY_MAX + 64];
    _Atomic bool asked, stop;

    bool awake, touched, working;
    uint64_t goal_pages, target_kib;
    unsigned refusals;
    int64_t next_step_ms;
    unsigned long reads, refused_reads, watch_events;
};

static struct machine *machine;
static struct guest *guests[MACHINE_SLOTS];

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void name_file(char *path, size_t size, const char *kind, unsigned domid, const char *ending)
{
    const char *folder = getenv("P2MG_XS_DIR");

    snprintf(path, size, "%s/%s-%u%s", folder ? folder : ".", kind, domid, ending);
}

/* ---- the ring ---- */

static void guest_kick(const struct guest *guest)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char path[108];
    uint32_t port = 0;

    name_file(path, sizeof(path), "port", guest->domid, "");
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, &port, sizeof(port)) != sizeof(port))
            port = 0;
        close(fd);
    }
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/evtchn.sock", getenv("P2MG_XS_DIR"));
    sendto(guest->events, &port, sizeof(port), MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address));
}

/* Waits for a datagram; false after timeout_ms. */
static bool guest_wait(const struct guest *guest, int timeout_ms)
{
    struct pollfd fd = {.fd = guest->events, .events = POLLIN};
    uint32_t port;

    if (poll(&fd, 1, timeout_ms) <= 0)
        return false;
    while (recv(guest->events, &port, sizeof(port), MSG_DONTWAIT) > 0)
        ;
    return true;
}

/* As many bytes as are asked for, through a ring of 1024. Stops early only when the guest is told to stop. */
static bool guest_write(struct guest *guest, const char *data, size_t length)
{
    volatile struct xenstore_domain_interface *ring = guest->ring;

    while (length > 0 && !guest->stop) {
        uint32_t room = XENSTORE_RING_SIZE - (ring->req_prod - ring->req_cons);
        for (; room > 0 && length > 0; room--, length--) {
            ring->req[MASK_XENSTORE_IDX(ring->req_prod)] = *data++;
            atomic_thread_fence(memory_order_seq_cst);
            ring->req_prod++;
        }
        guest_kick(guest);
        if (length > 0)
            guest_wait(guest, 20);
    }
    return length == 0;
}

static bool guest_read(struct guest *guest, char *data, size_t length)
{
    volatile struct xenstore_domain_interface *ring = guest->ring;

    while (length > 0 && !guest->stop) {
        bool some = false;
        while (length > 0 && ring->rsp_prod != ring->rsp_cons) {
            atomic_thread_fence(memory_order_seq_cst);
            *data++ = ring->rsp[MASK_XENSTORE_IDX(ring->rsp_cons)];
            atomic_thread_fence(memory_order_seq_cst);
            ring->rsp_cons++;
            length--;
            some = true;
        }
        if (some)
            guest_kick(guest);
        if (length > 0)
            guest_wait(guest, 20);
    }
    return length == 0;
}

/* One message; a watch event is noted and not returned. */
static bool guest_message(struct guest *guest, struct xsd_sockmsg *header, char *body)
{
    if (!guest_read(guest, (char *)header, sizeof(*header)) || header->len > REPLY_MAX ||
        !guest_read(guest, body, header->len))
        return false;
    body[header->len] = '\0';
    if (header->type == XS_WATCH_EVENT) {
        guest->touched = true;
        guest->watch_events++;
    }
    return true;
}

/* 0 with the reply in `body`, or -1 with the error's name there. */
static int guest_request(struct guest *guest, uint32_t type, const char *payload, size_t length,
                         char body[REPLY_MAX + 1])
{
    struct xsd_sockmsg header = {.type = type, .len = (uint32_t)length};

    if (!guest_write(guest, (char *)&header, sizeof(header)) || !guest_write(guest, payload, length))
        return -1;
    do {
        if (!guest_message(guest, &header, body))
            return -1;
    } while (header.type == XS_WATCH_EVENT);
    return header.type == XS_ERROR ? -1 : 0;
}

static int guest_store_write(struct guest *guest, const char *path, const char *value)
{
    char payload[600], body[REPLY_MAX + 1];
    int length = snprintf(payload, sizeof(payload), "%s%c%s", path, '\0', value);

    return guest_request(guest, XS_WRITE, payload, (size_t)length, body);
}

static int guest_store_read(struct guest *guest, const char *path, char body[REPLY_MAX + 1])
{
    return guest_request(guest, XS_READ, path, strlen(path) + 1, body);
}

/* ---- the balloon driver ---- */

static void guest_set_working(struct guest *guest, bool working)
{
    working = working || (guest->mode == STUBBORN && guest->awake);
    if (guest->working != working && guest->mode == ACTIVE)
        guest_store_write(guest, "control/balloon-active", working ? "1" : "0");
    guest->working = working;
}

/* What cannot be read is no target: the driver goes on as before. */
static void guest_read_target(struct guest *guest)
{
    char body[REPLY_MAX + 1];

    guest->touched = false;
    if (guest->mode == SLOW)
        guest_wait(guest, 100);
    if (guest_store_read(guest, "memory/target", body)) {
        guest->refused_reads++;
        return;
    }
    guest->reads++;
    guest->target_kib = strtoull(body, NULL, 10);
    guest->goal_pages = (uint64_t)((int64_t)guest->target_kib + guest->offset_kib) / machine_page_kib(machine);
    guest->refusals = 0;
    guest->next_step_ms = now_ms();
    guest_set_working(guest, guest->goal_pages != guest->slot->tot_pages);
}

static void guest_step(struct guest *guest)
{
    uint64_t pages = guest->rate;

    for (; pages > 0 && guest->slot->tot_pages > guest->goal_pages; pages--)
        guest->slot->tot_pages--;
    for (; pages > 0 && guest->slot->tot_pages < guest->goal_pages; pages--) {
        if (machine_populate(guest->slot)) {
            guest->next_step_ms = now_ms() + (guest->retry_ms << guest->refusals);
            if (guest->refusals < RETRY_DOUBLINGS)
                guest->refusals++;
            return;
        }
    }
    guest->next_step_ms = now_ms() + (guest->mode == SLOW ? 20 : 1);
    if (guest->slot->tot_pages == guest->goal_pages)
        guest_set_working(guest, false);
}

/* Any two looks at it that are more than a few milliseconds apart differ. */
static void guest_shrink_for_ever(struct guest *guest)
{
    if (guest->slot->tot_pages > 1)
        guest->slot->tot_pages--;
    guest->next_step_ms = now_ms() + 5;
}

static void guest_come_up(struct guest *guest)
{
    static const char watch[] = "memory/target\0token";
    char body[REPLY_MAX + 1];

    guest->awake = true;
    guest_store_write(guest, "control/feature-suspend", "1");
    if (guest->mode == DEAF)
        return;
    guest_request(guest, XS_WATCH, watch, sizeof(watch), body);
    guest_read_target(guest);
}

/* ---- commands ---- */

static void guest_obey(struct guest *guest)
{
    char body[REPLY_MAX + 1] = "";

    if (strcmp(guest->command, "wake") == 0) {
        guest_come_up(guest);
        strcpy(guest->answer, "ok");
    } else if (strcmp(guest->command, "read") == 0) {
        int error = guest_store_read(guest, guest->path, body);
        snprintf(guest->answer, sizeof(guest->answer), "%s %s", error ? "error" : "ok", body);
    } else if (strcmp(guest->command, "write") == 0) {
        strcpy(guest->answer, guest_store_write(guest, guest->path, guest->argument) ? "error refused" : "ok");
    } else {
        snprintf(guest->answer, sizeof(guest->answer), "ok target=%llu reads=%lu refused=%lu events=%lu",
                 (unsigned long long)guest->target_kib, guest->reads, guest->refused_reads, guest->watch_events);
    }
    guest->asked = false;
    sem_post(&guest->answered);
}

static void *guest_main(void *context)
{
    struct guest *guest = context;
    struct xsd_sockmsg header;
    char body[REPLY_MAX + 1];

    if (guest->mode != YOUNG)
        guest_come_up(guest);
    sem_post(&guest->answered);
    while (!guest->stop) {
        int64_t left_ms = guest->working ? guest->next_step_ms - now_ms() : -1;
        if (!guest->touched && !guest->asked && guest->ring->rsp_prod == guest->ring->rsp_cons && left_ms != 0)
            guest_wait(guest, !guest->working ? -1 : left_ms < 0 ? 0 : (int)left_ms);
        while (!guest->stop && guest->ring->rsp_prod != guest->ring->rsp_cons)
            guest_message(guest, &header, body); /* which takes nothing once it is told to stop */
        if (guest->touched && guest->awake && guest->mode != DEAF)
            guest_read_target(guest);
        if (guest->asked)
            guest_obey(guest);
        if (guest->working && now_ms() >= guest->next_step_ms) {
            if (guest->mode == STUBBORN)
                guest_shrink_for_ever(guest);
            else
                guest_step(guest);
        }
    }
    return NULL;
}

/* ---- the main thread ---- */

static void answer(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void answer(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

static void wake(const struct guest *guest)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint32_t nothing = 0;

    name_file(address.sun_path, sizeof(address.sun_path), "guest", guest->domid, ".sock");
    sendto(guest->events, &nothing, sizeof(nothing), MSG_NOSIGNAL, (struct sockaddr *)&address, sizeof(address));
}

static int open_events(unsigned domid)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    name_file(address.sun_path, sizeof(address.sun_path), "guest", domid, ".sock");
    unlink(address.sun_path);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void *open_ring(unsigned domid)
{
    char path[108];

    name_file(path, sizeof(path), "ring", domid, "");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, 4096) < 0)
        return NULL;
    void *ring = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return ring == MAP_FAILED ? NULL : ring;
}

static void start(unsigned domid, char *rest)
{
    struct guest *guest = calloc(1, sizeof(*guest));
    char mode[16] = "";
    long long offset_kib;
    const char *key;

    if (!guest || sscanf(rest, "%lld %15s", &offset_kib, mode) != 2) {
        answer("error expected start DOMID OFFSET_KIB MODE");
        free(guest);
        return;
    }
    while (guest->mode < MODES && strcmp(mode_names[guest->mode], mode) != 0)
        guest->mode++;
    guest->domid = domid;
    guest->offset_kib = offset_kib;
    guest->rate = (key = strstr(rest, "rate=")) ? strtoull(key + 5, NULL, 10) : 200;
    guest->retry_ms = (key = strstr(rest, "retry_ms=")) ? strtoll(key + 9, NULL, 10) : 1000;
    guest->slot = &machine->slots[domid];
    guest->ring = open_ring(domid);
    guest->events = open_events(domid);
    sem_init(&guest->answered, 0, 0);
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 * 1024);
    if (guest->mode == MODES || !guest->ring || guest->events < 0 ||
        pthread_create(&guest->thread, &small, guest_main, guest) != 0) {
        answer("error starting failed: %s", strerror(errno));
        return;
    }
    guests[domid] = guest;
    sem_wait(&guest->answered);
    answer("ok");
}

static void stop(unsigned domid)
{
    struct guest *guest = guests[domid];

    guest->stop = true;
    wake(guest);
    pthread_join(guest->thread, NULL);
    close(guest->events);
    munmap(guest->ring, 4096);
    free(guest);
    guests[domid] = NULL;
    answer("ok");
}

static void obey(char *line)
{
    char command[32] = "";
    unsigned domid = MACHINE_SLOTS;
    int length = 0;

    if (sscanf(line, "%31s %u %n", command, &domid, &length) < 2 || domid >= MACHINE_SLOTS) {
        answer("error expected COMMAND DOMID");
        return;
    }
    if (strcmp(command, "start") == 0) {
        start(domid, line + length);
        return;
    }
    struct guest *guest = guests[domid];
    if (!guest) {
        answer("error no such guest");
        return;
    }
    if (strcmp(command, "stop") == 0) {
        stop(domid);
        return;
    }
    strcpy(guest->command, command);
    guest->path[0] = guest->argument[0] = '\0';
    sscanf(line + length, "%255s %255s", guest->path, guest->argument);
    guest->asked = true;
    wake(guest);
    sem_wait(&guest->answered);
    answer("%s", guest->answer);
}

int main(void)
{
    char line[1024];

    machine = machine_map();
    if (!machine) {
        fprintf(stderr, "imitated-guests: " MACHINE_ENVIRONMENT ": %s\n", strerror(errno));
        return 1;
    }
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        obey(line);
    }
    return 0;
}
