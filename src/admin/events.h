/*
 * The command `events`: server-sent events (HTML, "Server-sent events") for the status page and for
 * who likes to watch. Each second, while somebody listens, the command `status` is run once, and
 * its answer goes to all as the event `status`; each tenth second that of `history?last=1` as the
 * event `history`. Who does not read misses events; nothing is queued for him.
 */
#ifndef TR_ADMIN_EVENTS_H
#define TR_ADMIN_EVENTS_H

#include "ev/loop.h"

enum { EVENTS_CLIENTS_MAX = 32 }; /* above: 503. Each costs a connection and a copy a second */

struct events;

/* Registers the command. `loop` is that of the thread which serves commands. */
struct events *events_new(struct ev_loop *loop);
/* Ends what is sent, so that clients look for who serves now. */
void events_free(struct events **e);

#endif
