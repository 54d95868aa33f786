#include "base/xmem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/bug.h"

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
    p = realloc(p, n ? n : 1);
    if (!p)
        BUG("out of memory");
    return p;
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
    free(p);
}

void xfree_secret(void *p, size_t n)
{
    if (p)
        explicit_bzero(p, n);
    free(p);
}
