/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/domains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/clock.h"

/* A guest that says nothing in xenstore is taken to have read its first target after this long. */
#define DOMAINS_YOUNG_MS 10000

/* More than Xen can run domains on one host; past that the one seen longest ago makes room. */
#define DOMAINS_MOST 8192

#define DOMAINS_CHUNK 256

struct known_domain {
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    int64_t first_ms, last_ms;
    bool old; /* was there before us */
    bool has_offset;
    int64_t offset_kib;
};

struct domains {
    struct known_domain *known;
    size_t count, room;
    bool looked;
};

struct domains *domains_new(void)
{
    return calloc(1, sizeof(struct domains));
}

void domains_free(struct domains *domains)
{
    if (!domains)
        return;
    free(domains->known);
    free(domains);
}

static struct known_domain *domains_find(const struct domains *domains, const char *uuid)
{
    for (size_t i = 0; i < domains->count; i++)
        if (strcmp(domains->known[i].uuid, uuid) == 0)
            return &domains->known[i];
    return NULL;
}

static struct known_domain *domains_oldest(struct domains *domains)
{
    struct known_domain *oldest = &domains->known[0];

    for (size_t i = 1; i < domains->count; i++)
        if (domains->known[i].last_ms < oldest->last_ms)
            oldest = &domains->known[i];
    return oldest;
}

static struct known_domain *domains_add(struct domains *domains, const char *uuid)
{
    if (domains->count == domains->room && domains->room < DOMAINS_MOST) {
        size_t room = domains->room ? domains->room * 2 : 64;
        struct known_domain *known = reallocarray(domains->known, room, sizeof(*known));
        if (!known)
            return NULL;
        domains->known = known;
        domains->room = room;
    }
    struct known_domain *known =
        domains->count < domains->room ? &domains->known[domains->count++] : domains_oldest(domains);
    memset(known, 0, sizeof(*known));
    memcpy(known->uuid, uuid, sizeof(known->uuid));
    known->first_ms = clock_now_ms();
    known->old = !domains->looked;
    return known;
}

int domains_look(struct domains *domains, struct hypervisor *hypervisor,
                 void (*each)(void *context, const struct hypervisor_domain *domain), void *context)
{
    static struct hypervisor_domain chunk[DOMAINS_CHUNK];
    int64_t now_ms = clock_now_ms();
    uint16_t first = 1;
    int count;

    do {
        count = hypervisor_list(hypervisor, first, DOMAINS_CHUNK, chunk);
        if (count < 0)
            return count;
        for (int i = 0; i < count; i++) {
            struct known_domain *known = domains_find(domains, chunk[i].uuid);
            if (!known)
                known = domains_add(domains, chunk[i].uuid);
            if (!known)
                return -ENOMEM;
            known->last_ms = now_ms;
            if (each)
                each(context, &chunk[i]);
            first = (uint16_t)(chunk[i].domid + 1);
        }
    } while (count == DOMAINS_CHUNK);
    domains->looked = true;
    return 0;
}

bool domains_is_young(const struct domains *domains, const char *uuid)
{
    const struct known_domain *known = domains_find(domains, uuid);

    return !known || (!known->old && clock_now_ms() - known->first_ms < DOMAINS_YOUNG_MS);
}

const int64_t *domains_offset_kib(const struct domains *domains, const char *uuid)
{
    const struct known_domain *known = domains_find(domains, uuid);

    return known && known->has_offset ? &known->offset_kib : NULL;
}

void domains_learn_offset(struct domains *domains, const char *uuid, int64_t offset_kib)
{
    struct known_domain *known = domains_find(domains, uuid);

    if (!known)
        known = domains_add(domains, uuid);
    if (!known)
        return; /* it will be learned again */
    known->has_offset = true;
    known->offset_kib = offset_kib;
}
