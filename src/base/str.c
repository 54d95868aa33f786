#include "base/str.h"

#include <stdint.h>
#include <stdio.h>
#include "base/bug.h"
#include "base/utf8.h"
#include "base/xmem.h"

/* The first block is as large as asked for: what is added at once, or reserved, wastes nothing. */
enum { FIRST_STEP = 64 };

void str_fini(struct str *s)
{
    xfree(s->p);
    *s = STR_INIT;
}

void str_wipe(struct str *s)
{
    xfree_secret(s->p, s->cap);
    *s = STR_INIT;
}

void str_grow(struct str *s, size_t more)
{
    size_t need, cap;

    ASSERT(more < SIZE_MAX / 2 && s->n < SIZE_MAX / 2);
    need = s->n + more + 1;
    if (need <= s->cap)
        return;
    cap = s->cap ? s->cap : need + FIRST_STEP - need % FIRST_STEP;
    while (cap < need)
        cap *= 2;
    s->p = xrealloc(s->p, cap);
    s->cap = cap;
    s->p[s->n] = '\0';
}

void str_adds(struct str *s, const char *text)
{
    str_add(s, text, strlen(text));
}

void str_vaddf(struct str *s, const char *fmt, va_list ap)
{
    size_t room = s->cap - s->n;
    va_list again;
    int n;

    va_copy(again, ap);
    n = vsnprintf(room ? s->p + s->n : NULL, room, fmt, again);
    va_end(again);
    ASSERT(n >= 0);
    if ((size_t)n >= room) {
        str_reserve(s, (size_t)n);
        vsnprintf(s->p + s->n, (size_t)n + 1, fmt, ap);
    }
    s->n += (size_t)n;
}

void str_addf(struct str *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    str_vaddf(s, fmt, ap);
    va_end(ap);
}

char *str_take(struct str *s)
{
    char *p;

    str_reserve(s, 0);
    s->p[s->n] = '\0';
    p = s->p;
    *s = STR_INIT;
    return p;
}

/* The escape of one ASCII byte in JSON, or NULL if it stands for itself. */
static const char *json_escape(unsigned char c, char out[8])
{
    switch (c) {
    case '"':
        return "\\\"";
    case '\\':
        return "\\\\";
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    default:
        break;
    }
    if (c >= 0x20 && c != 0x7f)
        return NULL;
    snprintf(out, 8, "\\u%04x", c);
    return out;
}

void str_add_json(struct str *s, struct view v)
{
    size_t i = 0;
    char tmp[8];

    while (i < v.n) {
        unsigned char c = (unsigned char)v.p[i];
        size_t len = 1;

        if (c < 0x80) {
            const char *esc = json_escape(c, tmp);

            if (esc)
                str_adds(s, esc);
            else
                str_addc(s, (char)c);
        } else {
            len = utf8_length(v.p + i, v.n - i);
            if (len)
                str_add(s, v.p + i, len);
            else
                str_adds(s, "\xef\xbf\xbd");
        }
        i += len ? len : 1;
    }
}

bool str_found(const char *text, const char *search)
{
    return !search || !*search || (text && strcasestr(text, search));
}
