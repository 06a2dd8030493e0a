/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/nearest.h"
#include "client/synopsis.h"
#include "client/table.h"

/* Offers the options of a synopsis. */
static void line_offer_options(struct nearest *nearest, const char *synopsis)
{
    struct synopsis_item item;

    while (synopsis_next(&synopsis, &item))
        if (item.option)
            nearest_offer(nearest, item.name);
}

static int line_unknown_option(const struct ctl_command *command, const char *text)
{
    char name[SYNOPSIS_TEXT];
    struct nearest nearest;

    snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, "="), text);
    nearest_init(&nearest, name);
    if (command)
        line_offer_options(&nearest, command->arguments);
    line_offer_options(&nearest, CTL_GLOBAL);
    return ctl_usage_error(command ? command->name : "", "there is no option '%s'%s%s%s%s", name,
                           command ? "" : " before the command", *nearest.found ? "; did you mean '" : "",
                           nearest.found, *nearest.found ? "'?" : "");
}

int line_unknown_command(const char *who, const char *text)
{
    struct nearest nearest;

    nearest_init(&nearest, text);
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        nearest_offer(&nearest, command->name);
    return ctl_usage_error(who, "'%s' is no command%s%s%s", text, *nearest.found ? "; did you mean '" : "",
                           nearest.found, *nearest.found ? "'?" : "");
}

/* One of CTL_GLOBAL. */
static int line_take_global(struct ctl *ctl, struct line *line, const char *name, const char *value)
{
    if (strcmp(name, "--json") == 0)
        ctl->json = true;
    else if (strcmp(name, "--help") == 0)
        line->help = true;
    else if (strcmp(name, "--version") == 0)
        line->version = true;
    else if (strcmp(name, "--socket") == 0)
        ctl->socket = value, ctl->socket_given = true;
    else if (!ctl_check_choice("", name, "auto|always|never", value))
        return CTL_USAGE;
    else
        table_set_colors(strcmp(value, "auto") == 0     ? TABLE_COLORS_AUTO
                         : strcmp(value, "always") == 0 ? TABLE_COLORS_ALWAYS
                                                        : TABLE_COLORS_NEVER);
    return CTL_OK;
}

/* The option at *i: global, or the command's, then kept in `options`. *i goes to its last piece. */
static int line_take_option(struct ctl *ctl, struct line *line, char **argv, int *i, char **options, int *kept)
{
    const char *who = line->command ? line->command->name : "", *text = argv[*i];
    struct synopsis_item item;
    bool own = line->command && synopsis_find_option(line->command->arguments, text, &item);

    if (!own && (!synopsis_find_option(CTL_GLOBAL, text, &item) || strlen(item.name) != strcspn(text, "=")))
        return line_unknown_option(line->command, text);
    const char *value = strchr(text, '=') ? strchr(text, '=') + 1 : NULL;
    if (value && !item.value[0])
        return ctl_usage_error(who, "%s takes no value", item.name);
    if (own)
        options[(*kept)++] = argv[*i];
    if (item.value[0] && !value) {
        value = argv[*i + 1];
        if (!value)
            return ctl_usage_error(who, "%s needs %s", item.name, item.value);
        ++*i;
        if (own)
            options[(*kept)++] = argv[*i];
    }
    if (!own)
        return line_take_global(ctl, line, item.name, value);
    const char *choices = ctl_choices(item.value);
    return choices && !ctl_check_choice(who, item.name, choices, value) ? CTL_USAGE : CTL_OK;
}

/* How many words there are, and those that are chosen from a list. */
static int line_check_words(const struct ctl_command *command, char **words, int count)
{
    const char *expected = *command->arguments ? command->arguments : "nothing more";
    const char *at = command->arguments;
    struct synopsis_item item;
    size_t place = 0;

    if (command->least < 0)
        return CTL_OK;
    if (count < command->least)
        return ctl_usage_error(command->name, "something is missing, expected %s", expected);
    if (count > command->most)
        return ctl_usage_error(command->name, "'%s' is too much, expected %s", words[command->most], expected);
    for (int i = 0; i < count && synopsis_next_word(&at, &place, (size_t)i, &item); i++) {
        const char *choices = ctl_choices(item.name);
        if (choices && !ctl_check_choice(command->name, "", choices, words[i]))
            return CTL_USAGE;
    }
    return CTL_OK;
}

static int line_take_all(struct ctl *ctl, char **argv, struct line *line, char **options, int *kept, char **words,
                         int *count)
{
    int i, status = CTL_OK;

    for (i = 1; !status && argv[i] && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "-h") == 0) {
            line->help = true;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            status = line_take_option(ctl, line, argv, &i, options, kept);
        } else if (line->command) {
            words[(*count)++] = argv[i];
        } else {
            line->command = ctl_command_find(argv[i]);
            options[(*kept)++] = argv[i];
            status = line->command ? CTL_OK : line_unknown_command("", argv[i]);
        }
    }
    if (status || !line->command || line->help)
        return status;
    status = line_check_words(line->command, words, *count);
    while (!status && argv[i])
        words[(*count)++] = argv[i++];
    return status;
}

int line_take(struct ctl *ctl, int argc, char **argv, struct line *line)
{
    size_t size = (size_t)argc + 1;
    char **options = calloc(size, sizeof(*options)), **words = calloc(size, sizeof(*words));
    int kept = 0, count = 0;
    int status = options && words ? CTL_OK : ctl_fail("out of memory");

    /* Errors in what is before it are to be told in the form that is asked for, too. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        ctl->json = ctl->json || strcmp(argv[i], "--json") == 0;
    if (!status)
        status = line_take_all(ctl, argv, line, options, &kept, words, &count);
    if (!status) {
        if (kept > 0)
            memcpy(argv, options, (size_t)kept * sizeof(*argv));
        memcpy(argv + kept, words, (size_t)count * sizeof(*argv));
        argv[kept + count] = NULL;
        line->argc = kept + count;
        line->argv = argv;
    }
    free(options);
    free(words);
    return status;
}
