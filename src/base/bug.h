/* Assertions. They stay on in production: crash rather than corrupt, never for input. */
#ifndef TR_BASE_BUG_H
#define TR_BASE_BUG_H

#include "base/attrs.h"

#ifdef NDEBUG
#error "assertions are part of the program; build without NDEBUG"
#endif

/* Print the place and the text to standard error and abort. Signal-safe. */
TR_NORETURN TR_COLD void bug_abort(const char *file, int line, const char *what);

/* An invariant of ours. Never used to check what a peer sent. */
#define ASSERT(cond)                                                                               \
    do {                                                                                           \
        if (TR_UNLIKELY(!(cond)))                                                                  \
            bug_abort(__FILE__, __LINE__, #cond);                                                  \
    } while (0)

/* A place that cannot be reached. */
#define BUG(what) bug_abort(__FILE__, __LINE__, what)

/*
 * Objects that travel through `void *` begin with a magic word: OBJ_INIT sets it, OBJ_CHECK
 * asserts it, OBJ_FINI clears it so that a stale pointer is noticed.
 */
#define OBJ_INIT(o, m)  ((o)->magic = (m))
#define OBJ_CHECK(o, m) ASSERT((o) != NULL && (o)->magic == (m))
#define OBJ_FINI(o)     ((o)->magic = 0)

#endif
