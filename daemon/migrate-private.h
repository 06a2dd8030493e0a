/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What migrate-nodes.c (which nodes there are, looks at them, and what is written to them) and migrate-actions.c (what
 * is known of them, and what is done about requests) share. Loop thread only.
 */
#ifndef P2MGUARD_MIGRATE_PRIVATE_H
#define P2MGUARD_MIGRATE_PRIVATE_H

#include "daemon/migrate-nodes.h"
#include "daemon/migrate-work.h"

/* "freezing", "held", or a verdict and its reason. */
#define MIGRATE_STATE_MAX 64

struct migrate_node {
    struct migrate_node *next, **link; /* of all */
    struct migrate_node *next_queued;  /* of those that are to be looked at */
    uint16_t domid;
    bool queued, looking, again;           /* a look is due; is at the worker; is due once more */
    bool removes, removing;                /* it is to be removed; that is at the worker */
    bool found;                            /* it stood there when we came */
    bool known;                            /* something below is set */
    char uuid[HYPERVISOR_UUID_LENGTH + 1]; /* of the domain it is about; "": there was none ... */
    int64_t nobody_ms;                     /* ... when it was looked for */
    bool is_there;                         /* at the last look at all domains */

    struct session *session; /* begun here, and alive */
    int64_t attempt;         /* of it, the last that was asked for */
    bool wants_verdict;      /* once it is held */
    bool checking;           /* the look for a final verdict is under way; ... */
    uint64_t check;          /* ... which one */
    bool ended;              /* the caller has done with it */
    bool begins_anew;        /* when it is gone, with these: */
    struct session_options options;

    char over[MIGRATE_STATE_MAX];    /* what the last session has come to */
    char answer[MIGRATE_ANSWER_MAX]; /* to the last request; it stands as long as ... */
    char beneath[MIGRATE_STATE_MAX]; /* ... this is what is known */
    char said[MIGRATE_ANSWER_MAX];   /* what stands in the store, or is on its way there */
    bool unsaid;                     /* it did not get there */
    bool named;                      /* session and uuid stand there too */
    bool refuses_end;                /* the next answer is to an "end" that stays without effect */

    /* The look with which the connection was lost: whether it has taken its request is not known. */
    struct migrate_work *doubt;
};

struct migrate_nodes {
    const struct settings *settings;
    struct guard *guard;
    void (*settled)(void *context);
    void *context;
    bool serves, stopping;
    bool unlisted; /* the folder cannot be listed: its nodes are looked for one by one */
    struct event *sweep;
    struct migrate_node *all;
    struct migrate_node *queue, **queue_end;
    unsigned looks, writes; /* at the worker */
    struct migrate_node *by_domid[MIGRATE_DOMIDS];
};

/* ---- migrate-actions.c ---- */

/* As far as it is known without asking for it. */
void migrate_state(const struct migrate_node *node, char text[MIGRATE_STATE_MAX]);

/* What is to stand there; "" when there is nothing to be said yet. */
void migrate_describe(struct migrate_node *node, char text[MIGRATE_ANSWER_MAX]);

/* The guest is held, in the attempt that was asked for here. */
bool migrate_is_held(const struct migrate_node *node);

/* Answers a request: with this, for as long as nothing else becomes known. */
void migrate_say(struct migrate_node *node, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Begins a session, or says why not. */
void migrate_begin(struct migrate_nodes *nodes, struct migrate_node *node, const struct session_options *options);

/* Beside the words: the node is not there any more, which is how a caller ends that does not care to say so. */
#define MIGRATE_REMOVED MIGRATE_WORDS

/* Does what the table has for this request, in the stage that the node is in. */
void migrate_act(struct migrate_nodes *nodes, struct migrate_node *node, const struct migrate_request *request);

/* ---- migrate-nodes.c ---- */

/* Nothing is known of it any more. */
void migrate_forget(struct migrate_node *node);

/* Has the node and all below it removed from the store. */
void migrate_remove(struct migrate_nodes *nodes, struct migrate_node *node);

#endif
