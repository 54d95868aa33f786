#include "logs/tail.h"

#include "base/utf8.h"
#include "base/xmem.h"
#include "codec/zcodec.h"
#include "logs/logs_priv.h"
#include "logs/report_stream.h"
#include "rt/clock.h"
#include "rt/json.h"
#include "rt/log.h"

struct tail {
    struct ev_task task;
    struct list link; /* shard.tails */
    struct shard *sh;
    const struct stream *stream; /* valid while it is in that list */
    struct command_call *call;
    uint64_t last; /* lines wanted from before it came */
    pthread_mutex_t lock;
    struct str queue;
    uint64_t missed; /* lines, since the last that were added */
    bool writing;    /* a piece is on its way to the reader: `room` follows */
    bool over;       /* nothing more comes: the last to write ends it */
};

static void tail_free(struct tail *t)
{
    str_fini(&t->queue);
    pthread_mutex_destroy(&t->lock);
    xfree(t);
}

/* With the lock; gives it back. The tail may be gone afterwards. */
static void go_on(struct tail *t)
{
    struct str piece = STR_INIT;
    bool write = !t->writing && t->queue.n && !command_abandoned(t->call);
    bool end = !t->writing && !write && t->over;

    if (write) {
        t->writing = true;
        piece = t->queue;
        t->queue = STR_INIT;
    }
    pthread_mutex_unlock(&t->lock);
    if (write)
        command_write(t->call, str_view(&piece));
    str_fini(&piece);
    if (end) {
        command_end(t->call, true);
        tail_free(t);
    }
}

/* The thread that serves commands. */
static void room(void *ctx)
{
    struct tail *t = ctx;

    pthread_mutex_lock(&t->lock);
    t->writing = false;
    go_on(t);
}

/* --- what it is told ---------------------------------------------------------------------- */

/* Clients' own JSON on one line, and UTF-8: white space between its parts may be newlines, which
 * inside of strings cannot stand as they are. */
static void add_clean(struct str *out, struct view v)
{
    while (v.n) {
        size_t n = utf8_length(v.p, v.n);

        if (*v.p == '\n' || *v.p == '\r')
            str_addc(out, ' ');
        else if (n)
            str_add(out, v.p, n);
        else
            str_adds(out, "\xef\xbf\xbd");
        v = view_from(v, n ? n : 1);
    }
}

/* With the lock. Is there room for so much more? If not, it counts as missed. */
static bool has_room(struct tail *t, uint64_t lines, size_t size)
{
    struct json j = json_to(&t->queue);

    if (t->queue.n + size > TAIL_QUEUE) {
        t->missed += lines;
        return false;
    }
    if (t->missed) {
        json_open(&j, NULL, '{');
        json_uint(&j, "missed", t->missed);
        json_close(&j, '}');
        str_addc(&t->queue, '\n');
        t->missed = 0;
    }
    return true;
}

static void add_record(struct tail *t, const struct record *r, struct view text)
{
    struct json j = json_to(&t->queue);

    pthread_mutex_lock(&t->lock);
    if (!command_abandoned(t->call) && has_room(t, r->row.lines, text.n)) {
        json_open(&j, NULL, '{');
        json_time(&j, "time", r->row.at_ns);
        json_open(&j, "lines", '[');
        add_clean(&t->queue, text);
        json_close(&j, ']');
        json_close(&j, '}');
        str_addc(&t->queue, '\n');
    }
    go_on(t);
}

static void add_word(struct tail *t, const char *name, const char *word)
{
    struct json j = json_to(&t->queue);

    pthread_mutex_lock(&t->lock);
    (void)has_room(t, 0, 0); /* a word always has */
    json_open(&j, NULL, '{');
    json_text(&j, name, view_str(word));
    json_close(&j, '}');
    str_addc(&t->queue, '\n');
    go_on(t);
}

/* In the owner's thread, which touches it no more. */
static void leave(struct tail *t, const char *why)
{
    if (why)
        add_word(t, "end", why);
    list_remove(&t->link);
    atomic_fetch_sub(&t->sh->logs->n_tails, 1);
    pthread_mutex_lock(&t->lock);
    t->over = true;
    go_on(t);
}

/* --- what happens to the stream ----------------------------------------------------------- */

/* The text may not have been kept when memory was short: then it is in the frame, still. */
static void pass_on(struct tail *t, const struct record *r)
{
    struct str text = STR_INIT;
    struct err e;

    if (r->text.p)
        add_record(t, r, str_view(&r->text));
    else if (r->frame.n && zframe_unpack(str_view(&r->frame), (size_t)r->size + 2, &text, &e) == 0)
        add_record(t, r, str_view(&text));
    str_fini(&text);
}

static void tell(struct tail *t, const struct commit *c)
{
    const struct list *it;
    bool closed = false;

    for (it = c->records.next; it != &c->records; it = it->next) {
        const struct record *r = list_entry(it, struct record, commit_link);

        if (r->kind == RECORD_LINES)
            pass_on(t, r);
        closed |= r->kind == RECORD_CLOSE;
    }
    if (closed)
        leave(t, "closed");
}

void tail_committed(struct shard *sh, const struct commit *c)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->tails) {
        struct tail *t = list_entry(it, struct tail, link);

        if (t->stream == c->stream)
            tell(t, c);
    }
}

void tail_forgotten(struct shard *sh, const struct stream *s)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->tails) {
        struct tail *t = list_entry(it, struct tail, link);

        if (t->stream == s)
            leave(t, "over");
    }
}

void tail_sweep(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->tails) {
        struct tail *t = list_entry(it, struct tail, link);

        if (command_abandoned(t->call))
            leave(t, NULL);
    }
}

void tail_free_all(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->tails)
        leave(list_entry(it, struct tail, link), NULL);
}

/* --- a reader comes ----------------------------------------------------------------------- */

static bool can_be_shown(const struct record *r)
{
    return r->state != RECORD_COMMITTING && r->text.p;
}

/* The last lines of those that wait, as far as they are in memory. */
static void add_last(struct tail *t)
{
    const struct life *l = stream_last(t->stream);
    struct list *end, *it;
    uint64_t n = 0;

    if (!l || !t->last)
        return;
    end = queue_end((struct queue *)&l->lines);
    for (it = end->prev; it != end && n < t->last; it = it->prev) {
        const struct record *r = list_entry(it, struct record, link);

        if (r->state != RECORD_COMMITTING && !r->text.p)
            break;
        n += can_be_shown(r) ? r->row.lines : 0;
    }
    for (it = it->next; it != end; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        if (can_be_shown(r))
            pass_on(t, r);
    }
}

/* In the owner's loop. */
static void join(struct ev_task *task)
{
    struct tail *t = container_of(task, struct tail, task);
    struct shard *sh = t->sh;
    const struct stream *s = shard_find(sh, view_str(command_arg(t->call, "account")),
                                        view_str(command_arg(t->call, "key")));

    if (!s) {
        atomic_fetch_sub(&sh->logs->n_tails, 1);
        command_fail(t->call, 404, "there is no such stream, or it is long over");
        tail_free(t);
        return;
    }
    t->stream = s;
    command_stream(t->call, "application/x-ndjson", room, t);
    list_append(&sh->tails, &t->link);
    add_word(t, "begin", report_stream_state(s, ev_now_ns(sh->loop)));
    add_last(t);
}

static void begin(struct logs *l, struct command_call *call, int64_t last)
{
    const char *account = command_arg(call, "account"), *key = command_arg(call, "key");
    struct tail *t = XNEW(struct tail);

    log_event(LOG_NOTICE, "stream", "somebody follows a stream", LF_STR("account", account),
              LF_STR("key", key), LF_STR("by", command_by(call)));
    t->call = call;
    t->last = (uint64_t)last;
    t->sh = shard_owner(l, view_str(account), view_str(key));
    list_init(&t->link);
    pthread_mutex_init(&t->lock, NULL);
    t->task.run = join;
    ev_post(t->sh->loop, &t->task);
}

void tail_run(void *ctx, struct command_call *call)
{
    struct logs *l = ctx;
    int64_t last = 0;

    if (command_arg(call, "last")) {
        last = command_number(call, "last", 0, TAIL_LAST_MAX);
        if (!last)
            return;
    }
    if (!l->settings->tail) {
        command_fail(call, 403, "control.tail is off: streams cannot be followed here");
    } else if (!command_arg(call, "account") || !command_arg(call, "key")) {
        command_fail(call, 400, "which one? account and key are wanted");
    } else if (atomic_fetch_add(&l->n_tails, 1) >= TAILS_MAX) {
        atomic_fetch_sub(&l->n_tails, 1);
        command_fail(call, 503, "%d streams are followed already", TAILS_MAX);
    } else {
        begin(l, call, last);
    }
}
