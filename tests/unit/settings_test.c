/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <errno.h>

#include <cmocka.h>

#include "daemon/log.h"
#include "daemon/settings-table.h"
#include "daemon/settings.h"

#define UUID "0000000a-0000-4000-8000-00000000000b"
#define OTHER_UUID "0000000a-0000-4000-8000-00000000000c"

/* A folder of a test's own, and the files in it. */
static char folder[64];

static int set_up(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/p2mguard-settings-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[96];
    (void)state;

    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command);
}

static const char *path_of(const char *name)
{
    static char path[2][128];
    static int turn;

    turn = !turn;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", folder, name);
    return path[turn];
}

static void put_bytes(const char *name, const char *bytes, size_t length)
{
    FILE *file = fopen(path_of(name), "w");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

/* The file "main", with the drop-ins of "vendor" and "own". */
static int load(struct settings *settings, struct settings_problem *problem)
{
    char file[128], vendor[128], own[128];
    struct settings_sources sources = {file, true, {vendor, own}};

    strcpy(file, path_of("main"));
    strcpy(vendor, path_of("vendor"));
    strcpy(own, path_of("own"));
    return settings_load(settings, &sources, problem);
}

static void accepted(struct settings *settings)
{
    struct settings_problem problem;
    char text[SETTINGS_PROBLEM_MAX];

    if (load(settings, &problem))
        fail_msg("%s", settings_problem_text(&problem, text));
}

static void refuse(const char *where, const char *says)
{
    struct settings_problem problem;
    struct settings settings;
    char text[SETTINGS_PROBLEM_MAX];

    memset(&settings, 'x', sizeof(settings));
    assert_int_equal(load(&settings, &problem), -EINVAL);
    assert_int_equal(settings.socket[0], 'x');
    settings_problem_text(&problem, text);
    if (strncmp(text, folder, strlen(folder)) != 0 || !strstr(text, where) || !strstr(text, says))
        fail_msg("'%s' should have said '%s' and '%s'", text, where, says);
}

static void assert_origin(const struct settings *settings, const struct settings_origin *origin, const char *name,
                          int line)
{
    assert_int_equal(origin->source, SETTINGS_FROM_FILE);
    assert_string_equal(settings_origin_file(settings, origin), path_of(name));
    assert_int_equal(origin->line, line);
}

static const struct settings_origin *origin_of(const struct settings *settings, bool of_policy, const char *name)
{
    size_t key = settings_key_find(of_policy, name);

    assert_true(key < SETTINGS_KEYS);
    return &settings->origins[key];
}

/* ---- the table ---- */

static void every_member_of_a_policy_is_a_key(void **state)
{
    size_t members = 0, of_policy = 0;
    (void)state;

    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++, members++)
        assert_true(settings_key_find(true, member->name) < SETTINGS_KEYS);
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        assert_non_null(settings_keys[i].name);
        assert_true(settings_keys[i].help && *settings_keys[i].help);
        assert_int_equal(settings_key_find(settings_keys[i].of_policy, settings_keys[i].name), i);
        of_policy += settings_keys[i].of_policy;
    }
    assert_int_equal(of_policy, members + 2); /* guard and require */
}

static void what_is_printed_can_be_read(void **state)
{
    struct settings settings, again;
    char text[2][SETTINGS_TEXT_MAX], what[256];
    (void)state;

    settings_init(&settings);
    settings.guarding.guard = false;
    settings.socket_group = 0;
    settings.socket_mode = 0606;
    settings.guarding.policy.attempts = 77;
    settings.watch_helpers = HELPERS_POLL;
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        const struct settings_key *key = &settings_keys[i];
        settings_init(&again);
        settings_key_print(key, settings_key_base(&settings, key), text[0]);
        assert_int_equal(settings_key_parse(key, settings_key_base(&again, key), text[0], what, sizeof(what)), 0);
        settings_key_print(key, settings_key_base(&again, key), text[1]);
        assert_string_equal(text[0], text[1]);
    }
}

/* "# What it means.\n#key = default\n", for each key, in its section and nowhere else. */
static void the_sample_shows_all_keys_with_their_defaults(void **state)
{
    char sample[16384], entry[512], range[64], value[SETTINGS_TEXT_MAX];
    FILE *file = fopen(SAMPLE, "r");
    struct settings settings;
    size_t shown = 0;
    (void)state;

    assert_non_null(file);
    size_t length = fread(sample, 1, sizeof(sample) - 1, file);
    sample[length] = '\0';
    fclose(file);
    char *policy = strstr(sample, "\n[policy]\n"), *domain = strstr(sample, "\n#[domain ");
    assert_true(policy && domain && policy < domain && strstr(sample, "\n[daemon]\n") < policy);
    settings_init(&settings);
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        const struct settings_key *key = &settings_keys[i];
        struct settings_range limits = settings_key_range(key);
        settings_key_print(key, settings_key_base(&settings, key), value);
        snprintf(range, sizeof(range), " %lld to %lld.", (long long)limits.least, (long long)limits.most);
        snprintf(entry, sizeof(entry), "# %s%s\n#%s =%s%s\n", key->help, key->kind == SETTINGS_NUMBER ? range : "",
                 key->name, *value ? " " : "", value);
        char *at = strstr(sample, entry);
        if (!at || at > domain || (at > policy) != key->of_policy)
            fail_msg("the sample should have, in its section:\n%s", entry);
    }
    for (char *line = sample; line && line < domain; line = strchr(line + 1, '\n'))
        shown += strncmp(line, "\n#", 2) == 0 && line[2] != ' ';
    assert_int_equal(shown, SETTINGS_KEYS);
}

static void the_sample_is_a_configuration(void **state)
{
    const char *files[] = {SAMPLE};
    struct settings settings, standard;
    struct settings_problem problem;
    (void)state;

    assert_int_equal(settings_load_files(&settings, files, 1, &problem), 0);
    settings_init(&standard);
    assert_memory_equal(&settings.guarding, &standard.guarding, sizeof(standard.guarding));
    assert_string_equal(settings.socket, standard.socket);
    assert_int_equal(settings.domain_count, 0);
    settings_clear(&settings);
}

static void the_manual_names_all_keys(void **state)
{
    char *text = calloc(1, 65536), item[64];
    FILE *file = fopen(MANUAL, "r");
    (void)state;

    assert_true(text && file);
    assert_true(fread(text, 1, 65535, file) > 0);
    fclose(file);
    for (size_t i = 0; i < SETTINGS_KEYS; i++) {
        snprintf(item, sizeof(item), "\n.It Cm %s\n", settings_keys[i].name);
        if (!strstr(text, item))
            fail_msg("p2mguard.conf(5) does not have %s", settings_keys[i].name);
    }
    free(text);
}

/* ---- one file ---- */

static void a_file_is_read(void **state)
{
    struct settings settings;
    (void)state;

    put("main",
        "\xef\xbb\xbf[daemon]\n; a comment\nsocket = /tmp/x\n  socket_mode = 0666 ; indented\r\n\tlog_level: debug\n"
        "poll_interval_ms=20\nsocket_group = root\n#\n[ policy ] ; more\nattempts = 7\nrequire = gate\nguard = no\n");
    accepted(&settings);
    assert_string_equal(settings.socket, "/tmp/x");
    assert_int_equal(settings.socket_mode, 0666);
    assert_int_equal(settings.log_level, LOG_DEBUG);
    assert_int_equal(settings.poll_interval_ms, 20);
    assert_int_equal(settings.socket_group, 0);
    assert_int_equal(settings.guarding.policy.attempts, 7);
    assert_int_equal(settings.guarding.policy.require, P2MG_REQUIRE_GATE);
    assert_int_equal(settings.guarding.policy.quiet_ms, 300);
    assert_false(settings.guarding.guard);
    assert_origin(&settings, origin_of(&settings, false, "socket_mode"), "main", 4);
    assert_origin(&settings, origin_of(&settings, true, "attempts"), "main", 10);
    assert_int_equal(origin_of(&settings, true, "quiet_ms")->source, SETTINGS_DEFAULT);
    assert_int_equal(settings.file_count, 1);
    settings_clear(&settings);
}

/* Bad input names the line, what was wrong, and what was expected; and changes nothing. */
static void bad_files_say_where_and_why(void **state)
{
    static const struct {
        const char *text, *line, *says;
    } bad[] = {
        {"[daemon]\nsokket = /x\n", ":2:", "unknown key 'sokket' in [daemon]"},
        {"[daemon]\nattempts = 1\n", ":2:", "unknown key 'attempts' in [daemon]"},
        {"[daemon]\nsocket = x\n", ":2:", "expected an absolute path"},
        {"[daemon]\nsocket_mode = 9\n", ":2:", "expected octal"},
        {"[daemon]\nsocket_group = no-such-group\n", ":2:", "expected the name of a group"},
        {"[daemon]\nlog_level = loud\n", ":2:", "expected error, warning"},
        {"[daemon]\nxenstore_callers = 1\n", ":2:", "expected yes or no"},
        {"[daemon]\nwatch_helpers = on\n", ":2:", "expected auto, exec"},
        {"[daemon]\n\npoll_interval_ms = 1\n", ":3:", "a number from 5 to 10000"},
        {"[daemon]\npoll_interval_ms = 50ms\n", ":2:", "a number from 5 to 10000"},
        {"[daemon]\npoll_interval_ms = 20\n[policy]\nattempts = 0\n", ":4:", "a number from 1 to 100"},
        {"[policy]\nrequire = thawed\n", ":2:", "expected gate, settled or agent"},
        {"[policy]\nfoo = 1\n", ":2:", "unknown key 'foo' in [policy]"},
        {"[policy]\nattempts = 1\n\nattempts = 1\n", ":4:", "given twice in [policy], first in line 2"},
        {"[policy]\nattempts = 1\n[daemon]\n[policy]\nattempts = 2\n", ":5:", "first in line 2"},
        {"[domain x]\nguard = no\n[domain y]\nguard = no\n[domain x]\nguard = no\n",
         ":6:", "in [domain x], first in line 2"},
        {"[other]\na = 1\n", ":1:", "unknown section '[other]'"},
        {"[policy]\n[empty]\n", ":2:", "unknown section '[empty]'"},
        {"[domains x]\n", ":1:", "unknown section '[domains x]'"},
        {"attempts = 1\n", ":1:", "is in no section"},
        {"[daemon]\nnonsense\n", ":2:", "expected [section] or key = value"},
        {"[daemon\n", ":1:", "expected [section]"},
        {"[daemon] x\n", ":1:", "expected [section]"},
        {"[domain ]\n", ":1:", "[domain] has no name"},
        {"[domain]\n", ":1:", "[domain] has no name"},
        {"[domain x]\nsocket = /x\n", ":2:", "unknown key 'socket' in [domain x]"},
        {"[domain x]\nattempts = 101\n", ":2:", "a number from 1 to 100"},
        {"[domain caf\xe9]\n", ":1:", "is no text"},
        {"[daemon]\nsocket = /\x1b[1m\n", ":2:", "is no text"},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put("main", bad[i].text);
        refuse(bad[i].line, bad[i].says);
    }
}

static void lines_that_are_too_long_or_no_text(void **state)
{
    char text[600];
    (void)state;

    put_bytes("main", "[daemon]\nmax_gap_ms\0 = 70\n", 26);
    refuse("main:2:", "is no text");
    snprintf(text, sizeof(text), "[domain %0128d]\n", 1);
    put("main", text);
    struct settings settings;
    accepted(&settings);
    assert_int_equal(strlen(settings.domains[0].section), 135);
    settings_clear(&settings);
    snprintf(text, sizeof(text), "\n[domain %0129d]\n", 1);
    put("main", text);
    refuse("main:2:", "too long a name");
    snprintf(text, sizeof(text), "[daemon]\n# %0250d\nsocket = /%0200d\n", 1, 1); /* a comment may be long */
    put("main", text);
    refuse("main:3:", "the line has 210 bytes");
}

static void files_that_are_none(void **state)
{
    (void)state;

    refuse("main:", "No such file");
    assert_int_equal(mkdir(path_of("main"), 0700), 0);
    refuse("main:", "is no regular file");
    assert_int_equal(rmdir(path_of("main")), 0);
    assert_int_equal(mkfifo(path_of("main"), 0600), 0); /* nobody waits for a writer */
    refuse("main:", "is no regular file");
}

static void an_absent_file_may_be_absent(void **state)
{
    struct settings_sources sources = {path_of("main"), false, {NULL, path_of("own")}};
    struct settings_problem problem;
    struct settings settings;
    (void)state;

    assert_int_equal(settings_load(&settings, &sources, &problem), 0);
    assert_int_equal(settings.file_count, 0);
    assert_int_equal(settings.guarding.policy.attempts, 3);
    settings_clear(&settings);
}

/* ---- drop-ins ---- */

static void drop_ins_go_by_their_names(void **state)
{
    struct settings settings;
    (void)state;

    assert_int_equal(mkdir(path_of("vendor"), 0700) | mkdir(path_of("own"), 0700), 0);
    put("main", "[policy]\nattempts = 2\nquiet_ms = 22\nsettle_ms = 22\nrest_ms = 22\n");
    put("vendor/50-b.conf", "[policy]\nattempts = 50\nquiet_ms = 50\nsettle_ms = 50\n");
    put("own/20-a.conf", "[policy]\nattempts = 20\nquiet_ms = 20\n");
    put("own/90-c.conf", "\n[policy]\nattempts = 90\n");
    put("vendor/95-hidden.conf", "[policy]\nattempts = 95\nmistake\n");
    put("own/95-hidden.conf", "");
    put("vendor/96-hidden.conf", "[policy]\nattempts = 96\n");
    assert_int_equal(symlink("/dev/null", path_of("own/96-hidden.conf")), 0);
    put("own/97.conf.dpkg-old", "mistake\n");
    put("own/.98.conf", "mistake\n");
    put("own/README", "mistake\n");
    accepted(&settings);
    assert_int_equal(settings.guarding.policy.attempts, 90);
    assert_int_equal(settings.guarding.policy.quiet_ms, 50);
    assert_int_equal(settings.guarding.policy.settle_ms, 50);
    assert_int_equal(settings.guarding.policy.rest_ms, 22);
    assert_origin(&settings, origin_of(&settings, true, "attempts"), "own/90-c.conf", 3);
    assert_origin(&settings, origin_of(&settings, true, "quiet_ms"), "vendor/50-b.conf", 3);
    assert_origin(&settings, origin_of(&settings, true, "rest_ms"), "main", 5);
    assert_int_equal(settings.file_count, 6);
    settings_clear(&settings);
    put("own/20-a.conf", "[policy]\nattempts = 200\n");
    refuse("own/20-a.conf:2:", "a number from 1 to 100");
}

static void drop_ins_that_are_none(void **state)
{
    (void)state;

    assert_int_equal(mkdir(path_of("own"), 0700) | mkdir(path_of("own/x.conf"), 0700), 0);
    put("main", "");
    refuse("own/x.conf: ", "is no regular file");
    assert_int_equal(rmdir(path_of("own/x.conf")), 0);
    assert_int_equal(symlink("nowhere", path_of("own/x.conf")), 0);
    refuse("own/x.conf: ", "No such file");
    assert_int_equal(unlink(path_of("own/x.conf")) | rmdir(path_of("own")), 0);
    put("own", "");
    refuse("own: ", "Not a directory");
}

/* ---- guests ---- */

static void assert_attempts(const struct settings *settings, const char *name, const char *uuid, int64_t attempts,
                            const char *section)
{
    struct settings_guarding guarding;
    const struct settings_domain *last = settings_guarding_of(settings, name, uuid, &guarding, NULL, NULL);

    assert_int_equal(guarding.policy.attempts, attempts);
    assert_string_equal(last ? last->section : "", section);
}

static void sections_are_laid_over_each_other(void **state)
{
    const struct settings_domain *sections[SETTINGS_KEYS];
    struct settings_origin origins[SETTINGS_KEYS];
    struct settings_guarding guarding;
    struct settings settings;
    size_t attempts = settings_key_find(true, "attempts"), quiet = settings_key_find(true, "quiet_ms"),
           settle = settings_key_find(true, "settle_ms");
    (void)state;

    assert_int_equal(mkdir(path_of("own"), 0700), 0);
    put("main",
        "[domain 0000000A-0000-4000-8000-00000000000B]\nattempts = 11\n"
        "[policy]\nattempts = 4\nquiet_ms = 44\nsettle_ms = 44\n"
        "[domain web*]\nattempts = 5\nquiet_ms = 55\n[domain *db]\nattempts = 6\n[domain [xy]?]\nattempts = 7\n");
    accepted(&settings);
    assert_attempts(&settings, "mail", OTHER_UUID, 4, "");
    assert_attempts(&settings, "web", OTHER_UUID, 5, "domain web*");
    assert_attempts(&settings, "Web", OTHER_UUID, 4, "");
    assert_attempts(&settings, "db", OTHER_UUID, 6, "domain *db");
    assert_attempts(&settings, "webdb", OTHER_UUID, 6, "domain *db");
    assert_attempts(&settings, "y1", OTHER_UUID, 7, "domain [xy]?");
    assert_attempts(&settings, "z1", OTHER_UUID, 4, "");
    assert_attempts(&settings, "mail", UUID, 11, "domain " UUID);
    settings_guarding_of(&settings, "webdb", UUID, &guarding, origins, sections);
    assert_int_equal(guarding.policy.attempts, 11);
    assert_int_equal(guarding.policy.quiet_ms, 55);
    assert_int_equal(guarding.policy.settle_ms, 44);
    assert_origin(&settings, &origins[attempts], "main", 2);
    assert_origin(&settings, &origins[quiet], "main", 9);
    assert_origin(&settings, &origins[settle], "main", 6);
    assert_ptr_equal(sections[attempts], &settings.domains[0]);
    assert_string_equal(sections[quiet]->section, "domain web*");
    assert_null(sections[settle]);
    settings_clear(&settings);
    put("own/a.conf", "[domain web*]\nattempts = 8\n"); /* what is read later wins */
    accepted(&settings);
    assert_attempts(&settings, "webdb", OTHER_UUID, 8, "domain web*");
    settings_clear(&settings);
}

static void a_copy_has_values_and_origins_of_its_own(void **state)
{
    struct settings settings, copy;
    (void)state;

    put("main", "[daemon]\nmax_connections = 77\n[domain x]\nguard = no\n");
    accepted(&settings);
    assert_int_equal(settings_copy_values(&copy, &settings), 0);
    settings_clear(&settings);
    assert_int_equal(settings.max_connections, 1024);
    assert_int_equal(copy.max_connections, 77);
    assert_int_equal(copy.domain_count, 0);
    assert_origin(&copy, origin_of(&copy, false, "max_connections"), "main", 2);
    settings_clear(&copy);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_member_of_a_policy_is_a_key),
        TEST(what_is_printed_can_be_read),
        TEST(the_sample_shows_all_keys_with_their_defaults),
        TEST(the_sample_is_a_configuration),
        TEST(the_manual_names_all_keys),
        TEST(a_file_is_read),
        TEST(bad_files_say_where_and_why),
        TEST(lines_that_are_too_long_or_no_text),
        TEST(files_that_are_none),
        TEST(an_absent_file_may_be_absent),
        TEST(drop_ins_go_by_their_names),
        TEST(drop_ins_that_are_none),
        TEST(sections_are_laid_over_each_other),
        TEST(a_copy_has_values_and_origins_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
