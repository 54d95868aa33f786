#include "app/onward.h"

#include <errno.h>
#include <sys/socket.h>
#include "app/passing.h"
#include "base/bug.h"
#include "base/wire.h"
#include "rt/fdx.h"

void onward_encode(const struct http_request *req, struct str *out)
{
    char peer[NET_ADDR_TEXT];

    wire_put_u8(out, req->tls);
    wire_put_u8(out, req->tag != NULL);
    wire_put_view(out, req->listener ? view_str(req->listener) : VIEW_NONE);
    wire_put_view(out, view_str(net_addr_text(req->peer, peer)));
    wire_put_view(out, req->identity);
}

int onward_decode(struct view payload, struct onward_from *out)
{
    struct wire w = wire_of(payload);

    out->tls = wire_u8(&w) != 0;
    out->inside = wire_u8(&w) != 0;
    out->listener = wire_view(&w);
    out->peer = wire_view(&w);
    out->identity = wire_view(&w);
    return w.failed ? -1 : 0;
}

struct dial {
    struct onward_way *way;
    const struct http_request *req;
};

/* See struct http_call_opts. */
static int dial(void *ctx, struct err *e)
{
    const struct dial *d = ctx;
    struct str payload = STR_INIT;
    int pair[2], rc;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return err_errno(e, ERR_IO, errno, "no socket pair");
    onward_encode(d->req, &payload);
    pthread_mutex_lock(&d->way->lock);
    rc = d->way->fd < 0
             ? err_set(e, ERR_UNAVAIL, "the process that took over is gone")
             : passing_send(d->way->fd, PASSING_CONNECTION, str_view(&payload), &pair[1], 1, e);
    pthread_mutex_unlock(&d->way->lock);
    str_fini(&payload);
    fd_close(&pair[1]);
    if (rc < 0)
        fd_close(&pair[0]);
    return pair[0];
}

static void send_on(struct onward *o, struct http_exchange *ex, const struct http_request *req)
{
    struct dial d = {o->way, req};
    const struct relay_to to = {
        .host = "localhost", /* nobody is asked where that is */
        .authority = req->authority,
        .target = req->target,
        .dial = dial,
        .dial_ctx = &d,
    };
    const struct passage_opts po = {
        .kind = "relay",
        .listener = req->listener,
        .from = req->peer,
        .identity = req->identity,
        .authority = o->authority,
        .port = 443,
        .fixed_rule = "upstream",
    };

    relay_exchange(o->relays, ex, req, &to, passage_open(o->gate, &po));
}

static void take(void *ctx, struct http_exchange *ex, const struct http_request *req)
{
    struct onward *o = ctx;
    const struct http_service *here = o->way ? o->relay : o->home;

    if (o->way && req->target.n && req->target.p[0] == '/')
        send_on(o, ex, req);
    else
        here->take(here->ctx, ex, req);
}

void onward_init(struct onward *o, const struct http_service *home,
                 const struct http_service *relay, struct relays *relays, struct gate *gate)
{
    *o = (struct onward){
        .service = {take, o}, .home = home, .relay = relay, .relays = relays, .gate = gate};
}

void onward_begin(struct onward *o, struct onward_way *way, struct view authority)
{
    o->way = way;
    o->authority = authority;
}
