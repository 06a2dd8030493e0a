/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/undo.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/number.h"
#include "daemon/log.h"

#define UNDO_FORMAT "p2mguard-agent-undo 1"

/* ---- text ---- */

bool undo_is_hook_name(const char *name)
{
    size_t length = strlen(name);

    return length > 0 && length < UNDO_HOOK_NAME &&
           strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") == length;
}

struct undo_writer {
    char *text;
    size_t size, used;
    bool full;
};

static void undo_put(struct undo_writer *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void undo_put(struct undo_writer *to, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int length = vsnprintf(to->text + to->used, to->size - to->used, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= to->size - to->used)
        to->full = true;
    else
        to->used += (size_t)length;
}

int undo_encode(const struct undo *undo, char *text, size_t size)
{
    struct undo_writer to = {.text = text, .size = size};

    undo_put(&to, UNDO_FORMAT "\nboot %s\nseq %" PRIu32 "\n", undo->boot, undo->seq);
    if (*undo->domid)
        undo_put(&to, "domid %s\n", undo->domid);
    if (undo->balloon)
        undo_put(&to, "target %" PRIu64 "\nwrote %" PRIu64 "\nbefore %" PRIu64 "\n", undo->target_kb, undo->wrote_kb,
                 undo->before_kb);
    if (undo->has_wanted)
        undo_put(&to, "wanted %" PRIu64 "\n", undo->wanted_kb);
    if (undo->balloon_covered)
        undo_put(&to, "covered balloon\n");
    if (undo->hotplug)
        undo_put(&to, "online %s\n", undo->online);
    if (undo->hotplug_covered)
        undo_put(&to, "covered hotplug\n");
    for (unsigned i = 0; i < undo->hook_count; i++)
        undo_put(&to, "hook %s\n", undo->hooks[i]);
    undo_put(&to, "end\n");
    return to.full ? -EMSGSIZE : (int)to.used;
}

static int undo_word(const char *word, char *to, size_t size)
{
    if (!*word || strlen(word) >= size || strpbrk(word, " \t\r"))
        return -EINVAL;
    strcpy(to, word);
    return 0;
}

static int undo_take_covered(struct undo *undo, const char *what)
{
    if (strcmp(what, "balloon") == 0)
        undo->balloon_covered = true;
    else if (strcmp(what, "hotplug") == 0)
        undo->hotplug_covered = true;
    else
        return -EINVAL;
    return 0;
}

static int undo_take_hook(struct undo *undo, const char *name)
{
    if (undo->hook_count == UNDO_HOOKS || !undo_is_hook_name(name))
        return -EINVAL;
    strcpy(undo->hooks[undo->hook_count++], name);
    return 0;
}

static int undo_take(struct undo *undo, const char *key, const char *value)
{
    uint64_t seq;
    int error;

    if (strcmp(key, "boot") == 0)
        return undo_word(value, undo->boot, sizeof(undo->boot));
    if (strcmp(key, "domid") == 0)
        return undo_word(value, undo->domid, sizeof(undo->domid));
    if (strcmp(key, "target") == 0) {
        undo->balloon = true;
        return number_parse(value, UINT64_MAX, &undo->target_kb);
    }
    if (strcmp(key, "wrote") == 0)
        return number_parse(value, UINT64_MAX, &undo->wrote_kb);
    if (strcmp(key, "before") == 0)
        return number_parse(value, UINT64_MAX, &undo->before_kb);
    if (strcmp(key, "wanted") == 0) {
        undo->has_wanted = true;
        return number_parse(value, UINT64_MAX, &undo->wanted_kb);
    }
    if (strcmp(key, "online") == 0) {
        undo->hotplug = true;
        return undo_word(value, undo->online, sizeof(undo->online));
    }
    if (strcmp(key, "covered") == 0)
        return undo_take_covered(undo, value);
    if (strcmp(key, "hook") == 0)
        return undo_take_hook(undo, value);
    if (strcmp(key, "seq") == 0) {
        error = number_parse(value, UINT32_MAX, &seq);
        if (!error)
            undo->seq = (uint32_t)seq;
        return error;
    }
    return -EINVAL;
}

int undo_decode(const char *text, size_t length, struct undo *undo)
{
    struct undo result = {.seq = 0};
    const char *end = text + length;
    bool ended = false, first = true;

    while (text < end && !ended) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        char line[UNDO_HOOK_NAME + 64];
        size_t size = stop ? (size_t)(stop - text) : 0;

        if (!stop || size >= sizeof(line) || memchr(text, '\0', size))
            return -EINVAL;
        memcpy(line, text, size);
        line[size] = '\0';
        text = stop + 1;
        ended = strcmp(line, "end") == 0;
        if (first) {
            if (strcmp(line, UNDO_FORMAT) != 0)
                return -EINVAL;
            first = false;
        } else if (!ended) {
            char *blank = strchr(line, ' ');
            if (!blank)
                return -EINVAL;
            *blank = '\0';
            if (undo_take(&result, line, blank + 1))
                return -EINVAL;
        }
    }
    if (!ended || text != end || !*result.boot)
        return -EINVAL;
    *undo = result;
    return 0;
}

/* ---- the file ---- */

static void undo_read_boot(char boot[UNDO_BOOT])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, boot, UNDO_BOOT - 1) : -1;

    boot[length > 0 ? length : 0] = '\0';
    boot[strcspn(boot, "\n")] = '\0';
    if (!*boot)
        strcpy(boot, "unknown");
    if (fd >= 0)
        close(fd);
}

void undo_init(struct undo *undo)
{
    memset(undo, 0, sizeof(*undo));
    undo_read_boot(undo->boot);
}

static int undo_path(const char *folder, const char *name, char path[PATH_MAX])
{
    return snprintf(path, PATH_MAX, "%s/%s", folder, name) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int undo_write_file(const char *path, const char *text, size_t length)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return -errno;
    ssize_t written = write(fd, text, length);
    int error = written < 0 ? -errno : (size_t)written < length ? -ENOSPC : 0;
    if (close(fd) < 0 && !error)
        error = -errno;
    return error;
}

int undo_save(const char *folder, const struct undo *undo)
{
    static char text[UNDO_TEXT_MAX];
    static char path[PATH_MAX], temporary[PATH_MAX];

    int length = undo_encode(undo, text, sizeof(text));
    if (length < 0)
        return length;
    int error = undo_path(folder, "undo", path);
    if (!error)
        error = undo_path(folder, "undo.new", temporary);
    if (!error)
        error = undo_write_file(temporary, text, (size_t)length);
    if (!error && rename(temporary, path) < 0)
        error = -errno;
    return error;
}

static int undo_read_file(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

    if (fd < 0)
        return -errno;
    ssize_t length = read(fd, text, size);
    int error = length < 0 ? -errno : 0;
    close(fd);
    return error ? error : (int)length;
}

int undo_load(const char *folder, struct undo *undo)
{
    static char text[UNDO_TEXT_MAX];
    static char path[PATH_MAX];
    struct undo now;

    int length = undo_path(folder, "undo", path);
    if (!length)
        length = undo_read_file(path, text, sizeof(text));
    if (length < 0)
        return length;
    undo_init(&now);
    if (undo_decode(text, (size_t)length, undo)) {
        log_error("%s is no journal of mine; only mounts can be undone", path);
        *undo = now;
        undo->balloon_covered = undo->hotplug_covered = true;
    } else if (strcmp(undo->boot, now.boot) != 0) {
        log_notice("%s is of an earlier boot", path);
        int error = undo_remove(folder);
        return error ? error : -ENOENT;
    }
    return 0;
}

int undo_remove(const char *folder)
{
    static char path[PATH_MAX];
    int error = undo_path(folder, "undo", path);

    if (!error && unlink(path) < 0 && errno != ENOENT)
        error = -errno;
    return error;
}
