/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what may stand in xenstore: values, permissions, names, watch events, targets, and journals. libxenstore's
 * functions are defined here, and answer with the input.
 *
 * Input: each line, and all of it, as each of these.
 */
#include "daemon/store.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include <xenstore.h>
#include <xenstore_lib.h>

#include "daemon/journal.h"
#include "daemon/node.h"
#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

/* ---- xenstored ---- */

enum { PERMS_MAX = 64 };

static struct {
    const uint8_t *value;
    size_t length;
    struct xs_permissions perms[PERMS_MAX], set[PERMS_MAX];
    unsigned perms_count, set_count;
    bool has_event;
} store;

struct xs_handle *xs_open(unsigned long flags)
{
    (void)flags;
    return (struct xs_handle *)(void *)&store;
}

void xs_close(struct xs_handle *handle)
{
    (void)handle;
}

int xs_fileno(struct xs_handle *handle)
{
    (void)handle;
    return -1;
}

const char *xs_daemon_socket(void)
{
    return "/dev/null";
}

char *xs_get_domain_path(struct xs_handle *handle, unsigned domid)
{
    (void)handle, (void)domid;
    return strdup("/local/domain/0");
}

static char *copy_of(const uint8_t *data, size_t length)
{
    char *copy = malloc(length + 1);

    MUST(copy);
    if (length)
        memcpy(copy, data, length);
    copy[length] = '\0'; /* as libxenstore does */
    return copy;
}

void *xs_read(struct xs_handle *handle, xs_transaction_t txn, const char *path, unsigned *length)
{
    (void)handle, (void)txn, (void)path;
    *length = (unsigned)store.length;
    return copy_of(store.value, store.length);
}

struct xs_permissions *xs_get_permissions(struct xs_handle *handle, xs_transaction_t txn, const char *path,
                                          unsigned *count)
{
    struct xs_permissions *perms = calloc(store.perms_count + 1, sizeof(*perms));
    (void)handle, (void)txn, (void)path;

    MUST(perms);
    *count = store.perms_count;
    memcpy(perms, store.perms, store.perms_count * sizeof(*perms));
    return perms;
}

bool xs_set_permissions(struct xs_handle *handle, xs_transaction_t txn, const char *path, struct xs_permissions *perms,
                        unsigned count)
{
    (void)handle, (void)txn, (void)path;
    MUST(count > 0 && count <= PERMS_MAX);
    memcpy(store.set, perms, count * sizeof(*perms));
    store.set_count = count;
    return true;
}

/* One block, as libxenstore's: pointers, then texts. */
char **xs_directory(struct xs_handle *handle, xs_transaction_t txn, const char *path, unsigned *count)
{
    char **names = malloc(sizeof(*names) + store.length + 1);
    (void)handle, (void)txn, (void)path;

    MUST(names);
    names[0] = (char *)&names[1];
    if (store.length)
        memcpy(names[0], store.value, store.length);
    names[0][store.length] = '\0';
    *count = 1;
    return names;
}

char **xs_check_watch(struct xs_handle *handle)
{
    char **event = malloc(2 * sizeof(*event) + 2 * (store.length + 1));
    (void)handle;

    MUST(event);
    errno = EAGAIN;
    if (!store.has_event) {
        free(event);
        return NULL;
    }
    store.has_event = false;
    event[XS_WATCH_PATH] = (char *)&event[2];
    event[XS_WATCH_TOKEN] = event[XS_WATCH_PATH] + store.length + 1;
    for (int i = 0; i < 2; i++) {
        if (store.length)
            memcpy(event[i], store.value, store.length);
        event[i][store.length] = '\0';
    }
    return event;
}

/* Never called with what is tried here. */
bool xs_write(struct xs_handle *handle, xs_transaction_t txn, const char *path, const void *data, unsigned length)
{
    (void)handle, (void)txn, (void)path, (void)data, (void)length;
    abort();
}

bool xs_rm(struct xs_handle *handle, xs_transaction_t txn, const char *path)
{
    (void)handle, (void)txn, (void)path;
    abort();
}

bool xs_watch(struct xs_handle *handle, const char *path, const char *token)
{
    (void)handle, (void)path, (void)token;
    abort();
}

bool xs_unwatch(struct xs_handle *handle, const char *path, const char *token)
{
    (void)handle, (void)path, (void)token;
    abort();
}

xs_transaction_t xs_transaction_start(struct xs_handle *handle)
{
    (void)handle;
    abort();
}

bool xs_transaction_end(struct xs_handle *handle, xs_transaction_t txn, bool gives_up)
{
    (void)handle, (void)txn, (void)gives_up;
    abort();
}

/* ---- what is read ---- */

static struct store *connection;

static void try_value(size_t room)
{
    char *value = malloc(room);

    MUST(value);
    memset(value, UNTOUCHED, room);
    int error = store_read(connection, 0, "/value", value, room);
    bool fits = store.length < room && (store.length == 0 || !memchr(store.value, '\0', store.length));
    MUST(error == (fits ? 0 : -EMSGSIZE));
    if (error)
        MUST(is_untouched(value, room));
    else
        MUST(strlen(value) == store.length && (store.length == 0 || memcmp(value, store.value, store.length) == 0));
    free(value);
}

static void try_name(void)
{
    char *name = malloc(32);

    MUST(name);
    if (node_read_name(connection, 7, name, 32))
        MUST(*name == '\0');
    MUST(strlen(name) < 32);
    free(name);
}

static void try_target(const char *text)
{
    bool digits = *text != '\0';

    for (const char *at = text; *at; at++)
        digits = digits && isdigit((unsigned char)*at);
    MUST(journal_is_target(text) == (digits && strlen(text) < JOURNAL_TARGET_MAX - 1));
}

/* What is understood is written so that it is understood again, and means the same. */
static void try_journal(void)
{
    struct journal journal, again;
    char text[JOURNAL_TEXT_MAX];

    memset(&journal, UNTOUCHED, sizeof(journal));
    int error = journal_read(connection, 0, 7, &journal);
    if (error) {
        struct journal nothing = {0};
        MUST(is_untouched(&journal, sizeof(journal)) || memcmp(&journal, &nothing, sizeof(journal)) == 0);
        return;
    }
    MUST(journal.domid == 7 && strlen(journal.uuid) == HYPERVISOR_UUID_LENGTH);
    MUST(journal_encode(&journal, text, sizeof(text)) == 0);
    MUST(journal_decode(text, &again) == 0);
    again.domid = journal.domid;
    MUST(memcmp(&again, &journal, sizeof(journal)) == 0);
}

/* A text that is understood comes back the same, or as the same permissions. */
static void try_permissions(const char *text)
{
    char *back = malloc(STORE_PERMS_MAX);

    MUST(back);
    store.set_count = 0;
    int error = store_set_perms(connection, 0, "/value", text);
    MUST(error == 0 || error == -EINVAL || error == -EMSGSIZE);
    MUST((error == 0) == (store.set_count > 0));
    if (!error) {
        struct xs_permissions first[PERMS_MAX];
        unsigned count = store.perms_count = store.set_count;
        memcpy(first, store.set, count * sizeof(*first));
        memcpy(store.perms, store.set, count * sizeof(*first));
        MUST(store_get_perms(connection, 0, "/value", back, STORE_PERMS_MAX) == 0);
        MUST(store_set_perms(connection, 0, "/value", back) == 0 && store.set_count == count);
        for (unsigned i = 0; i < count; i++)
            MUST(store.set[i].id == first[i].id && store.set[i].perms == first[i].perms);
    }
    free(back);
}

/* What xenstored says is put into words that give the same again, or is said not to fit. */
static void try_entries(const uint8_t *data, size_t size)
{
    char *text = malloc(STORE_PERMS_MAX);

    MUST(text);
    store.perms_count = 0;
    for (; size >= 3 && store.perms_count < PERMS_MAX; data += 3, size -= 3) {
        struct xs_permissions *entry = &store.perms[store.perms_count++];
        *entry = (struct xs_permissions){.id = (unsigned)(data[0] << 8 | data[1])};
        entry->perms = data[2] & (XS_PERM_READ | XS_PERM_WRITE);
    }
    if (store.perms_count && store_get_perms(connection, 0, "/value", text, STORE_PERMS_MAX) == 0) {
        MUST(store_set_perms(connection, 0, "/value", text) == 0 && store.set_count == store.perms_count);
        for (unsigned i = 0; i < store.set_count; i++)
            MUST(store.set[i].id == store.perms[i].id && store.set[i].perms == store.perms[i].perms);
    }
    free(text);
}

static int note_domid(void *context, uint16_t domid)
{
    char text[8];

    snprintf(text, sizeof(text), "%u", domid);
    *(bool *)context = true;
    return strcmp(text, "7") == 0;
}

static void try_names(void)
{
    bool called = false;
    int error = journal_each(connection, note_domid, &called);

    MUST(error == 0 || (called && error == 1));
}

static void try_event(void)
{
    char *path = malloc(STORE_PATH_MAX), *token = malloc(64);

    MUST(path && token);
    store.has_event = true;
    MUST(store_next_event(connection, path, STORE_PATH_MAX, token, 64) == 1);
    MUST(strlen(path) < STORE_PATH_MAX && strlen(token) < 64);
    MUST(store_next_event(connection, path, STORE_PATH_MAX, token, 64) == 0);
    free(token);
    free(path);
}

static void read_text(const uint8_t *data, size_t length)
{
    char *text = copy_of(data, length);

    store.value = data;
    store.length = length;
    try_value(1);
    try_value(24);
    try_value(256);
    try_name();
    try_target(text);
    try_journal();
    try_permissions(text);
    try_entries(data, length);
    try_names();
    try_event();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!connection)
        MUST(store_new(&connection, false) == 0 && store_reconnect(connection) == 0);
    if (size)
        fuzz_texts(data, size, read_text);
    return 0;
}
