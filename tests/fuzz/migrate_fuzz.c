/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads what a caller may find himself writing to /tool/p2mguard/migrate. What is accepted is within the policy's
 * ranges; what is refused leaves the request alone, and is told of in one short line of printable ASCII.
 *
 * Input: texts, one a line; all of the input is taken for a text too, newlines included.
 */
#include "daemon/migrate-request.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"
#include "tests/untouched.h"

static void check_problem(const char *problem)
{
    const char *end = memchr(problem, '\0', MIGRATE_ANSWER_MAX - 7);

    MUST(end && end > problem);
    for (const char *at = problem; at < end; at++)
        MUST(*at >= ' ' && *at <= '~');
}

static void check_request(const struct migrate_request *request, const struct p2mg_policy *defaults)
{
    MUST(request->word < MIGRATE_WORDS);
    MUST(request->policy.require < P2MG_REQUIRE_COUNT);
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        int64_t value = p2mg_policy_get(&request->policy, member);
        MUST(value >= member->least && value <= member->most);
        MUST(request->named & p2mg_policy_bit(member) || value == p2mg_policy_get(defaults, member));
    }
    MUST(request->word == MIGRATE_BEGIN || request->named == 0);
    if (request->word == MIGRATE_END)
        MUST(request->outcome > P2MG_OUTCOME_UNKNOWN && request->outcome < P2MG_OUTCOME_COUNT);
}

/* The text ends where the heap's block does. */
static void read_text(const uint8_t *data, size_t length)
{
    char *text = malloc(length), *problem = malloc(MIGRATE_ANSWER_MAX);
    struct migrate_request request;
    struct p2mg_policy defaults;

    MUST(text && problem);
    if (length > 0)
        memcpy(text, data, length);
    p2mg_policy_init(&defaults);
    memset(problem, UNTOUCHED, MIGRATE_ANSWER_MAX);
    memset(&request, UNTOUCHED, sizeof(request));
    int error = migrate_request_parse(text, length, &request, problem);
    if (error) {
        MUST(error == -EINVAL && is_untouched(&request, sizeof(request)));
        check_problem(problem);
    } else {
        MUST(length < MIGRATE_REQUEST_MAX && is_untouched(problem, MIGRATE_ANSWER_MAX));
        check_request(&request, &defaults);
    }
    free(problem);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    fuzz_texts(data, size, read_text);
    return 0;
}
