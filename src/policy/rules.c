/* From rules as they are configured to a policy. */
#include <stdio.h>
#include "base/hash.h"
#include "base/xmem.h"
#include "policy/policy_priv.h"

enum { IDENTITY_MAX = 255 };

static const char host_hint[] = "use a name, *.NAME or a range of addresses, each perhaps with "
                                ":PORT, such as github.com:443";

/* ---- texts -------------------------------------------------------------------------------- */

static int port_number(struct view text, uint16_t *out)
{
    unsigned long v = 0;
    size_t i;

    for (i = 0; i < text.n && i < 6 && text.p[i] >= '0' && text.p[i] <= '9'; i++)
        v = v * 10 + (unsigned long)(text.p[i] - '0');
    if (i == 0 || i != text.n || v == 0 || v > 65535)
        return -1;
    *out = (uint16_t)v;
    return 0;
}

int ports_parse(struct view text, struct ports *out, struct err *e)
{
    const char *dash = text.n ? memchr(text.p, '-', text.n) : NULL;
    struct view first = dash ? view_of(text.p, (size_t)(dash - text.p)) : text;
    struct view last = dash ? view_from(text, first.n + 1) : text;

    if (port_number(first, &out->first) < 0 || port_number(last, &out->last) < 0 ||
        out->first > out->last)
        return err_set(e, ERR_INVALID, "use a port or a range of them, such as 443 or 8000-8100");
    return 0;
}

/* Cut the ports off the end: "[v6]:P", "host:P"; several colons without brackets are IPv6. */
static int split_ports(struct view text, struct view *host, struct ports *ports, struct err *e)
{
    size_t end = 1; /* of what is in brackets */
    const char *colon = memchr(text.p, ':', text.n);

    *ports = (struct ports){0, 0};
    *host = text;
    while (end < text.n && text.p[end] != ']')
        end++;
    if (end < text.n && text.p[0] == '[') {
        *host = view_of(text.p + 1, end - 1);
        text = view_from(text, end + 1);
        if (!memchr(host->p, ':', host->n) || (text.n && text.p[0] != ':'))
            return err_set(e, ERR_INVALID, "%s", host_hint);
        return text.n ? ports_parse(view_from(text, 1), ports, e) : 0;
    }
    if (!colon || memchr(colon + 1, ':', text.n - (size_t)(colon - text.p) - 1))
        return 0;
    *host = view_of(text.p, (size_t)(colon - text.p));
    return ports_parse(view_from(text, host->n + 1), ports, e);
}

/* A name, as destinations are spelled; or an address, which must be spelled as usual. */
static int parse_host(struct view host, struct pattern *out, struct err *e)
{
    struct dest d;

    if (dest_parse(host, 443, &d, NULL) < 0)
        return err_set(e, ERR_INVALID, "%s", host_hint);
    if (!d.literal) {
        memcpy(out->name, d.host, sizeof(out->name));
        return 0;
    }
    if (out->kind == PATTERN_SUFFIX || !view_is(host, d.host))
        return err_set(e, ERR_INVALID, "use %s", d.host);
    out->kind = PATTERN_RANGE;
    return addr_range_parse(view_str(d.host), &out->range, e);
}

int pattern_parse(const char *text, struct pattern *out, struct err *e)
{
    struct view host;

    memset(out, 0, sizeof(*out));
    if (strstr(text, "://"))
        return err_set(e, ERR_INVALID, "use a host and perhaps a port, not a URL: github.com:443");
    if (split_ports(view_str(text), &host, &out->ports, e) < 0)
        return -1;
    if (view_is(host, "*")) {
        out->kind = PATTERN_ANY_NAME;
        return 0;
    }
    if (memchr(host.p, ':', host.n) || memchr(host.p, '/', host.n)) {
        out->kind = PATTERN_RANGE;
        return addr_range_parse(host, &out->range, e);
    }
    if (view_starts(host, VIEW_LIT("*."))) {
        out->kind = PATTERN_SUFFIX;
        host = view_from(host, 2);
    }
    if (memchr(host.p, '*', host.n))
        return err_set(e, ERR_INVALID,
                       "use * for whole labels at the beginning only, such as *.corp.example");
    return parse_host(host, out, e);
}

int policy_check_host(const char *text, struct err *e)
{
    struct pattern pattern;

    return pattern_parse(text, &pattern, e);
}

int policy_check_port(const char *text, struct err *e)
{
    struct ports ports;

    return ports_parse(view_str(text), &ports, e);
}

int policy_check_range(const char *text, struct err *e)
{
    struct addr_range range;

    return addr_range_parse(view_str(text), &range, e);
}

int policy_check_identity(const char *text, struct err *e)
{
    const char *rest = strncmp(text, "*.", 2) == 0 ? text + 2 : text;
    size_t n = strlen(text), i;

    for (i = 0; i < n && (unsigned char)text[i] > 0x20 && text[i] != 0x7f;)
        i++;
    if (n == 0 || n > IDENTITY_MAX || i < n || *rest == '\0' ||
        (strchr(rest, '*') && strcmp(text, "*") != 0))
        return err_set(e, ERR_INVALID,
                       "use the name of a client, such as build-7 or *.corp.example");
    return 0;
}

/* ---- places ------------------------------------------------------------------------------- */

static uint64_t hash_name(enum pattern_kind kind, struct view name)
{
    return hash_bytes(name.p, name.n) + (uint64_t)kind;
}

static uint64_t hash_range(const struct addr_range *r)
{
    unsigned char key[18];

    key[0] = r->family == AF_INET6;
    key[1] = (unsigned char)r->prefix;
    memcpy(key + 2, r->bits, 16);
    return hash_bytes(key, sizeof(key));
}

struct place *place_by_name(const struct policy *p, enum pattern_kind kind, struct view name)
{
    uint64_t hash = hash_name(kind, name);
    struct hnode *n;

    for (n = hmap_first(&p->places, hash); n; n = hmap_next(n, hash)) {
        struct place *pl = hmap_entry(n, struct place, node);

        if (pl->kind == kind && view_is(name, pl->name))
            return pl;
    }
    return NULL;
}

struct place *place_by_range(const struct policy *p, const struct addr_range *r)
{
    uint64_t hash = hash_range(r);
    struct hnode *n;

    for (n = hmap_first(&p->places, hash); n; n = hmap_next(n, hash)) {
        struct place *pl = hmap_entry(n, struct place, node);

        if (pl->kind == PATTERN_RANGE && pl->range.family == r->family &&
            pl->range.prefix == r->prefix && memcmp(pl->range.bits, r->bits, 16) == 0)
            return pl;
    }
    return NULL;
}

static struct place *place_of(struct policy *p, const struct pattern *pattern)
{
    bool range = pattern->kind == PATTERN_RANGE;
    struct view name = view_str(pattern->name);
    struct place *pl;

    if (pattern->kind == PATTERN_ANY_NAME)
        return &p->any_name;
    pl = range ? place_by_range(p, &pattern->range) : place_by_name(p, pattern->kind, name);
    if (pl)
        return pl;
    pl = XNEW(struct place);
    pl->kind = pattern->kind;
    pl->name = range ? NULL : xstrdup(pattern->name);
    pl->range = pattern->range;
    if (range && pattern->range.family == AF_INET6)
        p->prefix6[pattern->range.prefix] = true;
    else if (range)
        p->prefix4[pattern->range.prefix] = true;
    hmap_insert(&p->places, &pl->node, range ? hash_range(&pl->range) : hash_name(pl->kind, name));
    return pl;
}

/* Rules come in their order, so entries are sorted by rule. */
static void place_add(struct place *pl, size_t rule, struct ports ports)
{
    if (pl->n == pl->cap) {
        pl->cap = pl->cap ? pl->cap * 2 : 1;
        pl->entries = xrealloc(pl->entries, pl->cap * sizeof(*pl->entries));
    }
    pl->entries[pl->n++] = (struct entry){rule, ports};
}

/* ---- rules -------------------------------------------------------------------------------- */

static int complain(struct err *e, const char *rule, const char *what, const char *value)
{
    return err_prefix(e, "rule %s: %s: \"%.80s\"", rule, what, value);
}

static int take_ports(struct rule *r, const struct policy_rule_opts *o, struct err *e)
{
    size_t i;

    r->ports = xcalloc(o->n_ports + 1, sizeof(*r->ports));
    for (i = 0; i < o->n_ports; i++) {
        if (ports_parse(view_str(o->ports[i]), &r->ports[r->n_ports++], e) < 0)
            return complain(e, o->name, "ports", o->ports[i]);
    }
    if (r->n_ports == 0) /* nothing that is denied passes by way of another port */
        r->ports[r->n_ports++] = o->deny ? (struct ports){1, 65535} : (struct ports){443, 443};
    return 0;
}

static int take_ranges(const struct policy_rule_opts *o, bool from, struct rule *r, struct err *e)
{
    const char *const *texts = from ? o->from : o->addresses;
    size_t n = from ? o->n_from : o->n_addresses, i;
    struct addr_range *ranges = xcalloc(n + 1, sizeof(*ranges));

    if (from)
        r->from = ranges, r->n_from = n;
    else
        r->addresses = ranges, r->n_addresses = n;
    for (i = 0; i < n; i++) {
        if (addr_range_parse(view_str(texts[i]), &ranges[i], e) < 0)
            return complain(e, o->name, from ? "from" : "addresses", texts[i]);
    }
    return 0;
}

static int take_identities(struct rule *r, const struct policy_rule_opts *o, struct err *e)
{
    size_t i;

    r->identities = xcalloc(o->n_identities + 1, sizeof(*r->identities));
    for (i = 0; i < o->n_identities; i++) {
        if (policy_check_identity(o->identities[i], e) < 0)
            return complain(e, o->name, "identity", o->identities[i]);
        r->identities[r->n_identities++] = xstrdup(o->identities[i]);
    }
    return 0;
}

static int take_hosts(struct policy *p, size_t index, const struct policy_rule_opts *o,
                      struct err *e)
{
    struct rule *r = &p->rules[index];
    struct pattern pattern;
    size_t i;

    r->ranges = xcalloc(o->n_hosts + 1, sizeof(*r->ranges));
    for (i = 0; i < o->n_hosts; i++) {
        if (pattern_parse(o->hosts[i], &pattern, e) < 0)
            return complain(e, o->name, "hosts", o->hosts[i]);
        place_add(place_of(p, &pattern), index, pattern.ports);
        if (pattern.kind == PATTERN_RANGE)
            r->ranges[r->n_ranges++] = (struct rule_range){pattern.range, pattern.ports};
    }
    if (o->n_hosts == 0)
        place_add(&p->anywhere, index, (struct ports){0, 0});
    return 0;
}

static int take_rule(struct policy *p, const struct policy_rule_opts *o, struct err *e)
{
    size_t index = p->n_rules++;
    struct rule *r = &p->rules[index];

    r->name = xstrdup(o->name);
    r->deny = o->deny;
    if (o->deny && o->n_addresses)
        return err_set(e, ERR_INVALID,
                       "rule %s: addresses: a rule that denies has none; use a range in hosts",
                       o->name);
    if (take_ports(r, o, e) < 0 || take_ranges(o, false, r, e) < 0 ||
        take_ranges(o, true, r, e) < 0 || take_identities(r, o, e) < 0)
        return -1;
    return take_hosts(p, index, o, e);
}

struct policy *policy_new(const struct policy_opts *o, struct err *e)
{
    struct policy *p = XNEW(struct policy);
    size_t i;

    p->mode = o->mode;
    p->rules = xcalloc(o->n_rules + 1, sizeof(*p->rules));
    for (i = 0; i < o->n_rules; i++) {
        if (take_rule(p, &o->rules[i], e) < 0) {
            policy_free(&p);
            return NULL;
        }
    }
    return p;
}

static void free_rule(struct rule *r)
{
    size_t i;

    for (i = 0; i < r->n_identities; i++)
        xfree(r->identities[i]);
    xfree(r->identities);
    xfree(r->name);
    xfree(r->ports);
    xfree(r->ranges);
    xfree(r->addresses);
    xfree(r->from);
}

static void free_places(struct policy *p)
{
    struct hnode *n = NULL, *next;
    size_t slot = 0;

    n = hmap_walk(&p->places, &slot, NULL);
    while (n) {
        struct place *pl = hmap_entry(n, struct place, node);

        next = hmap_walk(&p->places, &slot, n);
        xfree(pl->name);
        xfree(pl->entries);
        xfree(pl);
        n = next;
    }
    hmap_fini(&p->places);
    xfree(p->any_name.entries);
    xfree(p->anywhere.entries);
}

void policy_free(struct policy **p)
{
    size_t i;

    if (!*p)
        return;
    for (i = 0; i < (*p)->n_rules; i++)
        free_rule(&(*p)->rules[i]);
    xfree((*p)->rules);
    free_places(*p);
    XFREE(*p);
}
