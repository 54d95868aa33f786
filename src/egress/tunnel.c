#include "egress/tunnel.h"

#include <stdatomic.h>
#include "base/bug.h"
#include "base/list.h"
#include "base/xmem.h"
#include "egress/pipes.h"
#include "net/buffers.h"
#include "rt/clock.h"
#include "rt/log.h"
#include "rt/metric.h"
#include "rt/rng.h"

enum {
    SCRATCH = 64 * 1024,
    SHORT_READ = 4 * 1024,      /* while memory for connections is short */
    BULK_AFTER = 2,             /* so many full reads in a row, and splicing begins to pay */
    TURN_MAX = 2 * 1024 * 1024, /* bytes of one direction before others have their turn */
    LOOK_MS = 1000,
    HALF_OPEN_MS = 10 * 60 * 1000,
    DRAIN_LOOK_MS = 50,
};

/* One direction. */
struct flow {
    struct buf *left; /* read and not yet written; NULL but when `to` is slow */
    size_t held;      /* by it, as counted in net/buffers.h */
    struct pipe_pair *pipe;
    size_t in_pipe;
    uint64_t bytes;
    unsigned full_reads;
    bool ended; /* the end of `from` was read, */
    bool done;  /* ... and passed on */
};

struct tunnel {
    struct list link;
    struct tunnels *all;
    struct passage *passage;
    struct net_stream *client, *upstream;
    struct flow up, down;
    int64_t active; /* monotonic: when something last moved */
    int64_t end_at; /* while draining */
    const char *first_end;
};

/* Of all workers. */
static atomic_size_t tunnels_total;

struct tunnels {
    struct ev_loop *loop;
    struct list list;
    atomic_size_t n;
    struct pipes pipes;
    struct ev_timer *look;
    struct rng rng;
    bool draining;
    unsigned char scratch[SCRATCH];
};

static struct net_stream *from_of(const struct tunnel *t, const struct flow *f)
{
    return f == &t->up ? t->client : t->upstream;
}

static struct net_stream *to_of(const struct tunnel *t, const struct flow *f)
{
    return f == &t->up ? t->upstream : t->client;
}

static void drop_left(struct flow *f)
{
    if (!f->left)
        return;
    buffers_shift(-(int64_t)f->held);
    buf_fini(f->left);
    XFREE(f->left);
}

static void keep_left(struct flow *f, struct buf *b)
{
    f->left = XNEW(struct buf);
    *f->left = *b;
    f->held = b->cap;
    buffers_shift((int64_t)f->held);
}

static void drop_pipe(struct tunnel *t, struct flow *f)
{
    if (f->pipe)
        pipes_give(&t->all->pipes, f->pipe, f->in_pipe);
    f->pipe = NULL;
    f->in_pipe = 0;
    f->full_reads = 0;
}

static void tunnel_end(struct tunnel *t, const char *why, bool hard)
{
    passage_add(t->passage, t->up.bytes, t->down.bytes);
    passage_end(&t->passage, why);
    drop_pipe(t, &t->up);
    drop_pipe(t, &t->down);
    drop_left(&t->up);
    drop_left(&t->down);
    net_stream_close(&t->client, hard);
    net_stream_close(&t->upstream, hard);
    list_remove(&t->link);
    atomic_fetch_sub(&t->all->n, 1);
    atomic_fetch_sub(&tunnels_total, 1);
    xfree(t);
}

static const char *side_of(const struct tunnel *t, const struct flow *f)
{
    return f == &t->up ? "client" : "upstream";
}

static struct flow *other_flow(struct tunnel *t, const struct flow *f)
{
    return f == &t->up ? &t->down : &t->up;
}

/* What a pump step came to: go on; wait for either side; nothing can be read, or written. */
enum step { STEP_ON, STEP_WAIT, STEP_NO_READ, STEP_NO_WRITE };

static void moved(struct tunnel *t, struct flow *f, size_t n)
{
    f->bytes += n;
    t->active = ev_now_ns(t->all->loop);
}

/* Bytes that `to` did not take at once. */
static enum step flush_left(const struct tunnel *t, struct flow *f)
{
    while (f->left && buf_len(f->left)) {
        struct view v = buf_view(f->left);
        ssize_t rc = net_write(to_of(t, f), v.p, v.n, NULL);

        if (rc == NET_ERROR)
            return STEP_NO_WRITE;
        if (rc == NET_AGAIN)
            return STEP_WAIT;
        buf_consume(f->left, (size_t)rc);
    }
    drop_left(f);
    return STEP_ON;
}

static enum step flush_pipe(const struct tunnel *t, struct flow *f)
{
    while (f->in_pipe) {
        ssize_t rc = net_splice_out(to_of(t, f), f->pipe->out, f->in_pipe, NULL);

        if (rc == NET_ERROR || rc == 0)
            return STEP_NO_WRITE;
        if (rc == NET_AGAIN)
            return STEP_WAIT;
        f->in_pipe -= (size_t)rc;
    }
    return STEP_ON;
}

static enum step pass_spliced(struct tunnel *t, struct flow *f)
{
    ssize_t rc = net_splice_in(from_of(t, f), f->pipe->in, PIPE_BYTES, NULL);

    if (rc == NET_ERROR)
        return STEP_NO_READ;
    if (rc == NET_AGAIN || rc == 0) {
        drop_pipe(t, f);
        f->ended = rc == 0;
        return rc == 0 ? STEP_ON : STEP_WAIT;
    }
    f->in_pipe = (size_t)rc;
    moved(t, f, (size_t)rc);
    return STEP_ON;
}

static enum step pass_copied(struct tunnel *t, struct flow *f)
{
    size_t room = buffers_short() ? SHORT_READ : SCRATCH;
    ssize_t got = net_read(from_of(t, f), t->all->scratch, room, NULL), put;
    struct buf left = BUF_INIT;

    if (got == NET_ERROR)
        return STEP_NO_READ;
    if (got == NET_AGAIN)
        return STEP_WAIT;
    if (got == 0) {
        f->ended = true;
        return STEP_ON;
    }
    moved(t, f, (size_t)got);
    put = net_write(to_of(t, f), t->all->scratch, (size_t)got, NULL);
    if (put == NET_ERROR)
        return STEP_NO_WRITE;
    if (put < got) {
        put = TR_MAX(put, 0);
        buf_add(&left, t->all->scratch + put, (size_t)(got - put));
        keep_left(f, &left);
    }
    f->full_reads = got == SCRATCH ? f->full_reads + 1 : 0;
    /* Less than there was room for: nothing more is waiting, and asking would cost a call. */
    return got < (ssize_t)room && !net_is_tls(from_of(t, f)) && !f->left ? STEP_WAIT : STEP_ON;
}

static void choose_way(struct tunnel *t, struct flow *f)
{
    if (f->pipe || f->full_reads < BULK_AFTER || f->left || net_is_tls(t->client) ||
        net_is_tls(t->upstream))
        return;
    f->pipe = pipes_take(&t->all->pipes);
    f->full_reads = 0; /* without one: ask again later */
}

/* What was read before goes first; `until` bytes have been read in all: the others' turn. */
static enum step pump_step(struct tunnel *t, struct flow *f, uint64_t until)
{
    enum step s = flush_left(t, f);

    if (s == STEP_ON)
        s = flush_pipe(t, f);
    if (s != STEP_ON || f->ended)
        return s;
    if (f->bytes >= until)
        return STEP_WAIT; /* with nothing held, so that the descriptor calls again */
    choose_way(t, f);
    return f->pipe ? pass_spliced(t, f) : pass_copied(t, f);
}

static bool holds(const struct flow *f)
{
    return f->left || f->in_pipe;
}

/* Move what can be moved of one direction. The tunnel may be gone afterwards. */
static void pump(struct tunnel *t, struct flow *f)
{
    uint64_t until = f->bytes + TURN_MAX;
    enum step s = STEP_ON;

    if (f->done)
        return;
    do
        s = pump_step(t, f, until);
    while (s == STEP_ON && (!f->ended || holds(f)));
    if (s == STEP_NO_READ || s == STEP_NO_WRITE) {
        /* The other side is told by a reset that this was no end. */
        tunnel_end(t, side_of(t, s == STEP_NO_READ ? f : other_flow(t, f)), true);
        return;
    }
    net_want_read(from_of(t, f), !f->ended && !holds(f));
    if (!f->ended || holds(f))
        return;
    f->done = true;
    if (!t->first_end)
        t->first_end = side_of(t, f);
    net_shutdown_write(to_of(t, f));
    if (t->up.done && t->down.done)
        tunnel_end(t, t->first_end, false);
}

static void client_readable(void *ctx)
{
    struct tunnel *t = ctx;

    pump(t, &t->up);
}

static void client_writable(void *ctx)
{
    struct tunnel *t = ctx;

    pump(t, &t->down);
}

static void client_failed(void *ctx, const struct err *e)
{
    (void)e;
    tunnel_end(ctx, "client", true);
}

static void upstream_failed(void *ctx, const struct err *e)
{
    (void)e;
    tunnel_end(ctx, "upstream", true);
}

static const struct net_stream_ops client_ops = {
    .on_readable = client_readable, .on_writable = client_writable, .on_failed = client_failed};
/* Whose bytes go down, and who takes those that go up. */
static const struct net_stream_ops upstream_ops = {
    .on_readable = client_writable, .on_writable = client_readable, .on_failed = upstream_failed};

/* --- those of a worker -------------------------------------------------------------------- */

static bool is_due(const struct tunnel *t, int64_t now)
{
    return t->all->draining && t->end_at <= now;
}

/* How long it may be silent. With one direction ended the other one finishes what it was asked for,
 * or its peer is gone and nobody will ever tell. */
static int64_t patience(const struct tunnel *t)
{
    unsigned ms = passage_idle_ms(t->passage);

    return (int64_t)(t->up.done || t->down.done ? TR_MIN(ms, (unsigned)HALF_OPEN_MS) : ms) *
           NS_PER_MS;
}

static void tell_passage(void *ctx)
{
    struct tunnel *t = ctx;

    passage_add(t->passage, t->up.bytes, t->down.bytes);
    passage_active(t->passage, t->active);
    t->up.bytes = t->down.bytes = 0;
}

static void on_look(void *ctx)
{
    struct tunnels *all = ctx;
    int64_t now = clock_mono_ns();
    struct list *it, *tmp;

    list_each (it, tmp, &all->list) {
        struct tunnel *t = list_entry(it, struct tunnel, link);

        tell_passage(t);
        if (is_due(t, now))
            tunnel_end(t, "drain", false);
        else if (now - t->active > patience(t))
            tunnel_end(t, "idle", false);
    }
    ev_timer_arm(all->look, all->draining ? DRAIN_LOOK_MS : LOOK_MS);
}

struct tunnels *tunnels_new(struct ev_loop *loop)
{
    struct tunnels *all = XNEW(struct tunnels);

    all->loop = loop;
    list_init(&all->list);
    rng_seed_random(&all->rng);
    all->look = ev_timer_new(loop, on_look, all);
    ev_timer_arm(all->look, LOOK_MS);
    return all;
}

void tunnels_drain(struct tunnels *all, unsigned window_ms)
{
    int64_t now = clock_mono_ns();
    struct list *it, *tmp;

    all->draining = true;
    list_each (it, tmp, &all->list)
        list_entry(it, struct tunnel, link)->end_at =
            now + (int64_t)rng_below(&all->rng, window_ms + 1) * NS_PER_MS;
    ev_timer_arm(all->look, DRAIN_LOOK_MS);
}

size_t tunnels_count(const struct tunnels *all)
{
    return atomic_load(&all->n);
}

/* Each holds two descriptors, and without any left the logs would stand still, too. */
bool tunnels_full(const struct tunnels *all, size_t more, size_t max, const char *listener)
{
    static struct log_rate rate;
    uint64_t left_out;

    (void)all;
    if (atomic_load(&tunnels_total) + more < max - max / 10)
        return false;
    metric_add(metric_series(metric_family(METRIC_COUNTER, "tunnels_refused", "",
                                           "Tunnels past nine tenths of limits.connections")),
               1);
    if (log_rate_ok(&rate, 10, &left_out))
        log_event(LOG_WARN, "tunnel", "too many tunnels; see limits.connections",
                  LF_STR("listener", listener), LF_UINT("suppressed", left_out));
    return true;
}

void tunnels_recheck(struct tunnels *all, const struct policy *p)
{
    struct list *it, *tmp;

    list_each (it, tmp, &all->list) {
        struct tunnel *t = list_entry(it, struct tunnel, link);

        if (!passage_still_allowed(t->passage, p))
            tunnel_end(t, "policy", false);
    }
}

void tunnels_free(struct tunnels **tp)
{
    struct tunnels *all = *tp;
    struct list *it, *tmp;

    *tp = NULL;
    if (!all)
        return;
    list_each (it, tmp, &all->list)
        tunnel_end(list_entry(it, struct tunnel, link), "shutdown", true);
    pipes_fini(&all->pipes);
    ev_timer_free(&all->look);
    xfree(all);
}

static void take_bytes(struct flow *f, struct buf *from)
{
    if (!from || !buf_len(from))
        return;
    f->bytes = buf_len(from);
    keep_left(f, from);
    *from = BUF_INIT;
}

void tunnel_start(struct tunnels *all, const struct tunnel_opts *o)
{
    struct tunnel *t = XNEW(struct tunnel);

    t->all = all;
    t->passage = o->passage;
    t->client = o->client;
    t->upstream = o->upstream;
    take_bytes(&t->up, o->to_upstream);
    take_bytes(&t->down, o->to_client);
    t->active = t->end_at = clock_mono_ns();
    list_append(&all->list, &t->link);
    atomic_fetch_add(&all->n, 1);
    atomic_fetch_add(&tunnels_total, 1);
    net_stream_bind(t->client, &client_ops, t);
    net_stream_bind(t->upstream, &upstream_ops, t);
    passage_started(t->passage);
    passage_on_look(t->passage, tell_passage, t);
    net_want_read(t->client, true);
    net_want_read(t->upstream, true);
    if (t->up.left && flush_left(t, &t->up) == STEP_NO_WRITE) {
        tunnel_end(t, "upstream", true);
        return;
    }
    if (t->down.left)
        (void)flush_left(t, &t->down); /* a failure is told by the next read */
}
