/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/imitation/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int machine_open(int flags)
{
    const char *path = getenv(MACHINE_ENVIRONMENT);
    int fd = path ? open(path, flags | O_CLOEXEC) : -1;

    if (fd < 0)
        errno = path ? errno : ENOENT;
    return fd;
}

uint64_t machine_page_kib(const struct machine *machine)
{
    return machine->page_kib ? machine->page_kib : 4;
}

const void *machine_map_frames(const uint64_t *frames, unsigned count)
{
    size_t bytes = (size_t)count * MACHINE_FRAME_BYTES;
    char *row = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = machine_open(O_RDONLY);
    bool all = fd >= 0 && row != MAP_FAILED;

    for (unsigned i = 0; i < count && all; i++) {
        off_t at = (off_t)(offsetof(struct machine, frames) + frames[i] * MACHINE_FRAME_BYTES);
        all = frames[i] < MACHINE_FRAMES && mmap(row + (size_t)i * MACHINE_FRAME_BYTES, MACHINE_FRAME_BYTES, PROT_READ,
                                                 MAP_SHARED | MAP_FIXED, fd, at) != MAP_FAILED;
    }
    if (fd >= 0)
        close(fd);
    if (!all && row != MAP_FAILED)
        munmap(row, bytes);
    return all ? row : NULL;
}

struct machine *machine_map(void)
{
    int fd = machine_open(O_RDWR);

    if (fd < 0)
        return NULL;
    void *machine = mmap(NULL, sizeof(struct machine), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return machine == MAP_FAILED ? NULL : machine;
}

int machine_populate(struct machine_slot *slot)
{
    uint64_t tot_pages = atomic_load(&slot->tot_pages);

    do {
        if (tot_pages >= atomic_load(&slot->max_pages)) {
            atomic_fetch_add(&slot->refused, 1);
            return -1;
        }
    } while (!atomic_compare_exchange_weak(&slot->tot_pages, &tot_pages, tot_pages + 1));
    return 0;
}
