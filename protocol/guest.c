/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/guest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What is left of a text that is being parsed. */
struct guest_cursor {
    const char *at, *end;
};

static bool guest_is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

/* What a word may be made of. */
static bool guest_is_visible(char c)
{
    return c > ' ' && c <= '~';
}

/* Copies what is wanted and fits, and terminates it. */
static void guest_copy(char *to, size_t size, const char *from, size_t length, bool (*wanted)(char))
{
    size_t used = 0;

    for (size_t i = 0; i < length && used + 1 < size; i++)
        if (wanted(from[i]))
            to[used++] = from[i];
    to[used] = '\0';
}

/* The next word; words are parted by one blank. False at the end of the text. */
static bool guest_word(struct guest_cursor *cursor, const char **word, size_t *length)
{
    if (cursor->at >= cursor->end)
        return false;
    const char *blank = memchr(cursor->at, ' ', (size_t)(cursor->end - cursor->at));
    const char *end = blank ? blank : cursor->end;

    *word = cursor->at;
    *length = (size_t)(end - cursor->at);
    cursor->at = blank ? blank + 1 : cursor->end;
    /* A blank that nothing follows is no end of a text. */
    return *length > 0 && !(blank && cursor->at == cursor->end);
}

static bool guest_is(const char *word, size_t length, const char *expected)
{
    return length == strlen(expected) && memcmp(word, expected, length) == 0;
}

/* A decimal number as we would write it: digits, no sign, no leading zero. */
static int guest_number(const char *digits, size_t length, uint32_t least, uint32_t most, uint32_t *number)
{
    uint64_t value = 0;

    if (length == 0 || length > 10 || (digits[0] == '0' && length > 1))
        return -EINVAL;
    for (size_t i = 0; i < length; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return -EINVAL;
        value = value * 10 + (uint64_t)(digits[i] - '0');
    }
    if (value < least || value > most)
        return -EINVAL;
    *number = (uint32_t)value;
    return 0;
}

static int guest_next_number(struct guest_cursor *cursor, uint32_t least, uint32_t most, uint32_t *number)
{
    const char *word;
    size_t length;

    return guest_word(cursor, &word, &length) ? guest_number(word, length, least, most, number) : -EINVAL;
}

/* ---- requests ---- */

void p2mg_request_format(const struct p2mg_request *request, char text[P2MG_GUEST_TEXT_MAX])
{
    if (request->kind == P2MG_REQUEST_FREEZE)
        snprintf(text, P2MG_GUEST_TEXT_MAX, "freeze %" PRIu32 " %" PRIu32, request->seq, request->lease_s);
    else
        snprintf(text, P2MG_GUEST_TEXT_MAX, "thaw %" PRIu32, request->seq);
}

int p2mg_request_parse(const char *text, size_t length, struct p2mg_request *request)
{
    struct guest_cursor cursor = {text, text + length};
    struct p2mg_request result = {.kind = P2MG_REQUEST_THAW};
    const char *word;
    size_t word_length;

    if (length >= P2MG_GUEST_TEXT_MAX || !guest_word(&cursor, &word, &word_length))
        return -EINVAL;
    if (guest_is(word, word_length, "freeze"))
        result.kind = P2MG_REQUEST_FREEZE;
    else if (!guest_is(word, word_length, "thaw"))
        return -EINVAL;
    int error = guest_next_number(&cursor, 1, UINT32_MAX, &result.seq);
    if (!error && result.kind == P2MG_REQUEST_FREEZE)
        error = guest_next_number(&cursor, P2MG_LEASE_LEAST, P2MG_LEASE_MOST, &result.lease_s);
    if (error || cursor.at != cursor.end)
        return -EINVAL;
    *request = result;
    return 0;
}

/* ---- answers ---- */

static const char *const guest_answers[P2MG_ANSWER_COUNT] = {"frozen", "thawed", "busy", "refused"};

const char *p2mg_answer_name(enum p2mg_answer_kind kind)
{
    return kind < P2MG_ANSWER_COUNT ? guest_answers[kind] : "unknown";
}

void p2mg_answer_format(const struct p2mg_answer *answer, char text[P2MG_GUEST_TEXT_MAX])
{
    char why[P2MG_REFUSAL_MAX];

    guest_copy(why, sizeof(why), answer->text, strnlen(answer->text, sizeof(answer->text)), guest_is_printable);
    snprintf(text, P2MG_GUEST_TEXT_MAX, "%s %" PRIu32 "%s%s", p2mg_answer_name(answer->kind), answer->seq,
             answer->kind == P2MG_ANSWER_REFUSED && *why ? " " : "", answer->kind == P2MG_ANSWER_REFUSED ? why : "");
}

static int guest_refusal(struct guest_cursor *cursor, struct p2mg_answer *answer)
{
    size_t length = (size_t)(cursor->end - cursor->at);

    if (length >= sizeof(answer->text))
        return -EINVAL;
    for (size_t i = 0; i < length; i++)
        if (!guest_is_printable(cursor->at[i]))
            return -EINVAL;
    memcpy(answer->text, cursor->at, length);
    answer->text[length] = '\0';
    cursor->at = cursor->end;
    return 0;
}

int p2mg_answer_parse(const char *text, size_t length, struct p2mg_answer *answer)
{
    struct guest_cursor cursor = {text, text + length};
    struct p2mg_answer result = {.kind = P2MG_ANSWER_COUNT};
    const char *word;
    size_t word_length;

    if (length >= P2MG_GUEST_TEXT_MAX || !guest_word(&cursor, &word, &word_length))
        return -EINVAL;
    for (unsigned i = 0; i < P2MG_ANSWER_COUNT; i++)
        if (guest_is(word, word_length, guest_answers[i]))
            result.kind = (enum p2mg_answer_kind)i;
    if (result.kind == P2MG_ANSWER_COUNT || guest_next_number(&cursor, 1, UINT32_MAX, &result.seq))
        return -EINVAL;
    if (result.kind == P2MG_ANSWER_REFUSED && guest_refusal(&cursor, &result))
        return -EINVAL;
    if (cursor.at != cursor.end)
        return -EINVAL;
    *answer = result;
    return 0;
}

/* ---- features ---- */

static const struct {
    enum p2mg_feature bit;
    const char *word;
} guest_features[] = {
    {P2MG_FEATURE_BALLOON, "balloon"}, {P2MG_FEATURE_HOTPLUG, "hotplug"}, {P2MG_FEATURE_HOOKS, "hooks"}};

#define GUEST_FEATURES (sizeof(guest_features) / sizeof(guest_features[0]))

const char *p2mg_feature_name(enum p2mg_feature feature)
{
    for (size_t i = 0; i < GUEST_FEATURES; i++)
        if (guest_features[i].bit == feature)
            return guest_features[i].word;
    return "unknown";
}

void p2mg_features_format(const struct p2mg_features *features, char text[P2MG_GUEST_TEXT_MAX])
{
    char version[sizeof(features->version)];
    int used = snprintf(text, P2MG_GUEST_TEXT_MAX, "protocol=%" PRIu32, features->protocol);

    guest_copy(version, sizeof(version), features->version, strnlen(features->version, sizeof(features->version)),
               guest_is_visible);
    if (*version)
        used += snprintf(text + used, P2MG_GUEST_TEXT_MAX - (size_t)used, " version=%s", version);
    for (size_t i = 0; i < GUEST_FEATURES; i++)
        if (features->has & guest_features[i].bit)
            used += snprintf(text + used, P2MG_GUEST_TEXT_MAX - (size_t)used, " %s", guest_features[i].word);
}

/* What follows "NAME=" in a word that begins so, else NULL. */
static const char *guest_value(const char *word, size_t length, const char *name, size_t *value_length)
{
    size_t name_length = strlen(name);

    if (length < name_length || memcmp(word, name, name_length) != 0)
        return NULL;
    *value_length = length - name_length;
    return word + name_length;
}

static int guest_take_protocol(const char *value, size_t length, struct p2mg_features *features)
{
    return features->protocol ? -EINVAL : guest_number(value, length, 1, UINT32_MAX, &features->protocol);
}

static int guest_take_version(const char *value, size_t length, struct p2mg_features *features)
{
    if (*features->version || length == 0 || length >= sizeof(features->version))
        return -EINVAL;
    memcpy(features->version, value, length);
    features->version[length] = '\0';
    return 0;
}

/* A list that says two things of one name says nothing; a word said twice says it once. */
static int guest_take_feature(const char *word, size_t length, struct p2mg_features *features)
{
    const char *value;
    size_t value_length;

    for (size_t i = 0; i < length; i++)
        if (!guest_is_visible(word[i]))
            return -EINVAL;
    value = guest_value(word, length, "protocol=", &value_length);
    if (value)
        return guest_take_protocol(value, value_length, features);
    value = guest_value(word, length, "version=", &value_length);
    if (value)
        return guest_take_version(value, value_length, features);
    for (size_t i = 0; i < GUEST_FEATURES; i++)
        if (guest_is(word, length, guest_features[i].word))
            features->has |= guest_features[i].bit;
    return 0;
}

int p2mg_features_parse(const char *text, size_t length, struct p2mg_features *features)
{
    struct guest_cursor cursor = {text, text + length};
    struct p2mg_features result = {0};
    const char *word;
    size_t word_length;

    if (length >= P2MG_GUEST_TEXT_MAX)
        return -EINVAL;
    while (cursor.at != cursor.end)
        if (!guest_word(&cursor, &word, &word_length) || guest_take_feature(word, word_length, &result))
            return -EINVAL;
    if (!result.protocol)
        return -EINVAL;
    *features = result;
    return 0;
}
