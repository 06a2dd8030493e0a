/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What dom0 and a guest say to each other through xenstore: node names, and the text in them.
 *
 * xenstore-paths.pandoc is the specification. The daemon parses what a guest wrote, the agent what dom0 wrote; both are
 * foreign text of any length and content. Parsers take (text, length), allocate nothing, keep nothing, and accept what
 * the specification allows and nothing else. Pure; safe from any thread.
 */
#ifndef P2MGUARD_PROTOCOL_GUEST_H
#define P2MGUARD_PROTOCOL_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Relative to the domain's own path, /local/domain/DOMID. */
#define P2MG_GUEST_REQUEST "control/p2mguard"
#define P2MG_GUEST_FOLDER "data/p2mguard"
#define P2MG_GUEST_STATE P2MG_GUEST_FOLDER "/state"
#define P2MG_GUEST_FEATURES P2MG_GUEST_FOLDER "/features"

/* The version of all of this; a guest that speaks another one is not asked. */
#define P2MG_GUEST_PROTOCOL 1

/* A lease, in seconds. */
#define P2MG_LEASE_LEAST 1
#define P2MG_LEASE_MOST 3600

/* Room for any request, answer or list of features, the terminator included. Longer text is refused unread. */
#define P2MG_GUEST_TEXT_MAX 256

/* Of a refusal's text, the terminator included. */
#define P2MG_REFUSAL_MAX 160

/* ---- dom0 to guest ---- */

enum p2mg_request_kind { P2MG_REQUEST_FREEZE, P2MG_REQUEST_THAW };

struct p2mg_request {
    enum p2mg_request_kind kind;
    uint32_t seq;     /* never 0 */
    uint32_t lease_s; /* of a freeze */
};

/* Writes at most P2MG_GUEST_TEXT_MAX bytes. */
void p2mg_request_format(const struct p2mg_request *request, char text[P2MG_GUEST_TEXT_MAX]);

/* -EINVAL when the text is no request; `request` is left alone then. */
int p2mg_request_parse(const char *text, size_t length, struct p2mg_request *request);

/* ---- guest to dom0 ---- */

enum p2mg_answer_kind {
    P2MG_ANSWER_FROZEN,  /* nothing in the guest will change its layout until it is asked to thaw, or the lease ends */
    P2MG_ANSWER_THAWED,  /* everything the freeze changed is as it was */
    P2MG_ANSWER_BUSY,    /* under way, to frozen or to thawed */
    P2MG_ANSWER_REFUSED, /* it cannot be frozen, and is not */
    P2MG_ANSWER_COUNT
};

struct p2mg_answer {
    enum p2mg_answer_kind kind;
    uint32_t seq;                /* of the request it answers */
    char text[P2MG_REFUSAL_MAX]; /* of a refusal: why, in printable ASCII; else "" */
};

/* What does not fit of a refusal's text, or is not printable ASCII, is left out. */
void p2mg_answer_format(const struct p2mg_answer *answer, char text[P2MG_GUEST_TEXT_MAX]);
int p2mg_answer_parse(const char *text, size_t length, struct p2mg_answer *answer);

/* "frozen", "thawed", "busy" or "refused". */
const char *p2mg_answer_name(enum p2mg_answer_kind kind);

/* What an agent can do in its guest. Words that are not known are no error, so that there can be more of them. */
enum p2mg_feature {
    P2MG_FEATURE_BALLOON = 1 << 0, /* stops a balloon driver that is under way */
    P2MG_FEATURE_HOTPLUG = 1 << 1, /* keeps memory from being added and onlined */
    P2MG_FEATURE_HOOKS = 1 << 2,   /* runs the administrator's own programs */
};

struct p2mg_features {
    uint32_t protocol;
    unsigned has;     /* bits of enum p2mg_feature */
    char version[32]; /* the program's own; "" when it does not tell */
};

/* What cannot be in a word is left out of the version. */
void p2mg_features_format(const struct p2mg_features *features, char text[P2MG_GUEST_TEXT_MAX]);

/* -EINVAL when it is no list of features, or does not name exactly one protocol. */
int p2mg_features_parse(const char *text, size_t length, struct p2mg_features *features);

/* The word for one bit. */
const char *p2mg_feature_name(enum p2mg_feature feature);

#endif
