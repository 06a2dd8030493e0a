/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>

#include "daemon/helper-parse.h"

#define UNTOUCHED 0xabcd

/* A copy of exactly this size, for a sanitizer to watch its end. */
static void *exactly(const void *bytes, size_t size)
{
    void *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    memcpy(copy, bytes, size);
    return copy;
}

/* What is refused leaves the domid of a refused command line unused; what is found must be the program's name. */
static int parse(const char *command, size_t size, uint16_t *domid)
{
    char *copy = exactly(command, size);
    const char *program = NULL;

    *domid = UNTOUCHED;
    int error = helper_parse_command(copy, size, domid, &program);
    free(copy);
    if (!error)
        assert_true(strcmp(program, "libxl-save-helper") == 0 || strcmp(program, "emu-manager") == 0 ||
                    strcmp(program, "xenguest") == 0);
    return error;
}

/* Words with blanks between them stand for arguments. */
static int parse_words(const char *words, uint16_t *domid)
{
    char command[8192];
    size_t size = strlen(words) + 1;

    memcpy(command, words, size);
    for (size_t i = 0; i < size; i++)
        if (command[i] == ' ')
            command[i] = '\0';
    return parse(command, size, domid);
}

static void expect(const char *words, int error, uint16_t domid)
{
    uint16_t found;

    print_message("%s\n", words);
    assert_int_equal(parse_words(words, &found), error);
    if (!error)
        assert_int_equal(found, domid);
}

static void live_saves_are_found(void **state)
{
    (void)state;
    expect("/usr/lib/xen-4.17/bin/libxl-save-helper --save-domain 8 -1 7 1 12 0", 0, 7);
    expect("libxl-save-helper --save-domain 11 12 32751 3 0 0", 0, 32751);
    expect("/usr/libexec/xen/bin/libxl-save-helper --save-domain 0 0 1 4294967295 4294967295 0", 0, 1);
    expect("/usr/libexec/xenopsd/emu-manager -controloutfd 9 -controlinfd 10 -fd 11 -mode hvm_save -domid 12 -dm qemu "
           "-live true",
           0, 12);
    expect("/opt/xensource/libexec/xenguest -fd 5 -mode save -domid 3 -fork true -live true -debug true", 0, 3);
    expect("emu-manager -debug -live true -mode save -domid 4", 0, 4);
}

static void other_uses_are_left_alone(void **state)
{
    (void)state;
    expect("libxl-save-helper --save-domain 8 -1 7 0 12 0", -ENOENT, 0);           /* not live */
    expect("libxl-save-helper --save-domain 8 -1 7 2 12 0", -ENOENT, 0);           /* debug alone */
    expect("libxl-save-helper --save-domain 8 -1 7 1 12 1", -ENOENT, 0);           /* Remus */
    expect("libxl-save-helper --save-domain 8 -1 7 1 12 2", -ENOENT, 0);           /* COLO */
    expect("libxl-save-helper --restore-domain 8 -1 7 1 0 2 0 12 0", -ENOENT, 0);  /* the other side */
    expect("libxl-save-helper", -ENOENT, 0);                                       /* no arguments */
    expect("emu-manager -mode hvm_restore -domid 7 -fd 3 -live true", -ENOENT, 0); /* the other side */
    expect("emu-manager -mode hvm_save -domid 7 -fd 3", -ENOENT, 0);               /* not live */
    expect("emu-manager -mode hvm_save -domid 7 -fd 3 -live false", -ENOENT, 0);   /* not live */
    expect("xenguest -mode listen -domid 7 -controlinfd 3 -controloutfd 4 -live true", -ENOENT, 0);
    expect("xenguest -domid 7 -live true", -ENOENT, 0);            /* no mode */
    expect("save-helper --save-domain 8 -1 7 1 12 0", -ENOENT, 0); /* our own wrapper */
    expect("libxl-save-helper.real --save-domain 8 -1 7 1 12 0", -ENOENT, 0);
    expect("xlibxl-save-helper --save-domain 8 -1 7 1 12 0", -ENOENT, 0);
    expect("/bin/sh /usr/bin/libxl-save-helper --save-domain 8 -1 7 1 12 0", -ENOENT, 0); /* a script's shell */
    expect("libxl-save-helper/ --save-domain 8 -1 7 1 12 0", -ENOENT, 0);
    expect("grep libxl-save-helper --save-domain 8 -1 7 1 12 0", -ENOENT, 0);
}

static void what_no_toolstack_writes_is_refused(void **state)
{
    static const char *const domids[] = {"0",
                                         "-1",
                                         "+7",
                                         "07",
                                         "7x",
                                         "0x7",
                                         "7.0",
                                         "32752",
                                         "65535",
                                         "65543",
                                         "4294967303",
                                         "18446744073709551623",
                                         "99999999999999999999999999999999999999999999"};
    char words[256];
    (void)state;

    for (size_t i = 0; i < sizeof(domids) / sizeof(domids[0]); i++) {
        snprintf(words, sizeof(words), "libxl-save-helper --save-domain 8 -1 %s 1 12 0", domids[i]);
        expect(words, -EBADMSG, 0);
        snprintf(words, sizeof(words), "emu-manager -mode save -domid %s -live true", domids[i]);
        expect(words, -EBADMSG, 0);
    }
    expect("libxl-save-helper --save-domain", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -1 7 1 12", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -1 7 1 12 0 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -2 7 1 12 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain -1 -1 7 1 12 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 2147483648 -1 7 1 12 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -1 7 4294967297 12 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -1 7 live 12 0", -EBADMSG, 0);
    expect("libxl-save-helper --save-domain 8 -1 7  12 0", -EBADMSG, 0); /* an empty argument */
    expect("emu-manager -mode save -live true", -EBADMSG, 0);
    expect("emu-manager -mode save -domid", -EBADMSG, 0);
    expect("emu-manager -mode save -domid 7 -domid 8 -live true", -EBADMSG, 0);
    expect("emu-manager -mode save -mode save -domid 7 -live true", -EBADMSG, 0);
    expect("emu-manager -mode -domid 7 -live true", -ENOENT, 0);
}

static void bytes_without_order_are_refused(void **state)
{
    static const char good[] = "libxl-save-helper\0--save-domain\0008\0-1\0007\0001\00012\0000";
    const size_t size = sizeof(good); /* the last NUL included */
    char many[HELPER_COMMAND_MAX + 1];
    uint16_t domid;
    (void)state;

    assert_int_equal(parse(good, size, &domid), 0);
    assert_int_equal(domid, 7);
    for (size_t cut = 0; cut < size; cut++) /* whole arguments may be missing, the last NUL may */
        assert_int_not_equal(parse(good, cut, &domid), 0);
    assert_int_equal(parse("", 0, &domid), -EBADMSG);
    assert_int_equal(parse("\0", 1, &domid), -ENOENT);
    assert_int_equal(parse("\0\0\0\0\0\0\0\0\0", 9, &domid), -ENOENT);
    assert_int_equal(parse("\xff\xfe/libxl-save-helper", 21, &domid), -ENOENT);

    /* More arguments than there is room for, and a line as long as may be, and longer. */
    memset(many, 0, sizeof(many));
    memcpy(many, "emu-manager", 11);
    assert_int_equal(parse(many, HELPER_COMMAND_MAX, &domid), -EBADMSG);
    assert_int_equal(parse(many, HELPER_COMMAND_MAX + 1, &domid), -EBADMSG);
    memset(many, 'x', sizeof(many));
    many[HELPER_COMMAND_MAX - 1] = '\0';
    assert_int_equal(parse(many, HELPER_COMMAND_MAX, &domid), -ENOENT);
    memcpy(many, "xenguest\0-mode\0save\0-domid\0009\0-live\0true", 40);
    many[40] = '\0';
    many[41] = '-'; /* and one argument of 4 KiB */
    assert_int_equal(parse(many, HELPER_COMMAND_MAX, &domid), 0);
    assert_int_equal(domid, 9);
}

/* Whatever the bytes are: an answer, and nothing read beyond the end. */
static void any_bytes_get_an_answer(void **state)
{
    static const char good[] = "emu-manager\0-mode\0save\0-domid\0007\0-live\0true";
    char bytes[sizeof(good)];
    uint16_t domid;
    (void)state;

    srand(1);
    for (unsigned round = 0; round < 20000; round++) {
        memcpy(bytes, good, sizeof(good));
        for (int changes = rand() % 4; changes >= 0; changes--)
            bytes[(size_t)rand() % sizeof(bytes)] = (char)rand();
        int error = parse(bytes, (size_t)rand() % (sizeof(bytes) + 1), &domid);
        assert_true(error == 0 || error == -ENOENT || error == -EBADMSG);
        if (!error)
            assert_in_range(domid, 1, 0x7fef);
    }
}

static const char *comm(const char *text)
{
    return helper_parse_comm(text, strlen(text));
}

static void names_are_as_the_kernel_cuts_them(void **state)
{
    (void)state;
    assert_string_equal(comm("libxl-save-help\n"), "libxl-save-helper");
    assert_string_equal(comm("emu-manager\n"), "emu-manager");
    assert_string_equal(comm("xenguest\n"), "xenguest");
    assert_null(comm("libxl-save-hel\n"));
    assert_null(comm("libxl-save-helper\n"));
    assert_null(comm("xenguest"));
    assert_null(comm("xenguest2\n"));
    assert_null(comm("\n"));
    assert_null(comm(""));
}

static int uid_of(const char *text, uid_t *uid)
{
    char *copy = exactly(text, strlen(text));
    int error = helper_parse_uid(copy, strlen(text), uid);

    free(copy);
    return error;
}

static void only_one_uid_in_every_respect_is_a_uid(void **state)
{
    uid_t uid = 77;
    (void)state;

    assert_int_equal(uid_of("Name:\tx\nUid:\t0\t0\t0\t0\nGid:\t5\t5\t5\t5\n", &uid), 0);
    assert_int_equal(uid, 0);
    assert_int_equal(uid_of("Name:\tx\nUid:\t1000\t1000\t1000\t1000\n", &uid), 0);
    assert_int_equal(uid, 1000);
    assert_int_equal(uid_of("Name:\tx\nUid:\t1000\t0\t0\t0\n", &uid), -EPERM); /* a program that is set-user-id */
    assert_int_equal(uid_of("Name:\tx\nUid:\t0\t0\t1000\t0\n", &uid), -EPERM);
    assert_int_equal(uid_of("Name:\tUid:\t0\t0\t0\t0\n", &uid), -EBADMSG); /* in a name, newlines are escaped */
    assert_int_equal(uid_of("Name:\tx\nUid:\t0\t0\t0\n", &uid), -EBADMSG);
    assert_int_equal(uid_of("Name:\tx\nUid:\t0\t0\t0\t0", &uid), -EBADMSG);
    assert_int_equal(uid_of("Name:\tx\nUid:\t4294967296\t0\t0\t0\n", &uid), -EBADMSG);
    assert_int_equal(uid_of("Name:\tx\nUid:\t\t\t\t\n", &uid), -EBADMSG);
    static const char cut[] = "Name:\tx\nUid:\t0\t0\t0\t0\0\n"; /* a NUL ends no number */
    assert_int_equal(helper_parse_uid(cut, sizeof(cut), &uid), -EBADMSG);
    assert_int_equal(uid_of("", &uid), -EBADMSG);
    assert_int_equal(uid, 1000);
}

static int start_of(const char *text, uint64_t *ticks)
{
    char *copy = exactly(text, strlen(text));
    int error = helper_parse_start(copy, strlen(text), ticks);

    free(copy);
    return error;
}

static void start_is_found_behind_any_name(void **state)
{
    uint64_t ticks = 0;
    (void)state;

    assert_int_equal(start_of("7 (x) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 12345 99 1\n", &ticks), 0);
    assert_int_equal(ticks, 12345);
    assert_int_equal(start_of("7 (a) S 1 (b c) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 54321 99 1\n", &ticks), 0);
    assert_int_equal(ticks, 54321);
    assert_int_equal(start_of("7 (x) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 12345", &ticks), -EBADMSG);
    assert_int_equal(start_of("7 (x) S 1 7 7 0 -1 4194560 9 0 0 0 1 2 0 0 20 0 1 0 -5 9\n", &ticks), -EBADMSG);
    assert_int_equal(start_of("7 (x)", &ticks), -EBADMSG);
    assert_int_equal(start_of("7 x S 1", &ticks), -EBADMSG);
    assert_int_equal(start_of("", &ticks), -EBADMSG);
    assert_int_equal(ticks, 54321);
}

/* struct cn_msg without the room that follows it. */
struct connector {
    struct cb_id id;
    uint32_t seq, ack;
    uint16_t len, flags;
};

_Static_assert(sizeof(struct connector) == sizeof(struct cn_msg), "the kernel's layout");

struct message {
    struct nlmsghdr header;
    struct connector connector;
    char process[sizeof(struct proc_event)]; /* not aligned for one */
};

static struct message message_of(unsigned what, pid_t pid)
{
    struct proc_event process = {.what = (enum what)what};
    struct message message = {
        .header = {.nlmsg_len = sizeof(struct nlmsghdr) + sizeof(struct connector) + sizeof(process),
                   .nlmsg_type = NLMSG_DONE},
        .connector = {.id = {CN_IDX_PROC, CN_VAL_PROC}, .ack = 8, .len = sizeof(process)}};

    process.event_data.exec.process_pid = process.event_data.exec.process_tgid = pid;
    memcpy(message.process, &process, sizeof(process));
    return message;
}

static int event_of(const struct message *message, size_t size, struct helper_event *event)
{
    char *copy = exactly(message, size);
    int error = helper_parse_event(copy, size, event);

    free(copy);
    return error;
}

static void messages_of_the_kernel_are_read(void **state)
{
    const size_t size = offsetof(struct message, process) + sizeof(struct proc_event);
    struct message message = message_of(PROC_EVENT_EXEC, 4711);
    struct helper_event event;
    (void)state;

    assert_int_equal(event_of(&message, size, &event), 0);
    assert_int_equal(event.what, HELPER_EVENT_EXEC);
    assert_int_equal(event.pid, 4711);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(event_of(&message, cut, &event), -EBADMSG);
    message = message_of(PROC_EVENT_NONE, 0);
    assert_int_equal(event_of(&message, size, &event), 0);
    assert_int_equal(event.what, HELPER_EVENT_ACK);
    assert_int_equal(event.error, 0);
    assert_int_equal(event.ack, 8);
    message = message_of(PROC_EVENT_NONE, EPERM);
    assert_int_equal(event_of(&message, size, &event), 0);
    assert_int_equal(event.error, -EPERM);
    message = message_of(PROC_EVENT_NONE, -EPERM);
    assert_int_equal(event_of(&message, size, &event), 0);
    assert_true(event.error < 0);
    message = message_of(PROC_EVENT_FORK, 1);
    assert_int_equal(event_of(&message, size, &event), 0);
    assert_int_equal(event.what, HELPER_EVENT_OTHER);
}

static void other_messages_are_refused(void **state)
{
    const size_t size = offsetof(struct message, process) + sizeof(struct proc_event);
    const struct message good = message_of(PROC_EVENT_EXEC, 4711);
    struct message message;
    struct helper_event event;
    (void)state;

    message = good;
    message.header.nlmsg_type = NLMSG_ERROR;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
    message = good;
    message.header.nlmsg_len = (uint32_t)size + 1;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
    message = good;
    message.connector.id.idx++;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
    message = good;
    message.connector.id.val++;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
    message = good;
    message.connector.len = UINT16_MAX;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
    message.connector.len = 4;
    assert_int_equal(event_of(&message, size, &event), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(live_saves_are_found),
        cmocka_unit_test(other_uses_are_left_alone),
        cmocka_unit_test(what_no_toolstack_writes_is_refused),
        cmocka_unit_test(bytes_without_order_are_refused),
        cmocka_unit_test(any_bytes_get_an_answer),
        cmocka_unit_test(names_are_as_the_kernel_cuts_them),
        cmocka_unit_test(only_one_uid_in_every_respect_is_a_uid),
        cmocka_unit_test(start_is_found_behind_any_name),
        cmocka_unit_test(messages_of_the_kernel_are_read),
        cmocka_unit_test(other_messages_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
