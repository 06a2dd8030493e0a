/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/timeline-svg.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- where things are, in pixels ---- */

enum {
    SVG_WIDTH = 960,
    SVG_LEFT = 92,
    SVG_RIGHT = 936,
    SVG_PLOT_TOP = 78,
    SVG_STRIP = 18, /* the names of phases, at the plot's top */
    SVG_PLOT_BOTTOM = 360,
    SVG_LANE = 24,
    SVG_LEGEND_ROW = 22,
    SVG_TITLE_MOST = 30 /* characters of a domain's name */
};

/* The widest of the usual sans serif fonts, DejaVu Sans, takes so many tenths of a pixel for a character of 11 px. */
#define SVG_CHARACTER 68

/* What is beyond is drawn there: 31 years, and a million times the memory that a host can have. */
#define SVG_LASTED_MOST INT64_C(1000000000000)
#define SVG_KIB_MOST (INT64_C(1) << 56)

struct svg {
    FILE *out;
    const json_t *history;
    int64_t lasted_ms;
    double low_kib, high_kib;
    int64_t unit_kib, step_kib; /* of the axis */
    int bottom;                 /* of the last lane */
};

static int64_t svg_integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *svg_string(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

/* ---- writing ---- */

/* Without printf's %f, which writes what the locale calls a point. */
static void svg_put(struct svg *svg, const char *before, double number)
{
    long tenths = lround(number * 10);

    fprintf(svg->out, "%s%s%ld.%ld", before, tenths < 0 ? "-" : "", labs(tenths) / 10, labs(tenths) % 10);
}

/* Control characters, and those that turn the direction of what follows, have no place in a picture. */
static bool svg_is_harmless(unsigned point)
{
    return point >= 0x20 && !(point >= 0x7f && point < 0xa0) && !(point >= 0x200b && point <= 0x200f) &&
           !(point >= 0x2028 && point <= 0x202e) && !(point >= 0x2060 && point <= 0x2069) && point != 0xfeff &&
           point < 0xfff0;
}

/* The character there, and how many bytes it takes. What is no UTF-8, or too long for 16 bits, is harmful. */
static unsigned svg_point(const char *text, size_t *length)
{
    const unsigned char *bytes = (const unsigned char *)text;

    *length = 1;
    if (bytes[0] < 0x80)
        return bytes[0];
    if ((bytes[0] & 0xe0) == 0xc0 && (bytes[1] & 0xc0) == 0x80) {
        *length = 2;
        return (bytes[0] & 0x1fU) << 6 | (bytes[1] & 0x3fU);
    }
    if ((bytes[0] & 0xf0) == 0xe0 && (bytes[1] & 0xc0) == 0x80 && (bytes[2] & 0xc0) == 0x80) {
        *length = 3;
        return (bytes[0] & 0x0fU) << 12 | (bytes[1] & 0x3fU) << 6 | (bytes[2] & 0x3fU);
    }
    while ((bytes[*length] & 0xc0) == 0x80)
        ++*length;
    return 0;
}

/* At most so many characters, escaped. */
static void svg_escape(struct svg *svg, const char *text, int most)
{
    size_t length;

    for (; *text && most > 0; text += length, most--) {
        unsigned point = svg_point(text, &length);
        if (!svg_is_harmless(point))
            fputc('?', svg->out);
        else if (strchr("&<>\"'", (int)point) && point < 0x80)
            fprintf(svg->out, "&#%u;", point);
        else
            fwrite(text, 1, length, svg->out);
    }
    if (*text)
        fputs("\xe2\x80\xa6", svg->out);
}

static void svg_text(struct svg *svg, double x, double y, const char *attributes, const char *text)
{
    svg_put(svg, "<text x=\"", x);
    svg_put(svg, "\" y=\"", y);
    fprintf(svg->out, "\" %s>", attributes);
    svg_escape(svg, text, 200);
    fputs("</text>\n", svg->out);
}

static double svg_text_width(const char *text)
{
    return (double)strlen(text) * SVG_CHARACTER / 10.0;
}

static void svg_rectangle(struct svg *svg, double left, double top, double right, double bottom, const char *attributes)
{
    svg_put(svg, "<rect x=\"", left);
    svg_put(svg, "\" y=\"", top);
    svg_put(svg, "\" width=\"", right - left);
    svg_put(svg, "\" height=\"", bottom - top);
    fprintf(svg->out, "\" %s/>\n", attributes);
}

static void svg_line(struct svg *svg, double x1, double y1, double x2, double y2, const char *attributes)
{
    svg_put(svg, "<line x1=\"", x1);
    svg_put(svg, "\" y1=\"", y1);
    svg_put(svg, "\" x2=\"", x2);
    svg_put(svg, "\" y2=\"", y2);
    fprintf(svg->out, "\" %s/>\n", attributes);
}

static const char *svg_duration(char text[32], int64_t ms)
{
    if (ms < 1000)
        snprintf(text, 32, "%" PRId64 " ms", ms);
    else if (ms < 10000)
        snprintf(text, 32, "%" PRId64 ".%02" PRId64 " s", ms / 1000, ms % 1000 / 10);
    else if (ms < 180000)
        snprintf(text, 32, "%" PRId64 ".%" PRId64 " s", ms / 1000, ms % 1000 / 100);
    else
        snprintf(text, 32, "%" PRId64 " min", ms / 60000);
    return text;
}

/* ---- scales ---- */

static double svg_x(const struct svg *svg, int64_t at_ms)
{
    if (at_ms > svg->lasted_ms)
        at_ms = svg->lasted_ms;
    if (at_ms < 0)
        at_ms = 0;
    return SVG_LEFT + (double)at_ms / (double)svg->lasted_ms * (SVG_RIGHT - SVG_LEFT);
}

/* The two numbers of a sample. */
static int64_t svg_at_ms(const json_t *sample)
{
    return json_integer_value(json_array_get(sample, 0));
}

static double svg_kib(const json_t *sample)
{
    int64_t kib = json_integer_value(json_array_get(sample, 1));

    return kib < 0 ? 0 : kib < SVG_KIB_MOST ? (double)kib : (double)SVG_KIB_MOST;
}

static double svg_y(const struct svg *svg, double kib)
{
    double height = SVG_PLOT_BOTTOM - SVG_PLOT_TOP - SVG_STRIP;

    return SVG_PLOT_BOTTOM - (kib - svg->low_kib) / (svg->high_kib - svg->low_kib) * height;
}

/* 1, 2 or 5 times a power of ten: the least of them that makes no more than `most` steps of a range. */
static int64_t svg_round_step(double range, int most)
{
    static const int64_t firsts[] = {1, 2, 5};

    for (int64_t power = 1; power < INT64_MAX / 10; power *= 10)
        for (size_t i = 0; i < 3; i++)
            if ((double)(firsts[i] * power) * most >= range)
                return firsts[i] * power;
    return INT64_MAX / 10;
}

static const char *const svg_sizes[] = {"tot_kib", "wanted_target_kib", "pin_kib"};

/* Room above and below what there is to be shown, and at least 64 KiB of it. */
static void svg_scale_sizes(struct svg *svg)
{
    double low = INFINITY, high = -INFINITY;
    const json_t *sample;
    size_t index;

    for (size_t i = 0; i < 3; i++) {
        json_array_foreach(json_object_get(svg->history, svg_sizes[i]), index, sample)
        {
            double kib = svg_kib(sample);
            low = fmin(low, kib);
            high = fmax(high, kib);
        }
    }
    if (low > high)
        low = high = 0;
    double room = fmax((high - low) * 0.1, 32);
    svg->low_kib = fmax(low - room, 0);
    svg->high_kib = high + room;
    double range = svg->high_kib - svg->low_kib;
    svg->unit_kib = range < 4096 ? 1 : range < 8388608 ? 1024 : 1048576;
    svg->step_kib = svg_round_step(range / (double)svg->unit_kib, 6) * svg->unit_kib;
}

/* ---- phases ---- */

static const struct svg_phase {
    const char *name, *fill, *strip;
} svg_phases[] = {
    {"gating", "#ece9f5", "#cfc8e6"},   {"pinning", "#e4eef8", "#bcd5ec"},  {"agent", "#f3ebe2", "#dfc9ae"},
    {"settling", "#e3f3f4", "#b4dde0"}, {"baseline", "#f5e8f1", "#e3bfd7"}, {"held", "#eaf4e4", "#c5e0b4"},
    {"backoff", "#fbf3d9", "#f0dd9b"},  {"thawing", "#f0f0f0", "#d2d2d2"},
};

#define SVG_PHASES (sizeof(svg_phases) / sizeof(svg_phases[0]))

static const struct svg_phase *svg_find_phase(const char *name)
{
    for (size_t i = 0; i < SVG_PHASES; i++)
        if (strcmp(svg_phases[i].name, name) == 0)
            return &svg_phases[i];
    return NULL;
}

static void svg_draw_phase(struct svg *svg, const struct svg_phase *phase, double left, double right)
{
    char attributes[64];

    snprintf(attributes, sizeof(attributes), "fill=\"%s\"", phase->fill);
    svg_rectangle(svg, left, SVG_PLOT_TOP + SVG_STRIP, right, svg->bottom, attributes);
    snprintf(attributes, sizeof(attributes), "fill=\"%s\"", phase->strip);
    svg_rectangle(svg, left, SVG_PLOT_TOP, right, SVG_PLOT_TOP + SVG_STRIP, attributes);
    if (svg_text_width(phase->name) + 6 <= right - left)
        svg_text(svg, (left + right) / 2, SVG_PLOT_TOP + 13, "class=\"small\" text-anchor=\"middle\"", phase->name);
}

static void svg_draw_phases(struct svg *svg)
{
    const json_t *phases = json_object_get(svg->history, "phases"), *entry;
    size_t index;

    json_array_foreach(phases, index, entry)
    {
        const struct svg_phase *phase = svg_find_phase(svg_string(entry, "phase"));
        const json_t *next = json_array_get(phases, index + 1);
        if (phase)
            svg_draw_phase(svg, phase, svg_x(svg, svg_integer(entry, "at_ms")),
                           next ? svg_x(svg, svg_integer(next, "at_ms")) : SVG_RIGHT);
    }
}

/* ---- axes ---- */

static void svg_draw_sizes_axis(struct svg *svg)
{
    const char *unit = svg->unit_kib == 1 ? "KiB" : svg->unit_kib == 1024 ? "MiB" : "GiB";
    int64_t first = (int64_t)ceil(svg->low_kib / (double)svg->step_kib) * svg->step_kib;
    char text[32];

    for (int64_t kib = first; (double)kib <= svg->high_kib; kib += svg->step_kib) {
        double y = svg_y(svg, (double)kib);
        svg_line(svg, SVG_LEFT, y, SVG_RIGHT, y, "class=\"grid\"");
        snprintf(text, sizeof(text), "%" PRId64, kib / svg->unit_kib);
        svg_text(svg, SVG_LEFT - 8, y + 4, "class=\"small\" text-anchor=\"end\"", text);
    }
    svg_text(svg, SVG_LEFT - 8, SVG_PLOT_TOP + 13, "class=\"small\" text-anchor=\"end\" font-weight=\"bold\"", unit);
}

static void svg_draw_time_axis(struct svg *svg)
{
    int64_t unit_ms = svg->lasted_ms < 2000 ? 1 : svg->lasted_ms < 300000 ? 1000 : 60000;
    const char *unit = unit_ms == 1 ? "milliseconds" : unit_ms == 1000 ? "seconds" : "minutes";
    int64_t tenths = 10; /* of the unit: a few seconds have ticks between them */
    int64_t step = svg_round_step((double)svg->lasted_ms / (double)unit_ms * (double)tenths, 10);
    char text[48];

    if (unit_ms == 1)
        step = (step + 9) / 10 * 10;
    for (int64_t at = 0; at * unit_ms / tenths <= svg->lasted_ms; at += step) {
        double x = svg_x(svg, at * unit_ms / tenths);
        svg_line(svg, x, SVG_PLOT_TOP + SVG_STRIP, x, svg->bottom + 4, "class=\"grid\"");
        if (step % tenths)
            snprintf(text, sizeof(text), "%" PRId64 ".%" PRId64, at / tenths, at % tenths);
        else
            snprintf(text, sizeof(text), "%" PRId64, at / tenths);
        svg_text(svg, x, svg->bottom + 17, "class=\"small\" text-anchor=\"middle\"", text);
    }
    snprintf(text, sizeof(text), "%s since the session began", unit);
    svg_text(svg, (SVG_LEFT + SVG_RIGHT) / 2.0, svg->bottom + 33, "class=\"small\" text-anchor=\"middle\"", text);
}

/* ---- figures ---- */

static void svg_draw_figure(struct svg *svg, const char *key, const char *class)
{
    const json_t *samples = json_object_get(svg->history, key), *sample;
    size_t index;

    if (json_array_size(samples) == 0)
        return;
    fprintf(svg->out, "<path class=\"%s\" d=\"", class);
    json_array_foreach(samples, index, sample)
    {
        double x = svg_x(svg, svg_at_ms(sample));
        double y = svg_y(svg, svg_kib(sample));
        svg_put(svg, index ? "H" : "M", x);
        svg_put(svg, index ? "V" : " ", y);
    }
    svg_put(svg, "H", SVG_RIGHT);
    fputs("\"/>\n", svg->out);
}

/* ---- lanes: what happened, below the plot ---- */

static void svg_draw_lane(struct svg *svg, int top, int bottom, const char *name)
{
    svg_line(svg, SVG_LEFT, top, SVG_RIGHT, top, "class=\"lane\"");
    svg_text(svg, SVG_LEFT - 8, (top + bottom) / 2.0 + 4, "class=\"small\" text-anchor=\"end\"", name);
}

static void svg_title(struct svg *svg, const json_t *event, const char *text)
{
    fprintf(svg->out, "<title>%" PRId64 " ms: ", svg_integer(event, "at_ms"));
    svg_escape(svg, text, 200);
    if (svg_integer(event, "count") > 1)
        fprintf(svg->out, ", %" PRId64 " times since %" PRId64 " ms", svg_integer(event, "count"),
                svg_integer(event, "since_ms"));
    fputs("</title>", svg->out);
}

/* A shape around 0, 0, moved to where it belongs. */
static void svg_draw_mark(struct svg *svg, double x, double y, const char *shape, const json_t *event, const char *text)
{
    svg_put(svg, "<g transform=\"translate(", x);
    svg_put(svg, ",", y);
    fputs(")\">", svg->out);
    svg_title(svg, event, text);
    fprintf(svg->out, "%s</g>\n", shape);
}

#define SVG_WISH "<path class=\"wish\" d=\"M-5 -4H5L0 5Z\"/>"

static const struct svg_verdict {
    const char *name, *shape;
} svg_verdicts[] = {
    {"proceed", "<circle r=\"6.5\" fill=\"#00855f\"/><path d=\"M-3 0L-1 2.5L3.2 -2.5\" class=\"inside\"/>"},
    {"retry", "<path d=\"M0 -8L8 0L0 8L-8 0Z\" fill=\"#e69f00\"/><path d=\"M0 -4V1M0 3V4\" class=\"inside\"/>"},
    {"abort", "<rect x=\"-6\" y=\"-6\" width=\"12\" height=\"12\" fill=\"#b3261e\"/>"
              "<path d=\"M-3 -3L3 3M3 -3L-3 3\" class=\"inside\"/>"},
};

#define SVG_VERDICTS (sizeof(svg_verdicts) / sizeof(svg_verdicts[0]))

static const struct svg_verdict *svg_find_verdict(const char *name)
{
    for (size_t i = 0; i < SVG_VERDICTS; i++)
        if (strcmp(svg_verdicts[i].name, name) == 0)
            return &svg_verdicts[i];
    return NULL;
}

static bool svg_has_event(const struct svg *svg, const char *type)
{
    const json_t *event;
    size_t index;

    json_array_foreach(json_object_get(svg->history, "events"), index,
                       event) if (strcmp(svg_string(event, "type"), type) == 0) return true;
    return false;
}

static void svg_draw_wishes(struct svg *svg, int top)
{
    const json_t *event;
    size_t index;
    char text[64];

    svg_draw_lane(svg, top, top + SVG_LANE, "deferred");
    json_array_foreach(json_object_get(svg->history, "events"), index, event)
    {
        if (strcmp(svg_string(event, "type"), "target.deferred") != 0)
            continue;
        snprintf(text, sizeof(text), "target of %" PRId64 " KiB deferred", svg_integer(event, "target_kib"));
        svg_draw_mark(svg, svg_x(svg, svg_integer(event, "at_ms")), top + SVG_LANE / 2.0, SVG_WISH, event, text);
    }
}

/* Each change as a line, and its number where there is room before the next one. */
static void svg_draw_generation(struct svg *svg, int top)
{
    const json_t *samples = json_object_get(svg->history, "generation"), *sample;
    size_t index;
    char text[32];

    svg_draw_lane(svg, top, top + SVG_LANE, "generation");
    json_array_foreach(samples, index, sample)
    {
        double x = svg_x(svg, svg_at_ms(sample));
        svg_line(svg, x, top + 4, x, top + SVG_LANE - 4, "class=\"generation\"");
        snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(sample, 1)));
        const json_t *next = json_array_get(samples, index + 1);
        double room = (next ? svg_x(svg, svg_at_ms(next)) : SVG_RIGHT) - x;
        if (room > svg_text_width(text) + 8)
            svg_text(svg, x + 4, top + 16, "class=\"small\"", text);
    }
}

/* The verdict that an event tells of, and its words; NULL where it tells of none. */
static const struct svg_verdict *svg_read_verdict(const json_t *event, char text[96])
{
    const struct svg_verdict *verdict = svg_find_verdict(svg_string(event, "verdict"));

    if (strcmp(svg_string(event, "type"), "session.verdict") != 0 || !verdict)
        return NULL;
    snprintf(text, 96, "%s: %s", verdict->name, svg_string(event, "reason"));
    return verdict;
}

/* Words that begin below their mark, and end before `limit`; where the next ones may end, then. */
static double svg_draw_words(struct svg *svg, double x, double y, const char *text, double limit)
{
    double width = svg_text_width(text), left = x - 6;

    if (left + width > SVG_RIGHT - 4)
        left = SVG_RIGHT - 4 - width;
    if (left + width > limit)
        return limit;
    svg_text(svg, left, y, "class=\"small\"", text);
    return left - 8;
}

/* The words of the last one have their room first: it is what the rest led to. */
static void svg_draw_verdicts(struct svg *svg, int top)
{
    const json_t *events = json_object_get(svg->history, "events"), *event;
    const struct svg_verdict *verdict;
    double limit = SVG_RIGHT;
    char text[96];
    size_t index;

    svg_draw_lane(svg, top, top + 2 * SVG_LANE, "verdicts");
    json_array_foreach(events, index, event)
    {
        if ((verdict = svg_read_verdict(event, text)))
            svg_draw_mark(svg, svg_x(svg, svg_integer(event, "at_ms")), top + SVG_LANE / 2.0, verdict->shape, event,
                          text);
    }
    while (index-- > 0) {
        event = json_array_get(events, index);
        if (svg_read_verdict(event, text))
            limit = svg_draw_words(svg, svg_x(svg, svg_integer(event, "at_ms")), top + SVG_LANE + 14, text, limit);
    }
}

/* ---- title and legend ---- */

static void svg_draw_title(struct svg *svg)
{
    time_t seconds = (time_t)(svg_integer(svg->history, "begun_ms") / 1000);
    const char *state = svg_string(svg->history, "state"), *reason = svg_string(svg->history, "reason");
    const char *outcome = svg_string(svg->history, "outcome");
    char text[256], clock[48], lasted[32];
    struct tm utc;

    fprintf(svg->out, "<text x=\"%d\" y=\"30\" class=\"title\">", SVG_LEFT);
    svg_escape(svg, svg_string(svg->history, "name"), SVG_TITLE_MOST);
    bool over = strcmp(state, "gone") == 0;
    fprintf(svg->out, " (domain %" PRId64 "): ", svg_integer(svg->history, "domid"));
    svg_escape(svg, !over ? state : strcmp(outcome, "unknown") == 0 ? reason : outcome, 40);
    fputs("</text>\n", svg->out);

    if (!gmtime_r(&seconds, &utc) || strftime(clock, sizeof(clock), "%Y-%m-%d %H:%M:%S UTC", &utc) == 0)
        strcpy(clock, "?");
    snprintf(text, sizeof(text), "session %.40s, begun %s, %s %s, attempt %" PRId64 "%s",
             svg_string(svg->history, "session"), clock, over ? "lasted" : "has lasted",
             svg_duration(lasted, svg_integer(svg->history, "lasted_ms")), svg_integer(svg->history, "attempt"),
             json_is_true(json_object_get(svg->history, "thinned")) ? "; thinned, there was too much" : "");
    svg_text(svg, SVG_LEFT, 52, "class=\"subtitle\"", text);
}

/* Draws a sample with its name behind it; the place of the next one. */
static double svg_draw_entry(struct svg *svg, double x, double y, const char *sample, const char *name)
{
    svg_put(svg, "<g transform=\"translate(", x);
    svg_put(svg, ",", y);
    fprintf(svg->out, ")\">%s</g>\n", sample);
    svg_text(svg, x + 24, y + 4, "class=\"small\"", name);
    return x + 24 + svg_text_width(name) + 14;
}

static void svg_draw_legend(struct svg *svg, int top)
{
    double x = SVG_LEFT - 68, y = top;
    char sample[96], text[64], spent[32];
    const json_t *all = json_object_get(svg->history, "spent_ms");

    x = svg_draw_entry(svg, x, y, "<path class=\"wanted\" d=\"M0 0H18\"/>", "target asked for");
    x = svg_draw_entry(svg, x, y, "<path class=\"pin\" d=\"M0 0H18\"/>", "pin");
    x = svg_draw_entry(svg, x, y, "<path class=\"tot\" d=\"M0 0H18\"/>", "tot_pages");
    x = svg_draw_entry(svg, x, y, "<g transform=\"translate(9,0)\">" SVG_WISH "</g>", "target deferred");
    for (size_t i = 0; i < SVG_VERDICTS; i++) {
        svg_put(svg, "<g transform=\"translate(", x + 9);
        svg_put(svg, ",", y);
        fprintf(svg->out, ")\">%s</g>\n", svg_verdicts[i].shape);
        svg_text(svg, x + 22, y + 4, "class=\"small\"", svg_verdicts[i].name);
        x += 22 + svg_text_width(svg_verdicts[i].name) + 14;
    }
    x = SVG_LEFT - 68;
    y += SVG_LEGEND_ROW;
    for (size_t i = 0; i < SVG_PHASES; i++) {
        int64_t spent_ms = svg_integer(all, svg_phases[i].name);
        if (spent_ms == 0)
            continue;
        snprintf(text, sizeof(text), "%s %s", svg_phases[i].name, svg_duration(spent, spent_ms));
        if (x + 24 + svg_text_width(text) > SVG_RIGHT) {
            x = SVG_LEFT - 68;
            y += SVG_LEGEND_ROW;
        }
        snprintf(sample, sizeof(sample), "<rect y=\"-6\" width=\"18\" height=\"12\" fill=\"%s\"/>",
                 svg_phases[i].strip);
        x = svg_draw_entry(svg, x, y, sample, text);
    }
}

static const char svg_style[] =
    "<style>text{font-family:\"DejaVu Sans\",Verdana,sans-serif;fill:#222}.title{font-size:16px;font-weight:bold}"
    ".subtitle{font-size:12px;fill:#555}.small{font-size:11px}.grid{stroke:#000;stroke-opacity:.12}"
    ".lane{stroke:#888;stroke-opacity:.5}.frame{fill:none;stroke:#888}"
    ".tot{fill:none;stroke:#8a8a8a;stroke-width:5;stroke-opacity:.75;stroke-linejoin:round}"
    ".pin{fill:none;stroke:#0060a8;stroke-width:2}"
    ".wanted{fill:none;stroke:#c04a00;stroke-width:2;stroke-dasharray:7 4}.wish{fill:#c04a00}"
    ".generation{stroke:#6a1b9a;stroke-width:2}.inside{fill:none;stroke:#fff;stroke-width:1.8}</style>\n";

static void svg_draw(struct svg *svg)
{
    bool wishes = svg_has_event(svg, "target.deferred"), verdicts = svg_has_event(svg, "session.verdict");
    bool generation = json_array_size(json_object_get(svg->history, "generation")) > 0;
    int lane = SVG_PLOT_BOTTOM;

    svg->bottom = lane + (wishes + generation + 2 * verdicts) * SVG_LANE;
    int height = svg->bottom + 58 + 2 * SVG_LEGEND_ROW + SVG_LEGEND_ROW / 2;
    fprintf(svg->out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n%s"
            "<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#fff\"/>\n",
            SVG_WIDTH, height, SVG_WIDTH, height, svg_style, SVG_WIDTH, height);
    svg_draw_title(svg);
    svg_draw_phases(svg);
    svg_draw_sizes_axis(svg);
    svg_draw_time_axis(svg);
    svg_draw_figure(svg, "tot_kib", "tot");
    svg_draw_figure(svg, "pin_kib", "pin");
    svg_draw_figure(svg, "wanted_target_kib", "wanted");
    if (wishes)
        svg_draw_wishes(svg, lane);
    lane += wishes * SVG_LANE;
    if (generation)
        svg_draw_generation(svg, lane);
    lane += generation * SVG_LANE;
    if (verdicts)
        svg_draw_verdicts(svg, lane);
    svg_rectangle(svg, SVG_LEFT, SVG_PLOT_TOP, SVG_RIGHT, svg->bottom, "class=\"frame\"");
    svg_draw_legend(svg, svg->bottom + 58);
    fputs("</svg>\n", svg->out);
}

char *timeline_svg(const json_t *history)
{
    struct svg svg = {.history = history, .lasted_ms = svg_integer(history, "lasted_ms")};
    size_t size = 0;
    char *text = NULL;

    svg.out = open_memstream(&text, &size);
    if (!svg.out)
        return NULL;
    if (svg.lasted_ms < 1)
        svg.lasted_ms = 1;
    if (svg.lasted_ms > SVG_LASTED_MOST)
        svg.lasted_ms = SVG_LASTED_MOST;
    svg_scale_sizes(&svg);
    svg_draw(&svg);
    bool failed = ferror(svg.out);
    if (fclose(svg.out) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}
