/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/imitation/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct machine *machine_map(void)
{
    const char *path = getenv(MACHINE_ENVIRONMENT);
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (fd < 0) {
        errno = path ? errno : ENOENT;
        return NULL;
    }
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
