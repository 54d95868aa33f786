/*
 * Answers as they come, several at a time, with signals and perhaps a keyboard beside them: what
 * `tail` and `top` run on. Belongs to one thread.
 */
#ifndef TR_CTL_LOOP_H
#define TR_CTL_LOOP_H

#include <stdbool.h>
#include "ctl/ctl.h"

struct loop;
struct loop_get;

/* After ctl_reach. SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP and SIGWINCH come from loop_turn from
 * now on. NULL: said. */
struct loop *loop_open(struct ctl *c);
/* Drops what is under way; signals do again what they did before. */
void loop_close(struct loop **l);

struct loop_handler {
    /* A line of the answer, without its end, if that is a success. The last one of a whole answer
     * may have no end. */
    void (*line)(void *ctx, const char *text);
    /* It has ended; `whole`: as it should. `answer`: status, and of a failure its text. It may be
     * started again. */
    void (*end)(void *ctx, const struct ctl_answer *answer, bool whole);
    void (*drop)(void *ctx); /* the loop is closed before that; NULL: nothing is to be freed */
    void *ctx;
};

/* GET. `h` is copied. False: there is no memory for it, and it was dropped. */
bool loop_get(struct loop *l, const char *path, const struct loop_handler *h);

/* Wait for something and see to it, `ms` at most. Returns a signal's number, LOOP_KEY if standard
 * input can be read and `keys`, or 0. */
enum { LOOP_KEY = -1 };
int loop_turn(struct loop *l, bool keys, int ms);

#endif
