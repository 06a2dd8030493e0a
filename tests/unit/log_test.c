/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where log lines go, and what of them: standard error is a file here, and the journal's function is this file's. */
#include "daemon/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#define SD_JOURNAL_SUPPRESS_LOCATION
#include <systemd/sd-journal.h>

static struct {
    int count;
    char fields[20][1200];
} journal;

/* In the place of libsystemd's. */
int sd_journal_sendv(const struct iovec *vector, int count)
{
    assert_in_range(count, 1, 20);
    journal.count = count;
    for (int i = 0; i < count; i++)
        snprintf(journal.fields[i], sizeof(journal.fields[i]), "%.*s", (int)vector[i].iov_len,
                 (const char *)vector[i].iov_base);
    return 0;
}

static int standard_error = -1, file = -1;

/* What was written to standard error since the last time. */
static const char *written(void)
{
    static char text[2048];
    ssize_t length = pread(file, text, sizeof(text) - 1, 0);

    assert_true(length >= 0);
    text[length] = '\0';
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    return text;
}

static int take_standard_error(void **state)
{
    char path[] = "/tmp/p2mguard-test-XXXXXX";
    (void)state;

    memset(&journal, 0, sizeof(journal));
    file = mkstemp(path);
    standard_error = dup(STDERR_FILENO);
    if (file < 0 || standard_error < 0 || unlink(path) < 0 || dup2(file, STDERR_FILENO) < 0)
        return -1;
    unsetenv("JOURNAL_STREAM");
    log_open();
    log_set_level(LOG_INFO);
    return 0;
}

static int give_standard_error_back(void **state)
{
    (void)state;
    return dup2(standard_error, STDERR_FILENO) < 0 || close(standard_error) < 0 || close(file) < 0 ? -1 : 0;
}

/* systemd's variable; `wrong` is added to the inode. */
static void connect_to_journal(unsigned long long wrong)
{
    struct stat status;
    char stream[64];

    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)status.st_dev,
             (unsigned long long)status.st_ino + wrong);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open();
}

/* ---- Tests ---- */

static void lines_say_what_they_are_about(void **state)
{
    const struct log_subject domain = {.domid = 7}, session = {7, "7-0123", "ended"};
    (void)state;

    log_notice("%d of %s", 3, "them");
    assert_string_equal(written(), "p2mguardd: notice: 3 of them\n");
    log_about(LOG_ERR, &domain, "not there");
    assert_string_equal(written(), "p2mguardd: error: domain 7: not there\n");
    log_about(LOG_WARNING, &session, "over");
    assert_string_equal(written(), "p2mguardd: warning: 7-0123: over\n");
    assert_int_equal(journal.count, 0);
}

static void quiet_levels_keep_back_all_but_what_is_always_said(void **state)
{
    const char *const fields[] = {"AUDIT=yes", NULL};
    (void)state;

    log_set_level(LOG_WARNING);
    log_notice("nobody needs to know");
    assert_string_equal(written(), "");
    log_warning("careful");
    assert_string_equal(written(), "p2mguardd: warning: careful\n");
    log_always(LOG_NOTICE, NULL, fields, "granted");
    assert_string_equal(written(), "p2mguardd: notice: granted\n");
    log_set_level(LOG_INFO);
    log_debug("nor this");
    log_info("this");
    assert_string_equal(written(), "p2mguardd: info: this\n");
}

/* One that is too long is cut, and ends its line nevertheless. */
static void lines_have_a_longest_length(void **state)
{
    char text[4000];
    (void)state;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    log_info("%s", text);
    const char *line = written();
    assert_int_equal(strlen(line), strlen("p2mguardd: info: ") + 1023 + 1);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    connect_to_journal(0);
    log_info("%s", text);
    assert_int_equal(strlen(journal.fields[journal.count - 1]), strlen("MESSAGE=") + 1023);
}

static void journal_is_given_fields(void **state)
{
    const struct log_subject session = {7, "7-0123", "ended"};
    (void)state;

    connect_to_journal(0);
    log_about(LOG_ERR, &session, "it is %s", "over");
    assert_int_equal(journal.count, 6);
    assert_string_equal(journal.fields[0], "PRIORITY=3");
    assert_string_equal(journal.fields[1], "SYSLOG_IDENTIFIER=p2mguardd");
    assert_string_equal(journal.fields[2], "DOMID=7");
    assert_string_equal(journal.fields[3], "SESSION=7-0123");
    assert_string_equal(journal.fields[4], "REASON=ended");
    assert_string_equal(journal.fields[5], "MESSAGE=it is over");
    log_info("nothing in particular");
    assert_int_equal(journal.count, 3);
    assert_string_equal(journal.fields[0], "PRIORITY=6");
    assert_string_equal(journal.fields[2], "MESSAGE=nothing in particular");
    assert_string_equal(written(), "");
}

/* As many as there is room for; the message is there in any case. */
static void journal_is_given_the_callers_fields(void **state)
{
    const char *fields[21] = {"METHOD=guard.end"};
    (void)state;

    connect_to_journal(0);
    log_always(LOG_NOTICE, NULL, fields, "one");
    assert_int_equal(journal.count, 4);
    assert_string_equal(journal.fields[2], "METHOD=guard.end");
    for (int i = 0; i < 20; i++)
        fields[i] = "X=1";
    log_always(LOG_NOTICE, NULL, fields, "many");
    assert_int_equal(journal.count, 16);
    assert_string_equal(journal.fields[14], "X=1");
    assert_string_equal(journal.fields[15], "MESSAGE=many");
}

/* Standard error that somebody has redirected since is not the journal's. */
static void another_stream_is_not_the_journal(void **state)
{
    (void)state;

    connect_to_journal(1);
    log_info("here");
    setenv("JOURNAL_STREAM", "nonsense", 1);
    log_open();
    log_info("and here");
    assert_int_equal(journal.count, 0);
    assert_string_equal(written(), "p2mguardd: info: here\np2mguardd: info: and here\n");
}

/* Nothing can be said about it. */
static void nobody_to_be_told(void **state)
{
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    (void)state;

    assert_true(full >= 0);
    assert_int_equal(dup2(full, STDERR_FILENO), STDERR_FILENO);
    close(full);
    log_error("lost");
    assert_int_equal(dup2(file, STDERR_FILENO), STDERR_FILENO);
    log_error("heard");
    assert_string_equal(written(), "p2mguardd: error: heard\n");
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, take_standard_error, give_standard_error_back)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(lines_say_what_they_are_about),
        CASE(quiet_levels_keep_back_all_but_what_is_always_said),
        CASE(lines_have_a_longest_length),
        CASE(journal_is_given_fields),
        CASE(journal_is_given_the_callers_fields),
        CASE(another_stream_is_not_the_journal),
        CASE(nobody_to_be_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
