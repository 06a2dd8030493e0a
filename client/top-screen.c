/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/top-screen.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/printable.h"

enum { TOP_CELL = 512, TOP_COLUMNS = 11 };

/* ---- cells: each writes what it has to say, and how it is to look ---- */

static enum top_style cell_domid(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    snprintf(text, TOP_CELL, "%" PRId64, row->domid);
    return TOP_PLAIN;
}

static enum top_style cell_name(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    snprintf(text, TOP_CELL, "%s", row->name);
    return TOP_PLAIN;
}

static enum top_style cell_state(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    snprintf(text, TOP_CELL, "%s%s%s", row->state, *row->phase ? " " : "", row->phase);
    if (strcmp(row->state, "held") == 0)
        return TOP_GOOD;
    if (strcmp(row->state, "failed") == 0)
        return TOP_BAD;
    return strcmp(row->state, "gone") == 0 ? TOP_DIM : TOP_BUSY;
}

static enum top_style cell_age(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    int64_t seconds = top_row_age_ms(row, view->now_ms) / 1000;
    (void)width;

    if (seconds < 3600)
        snprintf(text, TOP_CELL, "%" PRId64 ":%02" PRId64, seconds / 60, seconds % 60);
    else
        snprintf(text, TOP_CELL, "%" PRId64 "h%02" PRId64, seconds / 3600, seconds / 60 % 60);
    return TOP_PLAIN;
}

/* "-" where there is none. At most seven columns up to ten thousand TiB. */
static void cell_write_size(char *text, int64_t kib)
{
    if (kib < 0)
        strcpy(text, "-");
    else if (kib < 10240)
        snprintf(text, TOP_CELL, "%" PRId64 "K", kib);
    else if (kib < 10000LL << 10)
        snprintf(text, TOP_CELL, "%" PRId64 ".%" PRId64 "M", kib >> 10, (kib & 1023) * 10 >> 10);
    else
        snprintf(text, TOP_CELL, "%" PRId64 ".%" PRId64 "G", kib >> 20, (kib & 1048575) * 10 >> 20);
}

static enum top_style cell_size(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    cell_write_size(text, row->tot_kib);
    return strcmp(row->state, "held") == 0 && row->tot_kib != row->baseline_kib ? TOP_BAD : TOP_PLAIN;
}

static enum top_style cell_pin(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    cell_write_size(text, row->pin_kib);
    return TOP_PLAIN;
}

static enum top_style cell_deferred(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    cell_write_size(text, row->deferred_kib);
    return row->deferred_kib < 0 ? TOP_DIM : TOP_BUSY;
}

static int64_t cell_most(int64_t one, int64_t other)
{
    return one > other ? one : other;
}

/* The size as a bar, and the pin as a mark in it, on the scale of the largest figure there is. A gap is never hidden.
 */
static enum top_style cell_bar(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    int64_t whole_kib = cell_most(cell_most(row->tot_kib, row->pin_kib), cell_most(row->wanted_kib, 1));
    int length = width < TOP_CELL ? width : TOP_CELL - 1;
    int64_t mark = cell_most(row->pin_kib, 0) * length / whole_kib;
    int64_t filled = (cell_most(row->tot_kib, 0) * length + whole_kib / 2) / whole_kib;
    (void)view;

    mark = mark < length ? mark : length - 1;
    if (row->tot_kib < row->pin_kib && filled >= mark)
        filled = mark - 1;
    for (int i = 0; i < length; i++)
        text[i] = i < filled ? '#' : '.';
    text[length] = '\0';
    if (row->pin_kib < 0 || length == 0)
        return TOP_DIM;
    text[mark] = '|';
    return TOP_PLAIN;
}

static enum top_style cell_generation(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    if (row->generation < 0)
        strcpy(text, "-");
    else if (row->generation_changes > 0)
        snprintf(text, TOP_CELL, "%" PRId64 "+%" PRId64, row->generation, row->generation_changes);
    else
        snprintf(text, TOP_CELL, "%" PRId64, row->generation);
    return row->generation_changes > 0 ? TOP_BAD : TOP_PLAIN;
}

static enum top_style cell_attempt(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    snprintf(text, TOP_CELL, "%" PRId64 "/%" PRId64, row->attempt, row->attempts);
    return TOP_PLAIN;
}

static enum top_style cell_verdict(const struct top_row *row, const struct top_view *view, int width, char *text)
{
    (void)view, (void)width;
    snprintf(text, TOP_CELL, "%s%s%s", row->verdict, *row->verdict && *row->reason ? " " : "", row->reason);
    if (!*text)
        strcpy(text, "-");
    if (strcmp(row->state, "gone") == 0)
        return TOP_DIM;
    if (strcmp(row->verdict, "proceed") == 0)
        return TOP_GOOD;
    return strcmp(row->verdict, "retry") == 0 ? TOP_BUSY : *row->reason ? TOP_BAD : TOP_DIM;
}

/* ---- columns: where there is no room for all, those of a low rank are taken first ---- */

static const struct top_column {
    const char *title;
    int least, most; /* in columns of the screen */
    int rank;
    bool right;
    enum top_style (*cell)(const struct top_row *row, const struct top_view *view, int width, char *text);
} top_columns[TOP_COLUMNS] = {
    {"DOMID", 5, 5, 2, true, cell_domid},    {"NAME", 8, 32, 0, false, cell_name},
    {"STATE", 8, 17, 1, false, cell_state},  {"AGE", 5, 5, 4, true, cell_age},
    {"SIZE", 7, 7, 5, true, cell_size},      {"PIN", 7, 7, 10, true, cell_pin},
    {"TO PIN", 6, 20, 8, false, cell_bar},   {"GEN", 5, 9, 7, true, cell_generation},
    {"TRY", 5, 5, 9, true, cell_attempt},    {"VERDICT", 19, 30, 3, false, cell_verdict},
    {"DEFER", 7, 7, 6, true, cell_deferred},
};

static int top_total(const int widths[TOP_COLUMNS])
{
    int total = -1;

    for (int i = 0; i < TOP_COLUMNS; i++)
        if (widths[i])
            total += widths[i] + 1;
    return total;
}

/* The column of a rank; each rank has one. */
static int top_find_rank(int rank)
{
    int i = 0;

    while (i + 1 < TOP_COLUMNS && top_columns[i].rank != rank)
        i++;
    return i;
}

/* What is left over goes to those that can use it, one column of the screen at a time. */
static void top_lay_out(int columns, int widths[TOP_COLUMNS])
{
    bool grown = true;

    for (int rank = 0; rank < TOP_COLUMNS; rank++) {
        int i = top_find_rank(rank);
        widths[i] = top_columns[i].least;
        if (rank == 0 && widths[i] > columns) /* the name, as much of it as can be */
            widths[i] = columns > 0 ? columns : 1;
        else if (top_total(widths) > columns)
            widths[i] = 0;
    }
    while (grown) {
        grown = false;
        for (int i = 0; i < TOP_COLUMNS && top_total(widths) < columns; i++) {
            if (!widths[i] || widths[i] >= top_columns[i].most)
                continue;
            widths[i]++;
            grown = true;
        }
    }
}

/* ---- lines ---- */

/* How the lines of the screen are shared out. */
struct top_lines {
    int header, titles, footer;
};

static struct top_lines top_share(const struct top_view *view)
{
    int lines = view->lines;

    if (lines == 0)
        return (struct top_lines){2, 1, 0};
    return (struct top_lines){lines >= 8 ? 2 : lines >= 5 ? 1 : 0, lines >= 3, lines >= 4};
}

size_t top_screen_rows(const struct top_view *view)
{
    struct top_lines share = top_share(view);
    int rows = view->lines - share.header - share.titles - share.footer;

    return rows > 0 ? (size_t)rows : 0;
}

static void top_put_line(const struct top_view *view, const struct top_sink *sink, int line, enum top_style style,
                         const char *text)
{
    char cut[TOP_CELL];
    int width = printable_cut(cut, sizeof(cut), text, view->columns);

    if (style == TOP_TITLE) /* the bar is as wide as the screen */
        for (size_t used = strlen(cut); width < view->columns && used + 1 < sizeof(cut); width++) {
            cut[used++] = ' ';
            cut[used] = '\0';
        }
    sink->put(sink->context, line, 0, style, cut);
}

static void top_put_daemon(const struct top_view *view, const struct top_sink *sink)
{
    const struct top_daemon *daemon = &view->list->daemon;
    int64_t minutes = daemon->uptime_ms / 60000, gap_ms = top_list_longest_gap_ms(view->list);
    bool good = strcmp(daemon->store, "connected") == 0 && gap_ms <= daemon->max_gap_ms;
    char text[TOP_CELL];

    if (view->note && top_share(view).header == 1) {
        top_put_line(view, sink, 0, TOP_BAD, view->note);
        return;
    }
    snprintf(text, sizeof(text),
             "p2mguardd %s, up %" PRId64 "h%02" PRId64 ", store %s, blind %" PRId64 " ms at most (%" PRId64 " allowed)",
             daemon->version, minutes / 60, minutes % 60, *daemon->store ? daemon->store : "?", gap_ms,
             daemon->max_gap_ms);
    top_put_line(view, sink, 0, good ? TOP_PLAIN : TOP_BAD, text);
}

static void top_put_counts(const struct top_view *view, const struct top_sink *sink)
{
    static const char *const states[] = {"held", "freezing", "thawing", "failed"};
    char text[TOP_CELL];
    size_t used = 0;

    if (view->note) {
        top_put_line(view, sink, 1, TOP_BAD, view->note);
        return;
    }
    size_t live = view->list->count - top_list_count(view->list, "gone");
    used += (size_t)snprintf(text, sizeof(text), "%s%zu under guard", view->paused ? "PAUSED  " : "", live);
    for (size_t i = 0; i < 4; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s %zu %s", i ? "," : ":",
                                 top_list_count(view->list, states[i]), states[i]);
    top_put_line(view, sink, 1, TOP_PLAIN, text);
}

static void top_put_cells(const struct top_view *view, const struct top_sink *sink, int line, const int *widths,
                          const struct top_row *row)
{
    int column = 0;

    for (int i = 0; i < TOP_COLUMNS; i++) {
        const struct top_column *kind = &top_columns[i];
        char text[TOP_CELL], cut[TOP_CELL];
        if (!widths[i])
            continue;
        enum top_style style = kind->cell(row, view, widths[i], text);
        int taken = printable_cut(cut, sizeof(cut), text, widths[i]);
        sink->put(sink->context, line, kind->right ? column + widths[i] - taken : column, style, cut);
        column += widths[i] + 1;
    }
}

static void top_put_titles(const struct top_view *view, const struct top_sink *sink, int line, const int *widths)
{
    char text[TOP_CELL] = "";
    size_t used = 0;

    for (int i = 0; i < TOP_COLUMNS; i++)
        if (widths[i])
            used += (size_t)snprintf(text + used, sizeof(text) - used, top_columns[i].right ? "%*.*s " : "%-*.*s ",
                                     widths[i], widths[i], top_columns[i].title);
    top_put_line(view, sink, line, TOP_TITLE, text);
}

/* The keys, as many as there is room for, and which rows are shown. */
static void top_put_footer(const struct top_view *view, const struct top_sink *sink)
{
    size_t rows = top_screen_rows(view), last = view->first + rows;
    char text[TOP_CELL], place[64] = "";

    if (last > view->list->count)
        last = view->list->count;
    if (last - view->first < view->list->count)
        snprintf(place, sizeof(place), "  %zu-%zu of %zu", view->first + 1, last, view->list->count);
    snprintf(text, sizeof(text), "q quit  s sort: %s  p %s  arrows, PgUp, PgDn scroll%s", top_order_name(view->order),
             view->paused ? "go on" : "pause", place);
    top_put_line(view, sink, view->lines - 1, TOP_TITLE, text);
}

int top_screen_draw(const struct top_view *view, const struct top_sink *sink)
{
    const struct top_row **rows = top_list_sort(view->list, view->order);
    struct top_lines share = top_share(view);
    size_t fit = view->lines ? top_screen_rows(view) : view->list->count;
    int widths[TOP_COLUMNS] = {0}, line = share.header;

    if (!rows)
        return -ENOMEM;
    top_lay_out(view->columns, widths);
    if (share.header > 0)
        top_put_daemon(view, sink);
    if (share.header > 1)
        top_put_counts(view, sink);
    if (share.titles)
        top_put_titles(view, sink, line++, widths);
    for (size_t i = view->first; i < view->list->count && i - view->first < fit; i++)
        top_put_cells(view, sink, line++, widths, rows[i]);
    if (share.footer)
        top_put_footer(view, sink);
    free(rows);
    return 0;
}
