/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl config: what is in force and where it came from, whether files are right, and reading them again.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/ctl.h"

#define CONFIG_KEY_WIDTH 23

struct config_options {
    bool changed;
    const char *domain;
};

/* ---- values ---- */

/* The value as it would be written; "-" for none. The caller frees it. */
static char *config_value(const json_t *value)
{
    char *text = NULL;

    if (json_is_integer(value)) {
        if (asprintf(&text, "%" JSON_INTEGER_FORMAT, json_integer_value(value)) < 0)
            text = NULL;
    } else {
        text = strdup(json_is_string(value) ? json_string_value(value) : "-");
    }
    return text;
}

/* "default", "command line", or "FILE:LINE" */
static char *config_from(const json_t *record)
{
    const char *origin = ctl_string(record, "origin");
    char *text = NULL;

    if (strcmp(origin, "file") != 0)
        return strdup(strcmp(origin, "command-line") == 0 ? "command line" : origin);
    if (asprintf(&text, "%s:%" PRId64, ctl_string(record, "file"), ctl_integer(record, "line", 0)) < 0)
        text = NULL;
    return text;
}

static int config_width(const json_t *keys)
{
    const json_t *record;
    size_t i, width = 0;

    json_array_foreach(keys, i, record)
    {
        char *value = config_value(json_object_get(record, "value"));
        size_t length = value ? strlen(value) : 0;
        width = length > width ? length : width;
        free(value);
    }
    return (int)width;
}

static void config_print_key(const json_t *record, int width)
{
    const json_t *pending = json_object_get(record, "pending");
    char *value = config_value(json_object_get(record, "value")), *from = config_from(record);

    printf("  %-*s %-*s  %s\n", CONFIG_KEY_WIDTH, ctl_string(record, "key"), width, value ? value : "?",
           from ? from : "?");
    free(value);
    free(from);
    if (!json_is_object(pending))
        return;
    value = config_value(json_object_get(pending, "value"));
    from = config_from(pending);
    printf("  %-*s %-*s  %s\n", CONFIG_KEY_WIDTH, "  after a restart", width, value ? value : "?", from ? from : "?");
    free(value);
    free(from);
}

static bool config_is_wanted(const json_t *record, const struct config_options *options)
{
    return !options->changed || strcmp(ctl_string(record, "origin"), "default") != 0 ||
           json_is_object(json_object_get(record, "pending"));
}

/* Keys of one section after another, each under its name; false when there was nothing to be shown. */
static bool config_print_keys(const json_t *keys, const struct config_options *options)
{
    int width = config_width(keys);
    const char *section = "";
    const json_t *record;
    size_t i;

    json_array_foreach(keys, i, record)
    {
        if (!config_is_wanted(record, options))
            continue;
        if (strcmp(section, ctl_string(record, "section")) != 0) {
            section = ctl_string(record, "section");
            printf("[%s]\n", section);
        }
        config_print_key(record, width);
    }
    return *section != '\0';
}

/* ---- what is in force ---- */

static void config_print(const json_t *result, const struct config_options *options)
{
    const json_t *domain, *file;
    size_t i;

    json_array_foreach(json_object_get(result, "files"), i, file) printf("# %s\n", json_string_value(file));
    bool any = config_print_keys(json_object_get(result, "keys"), options);
    json_array_foreach(json_object_get(result, "domains"), i, domain)
    {
        const json_t *keys = json_object_get(domain, "keys"), *record;
        int width = config_width(keys);
        size_t k;

        any = true;
        printf("[%s]\n", ctl_string(domain, "section"));
        json_array_foreach(keys, k, record) config_print_key(record, width);
    }
    if (!any)
        puts("all values are the defaults");
}

/* Each key with the section that it is from, for these may differ. */
static void config_print_domain(const json_t *result, const struct config_options *options)
{
    const json_t *keys = json_object_get(result, "keys"), *record;
    int width = config_width(keys);
    size_t i;

    printf("%s, domain %" PRId64 ", %s\n", ctl_string(result, "name"), ctl_integer(result, "domid", 0),
           ctl_string(result, "uuid"));
    json_array_foreach(keys, i, record)
    {
        if (!config_is_wanted(record, options))
            continue;
        char *value = config_value(json_object_get(record, "value")), *from = config_from(record);
        bool is_default = strcmp(ctl_string(record, "origin"), "default") == 0;
        printf("  %-*s %-*s  ", CONFIG_KEY_WIDTH, ctl_string(record, "key"), width, value ? value : "?");
        if (is_default)
            puts("default");
        else
            printf("[%s] %s\n", ctl_string(record, "section"), from ? from : "?");
        free(value);
        free(from);
    }
}

static int config_show(struct ctl *ctl, const struct config_options *options)
{
    json_t *params = options->domain ? json_pack("{s:s}", "domain", options->domain) : NULL, *result;
    int status = ctl_connect(ctl);

    if (status) {
        json_decref(params);
        return status;
    }
    status = ctl_call(ctl, options->domain ? "domain.policy" : "daemon.config", params, &result);
    if (status)
        return status;
    if (ctl->json)
        ctl_print_json(result);
    else if (options->domain)
        config_print_domain(result, options);
    else
        config_print(result, options);
    json_decref(result);
    return CTL_OK;
}

/* ---- reload ---- */

static void config_print_change(const json_t *change)
{
    char *before = config_value(json_object_get(change, "before")), *now = config_value(json_object_get(change, "now"));

    printf("[%s] %s: %s, was %s%s\n", ctl_string(change, "section"), ctl_string(change, "key"), now ? now : "?",
           before ? before : "?", json_is_true(json_object_get(change, "restart")) ? "; takes a restart" : "");
    free(before);
    free(now);
}

static int config_reload(struct ctl *ctl)
{
    json_t *result;
    const json_t *change;
    size_t i;
    int status = ctl_connect(ctl);

    if (!status)
        status = ctl_call(ctl, "daemon.reload", NULL, &result);
    if (status)
        return status;
    const json_t *changes = json_object_get(result, "changes");
    if (ctl->json) {
        ctl_print_json(result);
    } else {
        json_array_foreach(changes, i, change) config_print_change(change);
        if (json_array_size(changes) == 0)
            puts("nothing has changed");
    }
    json_decref(result);
    return CTL_OK;
}

/* ---- check ---- */

/* Becomes the daemon's program, which is the one to know; returns only when that cannot be had. */
static int config_check(const struct ctl *ctl, int count, char **files)
{
    const char *program = getenv("P2MGUARD_DAEMON");
    char **arguments = calloc((size_t)count + 5, sizeof(*arguments));
    int given = 0;

    if (!program || !*program)
        program = DAEMON_PROGRAM;
    if (!arguments) {
        return ctl_fail("out of memory");
    }
    arguments[given++] = (char *)(uintptr_t)program;
    arguments[given++] = (char *)(uintptr_t) "--check-config";
    if (ctl->json)
        arguments[given++] = (char *)(uintptr_t) "--json";
    arguments[given++] = (char *)(uintptr_t) "--";
    memcpy(arguments + given, files, (size_t)count * sizeof(*files));
    execv(program, arguments);
    int status = ctl_fail("%s cannot be run: %s", program, strerror(errno));
    free(arguments);
    return status;
}

/* ---- the command ---- */

int config_command(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {
        {"changed", no_argument, NULL, 'c'}, {"domain", required_argument, NULL, 'd'}, {NULL, 0, NULL, 0}};
    struct config_options options = {.changed = false};
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name == 'c')
            options.changed = true;
        else if (name == 'd')
            options.domain = optarg;
        else
            return CTL_USAGE;
    }
    if (optind == argc)
        return config_show(ctl, &options);
    if (options.changed || options.domain)
        return ctl_usage_error("config", "--changed and --domain stand alone, not before '%s'", argv[optind]);
    if (strcmp(argv[optind], "check") == 0)
        return config_check(ctl, argc - optind - 1, argv + optind + 1);
    if (strcmp(argv[optind], "reload") == 0 && optind + 1 == argc)
        return config_reload(ctl);
    return ctl_usage_error("config", "'%s' is not expected here; check [FILE…], or reload", argv[argc - 1]);
}
