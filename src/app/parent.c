#include "app/parent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
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

static int read_some(int fd, const char *path, struct str *out, struct err *e)
{
    char text[CREDENTIALS_MAX + 1];
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return err_errno(e, ERR_IO, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(e, ERR_INVALID, "%s: use a regular file", path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return err_set(e, ERR_DENIED,
                       "%s: its permissions (%04o) let others than its owner at the credentials; "
                       "chmod 600 it",
                       path, (unsigned)st.st_mode & 07777);
    n = read(fd, text, sizeof(text));
    if (n < 0)
        return err_errno(e, ERR_IO, errno, "%s", path);
    if ((size_t)n < sizeof(text))
        str_add(out, text, (size_t)n);
    explicit_bzero(text, sizeof(text));
    return out->n ? 0
                  : err_set(e, ERR_INVALID, "%s: %s", path,
                            n ? "longer than user:password may be" : "empty");
}

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
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc;

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "%s", path);
    rc = read_some(fd, path, out, e);
    fd_close(&fd);
    return rc < 0 ? rc : check_credentials(path, out, e);
}

/* --- the parent --------------------------------------------------------------------------- */

static void wipe(struct str *s)
{
    if (s->p)
        explicit_bzero(s->p, s->n);
    str_fini(s);
}

static int set_credentials(struct parent *p, const char *path, struct str *userinfo, struct err *e)
{
    struct str text = STR_INIT, value = STR_INIT;
    size_t user;

    if (read_credentials(path, &text, e) < 0) {
        wipe(&text);
        return err_prefix(e, "upstream.parent-credentials");
    }
    str_adds(&value, "Basic ");
    base64_encode(text.p, text.n, &value);
    p->authorization = str_take(&value);
    user = strcspn(text.p, ":");
    url_encode(view_of(text.p, user), userinfo);
    str_addc(userinfo, ':');
    url_encode(view_of(text.p + user + 1, text.n - user - 1), userinfo);
    str_addc(userinfo, '@');
    wipe(&text);
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
    str_addf(&p->url, strchr(p->host, ':') ? "%s://%s[%s]:%u" : "%s://%s%s:%u",
             url.https ? "https" : "http", str_c(&userinfo), p->host, p->net.port);
    wipe(&userinfo);
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
    wipe(&p->url);
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
