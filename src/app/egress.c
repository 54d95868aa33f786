#include "app/egress.h"

#include <ifaddrs.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"

static const char *const *texts(const struct conf_list *list)
{
    return (const char *const *)list->items;
}

static struct policy_rule_opts rule_opts(const struct config_rule *r)
{
    return (struct policy_rule_opts){
        .name = r->name,
        .deny = r->action != 0,
        .hosts = texts(&r->hosts),
        .n_hosts = r->hosts.n,
        .ports = texts(&r->ports),
        .n_ports = r->ports.n,
        .addresses = texts(&r->addresses),
        .n_addresses = r->addresses.n,
        .from = texts(&r->from),
        .n_from = r->from.n,
        .identities = texts(&r->identities),
        .n_identities = r->identities.n,
    };
}

int egress_flows_setting(const struct config *c, struct str *host, struct flows_setting *out,
                         struct err *e)
{
    struct url url;

    if (url_parse(view_str(c->harness_url), &url, e) < 0)
        return err_prefix(e, "harness.url");
    str_addv(host, url.host);
    *out = (struct flows_setting){
        .harness_host = str_c(host),
        .harness_port = url.port,
        .googleapis = c->upload_logs != CONFIG_UPLOADS_HARNESS,
    };
    return 0;
}

struct policy *egress_policy(const struct config *c, struct err *e)
{
    struct policy_rule_opts *rules = xcalloc(c->n_rules + 1 + FLOWS_MAX_RULES, sizeof(*rules));
    struct flows_profile *profile = NULL;
    struct flows_setting setting;
    struct str host = STR_INIT;
    struct policy *p = NULL;
    size_t n, i;

    for (n = 0; n < c->n_rules; n++)
        rules[n] = rule_opts(&c->rules[n]);
    if (c->egress_allow.n)
        rules[n++] = (struct policy_rule_opts){
            .name = "egress.allow", .hosts = texts(&c->egress_allow), .n_hosts = c->egress_allow.n};
    if (c->egress_profile == CONFIG_PROFILE_HARNESS) {
        if (egress_flows_setting(c, &host, &setting, e) < 0)
            goto out;
        profile = flows_profile_new(&setting);
        i = flows_profile_rules(profile, rules + n);
        n += i;
    }
    p = policy_new(&(struct policy_opts){.mode = c->egress_mode, .rules = rules, .n_rules = n}, e);
out:
    flows_profile_free(&profile);
    str_fini(&host);
    xfree(rules);
    return p;
}

struct policy *egress_bypass(const struct config *c, struct err *e)
{
    static const char *const any_port[] = {"1-65535"};
    const struct policy_rule_opts rule = {
        .name = "upstream.parent-bypass",
        .hosts = texts(&c->upstream_parent_bypass),
        .n_hosts = c->upstream_parent_bypass.n,
        .ports = any_port,
        .n_ports = 1,
    };

    /* A rule without hosts would mean anywhere. */
    return policy_new(&(struct policy_opts){.rules = &rule, .n_rules = rule.n_hosts ? 1 : 0}, e);
}

bool egress_is_used(const struct config *c)
{
    size_t i;

    for (i = 0; i < c->n_listen; i++) {
        if (c->listen[i].mode == CONFIG_MODE_PROXY || c->listen[i].mode == CONFIG_MODE_SNI)
            return true;
    }
    return false;
}

void egress_own_addresses(void)
{
    const struct sockaddr **list;
    struct ifaddrs *all, *at;
    size_t n = 0;

    if (getifaddrs(&all) < 0)
        return; /* what was known stays */
    for (at = all; at; at = at->ifa_next)
        n += at->ifa_addr != NULL;
    list = xcalloc(n + 1, sizeof(*list));
    n = 0;
    for (at = all; at; at = at->ifa_next) {
        if (at->ifa_addr)
            list[n++] = at->ifa_addr;
    }
    policy_own_addresses(list, n);
    xfree(list);
    freeifaddrs(all);
}
