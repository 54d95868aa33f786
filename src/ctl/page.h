/*
 * What is going to be shown: lines of pieces, each with its paint, no line wider than it may be.
 * Every text that comes in is made harmless (text.h).
 */
#ifndef TR_CTL_PAGE_H
#define TR_CTL_PAGE_H

#include <stdbool.h>
#include <stdio.h>
#include "base/attrs.h"
#include "base/str.h"
#include "ctl/text.h"

/* The terminal, or the file, that is written to. */
struct look {
    bool utf8;    /* it takes more than ASCII */
    bool colour;  /* and paint */
    size_t width; /* columns; 0: as many as there are to show */
};

enum paint { PLAIN, BOLD, DIM, RED, YELLOW, GREEN, PAINTS };

struct page;

/* `look` stays the caller's, and must outlive the page; `width` 0: any. */
struct page *page_new(const struct look *look, size_t width);
void page_free(struct page **p);

/* Append to the line that is being written; what goes over its width is cut. */
void page_add(struct page *p, enum paint paint, const char *text);
void page_addf(struct page *p, enum paint paint, const char *fmt, ...) TR_PRINTF(3, 4);
/* Spaces up to that column, at least one unless the line is empty. */
void page_to(struct page *p, size_t column);
/* End the line. */
void page_end(struct page *p);
/* A whole line. */
void page_line(struct page *p, enum paint paint, const char *text);
/* Words, in as many lines as they need, all but the first indented up to where they began. Ends the
 * line. */
void page_words(struct page *p, enum paint paint, const char *text);

/* Append `left` with `right` beside it, or below it where they do not fit. */
void page_beside(struct page *p, const struct page *left, const struct page *right, size_t gap);
/* Append line `i` of another one to the line that is being written. */
void page_copy_line(struct page *p, const struct page *from, size_t i);
/* Append the lines of another one. */
void page_join(struct page *p, const struct page *other);

const struct look *page_look(const struct page *p);
size_t page_width(const struct page *p); /* it may have; 0: any */
/* The dots for what is cut out. */
const char *page_dots(const struct page *p);
/* How many lines have ended, and line `i` of them, painted. */
size_t page_lines(const struct page *p);
const char *page_text(const struct page *p, size_t i);

void page_print(const struct page *p, FILE *out);

#endif
