/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/migrate-request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Of what a caller wrote, so much is repeated to it. */
#define MIGRATE_QUOTED 40

/* "error " goes before it. */
#define MIGRATE_PROBLEM_MAX (MIGRATE_ANSWER_MAX - 8)

struct migrate_reader {
    const char *at, *end;
    struct migrate_request request;
    char *problem;
};

__attribute__((format(printf, 2, 3))) static int migrate_refuse(struct migrate_reader *reader, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(reader->problem, MIGRATE_PROBLEM_MAX, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

/* Words are parted by one blank each; -ENOENT at the end. */
static int migrate_next(struct migrate_reader *reader, const char **word, int *length)
{
    if (reader->at > reader->end)
        return -ENOENT;
    const char *blank = memchr(reader->at, ' ', (size_t)(reader->end - reader->at));

    *word = reader->at;
    *length = (int)((blank ? blank : reader->end) - reader->at);
    reader->at = blank ? blank + 1 : reader->end + 1;
    return 0;
}

static bool migrate_is(const char *word, int length, const char *expected)
{
    return (size_t)length == strlen(expected) && memcmp(word, expected, (size_t)length) == 0;
}

static int migrate_quoted(int length)
{
    return length < MIGRATE_QUOTED ? length : MIGRATE_QUOTED;
}

/* ---- begin ---- */

static int migrate_take_require(struct migrate_reader *reader, const char *value, int length)
{
    char text[16];

    snprintf(text, sizeof(text), "%.*s", migrate_quoted(length), value);
    if (p2mg_require_parse(text, &reader->request.policy.require) == 0)
        return 0;
    return migrate_refuse(reader, "require is '%.*s', expected gate, settled or agent", migrate_quoted(length), value);
}

/* Digits and nothing else. What does not fit into 18 of them is out of every range. */
static int64_t migrate_number(const char *value, int length)
{
    int64_t number = 0;

    if (length == 0 || length > 18)
        return -1;
    for (int i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9')
            return -1;
        number = number * 10 + (value[i] - '0');
    }
    return number;
}

static const struct p2mg_policy_member *migrate_member(const char *key, int length)
{
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++)
        if (migrate_is(key, length, member->name))
            return member;
    return NULL;
}

static int migrate_take_member(struct migrate_reader *reader, const char *word, int length)
{
    const char *equals = memchr(word, '=', (size_t)length);
    int key_length = equals ? (int)(equals - word) : length, value_length = length - key_length - 1;
    bool is_require = migrate_is(word, key_length, "require");
    const struct p2mg_policy_member *member = migrate_member(word, key_length);

    if (!equals || (!is_require && !member))
        return migrate_refuse(reader, "'%.*s' is no member of the policy, expected KEY=VALUE as in p2mguard.conf(5)",
                              migrate_quoted(length), word);
    unsigned bit = p2mg_policy_bit(is_require ? NULL : member);
    if (reader->request.named & bit)
        return migrate_refuse(reader, "%.*s is given twice, expected it once", key_length, word);
    reader->request.named |= bit;
    if (is_require)
        return migrate_take_require(reader, equals + 1, value_length);
    int64_t number = migrate_number(equals + 1, value_length);
    if (p2mg_policy_set(&reader->request.policy, member, number) == 0)
        return 0;
    return migrate_refuse(reader, "%s is '%.*s', expected a number from %lld to %lld", member->name,
                          migrate_quoted(value_length), equals + 1, (long long)member->least, (long long)member->most);
}

static int migrate_take_policy(struct migrate_reader *reader)
{
    const char *word;
    int length, error = 0;

    while (!error && migrate_next(reader, &word, &length) == 0)
        error = migrate_take_member(reader, word, length);
    return error;
}

/* ---- the other words ---- */

static int migrate_take_nothing(struct migrate_reader *reader)
{
    const char *word;
    int length;

    if (migrate_next(reader, &word, &length))
        return 0;
    return migrate_refuse(reader, "'%.*s' is too much, expected nothing after the first word", migrate_quoted(length),
                          word);
}

static int migrate_take_outcome(struct migrate_reader *reader)
{
    const char *word = "";
    char text[16];
    int length = 0;

    if (migrate_next(reader, &word, &length) == 0) {
        snprintf(text, sizeof(text), "%.*s", migrate_quoted(length), word);
        if (p2mg_outcome_parse(text, &reader->request.outcome) == 0 && reader->request.outcome != P2MG_OUTCOME_UNKNOWN)
            return migrate_take_nothing(reader);
    }
    return migrate_refuse(reader, "the outcome is '%.*s', expected end completed, end failed or end cancelled",
                          migrate_quoted(length), word);
}

static const struct migrate_form {
    const char *word;
    int (*take)(struct migrate_reader *reader); /* what follows it */
} migrate_forms[MIGRATE_WORDS] = {
    [MIGRATE_BEGIN] = {"begin", migrate_take_policy},
    [MIGRATE_RETRY] = {"retry", migrate_take_nothing},
    [MIGRATE_VERDICT] = {"verdict", migrate_take_nothing},
    [MIGRATE_END] = {"end", migrate_take_outcome},
};

const char *migrate_request_word(enum migrate_word word)
{
    return migrate_forms[word].word;
}

static int migrate_take_words(struct migrate_reader *reader)
{
    const char *word;
    int length;

    if (migrate_next(reader, &word, &length))
        return -EINVAL;
    for (int i = 0; i < MIGRATE_WORDS; i++) {
        if (migrate_is(word, length, migrate_forms[i].word)) {
            reader->request.word = (enum migrate_word)i;
            return migrate_forms[i].take(reader);
        }
    }
    return migrate_refuse(reader, "'%.*s' is no request, expected " MIGRATE_EXPECTED, migrate_quoted(length), word);
}

int migrate_request_parse(const char *text, size_t length, struct migrate_request *request,
                          char problem[MIGRATE_ANSWER_MAX])
{
    struct migrate_reader reader = {.at = text, .end = text + length, .problem = problem};

    if (length >= MIGRATE_REQUEST_MAX)
        return migrate_refuse(&reader, "%zu bytes are too many, expected at most %d: " MIGRATE_EXPECTED, length,
                              MIGRATE_REQUEST_MAX - 1);
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return migrate_refuse(&reader, "byte %zu is 0x%02x, expected printable ASCII: " MIGRATE_EXPECTED, i,
                                  (unsigned char)text[i]);
    p2mg_policy_init(&reader.request.policy);
    int error = migrate_take_words(&reader);
    if (!error)
        *request = reader.request;
    return error;
}
