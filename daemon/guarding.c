/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/guarding.h"

#include <string.h>

_Static_assert(SESSION_SECTION_MAX >= SETTINGS_SECTION_MAX, "a section's name fits");

void guarding_configure(struct session_options *options, const struct settings *settings, const char *name,
                        const char *uuid, unsigned named)
{
    const struct p2mg_policy asked = options->policy;
    struct settings_guarding guarding;
    const struct settings_domain *last = settings_guarding_of(settings, name, uuid, &guarding, NULL, NULL);

    options->policy = guarding.policy;
    p2mg_policy_take(&options->policy, &asked, named);
    options->forbidden = !guarding.guard;
    strcpy(options->section, last ? last->section : "");
}
