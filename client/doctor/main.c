/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The table of checks, what they need from each other, and how findings are written. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/doctor/doctor.h"
#include "config.h"
#include "daemon/journal.h"
#include "daemon/log.h"

/* p2mguardctl(8) has them. */
enum doctor_status { DOCTOR_GOOD = 0, DOCTOR_FAILED = 1, DOCTOR_USAGE = 2 };

/* Each wait has its own limit; this is for a xenstored that stops answering in between. */
#define DOCTOR_SILENCE_S 60

/* What a check cannot do without; named, where it is missing, in the finding. */
enum { NEEDS_HYPERVISOR = 1, NEEDS_STORE = 2, NEEDS_DAEMON = 4, NEEDS_PRIVCMD = 8 };

/* In the order in which they are made: later ones use what earlier ones have opened. */
static const struct check {
    const char *name;
    unsigned needs;
    doctor_check *run;
    const char *remedy; /* where the check has none of its own */
} checks[] = {
    {"dom0", 0, check_dom0, "boot Xen, with this system as its dom0; then: mount -t xenfs xenfs /proc/xen"},
    {"privcmd", 0, check_privcmd, "modprobe xen-privcmd"},
    {"hypervisor", NEEDS_PRIVCMD, check_hypervisor, "modprobe xen-privcmd, in dom0 and as root"},
    {"xen-version", NEEDS_HYPERVISOR, check_version, "install a newer Xen: apt install xen-system-amd64"},
    {"xenstored", 0, check_xenstored,
     "systemctl start xenstored.service (Debian: service xen start); where guests ran on one that has died, boot anew"},
    {"store-permissions", NEEDS_STORE, check_store_permissions,
     "set perms-activate = true in /etc/xen/oxenstored.conf, and boot anew"},
    {"store-write", NEEDS_STORE, check_store_write,
     "let XENSTORED_PATH name dom0's own xenstored, or unset it; dom0 has no quota there"},
    {"configuration", 0, check_configuration, ""},
    {"unit", 0, check_unit, "systemctl enable --now p2mguardd.service"},
    {"daemon", 0, check_daemon, "systemctl start p2mguardd.service (without systemd: p2mguardd(8))"},
    {"daemon-version", NEEDS_DAEMON, check_daemon_version, "systemctl restart p2mguardd.service"},
    {"permission", 0, check_permission, ""},
    {"open-files", NEEDS_DAEMON, check_descriptors, ""},
    {"journals", NEEDS_STORE, check_journals, "xenstore-chmod " JOURNAL_ROOT " n0"},
    {"save-helper", 0, check_save_helper, "apt install --reinstall p2mguard (from source: make install)"},
    {"libxl-helper", 0, check_real_helper, "apt install --reinstall xen-utils-common"},
    {"environment", 0, check_environment, ""},
    {"libvirt", 0, check_libvirt, ""},
    {"guests", NEEDS_HYPERVISOR, check_guests, "xl list shows which there are"},
    {"log-dirty", NEEDS_HYPERVISOR, check_logdirty,
     "boot a Xen that has shadow paging (CONFIG_SHADOW_PAGING), and let the firmware turn on EPT or NPT"},
    {"targets", NEEDS_HYPERVISOR | NEEDS_STORE, check_targets, ""},
    {"gates", NEEDS_HYPERVISOR | NEEDS_STORE, check_gates, ""},
    {"sizes", NEEDS_HYPERVISOR | NEEDS_STORE, check_sizes, ""},
    {"p2m", NEEDS_HYPERVISOR, check_p2m, ""},
    {"agents", NEEDS_STORE | NEEDS_HYPERVISOR, check_agents, ""},
};

#define CHECKS (sizeof(checks) / sizeof(checks[0]))

static const struct finding_style {
    const char *word, *json, *colour;
} finding_styles[] = {
    [FINDING_OK] = {"ok", "ok", "\033[32m"},
    [FINDING_WARNING] = {"warning", "warning", "\033[33m"},
    [FINDING_FAILED] = {"FAILED", "failed", "\033[1;31m"},
    [FINDING_SKIPPED] = {"skipped", "skipped", ""},
};

#define FINDING_STYLES (sizeof(finding_styles) / sizeof(finding_styles[0]))

/* ---- the command line ---- */

static void main_usage(FILE *to)
{
    fputs("usage: p2mguardctl [--socket PATH] [--json] doctor [--domain DOMAIN] [--config FILE]\n"
          "Looks at all that a guarded migration needs, and says how to mend what is missing; see p2mguardctl(8).\n",
          to);
}

static void main_parse(int argc, char **argv, struct doctor *doctor)
{
    static const struct option names[] = {
        {"socket", required_argument, NULL, 's'}, {"config", required_argument, NULL, 'c'},
        {"domain", required_argument, NULL, 'd'}, {"root", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},         {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0}};
    int name;

    doctor->root = "";
    while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (name) {
        case 's':
            doctor->socket = optarg;
            break;
        case 'c':
            doctor->config = optarg;
            break;
        case 'd':
            doctor->wanted = optarg;
            break;
        case 'r': /* for tests: the host's files are below there */
            doctor->root = optarg;
            break;
        case 'j':
            doctor->json = true;
            break;
        case 'V':
            puts("doctor (p2mguard) " PACKAGE_VERSION);
            exit(DOCTOR_GOOD);
        case 'h':
            main_usage(stdout);
            exit(DOCTOR_GOOD);
        default:
            main_usage(stderr);
            exit(DOCTOR_USAGE);
        }
    }
    if (optind < argc) {
        fprintf(stderr, "doctor: unexpected argument '%s'; one guest is named with --domain\n", argv[optind]);
        exit(DOCTOR_USAGE);
    }
}

/* ---- the checks ---- */

static const char *main_missing(const struct doctor *doctor, unsigned needs)
{
    if ((needs & NEEDS_PRIVCMD) && !doctor->has_privcmd)
        return "there is no way to the hypervisor";
    if ((needs & NEEDS_HYPERVISOR) && !doctor->tools.hypervisor)
        return "the hypervisor could not be asked";
    if ((needs & NEEDS_STORE) && !doctor->tools.store)
        return "xenstored could not be asked";
    if ((needs & NEEDS_DAEMON) && doctor->daemon != DAEMON_ANSWERS)
        return "p2mguardd could not be asked";
    return NULL;
}

static void main_check(struct doctor *doctor, const struct check *check, struct finding *finding)
{
    const char *missing = main_missing(doctor, check->needs);

    if (missing)
        finding_set(finding, FINDING_SKIPPED, "%s", missing);
    else
        check->run(doctor, finding);
    if (finding->status == FINDING_OK || finding->status == FINDING_SKIPPED)
        finding->remedy[0] = '\0';
    else if (!*finding->remedy)
        finding_remedy(finding, "%s", check->remedy);
}

/* ---- writing ---- */

static bool main_is_colourful(void)
{
    const char *no_colour = getenv("NO_COLOR"), *terminal = getenv("TERM");

    return isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && terminal && strcmp(terminal, "dumb") != 0;
}

static void main_print(const struct check *check, const struct finding *finding, bool colourful)
{
    const struct finding_style *style = &finding_styles[finding->status];

    printf("%s%-8s%s %-17s %s\n", colourful ? style->colour : "", style->word, colourful ? "\033[0m" : "", check->name,
           finding->found);
    if (*finding->remedy)
        printf("%-8s %-17s %s\n", "", "  to mend it:", finding->remedy);
    fflush(stdout);
}

static int main_add(json_t *list, const struct check *check, const struct finding *finding)
{
    return json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:s?}", "check", check->name, "status",
                                                 finding_styles[finding->status].json, "found", finding->found,
                                                 "remedy", *finding->remedy ? finding->remedy : NULL));
}

/* Each is written as soon as it is known. */
static int main_examine(struct doctor *doctor, json_t *list)
{
    unsigned counts[FINDING_STYLES] = {0};
    bool colourful = main_is_colourful();

    for (size_t i = 0; i < CHECKS; i++) {
        struct finding finding = {.status = FINDING_OK};
        main_check(doctor, &checks[i], &finding);
        counts[finding.status]++;
        if (!doctor->json) {
            main_print(&checks[i], &finding, colourful);
        } else if (main_add(list, &checks[i], &finding) < 0) {
            fputs("doctor: out of memory\n", stderr);
            return DOCTOR_FAILED;
        }
    }
    if (!doctor->json)
        printf("\n%u ok, %u warnings, %u failed, %u skipped\n", counts[FINDING_OK], counts[FINDING_WARNING],
               counts[FINDING_FAILED], counts[FINDING_SKIPPED]);
    else if (json_dumpf(list, stdout, JSON_COMPACT) == 0)
        putchar('\n');
    return counts[FINDING_FAILED] || fflush(stdout) != 0 ? DOCTOR_FAILED : DOCTOR_GOOD;
}

static void main_on_silence(int number)
{
    static const char text[] = "doctor: xenstored has stopped answering; the checks that are left were not made\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)number, (void)written;

    _exit(DOCTOR_FAILED);
}

int main(int argc, char **argv)
{
    static struct doctor doctor;

    main_parse(argc, argv, &doctor);
    log_set_program("doctor");
    log_open();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, main_on_silence);
    alarm(DOCTOR_SILENCE_S);
    json_t *list = json_array();
    if (!list) {
        fputs("doctor: out of memory\n", stderr);
        return DOCTOR_FAILED;
    }
    int status = main_examine(&doctor, list);
    json_decref(list);
    json_decref(doctor.info);
    free(doctor.guests);
    store_free(doctor.tools.store);
    hypervisor_close(doctor.tools.hypervisor);
    return status;
}
