/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/settings.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "daemon/settings-table.h"

#define SETTINGS_DOMAIN "domain "

const char *settings_problem_text(const struct settings_problem *problem, char text[SETTINGS_PROBLEM_MAX])
{
    if (problem->line)
        snprintf(text, SETTINGS_PROBLEM_MAX, "%s:%d: %s", problem->file, problem->line, problem->what);
    else
        snprintf(text, SETTINGS_PROBLEM_MAX, "%s: %s", problem->file, problem->what);
    return text;
}

void settings_init(struct settings *settings)
{
    memset(settings, 0, sizeof(*settings));
    for (size_t i = 0; i < SETTINGS_KEYS; i++)
        settings_key_set_default(&settings_keys[i], settings_key_base(settings, &settings_keys[i]));
}

void settings_clear(struct settings *settings)
{
    for (size_t i = 0; i < settings->file_count; i++)
        free(settings->files[i]);
    free(settings->files);
    free(settings->domains);
    settings_init(settings);
}

int settings_copy_values(struct settings *to, const struct settings *from)
{
    *to = *from;
    to->domains = NULL;
    to->domain_count = to->file_count = 0;
    to->files = calloc(from->file_count + 1, sizeof(*to->files));
    while (to->files && to->file_count < from->file_count &&
           (to->files[to->file_count] = strdup(from->files[to->file_count])))
        to->file_count++;
    if (to->files && to->file_count == from->file_count)
        return 0;
    settings_clear(to);
    return -ENOMEM;
}

static bool settings_fits(const struct settings_domain *domain, const char *name, const char *uuid)
{
    const char *wanted = domain->section + strlen(SETTINGS_DOMAIN);

    return domain->is_uuid ? strcasecmp(wanted, uuid) == 0 : fnmatch(wanted, name, 0) == 0;
}

/* Where the values of a guest's policy come from; both may be NULL. */
struct settings_sight {
    struct settings_origin *origins;
    const struct settings_domain **sections;
};

static void settings_lay_over(const struct settings_domain *domain, struct settings_guarding *guarding,
                              const struct settings_sight *sight)
{
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        if (domain->origins[i].source == SETTINGS_DEFAULT)
            continue;
        settings_key_copy(&settings_keys[i], guarding, &domain->guarding);
        if (sight->origins)
            sight->origins[i] = domain->origins[i];
        if (sight->sections)
            sight->sections[i] = domain;
    }
}

const struct settings_domain *settings_guarding_of(const struct settings *settings, const char *name, const char *uuid,
                                                   struct settings_guarding *guarding,
                                                   struct settings_origin origins[SETTINGS_KEYS],
                                                   const struct settings_domain *sections[SETTINGS_KEYS])
{
    const struct settings_sight sight = {origins, sections};
    const struct settings_domain *last = NULL;

    *guarding = settings->guarding;
    if (origins)
        memcpy(origins, settings->origins, sizeof(settings->origins));
    for (size_t i = 0; sections && i < SETTINGS_KEYS; i++)
        sections[i] = NULL;
    for (int uuids = 0; uuids < 2; uuids++) {
        for (size_t i = 0; i < settings->domain_count; i++) {
            const struct settings_domain *domain = &settings->domains[i];
            if (domain->is_uuid == (uuids == 1) && settings_fits(domain, name, uuid)) {
                settings_lay_over(domain, guarding, &sight);
                last = domain;
            }
        }
    }
    return last;
}

const struct settings_domain *settings_find_domain(const struct settings *settings, const char *section, size_t key)
{
    const struct settings_domain *last = NULL;

    for (size_t i = 0; i < settings->domain_count; i++)
        if (strcmp(settings->domains[i].section, section) == 0 &&
            settings->domains[i].origins[key].source != SETTINGS_DEFAULT)
            last = &settings->domains[i];
    return last;
}

const char *settings_origin_file(const struct settings *settings, const struct settings_origin *origin)
{
    return origin->source == SETTINGS_FROM_FILE ? settings->files[origin->file] : NULL;
}
