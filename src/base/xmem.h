/*
 * Allocation that never returns NULL: out of memory for our own small needs ends the program.
 * What a peer can make grow goes through a budget first (see each module's limits).
 *
 * What is given back is overwritten, unless it is large (over 256 KiB: bodies): tokens pass through
 * heads, URLs, fields and queues, and the one place that is forgotten would be the one that a dump
 * or a read past an end shows.
 */
#ifndef TR_BASE_XMEM_H
#define TR_BASE_XMEM_H

#include <stddef.h>
#include "base/attrs.h"

void *xmalloc(size_t n) TR_MUST_USE;
void *xcalloc(size_t count, size_t size) TR_MUST_USE; /* zeroed; checks the product */
void *xrealloc(void *p, size_t n) TR_MUST_USE;
char *xstrdup(const char *s) TR_MUST_USE;
char *xmemdup0(const void *p, size_t n) TR_MUST_USE; /* copies n bytes and adds a NUL */
void xfree(void *p);                                 /* NULL is fine */

/* xfree for what is certainly a secret: `n` bytes are overwritten, however many they are. */
void xfree_secret(void *p, size_t n);

/* A zeroed object of the type, and freeing that clears the caller's pointer. */
#define XNEW(type) ((type *)xcalloc(1, sizeof(type)))
#define XFREE(p)   (xfree(p), (p) = NULL)

#endif
