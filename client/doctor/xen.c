/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checks of Xen and of xenstored. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <xenstore.h>

#include "client/doctor/doctor.h"
#include "daemon/clock.h"
#include "daemon/journal.h"

/* The first version that migrations were tried on. */
#define XEN_TESTED_MAJOR 4
#define XEN_TESTED_MINOR 17

/* libxenstore would wait for ever. */
#define XEN_STORE_SILENCE_MS 3000
#define XEN_STORE_AGAIN_MS 10

#define XEN_OXENSTORED_CONF "/etc/xen/oxenstored.conf"

/* ---- the hypervisor ---- */

void check_dom0(struct doctor *doctor, struct finding *finding)
{
    char text[64];
    ssize_t length = doctor_read(doctor, "/proc/xen/capabilities", text, sizeof(text));

    if (length < 0) {
        finding_set(finding, FINDING_FAILED, "/proc/xen/capabilities: %s: no Xen below this system, or no xenfs",
                    strerror((int)-length));
    } else if (!strstr(text, "control_d")) {
        finding_set(finding, FINDING_FAILED, "this is a guest of Xen, and not its dom0");
        finding_remedy(finding, "run p2mguard in dom0; guests have p2mguard-agent(8)");
    } else {
        finding_set(finding, FINDING_OK, "this is dom0");
    }
}

void check_privcmd(struct doctor *doctor, struct finding *finding)
{
    static const char path[] = "/dev/xen/privcmd";
    char full[PATH_MAX];
    int fd = open(doctor_path(doctor, path, full), O_RDWR | O_CLOEXEC | O_NONBLOCK);

    if (fd >= 0) {
        close(fd);
        doctor->has_privcmd = true;
        finding_set(finding, FINDING_OK, "%s can be opened", path);
    } else if (errno == EACCES && geteuid() != 0) {
        finding_set(finding, FINDING_SKIPPED, "%s: only root may open it", path);
    } else {
        finding_set(finding, FINDING_FAILED, "%s: %s", path, strerror(errno));
    }
}

/* Opens the handle that all others use. A hypervisor of another version shows at the first question only. */
void check_hypervisor(struct doctor *doctor, struct finding *finding)
{
    struct hypervisor *hypervisor;
    int error = hypervisor_open(&hypervisor);

    if (error) {
        bool root = geteuid() == 0;
        finding_set(finding, !root && error == -EACCES ? FINDING_SKIPPED : FINDING_FAILED,
                    root ? "no hypercall can be made: %s" : "no hypercall can be made: %s; only root may",
                    strerror(-error));
        return;
    }
    error = hypervisor_get_host(hypervisor, &doctor->host);
    if (!error) {
        doctor->tools.hypervisor = hypervisor;
        finding_set(finding, FINDING_OK, "Xen %u.%u answers", doctor->host.major, doctor->host.minor);
        return;
    }
    hypervisor_close(hypervisor);
    if (error == -EACCES) {
        finding_set(finding, FINDING_FAILED,
                    "Xen %u.%u refuses libxenctrl's hypercalls: they are of another interface version",
                    doctor->host.major, doctor->host.minor);
        finding_remedy(finding,
                       "boot the Xen that p2mguardd's libxenctrl is from (ldd shows which), or install a p2mguard that "
                       "was built for Xen %u.%u",
                       doctor->host.major, doctor->host.minor);
    } else {
        finding_set(finding, FINDING_FAILED, "asking the hypervisor failed: %s", strerror(-error));
    }
}

void check_version(struct doctor *doctor, struct finding *finding)
{
    const struct hypervisor_host *host = &doctor->host;
    bool old = host->major < XEN_TESTED_MAJOR || (host->major == XEN_TESTED_MAJOR && host->minor < XEN_TESTED_MINOR);

    finding_set(finding, old ? FINDING_WARNING : FINDING_OK, "Xen %u.%u%s", host->major, host->minor,
                old ? " is older than all that was tried" : "");
}

/* What a PV guest writes is seen by shadow paging alone, what others write also by their hardware's (HAP). */
void check_logdirty(struct doctor *doctor, struct finding *finding)
{
    const struct hypervisor_host *host = &doctor->host;
    unsigned pv = 0, hvm = 0;

    for (size_t i = 0; i < doctor->guest_count; i++)
        ++*(doctor->guests[i].domain.hvm ? &hvm : &pv);
    if (host->shadow)
        finding_set(finding, FINDING_OK, "this Xen sees what guests write, by %s",
                    host->hap ? "HAP and shadow paging" : "shadow paging");
    else if (host->hap)
        finding_set(finding,
                    pv         ? FINDING_FAILED
                    : host->pv ? FINDING_WARNING
                               : FINDING_OK,
                    "this Xen has HAP and no shadow paging: PV guests cannot be migrated live (here: %u)", pv);
    else
        finding_set(finding, pv + hvm ? FINDING_FAILED : FINDING_WARNING,
                    "this Xen has neither HAP nor shadow paging: no guest can be migrated live (here: %u)", pv + hvm);
}

/* ---- xenstored ---- */

static int store_note_kind(void *context, const char *name)
{
    bool *oxenstored = context;

    if (strcmp(name, "@introduceDomain") == 0) /* which the C xenstored does not list */
        *oxenstored = true;
    return 0;
}

/* -EBUSY: more are waiting for xenstored than it has room for, which is 1 with the C one. They are served soon. */
static int store_connect(struct store *store)
{
    const struct timespec again = {.tv_nsec = XEN_STORE_AGAIN_MS * 1000000};
    int64_t until_ms = clock_now_ms() + XEN_STORE_SILENCE_MS;
    int error;

    while ((error = store_reconnect(store)) == -EBUSY && clock_now_ms() < until_ms)
        nanosleep(&again, NULL);
    return error == -EBUSY ? -ETIMEDOUT : error;
}

/* Connects and reads. */
static int store_probe_kind(struct store *store, bool *oxenstored)
{
    int error = store_connect(store);

    *oxenstored = false;
    return error ? error : store_list(store, 0, "/", store_note_kind, oxenstored);
}

struct store_answer {
    int error;
    bool oxenstored;
};

/* In a child, which can be left waiting. -ETIMEDOUT: not within XEN_STORE_SILENCE_MS. */
static int store_try(struct store_answer *answer)
{
    struct store *store = NULL;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    pid_t child = fork();
    if (child == 0) {
        struct store_answer said = {.error = store_new(&store, false)};
        if (!said.error)
            said.error = store_probe_kind(store, &said.oxenstored);
        _exit(write(ends[1], &said, sizeof(said)) == (ssize_t)sizeof(said) ? 0 : 1);
    }
    int error = child < 0 ? -errno : 0;
    close(ends[1]);
    struct pollfd fd = {ends[0], POLLIN, 0};
    if (!error && poll(&fd, 1, XEN_STORE_SILENCE_MS) == 0)
        error = -ETIMEDOUT;
    if (!error && read(ends[0], answer, sizeof(*answer)) != (ssize_t)sizeof(*answer))
        error = -EIO;
    close(ends[0]);
    if (child > 0) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    return error;
}

void check_xenstored(struct doctor *doctor, struct finding *finding)
{
    const char *path = xs_daemon_socket();
    struct store_answer answer = {.error = 0};
    struct store *store = NULL;
    int error = store_try(&answer);

    if (!error)
        error = answer.error;
    if (!error)
        error = store_new(&store, false);
    if (!error)
        error = store_connect(store);
    if (!error) {
        doctor->tools.store = store;
        finding_set(finding, FINDING_OK, "%s answers on %s", answer.oxenstored ? "oxenstored" : "the C xenstored",
                    path);
        return;
    }
    store_free(store);
    if (error == -EACCES && geteuid() != 0) {
        finding_set(finding, FINDING_SKIPPED, "%s: only root may", path);
    } else if (error == -ETIMEDOUT) {
        finding_set(finding, FINDING_FAILED, "xenstored takes connections on %s and does not answer", path);
        finding_remedy(finding, "ps -C xenstored,oxenstored shows whether it is stopped (T); kill -CONT its process");
    } else {
        finding_set(finding, FINDING_FAILED, "nobody answers on %s: %s", path, strerror(-error));
    }
}

/* The one switch that makes permissions, and with them the hold, mean nothing; it cannot be seen from dom0. */
void check_store_permissions(struct doctor *doctor, struct finding *finding)
{
    char text[16384], value[16];

    if (doctor_read(doctor, XEN_OXENSTORED_CONF, text, sizeof(text)) < 0) {
        finding_set(finding, FINDING_OK, "permissions are not turned off (there is no " XEN_OXENSTORED_CONF ")");
        return;
    }
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (sscanf(line, " perms-activate = %15s", value) == 1 && strcmp(value, "false") == 0) {
            finding_set(finding, FINDING_FAILED,
                        XEN_OXENSTORED_CONF " has perms-activate = false: guests can read targets that are hidden");
            return;
        }
    finding_set(finding, FINDING_OK, "permissions are not turned off in " XEN_OXENSTORED_CONF);
}

static int store_try_write(struct store *store, store_txn txn, void *context)
{
    static const char path[] = JOURNAL_ROOT "/doctor";
    int *error = context;

    *error = store_write(store, txn, path, "");
    if (!*error)
        *error = store_set_perms(store, txn, path, "n0");
    return *error ? *error : -ECANCELED; /* rolled back in any case */
}

void check_store_write(struct doctor *doctor, struct finding *finding)
{
    int written = -ENOTCONN;
    int error = store_transact(doctor->tools.store, store_try_write, &written);

    if (error == -ECANCELED && !written) {
        finding_set(finding, FINDING_OK, "nodes can be written below " JOURNAL_ROOT);
        return;
    }
    finding_set(finding, FINDING_FAILED, "no node can be written below " JOURNAL_ROOT ": %s",
                strerror(written ? -written : -error));
}
