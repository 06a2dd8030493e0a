/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/gate.h"
#include "daemon/log.h"
#include "daemon/migrate-store.h"

int recovery_put_back(const struct worker_tools *tools, uint16_t domid, struct journal *journal)
{
    struct gate gate = {.taken = true, .left = true};
    uint16_t heir;
    int error = journal_read(tools->store, 0, domid, &gate.journal);

    if (error == -ENOENT) {
        error = journal_drop(tools->store, 0, domid); /* an empty folder: nothing was changed */
        return error ? error : -ENOENT;
    }
    if (error == -ENOTCONN)
        return error;
    if (error) {
        log_error(
            "domain %u: the journal of an earlier daemon cannot be read (%s); it is left as it is, in " JOURNAL_SESSIONS
            "/%u",
            domid, strerror(-error), domid);
        return -EBADMSG;
    }
    bool passing = false;
    error = journal_read_passing(tools->store, 0, domid, &passing);
    if (!error && !passing) /* or it was told, and may have begun anew since */
        error = migrate_store_void(tools->store, domid);
    if (error && error != -ENOTCONN)
        log_warning("domain %u: telling its caller in xenstore failed: %s", domid, strerror(-error));
    error = gate_hand_over(&gate, tools, &heir);
    if (error && error != -EINPROGRESS) {
        log_error("domain %u: putting back what an earlier daemon left failed: %s", domid, strerror(-error));
        return error == -ENOENT || error == -EBADMSG ? -EIO : error; /* which would mean something else here */
    }
    *journal = gate.journal;
    return error;
}

void recovery_log(const struct journal *journal)
{
    struct log_subject subject = {journal->domid, journal->session, "recovered"};

    log_about(LOG_NOTICE, &subject,
              "put back what an earlier daemon left: target %" PRIu64 " KiB, max_pages %" PRIu64 " KiB",
              (uint64_t)strtoull(journal_wanted_target(journal), NULL, 10), journal->max_kib);
}
