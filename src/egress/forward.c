#include "egress/forward.h"

#include <stdio.h>
#include <unistd.h>
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"
#include "net/seats.h"
#include "rt/log.h"

struct forward {
    struct forward_opts o;
    char *to;
    char *rule;
    struct list waiting; /* struct forwarded: being dialled */
    size_t n_waiting;
};

/* A client whose destination is being dialled. */
struct forwarded {
    struct list link;
    struct forward *f;
    struct net_stream *client;
    struct passage *passage;
};

static void forwarded_free(struct forwarded *w)
{
    list_remove(&w->link);
    w->f->n_waiting--;
    xfree(w);
}

static void give_up(struct forwarded *w, const char *why)
{
    passage_end(&w->passage, why);
    net_stream_close(&w->client, true);
    forwarded_free(w);
}

static void on_connected(void *ctx, struct net_stream *s, const struct err *e)
{
    struct forwarded *w = ctx;
    static struct log_rate rate;
    uint64_t left_out;

    if (s) {
        tunnel_start(
            w->f->o.tunnels,
            &(struct tunnel_opts){.client = w->client, .upstream = s, .passage = w->passage});
        forwarded_free(w);
        return;
    }
    if (log_rate_ok(&rate, 5, &left_out))
        log_event(LOG_WARN, "forward", "the destination of a forward cannot be reached",
                  LF_STR("listener", w->f->o.listener), LF_ERR(e), LF_UINT("suppressed", left_out));
    give_up(w, e->code == ERR_TIMEOUT ? "timeout" : "unreachable");
}

/* Bytes of the client wait in the socket until its destination stands; a client that leaves
 * meanwhile is found out then. */
static const struct net_stream_ops waiting_ops = {0};

void forward_accepted(void *forward, int fd, const struct net_addr *peer)
{
    struct forward *f = forward;
    struct forwarded *w;

    if (tunnels_full(f->o.tunnels, f->n_waiting, f->o.max_connections, f->o.listener)) {
        seat_give_back(fd);
        close(fd);
        return;
    }
    w = XNEW(struct forwarded);
    w->f = f;
    list_init(&w->link);
    list_append(&f->waiting, &w->link);
    f->n_waiting++;
    w->client = net_stream_accepted(f->o.loop, fd, NULL, peer);
    net_stream_bind(w->client, &waiting_ops, w);
    w->passage = passage_open(f->o.gate, &(struct passage_opts){.kind = "forward",
                                                                .listener = f->o.listener,
                                                                .from = peer,
                                                                .authority = view_str(f->to),
                                                                .fixed_rule = f->rule});
    passage_dial(w->passage, NULL, VIEW_NONE, on_connected, w);
}

struct forward *forward_new(const struct forward_opts *o)
{
    struct forward *f = XNEW(struct forward);
    struct str rule = STR_INIT;

    f->o = *o;
    f->to = xstrdup(o->to);
    str_addf(&rule, "forward:%s", o->listener);
    f->rule = str_take(&rule);
    list_init(&f->waiting);
    return f;
}

void forward_configure(struct forward *f, const char *to)
{
    xfree(f->to);
    f->to = xstrdup(to);
}

size_t forward_waiting(const struct forward *f)
{
    return f->n_waiting;
}

void forward_free(struct forward **fp)
{
    struct forward *f = *fp;
    struct list *it, *tmp;

    *fp = NULL;
    if (!f)
        return;
    list_each (it, tmp, &f->waiting)
        give_up(list_entry(it, struct forwarded, link), "shutdown");
    xfree(f->to);
    xfree(f->rule);
    xfree(f);
}
