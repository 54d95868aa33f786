/* A load under way: what load.c and apply.c share. spec->check sees it as struct conf_check. */
#ifndef TR_CONF_LOAD_PRIV_H
#define TR_CONF_LOAD_PRIV_H

#include <sys/types.h>
#include "base/err.h"
#include "base/hmap.h"
#include "base/str.h"
#include "conf/load.h"
#include "conf/tree_priv.h"

struct conf_file {
    char *name;      /* as errors show it */
    char *directory; /* absolute: where its relative paths start */
    unsigned index;  /* in the order of reading */
    unsigned depth;  /* of inclusion; 0: the file that was asked for */
    const struct conf_file *parent;
    dev_t dev;
    ino_t ino;
};

/* Where something was given: an option, an item of a section or a group. */
struct conf_place {
    struct hnode node;
    char *path;
    const struct conf_file *file;
    unsigned line;
    bool option;
};

struct conf_check {
    const struct conf_spec *spec;
    void *config;
    struct conf_errors *errors;
    struct conf_file *files[CONF_FILES_MAX];
    unsigned n_files;
    struct hmap places;
    bool incomplete; /* a file could not be read to its end: what is missing may be in there */
};

/* One struct that rows fill: the whole configuration, or one item of a section. */
struct conf_scope {
    const struct conf_row *rows;
    size_t n_rows;
    void *object;
    const char *base; /* path of the item; "" for the whole */
};

struct conf_place *conf_place_find(const struct conf_check *c, const char *path);

/* Remember where `path` was given, if nothing is remembered yet. */
void conf_place_add(struct conf_check *c, const char *path, const struct conf_file *file,
                    unsigned line, bool option);

/* Report at a place in a file. `path` may be NULL. */
void conf_complain_at(struct conf_check *c, const struct conf_file *file, unsigned line,
                      const char *path, const char *fmt, ...) TR_PRINTF(5, 6);

/* The same for a value: shows it, cut and escaped, before the text of the error. */
void conf_complain_value(struct conf_check *c, const struct conf_file *file, unsigned line,
                         const char *path, const char *value, const struct err *e);

/* Put what a file says into its rows. `include` at its top is left to the caller. */
void conf_apply(struct conf_check *c, const struct conf_file *file, const struct conf_node *root);

/* The items of a section, and the one with that name (NULL if there is none). */
void *conf_section_item(const struct conf_section *s, const void *config, size_t i);
size_t conf_section_count(const struct conf_section *s, const void *config);
const char *conf_item_name(const struct conf_section *s, const void *item);
void *conf_section_find(const struct conf_section *s, const void *config, const char *name);

/* Append `text` with its variables expanded. -1: `e` says what is wrong with it. */
int conf_expand(const char *text, struct str *out, struct err *e) TR_MUST_USE;

#endif
