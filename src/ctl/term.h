/* The terminal as a screen to draw on. One at a time: the process has one terminal. */
#ifndef TR_CTL_TERM_H
#define TR_CTL_TERM_H

#include <stdbool.h>
#include <stddef.h>
#include "ctl/page.h"

/* Whether both standard input and output are one. */
bool term_is_there(void);

/* Take the alternate screen, without cursor and echo. It is given back by term_leave, and when the
 * process exits, whatever makes it. Calling either twice is fine. */
void term_enter(void);
void term_leave(void);

/* Lines and columns; 24 and 80 if nobody knows. */
void term_size(size_t *lines, size_t *columns);
/* Show the page's first `lines` lines, and nothing below them. */
void term_draw(const struct page *p, size_t lines);
/* The keys that were pressed, and how many; those that send escape sequences are left out. */
enum { TERM_KEYS = 32 };
size_t term_keys(char keys[TERM_KEYS]);

#endif
