/*
 * Rules and what is asked of them. The input is lines: "a", "d" begin a rule that allows or denies;
 * "h", "p", "r", "f", "i" add a host, port, address, client's range and identity to it; "q" asks
 * for a destination.
 *
 * Oracle: a text that its check takes is taken by policy_new and the reverse; what is asked is
 * answered by a slow reader of the same rules with the same rule; an address inside passes only by
 * a rule that lists ranges.
 */
#include "fuzz/target.h"

#include <netinet/in.h>
#include <string.h>
#include "base/xmem.h"
#include "policy/policy_priv.h"

enum { RULES = 16, TEXTS = 8 };

struct fuzz_rule {
    bool deny;
    char name[4];
    char *texts[5][TEXTS]; /* hosts, ports, addresses, from, identities */
    size_t n[5];
};

static const char kinds[] = "hprfi";

static bool good(const struct fuzz_rule *r)
{
    int (*const checks[5])(const char *, struct err *) = {policy_check_host, policy_check_port,
                                                          policy_check_range, policy_check_range,
                                                          policy_check_identity};
    size_t k, i;

    for (k = 0; k < 5; k++) {
        for (i = 0; i < r->n[k]; i++) {
            if (checks[k](r->texts[k][i], NULL) < 0)
                return false;
        }
    }
    return !r->deny || r->n[2] == 0;
}

static bool port_fits_slowly(const struct fuzz_rule *r, struct ports own, uint16_t port)
{
    struct ports ports;
    size_t i;

    if (own.first)
        return port >= own.first && port <= own.last;
    for (i = 0; i < r->n[1]; i++) {
        ASSERT(ports_parse(view_str(r->texts[1][i]), &ports, NULL) == 0);
        if (port >= ports.first && port <= ports.last)
            return true;
    }
    return r->n[1] == 0 && (r->deny || port == 443);
}

static bool host_fits_slowly(const struct pattern *p, const struct dest *d)
{
    size_t n = strlen(d->host), m = strlen(p->name);

    switch (p->kind) {
    case PATTERN_NAME:
        return !d->literal && strcmp(p->name, d->host) == 0;
    case PATTERN_SUFFIX:
        return !d->literal && n > m + 1 && d->host[n - m - 1] == '.' &&
               strcmp(d->host + n - m, p->name) == 0;
    case PATTERN_RANGE:
        return d->literal && addr_range_has(&p->range, (const struct sockaddr *)&d->addr);
    case PATTERN_ANY_NAME:
        return !d->literal;
    }
    return false;
}

static bool fits_slowly(const struct fuzz_rule *r, const struct dest *d)
{
    struct pattern p;
    size_t i;

    if (r->n[3] || r->n[4])
        return false; /* nobody asks */
    for (i = 0; i < r->n[0]; i++) {
        ASSERT(pattern_parse(r->texts[0][i], &p, NULL) == 0);
        if (host_fits_slowly(&p, d) && port_fits_slowly(r, p.ports, d->port))
            return true;
    }
    return r->n[0] == 0 && port_fits_slowly(r, (struct ports){0, 0}, d->port);
}

static void check_inside(const struct policy *policy, const struct policy_query *q,
                         const struct policy_verdict *v, const struct fuzz_rule *r)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x0a000001)};
    struct policy_verdict at =
        policy_check_address(policy, q, v, (const struct sockaddr *)(void *)&in);

    if (!q->dest->literal && at.allow)
        ASSERT(r->n[2] > 0);
}

static void ask(const struct policy *policy, const struct fuzz_rule *rules, size_t n,
                struct view where)
{
    struct dest d;
    struct policy_query q = {.dest = &d};
    struct policy_verdict v;
    size_t i;

    if (dest_parse(where, 443, &d, NULL) < 0)
        return;
    v = policy_decide(policy, &q);
    for (i = 0; i < n && !fits_slowly(&rules[i], &d);)
        i++;
    if (i == n)
        ASSERT(!v.allow && strcmp(v.rule, "default") == 0);
    else if (rules[i].deny)
        ASSERT(!v.allow && strcmp(v.rule, rules[i].name) == 0);
    else
        ASSERT(strcmp(v.rule, v.allow ? rules[i].name : "address") == 0 && v.index == (int)i);
    if (i < n && v.allow)
        check_inside(policy, &q, &v, &rules[i]);
}

static struct policy *build(const struct fuzz_rule *rules, size_t n)
{
    struct policy_rule_opts o[RULES];
    struct policy *p;
    struct err e = {0};
    bool all = true;
    size_t i;

    for (i = 0; i < n; i++) {
        const struct fuzz_rule *r = &rules[i];

        o[i] = (struct policy_rule_opts){
            .name = r->name,
            .deny = r->deny,
            .hosts = (const char *const *)r->texts[0],
            .n_hosts = r->n[0],
            .ports = (const char *const *)r->texts[1],
            .n_ports = r->n[1],
            .addresses = (const char *const *)r->texts[2],
            .n_addresses = r->n[2],
            .from = (const char *const *)r->texts[3],
            .n_from = r->n[3],
            .identities = (const char *const *)r->texts[4],
            .n_identities = r->n[4],
        };
        all = all && good(r);
    }
    p = policy_new(&(struct policy_opts){.rules = o, .n_rules = n}, &e);
    ASSERT((p != NULL) == all);
    ASSERT(p || e.text[0]);
    return p;
}

/* Take a line off the front. */
static struct view next_line(struct view *in)
{
    const char *end = in->n ? memchr(in->p, '\n', in->n) : NULL;
    struct view line = end ? view_of(in->p, (size_t)(end - in->p)) : *in;

    *in = view_from(*in, line.n + (end != NULL));
    return line;
}

static size_t read_rules(struct view in, struct fuzz_rule *rules)
{
    size_t n = 0;

    while (in.n) {
        struct view line = next_line(&in);
        const char *kind = line.n && line.p[0] ? strchr(kinds, line.p[0]) : NULL;
        struct fuzz_rule *r = n ? &rules[n - 1] : NULL;

        if (line.n && (line.p[0] == 'a' || line.p[0] == 'd') && n < RULES) {
            r = &rules[n++];
            r->deny = line.p[0] == 'd';
            r->name[0] = 'r';
            r->name[1] = (char)('a' + n);
        } else if (kind && r && r->n[kind - kinds] < TEXTS) {
            r->texts[kind - kinds][r->n[kind - kinds]++] = xmemdup0(line.p + 1, line.n - 1);
        }
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_rule rules[RULES] = {0};
    struct view in = view_of(data, size);
    size_t n = read_rules(in, rules), i, k, t;
    struct policy *p = build(rules, n);

    while (p && in.n) {
        struct view line = next_line(&in);

        if (line.n && line.p[0] == 'q')
            ask(p, rules, n, view_from(line, 1));
    }
    policy_free(&p);
    for (i = 0; i < n; i++) {
        for (k = 0; k < 5; k++) {
            for (t = 0; t < rules[i].n[k]; t++)
                xfree(rules[i].texts[k][t]);
        }
    }
    return 0;
}
