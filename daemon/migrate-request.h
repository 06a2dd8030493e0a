/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a caller that speaks only xenstore may write to /tool/p2mguard/migrate/DOMID, and how it is read.
 *
 * Pure: bytes in, a request or a sentence for the caller out. protocol/xenstore-paths.pandoc has the grammar.
 */
#ifndef P2MGUARD_MIGRATE_REQUEST_H
#define P2MGUARD_MIGRATE_REQUEST_H

#include <stddef.h>

#include "protocol/names.h"
#include "protocol/policy.h"

/* Requests and answers with their terminators. */
#define MIGRATE_REQUEST_MAX 512
#define MIGRATE_ANSWER_MAX 256

enum migrate_word { MIGRATE_BEGIN, MIGRATE_RETRY, MIGRATE_VERDICT, MIGRATE_END, MIGRATE_WORDS };

struct migrate_request {
    enum migrate_word word;
    struct p2mg_policy policy; /* begin: the members that it names, ... */
    unsigned named;            /* ... which are these; the others are the defaults of a daemon without settings */
    enum p2mg_outcome outcome; /* end */
};

#define MIGRATE_EXPECTED "begin, begin KEY=VALUE ..., retry, verdict or end completed|failed|cancelled"

/*
 * -EINVAL when the text is no request: `problem` then says in printable ASCII what is wrong and what was expected, and
 * the request is left alone. `text` need not be terminated.
 */
int migrate_request_parse(const char *text, size_t length, struct migrate_request *request,
                          char problem[MIGRATE_ANSWER_MAX]);

/* As it is written. */
const char *migrate_request_word(enum migrate_word word);

#endif
