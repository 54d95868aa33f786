#include "conf/load.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/xmem.h"
#include "conf/errors_priv.h"
#include "conf/load_priv.h"
#include "conf/value_priv.h"
#include "rt/fdx.h"

enum { VALUE_SHOWN_MAX = 80 };

/* ---- places and errors ------------------------------------------------------------------- */

struct conf_place *conf_place_find(const struct conf_check *c, const char *path)
{
    uint64_t hash = hash_bytes(path, strlen(path));
    struct hnode *n;

    for (n = hmap_first(&c->places, hash); n; n = hmap_next(n, hash)) {
        struct conf_place *p = hmap_entry(n, struct conf_place, node);

        if (strcmp(p->path, path) == 0)
            return p;
    }
    return NULL;
}

void conf_place_add(struct conf_check *c, const char *path, const struct conf_file *file,
                    unsigned line, bool option)
{
    struct conf_place *p;

    if (conf_place_find(c, path))
        return;
    p = XNEW(struct conf_place);
    p->path = xstrdup(path);
    p->file = file;
    p->line = line;
    p->option = option;
    hmap_insert(&c->places, &p->node, hash_bytes(path, strlen(path)));
}

bool conf_given(const struct conf_check *check, const char *path)
{
    const struct conf_place *p = conf_place_find(check, path);

    return p && p->option;
}

/* `text` is taken. */
static void add_error(struct conf_check *c, const struct conf_file *file, unsigned line,
                      const char *path, struct str *text)
{
    struct str s = STR_INIT;

    str_addf(&s, "%s:%u: %s%s", file->name, line, path ? path : "", path ? ": " : "");
    str_addv(&s, str_view(text));
    str_fini(text);
    conf_errors_add(c->errors, (unsigned long)file->index << 32 | line, str_take(&s));
}

void conf_complain_at(struct conf_check *c, const struct conf_file *file, unsigned line,
                      const char *path, const char *fmt, ...)
{
    struct str text = STR_INIT;
    va_list ap;

    va_start(ap, fmt);
    str_vaddf(&text, fmt, ap);
    va_end(ap);
    add_error(c, file, line, path, &text);
}

/* A URL with credentials in it is not shown. */
void conf_complain_value(struct conf_check *c, const struct conf_file *file, unsigned line,
                         const char *path, const char *value, const struct err *e)
{
    struct str text = STR_INIT;

    if (!strchr(value, '@')) {
        str_addc(&text, '"');
        str_add_json(&text, view_of(value, strnlen(value, VALUE_SHOWN_MAX)));
        str_adds(&text, strlen(value) > VALUE_SHOWN_MAX ? "...\": " : "\": ");
    }
    str_adds(&text, e->text);
    add_error(c, file, line, path, &text);
}

/* The place of the path, or of the nearest thing around it. NULL: nothing of it was given. */
static const struct conf_place *nearest_place(const struct conf_check *c, const char *path)
{
    char *part = xstrdup(path), *dot;
    const struct conf_place *p = conf_place_find(c, part);

    while (!p && (dot = strrchr(part, '.')) != NULL) {
        *dot = '\0';
        p = conf_place_find(c, part);
    }
    xfree(part);
    return p;
}

void conf_complain(struct conf_check *check, const char *path, const char *fmt, ...)
{
    const struct conf_place *p = nearest_place(check, path);
    struct str text = STR_INIT;
    va_list ap;

    va_start(ap, fmt);
    str_vaddf(&text, fmt, ap);
    va_end(ap);
    add_error(check, p ? p->file : check->files[0], p ? p->line : 1, path, &text);
}

/* ---- files ------------------------------------------------------------------------------- */

/* The directory of a file as an absolute path. */
static char *directory_of(const char *path)
{
    char *copy = xstrdup(path);
    char full[PATH_MAX];
    char *result;

    result = xstrdup(realpath(dirname(copy), full) ? full : "/");
    xfree(copy);
    return result;
}

static struct conf_file *file_new(struct conf_check *c, const char *name, char *directory,
                                  const struct conf_file *parent)
{
    struct conf_file *f = XNEW(struct conf_file);

    ASSERT(c->n_files < CONF_FILES_MAX);
    f->name = xstrdup(name);
    f->directory = directory;
    f->index = c->n_files;
    f->parent = parent;
    f->depth = parent ? parent->depth + 1 : 0;
    c->files[c->n_files++] = f;
    return f;
}

static void load_includes(struct conf_check *c, const struct conf_file *file,
                          const struct conf_node *root);

static void load_file_text(struct conf_check *c, const struct conf_file *file, struct view text)
{
    struct conf_node *root;
    unsigned line = 1;
    struct err e;

    root = conf_tree_parse(text, &line, &e);
    if (!root) {
        c->incomplete = true;
        conf_complain_at(c, file, line, NULL, "%s", e.text);
        return;
    }
    conf_apply(c, file, root);
    load_includes(c, file, root);
    conf_tree_free(root);
}

static bool is_ancestor(const struct conf_file *f, const struct stat *st)
{
    while (f && (f->dev != st->st_dev || f->ino != st->st_ino))
        f = f->parent;
    return f != NULL;
}

/* "conf/a.yaml" and "b.yaml" give "conf/b.yaml". */
static char *beside(const char *name, const char *include)
{
    const char *slash = strrchr(name, '/');
    struct str s = STR_INIT;

    if (include[0] != '/' && slash)
        str_add(&s, name, (size_t)(slash - name) + 1);
    str_adds(&s, include);
    return str_take(&s);
}

static int read_included(const struct conf_check *c, const struct conf_file *file, const char *path,
                         struct stat *st, struct str *text, struct err *e)
{
    if (file->depth >= CONF_INCLUDE_DEPTH)
        return err_set(e, ERR_LIMIT, "included too deeply (at most %d levels)", CONF_INCLUDE_DEPTH);
    if (c->n_files >= CONF_FILES_MAX)
        return err_set(e, ERR_LIMIT, "too many files (at most %d)", CONF_FILES_MAX);
    if (stat(path, st) < 0)
        return err_errno(e, ERR_NOTFOUND, errno, "cannot open %s", path);
    if (is_ancestor(file, st))
        return err_set(e, ERR_INVALID, "includes itself");
    return file_read(path, CONF_FILE_BYTES, text, e);
}

static int include_one(struct conf_check *c, const struct conf_file *file, const char *spelled,
                       struct err *e)
{
    struct str expanded = STR_INIT, text = STR_INIT;
    struct conf_file *inner;
    char *path = NULL;
    struct stat st;
    int rc = -1;

    if (conf_expand(spelled, &expanded, e) < 0)
        goto out;
    path = beside(file->name, str_c(&expanded));
    if (read_included(c, file, path, &st, &text, e) < 0)
        goto out;
    inner = file_new(c, path, directory_of(path), file);
    inner->dev = st.st_dev;
    inner->ino = st.st_ino;
    load_file_text(c, inner, str_view(&text));
    rc = 0;
out:
    xfree(path);
    str_fini(&text);
    str_fini(&expanded);
    return rc;
}

static void include_node(struct conf_check *c, const struct conf_file *file,
                         const struct conf_node *n)
{
    struct err e;

    if (n->kind != CONF_NODE_SCALAR || n->absent) {
        conf_complain_at(c, file, n->line, "include", "use the path of a file, or a list of them");
        return;
    }
    if (include_one(c, file, n->text, &e) < 0) {
        c->incomplete = true;
        conf_complain_value(c, file, n->line, "include", n->text, &e);
    }
}

/* The `include` at the top of a file, which conf_apply leaves to us. */
static void load_includes(struct conf_check *c, const struct conf_file *file,
                          const struct conf_node *root)
{
    const struct conf_node *n = root->first, *element;

    while (n && strcmp(n->key, "include") != 0)
        n = n->next;
    if (!n)
        return;
    if (n->kind != CONF_NODE_LIST) {
        include_node(c, file, n);
        return;
    }
    for (element = n->first; element; element = element->next)
        include_node(c, file, element);
}

/* ---- defaults ---------------------------------------------------------------------------- */

/* A default is ours: if it is wrong, the program is. */
static void set_default(const struct conf_row *row, void *object, const char *text)
{
    struct err e = {0};
    char *copy = xstrdup(text), *save = NULL, *part;

    if (row->type != CONF_LIST) {
        if (conf_value_set(row, object, text, "/", &e) < 0)
            BUG(row->path);
    } else {
        for (part = strtok_r(copy, ", ", &save); part; part = strtok_r(NULL, ", ", &save)) {
            if (conf_value_set(row, object, part, "/", &e) < 0)
                BUG(row->path);
        }
    }
    xfree(copy);
}

static void default_to_name(struct conf_check *c, const struct conf_row *row, void *object,
                            const char *path, const char *name)
{
    struct err e = {0};

    if (conf_value_set(row, object, name, "/", &e) < 0)
        conf_complain(c, path, "missing, and the name \"%s\" does not say it: %s", name, e.text);
}

static void fill_defaults(struct conf_check *c, const struct conf_scope *s, const char *name)
{
    size_t i;

    for (i = 0; i < s->n_rows; i++) {
        const struct conf_row *row = &s->rows[i];
        struct str path = STR_INIT;

        str_addf(&path, "%s%s%s", s->base, *s->base ? "." : "", row->path);
        if (conf_place_find(c, str_c(&path)))
            ;
        else if (row->name_is_deflt)
            default_to_name(c, row, s->object, str_c(&path), name);
        else if (row->deflt)
            set_default(row, s->object, row->deflt);
        else if (row->required && !c->incomplete)
            conf_complain(c, str_c(&path), "missing: %s", row->text);
        str_fini(&path);
    }
}

static void fill_section(struct conf_check *c, const struct conf_section *section)
{
    size_t i;

    for (i = 0; i < conf_section_count(section, c->config); i++) {
        void *item = conf_section_item(section, c->config, i);
        const char *name = conf_item_name(section, item);
        struct conf_scope scope = {
            .rows = section->rows,
            .n_rows = section->n_rows,
            .object = item,
        };
        struct str base = STR_INIT;

        str_addf(&base, "%s.%s", section->path, name);
        scope.base = str_c(&base);
        fill_defaults(c, &scope, name);
        str_fini(&base);
    }
}

static void fill_all(struct conf_check *c)
{
    struct conf_scope whole = {
        .rows = c->spec->rows,
        .n_rows = c->spec->n_rows,
        .object = c->config,
        .base = "",
    };
    size_t i;

    fill_defaults(c, &whole, "");
    for (i = 0; i < c->spec->n_sections; i++)
        fill_section(c, &c->spec->sections[i]);
}

/* ---- the load ---------------------------------------------------------------------------- */

static void check_init(struct conf_check *c, const struct conf_spec *spec, void *config,
                       struct conf_errors *errors)
{
    *c = (struct conf_check){.spec = spec, .config = config, .errors = errors};
    memset(config, 0, spec->size);
}

static void check_fini(struct conf_check *c)
{
    struct hnode *n;
    size_t slot = 0;

    /* Each node is gone before the next is asked for, so the walk starts again. */
    while ((n = hmap_walk(&c->places, &slot, NULL)) != NULL) {
        struct conf_place *p = hmap_entry(n, struct conf_place, node);

        slot = 0;
        hmap_remove(&c->places, n);
        xfree(p->path);
        xfree(p);
    }
    hmap_fini(&c->places);
    while (c->n_files) {
        struct conf_file *f = c->files[--c->n_files];

        xfree(f->name);
        xfree(f->directory);
        xfree(f);
    }
}

/* For those who must be able to read them again. */
static void keep_files(struct conf_check *c)
{
    struct conf_list *list = (void *)((char *)c->config + c->spec->files_offset);
    unsigned i;

    if (!c->spec->files_offset)
        return;
    list->items = xcalloc(c->n_files, sizeof(*list->items));
    for (i = 0; i < c->n_files; i++) {
        const char *slash = strrchr(c->files[i]->name, '/');
        struct str path = STR_INIT;

        str_addf(&path, "%s/%s", c->files[i]->directory, slash ? slash + 1 : c->files[i]->name);
        list->items[list->n++] = str_take(&path);
    }
}

/* Everything after the files are read. */
static int finish(struct conf_check *c)
{
    fill_all(c);
    keep_files(c);
    if (c->errors->n == 0 && c->spec->check)
        c->spec->check(c->config, c);
    check_fini(c);
    if (c->errors->n == 0)
        return 0;
    conf_clear(c->spec, c->config);
    return -1;
}

/* False: it cannot be read. */
static bool read_all(struct conf_check *c, const char *path)
{
    struct str text = STR_INIT;
    struct conf_file *file;
    struct stat st;
    struct err e;

    if (file_read(path, CONF_FILE_BYTES, &text, &e) < 0) {
        conf_errors_add(c->errors, 0, xstrdup(e.text));
        str_fini(&text);
        return false;
    }
    file = file_new(c, path, directory_of(path), NULL);
    if (stat(path, &st) == 0) {
        file->dev = st.st_dev;
        file->ino = st.st_ino;
    }
    load_file_text(c, file, str_view(&text));
    str_fini(&text);
    return true;
}

int conf_load(const char *path, const struct conf_spec *spec, void *config,
              struct conf_errors *errors)
{
    struct conf_check c;

    check_init(&c, spec, config, errors);
    return read_all(&c, path) ? finish(&c) : -1;
}

bool conf_load_anyway(const char *path, const struct conf_spec *spec, void *config,
                      struct conf_errors *errors)
{
    struct conf_check c;

    check_init(&c, spec, config, errors);
    if (!read_all(&c, path))
        return false;
    fill_all(&c);
    check_fini(&c);
    return true;
}

int conf_load_text(const char *name, const char *directory, struct view text,
                   const struct conf_spec *spec, void *config, struct conf_errors *errors)
{
    struct conf_check c;

    check_init(&c, spec, config, errors);
    load_file_text(&c, file_new(&c, name, xstrdup(directory), NULL), text);
    return finish(&c);
}

static void clear_rows(const struct conf_row *rows, size_t n, void *object)
{
    size_t i;

    for (i = 0; i < n; i++)
        conf_value_clear(&rows[i], object);
}

static void forget_files(const struct conf_spec *spec, void *config)
{
    struct conf_list *list = (void *)((char *)config + spec->files_offset);
    size_t i;

    if (!spec->files_offset)
        return;
    for (i = 0; i < list->n; i++)
        xfree(list->items[i]);
    xfree(list->items);
}

void conf_clear(const struct conf_spec *spec, void *config)
{
    size_t i, k;

    forget_files(spec, config);
    clear_rows(spec->rows, spec->n_rows, config);
    for (i = 0; i < spec->n_sections; i++) {
        const struct conf_section *s = &spec->sections[i];

        for (k = 0; k < conf_section_count(s, config); k++) {
            char *item = conf_section_item(s, config, k);

            clear_rows(s->rows, s->n_rows, item);
            xfree(*(char **)(void *)(item + s->name_offset));
        }
        xfree(*(char **)(void *)((char *)config + s->items_offset));
    }
    memset(config, 0, spec->size);
}
