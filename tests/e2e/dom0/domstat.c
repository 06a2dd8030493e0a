/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * domstat DOMID         prints "TOT_KIB MAX_KIB"
 * domstat state DOMID   prints "runs", "shutdown" (suspended, too) or "dying"
 * domstat follow DOMID  prints "TIME_MS TOT_KIB MAX_KIB" now and whenever one of the two has changed, until the
 *                       domain has shut down or gone
 * domstat down DOMID    waits until the domain is suspended, and then until another runs; prints the milliseconds that
 *                       were between the two: nobody ran in them
 *
 * The tests' own eyes on a domain, so that what p2mguardd says about it need not be believed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <xenctrl.h>

static int look(xc_interface *xc, uint32_t domid, xc_domaininfo_t *info)
{
    return xc_domain_getinfolist(xc, domid, 1, info) == 1 && info->domain == domid ? 0 : -1;
}

static int follow(xc_interface *xc, uint32_t domid)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    xc_domaininfo_t info;
    unsigned long long tot = ~0ULL, max = ~0ULL;

    while (look(xc, domid, &info) == 0 && !(info.flags & (XEN_DOMINF_dying | XEN_DOMINF_shutdown))) {
        if (info.tot_pages != tot || info.max_pages != max) {
            struct timespec now;

            tot = info.tot_pages;
            max = info.max_pages;
            clock_gettime(CLOCK_REALTIME, &now);
            printf("%lld %llu %llu\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000, tot * (XC_PAGE_SIZE / 1024),
                   max * (XC_PAGE_SIZE / 1024));
            fflush(stdout);
        }
        nanosleep(&pause, NULL);
    }
    return 0;
}

static double now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int another_runs(xc_interface *xc, uint32_t domid)
{
    xc_domaininfo_t all[16];
    int count = xc_domain_getinfolist(xc, 1, 16, all);

    for (int i = 0; i < count; i++)
        if (all[i].domain != domid && !(all[i].flags & (XEN_DOMINF_dying | XEN_DOMINF_shutdown | XEN_DOMINF_paused)))
            return 1;
    return 0;
}

static int down(xc_interface *xc, uint32_t domid)
{
    const struct timespec pause = {.tv_nsec = 500000};
    xc_domaininfo_t info;

    do {
        if (look(xc, domid, &info) != 0 || info.flags & XEN_DOMINF_dying)
            return 1;
        nanosleep(&pause, NULL);
    } while (!(info.flags & XEN_DOMINF_shutdown));
    double since_ms = now_ms();
    while (!another_runs(xc, domid)) {
        if (look(xc, domid, &info) == 0 && !(info.flags & XEN_DOMINF_shutdown))
            return 1; /* it runs on where it was */
        nanosleep(&pause, NULL);
    }
    return printf("%.0f\n", now_ms() - since_ms) < 0;
}

static const char *state(const xc_domaininfo_t *info)
{
    return info->flags & XEN_DOMINF_dying ? "dying" : info->flags & XEN_DOMINF_shutdown ? "shutdown" : "runs";
}

int main(int argc, char **argv)
{
    xc_interface *xc = xc_interface_open(NULL, NULL, 0);
    xc_domaininfo_t info;

    if (!xc || argc < 2)
        return 2;
    uint32_t domid = (uint32_t)strtoul(argv[argc - 1], NULL, 10);
    if (strcmp(argv[1], "follow") == 0)
        return follow(xc, domid);
    if (strcmp(argv[1], "down") == 0)
        return down(xc, domid);
    if (look(xc, domid, &info) != 0)
        return 1;
    if (strcmp(argv[1], "state") == 0)
        return puts(state(&info)) < 0;
    printf("%llu %llu\n", (unsigned long long)info.tot_pages * (XC_PAGE_SIZE / 1024),
           (unsigned long long)info.max_pages * (XC_PAGE_SIZE / 1024));
    return 0;
}
