/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* domain.list and domain.show: what the hypervisor and xenstored say of a domain, guarded or not. */
#include "daemon/methods-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/record.h"

static const char *domain_state(const struct hypervisor_domain *domain)
{
    if (domain->dying)
        return "dying";
    if (domain->shutdown)
        return "shutdown";
    return domain->paused ? "paused" : "running";
}

/* Where the hypervisor cannot know it - Arm's guests choose their own - it is null. */
static json_t *domain_guest_page_kib(struct hypervisor *hypervisor)
{
    unsigned page_kib = hypervisor_guest_page_kib(hypervisor);

    return page_kib ? json_integer(page_kib) : json_null();
}

/* 0 when the daemon has not heard yet of the target that was just read. */
static json_t *domain_steady(const struct guard *guard, const struct lookup_domain *found)
{
    uint64_t target_kib;
    int64_t steady_ms = guard_target_steady_ms(guard, found->domain.domid, &target_kib);

    if (!found->has_target)
        return json_null();
    return json_integer(target_kib == found->target_kib ? steady_ms : 0);
}

static json_t *domain_record(struct methods *methods, const struct lookup_domain *found)
{
    const struct hypervisor_domain *domain = &found->domain;
    unsigned page_kib = hypervisor_page_kib(guard_hypervisor(methods->guard));
    const struct session *session = guard_find_domain(methods->guard, domain->domid);
    const int64_t *offset_kib = domains_offset_kib(guard_domains(methods->guard), domain->uuid);

    return json_pack(
        "{s:i,s:s,s:s,s:s,s:s,s:I,s:I,s:o,s:o,s:o,s:s?,s:i}", "domid", (int)domain->domid, "name", found->name, "uuid",
        domain->uuid, "type", domain->hvm ? "hvm" : "pv", "state", domain_state(domain), "tot_kib",
        (json_int_t)(domain->tot_pages * page_kib), "max_kib", (json_int_t)(domain->max_pages * page_kib), "target_kib",
        found->has_target ? json_integer((json_int_t)found->target_kib) : json_null(), "target_steady_ms",
        domain_steady(methods->guard, found), "offset_kib", offset_kib ? json_integer(*offset_kib) : json_null(),
        "session", session ? session->id : NULL, "page_kib", (int)page_kib);
}

static void domain_list_found(struct waiter *waiter, const struct lookup_domain *domains, size_t count)
{
    json_t *list = json_array();

    for (size_t i = 0; i < count && list; i++) {
        if (json_array_append_new(list, domain_record(waiter->methods, &domains[i])) < 0) {
            json_decref(list);
            list = NULL;
        }
    }
    rpc_reply(waiter->call, json_pack("{s:o}", "domains", list));
}

/* A call that waits for the surveyor, with its answer but for the p2m. */
struct domain_show {
    struct survey_order order; /* first */
    struct rpc_call *call;
    json_t *record;
};

static json_t *domain_p2m(const struct survey_order *order)
{
    return order->error ? json_null() : record_p2m(&order->result);
}

static void domain_show_surveyed(struct work *work)
{
    struct domain_show *show = (struct domain_show *)(void *)work;
    int error = show->order.error;

    if (error && error != -ENODATA && error != -ESRCH)
        log_warning("domain %u: its p2m cannot be surveyed: %s", show->order.domid, strerror(-error));
    if (json_object_set_new(show->record, "p2m", domain_p2m(&show->order)) < 0) {
        json_decref(show->record);
        show->record = NULL;
    }
    rpc_reply(show->call, show->record);
    free(show);
}

static void domain_show_found(struct waiter *waiter, const struct lookup_domain *found, size_t count)
{
    struct guard *guard = waiter->methods->guard;
    struct domain_show *show = calloc(1, sizeof(*show));
    json_t *record = domain_record(waiter->methods, found);
    json_t *more = json_pack("{s:o,s:s?,s:s?,s:o,s:o}", "static_max_kib",
                             found->has_static_max ? json_integer((json_int_t)found->static_max_kib) : json_null(),
                             "memory_permissions", *found->memory_perms ? found->memory_perms : NULL,
                             "target_permissions", *found->target_perms ? found->target_perms : NULL, "guest_page_kib",
                             domain_guest_page_kib(guard_hypervisor(guard)), "agent", record_agent(&found->agent));
    (void)count;

    if (!show || !record || !more || json_object_update(record, more) < 0) {
        json_decref(record);
        rpc_reply(waiter->call, NULL);
        free(show);
    } else {
        show->call = waiter->call;
        show->record = record;
        show->order.work.done = domain_show_surveyed;
        show->order.domid = found->domain.domid;
        show->order.curious = true;
        surveyor_submit(guard_surveyor(guard), &show->order);
    }
    json_decref(more);
}

void run_domain_list(struct rpc_call *call, const json_t *params, void *context)
{
    (void)params;
    methods_look_up(context, call, NULL, LOOKUP_TARGET, domain_list_found);
}

void run_domain_show(struct rpc_call *call, const json_t *params, void *context)
{
    char *wanted = methods_domain_text(call, params);

    if (wanted)
        methods_look_up(context, call, wanted, LOOKUP_EVERYTHING, domain_show_found);
}
