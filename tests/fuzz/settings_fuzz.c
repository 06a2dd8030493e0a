/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a configuration file. What is accepted is within its ranges, for every guest, and of each value it is known in
 * which line it stands; a file that is refused changes nothing and is told of with its line.
 *
 * Input: the file.
 */
#include "daemon/settings-table.h"
#include "daemon/settings.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

static const char uuid[] = "0000000a-0000-4000-8000-00000000000b";

static void check_number(int64_t number, int64_t least, int64_t most)
{
    MUST(number >= least && number <= most);
}

static void check_guarding(const struct settings_guarding *guarding)
{
    MUST(guarding->policy.require < P2MG_REQUIRE_COUNT);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        check_number(p2mg_policy_get(&guarding->policy, member), member->least, member->most);
}

static void check_origins(const struct settings *settings, const struct settings_origin origins[SETTINGS_KEYS],
                          int lines)
{
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        MUST(origins[i].source == SETTINGS_DEFAULT || origins[i].source == SETTINGS_FROM_FILE);
        MUST(!settings_origin_file(settings, &origins[i]) == (origins[i].source == SETTINGS_DEFAULT));
        if (origins[i].source == SETTINGS_FROM_FILE)
            check_number(origins[i].line, 1, lines);
    }
}

static void check_guests(const struct settings *settings, int lines)
{
    static const char *const names[] = {"", "web", "db-1", "a"};
    const struct settings_domain *sections[SETTINGS_KEYS];
    struct settings_origin origins[SETTINGS_KEYS];
    struct settings_guarding guarding;

    for (size_t i = 0; i < settings->domain_count; i++) {
        MUST(memchr(settings->domains[i].section, '\0', SETTINGS_SECTION_MAX));
        MUST(strncmp(settings->domains[i].section, "domain ", 7) == 0 && settings->domains[i].section[7]);
        check_number(settings->domains[i].origin.line, 1, lines);
        check_origins(settings, settings->domains[i].origins, lines);
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct settings_domain *last =
            settings_guarding_of(settings, names[i], uuid, &guarding, origins, sections);
        check_guarding(&guarding);
        check_origins(settings, origins, lines);
        for (size_t k = 0; k < SETTINGS_KEYS; k++)
            MUST(!sections[k] || (last && origins[k].source == SETTINGS_FROM_FILE));
    }
}

static void check_settings(const struct settings *settings, int lines)
{
    MUST(*settings->socket == '/' && memchr(settings->socket, '\0', sizeof(settings->socket)));
    MUST(settings->socket_mode <= 0777);
    MUST(settings->watch_helpers < HELPERS_WATCH_COUNT);
    check_number(settings->log_level, 3, 7);
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        struct settings_range range = settings_key_range(&settings_keys[i]);
        if (settings_keys[i].kind == SETTINGS_NUMBER && !settings_keys[i].of_policy)
            check_number(*(const int64_t *)(const void *)((const char *)settings + settings_keys[i].offset),
                         range.least, range.most);
    }
    check_guarding(&settings->guarding);
    check_origins(settings, settings->origins, lines);
    check_guests(settings, lines);
}

static int read_file(int fd, struct settings *settings, struct settings_problem *problem)
{
    char path[32];
    const char *files[] = {path};

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return settings_load_files(settings, files, 1, problem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings_problem *problem = malloc(sizeof(*problem)); /* for the sanitizer to watch its end */
    struct settings settings;
    int fd = memfd_create("settings", MFD_CLOEXEC), lines = 1;

    MUST(problem && fd >= 0 && write(fd, data, size) == (ssize_t)size);
    for (size_t i = 0; i < size; i++)
        lines += data[i] == '\n';
    memset(problem, UNTOUCHED, sizeof(*problem));
    memset(&settings, UNTOUCHED, sizeof(settings));
    if (read_file(fd, &settings, problem) == 0) {
        MUST(is_untouched(problem, sizeof(*problem)));
        check_settings(&settings, lines);
        settings_clear(&settings);
    } else {
        MUST(is_untouched(&settings, sizeof(settings)));
        MUST(memchr(problem->file, '\0', sizeof(problem->file)) && memchr(problem->what, '\0', sizeof(problem->what)));
        MUST(*problem->what);
        check_number(problem->line, 1, lines);
    }
    close(fd);
    free(problem);
    return 0;
}
