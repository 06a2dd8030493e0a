/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "daemon/log.h"

/* A balloon driver between two steps of its work looks as if it stood still. */
#define MEMORY_CALM_LOOKS 3

/* A mount is looked for again after it was taken away; somebody who puts it back all the time is let have his way. */
#define MEMORY_MOUNTS_MOST 16

/* ---- files ---- */

static int memory_path(char path[PATH_MAX], const char *folder, const char *name)
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int memory_read_word(const char *folder, const char *name, char *word, size_t size)
{
    char path[PATH_MAX];
    int error = memory_path(path, folder, name);

    if (error)
        return error;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, word, size - 1);
    error = length < 0 ? -errno : 0;
    close(fd);
    if (error)
        return error;
    word[length] = '\0';
    word[strcspn(word, " \t\n")] = '\0';
    return *word ? 0 : -EINVAL;
}

static int memory_read_kb(const struct memory *memory, const char *name, uint64_t *kb)
{
    char word[32], *end;
    int error = memory_read_word(memory->balloon, name, word, sizeof(word));

    if (error)
        return error;
    errno = 0;
    *kb = strtoull(word, &end, 10);
    return *end || errno ? -EINVAL : 0;
}

static int memory_write_fd(int fd, const char *text)
{
    size_t length = strlen(text);
    ssize_t written = pwrite(fd, text, length, 0);

    return written < 0 ? -errno : (size_t)written < length ? -EIO : 0;
}

static int memory_write_word(const char *folder, const char *name, const char *word)
{
    char path[PATH_MAX], text[64];
    int error = memory_path(path, folder, name);

    if (error)
        return error;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    snprintf(text, sizeof(text), "%s\n", word);
    error = memory_write_fd(fd, text);
    close(fd);
    return error;
}

static int memory_write_kb(int fd, uint64_t kb)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64 "\n", kb);
    return memory_write_fd(fd, text);
}

/* ---- mounts ---- */

/* In place: mountinfo writes blanks and the like as backslash and three octal digits. */
static void memory_unescape(char *text)
{
    char *to = text;

    for (; *text; text++) {
        if (text[0] == '\\' && strspn(text + 1, "01234567") >= 3) {
            *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    }
    *to = '\0';
}

static bool memory_is_mount_point(const char *folder)
{
    FILE *list = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t size = 0;
    bool found = false;

    if (!list)
        return false;
    while (!found && getline(&line, &size, list) > 0) {
        char *rest = line, *field = NULL;
        for (int i = 0; i < 5 && rest; i++)
            field = strsep(&rest, " ");
        if (!rest || !field)
            continue;
        memory_unescape(field);
        found = strcmp(field, folder) == 0;
    }
    free(line);
    fclose(list);
    return found;
}

/* Detached: whoever sits in the folder keeps the mount for himself, and everybody else is rid of it. */
static int memory_uncover(const char *folder)
{
    for (int i = 0; i < MEMORY_MOUNTS_MOST && memory_is_mount_point(folder); i++)
        if (umount2(folder, MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
            return -errno;
    return 0;
}

static int memory_cover(const char *folder)
{
    const unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (mount(folder, folder, NULL, MS_BIND, NULL) < 0)
        return -errno;
    if (mount(NULL, folder, NULL, flags, NULL) == 0)
        return 0;
    int error = -errno;
    int undone = memory_uncover(folder);
    if (undone)
        log_error("unmounting %s failed: %s", folder, strerror(-undone));
    return error;
}

/*
 * The journal says already that it is covered. Going on without the cover is better than not freezing at all: what is
 * written then is seen, and put back.
 */
static void memory_try_cover(const char *folder, bool *covered)
{
    int error = memory_cover(folder);

    if (!error)
        return;
    log_warning("%s cannot be made read-only (%s); others can write there while the guest is frozen", folder,
                strerror(-error));
    *covered = false;
}

/* ---- what there is ---- */

int memory_init(struct memory *memory, const char *sysfs, const char *run)
{
    char *real = realpath(sysfs, NULL);

    if (!real)
        return -errno;
    *memory = (struct memory){.run = run, .target_fd = -1};
    /* The mount table names real paths. */
    const char *root = strcmp(real, "/") == 0 ? "" : real;
    int error = memory_path(memory->balloon, root, "devices/system/xen_memory/xen_memory0");
    if (!error)
        error = memory_path(memory->hotplug, root, "devices/system/memory");
    free(real);
    return error;
}

static bool memory_has(const char *folder, const char *name)
{
    char path[PATH_MAX];

    return memory_path(path, folder, name) == 0 && access(path, F_OK) == 0;
}

bool memory_has_balloon(const struct memory *memory)
{
    return memory_has(memory->balloon, "target_kb");
}

bool memory_has_hotplug(const struct memory *memory)
{
    return memory_has(memory->hotplug, "auto_online_blocks");
}

uint64_t memory_size_kb(const struct memory *memory)
{
    return memory->last_kb;
}

/* ---- holding ---- */

static int memory_set_target(struct memory *memory, struct undo *undo, uint64_t kb)
{
    if (undo->wrote_kb != kb) {
        undo->before_kb = undo->wrote_kb;
        undo->wrote_kb = kb;
        int error = undo_save(memory->run, undo);
        if (error)
            return error;
    }
    return memory_write_kb(memory->target_fd, kb);
}

static int memory_open_target(struct memory *memory)
{
    char path[PATH_MAX];
    int error = memory_path(path, memory->balloon, "target_kb");

    if (error)
        return error;
    if (memory->target_fd >= 0)
        close(memory->target_fd);
    memory->target_fd = open(path, O_WRONLY | O_CLOEXEC);
    return memory->target_fd < 0 ? -errno : 0;
}

int memory_hold_balloon(struct memory *memory, struct undo *undo)
{
    uint64_t current_kb, target_kb;

    memory->calm = 0;
    if (!memory_has_balloon(memory))
        return 0;
    int error = memory_open_target(memory);
    if (!error)
        error = memory_read_kb(memory, "target_kb", &target_kb);
    if (!error)
        error = memory_read_kb(memory, "info/current_kb", &current_kb);
    if (error)
        return error;
    memory->calm = target_kb == current_kb; /* that was a look as well */
    undo->balloon = undo->balloon_covered = true;
    undo->target_kb = undo->before_kb = target_kb;
    undo->wrote_kb = memory->last_kb = current_kb;
    error = undo_save(memory->run, undo);
    if (error)
        return error;
    memory_try_cover(memory->balloon, &undo->balloon_covered);
    return memory_write_kb(memory->target_fd, current_kb);
}

int memory_hold_hotplug(struct memory *memory, struct undo *undo)
{
    if (undo->hotplug || !memory_has_hotplug(memory))
        return 0;
    int error = memory_read_word(memory->hotplug, "auto_online_blocks", undo->online, sizeof(undo->online));
    if (error)
        return error;
    undo->hotplug = undo->hotplug_covered = true;
    error = undo_save(memory->run, undo);
    if (!error)
        error = memory_write_word(memory->hotplug, "auto_online_blocks", "offline");
    if (!error)
        memory_try_cover(memory->hotplug, &undo->hotplug_covered);
    return error;
}

int memory_settle(struct memory *memory, struct undo *undo)
{
    uint64_t current_kb, target_kb, before_kb = memory->last_kb;

    if (!undo->balloon)
        return ++memory->calm >= MEMORY_CALM_LOOKS ? MEMORY_STILL : MEMORY_MOVING;
    int error = memory_read_kb(memory, "target_kb", &target_kb);
    if (!error)
        error = memory_read_kb(memory, "info/current_kb", &current_kb);
    if (error)
        return error;
    memory->last_kb = current_kb;
    if (target_kb != undo->wrote_kb) {
        memory->calm = 0;
        return MEMORY_DISTURBED;
    }
    if (current_kb == target_kb)
        return ++memory->calm >= MEMORY_CALM_LOOKS ? MEMORY_STILL : MEMORY_MOVING;
    memory->calm = 0;
    /* Stuck away from our target: a size that it cannot leave is the size to stay at. */
    if (current_kb == before_kb)
        error = memory_set_target(memory, undo, current_kb);
    return error ? error : MEMORY_MOVING;
}

int memory_look(struct memory *memory, const struct undo *undo)
{
    uint64_t target_kb;

    if (!undo->balloon)
        return MEMORY_STILL;
    int error = memory_read_kb(memory, "target_kb", &target_kb);
    if (!error)
        error = memory_read_kb(memory, "info/current_kb", &memory->last_kb);
    if (error)
        return error;
    return target_kb == undo->wrote_kb && memory->last_kb == undo->wrote_kb ? MEMORY_STILL : MEMORY_DISTURBED;
}

int memory_put_back(struct memory *memory, struct undo *undo)
{
    uint64_t target_kb;

    memory->calm = 0;
    if (!undo->balloon)
        return 0;
    int error = memory_read_kb(memory, "target_kb", &target_kb);
    if (error || target_kb == undo->wrote_kb)
        return error;
    log_notice("somebody has set the target to %" PRIu64 " KiB; it stays at %" PRIu64 " KiB until the guest is thawed",
               target_kb, undo->wrote_kb);
    undo->has_wanted = true;
    undo->wanted_kb = target_kb;
    error = undo_save(memory->run, undo);
    return error ? error : memory_write_kb(memory->target_fd, undo->wrote_kb);
}

/* ---- releasing ---- */

static void memory_report(const char *what, int error)
{
    if (error)
        log_error("putting back %s failed: %s", what, strerror(-error));
}

static void memory_strike(struct memory *memory, const struct undo *undo)
{
    memory_report("the journal's state", undo_save(memory->run, undo));
}

static int memory_restore_target(struct memory *memory, const struct undo *undo)
{
    uint64_t target_kb;
    uint64_t goal_kb = undo->has_wanted ? undo->wanted_kb : undo->target_kb;

    int error = memory_read_kb(memory, "target_kb", &target_kb);
    if (error)
        return error;
    /* Neither of what we wrote: somebody, most often the kernel from xenstore, has set a newer one. */
    if (target_kb != undo->wrote_kb && target_kb != undo->before_kb)
        return 0;
    if (target_kb == goal_kb)
        return 0;
    error = memory_open_target(memory);
    return error ? error : memory_write_kb(memory->target_fd, goal_kb);
}

void memory_release_balloon(struct memory *memory, struct undo *undo, bool here)
{
    if (!undo->balloon && !undo->balloon_covered)
        return;
    if (undo->balloon_covered)
        memory_report("the balloon driver's folder", memory_uncover(memory->balloon));
    if (undo->balloon && here && memory_has_balloon(memory))
        memory_report("the balloon driver's target", memory_restore_target(memory, undo));
    if (memory->target_fd >= 0)
        close(memory->target_fd);
    memory->target_fd = -1;
    undo->balloon = undo->balloon_covered = undo->has_wanted = false;
    memory_strike(memory, undo);
}

void memory_release_hotplug(struct memory *memory, struct undo *undo)
{
    char word[UNDO_ONLINE];

    if (!undo->hotplug && !undo->hotplug_covered)
        return;
    if (undo->hotplug_covered)
        memory_report("the memory blocks' folder", memory_uncover(memory->hotplug));
    if (undo->hotplug && memory_has_hotplug(memory)) {
        int error = memory_read_word(memory->hotplug, "auto_online_blocks", word, sizeof(word));
        /* Where the folder was not covered somebody may have chosen anew; what cannot be read nobody has. */
        if (error || (strcmp(word, "offline") == 0 && strcmp(undo->online, word) != 0))
            error = memory_write_word(memory->hotplug, "auto_online_blocks", undo->online);
        memory_report("auto_online_blocks", error);
    }
    undo->hotplug = undo->hotplug_covered = false;
    memory_strike(memory, undo);
}
