/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/agent/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/log.h"

/* A balloon driver between two steps of its work looks as if it stood still. */
#define MEMORY_CALM_LOOKS 3

/* ---- reading ---- */

static int memory_read_word(const struct memory *memory, enum sysfs_folder folder, const char *name, char *word,
                            size_t size)
{
    char path[PATH_MAX];
    int error = sysfs_path(path, memory->sysfs.folders[folder], name);

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
    int error = memory_read_word(memory, SYSFS_BALLOON, name, word, sizeof(word));

    if (error)
        return error;
    errno = 0;
    *kb = strtoull(word, &end, 10);
    return *end || errno ? -EINVAL : 0;
}

/* ---- changing ---- */

/* Where somebody else is to do it, it is never done here: this may be a mount namespace that nobody else sees. */
static int memory_change(struct memory *memory, const struct sysfs_request *request)
{
    return memory->ask.path ? ask_request(&memory->ask, request) : sysfs_do(&memory->sysfs, request);
}

static int memory_write_kb(struct memory *memory, uint64_t kb)
{
    const struct sysfs_request request = {.verb = SYSFS_TARGET, .folder = SYSFS_BALLOON, .kb = kb};

    return memory_change(memory, &request);
}

static int memory_write_online(struct memory *memory, const char *word)
{
    struct sysfs_request request = {.verb = SYSFS_ONLINE, .folder = SYSFS_HOTPLUG};

    _Static_assert(sizeof(request.word) >= UNDO_ONLINE, "what the journal can hold can be asked for");
    strcpy(request.word, word);
    return memory_change(memory, &request);
}

/*
 * The journal says already that it is covered. Going on without the cover is better than not freezing at all: what is
 * written then is seen, and put back. But not when nobody has answered, and it may come to be covered yet.
 */
static int memory_try_cover(struct memory *memory, enum sysfs_folder folder, bool *covered)
{
    const struct sysfs_request request = {.verb = SYSFS_COVER, .folder = folder};
    int error = memory_change(memory, &request);

    if (!error || error == ASK_NOBODY)
        return error;
    log_warning("%s cannot be made read-only (%s); others can write there while the guest is frozen",
                memory->sysfs.folders[folder], strerror(-error));
    *covered = false;
    return 0;
}

static int memory_uncover(struct memory *memory, enum sysfs_folder folder)
{
    const struct sysfs_request request = {.verb = SYSFS_UNCOVER, .folder = folder};

    return memory_change(memory, &request);
}

const char *memory_explain(int error)
{
    return error == ASK_NOBODY ? "agent-sysfs does not answer" : strerror(-error);
}

/* ---- what there is ---- */

int memory_init(struct memory *memory, const struct memory_settings *settings)
{
    *memory = (struct memory){.run = settings->run, .ask = {.path = settings->socket, .fd = -1}};
    return sysfs_init(&memory->sysfs, settings->sysfs);
}

static bool memory_has(const struct memory *memory, enum sysfs_folder folder, const char *name)
{
    char path[PATH_MAX];

    return sysfs_path(path, memory->sysfs.folders[folder], name) == 0 && access(path, F_OK) == 0;
}

bool memory_has_balloon(const struct memory *memory)
{
    return memory_has(memory, SYSFS_BALLOON, "target_kb");
}

bool memory_has_hotplug(const struct memory *memory)
{
    return memory_has(memory, SYSFS_HOTPLUG, "auto_online_blocks");
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
    return memory_write_kb(memory, kb);
}

/* Before anything is changed or written down: where nobody can make the changes there is nothing to be undone. */
static int memory_get_ready(struct memory *memory)
{
    return memory->ask.path && memory->ask.fd < 0 ? ask_ready(&memory->ask) : 0;
}

int memory_hold_balloon(struct memory *memory, struct undo *undo)
{
    uint64_t current_kb, target_kb;

    memory->calm = 0;
    if (!memory_has_balloon(memory))
        return 0;
    int error = memory_get_ready(memory);
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
    if (!error)
        error = memory_try_cover(memory, SYSFS_BALLOON, &undo->balloon_covered);
    return error ? error : memory_write_kb(memory, current_kb);
}

int memory_hold_hotplug(struct memory *memory, struct undo *undo)
{
    if (undo->hotplug || !memory_has_hotplug(memory))
        return 0;
    int error = memory_get_ready(memory);
    if (!error)
        error = memory_read_word(memory, SYSFS_HOTPLUG, "auto_online_blocks", undo->online, sizeof(undo->online));
    if (error)
        return error;
    undo->hotplug = undo->hotplug_covered = true;
    error = undo_save(memory->run, undo);
    if (!error)
        error = memory_write_online(memory, "offline");
    return error ? error : memory_try_cover(memory, SYSFS_HOTPLUG, &undo->hotplug_covered);
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
    return error ? error : memory_write_kb(memory, undo->wrote_kb);
}

/* ---- releasing ---- */

/* What nobody has done stays in the journal, for others to do; what has failed is told, and done with. */
static int memory_report(const char *what, int error)
{
    if (error && error != ASK_NOBODY)
        log_error("putting back %s failed: %s", what, strerror(-error));
    return error == ASK_NOBODY ? error : 0;
}

static void memory_strike(struct memory *memory, const struct undo *undo)
{
    int error = undo_save(memory->run, undo);

    if (error)
        log_error("putting back the journal's state failed: %s", strerror(-error));
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
    return target_kb == goal_kb ? 0 : memory_write_kb(memory, goal_kb);
}

int memory_release_balloon(struct memory *memory, struct undo *undo, bool here)
{
    if (!undo->balloon && !undo->balloon_covered)
        return 0;
    int error = memory_report("the balloon driver's folder", memory_uncover(memory, SYSFS_BALLOON));
    if (!error && undo->balloon && here && memory_has_balloon(memory))
        error = memory_report("the balloon driver's target", memory_restore_target(memory, undo));
    if (error)
        return error;
    undo->balloon = undo->balloon_covered = undo->has_wanted = false;
    memory_strike(memory, undo);
    return 0;
}

static int memory_restore_online(struct memory *memory, const struct undo *undo)
{
    char word[UNDO_ONLINE];
    int error = memory_read_word(memory, SYSFS_HOTPLUG, "auto_online_blocks", word, sizeof(word));

    /* Where the folder was not covered somebody may have chosen anew; what cannot be read nobody has. */
    if (error || (strcmp(word, "offline") == 0 && strcmp(undo->online, word) != 0))
        error = memory_write_online(memory, undo->online);
    return error;
}

int memory_release_hotplug(struct memory *memory, struct undo *undo)
{
    if (!undo->hotplug && !undo->hotplug_covered)
        return 0;
    int error = memory_report("the memory blocks' folder", memory_uncover(memory, SYSFS_HOTPLUG));
    if (!error && undo->hotplug && memory_has_hotplug(memory))
        error = memory_report("auto_online_blocks", memory_restore_online(memory, undo));
    if (error)
        return error;
    undo->hotplug = undo->hotplug_covered = false;
    memory_strike(memory, undo);
    return 0;
}

void memory_let_go(struct memory *memory)
{
    ask_close(&memory->ask);
}
