#include "admin/control.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "admin/admin.h"
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "net/listen.h"
#include "net/listen_unix.h"
#include "rt/command.h"
#include "rt/log.h"

enum {
    CONTROL_BACKLOG = 64,
    CONTROL_CONNECTIONS = 64,
    PARTS_MAX = 8, /* of a path; and arguments: nobody who may come here attacks, but be strict */
    ARGS_MAX = 16,
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

/*
 * A call and its answer. The exchange is the loop's; what is to be sent comes from any thread and
 * waits under the lock for the task that sends it.
 */
struct control_call {
    struct command_call call;
    struct http_exchange *ex; /* loop's thread only; NULL: gone */
    struct ev_loop *loop;
    struct ev_task task;
    bool streaming;  /* its head is sent; loop's thread only */
    bool wants_room; /* the writer is to be told once there is; loop's thread only */
    pthread_mutex_t lock;
    bool posted, begun, written, ended, whole;
    int status;
    const char *type;
    struct str queue;
};

/* --- answers, from any thread ----------------------------------------------------------------- */

static struct control_call *of(struct command_call *call)
{
    return container_of(call, struct control_call, call);
}

static void call_free(struct control_call *cc)
{
    command_call_fini(&cc->call);
    str_fini(&cc->queue);
    pthread_mutex_destroy(&cc->lock);
    xfree(cc);
}

/* With the lock; gives it back. */
static void post(struct control_call *cc)
{
    bool first = !cc->posted;

    cc->posted = true;
    pthread_mutex_unlock(&cc->lock);
    if (first)
        ev_post(cc->loop, &cc->task);
}

static void sink_begin(struct command_call *call, int status, const char *type)
{
    struct control_call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(!cc->begun);
    cc->begun = true;
    cc->status = status;
    cc->type = type;
    pthread_mutex_unlock(&cc->lock); /* sent with what follows */
}

static void sink_write(struct command_call *call, struct view piece)
{
    struct control_call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(cc->begun && !cc->ended);
    str_addv(&cc->queue, piece);
    cc->written = true;
    post(cc);
}

static void sink_end(struct command_call *call, bool whole)
{
    struct control_call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(cc->begun && !cc->ended);
    cc->ended = true;
    cc->whole = whole;
    post(cc);
}

static const struct command_sink sink = {sink_begin, sink_write, sink_end};

/* --- sending, in the loop's thread ------------------------------------------------------------ */

static size_t fields_of(const struct control_call *cc, struct h1_field f[2])
{
    f[0] = (struct h1_field){VIEW_LIT("cache-control"), VIEW_LIT("no-store")};
    f[1] = (struct h1_field){VIEW_LIT("content-type"), view_str(cc->type)};
    return 2;
}

static void tell_room(struct control_call *cc)
{
    cc->wants_room = false;
    if (cc->call.room)
        cc->call.room(cc->call.room_ctx);
}

static void send_piece(struct control_call *cc, struct view piece)
{
    struct h1_field f[2];
    size_t queued;

    if (!cc->streaming) {
        http_reply_start(cc->ex, cc->status, f, fields_of(cc, f), -1);
        cc->streaming = true;
    }
    queued = http_write(cc->ex, piece);
    cc->wants_room = queued > HTTP_WRITE_HIGH;
}

/* What is queued and, if that was all, the end; the exchange lives on until on_gone. */
static void send_on(struct control_call *cc, struct view piece, bool ended, bool whole)
{
    struct h1_field f[2];

    if (ended && whole && !cc->streaming) {
        http_reply(cc->ex, cc->status, f, fields_of(cc, f), piece);
        return;
    }
    send_piece(cc, piece);
    if (ended && whole)
        http_finish(cc->ex);
    else if (ended)
        http_abort(cc->ex);
}

static void call_due(struct ev_task *task)
{
    struct control_call *cc = container_of(task, struct control_call, task);
    struct str piece;
    bool written, ended, whole;

    pthread_mutex_lock(&cc->lock);
    piece = cc->queue;
    cc->queue = STR_INIT;
    written = cc->written;
    ended = cc->ended;
    whole = cc->whole;
    cc->written = cc->posted = false;
    pthread_mutex_unlock(&cc->lock);
    if (cc->ex)
        send_on(cc, str_view(&piece), ended, whole);
    str_fini(&piece);
    if (ended && !cc->ex)
        call_free(cc);
    else if (written && !ended && !cc->wants_room)
        tell_room(cc);
}

/* --- the exchange ----------------------------------------------------------------------------- */

/* No command takes a body; arguments are in the query. */
static void on_body(void *ctx, struct view piece)
{
    struct control_call *cc = ctx;

    http_consumed(cc->ex, piece.n);
}

static void on_drain(void *ctx)
{
    struct control_call *cc = ctx;

    if (cc->wants_room)
        tell_room(cc);
}

/* Frees the call only if its task is not to come any more: that one sees the rest. */
static void on_gone(void *ctx, bool complete)
{
    struct control_call *cc = ctx;
    bool free_now;

    (void)complete;
    cc->ex = NULL;
    atomic_store(&cc->call.abandoned, true);
    pthread_mutex_lock(&cc->lock);
    free_now = cc->ended && !cc->posted;
    pthread_mutex_unlock(&cc->lock);
    if (free_now)
        call_free(cc);
    else if (cc->wants_room)
        tell_room(cc);
}

static const struct http_handler handler = {
    .on_body = on_body, .on_drain = on_drain, .on_gone = on_gone};

static char *decoded(struct view v, bool plus)
{
    struct str out = STR_INIT;

    if (url_decode(v, plus, &out) < 0 || (out.n && memchr(out.p, '\0', out.n))) {
        str_fini(&out);
        return NULL;
    }
    return str_take(&out);
}

static int take_path(struct command_call *call, struct view path)
{
    call->parts = xcalloc(PARTS_MAX, sizeof(*call->parts));
    while (path.n) {
        const char *slash = memchr(path.p, '/', path.n);
        size_t n = slash ? (size_t)(slash - path.p) : path.n;

        if (call->n_parts == PARTS_MAX || n == 0)
            return -1;
        call->parts[call->n_parts] = decoded(view_of(path.p, n), false);
        if (!call->parts[call->n_parts])
            return -1;
        call->n_parts++;
        path = view_from(path, TR_MIN(n + 1, path.n));
    }
    return 0;
}

static int take_query(struct command_call *call, struct view query)
{
    struct view name, value;

    call->args = xcalloc(ARGS_MAX, sizeof(*call->args));
    while (url_query_next(&query, &name, &value) > 0) {
        struct command_name *arg = &call->args[call->n_args];

        if (call->n_args == ARGS_MAX)
            return -1;
        arg->name = decoded(name, true);
        arg->value = decoded(value, true);
        call->n_args++; /* both are freed with the call, whatever came of them */
        if (!arg->name || !arg->value)
            return -1;
    }
    return 0;
}

static void note_action(const struct command_call *call, struct view path)
{
    log_event(LOG_NOTICE, "control", "an action was called for", LF_VIEW("action", path),
              LF_STR("by", command_by(call)));
}

/* Everything below the prefix. */
static void take_call(struct control *c, struct http_exchange *ex, const struct http_request *req,
                      struct view path, struct view query)
{
    const struct control_conn *conn = req->tag;
    struct control_call *cc = XNEW(struct control_call);
    struct str by = STR_INIT;
    bool post = view_is(req->method, "POST");

    cc->ex = ex;
    cc->loop = c->loop;
    cc->task.run = call_due;
    pthread_mutex_init(&cc->lock, NULL);
    cc->call.sink = &sink;
    cc->call.kind = post ? COMMAND_ACTION : COMMAND_READ;
    str_addf(&by, "uid=%lu pid=%ld", (unsigned long)conn->peer.uid, (long)conn->peer.pid);
    cc->call.by = str_take(&by);
    http_bind(ex, &handler, cc);
    if (!post && !view_is(req->method, "GET")) {
        command_fail(&cc->call, 405, "use GET or POST");
    } else if (take_path(&cc->call, path) < 0 || take_query(&cc->call, query) < 0) {
        command_fail(&cc->call, 400, "the request cannot be understood");
    } else {
        if (post)
            note_action(&cc->call, path);
        command_run(&cc->call);
    }
}

static void show_commands(struct http_exchange *ex)
{
    const struct h1_field f[] = {{VIEW_LIT("content-type"), VIEW_LIT("application/json")}};
    struct str out = STR_INIT;

    command_index(&out);
    http_reply(ex, 200, f, ARRAY_LEN(f), str_view(&out));
    str_fini(&out);
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
    else if (view_is(path, CONTROL_PREFIX))
        show_commands(ex);
    else if (view_starts(path, VIEW_LIT(CONTROL_PREFIX)))
        take_call(c, ex, req, view_from(path, strlen(CONTROL_PREFIX)), query);
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
