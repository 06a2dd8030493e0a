/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a look at all domains costs when one has come or gone, and what an event of one of them does, on hosts of
 * different sizes. Figures, not a test. The worker that the targets' readings go to is left out.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/domains.h"
#include "daemon/targets.h"
#include "tests/bench/bench.h"
#include "tests/imitation/machine.h"

static char path[] = "/tmp/p2mguard-bench-XXXXXX";

/* In the place of the worker's, whose object file is not linked then. */
void worker_submit(struct worker *worker, struct work *work)
{
    (void)worker;
    work->done(work);
}

static void make_machine(void)
{
    int fd = mkstemp(path);

    if (fd < 0 || ftruncate(fd, sizeof(struct machine)) < 0 || setenv(MACHINE_ENVIRONMENT, path, 1) < 0) {
        perror("the imitated machine");
        exit(1);
    }
    close(fd);
}

static void make_domains(struct machine *machine, unsigned count)
{
    for (unsigned domid = 1; domid <= count; domid++) {
        struct machine_slot *slot = &machine->slots[domid];
        snprintf(slot->uuid, sizeof(slot->uuid), "%08x-0000-4000-8000-%012x", domid * 2654435761u, domid);
        slot->used = 1;
    }
}

static void see(void *context, const struct hypervisor_domain *domain)
{
    targets_see(context, domain);
}

static void look(struct domains *domains, struct targets *targets, struct hypervisor *hypervisor)
{
    targets_begin(targets);
    if (domains_look(domains, hypervisor, see, targets) < 0)
        abort();
    targets_end(targets);
}

static void measure(unsigned count)
{
    struct domains *domains = domains_new();
    struct hypervisor *hypervisor;
    struct targets *targets;
    struct machine *machine = machine_map();
    const unsigned looks = 200, events = 100000;
    uint64_t kib;

    if (!domains || !machine || targets_new(&targets) || hypervisor_open(&hypervisor))
        abort();
    make_domains(machine, count);
    double begun = now_us();
    look(domains, targets, hypervisor);
    double first = now_us() - begun;
    begun = now_us();
    for (unsigned i = 0; i < looks; i++)
        look(domains, targets, hypervisor);
    double each = (now_us() - begun) / looks;
    begun = now_us();
    for (unsigned i = 0; i < events; i++)
        targets_steady_ms(targets, (uint16_t)(1 + i * 7919 % count), &kib);
    printf("%5u domains: first look %8.0f us, each other %8.0f us; finding one's target %6.3f us\n", count, first, each,
           (now_us() - begun) / events);
    hypervisor_close(hypervisor);
    targets_free(targets);
    domains_free(domains);
}

int main(void)
{
    static const unsigned counts[] = {10, 100, 1000, 4000};

    make_machine();
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        measure(counts[i]);
    unlink(path);
    return 0;
}
