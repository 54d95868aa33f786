#include "app/commands.h"

#include <string.h>
#include "app/certificates.h"
#include "app/explain.h"
#include "app/gateway.h"
#include "app/handover.h"
#include "app/passages.h"
#include "app/problems.h"
#include "app/report.h"
#include "base/xmem.h"
#include "net/resolve.h"
#include "rt/metric_look.h"

enum {
    COMMANDS = 10,
    ASKS_MAX = 32, /* names that are looked up at a time, for whoever reaches an admin listener */
};

struct commands {
    struct gateway *g;
    struct command list[COMMANDS];
    struct net_resolver *resolver; /* of the main thread; NULL until it is needed */
    struct list asks;              /* names that are being looked up */
    unsigned n_asks;
};

static void reply(struct command_call *call, int status, struct str *json)
{
    str_addc(json, '\n');
    command_reply(call, status, str_view(json));
    str_fini(json);
}

/* --- policy/explain ----------------------------------------------------------------------- */

struct ask {
    struct list link;
    struct commands *c;
    struct command_call *call;
    struct explain x;
    struct net_lookup *lookup;
    struct ev_timer *timer;
};

static void ask_free(struct ask *a)
{
    if (a->lookup)
        net_lookup_cancel(&a->lookup);
    ev_timer_free(&a->timer);
    list_remove(&a->link);
    a->c->n_asks--;
    xfree(a);
}

static void ask_answer(struct ask *a)
{
    struct str out = STR_INIT;

    explain_report(&a->x, &out);
    reply(a->call, 200, &out);
    ask_free(a);
}

static void on_resolved(void *ctx, const struct net_addr *addrs, size_t n, const struct err *e)
{
    struct ask *a = ctx;

    a->lookup = NULL;
    explain_resolved(&a->x, addrs, n, e);
    ask_answer(a);
}

static void on_timeout(void *ctx)
{
    struct ask *a = ctx;
    struct err e;

    err_set(&e, ERR_TIMEOUT, "took too long");
    explain_resolved(&a->x, NULL, 0, &e);
    ask_answer(a);
}

/* By the same servers as the workers' resolvers, but with answers of its own: what a worker keeps
 * may be some minutes old. */
static int have_resolver(struct commands *c, struct err *e)
{
    struct str servers = STR_INIT;

    if (c->resolver)
        return 0;
    config_resolvers(gateway_first_config(c->g), &servers);
    c->resolver = net_resolver_new(c->g->loop, servers.p, e);
    str_fini(&servers);
    return c->resolver ? 0 : -1;
}

static void run_explain(void *ctx, struct command_call *call)
{
    struct commands *c = ctx;
    const struct gate_settings *gate = &c->g->plan->gate;
    const struct explain_ask what = {.to = command_arg(call, "to"),
                                     .from = command_arg(call, "from"),
                                     .identity = command_arg(call, "identity")};
    struct ask *a;
    struct err e;

    if (!what.to) {
        command_fail(call, 400, "to: missing: a destination, such as github.com:443");
        return;
    }
    if (c->n_asks == ASKS_MAX) {
        command_fail(call, 503, "too many ask for this at once");
        return;
    }
    a = XNEW(struct ask);
    a->c = c;
    c->n_asks++;
    a->call = call;
    list_append(&c->asks, &a->link);
    if (explain_begin(&a->x, gate->policy, gate->parent, &what, &e) < 0) {
        command_fail(call, 400, "from: %s", e.text);
        ask_free(a);
    } else if (!a->x.lookup) {
        ask_answer(a);
    } else if (have_resolver(c, &e) < 0) {
        command_fail(call, 500, "%s", e.text);
        ask_free(a);
    } else {
        a->timer = ev_timer_new(c->g->loop, on_timeout, a);
        ev_timer_arm(a->timer, c->g->config->egress_connect_ms);
        a->lookup = net_resolve(c->resolver, a->x.dest.host, a->x.dest.port, on_resolved, a);
    }
}

/* --- the configuration -------------------------------------------------------------------- */

/* Rows of URLs take no credentials, and everything else that is secret is in files: there should be
 * none. This holds for texts in which somebody put a URL all the same. */
static void add_redacted(struct str *out, const char *text)
{
    const char *scheme;

    while ((scheme = strstr(text, "://")) != NULL) {
        size_t n = strcspn(scheme + 3, "@/\"' \n");

        str_add(out, text, (size_t)(scheme + 3 - text));
        text = scheme + 3;
        if (text[n] == '@') {
            str_adds(out, "***");
            text += n;
        }
    }
    str_adds(out, text);
}

static void run_config(void *ctx, struct command_call *call)
{
    const struct gateway *g = ((struct commands *)ctx)->g;
    struct str out = STR_INIT, text = STR_INIT, shown = STR_INIT;
    struct json j = json_to(&out);

    conf_dump_text(&config_spec, g->config, &text);
    add_redacted(&shown, str_c(&text));
    json_open(&j, NULL, '{');
    json_uint(&j, "generation", g->generation);
    json_text(&j, "file", view_str(g->opts->config));
    json_text(&j, "text", str_view(&shown));
    json_close(&j, '}');
    reply(call, 200, &out);
    str_fini(&text);
    str_fini(&shown);
}

static void run_certificates(void *ctx, struct command_call *call)
{
    struct commands *c = ctx;
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    json_open(&j, NULL, '{');
    certificates_report(c->g->plan, "certificates", &j);
    json_close(&j, '}');
    reply(call, 200, &out);
}

static void add_listeners(const struct gateway *g, const char *name, struct json *j)
{
    char text[NET_ADDR_TEXT];
    size_t i;

    json_open(j, name, '[');
    for (i = 0; i < g->config->n_listen; i++) {
        const struct config_listen *l = &g->config->listen[i];

        json_open(j, NULL, '{');
        json_text(j, "name", view_str(l->name));
        json_text(j, "mode", view_str(config_mode_name(l->mode)));
        json_text(j, "address", view_str(net_addr_text(&g->found[i].at, text)));
        json_bool(j, "tls", l->certificate != NULL);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void run_listeners(void *ctx, struct command_call *call)
{
    struct commands *c = ctx;
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    json_open(&j, NULL, '{');
    add_listeners(c->g, "listeners", &j);
    json_close(&j, '}');
    reply(call, 200, &out);
}

static void run_problems(void *ctx, struct command_call *call)
{
    struct commands *c = ctx;
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    metric_collect();
    json_open(&j, NULL, '{');
    problems_report(c->g->problems, "problems", &j);
    json_close(&j, '}');
    reply(call, 200, &out);
}

/* --- the log's level ---------------------------------------------------------------------- */

static void reply_level(struct command_call *call)
{
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    json_open(&j, NULL, '{');
    json_text(&j, "level", view_str(log_level_name(log_level_now())));
    json_close(&j, '}');
    reply(call, 200, &out);
}

static void run_level(void *ctx, struct command_call *call)
{
    (void)ctx;
    reply_level(call);
}

/* Until the next reload, which sets what the configuration says. */
static void run_set_level(void *ctx, struct command_call *call)
{
    const char *text = command_arg(call, "level");
    const struct log_field f[] = {LF_STR("level", text ? text : ""),
                                  LF_STR("by", command_by(call))};
    enum log_level level;

    (void)ctx;
    if (!text || log_level_parse(text, &level) < 0) {
        command_fail(call, 400, "level: use error, warn, notice, info or debug");
        return;
    }
    log_set_level(level);
    /* Whatever the level: who reads the log must know why lines are missing, or many. */
    log_write(LOG_NOTICE, "app", "the log's level is changed until the next reload", f,
              ARRAY_LEN(f));
    reply_level(call);
}

/* --- upgrade ------------------------------------------------------------------------------ */

static void run_upgrade(void *ctx, struct command_call *call)
{
    struct commands *c = ctx;
    struct err e;

    if (handover_spawn(c->g->handover, &e) < 0)
        command_fail(call, 409, "%s", e.text);
    else
        command_reply(call, 202, VIEW_LIT("{\"upgrading\":true}\n"));
}

/* --- the status --------------------------------------------------------------------------- */

static void add_kind(void *ctx, const char *const *values, double value)
{
    json_num(ctx, values[0], value);
}

static void show_tunnels(void *ctx, struct str *out)
{
    struct json j = json_to(out);

    (void)ctx;
    json_open(&j, NULL, '{');
    json_num(&j, "open", metric_total("tunnels"));
    json_open(&j, "by_kind", '{');
    metric_each("tunnels_by_kind", add_kind, &j);
    json_close(&j, '}');
    json_close(&j, '}');
}

static void show_denied(void *ctx, struct str *out)
{
    struct json j = json_to(out);

    (void)ctx;
    json_num(&j, NULL, metric_total("denied"));
}

static void show_would_deny(void *ctx, struct str *out)
{
    struct json j = json_to(out);

    (void)ctx;
    json_num(&j, NULL, metric_total("would_deny"));
}

static void show_listeners(void *ctx, struct str *out)
{
    struct json j = json_to(out);

    add_listeners(ctx, NULL, &j);
}

static void show_certificates(void *ctx, struct str *out)
{
    const struct gateway *g = ctx;
    struct json j = json_to(out);

    certificates_report(g->plan, NULL, &j);
}

static void show_problems(void *ctx, struct str *out)
{
    struct gateway *g = ctx;
    struct json j = json_to(out);

    problems_report(g->problems, NULL, &j);
}

void commands_add_sections(struct gateway *g)
{
    report_section_add(g->report, "tunnels", show_tunnels, g);
    report_section_add(g->report, "denied", show_denied, g);
    report_section_add(g->report, "would_deny", show_would_deny, g);
    report_section_add(g->report, "listeners", show_listeners, g);
    report_section_add(g->report, "certificates", show_certificates, g);
    report_section_add(g->report, "problems", show_problems, g);
}

/* --- all of them -------------------------------------------------------------------------- */

struct commands *commands_new(struct gateway *g)
{
    struct commands *c = XNEW(struct commands);
    const struct command list[COMMANDS] = {
        {.path = "tunnels",
         .text = "tunnels that stand: search, by, limit",
         .run = passages_run_tunnels,
         .ctx = g},
        {.path = "denials",
         .text = "what was denied last: search, limit",
         .run = passages_run_denials,
         .ctx = g},
        {.path = "policy/explain",
         .text = "may that client go there, and why: to, from, identity",
         .run = run_explain},
        {.path = "config", .text = "the configuration in force", .run = run_config},
        {.path = "certificates", .text = "until when they are good", .run = run_certificates},
        {.path = "listeners", .text = "where it listens", .run = run_listeners},
        {.path = "problems", .text = "what is wrong now", .run = run_problems},
        {.path = "log-level", .text = "what is logged", .run = run_level},
        {.path = "log-level",
         .kind = COMMAND_ACTION,
         .text = "log another level until the next reload: level",
         .run = run_set_level},
        {.path = "upgrade",
         .kind = COMMAND_ACTION,
         .text = "start the program anew and hand over to it",
         .run = run_upgrade},
    };
    size_t i;

    c->g = g;
    list_init(&c->asks);
    for (i = 0; i < COMMANDS; i++) {
        c->list[i] = list[i];
        if (!c->list[i].ctx)
            c->list[i].ctx = c;
        command_add(&c->list[i]);
    }
    return c;
}

void commands_reloaded(struct commands *c)
{
    if (c && c->resolver)
        net_resolver_reload(c->resolver);
}

void commands_free(struct commands **cp)
{
    struct commands *c = *cp;
    struct list *it, *tmp;
    size_t i;

    *cp = NULL;
    if (!c)
        return;
    for (i = 0; i < COMMANDS; i++)
        command_remove(&c->list[i]);
    list_each (it, tmp, &c->asks) {
        struct ask *a = list_entry(it, struct ask, link);

        command_fail(a->call, 503, "the gateway ends or is replaced");
        ask_free(a);
    }
    net_resolver_free(&c->resolver);
    xfree(c);
}
