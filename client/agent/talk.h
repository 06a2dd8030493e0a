/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The agent's side of xenstore: reads what dom0 asks, writes what the agent answers.
 *
 * Every call to xenstored is work for the worker's thread, so that a stalled one keeps nothing else here waiting; what
 * is written is written in the order in which it was said. A guest changes its domid when it is migrated, so all paths
 * are relative, and whatever was written counts as lost when the tree turns out to be another one. Loop thread only.
 */
#ifndef P2MGUARD_CLIENT_AGENT_TALK_H
#define P2MGUARD_CLIENT_AGENT_TALK_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/undo.h"
#include "protocol/guest.h"

struct talk;

/* What a look has found. */
struct talk_look {
    unsigned number; /* of the look, as talk_look() said */
    bool asked;      /* an event at the request's node has led to it: somebody has written there */
    bool moved;      /* the tree is another one than at the look before: resumed on another host, most likely */
    int64_t read_ms; /* when, as clock_now_ms() counts */
    int error;       /* of reading the request: 0, -ENOENT, -EACCES, -EMSGSIZE */
    char request[P2MG_GUEST_TEXT_MAX];
    char state[P2MG_GUEST_TEXT_MAX]; /* our own last answer; "" = none */
    char domid[UNDO_DOMID];          /* "" = not known */
};

struct talk_callbacks {
    void (*looked)(void *context, const struct talk_look *look);
    void (*quiet)(void *context); /* nothing is left to be written */
    void *context;
};

/* Where xenstored is stands in the environment, as XENSTORED_PATH: a device, or a socket. */
int talk_new(struct talk **talk, struct event_base *base, const struct talk_callbacks *callbacks);

/* False when a stalled xenstored keeps the thread: it is left to the end of the process. */
bool talk_free(struct talk *talk, int64_t grace_ms);

/* Looks; a look that is under way is not enough. The number of the one that begins after this call. */
unsigned talk_look(struct talk *talk);

/* What the state is to be. Written when it is not there already, and again in a tree that does not have it. */
void talk_answer(struct talk *talk, const char *text);

/* Likewise the features; NULL removes them. */
void talk_publish(struct talk *talk, const char *text);

/* True when there is nothing left to be written. */
bool talk_is_quiet(const struct talk *talk);

#endif
