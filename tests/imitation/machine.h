/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The imitated machine: what the hypervisor knows of each domain, in a file that several processes map.
 *
 * The daemon under test reads and caps through hypervisor-imitated.c, the guests populate and release, and the tests
 * look at it and poke into it (tests/integration/fixture.py knows the layout). A slot's index is its domid.
 */
#ifndef P2MGUARD_TESTS_MACHINE_H
#define P2MGUARD_TESTS_MACHINE_H

#include <stdatomic.h>
#include <stdint.h>

#define MACHINE_ENVIRONMENT "P2MGUARD_IMITATED_MACHINE"
#define MACHINE_SLOTS 4096
#define MACHINE_PAGE_KIB 4

enum { MACHINE_DYING = 1, MACHINE_PAUSED = 2, MACHINE_SHUTDOWN = 4, MACHINE_SUSPENDED = 8, MACHINE_HVM = 16 };

struct machine_slot {
    _Atomic uint32_t used, flags, has_generation, spare;
    _Atomic uint64_t tot_pages, max_pages, generation, refused;
    char uuid[40];
    char padding[40];
};

struct machine {
    _Atomic uint64_t lists, gets, set_maxes; /* hypercalls made */
    char padding[40];
    struct machine_slot slots[MACHINE_SLOTS];
};

_Static_assert(sizeof(struct machine_slot) == 128, "the layout is shared with fixture.py");
_Static_assert(sizeof(struct machine) == 64 + 128 * MACHINE_SLOTS, "the layout is shared with fixture.py");

/* Maps the file that the environment names; NULL with errno set. */
struct machine *machine_map(void);

/* One page more, as XENMEM_populate_physmap: 0, or -1 when the guest is at its max_pages. */
int machine_populate(struct machine_slot *slot);

#endif
