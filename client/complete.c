/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl __complete WORD…: what could stand in the place of the last word, for client/completion's scripts.
 *
 * The first line says how the others are meant: "words", "nospace" (nothing is to be put behind them), "files" (names
 * of files are wanted) or "command" (what follows is another program's). Each other line is a word, a tab, and what it
 * is. Errors are not told, and who does not answer within half a second is not waited for.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/ctl.h"
#include "client/synopsis.h"
#include "client/table.h"
#include "protocol/names.h"
#include "protocol/policy.h"

#define COMPLETE_MS 500

struct complete {
    struct ctl *ctl;
    const struct ctl_command *command;
    const char *current; /* what has been written of the last word */
    const char *before;  /* "--option=", with which each candidate begins, or empty */
    size_t before_length;
    bool said; /* the first line has been written */
};

static void complete_give_up(int signal)
{
    (void)signal;
    _exit(CTL_OK);
}

static void complete_say_how(struct complete *complete, const char *how)
{
    if (!complete->said)
        puts(how);
    complete->said = true;
}

static void complete_offer(struct complete *complete, const char *word, const char *about)
{
    if (strncmp(word, complete->current, strlen(complete->current)) != 0)
        return;
    complete_say_how(complete, "words");
    printf("%.*s%s\t%s\n", (int)complete->before_length, complete->before, word, about);
}

/* ---- what the daemon knows ---- */

/* One that a shell could not show, or a command would take for an option, is named by its number. */
static bool complete_is_plain(const char *name)
{
    char *safe = table_safe(name);
    bool plain = safe && *name && *name != '-' && strcmp(safe, name) == 0;

    free(safe);
    return plain;
}

static void complete_named(struct complete *complete, const json_t *object, const char *state)
{
    const char *name = ctl_string(object, "name");
    char domid[24], about[80];

    snprintf(domid, sizeof(domid), "%" PRId64, ctl_integer(object, "domid", -1));
    snprintf(about, sizeof(about), "domain %s, %.32s", domid, state);
    complete_offer(complete, complete_is_plain(name) ? name : domid, about);
}

static json_t *complete_ask(struct complete *complete, const char *method)
{
    json_t *result = NULL, *error = NULL;

    if (!complete->ctl->connection && connection_open(&complete->ctl->connection, complete->ctl->socket))
        return NULL;
    connection_call(complete->ctl->connection, method, NULL, &result, &error);
    json_decref(error);
    return result;
}

static void complete_domains(struct complete *complete)
{
    json_t *list = complete_ask(complete, "domain.list"), *domain;
    size_t i;

    json_array_foreach(json_object_get(list, "domains"), i, domain)
        complete_named(complete, domain, ctl_string(domain, "state"));
    json_decref(list);
}

static void complete_sessions(struct complete *complete)
{
    json_t *list = complete_ask(complete, "guard.list"), *session;
    size_t i;

    json_array_foreach(json_object_get(list, "sessions"), i, session)
    {
        complete_named(complete, session, ctl_string(session, "state"));
        complete_offer(complete, ctl_string(session, "session"), ctl_string(session, "state"));
    }
    json_decref(list);
}

/* ---- what is known ---- */

static void complete_policy(struct complete *complete)
{
    static const char *const levels[] = {"require=gate", "require=settled", "require=agent"};
    char text[64], about[64];

    complete_say_how(complete, strchr(complete->current, '=') ? "words" : "nospace");
    if (strncmp(complete->current, "require=", 8) == 0)
        for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
            complete_offer(complete, levels[i], "");
    else
        complete_offer(complete, "require=", "gate, settled or agent");
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        snprintf(text, sizeof(text), "%s=", member->name);
        snprintf(about, sizeof(about), "%" PRId64 " to %" PRId64, member->least, member->most);
        if (strcmp(text, complete->current) != 0)
            complete_offer(complete, text, about);
    }
}

static void complete_commands(struct complete *complete)
{
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        complete_offer(complete, command->name, command->help);
}

static void complete_files(struct complete *complete)
{
    complete_say_how(complete, "files");
}

/* By the words of synopses; what is not here is a word to be written as it is, or one nobody can guess. */
static const struct {
    const char *word;
    void (*offer)(struct complete *complete);
} complete_words[] = {
    {"DOMAIN", complete_domains}, {"SESSION", complete_sessions}, {"KEY=VALUE", complete_policy},
    {"TOPIC", complete_commands}, {"FILE", complete_files},       {"PATH", complete_files},
};

static void complete_word(struct complete *complete, const char *word)
{
    const char *choices = ctl_choices(word) ? ctl_choices(word) : word, *choice;
    char text[SYNOPSIS_TEXT];
    size_t length;

    while ((choice = synopsis_choice(&choices, &length)), length > 0) {
        snprintf(text, sizeof(text), "%.*s", (int)length, choice);
        for (size_t i = 0; i < sizeof(complete_words) / sizeof(complete_words[0]); i++)
            if (strcmp(complete_words[i].word, text) == 0)
                complete_words[i].offer(complete);
        if (text[strcspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")] == '\0')
            complete_offer(complete, text, "");
    }
}

static void complete_options(struct complete *complete, const char *synopsis)
{
    struct synopsis_item item;

    while (synopsis_next(&synopsis, &item))
        if (item.option)
            complete_offer(complete, item.name, item.value);
}

/* ---- where the cursor is ---- */

static bool complete_find_option(const struct complete *complete, const char *text, struct synopsis_item *item)
{
    return (complete->command && synopsis_find_option(complete->command->arguments, text, item)) ||
           synopsis_find_option(CTL_GLOBAL, text, item);
}

/*
 * Goes over all words but the last. True: the last one is a value of `option`'s. Else *place is how many words of the
 * command's are before it, and *behind whether it is behind "--".
 */
static bool complete_walk(struct complete *complete, char **words, int count, struct synopsis_item *option,
                          size_t *place, bool *behind)
{
    *place = 0;
    *behind = false;
    for (int i = 0; i < count - 1 && !*behind; i++) {
        *behind = strcmp(words[i], "--") == 0;
        if (strncmp(words[i], "--", 2) != 0) {
            const struct ctl_command *named = complete->command ? NULL : ctl_command_find(words[i]);
            *place += !named;
            complete->command = named ? named : complete->command;
        } else if (strncmp(words[i], "--socket=", 9) == 0) {
            complete->ctl->socket = words[i] + 9;
        } else if (complete_find_option(complete, words[i], option) && option->value[0] && !strchr(words[i], '=')) {
            if (++i == count - 1)
                return true;
            if (strcmp(option->name, "--socket") == 0)
                complete->ctl->socket = words[i];
        }
    }
    return false;
}

/* "--option=value", whose value is to be completed. */
static void complete_after_equals(struct complete *complete, const char *equals)
{
    struct synopsis_item item;

    if (!complete_find_option(complete, complete->current, &item))
        return;
    complete->before = complete->current;
    complete->before_length = (size_t)(equals + 1 - complete->current);
    complete->current = equals + 1;
    complete_word(complete, item.value);
}

static void complete_any_option(struct complete *complete)
{
    if (complete->command)
        complete_options(complete, complete->command->arguments);
    complete_options(complete, CTL_GLOBAL);
}

/* A word of the command's, or the command itself. */
static void complete_at(struct complete *complete, size_t place)
{
    const char *at = complete->command ? complete->command->arguments : "TOPIC", *synopsis = at;
    struct synopsis_item item;
    size_t counted = 0;
    bool any = false;

    while (synopsis_next_word(&at, &counted, place, &item)) {
        complete_word(complete, item.name);
        any = true;
    }
    if (!any && strstr(synopsis, " -- "))
        complete_offer(complete, "--", "and the command that migrates");
}

static void complete_last(struct complete *complete, char **words, int count)
{
    const char *equals = strchr(complete->current, '=');
    struct synopsis_item option;
    size_t place;
    bool behind;

    if (complete_walk(complete, words, count, &option, &place, &behind))
        complete_word(complete, option.value);
    else if (behind)
        complete_say_how(complete, "command");
    else if (equals && strncmp(complete->current, "--", 2) == 0)
        complete_after_equals(complete, equals);
    else if (complete->current[0] == '-')
        complete_any_option(complete);
    else if (complete->command || place == 0)
        complete_at(complete, place);
}

int complete_command(struct ctl *ctl, int argc, char **argv)
{
    struct itimerval limit = {.it_value = {.tv_usec = COMPLETE_MS * 1000}};
    struct complete complete = {.ctl = ctl, .current = argc > 1 ? argv[argc - 1] : "", .before = ""};
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);

    if (nowhere >= 0)
        dup2(nowhere, STDERR_FILENO);
    signal(SIGALRM, complete_give_up);
    setitimer(ITIMER_REAL, &limit, NULL);
    if (argc > 1)
        complete_last(&complete, argv + 1, argc - 1);
    connection_close(ctl->connection);
    return CTL_OK;
}
