/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checks of the daemon: its configuration, its unit, itself, and what it or an earlier one has left. */
#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/doctor/doctor.h"
#include "config.h"
#include "daemon/clock.h"
#include "daemon/files.h"
#include "daemon/journal.h"

#define SERVICE_UNIT "p2mguardd.service"

/* Far more than an answer takes that needs nobody else. */
#define SERVICE_SILENCE_MS 3000

/* ---- configuration ---- */

static int service_read_settings(struct doctor *doctor, const char *path, struct settings_problem *problem)
{
    char full[PATH_MAX], vendor[PATH_MAX], *folder;
    struct settings_sources sources;

    if (settings_sources_of(&sources, doctor_path(doctor, path, full), &folder))
        return -ENOMEM;
    sources.required = doctor->config != NULL;
    sources.folders[0] = doctor->config ? NULL : doctor_path(doctor, SETTINGS_VENDOR_FOLDER, vendor);
    int error = settings_load(&doctor->settings, &sources, problem);
    free(folder);
    return error;
}

void check_configuration(struct doctor *doctor, struct finding *finding)
{
    const char *path = doctor->config ? doctor->config : SETTINGS_FILE;
    char full[PATH_MAX], text[SETTINGS_PROBLEM_MAX] = "out of memory";
    struct settings_problem problem;

    settings_init(&doctor->settings);
    bool there = access(doctor_path(doctor, path, full), R_OK) == 0;
    int reason = errno;
    int error = service_read_settings(doctor, path, &problem);
    if (error == -EINVAL)
        settings_problem_text(&problem, text);
    if (!there && reason == EACCES && geteuid() != 0)
        finding_set(finding, FINDING_SKIPPED, "%s: only root may read it", path);
    else if (error)
        finding_set(finding, FINDING_FAILED, "%s", text);
    else if (doctor->settings.file_count == 0)
        finding_set(finding, FINDING_OK, "there is no %s: everything has its default", path);
    else
        finding_set(finding, FINDING_OK, "%s is right%s", there ? path : "what there is of drop-ins",
                    there && doctor->settings.file_count > 1 ? ", and so are its drop-ins" : "");
    if (!there)
        finding_remedy(finding, "make it, or leave out --config");
    else
        finding_remedy(
            finding,
            "change that line of %s as p2mguard.conf(5) has it; then: systemctl reload-or-restart " SERVICE_UNIT,
            error == -EINVAL ? problem.file : path);
}

/* ---- the unit ---- */

void check_unit(struct doctor *doctor, struct finding *finding)
{
    char text[1024], load[32], active[32], file[32], watchdog[32];
    int error = doctor_ask_systemd(doctor, SERVICE_UNIT, "LoadState,ActiveState,UnitFileState,WatchdogUSec", text,
                                   sizeof(text));

    if (error) {
        finding_set(finding, FINDING_SKIPPED,
                    error == -ENOSYS ? "no systemd here" : "systemctl show " SERVICE_UNIT " failed");
        return;
    }
    doctor_property(text, "LoadState", load, sizeof(load));
    doctor_property(text, "ActiveState", active, sizeof(active));
    doctor_property(text, "UnitFileState", file, sizeof(file));
    doctor_property(text, "WatchdogUSec", watchdog, sizeof(watchdog));
    if (strcmp(load, "masked") == 0) {
        finding_set(finding, FINDING_FAILED, SERVICE_UNIT " is masked: it cannot be started");
        finding_remedy(finding, "systemctl unmask " SERVICE_UNIT);
    } else if (strcmp(load, "loaded") != 0) {
        finding_set(finding, FINDING_WARNING, SERVICE_UNIT ": %s", load);
        finding_remedy(finding, "install the unit, then: systemctl daemon-reload");
    } else if (strcmp(active, "failed") == 0) {
        finding_set(finding, FINDING_FAILED, SERVICE_UNIT " has failed");
        finding_remedy(finding, "journalctl -u " SERVICE_UNIT " says why; then: systemctl restart " SERVICE_UNIT);
    } else if (strcmp(file, "enabled") != 0 || strcmp(active, "active") != 0) {
        finding_set(finding, FINDING_WARNING, SERVICE_UNIT " is %s, and %s", active, file);
    } else if (strcmp(watchdog, "0") == 0 || strcmp(watchdog, "infinity") == 0) {
        finding_set(finding, FINDING_WARNING, SERVICE_UNIT " has no watchdog: one that hangs is not started again");
        finding_remedy(finding, "systemctl edit " SERVICE_UNIT ": WatchdogSec=30s in [Service]; then restart it");
    } else {
        finding_set(finding, FINDING_OK, SERVICE_UNIT " is active, enabled, and has a watchdog (%s)", watchdog);
    }
}

/* ---- the daemon ---- */

/* As connection_call, which waits for ever. */
static int daemon_ask(struct connection *connection, const char *method, json_t **result)
{
    int64_t until_ms = clock_now_ms() + SERVICE_SILENCE_MS, id = connection_send(connection, method, NULL), left_ms;
    json_t *reply = NULL;
    int error = id < 0 ? (int)id : 0;

    while (!error && !(reply = connection_reply(connection, id))) {
        left_ms = until_ms - clock_now_ms();
        int ready = left_ms > 0 ? connection_wait(connection, (int)left_ms) : 0;
        error = ready < 0 ? ready : ready == 0 ? -ETIMEDOUT : connection_take_in(connection);
    }
    if (error)
        return error;
    *result = json_incref(json_object_get(reply, "result"));
    json_decref(reply);
    return *result ? 0 : -EPROTO;
}

/* Whoever may not use the socket gets to know that from the check of that. */
static int daemon_connect(struct doctor *doctor, struct finding *finding)
{
    const char *socket = doctor->socket ? doctor->socket : doctor->settings.socket;
    struct connection *connection;
    int error = connection_open(&connection, socket);

    if (error == -EACCES || error == -EPERM) {
        doctor->daemon = DAEMON_FORBIDDEN;
        finding_set(finding, FINDING_SKIPPED, "%s: %s", socket, strerror(-error));
        return error;
    }
    if (error) {
        finding_set(finding, FINDING_FAILED, "nobody answers on %s: %s", socket, strerror(-error));
        return error;
    }
    error = daemon_ask(connection, "daemon.info", &doctor->info);
    connection_close(connection);
    doctor->daemon = error ? DAEMON_SILENT : DAEMON_ANSWERS;
    if (error) {
        finding_set(finding, FINDING_FAILED, "%s takes connections, and daemon.info failed: %s", socket,
                    strerror(-error));
        finding_remedy(finding,
                       "systemctl restart " SERVICE_UNIT " (systemctl kill -s KILL " SERVICE_UNIT ", if that hangs)");
    }
    return error;
}

static const char *daemon_says(const struct doctor *doctor, const char *key)
{
    const char *text = json_string_value(json_object_get(doctor->info, key));

    return text ? text : "?";
}

void check_daemon(struct doctor *doctor, struct finding *finding)
{
    if (daemon_connect(doctor, finding))
        return;
    json_int_t pid = json_integer_value(json_object_get(doctor->info, "pid"));
    bool connected = strcmp(daemon_says(doctor, "store"), "connected") == 0;
    finding_set(finding, connected ? FINDING_OK : FINDING_FAILED,
                "p2mguardd answers (process %" JSON_INTEGER_FORMAT "); xenstored: %s", pid,
                daemon_says(doctor, "store"));
    finding_remedy(finding, "mend what \"xenstored\" says above; p2mguardd connects again by itself");
}

void check_daemon_version(struct doctor *doctor, struct finding *finding)
{
    const char *version = daemon_says(doctor, "version");
    bool same = strcmp(version, PACKAGE_VERSION) == 0;

    finding_set(finding, same ? FINDING_OK : FINDING_WARNING,
                same ? "p2mguardd and p2mguardctl are %s" : "p2mguardd is %s, p2mguardctl is " PACKAGE_VERSION,
                version);
}

void check_permission(struct doctor *doctor, struct finding *finding)
{
    const struct passwd *user = getpwuid(geteuid());
    const char *name = user ? user->pw_name : "this user";

    if (doctor->daemon == DAEMON_ANSWERS && json_is_true(json_object_get(doctor->info, "may_change"))) {
        finding_set(finding, FINDING_OK, "%s may hold guests", name);
        return;
    }
    if (doctor->daemon == DAEMON_ANSWERS)
        finding_set(finding, FINDING_FAILED, "%s may look at guests, and may not hold them", name);
    else if (doctor->daemon == DAEMON_FORBIDDEN)
        finding_set(finding, FINDING_FAILED, "%s may not use the control socket", name);
    else
        finding_set(finding, FINDING_SKIPPED, "p2mguardd does not answer");
    finding_remedy(
        finding, "be root, or a member of the group that socket_group in p2mguard.conf(5) names: usermod -aG GROUP %s",
        user ? user->pw_name : "USER");
}

/* The hard limit counts: up to that the daemon raises the other one by itself. */
void check_descriptors(struct doctor *doctor, struct finding *finding)
{
    uint64_t needed =
        files_for_connections(doctor->settings.max_connections) + files_for_the_rest(doctor->settings.max_sessions);
    unsigned long long limit;
    char path[64], text[4096];

    snprintf(path, sizeof(path), "/proc/%" JSON_INTEGER_FORMAT "/limits",
             json_integer_value(json_object_get(doctor->info, "pid")));
    doctor_read(doctor, path, text, sizeof(text));
    const char *line = strstr(text, "Max open files");
    if (!line || sscanf(line, "Max open files %*s %llu", &limit) != 1) {
        finding_set(finding, FINDING_SKIPPED, "%s cannot be read", path);
        return;
    }
    finding_set(finding, limit < needed ? FINDING_WARNING : FINDING_OK,
                "p2mguardd may open %llu files; max_connections and max_sessions may need %" PRIu64, limit, needed);
    finding_remedy(finding, "systemctl edit " SERVICE_UNIT ": LimitNOFILE=%" PRIu64 " in [Service]; then restart it",
                   needed);
}

/* ---- journals ---- */

struct journal_count {
    struct store *store;
    unsigned held, passing;
    uint16_t unreadable; /* the first such domid, 0 = none */
};

static int journals_count_one(void *context, uint16_t domid)
{
    struct journal_count *count = context;
    struct journal journal;
    bool passing = false;
    int error = journal_read(count->store, 0, domid, &journal);

    if (error == -EINVAL && !count->unreadable)
        count->unreadable = domid;
    if (!error)
        error = journal_read_passing(count->store, 0, domid, &passing);
    if (!error)
        ++*(passing ? &count->passing : &count->held);
    return error == -ENOTCONN ? error : 0;
}

static void journals_tell_left(const struct doctor *doctor, const struct journal_count *count, struct finding *finding)
{
    char socket[PATH_MAX];

    finding_set(finding, count->held ? FINDING_FAILED : FINDING_WARNING,
                "a daemon that is no more%s has left guests held (%u), and targets to be set (%u)",
                doctor->daemon == DAEMON_SILENT ? ", or hangs," : "", count->held, count->passing);
    finding_remedy(finding, "p2mguardctl%s%s thaw --offline%s --all", doctor->socket ? " --socket " : "",
                   doctor->socket ? finding_quote(doctor->socket, socket) : "",
                   doctor->daemon == DAEMON_SILENT ? " --force" : "");
}

void check_journals(struct doctor *doctor, struct finding *finding)
{
    struct journal_count count = {.store = doctor->tools.store};
    int error = journal_each(doctor->tools.store, journals_count_one, &count);
    bool left = doctor->daemon == DAEMON_ABSENT || doctor->daemon == DAEMON_SILENT;

    if (error) {
        finding_set(finding, FINDING_FAILED, JOURNAL_SESSIONS " cannot be listed: %s", strerror(-error));
    } else if (count.unreadable) {
        finding_set(finding, FINDING_FAILED, JOURNAL_SESSIONS "/%u/restore is not a journal of this version",
                    count.unreadable);
        finding_remedy(finding,
                       "start the p2mguardd that wrote it, or put back by hand what xenstore-read " JOURNAL_SESSIONS
                       "/%u/restore shows, then: xenstore-rm " JOURNAL_SESSIONS "/%u",
                       count.unreadable, count.unreadable);
    } else if (left && count.held + count.passing) {
        journals_tell_left(doctor, &count, finding);
    } else {
        finding_set(finding, FINDING_OK, "nothing is left to be put back%s",
                    count.held + count.passing ? "; p2mguardd is holding guests" : "");
    }
}
