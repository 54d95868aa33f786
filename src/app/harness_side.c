#include "app/harness_side.h"

#include <stdlib.h>
#include <string.h>
#include "app/harness_side_priv.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "crypto/cert_facts.h"
#include "net/addr.h"
#include "policy/dest.h"
#include "rt/clock.h"

/*
 * What must not go by the proxy (HP §4.5: suffixes, no ranges): the host itself, the metadata of
 * clouds, and what is inside the cluster. The gateway's own name is added, and with --no-proxy what
 * only the admin knows: the address of the cluster's API server (HP §5), names of the company.
 */
static const char *const never_by_proxy[] = {
    "localhost", "127.0.0.1",      "169.254.169.254", "metadata.google.internal",
    ".svc",      ".cluster.local",
};

int harness_form_parse(const char *text, enum harness_form *out)
{
    static const char *const names[] = {"text", "env", "yaml"};
    size_t i;

    for (i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            *out = (enum harness_form)i;
            return 0;
        }
    }
    return -1;
}

/* ---- listeners as clients see them -------------------------------------------------------- */

static bool is_any(const struct net_addr *a)
{
    return a->ss.ss_family == AF_INET6 ? IN6_IS_ADDR_UNSPECIFIED(&a->ss.in6.sin6_addr)
                                       : a->ss.in.sin_addr.s_addr == htonl(INADDR_ANY);
}

/* What the listener's own address tells. */
static void place_address(struct side_place *p)
{
    struct net_addr a;
    char text[NET_ADDR_TEXT];
    struct err e;

    if (net_addr_parse(view_str(p->l->address), &a, &e) < 0)
        return; /* options.c has refused it */
    if (net_addr_port(&a))
        str_addf(&p->port, "%u", net_addr_port(&a));
    if (is_any(&a))
        return;
    str_adds(&p->host, net_addr_ip(&a, text));
    p->loopback = addr_class(&a.ss.sa, NULL) == ADDR_LOOPBACK;
}

/* A certificate's name is what its clients have to call it by, whatever address it listens on. */
static void place_certificate(struct side_place *p, const char *address)
{
    struct cert_facts f;
    struct err e;

    if (!p->l->certificate)
        return;
    p->cert = CERT_UNREAD;
    if (cert_facts_read(p->l->certificate, address ? address : str_c(&p->host), &f, &e) == 0) {
        p->cert = f.trusted ? CERT_PUBLIC : CERT_PRIVATE;
        str_addv(&p->issuer, str_view(&f.issuer));
        if (!address && !f.covers && f.name.n) {
            str_clear(&p->host);
            str_addv(&p->host, str_view(&f.name));
            p->loopback = false;
            f.covers = true;
        }
        p->expired = f.not_after < clock_wall_ns() / NS_PER_SEC;
        p->misnamed = (address || p->host.n) && !f.covers;
    }
    cert_facts_fini(&f);
}

static void place_url(struct side_place *p)
{
    bool v6 = strchr(str_c(&p->host), ':') != NULL;

    str_addf(&p->url, "%s://%s%s%s:%s", p->l->certificate ? "https" : "http", v6 ? "[" : "",
             str_c(&p->host), v6 ? "]" : "", str_c(&p->port));
}

/* What stands in front has a name, a port and a certificate of its own. */
static void place_front(struct side_place *p)
{
    struct url u;
    struct err e;

    if (url_parse(view_str(p->l->public_url), &u, &e) < 0)
        return;
    str_addv(&p->host, u.host);
    str_addf(&p->port, "%u", u.port);
    str_adds(&p->url, p->l->public_url);
    p->cert = u.https ? CERT_FRONT : CERT_NONE;
}

static void place_init(struct side_place *p, const struct config_listen *l, const char *address)
{
    *p = (struct side_place){.l = l};
    if (l->public_url) {
        place_front(p);
        return;
    }
    place_address(p);
    place_certificate(p, address);
    if (address) {
        str_clear(&p->host);
        str_adds(&p->host, address);
        p->loopback = false;
    }
    if (l->port) {
        str_clear(&p->port);
        str_adds(&p->port, l->port);
    }
    if (!p->port.n)
        str_adds(&p->port, PORT_UNKNOWN);
}

/* A name that the certificate of another listener has is this host's, too. */
static void place_finish(struct side_place *p, const struct side_place *all, size_t n)
{
    size_t i;

    for (i = 0; i < n && !p->host.n; i++) {
        if ((all[i].cert == CERT_PUBLIC || all[i].cert == CERT_PRIVATE) && !all[i].gap)
            str_addv(&p->host, str_view(&all[i].host));
    }
    p->gap = !p->host.n;
    if (p->gap)
        str_adds(&p->host, HOST_UNKNOWN);
    if (!p->url.n)
        place_url(p);
}

static void place_fini(struct side_place *p)
{
    str_fini(&p->host);
    str_fini(&p->port);
    str_fini(&p->url);
    str_fini(&p->issuer);
}

/* ---- NO_PROXY ----------------------------------------------------------------------------- */

static bool has_item(const struct str *list, struct view item)
{
    const char *p = str_c(list);

    while (*p) {
        size_t n = strcspn(p, ",");

        if (n == item.n && memcmp(p, item.p, n) == 0)
            return true;
        p += n + (p[n] == ',');
    }
    return false;
}

static void add_item(struct str *list, struct view item)
{
    if (!item.n || has_item(list, item))
        return;
    if (list->n)
        str_addc(list, ',');
    str_addv(list, item);
}

static void make_no_proxy(struct harness_side *s)
{
    const char *more = s->o->no_proxy ? s->o->no_proxy : "";
    size_t i;

    for (i = 0; i < ARRAY_LEN(never_by_proxy); i++)
        add_item(&s->no_proxy, view_str(never_by_proxy[i]));
    for (i = 0; i < s->c->n_listen; i++) {
        if (s->c->listen[i].mode != CONFIG_MODE_ADMIN)
            add_item(&s->no_proxy, str_view(&s->places[i].host));
    }
    while (*more) {
        size_t n = strcspn(more, ",");

        add_item(&s->no_proxy, view_of(more, n));
        more += n + (more[n] == ',');
    }
}

static int check_no_proxy(const char *list, struct err *e)
{
    if (strchr(list, '/'))
        return err_set(e, ERR_INVALID,
                       "--no-proxy: use names, suffixes (.corp.example) and addresses; delegates "
                       "know no ranges");
    if (list[strspn(list, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:,")])
        return err_set(e, ERR_INVALID, "--no-proxy: use names and addresses with commas between");
    return 0;
}

/* ---- settings ----------------------------------------------------------------------------- */

static struct str *add(struct side_settings *out, const char *env, const char *helm)
{
    struct side_setting *row = &out->rows[out->n++];

    ASSERT(out->n <= SETTINGS_MAX);
    *row = (struct side_setting){.env = env, .helm = helm};
    return &row->value;
}

bool side_intercepts(const struct harness_side *s, const struct side_place *p)
{
    return s->c->intercept_ca && p &&
           (p->l->mode == CONFIG_MODE_PROXY || p->l->mode == CONFIG_MODE_SNI);
}

bool side_needs_ca(const struct harness_side *s, const struct side_choice *choice)
{
    return side_intercepts(s, choice->proxy) || side_intercepts(s, choice->sni) ||
           (choice->upstream && choice->upstream->cert == CERT_PRIVATE) ||
           (choice->proxy && choice->proxy->cert == CERT_PRIVATE);
}

/* HP §4.1, §4.5, §4.7: the base of everything; the slash at the end of the log service's is needed.
 * The chart makes that one from managerEndpoint. */
static void add_base(struct side_settings *out, const char *base, bool ti)
{
    str_adds(add(out, "MANAGER_HOST_AND_PORT", "managerEndpoint"), base);
    str_addf(add(out, "LOG_STREAMING_SERVICE_URL", ""), "%s/log-service/", base);
    if (ti)
        str_addf(add(out, "TI_SERVICE_URL", NULL), "%s/ti-service/", base);
}

/* HP §4.5; the chart's names are in its proxyConfigMap.yaml and proxySecret.yaml. */
static void add_proxy(struct side_settings *out, const struct harness_side *s,
                      const struct side_place *p)
{
    str_addv(add(out, "PROXY_HOST", "proxyHost"), str_view(&p->host));
    str_addv(add(out, "PROXY_PORT", "proxyPort"), str_view(&p->port));
    str_adds(add(out, "PROXY_SCHEME", "proxyScheme"), p->l->certificate ? "https" : "http");
    str_addv(add(out, "NO_PROXY", "noProxy"), str_view(&s->no_proxy));
    if (!p->l->users)
        return;
    str_adds(add(out, "PROXY_USER", "proxyUser"), "NAME");
    out->rows[out->n - 1].asked = true;
    str_adds(add(out, "PROXY_PASSWORD", "proxyPassword"), "PASSWORD");
    out->rows[out->n - 1].asked = true;
}

/* Is it the delegate that has to show a client certificate (HP §4.6): to this gateway, or through
 * it to an account that wants one? */
static bool needs_client_certificate(const struct harness_side *s, const struct side_choice *choice)
{
    if (choice->upstream)
        return choice->upstream->l->client_ca != NULL;
    return s->c->upstream_certificate && !s->c->intercept_ca && (choice->proxy || choice->sni);
}

void side_settings_init(struct side_settings *out, const struct harness_side *s,
                        const struct side_choice *choice)
{
    *out = (struct side_settings){0};
    if (choice->upstream)
        add_base(out, str_c(&choice->upstream->url), true);
    else if (choice->proxy || choice->sni)
        add_base(out, s->c->harness_url, false);
    if (choice->proxy)
        add_proxy(out, s, choice->proxy);
    if (side_needs_ca(s, choice)) {
        str_adds(add(out, "DESTINATION_CA_PATH", "destinationCaPath"), CA_IN_IMAGES);
        str_adds(add(out, NULL, "delegateCustomCa.secretName"), CA_SECRET);
        str_adds(add(out, NULL, "upgraderCustomCa.secretName"), CA_SECRET);
    }
    if (needs_client_certificate(s, choice)) {
        str_adds(add(out, "DELEGATE_CLIENT_CERTIFICATE_PATH", ""), CLIENT_CERT_FILE);
        str_adds(add(out, "DELEGATE_CLIENT_CERTIFICATE_KEY_PATH", ""), CLIENT_KEY_FILE);
        str_adds(add(out, NULL, "mTLS.secretName"), CLIENT_SECRET);
    }
    /* HP §4.5: else delegates go on trying logging.googleapis.com, which is closed then. */
    if (out->n && s->c->upload_logs == CONFIG_UPLOADS_HARNESS)
        str_adds(add(out, "STACK_DRIVER_LOGGING_ENABLED", NULL), "false");
}

void side_settings_fini(struct side_settings *s)
{
    while (s->n)
        str_fini(&s->rows[--s->n].value);
}

/* ---- for machines ------------------------------------------------------------------------- */

bool side_is_asked_for(const struct harness_side *s, const struct side_place *p)
{
    return !s->o->listener || strcmp(s->o->listener, p->l->name) == 0;
}

static struct side_choice choose(const struct harness_side *s)
{
    struct side_choice choice = {0};
    size_t i;

    for (i = s->c->n_listen; i-- > 0;) {
        const struct side_place *p = &s->places[i];

        if (!side_is_asked_for(s, p))
            continue;
        if (p->l->mode == CONFIG_MODE_UPSTREAM)
            choice.upstream = p;
        else if (p->l->mode == CONFIG_MODE_PROXY)
            choice.proxy = p;
        else if (p->l->mode == CONFIG_MODE_SNI)
            choice.sni = p;
    }
    return choice;
}

static void print_env(const struct side_settings *settings, FILE *out)
{
    size_t i;

    for (i = 0; i < settings->n; i++) {
        const struct side_setting *row = &settings->rows[i];

        if (row->env)
            fprintf(out, "%s%s=%s\n", row->asked ? "# " : "", row->env, str_c(&row->value));
    }
}

static void print_value(const struct side_setting *row, FILE *out)
{
    const char *dot = strchr(row->helm, '.');
    const char *mark = row->asked ? "# " : "";

    if (dot)
        fprintf(out, "%.*s:\n  %s: \"%s\"\n", (int)(dot - row->helm), row->helm, dot + 1,
                str_c(&row->value));
    else
        fprintf(out, "%s%s: \"%s\"%s\n", mark, row->helm, str_c(&row->value),
                row->asked ? " # in base64" : "");
}

static void print_values(const struct side_settings *settings, FILE *out)
{
    bool first = true;
    size_t i;

    for (i = 0; i < settings->n; i++) {
        if (settings->rows[i].helm && *settings->rows[i].helm)
            print_value(&settings->rows[i], out);
    }
    for (i = 0; i < settings->n; i++) {
        if (settings->rows[i].helm)
            continue;
        fprintf(out, "%s  - name: %s\n    value: \"%s\"\n", first ? "custom_envs:\n" : "",
                settings->rows[i].env, str_c(&settings->rows[i].value));
        first = false;
    }
}

static void print_head(const struct harness_side *s, const struct side_choice *choice, FILE *out)
{
    const struct side_place *used[] = {choice->upstream, choice->proxy, choice->sni};
    size_t i, n = 0;

    fputs("# What delegates need so as to reach Harness by way of this tailrace", out);
    for (i = 0; i < ARRAY_LEN(used); i++) {
        if (used[i])
            fprintf(out, "%slisten.%s", n++ ? ", " : ": ", used[i]->l->name);
    }
    fputs(n ? ".\n" : ": nothing; none comes by these listeners.\n", out);
    if (harness_side_has_gaps(s) && n)
        fputs("# " HOST_UNKNOWN " stands for the name by which they reach it: --address NAME puts "
              "it in.\n",
              out);
    for (i = 0; i < ARRAY_LEN(used); i++) {
        if (used[i] && used[i]->cert == CERT_UNREAD)
            fprintf(out,
                    "# listen.%s.certificate cannot be read here: what is to be trusted is not "
                    "known.\n",
                    used[i]->l->name);
    }
    if (choice->proxy)
        fputs("# NO_PROXY lacks what only you know: the address of the cluster's API server, hosts "
              "inside: --no-proxy A,B.\n",
              out);
    if (side_needs_ca(s, choice))
        fputs("# Authorities go into " DELEGATE_CA_DIR " (secret " CA_SECRET
              "): `tailrace check` says which.\n",
              out);
}

void harness_side_print(const struct harness_side *s, FILE *out)
{
    struct side_choice choice = choose(s);
    struct side_settings settings;

    if (s->o->form == HARNESS_TEXT) {
        side_print_text(s, out);
        return;
    }
    side_settings_init(&settings, s, &choice);
    print_head(s, &choice, out);
    if (s->o->form == HARNESS_ENV)
        print_env(&settings, out);
    else
        print_values(&settings, out);
    side_settings_fini(&settings);
}

/* ---- life --------------------------------------------------------------------------------- */

static int check_address(const char *address, struct err *e)
{
    struct net_addr a;
    struct dest d;

    if (net_addr_literal(view_str(address), 0, &a) == 0)
        return 0;
    if (strchr(address, ':') || strchr(address, '*') || dest_parse(view_str(address), 1, &d, e) < 0)
        return err_set(e, ERR_INVALID,
                       "--address: use a name or an address, such as tailrace.corp.example, "
                       "without a port");
    return 0;
}

static int check_opts(const struct config *c, const struct harness_side_opts *o, struct err *e)
{
    size_t i;

    if (o->address && check_address(o->address, e) < 0)
        return -1;
    if (o->no_proxy && check_no_proxy(o->no_proxy, e) < 0)
        return -1;
    for (i = 0; o->listener && i < c->n_listen; i++) {
        if (strcmp(o->listener, c->listen[i].name) == 0)
            return 0;
    }
    if (o->listener)
        return err_set(e, ERR_INVALID, "--listener: there is no listener of this name");
    return 0;
}

struct harness_side *harness_side_new(const struct config *c, const struct harness_side_opts *o,
                                      struct err *e)
{
    struct harness_side *s;
    size_t i;

    if (check_opts(c, o, e) < 0)
        return NULL;
    s = XNEW(struct harness_side);
    s->c = c;
    s->o = o;
    s->places = xcalloc(TR_MAX(c->n_listen, (size_t)1), sizeof(*s->places));
    for (i = 0; i < c->n_listen; i++)
        place_init(&s->places[i], &c->listen[i], o->address);
    for (i = 0; i < c->n_listen; i++)
        place_finish(&s->places[i], s->places, c->n_listen);
    make_no_proxy(s);
    return s;
}

void harness_side_free(struct harness_side **s)
{
    size_t i;

    if (!*s)
        return;
    for (i = 0; i < (*s)->c->n_listen; i++)
        place_fini(&(*s)->places[i]);
    xfree((*s)->places);
    str_fini(&(*s)->no_proxy);
    XFREE(*s);
}

bool harness_side_has_gaps(const struct harness_side *s)
{
    size_t i;

    for (i = 0; i < s->c->n_listen; i++) {
        if (s->places[i].gap && side_is_asked_for(s, &s->places[i]) &&
            s->places[i].l->mode != CONFIG_MODE_ADMIN)
            return true;
    }
    return false;
}
