/* A borrowed run of bytes. Owns nothing; need not end in NUL. */
#ifndef TR_BASE_VIEW_H
#define TR_BASE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct view {
    const char *p;
    size_t n;
};

#define VIEW_LIT(s) ((struct view){(s), sizeof(s) - 1})
#define VIEW_NONE   ((struct view){NULL, 0})

static inline struct view view_of(const void *p, size_t n)
{
    return (struct view){(const char *)p, n};
}

static inline struct view view_str(const char *s)
{
    return (struct view){s, s ? strlen(s) : 0};
}

static inline bool view_eq(struct view a, struct view b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static inline bool view_is(struct view a, const char *s)
{
    return view_eq(a, view_str(s));
}

/* Equal but for ASCII letter case. */
static inline bool view_ieq(struct view a, struct view b)
{
    return a.n == b.n && (a.n == 0 || strncasecmp(a.p, b.p, a.n) == 0);
}

static inline bool view_starts(struct view a, struct view prefix)
{
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

static inline bool view_ends(struct view a, struct view suffix)
{
    return a.n >= suffix.n &&
           (suffix.n == 0 || memcmp(a.p + a.n - suffix.n, suffix.p, suffix.n) == 0);
}

/* From offset `from` (at most a.n) to the end. (C allows no arithmetic with NULL, not even + 0.) */
static inline struct view view_from(struct view a, size_t from)
{
    return (struct view){from ? a.p + from : a.p, a.n - from};
}

#endif
