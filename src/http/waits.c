#include "http/waits.h"

#include "base/bug.h"
#include "rt/clock.h"

static void waits_fire(void *ctx);

void http_waits_init(struct http_waits *ws, struct ev_loop *loop, void *ctx)
{
    ws->loop = loop;
    ws->ctx = ctx;
    ws->armed_ns = 0;
    ws->timer = ev_timer_new(loop, waits_fire, ws);
    for (unsigned i = 0; i < HTTP_WAITS_MAX; i++) {
        list_init(&ws->kinds[i].queue);
        ws->kinds[i].after_ns = 0;
        ws->kinds[i].due = NULL;
    }
}

void http_waits_fini(struct http_waits *ws)
{
    for (unsigned i = 0; i < HTTP_WAITS_MAX; i++)
        ASSERT(list_empty(&ws->kinds[i].queue));
    ev_timer_free(&ws->timer);
}

void http_waits_kind(struct http_waits *ws, unsigned kind, unsigned after_ms, http_wait_fn due)
{
    ASSERT(kind < HTTP_WAITS_MAX && after_ms > 0);
    ws->kinds[kind].after_ns = after_ms * NS_PER_MS;
    ws->kinds[kind].due = due;
}

void http_wait_init(struct http_wait *w)
{
    list_init(&w->link);
    w->due_ns = 0;
}

static void waits_arm(struct http_waits *ws, int64_t now, int64_t due)
{
    int64_t ms = due > now ? (due - now + NS_PER_MS - 1) / NS_PER_MS : 0;

    ws->armed_ns = due;
    ev_timer_arm(ws->timer, ms);
}

void http_wait_put(struct http_waits *ws, unsigned kind, struct http_wait *w)
{
    int64_t now = ev_now_ns(ws->loop);

    ASSERT(kind < HTTP_WAITS_MAX && ws->kinds[kind].due);
    list_remove(&w->link);
    w->due_ns = now + ws->kinds[kind].after_ns;
    list_append(&ws->kinds[kind].queue, &w->link);
    if (!ws->armed_ns || w->due_ns < ws->armed_ns)
        waits_arm(ws, now, w->due_ns);
}

void http_wait_now(struct http_waits *ws, unsigned kind, struct http_wait *w)
{
    int64_t now = ev_now_ns(ws->loop);

    list_remove(&w->link);
    w->due_ns = now;
    list_prepend(&ws->kinds[kind].queue, &w->link);
    waits_arm(ws, now, now);
}

int64_t http_wait_ns(const struct http_waits *ws, unsigned kind, const struct http_wait *w)
{
    if (!http_wait_is_on(w))
        return 0;
    return TR_MAX(ev_now_ns(ws->loop) - (w->due_ns - ws->kinds[kind].after_ns), 0);
}

void http_wait_off(struct http_wait *w)
{
    list_remove(&w->link);
}

bool http_wait_is_on(const struct http_wait *w)
{
    return !list_empty(&w->link);
}

/* What is due now, kind by kind; then sleep until the next one that is still there. */
static void waits_fire(void *ctx)
{
    struct http_waits *ws = ctx;
    int64_t now = ev_now_ns(ws->loop), next = 0;
    struct http_wait *w;

    ws->armed_ns = 0;
    for (unsigned i = 0; i < HTTP_WAITS_MAX; i++) {
        struct list *q = &ws->kinds[i].queue;

        while ((w = list_first(q, struct http_wait, link)) && w->due_ns <= now) {
            list_remove(&w->link);
            ws->kinds[i].due(ws->ctx, w);
        }
    }
    for (unsigned i = 0; i < HTTP_WAITS_MAX; i++) {
        w = list_first(&ws->kinds[i].queue, struct http_wait, link);
        if (w && (!next || w->due_ns < next))
            next = w->due_ns;
    }
    if (next && (!ws->armed_ns || next < ws->armed_ns))
        waits_arm(ws, now, next);
}
