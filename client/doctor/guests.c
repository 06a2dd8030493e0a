/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The checks of guests: all of them, or the one that was named. Of several with the same trouble the first is told. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/doctor/doctor.h"
#include "daemon/journal.h"
#include "daemon/node.h"
#include "protocol/guest.h"

#define GUESTS_CHUNK 64

/* ---- which ---- */

static int guests_add(struct doctor *doctor, const struct hypervisor_domain *domain)
{
    struct doctor_guest *guests = reallocarray(doctor->guests, doctor->guest_count + 1, sizeof(*guests));

    if (!guests)
        return -ENOMEM;
    doctor->guests = guests;
    struct doctor_guest *guest = &guests[doctor->guest_count];
    memset(guest, 0, sizeof(*guest));
    guest->domain = *domain;
    int error =
        doctor->tools.store ? node_read_name(doctor->tools.store, domain->domid, guest->name, sizeof(guest->name)) : 0;
    char domid[8];
    snprintf(domid, sizeof(domid), "%u", domain->domid);
    bool meant = !doctor->wanted || strcmp(doctor->wanted, domid) == 0 ||
                 strcasecmp(doctor->wanted, domain->uuid) == 0 || strcmp(doctor->wanted, guest->name) == 0;
    doctor->guest_count += meant && !domain->dying;
    return error == -ENOTCONN ? error : 0;
}

static int guests_collect(struct doctor *doctor)
{
    struct hypervisor_domain chunk[GUESTS_CHUNK];
    unsigned next = 1;
    int count;

    do {
        count = hypervisor_list(doctor->tools.hypervisor, (uint16_t)next, GUESTS_CHUNK, chunk);
        for (int i = 0; i < count; i++) {
            int error = guests_add(doctor, &chunk[i]);
            if (error)
                return error;
            next = chunk[i].domid + 1u;
        }
    } while (count == GUESTS_CHUNK && next <= UINT16_MAX);
    return count < 0 ? count : 0;
}

void check_guests(struct doctor *doctor, struct finding *finding)
{
    int error = guests_collect(doctor);

    if (error) {
        finding_set(finding, FINDING_FAILED, "the domains of this host cannot be listed: %s", strerror(-error));
    } else if (doctor->wanted && doctor->guest_count == 0) {
        finding_set(finding, FINDING_FAILED, "there is no domain '%s'", doctor->wanted);
    } else if (!doctor->wanted) {
        finding_set(finding, FINDING_OK, "%zu guests", doctor->guest_count);
    } else {
        const struct doctor_guest *guest = &doctor->guests[0];
        bool paused = guest->domain.paused;
        finding_set(finding, paused ? FINDING_WARNING : FINDING_OK, "domain %u (%s) is %s guest%s", guest->domain.domid,
                    guest->name, guest->domain.hvm ? "an HVM or PVH" : "a PV",
                    paused ? ", and paused: it cannot come to rest" : "");
        finding_remedy(finding, "xl unpause %u", guest->domain.domid);
    }
}

/* ---- each ---- */

/* Sets the finding to what is wrong with the guest, or leaves it alone. An error ends the check. */
typedef int guest_look(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding);

static void guests_append(struct finding *worst, const char *more)
{
    size_t used = strlen(worst->found);

    snprintf(worst->found + used, sizeof(worst->found) - used, "%s", more);
}

static void guests_check(const struct doctor *doctor, guest_look *look, const char *good, struct finding *worst)
{
    unsigned others = 0;
    char more[64];

    finding_set(worst, FINDING_OK, "%s", good);
    for (size_t i = 0; i < doctor->guest_count; i++) {
        struct finding finding = {.status = FINDING_OK};
        int error = look(doctor, &doctor->guests[i], &finding);
        if (error && error != -ESRCH) {
            finding_set(worst, FINDING_FAILED, "domain %u: xenstored: %s", doctor->guests[i].domain.domid,
                        strerror(-error));
            return;
        }
        if (finding.status == FINDING_OK)
            continue;
        others += worst->status != FINDING_OK;
        if (worst->status == FINDING_OK || (worst->status == FINDING_WARNING && finding.status == FINDING_FAILED))
            *worst = finding;
    }
    snprintf(more, sizeof(more), " (and %u more)", others);
    if (others)
        guests_append(worst, more);
}

/* What keeps one guest from being held is a failure where it is that guest that is asked about. */
static enum finding_status guests_severity(const struct doctor *doctor)
{
    return doctor->wanted ? FINDING_FAILED : FINDING_WARNING;
}

static uint64_t guest_kib(const struct doctor *doctor, uint64_t pages)
{
    return pages * hypervisor_page_kib(doctor->tools.hypervisor);
}

/* -ENOENT: there is none, or it is no number. */
static int guest_read_target(const struct doctor *doctor, uint16_t domid, uint64_t *target_kib)
{
    char text[JOURNAL_TARGET_MAX];
    int error = node_read(doctor->tools.store, domid, "memory/target", text, sizeof(text));

    if (error == -EMSGSIZE || (!error && !journal_is_target(text)))
        return -ENOENT;
    *target_kib = error ? 0 : strtoull(text, NULL, 10);
    return error;
}

static int guest_look_target(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding)
{
    uint16_t domid = guest->domain.domid;
    uint64_t target_kib;
    int error = guest_read_target(doctor, domid, &target_kib);

    if (error != -ENOENT)
        return error;
    finding_set(finding, guests_severity(doctor), "domain %u (%s) has no memory/target, and cannot be held", domid,
                guest->name);
    finding_remedy(finding, "xenstore-write /local/domain/%u/memory/target %" PRIu64, domid,
                   guest_kib(doctor, guest->domain.tot_pages));
    return 0;
}

void check_targets(struct doctor *doctor, struct finding *finding)
{
    guests_check(doctor, guest_look_target, "each has a memory target", finding);
}

/* ---- gates ---- */

/* Permissions as store.h has them: the first entry is the owner's, and its letter is for all who have no entry. */
static bool guest_may_read(const char *perms, uint16_t domid, bool *owner)
{
    char own[8];
    size_t length = (size_t)snprintf(own, sizeof(own), "%u", domid);

    *owner = false;
    for (const char *at = perms, *next; at; at = next) {
        next = strchr(at, ',');
        next = next ? next + 1 : NULL;
        bool reads = *at == 'r' || *at == 'b';
        bool its = *at && strncmp(at + 1, own, length) == 0 && (at[1 + length] == ',' || !at[1 + length]);
        if (at == perms)
            *owner = its;
        if (its)
            return reads || *owner;
    }
    return *perms == 'r' || *perms == 'b';
}

static int guest_read_access(const struct doctor *doctor, uint16_t domid, bool *reads, bool *owns)
{
    char path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];
    bool of_folder, of_target;
    int error = store_get_perms(doctor->tools.store, 0, node_path(domid, "memory", path), perms, sizeof(perms));

    if (error)
        return error;
    *reads = guest_may_read(perms, domid, &of_folder);
    error = store_get_perms(doctor->tools.store, 0, node_path(domid, "memory/target", path), perms, sizeof(perms));
    *reads = !error && guest_may_read(perms, domid, &of_target) && *reads;
    *owns = of_folder || (!error && of_target);
    return error;
}

/* A closed gate has its journal, written in the same transaction; one that was just opened reads open the next time. */
static int guest_look_gate(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding)
{
    uint16_t domid = guest->domain.domid;
    struct journal journal;
    bool reads, owns;
    int error = guest_read_access(doctor, domid, &reads, &owns);

    if (!error && !reads && journal_read(doctor->tools.store, 0, domid, &journal) == -ENOENT)
        error = guest_read_access(doctor, domid, &reads, &owns);
    else if (!error && !reads)
        return 0;
    if (error)
        return error == -ENOENT ? 0 : error; /* the target's check tells of it */
    if (!reads)
        finding_set(finding, FINDING_FAILED, "domain %u (%s) may not read its target, and nobody holds it", domid,
                    guest->name);
    else if (owns)
        finding_set(finding, guests_severity(doctor),
                    "domain %u (%s) owns its memory nodes, and can open what is closed", domid, guest->name);
    finding_remedy(
        finding,
        "xenstore-chmod /local/domain/%u/memory n0 r%u && xenstore-chmod /local/domain/%u/memory/target n0 r%u", domid,
        domid, domid, domid);
    return 0;
}

void check_gates(struct doctor *doctor, struct finding *finding)
{
    guests_check(doctor, guest_look_gate, "each may read its target, or is held", finding);
}

/* ---- sizes ---- */

static int guest_look_size(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding)
{
    uint64_t target_kib, max_kib = guest_kib(doctor, guest->domain.max_pages);
    uint16_t domid = guest->domain.domid;
    struct journal journal;
    int error = guest_read_target(doctor, domid, &target_kib);

    if (error || target_kib <= max_kib)
        return error == -ENOENT ? 0 : error;
    error = journal_read(doctor->tools.store, 0, domid, &journal);
    if (error != -ENOENT)
        return error == -EINVAL ? 0 : error; /* held: max_pages is the daemon's */
    finding_set(finding, guests_severity(doctor),
                "domain %u (%s) has a target of %" PRIu64 " KiB and a max_pages of %" PRIu64
                " KiB: it never gets there",
                domid, guest->name, target_kib, max_kib);
    finding_remedy(finding, "xl mem-set %u %" PRIu64 "k", domid, target_kib);
    return 0;
}

void check_sizes(struct doctor *doctor, struct finding *finding)
{
    guests_check(doctor, guest_look_size, "each can get to its target", finding);
}

/* ---- p2m ---- */

static int guest_look_p2m(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding)
{
    struct hypervisor_p2m *p2m = NULL;
    int error = hypervisor_map_p2m(doctor->tools.hypervisor, &guest->domain, &p2m);

    hypervisor_unmap_p2m(p2m);
    if (!error || error == -ENODATA || error == -ESRCH)
        return 0;
    finding_set(finding, guests_severity(doctor), "domain %u (%s): its shared info page cannot be read: %s",
                guest->domain.domid, guest->name, strerror(-error));
    finding_remedy(finding,
                   "xl dmesg and dmesg say why; where xl getenforce says Enforcing, the policy has to let dom0 map "
                   "the guest's pages");
    return 0;
}

void check_p2m(struct doctor *doctor, struct finding *finding)
{
    guests_check(doctor, guest_look_p2m, "the p2m of each PV guest can be read", finding);
}

/* ---- agents ---- */

static bool agents_are_required(const struct doctor *doctor)
{
    return doctor->settings.guarding.policy.require == P2MG_REQUIRE_AGENT;
}

/* What the agent that there is has to say: of another version, refusing, or frozen though nobody has asked. */
static int agent_look_closer(const struct doctor *doctor, const struct doctor_guest *guest, const char *features_text,
                             struct finding *finding)
{
    uint16_t domid = guest->domain.domid;
    char text[P2MG_GUEST_TEXT_MAX], request[P2MG_GUEST_TEXT_MAX];
    struct p2mg_features features;
    struct p2mg_answer answer;
    enum finding_status status = agents_are_required(doctor) ? FINDING_FAILED : FINDING_WARNING;

    if (p2mg_features_parse(features_text, strlen(features_text), &features)) {
        finding_set(finding, status, "domain %u (%s): its agent's features cannot be understood", domid, guest->name);
        finding_remedy(finding, "in that guest: systemctl restart p2mguard-agent.service");
        return 0;
    }
    if (features.protocol != P2MG_GUEST_PROTOCOL) {
        finding_set(finding, status,
                    "domain %u (%s): its agent speaks protocol %" PRIu32 ", this host %d: it is not asked", domid,
                    guest->name, features.protocol, P2MG_GUEST_PROTOCOL);
        finding_remedy(finding, "%s; p2mguard-agent(8)",
                       features.protocol > P2MG_GUEST_PROTOCOL ? "install a newer p2mguard on this host"
                                                               : "install a newer p2mguard-agent in that guest");
        return 0;
    }
    int error = node_read(doctor->tools.store, domid, P2MG_GUEST_STATE, text, sizeof(text));
    if (error || p2mg_answer_parse(text, strlen(text), &answer))
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    if (answer.kind == P2MG_ANSWER_REFUSED) {
        finding_set(finding, status, "domain %u (%s): its agent has refused to freeze it: %s", domid, guest->name,
                    answer.text);
        finding_remedy(finding, "in that guest: journalctl -u p2mguard-agent.service; p2mguard-agent(8)");
        return 0;
    }
    error = node_read(doctor->tools.store, domid, P2MG_GUEST_REQUEST, request, sizeof(request));
    if (answer.kind != P2MG_ANSWER_FROZEN || error != -ENOENT)
        return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
    finding_set(finding, FINDING_WARNING, "domain %u (%s): its agent says that it is frozen, and nobody asks for that",
                domid, guest->name);
    finding_remedy(finding, "in that guest: systemctl restart p2mguard-agent.service");
    return 0;
}

static int guest_look_agent(const struct doctor *doctor, const struct doctor_guest *guest, struct finding *finding)
{
    char text[P2MG_GUEST_TEXT_MAX];
    int error = node_read(doctor->tools.store, guest->domain.domid, P2MG_GUEST_FEATURES, text, sizeof(text));

    if (!error || error == -EMSGSIZE)
        return agent_look_closer(doctor, guest, text, finding);
    if (error != -ENOENT || !agents_are_required(doctor))
        return error == -ENOENT ? 0 : error;
    finding_set(finding, guests_severity(doctor), "domain %u (%s) has no agent, and the policy requires one",
                guest->domain.domid, guest->name);
    finding_remedy(finding, "install p2mguard-agent in that guest, or set require = settled in p2mguard.conf(5)");
    return 0;
}

/* How many there are is worth to be known where nothing is wrong with them. */
void check_agents(struct doctor *doctor, struct finding *finding)
{
    char good[64], text[P2MG_GUEST_TEXT_MAX];
    size_t count = 0;

    for (size_t i = 0; i < doctor->guest_count; i++)
        count +=
            !node_read(doctor->tools.store, doctor->guests[i].domain.domid, P2MG_GUEST_FEATURES, text, sizeof(text));
    snprintf(good, sizeof(good), "%zu of %zu guests have one", count, doctor->guest_count);
    guests_check(doctor, guest_look_agent, good, finding);
}
