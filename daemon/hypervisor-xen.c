/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The hypervisor interface on libxenctrl: xen/include/public/domctl.h and version.h by way of xenctrl.h. */
#include "daemon/hypervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xen/sched.h>

#include "daemon/p2m.h"
#include "daemon/sharedinfo.h"

struct hypervisor {
    xc_interface *xc;
    xenforeignmemory_handle *memory;
    char text[32];
};

struct hypervisor_p2m {
    xenforeignmemory_handle *memory;
    void *page;
    unsigned width;
};

int hypervisor_open(struct hypervisor **result)
{
    struct hypervisor *hypervisor = calloc(1, sizeof(*hypervisor));

    if (!hypervisor)
        return -ENOMEM;
    hypervisor->xc = xc_interface_open(NULL, NULL, 0);
    hypervisor->memory = xenforeignmemory_open(NULL, 0);
    if (!hypervisor->xc || !hypervisor->memory) {
        int error = -errno;
        hypervisor_close(hypervisor);
        return error;
    }
    int version = xc_version(hypervisor->xc, XENVER_version, NULL);
    if (version < 0)
        strcpy(hypervisor->text, "xen");
    else
        snprintf(hypervisor->text, sizeof(hypervisor->text), "xen %d.%d", version >> 16, version & 0xffff);
    *result = hypervisor;
    return 0;
}

void hypervisor_close(struct hypervisor *hypervisor)
{
    if (!hypervisor)
        return;
    if (hypervisor->xc)
        xc_interface_close(hypervisor->xc);
    if (hypervisor->memory)
        xenforeignmemory_close(hypervisor->memory);
    free(hypervisor);
}

const char *hypervisor_describe(struct hypervisor *hypervisor)
{
    return hypervisor->text;
}

/* Two interfaces have versions of their own, sysctl and domctl; dom0's width is asked for by the latter. */
int hypervisor_get_host(struct hypervisor *hypervisor, struct hypervisor_host *host)
{
    int version = xc_version(hypervisor->xc, XENVER_version, NULL);
    xc_physinfo_t info;
    unsigned width;

    memset(host, 0, sizeof(*host));
    if (version < 0)
        return -errno;
    host->major = (unsigned)version >> 16;
    host->minor = (unsigned)version & 0xffff;
    memset(&info, 0, sizeof(info));
    if (xc_physinfo(hypervisor->xc, &info) < 0)
        return -errno;
    host->pv = info.capabilities & XEN_SYSCTL_PHYSCAP_pv;
    host->hvm = info.capabilities & XEN_SYSCTL_PHYSCAP_hvm;
    host->hap = info.capabilities & XEN_SYSCTL_PHYSCAP_hap;
    host->shadow = info.capabilities & XEN_SYSCTL_PHYSCAP_shadow;
    errno = 0;
    return xc_domain_get_guest_width(hypervisor->xc, 0, &width) != 0 && errno == EACCES ? -EACCES : 0;
}

unsigned hypervisor_page_kib(struct hypervisor *hypervisor)
{
    (void)hypervisor;
    return XC_PAGE_SIZE / 1024;
}

unsigned hypervisor_guest_page_kib(struct hypervisor *hypervisor)
{
#if defined(__x86_64__) || defined(__i386__)
    return hypervisor_page_kib(hypervisor);
#else
    (void)hypervisor;
    return 0;
#endif
}

/* For every domain in every poll: printf would take longer than all the rest of one. */
static void hypervisor_write_uuid(const uint8_t *bytes, char *to)
{
    static const char digits[] = "0123456789abcdef";

    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = digits[bytes[i] >> 4];
        *to++ = digits[bytes[i] & 15];
    }
    *to = '\0';
}

static void hypervisor_convert(const xc_domaininfo_t *info, struct hypervisor_domain *domain)
{
    unsigned reason = (info->flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask;

    memset(domain, 0, sizeof(*domain));
    domain->domid = (uint16_t)info->domain;
    domain->dying = info->flags & XEN_DOMINF_dying;
    domain->paused = info->flags & XEN_DOMINF_paused;
    domain->shutdown = info->flags & XEN_DOMINF_shutdown;
    domain->suspended = domain->shutdown && reason == SHUTDOWN_suspend;
    domain->hvm = info->flags & XEN_DOMINF_hvm_guest;
    domain->tot_pages = info->tot_pages;
    domain->max_pages = info->max_pages;
    domain->shared_pages = info->shr_pages;
    domain->paged_pages = info->paged_pages;
    domain->shared_info_frame = info->shared_info_frame;
    domain->cpu_time_ns = info->cpu_time;
    hypervisor_write_uuid(info->handle, domain->uuid);
}

int hypervisor_list(struct hypervisor *hypervisor, uint16_t first, size_t room, struct hypervisor_domain *domains)
{
    xc_domaininfo_t *info = calloc(room, sizeof(*info));

    if (!info)
        return -ENOMEM;
    int count = xc_domain_getinfolist(hypervisor->xc, first, (unsigned)room, info);
    if (count < 0)
        count = -errno;
    for (int i = 0; i < count; i++)
        hypervisor_convert(&info[i], &domains[i]);
    free(info);
    return count;
}

int hypervisor_get(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_domain *domain)
{
    xc_domaininfo_t info;
    int count = xc_domain_getinfolist(hypervisor->xc, domid, 1, &info);

    if (count < 0)
        return -errno;
    if (count == 0 || info.domain != domid)
        return -ESRCH;
    hypervisor_convert(&info, domain);
    return 0;
}

int hypervisor_set_max_pages(struct hypervisor *hypervisor, uint16_t domid, uint64_t max_pages)
{
    if (xc_domain_setmaxmem(hypervisor->xc, domid, max_pages * (XC_PAGE_SIZE / 1024)) < 0)
        return -errno;
    return 0;
}

int hypervisor_get_physmap(struct hypervisor *hypervisor, uint16_t domid, struct hypervisor_physmap *physmap)
{
    uint64_t tot_pages, cache_pages;
    xen_pfn_t max_gfn;

    if (xc_domain_maximum_gpfn(hypervisor->xc, domid, &max_gfn) < 0 ||
        xc_domain_get_pod_target(hypervisor->xc, domid, &tot_pages, &cache_pages, &physmap->pod_entries) < 0)
        return -errno;
    physmap->max_gfn = max_gfn;
    return 0;
}

int hypervisor_map_p2m(struct hypervisor *hypervisor, const struct hypervisor_domain *domain,
                       struct hypervisor_p2m **result)
{
    xen_pfn_t frame = domain->shared_info_frame;
    int page_error = 0;

    if (domain->hvm)
        return -ENODATA;
    struct hypervisor_p2m *p2m = calloc(1, sizeof(*p2m));
    if (!p2m)
        return -ENOMEM;
    p2m->memory = hypervisor->memory;
    if (xc_domain_get_guest_width(hypervisor->xc, domain->domid, &p2m->width) == 0)
        p2m->page = xenforeignmemory_map(hypervisor->memory, domain->domid, PROT_READ, 1, &frame, &page_error);
    int error = p2m->page ? 0 : errno ? -errno : -EIO;
    if (!error && page_error)
        error = page_error;
    struct sharedinfo info;
    if (!error)
        error = sharedinfo_read(p2m->page, p2m->width, &info); /* a width that is none of the two */
    if (error) {
        if (p2m->page)
            xenforeignmemory_unmap(p2m->memory, p2m->page, 1);
        free(p2m);
        return error;
    }
    *result = p2m;
    return 0;
}

void hypervisor_unmap_p2m(struct hypervisor_p2m *p2m)
{
    if (!p2m)
        return;
    xenforeignmemory_unmap(p2m->memory, p2m->page, 1);
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

/* Without a place for each frame's error libxenforeignmemory maps all of them or none. */
int hypervisor_map_frames(struct hypervisor *hypervisor, uint16_t domid, const uint64_t *frames, unsigned count,
                          const void **at)
{
    xen_pfn_t wanted[P2M_BATCH] = {0};

    if (count > P2M_BATCH)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        wanted[i] = frames[i];
    *at = xenforeignmemory_map(hypervisor->memory, domid, PROT_READ, count, wanted, NULL);
    if (*at)
        return 0;
    return errno == ENOMEM || errno == EAGAIN ? -errno : -EFAULT;
}

void hypervisor_unmap_frames(struct hypervisor *hypervisor, const void *at, unsigned count)
{
    union { /* munmap takes what it only unmaps without const */
        const void *mapped;
        void *unmapped;
    } pages = {at};

    xenforeignmemory_unmap(hypervisor->memory, pages.unmapped, count);
}
