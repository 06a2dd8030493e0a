/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/lookup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/node.h"

/* Asked for at a time: on a large host others' work gets its turn at the worker in between. */
#define LOOKUP_CHUNK 64

struct lookup {
    struct work work;
    struct worker *worker;
    lookup_done *done;
    void *context;
    bool all;
    enum lookup_depth depth;
    char wanted[SESSION_NAME_MAX];
    struct lookup_domain *domains;
    size_t count, room;
    unsigned next_domid;
    bool more; /* from there on */
    int error;
};

static bool lookup_read_kib(struct store *store, uint16_t domid, const char *node, uint64_t *kib)
{
    char value[JOURNAL_TARGET_MAX];

    if (node_read(store, domid, node, value, sizeof(value)) || !journal_is_target(value))
        return false;
    *kib = strtoull(value, NULL, 10);
    return true;
}

static void lookup_read_perms(struct store *store, uint16_t domid, const char *node, char *text)
{
    char path[STORE_PATH_MAX];

    if (store_get_perms(store, 0, node_path(domid, node, path), text, STORE_PERMS_MAX))
        *text = '\0';
}

static struct lookup_domain *lookup_add(struct lookup *lookup, const struct hypervisor_domain *domain)
{
    if (lookup->count == lookup->room) {
        size_t room = lookup->room ? lookup->room * 2 : 16;
        struct lookup_domain *domains = reallocarray(lookup->domains, room, sizeof(*domains));
        if (!domains)
            return NULL;
        lookup->domains = domains;
        lookup->room = room;
    }
    struct lookup_domain *added = &lookup->domains[lookup->count++];
    memset(added, 0, sizeof(*added));
    added->domain = *domain;
    return added;
}

static bool lookup_is_domid(const struct lookup *lookup, unsigned long *domid)
{
    char *end;

    *domid = strtoul(lookup->wanted, &end, 10);
    return lookup->wanted[0] >= '0' && lookup->wanted[0] <= '9' && *end == '\0';
}

static int lookup_read(enum lookup_depth depth, struct store *store, struct lookup_domain *found)
{
    uint16_t domid = found->domain.domid;

    if (depth >= LOOKUP_TARGET)
        found->has_target = lookup_read_kib(store, domid, "memory/target", &found->target_kib);
    if (depth < LOOKUP_EVERYTHING)
        return 0;
    found->has_static_max = lookup_read_kib(store, domid, "memory/static-max", &found->static_max_kib);
    lookup_read_perms(store, domid, "memory", found->memory_perms);
    lookup_read_perms(store, domid, "memory/target", found->target_perms);
    return agent_look(store, domid, &found->agent);
}

static int lookup_take(struct lookup *lookup, const struct worker_tools *tools, const struct hypervisor_domain *domain)
{
    char name[SESSION_NAME_MAX];
    int error = node_read_name(tools->store, domain->domid, name, sizeof(name));
    unsigned long domid;

    if (error == -ENOTCONN)
        return error;
    if (!lookup->all && !lookup_is_domid(lookup, &domid) && strcasecmp(lookup->wanted, domain->uuid) != 0 &&
        strcmp(lookup->wanted, name) != 0)
        return 0;
    struct lookup_domain *found = lookup_add(lookup, domain);
    if (!found)
        return -ENOMEM;
    strcpy(found->name, name);
    return lookup_read(lookup->depth, tools->store, found);
}

/* The domain of this domid alone: a domid goes before a name, as in xl. */
static int lookup_get(struct lookup *lookup, const struct worker_tools *tools, unsigned long domid)
{
    struct hypervisor_domain domain;
    int error = domid > UINT16_MAX ? -ESRCH : hypervisor_get(tools->hypervisor, (uint16_t)domid, &domain);

    return error ? error : lookup_take(lookup, tools, &domain);
}

static int lookup_scan(struct lookup *lookup, const struct worker_tools *tools)
{
    struct hypervisor_domain chunk[LOOKUP_CHUNK];
    int count = hypervisor_list(tools->hypervisor, (uint16_t)lookup->next_domid, LOOKUP_CHUNK, chunk), error = 0;

    for (int i = 0; i < count && !error && (lookup->all || !lookup->count); i++) {
        error = lookup_take(lookup, tools, &chunk[i]);
        lookup->next_domid = chunk[i].domid + 1u;
    }
    lookup->more = count == LOOKUP_CHUNK && lookup->next_domid <= UINT16_MAX && (lookup->all || !lookup->count);
    return count < 0 ? count : error;
}

static void lookup_run(struct work *work, const struct worker_tools *tools)
{
    struct lookup *lookup = (struct lookup *)(void *)work;
    unsigned long domid;

    if (!lookup->all && lookup_is_domid(lookup, &domid))
        lookup->error = lookup_get(lookup, tools, domid);
    else
        lookup->error = lookup_scan(lookup, tools);
    if (!lookup->error && !lookup->more && !lookup->all && lookup->count == 0)
        lookup->error = -ESRCH;
}

static void lookup_finish(struct work *work)
{
    struct lookup *lookup = (struct lookup *)(void *)work;

    if (!lookup->error && lookup->more) {
        lookup_begin(lookup, lookup->worker);
        return;
    }
    lookup->done(lookup->context, lookup->error, lookup->domains, lookup->count);
    lookup_free(lookup);
}

int lookup_exists(const struct worker_tools *tools, const char *wanted)
{
    struct lookup lookup = {.all = false};

    snprintf(lookup.wanted, sizeof(lookup.wanted), "%s", wanted);
    do
        lookup_run(&lookup.work, tools);
    while (!lookup.error && lookup.more);
    free(lookup.domains);
    return lookup.error;
}

struct lookup *lookup_new(const char *wanted, enum lookup_depth depth, lookup_done *done, void *context)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));

    if (!lookup)
        return NULL;
    lookup->work.run = lookup_run;
    lookup->work.done = lookup_finish;
    lookup->done = done;
    lookup->context = context;
    lookup->all = !wanted;
    lookup->depth = depth;
    /* Longer than any name: it will not be found, which is right. */
    if (wanted)
        snprintf(lookup->wanted, sizeof(lookup->wanted), "%s", wanted);
    return lookup;
}

void lookup_free(struct lookup *lookup)
{
    if (!lookup)
        return;
    free(lookup->domains);
    free(lookup);
}

void lookup_begin(struct lookup *lookup, struct worker *worker)
{
    lookup->worker = worker;
    lookup->error = -ECANCELED;
    worker_submit(worker, &lookup->work);
}
