#include "app/certificates.h"

#include "app/worker.h"
#include "rt/clock.h"
#include "rt/json.h"
#include "rt/metric.h"

struct certificate {
    const char *name;          /* of the setting */
    const struct tls_ctx *tls; /* or */
    const struct mint *mint;
    int64_t not_after_ns;
};

typedef void (*certificate_fn)(void *ctx, const struct certificate *c);

static void each(const struct plan *p, certificate_fn fn, void *ctx)
{
    struct certificate c = {0};
    struct str name = STR_INIT;
    size_t i;

    for (i = 0; i < p->config->n_listen; i++) {
        if (!p->server_tls[i])
            continue;
        str_clear(&name);
        str_addf(&name, "listen.%s", p->config->listen[i].name);
        c = (struct certificate){.name = str_c(&name), .tls = p->server_tls[i]};
        c.not_after_ns = tls_ctx_not_after_ns(c.tls);
        fn(ctx, &c);
    }
    str_fini(&name);
    if (p->config->upstream_certificate && (p->client_tls || p->grpc_tls)) {
        c = (struct certificate){.name = "upstream",
                                 .tls = p->client_tls ? p->client_tls : p->grpc_tls};
        c.not_after_ns = tls_ctx_not_after_ns(c.tls);
        fn(ctx, &c);
    }
    if (p->inside.mint) {
        c = (struct certificate){.name = "intercept.ca", .mint = p->inside.mint};
        c.not_after_ns = mint_not_after_ns(c.mint);
        fn(ctx, &c);
    }
}

static void measure(void *ctx, const struct certificate *c)
{
    metric_set(metric_series(ctx, c->name),
               (double)(c->not_after_ns - clock_wall_ns()) / NS_PER_SEC);
}

void certificates_measure(const struct plan *p)
{
    each(p, measure,
         metric_family(METRIC_GAUGE, "certificate_expiry_seconds", "name",
                       "Until the certificate of that setting expires"));
}

static void report(void *ctx, const struct certificate *c)
{
    struct json *j = ctx;
    struct str subject = STR_INIT;

    if (c->tls)
        tls_ctx_subject(c->tls, &subject);
    else
        mint_subject(c->mint, &subject);
    json_open(j, NULL, '{');
    json_text(j, "name", view_str(c->name));
    json_text(j, "subject", str_view(&subject));
    json_time(j, "not_after", c->not_after_ns);
    /* Negative: it has expired. */
    json_int(j, "expires_in_seconds", (c->not_after_ns - clock_wall_ns()) / NS_PER_SEC);
    json_close(j, '}');
    str_fini(&subject);
}

void certificates_report(const struct plan *p, const char *name, struct json *j)
{
    json_open(j, name, '[');
    each(p, report, j);
    json_close(j, ']');
}

struct first {
    int64_t not_after_ns;
    struct str *name;
};

static void look_for_first(void *ctx, const struct certificate *c)
{
    struct first *f = ctx;

    if (c->not_after_ns >= f->not_after_ns)
        return;
    f->not_after_ns = c->not_after_ns;
    str_clear(f->name);
    str_adds(f->name, c->name);
}

int64_t certificates_first(const struct plan *p, struct str *name)
{
    struct first f = {INT64_MAX, name};

    each(p, look_for_first, &f);
    return f.not_after_ns;
}
