/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happened, numbered: a bounded history of events and those who listen to it.
 *
 * Owns the ring of past events and the list of listeners. Sequence numbers start at 1 and rise by one; nothing is
 * ever re-numbered within a daemon's life. Loop thread only.
 */
#ifndef P2MGUARD_EVENTS_H
#define P2MGUARD_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct events;
struct events_listener;
struct writer;

/*
 * Called for each event in order, which is an object's text, valid until the function emits something; returns false
 * when it has no room, and is called again after events_resume.
 */
typedef bool events_deliver(void *context, const char *event, size_t length);

/* Keeps the last `keep` events. NULL when memory ran out. */
struct events *events_new(size_t keep);

/* Its listeners end with it, whoever has them. Accepts NULL. */
void events_free(struct events *events);

/*
 * Adds an event: `fields` is an object and stolen; seq, time_ms (UNIX time) and type are put into it. Returns its
 * number, 0 when memory ran out (the event is then lost and listeners are told so by the gap).
 */
uint64_t events_emit(struct events *events, const char *type, json_t *fields);

/*
 * The same without a tree: what comes in between writes the event's other members, and emits nothing. The writer is
 * borrowed until the end.
 */
struct writer *events_begin(struct events *events, const char *type);
uint64_t events_end(struct events *events);

/* Before the first event: what an earlier program has told is not told again, and the numbers go on. */
void events_continue(struct events *events, uint64_t next);

/* The number the next event will have, and the oldest one still kept (equal to next when none is). */
uint64_t events_next(const struct events *events);
uint64_t events_oldest(const struct events *events);

/*
 * Starts delivery with event number `from` (older than the oldest kept: from there, and an "events.lost" event
 * {from, to} that exists for this listener alone is delivered first). Delivery happens inside events_emit and
 * events_resume. A listener that lags until its next event has left the ring is told by "events.lost" as well; that
 * event's seq is the number of the last one missed. NULL when memory ran out. A deliver function may call any of these
 * functions; what it emits is delivered once it has returned.
 */
struct events_listener *events_listen(struct events *events, uint64_t from, events_deliver *deliver, void *context);
void events_resume(struct events_listener *listener);

/* Accepts NULL. */
void events_unlisten(struct events_listener *listener);

#endif
