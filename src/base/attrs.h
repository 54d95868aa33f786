/* Compiler attributes and small macros that every layer uses. */
#ifndef TR_BASE_ATTRS_H
#define TR_BASE_ATTRS_H

#include <stddef.h>

#define TR_PRINTF(fmt, args)  __attribute__((format(printf, fmt, args)))
#define TR_MUST_USE           __attribute__((warn_unused_result))
#define TR_NORETURN           __attribute__((noreturn))
#define TR_COLD               __attribute__((cold))
#define TR_UNUSED             __attribute__((unused))
#define TR_LIKELY(x)          __builtin_expect(!!(x), 1)
#define TR_UNLIKELY(x)        __builtin_expect(!!(x), 0)

#define ARRAY_LEN(a)          (sizeof(a) / sizeof((a)[0]))

/* The struct of type `type` whose member `member` is at `ptr`. */
#define container_of(ptr, type, member)                                                            \
    ((type *)(void *)((char *)(ptr) - offsetof(type, member)))

#define TR_MIN(a, b)          ((a) < (b) ? (a) : (b))
#define TR_MAX(a, b)          ((a) > (b) ? (a) : (b))

#endif
