/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * doctor: looks at all that a guarded migration needs on this host, and says how to mend what is missing.
 *
 * p2mguardctl(8) runs it for "doctor": a program of its own, so that p2mguardctl need not be linked with the
 * hypervisor's libraries. main.c has the table of checks. Each check writes one finding; what it needs from those
 * before it (a xenstored that answers, say) stands in the table, and without that it is skipped. Nothing is changed.
 */
#ifndef P2MGUARD_DOCTOR_H
#define P2MGUARD_DOCTOR_H

#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/connection.h"
#include "daemon/hypervisor.h"
#include "daemon/session.h"
#include "daemon/settings.h"
#include "daemon/worker.h"

#define FINDING_TEXT 512

enum finding_status { FINDING_OK, FINDING_WARNING, FINDING_FAILED, FINDING_SKIPPED };

struct finding {
    enum finding_status status;
    char found[FINDING_TEXT];
    char remedy[FINDING_TEXT]; /* "": the one of the check's row, where there is something to be mended */
};

/* How far the conversation with the daemon got. */
enum daemon_state { DAEMON_ABSENT, DAEMON_FORBIDDEN, DAEMON_SILENT, DAEMON_ANSWERS };

struct doctor_guest {
    struct hypervisor_domain domain;
    char name[SESSION_NAME_MAX]; /* "" where there is none, or no xenstored to ask */
};

struct doctor {
    const char *root;   /* put before the path of each of the host's files; "" but in tests */
    const char *socket; /* NULL: the configured one */
    const char *config; /* NULL: the standard one, which need not exist */
    const char *wanted; /* the one domain, or NULL for all */
    bool json;
    struct settings settings;
    bool has_privcmd;
    struct worker_tools tools; /* NULL in it for what cannot be reached */
    struct hypervisor_host host;
    enum daemon_state daemon;
    json_t *info; /* what daemon.info says, from DAEMON_ANSWERS on */
    struct doctor_guest *guests;
    size_t guest_count;
};

typedef void doctor_check(struct doctor *doctor, struct finding *finding);

/* ---- finding.c ---- */

/* Replaces what was found before. What others wrote comes out as UTF-8 without control characters. */
void finding_set(struct finding *finding, enum finding_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void finding_remedy(struct finding *finding, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A word for a shell that means `text`; written into `word` and returned. */
const char *finding_quote(const char *text, char word[PATH_MAX]);

/* Where the host's file `path` is found from here; written into `full` and returned. */
const char *doctor_path(const struct doctor *doctor, const char *path, char full[PATH_MAX]);

/* Reads the beginning of one of the host's files as text that ends with a NUL: its length, or a negative errno. */
ssize_t doctor_read(const struct doctor *doctor, const char *path, char *text, size_t size);

/* What systemd says of a unit: lines of PROPERTY=VALUE. -ENOSYS where there is no systemd. */
int doctor_ask_systemd(const struct doctor *doctor, const char *unit, const char *properties, char *text, size_t size);

/* The value of a property in such lines, written into `value` and returned; "" where there is none. */
const char *doctor_property(const char *lines, const char *name, char *value, size_t size);

/* ---- xen.c ---- */
doctor_check check_dom0, check_privcmd, check_hypervisor, check_version, check_logdirty;
doctor_check check_xenstored, check_store_permissions, check_store_write;

/* ---- service.c ---- */
doctor_check check_configuration, check_unit, check_daemon, check_daemon_version, check_permission, check_descriptors;
doctor_check check_journals;

/* ---- helper.c ---- */
doctor_check check_save_helper, check_real_helper, check_environment, check_libvirt;

/* ---- guests.c ---- */
doctor_check check_guests, check_targets, check_gates, check_sizes, check_p2m, check_agents;

#endif
