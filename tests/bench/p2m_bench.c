/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2m_bench: what watching p2ms costs, on imitated pages, beside a reference measured in the same run.
 *
 * Prints figures; it is no test and fails on no time. Medians of five rounds.
 */
#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "daemon/clock.h"
#include "daemon/session-observe.h"
#include "daemon/session.h"
#include "daemon/survey.h"
#include "tests/bench/bench.h"
#include "tests/imitation/machine.h"

#define ROUNDS 5
#define SESSIONS 1000
#define GLANCES 200

/* A list of 1 TiB of guest: 2^28 pfns of 8 bytes, 2^19 pages of p2m, 2^10 tables that lead to them. */
#define LARGE_MAX_PFN (UINT64_C(1) << 28)
#define LARGE_TABLES 1024
#define LARGE_VADDR UINT64_C(0xffffc90000000000)

/* Byte offsets in a 64-bit guest's shared info page. */
enum { MAX_PFN = 3088, P2M_CR3 = 3112, P2M_VADDR = 3120, P2M_GENERATION = 3128 };

static struct machine *machine;
static uint64_t frames_used;

static double median(double values[ROUNDS])
{
    qsort(values, ROUNDS, sizeof(*values), compare_us);
    return values[ROUNDS / 2];
}

/* ---- imitated guests ---- */

static uint64_t new_frame(void)
{
    if (++frames_used == MACHINE_FRAMES) {
        errno = ENOSPC;
        die("imitated memory");
    }
    return frames_used;
}

static uint64_t *words(uint64_t frame)
{
    return (uint64_t *)(void *)machine->frames[frame];
}

static void put(uint64_t table, uint64_t index, uint64_t frame)
{
    words(table)[index & 511] = frame << 12 | 1;
}

/* Tables for a list at LARGE_VADDR; leaf pages are numbers only. */
static void make_list(unsigned domid, uint64_t max_pfn)
{
    uint64_t info = new_frame(), root = new_frame(), third = new_frame(), second = 0, first = 0;
    uint64_t page = (LARGE_VADDR & UINT64_C(0xffffffffffff)) >> 12, leaves = (max_pfn + 511) / 512;

    put(root, page >> 27, third);
    for (uint64_t leaf = 0; leaf < leaves; leaf++, page++) {
        if (leaf == 0 || page % (1 << 18) == 0)
            put(third, page >> 18, second = new_frame());
        if (leaf == 0 || page % 512 == 0)
            put(second, page >> 9, first = new_frame());
        put(first, page, UINT64_C(0x1000000) + leaf);
    }
    words(info)[MAX_PFN / 8] = max_pfn;
    words(info)[P2M_CR3 / 8] = root << 12;
    words(info)[P2M_VADDR / 8] = LARGE_VADDR;
    machine->slots[domid].used = 1;
    machine->slots[domid].width = 8;
    machine->slots[domid].shared_info_frame = (uint32_t)info;
}

static struct hypervisor_domain find_guest(struct hypervisor *hypervisor, unsigned domid)
{
    struct hypervisor_domain domain;

    errno = -hypervisor_get(hypervisor, (uint16_t)domid, &domain);
    if (errno)
        die("an imitated guest");
    return domain;
}

/* ---- a thousand sessions, their counters read a hundred times a second ---- */

struct flock {
    struct session_host host;
    struct session *sessions[SESSIONS];
    size_t bytes; /* of the heap, for all of them */
};

static void nothing(evutil_socket_t fd, short what, void *context)
{
    (void)fd, (void)what, (void)context;
}

/* A held session as far as reading its counter goes, with all that a session allocates. */
static struct session *make_session(struct flock *flock, unsigned domid)
{
    struct session *session = calloc(1, sizeof(*session));

    if (!session)
        die("a session");
    session->host = &flock->host;
    session->step = STEP_HELD;
    session->timer = evtimer_new(flock->host.base, nothing, session);
    session->freeze_timer = evtimer_new(flock->host.base, nothing, session);
    session->end_timer = evtimer_new(flock->host.base, nothing, session);
    session->grace_timer = evtimer_new(flock->host.base, nothing, session);
    session->history = history_new(clock_now_ms());
    if (!session->history)
        die("a history");
    struct hypervisor_domain domain = find_guest(flock->host.hypervisor, domid);
    sight_init(&session->sight, flock->host.hypervisor, flock->host.survey, session_tell_change, &domain);
    errno = -sight_map(&session->sight);
    if (errno)
        die("mapping a guest");
    sight_begin_baseline(&session->sight);
    if (sight_survey(&session->sight))
        die("a survey");
    session_finish_baseline(session);
    return session;
}

static void make_flock(struct flock *flock, struct hypervisor *hypervisor)
{
    flock->host.base = event_base_new();
    flock->host.hypervisor = hypervisor;
    if (!flock->host.base || survey_new(&flock->host.survey))
        die("an event base");
    for (unsigned domid = 1; domid <= SESSIONS; domid++)
        make_list(domid, 1 << 16);
    size_t before = mallinfo2().uordblks;
    for (unsigned domid = 1; domid <= SESSIONS; domid++)
        flock->sessions[domid - 1] = make_session(flock, domid);
    flock->bytes = mallinfo2().uordblks - before;
}

/* The least that reading the counters can be: one load from each page. */
static double bare_loads(const struct flock *flock)
{
    uint64_t sum = 0;
    double started = now_us();

    for (unsigned round = 0; round < GLANCES; round++)
        for (unsigned i = 0; i < SESSIONS; i++) {
            uint64_t frame = machine->slots[flock->sessions[i]->sight.seen.domid].shared_info_frame;
            sum += ((volatile uint64_t *)words(frame))[P2M_GENERATION / 8];
        }
    double each_us = (now_us() - started) / GLANCES;
    if (sum)
        die("counters that nobody counts");
    return each_us;
}

static double glances(const struct flock *flock)
{
    double started = now_us();

    for (unsigned round = 0; round < GLANCES; round++)
        for (unsigned i = 0; i < SESSIONS; i++)
            session_glance(flock->sessions[i], round);
    return (now_us() - started) / GLANCES;
}

static double verdict_surveys(const struct flock *flock)
{
    double started = now_us();

    for (unsigned i = 0; i < SESSIONS; i++)
        if (sight_survey(&flock->sessions[i]->sight) || !sight_survey_stands(&flock->sessions[i]->sight))
            die("a survey");
    return (now_us() - started) / SESSIONS;
}

static void bench_sessions(struct hypervisor *hypervisor)
{
    static struct flock flock;
    double poll[ROUNDS], bare[ROUNDS], survey[ROUNDS];

    make_flock(&flock, hypervisor);
    for (unsigned i = 0; i < ROUNDS; i++) {
        poll[i] = glances(&flock);
        bare[i] = bare_loads(&flock);
        survey[i] = verdict_surveys(&flock);
    }
    double poll_us = median(poll), bare_us = median(bare);
    printf("generation poll, %d sessions    %8.1f us   %5.2f %% of a core at 100 Hz   %5.1f times one bare load each "
           "(%.1f us)\n",
           SESSIONS, poll_us, poll_us * 100 / 1e4, poll_us / bare_us, bare_us);
    printf("full structure, 256 MiB guest    %8.1f us   from pages that stay mapped\n", median(survey));
    printf("memory per session               %8zu B    of the heap, plus %u pages mapped\n", flock.bytes / SESSIONS,
           flock.sessions[0]->sight.kept.count + 1);
}

/* ---- one large guest ---- */

static double full_check(const struct p2m_source *source, struct survey *survey, const struct hypervisor_p2m *p2m,
                         double *longest_us)
{
    double started = now_us(), before = started;
    int more;

    survey_begin(survey, p2m, NULL);
    do {
        more = survey_step(survey, source, SURVEY_STEP_ENTRIES);
        double after = now_us();
        *longest_us = after - before > *longest_us ? after - before : *longest_us;
        before = after;
    } while (more > 0);
    if (more || !survey_result(survey)->stands)
        die("a survey");
    return now_us() - started;
}

/* Frames that are mapped all the time: the check without what mapping costs. */
static int give_frames(void *context, const uint64_t *frames, unsigned count, const void **at)
{
    (void)context, (void)count;
    *at = machine->frames[frames[0]];
    return 0;
}

static void take_frames(void *context, const void *at, unsigned count)
{
    (void)context, (void)at, (void)count;
}

static double copy_tables(uint64_t first_frame, size_t count, char *to)
{
    double started = now_us();

    for (size_t i = 0; i < count; i++)
        memcpy(to + i * MACHINE_FRAME_BYTES, machine->frames[first_frame + i], MACHINE_FRAME_BYTES);
    return now_us() - started;
}

static void bench_large(struct hypervisor *hypervisor)
{
    unsigned domid = SESSIONS + 1;
    struct survey_pages pages = {hypervisor, (uint16_t)domid};
    struct p2m_source mapping = survey_pages_source(&pages);
    struct p2m_source mapped = {give_frames, take_frames, NULL, 1};
    double with[ROUNDS], without[ROUNDS], copy[ROUNDS], longest_us = 0, ignored = 0;
    struct hypervisor_p2m *p2m;
    struct survey *survey;
    uint64_t first = frames_used + 1;

    make_list(domid, LARGE_MAX_PFN);
    size_t count = frames_used - first; /* the shared info page is no table */
    struct hypervisor_domain domain = find_guest(hypervisor, domid);
    errno = -hypervisor_map_p2m(hypervisor, &domain, &p2m);
    if (errno)
        die("mapping a guest");
    char *to = malloc(count * MACHINE_FRAME_BYTES);
    if (!to || survey_new(&survey))
        die("memory");
    memset(to, 1, count * MACHINE_FRAME_BYTES);
    for (unsigned i = 0; i < ROUNDS; i++) {
        with[i] = full_check(&mapping, survey, p2m, &longest_us);
        without[i] = full_check(&mapped, survey, p2m, &ignored);
        copy[i] = copy_tables(first + 1, count, to);
    }
    double with_us = median(with), without_us = median(without), copy_us = median(copy);
    printf("full structure, 1 TiB guest      %8.0f us   %zu tables mapped and read, %.1f times memcpy of their bytes "
           "(%.0f us)\n",
           with_us, count, with_us / copy_us, copy_us);
    printf("  of that, without mapping       %8.0f us   %.1f times memcpy; longest step with mapping %.0f us\n",
           without_us, without_us / copy_us, longest_us);
    survey_free(survey);
    hypervisor_unmap_p2m(p2m);
    free(to);
}

int main(void)
{
    char path[64];
    struct hypervisor *hypervisor;
    int fd = memfd_create("machine", 0);

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd < 0 || ftruncate(fd, sizeof(struct machine)) < 0 || setenv(MACHINE_ENVIRONMENT, path, 1) < 0)
        die("imitated machine");
    errno = -hypervisor_open(&hypervisor);
    machine = machine_map();
    if (!machine)
        die("imitated machine");
    bench_sessions(hypervisor);
    bench_large(hypervisor);
    return 0;
}
