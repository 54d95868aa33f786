/* UTF-8 (RFC 3629), strictly: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef TR_BASE_UTF8_H
#define TR_BASE_UTF8_H

#include <stddef.h>

/* The length of the valid sequence at `p` (1-4), or 0 if there is none within `n` bytes. */
size_t utf8_length(const char *p, size_t n);

#endif
