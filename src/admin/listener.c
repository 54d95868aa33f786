#include "admin/listener.h"

#include <string.h>
#include <unistd.h>
#include "admin/admin.h"
#include "admin/call.h"
#include "base/list.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "net/addr.h"

#define ACTION_FIELD "x-tailrace-action"

struct admin_listener {
    struct http_service service;
    struct admin_listener_opts o;
    struct basic *basic; /* NULL: no users */
    struct list waiting; /* struct admission */
};

/* An action whose credentials are being checked. */
struct admission {
    struct list link;
    struct admin_listener *l;
    struct http_exchange *ex;
    struct basic_ask *ask;
};

/* --- names --------------------------------------------------------------------------------- */

static struct view without_port(struct view host)
{
    const char *colon = host.n ? memrchr(host.p, ':', host.n) : NULL;
    const char *bracket = host.n ? memrchr(host.p, ']', host.n) : NULL;

    if (colon && (!bracket || bracket < colon))
        host.n = (size_t)(colon - host.p);
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = view_of(host.p + 1, host.n - 2);
    return host;
}

static bool is_this_machine(struct view host)
{
    char own[256] = "";

    return gethostname(own, sizeof(own) - 1) == 0 && view_ieq(host, view_str(own));
}

bool admin_listener_knows_host(struct view host, const char *public_url)
{
    struct net_addr literal;
    struct url url;
    struct err e;

    host = without_port(host);
    if (host.n && host.p[host.n - 1] == '.')
        host.n--;
    if (host.n == 0 || !memchr(host.p, '.', host.n))
        return true;
    if (net_addr_literal(host, 0, &literal) == 0 || view_ends(host, VIEW_LIT(".localhost")) ||
        is_this_machine(host))
        return true;
    return public_url && url_parse(view_str(public_url), &url, &e) == 0 && view_ieq(host, url.host);
}

/* --- actions ------------------------------------------------------------------------------- */

static void go(struct admin_listener *l, struct http_exchange *ex, struct view user, bool bound)
{
    const struct http_request *req = http_request_of(ex);
    char from[NET_ADDR_TEXT];
    struct view path, query;
    struct str by = STR_INIT;

    url_split_target(req->target, &path, &query);
    str_adds(&by, "user=");
    str_addv(&by, user);
    str_addf(&by, " from=%s listener=%s", net_addr_text(req->peer, from), l->o.name);
    call_serve(ex, &(struct call_opts){.by = str_c(&by), .open = true, .bound = bound},
               view_from(path, strlen(CALL_PREFIX)), query);
    str_fini(&by);
}

static void refuse(struct http_exchange *ex, enum basic_result result)
{
    static const struct h1_field ask = {VIEW_LIT("www-authenticate"),
                                        VIEW_LIT("Basic realm=\"tailrace\", charset=\"UTF-8\"")};
    static const struct h1_field later = {VIEW_LIT("retry-after"), VIEW_LIT("10")};

    if (result == BASIC_BUSY)
        call_refuse(ex, 429, &later, "too many attempts: wait a minute");
    else
        call_refuse(ex, 401, &ask,
                    result == BASIC_MISSING ? "actions need credentials" : "wrong credentials");
}

static void waiting_body(void *ctx, struct view piece)
{
    struct admission *a = ctx;

    http_consumed(a->ex, piece.n); /* no action takes a body */
}

static void admission_free(struct admission *a)
{
    basic_cancel(&a->ask);
    list_remove(&a->link);
    xfree(a);
}

static void waiting_gone(void *ctx, bool complete)
{
    (void)complete;
    admission_free(ctx);
}

static const struct http_handler waiting_handler = {.on_body = waiting_body,
                                                    .on_gone = waiting_gone};
static const struct http_handler refused_handler = {0};

static void on_checked(void *ctx, enum basic_result result, struct view user)
{
    struct admission *a = ctx;

    a->ask = NULL;
    if (result == BASIC_GOOD) {
        go(a->l, a->ex, user, true);
    } else {
        http_rebind(a->ex, &refused_handler, NULL);
        refuse(a->ex, result);
    }
    admission_free(a);
}

static void ask_who(struct admin_listener *l, struct http_exchange *ex,
                    const struct http_request *req)
{
    struct view field = http_field(req->fields, req->n_fields, "authorization");
    struct admission *a = XNEW(struct admission);
    struct view user = VIEW_NONE;
    enum basic_result result;

    a->l = l;
    a->ex = ex;
    list_init(&a->link);
    result = basic_check(l->basic, field, req->peer, &user, &a->ask, a);
    if (result == BASIC_ASKED) {
        list_append(&l->waiting, &a->link);
        http_bind(ex, &waiting_handler, a);
        return;
    }
    admission_free(a);
    if (result == BASIC_GOOD)
        go(l, ex, user, false);
    else
        refuse(ex, result);
}

/* The field comes first: a browser asks its user for nothing that another place's page wants. */
static void take_action(struct admin_listener *l, struct http_exchange *ex,
                        const struct http_request *req)
{
    if (!view_is(http_field(req->fields, req->n_fields, ACTION_FIELD), "1"))
        call_refuse(ex, 403, NULL, "actions need the field X-Tailrace-Action: 1");
    else if (!l->basic)
        call_refuse(ex, 403, NULL,
                    "actions need credentials: set listen.NAME.users, or use tailracectl");
    else
        ask_who(l, ex, req);
}

/* --- the service --------------------------------------------------------------------------- */

static void take_call(struct admin_listener *l, struct http_exchange *ex,
                      const struct http_request *req, struct view path, struct view query)
{
    static const struct h1_field allow = {VIEW_LIT("allow"), VIEW_LIT("GET, POST")};
    const struct call_opts o = {.by = "an admin listener", .open = true};

    if (!l->o.tls && !admin_listener_knows_host(req->authority, l->o.public_url))
        call_refuse(ex, 421, NULL,
                    "this name is not known to be ours: come by an address, or set "
                    "listen.NAME.public-url");
    else if (view_is(req->method, "POST"))
        take_action(l, ex, req);
    else if (!view_is(req->method, "GET"))
        call_refuse(ex, 405, &allow, "use GET or POST");
    else if (path.n == 0)
        call_show_index(ex, true);
    else if (view_is(path, CALL_ACCESS))
        call_show_access(ex, l->o.name, l->basic != NULL);
    else
        call_serve(ex, &o, path, query);
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    static const struct view prefix = VIEW_LIT(CALL_PREFIX);
    struct admin_listener *l = ctx;
    struct view path, query;

    url_split_target(req->target, &path, &query);
    if (view_starts(path, prefix))
        take_call(l, ex, req, view_from(path, prefix.n), query);
    else
        admin_service()->take(admin_service()->ctx, ex, req);
}

struct admin_listener *admin_listener_new(const struct admin_listener_opts *o)
{
    struct admin_listener *l = XNEW(struct admin_listener);

    l->service = (struct http_service){take, l};
    l->o = *o;
    list_init(&l->waiting);
    admin_listener_configure(l, o->users, o->public_url);
    return l;
}

/* Those that wait for an answer of a checker that is no more are told to come again. */
static void drop_checker(struct admin_listener *l)
{
    struct list *it, *tmp;

    basic_free(&l->basic);
    list_each (it, tmp, &l->waiting) {
        struct admission *a = list_entry(it, struct admission, link);

        a->ask = NULL;
        http_abort(a->ex);
    }
}

void admin_listener_configure(struct admin_listener *l, const struct basic_users *users,
                              const char *public_url)
{
    l->o.public_url = public_url;
    if (!users)
        drop_checker(l);
    else if (l->basic)
        basic_configure(l->basic, users);
    else
        l->basic = basic_new(l->o.loop, l->o.pool, users, on_checked);
}

const struct http_service *admin_listener_service(struct admin_listener *l)
{
    return &l->service;
}

void admin_listener_free(struct admin_listener **lp)
{
    struct admin_listener *l = *lp;

    *lp = NULL;
    if (!l)
        return;
    basic_free(&l->basic);
    xfree(l);
}
