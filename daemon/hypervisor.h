/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything this daemon asks of the hypervisor, and nothing more.
 *
 * Two implementations are chosen when the program is linked: hypervisor-xen.c on libxenctrl and
 * libxenforeignmemory, and the imitation the tests use. A handle belongs to one thread: libxenctrl keeps hypercall
 * buffers per handle, so the loop and the store worker open one each.
 *
 * Sizes cross this interface in pages of the hypervisor's own granularity, as the hypercalls do;
 * hypervisor_page_kib() says how large one is. Functions return 0 or a negative errno unless said otherwise.
 */
#ifndef P2MGUARD_HYPERVISOR_H
#define P2MGUARD_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/sharedinfo.h"

/* Lower-case text of a domain's uuid with its four dashes. */
#define HYPERVISOR_UUID_LENGTH 36

/* One domain as xen/include/public/domctl.h, struct xen_domctl_getdomaininfo, describes it. */
struct hypervisor_domain {
    uint16_t domid;
    bool dying;     /* being torn down: the numbers mean nothing any more */
    bool paused;    /* by the control stack */
    bool shutdown;  /* no vcpu runs again before a resume ... */
    bool suspended; /* ... and the reason is SHUTDOWN_suspend, as in a migration's last phase */
    bool hvm;       /* HVM or PVH: hardware-assisted */
    uint64_t tot_pages;
    uint64_t max_pages;
    uint64_t shared_pages; /* with other domains, and ... */
    uint64_t paged_pages;  /* ... paged out by the host */
    uint64_t shared_info_frame;
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    uint64_t cpu_time_ns; /* last: all before is the same of a guest that runs and is left alone */
};

struct hypervisor;

/* Opens a handle; free it with hypervisor_close, which accepts NULL. */
int hypervisor_open(struct hypervisor **hypervisor);
void hypervisor_close(struct hypervisor *hypervisor);

/* A word for daemon.info: "xen 4.17" or "imitation". Valid as long as the handle. */
const char *hypervisor_describe(struct hypervisor *hypervisor);

/* What doctor wants to know of the machine; struct xen_sysctl_physinfo, xen/include/public/sysctl.h. */
struct hypervisor_host {
    unsigned major, minor; /* of Xen's version */
    bool pv, hvm;          /* kinds of guests that can be run: hvm stands for PVH as well */
    bool hap, shadow;      /* ways to see what a guest writes while it is copied */
};

/*
 * -EACCES: the hypervisor has another version of its interfaces for toolstacks than the library. The version is filled
 * in whenever it could be had.
 */
int hypervisor_get_host(struct hypervisor *hypervisor, struct hypervisor_host *host);

unsigned hypervisor_page_kib(struct hypervisor *hypervisor);

/*
 * The size of a guest's own pages: the hypervisor's on x86. An Arm kernel chooses 4, 16 or 64 KiB whatever the
 * hypervisor has, and does not tell it: 0.
 */
unsigned hypervisor_guest_page_kib(struct hypervisor *hypervisor);

/*
 * Up to `room` domains with domid >= first, in rising order of domid, with one hypercall. Returns how many there are
 * in `domains`, or a negative errno.
 */
int hypervisor_list(struct hypervisor *hypervisor, uint16_t first, size_t room, struct hypervisor_domain *domains);

/* The one domain; -ESRCH when there is none. */
int hypervisor_get(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_domain *domain);

/* XEN_DOMCTL_max_mem. A value below tot_pages is allowed: the guest can then only shrink. */
int hypervisor_set_max_pages(struct hypervisor *hypervisor, uint16_t domid, uint64_t max_pages);

/*
 * What else dom0 can learn of an HVM or PVH guest's physmap, in two hypercalls.
 * XENMEM_maximum_gpfn and XENMEM_get_pod_target, xen/include/public/memory.h.
 */
struct hypervisor_physmap {
    uint64_t max_gfn;     /* the highest that was ever mapped */
    uint64_t pod_entries; /* gfns to be populated on demand, still without a page */
};

int hypervisor_get_physmap(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_physmap *physmap);

/*
 * A PV guest's shared info page, mapped read-only. The mapping keeps a reference on the domain: unmap it when the
 * domain is on its way out, or it cannot be torn down. -ENODATA for guests that have no p2m of their own (HVM, PVH).
 */
struct hypervisor_p2m;

int hypervisor_map_p2m(struct hypervisor *hypervisor, const struct hypervisor_domain *domain,
                       struct hypervisor_p2m **p2m);
void hypervisor_unmap_p2m(struct hypervisor_p2m *p2m);

/* The page itself, which is the guest's and hostile; valid as long as the mapping. */
const volatile void *hypervisor_shared_info_page(const struct hypervisor_p2m *p2m);

/* What stands there now: memory loads, no hypercall. Any thread. */
void hypervisor_read_shared_info(const struct hypervisor_p2m *p2m, struct sharedinfo *info);

/*
 * Frames of a PV guest, named by their machine frame numbers, read-only and in a row; all of them or none. -EFAULT when
 * one of them is not the guest's. They keep a reference on the domain as well.
 */
int hypervisor_map_frames(struct hypervisor *hypervisor, uint16_t domid, const uint64_t *frames, unsigned count,
                          const void **at);
void hypervisor_unmap_frames(struct hypervisor *hypervisor, const void *at, unsigned count);

#endif
