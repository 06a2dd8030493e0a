/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine DOMID: a migration engine of its own, as small as can be: saves a running guest with libxenguest to standard
 * output, and lets it run on. What it knows of p2mguard is a session, and one pointer among its callbacks.
 *
 * Says on standard error "RETVAL VERDICT REASON SUSPENDED". Exits 0 when the guest was saved.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xenctrl.h>

#include <xenguest.h>
#include <xenstore.h>

#include <p2mguard.h>

#define SUSPEND_MS 20000

struct engine {
    struct p2mguard_precopy precopy;
    xc_interface *xc;
    struct xs_handle *store;
    uint32_t domid;
    int suspended;
};

static int is_suspended(const struct engine *engine)
{
    xc_domaininfo_t info;

    return xc_domain_getinfolist(engine->xc, engine->domid, 1, &info) == 1 && info.domain == engine->domid &&
           (info.flags & XEN_DOMINF_shutdown);
}

/* As every toolstack asks a guest to. */
static int suspend(void *data)
{
    struct engine *engine = data;
    char path[64];

    snprintf(path, sizeof(path), "/local/domain/%u/control/shutdown", engine->domid);
    if (!xs_write(engine->store, XBT_NULL, path, "suspend", 7))
        return 0;
    for (int ms = 0; ms < SUSPEND_MS && !(engine->suspended = is_suspended(engine)); ms++)
        usleep(1000);
    return engine->suspended;
}

static int switch_logdirty(uint32_t domid, unsigned enable, void *data)
{
    (void)domid, (void)enable, (void)data;
    return 0; /* these guests have no device model */
}

static int save(struct engine *engine)
{
    struct save_callbacks callbacks = {.suspend = suspend, .switch_qemu_logdirty = switch_logdirty, .data = engine};

    callbacks.precopy_policy = p2mguard_precopy_policy;
    int error = xc_domain_save(engine->xc, STDOUT_FILENO, engine->domid, XCFLAGS_LIVE, &callbacks, XC_STREAM_PLAIN, -1);
    if (engine->suspended &&
        (xc_domain_resume(engine->xc, engine->domid, 1) || !xs_resume_domain(engine->store, engine->domid)))
        fprintf(stderr, "engine: the guest was not resumed\n");
    return error;
}

int main(int argc, char **argv)
{
    static const char *const policy[] = {"attempts=10", NULL};
    struct p2mguard *guard;
    struct engine engine = {.xc = xc_interface_open(NULL, NULL, 0), .store = xs_open(0)};
    char session[P2MGUARD_SESSION_SIZE];

    if (argc != 2 || !engine.xc || !engine.store || p2mguard_connect(&guard, NULL) < 0)
        return 2;
    engine.domid = (uint32_t)atoi(argv[1]);
    if (p2mguard_begin(guard, argv[1], policy, P2MGUARD_WAIT, session) < 0) {
        fprintf(stderr, "engine: %s\n", p2mguard_error_text(guard));
        return 2;
    }
    engine.precopy = (struct p2mguard_precopy){.guard = guard, .session = session};
    int error = save(&engine);
    fprintf(stderr, "%d %d %s %d\n", error, engine.precopy.verdict, engine.precopy.reason, engine.suspended);
    p2mguard_end(guard, session, P2MGUARD_FAILED, NULL); /* it runs on here */
    p2mguard_close(guard);
    return error ? 1 : 0;
}
