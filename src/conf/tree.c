#include "conf/tree_priv.h"

#include <string.h>
#include <yaml.h>
#include "base/bug.h"
#include "base/utf8.h"
#include "base/xmem.h"
#include "conf/load.h"

struct reader {
    yaml_parser_t parser;
    struct view text;
    unsigned nodes;
    unsigned line; /* of the error */
    struct err *e;
};

static int complain(struct reader *r, size_t line0, const char *text)
{
    r->line = (unsigned)line0 + 1;
    return err_set(r->e, ERR_INVALID, "%s", text);
}

/* The line of a byte, counted from 0. */
static size_t line_of(struct view text, size_t offset)
{
    size_t i, line = 0;

    for (i = 0; i < offset && i < text.n; i++)
        line += text.p[i] == '\n';
    return line;
}

/* A blank past the end. */
static char character_at(const struct reader *r, size_t at)
{
    return at < r->text.n && r->text.p[at] ? r->text.p[at] : ' ';
}

/* What libyaml says, with a hint for the two mistakes that its words do not help with. */
static int syntax_error(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    size_t at = p->problem_mark.index;

    if (p->error == YAML_READER_ERROR) {
        r->line = (unsigned)line_of(r->text, p->problem_offset) + 1;
        return err_set(r->e, ERR_INVALID, "not a text file: %s", p->problem);
    }
    r->line = (unsigned)p->problem_mark.line + 1;
    if (character_at(r, at) == '\t')
        return err_set(r->e, ERR_INVALID, "a tab: YAML is indented with spaces");
    if ((p->context && strstr(p->context, "an alias")) || strchr("*%@`", character_at(r, at)))
        return err_set(r->e, ERR_INVALID, "a value that begins with *, %%, @ or ` needs quotes");
    return err_set(r->e, ERR_INVALID, "not YAML: %s%s%s", p->problem ? p->problem : "broken",
                   p->context ? " " : "", p->context ? p->context : "");
}

static int next_event(struct reader *r, yaml_event_t *ev)
{
    return yaml_parser_parse(&r->parser, ev) ? 0 : syntax_error(r);
}

/* Anchors could make a small file large, and tags would let YAML decide on types. */
static int refuse_properties(struct reader *r, const yaml_event_t *ev, const yaml_char_t *anchor,
                             const yaml_char_t *tag)
{
    if (anchor)
        return complain(r, ev->start_mark.line, "anchors (&name) are not supported");
    if (tag)
        return complain(r, ev->start_mark.line, "tags (!name) are not supported");
    return 0;
}

static void add_child(struct conf_node *parent, struct conf_node *child)
{
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
}

static int check_scalar(struct reader *r, const yaml_event_t *ev)
{
    const char *p = (const char *)ev->data.scalar.value;
    size_t n = ev->data.scalar.length, i;

    for (i = 0; i < n; i++) {
        if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f)
            return complain(r, ev->start_mark.line,
                            "keys and values are one line each, without control characters");
    }
    return refuse_properties(r, ev, ev->data.scalar.anchor, ev->data.scalar.tag);
}

static int read_node(struct reader *r, const yaml_event_t *ev, unsigned depth,
                     struct conf_node *node);

/* A key and what follows it. */
static int read_pair(struct reader *r, const yaml_event_t *key, unsigned depth,
                     struct conf_node *map)
{
    struct conf_node *child;
    yaml_event_t ev;
    int rc;

    if (key->type != YAML_SCALAR_EVENT)
        return complain(r, key->start_mark.line, "a key must be a plain word");
    if (check_scalar(r, key) < 0)
        return -1;
    child = XNEW(struct conf_node);
    add_child(map, child);
    child->key = xmemdup0(key->data.scalar.value, key->data.scalar.length);
    child->key_line = (unsigned)key->start_mark.line + 1;
    if (next_event(r, &ev) < 0)
        return -1;
    rc = read_node(r, &ev, depth, child);
    yaml_event_delete(&ev);
    if (child->absent)
        child->line = child->key_line;
    return rc;
}

static int read_element(struct reader *r, const yaml_event_t *ev, unsigned depth,
                        struct conf_node *list)
{
    struct conf_node *child = XNEW(struct conf_node);

    add_child(list, child);
    return read_node(r, ev, depth, child);
}

/* The children of a mapping or list, up to its end. */
static int read_children(struct reader *r, unsigned depth, struct conf_node *node)
{
    bool map = node->kind == CONF_NODE_MAP;
    yaml_event_type_t end = map ? YAML_MAPPING_END_EVENT : YAML_SEQUENCE_END_EVENT;
    bool more = true;
    int rc = 0;

    while (rc == 0 && more) {
        yaml_event_t ev;

        if (next_event(r, &ev) < 0)
            return -1;
        more = ev.type != end;
        if (more)
            rc = map ? read_pair(r, &ev, depth + 1, node) : read_element(r, &ev, depth + 1, node);
        yaml_event_delete(&ev);
    }
    return rc;
}

static int read_scalar(struct reader *r, const yaml_event_t *ev, struct conf_node *node)
{
    if (check_scalar(r, ev) < 0)
        return -1;
    node->kind = CONF_NODE_SCALAR;
    node->text = xmemdup0(ev->data.scalar.value, ev->data.scalar.length);
    node->absent = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && !ev->data.scalar.length;
    return 0;
}

static int read_node(struct reader *r, const yaml_event_t *ev, unsigned depth,
                     struct conf_node *node)
{
    node->line = (unsigned)ev->start_mark.line + 1;
    if (depth > CONF_DEPTH_MAX)
        return complain(r, ev->start_mark.line, "nested too deeply");
    if (++r->nodes > CONF_NODES_MAX)
        return complain(r, ev->start_mark.line, "too many values for a configuration");
    switch (ev->type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r, ev, node);
    case YAML_SEQUENCE_START_EVENT:
        node->kind = CONF_NODE_LIST;
        if (refuse_properties(r, ev, ev->data.sequence_start.anchor,
                              ev->data.sequence_start.tag) < 0)
            return -1;
        return read_children(r, depth, node);
    case YAML_MAPPING_START_EVENT:
        node->kind = CONF_NODE_MAP;
        if (refuse_properties(r, ev, ev->data.mapping_start.anchor, ev->data.mapping_start.tag) < 0)
            return -1;
        return read_children(r, depth, node);
    case YAML_ALIAS_EVENT:
        return complain(r, ev->start_mark.line, "aliases (*name) are not supported");
    default:
        BUG("libyaml gave an event that cannot be here");
    }
}

/* The document's content; then there must be no other document. */
static int read_document(struct reader *r, const yaml_event_t *start, struct conf_node *root)
{
    yaml_event_t ev;
    int rc;

    if (start->data.document_start.tag_directives.start !=
        start->data.document_start.tag_directives.end)
        return complain(r, start->start_mark.line, "tags (%TAG) are not supported");
    if (next_event(r, &ev) < 0)
        return -1;
    rc = read_node(r, &ev, 1, root);
    if (rc == 0 && root->kind == CONF_NODE_SCALAR && root->absent) {
        XFREE(root->text);
        root->kind = CONF_NODE_MAP;
    } else if (rc == 0 && root->kind != CONF_NODE_MAP) {
        rc = complain(r, ev.start_mark.line, "the file must hold options: \"name: value\"");
    }
    yaml_event_delete(&ev);
    return rc;
}

/* Stream start, at most one document, stream end. */
static int read_stream(struct reader *r, struct conf_node *root)
{
    bool had_document = false;

    for (;;) {
        yaml_event_type_t type;
        yaml_event_t ev;
        int rc = 0;

        if (next_event(r, &ev) < 0)
            return -1;
        type = ev.type;
        if (type == YAML_DOCUMENT_START_EVENT) {
            rc = had_document ? complain(r, ev.start_mark.line,
                                         "a second document (---) is not supported")
                              : read_document(r, &ev, root);
            had_document = true;
        }
        yaml_event_delete(&ev);
        if (rc < 0 || type == YAML_STREAM_END_EVENT)
            return rc;
    }
}

struct conf_node *conf_tree_parse(struct view text, unsigned *line, struct err *e)
{
    struct conf_node *root = XNEW(struct conf_node);
    struct reader r = {.text = text, .e = e};
    int rc;

    root->kind = CONF_NODE_MAP;
    root->line = 1;
    if (!yaml_parser_initialize(&r.parser))
        BUG("out of memory");
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
    rc = read_stream(&r, root);
    yaml_parser_delete(&r.parser);
    if (rc == 0)
        return root;
    *line = r.line;
    conf_tree_free(root);
    return NULL;
}

/* As deep as the tree is: CONF_DEPTH_MAX. */
void conf_tree_free(struct conf_node *n)
{
    while (n) {
        struct conf_node *next = n->next;

        conf_tree_free(n->first);
        xfree(n->key);
        xfree(n->text);
        xfree(n);
        n = next;
    }
}
