/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Writes the session's table as Promela, for the model beside this file: what the daemon does on an event is not
 * written down a second time. Each row names a guard and an action, for which the model has to have a GUARD_… and a
 * DO_…: spin refuses a row that has none.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/session.h"

static const char *const event_names[] = {
    [EVENT_BEGIN] = "BEGIN",         [EVENT_DONE] = "DONE",       [EVENT_DISTURBED] = "DISTURBED",
    [EVENT_NOT_READY] = "NOT_READY", [EVENT_FAILED] = "FAILED",   [EVENT_GONE] = "GONE",
    [EVENT_STOP] = "STOP",           [EVENT_TIMEOUT] = "TIMEOUT", [EVENT_RETRY] = "RETRY",
    [EVENT_TIMER] = "TIMER",         [EVENT_STILL] = "STILL",     [EVENT_ANSWERED] = "ANSWERED",
    [EVENT_SURVEYED] = "SURVEYED",   [EVENT_TOUCHED] = "TOUCHED",
};

_Static_assert(sizeof(event_names) / sizeof(event_names[0]) == EVENT_COUNT, "an event without a name");

static const char *step_name(enum session_step step)
{
    static char name[32];
    size_t i = 0;

    for (const char *text = session_step_name(step); text[i] && i + 1 < sizeof(name); i++)
        name[i] = (char)toupper((unsigned char)text[i]);
    name[i] = '\0';
    return name;
}

/* The number of the first row with this action, which stands for the action. */
static size_t number_of(const char *action)
{
    size_t i = 0;

    while (strcmp(session_rule_at(i).action, action) != 0)
        i++;
    return i;
}

static void write_names(void)
{
    for (int step = 0; step < STEP_COUNT; step++)
        printf("#define STEP_%s %d\n", step_name((enum session_step)step), step);
    printf("#define EVENT_NONE 0\n");
    for (int event = 0; event < EVENT_COUNT; event++)
        printf("#define EVENT_%s %d\n", event_names[event], event + 1);
}

/* Whether a row before this one takes its event whatever happens. */
static bool is_hidden(size_t index)
{
    struct session_rule_view row = session_rule_at(index);

    for (size_t i = 0; i < index; i++) {
        struct session_rule_view before = session_rule_at(i);
        if (before.step == row.step && before.event == row.event && !before.guard)
            return true;
    }
    return false;
}

/* The first row that fits counts: each one's condition says that those before it for the same event do not fit. */
static void write_condition(size_t index)
{
    struct session_rule_view row = session_rule_at(index);

    printf("\t:: step == STEP_%s && event == EVENT_%s", step_name(row.step), event_names[row.event]);
    for (size_t i = 0; i < index; i++) {
        struct session_rule_view before = session_rule_at(i);
        if (before.step == row.step && before.event == row.event)
            printf(" && !(GUARD_%s)", before.guard);
    }
    if (row.guard)
        printf(" && GUARD_%s", row.guard);
}

static void write_rows(void)
{
    printf("inline find_row()\n{\n\tif\n");
    for (size_t i = 0; i < session_rule_count(); i++) {
        struct session_rule_view row = session_rule_at(i);
        if (is_hidden(i))
            continue;
        write_condition(i);
        printf(" ->\n\t\taction = %zu; next = STEP_%s; c_code { row_reached[%zu] = 1; }\n", number_of(row.action) + 1,
               step_name(row.next), i);
    }
    printf("\t:: else -> action = 0\n\tfi\n}\n");
}

static void write_actions(void)
{
    printf("inline do_action()\n{\n\tif\n");
    for (size_t i = 0; i < session_rule_count(); i++)
        if (number_of(session_rule_at(i).action) == i)
            printf("\t:: action == %zu -> DO_%s()\n", i + 1, session_rule_at(i).action);
    printf("\tfi\n}\n");
}

/* For the report of rows that no run has reached. */
static void write_row_names(void)
{
    printf("c_decl {\n\tstatic unsigned char row_reached[%zu];\n\tstatic const char *const row_name[] = {\n",
           session_rule_count());
    for (size_t i = 0; i < session_rule_count(); i++) {
        struct session_rule_view row = session_rule_at(i);
        if (is_hidden(i))
            printf("\t\t0,\n");
        else
            printf("\t\t\"%s %s %s %s\",\n", step_name(row.step), event_names[row.event],
                   row.guard ? row.guard : "always", row.action);
    }
    printf("\t};\n}\n");
}

int main(void)
{
    printf("/* made of the table in daemon/session.c */\n");
    write_names();
    write_row_names();
    write_rows();
    write_actions();
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
