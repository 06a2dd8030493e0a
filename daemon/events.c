/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/events.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "daemon/writer.h"

struct events_listener {
    LIST_ENTRY(events_listener) link;
    struct events *events;
    uint64_t next; /* the number it is to get next */
    events_deliver *deliver;
    void *context;
    bool full; /* it had no room; wait for events_resume */
    bool gone; /* unlistened while a delivery was running: freed when that ends */
};

LIST_HEAD(listener_list, events_listener);

enum { ROOM_STEP_BYTES = 256 };

/*
 * An event as text. Its place is used again by the event that comes after it: what is kept for long is not to lie
 * scattered between what others had while it came to be, for it would hold their pages.
 */
struct kept_event {
    char *text;
    size_t room;
    size_t length; /* 0 where memory ran out */
};

struct events {
    struct kept_event *ring; /* event n is in ring[n % keep] */
    size_t keep;
    uint64_t first, next; /* the first one of this program's */
    struct writer made;   /* where one comes to be, before it is kept */
    struct listener_list listeners;
    /*
     * Listeners may emit, resume and unlisten from inside their deliver function. While a delivery runs, those only
     * leave a note here, so that neither the list nor a listener changes under the loop that walks it.
     */
    bool delivering;
    bool again; /* there may be more to deliver for a listener already passed */
};

struct events *events_new(size_t keep)
{
    struct events *events = calloc(1, sizeof *events);

    if (events == NULL)
        return NULL;
    events->keep = keep > 0 ? keep : 1;
    events->first = events->next = 1;
    events->ring = calloc(events->keep, sizeof *events->ring);
    if (events->ring == NULL) {
        free(events);
        return NULL;
    }
    LIST_INIT(&events->listeners);
    return events;
}

void events_free(struct events *events)
{
    struct events_listener *listener;

    if (events == NULL)
        return;
    while ((listener = LIST_FIRST(&events->listeners)) != NULL) {
        LIST_REMOVE(listener, link);
        free(listener);
    }
    for (size_t i = 0; i < events->keep; i++)
        free(events->ring[i].text);
    free(events->ring);
    writer_clear(&events->made);
    free(events);
}

static json_int_t time_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (json_int_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Tells a listener which events left the ring before it got them. Its seq is that of the last one missed: a client
 * that comes back with `from` = last seq + 1 then continues at the right place.
 */
static json_t *event_make_lost(uint64_t from, uint64_t to)
{
    return json_pack("{s:I, s:I, s:s, s:I, s:I}", "seq", (json_int_t)to, "time_ms", time_now_ms(), "type",
                     "events.lost", "from", (json_int_t)from, "to", (json_int_t)to);
}

static bool listener_deliver_lost(struct events_listener *listener)
{
    uint64_t oldest = events_oldest(listener->events);
    json_t *event = event_make_lost(listener->next, oldest - 1);
    char *text = event != NULL ? json_dumps(event, JSON_COMPACT) : NULL;
    bool taken;

    json_decref(event);
    if (text == NULL) {
        listener->next = oldest; /* no memory to say so: the gap in the numbers has to */
        return true;
    }
    taken = listener->deliver(listener->context, text, strlen(text));
    free(text);
    if (taken)
        listener->next = oldest;
    return taken;
}

static bool event_keep(struct kept_event *kept, const struct writer *made)
{
    kept->length = 0;
    if (made->failed)
        return false;
    if (made->used > kept->room) {
        size_t room = (made->used + ROOM_STEP_BYTES - 1) / ROOM_STEP_BYTES * ROOM_STEP_BYTES;
        char *text = realloc(kept->text, room);

        if (text == NULL)
            return false;
        kept->text = text;
        kept->room = room;
    }
    memcpy(kept->text, made->text, made->used);
    kept->length = made->used;
    return true;
}

static bool listener_deliver_next(struct events_listener *listener)
{
    struct events *events = listener->events;
    const struct kept_event *kept = &events->ring[listener->next % events->keep];
    bool taken;

    if (listener->next < events_oldest(events))
        return listener_deliver_lost(listener);
    taken = kept->length == 0 || listener->deliver(listener->context, kept->text, kept->length);
    if (taken)
        listener->next++;
    return taken;
}

static void events_sweep(struct events *events)
{
    struct events_listener *listener = LIST_FIRST(&events->listeners);

    while (listener != NULL) {
        struct events_listener *next = LIST_NEXT(listener, link);

        if (listener->gone) {
            LIST_REMOVE(listener, link);
            free(listener);
        }
        listener = next;
    }
}

static void events_deliver_all(struct events *events)
{
    struct events_listener *listener;

    events->again = true;
    if (events->delivering)
        return;
    events->delivering = true;
    while (events->again) {
        events->again = false;
        LIST_FOREACH(listener, &events->listeners, link)
        {
            while (!listener->gone && !listener->full && listener->next < events->next)
                listener->full = !listener_deliver_next(listener);
        }
    }
    events->delivering = false;
    events_sweep(events);
}

struct writer *events_begin(struct events *events, const char *type)
{
    struct writer *made = &events->made;

    writer_reuse(made);
    writer_begin(made, NULL, '{');
    writer_number(made, "seq", (int64_t)events->next);
    writer_number(made, "time_ms", time_now_ms());
    writer_plain(made, "type", type);
    return made;
}

uint64_t events_end(struct events *events)
{
    uint64_t seq = events->next++;

    writer_end(&events->made, '}');
    bool is_kept = event_keep(&events->ring[seq % events->keep], &events->made);
    events_deliver_all(events);
    return is_kept ? seq : 0;
}

uint64_t events_emit(struct events *events, const char *type, json_t *fields)
{
    static const char *const heads[] = {"seq", "time_ms", "type"};
    struct writer *made = events_begin(events, type);

    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++)
        json_object_del(fields, heads[i]);
    writer_members(made, fields);
    json_decref(fields);
    return events_end(events);
}

uint64_t events_next(const struct events *events)
{
    return events->next;
}

uint64_t events_oldest(const struct events *events)
{
    uint64_t oldest = events->next > events->keep ? events->next - events->keep : 1;

    return oldest > events->first ? oldest : events->first;
}

void events_continue(struct events *events, uint64_t next)
{
    events->first = events->next = next;
}

struct events_listener *events_listen(struct events *events, uint64_t from, events_deliver *deliver, void *context)
{
    struct events_listener *listener = calloc(1, sizeof *listener);

    if (listener == NULL)
        return NULL;
    listener->events = events;
    listener->next = from > 0 ? from : 1;
    listener->deliver = deliver;
    listener->context = context;
    LIST_INSERT_HEAD(&events->listeners, listener, link);
    return listener;
}

void events_resume(struct events_listener *listener)
{
    listener->full = false;
    events_deliver_all(listener->events);
}

void events_unlisten(struct events_listener *listener)
{
    if (listener == NULL)
        return;
    if (listener->events->delivering) {
        listener->gone = true;
        return;
    }
    LIST_REMOVE(listener, link);
    free(listener);
}
