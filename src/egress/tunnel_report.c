#include "egress/tunnel_report.h"

#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/hmap.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/json.h"

/* Stands for all groups past the limit. No destination, rule or address is written so. */
#define THE_REST "(others)"

struct row {
    uint64_t id;
    struct str json;
};

struct group {
    struct hnode node;
    char *name; /* NULL: nobody, not known */
    uint64_t open, up, down;
    int64_t oldest_ns; /* monotonic: when the oldest one began */
};

struct tunnel_part {
    uint64_t open, matched;
    struct row *rows; /* the newest first */
    size_t n_rows;
    struct hmap groups;
};

static const char *const by_names[] = {
    [TUNNEL_EACH] = "",
    [TUNNEL_BY_DESTINATION] = "destination",
    [TUNNEL_BY_IDENTITY] = "identity",
    [TUNNEL_BY_CLIENT] = "client",
    [TUNNEL_BY_RULE] = "rule",
};

int tunnel_by_parse(const char *text, enum tunnel_by *by)
{
    size_t i;

    *by = TUNNEL_EACH;
    if (!text)
        return 0;
    for (i = TUNNEL_BY_DESTINATION; i < ARRAY_LEN(by_names); i++) {
        if (strcmp(text, by_names[i]) == 0) {
            *by = (enum tunnel_by)i;
            return 0;
        }
    }
    return -1;
}

/* --- in the worker ------------------------------------------------------------------------ */

struct taking {
    struct tunnel_part *part;
    const struct tunnel_ask *ask;
    int64_t now;
};

static struct tunnel_part *part_new(void)
{
    struct tunnel_part *p = XNEW(struct tunnel_part);

    p->groups = HMAP_INIT;
    return p;
}

static struct group *group_find(const struct hmap *m, const char *name, uint64_t hash)
{
    struct hnode *n;

    for (n = hmap_first(m, hash); n; n = hmap_next(n, hash)) {
        struct group *g = hmap_entry(n, struct group, node);

        if (!g->name == !name && (!name || strcmp(g->name, name) == 0))
            return g;
    }
    return NULL;
}

/* The group of that name, made if there is room for one more, else the rest's. */
static struct group *group_of(struct hmap *m, const char *name, size_t max)
{
    uint64_t hash = name ? hash_bytes(name, strlen(name)) : 0;
    struct group *g = group_find(m, name, hash);

    if (g)
        return g;
    if (m->count >= max && (!name || strcmp(name, THE_REST) != 0))
        return group_of(m, THE_REST, max);
    g = XNEW(struct group);
    g->name = name ? xstrdup(name) : NULL;
    g->oldest_ns = INT64_MAX;
    hmap_insert(m, &g->node, hash);
    return g;
}

static bool is_wanted(const struct passage_shown *p, const char *client, const char *search)
{
    const char *const texts[] = {p->destination, p->identity, client, p->rule,
                                 p->listener,    p->kind,     p->via, p->dialled};
    size_t i;

    for (i = 0; i < ARRAY_LEN(texts); i++) {
        if (str_found(texts[i], search))
            return true;
    }
    return false;
}

static const char *name_of(const struct passage_shown *p, enum tunnel_by by,
                           char client[NET_ADDR_TEXT])
{
    switch (by) {
    case TUNNEL_BY_DESTINATION:
        return p->destination;
    case TUNNEL_BY_IDENTITY:
        return p->identity;
    case TUNNEL_BY_CLIENT:
        return net_addr_ip(p->from, client);
    default:
        return p->rule;
    }
}

static void take_group(struct taking *t, const struct passage_shown *p)
{
    char client[NET_ADDR_TEXT];
    const char *name = name_of(p, t->ask->by, client);
    struct group *g = group_of(&t->part->groups, name, TUNNEL_GROUPS_MAX);

    g->open++;
    g->up += p->up;
    g->down += p->down;
    g->oldest_ns = TR_MIN(g->oldest_ns, p->start_mono_ns);
}

static void write_row(struct str *out, const struct passage_shown *p, const char *client,
                      int64_t now)
{
    struct json j = json_to(out);

    json_open(&j, NULL, '{');
    json_uint(&j, "id", p->id);
    json_text(&j, "kind", view_str(p->kind));
    json_text(&j, "listener", view_str(p->listener));
    json_text(&j, "client", view_str(client));
    json_text(&j, "identity", view_str(p->identity));
    json_text(&j, "destination", view_str(p->destination));
    json_text(&j, "dialled", view_str(p->dialled));
    json_text(&j, "via", view_str(p->via));
    json_text(&j, "rule", view_str(p->rule));
    json_time(&j, "started", p->start_wall_ns);
    json_seconds(&j, "age_seconds", now - p->start_mono_ns);
    json_uint(&j, "bytes_up", p->up);
    json_uint(&j, "bytes_down", p->down);
    json_seconds(&j, "idle_seconds", TR_MAX(now - p->active_mono_ns, 0));
    json_close(&j, '}');
}

static void take_one(void *ctx, const struct passage_shown *p)
{
    struct taking *t = ctx;
    struct tunnel_part *part = t->part;
    const struct tunnel_ask *ask = t->ask;
    char client[NET_ADDR_TEXT];
    bool has_room = ask->by == TUNNEL_EACH && part->n_rows < ask->limit;

    part->open++;
    client[0] = '\0';
    if (ask->search || has_room)
        net_addr_text(p->from, client);
    if (!is_wanted(p, client, ask->search))
        return;
    part->matched++;
    if (ask->by != TUNNEL_EACH) {
        take_group(t, p);
    } else if (has_room) {
        part->rows[part->n_rows].id = p->id;
        write_row(&part->rows[part->n_rows++].json, p, client, t->now);
    }
}

struct tunnel_part *tunnel_report_take(struct gate *g, const struct tunnel_ask *ask)
{
    struct taking t = {part_new(), ask, clock_mono_ns()};

    if (ask->by == TUNNEL_EACH)
        t.part->rows = xcalloc(ask->limit, sizeof(*t.part->rows));
    gate_each_tunnel(g, take_one, &t);
    return t.part;
}

void tunnel_part_free(struct tunnel_part **pp)
{
    struct tunnel_part *p = *pp;
    struct hnode *n, *next;
    size_t slot = 0, i;

    *pp = NULL;
    if (!p)
        return;
    for (i = 0; i < p->n_rows; i++)
        str_fini(&p->rows[i].json);
    xfree(p->rows);
    for (n = hmap_walk(&p->groups, &slot, NULL); n; n = next) {
        struct group *g = hmap_entry(n, struct group, node);

        next = hmap_walk(&p->groups, &slot, n);
        xfree(g->name);
        xfree(g);
    }
    hmap_fini(&p->groups);
    xfree(p);
}

/* --- joined ------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    uint64_t ia = (*(const struct row *const *)a)->id, ib = (*(const struct row *const *)b)->id;

    return ia < ib ? 1 : ia > ib ? -1 : 0;
}

static void join_rows(struct tunnel_part *const *parts, size_t n, size_t limit, struct json *j)
{
    const struct row **all;
    size_t n_all = 0, i, k;

    for (i = 0; i < n; i++)
        n_all += parts[i] ? parts[i]->n_rows : 0;
    all = xcalloc(n_all + 1, sizeof(*all));
    n_all = 0;
    for (i = 0; i < n; i++) {
        for (k = 0; parts[i] && k < parts[i]->n_rows; k++)
            all[n_all++] = &parts[i]->rows[k];
    }
    qsort(all, n_all, sizeof(*all), by_id);
    json_open(j, "tunnels", '[');
    for (i = 0; i < TR_MIN(n_all, limit); i++) {
        json_name(j, NULL);
        str_addv(j->out, str_view(&all[i]->json));
    }
    json_close(j, ']');
    xfree(all);
}

static void merge(struct tunnel_part *into, const struct tunnel_part *part)
{
    struct hnode *n = NULL;
    size_t slot = 0;

    while ((n = hmap_walk(&part->groups, &slot, n)) != NULL) {
        const struct group *g = hmap_entry(n, struct group, node);
        struct group *to = group_of(&into->groups, g->name, SIZE_MAX);

        to->open += g->open;
        to->up += g->up;
        to->down += g->down;
        to->oldest_ns = TR_MIN(to->oldest_ns, g->oldest_ns);
    }
}

static int largest_first(const void *a, const void *b)
{
    const struct group *ga = *(const struct group *const *)a, *gb = *(struct group *const *)b;

    if (ga->open != gb->open)
        return ga->open < gb->open ? 1 : -1;
    if (!ga->name || !gb->name)
        return ga->name ? -1 : gb->name ? 1 : 0;
    return strcmp(ga->name, gb->name);
}

static void write_group(struct json *j, const struct group *g, int64_t now)
{
    json_open(j, NULL, '{');
    json_text(j, "name", view_str(g->name));
    json_uint(j, "open", g->open);
    json_uint(j, "bytes_up", g->up);
    json_uint(j, "bytes_down", g->down);
    json_seconds(j, "oldest_seconds", now - g->oldest_ns);
    json_close(j, '}');
}

static void join_groups(struct tunnel_part *const *parts, size_t n, size_t limit, struct json *j)
{
    struct tunnel_part *sum = part_new();
    const struct group **all;
    struct hnode *node = NULL;
    size_t slot = 0, n_all = 0, i;

    for (i = 0; i < n; i++) {
        if (parts[i])
            merge(sum, parts[i]);
    }
    all = xcalloc(sum->groups.count + 1, sizeof(*all));
    while ((node = hmap_walk(&sum->groups, &slot, node)) != NULL)
        all[n_all++] = hmap_entry(node, struct group, node);
    qsort(all, n_all, sizeof(*all), largest_first);
    json_open(j, "groups", '[');
    for (i = 0; i < TR_MIN(n_all, limit); i++)
        write_group(j, all[i], clock_mono_ns());
    json_close(j, ']');
    xfree(all);
    tunnel_part_free(&sum);
}

void tunnel_report_join(struct tunnel_part *const *parts, size_t n, const struct tunnel_ask *ask,
                        struct str *out)
{
    uint64_t open = 0, matched = 0;
    struct json j = json_to(out);
    size_t i;

    for (i = 0; i < n; i++) {
        open += parts[i] ? parts[i]->open : 0;
        matched += parts[i] ? parts[i]->matched : 0;
    }
    json_open(&j, NULL, '{');
    json_uint(&j, "open", open);
    json_uint(&j, "matched", matched);
    if (ask->by == TUNNEL_EACH)
        join_rows(parts, n, ask->limit, &j);
    else
        join_groups(parts, n, ask->limit, &j);
    json_close(&j, '}');
}
