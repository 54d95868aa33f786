#include "ctl/table.h"

#include <stdbool.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"

enum { GAP = 2, CUT_LEAST = 12 };

struct cell {
    char *text;
    size_t width;
    enum paint paint;
};

struct table {
    const struct column *columns;
    size_t n;
    struct cell *cells; /* the heads first */
    size_t n_cells, cap;
    size_t *widths; /* 0: the column is left out */
};

struct table *table_new(const struct column *columns, size_t n)
{
    struct table *t = XNEW(struct table);
    size_t i;

    ASSERT(n > 0);
    t->columns = columns;
    t->n = n;
    t->widths = xcalloc(n, sizeof(*t->widths));
    for (i = 0; i < n; i++)
        table_add(t, DIM, columns[i].head);
    return t;
}

void table_add(struct table *t, enum paint paint, const char *text)
{
    struct str clean = STR_INIT;
    struct cell *c;

    if (t->n_cells == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->cells = xrealloc(t->cells, t->cap * sizeof(*t->cells));
    }
    text_add_harmless(&clean, text, NULL);
    c = &t->cells[t->n_cells++];
    c->width = text_width(str_c(&clean));
    c->text = clean.p ? str_take(&clean) : xstrdup("");
    c->paint = paint;
}

void table_add_int(struct table *t, long long value)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld", value);
    table_add(t, PLAIN, text);
}

size_t table_rows(const struct table *t)
{
    return t->n_cells / t->n - 1;
}

/* --- widths ----------------------------------------------------------------------------------- */

static void measure(struct table *t, size_t column)
{
    bool filled = !(t->columns[column].flags & TABLE_FILLED);
    size_t i, w = 0;

    for (i = column; i < t->n_cells; i += t->n) {
        w = TR_MAX(w, t->cells[i].width);
        if (i >= t->n && *t->cells[i].text && strcmp(t->cells[i].text, "-") != 0)
            filled = true;
    }
    t->widths[column] = filled ? TR_MAX(w, 1) : 0;
}

static size_t whole_width(const struct table *t)
{
    size_t i, w = 0;

    for (i = 0; i < t->n; i++)
        w += t->widths[i] ? t->widths[i] + GAP : 0;
    return w > GAP ? w - GAP : 0;
}

/* Prose yields to names. */
static size_t weight(const struct table *t, size_t i)
{
    return t->columns[i].flags & TABLE_PROSE ? 2 * t->widths[i] : t->widths[i];
}

/* The widest column that may be cut yet; t->n: none. */
static size_t widest(const struct table *t, size_t least)
{
    size_t i, best = t->n;

    for (i = 0; i < t->n; i++) {
        if (!(t->columns[i].flags & (TABLE_CUT | TABLE_PROSE)) || t->widths[i] <= least)
            continue;
        if (best == t->n || weight(t, i) > weight(t, best))
            best = i;
    }
    return best;
}

static void leave_one_out(struct table *t)
{
    size_t i = t->n;

    while (i-- > 0) {
        if (t->widths[i] && t->columns[i].flags & TABLE_EXTRA) {
            t->widths[i] = 0;
            return;
        }
    }
}

/* Whether it would fit if all that may be cut were. */
static bool can_fit(const struct table *t, size_t room, size_t least)
{
    size_t w = whole_width(t), i;

    for (i = 0; i < t->n; i++) {
        if (t->columns[i].flags & (TABLE_CUT | TABLE_PROSE) && t->widths[i] > least)
            w -= t->widths[i] - least;
    }
    return w <= room;
}

static void fit(struct table *t, size_t room)
{
    /* Names that are cut to less than half of the room say nothing; figures yield first. */
    size_t generous = TR_MAX(room / 3, CUT_LEAST), i, least = CUT_LEAST;

    for (i = 0; i < t->n && !can_fit(t, room, generous); i++)
        leave_one_out(t);
    while (whole_width(t) > room && (i = widest(t, least)) < t->n)
        t->widths[i] -= TR_MIN(whole_width(t) - room, t->widths[i] > 2 * least ? 4 : 1);
}

/* --- rows ------------------------------------------------------------------------------------- */

static bool is_last(const struct table *t, size_t column)
{
    while (++column < t->n) {
        if (t->widths[column])
            return false;
    }
    return true;
}

static void show_cell(const struct table *t, struct page *p, size_t i, size_t *at)
{
    size_t column = i % t->n, w = t->widths[column];
    const struct cell *c = &t->cells[i];
    struct str cut = STR_INIT;

    if (w == 0)
        return;
    if (t->columns[column].flags & TABLE_RIGHT && c->width < w)
        page_to(p, *at + w - c->width);
    else if (*at)
        page_to(p, *at);
    text_add_cut(&cut, c->text, w,
                 t->columns[column].flags & TABLE_PROSE ? TEXT_CUT_END : TEXT_CUT_MIDDLE,
                 page_dots(p));
    page_add(p, c->paint, str_c(&cut));
    str_fini(&cut);
    *at += w + GAP;
    if (is_last(t, column))
        page_end(p);
}

void table_show(struct table **tp, struct page *p, size_t rows)
{
    struct table *t = *tp;
    size_t i, at = 0;

    ASSERT(t->n > 0);
    for (i = 0; i < t->n; i++)
        measure(t, i);
    if (p && page_width(p))
        fit(t, page_width(p));
    for (i = 0; i < t->n_cells; i++) {
        if (i % t->n == 0)
            at = 0;
        if (p && (rows == 0 || i / t->n <= rows))
            show_cell(t, p, i, &at);
        xfree(t->cells[i].text);
    }
    xfree(t->cells);
    xfree(t->widths);
    XFREE(*tp);
}
