/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * p2mguardctl top: the guests under guard as they change, on the whole screen.
 *
 * Events keep the screen up to date; the list of all sessions is asked for once a second at most, and less often where
 * the daemon takes long to write it. One loop waits for keys, the daemon and signals, and never for an answer: so that
 * "q" works whatever the daemon does, and the terminal is put back however the program is told to end.
 */
#include <curses.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "client/ctl.h"
#include "client/top-list.h"
#include "client/top-screen.h"

enum {
    TOP_DRAW_MS = 100,  /* the least time between two drawings */
    TOP_TICK_MS = 1000, /* ages grow, and the daemon is asked */
    TOP_PATIENCE = 10,  /* the list is asked for in one part of so many of the time at most */
    TOP_NOTE_MS = 5000,
    TOP_COLUMNS_ONCE = 80
};

struct top {
    struct ctl *ctl;
    struct top_list list;
    struct top_view view;
    SCREEN *screen;
    bool colours;
    int signals; /* signalfd */
    bool over;
    int status;

    int64_t subscribing, informing, listing; /* ids of requests under way; 0 = none */
    int64_t asked_ms;                        /* when the list was asked for */
    int64_t ask_ms, draw_ms, tick_ms;        /* when that is due next */
    bool dirty;
    char note[96];
    int64_t note_until_ms; /* 0: for as long as it is true */
};

static int64_t top_clock_ms(clockid_t id)
{
    struct timespec now;

    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t top_now_ms(void)
{
    return top_clock_ms(CLOCK_MONOTONIC);
}

/* ---- the terminal ---- */

static void top_put(void *context, int line, int column, enum top_style style, const char *text)
{
    static const attr_t plain[TOP_STYLES] = {[TOP_TITLE] = A_REVERSE, [TOP_BAD] = A_BOLD, [TOP_DIM] = A_DIM};
    const struct top *top = context;
    attr_t attributes = plain[style];

    if (top->colours && (style == TOP_GOOD || style == TOP_BUSY || style == TOP_BAD))
        attributes |= (attr_t)COLOR_PAIR(style);
    attrset((int)attributes);
    mvaddstr(line, column, text);
}

static bool top_wants_colours(void)
{
    const char *no_colour = getenv("NO_COLOR");

    return (!no_colour || !*no_colour) && has_colors();
}

static int top_open_screen(struct top *top)
{
    top->screen = newterm(NULL, stdout, stdin);
    if (!top->screen) {
        ctl_usage_error("top", "the terminal '%.40s' (TERM) is not known; --once does without",
                        getenv("TERM") ? getenv("TERM") : "");
        return CTL_USAGE;
    }
    set_term(top->screen);
    cbreak();
    noecho();
    nodelay(stdscr, TRUE);
    keypad(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    top->colours = top_wants_colours();
    if (top->colours && start_color() == OK && use_default_colors() == OK) {
        init_pair(TOP_GOOD, COLOR_GREEN, -1);
        init_pair(TOP_BUSY, COLOR_YELLOW, -1);
        init_pair(TOP_BAD, COLOR_RED, -1);
    } else {
        top->colours = false;
    }
    return CTL_OK;
}

static void top_close_screen(struct top *top)
{
    if (!top->screen)
        return;
    endwin();
    delscreen(top->screen);
    top->screen = NULL;
}

/* The last row that there is need not be on the last line, but the screen is not left empty. */
static void top_limit_scrolling(struct top *top)
{
    size_t rows = top_screen_rows(&top->view), count = top->list.count;
    size_t most = count > rows ? count - rows : 0;

    if (top->view.first > most)
        top->view.first = most;
}

static void top_draw(struct top *top)
{
    const struct top_sink sink = {top_put, top};

    getmaxyx(stdscr, top->view.lines, top->view.columns);
    if (!top->view.paused)
        top->view.now_ms = top_clock_ms(CLOCK_REALTIME);
    top->view.note = *top->note ? top->note : NULL;
    top_limit_scrolling(top);
    erase();
    if (top_screen_draw(&top->view, &sink) == 0)
        refresh();
    top->dirty = false;
    top->draw_ms = top_now_ms() + TOP_DRAW_MS;
}

/* ---- the daemon ---- */

/* "… 12:03:04" */
static void top_note(struct top *top, const char *text, int64_t for_ms)
{
    time_t now = time(NULL);
    struct tm local;
    char clock[16] = "";

    if (localtime_r(&now, &local))
        strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    snprintf(top->note, sizeof(top->note), "%s %s", text, clock);
    top->note_until_ms = for_ms ? top_now_ms() + for_ms : 0;
    top->dirty = true;
}

static void top_lose(struct top *top)
{
    connection_close(top->ctl->connection);
    top->ctl->connection = NULL;
    top->subscribing = top->informing = top->listing = 0;
    top_note(top, "no daemon; what is shown is old, and it is tried again every second, since", 0);
}

/* Sends; a daemon that is gone is noticed by the next reading at the latest. */
static int64_t top_send(struct top *top, const char *method)
{
    int64_t id = connection_send(top->ctl->connection, method, NULL);

    return id > 0 ? id : 0;
}

static void top_subscribe(struct top *top)
{
    top->subscribing = top_send(top, "events.subscribe");
    top->ask_ms = 0;
}

static void top_try_again(struct top *top)
{
    if (connection_open(&top->ctl->connection, top->ctl->socket))
        return;
    top_note(top, "there is a daemon again, since", TOP_NOTE_MS);
    top_subscribe(top);
}

static void top_ask(struct top *top)
{
    int64_t now_ms = top_now_ms();

    if (top->listing || now_ms < top->ask_ms || top->view.paused)
        return;
    top->asked_ms = now_ms;
    top->informing = top_send(top, "daemon.info");
    top->listing = top_send(top, "guard.list");
}

/* The result of a request, once it has come; the caller owns it. An error is no result. */
static json_t *top_result(struct top *top, int64_t *id)
{
    json_t *reply = *id ? connection_reply(top->ctl->connection, *id) : NULL;
    json_t *result = json_incref(json_object_get(reply, "result"));

    if (reply)
        *id = 0;
    json_decref(reply);
    return result;
}

static void top_take_replies(struct top *top)
{
    int64_t now_ms = top_now_ms();
    json_t *result;

    json_decref(top_result(top, &top->subscribing));
    if ((result = top_result(top, &top->informing))) {
        top_list_take_info(&top->list, result);
        json_decref(result);
    }
    if ((result = top_result(top, &top->listing))) {
        if (!top->view.paused)
            top_list_take_sessions(&top->list, result, top_clock_ms(CLOCK_REALTIME));
        int64_t took_ms = now_ms - top->asked_ms, pause_ms = TOP_PATIENCE * took_ms;
        top->ask_ms = now_ms + (pause_ms > TOP_TICK_MS ? pause_ms : TOP_TICK_MS);
        top->dirty = true;
        json_decref(result);
    }
}

static void top_take_in(struct top *top)
{
    json_t *event;
    int error = connection_take_in(top->ctl->connection);

    top_take_replies(top);
    while ((event = connection_event(top->ctl->connection))) {
        if (!top->view.paused) {
            top_list_take_event(&top->list, event);
            top->dirty = true;
        }
        json_decref(event);
    }
    if (error)
        top_lose(top);
}

static void top_tick(struct top *top)
{
    int64_t now_ms = top_now_ms();

    top->tick_ms = now_ms + TOP_TICK_MS;
    top->dirty = true;
    if (*top->note && top->note_until_ms && now_ms >= top->note_until_ms)
        top->note[0] = '\0';
    if (!top->view.paused)
        top_list_expire(&top->list, top_clock_ms(CLOCK_REALTIME));
    if (!top->ctl->connection)
        top_try_again(top);
    if (top->ctl->connection)
        top_ask(top);
}

/* ---- keys ---- */

static void top_scroll(struct top *top, int64_t by)
{
    int64_t first = (int64_t)top->view.first + by;

    top->view.first = first > 0 ? (size_t)first : 0;
}

static void top_take_key(struct top *top, int key)
{
    int64_t page = (int64_t)top_screen_rows(&top->view);

    if (key == 'q' || key == 'Q')
        top->over = true;
    else if (key == 's')
        top->view.order = (enum top_order)((top->view.order + 1) % TOP_ORDERS);
    else if (key == 'p' || key == ' ')
        top->view.paused = !top->view.paused, top->tick_ms = top->ask_ms = 0;
    else if (key == KEY_DOWN || key == KEY_UP)
        top_scroll(top, key == KEY_DOWN ? 1 : -1);
    else if (key == KEY_NPAGE || key == KEY_PPAGE)
        top_scroll(top, key == KEY_NPAGE ? page : -page);
    else if (key == KEY_HOME || key == KEY_END)
        top->view.first = key == KEY_HOME ? 0 : top->list.count;
    else if (key == 'L' - '@') /* Ctrl-L: somebody else has written to the screen */
        clearok(curscr, TRUE);
    top->dirty = true; /* also when the screen has another size (KEY_RESIZE) */
}

/* ---- the loop ---- */

static int top_open_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGQUIT);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    int fd = signalfd(-1, &signals, SFD_CLOEXEC);
    sigemptyset(&signals); /* curses' own handler notes the new size; it is let in while we wait alone */
    sigaddset(&signals, SIGWINCH);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    return fd;
}

static int64_t top_until_next(const struct top *top)
{
    int64_t now_ms = top_now_ms(), next_ms = top->tick_ms;

    if (top->dirty && top->draw_ms < next_ms)
        next_ms = top->draw_ms;
    return next_ms > now_ms ? next_ms - now_ms : 0;
}

static void top_wait(struct top *top)
{
    struct connection *connection = top->ctl->connection;
    struct pollfd fds[3] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = top->signals, .events = POLLIN},
                            {.fd = connection ? connection_fd(connection) : -1,
                             .events = connection ? connection_poll_events(connection) : 0}};
    int64_t wait_ms = top_until_next(top);
    struct timespec wait = {wait_ms / 1000, wait_ms % 1000 * 1000000};
    sigset_t mask;
    int key;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigdelset(&mask, SIGWINCH);
    if (ppoll(fds, 3, &wait, &mask) < 0)
        fds[0].revents = fds[1].revents = fds[2].revents = 0;
    while ((key = getch()) != ERR)
        top_take_key(top, key);
    /* A terminal that is gone has no more keys, and says so for ever. */
    if (fds[1].revents || fds[0].revents & (POLLHUP | POLLERR | POLLNVAL))
        top->over = true;
    if (fds[2].revents)
        top_take_in(top);
}

static int top_run(struct top *top)
{
    top->signals = top_open_signals();
    if (top->signals < 0) {
        return ctl_fail("waiting for signals failed: %s", strerror(errno));
    }
    int status = top_open_screen(top);
    if (!status)
        top_subscribe(top);
    while (!status && !top->over) {
        if (top_now_ms() >= top->tick_ms || (top->list.stale && top_now_ms() >= top->ask_ms)) {
            top->list.stale = false;
            top_tick(top);
        }
        if (top->dirty && top_now_ms() >= top->draw_ms)
            top_draw(top);
        top_wait(top);
    }
    top_close_screen(top);
    close(top->signals);
    return status;
}

/* ---- once ---- */

struct top_paper {
    int line, column;
};

/* Pieces come from left to right and from top to bottom. */
static void top_print(void *context, int line, int column, enum top_style style, const char *text)
{
    struct top_paper *paper = context;
    (void)style;

    for (; paper->line < line; paper->line++, paper->column = 0)
        putchar('\n');
    for (; paper->column < column; paper->column++)
        putchar(' ');
    fputs(text, stdout);
    size_t taken = mbstowcs(NULL, text, 0);
    paper->column += taken == (size_t)-1 ? (int)strlen(text) : (int)taken;
}

static int top_columns_once(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;

    if (columns && atoi(columns) > 0)
        return atoi(columns);
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return TOP_COLUMNS_ONCE;
}

static int top_once(struct top *top)
{
    json_t *info = NULL, *sessions = NULL;
    struct top_paper paper = {0, 0};
    const struct top_sink sink = {top_print, &paper};
    int status = ctl_call(top->ctl, "daemon.info", NULL, &info);

    if (!status)
        status = ctl_call(top->ctl, "guard.list", NULL, &sessions);
    if (!status && top->ctl->json) {
        json_t *both = json_pack("{s:O,s:O}", "daemon", info, "sessions", json_object_get(sessions, "sessions"));
        ctl_print_json(both);
        json_decref(both);
    } else if (!status) {
        top->view.now_ms = top_clock_ms(CLOCK_REALTIME);
        top->view.columns = top_columns_once();
        top_list_take_info(&top->list, info);
        if (top_list_take_sessions(&top->list, sessions, top->view.now_ms) || top_screen_draw(&top->view, &sink))
            status = ctl_fail("out of memory");
        putchar('\n');
    }
    json_decref(info);
    json_decref(sessions);
    return status;
}

int top_command(struct ctl *ctl, int argc, char **argv)
{
    static const struct option names[] = {{"once", no_argument, NULL, 'o'}, {NULL, 0, NULL, 0}};
    struct top top = {.ctl = ctl};
    bool once = ctl->json;
    int name;

    optind = 0;
    while ((name = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        if (name != 'o')
            return CTL_USAGE;
        once = true;
    }
    if (optind < argc)
        return ctl_usage_error("top", "expected no arguments, and not '%s'", argv[optind]);
    if (!once && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)))
        return ctl_usage_error("top", "expected a terminal; --once does without");
    setlocale(LC_CTYPE, "");
    top.view.list = &top.list;
    int status = ctl_connect(ctl);
    if (!status)
        status = once ? top_once(&top) : top_run(&top);
    top_list_free(&top.list);
    return status;
}
