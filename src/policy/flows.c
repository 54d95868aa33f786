/* The flows of a deployment, and the profile that lets them pass. */
#include "policy/flows.h"

#include <stdio.h>
#include "base/bug.h"
#include "base/xmem.h"

/*
 * Sources: HP §4.1 (what the delegate derives from its manager's URL, and the paths that reach each
 * service), §4.2 (WSS), §4.3 (calls to the manager), §4.6 (mTLS: <vanity>:8443, and the older
 * *.agent.harness.io), §2 and §3 (log service, lite-engine), §5 (what Harness tells customers to
 * allow). Services of one host are told apart because different people miss different things.
 */
#define FLOW(name_, who_, destination_, breaks_, ...)                                              \
    {                                                                                              \
        .name = (name_), .who = (who_), .destination = (destination_), .breaks = (breaks_),        \
        __VA_ARGS__                                                                                \
    }

const struct flow flows[] = {
    /* HP §4.2 */
    FLOW("delegate-wss", "delegate", "%h",
         "delegates show as disconnected and no task reaches them", .required = true),
    /* HP §4.1, §4.3 */
    FLOW("delegate-manager", "delegate", "%h",
         "delegates cannot register, fetch tasks or send results", .required = true),
    /* HP §1, §2, §3.2, §4.8 */
    FLOW("log-service", "delegate, lite-engine", "%h", "the logs of steps stay empty",
         .required = true),
    /* HP §5 */
    FLOW("ui-gateway", "browser", "%h", "the UI does not load"),
    /* HP §4.3 */
    FLOW("ng-manager", "delegate, browser", "%h",
         "projects, connectors and services cannot be read"),
    /* HP §4.7 */
    FLOW("pipeline-service", "lite-engine, browser", "%h",
         "pipelines cannot be started, and annotations are lost"),
    /* HP §2.7 */
    FLOW("ti-service", "lite-engine", "%h", "test intelligence is skipped"),
    /* HP §5 */
    FLOW("dbdevops", "browser, step", "%h", "changes of databases are not recorded"),
    /* HP §4.6; the newer <vanity>:8443 is harness.url itself */
    FLOW("delegate-mtls", "delegate", "account.agent.harness.io:443",
         "delegates with the older mTLS host show as disconnected", .example = true),
    /* HP §5 */
    FLOW("ui-static", "browser", "static.harness.io:443", "the UI stays blank"),
    /* HP §1.9, §5 */
    FLOW("log-upload", "delegate, lite-engine", "storage.googleapis.com:443",
         "finished logs cannot be uploaded by signed link", .googleapis = true),
    /* HP §5 */
    FLOW("delegate-logging", "delegate", "logging.googleapis.com:443",
         "Harness support does not see the delegate's own log", .googleapis = true),
    /* Nobody but the admin knows these (HP §5: GitHub, Docker Hub and so on are examples). */
    FLOW("git", "delegate, build", NULL, "repositories cannot be cloned", .required = false),
    FLOW("artifacts", "delegate, build", NULL, "images and artifacts cannot be pulled or pushed",
         .required = false),
};
const size_t n_flows = ARRAY_LEN(flows);

/* Where an account may live or be moved to (HP §4.1: a MIGRATE frame names another manager). */
static const char *const clusters[] = {
    "app.harness.io:443",
    "app3.harness.io:443",
    "accounts.harness.io:443",
    "accounts.eu.harness.io:443",
};

/* "host:port", with brackets where they belong. */
static void add_authority(struct str *out, const char *host, uint16_t port)
{
    bool v6 = strchr(host, ':') != NULL;

    str_addf(out, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

/* ---- the profile -------------------------------------------------------------------------- */

enum { HOSTS_MAX = ARRAY_LEN(clusters) + 2 };

struct flows_profile {
    struct str own, own_https; /* harness.url, and its host's port 443: the UI of a vanity host */
    const char *hosts[HOSTS_MAX];
    size_t n_hosts;
    bool googleapis;
};

struct flows_profile *flows_profile_new(const struct flows_setting *s)
{
    struct flows_profile *p = XNEW(struct flows_profile);
    size_t i;

    add_authority(&p->own, s->harness_host, s->harness_port);
    p->hosts[p->n_hosts++] = str_c(&p->own);
    if (s->harness_port != 443) {
        add_authority(&p->own_https, s->harness_host, 443);
        p->hosts[p->n_hosts++] = str_c(&p->own_https);
    }
    for (i = 0; i < ARRAY_LEN(clusters); i++)
        p->hosts[p->n_hosts++] = clusters[i];
    p->googleapis = s->googleapis;
    return p;
}

size_t flows_profile_rules(const struct flows_profile *p, struct policy_rule_opts *rules)
{
    /* Harness answers on these to who has a client certificate of the account only. */
    static const char *const mtls[] = {"*.agent.harness.io:443", "*.harness.io:8443"};
    static const char *const ui[] = {"static.harness.io:443"};
    static const char *const googleapis[] = {"storage.googleapis.com:443"};
    static const char *const logging[] = {"logging.googleapis.com:443"};
    size_t n = 0;

    rules[n++] =
        (struct policy_rule_opts){.name = "harness", .hosts = p->hosts, .n_hosts = p->n_hosts};
    rules[n++] = (struct policy_rule_opts){
        .name = "harness-mtls", .hosts = mtls, .n_hosts = ARRAY_LEN(mtls)};
    rules[n++] = (struct policy_rule_opts){.name = "ui", .hosts = ui, .n_hosts = ARRAY_LEN(ui)};
    if (p->googleapis) {
        rules[n++] = (struct policy_rule_opts){
            .name = "googleapis", .hosts = googleapis, .n_hosts = ARRAY_LEN(googleapis)};
        rules[n++] = (struct policy_rule_opts){
            .name = "delegate-logging", .hosts = logging, .n_hosts = ARRAY_LEN(logging)};
    }
    ASSERT(n <= FLOWS_MAX_RULES);
    return n;
}

void flows_profile_free(struct flows_profile **p)
{
    if (!*p)
        return;
    str_fini(&(*p)->own);
    str_fini(&(*p)->own_https);
    XFREE(*p);
}

/* ---- what would break --------------------------------------------------------------------- */

size_t flows_broken(const struct policy *p, const struct flows_setting *s,
                    void (*fn)(void *ctx, const struct flow *f, const char *destination,
                               const struct policy_verdict *v),
                    void *ctx)
{
    struct str own = STR_INIT;
    size_t i, n = 0;

    add_authority(&own, s->harness_host, s->harness_port);
    for (i = 0; i < n_flows; i++) {
        const struct flow *f = &flows[i];
        const char *where =
            f->destination && !strcmp(f->destination, "%h") ? str_c(&own) : f->destination;
        struct policy_query q = {.anyone = true};
        struct policy_verdict v;
        struct dest d;

        if (!where || (f->googleapis && !s->googleapis))
            continue;
        if (dest_parse(view_str(where), 443, &d, NULL) < 0)
            continue;
        q.dest = &d;
        v = policy_decide(p, &q);
        if (v.allow && !v.would_deny)
            continue;
        fn(ctx, f, where, &v);
        n++;
    }
    str_fini(&own);
    return n;
}
