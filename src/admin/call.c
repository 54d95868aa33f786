#include "admin/call.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "rt/command.h"
#include "rt/log.h"

enum {
    PARTS_MAX = 8, /* of a path; and arguments: more than any command has, and no work for us */
    ARGS_MAX = 16,
    /* Of callers who may be anybody, not answered yet: some are work for all workers, or for the
     * spool's reader, and who asks and leaves need not wait for an answer. */
    OPEN_CALLS_MAX = 32,
};

static atomic_uint n_open_calls;

/*
 * A call and its answer. The exchange is the loop's; what is to be sent comes from any thread and
 * waits under the lock for the task that sends it.
 */
struct call {
    struct command_call call;
    struct http_exchange *ex; /* loop's thread only; NULL: gone */
    struct ev_loop *loop;
    struct ev_task task;
    const char *allow; /* what 405 tells */
    bool streaming;    /* its head is sent; loop's thread only */
    bool wants_room;   /* the writer is to be told once there is; loop's thread only */
    pthread_mutex_t lock;
    bool posted, begun, written, ended, whole;
    int status;
    const char *type;
    struct str queue;
};

/* --- answers, from any thread ----------------------------------------------------------------- */

static struct call *of(struct command_call *call)
{
    return container_of(call, struct call, call);
}

static void call_free(struct call *cc)
{
    command_call_fini(&cc->call);
    str_fini(&cc->queue);
    pthread_mutex_destroy(&cc->lock);
    xfree(cc);
}

/* With the lock; gives it back. */
static void post(struct call *cc)
{
    bool first = !cc->posted;

    cc->posted = true;
    pthread_mutex_unlock(&cc->lock);
    if (first)
        ev_post(cc->loop, &cc->task);
}

static void sink_begin(struct command_call *call, int status, const char *type)
{
    struct call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(!cc->begun);
    cc->begun = true;
    if (call->open)
        atomic_fetch_sub(&n_open_calls, 1);
    cc->status = status;
    cc->type = type;
    pthread_mutex_unlock(&cc->lock); /* sent with what follows */
}

static void sink_write(struct command_call *call, struct view piece)
{
    struct call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(cc->begun && !cc->ended);
    str_addv(&cc->queue, piece);
    cc->written = true;
    if (call->room)
        post(cc);
    else /* a whole answer goes with its end, and with its length */
        pthread_mutex_unlock(&cc->lock);
}

static void sink_end(struct command_call *call, bool whole)
{
    struct call *cc = of(call);

    pthread_mutex_lock(&cc->lock);
    ASSERT(cc->begun && !cc->ended);
    cc->ended = true;
    cc->whole = whole;
    post(cc);
}

static const struct command_sink sink = {sink_begin, sink_write, sink_end};

/* --- sending, in the loop's thread ------------------------------------------------------------ */

enum { FIELDS = 5 };

/* A browser takes an answer for nothing else than it is, and shows it to no page but ours. */
static size_t api_fields(const char *type, const char *allow, struct h1_field f[FIELDS])
{
    f[0] = (struct h1_field){VIEW_LIT("cache-control"), VIEW_LIT("no-store")};
    f[1] = (struct h1_field){VIEW_LIT("x-content-type-options"), VIEW_LIT("nosniff")};
    f[2] = (struct h1_field){VIEW_LIT("cross-origin-resource-policy"), VIEW_LIT("same-origin")};
    f[3] = (struct h1_field){VIEW_LIT("content-type"), view_str(type)};
    f[4] = (struct h1_field){VIEW_LIT("allow"), view_str(allow)};
    return allow ? 5 : 4;
}

static size_t call_fields(const struct call *cc, struct h1_field f[FIELDS])
{
    return api_fields(cc->type, cc->status == 405 ? cc->allow : NULL, f);
}

static void tell_room(struct call *cc)
{
    cc->wants_room = false;
    if (cc->call.room)
        cc->call.room(cc->call.room_ctx);
}

static void send_piece(struct call *cc, struct view piece)
{
    struct h1_field f[FIELDS];
    size_t queued;

    if (!cc->streaming) {
        http_reply_start(cc->ex, cc->status, f, call_fields(cc, f), -1);
        cc->streaming = true;
    }
    queued = http_write(cc->ex, piece);
    cc->wants_room = queued > HTTP_WRITE_HIGH;
}

/* What is queued and, if that was all, the end; the exchange lives on until on_gone. */
static void send_on(struct call *cc, struct view piece, bool ended, bool whole)
{
    struct h1_field f[FIELDS];

    if (ended && whole && !cc->streaming) {
        http_reply(cc->ex, cc->status, f, call_fields(cc, f), piece);
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
    struct call *cc = container_of(task, struct call, task);
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
    struct call *cc = ctx;

    http_consumed(cc->ex, piece.n);
}

static void on_drain(void *ctx)
{
    struct call *cc = ctx;

    if (cc->wants_room)
        tell_room(cc);
}

/* Frees the call only if its task is not to come any more: that one sees the rest. */
static void on_gone(void *ctx, bool complete)
{
    struct call *cc = ctx;
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

static struct call *call_new(struct http_exchange *ex, const struct call_opts *o, bool post)
{
    struct call *cc = XNEW(struct call);

    cc->ex = ex;
    cc->loop = http_loop(ex);
    cc->task.run = call_due;
    pthread_mutex_init(&cc->lock, NULL);
    cc->call.sink = &sink;
    cc->call.kind = post ? COMMAND_ACTION : COMMAND_READ;
    cc->allow = post ? "GET" : "POST";
    cc->call.by = xstrdup(o->by);
    cc->call.open = o->open;
    return cc;
}

void call_serve(struct http_exchange *ex, const struct call_opts *o, struct view path,
                struct view query)
{
    struct view method = http_request_of(ex)->method;
    bool post = view_is(method, "POST");
    struct call *cc = call_new(ex, o, post);

    if (o->bound)
        http_rebind(ex, &handler, cc);
    else
        http_bind(ex, &handler, cc);
    if (o->open && atomic_fetch_add(&n_open_calls, 1) >= OPEN_CALLS_MAX) {
        command_fail(&cc->call, 503, "too many calls are under way: try again in a moment");
    } else if (!post && !view_is(method, "GET")) {
        cc->allow = "GET, POST";
        command_fail(&cc->call, 405, "use GET or POST");
    } else if (take_path(&cc->call, path) < 0 || take_query(&cc->call, query) < 0) {
        command_fail(&cc->call, 400, "the request cannot be understood");
    } else {
        if (post)
            note_action(&cc->call, path);
        command_run(&cc->call);
    }
}

/* Access is answered here, by who knows the place; the list has it all the same. */
void call_show_index(struct http_exchange *ex, bool open)
{
    struct str out = STR_INIT, list = STR_INIT;

    command_index(&list, open);
    str_adds(&out, "[{\"path\":\"" CALL_ACCESS "\",\"kind\":\"read\",\"text\":\"where this is, and "
                   "whether actions may be called for\"}");
    if (list.p[1] != ']')
        str_adds(&out, ",\n ");
    str_addv(&out, view_from(str_view(&list), 1));
    call_reply(ex, 200, NULL, str_view(&out));
    str_fini(&list);
    str_fini(&out);
}

void call_show_access(struct http_exchange *ex, const char *listener, bool actions)
{
    struct str out = STR_INIT;

    str_adds(&out, "{\"listener\":");
    if (listener) {
        str_addc(&out, '"');
        str_add_json(&out, view_str(listener));
        str_addc(&out, '"');
    } else {
        str_adds(&out, "null");
    }
    str_addf(&out, ",\"actions\":%s}\n", actions ? "true" : "false");
    call_reply(ex, 200, NULL, str_view(&out));
    str_fini(&out);
}

void call_reply(struct http_exchange *ex, int status, const struct h1_field *extra,
                struct view json)
{
    struct h1_field f[FIELDS + 1];
    size_t n = api_fields("application/json", NULL, f);

    if (extra)
        f[n++] = *extra;
    http_reply(ex, status, f, n, json);
}

void call_refuse(struct http_exchange *ex, int status, const struct h1_field *extra,
                 const char *text)
{
    struct str out = STR_INIT;

    str_adds(&out, "{\"error\":\"");
    str_add_json(&out, view_str(text));
    str_adds(&out, "\"}\n");
    call_reply(ex, status, extra, str_view(&out));
    str_fini(&out);
}
