#include "admin/site.h"

#include <stdint.h>
#include <string.h>
#include "admin/admin.h"
#include "base/str.h"
#include "crypto/digest.h"

#define INDEX "index.html"

/* Of the script nothing is made but what stands in its file, and it writes text, never markup. The
 * keys of streams are chosen by whoever writes logs. */
#define POLICY                                                                                     \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src "        \
    "'self'; "                                                                                     \
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "                                \
    "require-trusted-types-for 'script'; trusted-types 'none'"

static const char *type_of(const char *name)
{
    const struct view v = view_str(name);

    if (view_ends(v, VIEW_LIT(".html")))
        return "text/html; charset=utf-8";
    if (view_ends(v, VIEW_LIT(".css")))
        return "text/css; charset=utf-8";
    return view_ends(v, VIEW_LIT(".js")) ? "text/javascript; charset=utf-8" : "image/svg+xml";
}

static const struct site_file *find(struct view path, struct view accept)
{
    const struct site_file *f;
    struct view name = view_from(path, 1);

    if (name.n == 0 && !admin_wants_html(accept))
        return NULL;
    if (name.n == 0)
        name = VIEW_LIT(INDEX);
    else if (view_is(name, INDEX))
        return NULL; /* one address for one page */
    for (f = site_files; f->name; f++) {
        if (view_is(name, f->name))
            return f;
    }
    return NULL;
}

static void add_tag(const struct site_file *f, struct str *out)
{
    uint8_t digest[32];

    sha256(f->bytes, f->n, digest);
    str_addc(out, '"');
    base64url_encode(digest, 12, out);
    str_addc(out, '"');
}

/* Strong tags of ours only; a list that holds it will do (RFC 9110 §13.1.2). */
static bool has_it(const struct http_request *req, struct view tag)
{
    struct view v = http_field(req->fields, req->n_fields, "if-none-match");

    return v.n && memmem(v.p, v.n, tag.p, tag.n);
}

static void answer(struct http_exchange *ex, const struct http_request *req,
                   const struct site_file *f)
{
    struct str tag = STR_INIT;

    add_tag(f, &tag);
    const struct h1_field fields[] = {
        {VIEW_LIT("cache-control"), VIEW_LIT("no-cache")}, /* ask whether it is still this one */
        {VIEW_LIT("etag"), str_view(&tag)},
        {VIEW_LIT("vary"), VIEW_LIT("accept")},
        {VIEW_LIT("content-security-policy"), VIEW_LIT(POLICY)},
        {VIEW_LIT("x-content-type-options"), VIEW_LIT("nosniff")},
        {VIEW_LIT("referrer-policy"), VIEW_LIT("no-referrer")},
        {VIEW_LIT("cross-origin-opener-policy"), VIEW_LIT("same-origin")},
        {VIEW_LIT("cross-origin-resource-policy"), VIEW_LIT("same-origin")},
        {VIEW_LIT("content-type"), view_str(type_of(f->name))},
    };

    if (has_it(req, str_view(&tag)))
        http_reply(ex, 304, fields, ARRAY_LEN(fields) - 1, VIEW_NONE);
    else
        http_reply(ex, 200, fields, ARRAY_LEN(fields), view_of(f->bytes, f->n));
    str_fini(&tag);
}

bool site_take(struct http_exchange *ex, const struct http_request *req, struct view path,
               struct view accept)
{
    const struct site_file *f;

    if (path.n == 0 || (!view_is(req->method, "GET") && !view_is(req->method, "HEAD")))
        return false;
    f = find(path, accept);
    if (!f)
        return false;
    answer(ex, req, f);
    return true;
}
