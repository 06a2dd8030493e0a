/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who asked for which change, and whether it was granted: one line in the log for each, whatever log_level says.
 *
 * In the journal the lines have AUDIT_MESSAGE_ID and fields. Callers that are refused cannot fill the log: of each uid
 * the first AUDIT_BURST refusals in AUDIT_WINDOW_MS are written, the others counted, and their number is written at the
 * end of that time. Loop thread only.
 */
#ifndef P2MGUARD_AUDIT_H
#define P2MGUARD_AUDIT_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define AUDIT_MESSAGE_ID "5a1c8c1e64f34f1f9d0a7a3d0f6be1c2"

/* Uids beyond AUDIT_UIDS at once share one count. */
enum { AUDIT_UIDS = 32, AUDIT_BURST = 10, AUDIT_WINDOW_MS = 10000 };

/* What is not known is NULL or 0. */
struct audit_entry {
    const char *method;
    const char *outcome; /* "granted", "invalid" or "refused" */
    bool xenstore;       /* came as a node: dom0's, and nobody knows whose. pid and uid are not known, then */
    pid_t pid;
    uid_t uid;
    int domid;
    const char *domain; /* as it was asked for: a peer's own words */
    const char *session;
};

void audit_write(const struct audit_entry *entry);

struct audit;

int audit_new(struct audit **audit, struct event_base *base);

/* Writes what is still to be told. Accepts NULL. */
void audit_free(struct audit *audit);

/* audit_write, within what refusals may take. */
void audit_write_refusal(struct audit *audit, const struct audit_entry *entry);

#endif
