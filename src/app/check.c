#include "app/check.h"

#include <stdio.h>
#include "app/egress.h"
#include "app/explain.h"
#include "app/inside.h"
#include "app/parent.h"
#include "app/sealing.h"
#include "http/basic.h"
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

struct resolving {
    struct explain *x;
    struct ev_loop *loop;
    struct net_lookup *lookup;
};

static void add_verdict(struct str *out, const struct policy_verdict *v)
{
    const char *quote = strchr(v->reason, ' ') ? "\"" : "";

    str_addf(out, "verdict=%s rule=%s reason=%s%s%s", v->allow ? "allow" : "deny", v->rule, quote,
             v->reason, quote);
}

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct resolving *r = ctx;

    r->lookup = NULL;
    explain_resolved(r->x, addrs, n, e);
    ev_loop_stop(r->loop);
}

static void on_timeout(void *ctx)
{
    struct resolving *r = ctx;
    struct err e;

    err_set(&e, ERR_TIMEOUT, "took too long");
    explain_resolved(r->x, NULL, 0, &e);
    ev_loop_stop(r->loop);
}

/* Wait for the name's addresses, as long as a connection would. */
static int resolve(struct explain *x, const struct config *c, struct err *e)
{
    struct resolving wait = {.x = x, .loop = ev_loop_new("check")};
    struct str servers = STR_INIT;
    struct net_resolver *r;
    struct ev_timer *timer;
    int rc = -1;

    config_resolvers(c, &servers);
    r = net_resolver_new(wait.loop, servers.n ? str_c(&servers) : NULL, e);
    str_fini(&servers);
    if (r) {
        timer = ev_timer_new(wait.loop, on_timeout, &wait);
        ev_timer_arm(timer, c->egress_connect_ms);
        wait.lookup = net_resolve(r, x->dest.host, x->dest.port, on_resolved, &wait);
        ev_loop_run(wait.loop);
        if (wait.lookup)
            net_lookup_cancel(&wait.lookup);
        ev_timer_free(&timer);
        net_resolver_free(&r);
        rc = 0;
    }
    ev_loop_free(&wait.loop);
    return rc;
}

static void print_explained(const struct explain *x)
{
    const bool literal = x->q.dest && x->dest.literal;
    struct str line = STR_INIT;
    size_t i;

    add_verdict(&line, &x->verdict);
    str_adds(&line, " addresses=");
    for (i = 0; i < x->n; i++)
        str_addf(&line, "%s%s", i ? "," : "", x->addresses[i].ip);
    str_adds(&line, x->n ? "\n" : "unresolved\n");
    if (x->verdict.would_deny)
        str_adds(&line, "mode=report: the rule would deny it\n");
    if (x->lookup && !x->n)
        str_addf(&line, "resolving: %s\n", x->trouble.text);
    for (i = 0; i < x->n && !literal; i++) {
        const struct explain_address *a = &x->addresses[i];

        str_addf(&line, "address=%s class=%s ", a->ip, addr_class_name(a->kind));
        add_verdict(&line, &a->verdict);
        str_adds(&line, a->verdict.would_deny ? " would_deny=true\n" : "\n");
    }
    fputs(str_c(&line), stdout);
    str_fini(&line);
}

static int explain(const struct config *c, const struct policy *p, const struct check_opts *o,
                   struct err *e)
{
    const struct explain_ask ask = {o->explain, o->from, o->identity};
    struct parent *parent;
    struct explain x;
    int rc = GOOD;

    if (parent_new(c, &parent, e) < 0)
        return BAD;
    egress_own_addresses();
    if (explain_begin(&x, p, parent_net(parent), &ask, e) < 0) {
        err_prefix(e, "--from");
        rc = USAGE;
    } else if (x.lookup && resolve(&x, c, e) < 0) {
        rc = BAD;
    } else {
        print_explained(&x);
    }
    parent_free(&parent);
    return rc;
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
