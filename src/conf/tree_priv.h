/* A YAML file as a tree of mappings, lists and scalars, with the lines they stand at. */
#ifndef TR_CONF_TREE_PRIV_H
#define TR_CONF_TREE_PRIV_H

#include <stdbool.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/view.h"

enum conf_kind { CONF_NODE_SCALAR, CONF_NODE_LIST, CONF_NODE_MAP };

struct conf_node {
    enum conf_kind kind;
    unsigned line;     /* in a mapping: of the key, if the value says nothing */
    char *key;         /* in a mapping; else NULL */
    unsigned key_line;
    char *text;        /* of a scalar */
    bool absent;       /* a plain scalar without a character: "key:" */
    struct conf_node *first, *last; /* children */
    struct conf_node *next;
};

/* Parse. The tree is the caller's; an empty file is a mapping without children. NULL: `e` says
 * what is wrong and `*line` where. */
struct conf_node *conf_tree_parse(struct view text, unsigned *line, struct err *e) TR_MUST_USE;
void conf_tree_free(struct conf_node *n); /* NULL is fine */

#endif
