/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what dom0 and a guest may find in each other's nodes: requests, answers, lists of features, or anything else.
 * What is accepted is written as text that is accepted and says the same; requests, and answers, as that very text.
 * What is refused leaves the result alone. Then the input is taken for structures, not for text: whatever is in them,
 * what is written is no longer than it may be, and can be read.
 *
 * Input: texts, one a line, as an agent would see them one after the other. All of the input is taken for a text too,
 * newlines included. A structure is made of its beginning: a byte for the kind, four for a number, then text.
 */
#include "protocol/guest.h"

#include <errno.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

static bool is_printable(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (text[i] < ' ' || text[i] > '~')
            return false;
    return true;
}

/* Where a text is written: as long as promised and no longer, for the sanitizer to watch its ends. */
static char *room(void)
{
    char *text = malloc(P2MG_GUEST_TEXT_MAX);

    MUST(text);
    memset(text, UNTOUCHED, P2MG_GUEST_TEXT_MAX);
    return text;
}

/* The length of what was written. */
static size_t written(const char *text)
{
    const char *end = memchr(text, '\0', P2MG_GUEST_TEXT_MAX);

    MUST(end);
    MUST(is_printable(text, (size_t)(end - text)));
    return (size_t)(end - text);
}

/* ---- texts ---- */

static bool same_request(const struct p2mg_request *a, const struct p2mg_request *b)
{
    return a->kind == b->kind && a->seq == b->seq && a->lease_s == b->lease_s;
}

static bool read_request(const char *text, size_t length)
{
    struct p2mg_request request, again;

    memset(&request, UNTOUCHED, sizeof(request));
    int error = p2mg_request_parse(text, length, &request);
    if (error) {
        MUST(error == -EINVAL && is_untouched(&request, sizeof(request)));
        return false;
    }
    MUST(length < P2MG_GUEST_TEXT_MAX && request.seq > 0);
    if (request.kind == P2MG_REQUEST_FREEZE)
        MUST(request.lease_s >= P2MG_LEASE_LEAST && request.lease_s <= P2MG_LEASE_MOST);
    else
        MUST(request.kind == P2MG_REQUEST_THAW && request.lease_s == 0);

    char *formatted = room();
    p2mg_request_format(&request, formatted);
    MUST(written(formatted) == length && memcmp(formatted, text, length) == 0);
    MUST(p2mg_request_parse(formatted, length, &again) == 0 && same_request(&again, &request));
    free(formatted);
    return true;
}

static bool same_answer(const struct p2mg_answer *a, const struct p2mg_answer *b)
{
    return a->kind == b->kind && a->seq == b->seq && strcmp(a->text, b->text) == 0;
}

static bool read_answer(const char *text, size_t length)
{
    struct p2mg_answer answer, again;

    memset(&answer, UNTOUCHED, sizeof(answer));
    int error = p2mg_answer_parse(text, length, &answer);
    if (error) {
        MUST(error == -EINVAL && is_untouched(&answer, sizeof(answer)));
        return false;
    }
    MUST(length < P2MG_GUEST_TEXT_MAX && answer.seq > 0 && answer.kind < P2MG_ANSWER_COUNT);
    size_t why = strnlen(answer.text, sizeof(answer.text));
    MUST(why < sizeof(answer.text) && is_printable(answer.text, why));
    MUST(why == 0 || answer.kind == P2MG_ANSWER_REFUSED);

    char *formatted = room();
    p2mg_answer_format(&answer, formatted);
    MUST(written(formatted) == length && memcmp(formatted, text, length) == 0);
    MUST(p2mg_answer_parse(formatted, length, &again) == 0 && same_answer(&again, &answer));
    free(formatted);
    return true;
}

static bool same_features(const struct p2mg_features *a, const struct p2mg_features *b)
{
    return a->protocol == b->protocol && a->has == b->has && strcmp(a->version, b->version) == 0;
}

/* Words that are not known are lost, and the order is another: canonical is only what was written once. */
static bool read_features(const char *text, size_t length)
{
    struct p2mg_features features, again;

    memset(&features, UNTOUCHED, sizeof(features));
    int error = p2mg_features_parse(text, length, &features);
    if (error) {
        MUST(error == -EINVAL && is_untouched(&features, sizeof(features)));
        return false;
    }
    MUST(length < P2MG_GUEST_TEXT_MAX && is_printable(text, length) && features.protocol > 0);
    MUST(!(features.has & ~(unsigned)(P2MG_FEATURE_BALLOON | P2MG_FEATURE_HOTPLUG | P2MG_FEATURE_HOOKS)));
    size_t version = strnlen(features.version, sizeof(features.version));
    MUST(version < sizeof(features.version) && !memchr(features.version, ' ', version));

    char *formatted = room();
    p2mg_features_format(&features, formatted);
    size_t formatted_length = written(formatted);
    MUST(formatted_length <= length);
    MUST(p2mg_features_parse(formatted, formatted_length, &again) == 0 && same_features(&again, &features));
    free(formatted);
    return true;
}

/* The text ends where the heap's block does. */
static void read_text(const uint8_t *data, size_t length)
{
    char *text = malloc(length);

    MUST(text);
    if (length > 0)
        memcpy(text, data, length);
    bool is_request = read_request(text, length), is_answer = read_answer(text, length);
    bool is_features = read_features(text, length);
    /* A refusal's text may be made of words that are a list as well. */
    MUST(!is_request || (!is_answer && !is_features));
    MUST(!is_answer || !is_features || memcmp(text, "refused ", 8) == 0);
    free(text);
}

/* ---- structures ---- */

static uint32_t take_number(const uint8_t **data, size_t *size)
{
    uint32_t number = 0;

    for (int i = 0; i < 4 && *size > 0; i++, (*data)++, (*size)--)
        number = number << 8 | **data;
    return number;
}

/* Not terminated when there is enough to fill all of it. */
static void take_text(const uint8_t *data, size_t size, char *text, size_t room_for)
{
    memset(text, 0, room_for);
    if (size > 0)
        memcpy(text, data, size < room_for ? size : room_for);
}

static void write_request(unsigned kind, uint32_t number)
{
    struct p2mg_request request = {kind % 2 ? P2MG_REQUEST_THAW : P2MG_REQUEST_FREEZE, number, number >> 7};
    bool valid = request.seq > 0 && (request.kind == P2MG_REQUEST_THAW ||
                                     (request.lease_s >= P2MG_LEASE_LEAST && request.lease_s <= P2MG_LEASE_MOST));
    char *text = room();

    p2mg_request_format(&request, text);
    MUST(read_request(text, written(text)) == valid);
    free(text);
}

static void write_answer(unsigned kind, uint32_t number, const uint8_t *data, size_t size)
{
    struct p2mg_answer *answer = malloc(sizeof(*answer)); /* the text is its end */
    char *text = room();

    MUST(answer);
    answer->kind = (enum p2mg_answer_kind)(kind % P2MG_ANSWER_COUNT);
    answer->seq = number;
    take_text(data, size, answer->text, sizeof(answer->text));
    p2mg_answer_format(answer, text);
    MUST(read_answer(text, written(text)) == (number > 0));
    free(text);
    free(answer);
}

static void write_features(unsigned has, uint32_t number, const uint8_t *data, size_t size)
{
    struct p2mg_features *features = malloc(sizeof(*features)); /* the version is its end */
    char *text = room();

    MUST(features);
    features->protocol = number;
    features->has = has;
    take_text(data, size, features->version, sizeof(features->version));
    p2mg_features_format(features, text);
    MUST(read_features(text, written(text)) == (number > 0));
    free(text);
    free(features);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    fuzz_texts(data, size, read_text);
    unsigned kind = *data++;
    size--;
    uint32_t number = take_number(&data, &size);
    write_request(kind, number);
    write_answer(kind, number, data, size);
    write_features(kind, number, data, size);
    return 0;
}
