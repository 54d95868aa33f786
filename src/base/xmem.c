#include "base/xmem.h"

#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/bug.h"

/* Larger blocks hold bodies. Below that a head may share one with a body, as in what libcurl sends.
 */
enum { WIPE_MAX = 256 << 10 };

void *xmalloc(size_t n)
{
    void *p = malloc(n ? n : 1);

    if (!p)
        BUG("out of memory");
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);

    if (!p)
        BUG("out of memory");
    return p;
}

void *xrealloc(void *p, size_t n)
{
    size_t had = p ? malloc_usable_size(p) : 0;
    void *q;

    if (had <= WIPE_MAX) { /* realloc leaves what was there behind when it moves */
        q = xmalloc(n);
        if (p)
            memcpy(q, p, had < n ? had : n);
        xfree(p);
        return q;
    }
    q = realloc(p, n ? n : 1);
    if (!q)
        BUG("out of memory");
    return q;
}

char *xstrdup(const char *s)
{
    return xmemdup0(s, strlen(s));
}

char *xmemdup0(const void *p, size_t n)
{
    char *copy;

    ASSERT(n < SIZE_MAX);
    copy = xmalloc(n + 1);
    if (n)
        memcpy(copy, p, n);
    copy[n] = '\0';
    return copy;
}

void xfree(void *p)
{
    size_t n = p ? malloc_usable_size(p) : 0;

    if (n && n <= WIPE_MAX)
        explicit_bzero(p, n);
    free(p);
}

void xfree_secret(void *p, size_t n)
{
    if (p)
        explicit_bzero(p, n);
    free(p);
}
