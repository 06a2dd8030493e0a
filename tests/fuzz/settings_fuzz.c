/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a configuration file. What is accepted is within its ranges, and a file that is refused changes nothing and is
 * told of in one text.
 *
 * Input: the file.
 */
#include "daemon/settings.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

#define PROBLEM_MAX 128

static void check_number(int64_t number, int64_t least, int64_t most)
{
    MUST(number >= least && number <= most);
}

static void check_settings(const struct settings *settings)
{
    MUST(*settings->socket == '/' && memchr(settings->socket, '\0', sizeof(settings->socket)));
    MUST(settings->socket_mode <= 0777);
    MUST(settings->watch_helpers < HELPERS_WATCH_COUNT);
    check_number(settings->log_level, 3, 7);
    check_number(settings->poll_interval_ms, 5, 10000);
    check_number(settings->generation_interval_ms, 1, 10000);
    check_number(settings->max_gap_ms, 50, 60000);
    check_number(settings->max_sessions, 1, 32767);
    check_number(settings->max_connections, 1, 65535);
    MUST(settings->policy.require < P2MG_REQUIRE_COUNT);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        check_number(p2mg_policy_get(&settings->policy, member), member->least, member->most);
}

static int read_file(int fd, struct settings *settings, char *problem, size_t size)
{
    char path[32];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return settings_read(settings, path, problem, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct settings settings, again, before;
    char *problem = malloc(PROBLEM_MAX); /* for the sanitizer to watch its end */
    int fd = memfd_create("settings", MFD_CLOEXEC);

    MUST(problem && fd >= 0 && write(fd, data, size) == (ssize_t)size);
    settings_init(&before);
    settings = before;
    memset(problem, UNTOUCHED, PROBLEM_MAX);
    int error = read_file(fd, &settings, problem, PROBLEM_MAX);
    if (error) {
        MUST(error == -EINVAL && memcmp(&settings, &before, sizeof(settings)) == 0);
        MUST(*problem && memchr(problem, '\0', PROBLEM_MAX));
    } else {
        MUST(is_untouched(problem, PROBLEM_MAX));
        check_settings(&settings);
        /* Once more makes no difference. */
        again = settings;
        MUST(read_file(fd, &again, problem, PROBLEM_MAX) == 0 && memcmp(&again, &settings, sizeof(settings)) == 0);
    }
    close(fd);
    free(problem);
    return 0;
}
