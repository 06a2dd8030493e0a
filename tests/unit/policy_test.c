/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <errno.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "daemon/settings.h"

static void defaults_are_in_range(void **state)
{
    struct p2mg_policy policy;
    (void)state;

    p2mg_policy_init(&policy);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        assert_int_equal(p2mg_policy_get(&policy, member), member->standard);
        assert_int_equal(p2mg_policy_set(&policy, member, member->least), 0);
        assert_int_equal(p2mg_policy_set(&policy, member, member->most), 0);
        assert_int_equal(p2mg_policy_set(&policy, member, member->least - 1), -ERANGE);
        assert_int_equal(p2mg_policy_set(&policy, member, member->most + 1), -ERANGE);
        assert_int_equal(p2mg_policy_get(&policy, member), member->most);
        assert_ptr_equal(p2mg_policy_find(member->name), member);
    }
    assert_null(p2mg_policy_find("attempt"));
}

static int read_text(const char *text, struct settings *settings, char *problem)
{
    char path[] = "/tmp/p2mguard-settings-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    settings_init(settings);
    int error = settings_read(settings, path, problem, 512);
    unlink(path);
    return error;
}

static void a_file_is_read(void **state)
{
    struct settings settings;
    char problem[512];
    (void)state;

    assert_int_equal(read_text("; a comment\n[daemon]\nsocket = /tmp/x\nsocket_mode = 0666\nlog_level = debug\n"
                               "poll_interval_ms = 20\nsocket_group = root\n[policy]\nattempts = 7\nrequire = gate\n",
                               &settings, problem),
                     0);
    assert_string_equal(settings.socket, "/tmp/x");
    assert_int_equal(settings.socket_mode, 0666);
    assert_int_equal(settings.log_level, LOG_DEBUG);
    assert_int_equal(settings.poll_interval_ms, 20);
    assert_int_equal(settings.socket_group, 0);
    assert_int_equal(settings.policy.attempts, 7);
    assert_int_equal(settings.policy.require, P2MG_REQUIRE_GATE);
    assert_int_equal(settings.policy.quiet_ms, 300);
}

/* Bad input names the line, what was wrong, and what was expected; and changes nothing. */
static void bad_files_say_where_and_why(void **state)
{
    static const struct {
        const char *text, *line, *says;
    } bad[] = {
        {"[daemon]\nsokket = /x\n", ":2:", "unknown key 'sokket'"},
        {"[daemon]\nsocket = x\n", ":2:", "expected an absolute path"},
        {"[daemon]\nsocket_mode = 9\n", ":2:", "expected octal"},
        {"[daemon]\nsocket_group = no-such-group\n", ":2:", "expected the name of a group"},
        {"[daemon]\nlog_level = loud\n", ":2:", "expected error, warning"},
        {"[daemon]\n\npoll_interval_ms = 1\n", ":3:", "a number from 5 to 10000"},
        {"[daemon]\npoll_interval_ms = 50ms\n", ":2:", "a number from 5 to 10000"},
        {"[daemon]\npoll_interval_ms = 20\n[policy]\nattempts = 0\n", ":4:", "a number from 1 to 100"},
        {"[policy]\nrequire = thawed\n", ":2:", "expected gate, settled or agent"},
        {"[policy]\nfoo = 1\n", ":2:", "unknown key 'foo'"},
        {"[other]\na = 1\n", ":2:", "unknown section '[other]'"},
        {"[daemon]\nnonsense\n", ":2:", "expected [section] or key = value"},
    };
    struct settings settings;
    char problem[512];
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(read_text(bad[i].text, &settings, problem), -EINVAL);
        if (!strstr(problem, bad[i].line) || !strstr(problem, bad[i].says))
            fail_msg("'%s' should have said '%s' and '%s'", problem, bad[i].line, bad[i].says);
        assert_int_equal(settings.poll_interval_ms, 50);
    }
}

static void an_absent_file_is_told_apart(void **state)
{
    struct settings settings;
    char problem[512];
    (void)state;

    settings_init(&settings);
    assert_int_equal(settings_read(&settings, "/nonexistent/p2mguard.conf", problem, sizeof(problem)), -ENOENT);
    assert_non_null(strstr(problem, "/nonexistent/p2mguard.conf"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_in_range),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(bad_files_say_where_and_why),
        cmocka_unit_test(an_absent_file_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
