/* A growing string of bytes, always followed by a NUL that does not count. */
#ifndef TR_BASE_STR_H
#define TR_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include "base/attrs.h"
#include "base/view.h"

struct str {
    char *p; /* NULL until something is added */
    size_t n;
    size_t cap;
};

#define STR_INIT ((struct str){NULL, 0, 0})

void str_fini(struct str *s); /* frees; the string is empty and usable again */
/* str_fini for secrets: all of its memory is overwritten first. One that grew has left copies of
 * its beginning behind: reserve what a secret needs before adding it. */
void str_wipe(struct str *s);
void str_grow(struct str *s, size_t more); /* str_reserve's other half */

/* Room for `more` bytes without a move. */
static inline void str_reserve(struct str *s, size_t more)
{
    if (TR_UNLIKELY(more >= s->cap - s->n))
        str_grow(s, more);
}

static inline void str_add(struct str *s, const void *p, size_t n)
{
    str_reserve(s, n);
    if (n)
        memcpy(s->p + s->n, p, n);
    s->n += n;
    s->p[s->n] = '\0';
}

static inline void str_addc(struct str *s, char c)
{
    str_reserve(s, 1);
    s->p[s->n++] = c;
    s->p[s->n] = '\0';
}

void str_adds(struct str *s, const char *text);
void str_addf(struct str *s, const char *fmt, ...) TR_PRINTF(2, 3);
void str_vaddf(struct str *s, const char *fmt, va_list ap) TR_PRINTF(2, 0);

static inline void str_addv(struct str *s, struct view v)
{
    str_add(s, v.p, v.n);
}

static inline void str_clear(struct str *s)
{
    s->n = 0;
    if (s->p)
        s->p[0] = '\0';
}

static inline struct view str_view(const struct str *s)
{
    return view_of(s->p, s->n);
}

/* The text as a C string; "" when empty. Valid until the next change. */
static inline const char *str_c(const struct str *s)
{
    return s->p ? s->p : "";
}

/* Hand the memory to the caller (xfree), NUL-terminated; the string is empty afterwards. */
char *str_take(struct str *s);

/* Does the text (NULL: nothing does) have that in it, in ASCII letters of any case? "" and NULL are
 * in every text, NULL included. */
bool str_found(const char *text, const char *search);

/* Add `v` as the inside of a JSON string: quotes, backslashes and control characters escaped,
 * bytes that are not UTF-8 replaced. No quotes around it. */
void str_add_json(struct str *s, struct view v);

#endif
