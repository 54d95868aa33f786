/*
 * How a line of the log, or of the audit trail, is built and where it goes. For rt/log.c and those
 * who keep a trail of their own.
 */
#ifndef TR_RT_LOGLINE_H
#define TR_RT_LOGLINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>
#include "rt/log.h"

/* A line is built on the stack, so that logging allocates nothing. What does not fit is cut: a peer
 * must not be able to fill the disk through the length of one field. */
enum { LOG_LINE_MAX = 4096 };

struct log_line {
    char b[LOG_LINE_MAX];
    size_t n;
    bool full; /* something did not fit; nothing more is added */
    bool json;
};

void log_line_begin(struct log_line *l, enum log_format format);
/* With its separator; left out whole if key and a little of the value do not fit. */
void log_line_field(struct log_line *l, const struct log_field *f);
void log_line_end(struct log_line *l); /* with the newline */

/* Where lines go: standard error, or a file that is opened anew when it has been rotated. */
struct log_target {
    /* Changes at most once, from standard error to a descriptor of our own; after that a new file
     * is put in its place with dup3, so no writer ever meets a closed descriptor. */
    _Atomic int fd;
    pthread_mutex_t lock;
};
#define LOG_TARGET_INIT                                                                            \
    {                                                                                              \
        STDERR_FILENO, PTHREAD_MUTEX_INITIALIZER                                                   \
    }

/* In two steps, so that several can be opened before any is changed. First a descriptor for what is
 * at `path` (created 0640; NULL: standard error), or -1. It never waits for whoever is at the other
 * end: a FIFO must have a reader, and what does not fit into it is lost. */
int log_target_prepare(const char *path, struct err *e) TR_MUST_USE;
/* Then put it in place; it is taken over. Any thread. */
void log_target_switch(struct log_target *t, int fd);
/* Or give it up. */
void log_target_discard(int fd);
/* Both. -1: the old target stays. */
int log_target_open(struct log_target *t, const char *path, struct err *e) TR_MUST_USE;

/* All at once where the target takes it, so that lines of different threads stay whole. A full or
 * broken target costs the line, never the caller: -1. */
int log_target_put(struct log_target *t, const struct log_line *l);

#endif
