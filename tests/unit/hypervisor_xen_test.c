/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon makes of libxenctrl's answers. The library's functions are defined here; that they are what the
 * hypervisor has to say is for the tests on real Xen.
 */
#include "daemon/hypervisor.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xen/sched.h>

#include "daemon/p2m.h"
#include "daemon/sharedinfo.h"

static struct {
    int interfaces, memories, mapped; /* open */
    int fails;                        /* the errno that the next question gets, 0 = an answer */
    int page_error;
    int version;
    uint32_t capabilities;
    unsigned width;
    xc_domaininfo_t domains[3];
    uint32_t domid; /* of the last request */
    uint64_t max_kib;
} xen;

static char page[XC_PAGE_SIZE];

static int answer(int good)
{
    if (!xen.fails)
        return good;
    errno = xen.fails;
    return -1;
}

xc_interface *xc_interface_open(xentoollog_logger *logger, xentoollog_logger *dombuild_logger, unsigned flags)
{
    (void)logger, (void)dombuild_logger, (void)flags;
    if (answer(0) < 0)
        return NULL;
    xen.interfaces++;
    return (xc_interface *)(void *)&xen;
}

int xc_interface_close(xc_interface *xc)
{
    (void)xc;
    xen.interfaces--;
    return 0;
}

xenforeignmemory_handle *xenforeignmemory_open(xentoollog_logger *logger, unsigned flags)
{
    (void)logger, (void)flags;
    xen.memories++;
    return (xenforeignmemory_handle *)(void *)&xen;
}

int xenforeignmemory_close(xenforeignmemory_handle *memory)
{
    (void)memory;
    xen.memories--;
    return 0;
}

int xc_version(xc_interface *xc, int command, void *argument)
{
    (void)xc, (void)argument;
    assert_int_equal(command, XENVER_version);
    return xen.version;
}

int xc_physinfo(xc_interface *xc, xc_physinfo_t *info)
{
    (void)xc;
    info->capabilities = xen.capabilities;
    return answer(0);
}

int xc_domain_getinfolist(xc_interface *xc, uint32_t first, unsigned room, xc_domaininfo_t *info)
{
    unsigned count = 0;
    (void)xc;

    for (unsigned i = 0; i < 3 && count < room; i++)
        if (xen.domains[i].domain >= first)
            info[count++] = xen.domains[i];
    return answer((int)count);
}

int xc_domain_setmaxmem(xc_interface *xc, uint32_t domid, uint64_t max_kib)
{
    (void)xc;
    xen.domid = domid;
    xen.max_kib = max_kib;
    return answer(0);
}

int xc_domain_maximum_gpfn(xc_interface *xc, uint32_t domid, xen_pfn_t *gfn)
{
    (void)xc, (void)domid;
    *gfn = 1234;
    return answer(0);
}

int xc_domain_get_pod_target(xc_interface *xc, uint32_t domid, uint64_t *tot_pages, uint64_t *cache, uint64_t *entries)
{
    (void)xc, (void)domid;
    *tot_pages = *cache = 0;
    *entries = 56;
    return answer(0);
}

int xc_domain_get_guest_width(xc_interface *xc, uint32_t domid, unsigned *width)
{
    (void)xc, (void)domid;
    *width = xen.width;
    return answer(0);
}

void *xenforeignmemory_map(xenforeignmemory_handle *memory, uint32_t domid, int protection, size_t pages,
                           const xen_pfn_t frames[], int errors[])
{
    (void)memory, (void)protection, (void)frames;
    xen.domid = domid;
    if (answer(0) < 0)
        return NULL;
    xen.mapped += (int)pages;
    if (errors)
        errors[0] = xen.page_error;
    return page;
}

int xenforeignmemory_unmap(xenforeignmemory_handle *memory, void *at, size_t pages)
{
    (void)memory;
    assert_ptr_equal(at, page);
    xen.mapped -= (int)pages;
    return 0;
}

/* ---- tests ---- */

static int open_hypervisor(void **state)
{
    struct hypervisor *hypervisor = NULL;

    memset(&xen, 0, sizeof(xen));
    xen.version = 4 << 16 | 17;
    xen.width = 8;
    for (unsigned i = 0; i < 3; i++)
        xen.domains[i].domain = (domid_t)(i * 5);
    xen.domains[1] = (xc_domaininfo_t){
        .domain = 5,
        .flags = XEN_DOMINF_paused | XEN_DOMINF_shutdown | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift,
        .tot_pages = 100,
        .max_pages = 200,
        .shr_pages = 3,
        .paged_pages = 4,
        .shared_info_frame = 77,
        .cpu_time = 9,
        .handle = {0x0f, 0x7a, 0x4c, 0x4e, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0x66}};
    assert_int_equal(hypervisor_open(&hypervisor), 0);
    *state = hypervisor;
    return 0;
}

static int close_hypervisor(void **state)
{
    hypervisor_close(*state);
    assert_int_equal(xen.interfaces, 0);
    assert_int_equal(xen.memories, 0);
    assert_int_equal(xen.mapped, 0);
    return 0;
}

static void what_there_is(void **state)
{
    struct hypervisor *other = NULL;

    assert_string_equal(hypervisor_describe(*state), "xen 4.17");
    assert_int_equal(hypervisor_page_kib(*state), 4);
    assert_int_equal(hypervisor_guest_page_kib(*state), 4);
    xen.version = -1;
    assert_int_equal(hypervisor_open(&other), 0);
    assert_string_equal(hypervisor_describe(other), "xen");
    hypervisor_close(other);
    hypervisor_close(NULL);
    xen.fails = ENOENT;
    assert_int_equal(hypervisor_open(&other), -ENOENT);
    xen.fails = 0;
}

static void what_the_machine_can_do(void **state)
{
    struct hypervisor_host host;

    xen.capabilities = XEN_SYSCTL_PHYSCAP_pv | XEN_SYSCTL_PHYSCAP_shadow;
    assert_int_equal(hypervisor_get_host(*state, &host), 0);
    assert_true(host.pv && host.shadow && !host.hvm && !host.hap);
    xen.capabilities = XEN_SYSCTL_PHYSCAP_hvm | XEN_SYSCTL_PHYSCAP_hap;
    assert_int_equal(hypervisor_get_host(*state, &host), 0);
    assert_true(host.hvm && host.hap && !host.pv && !host.shadow);
    xen.fails = EACCES; /* as Xen answers who has other interfaces; its version it tells everybody */
    assert_int_equal(hypervisor_get_host(*state, &host), -EACCES);
    assert_int_equal(host.major, 4);
    assert_int_equal(host.minor, 17);
    xen.fails = 0;
}

static void domains_are_what_xen_says(void **state)
{
    struct hypervisor_domain domains[4], one;

    assert_int_equal(hypervisor_list(*state, 1, 4, domains), 2);
    assert_int_equal(domains[0].domid, 5);
    assert_int_equal(domains[1].domid, 10);
    assert_int_equal(hypervisor_list(*state, 0, 1, domains), 1);
    assert_int_equal(domains[0].domid, 0);
    assert_int_equal(hypervisor_get(*state, 5, &one), 0);
    assert_true(one.paused && one.shutdown && one.suspended && !one.dying && !one.hvm);
    assert_int_equal(one.tot_pages, 100);
    assert_int_equal(one.max_pages, 200);
    assert_int_equal(one.shared_pages, 3);
    assert_int_equal(one.paged_pages, 4);
    assert_int_equal(one.shared_info_frame, 77);
    assert_int_equal(one.cpu_time_ns, 9);
    assert_string_equal(one.uuid, "0f7a4c4e-1111-2222-3333-444455556666");
    xen.domains[1].flags = XEN_DOMINF_dying | XEN_DOMINF_hvm_guest | SHUTDOWN_suspend << XEN_DOMINF_shutdownshift;
    assert_int_equal(hypervisor_get(*state, 5, &one), 0);
    assert_true(one.dying && one.hvm && !one.shutdown && !one.suspended);
    xen.domains[1].flags = XEN_DOMINF_shutdown | SHUTDOWN_crash << XEN_DOMINF_shutdownshift;
    assert_int_equal(hypervisor_get(*state, 5, &one), 0);
    assert_true(one.shutdown && !one.suspended);
}

/* Xen answers with the next one. */
static void domain_that_is_not_there(void **state)
{
    struct hypervisor_domain domains[4];

    assert_int_equal(hypervisor_get(*state, 6, domains), -ESRCH);
    assert_int_equal(hypervisor_get(*state, 11, domains), -ESRCH);
    xen.fails = EPERM;
    assert_int_equal(hypervisor_get(*state, 5, domains), -EPERM);
    assert_int_equal(hypervisor_list(*state, 0, 4, domains), -EPERM);
}

static void sizes_are_set_and_read(void **state)
{
    struct hypervisor_physmap physmap;

    assert_int_equal(hypervisor_set_max_pages(*state, 5, 300), 0);
    assert_int_equal(xen.domid, 5);
    assert_int_equal(xen.max_kib, 1200);
    assert_int_equal(hypervisor_get_physmap(*state, 5, &physmap), 0);
    assert_int_equal(physmap.max_gfn, 1234);
    assert_int_equal(physmap.pod_entries, 56);
    xen.fails = ESRCH;
    assert_int_equal(hypervisor_set_max_pages(*state, 5, 300), -ESRCH);
    assert_int_equal(hypervisor_get_physmap(*state, 5, &physmap), -ESRCH);
}

static void shared_info_is_mapped(void **state)
{
    struct hypervisor_domain domain;
    struct hypervisor_p2m *p2m;
    struct sharedinfo info;

    assert_int_equal(hypervisor_get(*state, 5, &domain), 0);
    assert_int_equal(hypervisor_map_p2m(*state, &domain, &p2m), 0);
    assert_int_equal(xen.mapped, 1);
    hypervisor_read_shared_info(p2m, &info);
    hypervisor_unmap_p2m(p2m);
    hypervisor_unmap_p2m(NULL);
    assert_int_equal(xen.mapped, 0);
}

/* Nothing stays mapped that would keep the domain from going. */
static void shared_info_that_cannot_be_used(void **state)
{
    struct hypervisor_domain domain;
    struct hypervisor_p2m *p2m;

    assert_int_equal(hypervisor_get(*state, 5, &domain), 0);
    domain.hvm = true;
    assert_int_equal(hypervisor_map_p2m(*state, &domain, &p2m), -ENODATA);
    domain.hvm = false;
    xen.page_error = -EINVAL;
    assert_int_equal(hypervisor_map_p2m(*state, &domain, &p2m), -EINVAL);
    xen.page_error = 0;
    xen.width = 16;
    assert_true(hypervisor_map_p2m(*state, &domain, &p2m) < 0);
    xen.fails = ESRCH;
    assert_int_equal(hypervisor_map_p2m(*state, &domain, &p2m), -ESRCH);
    assert_int_equal(xen.mapped, 0);
}

static void frames_are_mapped_all_or_none(void **state)
{
    const uint64_t frames[P2M_BATCH + 1] = {1, 2, 3};
    const void *at = NULL;

    assert_int_equal(hypervisor_map_frames(*state, 5, frames, 3, &at), 0);
    assert_int_equal(xen.mapped, 3);
    hypervisor_unmap_frames(*state, at, 3);
    assert_int_equal(hypervisor_map_frames(*state, 5, frames, P2M_BATCH + 1, &at), -EINVAL);
    xen.fails = EINVAL;
    assert_int_equal(hypervisor_map_frames(*state, 5, frames, 3, &at), -EFAULT);
    xen.fails = ENOMEM;
    assert_int_equal(hypervisor_map_frames(*state, 5, frames, 3, &at), -ENOMEM);
    xen.fails = EAGAIN;
    assert_int_equal(hypervisor_map_frames(*state, 5, frames, 3, &at), -EAGAIN);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_hypervisor, close_hypervisor)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_there_is),
        CASE(what_the_machine_can_do),
        CASE(domains_are_what_xen_says),
        CASE(domain_that_is_not_there),
        CASE(sizes_are_set_and_read),
        CASE(shared_info_is_mapped),
        CASE(shared_info_that_cannot_be_used),
        CASE(frames_are_mapped_all_or_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
