/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/helper-parse.h"

#include <errno.h>
#include <limits.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* DOMID_FIRST_RESERVED, xen/include/public/xen.h */
#define HELPER_DOMIDS 0x7ff0

/* The kernel cuts a name to this, without its NUL. */
#define HELPER_COMM_LENGTH 15

/* More than any of them has. */
#define HELPER_ARGUMENTS 64

#define HELPER_XCFLAGS_LIVE 1u

/* ---- numbers ---- */

/* As "%lu" writes one: digits, no leading zero. */
static bool helper_number(const char *text, uint64_t most, uint64_t *number)
{
    uint64_t value = 0;

    if (!*text || (*text == '0' && text[1]))
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > (UINT64_MAX - 9) / 10)
            return false;
        value = value * 10 + (uint64_t)(*text - '0');
    }
    *number = value;
    return value <= most;
}

static bool helper_domid(const char *text, uint16_t *domid)
{
    uint64_t number;

    if (!helper_number(text, HELPER_DOMIDS - 1, &number) || number == 0)
        return false;
    *domid = (uint16_t)number;
    return true;
}

/* ---- command lines ---- */

/* libxl: PROGRAM --save-domain FD RECVFD DOMID XCFLAGS CBFLAGS STREAMTYPE. RECVFD is -1 where there is none. */
static int helper_parse_libxl(const char *const *arguments, unsigned count, uint16_t *domid)
{
    uint64_t number, flags, type;

    if (count < 2 || strcmp(arguments[1], "--save-domain") != 0)
        return -ENOENT;
    if (count != 8 || !helper_number(arguments[2], INT_MAX, &number) ||
        (strcmp(arguments[3], "-1") != 0 && !helper_number(arguments[3], INT_MAX, &number)) ||
        !helper_domid(arguments[4], domid) || !helper_number(arguments[5], UINT32_MAX, &flags) ||
        !helper_number(arguments[6], UINT32_MAX, &number) || !helper_number(arguments[7], UINT32_MAX, &type))
        return -EBADMSG;
    /* Remus and COLO, types 1 and 2, stop and copy for as long as the guest lives: there is no one moment to judge. */
    return flags & HELPER_XCFLAGS_LIVE && type == 0 ? 0 : -ENOENT;
}

/* xenopsd: options of the form "-key value", in an order that differs between versions; "-debug" may stand alone. */
static int helper_parse_xenopsd(const char *const *arguments, unsigned count, uint16_t *domid)
{
    static const char *const keys[] = {"-mode", "-domid", "-live"};
    const char *values[3] = {NULL, NULL, NULL};

    for (unsigned i = 1; i < count; i++) {
        for (unsigned key = 0; key < 3; key++) {
            if (strcmp(arguments[i], keys[key]) != 0)
                continue;
            if (values[key] || i + 1 == count)
                return -EBADMSG;
            values[key] = arguments[++i];
            break;
        }
    }
    if (!values[0] || (strcmp(values[0], "save") != 0 && strcmp(values[0], "hvm_save") != 0))
        return -ENOENT;
    if (!values[1] || !helper_domid(values[1], domid))
        return -EBADMSG;
    return values[2] && strcmp(values[2], "true") == 0 ? 0 : -ENOENT;
}

static const struct helper_program {
    const char *name;
    int (*parse)(const char *const *arguments, unsigned count, uint16_t *domid);
} helper_programs[] = {
    {"libxl-save-helper", helper_parse_libxl},
    {"emu-manager", helper_parse_xenopsd}, /* what xenopsd starts since 2017; xenguest is its child then ... */
    {"xenguest", helper_parse_xenopsd},    /* ... whose mode is "listen", and before that it was started itself */
};

#define HELPER_PROGRAMS (sizeof(helper_programs) / sizeof(helper_programs[0]))

static const struct helper_program *helper_find(const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

    for (size_t i = 0; i < HELPER_PROGRAMS; i++)
        if (strcmp(name, helper_programs[i].name) == 0)
            return &helper_programs[i];
    return NULL;
}

int helper_parse_command(const char *command, size_t size, uint16_t *domid, const char **program)
{
    const char *arguments[HELPER_ARGUMENTS];
    unsigned count = 0;

    /* Each argument ends with a NUL; what does not was cut, or written over. */
    if (size == 0 || size > HELPER_COMMAND_MAX || command[size - 1] != '\0')
        return -EBADMSG;
    const struct helper_program *found = helper_find(command);
    if (!found)
        return -ENOENT;
    for (size_t at = 0; at < size; at += strlen(command + at) + 1) {
        if (count == HELPER_ARGUMENTS)
            return -EBADMSG;
        arguments[count++] = command + at;
    }
    *program = found->name;
    return found->parse(arguments, count, domid);
}

/* ---- what the kernel writes ---- */

const char *helper_parse_comm(const char *comm, size_t size)
{
    if (size == 0 || comm[size - 1] != '\n')
        return NULL;
    for (size_t i = 0; i < HELPER_PROGRAMS; i++) {
        size_t length = strlen(helper_programs[i].name);
        length = length < HELPER_COMM_LENGTH ? length : HELPER_COMM_LENGTH;
        if (size - 1 == length && memcmp(comm, helper_programs[i].name, length) == 0)
            return helper_programs[i].name;
    }
    return NULL;
}

/* Decimal digits that end with `end`, from *at on; *at is behind the end then. */
static bool helper_field(const char *text, size_t size, size_t *at, char end, uint64_t *number)
{
    char digits[24];
    size_t length = 0;

    while (*at + length < size && length < sizeof(digits) && text[*at + length] >= '0' && text[*at + length] <= '9')
        length++;
    if (length == sizeof(digits) || *at + length == size || text[*at + length] != end)
        return false;
    memcpy(digits, text + *at, length);
    digits[length] = '\0';
    *at += length + 1;
    return helper_number(digits, UINT64_MAX, number);
}

int helper_parse_uid(const char *status, size_t size, uid_t *uid)
{
    static const char key[] = "\nUid:\t";
    const char *found = memmem(status, size, key, sizeof(key) - 1);
    uint64_t uids[4];

    if (!found)
        return -EBADMSG;
    size_t at = (size_t)(found - status) + sizeof(key) - 1;
    for (unsigned i = 0; i < 4; i++) /* real, effective, saved, and for file access */
        if (!helper_field(status, size, &at, i < 3 ? '\t' : '\n', &uids[i]) || uids[i] > UINT32_MAX)
            return -EBADMSG;
    if (uids[1] != uids[0] || uids[2] != uids[0] || uids[3] != uids[0])
        return -EPERM;
    *uid = (uid_t)uids[0];
    return 0;
}

int helper_parse_start(const char *stat, size_t size, uint64_t *ticks)
{
    /* The name, in parentheses, is the process's own and may hold anything; nothing behind it has a parenthesis. */
    const char *name_end = memrchr(stat, ')', size);
    size_t at = name_end ? (size_t)(name_end - stat) + 1 : size;

    for (unsigned field = 3; field <= 22; field++) { /* each begins with a blank */
        const char *blank = memchr(stat + at, ' ', size - at);
        if (!blank)
            return -EBADMSG;
        at = (size_t)(blank - stat) + 1;
    }
    return helper_field(stat, size, &at, ' ', ticks) ? 0 : -EBADMSG;
}

int helper_parse_event(const void *message, size_t size, struct helper_event *event)
{
    const char *bytes = message;
    struct nlmsghdr header;
    struct cn_msg connector;
    struct proc_event process = {0};
    const size_t heads = NLMSG_HDRLEN + sizeof(connector);

    if (size < heads)
        return -EBADMSG;
    memcpy(&header, bytes, sizeof(header));
    memcpy(&connector, bytes + NLMSG_HDRLEN, sizeof(connector));
    /* Newer kernels may send more than we know of, older ones less than we know; both begin alike. */
    size_t length = connector.len < sizeof(process) ? connector.len : sizeof(process);
    if (header.nlmsg_type != NLMSG_DONE || header.nlmsg_len > size || connector.id.idx != CN_IDX_PROC ||
        connector.id.val != CN_VAL_PROC || connector.len > size - heads ||
        length < offsetof(struct proc_event, event_data) + sizeof(process.event_data.exec))
        return -EBADMSG;
    memcpy(&process, bytes + heads, length);
    *event = (struct helper_event){.what = HELPER_EVENT_OTHER};
    if (process.what == PROC_EVENT_EXEC && process.event_data.exec.process_pid > 0) {
        event->what = HELPER_EVENT_EXEC;
        event->pid = process.event_data.exec.process_tgid;
    } else if (process.what == PROC_EVENT_NONE) {
        event->what = HELPER_EVENT_ACK;
        event->error = process.event_data.ack.err <= INT_MAX ? -(int)process.event_data.ack.err : -EPROTO;
        event->ack = connector.ack;
    }
    return 0;
}
