#include "app/inside.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"
#include "codec/url.h"
#include "rt/fdx.h"

/* Without the port, for the CA's constraints. The caller's. */
static char *name_only(const char *host)
{
    const char *colon = strrchr(host, ':');

    return colon ? xmemdup0(host, (size_t)(colon - host)) : xstrdup(host);
}

static int load_mint(struct inside_plan *p, const struct config *c, struct err *e)
{
    size_t i, n = TR_MAX(c->intercept_hosts.n, (size_t)1);
    char **names = xcalloc(n, sizeof(*names));

    names[0] = xstrdup(p->harness.host);
    for (i = 0; i < c->intercept_hosts.n; i++) {
        xfree(names[i]);
        names[i] = name_only(c->intercept_hosts.items[i]);
    }
    p->mint = mint_new(c->intercept_ca, c->intercept_key, (const char *const *)names, n, e);
    for (i = 0; i < n; i++)
        xfree(names[i]);
    xfree(names);
    return p->mint ? 0 : err_prefix(e, "intercept.ca");
}

/* Lists of names with wildcards and ports are what rules are made of. */
static int list_hosts(struct inside_plan *p, const struct config *c, struct err *e)
{
    char port[8];
    const char *const harness[] = {p->harness.host}, *const ports[] = {"443", port};
    const bool given = c->intercept_hosts.n > 0;
    const struct policy_rule_opts rule = {
        .name = "intercept.hosts",
        .hosts = given ? (const char *const *)c->intercept_hosts.items : harness,
        .n_hosts = given ? c->intercept_hosts.n : 1,
        .ports = ports,
        .n_ports = ARRAY_LEN(ports),
    };

    snprintf(port, sizeof(port), "%u", p->harness.port);
    p->hosts = policy_new(&(struct policy_opts){.rules = &rule, .n_rules = 1}, e);
    return p->hosts ? 0 : -1;
}

int inside_plan_init(struct inside_plan *p, const struct config *c, struct err *e)
{
    const struct tls_client_opts o = {.ca = c->upstream_ca, .min_version = config_tls_min(c)};
    struct url url;

    *p = (struct inside_plan){0};
    if (url_parse(view_str(c->harness_url), &url, e) < 0 ||
        dest_parse(url.authority, url.port, &p->harness, e) < 0)
        return err_prefix(e, "harness.url");
    if (!c->intercept_ca)
        return 0;
    if (!c->intercept_hosts.n && p->harness.literal)
        return err_set(e, ERR_INVALID,
                       "intercept.hosts: missing: harness.url has an address, and no name that "
                       "could be intercepted");
    if (file_check_private(c->intercept_key, e) < 0)
        return err_prefix(e, "intercept.key");
    if (load_mint(p, c, e) < 0 || list_hosts(p, c, e) < 0)
        return -1;
    p->tls = tls_ctx_client(&o, e);
    return p->tls ? 0 : err_prefix(e, "upstream");
}

void inside_plan_fini(struct inside_plan *p)
{
    mint_unref(&p->mint);
    policy_free(&p->hosts);
    tls_ctx_unref(&p->tls);
}

void inside_plan_opts(const struct inside_plan *p, struct intercept_opts *out)
{
    out->mint = p->mint;
    out->hosts = p->hosts;
    out->tls = p->tls;
    out->harness_host = p->harness.host;
    out->harness_port = p->harness.port;
}

uint16_t inside_port(const struct config_listen *l)
{
    return l->port ? (uint16_t)strtoul(l->port, NULL, 10) : 0;
}
