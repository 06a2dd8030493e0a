/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * grants DOMID COUNT: maps COUNT pages that domain DOMID, the guest itself, grants itself, and lets go of them
 *
 * A mapped grant needs a page frame number without memory behind it. The kernel makes a whole memory section of those
 * when it has none left, and pages of the p2m to go with them.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <xen/xen.h>
#include <xen/grant_table.h>
#include <xen/gntalloc.h>
#include <xen/gntdev.h>

#define GRANTS_PAGE 4096
#define GRANTS_MOST 512

/* Both drivers hand out pages the same way: at an offset of their device. */
static char *grants_reach(int device, uint64_t offset, size_t count)
{
    void *pages = mmap(NULL, count * GRANTS_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)offset);

    return pages == MAP_FAILED ? NULL : pages;
}

static char *grants_offer(int device, domid_t domid, struct ioctl_gntalloc_alloc_gref *offer, size_t count)
{
    offer->domid = domid;
    offer->flags = GNTALLOC_FLAG_WRITABLE;
    offer->count = (uint32_t)count;
    return ioctl(device, IOCTL_GNTALLOC_ALLOC_GREF, offer) == 0 ? grants_reach(device, offer->index, count) : NULL;
}

static char *grants_map(int device, domid_t domid, const uint32_t *references, size_t count)
{
    struct ioctl_gntdev_map_grant_ref *request = calloc(1, sizeof(*request) + count * sizeof(request->refs[0]));
    char *pages = NULL;

    if (!request)
        return NULL;
    request->count = (uint32_t)count;
    for (size_t i = 0; i < count; i++)
        request->refs[i] = (struct ioctl_gntdev_grant_ref){.domid = domid, .ref = references[i]};
    if (ioctl(device, IOCTL_GNTDEV_MAP_GRANT_REF, request) == 0)
        pages = grants_reach(device, request->index, count);
    free(request);
    return pages;
}

/* What is written through one mapping is read through the other. */
static int grants_touch(const char *offered, char *mapped, size_t count)
{
    for (size_t i = 0; i < count; i++)
        memset(mapped + i * GRANTS_PAGE, (int)(i & 127) + 1, GRANTS_PAGE);
    for (size_t i = 0; i < count; i++)
        if (offered[i * GRANTS_PAGE] != (char)((i & 127) + 1))
            return -1;
    return 0;
}

int main(int argc, char **argv)
{
    domid_t domid = argc == 3 ? (domid_t)strtoul(argv[1], NULL, 10) : 0;
    size_t count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

    if (count < 1 || count > GRANTS_MOST) {
        fprintf(stderr, "grants: expected DOMID COUNT, with at most %d pages\n", GRANTS_MOST);
        return 2;
    }
    struct ioctl_gntalloc_alloc_gref *offer = calloc(1, sizeof(*offer) + count * sizeof(offer->gref_ids[0]));
    int giving = open("/dev/xen/gntalloc", O_RDWR), taking = open("/dev/xen/gntdev", O_RDWR);
    if (!offer || giving < 0 || taking < 0) {
        perror("grants: opening the drivers");
        return 1;
    }
    char *offered = grants_offer(giving, domid, offer, count);
    char *mapped = offered ? grants_map(taking, domid, offer->gref_ids, count) : NULL;
    if (!mapped) {
        perror(offered ? "grants: mapping" : "grants: granting");
        return 1;
    }
    if (grants_touch(offered, mapped, count) < 0) {
        fputs("grants: the mapped pages are not the granted ones\n", stderr);
        return 1;
    }
    /* The mappings, and then the grants, go with the process. */
    return 0;
}
