/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/configuration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/text.h"

/* ---- reading ---- */

static int configuration_refuse_socket(struct settings_problem *problem, size_t most)
{
    *problem = (struct settings_problem){.file = "--socket"};
    snprintf(problem->what, sizeof(problem->what), "--socket is too long, expected at most %zu bytes", most);
    return -EINVAL;
}

static void configuration_say_so(struct settings *settings, const char *name)
{
    settings->origins[settings_key_find(false, name)].source = SETTINGS_FROM_COMMAND_LINE;
}

/* The command line goes before the files. */
static int configuration_override(const struct configuration_options *options, struct settings *settings,
                                  struct settings_problem *problem)
{
    if (options->socket && strlen(options->socket) >= sizeof(settings->socket))
        return configuration_refuse_socket(problem, sizeof(settings->socket) - 1);
    if (options->socket) {
        strcpy(settings->socket, options->socket);
        configuration_say_so(settings, "socket");
    }
    if (options->log_level >= 0) {
        settings->log_level = options->log_level;
        configuration_say_so(settings, "log_level");
    }
    return 0;
}

static int configuration_read(const struct configuration_options *options, struct settings *settings,
                              struct settings_problem *problem)
{
    struct settings_sources sources;
    char *folder;

    *problem = (struct settings_problem){.what = "out of memory"};
    snprintf(problem->file, sizeof(problem->file), "%s", options->config ? options->config : SETTINGS_FILE);
    if (settings_sources_of(&sources, options->config, &folder))
        return -ENOMEM;
    int error = settings_load(settings, &sources, problem);
    free(folder);
    if (error)
        return error;
    error = configuration_override(options, settings, problem);
    if (error)
        settings_clear(settings);
    return error;
}

int configuration_load(struct configuration *configuration, const struct configuration_options *options,
                       struct settings_problem *problem)
{
    configuration->options = *options;
    int error = configuration_read(options, &configuration->latest, problem);

    if (error)
        return error;
    error = settings_copy_values(&configuration->started, &configuration->latest);
    if (error)
        settings_clear(&configuration->latest);
    return error;
}

void configuration_clear(struct configuration *configuration)
{
    settings_clear(&configuration->started);
    settings_clear(&configuration->latest);
}

struct settings *configuration_of(struct configuration *configuration, const struct settings_key *key)
{
    return key->restart ? &configuration->started : &configuration->latest;
}

/* ---- what is another than before ---- */

json_t *configuration_value(const struct settings_key *key, const void *base)
{
    char text[SETTINGS_TEXT_MAX];

    settings_key_print(key, base, text);
    if (key->kind == SETTINGS_NUMBER)
        return json_integer(strtoll(text, NULL, 10));
    text_make_utf8(text);
    return *text ? json_string(text) : json_null();
}

/* NULL: the section did not have, or does not have, the key. */
static int configuration_note(json_t *changes, const char *section, const struct settings_key *key, const void *before,
                              const void *now)
{
    char texts[2][SETTINGS_TEXT_MAX] = {"", ""};

    if (before)
        settings_key_print(key, before, texts[0]);
    if (now)
        settings_key_print(key, now, texts[1]);
    if (!before == !now && strcmp(texts[0], texts[1]) == 0)
        return 0;
    return json_array_append_new(changes, json_pack("{s:s,s:s,s:o,s:o,s:b}", "section", section, "key", key->name,
                                                    "before", before ? configuration_value(key, before) : json_null(),
                                                    "now", now ? configuration_value(key, now) : json_null(), "restart",
                                                    (int)key->restart));
}

/* Its last section that has the key is the one that counts. */
static const void *configuration_domain(const struct settings *settings, const char *section, size_t key)
{
    const struct settings_domain *domain = settings_find_domain(settings, section, key);

    return domain ? &domain->guarding : NULL;
}

/* The keys that sections have now; or, `gone`, those that they had before and have not any more. */
static int configuration_note_domains(json_t *changes, const struct settings *before, const struct settings *now,
                                      bool gone)
{
    const struct settings *of = gone ? before : now;

    for (size_t i = 0; i < of->domain_count; i++) {
        const char *section = of->domains[i].section;
        for (size_t k = 0; k < SETTINGS_KEYS; k++) {
            if (of->domains[i].origins[k].source == SETTINGS_DEFAULT)
                continue;
            const void *then = configuration_domain(before, section, k), *there = configuration_domain(now, section, k);
            bool counts = settings_find_domain(of, section, k) == &of->domains[i] && (!gone || !there);
            if (counts && configuration_note(changes, section, &settings_keys[k], then, there) < 0)
                return -ENOMEM;
        }
    }
    return 0;
}

static json_t *configuration_compare(struct configuration *configuration, struct settings *next)
{
    json_t *changes = json_array();

    for (size_t i = 0; i < SETTINGS_KEYS && changes; i++) {
        const struct settings_key *key = &settings_keys[i];
        const void *before = settings_key_base(configuration_of(configuration, key), key);
        if (configuration_note(changes, key->of_policy ? "policy" : "daemon", key, before,
                               settings_key_base(next, key)) < 0) {
            json_decref(changes);
            changes = NULL;
        }
    }
    if (changes && (configuration_note_domains(changes, &configuration->latest, next, false) ||
                    configuration_note_domains(changes, &configuration->latest, next, true))) {
        json_decref(changes);
        changes = NULL;
    }
    return changes;
}

int configuration_reload(struct configuration *configuration, json_t **changes, struct settings_problem *problem)
{
    struct settings next;
    int error = configuration_read(&configuration->options, &next, problem);

    if (error)
        return error;
    *changes = configuration_compare(configuration, &next);
    if (!*changes) {
        settings_clear(&next);
        *problem = (struct settings_problem){.what = "out of memory"};
        return -ENOMEM;
    }
    settings_clear(&configuration->latest);
    configuration->latest = next;
    return 0;
}
