/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguard-agent: makes the guest that it runs in hold still while dom0 asks for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <link.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>

#include "client/agent/agent.h"
#include "client/agent/undo.h"
#include "config.h"
#include "daemon/log.h"
#include "daemon/timer.h"

#define MAIN_DEVICE "/dev/xen/xenbus"
#define MAIN_RUN "/run/p2mguard-agent"
#define MAIN_LIMIT_SECONDS 10
#define MAIN_LIMIT_MOST 3600
#define MAIN_NICE (-20)
#define MAIN_LOCK_PAUSE_MS 10
#define MAIN_LOCK_ATTEMPTS 100

enum { MAIN_SIGTERM, MAIN_SIGINT, MAIN_SIGNALS };

struct main_options {
    const char *xenstore; /* NULL: as the environment says, else the device */
    const char *sysfs, *run, *hooks;
    const char *sysfs_socket; /* NULL: changes in sysfs are made by this process */
    long hook_seconds, settle_seconds;
    int log_level;
    bool thaw;
    bool everybodys_mounts;
};

struct program {
    struct main_options options;
    struct event_base *base;
    struct event *signals[MAIN_SIGNALS];
    struct agent *agent;
    bool failed;
};

static void main_usage(FILE *to)
{
    fputs("usage: p2mguard-agent [OPTION]…\n"
          "Makes the Xen guest that it runs in hold still while dom0 asks for it; runs in the foreground.\n\n"
          "  --xenstore PATH           xenstored's device or socket (" MAIN_DEVICE ")\n"
          "  --hooks DIR               programs to be run (" HOOKS_FOLDER ")\n"
          "  --hook-timeout SECONDS    for each of them (10)\n"
          "  --settle-timeout SECONDS  for the balloon driver to come to rest (10)\n"
          "  --run DIR                 lock and journal (" MAIN_RUN ")\n"
          "  --sysfs DIR               where sysfs is (/sys)\n"
          "  --sysfs-socket PATH       have agent-sysfs make the changes there, which listens at PATH\n"
          "  --log-level LEVEL         " LOG_LEVEL_NAMES " (info)\n"
          "  --thaw                    undo what an agent that was killed has left, and exit\n"
          "  --everybodys-mounts       enter the mount namespace of process 1 first\n"
          "  --version, --help\n",
          to);
}

static void main_reject(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "p2mguard-agent: %s is '%s', expected %s\n", option, value, expected);
    exit(2);
}

static long main_seconds(const char *option, const char *value)
{
    char *end;

    errno = 0;
    long seconds = strtol(value, &end, 10);
    if (errno || end == value || *end || seconds < 1 || seconds > MAIN_LIMIT_MOST)
        main_reject(option, value, "a number of seconds from 1 to 3600");
    return seconds;
}

static void main_take_option(struct main_options *options, int name)
{
    switch (name) {
    case 'x':
        options->xenstore = optarg;
        break;
    case 's':
        options->sysfs = optarg;
        break;
    case 'A':
        options->sysfs_socket = optarg;
        break;
    case 'r':
        options->run = optarg;
        break;
    case 'k':
        options->hooks = optarg;
        break;
    case 't':
        options->hook_seconds = main_seconds("--hook-timeout", optarg);
        break;
    case 'S':
        options->settle_seconds = main_seconds("--settle-timeout", optarg);
        break;
    case 'l':
        if (log_level_parse(optarg, &options->log_level))
            main_reject("--log-level", optarg, LOG_LEVEL_NAMES);
        break;
    case 'T':
        options->thaw = true;
        break;
    case 'E':
        options->everybodys_mounts = true;
        break;
    case 'V':
        puts("p2mguard-agent " PACKAGE_VERSION);
        exit(0);
    case 'h':
        main_usage(stdout);
        exit(0);
    default:
        main_usage(stderr);
        exit(2);
    }
}

/* Exits on a bad command line. */
static void main_parse(int argc, char **argv, struct main_options *options)
{
    static const struct option names[] = {{"xenstore", required_argument, NULL, 'x'},
                                          {"sysfs", required_argument, NULL, 's'},
                                          {"sysfs-socket", required_argument, NULL, 'A'},
                                          {"run", required_argument, NULL, 'r'},
                                          {"hooks", required_argument, NULL, 'k'},
                                          {"hook-timeout", required_argument, NULL, 't'},
                                          {"settle-timeout", required_argument, NULL, 'S'},
                                          {"log-level", required_argument, NULL, 'l'},
                                          {"thaw", no_argument, NULL, 'T'},
                                          {"everybodys-mounts", no_argument, NULL, 'E'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"help", no_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    int name;

    *options = (struct main_options){.sysfs = "/sys",
                                     .run = MAIN_RUN,
                                     .hooks = HOOKS_FOLDER,
                                     .hook_seconds = MAIN_LIMIT_SECONDS,
                                     .settle_seconds = MAIN_LIMIT_SECONDS,
                                     .log_level = LOG_INFO};
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1)
        main_take_option(options, name);
    if (optind < argc) {
        fprintf(stderr, "p2mguard-agent: unexpected argument '%s'\n", argv[optind]);
        main_usage(stderr);
        exit(2);
    }
}

/* ---- one instance ---- */

/* What a killed agent was about to start has its lock until it is started; --thaw waits for that. */
static int main_flock(int fd, bool patient)
{
    const struct timespec pause = {.tv_nsec = MAIN_LOCK_PAUSE_MS * 1000000L};
    int attempts = patient ? MAIN_LOCK_ATTEMPTS : 1;

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || --attempts == 0)
            return -errno;
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* Held until the process ends. */
static int main_lock(const char *run, bool patient)
{
    static char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/lock", run) >= (int)sizeof(path)) {
        log_error("--run is too long");
        return -ENAMETOOLONG;
    }
    if (mkdir(run, 0755) < 0 && errno != EEXIST) {
        log_error("%s cannot be made: %s", run, strerror(errno));
        return -errno;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    int error = fd < 0 ? -errno : main_flock(fd, patient);
    if (!error)
        return 0;
    if (error == -EWOULDBLOCK)
        log_error("another p2mguard-agent runs already (it holds %s)", path);
    else
        log_error("%s: %s", path, strerror(-error));
    if (fd >= 0)
        close(fd);
    return error;
}

/* ---- life ---- */

static void main_on_stop(evutil_socket_t fd, short what, void *context)
{
    struct program *program = context;
    (void)fd, (void)what;

    agent_stop(program->agent);
}

static void main_on_over(void *context)
{
    struct program *program = context;

    event_base_loopexit(program->base, NULL);
}

static void main_on_lost(void *context)
{
    struct program *program = context;

    program->failed = true;
    event_base_loopbreak(program->base);
}

/*
 * Most of the code that is in memory was needed once and will not be for hours: the linker's, a freeze's, and what the
 * kernel maps around each page. Code is never written to, so whatever is needed again comes back from its file.
 */
static int main_drop_code(struct dl_phdr_info *object, size_t size, void *context)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)size, (void)context;

    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) || (segment->p_flags & PF_W))
            continue;
        uintptr_t begin = (object->dlpi_addr + segment->p_vaddr) & ~(page - 1);
        uintptr_t end = object->dlpi_addr + segment->p_vaddr + segment->p_memsz;
        if (madvise((void *)begin, end - begin, MADV_DONTNEED) < 0)
            log_debug("%s stays in memory: %s", object->dlpi_name, strerror(errno));
    }
    return 0;
}

static void main_on_idle(void *context)
{
    (void)context;
    dl_iterate_phdr(main_drop_code, NULL);
}

static int main_add_signal(struct program *program, int index, int number)
{
    program->signals[index] = evsignal_new(program->base, number, main_on_stop, program);
    return program->signals[index] && event_add(program->signals[index], NULL) == 0 ? 0 : -ENOMEM;
}

static int main_set_up(struct program *program)
{
    const struct main_options *options = &program->options;
    struct agent_settings settings = {.sysfs = options->sysfs,
                                      .run = options->run,
                                      .sysfs_socket = options->sysfs_socket,
                                      .hooks = options->hooks,
                                      .hook_limit_ms = options->hook_seconds * 1000,
                                      .settle_limit_ms = options->settle_seconds * 1000,
                                      .idle = main_on_idle,
                                      .over = main_on_over,
                                      .lost = main_on_lost,
                                      .context = program};

    program->base = event_base_new();
    if (!program->base || main_add_signal(program, MAIN_SIGTERM, SIGTERM) ||
        main_add_signal(program, MAIN_SIGINT, SIGINT)) {
        log_error("out of memory");
        return -ENOMEM;
    }
    int error = agent_new(&program->agent, program->base, &settings);
    if (error)
        log_error("starting failed: %s", strerror(-error));
    return error;
}

static void main_tear_down(struct program *program)
{
    agent_free(program->agent);
    for (int i = 0; i < MAIN_SIGNALS; i++)
        timer_free(program->signals[i]);
    if (program->base)
        event_base_free(program->base);
}

/* True when there is no journal, and --thaw has nothing to do. */
static bool main_nothing_left(const struct main_options *options)
{
    static struct undo undo;

    return undo_load(options->run, &undo) == -ENOENT;
}

/*
 * A guest that wakes on another host has everything to do at once, and all of it waits for memory that is still held.
 * The agent's part is short. Hooks run as everybody else does.
 */
static void main_go_first(void)
{
    if (setpriority(PRIO_PROCESS, 0, MAIN_NICE) < 0)
        log_debug("the priority stays as it is: %s", strerror(errno));
}

/*
 * Where mounts are everybody's. systemd gives whatever a unit runs a namespace of its own when the unit has one, what
 * is run with full privileges ("+") included. Before there is a second thread.
 */
static int main_enter_namespace(void)
{
    static const char path[] = "/proc/1/ns/mnt";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || setns(fd, CLONE_NEWNS) < 0 ? -errno : 0;

    if (fd >= 0)
        close(fd);
    if (error)
        log_error("%s cannot be entered: %s", path, strerror(-error));
    return error;
}

static int main_prepare(const struct main_options *options)
{
    const char *path = options->xenstore ? options->xenstore : MAIN_DEVICE;

    /* A guest has no socket; libxenstore would look for one, and not find the device under its own name for it. */
    if (setenv("XENSTORED_PATH", path, options->xenstore != NULL) < 0)
        return -errno;
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR || signal(SIGHUP, SIG_IGN) == SIG_ERR)
        return -errno;
    return main_lock(options->run, options->thaw);
}

int main(int argc, char **argv)
{
    static struct program program;

    main_parse(argc, argv, &program.options);
    log_open();
    log_set_level(program.options.log_level);
    main_go_first();
    if (program.options.everybodys_mounts && main_enter_namespace())
        return 1;
    if (main_prepare(&program.options))
        return 1;
    if (program.options.thaw && main_nothing_left(&program.options))
        return 0;
    int error = main_set_up(&program);
    if (!error) {
        if (program.options.thaw)
            agent_stop(program.agent);
        error = event_base_dispatch(program.base);
    }
    main_tear_down(&program);
    return error || program.failed ? 1 : 0;
}
