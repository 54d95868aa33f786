/* The stored form of a stream, and taking it up again after a restart. */
#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"

enum { STATE_VERSION = 1, STATE_MAX_LIVES = 64 };

enum {
    LIFE_CLOSING = 1 << 0,
    LIFE_ENDED = 1 << 1,
    LIFE_DONE = 1 << 2,
    LIFE_REOPENED = 1 << 3,
    LIFE_LINES_SEEN = 1 << 4,
    LIFE_BLOB_FULL = 1 << 5,
    LIFE_BLOB_LOG = 1 << 6,
    LIFE_BROKEN = 1 << 7,
    LIFE_CLOSE_SNAPSHOT = 1 << 8,
};

static uint32_t life_flags(const struct life *l)
{
    return (l->closing ? LIFE_CLOSING : 0) | (l->ended ? LIFE_ENDED : 0) |
           (l->done ? LIFE_DONE : 0) | (l->reopened ? LIFE_REOPENED : 0) |
           (l->lines_seen ? LIFE_LINES_SEEN : 0) | (l->blob_full ? LIFE_BLOB_FULL : 0) |
           (l->blob_log ? LIFE_BLOB_LOG : 0) | (l->broken ? LIFE_BROKEN : 0) |
           (l->close_snapshot ? LIFE_CLOSE_SNAPSHOT : 0);
}

static void life_encode(const struct life *l, struct str *out)
{
    wire_put_u64(out, l->id);
    /* An open that is about to be sent may have been by the time this is read: never send it
     * blindly. */
    wire_put_u8(out, (uint8_t)(l->open == OPEN_PENDING ? OPEN_UNKNOWN : l->open));
    wire_put_u32(out, life_flags(l));
    wire_put_u64(out, (uint64_t)l->since_wall);
    wire_put_u64(out, (uint64_t)l->closed_wall);
    wire_put_u64(out, l->n_delivered);
    wire_put_u64(out, l->blob_below);
    wire_put_u32(out, (uint32_t)queue_count(&l->stuck));
}

static void edges_encode(const struct stream *s, struct str *out)
{
    const struct edge_mark *m;
    uint8_t n = 0;

    for (m = s->edges; m < s->edges + STREAM_EDGES; m++)
        n += m->edge != 0;
    wire_put_u8(out, n);
    for (m = s->edges; m < s->edges + STREAM_EDGES; m++) {
        if (!m->edge)
            continue;
        wire_put_u64(out, m->edge);
        wire_put_u64(out, m->life);
        wire_put_u64(out, m->last);
        wire_put_u64(out, m->seen);
    }
}

/* The newest bodies that are durable. One whose commit is under way may fail, and must not be
 * taken for a repetition then; if it does not, its record is in the spool and says so itself. */
static void recent_encode(const struct stream *s, struct str *out)
{
    struct body_hash kept[STREAM_RECENT_KEPT];
    unsigned i, n = 0;

    for (i = 1; i <= s->n_recent && n < STREAM_RECENT_KEPT; i++) {
        const struct recent *r = &s->recent[(s->recent_at + s->cap_recent - i) % s->cap_recent];

        if (!r->record)
            kept[n++] = r->hash;
    }
    wire_put_u8(out, (uint8_t)n);
    while (n--) {
        wire_put_u64(out, kept[n].lo);
        wire_put_u64(out, kept[n].hi);
    }
}

void stream_encode(const struct stream *s, struct str *out)
{
    const struct list *it;
    uint32_t lives = 0;

    for (it = s->lives.next; it != &s->lives; it = it->next)
        lives++;
    wire_put_u8(out, STATE_VERSION);
    wire_put_u8(out, s->held);
    wire_put_u32(out, s->cred);
    wire_put_view(out, str_view(&s->prefix));
    wire_put_view(out, str_view(&s->query));
    wire_put_u32(out, lives);
    for (it = s->lives.next; it != &s->lives; it = it->next)
        life_encode(list_entry(it, struct life, link), out);
    edges_encode(s, out);
    recent_encode(s, out);
}

static void life_decode(struct stream *s, struct wire *w)
{
    struct life *l = XNEW(struct life);
    uint32_t flags;

    queue_init(&l->lines);
    queue_init(&l->stuck);
    l->id = wire_u64(w);
    l->open = (enum open_state)wire_u8(w);
    flags = wire_u32(w);
    l->since_wall = (int64_t)wire_u64(w);
    l->closed_wall = (int64_t)wire_u64(w);
    l->n_delivered = wire_u64(w);
    l->blob_below = wire_u64(w);
    l->were_stuck = wire_u32(w);
    l->closing = l->closing_durable = (flags & LIFE_CLOSING) != 0;
    l->ended = (flags & LIFE_ENDED) != 0;
    l->done = (flags & LIFE_DONE) != 0;
    l->reopened = (flags & LIFE_REOPENED) != 0;
    l->lines_seen = (flags & LIFE_LINES_SEEN) != 0;
    l->blob_full = (flags & LIFE_BLOB_FULL) != 0;
    l->blob_log = (flags & LIFE_BLOB_LOG) != 0;
    l->broken = (flags & LIFE_BROKEN) != 0;
    l->close_snapshot = (flags & LIFE_CLOSE_SNAPSHOT) != 0;
    l->snapshot_taken = l->close_snapshot && l->closing;
    l->open_acked = l->durable = true;
    list_append(&s->lives, &l->link);
}

int stream_decode(struct stream *s, const struct spool_stream_row *row)
{
    struct wire w = wire_of(row->state);
    uint32_t i, n;

    s->row.id = row->id;
    s->row.next = row->next;
    s->next_number = row->next;
    if (wire_u8(&w) != STATE_VERSION)
        return -1;
    s->held = wire_u8(&w) != 0;
    s->cred = wire_u32(&w);
    str_addv(&s->prefix, wire_view(&w));
    str_addv(&s->query, wire_view(&w));
    n = wire_u32(&w);
    for (i = 0; i < n && i < STATE_MAX_LIVES && !w.failed; i++)
        life_decode(s, &w);
    if (stream_last(s))
        s->stored_life = stream_last(s)->id;
    n = wire_u8(&w);
    for (i = 0; i < n && !w.failed; i++) {
        struct edge_mark m;

        m.edge = wire_u64(&w);
        m.life = wire_u64(&w);
        m.last = wire_u64(&w);
        m.seen = wire_u64(&w);
        if (i < STREAM_EDGES)
            s->edges[i] = m;
    }
    n = wire_u8(&w);
    for (i = 0; i < n && !w.failed; i++) {
        struct body_hash h;

        h.lo = wire_u64(&w);
        h.hi = wire_u64(&w);
        recent_add(s, h, NULL);
    }
    return w.failed ? -1 : 0;
}

/* The life a record names; made up if the stored state does not know it (it never should not). */
static struct life *life_of_record(struct stream *s, const struct record *r)
{
    struct life *l = stream_life(s, r->life);

    if (l)
        return l;
    l = XNEW(struct life);
    queue_init(&l->lines);
    queue_init(&l->stuck);
    l->id = r->life;
    l->open = OPEN_NONE;
    l->since_wall = r->row.at_ns;
    list_append(&s->lives, &l->link);
    stream_mark_dirty(s);
    return l;
}

static void recover_lines(struct stream *s, struct life *l, struct record *r)
{
    life_queue_lines(l, r);
    life_page_out(s, l, INT64_MAX);
    l->lines_seen = true;
    l->done = false;
}

void stream_recover_record(struct stream *s, struct record *r)
{
    struct life *l = r->kind == RECORD_BLOB ? NULL : life_of_record(s, r);

    r->state = RECORD_WAITING;
    if (r->hashed && stream_last(s) && r->life == stream_last(s)->id)
        recent_add(s, r->hash, NULL); /* a body is a repetition within its generation only */
    s->marks_dirty = true;
    if (r->kind == RECORD_LINES && r->edge)
        edge_accepted(s, r->edge, r->edge_life, r->edge_number);
    switch (r->kind) {
    case RECORD_LINES:
        recover_lines(s, l, r);
        break;
    case RECORD_BLOB:
        list_append(&s->blobs, &r->link);
        break;
    case RECORD_CLOSE:
        l->close = r;
        l->close_snapshot = r->snapshot;
        if (!l->closed_wall)
            l->closed_wall = r->row.at_ns;
        break;
    }
}

/* Whoever calls from now on calls after these were answered. Lines that upstream would not take
 * go on waiting for the end, and those of a life that has ended are there to be settled. */
static void take_up_lines(struct life *l, int64_t now)
{
    struct list *lists[] = {&l->lines.front, &l->lines.tail};
    struct list *it, *tmp;
    size_t i;

    if (l->were_stuck)
        l->absent = STREAM_ABSENT_TRIES - 1;
    queue_move(&l->stuck, &l->lines, l->ended ? SIZE_MAX : l->were_stuck);
    l->were_stuck = 0;
    list_each (it, tmp, &l->stuck.front)
        list_entry(it, struct record, link)->state = RECORD_STUCK;
    list_each (it, tmp, &l->stuck.tail)
        list_entry(it, struct record, link)->state = RECORD_STUCK;
    for (i = 0; i < ARRAY_LEN(lists); i++) {
        list_each (it, tmp, lists[i])
            list_entry(it, struct record, link)->acked_ns = now;
    }
}

struct batch_size {
    size_t n;
    uint64_t lines, bytes;
};

/* Those of the list that would still go into the batch. True: all of them. */
static bool mark_batch(struct stream *s, struct list *head, struct batch_size *b)
{
    struct record *r = list_first(head, struct record, link);

    for (; r && batch_takes(s, b->n, b->lines, b->bytes, r); b->n++) {
        b->lines += r->row.lines;
        b->bytes += r->size;
        r->maybe_sent = true;
        r = list_next(head, r, struct record, link);
    }
    return !r;
}

/* The first batch may have been under way when we stopped, and no other (next_for_lines). Pages
 * are marked as a whole. */
static void mark_first_batch(struct stream *s)
{
    const struct stream_rules *rules = s->env->rules;
    struct life *l = stream_head(s);
    struct batch_size b = {0};
    struct page *p;

    if (!l || !mark_batch(s, &l->lines.front, &b))
        return;
    p = list_first(&l->lines.pages, struct page, link);
    while (p && b.lines < rules->batch_lines && b.bytes < rules->batch_bytes) {
        b.n += p->n;
        b.lines += p->lines;
        b.bytes += p->bytes;
        p->maybe_sent = true;
        p = list_next(&l->lines.pages, p, struct page, link);
    }
    if (!p)
        mark_batch(s, &l->lines.tail, &b);
}

/* Its close is over; the commit that was to take it out of the spool was being repeated when
 * another stored the state. */
static void close_gone(struct stream *s, struct life *l)
{
    struct commit *c = commit_new(s);

    commit_gone(c, l->close);
    l->close = NULL;
    commit_send(c);
}

void stream_recovered(struct stream *s, struct stream_now now)
{
    struct list *it, *tmp;

    s->last_call = now.mono;
    list_each (it, tmp, &s->lives) {
        struct life *l = list_entry(it, struct life, link);

        take_up_lines(l, now.mono);
        if (l->ended && l->close)
            close_gone(s, l);
        if (l->closed_wall && !l->close && !l->ended)
            l->closed_wall = 0; /* stored along with something else; the close itself failed */
    }
    stream_tidy(s, now);
    mark_first_batch(s);
}
