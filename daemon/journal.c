/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/journal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JOURNAL_VERSION "1"

/* From here on domids mean something else (DOMID_FIRST_RESERVED in xen/include/public/xen.h). */
#define JOURNAL_DOMIDS 0x7ff0

/* A connection may be lost for any reason while journals are listed; this often, and the list is the reason. */
#define JOURNAL_LISTS_LOST 2

enum journal_type { JOURNAL_TEXT, JOURNAL_NUMBER };

/* Every key, where its value is kept and how large that may be. */
static const struct journal_key {
    const char *name;
    enum journal_type type;
    size_t offset, size;
} journal_keys[] = {
#define TEXT_KEY(name, field)                                                                                          \
    {                                                                                                                  \
        name, JOURNAL_TEXT, offsetof(struct journal, field), sizeof(((struct journal *)0)->field)                      \
    }
#define NUMBER_KEY(name, field)                                                                                        \
    {                                                                                                                  \
        name, JOURNAL_NUMBER, offsetof(struct journal, field), sizeof(uint64_t)                                        \
    }
    TEXT_KEY("session", session),
    TEXT_KEY("uuid", uuid),
    TEXT_KEY("memory-permissions", memory_perms),
    TEXT_KEY("target-permissions", target_perms),
    TEXT_KEY("target", target),
    TEXT_KEY("deferred", deferred),
    TEXT_KEY("pin", pin),
    TEXT_KEY("private", private_nodes),
    NUMBER_KEY("max-kib", max_kib),
    NUMBER_KEY("cap-kib", cap_kib),
    NUMBER_KEY("cap-past-kib", cap_past_kib),
    NUMBER_KEY("agent-seq", agent_seq),
};

#define JOURNAL_KEYS (sizeof(journal_keys) / sizeof(journal_keys[0]))

static int journal_append(char *text, size_t size, size_t *used, const char *key, const char *value)
{
    int length = snprintf(text + *used, size - *used, "%s %s\n", key, value);

    if (length < 0 || (size_t)length >= size - *used)
        return -EMSGSIZE;
    *used += (size_t)length;
    return 0;
}

int journal_encode(const struct journal *journal, char *text, size_t size)
{
    const char *base = (const char *)journal;
    char number[24];
    size_t used = 0;
    int error = journal_append(text, size, &used, "p2mguard", JOURNAL_VERSION);

    for (size_t i = 0; i < JOURNAL_KEYS && !error; i++) {
        const struct journal_key *key = &journal_keys[i];
        const char *value = base + key->offset;
        if (key->type == JOURNAL_NUMBER) {
            uint64_t kib;
            memcpy(&kib, value, sizeof(kib));
            snprintf(number, sizeof(number), "%" PRIu64, kib);
            value = number;
        }
        error = journal_append(text, size, &used, key->name, value);
    }
    return error;
}

static int journal_decode_number(const char *text, uint64_t *number)
{
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno || *end ? -EINVAL : 0;
}

static int journal_decode_line(const char *line, const struct journal_key *key, struct journal *journal)
{
    size_t name_length = strlen(key->name);
    char *field = (char *)journal + key->offset;

    if (strncmp(line, key->name, name_length) != 0 || line[name_length] != ' ')
        return -EINVAL;
    const char *value = line + name_length + 1;
    if (key->type == JOURNAL_TEXT) {
        if (strlen(value) >= key->size)
            return -EINVAL;
        strcpy(field, value);
        return 0;
    }
    uint64_t number;
    int error = journal_decode_number(value, &number);
    if (!error)
        memcpy(field, &number, sizeof(number));
    return error;
}

int journal_decode(const char *text, struct journal *journal)
{
    char copy[JOURNAL_TEXT_MAX + 1];
    char *next = copy;
    int error = 0;

    memset(journal, 0, sizeof(*journal));
    if (strlen(text) >= sizeof(copy))
        return -EINVAL;
    strcpy(copy, text);

    char *line = strsep(&next, "\n");
    if (!next || strcmp(line, "p2mguard " JOURNAL_VERSION) != 0)
        return -EINVAL;
    for (size_t i = 0; i < JOURNAL_KEYS && !error; i++) {
        line = strsep(&next, "\n");
        error = next ? journal_decode_line(line, &journal_keys[i], journal) : -EINVAL;
    }
    if (!error && *next)
        error = -EINVAL;
    if (!error &&
        (strlen(journal->uuid) != HYPERVISOR_UUID_LENGTH || !*journal->memory_perms || !*journal->target_perms))
        error = -EINVAL;
    if (error)
        memset(journal, 0, sizeof(*journal));
    return error;
}

int journal_prepare(struct store *store)
{
    char perms[STORE_PERMS_MAX];
    int error = store_get_perms(store, 0, JOURNAL_ROOT, perms, sizeof(perms));

    if (error == -ENOENT) {
        error = store_write(store, 0, JOURNAL_ROOT, "");
        if (!error)
            error = store_get_perms(store, 0, JOURNAL_ROOT, perms, sizeof(perms));
    }
    if (!error && strcmp(perms, "n0") != 0)
        error = store_set_perms(store, 0, JOURNAL_ROOT, "n0");
    return error;
}

static void journal_path(char *path, size_t size, uint16_t domid, const char *leaf)
{
    snprintf(path, size, JOURNAL_SESSIONS "/%u%s", domid, leaf);
}

int journal_write(struct store *store, store_txn txn, const struct journal *journal)
{
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX];
    int error = journal_encode(journal, text, sizeof(text));

    if (error)
        return error;
    journal_path(path, sizeof(path), journal->domid, "/restore");
    return store_write(store, txn, path, text);
}

int journal_read(struct store *store, store_txn txn, uint16_t domid, struct journal *journal)
{
    char path[STORE_PATH_MAX], text[JOURNAL_TEXT_MAX + 1];

    journal_path(path, sizeof(path), domid, "/restore");
    int error = store_read(store, txn, path, text, sizeof(text));
    if (!error)
        error = journal_decode(text, journal);
    if (!error)
        journal->domid = domid;
    return error;
}

int journal_drop(struct store *store, store_txn txn, uint16_t domid)
{
    char path[STORE_PATH_MAX];

    journal_path(path, sizeof(path), domid, "");
    return store_remove(store, txn, path);
}

/* Not without the journal: what stands beside one that is gone would never be removed. */
static int journal_write_beside(struct store *store, store_txn txn, uint16_t domid, const char *leaf, const char *text)
{
    char path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];

    journal_path(path, sizeof(path), domid, "/restore");
    int error = store_get_perms(store, txn, path, perms, sizeof(perms));
    if (error)
        return error;
    journal_path(path, sizeof(path), domid, leaf);
    return store_write(store, txn, path, text);
}

int journal_write_heir(struct store *store, store_txn txn, uint16_t domid, uint16_t heir)
{
    char text[8];

    snprintf(text, sizeof(text), "%u", heir);
    return journal_write_beside(store, txn, domid, "/heir", text);
}

int journal_read_heir(struct store *store, uint16_t domid, uint16_t *heir)
{
    char path[STORE_PATH_MAX], text[8];

    *heir = 0;
    journal_path(path, sizeof(path), domid, "/heir");
    int error = store_read(store, 0, path, text, sizeof(text));
    if (!error)
        *heir = (uint16_t)strtoul(text, NULL, 10);
    return error == -ENOENT ? 0 : error;
}

int journal_write_raise(struct store *store, uint16_t domid, const struct journal_raise *raise)
{
    char path[STORE_PATH_MAX], text[80];

    journal_path(path, sizeof(path), domid, "/raise");
    snprintf(text, sizeof(text), "%u %" PRIu64 " %" PRIu64 " %" PRIu64, raise->domid, raise->max_kib, raise->given_kib,
             raise->past_kib);
    return store_write(store, 0, path, text);
}

int journal_read_raise(struct store *store, uint16_t domid, struct journal_raise *raise)
{
    char path[STORE_PATH_MAX], text[80], *end = text;

    memset(raise, 0, sizeof(*raise));
    journal_path(path, sizeof(path), domid, "/raise");
    int error = store_read(store, 0, path, text, sizeof(text));
    if (error)
        return error == -ENOENT ? 0 : error;
    raise->domid = (uint16_t)strtoul(end, &end, 10);
    raise->max_kib = strtoull(end, &end, 10);
    raise->given_kib = strtoull(end, &end, 10);
    raise->past_kib = strtoull(end, &end, 10);
    return 0;
}

int journal_write_passing(struct store *store, uint16_t domid)
{
    return journal_write_beside(store, 0, domid, "/passing", "");
}

int journal_read_passing(struct store *store, store_txn txn, uint16_t domid, bool *passing)
{
    char path[STORE_PATH_MAX], text[8];

    journal_path(path, sizeof(path), domid, "/passing");
    int error = store_read(store, txn, path, text, sizeof(text));
    *passing = !error;
    return error == -ENOENT ? 0 : error;
}

struct journal_walk {
    int (*each)(void *context, uint16_t domid);
    void *context;
    bool listed;
};

static int journal_visit(void *context, const char *name)
{
    struct journal_walk *walk = context;
    char *end;

    walk->listed = true;

    unsigned long domid = strtoul(name, &end, 10);
    if (end == name || *end || domid > UINT16_MAX)
        return 0; /* not ours */
    return walk->each(walk->context, (uint16_t)domid);
}

/* Every domid there can be, one after the other: a second or two, and no list that is too long. */
static int journal_probe(struct store *store, const struct journal_walk *walk)
{
    char path[STORE_PATH_MAX], text[8];
    int error = 0;

    for (uint16_t domid = 1; domid < JOURNAL_DOMIDS && !error; domid++) {
        journal_path(path, sizeof(path), domid, "");
        error = store_read(store, 0, path, text, sizeof(text));
        if (!error || error == -EMSGSIZE)
            error = walk->each(walk->context, domid);
        else if (error == -ENOENT)
            error = 0;
    }
    if (!error)
        store_count_list(store, false); /* whoever has seen all journals has put most of them away */
    return error;
}

int journal_each(struct store *store, int (*each)(void *context, uint16_t domid), void *context)
{
    struct journal_walk walk = {each, context, false};

    if (store_lists_lost(store) >= JOURNAL_LISTS_LOST)
        return journal_probe(store, &walk);
    int error = store_list(store, 0, JOURNAL_SESSIONS, journal_visit, &walk);

    store_count_list(store, error == -ENOTCONN && !walk.listed);
    return error == -ENOENT ? 0 : error;
}

const char *journal_wanted_target(const struct journal *journal)
{
    return *journal->deferred ? journal->deferred : journal->target;
}

bool journal_is_target(const char *text)
{
    size_t length = strspn(text, "0123456789");

    return length > 0 && length < JOURNAL_TARGET_MAX - 1 && text[length] == '\0';
}
