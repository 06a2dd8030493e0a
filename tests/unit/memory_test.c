/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happens when memory runs out. Each scenario is played again and again: the first time its first allocation
 * fails, then its second, and so on, until it has all it wants. The linker sends the daemon's allocations here
 * (-Wl,--wrap), and jansson sends its own.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "daemon/domains.h"
#include "daemon/events.h"
#include "daemon/rpc.h"
#include "daemon/targets.h"
#include "protocol/names.h"
#include "tests/imitation/machine.h"

/* ---- memory ---- */

static unsigned left;
static bool counting, failed;

static bool is_out(void)
{
    if (!counting || failed)
        return false;
    failed = left-- == 0;
    return failed;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__real_reallocarray(void *block, size_t count, size_t size);
char *__real_strdup(const char *text);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void *__wrap_reallocarray(void *block, size_t count, size_t size);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **text, const char *format, ...) __attribute__((format(printf, 2, 3)));

void *__wrap_malloc(size_t size)
{
    return is_out() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_out() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return is_out() ? NULL : __real_realloc(block, size);
}

void *__wrap_reallocarray(void *block, size_t count, size_t size)
{
    return is_out() ? NULL : __real_reallocarray(block, count, size);
}

char *__wrap_strdup(const char *text)
{
    return is_out() ? NULL : __real_strdup(text);
}

int __wrap_asprintf(char **text, const char *format, ...)
{
    va_list arguments;

    if (is_out())
        return -1;
    va_start(arguments, format);
    int length = vasprintf(text, format, arguments);
    va_end(arguments);
    return length;
}

/* Plays it until nothing is missing; `play` is told whether something is going to be. */
static void play_all(void (*play)(void *context), void *context)
{
    unsigned n = 0;

    do {
        left = n++;
        failed = false;
        counting = true;
        play(context);
        counting = false;
        assert_true(n < 100000);
    } while (failed);
    assert_true(n > 1);
}

/* ---- requests ---- */

struct conversation {
    struct rpc_call *later[8];
    size_t waiting, answers;
};

/* Whatever is missing, what is said is whole. */
static void take_line(void *context, const char *line, size_t length)
{
    struct conversation *conversation = context;
    bool before = counting;

    if (length == 0)
        return;
    counting = false;
    json_t *message = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
    if (!message)
        fail_msg("%.*s", (int)length, line);
    conversation->answers += json_is_array(message) ? json_array_size(message) : 1;
    json_decref(message);
    counting = before;
}

static void run_echo(struct rpc_call *call, const json_t *params, void *context)
{
    (void)context;
    rpc_reply(call, json_pack("{s:O}", "params", params));
}

static void run_fail(struct rpc_call *call, const json_t *params, void *context)
{
    (void)params, (void)context;
    rpc_fail(call, P2MG_ERROR_STORE, "xenstored does not answer", json_pack("{s:s}", "where", "here"));
}

static void run_later(struct rpc_call *call, const json_t *params, void *context)
{
    struct conversation *conversation = context;
    (void)params;

    assert_true(conversation->waiting < 8);
    conversation->later[conversation->waiting++] = call;
}

static const struct rpc_param echo_params[] = {{"text", RPC_STRING, true}, {NULL, RPC_STRING, false}};
static const struct rpc_method methods[] = {{"echo", RPC_READ, echo_params, run_echo, NULL, NULL},
                                            {"fail", RPC_READ, NULL, run_fail, NULL, NULL},
                                            {"later", RPC_READ, NULL, run_later, NULL, NULL},
                                            {"change", RPC_CHANGE, NULL, run_later, NULL, NULL},
                                            {NULL, RPC_READ, NULL, NULL, NULL, NULL}};

static const char *const lines[] = {
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"text\":\"x\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":\"two\",\"method\":\"fail\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"later\"}",
    "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":{\"text\":\"nobody asks\"}}",
    "[{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"later\"},{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"fail\"},7]",
    "{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"nothing\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"change\"}",
    "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"echo\",\"params\":{\"text\":1}}",
    "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"echo\",\"params\":{\"text\":\"\",\"more\":1}}",
    "{\"jsonrpc\":\"2.0\",\"id\":10,\"method\":\"echo\",\"params\":[]}",
    "{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"echo\"}",
    "not JSON",
};

static void converse(void *context)
{
    struct rpc_peer peer = {.connection = 1};
    struct conversation conversation = {0};
    (void)context;

    struct rpc_channel *channel = rpc_channel_new(methods, &conversation, &peer, take_line, &conversation);
    if (!channel)
        return;
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        rpc_channel_take_line(channel, lines[i], strlen(lines[i]));
    while (conversation.waiting)
        rpc_reply(conversation.later[--conversation.waiting], json_pack("{s:i}", "n", 1));
    assert_int_equal(rpc_channel_pending(channel), 0);
    if (!failed)
        assert_int_equal(conversation.answers, 13);
    rpc_channel_free(channel);
}

static void requests_without_memory(void **state)
{
    (void)state;
    play_all(converse, NULL);
}

/* ---- events ---- */

static bool take_event(void *context, const char *event, size_t length)
{
    static const char begin[] = "{\"seq\":";
    uint64_t *last = context, seq = strtoull(event + sizeof(begin) - 1, NULL, 10);

    assert_true(length > sizeof(begin) && memcmp(event, begin, sizeof(begin) - 1) == 0);
    assert_true(seq > *last);
    *last = seq;
    return true;
}

static void tell(void *context)
{
    struct events *events = events_new(4);
    uint64_t last[2] = {0, 0};
    (void)context;

    if (!events)
        return;
    struct events_listener *first = events_listen(events, 1, take_event, &last[0]);
    for (int i = 0; i < 7; i++)
        events_emit(events, "told", json_pack("{s:i}", "i", i));
    struct events_listener *second = events_listen(events, 1, take_event, &last[1]);
    uint64_t emitted = events_emit(events, "told", json_object());
    if (second)
        events_resume(second);
    if (first && emitted)
        assert_int_equal(last[0], emitted);
    if (second && emitted)
        assert_int_equal(last[1], emitted);
    events_unlisten(first);
    events_unlisten(second);
    events_free(events);
}

static void events_without_memory(void **state)
{
    (void)state;
    play_all(tell, NULL);
}

/* ---- domains ---- */

enum { DOMAINS = 200 };

/* In the place of the worker's: comes back at once, as when there is no connection. */
void worker_submit(struct worker *worker, struct work *work)
{
    (void)worker;
    work->done(work);
}

static void see(void *context, const struct hypervisor_domain *domain)
{
    targets_see(context, domain);
}

static int look(struct domains *domains, struct targets *targets, struct hypervisor *hypervisor)
{
    targets_begin(targets);
    int error = domains_look(domains, hypervisor, see, targets);
    if (!error)
        targets_end(targets);
    return error;
}

/* What was missed in one look is made up for in the next. */
static void watch_domains(void *context)
{
    struct hypervisor *hypervisor = context;
    struct domains *domains = domains_new();
    struct targets *targets = NULL;
    struct hypervisor_domain domain;
    uint64_t kib;

    if (domains && targets_new(&targets) == 0) {
        int error = look(domains, targets, hypervisor);
        assert_true(error == 0 || (error == -ENOMEM && failed));
        int again = look(domains, targets, hypervisor);
        assert_true(again == 0 || (again == -ENOMEM && !error));
        if (again)
            assert_int_equal(look(domains, targets, hypervisor), 0);
        for (uint16_t domid = 1; domid <= DOMAINS; domid++) {
            assert_int_equal(hypervisor_get(hypervisor, domid, &domain), 0);
            targets_touched(targets, domid);
            assert_int_equal(targets_steady_ms(targets, domid, &kib), 0);
            domains_learn_offset(domains, domain.uuid, domid);
        }
        for (uint16_t domid = 1; domid <= DOMAINS; domid++) {
            assert_int_equal(hypervisor_get(hypervisor, domid, &domain), 0);
            assert_int_equal(*domains_offset_kib(domains, domain.uuid), domid);
        }
    }
    targets_free(targets);
    domains_free(domains);
}

static void domains_without_memory(void **state)
{
    char path[] = "/tmp/p2mguard-test-XXXXXX";
    struct hypervisor *hypervisor;
    int fd = mkstemp(path);
    (void)state;

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof(struct machine)), 0);
    close(fd);
    setenv(MACHINE_ENVIRONMENT, path, 1);
    struct machine *machine = machine_map();
    assert_non_null(machine);
    for (unsigned domid = 1; domid <= DOMAINS; domid++) {
        snprintf(machine->slots[domid].uuid, sizeof(machine->slots[domid].uuid), "%08x-0000-4000-8000-%012x", domid,
                 domid);
        machine->slots[domid].used = 1;
    }
    assert_int_equal(hypervisor_open(&hypervisor), 0);
    unlink(path);
    play_all(watch_domains, hypervisor);
    hypervisor_close(hypervisor);
}

static void *jansson_malloc(size_t size)
{
    return is_out() ? NULL : __real_malloc(size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_without_memory),
        cmocka_unit_test(events_without_memory),
        cmocka_unit_test(domains_without_memory),
    };

    json_set_alloc_funcs(jansson_malloc, free);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
