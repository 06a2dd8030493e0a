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
#include <stddef.h>
#include <stdint.h>

#define MACHINE_ENVIRONMENT "P2MGUARD_IMITATED_MACHINE"
#define MACHINE_SLOTS 4096
#define MACHINE_FRAMES 32768
#define MACHINE_FRAME_BYTES 4096

enum { MACHINE_DYING = 1, MACHINE_PAUSED = 2, MACHINE_SHUTDOWN = 4, MACHINE_SUSPENDED = 8, MACHINE_HVM = 16 };

enum { MACHINE_NO_PV = 1, MACHINE_NO_HVM = 2, MACHINE_NO_HAP = 4, MACHINE_NO_SHADOW = 8 };

struct machine_slot {
    _Atomic uint32_t used, flags;
    _Atomic uint32_t width; /* of a PV guest with a p2m: 4 or 8; 0 = none */
    _Atomic uint32_t shared_info_frame;
    _Atomic uint64_t tot_pages, max_pages, refused;
    _Atomic uint64_t max_gfn, pod_entries, shared_pages, paged_pages;
    char uuid[40];
    char padding[16];
};

/* Frames are shared by all domains; nothing keeps one from naming another's, but the tests do not. */
struct machine {
    _Atomic uint64_t lists, gets, set_maxes, maps; /* hypercalls made */
    _Atomic uint32_t page_kib;                     /* the hypervisor's granularity, 0 = 4; the guests' is the same */
    /* What is wrong with the host, where something is: its version (major << 16 | minor, 0 = 4.17), what it lacks, and
     * the errno that toolstacks are refused with. */
    _Atomic uint32_t host_version, host_lacks, host_error;
    char padding[16];
    struct machine_slot slots[MACHINE_SLOTS];
    char to_a_page[MACHINE_FRAME_BYTES - 64];
    char frames[MACHINE_FRAMES][MACHINE_FRAME_BYTES]; /* a hole in the file until written */
};

_Static_assert(sizeof(struct machine_slot) == 128, "the layout is shared with fixture.py");
_Static_assert(offsetof(struct machine, host_version) == 36, "the layout is shared with fixture.py");
_Static_assert(offsetof(struct machine, slots) == 64, "the layout is shared with fixture.py");
_Static_assert(offsetof(struct machine, frames) == 4096 + 128 * MACHINE_SLOTS, "the layout is shared with fixture.py");

/* Maps the file that the environment names; NULL with errno set. */
struct machine *machine_map(void);

uint64_t machine_page_kib(const struct machine *machine);

/* Maps frames in a row, read-only; NULL when one of them does not exist. Unmapped with munmap. */
const void *machine_map_frames(const uint64_t *frames, unsigned count);

/* One page more, as XENMEM_populate_physmap: 0, or -1 when the guest is at its max_pages. */
int machine_populate(struct machine_slot *slot);

#endif
