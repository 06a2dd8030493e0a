/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/node.h"

#include <stdio.h>

#include "daemon/text.h"

const char *node_path(uint16_t domid, const char *node, char path[STORE_PATH_MAX])
{
    snprintf(path, STORE_PATH_MAX, "/local/domain/%u/%s", domid, node);
    return path;
}

int node_read(struct store *store, uint16_t domid, const char *node, char *value, size_t size)
{
    char path[STORE_PATH_MAX];
    int error = store_read(store, 0, node_path(domid, node, path), value, size);

    if (error)
        *value = '\0';
    return error;
}

int node_read_name(struct store *store, uint16_t domid, char *name, size_t size)
{
    int error = node_read(store, domid, "name", name, size);

    text_make_utf8(name);
    return error;
}

int node_watch(struct store *store, uint16_t domid, const char *node, char letter, bool set)
{
    char path[STORE_PATH_MAX], token[16];

    node_path(domid, node, path);
    snprintf(token, sizeof(token), "%c%u", letter, domid);
    return set ? store_watch(store, path, token) : store_unwatch(store, path, token);
}
