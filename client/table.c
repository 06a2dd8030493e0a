/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/table.h"

#include <errno.h>
#include <langinfo.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>
#include <wctype.h>

#include <libsmartcols.h>

struct table {
    const struct table_column *columns;
    size_t count, rows, room;
    char **cells; /* rows * count, made harmless */
    bool failed;
};

/* ---- colours ---- */

#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define RED "\033[31m"
#define CYAN "\033[36m"
#define FAINT "\033[2m"
#define PLAIN "\033[0m"

static const struct {
    const char *word, *color;
} table_palette[] = {
    {"held", GREEN},    {"freezing", YELLOW}, {"failed", RED},   {"thawing", CYAN},    {"gone", FAINT},
    {"proceed", GREEN}, {"retry", YELLOW},    {"abort", RED},    {"completed", GREEN}, {"stayed", YELLOW},
    {"lost", RED},      {"watched", CYAN},    {"closing", CYAN}, {"ended", FAINT},     {"cancelled", YELLOW},
    {"paused", YELLOW}, {"shutdown", YELLOW}, {"dying", RED},    {"connected", GREEN}, {"stalled", YELLOW},
};

static bool table_in_color;

void table_set_colors(enum table_colors colors)
{
    const char *no_color = getenv("NO_COLOR"), *terminal = getenv("TERM");

    table_in_color = colors == TABLE_COLORS_ALWAYS ||
                     (colors == TABLE_COLORS_AUTO && isatty(STDOUT_FILENO) && !(no_color && *no_color) && terminal &&
                      *terminal && strcmp(terminal, "dumb") != 0);
}

static const char *table_color(const char *word)
{
    for (size_t i = 0; table_in_color && i < sizeof(table_palette) / sizeof(table_palette[0]); i++)
        if (strcmp(table_palette[i].word, word) == 0)
            return table_palette[i].color;
    return NULL;
}

/* ---- text ---- */

/* Invisible ones that turn what follows around, or hide it. */
static bool table_is_trick(wchar_t c)
{
    return (c >= 0x200B && c <= 0x200F) || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) ||
           c == 0xFEFF || c == 0x061C;
}

static bool table_is_harmless(const char *text, size_t *length)
{
    mbstate_t state = {0};
    wchar_t c;
    size_t got = mbrtowc(&c, text, strlen(text), &state);

    *length = got == (size_t)-1 || got == (size_t)-2 || got == 0 ? 1 : got;
    /* What looks like our own escapes is escaped. */
    return *length == got && iswprint((wint_t)c) && !table_is_trick(c) && strncmp(text, "\\x", 2) != 0;
}

char *table_safe(const char *text)
{
    char *safe = malloc(strlen(text) * 4 + 1), *to = safe;
    size_t length;

    if (!safe)
        return NULL;
    for (; *text; text += length) {
        if (table_is_harmless(text, &length)) {
            memcpy(to, text, length);
            to += length;
            continue;
        }
        for (size_t i = 0; i < length; i++)
            to += sprintf(to, "\\x%02x", (unsigned char)text[i]);
    }
    *to = '\0';
    return safe;
}

void table_put(FILE *to, const char *text)
{
    const char *color = table_color(text);
    char *safe = table_safe(text);

    fprintf(to, "%s%s%s", color ? color : "", safe ? safe : "?", color ? PLAIN : "");
    free(safe);
}

/* How many columns of the terminal the first `bytes` of a harmless text take; stops before going beyond `most`. */
static size_t table_width_of(const char *text, size_t most, size_t *bytes)
{
    const char *at = text;
    size_t width = 0;

    while (*at) {
        mbstate_t state = {0};
        wchar_t c;
        size_t length = mbrtowc(&c, at, strlen(at), &state);
        int columns = length == 0 || length > MB_CUR_MAX ? 1 : wcwidth(c);
        if (width + (size_t)(columns > 0 ? columns : 0) > most)
            break;
        width += (size_t)(columns > 0 ? columns : 0);
        at += length == 0 || length > MB_CUR_MAX ? 1 : length;
    }
    if (bytes)
        *bytes = (size_t)(at - text);
    return width;
}

/* ---- collecting ---- */

struct table *table_new(const struct table_column *columns, size_t count)
{
    struct table *table = calloc(1, sizeof(*table));

    if (table) {
        table->columns = columns;
        table->count = count;
    }
    return table;
}

static bool table_make_room(struct table *table)
{
    size_t room = table->room ? table->room * 2 : 16;

    if (table->rows < table->room)
        return true;
    char **cells = reallocarray(table->cells, room * table->count, sizeof(*cells));
    if (!cells)
        return false;
    table->cells = cells;
    table->room = room;
    return true;
}

void table_add(struct table *table, const char *const *cells)
{
    if (!table || table->failed)
        return;
    if (!table_make_room(table)) {
        table->failed = true;
        return;
    }
    char **row = table->cells + table->rows++ * table->count;
    for (size_t i = 0; i < table->count; i++) {
        row[i] = table_safe(cells[i]);
        table->failed = table->failed || !row[i];
    }
}

static void table_free(struct table *table)
{
    if (!table)
        return;
    for (size_t i = 0; i < table->rows * table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

/* ---- fitting ---- */

/* What the terminal has, or COLUMNS says; 0 = no terminal, nothing is to be cut. */
static size_t table_room(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size = {0};
    char *end;

    if (!isatty(STDOUT_FILENO))
        return 0;
    long said = columns ? strtol(columns, &end, 10) : 0;
    if (said > 0 && said <= INT16_MAX && !*end)
        return (size_t)said;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return 80;
}

static void table_measure(const struct table *table, size_t *widths)
{
    for (size_t i = 0; i < table->count; i++) {
        widths[i] = table->columns[i].heading ? strlen(table->columns[i].heading) : 0;
        for (size_t row = 0; row < table->rows; row++) {
            size_t width = table_width_of(table->cells[row * table->count + i], SIZE_MAX, NULL);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
}

/* The width of all columns that are not left out (width 0), as wide as they are, or as narrow as they may be. */
static size_t table_sum(const struct table *table, const size_t *widths, bool cut)
{
    size_t sum = 0;

    for (size_t i = 0; i < table->count; i++) {
        size_t least = table->columns[i].least;
        size_t width = cut && least && least < widths[i] ? least : widths[i];
        sum += widths[i] ? width + (sum > 0) : 0;
    }
    return sum;
}

static bool table_leave_one_out(const struct table *table, size_t *widths)
{
    size_t spare = table->count;

    for (size_t i = 0; i < table->count; i++)
        if (widths[i] && table->columns[i].spare &&
            (spare == table->count || table->columns[i].spare > table->columns[spare].spare))
            spare = i;
    if (spare == table->count)
        return false;
    widths[spare] = 0;
    return true;
}

static bool table_cut_one(const struct table *table, size_t *widths)
{
    size_t widest = table->count;

    for (size_t i = 0; i < table->count; i++)
        if (table->columns[i].least && widths[i] > table->columns[i].least &&
            (widest == table->count || widths[i] > widths[widest]))
            widest = i;
    if (widest == table->count)
        return false;
    widths[widest]--;
    return true;
}

static void table_fit(const struct table *table, size_t *widths, size_t room)
{
    while (table_sum(table, widths, true) > room && table_leave_one_out(table, widths))
        ;
    while (table_sum(table, widths, false) > room && table_cut_one(table, widths))
        ;
}

/* A copy that is no wider, with a mark where something is missing. */
static char *table_cut(const char *cell, size_t width)
{
    const char *mark = strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? "…" : "~";
    size_t bytes;
    char *cut;

    if (table_width_of(cell, SIZE_MAX, NULL) <= width)
        return strdup(cell);
    table_width_of(cell, width - 1, &bytes);
    return asprintf(&cut, "%.*s%s", (int)bytes, cell, mark) < 0 ? NULL : cut;
}

/* ---- writing ---- */

static int table_fill_columns(const struct table *table, struct libscols_table *out, const size_t *widths)
{
    for (size_t i = 0; i < table->count; i++) {
        const struct table_column *about = &table->columns[i];
        int flags = (about->right ? SCOLS_FL_RIGHT : 0) | (about->wrapped ? SCOLS_FL_WRAP : 0);
        if (widths[i] && !scols_table_new_column(out, about->heading ? about->heading : "", 0, flags))
            return -ENOMEM;
    }
    return 0;
}

static int table_fill_row(const struct table *table, struct libscols_table *out, size_t row, const size_t *widths)
{
    struct libscols_line *line = scols_table_new_line(out, NULL);
    int error = line ? 0 : -ENOMEM;
    size_t to = 0;

    for (size_t i = 0; !error && i < table->count; i++) {
        const char *cell = table->cells[row * table->count + i];
        const char *color = table->columns[i].painted ? table_color(cell) : NULL;
        if (!widths[i])
            continue;
        char *text = table->columns[i].wrapped ? strdup(cell) : table_cut(cell, widths[i]);
        error = text ? scols_line_refer_data(line, to, text) : -ENOMEM;
        if (!error && color)
            error = scols_cell_set_color(scols_line_get_cell(line, to), color);
        to++;
    }
    return error;
}

static int table_write_fitting(const struct table *table, const size_t *widths, size_t room, bool wrapped)
{
    struct libscols_table *out = scols_new_table();
    int error = out ? 0 : -ENOMEM;

    if (!error)
        error = scols_table_enable_noencoding(out, 1); /* done, and with another idea of what is harmless */
    if (!error)
        error = scols_table_enable_noheadings(out, !table->columns[0].heading);
    if (!error)
        error = scols_table_enable_colors(out, table_in_color);
    /* Only to have it wrap: what has been fitted is not to be fitted once more. */
    if (!error)
        error = scols_table_set_termforce(out, room && wrapped ? SCOLS_TERMFORCE_ALWAYS : SCOLS_TERMFORCE_NEVER);
    if (!error && room && wrapped)
        error = scols_table_set_termwidth(out, room);
    if (!error)
        error = table_fill_columns(table, out, widths);
    for (size_t row = 0; !error && row < table->rows; row++)
        error = table_fill_row(table, out, row, widths);
    if (!error)
        error = scols_print_table(out);
    scols_unref_table(out);
    return error;
}

int table_write(struct table *table)
{
    size_t *widths = table && !table->failed ? calloc(table->count, sizeof(*widths)) : NULL;
    size_t room = table_room();
    int error = -ENOMEM;

    if (widths) {
        bool wrapped = table->columns[table->count - 1].wrapped;
        table_measure(table, widths);
        if (room && !wrapped)
            table_fit(table, widths, room);
        error = table_write_fitting(table, widths, room, wrapped);
    }
    free(widths);
    table_free(table);
    return error;
}
