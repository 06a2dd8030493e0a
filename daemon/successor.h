/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When the daemon executes its program anew, and with what (reexec.h has how): once no session is in the middle of
 * something, and no caller, as far as those may be waited for.
 *
 * Says by an event that it could not; that it could is for the new program to say. Loop thread only.
 */
#ifndef P2MGUARD_SUCCESSOR_H
#define P2MGUARD_SUCCESSOR_H

#include <event2/event.h>

#include "daemon/configuration.h"
#include "daemon/events.h"
#include "daemon/guard.h"
#include "daemon/migrate-nodes.h"
#include "daemon/server.h"

/* What goes along, or is asked before; all of it is borrowed. */
struct successor_parts {
    struct events *events;
    struct guard *guard;
    struct migrate_nodes *migrate_nodes;
    const struct configuration *configuration;
    char **arguments; /* the program's */
    int lock_fd;
};

struct successor;

int successor_new(struct successor **successor, struct event_base *base, const struct successor_parts *parts);

/* Accepts NULL. */
void successor_free(struct successor *successor);

/* Before the guard is recovered there is none. */
void successor_set_server(struct successor *successor, struct server *server);

/* Somebody asks, and listens: it is given up after a while. The context is the struct successor. */
void successor_on_request(void *successor);

/* Nobody hears how it went, and nobody would come again: it is done whenever it can be done. */
void successor_insist(struct successor *successor);

/* The daemon is told to stop: nothing comes of it any more. */
void successor_stop(struct successor *successor);

#endif
