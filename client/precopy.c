/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* p2mguard_precopy_policy: the daemon's verdict between a migration engine and its own wish to go on. */
#include <stdio.h>

#include <xenctrl.h>

#include <xenguest.h> /* which needs the other, and does not say so */

#include "client/p2mguard.h"

/* What libxenguest does where no policy is set (tools/libs/guest/xg_sr_save.c). */
#define PRECOPY_ITERATIONS_MOST 5
#define PRECOPY_DIRTY_LEAST 50

static int precopy_usual_policy(struct precopy_stats stats)
{
    bool few = stats.dirty_count >= 0 && stats.dirty_count < PRECOPY_DIRTY_LEAST;

    return few || stats.iteration >= PRECOPY_ITERATIONS_MOST ? XGS_POLICY_STOP_AND_COPY : XGS_POLICY_CONTINUE_PRECOPY;
}

int p2mguard_precopy_policy(struct precopy_stats stats, void *data)
{
    struct p2mguard_precopy *precopy = data;
    struct p2mguard_record *record = NULL;
    int decision = precopy->policy ? precopy->policy(stats, data) : precopy_usual_policy(stats);

    if (decision == XGS_POLICY_ABORT)
        return decision;
    precopy->verdict =
        p2mguard_verdict(precopy->guard, precopy->session,
                         decision == XGS_POLICY_CONTINUE_PRECOPY ? P2MGUARD_PRECOPY : P2MGUARD_FINAL, &record);
    const char *reason = record ? p2mguard_record_text(record, "reason") : NULL;
    snprintf(precopy->reason, sizeof(precopy->reason), "%s", reason ? reason : "error");
    p2mguard_record_free(record);
    return precopy->verdict == P2MGUARD_PROCEED ? decision : XGS_POLICY_ABORT;
}
