/* From the tree of a file to the fields of the rows. */
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "conf/load_priv.h"
#include "conf/suggest.h"
#include "conf/value_priv.h"

enum { NAME_BYTES_MAX = 63 };

/* A mapping being applied: where it stands and what it is called. */
struct at {
    struct conf_check *c;
    const struct conf_file *file;
    const struct conf_scope *scope;
};

static const char *kind_name(const struct conf_node *n)
{
    return n->kind == CONF_NODE_MAP ? "mapping" : n->kind == CONF_NODE_LIST ? "list" : "value";
}

/* The part of a path that rows of the scope know: without the item's own path. */
static const char *relative(const struct conf_scope *s, const char *path)
{
    size_t n = strlen(s->base);

    return n ? path + n + 1 : path;
}

static const struct conf_row *find_row(const struct conf_scope *s, const char *path)
{
    const char *rel = relative(s, path);
    size_t i;

    for (i = 0; i < s->n_rows; i++) {
        if (strcmp(s->rows[i].path, rel) == 0)
            return &s->rows[i];
    }
    return NULL;
}

static bool is_below(const char *path, const char *group)
{
    size_t n = strlen(group);

    return strncmp(path, group, n) == 0 && path[n] == '.';
}

static bool is_group(const struct conf_scope *s, const char *path)
{
    const char *rel = relative(s, path);
    size_t i;

    for (i = 0; i < s->n_rows; i++) {
        if (is_below(s->rows[i].path, rel))
            return true;
    }
    return false;
}

static const struct conf_section *find_section(const struct at *at, const char *path)
{
    const struct conf_spec *spec = at->c->spec;
    size_t i;

    for (i = 0; at->scope->base[0] == '\0' && i < spec->n_sections; i++) {
        if (strcmp(spec->sections[i].path, path) == 0)
            return &spec->sections[i];
    }
    return NULL;
}

/* Offer the name that follows `prefix` ("" or "a.b.") in a path. */
static void offer_below(struct conf_guess *g, const char *path, const char *prefix)
{
    size_t n = strlen(prefix);

    if (strncmp(path, prefix, n) == 0)
        conf_guess_offer(g, view_of(path + n, strcspn(path + n, ".")));
}

/* The option elsewhere in the scope whose last name is `key`, or NULL. */
static const char *same_name_elsewhere(const struct conf_scope *s, const char *key)
{
    size_t i;

    for (i = 0; i < s->n_rows; i++) {
        const char *dot = strrchr(s->rows[i].path, '.');

        if (dot && strcmp(dot + 1, key) == 0)
            return s->rows[i].path;
    }
    return NULL;
}

static void complain_unknown(const struct at *at, const struct conf_node *n, const char *path)
{
    const struct conf_spec *spec = at->c->spec;
    struct conf_guess guess = {.wrong = n->key};
    size_t parent = strlen(path) - strlen(n->key), i;
    bool whole = at->scope->base[0] == '\0';
    char *prefix = xmemdup0(path, parent);
    const char *other;

    for (i = 0; i < at->scope->n_rows; i++)
        offer_below(&guess, at->scope->rows[i].path, relative(at->scope, prefix));
    for (i = 0; whole && i < spec->n_sections; i++)
        offer_below(&guess, spec->sections[i].path, prefix);
    if (whole && parent == 0)
        conf_guess_offer(&guess, VIEW_LIT("include"));
    other = same_name_elsewhere(at->scope, n->key);
    if (guess.best[0])
        conf_complain_at(at->c, at->file, n->key_line, path, "unknown option; did you mean %s%s?",
                         prefix, guess.best);
    else if (other)
        conf_complain_at(at->c, at->file, n->key_line, path, "unknown option; did you mean %s?",
                         other);
    else
        conf_complain_at(at->c, at->file, n->key_line, path, "unknown option");
    xfree(prefix);
}

static void set_value(const struct at *at, const struct conf_row *row, const char *path,
                      const struct conf_node *n)
{
    struct str text = STR_INIT;
    struct err e = {0};

    if (conf_expand(n->text, &text, &e) < 0 ||
        conf_value_set(row, at->scope->object, str_c(&text), at->file->directory, &e) < 0)
        conf_complain_value(at->c, at->file, n->line, path, n->text, &e);
    str_fini(&text);
}

static void set_list(const struct at *at, const struct conf_row *row, const char *path,
                     const struct conf_node *list)
{
    const struct conf_list *field = conf_field(row, at->scope->object);
    const struct conf_node *n;

    for (n = list->first; n; n = n->next) {
        if (n->kind != CONF_NODE_SCALAR || n->absent) {
            conf_complain_at(at->c, at->file, n->line, path, "each element must be a single value");
        } else if (field->n >= CONF_LIST_MAX) {
            conf_complain_at(at->c, at->file, n->line, path, "at most %d elements", CONF_LIST_MAX);
            return;
        } else {
            set_value(at, row, path, n);
        }
    }
}

static void apply_option(const struct at *at, const struct conf_row *row, const char *path,
                         const struct conf_node *n)
{
    const struct conf_place *first = conf_place_find(at->c, path);
    struct str hint = STR_INIT;

    if (first) {
        conf_complain_at(at->c, at->file, n->key_line, path, "given twice; first at %s:%u",
                         first->file->name, first->line);
        return;
    }
    conf_place_add(at->c, path, at->file, n->line, true);
    if (row->type == CONF_LIST && n->kind == CONF_NODE_LIST) {
        set_list(at, row, path, n);
    } else if (n->kind == CONF_NODE_SCALAR && !n->absent) {
        set_value(at, row, path, n);
    } else {
        conf_value_hint(row, &hint);
        if (n->kind == CONF_NODE_SCALAR)
            conf_complain_at(at->c, at->file, n->line, path, "has no value: %s", str_c(&hint));
        else
            conf_complain_at(at->c, at->file, n->line, path, "%s, not a %s", str_c(&hint),
                             kind_name(n));
        str_fini(&hint);
    }
}

static bool item_name_ok(const char *name)
{
    size_t n = strlen(name), i;

    for (i = 0; i < n; i++) {
        bool letter = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z');

        if (!letter && !(name[i] >= '0' && name[i] <= '9') && name[i] != '-' && name[i] != '_')
            return false;
    }
    return n > 0 && n <= NAME_BYTES_MAX;
}

size_t conf_section_count(const struct conf_section *s, const void *config)
{
    return *(const size_t *)((const char *)config + s->count_offset);
}

void *conf_section_item(const struct conf_section *s, const void *config, size_t i)
{
    char *items = *(char *const *)((const char *)config + s->items_offset);

    return items + i * s->item_size;
}

const char *conf_item_name(const struct conf_section *s, const void *item)
{
    return *(char *const *)((const char *)item + s->name_offset);
}

void *conf_section_find(const struct conf_section *s, const void *config, const char *name)
{
    size_t i;

    for (i = 0; i < conf_section_count(s, config); i++) {
        void *item = conf_section_item(s, config, i);

        if (strcmp(conf_item_name(s, item), name) == 0)
            return item;
    }
    return NULL;
}

static void *add_item(const struct conf_section *s, void *config, const char *name)
{
    char **items = (char **)(void *)((char *)config + s->items_offset);
    size_t *count = (size_t *)(void *)((char *)config + s->count_offset);
    char *item;

    *items = xrealloc(*items, (*count + 1) * s->item_size);
    item = *items + *count * s->item_size;
    memset(item, 0, s->item_size);
    *(char **)(void *)(item + s->name_offset) = xstrdup(name);
    ++*count;
    return item;
}

static void apply_map(const struct at *at, const char *prefix, const struct conf_node *map);

static void apply_item(const struct at *at, const struct conf_section *s, const char *path,
                       const struct conf_node *n)
{
    struct conf_scope scope = {.rows = s->rows, .n_rows = s->n_rows, .base = path};
    struct at inside = {.c = at->c, .file = at->file, .scope = &scope};

    if (!item_name_ok(n->key)) {
        conf_complain_at(at->c, at->file, n->key_line, path,
                         "a name is made of up to %d letters, digits, \"-\" and \"_\"",
                         NAME_BYTES_MAX);
        return;
    }
    if (n->kind != CONF_NODE_MAP && !n->absent) {
        conf_complain_at(at->c, at->file, n->line, path, "must hold options, not a %s",
                         kind_name(n));
        return;
    }
    scope.object = conf_section_find(s, at->c->config, n->key);
    if (!scope.object && conf_section_count(s, at->c->config) >= s->max) {
        conf_complain_at(at->c, at->file, n->key_line, path, "at most %zu of these", s->max);
        return;
    }
    if (!scope.object)
        scope.object = add_item(s, at->c->config, n->key);
    conf_place_add(at->c, path, at->file, n->key_line, false);
    apply_map(&inside, path, n);
}

static void apply_child(const struct at *at, const char *path, const struct conf_node *n)
{
    const struct conf_row *row = find_row(at->scope, path);
    const struct conf_section *section = row ? NULL : find_section(at, path);

    if (row) {
        apply_option(at, row, path, n);
    } else if (!section && !is_group(at->scope, path)) {
        complain_unknown(at, n, path);
    } else if (n->kind != CONF_NODE_MAP && !n->absent) {
        conf_complain_at(at->c, at->file, n->line, path, "must hold options, not a %s",
                         kind_name(n));
    } else {
        conf_place_add(at->c, path, at->file, n->key_line, false);
        apply_map(at, path, n);
    }
}

/* The first child with the key of `n`, if it is another one. */
static const struct conf_node *earlier(const struct conf_node *map, const struct conf_node *n)
{
    const struct conf_node *first = map->first;

    while (first != n && strcmp(first->key, n->key) != 0)
        first = first->next;
    return first == n ? NULL : first;
}

static void apply_map(const struct at *at, const char *prefix, const struct conf_node *map)
{
    const struct conf_section *section = find_section(at, prefix);
    const struct conf_node *n, *first;

    for (n = map->first; n; n = n->next) {
        struct str path = STR_INIT;

        str_addf(&path, "%s%s%s", prefix, *prefix ? "." : "", n->key);
        first = earlier(map, n);
        if (first)
            conf_complain_at(at->c, at->file, n->key_line, str_c(&path),
                             "given twice; first at %s:%u", at->file->name, first->key_line);
        else if (section)
            apply_item(at, section, str_c(&path), n);
        else if (*prefix || strcmp(n->key, "include") != 0)
            apply_child(at, str_c(&path), n);
        str_fini(&path);
    }
}

void conf_apply(struct conf_check *c, const struct conf_file *file, const struct conf_node *root)
{
    struct conf_scope scope = {
        .rows = c->spec->rows, .n_rows = c->spec->n_rows, .object = c->config, .base = "",
    };
    struct at at = {.c = c, .file = file, .scope = &scope};

    ASSERT(root->kind == CONF_NODE_MAP);
    apply_map(&at, "", root);
}
