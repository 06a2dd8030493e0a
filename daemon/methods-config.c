/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon.config, daemon.reload and domain.policy: what is in force, and where it came from. */
#include "daemon/methods-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/configuration.h"
#include "daemon/text.h"

static const char *config_source(enum settings_source source)
{
    static const char *const names[] = {
        [SETTINGS_DEFAULT] = "default", [SETTINGS_FROM_FILE] = "file", [SETTINGS_FROM_COMMAND_LINE] = "command-line"};

    return names[source];
}

/* Paths may have bytes that are no UTF-8. */
static json_t *config_text(const char *text)
{
    char *copy = text ? strdup(text) : NULL;

    if (!text)
        return json_null();
    if (copy)
        text_make_utf8(copy);
    json_t *string = copy ? json_string(copy) : NULL;
    free(copy);
    return string;
}

static json_t *config_default(const struct settings_key *key)
{
    struct settings standard;

    settings_init(&standard);
    return configuration_value(key, settings_key_base(&standard, key));
}

/* A value and where it came from. */
static json_t *config_origin(const struct settings *settings, const struct settings_key *key, const void *base,
                             const struct settings_origin *origin)
{
    bool from_file = origin->source == SETTINGS_FROM_FILE;

    return json_pack("{s:o,s:s,s:o,s:o}", "value", configuration_value(key, base), "origin",
                     config_source(origin->source), "file", config_text(settings_origin_file(settings, origin)), "line",
                     from_file ? json_integer(origin->line) : json_null());
}

/* Frees both when either is missing. */
static json_t *config_join(json_t *object, json_t *more)
{
    if (!object || !more || json_object_update(object, more) < 0) {
        json_decref(object);
        object = NULL;
    }
    json_decref(more);
    return object;
}

/* A key that takes a restart, and is not in force as it is configured now. */
static json_t *config_pending(struct configuration *configuration, size_t index)
{
    const struct settings_key *key = &settings_keys[index];
    const void *now = settings_key_base(&configuration->started, key);
    const void *next = settings_key_base(&configuration->latest, key);
    char texts[2][SETTINGS_TEXT_MAX];

    settings_key_print(key, now, texts[0]);
    settings_key_print(key, next, texts[1]);
    if (!key->restart || strcmp(texts[0], texts[1]) == 0)
        return json_null();
    return config_origin(&configuration->latest, key, next, &configuration->latest.origins[index]);
}

static json_t *config_key(struct configuration *configuration, size_t index)
{
    const struct settings_key *key = &settings_keys[index];
    struct settings *settings = configuration_of(configuration, key);

    return config_join(json_pack("{s:s,s:s,s:o,s:b,s:o}", "section", key->of_policy ? "policy" : "daemon", "key",
                                 key->name, "default", config_default(key), "restart", (int)key->restart, "pending",
                                 config_pending(configuration, index)),
                       config_origin(settings, key, settings_key_base(settings, key), &settings->origins[index]));
}

/* What a section [domain ...] says, in the order of the table. */
static json_t *config_domain(const struct settings *settings, const struct settings_domain *domain)
{
    json_t *keys = json_array();

    for (size_t i = 0; i < SETTINGS_KEYS && keys; i++) {
        if (domain->origins[i].source == SETTINGS_DEFAULT)
            continue;
        json_t *record =
            config_join(json_pack("{s:s}", "key", settings_keys[i].name),
                        config_origin(settings, &settings_keys[i], &domain->guarding, &domain->origins[i]));
        if (json_array_append_new(keys, record) < 0) {
            json_decref(keys);
            keys = NULL;
        }
    }
    return json_pack("{s:s,s:s,s:o,s:i,s:o}", "section", domain->section, "by", domain->is_uuid ? "uuid" : "name",
                     "file", config_text(settings_origin_file(settings, &domain->origin)), "line", domain->origin.line,
                     "keys", keys);
}

/* Appends what it is given; a list that is lost meanwhile is NULL from then on. */
static void config_append(json_t **list, json_t *value)
{
    if (*list && json_array_append_new(*list, value) == 0)
        return;
    if (!*list)
        json_decref(value);
    json_decref(*list);
    *list = NULL;
}

static json_t *config_files(const struct settings *settings)
{
    json_t *files = json_array();

    for (size_t i = 0; i < settings->file_count; i++)
        config_append(&files, config_text(settings->files[i]));
    return files;
}

void run_config(struct rpc_call *call, const json_t *params, void *context)
{
    struct configuration *configuration = ((struct methods *)context)->configuration;
    const struct settings *latest = &configuration->latest;
    json_t *keys = json_array(), *domains = json_array();
    (void)params;

    for (size_t i = 0; i < SETTINGS_KEYS; i++)
        config_append(&keys, config_key(configuration, i));
    for (size_t i = 0; i < latest->domain_count; i++)
        config_append(&domains, config_domain(latest, &latest->domains[i]));
    rpc_reply(call, json_pack("{s:o,s:o,s:o}", "files", config_files(latest), "keys", keys, "domains", domains));
}

void run_reload(struct rpc_call *call, const json_t *params, void *context)
{
    struct methods *methods = context;
    struct settings_problem problem;
    char text[SETTINGS_PROBLEM_MAX];
    json_t *changes = NULL;
    (void)params;

    int error = methods->reload(methods->reload_context, &changes, &problem);
    if (error == -ENOMEM)
        methods_fail_errno(call, error);
    else if (error)
        methods_fail(call, P2MG_ERROR_CONFIGURATION, "the configuration is not right, and stays as it was",
                     json_pack("{s:o,s:o,s:o}", "what", config_text(settings_problem_text(&problem, text)), "file",
                               config_text(problem.file), "line",
                               problem.line ? json_integer(problem.line) : json_null()));
    else
        rpc_reply(call, json_pack("{s:o,s:o}", "files", config_files(methods->settings), "changes", changes));
}

static void domain_policy_found(struct waiter *waiter, const struct lookup_domain *found, size_t count)
{
    const struct settings *settings = waiter->methods->settings;
    const struct settings_domain *sections[SETTINGS_KEYS], *last;
    struct settings_origin origins[SETTINGS_KEYS];
    struct settings_guarding guarding;
    json_t *keys = json_array();
    (void)count;

    last = settings_guarding_of(settings, found->name, found->domain.uuid, &guarding, origins, sections);
    for (size_t i = 0; i < SETTINGS_KEYS; i++)
        if (settings_keys[i].of_policy)
            config_append(
                &keys,
                config_join(json_pack("{s:s,s:s,s:o}", "section", sections[i] ? sections[i]->section : "policy", "key",
                                      settings_keys[i].name, "default", config_default(&settings_keys[i])),
                            config_origin(settings, &settings_keys[i], &guarding, &origins[i])));
    rpc_reply(waiter->call,
              json_pack("{s:i,s:s,s:s,s:s?,s:o}", "domid", (int)found->domain.domid, "name", found->name, "uuid",
                        found->domain.uuid, "policy_section", last ? last->section : NULL, "keys", keys));
}

void run_domain_policy(struct rpc_call *call, const json_t *params, void *context)
{
    char *wanted = methods_domain_text(call, params);

    if (wanted)
        methods_look_up(context, call, wanted, LOOKUP_NAME, domain_policy_found);
}
