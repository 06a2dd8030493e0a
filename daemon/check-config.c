/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/check-config.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/configuration.h"
#include "daemon/text.h"

static int check_load(const char *config, const char *const *files, size_t count, struct settings *settings,
                      struct settings_problem *problem)
{
    const struct configuration_options options = {.config = config, .log_level = -1};
    struct configuration configuration;

    if (count)
        return settings_load_files(settings, files, count, problem);
    int error = configuration_load(&configuration, &options, problem);
    if (error)
        return error;
    settings_clear(&configuration.started);
    *settings = configuration.latest;
    return 0;
}

static int check_print_json(const struct settings *settings, struct settings_problem *problem, bool good)
{
    json_t *files = json_array(), *wrong = json_null();
    char text[SETTINGS_PROBLEM_MAX];
    int failed = -1;

    for (size_t i = 0; good && i < settings->file_count; i++) {
        text_make_utf8(settings->files[i]);
        json_array_append_new(files, json_string(settings->files[i]));
    }
    if (!good) {
        text_make_utf8(problem->file);
        wrong = json_pack("{s:s,s:o,s:s}", "file", problem->file, "line",
                          problem->line ? json_integer(problem->line) : json_null(), "what",
                          settings_problem_text(problem, text));
    }
    json_t *answer = json_pack("{s:b,s:o,s:o}", "good", (int)good, "files", files, "problem", wrong);
    if (answer)
        failed = json_dumpf(answer, stdout, JSON_COMPACT);
    json_decref(answer);
    putchar('\n');
    return failed;
}

static void check_print(const struct settings *settings, const struct settings_problem *problem, bool good)
{
    char text[SETTINGS_PROBLEM_MAX];

    if (!good)
        fprintf(stderr, "%s\n", settings_problem_text(problem, text));
    else if (!settings->file_count)
        puts("there are no files: all values are the defaults");
    for (size_t i = 0; good && i < settings->file_count; i++)
        printf("%s: good\n", settings->files[i]);
}

int check_config(const char *config, const char *const *files, size_t count, bool json)
{
    struct settings_problem problem = {.line = 0};
    struct settings settings;
    bool good;
    int failed = 0;

    settings_init(&settings);
    good = check_load(config, files, count, &settings, &problem) == 0;
    if (json)
        failed = check_print_json(&settings, &problem, good);
    else
        check_print(&settings, &problem, good);
    settings_clear(&settings);
    return good && !failed && fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
