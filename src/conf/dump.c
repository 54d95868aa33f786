#include "conf/dump.h"

#include <inttypes.h>
#include <string.h>
#include "base/xmem.h"
#include "conf/load_priv.h"
#include "conf/value_priv.h"

enum { INDENT = 2, WRAP_COLUMNS = 92 };

/* Can stand without quotes: nothing that means something to YAML. */
static bool is_plain(const char *text)
{
    size_t n = strlen(text);

    if (n == 0 || strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "/_.:+-") != n)
        return false;
    if (text[0] == '-')
        return text[1] >= '0' && text[1] <= '9' && text[n - 1] != ':';
    return text[0] != ':' && text[n - 1] != ':';
}

static void add_scalar(struct str *out, const char *text)
{
    bool plain = is_plain(text);

    if (!plain)
        str_addc(out, '"');
    for (; *text; text++) {
        if (*text == '$')
            str_addc(out, '$');
        else if (*text == '"' || *text == '\\')
            str_addc(out, '\\');
        str_addc(out, *text);
    }
    if (!plain)
        str_addc(out, '"');
}

static void add_indent(struct str *out, size_t depth)
{
    str_addf(out, "%*s", (int)(depth * INDENT), "");
}

/* How many whole names two paths have in common before their last ones. */
static size_t shared_groups(const char *a, const char *b)
{
    size_t i, groups = 0;

    for (i = 0; a[i] && a[i] == b[i]; i++)
        groups += a[i] == '.';
    return groups;
}

/* Open the groups of `path` that the path before it was not in. Returns the depth of its last
 * name and sets `*name` to it. */
static size_t open_groups(struct str *out, size_t depth, const char *before, const char *path,
                          const char **name)
{
    size_t shared = shared_groups(before, path), level = 0;
    const char *dot;

    while ((dot = strchr(path, '.')) != NULL) {
        if (level >= shared) {
            add_indent(out, depth + level);
            str_add(out, path, (size_t)(dot - path));
            str_adds(out, ":\n");
        }
        path = dot + 1;
        level++;
    }
    *name = path;
    return depth + level;
}

static void dump_list(struct str *out, const struct conf_list *list, size_t depth)
{
    size_t i;

    for (i = 0; i < list->n; i++) {
        add_indent(out, depth + 1);
        str_adds(out, "- ");
        add_scalar(out, list->items[i]);
        str_addc(out, '\n');
    }
}

static bool has_value(const struct conf_row *row, const void *object, struct str *value)
{
    str_clear(value);
    if (row->type == CONF_LIST)
        return ((const struct conf_list *)conf_field(row, object))->n > 0;
    return conf_value_print(row, object, value);
}

static void dump_rows(struct str *out, const struct conf_row *rows, size_t n, const void *object,
                      size_t depth)
{
    struct str value = STR_INIT;
    const char *before = "", *name;
    size_t i;

    for (i = 0; i < n; i++) {
        size_t at;

        if (!has_value(&rows[i], object, &value))
            continue;
        at = open_groups(out, depth, before, rows[i].path, &name);
        before = rows[i].path;
        add_indent(out, at);
        str_addf(out, "%s:", name);
        if (rows[i].type == CONF_LIST) {
            str_addc(out, '\n');
            dump_list(out, conf_field(&rows[i], object), at);
            continue;
        }
        str_addc(out, ' ');
        add_scalar(out, str_c(&value));
        str_addc(out, '\n');
    }
    str_fini(&value);
}

static void dump_section(struct str *out, const struct conf_section *s, const void *config)
{
    size_t n = conf_section_count(s, config), i;

    if (n == 0)
        return;
    str_addf(out, "%s:\n", s->path);
    for (i = 0; i < n; i++) {
        const void *item = conf_section_item(s, config, i);

        add_indent(out, 1);
        str_addf(out, "%s:\n", conf_item_name(s, item));
        dump_rows(out, s->rows, s->n_rows, item, 2);
    }
}

void conf_dump_text(const struct conf_spec *spec, const void *config, struct str *out)
{
    size_t i;

    dump_rows(out, spec->rows, spec->n_rows, config, 0);
    for (i = 0; i < spec->n_sections; i++)
        dump_section(out, &spec->sections[i], config);
}

void conf_dump(const struct conf_spec *spec, const void *config, FILE *out)
{
    struct str text = STR_INIT;

    conf_dump_text(spec, config, &text);
    fwrite(str_c(&text), 1, text.n, out);
    str_fini(&text);
}

/* ---- the reference ----------------------------------------------------------------------- */

/* Words of a sentence as comment lines. */
static void add_comment(struct str *out, const char *text, size_t depth)
{
    size_t column = 0;

    while (*text) {
        size_t word = strcspn(text, " ");

        if (column == 0 || column + 1 + word > WRAP_COLUMNS) {
            if (column)
                str_addc(out, '\n');
            add_indent(out, depth);
            str_addc(out, '#');
            column = depth * INDENT + 1;
        }
        str_addc(out, ' ');
        str_add(out, text, word);
        column += word + 1;
        text += word;
        text += strspn(text, " ");
    }
    str_addc(out, '\n');
}

static void describe_row(struct str *out, const struct conf_row *row, size_t depth,
                         const char *name)
{
    struct str text = STR_INIT;

    str_addf(&text, "%s (", row->text);
    conf_value_hint(row, &text);
    str_addf(&text, "%s%s)", row->required ? "; required" : "",
             row->reloadable ? "; reloadable" : "");
    add_comment(out, str_c(&text), depth);
    add_indent(out, depth);
    str_addf(out, "%s%s:", row->required ? "" : "# ", name);
    if (row->deflt) {
        str_addc(out, ' ');
        add_scalar(out, row->deflt);
    }
    str_addc(out, '\n');
    str_fini(&text);
}

static void describe_rows(struct str *out, const struct conf_row *rows, size_t n, size_t depth)
{
    const char *before = "", *name;
    size_t i;

    for (i = 0; i < n; i++) {
        size_t at = open_groups(out, depth, before, rows[i].path, &name);

        before = rows[i].path;
        describe_row(out, &rows[i], at, name);
    }
}

void conf_describe(const struct conf_spec *spec, FILE *out)
{
    struct str text = STR_INIT;
    size_t i;

    describe_rows(&text, spec->rows, spec->n_rows, 0);
    for (i = 0; i < spec->n_sections; i++) {
        const struct conf_section *s = &spec->sections[i];

        add_comment(&text, s->text, 0);
        str_addf(&text, "%s:\n  NAME:\n", s->path);
        describe_rows(&text, s->rows, s->n_rows, 2);
    }
    fwrite(str_c(&text), 1, text.n, out);
    str_fini(&text);
}

/* ---- comparing --------------------------------------------------------------------------- */

struct compare {
    conf_changed_fn fn;
    void *ctx;
    size_t n;
};

static void changed(struct compare *c, const char *base, const char *path, bool reloadable)
{
    struct str full = STR_INIT;

    str_addf(&full, "%s%s%s", base, *base ? "." : "", path);
    if (c->fn)
        c->fn(c->ctx, str_c(&full), reloadable);
    c->n++;
    str_fini(&full);
}

static bool same_list(const struct conf_list *a, const struct conf_list *b)
{
    size_t i;

    if (a->n != b->n)
        return false;
    for (i = 0; i < a->n; i++) {
        if (strcmp(a->items[i], b->items[i]) != 0)
            return false;
    }
    return true;
}

static bool same_value(const struct conf_row *row, const void *a, const void *b)
{
    struct str ta = STR_INIT, tb = STR_INIT;
    bool has_a, has_b, same;

    if (row->type == CONF_LIST)
        return same_list(conf_field(row, a), conf_field(row, b));
    has_a = conf_value_print(row, a, &ta);
    has_b = conf_value_print(row, b, &tb);
    same = has_a == has_b && view_eq(str_view(&ta), str_view(&tb));
    str_fini(&ta);
    str_fini(&tb);
    return same;
}

/* Two structs that the same rows fill. */
struct pair {
    const struct conf_row *rows;
    size_t n_rows;
    const void *a, *b;
};

static void compare_rows(struct compare *c, const char *base, const struct pair *p)
{
    size_t i;

    for (i = 0; i < p->n_rows; i++) {
        if (!same_value(&p->rows[i], p->a, p->b))
            changed(c, base, p->rows[i].path, p->rows[i].reloadable);
    }
}

/* Items of `a` that `b` does not have; those that both have are compared if `deep`. */
static void compare_items(struct compare *c, const struct conf_section *s, const void *a,
                          const void *b, bool deep)
{
    size_t i;

    for (i = 0; i < conf_section_count(s, a); i++) {
        const void *item = conf_section_item(s, a, i);
        const char *name = conf_item_name(s, item);
        struct pair pair = {s->rows, s->n_rows, item, conf_section_find(s, b, name)};
        struct str base = STR_INIT;

        if (!pair.b)
            changed(c, s->path, name, s->reloadable);
        str_addf(&base, "%s.%s", s->path, name);
        if (pair.b && deep)
            compare_rows(c, str_c(&base), &pair);
        str_fini(&base);
    }
}

size_t conf_compare(const struct conf_spec *spec, const void *old_config, const void *new_config,
                    conf_changed_fn fn, void *ctx)
{
    struct pair whole = {spec->rows, spec->n_rows, old_config, new_config};
    struct compare c = {.fn = fn, .ctx = ctx};
    size_t i;

    compare_rows(&c, "", &whole);
    for (i = 0; i < spec->n_sections; i++) {
        compare_items(&c, &spec->sections[i], old_config, new_config, true);
        compare_items(&c, &spec->sections[i], new_config, old_config, false);
    }
    return c.n;
}

/* ---- paths -------------------------------------------------------------------------------- */

static void paths_of(const char *base, const struct pair *p, conf_path_fn fn, void *ctx)
{
    struct str setting = STR_INIT;
    size_t i;

    for (i = 0; i < p->n_rows; i++) {
        const struct conf_row *row = &p->rows[i];
        const void *field = (const char *)p->a + row->offset;
        const struct conf_list *list = field;
        const char *path = row->type == CONF_PATH ? *(const char *const *)field : NULL;
        size_t k;

        str_clear(&setting);
        str_addf(&setting, "%s%s%s", base, *base ? "." : "", row->path);
        if (path)
            fn(ctx, str_c(&setting), row->use, path);
        for (k = 0; row->type == CONF_LIST && row->paths && k < list->n; k++)
            fn(ctx, str_c(&setting), row->use, list->items[k]);
    }
    str_fini(&setting);
}

void conf_each_path(const struct conf_spec *spec, const void *config, conf_path_fn fn, void *ctx)
{
    const struct pair whole = {spec->rows, spec->n_rows, config, NULL};
    size_t i, k;

    paths_of("", &whole, fn, ctx);
    for (i = 0; i < spec->n_sections; i++) {
        const struct conf_section *s = &spec->sections[i];

        for (k = 0; k < conf_section_count(s, config); k++) {
            const struct pair item = {s->rows, s->n_rows, conf_section_item(s, config, k), NULL};
            struct str base = STR_INIT;

            str_addf(&base, "%s.%s", s->path, conf_item_name(s, item.a));
            paths_of(str_c(&base), &item, fn, ctx);
            str_fini(&base);
        }
    }
}
