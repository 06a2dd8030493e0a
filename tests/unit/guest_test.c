/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol/guest.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/untouched.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A text with its length, so that there can be NULs in it. */
struct text {
    const char *bytes;
    size_t length;
};

#define TEXT(literal)                                                                                                  \
    {                                                                                                                  \
        literal, sizeof(literal) - 1                                                                                   \
    }

/* What must be left alone. */
/*
 * The parsers get a copy that ends where the heap's block does: what is read beyond is found by a build with
 * sanitizers.
 */
static char *exact_copy(const char *bytes, size_t length)
{
    char *copy = malloc(length ? length : 1);

    assert_non_null(copy);
    if (length == 0)
        return copy;
    memcpy(copy, bytes, length);
    return copy;
}

static int parse_request(const char *bytes, size_t length, struct p2mg_request *request)
{
    char *copy = exact_copy(bytes, length);

    memset(request, UNTOUCHED, sizeof(*request));
    int error = p2mg_request_parse(copy, length, request);
    free(copy);
    return error;
}

static int parse_answer(const char *bytes, size_t length, struct p2mg_answer *answer)
{
    char *copy = exact_copy(bytes, length);

    memset(answer, UNTOUCHED, sizeof(*answer));
    int error = p2mg_answer_parse(copy, length, answer);
    free(copy);
    return error;
}

static int parse_features(const char *bytes, size_t length, struct p2mg_features *features)
{
    char *copy = exact_copy(bytes, length);

    memset(features, UNTOUCHED, sizeof(*features));
    int error = p2mg_features_parse(copy, length, features);
    free(copy);
    return error;
}

static void refuse_request(const char *bytes, size_t length)
{
    struct p2mg_request request;

    if (parse_request(bytes, length, &request) != -EINVAL || !is_untouched(&request, sizeof(request)))
        fail_msg("as a request: \"%.*s\" (%zu bytes)", (int)length, bytes, length);
}

static void refuse_answer(const char *bytes, size_t length)
{
    struct p2mg_answer answer;

    if (parse_answer(bytes, length, &answer) != -EINVAL || !is_untouched(&answer, sizeof(answer)))
        fail_msg("as an answer: \"%.*s\" (%zu bytes)", (int)length, bytes, length);
}

static void refuse_features(const char *bytes, size_t length)
{
    struct p2mg_features features;

    if (parse_features(bytes, length, &features) != -EINVAL || !is_untouched(&features, sizeof(features)))
        fail_msg("as features: \"%.*s\" (%zu bytes)", (int)length, bytes, length);
}

/* BEGIN, then as many letters as it takes to be so long. */
static char *lengthen(const char *begin, size_t length)
{
    size_t used = strlen(begin);
    char *text = malloc(length + 1);

    assert_non_null(text);
    assert_true(used <= length);
    memset(text, 'x', length);
    memcpy(text, begin, used);
    text[length] = '\0';
    return text;
}

/* ---- the words ---- */

/* The words are the protocol: this test repeats them, so that none is changed by accident. */
static void words_are_the_protocols(void **state)
{
    (void)state;
    assert_string_equal(P2MG_GUEST_REQUEST, "control/p2mguard");
    assert_string_equal(P2MG_GUEST_STATE, "data/p2mguard/state");
    assert_string_equal(P2MG_GUEST_FEATURES, "data/p2mguard/features");
    assert_int_equal(P2MG_GUEST_PROTOCOL, 1);
    assert_string_equal(p2mg_answer_name(P2MG_ANSWER_FROZEN), "frozen");
    assert_string_equal(p2mg_answer_name(P2MG_ANSWER_THAWED), "thawed");
    assert_string_equal(p2mg_answer_name(P2MG_ANSWER_BUSY), "busy");
    assert_string_equal(p2mg_answer_name(P2MG_ANSWER_REFUSED), "refused");
    assert_string_equal(p2mg_feature_name(P2MG_FEATURE_BALLOON), "balloon");
    assert_string_equal(p2mg_feature_name(P2MG_FEATURE_HOTPLUG), "hotplug");
    assert_string_equal(p2mg_feature_name(P2MG_FEATURE_HOOKS), "hooks");
}

static void values_outside_are_unknown(void **state)
{
    (void)state;
    assert_string_equal(p2mg_answer_name(P2MG_ANSWER_COUNT), "unknown");
    assert_string_equal(p2mg_feature_name((enum p2mg_feature)(1 << 3)), "unknown");
    assert_string_equal(p2mg_feature_name((enum p2mg_feature)0), "unknown");
}

/* ---- requests ---- */

static const struct {
    const char *text;
    struct p2mg_request request;
} good_requests[] = {
    {"freeze 1 1", {P2MG_REQUEST_FREEZE, 1, 1}},
    {"freeze 1 3600", {P2MG_REQUEST_FREEZE, 1, 3600}},
    {"freeze 4294967295 30", {P2MG_REQUEST_FREEZE, UINT32_MAX, 30}},
    {"freeze 4294967295 3600", {P2MG_REQUEST_FREEZE, UINT32_MAX, 3600}},
    {"freeze 1000000000 10", {P2MG_REQUEST_FREEZE, 1000000000, 10}},
    {"thaw 1", {P2MG_REQUEST_THAW, 1, 0}},
    {"thaw 10", {P2MG_REQUEST_THAW, 10, 0}},
    {"thaw 4294967295", {P2MG_REQUEST_THAW, UINT32_MAX, 0}},
};

static void requests_there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good_requests); i++) {
        char text[P2MG_GUEST_TEXT_MAX];
        struct p2mg_request request;

        p2mg_request_format(&good_requests[i].request, text);
        assert_string_equal(text, good_requests[i].text);
        assert_int_equal(parse_request(text, strlen(text), &request), 0);
        assert_int_equal(request.kind, good_requests[i].request.kind);
        assert_int_equal(request.seq, good_requests[i].request.seq);
        assert_int_equal(request.lease_s, good_requests[i].request.lease_s);
    }
}

static void other_requests_are_refused(void **state)
{
    static const struct text texts[] = {
        /* no word, or another one */
        TEXT(""),
        TEXT(" "),
        TEXT("1"),
        TEXT("1 freeze"),
        TEXT("Freeze 1 10"),
        TEXT("FREEZE 1 10"),
        TEXT("freez 1 10"),
        TEXT("freezer 1 10"),
        TEXT("frozen 1"),
        TEXT("thaws 1"),
        TEXT("tha"),
        TEXT("freeze1 10"),
        TEXT("thaw1"),
        /* too few words, too many */
        TEXT("freeze"),
        TEXT("freeze 1"),
        TEXT("freeze 1 10 10"),
        TEXT("freeze 1 10 x"),
        TEXT("thaw"),
        TEXT("thaw 1 10"),
        TEXT("freeze 1 10freeze 2 10"),
        TEXT("thaw 1 thaw 2"),
        /* blanks that are too many, or none */
        TEXT(" freeze 1 10"),
        TEXT("freeze  1 10"),
        TEXT("freeze 1  10"),
        TEXT("freeze 1 10 "),
        TEXT("freeze "),
        TEXT("freeze 1 "),
        TEXT(" thaw 1"),
        TEXT("thaw  1"),
        TEXT("thaw 1 "),
        TEXT("thaw "),
        TEXT("freeze\t1 10"),
        TEXT("freeze 1\t10"),
        TEXT("thaw\t1"),
        TEXT("thaw 1\t"),
        TEXT("thaw 1\n"),
        TEXT("\nthaw 1"),
        TEXT("thaw\n1"),
        TEXT("thaw 1\r\n"),
        TEXT("freeze 1 10\n"),
        TEXT("thaw\v1"),
        TEXT("thaw\xc2\xa0"
             "1"),
        /* NUL, where C would see an end */
        TEXT("thaw 1\0"),
        TEXT("thaw\0"),
        TEXT("\0thaw 1"),
        TEXT("thaw\0 1"),
        TEXT("thaw 1\0"
             "2"),
        TEXT("freeze 1 10\0"),
        TEXT("freeze\0"
             "1 10"),
        TEXT("\0"),
        TEXT("\0\0\0\0"),
        /* numbers that we would not write */
        TEXT("thaw 01"),
        TEXT("thaw 00"),
        TEXT("thaw +1"),
        TEXT("thaw -1"),
        TEXT("thaw 1.0"),
        TEXT("thaw 1e3"),
        TEXT("thaw 0x1"),
        TEXT("thaw 1,"),
        TEXT("thaw a"),
        TEXT("thaw 1a"),
        TEXT("thaw a1"),
        TEXT("thaw /"),
        TEXT("thaw :"),
        TEXT("thaw \xb9"),
        TEXT("thaw \xd9\xa1"),
        TEXT("freeze 01 10"),
        TEXT("freeze 1 010"),
        TEXT("freeze +1 10"),
        TEXT("freeze 1 +10"),
        TEXT("freeze 1 -10"),
        TEXT("freeze 1 10s"),
        TEXT("freeze 1 1.5"),
        /* numbers out of range */
        TEXT("thaw 0"),
        TEXT("thaw 4294967296"),
        TEXT("thaw 4294967297"),
        TEXT("thaw 9999999999"),
        TEXT("thaw 10000000000"),
        TEXT("thaw 18446744073709551617"),
        TEXT("thaw 36893488147419103233"),
        TEXT("thaw 00000000001"),
        TEXT("thaw -4294967295"),
        TEXT("freeze 0 10"),
        TEXT("freeze 4294967296 10"),
        TEXT("freeze 1 0"),
        TEXT("freeze 1 3601"),
        TEXT("freeze 1 4294967297"),
        TEXT("freeze 1 4294967296"),
        TEXT("freeze 1 18446744073709551617"),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        refuse_request(texts[i].bytes, texts[i].length);
}

static void a_cut_request_is_refused_or_has_a_smaller_number(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good_requests); i++) {
        const char *text = good_requests[i].text;
        struct p2mg_request whole, part;

        assert_int_equal(parse_request(text, strlen(text), &whole), 0);
        for (size_t length = 0; length < strlen(text); length++)
            if (parse_request(text, length, &part) == 0) {
                /* A number that lost digits is another number: nothing can tell. All else is an error. */
                assert_int_equal(part.kind, whole.kind);
                assert_true(part.seq < whole.seq || part.lease_s < whole.lease_s);
            }
    }
}

static void long_requests_are_refused(void **state)
{
    static const size_t lengths[] = {P2MG_GUEST_TEXT_MAX - 1, P2MG_GUEST_TEXT_MAX, P2MG_GUEST_TEXT_MAX + 1, 2048, 4096};

    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char *text = lengthen("thaw 1", lengths[i]);

        refuse_request(text, lengths[i]);
        memset(text + 6, ' ', lengths[i] - 6);
        refuse_request(text, lengths[i]);
        memset(text + 6, '\0', lengths[i] - 6);
        refuse_request(text, lengths[i]);
        memset(text + 6, '1', lengths[i] - 6);
        refuse_request(text, lengths[i]);
        free(text);
    }
}

/* ---- answers ---- */

static const struct {
    const char *text;
    struct p2mg_answer answer;
} good_answers[] = {
    {"frozen 1", {P2MG_ANSWER_FROZEN, 1, ""}},
    {"frozen 4294967295", {P2MG_ANSWER_FROZEN, UINT32_MAX, ""}},
    {"thawed 20", {P2MG_ANSWER_THAWED, 20, ""}},
    {"busy 7", {P2MG_ANSWER_BUSY, 7, ""}},
    {"refused 7", {P2MG_ANSWER_REFUSED, 7, ""}},
    {"refused 7 hook 50-database: exit status 3", {P2MG_ANSWER_REFUSED, 7, "hook 50-database: exit status 3"}},
    {"refused 4294967295 !\"#~", {P2MG_ANSWER_REFUSED, UINT32_MAX, "!\"#~"}},
    /* The text is everything after one blank, blanks of its own included. */
    {"refused 7  x ", {P2MG_ANSWER_REFUSED, 7, " x "}},
    {"refused 7  ", {P2MG_ANSWER_REFUSED, 7, " "}},
    {"refused 7 frozen 7", {P2MG_ANSWER_REFUSED, 7, "frozen 7"}},
};

static void assert_same_answer(const struct p2mg_answer *answer, const struct p2mg_answer *expected)
{
    assert_int_equal(answer->kind, expected->kind);
    assert_int_equal(answer->seq, expected->seq);
    assert_string_equal(answer->text, expected->text);
}

static void answers_there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good_answers); i++) {
        char text[P2MG_GUEST_TEXT_MAX];
        struct p2mg_answer answer;

        p2mg_answer_format(&good_answers[i].answer, text);
        assert_string_equal(text, good_answers[i].text);
        assert_int_equal(parse_answer(text, strlen(text), &answer), 0);
        assert_same_answer(&answer, &good_answers[i].answer);
    }
}

static void other_answers_are_refused(void **state)
{
    static const struct text texts[] = {
        /* no word, or another one */
        TEXT(""),
        TEXT(" "),
        TEXT("7"),
        TEXT("Frozen 7"),
        TEXT("FROZEN 7"),
        TEXT("froze 7"),
        TEXT("frozenn 7"),
        TEXT("freeze 7 10"),
        TEXT("thaw 7"),
        TEXT("unknown 7"),
        TEXT("idle"),
        TEXT("frozen7"),
        TEXT("refused7 x"),
        /* too few words, too many */
        TEXT("frozen"),
        TEXT("busy"),
        TEXT("refused"),
        TEXT("refused text"),
        TEXT("frozen 7 8"),
        TEXT("frozen 7 x"),
        TEXT("thawed 7 because"),
        TEXT("busy 7 10"),
        TEXT("frozen 7frozen 8"),
        /* blanks that are too many, or none */
        TEXT(" frozen 7"),
        TEXT("frozen  7"),
        TEXT("frozen 7 "),
        TEXT("frozen "),
        TEXT("thawed 7 "),
        TEXT("busy 7 "),
        TEXT("refused 7 "),
        TEXT("refused "),
        TEXT("refused  7"),
        TEXT("refused  7 x"),
        TEXT("frozen\t7"),
        TEXT("frozen 7\n"),
        TEXT("frozen\n7"),
        TEXT("frozen 7\r"),
        TEXT("refused 7\tx"),
        TEXT("refused\t7 x"),
        /* NUL, where C would see an end */
        TEXT("frozen 7\0"),
        TEXT("frozen\0"),
        TEXT("frozen 7\0"
             "8"),
        TEXT("\0frozen 7"),
        TEXT("refused 7\0"),
        TEXT("refused 7 x\0"),
        TEXT("refused 7 \0"),
        TEXT("refused 7 a\0b"),
        TEXT("\0"),
        /* numbers that we would not write, or out of range */
        TEXT("frozen 07"),
        TEXT("frozen +7"),
        TEXT("frozen -7"),
        TEXT("frozen 7.0"),
        TEXT("frozen 0x7"),
        TEXT("frozen seven"),
        TEXT("frozen 0"),
        TEXT("frozen 4294967296"),
        TEXT("frozen 4294967303"),
        TEXT("frozen 10000000000"),
        TEXT("frozen 18446744073709551623"),
        TEXT("thawed 0"),
        TEXT("busy 0"),
        TEXT("refused 0"),
        TEXT("refused 0 x"),
        TEXT("refused 07 x"),
        TEXT("refused -7 x"),
        TEXT("refused 4294967296 x"),
        /* a refusal's text that could do harm to who shows it */
        TEXT("refused 7 a\nb"),
        TEXT("refused 7 \n"),
        TEXT("refused 7 a\tb"),
        TEXT("refused 7 \033[2J"),
        TEXT("refused 7 a\x7f"),
        TEXT("refused 7 a\x80"),
        TEXT("refused 7 \xff\xfe"),
        TEXT("refused 7 caf\xc3\xa9"),
        TEXT("refused 7 a\r"),
        TEXT("refused 7 \x1f"),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        refuse_answer(texts[i].bytes, texts[i].length);
}

static void refusals_have_room_for_159_bytes(void **state)
{
    static const char begin[] = "refused 4294967295 ";
    struct p2mg_answer answer;

    (void)state;
    for (size_t length = strlen(begin) + 1; length <= 4096; length++) {
        char *text = lengthen(begin, length);

        if (length - strlen(begin) < P2MG_REFUSAL_MAX) {
            assert_int_equal(parse_answer(text, length, &answer), 0);
            assert_string_equal(answer.text, text + strlen(begin));
        } else {
            refuse_answer(text, length);
        }
        free(text);
    }
}

static void long_answers_are_refused(void **state)
{
    static const size_t lengths[] = {P2MG_GUEST_TEXT_MAX - 1, P2MG_GUEST_TEXT_MAX, P2MG_GUEST_TEXT_MAX + 1, 2048, 4096};
    static const char filling[] = {'1', ' ', '\0', '\n', '\xff'};

    (void)state;
    for (size_t i = 0; i < COUNT(lengths); i++)
        for (size_t j = 0; j < COUNT(filling); j++) {
            char *text = lengthen("frozen 7", lengths[i]);

            memset(text + 8, filling[j], lengths[i] - 8);
            refuse_answer(text, lengths[i]);
            memset(text, filling[j], lengths[i]);
            refuse_answer(text, lengths[i]);
            free(text);
        }
}

static void only_what_is_printable_goes_into_a_refusal(void **state)
{
    struct p2mg_answer answer = {P2MG_ANSWER_REFUSED, 7, "a\nb\tc\x7f\033[2Jd\xc3\xa9 e"};
    char text[P2MG_GUEST_TEXT_MAX];

    (void)state;
    p2mg_answer_format(&answer, text);
    assert_string_equal(text, "refused 7 abc[2Jd e");
    strcpy(answer.text, "\n\r\x01\xff");
    p2mg_answer_format(&answer, text);
    assert_string_equal(text, "refused 7");
}

/* Not terminated, as if something had gone wrong: cut, and nothing beyond is read. */
static void a_refusal_that_does_not_end_is_cut(void **state)
{
    struct p2mg_answer *answer = malloc(sizeof(*answer));
    char text[P2MG_GUEST_TEXT_MAX];
    struct p2mg_answer parsed;

    (void)state;
    assert_non_null(answer);
    answer->kind = P2MG_ANSWER_REFUSED;
    answer->seq = UINT32_MAX;
    memset(answer->text, 'x', sizeof(answer->text));
    memset(text, UNTOUCHED, sizeof(text));
    p2mg_answer_format(answer, text);
    assert_int_equal(strnlen(text, sizeof(text)), strlen("refused 4294967295 ") + P2MG_REFUSAL_MAX - 1);
    assert_int_equal(parse_answer(text, strlen(text), &parsed), 0);
    assert_int_equal(strlen(parsed.text), P2MG_REFUSAL_MAX - 1);
    free(answer);
}

static void only_refusals_have_a_text(void **state)
{
    struct p2mg_answer answer = {P2MG_ANSWER_FROZEN, 7, "left from before"};
    char text[P2MG_GUEST_TEXT_MAX];

    (void)state;
    for (int kind = 0; kind < P2MG_ANSWER_REFUSED; kind++) {
        struct p2mg_answer parsed;

        answer.kind = (enum p2mg_answer_kind)kind;
        p2mg_answer_format(&answer, text);
        assert_null(strstr(text, "left"));
        assert_int_equal(parse_answer(text, strlen(text), &parsed), 0);
        assert_string_equal(parsed.text, "");
    }
}

/* ---- features ---- */

#define ALL_FEATURES (P2MG_FEATURE_BALLOON | P2MG_FEATURE_HOTPLUG | P2MG_FEATURE_HOOKS)

static const struct {
    const char *text;
    struct p2mg_features features;
} good_features[] = {
    {"protocol=1", {1, 0, ""}},
    {"protocol=4294967295", {UINT32_MAX, 0, ""}},
    {"protocol=1 version=0.1.0", {1, 0, "0.1.0"}},
    {"protocol=1 version=0.1.0 balloon hotplug hooks", {1, ALL_FEATURES, "0.1.0"}},
    {"protocol=1 hotplug", {1, P2MG_FEATURE_HOTPLUG, ""}},
    {"protocol=2 balloon hooks", {2, P2MG_FEATURE_BALLOON | P2MG_FEATURE_HOOKS, ""}},
    {"protocol=4294967295 version=1234567890123456789012345678901 balloon hotplug hooks",
     {UINT32_MAX, ALL_FEATURES, "1234567890123456789012345678901"}},
    {"protocol=1 version=a=b~!", {1, 0, "a=b~!"}},
};

static void assert_features(const char *text, const struct p2mg_features *expected)
{
    struct p2mg_features features;

    assert_int_equal(parse_features(text, strlen(text), &features), 0);
    assert_int_equal(features.protocol, expected->protocol);
    assert_int_equal(features.has, expected->has);
    assert_string_equal(features.version, expected->version);
}

static void features_there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good_features); i++) {
        char text[P2MG_GUEST_TEXT_MAX];

        p2mg_features_format(&good_features[i].features, text);
        assert_string_equal(text, good_features[i].text);
        assert_features(text, &good_features[i].features);
    }
}

/* So that there can be more of them, and so that the order does not matter. */
static void unknown_words_and_any_order_are_accepted(void **state)
{
    static const struct {
        const char *text;
        struct p2mg_features features;
    } lists[] = {
        {"balloon protocol=1", {1, P2MG_FEATURE_BALLOON, ""}},
        {"hooks version=2 balloon protocol=3", {3, P2MG_FEATURE_BALLOON | P2MG_FEATURE_HOOKS, "2"}},
        {"protocol=1 balloon balloon", {1, P2MG_FEATURE_BALLOON, ""}},
        {"protocol=1 swap colour=blue balloon", {1, P2MG_FEATURE_BALLOON, ""}},
        {"protocol=1 Balloon balloons ballo balloon=1", {1, 0, ""}},
        {"protocol=1 protocols=2 version", {1, 0, ""}},
        {"protocol protocol=1", {1, 0, ""}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(lists); i++)
        assert_features(lists[i].text, &lists[i].features);
}

static void other_features_are_refused(void **state)
{
    static const struct text texts[] = {
        /* no protocol, or one that is none */
        TEXT(""),
        TEXT(" "),
        TEXT("balloon"),
        TEXT("version=1"),
        TEXT("protocol"),
        TEXT("protocol="),
        TEXT("protocol=0"),
        TEXT("protocol=01"),
        TEXT("protocol=+1"),
        TEXT("protocol=-1"),
        TEXT("protocol=1.0"),
        TEXT("protocol=x"),
        TEXT("protocol=4294967296"),
        TEXT("protocol=10000000000"),
        TEXT("protocol=18446744073709551617"),
        TEXT("Protocol=1"),
        TEXT("protocol =1"),
        TEXT("protocol= 1"),
        TEXT("protocol:1"),
        TEXT("xprotocol=1"),
        /* of what there is one of, two; or nothing */
        TEXT("protocol=1 protocol=2"),
        TEXT("protocol=0 protocol=1"),
        TEXT("protocol=1 protocol=1"),
        TEXT("protocol=1 protocol="),
        TEXT("protocol=1 version=1 version=2"),
        TEXT("protocol=1 version="),
        TEXT("version= protocol=1"),
        /* a version that is too long */
        TEXT("protocol=1 version=12345678901234567890123456789012"),
        TEXT("protocol=1 version=123456789012345678901234567890123456789012345678901234567890123456789"),
        /* blanks that are too many, or none */
        TEXT(" protocol=1"),
        TEXT("protocol=1 "),
        TEXT("protocol=1  balloon"),
        TEXT("protocol=1\tballoon"),
        TEXT("protocol=1\n"),
        TEXT("protocol=1\nballoon"),
        TEXT("protocol=1 balloon\n"),
        TEXT("protocol=1 balloon "),
        /* bytes that are no text */
        TEXT("protocol=1\0"),
        TEXT("protocol=1\0balloon"),
        TEXT("protocol=1 \0"),
        TEXT("\0protocol=1"),
        TEXT("protocol=1 version=1\0"),
        TEXT("protocol=1 version=\033[2J"),
        TEXT("protocol=1 version=\xc3\xa9"),
        TEXT("protocol=1 \xff"),
        TEXT("protocol=1 ball\x01oon"),
        TEXT("protocol=1 \x7f"),
        TEXT("protocol=1 unknown\r"),
    };

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++)
        refuse_features(texts[i].bytes, texts[i].length);
}

static void lists_of_255_bytes_are_the_longest(void **state)
{
    static const size_t lengths[] = {P2MG_GUEST_TEXT_MAX, P2MG_GUEST_TEXT_MAX + 1, 2048, 4096};
    char *text = lengthen("protocol=1 balloon ", P2MG_GUEST_TEXT_MAX - 1);

    (void)state;
    assert_features(text, &(struct p2mg_features){1, P2MG_FEATURE_BALLOON, ""});
    free(text);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        text = lengthen("protocol=1 balloon ", lengths[i]);
        refuse_features(text, lengths[i]);
        free(text);
    }
}

/* Whatever is in the structure, what is written can be read. */
static void only_words_go_into_a_list(void **state)
{
    struct p2mg_features *features = malloc(sizeof(*features));
    char text[P2MG_GUEST_TEXT_MAX];

    (void)state;
    assert_non_null(features);
    *features = (struct p2mg_features){1, ~0u, "1.0 protocol=9\n\x7f\xff"};
    p2mg_features_format(features, text);
    assert_string_equal(text, "protocol=1 version=1.0protocol=9 balloon hotplug hooks");
    *features = (struct p2mg_features){1, 0, " \t\n"};
    p2mg_features_format(features, text);
    assert_string_equal(text, "protocol=1");
    /* Not terminated: cut, and nothing beyond is read. */
    memset(features->version, 'v', sizeof(features->version));
    p2mg_features_format(features, text);
    assert_string_equal(text, "protocol=1 version=vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv");
    free(features);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_the_protocols),
        cmocka_unit_test(values_outside_are_unknown),
        cmocka_unit_test(requests_there_and_back),
        cmocka_unit_test(other_requests_are_refused),
        cmocka_unit_test(a_cut_request_is_refused_or_has_a_smaller_number),
        cmocka_unit_test(long_requests_are_refused),
        cmocka_unit_test(answers_there_and_back),
        cmocka_unit_test(other_answers_are_refused),
        cmocka_unit_test(refusals_have_room_for_159_bytes),
        cmocka_unit_test(long_answers_are_refused),
        cmocka_unit_test(only_what_is_printable_goes_into_a_refusal),
        cmocka_unit_test(a_refusal_that_does_not_end_is_cut),
        cmocka_unit_test(only_refusals_have_a_text),
        cmocka_unit_test(features_there_and_back),
        cmocka_unit_test(unknown_words_and_any_order_are_accepted),
        cmocka_unit_test(other_features_are_refused),
        cmocka_unit_test(lists_of_255_bytes_are_the_longest),
        cmocka_unit_test(only_words_go_into_a_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
