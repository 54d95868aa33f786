/* Asking a policy. */
#include "policy/policy.h"

#include <netinet/in.h>
#include "policy/policy_priv.h"

enum { NO_RULE = -1 };

/* ---- who ---------------------------------------------------------------------------------- */

static bool identity_fits(const char *pattern, struct view identity)
{
    size_t n = strlen(pattern);

    if (identity.n == 0)
        return false;
    if (pattern[0] == '*' && n == 1)
        return true;
    if (pattern[0] == '*') /* "*.corp.example": ends in ".corp.example", with something before */
        return identity.n > n - 1 &&
               view_ieq(view_from(identity, identity.n - (n - 1)), view_str(pattern + 1));
    return view_ieq(identity, view_of(pattern, n));
}

static bool client_fits(const struct rule *r, const struct policy_query *q)
{
    bool from = r->n_from == 0, identity = r->n_identities == 0;
    size_t i;

    if (q->anyone)
        return !r->deny || (from && identity);
    for (i = 0; i < r->n_from && !from && q->from; i++)
        from = addr_range_has(&r->from[i], q->from);
    for (i = 0; i < r->n_identities && from && !identity; i++)
        identity = identity_fits(r->identities[i], q->identity);
    return from && identity;
}

static bool port_fits(const struct rule *r, struct ports own, uint16_t port)
{
    size_t i;

    if (own.first)
        return port >= own.first && port <= own.last;
    for (i = 0; i < r->n_ports; i++) {
        if (port >= r->ports[i].first && port <= r->ports[i].last)
            return true;
    }
    return false;
}

/* ---- where -------------------------------------------------------------------------------- */

struct search {
    const struct policy *p;
    const struct policy_query *q;
    bool deny_only;                  /* what denies an address, before `best` */
    size_t best;                     /* the first rule that fits, or the end */
    bool port_missed, client_missed; /* a rule would have allowed it but for that */
};

/* Ask the rules that name a place. */
static void ask(struct search *s, const struct place *pl)
{
    size_t i;

    for (i = 0; pl && i < pl->n && pl->entries[i].rule < s->best; i++) {
        const struct entry *entry = &pl->entries[i];
        const struct rule *r = &s->p->rules[entry->rule];

        if (s->deny_only && !r->deny)
            continue;
        if (!port_fits(r, entry->ports, s->q->dest->port)) {
            s->port_missed = s->port_missed || !r->deny;
        } else if (!client_fits(r, s->q)) {
            s->client_missed = s->client_missed || !r->deny;
        } else {
            s->best = entry->rule;
        }
    }
}

static void ask_name(struct search *s, const char *host)
{
    const char *dot;

    ask(s, place_by_name(s->p, PATTERN_NAME, view_str(host)));
    for (dot = strchr(host, '.'); dot; dot = strchr(dot + 1, '.'))
        ask(s, place_by_name(s->p, PATTERN_SUFFIX, view_str(dot + 1)));
    ask(s, &s->p->any_name);
}

/* Every range that has the address: it is cut to each length that there is. */
static void ask_ranges(struct search *s, const struct sockaddr *a)
{
    struct addr_range r = addr_range_of(a);
    const bool *there = r.family == AF_INET6 ? s->p->prefix6 : s->p->prefix4;

    if (r.family == 0)
        return;
    for (;; addr_range_widen(&r)) {
        if (there[r.prefix])
            ask(s, place_by_range(s->p, &r));
        if (r.prefix == 0)
            return;
    }
}

/* ---- verdicts ----------------------------------------------------------------------------- */

static const char *const address_reasons[ADDR_CLASSES] = {
    [ADDR_PUBLIC] = "IPv4 address inside IPv6", [ADDR_UNSPECIFIED] = "unspecified address",
    [ADDR_LOOPBACK] = "loopback address",       [ADDR_PRIVATE] = "private address",
    [ADDR_LINK_LOCAL] = "link-local address",   [ADDR_METADATA] = "cloud metadata address",
    [ADDR_CGNAT] = "carrier-grade NAT address", [ADDR_MULTICAST] = "multicast address",
    [ADDR_RESERVED] = "reserved address",       [ADDR_OWN] = "address of this machine",
};

static struct policy_verdict allowed(const struct policy *p, size_t index)
{
    return (struct policy_verdict){
        .allow = true, .rule = p->rules[index].name, .reason = "allowed", .index = (int)index};
}

static struct policy_verdict denied(const struct policy *p, const char *rule, const char *reason,
                                    int index)
{
    bool report = p->mode == POLICY_REPORT;

    return (struct policy_verdict){
        .allow = report, .would_deny = report, .rule = rule, .reason = reason, .index = index};
}

/* Report mode is there to find the rules that are missing. For these there is none to be found:
 * whoever asks for a cloud's secrets, or for what listens on this machine, is refused as ever. */
static struct policy_verdict insist(struct policy_verdict v, const struct sockaddr *a)
{
    const enum addr_class kind = addr_place(a).kind;

    if (!v.would_deny || (kind != ADDR_METADATA && kind != ADDR_OWN && kind != ADDR_LOOPBACK &&
                          kind != ADDR_UNSPECIFIED))
        return v;
    return (struct policy_verdict){
        .rule = "address", .reason = address_reasons[kind], .index = v.index};
}

/* Does a range in the rule's hosts mean the address? */
static bool named(const struct rule *r, uint16_t port, const struct sockaddr *a)
{
    size_t i;

    for (i = 0; i < r->n_ranges; i++) {
        if (port_fits(r, r->ranges[i].ports, port) && addr_range_opens(&r->ranges[i].range, a))
            return true;
    }
    return false;
}

/* May a destination that rule `index` allows be at that address? */
static struct policy_verdict judge_address(const struct policy *p, size_t index,
                                           const struct policy_query *q, const struct sockaddr *a)
{
    const struct rule *r = &p->rules[index];
    struct addr_place place = addr_place(a);
    size_t i;

    if (place.kind == ADDR_PUBLIC && !place.embedded)
        return allowed(p, index);
    for (i = 0; i < r->n_addresses; i++) {
        if (addr_range_opens(&r->addresses[i], a))
            return allowed(p, index);
    }
    if (q->dest->literal && named(r, q->dest->port, a))
        return allowed(p, index);
    return denied(p, "address", address_reasons[place.kind], (int)index);
}

/* On the destination alone, before addresses that nobody may have. */
static struct policy_verdict decide(const struct policy *p, const struct policy_query *q)
{
    const struct sockaddr *a = (const struct sockaddr *)&q->dest->addr;
    struct search s = {.p = p, .q = q, .best = p->n_rules};

    if (q->dest->literal)
        ask_ranges(&s, a);
    else
        ask_name(&s, q->dest->host);
    ask(&s, &p->anywhere);
    if (s.best == p->n_rules)
        return denied(p, "default",
                      s.client_missed ? "no rule allows this client"
                      : s.port_missed ? "no rule allows this port"
                                      : "no rule allows it",
                      NO_RULE);
    if (p->rules[s.best].deny)
        return denied(p, p->rules[s.best].name, "denied by this rule", NO_RULE);
    return q->dest->literal ? judge_address(p, s.best, q, a) : allowed(p, s.best);
}

struct policy_verdict policy_decide(const struct policy *p, const struct policy_query *q)
{
    struct policy_verdict v = decide(p, q);

    return q->dest->literal ? insist(v, (const struct sockaddr *)&q->dest->addr) : v;
}

struct policy_verdict policy_check_address(const struct policy *p, const struct policy_query *q,
                                           const struct policy_verdict *first,
                                           const struct sockaddr *addr)
{
    struct search s = {.p = p, .q = q, .deny_only = true};

    if (first->would_deny)
        return insist(*first, addr);
    if (!first->allow || first->index < 0)
        return *first;
    if (q->dest->literal && addr_same(addr, (const struct sockaddr *)&q->dest->addr))
        return *first;
    s.best = (size_t)first->index;
    ask_ranges(&s, addr);
    if (s.best != (size_t)first->index)
        return insist(denied(p, p->rules[s.best].name, "address denied by this rule", NO_RULE),
                      addr);
    return insist(judge_address(p, s.best, q, addr), addr);
}
