/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/migrate-store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whoever else could write a request would have a guest frozen, or thawed. */
#define MIGRATE_PERMS "n0"

static const char *migrate_path(uint16_t domid, const char *leaf, char path[STORE_PATH_MAX])
{
    snprintf(path, STORE_PATH_MAX, MIGRATE_FOLDER "/%u%s", domid, leaf);
    return path;
}

static int migrate_close_to_guests(struct store *store, store_txn txn, const char *path, bool *was_open)
{
    char perms[STORE_PERMS_MAX];
    int error = store_get_perms(store, txn, path, perms, sizeof(perms));

    *was_open = error == -EMSGSIZE || (!error && strcmp(perms, MIGRATE_PERMS) != 0);
    return *was_open ? store_set_perms(store, txn, path, MIGRATE_PERMS) : error;
}

int migrate_store_prepare(struct store *store, const char *token)
{
    bool was_open;
    int error = migrate_close_to_guests(store, 0, MIGRATE_FOLDER, &was_open);

    if (error == -ENOENT) {
        error = store_write(store, 0, MIGRATE_FOLDER, "");
        if (!error)
            error = migrate_close_to_guests(store, 0, MIGRATE_FOLDER, &was_open);
    }
    return error ? error : store_watch(store, MIGRATE_FOLDER, token);
}

int migrate_store_close(struct store *store)
{
    return store_remove(store, 0, MIGRATE_FOLDER);
}

/* ---- walking ---- */

struct migrate_walk {
    int (*each)(void *context, uint16_t domid);
    void *context;
};

static int migrate_visit(void *context, const char *name)
{
    const struct migrate_walk *walk = context;
    char again[8];
    unsigned long domid = strtoul(name, NULL, 10);

    /* Written as we would write it: "+7", "07" and "7x" are nobody's. */
    snprintf(again, sizeof(again), "%lu", domid % 100000);
    if (domid > UINT16_MAX || strcmp(name, again) != 0)
        return 0;
    return walk->each(walk->context, (uint16_t)domid);
}

int migrate_store_each(struct store *store, int (*each)(void *context, uint16_t domid), void *context)
{
    struct migrate_walk walk = {each, context};

    return store_list(store, 0, MIGRATE_FOLDER, migrate_visit, &walk);
}

int migrate_store_has(struct store *store, uint16_t domid)
{
    char path[STORE_PATH_MAX], perms[STORE_PERMS_MAX];
    int error = store_get_perms(store, 0, migrate_path(domid, "", path), perms, sizeof(perms));

    if (error == -ENOENT)
        return 0;
    return error && error != -EMSGSIZE ? error : 1;
}

/* ---- requests ---- */

/* Any text is a text: what is too long, or has a NUL in it, is told from an absent one by `problem` alone. */
static int migrate_read(struct store *store, store_txn txn, const char *path, char text[MIGRATE_REQUEST_MAX],
                        bool *unreadable)
{
    int error = store_read(store, txn, path, text, MIGRATE_REQUEST_MAX);

    *unreadable = error == -EMSGSIZE;
    if (error)
        *text = '\0';
    return *unreadable ? 0 : error;
}

static bool migrate_is_end(const char *text)
{
    return strncmp(text, "end ", 4) == 0;
}

static void migrate_understand(const char *text, bool unreadable, struct migrate_found *found)
{
    if (unreadable)
        snprintf(found->text, sizeof(found->text),
                 "the request is longer than %d bytes or has a NUL in it, expected " MIGRATE_EXPECTED,
                 MIGRATE_REQUEST_MAX - 1);
    found->problem = unreadable ? -EINVAL : migrate_request_parse(text, strlen(text), &found->request, found->text);
}

struct migrate_taking {
    uint16_t domid;
    struct migrate_found *found;
};

static int migrate_take_body(struct store *store, store_txn txn, void *context)
{
    const struct migrate_taking *taking = context;
    struct migrate_found *found = taking->found;
    char path[STORE_PATH_MAX], text[MIGRATE_REQUEST_MAX];
    bool unreadable, was_open;

    migrate_path(taking->domid, "", path);
    int error = migrate_read(store, txn, path, text, &unreadable);
    found->present = error != -ENOENT;
    found->asked = !error && (unreadable || *text);
    if (!found->asked)
        return error == -ENOENT ? 0 : error;
    migrate_understand(text, unreadable, found);
    error = migrate_close_to_guests(store, txn, path, &was_open);
    if (!error && was_open) {
        found->problem = -EPERM;
        snprintf(found->text, sizeof(found->text),
                 "the node's permissions were others than " MIGRATE_PERMS ", and are again; expected the request anew");
    }
    if (!error && (found->problem || found->request.word != MIGRATE_END))
        error = store_write(store, txn, path, "");
    return error ? error : store_remove(store, txn, migrate_path(taking->domid, "/verdict", path));
}

static int migrate_look_beside(struct store *store, uint16_t domid, struct migrate_found *found)
{
    char path[STORE_PATH_MAX], session[JOURNAL_SESSION_MAX];
    int error = store_read(store, 0, migrate_path(domid, "/session", path), session, sizeof(session));

    found->had_session = !error;
    if (error && error != -ENOENT && error != -EMSGSIZE)
        return error;
    error = store_read(store, 0, migrate_path(domid, "/uuid", path), found->uuid, sizeof(found->uuid));
    if (error)
        *found->uuid = '\0';
    return error == -ENOENT || error == -EMSGSIZE ? 0 : error;
}

int migrate_store_take(struct store *store, uint16_t domid, bool whole, struct migrate_found *found)
{
    struct migrate_taking taking = {domid, found};
    char path[STORE_PATH_MAX], text[MIGRATE_REQUEST_MAX];
    bool unreadable;

    /* Most looks are at what we have written ourselves: no transaction for these. */
    int error = migrate_read(store, 0, migrate_path(domid, "", path), text, &unreadable);
    found->present = error != -ENOENT;
    if (!error && whole)
        error = migrate_look_beside(store, domid, found);
    if (!error && (unreadable || *text))
        error = store_transact(store, migrate_take_body, &taking);
    return error == -ENOENT ? 0 : error;
}

/* ---- answers ---- */

struct migrate_answering {
    uint16_t domid;
    const struct migrate_answer *answer;
};

static int migrate_put(struct store *store, store_txn txn, uint16_t domid, const char *leaf, const char *value)
{
    char path[STORE_PATH_MAX];

    migrate_path(domid, leaf, path);
    return *value ? store_write(store, txn, path, value) : store_remove(store, txn, path);
}

static int migrate_answer_body(struct store *store, store_txn txn, void *context)
{
    const struct migrate_answering *answering = context;
    const struct migrate_answer *answer = answering->answer;
    char path[STORE_PATH_MAX], text[MIGRATE_REQUEST_MAX];
    bool unreadable;
    int error = migrate_read(store, txn, migrate_path(answering->domid, "", path), text, &unreadable);

    if (!error && answer->takes_end && migrate_is_end(text))
        error = store_write(store, txn, path, "");
    if (!error && answer->names)
        error = migrate_put(store, txn, answering->domid, "/session", answer->session);
    if (!error && answer->names)
        error = migrate_put(store, txn, answering->domid, "/uuid", answer->uuid);
    return error ? error : migrate_put(store, txn, answering->domid, "/verdict", answer->verdict);
}

int migrate_store_answer(struct store *store, uint16_t domid, const struct migrate_answer *answer)
{
    struct migrate_answering answering = {domid, answer};

    return store_transact(store, migrate_answer_body, &answering);
}

int migrate_store_void(struct store *store, uint16_t domid)
{
    struct migrate_answer answer = {.names = false};
    char path[STORE_PATH_MAX], text[MIGRATE_REQUEST_MAX];
    bool unreadable;
    int error = migrate_read(store, 0, migrate_path(domid, "/verdict", path), text, &unreadable);

    if (error)
        return error == -ENOENT ? 0 : error;
    if (strncmp(text, "abort ", 6) == 0)
        return 0;
    snprintf(answer.verdict, sizeof(answer.verdict), "%s %s", p2mg_verdict_name(P2MG_VERDICT_ABORT),
             p2mg_reason_name(P2MG_REASON_SHUTDOWN));
    error = migrate_store_answer(store, domid, &answer);
    return error == -ENOENT ? 0 : error;
}

static int migrate_remove_body(struct store *store, store_txn txn, void *context)
{
    const uint16_t *domid = context;
    char path[STORE_PATH_MAX], text[MIGRATE_REQUEST_MAX];
    bool unreadable;
    int error = migrate_read(store, txn, migrate_path(*domid, "", path), text, &unreadable);

    if (!error && (unreadable || (*text && !migrate_is_end(text))))
        error = -EBUSY;
    return error ? error : store_remove(store, txn, path);
}

int migrate_store_remove(struct store *store, uint16_t domid)
{
    int error = store_transact(store, migrate_remove_body, &domid);

    return error == -ENOENT ? 0 : error;
}
