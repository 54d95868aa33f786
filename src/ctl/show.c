/* How answers are shown. */
#include <ctype.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "ctl/ctl.h"

struct ctl_table {
    size_t n; /* columns */
    char **cells;
    size_t n_cells, cap;
};

struct ctl_table *ctl_table_new(const char *const *heads, size_t n)
{
    struct ctl_table *t = XNEW(struct ctl_table);
    size_t i;

    t->n = n;
    for (i = 0; i < n; i++)
        ctl_table_add(t, heads[i]);
    return t;
}

/* The same of U+0080 to U+009F, which terminals take for escape sequences, too. */
static bool is_high_control(const char *text)
{
    return (unsigned char)text[0] == 0xc2 && (unsigned char)text[1] >= 0x80 &&
           (unsigned char)text[1] < 0xa0;
}

/* Names come from clients: nothing of them may speak to the terminal. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
        else if (is_high_control(text))
            text[0] = text[1] = '?';
    }
}

void ctl_say(FILE *out, const char *text)
{
    char *copy = xstrdup(text);

    make_printable(copy);
    fputs(copy, out);
    xfree(copy);
}

void ctl_table_add(struct ctl_table *t, const char *text)
{
    if (t->n_cells == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->cells = xrealloc(t->cells, t->cap * sizeof(*t->cells));
    }
    t->cells[t->n_cells] = xstrdup(text);
    make_printable(t->cells[t->n_cells++]);
}

void ctl_table_add_int(struct ctl_table *t, json_int_t value)
{
    char text[32];

    snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, value);
    ctl_table_add(t, text);
}

static int width(const struct ctl_table *t, size_t column)
{
    size_t i, w = 0;

    for (i = column; i < t->n_cells; i += t->n)
        w = TR_MAX(w, strlen(t->cells[i]));
    return (int)w;
}

static bool is_number(const char *text)
{
    return *text && strspn(text, "0123456789") == strlen(text);
}

void ctl_table_show(struct ctl_table **tp)
{
    struct ctl_table *t = *tp;
    int *widths = xcalloc(t->n, sizeof(*widths));
    size_t i;

    ASSERT(t->n > 0);
    for (i = 0; i < t->n; i++)
        widths[i] = width(t, i);
    for (i = 0; i < t->n_cells; i++) {
        size_t column = i % t->n;
        int w = widths[column];

        if (column + 1 == t->n)
            printf("%s\n", t->cells[i]);
        else
            printf(is_number(t->cells[i]) ? "%*s  " : "%-*s  ", w, t->cells[i]);
        xfree(t->cells[i]);
    }
    xfree(widths);
    xfree(t->cells);
    XFREE(*tp);
}

void ctl_show_json(const json_t *json)
{
    json_dumpf(json, stdout,
               JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
    putchar('\n');
}

const char *ctl_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "";
}

json_int_t ctl_int(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}
