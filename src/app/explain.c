#include "app/explain.h"

#include "rt/json.h"

static void add_address(struct explain *x, const struct net_addr *a, const struct policy_verdict *v)
{
    struct explain_address *to = &x->addresses[x->n++];

    net_addr_ip(a, to->ip);
    to->kind = addr_class((const struct sockaddr *)&a->ss, NULL);
    to->verdict = *v;
}

static void begin_literal(struct explain *x)
{
    struct net_addr a;

    if (net_addr_literal(view_str(x->dest.host), x->dest.port, &a) == 0)
        add_address(x, &a, &x->first);
}

int explain_begin(struct explain *x, const struct policy *policy, const struct net_parent *parent,
                  const struct explain_ask *ask, struct err *e)
{
    *x = (struct explain){.policy = policy, .q = {.identity = view_str(ask->identity)}};
    if (ask->from) {
        if (net_addr_literal(view_str(ask->from), 0, &x->from) < 0)
            return err_set(e, ERR_INVALID, "use an address, such as 10.0.0.7");
        x->q.from = (const struct sockaddr *)&x->from.ss;
    }
    if (dest_parse(view_str(ask->to), 0, &x->dest, &x->trouble) < 0) {
        x->first = x->verdict = (struct policy_verdict){
            .rule = "bad-authority", .reason = x->trouble.text, .index = -1};
        return 0;
    }
    x->q.dest = &x->dest;
    x->first = x->verdict = policy_decide(policy, &x->q);
    x->parent = net_parent_for(parent, x->dest.host, x->dest.port);
    if (x->dest.literal)
        begin_literal(x);
    else /* a name that is denied is not looked up */
        x->lookup = !x->parent && x->first.allow;
    return 0;
}

void explain_resolved(struct explain *x, const struct net_addr *addrs, size_t n,
                      const struct err *e)
{
    struct policy_verdict v;
    size_t i;

    if (n == 0)
        x->trouble = *e;
    for (i = 0; i < TR_MIN(n, (size_t)NET_RESOLVE_MAX); i++) {
        v = policy_check_address(x->policy, &x->q, &x->first,
                                 (const struct sockaddr *)&addrs[i].ss);
        add_address(x, &addrs[i], &v);
        /* One address that is allowed is enough: the others are not dialled. */
        if (i == 0 || !x->verdict.allow || (x->verdict.would_deny && !v.would_deny))
            x->verdict = v;
    }
}

const char *explain_word(const struct policy_verdict *v)
{
    return !v->allow ? "deny" : v->would_deny ? "would-deny" : "allow";
}

/* --- the answer --------------------------------------------------------------------------- */

static void add_verdict(struct json *j, const struct policy_verdict *v)
{
    json_text(j, "verdict", view_str(explain_word(v)));
    json_text(j, "rule", view_str(v->rule));
    json_text(j, "reason", view_str(v->reason));
}

static void add_parent(struct json *j, const struct net_parent *parent)
{
    struct str text = STR_INIT;
    bool v6 = parent && strchr(parent->host, ':');

    if (parent)
        str_addf(&text, "%s%s%s:%u", v6 ? "[" : "", parent->host, v6 ? "]" : "",
                 (unsigned)parent->port);
    json_text(j, "parent", str_view(&text));
    str_fini(&text);
}

void explain_report(const struct explain *x, struct str *out)
{
    struct json j = json_to(out);
    char dest[DEST_TEXT_MAX];
    bool unresolved = x->q.dest && x->trouble.text[0];
    size_t i;

    json_open(&j, NULL, '{');
    json_text(&j, "destination", view_str(x->q.dest ? dest_text(x->q.dest, dest) : NULL));
    add_verdict(&j, &x->verdict);
    json_open(&j, "addresses", '[');
    for (i = 0; i < x->n; i++) {
        json_open(&j, NULL, '{');
        json_text(&j, "address", view_str(x->addresses[i].ip));
        json_text(&j, "class", view_str(addr_class_name(x->addresses[i].kind)));
        add_verdict(&j, &x->addresses[i].verdict);
        json_close(&j, '}');
    }
    json_close(&j, ']');
    json_text(&j, "resolving", view_str(unresolved ? x->trouble.text : NULL));
    add_parent(&j, x->parent);
    json_close(&j, '}');
}
