/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl: a table of commands over the control socket, and help, which is made of it.
 */
#include <inttypes.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/ctl.h"
#include "client/line.h"
#include "client/synopsis.h"
#include "client/table.h"
#include "config.h"
#include "protocol/names.h"
#include "protocol/policy.h"

const struct ctl_command ctl_commands[] = {
    {"list", "", "guests under guard", 0, 0, list_command},
    {"show", "SESSION", "all about one session; SESSION may be the domain it guards", 1, 1, show_command},
    {"begin", "[--detached] [--require LEVEL] [--policy KEY=VALUE]… [--no-wait] DOMAIN", "hold a guest", -1, -1,
     begin_command},
    {"verdict", "[--phase precopy|final] SESSION", "may the migration proceed? (exit status 0, 6 retry, 4 abort)", -1,
     -1, verdict_command},
    {"retry", "SESSION", "settle anew for another attempt", 1, 1, retry_command},
    {"end", "SESSION completed|failed|cancelled", "let the guest go", 2, 2, end_command},
    {"thaw", "[--offline [--force]] --all | DOMAIN", "let guests go; --offline: without a daemon, by what it has left",
     -1, -1, thaw_command},
    {"migrate", "[--attempts N] [--require LEVEL] [--policy KEY=VALUE]… DOMAIN -- COMMAND [ARG…]",
     "hold the guest while COMMAND migrates it", -1, -1, migrate_command},
    {"top", "[--once]", "the guests under guard as they change, on the whole screen", -1, -1, top_command},
    {"timeline", "[--svg FILE] [SESSION]", "what happened in a session, and where its time went; as a picture", -1, -1,
     timeline_command},
    {"watch", "[--from NUMBER]", "events as they come", -1, -1, watch_command},
    {"migrations", "", "migrations that nobody announced, under way and past", 0, 0, migrations_command},
    {"domains", "", "all domains of this host", 0, 0, domains_command},
    {"domain", "DOMAIN", "all about one domain", 1, 1, domain_command},
    {"reexec", "", "have the daemon execute its program anew, with all that it holds: after an upgrade", 0, 0,
     reexec_command},
    {"doctor", "[--domain DOMAIN] [--config FILE]",
     "look at all that a guarded migration needs, and say how to mend it", -1, -1, doctor_command},
    {"metrics", "[--format openmetrics|prometheus] [--output FILE]", "what the daemon counts, for monitoring", -1, -1,
     metrics_command},
    {"config", "[--changed] [--domain DOMAIN] | check [FILE…] | reload",
     "what is configured, and where; are the files right; read them again", -1, -1, config_command},
    {"info", "", "the daemon, its defaults, and what it is doing", 0, 0, info_command},
    {"help", "[TOPIC]", "this, or all about one command", 0, 1, help_command},
    {NULL, NULL, NULL, 0, 0, NULL},
};

/* What options mean; those of one command only before those of all. */
static const struct {
    const char *command, *option, *help;
} option_help[] = {
    {NULL, "--detached", "hold it until it is let go or its deadline is over, not only as long as this runs"},
    {NULL, "--no-wait", "do not wait until the guest is held"},
    {NULL, "--require", "how much must be true before the guest counts as held"},
    {NULL, "--policy", "a member of the policy, see below; may be given several times"},
    {NULL, "--attempts", "how many attempts may be made"},
    {NULL, "--phase", "precopy: only what is known already; final (default): look at all again"},
    {NULL, "--offline", "put back what a daemon that is no more has left, by its journals in xenstore"},
    {NULL, "--force", "even if there is a daemon, which hangs and cannot be killed"},
    {NULL, "--all", "all guests, whoever holds them"},
    {"doctor", "--domain", "look at this guest alone, and count as failed what keeps it from being held"},
    {"doctor", "--config", "the daemon's configuration, where that is not the standard one"},
    {"metrics", "--format", "the text format; prometheus is the default"},
    {"metrics", "--output", "replace this file with it, in one step"},
    {"config", "--changed", "only what is not the default"},
    {"config", "--domain", "how this guest would be guarded, and by which section"},
    {"top", "--once", "write it once, for which no terminal is needed"},
    {"timeline", "--svg", "draw it as a picture into this file; - for standard output"},
    {"watch", "--from", "begin with this event, as far as it is still kept"},
    {NULL, "--socket", "the daemon's control socket (" P2MG_CONTROL_SOCKET ")"},
    {NULL, "--json", "write answers, and errors too, as lines of JSON"},
    {NULL, "--color", "when to use colours; auto: on a terminal, unless NO_COLOR is set"},
    {NULL, "--help", "this, with a command: all about it"},
    {NULL, "--version", "write the version"},
};

const struct ctl_command *ctl_command_find(const char *name)
{
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        if (strcmp(command->name, name) == 0)
            return command;
    return NULL;
}

/* ---- help ---- */

static const char *main_option_help(const char *command, const char *option)
{
    for (size_t i = 0; i < sizeof(option_help) / sizeof(option_help[0]); i++)
        if (strcmp(option_help[i].option, option) == 0 &&
            (!option_help[i].command || strcmp(option_help[i].command, command) == 0))
            return option_help[i].help;
    return "";
}

static void main_options(FILE *to, const char *command, const char *synopsis)
{
    struct synopsis_item item;
    char text[2 * SYNOPSIS_TEXT + 2];

    while (synopsis_next(&synopsis, &item)) {
        if (!item.option)
            continue;
        snprintf(text, sizeof(text), "%s%s%s", item.name, *item.value ? " " : "", item.value);
        fprintf(to, "  %-26s  %s\n", text, main_option_help(command, item.name));
    }
}

static void main_usage(FILE *to)
{
    fputs("usage: p2mguardctl [OPTION…] COMMAND [ARGUMENT…]\n\nCommands:\n", to);
    for (const struct ctl_command *command = ctl_commands; command->name; command++)
        fprintf(to, "  %s%s%s\n      %s\n", command->name, *command->arguments ? " " : "", command->arguments,
                command->help);
    fputs("\nOptions, before the command or after it:\n", to);
    main_options(to, "", CTL_GLOBAL);
    fputs(
        "\nDOMAIN is a domid, a name or a uuid; SESSION is a session, or the domain it guards.\n"
        "LEVEL is gate, settled or agent. p2mguardctl help COMMAND says more, p2mguardctl(8) all.\n"
        "Exit status: 0 done or migrated, 1 refused or the command failed, 2 usage, 3 no daemon,\n"
        "4 aborted by verdict, 5 the guest could not be held, 6 verdict: retry, 7 thaw --offline: there is a daemon.\n",
        to);
}

static void main_policy_help(void)
{
    puts("\nThe policy, its keys with their defaults and ranges:");
    printf("  %-26s  %s\n", "require=settled", "gate|settled|agent");
    for (const struct p2mg_policy_member *member = p2mg_policy_members; member->name; member++) {
        char text[64];
        snprintf(text, sizeof(text), "%s=%" PRId64, member->name, member->standard);
        printf("  %-26s  %" PRId64 " to %" PRId64 "\n", text, member->least, member->most);
    }
    puts("The configuration may have other defaults (p2mguardctl info); p2mguard.conf(5) says what they mean.");
}

static int main_help(const struct ctl_command *command)
{
    printf("usage: p2mguardctl %s%s%s\n\n%s\n", command->name, *command->arguments ? " " : "", command->arguments,
           command->help);
    puts("\nOptions:");
    main_options(stdout, command->name, command->arguments);
    main_options(stdout, command->name, CTL_GLOBAL);
    if (strstr(command->arguments, "KEY=VALUE"))
        main_policy_help();
    puts("\nSee p2mguardctl(8) for more.");
    return CTL_OK;
}

int help_command(struct ctl *ctl, int argc, char **argv)
{
    (void)ctl;
    if (argc < 2) {
        main_usage(stdout);
        return CTL_OK;
    }
    const struct ctl_command *command = ctl_command_find(argv[1]);
    return command ? main_help(command) : line_unknown_command("help", argv[1]);
}

int main(int argc, char **argv)
{
    struct ctl ctl = {.socket = P2MG_CONTROL_SOCKET};
    struct line line = {.command = NULL};

    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "__complete") == 0)
        return complete_command(&ctl, argc - 1, argv + 1);
    if (argc < 2) {
        main_usage(stderr);
        return CTL_USAGE;
    }
    ctl_begin(&ctl);
    table_set_colors(TABLE_COLORS_AUTO);
    int status = line_take(&ctl, argc, argv, &line);
    if (status)
        return status;
    if (line.version) {
        puts("p2mguardctl " PACKAGE_VERSION);
        return CTL_OK;
    }
    if (line.help && line.command)
        return main_help(line.command);
    if (line.help) {
        main_usage(stdout);
        return CTL_OK;
    }
    if (!line.command)
        return ctl_usage_error("", "expected a command");
    status = line.command->run(&ctl, line.argc, line.argv);
    connection_close(ctl.connection);
    return status;
}
