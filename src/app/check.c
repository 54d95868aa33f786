#include "app/check.h"

#include <stdio.h>
#include "app/egress.h"
#include "app/inside.h"
#include "app/parent.h"
#include "app/sealing.h"
#include "egress/basic.h"
#include "net/resolve.h"

enum { GOOD = 0, BAD = 1, USAGE = 2 };

/* ---- flows -------------------------------------------------------------------------------- */

struct broken {
    const struct config *c;
    FILE *out;
    bool required;
};

static const char *is_denied(const struct policy_verdict *v)
{
    return v->would_deny ? "would be denied" : "is denied";
}

static void tell_flow(void *ctx, const struct flow *f, const char *destination,
                      const struct policy_verdict *v)
{
    struct broken *b = ctx;
    bool required = f->required && !v->would_deny && b->c->egress_profile == CONFIG_PROFILE_HARNESS;

    b->required = b->required || required;
    fprintf(b->out, "%s: flow %s: %s to %s %s by rule %s (%s): %s\n",
            required ? "error" : "warning", f->name, f->who, destination, is_denied(v), v->rule,
            v->reason, f->breaks);
}

/* A host that a rule allows, but something before it denies. Wildcards and ranges are not tried:
 * denying a part of them is what rules before them are for. */
static void check_host(const struct policy *p, const char *path, const char *host, uint16_t port,
                       FILE *out)
{
    struct policy_query q = {.anyone = true};
    struct policy_verdict v;
    char text[DEST_TEXT_MAX];
    struct dest d;

    if (strpbrk(host, "*/") || dest_parse(view_str(host), port, &d, NULL) < 0)
        return;
    q.dest = &d;
    v = policy_decide(p, &q);
    if (!v.allow || v.would_deny)
        fprintf(out, "warning: %s: %s %s by rule %s (%s)\n", path, dest_text(&d, text),
                is_denied(&v), v.rule, v.reason);
}

static void check_rules(const struct policy *p, const struct config *c, FILE *out)
{
    struct str path = STR_INIT;
    size_t i, k;

    for (i = 0; i < c->n_rules; i++) {
        const struct config_rule *r = &c->rules[i];
        unsigned port = 443;

        /* NOLINTNEXTLINE(cert-err34-c): five digits always fit */
        if (r->action != 0 || (r->ports.n && sscanf(r->ports.items[0], "%5u", &port) != 1))
            continue;
        str_clear(&path);
        str_addf(&path, "rules.%s", r->name);
        for (k = 0; k < r->hosts.n; k++)
            check_host(p, str_c(&path), r->hosts.items[k], (uint16_t)port, out);
    }
    for (k = 0; k < c->egress_allow.n; k++)
        check_host(p, "egress.allow", c->egress_allow.items[k], 443, out);
    str_fini(&path);
}

/* Where git and artifacts are, no profile can know. */
static void tell_unknown(const struct config *c, FILE *out)
{
    size_t i;

    for (i = 0; i < c->n_rules; i++) {
        if (c->rules[i].action == 0)
            return;
    }
    if (c->egress_allow.n || c->egress_mode == POLICY_REPORT)
        return;
    for (i = 0; i < n_flows; i++) {
        if (!flows[i].destination)
            fprintf(out,
                    "note: flow %s: %s: only you know where to, and no rule and no egress.allow "
                    "says so: %s\n",
                    flows[i].name, flows[i].who, flows[i].breaks);
    }
}

/* What makes interception useless although it may be configured. */
static int check_inside(const struct config *c, const struct policy *p, FILE *out, struct err *e)
{
    struct inside_plan plan;
    int rc = inside_plan_init(&plan, c, e);
    size_t i;

    inside_plan_fini(&plan);
    for (i = 0; rc == 0 && i < c->intercept_hosts.n; i++)
        check_host(p, "intercept.hosts", c->intercept_hosts.items[i], 443, out);
    for (i = 0; rc == 0 && i < c->n_listen && !c->upstream_resolvers.n; i++) {
        if (c->listen[i].mode == CONFIG_MODE_SNI)
            fprintf(out,
                    "warning: listen.%s: upstream.resolvers is missing: names that lead clients "
                    "here by DNS override may lead this gateway to itself\n",
                    c->listen[i].name);
    }
    return rc;
}

static int check_flows(const struct config *c, const struct policy *p, FILE *out, struct err *e)
{
    struct broken b = {.c = c, .out = out};
    struct flows_setting setting;
    struct str host = STR_INIT;
    int rc = egress_flows_setting(c, &host, &setting, e);

    if (rc == 0) {
        flows_broken(p, &setting, tell_flow, &b);
        check_rules(p, c, out);
        tell_unknown(c, out);
    }
    str_fini(&host);
    if (rc == 0 && b.required)
        rc = err_set(e, ERR_DENIED, "its policy denies what every Harness deployment needs");
    return rc;
}

/* ---- explain ------------------------------------------------------------------------------ */

struct explain {
    const struct policy *p;
    struct policy_query q;
    struct policy_verdict first, verdict;
    struct dest dest;
    struct ev_loop *loop;
    struct net_lookup *lookup;
    struct str addresses; /* "A,B" */
    struct str details;   /* lines */
};

static void add_verdict(struct str *out, const struct policy_verdict *v)
{
    const char *quote = strchr(v->reason, ' ') ? "\"" : "";

    str_addf(out, "verdict=%s rule=%s reason=%s%s%s", v->allow ? "allow" : "deny", v->rule, quote,
             v->reason, quote);
}

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct explain *x = ctx;
    struct policy_verdict v;
    char ip[NET_ADDR_TEXT];
    size_t i;

    x->lookup = NULL;
    if (n == 0)
        str_addf(&x->details, "resolving: %s\n", e->text);
    for (i = 0; i < n; i++) {
        const struct sockaddr *sa = (const struct sockaddr *)&addrs[i].ss;

        net_addr_ip(&addrs[i], ip);
        v = policy_check_address(x->p, &x->q, &x->first, sa);
        str_addf(&x->addresses, "%s%s", i ? "," : "", ip);
        str_addf(&x->details, "address=%s class=%s ", ip, addr_class_name(addr_class(sa, NULL)));
        add_verdict(&x->details, &v);
        str_adds(&x->details, v.would_deny ? " would_deny=true\n" : "\n");
        /* One address that is allowed is enough: the others are not dialled. */
        if (i == 0 || !x->verdict.allow || (x->verdict.would_deny && !v.would_deny))
            x->verdict = v;
    }
    ev_loop_stop(x->loop);
}

static void on_timeout(void *ctx)
{
    struct explain *x = ctx;

    str_adds(&x->details, "resolving: took too long\n");
    ev_loop_stop(x->loop);
}

/* Wait for the name's addresses, as long as a connection would. */
static int resolve(struct explain *x, const struct config *c, struct err *e)
{
    struct str servers = STR_INIT;
    struct net_resolver *r;
    struct ev_timer *timer;

    config_resolvers(c, &servers);
    x->loop = ev_loop_new("check");
    r = net_resolver_new(x->loop, servers.n ? str_c(&servers) : NULL, e);
    str_fini(&servers);
    if (r) {
        timer = ev_timer_new(x->loop, on_timeout, x);
        ev_timer_arm(timer, c->egress_connect_ms);
        x->lookup = net_resolve(r, x->dest.host, x->dest.port, on_resolved, x);
        ev_loop_run(x->loop);
        if (x->lookup)
            net_lookup_cancel(&x->lookup);
        ev_timer_free(&timer);
        net_resolver_free(&r);
    }
    ev_loop_free(&x->loop);
    return x->details.n ? 0 : -1;
}

/* Does somebody else resolve it: the parent proxy? */
static int goes_to_parent(const struct config *c, const struct policy_query *q, struct err *e)
{
    struct policy *bypass;
    int rc = 1;

    if (!c->upstream_parent)
        return 0;
    bypass = egress_bypass(c, e);
    if (!bypass)
        return -1;
    if (policy_decide(bypass, q).allow)
        rc = 0;
    policy_free(&bypass);
    return rc;
}

static int ask(struct explain *x, const struct config *c, const char *where, struct err *e)
{
    int parent;

    if (dest_parse(view_str(where), 0, &x->dest, e) < 0) {
        x->verdict =
            (struct policy_verdict){.rule = "bad-authority", .reason = e->text, .index = -1};
        return 0;
    }
    x->q.dest = &x->dest;
    x->first = x->verdict = policy_decide(x->p, &x->q);
    if (x->dest.literal) {
        str_adds(&x->addresses, x->dest.host);
        return 0;
    }
    parent = goes_to_parent(c, &x->q, e);
    if (parent < 0)
        return -1;
    if (parent || !x->first.allow) /* a name that is denied is not looked up */
        return 0;
    return resolve(x, c, e);
}

static int explain(const struct config *c, const struct policy *p, const struct check_opts *o,
                   struct err *e)
{
    struct explain x = {.p = p, .q = {.identity = view_str(o->identity)}};
    struct str line = STR_INIT;
    struct net_addr from;
    int rc;

    if (o->from) {
        rc = net_addr_literal(view_str(o->from), 0, &from);
        if (rc < 0) {
            err_set(e, ERR_INVALID, "--from: use an address, such as 10.0.0.7");
            return USAGE;
        }
        x.q.from = (const struct sockaddr *)&from.ss;
    }
    egress_own_addresses();
    rc = ask(&x, c, o->explain, e);
    if (rc == 0) {
        add_verdict(&line, &x.verdict);
        printf("%s addresses=%s\n", str_c(&line),
               x.addresses.n ? str_c(&x.addresses) : "unresolved");
        if (x.verdict.would_deny)
            puts("mode=report: the rule would deny it");
        fputs(str_c(&x.details), stdout);
    }
    str_fini(&line);
    str_fini(&x.addresses);
    str_fini(&x.details);
    return rc == 0 ? GOOD : BAD;
}

/* ---- the command -------------------------------------------------------------------------- */

/* Could it be asked at all? */
static int check_parent(const struct config *c, struct err *e)
{
    struct parent *parent;
    int rc = parent_new(c, &parent, e);

    parent_free(&parent);
    return rc;
}

/* The files that a proxy's clients are looked up in. */
static int check_users(const struct config *c, struct err *e)
{
    struct basic_users *users;
    size_t i;

    for (i = 0; i < c->n_listen; i++) {
        if (!c->listen[i].users)
            continue;
        users = basic_users_load(c->listen[i].users, e);
        if (!users)
            return err_prefix(e, "listen.%s.users", c->listen[i].name);
        basic_users_free(&users);
    }
    return 0;
}

/* Are they keys? Whether the spool is sealed with them only a start can tell. */
static int check_keys(const struct config *c, struct err *e)
{
    struct envelope *keys;
    int rc = sealing_load(c, &keys, e);

    envelope_free(&keys);
    return rc;
}

static int check_rest(const struct config *c, const struct policy *p, FILE *out, struct err *e)
{
    if (check_users(c, e) < 0 || check_keys(c, e) < 0)
        return BAD;
    if (!egress_is_used(c))
        return GOOD;
    return check_inside(c, p, out, e) == 0 && check_flows(c, p, out, e) == 0 ? GOOD : BAD;
}

/* The verdict, and what is to be set for it on the Harness side. */
static int check_and_tell(const struct config *c, const struct policy *p,
                          const struct check_opts *o, struct err *e)
{
    const bool text = o->side.form == HARNESS_TEXT;
    struct harness_side *side = harness_side_new(c, &o->side, e);
    int rc;

    if (!side)
        return USAGE;
    rc = check_rest(c, p, text ? stdout : stderr, e);
    if (rc == GOOD && text)
        printf("%s: good\n", o->path);
    if (rc == GOOD)
        harness_side_print(side, stdout);
    if (rc == GOOD && !text && harness_side_has_gaps(side))
        fprintf(stderr, "%s: how clients call this host is not known: use --address NAME\n",
                o->path);
    harness_side_free(&side);
    return rc;
}

static int check_loaded(const struct config *c, const struct check_opts *o)
{
    struct err e = {0};
    struct policy *p = egress_policy(c, &e);
    int rc = p ? GOOD : BAD;

    if (p && check_parent(c, &e) < 0)
        rc = BAD;
    else if (p && o->dump)
        config_dump(c, stdout);
    else if (p && o->explain)
        rc = explain(c, p, o, &e);
    else if (p)
        rc = check_and_tell(c, p, o, &e);
    policy_free(&p);
    if (rc != GOOD)
        fprintf(stderr, "%s: %s\n", o->path, e.text);
    return rc;
}

int check_run(const struct check_opts *o)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    struct config *config = NULL;
    int rc = BAD;

    if (config_load(o->path, &config, &errors) < 0)
        conf_errors_print(&errors, stderr);
    else
        rc = check_loaded(config, o);
    conf_errors_fini(&errors);
    config_free(&config);
    return rc;
}
