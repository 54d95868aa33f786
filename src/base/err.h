/*
 * Errors as values. A function that can fail returns 0 or -1 (or a pointer or NULL) and fills the
 * caller's `struct err` with a code to branch on and a text that can be shown as it is. The text
 * never holds tokens, signatures or log lines.
 */
#ifndef TR_BASE_ERR_H
#define TR_BASE_ERR_H

#include <stdarg.h>
#include "base/attrs.h"

enum err_code {
    ERR_NONE,
    ERR_INVALID,  /* bad input: the caller or the peer must change something */
    ERR_LIMIT,    /* over a limit of ours */
    ERR_FULL,     /* no space: may pass by itself */
    ERR_IO,       /* the operating system or the disk said no */
    ERR_NOTFOUND, /* it is not there */
    ERR_DENIED,   /* not allowed */
    ERR_TIMEOUT,  /* took too long */
    ERR_CLOSED,   /* the other side is gone */
    ERR_UNAVAIL,  /* cannot be reached or used now */
};

struct err {
    enum err_code code;
    char text[248];
};

/* Fill `e` (may be NULL) and return -1. The text is cut at its end if it is too long. */
int err_set(struct err *e, enum err_code code, const char *fmt, ...) TR_PRINTF(3, 4);

/* Like err_set, with ": " and the text of `errnum` added. */
int err_errno(struct err *e, enum err_code code, int errnum, const char *fmt, ...) TR_PRINTF(4, 5);

/* Put "fmt...: " in front of the text that `e` already has; the code stays. Returns -1. */
int err_prefix(struct err *e, const char *fmt, ...) TR_PRINTF(2, 3);

#ifdef __clang_analyzer__ /* it does not see that they return nothing else */
static inline int err_minus_one(int rc)
{
    (void)rc;
    return -1;
}
#ifndef ERR_DEFINES_THEM
#define err_set(...)    err_minus_one(err_set(__VA_ARGS__))
#define err_errno(...)  err_minus_one(err_errno(__VA_ARGS__))
#define err_prefix(...) err_minus_one(err_prefix(__VA_ARGS__))
#endif
#endif

/* The name of a code, for logs and metrics: "invalid", "full", ... */
const char *err_code_name(enum err_code code);

#endif
