/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The functions of libxenctrl and libxenforeignmemory that p2mguardd and thaw use, on the imitated machine: loaded
 * before the real ones (/etc/ld.so.preload), so that programs are run as packages install them, on a host without Xen.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenctrl.h>
#include <xenforeignmemory.h>

#include "tests/imitation/machine.h"

#define XEN_MACHINE "/dev/xen/machine"

static struct machine *machine;

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger, unsigned flags)
{
    (void)logger, (void)dombuild_logger, (void)flags;
    if (setenv(MACHINE_ENVIRONMENT, XEN_MACHINE, 0) < 0)
        return NULL;
    if (!machine)
        machine = machine_map();
    return (xc_interface *)(void *)machine;
}

int xc_interface_close(xc_interface *xc)
{
    (void)xc;
    return 0;
}

int xc_version(xc_interface *xc, int command, void *argument)
{
    (void)xc, (void)command, (void)argument;
    return 4 << 16 | 17;
}

static void xen_describe(unsigned domid, xc_domaininfo_t *info)
{
    const struct machine_slot *slot = &machine->slots[domid];
    unsigned byte[16] = {0};
    char digits[40], *to = digits;

    memset(info, 0, sizeof(*info));
    info->domain = (domid_t)domid;
    info->flags = slot->flags & MACHINE_HVM ? XEN_DOMINF_hvm_guest : 0;
    if (slot->flags & MACHINE_DYING)
        info->flags |= XEN_DOMINF_dying;
    info->tot_pages = slot->tot_pages;
    info->max_pages = slot->max_pages;
    for (const char *from = slot->uuid; *from && from < slot->uuid + 36; from++)
        if (*from != '-')
            *to++ = *from;
    *to = '\0';
    for (int i = 0; i < 16 && sscanf(digits + i * 2, "%2x", &byte[i]) == 1; i++)
        info->handle[i] = (uint8_t)byte[i];
}

int xc_domain_getinfolist(xc_interface *xc, uint32_t first, unsigned room, xc_domaininfo_t *info)
{
    unsigned count = 0;

    (void)xc;
    for (unsigned domid = first; domid < MACHINE_SLOTS && count < room; domid++)
        if (machine->slots[domid].used)
            xen_describe(domid, &info[count++]);
    return (int)count;
}

int xc_domain_setmaxmem(xc_interface *xc, uint32_t domid, uint64_t max_kib)
{
    (void)xc;
    if (domid >= MACHINE_SLOTS || !machine->slots[domid].used) {
        errno = ESRCH;
        return -1;
    }
    machine->slots[domid].max_pages = max_kib / 4;
    return 0;
}

int xc_domain_maximum_gpfn(xc_interface *xc, uint32_t domid, xen_pfn_t *gpfns)
{
    (void)xc;
    *gpfns = machine->slots[domid].max_gfn;
    return 0;
}

int xc_domain_get_pod_target(xc_interface *xc, uint32_t domid, uint64_t *tot_pages, uint64_t *cache_pages,
                             uint64_t *entries)
{
    (void)xc;
    *tot_pages = machine->slots[domid].tot_pages;
    *cache_pages = 0;
    *entries = machine->slots[domid].pod_entries;
    return 0;
}

xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    return (xenforeignmemory_handle *)(void *)machine;
}

int xenforeignmemory_close(xenforeignmemory_handle *memory)
{
    (void)memory;
    return 0;
}
