/* Tables for people: columns as wide as what stands in them, within the width of the page. */
#ifndef TR_CTL_TABLE_H
#define TR_CTL_TABLE_H

#include <stddef.h>
#include "ctl/page.h"

enum {
    TABLE_RIGHT = 1,  /* numbers */
    TABLE_CUT = 2,    /* may lose its middle where room is short: a name */
    TABLE_EXTRA = 4,  /* may be left out where that is not enough, the last such first */
    TABLE_FILLED = 8, /* left out if no row has anything but "" or "-" in it */
    TABLE_PROSE = 16, /* may lose its end */
};

struct column {
    const char *head;
    unsigned flags;
};

struct table;

/* `columns` must outlive it. */
struct table *table_new(const struct column *columns, size_t n);
/* The next cell, row by row; copied, and made harmless. */
void table_add(struct table *t, enum paint paint, const char *text);
void table_add_int(struct table *t, long long value);
size_t table_rows(const struct table *t);
/* Append to the page (NULL: to none), at most `rows` rows besides the heads (0: all), and free it.
 */
void table_show(struct table **t, struct page *p, size_t rows);

#endif
