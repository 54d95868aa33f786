#include "app/doctor.h"

#include <getopt.h>
#include <stdlib.h>
#include "app/doctor_priv.h"
#include "app/egress.h"
#include "base/xmem.h"
#include "codec/h1.h"
#include "policy/flows.h"
#include "rt/clock.h"
#include "rt/fdx.h"

#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#define DEFAULT_CONFIG "/etc/tailrace/tailrace.yaml"

enum { GOOD = 0, BAD = 1, USAGE = 2 };
enum { TIMEOUT_S = 5, TIMEOUT_MAX_S = 60, IDLE_MAX_S = 3600, TOKEN_MAX = 8192 };

static const char usage_text[] =
    "usage: tailrace doctor [-c FILE] [--token FILE --account ID] [--idle SECONDS] [--flow NAME]\n"
    "                       [--trust FILE] [--timeout SECONDS] [--json]\n"
    "\n"
    "Tries every flow of the deployment from this host, in the ways of the configuration, and "
    "says\n"
    "what works, what does not, and who must change what. A gateway that runs is not disturbed.\n"
    "\n"
    "  -c, --config FILE      the configuration (default " DEFAULT_CONFIG ")\n"
    "      --token FILE       a token of the log service (for its owner's eyes only): open, "
    "write,\n"
    "                         upload and close a log stream with it\n"
    "      --account ID       the account that the token is of\n"
    "      --idle SECONDS     see whether a connection survives so long without traffic\n"
    "      --flow NAME        only this: harness, log-service, delegate-wss, log-stream,\n"
    "                         log-upload, idle, egress, policy, spool, listen, gateway, host\n"
    "      --trust FILE       the CA bundle of delegates (PEM): do they believe our certificates?\n"
    "      --timeout SECONDS  for each step (default 5)\n"
    "      --json             for scripts\n"
    "\n"
    "Exit status: 0 nothing is broken, 1 something is, 2 usage.\n";

static const char *const flow_names[] = {
    "harness", "log-service", "delegate-wss", "log-stream", "log-upload", "idle",
    "egress",  "policy",      "spool",        "listen",     "gateway",    "host",
};

bool doctor_wants(const struct doctor *d, const char *flow)
{
    return !d->flow || strcmp(d->flow, flow) == 0;
}

/* ---- options ------------------------------------------------------------------------------ */

enum { OPT_TOKEN = 256, OPT_ACCOUNT, OPT_IDLE, OPT_FLOW, OPT_TRUST, OPT_TIMEOUT, OPT_JSON };

static int number(const char *what, const char *text, unsigned scale, unsigned max, unsigned *out)
{
    char *end;
    double n = strtod(text, &end);

    if (!*text || *end || !(n * scale >= 1) || n * scale > (double)max * scale) {
        fprintf(stderr, "tailrace doctor: %s: use a number of seconds up to %u\n", what, max);
        return -1;
    }
    *out = (unsigned)(n * scale);
    return 0;
}

static int set_flow(struct doctor *d, const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(flow_names); i++) {
        if (strcmp(flow_names[i], name) == 0) {
            d->flow = flow_names[i];
            return 0;
        }
    }
    fputs("tailrace doctor: --flow: use one of", stderr);
    for (size_t i = 0; i < ARRAY_LEN(flow_names); i++)
        fprintf(stderr, " %s", flow_names[i]);
    fputc('\n', stderr);
    return -1;
}

static int set_token(struct doctor *d, const char *path)
{
    struct err e;

    str_wipe(&d->token);
    if (secret_read(path, TOKEN_MAX, &d->token, &e) < 0) {
        fprintf(stderr, "tailrace doctor: --token: %s\n", e.text);
        return -1;
    }
    while (d->token.n && strchr("\r\n \t", d->token.p[d->token.n - 1]))
        d->token.p[--d->token.n] = '\0';
    if (d->token.n && h1_is_field_value(str_view(&d->token)))
        return 0;
    fprintf(stderr, "tailrace doctor: --token: %s: use one line with the token\n", path);
    return -1;
}

static int take_option(struct doctor *d, int option)
{
    switch (option) {
    case 'c':
        d->config_path = optarg;
        return 0;
    case OPT_TOKEN:
        return set_token(d, optarg);
    case OPT_ACCOUNT:
        d->account = optarg;
        return 0;
    case OPT_IDLE:
        return number("--idle", optarg, 1, IDLE_MAX_S, &d->idle_s);
    case OPT_FLOW:
        return set_flow(d, optarg);
    case OPT_TRUST:
        d->trust = optarg;
        return 0;
    case OPT_TIMEOUT:
        return number("--timeout", optarg, 1000, TIMEOUT_MAX_S, &d->timeout_ms);
    case OPT_JSON:
        d->json = true;
        return 0;
    default:
        fputs(usage_text, stderr);
        return -1;
    }
}

/* -1: said already; 1: only help was wanted. */
static int read_options(struct doctor *d, int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"token", required_argument, NULL, OPT_TOKEN},
        {"account", required_argument, NULL, OPT_ACCOUNT},
        {"idle", required_argument, NULL, OPT_IDLE},
        {"flow", required_argument, NULL, OPT_FLOW},
        {"trust", required_argument, NULL, OPT_TRUST},
        {"timeout", required_argument, NULL, OPT_TIMEOUT},
        {"json", no_argument, NULL, OPT_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        if (c == 'h') {
            fputs(usage_text, stdout);
            return 1;
        }
        if (take_option(d, c) < 0)
            return -1;
    }
    if (optind < argc) {
        fputs(usage_text, stderr);
        return -1;
    }
    if ((d->token.n != 0) == (d->account != NULL))
        return 0;
    fputs("tailrace doctor: --token and --account come together\n", stderr);
    return -1;
}

/* ---- looking ------------------------------------------------------------------------------ */

static void add_report(struct doctor_reports *all, struct findings *r)
{
    all->items = xrealloc(all->items, (all->n + 1) * sizeof(struct findings *));
    all->items[all->n++] = r;
}

static void tell_config(struct findings *r, const char *path, const char *text)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_CONFIG_BROKEN, "config", "load"};

    findings_add(r, &f, "%s", text);
    findings_do(r, "correct %s; `tailrace check -c %s` says when it is good", path, path);
}

static bool load(struct doctor *d, struct findings *r)
{
    struct conf_errors errors = CONF_ERRORS_INIT;
    bool ok = config_load(d->config_path, &d->config, &errors) == 0;

    for (size_t i = 0; i < errors.n && !ok; i++)
        tell_config(r, d->config_path, errors.lines[i]);
    conf_errors_fini(&errors);
    return ok;
}

static void look(struct doctor *d, struct doctor_reports *all)
{
    struct findings *here = findings_new();
    struct policy *policy;
    struct err e = {0};

    add_report(all, here);
    if (!load(d, here))
        return;
    policy = egress_policy(d->config, &e);
    if (!policy) {
        tell_config(here, d->config_path, e.text);
        return;
    }
    if (!d->flow)
        findings_ok(here, "config", "load", "%s is good", d->config_path);
    egress_own_addresses();
    doctor_ask_gateway(d, here);
    doctor_check_host(d, here);
    doctor_check_policy(d, policy, here);
    if (doctor_probe(d, policy, all, &e) < 0)
        tell_config(here, d->config_path, e.text);
    policy_free(&policy);
}

/* ---- telling ------------------------------------------------------------------------------ */

static void print_text(const struct doctor_reports *all)
{
    struct findings_counts counts = {{0}};

    for (size_t i = 0; i < all->n; i++)
        findings_print(all->items[i], stdout, &counts);
    printf("\n%u fine, %u to look at, %u broken\n", counts.n[VERDICT_OK], counts.n[VERDICT_WARN],
           counts.n[VERDICT_FAIL]);
}

static void print_json(const struct doctor_reports *all)
{
    struct findings_counts counts = {{0}};
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    json_open(&j, NULL, '{');
    json_text(&j, "version", VIEW_LIT(PACKAGE_VERSION));
    json_time(&j, "time", clock_wall_ns());
    json_open(&j, "findings", '[');
    for (size_t i = 0; i < all->n; i++)
        findings_json(all->items[i], &j, &counts);
    json_close(&j, ']');
    json_uint(&j, "ok", counts.n[VERDICT_OK]);
    json_uint(&j, "warn", counts.n[VERDICT_WARN]);
    json_uint(&j, "fail", counts.n[VERDICT_FAIL]);
    json_close(&j, '}');
    puts(str_c(&out));
    str_fini(&out);
}

static int tell(const struct doctor *d, struct doctor_reports *all)
{
    int rc = GOOD;

    if (d->json)
        print_json(all);
    else
        print_text(all);
    for (size_t i = 0; i < all->n; i++) {
        if (findings_failed(all->items[i]))
            rc = BAD;
        findings_free(&all->items[i]);
    }
    xfree(all->items);
    return rc;
}

int doctor_cmd(int argc, char **argv)
{
    struct doctor d = {.config_path = DEFAULT_CONFIG, .timeout_ms = TIMEOUT_S * 1000};
    struct doctor_reports all = {NULL, 0};
    int rc = read_options(&d, argc, argv);

    if (rc == 0) {
        look(&d, &all);
        rc = tell(&d, &all);
    } else {
        rc = rc > 0 ? GOOD : USAGE;
    }
    str_wipe(&d.token);
    config_free(&d.config);
    return rc;
}
