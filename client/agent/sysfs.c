/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "client/agent/number.h"
#include "daemon/log.h"

/* A mount is looked for again after it was taken away; somebody who puts it back all the time is let have his way. */
#define SYSFS_MOUNTS_MOST 16

#define SYSFS_ERRNO_MOST 4095

static const char *const sysfs_names[] = {[SYSFS_BALLOON] = "balloon", [SYSFS_HOTPLUG] = "hotplug"};

const char *sysfs_folder_name(enum sysfs_folder folder)
{
    return sysfs_names[folder];
}

/* ---- files ---- */

int sysfs_path(char path[PATH_MAX], const char *folder, const char *name)
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int sysfs_init(struct sysfs *sysfs, const char *root)
{
    char *real = realpath(root, NULL);

    sysfs->target_fd = -1;
    if (!real)
        return -errno;
    /* The mount table names real paths. */
    const char *start = strcmp(real, "/") == 0 ? "" : real;
    int error = sysfs_path(sysfs->folders[SYSFS_BALLOON], start, "devices/system/xen_memory/xen_memory0");
    if (!error)
        error = sysfs_path(sysfs->folders[SYSFS_HOTPLUG], start, "devices/system/memory");
    free(real);
    return error;
}

static int sysfs_open(const struct sysfs *sysfs, enum sysfs_folder folder, const char *name)
{
    char path[PATH_MAX];
    int error = sysfs_path(path, sysfs->folders[folder], name);

    if (error)
        return error;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int sysfs_write(int fd, const char *text)
{
    size_t length = strlen(text);
    ssize_t written = pwrite(fd, text, length, 0);

    return written < 0 ? -errno : (size_t)written < length ? -EIO : 0;
}

static int sysfs_set_online(const struct sysfs *sysfs, const char *word)
{
    char text[SYSFS_WORD_MAX + 1];
    int fd = sysfs_open(sysfs, SYSFS_HOTPLUG, "auto_online_blocks");

    if (fd < 0)
        return fd;
    snprintf(text, sizeof(text), "%s\n", word);
    int error = sysfs_write(fd, text);
    close(fd);
    return error;
}

static void sysfs_close_target(struct sysfs *sysfs)
{
    if (sysfs->target_fd >= 0)
        close(sysfs->target_fd);
    sysfs->target_fd = -1;
}

static int sysfs_set_target(const struct sysfs *sysfs, uint64_t kb)
{
    char text[32];
    bool is_open = sysfs->target_fd >= 0;
    int fd = is_open ? sysfs->target_fd : sysfs_open(sysfs, SYSFS_BALLOON, "target_kb");

    if (fd < 0)
        return fd;
    snprintf(text, sizeof(text), "%" PRIu64 "\n", kb);
    int error = sysfs_write(fd, text);
    if (!is_open)
        close(fd);
    return error;
}

/* ---- mounts ---- */

/* In place: mountinfo writes blanks and the like as backslash and three octal digits. */
static void sysfs_unescape(char *text)
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

/* The mount's number, or -ENOENT when there is none at `folder`; the last one counts, which lies on top. */
static int sysfs_find_mount(const char *mounts, const char *folder)
{
    FILE *list = fopen(mounts, "re");
    char *line = NULL;
    size_t size = 0;
    int found = -ENOENT;

    if (!list)
        return -errno;
    while (getline(&line, &size, list) > 0) {
        char *rest = line, *field = NULL;
        for (int i = 0; i < 5 && rest; i++)
            field = strsep(&rest, " ");
        if (!rest || !field)
            continue;
        sysfs_unescape(field);
        if (strcmp(field, folder) == 0)
            found = (int)strtol(line, NULL, 10);
    }
    free(line);
    fclose(list);
    return found;
}

/* Where that cannot be found out, trying will tell. */
static bool sysfs_may_be_mount_point(const char *folder)
{
    return sysfs_find_mount("/proc/self/mountinfo", folder) != -ENOENT;
}

/* A copy of a mount in another namespace has another number, and / is mounted in each. */
bool sysfs_is_apart_from(long pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%ld/mountinfo", pid);
    int here = sysfs_find_mount("/proc/self/mountinfo", "/"), there = sysfs_find_mount(path, "/");
    if (here >= 0 && there >= 0)
        return here != there;
    log_warning("whether process %ld sees my mounts cannot be found out: %s", pid, strerror(here < 0 ? -here : -there));
    return false;
}

/*
 * Detached: whoever sits in the folder keeps the mount for himself, and everybody else is rid of it. EINVAL is looked
 * at again: somebody else may just have done the same.
 */
static int sysfs_unmount(const char *folder)
{
    for (int i = 0; i < SYSFS_MOUNTS_MOST && sysfs_may_be_mount_point(folder); i++)
        if (umount2(folder, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL)
            return -errno;
    return 0;
}

static int sysfs_mount(const char *folder)
{
    const unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (mount(folder, folder, NULL, MS_BIND, NULL) < 0)
        return -errno;
    if (mount(NULL, folder, NULL, flags, NULL) == 0)
        return 0;
    int error = -errno;
    int undone = sysfs_unmount(folder);
    if (undone)
        log_error("unmounting %s failed: %s", folder, strerror(-undone));
    return error;
}

static int sysfs_cover(struct sysfs *sysfs, enum sysfs_folder folder)
{
    if (folder == SYSFS_BALLOON) {
        sysfs_close_target(sysfs);
        int fd = sysfs_open(sysfs, folder, "target_kb");
        if (fd < 0)
            return fd;
        sysfs->target_fd = fd;
    }
    return sysfs_mount(sysfs->folders[folder]);
}

static int sysfs_uncover(struct sysfs *sysfs, enum sysfs_folder folder)
{
    if (folder == SYSFS_BALLOON)
        sysfs_close_target(sysfs);
    return sysfs_unmount(sysfs->folders[folder]);
}

int sysfs_do(struct sysfs *sysfs, const struct sysfs_request *request)
{
    switch (request->verb) {
    case SYSFS_READY:
        return 0;
    case SYSFS_COVER:
        return sysfs_cover(sysfs, request->folder);
    case SYSFS_UNCOVER:
        return sysfs_uncover(sysfs, request->folder);
    case SYSFS_TARGET:
        return sysfs_set_target(sysfs, request->kb);
    case SYSFS_ONLINE:
        return sysfs_set_online(sysfs, request->word);
    case SYSFS_VERB_COUNT:
        break;
    }
    return -EINVAL;
}

/* ---- text ---- */

int sysfs_request_format(const struct sysfs_request *request, char text[SYSFS_TEXT_MAX])
{
    switch (request->verb) {
    case SYSFS_COVER:
        return snprintf(text, SYSFS_TEXT_MAX, "cover %s", sysfs_names[request->folder]);
    case SYSFS_UNCOVER:
        return snprintf(text, SYSFS_TEXT_MAX, "uncover %s", sysfs_names[request->folder]);
    case SYSFS_TARGET:
        return snprintf(text, SYSFS_TEXT_MAX, "target %" PRIu64, request->kb);
    case SYSFS_ONLINE:
        return snprintf(text, SYSFS_TEXT_MAX, "online %s", request->word);
    case SYSFS_READY:
    case SYSFS_VERB_COUNT:
        break;
    }
    return snprintf(text, SYSFS_TEXT_MAX, "ready");
}

static int sysfs_take_folder(const char *name, enum sysfs_verb verb, struct sysfs_request *request)
{
    for (int i = 0; i < SYSFS_FOLDER_COUNT; i++) {
        if (strcmp(name, sysfs_names[i]) == 0) {
            *request = (struct sysfs_request){.verb = verb, .folder = (enum sysfs_folder)i};
            return 0;
        }
    }
    return -EINVAL;
}

/* The kernel knows which words there are; this one only what none of them looks like. */
static int sysfs_take_word(const char *word, struct sysfs_request *request)
{
    size_t length = strlen(word);

    if (length == 0 || length >= SYSFS_WORD_MAX || strspn(word, "abcdefghijklmnopqrstuvwxyz_") < length)
        return -EINVAL;
    *request = (struct sysfs_request){.verb = SYSFS_ONLINE, .folder = SYSFS_HOTPLUG};
    memcpy(request->word, word, length + 1);
    return 0;
}

static int sysfs_take_target(const char *digits, struct sysfs_request *request)
{
    uint64_t kb;

    if (number_parse(digits, UINT64_MAX, &kb))
        return -EINVAL;
    *request = (struct sysfs_request){.verb = SYSFS_TARGET, .folder = SYSFS_BALLOON, .kb = kb};
    return 0;
}

/* What a string can be made of: no terminator inside, and room for one. */
static int sysfs_take_text(const char *text, size_t length, char copy[SYSFS_TEXT_MAX])
{
    if (length >= SYSFS_TEXT_MAX || memchr(text, '\0', length))
        return -EINVAL;
    memcpy(copy, text, length);
    copy[length] = '\0';
    return 0;
}

int sysfs_request_parse(const char *text, size_t length, struct sysfs_request *request)
{
    char verb[SYSFS_TEXT_MAX];

    if (sysfs_take_text(text, length, verb))
        return -EINVAL;
    if (strcmp(verb, "ready") == 0) {
        *request = (struct sysfs_request){.verb = SYSFS_READY};
        return 0;
    }
    char *blank = strchr(verb, ' ');
    if (!blank)
        return -EINVAL;
    *blank = '\0';
    const char *rest = blank + 1;
    if (strcmp(verb, "cover") == 0)
        return sysfs_take_folder(rest, SYSFS_COVER, request);
    if (strcmp(verb, "uncover") == 0)
        return sysfs_take_folder(rest, SYSFS_UNCOVER, request);
    if (strcmp(verb, "target") == 0)
        return sysfs_take_target(rest, request);
    if (strcmp(verb, "online") == 0)
        return sysfs_take_word(rest, request);
    return -EINVAL;
}

int sysfs_answer_format(int outcome, char text[SYSFS_TEXT_MAX])
{
    return outcome ? snprintf(text, SYSFS_TEXT_MAX, "failed %d", -outcome) : snprintf(text, SYSFS_TEXT_MAX, "done");
}

int sysfs_answer_parse(const char *text, size_t length, int *outcome)
{
    static const char failed[] = "failed ";
    char copy[SYSFS_TEXT_MAX];
    uint64_t number = 0;

    if (sysfs_take_text(text, length, copy))
        return -EINVAL;
    if (strcmp(copy, "done") == 0) {
        *outcome = 0;
        return 0;
    }
    if (strncmp(copy, failed, strlen(failed)) != 0 || number_parse(copy + strlen(failed), SYSFS_ERRNO_MOST, &number) ||
        number == 0)
        return -EINVAL;
    *outcome = -(int)number;
    return 0;
}
