#include "ctl/page.h"

#include <stdarg.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"

struct line {
    struct str text; /* with paint */
    size_t width;
};

struct page {
    const struct look *look;
    size_t width;
    struct line *lines;
    size_t n, cap;
    struct line now;
};

struct page *page_new(const struct look *look, size_t width)
{
    struct page *p = XNEW(struct page);

    p->look = look;
    p->width = width;
    p->now.text = STR_INIT;
    return p;
}

void page_free(struct page **pp)
{
    struct page *p = *pp;
    size_t i;

    if (!p)
        return;
    for (i = 0; i < p->n; i++)
        str_fini(&p->lines[i].text);
    xfree(p->lines);
    str_fini(&p->now.text);
    XFREE(*pp);
}

const struct look *page_look(const struct page *p)
{
    return p->look;
}

size_t page_width(const struct page *p)
{
    return p->width;
}

const char *page_dots(const struct page *p)
{
    return p->look->utf8 ? "\xe2\x80\xa6" : "...";
}

/* --- a line ----------------------------------------------------------------------------------- */

static void add_painted(struct page *p, enum paint paint, const char *text)
{
    static const char *const codes[PAINTS] = {"", "1", "2", "31", "33", "32"};

    ASSERT((size_t)paint < PAINTS);
    if (paint != PLAIN && p->look->colour && *text)
        str_addf(&p->now.text, "\033[%sm%s\033[0m", codes[paint], text);
    else
        str_adds(&p->now.text, text);
    p->now.width += text_width(text);
}

void page_add(struct page *p, enum paint paint, const char *text)
{
    struct str clean = STR_INIT, cut = STR_INIT;
    size_t room = p->width > p->now.width ? p->width - p->now.width : 0;

    text_add_harmless(&clean, text, NULL);
    if (p->width)
        text_add_cut(&cut, str_c(&clean), room, TEXT_CUT_END, page_dots(p));
    add_painted(p, paint, str_c(p->width ? &cut : &clean));
    str_fini(&clean);
    str_fini(&cut);
}

void page_addf(struct page *p, enum paint paint, const char *fmt, ...)
{
    struct str text = STR_INIT;
    va_list ap;

    va_start(ap, fmt);
    str_vaddf(&text, fmt, ap);
    va_end(ap);
    page_add(p, paint, str_c(&text));
    str_fini(&text);
}

static void spaces(struct page *p, size_t n)
{
    p->now.width += n;
    while (n-- > 0)
        str_addc(&p->now.text, ' ');
}

void page_to(struct page *p, size_t column)
{
    if (p->now.width < column)
        spaces(p, column - p->now.width);
    else if (p->now.width > 0)
        spaces(p, 1);
}

void page_end(struct page *p)
{
    struct str *t = &p->now.text;

    while (t->n > 0 && t->p[t->n - 1] == ' ') {
        t->p[--t->n] = '\0';
        p->now.width--;
    }
    if (p->n == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 32;
        p->lines = xrealloc(p->lines, p->cap * sizeof(*p->lines));
    }
    p->lines[p->n++] = p->now;
    p->now = (struct line){.text = STR_INIT};
}

void page_line(struct page *p, enum paint paint, const char *text)
{
    page_add(p, paint, text);
    page_end(p);
}

/* A word that is wider than the room goes on in the next line. */
static void add_word(struct page *p, enum paint paint, const char *word, size_t indent)
{
    struct str clean = STR_INIT;
    const char *left;

    text_add_harmless(&clean, word, NULL);
    left = str_c(&clean);
    while (p->width > indent && text_width(left) > p->width - p->now.width) {
        size_t n = text_fit(left, p->width - p->now.width, NULL);
        char *part = xmemdup0(left, n);

        add_painted(p, paint, part);
        xfree(part);
        left += n;
        page_end(p);
        spaces(p, indent);
    }
    page_add(p, paint, left);
    str_fini(&clean);
}

void page_words(struct page *p, enum paint paint, const char *text)
{
    size_t indent = p->now.width;
    bool first = true;

    if (p->width && indent + 2 > p->width)
        indent = 0;
    while (*text) {
        size_t space = strspn(text, " "), n = strcspn(text + space, " ");
        char *word = xmemdup0(text + space, n);
        size_t w = text_width(word);

        text += space + n;
        if (!first && p->width && p->now.width + 1 + w > p->width) {
            page_end(p);
            spaces(p, indent);
        } else if (!first) {
            spaces(p, 1);
        }
        add_word(p, paint, word, indent);
        first = false;
        xfree(word);
    }
    page_end(p);
}

/* --- whole pages ------------------------------------------------------------------------------ */

static size_t widest(const struct page *p)
{
    size_t i, w = 0;

    for (i = 0; i < p->n; i++)
        w = TR_MAX(w, p->lines[i].width);
    return w;
}

void page_copy_line(struct page *p, const struct page *from, size_t i)
{
    if (i >= from->n)
        return;
    str_adds(&p->now.text, str_c(&from->lines[i].text));
    p->now.width += from->lines[i].width;
}

void page_join(struct page *p, const struct page *other)
{
    size_t i;

    for (i = 0; i < other->n; i++) {
        page_copy_line(p, other, i);
        page_end(p);
    }
}

void page_beside(struct page *p, const struct page *left, const struct page *right, size_t gap)
{
    size_t column = widest(left) + gap, i;

    if (p->width && column + widest(right) > p->width) {
        page_join(p, left);
        page_join(p, right);
        return;
    }
    for (i = 0; i < TR_MAX(left->n, right->n); i++) {
        page_copy_line(p, left, i);
        if (i < right->n)
            page_to(p, column);
        page_copy_line(p, right, i);
        page_end(p);
    }
}

size_t page_lines(const struct page *p)
{
    return p->n;
}

const char *page_text(const struct page *p, size_t i)
{
    return i < p->n ? str_c(&p->lines[i].text) : "";
}

void page_print(const struct page *p, FILE *out)
{
    size_t i;

    for (i = 0; i < p->n; i++)
        fprintf(out, "%s\n", page_text(p, i));
}
