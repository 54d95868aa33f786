#include "app/parent.h"

#include <string.h>
#include "app/egress.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "crypto/digest.h"
#include "rt/fdx.h"

enum {
    PORT_CLEAR = 3128, /* what proxies listen at, where a URL would mean 80 */
    CREDENTIALS_MAX = 1024,
};

struct parent {
    struct net_parent net;
    char *host;
    char *authorization;
    struct str url;
    struct policy *bypass;
};

/* --- credentials -------------------------------------------------------------------------- */

/* One line, user:password (RFC 7617 §2: no control characters, no colon in the user). */
static int check_credentials(const char *path, struct str *s, struct err *e)
{
    size_t i;

    if (s->n && s->p[s->n - 1] == '\n')
        s->p[--s->n] = '\0';
    if (s->n && s->p[s->n - 1] == '\r')
        s->p[--s->n] = '\0';
    for (i = 0; i < s->n; i++) {
        if ((unsigned char)s->p[i] < ' ' || s->p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "%s: use one line with user:password", path);
    }
    if (!s->n || s->p[0] == ':' || !strchr(s->p, ':'))
        return err_set(e, ERR_INVALID, "%s: use one line with user:password", path);
    return 0;
}

static int read_credentials(const char *path, struct str *out, struct err *e)
{
    if (secret_read(path, CREDENTIALS_MAX, out, e) < 0)
        return -1;
    if (!out->n)
        return err_set(e, ERR_INVALID, "%s: empty", path);
    return check_credentials(path, out, e);
}

/* --- the parent --------------------------------------------------------------------------- */

static int set_credentials(struct parent *p, const char *path, struct str *userinfo, struct err *e)
{
    struct str text = STR_INIT, value = STR_INIT;
    size_t user;

    if (read_credentials(path, &text, e) < 0) {
        str_wipe(&text);
        return err_prefix(e, "upstream.parent-credentials");
    }
    /* Nothing moves while it grows: a move leaves a copy behind. */
    str_reserve(&value, 16 + 2 * text.n);
    str_reserve(userinfo, 8 + 3 * text.n);
    str_adds(&value, "Basic ");
    base64_encode(text.p, text.n, &value);
    p->authorization = str_take(&value);
    user = strcspn(text.p, ":");
    url_encode(view_of(text.p, user), userinfo);
    str_addc(userinfo, ':');
    url_encode(view_of(text.p + user + 1, text.n - user - 1), userinfo);
    str_addc(userinfo, '@');
    str_wipe(&text);
    return 0;
}

static int set_tls(struct parent *p, const struct config *c, struct err *e)
{
    const struct tls_client_opts o = {.ca = c->upstream_ca, .min_version = config_tls_min(c)};

    p->net.tls = tls_ctx_client(&o, e);
    return p->net.tls ? 0 : err_prefix(e, "upstream.parent");
}

static int fill(struct parent *p, const struct config *c, struct err *e)
{
    struct str userinfo = STR_INIT;
    struct url url;

    if (url_parse(view_str(c->upstream_parent), &url, e) < 0)
        return err_prefix(e, "upstream.parent");
    p->host = xmemdup0(url.host.p, url.host.n);
    p->net.host = p->host;
    p->net.port = url.port_given || url.https ? url.port : PORT_CLEAR;
    if (c->upstream_parent_credentials &&
        set_credentials(p, c->upstream_parent_credentials, &userinfo, e) < 0)
        return -1;
    p->net.authorization = p->authorization;
    str_reserve(&p->url, userinfo.n + strlen(p->host) + 32);
    str_addf(&p->url, strchr(p->host, ':') ? "%s://%s[%s]:%u" : "%s://%s%s:%u",
             url.https ? "https" : "http", str_c(&userinfo), p->host, p->net.port);
    str_wipe(&userinfo);
    if (url.https && set_tls(p, c, e) < 0)
        return -1;
    p->bypass = egress_bypass(c, e);
    p->net.bypass = parent_bypasses;
    p->net.bypass_ctx = p;
    return p->bypass ? 0 : err_prefix(e, "upstream.parent-bypass");
}

int parent_new(const struct config *c, struct parent **out, struct err *e)
{
    *out = NULL;
    if (!c->upstream_parent)
        return 0;
    *out = XNEW(struct parent);
    if (fill(*out, c, e) == 0)
        return 0;
    parent_free(out);
    return -1;
}

void parent_free(struct parent **pp)
{
    struct parent *p = *pp;

    *pp = NULL;
    if (!p)
        return;
    if (p->authorization)
        explicit_bzero(p->authorization, strlen(p->authorization));
    xfree(p->authorization);
    str_wipe(&p->url);
    tls_ctx_unref(&p->net.tls);
    policy_free(&p->bypass);
    xfree(p->host);
    xfree(p);
}

const struct net_parent *parent_net(const struct parent *p)
{
    return p ? &p->net : NULL;
}

char *parent_url(const struct parent *p)
{
    return p ? xstrdup(str_c(&p->url)) : NULL;
}

bool parent_bypasses(void *parent, const char *host, uint16_t port)
{
    struct parent *p = parent;
    struct policy_query q = {.anyone = true};
    struct str authority = STR_INIT;
    struct dest d;
    bool yes;

    str_addf(&authority, strchr(host, ':') ? "[%s]" : "%s", host);
    q.dest = &d;
    /* What is no destination is not dialled by anybody. */
    yes =
        dest_parse(str_view(&authority), port, &d, NULL) == 0 && policy_decide(p->bypass, &q).allow;
    str_fini(&authority);
    return yes;
}
