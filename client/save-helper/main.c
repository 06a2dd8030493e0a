/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/save-helper/places.h"
#include "client/save-helper/save-helper.h"
#include "config.h"
#include "daemon/clock.h"

#define MAIN_REAL "P2MGUARD_REAL_SAVE_HELPER"
#define MAIN_POLICY "P2MGUARD_SAVE_POLICY"
#define MAIN_SOCKET "P2MGUARD_SOCKET"
#define MAIN_STEADY "P2MGUARD_STEADY_MS"
#define MAIN_SENT "P2MGUARD_SENT_TARGET"

/* A toolstack that has run for longer may have read the target at any time since; it takes no more than this. */
#define MAIN_STEADY_MS 10000

#define MAIN_XCFLAGS_LIVE 1u
#define MAIN_SAVE_ARGUMENTS 8

/* ---- saying something ---- */

void helper_flush(struct helper *helper)
{
    struct stream *stream = &helper->to_libxl;

    while (stream->used) {
        ssize_t written = write(STDOUT_FILENO, stream->bytes, stream->used);
        struct pollfd fd = {STDOUT_FILENO, POLLOUT, 0};
        if (written > 0)
            stream_drop(stream, (size_t)written);
        else if (written < 0 && errno == EAGAIN)
            poll(&fd, 1, -1);
        else if (written < 0 && errno != EINTR)
            stream->used = 0; /* libxl has gone */
    }
}

void helper_say(struct helper *helper, uint32_t level, const char *format, ...)
{
    char text[768];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (!stream_put_log(&helper->to_libxl, level, text))
        fprintf(stderr, "p2mguard save-helper: %s\n", text);
}

/* ---- the real helper ---- */

/* Below the folder of the libxl that has started us, if that can be told: Debian has one for each version of Xen. */
static bool main_find_beside_libxl(char path[PATH_MAX])
{
    char maps[64], line[PATH_MAX + 128], version[32];
    bool found = false;

    snprintf(maps, sizeof(maps), "/proc/%d/maps", (int)getppid());
    FILE *file = fopen(maps, "re");
    if (!file)
        return false;
    while (!found && fgets(line, sizeof(line), file)) {
        const char *name = strstr(line, "/libxenlight.so.");
        if (!name || sscanf(name, "/libxenlight.so.%31[0-9.]", version) != 1)
            continue;
        for (char *end = version + strlen(version); !found && end > version; end--) {
            /* libxenlight.so.4.17.0 is Xen 4.17's */
            *end = '\0';
            snprintf(path, PATH_MAX, PLACES_OF_VERSION, version);
            found = access(path, X_OK) == 0;
        }
    }
    fclose(file);
    return found;
}

static const char *main_find_real(void)
{
    static char beside[PATH_MAX];
    const char *configured = getenv(MAIN_REAL);

    if (configured && *configured)
        return configured;
    if (main_find_beside_libxl(beside))
        return beside;
    for (size_t i = 0; i < PLACES; i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

/* As if we had never been. */
static int main_become(const char *real, char **arguments)
{
    execv(real, arguments);
    fprintf(stderr, "p2mguard save-helper: %s: %s (" MAIN_REAL " names libxl's own save helper)\n", real,
            strerror(errno));
    return 127;
}

/* ---- what libxl asks for ---- */

/* A number in decimal, as libxl writes them. */
static bool main_number(const char *text, unsigned long *number)
{
    char *end;

    errno = 0;
    *number = strtoul(text, &end, 10);
    return !errno && end != text && !*end && isdigit((unsigned char)*text);
}

/*
 * --save-domain FD BACKFD DOMID XCFLAGS CBFLAGS STREAMTYPE. True for a save that is to be guarded: of a guest that runs
 * on meanwhile, and for once. Remus and COLO send one checkpoint after the other, for as long as the guest lives.
 */
static bool main_is_guarded(int argc, char **argv, struct helper *helper)
{
    unsigned long domid, flags, type;

    if (argc != MAIN_SAVE_ARGUMENTS || strcmp(argv[1], "--save-domain") != 0)
        return false;
    if (!main_number(argv[4], &domid) || !main_number(argv[5], &flags) || !main_number(argv[7], &type))
        return false;
    helper->stream_fd = atoi(argv[2]);
    helper->back_fd = atoi(argv[3]);
    helper->domid = (uint32_t)domid;
    return domid > 0 && domid <= UINT16_MAX && (flags & MAIN_XCFLAGS_LIVE) && type == 0;
}

/* For how long the program that has started us has run, INT64_MAX when that cannot be told. */
static int64_t main_parent_age_ms(void)
{
    unsigned long long started = 0;
    char path[64], line[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)getppid());
    FILE *file = fopen(path, "re");
    bool read = file && fgets(line, sizeof(line), file);
    if (file)
        fclose(file);
    /* The name in brackets may hold anything; what is wanted is the 20th field after it. */
    const char *field = read ? strrchr(line, ')') : NULL;
    for (int i = 0; field && i < 20; i++)
        field = strchr(field + 1, ' ');
    if (!field || sscanf(field, " %llu", &started) != 1)
        return INT64_MAX;
    return clock_now_ms() - (int64_t)(started * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/* libvirt's daemons go by what they were asked for; who they are, their names tell. */
static enum sent_target main_guess_sent(void)
{
    char path[64], name[32] = "";

    snprintf(path, sizeof(path), "/proc/%d/comm", (int)getppid());
    FILE *file = fopen(path, "re");
    bool read = file && fgets(name, sizeof(name), file);
    if (file)
        fclose(file);
    return read && (strcmp(name, "libvirtd\n") == 0 || strcmp(name, "virtxend\n") == 0) ? SENT_ASKED : SENT_STORE;
}

static bool main_read_sent(struct helper *helper)
{
    const char *sent = getenv(MAIN_SENT);

    helper->sent = sent && strcmp(sent, "asked") == 0 ? SENT_ASKED : SENT_STORE;
    if (!sent)
        helper->sent = main_guess_sent();
    if (!sent || helper->sent == SENT_ASKED || strcmp(sent, "store") == 0)
        return true;
    helper_say(helper, SAY_ERROR, MAIN_SENT " is '%s', expected store or asked", sent);
    return false;
}

static bool main_read_environment(struct helper *helper)
{
    const char *policy = getenv(MAIN_POLICY), *steady = getenv(MAIN_STEADY);
    unsigned long steady_ms = MAIN_STEADY_MS;
    int64_t age_ms = main_parent_age_ms();

    helper->control = getenv(MAIN_SOCKET);
    helper->strict = policy && strcmp(policy, "strict") == 0;
    if (steady && (!main_number(steady, &steady_ms) || steady_ms > INT32_MAX)) {
        helper_say(helper, SAY_ERROR, MAIN_STEADY " is '%s', expected a number of milliseconds", steady);
        return false;
    }
    helper->steady_ms = age_ms < (int64_t)steady_ms ? age_ms : (int64_t)steady_ms;
    if (!main_read_sent(helper))
        return false;
    if (!policy || helper->strict || strcmp(policy, "permissive") == 0)
        return true;
    helper_say(helper, SAY_ERROR, MAIN_POLICY " is '%s', expected strict or permissive", policy);
    return false;
}

static int main_take_signals(struct helper *helper)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
        return -errno;
    helper->signals = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return helper->signals < 0 ? -errno : 0;
}

/* Nobody guards this one: the real helper takes our place, with signals as we found them. */
static int main_go_unguarded(struct helper *helper)
{
    sigset_t none;

    helper_flush(helper);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    return main_become(helper->real, helper->arguments);
}

int main(int argc, char **argv)
{
    static struct helper helper;

    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("p2mguard save-helper " PACKAGE_VERSION);
        return 0;
    }
    helper.real = main_find_real();
    helper.arguments = argv;
    if (!helper.real) {
        fputs("p2mguard save-helper: libxl's own save helper was not found; name it in " MAIN_REAL "\n", stderr);
        return 127;
    }
    if (!main_is_guarded(argc, argv, &helper))
        return main_become(helper.real, argv);
    bool wanted = main_read_environment(&helper);
    int error = wanted ? main_take_signals(&helper) : 0;
    if (error)
        helper_say(&helper, SAY_ERROR, "taking signals failed: %s", strerror(-error));
    enum hold_result result = wanted && !error ? hold_begin(&helper) : HOLD_REFUSED;
    if (result == HOLD_UNGUARDED)
        return main_go_unguarded(&helper);
    int status = result == HOLD_HELD ? run_helper(&helper) : 1;
    helper_flush(&helper);
    hold_end(&helper, HOLD_END_CANCELLED);
    p2mguard_close(helper.guard);
    return status;
}
