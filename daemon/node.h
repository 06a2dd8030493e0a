/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The nodes of a domain, /local/domain/DOMID/…, and watches on them.
 *
 * A watch's token is a letter, which says who is interested in what, and the domid, so that an event finds its session
 * without its path being parsed. Worker thread only, but for node_path.
 */
#ifndef P2MGUARD_NODE_H
#define P2MGUARD_NODE_H

#include "daemon/store.h"

/* What is left of a path behind "/local/domain/65535/". */
#define NODE_MAX (STORE_PATH_MAX - 20)

/* Returns `path`. */
const char *node_path(uint16_t domid, const char *node, char path[STORE_PATH_MAX]);

/* As store_read; `value` is empty on an error. */
int node_read(struct store *store, uint16_t domid, const char *node, char *value, size_t size);

/* The domain's name, made UTF-8: "" when it has none that fits. */
int node_read_name(struct store *store, uint16_t domid, char *name, size_t size);

/* As store_watch where `set`, else as store_unwatch. */
int node_watch(struct store *store, uint16_t domid, const char *node, char letter, bool set);

#endif
