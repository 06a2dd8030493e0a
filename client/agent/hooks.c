/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/hooks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/timer.h"

/* From SIGTERM to SIGKILL, and from there until a hook that even that does not end is left to itself. */
#define HOOKS_KILL_MS 1000

/* What is being done to the hook that runs. */
enum hooks_pressure { PRESSURE_NONE, PRESSURE_TERM, PRESSURE_KILL };

struct hooks {
    struct hooks_settings settings;
    struct event *child, *timer;
    struct undo *undo;
    bool thawing;
    char names[UNDO_HOOKS][UNDO_HOOK_NAME]; /* of this freeze, in order */
    int count, next;

    pid_t pid; /* of the hook that runs, 0 = none */
    char running[UNDO_HOOK_NAME];
    enum hooks_pressure pressure;
    bool interrupted; /* by a thaw, not by its limit */
};

static void hooks_go_on(struct hooks *hooks);

/* ---- the folder ---- */

static bool hooks_is_ours(const struct stat *status)
{
    return (status->st_uid == 0 || status->st_uid == geteuid()) && !(status->st_mode & (S_IWGRP | S_IWOTH));
}

static bool hooks_may_run(int folder, const char *name)
{
    struct stat status;

    if (fstatat(folder, name, &status, 0) < 0 || !S_ISREG(status.st_mode) || !(status.st_mode & S_IXUSR))
        return false;
    if (!hooks_is_ours(&status)) {
        log_warning("hook %s is ignored: it belongs to another user, or others may write to it", name);
        return false;
    }
    return true;
}

static int hooks_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int hooks_collect(struct hooks *hooks, DIR *folder)
{
    struct dirent *entry;

    while ((entry = readdir(folder))) {
        if (!undo_is_hook_name(entry->d_name) || !hooks_may_run(dirfd(folder), entry->d_name))
            continue;
        if (hooks->count == UNDO_HOOKS)
            return -E2BIG;
        strcpy(hooks->names[hooks->count++], entry->d_name);
    }
    return 0;
}

static int hooks_list(struct hooks *hooks)
{
    struct stat status;

    hooks->count = 0;
    DIR *folder = opendir(hooks->settings.folder);
    if (!folder)
        return errno == ENOENT ? 0 : -errno;
    int error = 0;
    if (fstat(dirfd(folder), &status) < 0 || !hooks_is_ours(&status))
        log_warning("%s is ignored: it belongs to another user, or others may write to it", hooks->settings.folder);
    else
        error = hooks_collect(hooks, folder);
    closedir(folder);
    if (!error)
        qsort(hooks->names, (size_t)hooks->count, sizeof(hooks->names[0]), hooks_compare);
    return error;
}

bool hooks_available(const struct hooks *hooks)
{
    return access(hooks->settings.folder, X_OK) == 0;
}

/* ---- one hook ---- */

/* The environment as it is, and the SEQ; the caller frees the list. */
static char **hooks_environment(char *seq)
{
    size_t count = 0;

    while (environ[count])
        count++;
    char **list = calloc(count + 2, sizeof(*list));
    if (!list)
        return NULL;
    memcpy(list, environ, count * sizeof(*list));
    list[count] = seq;
    return list;
}

/* What this process ignores is not to be ignored there, and what its threads block not to be blocked. */
static int hooks_set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none, defaults;

    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGHUP);
    int error =
        posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    if (!error)
        error = posix_spawnattr_setsigmask(attributes, &none);
    return error ? error : posix_spawnattr_setsigdefault(attributes, &defaults);
}

static int hooks_spawn(struct hooks *hooks, const char *name)
{
    char path[PATH_MAX], seq[40], verb[8];
    char *arguments[] = {path, verb, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;

    if (snprintf(path, sizeof(path), "%s/%s", hooks->settings.folder, name) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    snprintf(verb, sizeof(verb), "%s", hooks->thawing ? "thaw" : "freeze");
    snprintf(seq, sizeof(seq), "P2MGUARD_SEQ=%" PRIu32, hooks->undo->seq);
    char **environment = hooks_environment(seq);
    if (!environment)
        return -ENOMEM;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        goto out_environment;
    error = posix_spawnattr_init(&attributes);
    if (error)
        goto out_actions;
    error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = hooks_set_attributes(&attributes);
    if (!error)
        error = posix_spawn(&hooks->pid, path, &actions, &attributes, arguments, environment);
    if (!error && setpriority(PRIO_PROCESS, (id_t)hooks->pid, 0) < 0)
        log_debug("hook %s keeps the agent's priority: %s", arguments[0], strerror(errno));
    posix_spawnattr_destroy(&attributes);
out_actions:
    posix_spawn_file_actions_destroy(&actions);
out_environment:
    free(environment);
    if (error)
        hooks->pid = 0;
    return -error;
}

static int hooks_start(struct hooks *hooks, const char *name)
{
    log_info("hook %s: %s", name, hooks->thawing ? "thaw" : "freeze");
    strcpy(hooks->running, name);
    hooks->pressure = PRESSURE_NONE;
    hooks->interrupted = false;
    int error = hooks_spawn(hooks, name);
    if (!error)
        timer_arm(hooks->timer, hooks->settings.limit_ms);
    return error;
}

static void hooks_press(struct hooks *hooks)
{
    static const int signals[] = {[PRESSURE_NONE] = SIGTERM, [PRESSURE_TERM] = SIGKILL};

    /* The group is gone when this fails, and its leader's end on the way to us. */
    if (kill(-hooks->pid, signals[hooks->pressure]) < 0 && errno != ESRCH)
        log_warning("hook %s cannot be killed: %s", hooks->running, strerror(errno));
    hooks->pressure++;
    timer_arm(hooks->timer, HOOKS_KILL_MS);
}

/* ---- all of them ---- */

static void hooks_finish(struct hooks *hooks, const char *why)
{
    hooks->undo = NULL;
    hooks->settings.done(hooks->settings.context, why);
}

static void hooks_start_thawing(struct hooks *hooks)
{
    hooks->thawing = true;
    hooks_go_on(hooks);
}

static void hooks_strike(struct hooks *hooks)
{
    hooks->undo->hook_count--;
    int error = undo_save(hooks->settings.run, hooks->undo);
    if (error)
        log_error("writing the journal failed: %s", strerror(-error));
}

/* One hook has ended, well when `why` is empty. */
static void hooks_ended(struct hooks *hooks, const char *why)
{
    bool interrupted = hooks->interrupted;

    event_del(hooks->timer);
    hooks->pid = 0;
    if (hooks->thawing) {
        if (*why)
            log_warning("%s (on thaw)", why);
        hooks_strike(hooks);
        hooks_go_on(hooks);
    } else if (interrupted) {
        hooks_start_thawing(hooks);
    } else if (*why) {
        hooks_finish(hooks, why);
    } else {
        hooks_go_on(hooks);
    }
}

static int hooks_note(struct hooks *hooks, const char *name)
{
    struct undo *undo = hooks->undo;

    if (undo->hook_count == UNDO_HOOKS)
        return -E2BIG;
    strcpy(undo->hooks[undo->hook_count++], name);
    return undo_save(hooks->settings.run, undo);
}

static void hooks_go_on(struct hooks *hooks)
{
    char why[HOOKS_WHY_MAX];
    const char *name;
    int error = 0;

    if (hooks->thawing ? hooks->undo->hook_count == 0 : hooks->next == hooks->count) {
        hooks_finish(hooks, NULL);
        return;
    }
    if (hooks->thawing) {
        name = hooks->undo->hooks[hooks->undo->hook_count - 1];
    } else {
        name = hooks->names[hooks->next++];
        error = hooks_note(hooks, name);
    }
    if (!error)
        error = hooks_start(hooks, name);
    if (!error)
        return;
    snprintf(why, sizeof(why), "hook %s: %s", name, strerror(-error));
    hooks_ended(hooks, why);
}

static void hooks_describe(const struct hooks *hooks, int status, char why[HOOKS_WHY_MAX])
{
    *why = '\0';
    if (hooks->pressure != PRESSURE_NONE && !hooks->interrupted)
        snprintf(why, HOOKS_WHY_MAX, "hook %s: no end within %lld s", hooks->running,
                 (long long)hooks->settings.limit_ms / 1000);
    else if (WIFSIGNALED(status))
        snprintf(why, HOOKS_WHY_MAX, "hook %s: killed by signal %d", hooks->running, WTERMSIG(status));
    else if (WIFEXITED(status) && WEXITSTATUS(status))
        snprintf(why, HOOKS_WHY_MAX, "hook %s: exit status %d", hooks->running, WEXITSTATUS(status));
}

static void hooks_on_child(evutil_socket_t fd, short what, void *context)
{
    struct hooks *hooks = context;
    char why[HOOKS_WHY_MAX];
    int status;
    pid_t pid;
    (void)fd, (void)what;

    /* All of them: one that was left to itself ends some day, too. */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid != hooks->pid)
            continue;
        /* What it left behind in its group was told to end, too. */
        if (hooks->pressure != PRESSURE_NONE && kill(-pid, SIGKILL) < 0 && errno != ESRCH)
            log_warning("hook %s cannot be killed: %s", hooks->running, strerror(errno));
        hooks_describe(hooks, status, why);
        hooks_ended(hooks, why);
    }
}

static void hooks_on_timer(evutil_socket_t fd, short what, void *context)
{
    struct hooks *hooks = context;
    char why[HOOKS_WHY_MAX];
    (void)fd, (void)what;

    if (!hooks->undo)
        return;
    if (!hooks->pid) {
        hooks_go_on(hooks);
    } else if (hooks->pressure != PRESSURE_KILL) {
        hooks_press(hooks);
    } else {
        hooks_describe(hooks, 0, why);
        log_error("hook %s does not end and is left to itself", hooks->running);
        hooks_ended(hooks, why);
    }
}

/* ---- from outside ---- */

/* A turn of the loop later, so that `done` is not called from inside the call that asks for it. */
static void hooks_begin(struct hooks *hooks, struct undo *undo, bool thawing)
{
    hooks->undo = undo;
    hooks->thawing = thawing;
    timer_arm(hooks->timer, 0);
}

int hooks_freeze(struct hooks *hooks, struct undo *undo)
{
    int error = hooks_list(hooks);

    if (error || hooks->count == 0)
        return error;
    hooks->next = 0;
    hooks_begin(hooks, undo, false);
    return hooks->count;
}

bool hooks_thaw(struct hooks *hooks, struct undo *undo)
{
    if (undo->hook_count == 0 && !hooks->pid) {
        event_del(hooks->timer);
        return false;
    }
    if (!hooks->pid) {
        hooks_begin(hooks, undo, true);
    } else if (!hooks->interrupted) {
        hooks->interrupted = true;
        if (hooks->pressure == PRESSURE_NONE)
            hooks_press(hooks);
    }
    return true;
}

int hooks_new(struct hooks **result, struct event_base *base, const struct hooks_settings *settings)
{
    struct hooks *hooks = calloc(1, sizeof(*hooks));

    if (!hooks)
        return -ENOMEM;
    hooks->settings = *settings;
    hooks->child = evsignal_new(base, SIGCHLD, hooks_on_child, hooks);
    hooks->timer = evtimer_new(base, hooks_on_timer, hooks);
    if (!hooks->child || !hooks->timer || event_add(hooks->child, NULL) < 0) {
        hooks_free(hooks);
        return -ENOMEM;
    }
    *result = hooks;
    return 0;
}

void hooks_free(struct hooks *hooks)
{
    if (!hooks)
        return;
    timer_free(hooks->child);
    timer_free(hooks->timer);
    free(hooks);
}
