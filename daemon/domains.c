/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/domains.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "daemon/clock.h"

/* A guest that says nothing in xenstore is taken to have read its first target after this long. */
#define DOMAINS_YOUNG_MS 10000

/* More than Xen runs on one host. */
#define DOMAINS_MOST 8192

#define DOMAINS_CHUNK 256

/* Of the index by uuid: one entry a bucket, more or less, when the table is full. */
#define DOMAINS_BUCKETS 8192

#define DOMAINS_NONE UINT16_MAX

_Static_assert(DOMAINS_MOST < DOMAINS_NONE, "an entry's number has 16 bits");

struct known_domain {
    char uuid[HYPERVISOR_UUID_LENGTH + 1];
    uint16_t next; /* in its bucket; DOMAINS_NONE for the last */
    int64_t first_ms, last_ms;
    bool old; /* was there before us */
    bool has_offset;
    int64_t offset_kib;
};

struct domains {
    struct known_domain *known;
    size_t count, room;
    bool looked;
    uint16_t buckets[DOMAINS_BUCKETS]; /* the first of each */
};

struct domains *domains_new(void)
{
    struct domains *domains = calloc(1, sizeof(*domains));

    if (domains)
        memset(domains->buckets, 0xff, sizeof(domains->buckets)); /* DOMAINS_NONE */
    return domains;
}

void domains_free(struct domains *domains)
{
    if (!domains)
        return;
    free(domains->known);
    free(domains);
}

static size_t domains_bucket(const char *uuid)
{
    return XXH3_64bits(uuid, strlen(uuid)) % DOMAINS_BUCKETS;
}

static struct known_domain *domains_find(const struct domains *domains, const char *uuid)
{
    for (uint16_t i = domains->buckets[domains_bucket(uuid)]; i != DOMAINS_NONE; i = domains->known[i].next)
        if (strcmp(domains->known[i].uuid, uuid) == 0)
            return &domains->known[i];
    return NULL;
}

static void domains_link(struct domains *domains, struct known_domain *known)
{
    uint16_t *bucket = &domains->buckets[domains_bucket(known->uuid)];

    known->next = *bucket;
    *bucket = (uint16_t)(known - domains->known);
}

static void domains_unlink(struct domains *domains, const struct known_domain *known)
{
    uint16_t *link = &domains->buckets[domains_bucket(known->uuid)];

    while (&domains->known[*link] != known)
        link = &domains->known[*link].next;
    *link = known->next;
}

/* The one seen longest ago makes room. */
static struct known_domain *domains_evict(struct domains *domains)
{
    struct known_domain *oldest = &domains->known[0];

    for (size_t i = 1; i < domains->count; i++)
        if (domains->known[i].last_ms < oldest->last_ms)
            oldest = &domains->known[i];
    domains_unlink(domains, oldest);
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
        domains->count < domains->room ? &domains->known[domains->count++] : domains_evict(domains);
    memset(known, 0, sizeof(*known));
    memcpy(known->uuid, uuid, sizeof(known->uuid));
    known->first_ms = known->last_ms = clock_now_ms();
    known->old = !domains->looked;
    domains_link(domains, known);
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
