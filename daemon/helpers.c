/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/helpers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/helper-parse.h"
#include "daemon/log.h"
#include "daemon/timer.h"

/* One system call's worth of the process table, some 80 processes: less than a millisecond of the loop's time. */
#define HELPERS_STEP_BYTES 2048
#define HELPERS_STEP_MS 1

/* The kernel answers a request to tell us at once, or never. */
#define HELPERS_ACK_MS 1000

/* Messages read before others have their turn. */
#define HELPERS_BURST 256

/* While the kernel tells of them, the process table is read all the same: older kernels let others make it stop. */
#define HELPERS_SWEEP_MS 60000

/* Room for the starts of programs that come while the loop is busy; what does not fit is noticed, and looked for. */
#define HELPERS_SOCKET_BYTES (1 << 20)

/* /proc/PID/status is the longest that is read whole. */
#define HELPERS_FILE_MAX 8192

struct followed {
    struct helpers *helpers;
    struct helper helper;
    int pidfd;
    struct event *event;
};

struct helpers {
    struct event_base *base;
    struct helpers_callbacks callbacks;
    enum helpers_watch watch;
    size_t most;
    int proc; /* /proc */
    struct followed **followed;
    size_t count, room;
    bool complained; /* of too many */

    int table; /* /proc, read in steps; -1 between two readings */
    bool again;
    struct event *poll, *step;

    int connector; /* -1 = none */
    uint32_t request;
    bool acknowledged;
    struct event *event, *ack_timer;
};

/* ---- names ---- */

static const char *const helpers_names[HELPERS_WATCH_COUNT] = {"auto", "exec", "poll", "no"};

const char *helpers_watch_name(enum helpers_watch watch)
{
    return watch < HELPERS_WATCH_COUNT ? helpers_names[watch] : "unknown";
}

int helpers_watch_parse(const char *text, enum helpers_watch *watch)
{
    for (unsigned i = 0; i < HELPERS_WATCH_COUNT; i++) {
        if (strcmp(text, helpers_names[i]) == 0) {
            *watch = (enum helpers_watch)i;
            return 0;
        }
    }
    return -EINVAL;
}

/* ---- one process ---- */

/*
 * Reads what fits; the size, or a negative errno. Of these files only cmdline is in the process's own memory, which may
 * be in use by it: that one is read of trusted processes alone.
 */
static ssize_t helpers_read(const struct helpers *helpers, pid_t pid, const char *name, char *text, size_t size)
{
    char path[32];
    size_t used = 0;
    ssize_t more;

    snprintf(path, sizeof(path), "%d/%s", (int)pid, name);
    int fd = openat(helpers->proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    do {
        more = read(fd, text + used, size - used);
        used += more > 0 ? (size_t)more : 0;
    } while ((more > 0 && used < size) || (more < 0 && errno == EINTR));
    int error = more < 0 ? -errno : 0;
    close(fd);
    return error ? error : (ssize_t)used;
}

static bool helpers_is_over(int pidfd)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};

    return poll(&fd, 1, 0) != 0;
}

static bool helpers_is_trusted(const struct helpers *helpers, pid_t pid)
{
    char status[HELPERS_FILE_MAX];
    ssize_t size = helpers_read(helpers, pid, "status", status, sizeof(status));
    uid_t uid;

    return size > 0 && helper_parse_uid(status, (size_t)size, &uid) == 0 && (uid == 0 || uid == geteuid());
}

/* CLOCK_BOOTTIME, as clock_now_ms(); a helper whose start is not known has started now. */
static int64_t helpers_start_ms(const struct helpers *helpers, pid_t pid)
{
    char stat[HELPERS_FILE_MAX];
    ssize_t size = helpers_read(helpers, pid, "stat", stat, sizeof(stat));
    int64_t now_ms = clock_now_ms();
    long ticks_a_second = sysconf(_SC_CLK_TCK);
    uint64_t ticks;

    if (size <= 0 || ticks_a_second <= 0 || helper_parse_start(stat, (size_t)size, &ticks) ||
        ticks > (uint64_t)now_ms * (uint64_t)ticks_a_second / 1000)
        return now_ms;
    return (int64_t)(ticks * 1000 / (uint64_t)ticks_a_second);
}

static bool helpers_read_command(const struct helpers *helpers, struct helper *helper)
{
    char command[HELPER_COMMAND_MAX + 1]; /* one that fills this is too long */
    ssize_t size = helpers_read(helpers, helper->pid, "cmdline", command, sizeof(command));

    int error = size <= 0 ? -ENOENT : helper_parse_command(command, (size_t)size, &helper->domid, &helper->program);
    if (error == -EBADMSG)
        log_debug("process %d has a helper's name, and arguments that no toolstack writes", (int)helper->pid);
    return error == 0;
}

/* ---- those that are followed ---- */

static void followed_free(struct followed *followed)
{
    timer_free(followed->event);
    close(followed->pidfd);
    free(followed);
}

static struct followed *helpers_find(const struct helpers *helpers, pid_t pid)
{
    for (size_t i = 0; i < helpers->count; i++)
        if (helpers->followed[i]->helper.pid == pid)
            return helpers->followed[i];
    return NULL;
}

static void helpers_end(struct followed *followed)
{
    struct helpers *helpers = followed->helpers;
    size_t i = 0;

    while (helpers->followed[i] != followed)
        i++;
    helpers->followed[i] = helpers->followed[--helpers->count];
    helpers->complained = false;
    helpers->callbacks.ended(helpers->callbacks.context, &followed->helper);
    followed_free(followed);
}

static void helpers_on_end(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    helpers_end(context);
}

static bool helpers_has_room(struct helpers *helpers)
{
    if (helpers->count >= helpers->most) {
        if (!helpers->complained)
            log_warning("%zu processes that save guests are followed already; no more are", helpers->count);
        helpers->complained = true;
        return false;
    }
    if (helpers->count < helpers->room)
        return true;
    size_t room = helpers->room ? helpers->room * 2 : 16;
    struct followed **followed = reallocarray(helpers->followed, room, sizeof(struct followed *));
    if (!followed)
        return false;
    helpers->followed = followed;
    helpers->room = room;
    return true;
}

/* Takes the descriptor. */
static void helpers_follow(struct helpers *helpers, const struct helper *helper, int pidfd)
{
    struct followed *followed = calloc(1, sizeof(*followed));

    if (followed)
        followed->event = event_new(helpers->base, pidfd, EV_READ, helpers_on_end, followed);
    if (!followed || !followed->event || event_add(followed->event, NULL) < 0) {
        log_error("process %d: out of memory for following it", (int)helper->pid);
        if (followed)
            timer_free(followed->event);
        free(followed);
        close(pidfd);
        return;
    }
    followed->helpers = helpers;
    followed->helper = *helper;
    followed->pidfd = pidfd;
    helpers->followed[helpers->count++] = followed;
    if (!helpers->callbacks.seen(helpers->callbacks.context, helper)) {
        helpers->count--;
        followed_free(followed);
    }
}

/* The cheap question first: nearly all processes have another name. */
static bool helpers_has_name(const struct helpers *helpers, pid_t pid)
{
    char comm[64];
    ssize_t size = helpers_read(helpers, pid, "comm", comm, sizeof(comm));

    return size > 0 && helper_parse_comm(comm, (size_t)size);
}

static void helpers_look_at(struct helpers *helpers, pid_t pid, enum helpers_watch mechanism)
{
    struct helper helper = {.pid = pid, .mechanism = mechanism};

    if (!helpers_has_name(helpers, pid))
        return;
    struct followed *known = helpers_find(helpers, pid);
    if (known && !helpers_is_over(known->pidfd))
        return;
    if (known) /* its number is another's already, before we were told of its end */
        helpers_end(known);
    if (!helpers_has_room(helpers))
        return;
    int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0) {
        if (errno != ESRCH)
            log_warning("process %d cannot be followed: %s", (int)pid, strerror(errno));
        return;
    }
    bool saves = helpers_is_trusted(helpers, pid) && helpers_read_command(helpers, &helper);
    helper.started_ms = saves ? helpers_start_ms(helpers, pid) : 0;
    /* It is still there: all of this was read of it, and not of one that has its number now. */
    if (saves && !helpers_is_over(pidfd))
        helpers_follow(helpers, &helper, pidfd);
    else
        close(pidfd);
}

/* ---- the process table ---- */

static void helpers_end_table(struct helpers *helpers)
{
    if (helpers->table >= 0)
        close(helpers->table);
    helpers->table = -1;
    event_del(helpers->step);
}

static void helpers_start_table(struct helpers *helpers)
{
    if (helpers->table >= 0) {
        helpers->again = true; /* whoever comes behind where it is now is found anyway, others are not */
        return;
    }
    helpers->table = openat(helpers->proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (helpers->table < 0)
        log_warning("reading the process table failed: %s", strerror(errno));
    else
        timer_arm(helpers->step, 0);
}

static void helpers_look_at_entries(struct helpers *helpers, const char *entries, size_t size)
{
    size_t length;

    for (size_t at = 0; at < size; at += length) {
        const struct dirent64 *entry = (const void *)(entries + at);
        char *end;
        length = entry->d_reclen;
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        long pid = strtol(entry->d_name, &end, 10);
        if (*end == '\0')
            helpers_look_at(helpers, (pid_t)pid, HELPERS_POLL);
    }
}

static void helpers_on_step(evutil_socket_t fd, short what, void *context)
{
    _Alignas(struct dirent64) char entries[HELPERS_STEP_BYTES];
    struct helpers *helpers = context;
    (void)fd, (void)what;

    ssize_t size = getdents64(helpers->table, entries, sizeof(entries));
    if (size > 0) {
        helpers_look_at_entries(helpers, entries, (size_t)size);
        timer_arm(helpers->step, HELPERS_STEP_MS);
        return;
    }
    helpers_end_table(helpers);
    if (helpers->again)
        helpers_start_table(helpers);
    else
        log_debug("the process table has been read");
    helpers->again = false;
}

static void helpers_on_poll(evutil_socket_t fd, short what, void *context)
{
    struct helpers *helpers = context;
    (void)fd, (void)what;

    timer_arm(helpers->poll, helpers->acknowledged ? HELPERS_SWEEP_MS : HELPERS_POLL_MS);
    helpers_start_table(helpers);
}

/* ---- the kernel's process connector ---- */

/* Only starts of programs, and acknowledgements: the rest would wake us for every process that forks or ends. */
static int helpers_filter(int fd)
{
    const uint32_t what = NLMSG_HDRLEN + sizeof(struct cn_msg) + offsetof(struct proc_event, what);
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, what), /* in network order, whatever ours is */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_EXEC), 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl(PROC_EVENT_NONE), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ? -errno : 0;
}

static int helpers_ask(int fd, enum proc_cn_mcast_op operation, uint32_t number)
{
    char message[NLMSG_SPACE(sizeof(struct cn_msg) + sizeof(operation))] = {0};
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    const struct cn_msg connector = {
        .id = {CN_IDX_PROC, CN_VAL_PROC}, .seq = number, .ack = number, .len = sizeof(operation)};
    const struct nlmsghdr header = {.nlmsg_len = NLMSG_LENGTH(sizeof(connector) + sizeof(operation)),
                                    .nlmsg_type = NLMSG_DONE};

    memcpy(message, &header, sizeof(header));
    memcpy(message + NLMSG_HDRLEN, &connector, sizeof(connector));
    memcpy(message + NLMSG_HDRLEN + sizeof(connector), &operation, sizeof(operation));
    return sendto(fd, message, header.nlmsg_len, 0, (const void *)&kernel, sizeof(kernel)) < 0 ? -errno : 0;
}

static void helpers_close_connector(struct helpers *helpers)
{
    if (helpers->connector < 0)
        return;
    /* Older kernels count listeners, and do not notice when one goes without a word. */
    int error = helpers_ask(helpers->connector, PROC_CN_MCAST_IGNORE, helpers->request + 2);
    if (error)
        log_debug("leaving the process connector failed: %s", strerror(-error));
    timer_free(helpers->event);
    helpers->event = NULL;
    event_del(helpers->ack_timer);
    close(helpers->connector);
    helpers->connector = -1;
    helpers->acknowledged = false;
}

/* The kernel does not tell us, or no more. */
static void helpers_give_up_connector(struct helpers *helpers, const char *why)
{
    helpers_close_connector(helpers);
    if (helpers->watch == HELPERS_EXEC) {
        event_del(helpers->poll);
        log_error("watch_helpers is exec, but the kernel does not tell of programs that are started: %s; migrations "
                  "that nobody announces are not seen",
                  why);
        return;
    }
    log_info("the kernel does not tell of programs that are started (%s); the process table is read every second", why);
    helpers_on_poll(-1, 0, helpers);
}

static void helpers_on_no_ack(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    helpers_give_up_connector(context, "it does not answer, as in a namespace of our own");
}

static void helpers_take_ack(struct helpers *helpers, int error)
{
    if (error) {
        helpers_give_up_connector(helpers, strerror(-error));
        return;
    }
    event_del(helpers->ack_timer);
    helpers->acknowledged = true;
    log_info("the kernel tells of programs that are started");
    helpers_on_poll(-1, 0, helpers); /* those that were started before */
}

/* False when there is nothing more to be read. */
static bool helpers_take_message(struct helpers *helpers)
{
    _Alignas(struct nlmsghdr) char message[512];
    struct sockaddr_nl from = {0};
    socklen_t length = sizeof(from);
    struct helper_event event;
    ssize_t size = recvfrom(helpers->connector, message, sizeof(message), 0, (void *)&from, &length);

    if (size < 0 && errno == ENOBUFS) {
        helpers_start_table(helpers); /* some were lost */
        return true;
    }
    if (size < 0 && errno == EINTR)
        return true;
    if (size < 0 && errno != EAGAIN)
        helpers_give_up_connector(helpers, strerror(errno));
    if (size < 0)
        return false;
    /* Only the kernel is 0 there. */
    if (from.nl_pid != 0 || helper_parse_event(message, (size_t)size, &event))
        return true;
    if (event.what == HELPER_EVENT_EXEC)
        helpers_look_at(helpers, event.pid, HELPERS_EXEC);
    else if (event.what == HELPER_EVENT_ACK && event.ack == helpers->request + 1 && !helpers->acknowledged)
        helpers_take_ack(helpers, event.error);
    return helpers->connector >= 0;
}

static void helpers_on_message(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what;
    for (unsigned i = 0; i < HELPERS_BURST && helpers_take_message(context); i++)
        ;
}

static int helpers_listen(struct helpers *helpers)
{
    const struct sockaddr_nl group = {.nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC};
    const int room_bytes = HELPERS_SOCKET_BYTES;
    int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR);

    if (fd < 0)
        return -errno;
    helpers->connector = fd;
    helpers->request = (uint32_t)clock_now_ms();
    int error = helpers_filter(fd);
    if (!error && bind(fd, (const void *)&group, sizeof(group)) < 0)
        error = -errno;
    if (!error && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room_bytes, sizeof(room_bytes)) < 0)
        log_debug("the process connector has its standard room: %s", strerror(errno));
    helpers->event = event_new(helpers->base, fd, EV_READ | EV_PERSIST, helpers_on_message, helpers);
    if (!error && (!helpers->event || event_add(helpers->event, NULL) < 0))
        error = -ENOMEM;
    return error ? error : helpers_ask(fd, PROC_CN_MCAST_LISTEN, helpers->request);
}

static void helpers_open_connector(struct helpers *helpers)
{
    int error = helpers_listen(helpers);

    if (error)
        helpers_give_up_connector(helpers, strerror(-error));
    else
        timer_arm(helpers->ack_timer, HELPERS_ACK_MS);
}

/* ---- from outside ---- */

int helpers_new(struct helpers **result, struct event_base *base, const struct helpers_callbacks *callbacks)
{
    struct helpers *helpers = calloc(1, sizeof(*helpers));

    if (!helpers)
        return -ENOMEM;
    helpers->base = base;
    helpers->callbacks = *callbacks;
    helpers->watch = HELPERS_NO;
    helpers->connector = helpers->table = -1;
    helpers->poll = evtimer_new(base, helpers_on_poll, helpers);
    helpers->step = evtimer_new(base, helpers_on_step, helpers);
    helpers->ack_timer = evtimer_new(base, helpers_on_no_ack, helpers);
    helpers->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = helpers->proc < 0 ? -errno : helpers->poll && helpers->step && helpers->ack_timer ? 0 : -ENOMEM;
    if (error) {
        helpers_free(helpers);
        return error;
    }
    *result = helpers;
    return 0;
}

static void helpers_stop_finding(struct helpers *helpers)
{
    helpers_close_connector(helpers);
    helpers_end_table(helpers);
    helpers->again = false;
    event_del(helpers->poll);
}

void helpers_free(struct helpers *helpers)
{
    if (!helpers)
        return;
    if (helpers->poll && helpers->step && helpers->ack_timer)
        helpers_stop_finding(helpers);
    for (size_t i = 0; i < helpers->count; i++)
        followed_free(helpers->followed[i]);
    free(helpers->followed);
    timer_free(helpers->poll);
    timer_free(helpers->step);
    timer_free(helpers->ack_timer);
    if (helpers->proc >= 0)
        close(helpers->proc);
    free(helpers);
}

void helpers_apply(struct helpers *helpers, enum helpers_watch watch, size_t most)
{
    helpers->most = most;
    if (watch == helpers->watch)
        return;
    helpers_stop_finding(helpers);
    helpers->watch = watch;
    if (watch == HELPERS_NO)
        return;
    if (watch != HELPERS_EXEC)
        helpers_on_poll(-1, 0, helpers); /* until the kernel is known to tell us */
    if (watch != HELPERS_POLL)
        helpers_open_connector(helpers);
}

void helpers_look_again(struct helpers *helpers)
{
    if (helpers->watch != HELPERS_NO)
        helpers_start_table(helpers);
}

enum helpers_watch helpers_mechanism(const struct helpers *helpers)
{
    if (helpers->acknowledged)
        return HELPERS_EXEC;
    return evtimer_pending(helpers->poll, NULL) ? HELPERS_POLL : HELPERS_NO;
}
