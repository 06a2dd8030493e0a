/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checks of what libxl is to start in the place of its own save helper, and who tells it so. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/doctor/doctor.h"
#include "client/save-helper/places.h"

#define HELPER_VARIABLE "LIBXL_SAVE_HELPER"
#define HELPER_REAL "P2MGUARD_REAL_SAVE_HELPER"
#define HELPER_POLICY "P2MGUARD_SAVE_POLICY"

#define HELPER_ENVIRONMENT_MAX (256 * 1024)

/* Whose environment it is, and what it says; "" for what it does not. */
struct helper_environment {
    char who[64];
    char put_right[FINDING_TEXT]; /* the remedy for a variable that is wrong */
    char helper[PATH_MAX], real[PATH_MAX], policy[32];
};

/* ---- the programs ---- */

/* 0 when it is a program that this user can start. */
static int helper_look(const struct doctor *doctor, const char *path, struct stat *status)
{
    char full[PATH_MAX];

    if (stat(doctor_path(doctor, path, full), status) < 0)
        return -errno;
    return access(full, X_OK) < 0 ? -errno : 0;
}

/* True, and said so, when the program cannot be started. */
static bool helper_is_broken(const struct doctor *doctor, const char *what, const char *path, struct finding *finding)
{
    char word[PATH_MAX];
    struct stat status;
    int error = helper_look(doctor, path, &status);

    if (!error)
        return false;
    finding_set(finding, FINDING_FAILED, "%s, %s: %s", what, path, strerror(-error));
    if (error == -EACCES)
        finding_remedy(finding, "chmod 755 %s", finding_quote(path, word));
    return true;
}

void check_save_helper(struct doctor *doctor, struct finding *finding)
{
    if (!helper_is_broken(doctor, "p2mguard's save helper", SAVE_HELPER_PROGRAM, finding))
        finding_set(finding, FINDING_OK, "%s can be started", SAVE_HELPER_PROGRAM);
}

/* As save-helper looks for it, but for the version, which that one has from the libxl that has started it. */
static const char *helper_find_real(const struct doctor *doctor, char path[PATH_MAX])
{
    struct stat status;
    char version[32];

    snprintf(version, sizeof(version), "%u.%u", doctor->host.major, doctor->host.minor);
    snprintf(path, PATH_MAX, PLACES_OF_VERSION, version);
    if (helper_look(doctor, path, &status) != -ENOENT)
        return path;
    for (size_t i = 0; i < PLACES; i++)
        if (helper_look(doctor, places[i], &status) != -ENOENT)
            return places[i];
    return NULL;
}

void check_real_helper(struct doctor *doctor, struct finding *finding)
{
    char found[PATH_MAX];
    const char *path;

    if (!doctor->host.major) {
        finding_set(finding, FINDING_SKIPPED, "which Xen it would be of is not known");
        return;
    }
    path = helper_find_real(doctor, found);
    if (!path) {
        finding_set(finding, FINDING_FAILED,
                    "libxl's own save helper was not found, neither " PLACES_OF_VERSION " nor elsewhere", "VERSION");
        finding_remedy(finding, "apt install xen-utils-%u.%u (or name it in " HELPER_REAL ", p2mguard-save-helper(8))",
                       doctor->host.major, doctor->host.minor);
    } else if (!helper_is_broken(doctor, "libxl's own save helper", path, finding)) {
        finding_set(finding, FINDING_OK, "libxl's own is %s", path);
    }
}

/* ---- the variables ---- */

static bool helper_is_ours(const struct doctor *doctor, const char *path)
{
    struct stat ours, theirs;

    return helper_look(doctor, SAVE_HELPER_PROGRAM, &ours) == 0 && helper_look(doctor, path, &theirs) == 0 &&
           ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

/* For an environment that names a program. */
static void helper_judge(const struct doctor *doctor, const struct helper_environment *environment,
                         struct finding *finding)
{
    char what[128];

    finding_remedy(finding, "%s", environment->put_right);
    snprintf(what, sizeof(what), HELPER_VARIABLE " of %s fails every migration", environment->who);
    if (helper_is_broken(doctor, what, environment->helper, finding))
        return;
    if (!helper_is_ours(doctor, environment->helper)) {
        finding_set(finding, FINDING_WARNING, HELPER_VARIABLE " of %s is %s, which is not p2mguard's", environment->who,
                    environment->helper);
        return;
    }
    snprintf(what, sizeof(what), HELPER_REAL " of %s fails every migration", environment->who);
    if (*environment->real && helper_is_broken(doctor, what, environment->real, finding)) {
        finding_remedy(finding, "unset it, or have it name libxl's own save helper");
        return;
    }
    if (*environment->policy && strcmp(environment->policy, "strict") != 0 &&
        strcmp(environment->policy, "permissive") != 0) {
        finding_set(finding, FINDING_FAILED, HELPER_POLICY " of %s is '%s': nothing is migrated", environment->who,
                    environment->policy);
        finding_remedy(finding, "set " HELPER_POLICY " to strict or permissive, or not at all");
        return;
    }
    finding_set(finding, FINDING_OK, HELPER_VARIABLE " of %s is p2mguard's", environment->who);
}

static void helper_copy(const char *value, char *to, size_t size)
{
    snprintf(to, size, "%s", value ? value : "");
}

void check_environment(struct doctor *doctor, struct finding *finding)
{
    struct helper_environment environment = {.who = "this shell"};

    helper_copy(getenv(HELPER_VARIABLE), environment.helper, sizeof(environment.helper));
    helper_copy(getenv(HELPER_REAL), environment.real, sizeof(environment.real));
    helper_copy(getenv(HELPER_POLICY), environment.policy, sizeof(environment.policy));
    snprintf(environment.put_right, sizeof(environment.put_right), "export " HELPER_VARIABLE "=%s",
             SAVE_HELPER_PROGRAM);
    if (*environment.helper)
        helper_judge(doctor, &environment, finding);
    else
        finding_set(finding, FINDING_OK,
                    "no " HELPER_VARIABLE " in this shell: xl's guests are held by p2mguardctl migrate");
}

/* ---- libvirt ---- */

/* Variables in a row, each with a NUL behind it. */
static void helper_find_variable(const char *from, size_t length, const char *name, char *value, size_t size)
{
    size_t wanted = strlen(name);

    value[0] = '\0';
    for (const char *at = from; at < from + length; at += strlen(at) + 1)
        if (strncmp(at, name, wanted) == 0 && at[wanted] == '=')
            helper_copy(at + wanted + 1, value, size);
}

/* 0 when the process's environment was read. */
static int helper_read_process(const struct doctor *doctor, const char *pid, struct helper_environment *environment)
{
    char path[64], *text = malloc(HELPER_ENVIRONMENT_MAX);

    if (!text)
        return -ENOMEM;
    snprintf(path, sizeof(path), "/proc/%.16s/environ", pid);
    ssize_t length = doctor_read(doctor, path, text, HELPER_ENVIRONMENT_MAX);
    if (length >= 0) {
        helper_find_variable(text, (size_t)length, HELPER_VARIABLE, environment->helper, sizeof(environment->helper));
        helper_find_variable(text, (size_t)length, HELPER_REAL, environment->real, sizeof(environment->real));
        helper_find_variable(text, (size_t)length, HELPER_POLICY, environment->policy, sizeof(environment->policy));
    }
    free(text);
    return length < 0 ? (int)length : 0;
}

static bool libvirt_is_it(const char *name)
{
    return strcmp(name, "libvirtd") == 0 || strcmp(name, "virtxend") == 0;
}

/* The one that saves guests of Xen, if it runs. */
static bool libvirt_find(const struct doctor *doctor, char pid[16], char name[16])
{
    char full[PATH_MAX], path[64];
    const struct dirent *entry;
    bool found = false;
    DIR *folder = opendir(doctor_path(doctor, "/proc", full));

    while (folder && !found && (entry = readdir(folder))) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof(path), "/proc/%.16s/comm", entry->d_name);
        if (doctor_read(doctor, path, name, 16) <= 0)
            continue;
        name[strcspn(name, "\n")] = '\0';
        found = libvirt_is_it(name);
        snprintf(pid, 16, "%.15s", entry->d_name);
    }
    if (folder)
        closedir(folder);
    return found;
}

/* libvirt's profile lets it start libxl's own helper and nothing else. Said so: true. */
static bool libvirt_is_confined(const struct doctor *doctor, const char *pid, const char *name, struct finding *finding)
{
    char path[64], text[4096];

    snprintf(path, sizeof(path), "/proc/%.16s/attr/current", pid);
    if (doctor_read(doctor, path, text, sizeof(text)) <= 0 || !strstr(text, "(enforce)"))
        return false;
    snprintf(path, sizeof(path), "/etc/apparmor.d/local/usr.sbin.%s", name);
    doctor_read(doctor, path, text, sizeof(text));
    if (strstr(text, SAVE_HELPER_PROGRAM))
        return false;
    finding_set(finding, FINDING_FAILED, "AppArmor's profile of %s does not let it start %s", name,
                SAVE_HELPER_PROGRAM);
    finding_remedy(finding,
                   "echo '%s PUx,' >>%s && apparmor_parser -r /etc/apparmor.d/usr.sbin.%s && systemctl restart %s",
                   SAVE_HELPER_PROGRAM, path, name, name);
    return true;
}

static void libvirt_put_right(const char *name, struct helper_environment *environment)
{
    snprintf(environment->put_right, sizeof(environment->put_right),
             "install -D -m 644 " EXAMPLES_FOLDER "/libvirtd-p2mguard.conf "
             "/etc/systemd/system/%s.service.d/p2mguard.conf && systemctl daemon-reload && systemctl restart %s",
             name, name);
}

static void libvirt_judge(const struct doctor *doctor, const struct helper_environment *environment,
                          struct finding *finding)
{
    if (*environment->helper) {
        helper_judge(doctor, environment, finding);
        return;
    }
    finding_set(finding, FINDING_WARNING, "%s has no " HELPER_VARIABLE ": guests that it migrates are not held",
                environment->who);
    finding_remedy(finding, "%s", environment->put_right);
}

/* One that runs no more, or is started when it is needed: its unit says what it will have. */
static void libvirt_check_unit(const struct doctor *doctor, struct finding *finding)
{
    static const char *const units[] = {"virtxend", "libvirtd"};
    struct helper_environment environment = {.who = ""};
    char text[8192], state[32], unit[64];

    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        snprintf(unit, sizeof(unit), "%s.service", units[i]);
        if (doctor_ask_systemd(doctor, unit, "LoadState,Environment", text, sizeof(text)) ||
            strcmp(doctor_property(text, "LoadState", state, sizeof(state)), "loaded") != 0)
            continue;
        snprintf(environment.who, sizeof(environment.who), "%s", unit);
        const char *at = strstr(text, HELPER_VARIABLE "=");
        if (at && sscanf(at, HELPER_VARIABLE "=%4000[^ \"\n]", environment.helper) != 1)
            environment.helper[0] = '\0';
        libvirt_put_right(units[i], &environment);
        libvirt_judge(doctor, &environment, finding);
        return;
    }
    finding_set(finding, FINDING_SKIPPED, "neither libvirtd nor virtxend is here");
}

void check_libvirt(struct doctor *doctor, struct finding *finding)
{
    struct helper_environment environment = {.who = ""};
    char pid[16], name[16];

    if (!libvirt_find(doctor, pid, name)) {
        libvirt_check_unit(doctor, finding);
        return;
    }
    snprintf(environment.who, sizeof(environment.who), "%s (process %s)", name, pid);
    libvirt_put_right(name, &environment);
    int error = helper_read_process(doctor, pid, &environment);
    if (error) {
        finding_set(finding, FINDING_SKIPPED, "%s: its environment cannot be read: %s", environment.who,
                    strerror(-error));
        return;
    }
    libvirt_judge(doctor, &environment, finding);
    if (finding->status == FINDING_OK)
        libvirt_is_confined(doctor, pid, name, finding);
}
