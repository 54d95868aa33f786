#include "admin/control.h"

#include <string.h>
#include <unistd.h>
#include "admin/admin.h"
#include "admin/call.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "net/listen.h"
#include "net/listen_unix.h"

enum {
    CONTROL_BACKLOG = 64,
    CONTROL_CONNECTIONS = 64,
};

struct control {
    char *path;
    struct net_unix_name name;
    struct ev_loop *loop;
    struct http_server *server;
    struct net_listener *listener;
    struct http_service service;
    struct control_opts o;
};

struct control_conn {
    struct control_peer peer;
};

/* Everything below the prefix. */
static void take_call(const struct control_conn *conn, struct http_exchange *ex, struct view path,
                      struct view query)
{
    struct str by = STR_INIT;

    str_addf(&by, "uid=%lu pid=%ld", (unsigned long)conn->peer.uid, (long)conn->peer.pid);
    call_serve(ex, &(struct call_opts){.by = str_c(&by)}, path, query);
    str_fini(&by);
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct control *c = ctx;
    const struct control_conn *conn = req->tag;
    struct view path, query;

    url_split_target(req->target, &path, &query);
    if (req->upgrade && c->o.upgrade)
        c->o.upgrade(c->o.ctx, ex, &conn->peer);
    else if (req->upgrade)
        http_reply(ex, 501, NULL, 0, VIEW_NONE);
    else if (view_is(path, CALL_PREFIX))
        call_show_index(ex, false);
    else if (view_is(path, CALL_PREFIX CALL_ACCESS) && view_is(req->method, "GET"))
        call_show_access(ex, NULL, true);
    else if (view_starts(path, VIEW_LIT(CALL_PREFIX)))
        take_call(conn, ex, view_from(path, strlen(CALL_PREFIX)), query);
    else
        admin_service()->take(admin_service()->ctx, ex, req);
}

/* --- connections ------------------------------------------------------------------------------ */

static void conn_closed(void *tag, const struct net_stream *s)
{
    (void)s;
    xfree(tag);
}

static void accepted(void *ctx, int fd, const struct net_addr *peer)
{
    struct control *c = ctx;
    struct control_conn *conn = XNEW(struct control_conn);
    const struct http_conn_opts o = {.tag = conn, .on_closed = conn_closed};

    if (net_unix_peer(fd, &conn->peer.uid, &conn->peer.pid) < 0) {
        close(fd);
        xfree(conn);
    } else if (http_server_accepted_as(c->server, fd, peer, &o) < 0) {
        xfree(conn);
    }
}

struct control *control_open(struct ev_loop *loop, const struct control_opts *o, struct err *e)
{
    struct http_server_opts so = {.listener = "control", .max_connections = CONTROL_CONNECTIONS};
    int fd = net_listen_unix(o->path, CONTROL_BACKLOG, o->replace, e);
    struct control *c;

    if (fd < 0) {
        err_prefix(e, "control.socket");
        return NULL;
    }
    c = XNEW(struct control);
    c->path = xstrdup(o->path);
    net_unix_name(c->path, &c->name);
    c->loop = loop;
    c->o = *o;
    c->service = (struct http_service){take, c};
    so.service = &c->service;
    c->server = http_server_new(loop, &so);
    c->listener = net_listener_new(loop, fd, accepted, c);
    return c;
}

const char *control_path(const struct control *c)
{
    return c->path;
}

void control_close(struct control **cp)
{
    struct control *c = *cp;

    *cp = NULL;
    if (!c)
        return;
    net_unix_unlink(c->path, &c->name);
    net_listener_free(&c->listener);
    http_server_free(&c->server);
    xfree(c->path);
    xfree(c);
}
