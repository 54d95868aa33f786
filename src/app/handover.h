/*
 * Handing over: a new process gets our listening descriptors and the spool, we keep the connections
 * that are open until they end. The old process's side; the other is takeover.h. What they say to
 * one another is in passing.h; this is the order:
 *
 *   new                          old
 *   HELLO                   ->
 *                           <-   OFFER, LISTENERS..., OFFERED
 *   READY (listeners that it     begins no delivery, waits for those under way (5 s, then they are
 *   has no use for)         ->   given up: their outcome is unknown); accepts nothing, waits for
 *                                the calls in hand (3 s, then everything goes on for 2 s and it is
 *                                tried again, for drain.limit: an upload that is under way is never
 *                                cut off); closes the spool
 *                           <-   RELEASED
 *   opens the spool, accepts
 *   SERVING                 ->   is left with its connections
 *                           <-   CONNECTION...: exchanges on these that are for the new one
 *
 * Until RELEASED whatever goes wrong (the other end is gone, FAILED, a time that is over) leaves
 * the old process as it was. Afterwards it has no spool; if the new one is gone before SERVING it
 * starts its own program again, with the configuration it has, and hands over to that.
 *
 * All for the main thread.
 */
#ifndef TR_APP_HANDOVER_H
#define TR_APP_HANDOVER_H

#include <stdbool.h>
#include "base/err.h"

struct gateway;
struct handover;

struct handover *handover_new(struct gateway *g);
void handover_free(struct handover **h);

/* A new process asks for it over this socket, which is taken over. One at a time. */
void handover_begin(struct handover *h, int fd);

/* Start our program anew, from its path (which may hold another version by now), to take over. 0:
 * it has been started; whether it succeeds the log says, and a process that serves. -1: it cannot
 * be, as `e` and the log say. */
int handover_spawn(struct handover *h, struct err *e);
/* Has a handover begun that is not over yet? */
bool handover_under_way(const struct handover *h);

/* Has the spool been given away, and nothing but open connections is left? */
bool handover_left(const struct handover *h);

/* With handover_left: end what is open, spread over half of drain.limit; the second time at once,
 * and the first time, too, if a supervisor waits for that to start another main process. */
void handover_hurry(struct handover *h);

/* Begun and not left yet: call it off (drain, say). */
void handover_call_off(struct handover *h, const char *why);

#endif
