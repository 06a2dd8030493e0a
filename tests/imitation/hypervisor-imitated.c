/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hypervisor interface on the imitated machine; see machine.h. */
#include "daemon/hypervisor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/imitation/machine.h"

struct hypervisor {
    struct machine *machine; /* lives as long as the process */
};

struct hypervisor_p2m {
    const void *page;
    unsigned width;
};

int hypervisor_open(struct hypervisor **hypervisor)
{
    *hypervisor = calloc(1, sizeof(**hypervisor));
    if (!*hypervisor)
        return -ENOMEM;
    (*hypervisor)->machine = machine_map();
    if ((*hypervisor)->machine)
        return 0;
    int error = -errno;
    free(*hypervisor);
    *hypervisor = NULL;
    return error;
}

void hypervisor_close(struct hypervisor *hypervisor)
{
    free(hypervisor);
}

const char *hypervisor_describe(struct hypervisor *hypervisor)
{
    (void)hypervisor;
    return "imitation";
}

int hypervisor_get_host(struct hypervisor *hypervisor, struct hypervisor_host *host)
{
    const struct machine *machine = hypervisor->machine;
    uint32_t version = machine->host_version, lacks = machine->host_lacks;

    memset(host, 0, sizeof(*host));
    host->major = version ? version >> 16 : 4;
    host->minor = version ? version & 0xffff : 17;
    host->pv = !(lacks & MACHINE_NO_PV);
    host->hvm = !(lacks & MACHINE_NO_HVM);
    host->hap = !(lacks & MACHINE_NO_HAP);
    host->shadow = !(lacks & MACHINE_NO_SHADOW);
    return -(int)machine->host_error;
}

unsigned hypervisor_page_kib(struct hypervisor *hypervisor)
{
    return (unsigned)machine_page_kib(hypervisor->machine);
}

unsigned hypervisor_guest_page_kib(struct hypervisor *hypervisor)
{
    return hypervisor_page_kib(hypervisor);
}

static void hypervisor_convert(const struct machine *machine, unsigned domid, struct hypervisor_domain *domain)
{
    const struct machine_slot *slot = &machine->slots[domid];
    uint32_t flags = slot->flags;

    memset(domain, 0, sizeof(*domain));
    domain->domid = (uint16_t)domid;
    domain->dying = flags & MACHINE_DYING;
    domain->paused = flags & MACHINE_PAUSED;
    domain->shutdown = flags & MACHINE_SHUTDOWN;
    domain->suspended = flags & MACHINE_SUSPENDED;
    domain->hvm = flags & MACHINE_HVM;
    domain->tot_pages = slot->tot_pages;
    domain->max_pages = slot->max_pages;
    domain->shared_pages = slot->shared_pages;
    domain->paged_pages = slot->paged_pages;
    domain->shared_info_frame = slot->shared_info_frame;
    memcpy(domain->uuid, slot->uuid, HYPERVISOR_UUID_LENGTH);
}

int hypervisor_list(struct hypervisor *hypervisor, uint16_t first, size_t room, struct hypervisor_domain *domains)
{
    struct machine *machine = hypervisor->machine;
    size_t count = 0;

    machine->lists++;
    for (unsigned domid = first; domid < MACHINE_SLOTS && count < room; domid++)
        if (machine->slots[domid].used)
            hypervisor_convert(machine, domid, &domains[count++]);
    return (int)count;
}

int hypervisor_get(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_domain *domain)
{
    struct machine *machine = hypervisor->machine;

    machine->gets++;
    if (domid >= MACHINE_SLOTS || !machine->slots[domid].used)
        return -ESRCH;
    hypervisor_convert(machine, domid, domain);
    return 0;
}

int hypervisor_set_max_pages(struct hypervisor *hypervisor, uint16_t domid, uint64_t max_pages)
{
    struct machine *machine = hypervisor->machine;

    machine->set_maxes++;
    if (domid >= MACHINE_SLOTS || !machine->slots[domid].used)
        return -ESRCH;
    machine->slots[domid].max_pages = max_pages;
    return 0;
}

int hypervisor_get_physmap(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_physmap *physmap)
{
    const struct machine_slot *slot = &hypervisor->machine->slots[domid];

    physmap->max_gfn = slot->max_gfn;
    physmap->pod_entries = slot->pod_entries;
    return 0;
}

int hypervisor_map_p2m(struct hypervisor *hypervisor, const struct hypervisor_domain *domain,
                       struct hypervisor_p2m **result)
{
    const struct machine_slot *slot = &hypervisor->machine->slots[domain->domid];
    uint64_t frame = slot->shared_info_frame;

    if (domain->hvm || !slot->width)
        return -ENODATA;
    struct hypervisor_p2m *p2m = malloc(sizeof(*p2m));
    if (!p2m)
        return -ENOMEM;
    p2m->width = slot->width;
    p2m->page = machine_map_frames(&frame, 1);
    if (!p2m->page) {
        free(p2m);
        return -EINVAL;
    }
    *result = p2m;
    return 0;
}

static void hypervisor_unmap(const void *at, unsigned count)
{
    union {
        const void *mapped;
        void *unmapped;
    } pages = {at};

    munmap(pages.unmapped, (size_t)count * MACHINE_FRAME_BYTES);
}

void hypervisor_unmap_p2m(struct hypervisor_p2m *p2m)
{
    if (!p2m)
        return;
    hypervisor_unmap(p2m->page, 1);
    free(p2m);
}

const volatile void *hypervisor_shared_info_page(const struct hypervisor_p2m *p2m)
{
    return p2m->page;
}

void hypervisor_read_shared_info(const struct hypervisor_p2m *p2m, struct sharedinfo *info)
{
    sharedinfo_read(p2m->page, p2m->width, info);
}

int hypervisor_map_frames(struct hypervisor *hypervisor, uint16_t domid, const uint64_t *frames, unsigned count,
                          const void **at)
{
    (void)domid;
    hypervisor->machine->maps++;
    *at = machine_map_frames(frames, count);
    return *at ? 0 : -EFAULT;
}

void hypervisor_unmap_frames(struct hypervisor *hypervisor, const void *at, unsigned count)
{
    (void)hypervisor;
    hypervisor_unmap(at, count);
}
