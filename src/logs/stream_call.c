/* Client calls: what joins, what begins a life, what repeats and what comes too late. */
#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

/* --- bodies that came before -------------------------------------------------------------- */

static void recent_grow(struct stream *s)
{
    unsigned cap = s->cap_recent ? 2 * s->cap_recent : 8;

    s->recent = xrealloc(s->recent, cap * sizeof(*s->recent));
    s->cap_recent = cap;
    s->recent_at = s->n_recent;
}

void recent_add(struct stream *s, struct body_hash h, struct record *r)
{
    if (s->n_recent == s->cap_recent && s->cap_recent < STREAM_RECENT)
        recent_grow(s);
    if (s->recent_at == s->cap_recent)
        s->recent_at = 0;
    s->recent[s->recent_at++] = (struct recent){h, r};
    if (s->n_recent < s->cap_recent)
        s->n_recent++;
}

void recent_clear(struct stream *s)
{
    XFREE(s->recent);
    s->n_recent = s->cap_recent = s->recent_at = 0;
}

struct recent *recent_find(struct stream *s, struct body_hash h)
{
    unsigned i;

    for (i = 0; i < s->n_recent; i++) {
        if (body_hash_eq(s->recent[i].hash, h))
            return &s->recent[i];
    }
    return NULL;
}

/* The record's commit is over. If it failed the same body may come again and is then no
 * repetition. */
void recent_settle(struct stream *s, const struct record *r, bool durable)
{
    unsigned i;

    for (i = 0; i < s->n_recent; i++) {
        if (s->recent[i].record != r)
            continue;
        s->recent[i].record = NULL;
        s->marks_dirty = true;
        if (!durable)
            s->recent[i].hash = (struct body_hash){0, 0};
    }
}

static struct record *only_record(const struct call *call)
{
    return list_first(&call->records, struct record, link);
}

static void release_records(struct stream *s, struct call *call)
{
    struct list *it, *tmp;

    list_each (it, tmp, &call->records) {
        list_remove(it);
        s->env->release(s->env, list_entry(it, struct record, link));
    }
}

/* Nothing to store, but the answer must not overtake what is being made durable. */
static void answer_in_order(struct stream *s, struct call *call)
{
    struct commit *c = commit_new(s);

    release_records(s, call);
    c->call = call;
    commit_send(c);
}

/* True if the call repeats a body of this generation; it is then taken care of. */
static bool replayed(struct stream *s, struct call *call, struct commit *ledger)
{
    struct recent *seen = recent_find(s, call->hash);

    if (!seen)
        return false;
    s->env->note(s->env, s, NOTE_REPLAYED, call->lines);
    if (seen->record && seen->record->state == RECORD_COMMITTING && !ledger) {
        release_records(s, call);
        list_append(&seen->record->waiters, &call->link);
    } else if (ledger) {
        release_records(s, call);
        ledger->call = call;
        commit_send(ledger);
    } else {
        answer_in_order(s, call);
    }
    return true;
}

/* --- open --------------------------------------------------------------------------------- */

/* The lives that are not over. */
static size_t count_lives(const struct stream *s)
{
    const struct list *it;
    size_t n = 0;

    for (it = s->lives.next; it != &s->lives; it = it->next)
        n += !list_entry(it, struct life, link)->done;
    return n;
}

/* The newest life; one that ended for lack of calls goes on with this one. */
static struct life *resumed(struct stream *s)
{
    struct life *l = stream_last(s);

    if (l && l->ended && !l->closed_wall) {
        l->ended = l->done = false;
        stream_mark_dirty(s);
    }
    return l;
}

static void call_open(struct stream *s, struct call *call, struct stream_now now)
{
    struct life *l = stream_last(s);
    struct commit *c = commit_new(s);

    if (l && !l->closed_wall && !l->ended) {
        s->env->note(s->env, s, NOTE_JOINED, 0);
        if (l->open == OPEN_NONE && !l->durable)
            l->open = OPEN_PENDING; /* what came before it has failed, or is not through yet */
        c->open_life = l->id;
        l->opens++;
    } else if (l && ((l->closed_wall && now.wall - l->closed_wall < s->env->rules->hold_ns) ||
                     count_lives(s) >= STREAM_MAX_LIVES)) {
        s->env->note(s->env, s, NOTE_HELD, 0);
        s->held = true;
        stream_mark_dirty(s);
    } else {
        s->held = false;
        l = life_new(s, OPEN_PENDING, now);
        c->open_life = l->id;
        l->opens++;
    }
    c->call = call;
    commit_send(c);
}

/* --- lines -------------------------------------------------------------------------------- */

/* The life that lines belong to now, or NULL if they come too late. */
static struct life *life_for_lines(struct stream *s, struct stream_now now)
{
    struct life *l = resumed(s);

    if (l && !l->closed_wall)
        return l;
    if (s->held && count_lives(s) < STREAM_MAX_LIVES) {
        s->held = false;
        l = life_new(s, OPEN_PENDING, now);
        l->open_acked = true;
        return l;
    }
    if (!l)
        return life_new(s, OPEN_NONE, now);
    return l->closing || l->ended ? NULL : l;
}

static void take_late(struct stream *s, struct call *call)
{
    struct commit *c = commit_new(s);

    s->env->note(s->env, s, NOTE_LATE, call->lines);
    release_records(s, call);
    c->ledger[LEDGER_LINES_ACCEPTED] = (int64_t)call->lines;
    c->ledger[LEDGER_LINES_LATE] = (int64_t)call->lines;
    c->call = call;
    commit_send(c);
}

/* Two calls may overlap (HP §2.2); their `pos` ranges then tell which was written first. May `r`
 * go ahead of `b`, that was not answered when it began, and whose lines all come after its own? */
static bool may_pass(const struct record *r, const struct record *b, unsigned max_ahead)
{
    return b->state != RECORD_SENDING && b->passed < max_ahead &&
           !(b->acked_ns && b->acked_ns <= r->start_ns) && b->pos_min > r->pos_max;
}

/* How many at the end of the queue `r` goes ahead of. Those of them that are not durable yet may
 * fail, so that after a restart the count alone would reach too far; it says above which number
 * it holds. */
static void set_ahead(const struct stream *s, struct life *l, struct record *r)
{
    unsigned max_ahead = s->env->rules->max_ahead;
    const struct list *end = queue_end(&l->lines);
    const struct list *it;

    r->ahead_above = s->next_number;
    if (r->pos_min == r->pos_max && r->row.lines > 1)
        return; /* a client that does not number its lines (Java sends 0) */
    for (it = end->prev; it != end && r->ahead < max_ahead; it = it->prev) {
        struct record *b = list_entry(it, struct record, link);

        if (!may_pass(r, b, max_ahead))
            break;
        if (b->state != RECORD_COMMITTING)
            r->ahead_above = TR_MIN(r->ahead_above, b->row.number);
        b->passed++;
        r->ahead++;
    }
}

void life_queue_lines(struct life *l, struct record *r)
{
    struct list *end = queue_end(&l->lines), *at = end;
    unsigned n;

    for (n = r->ahead; n > 0 && at->prev != end; n--) {
        const struct record *b = list_entry(at->prev, struct record, link);

        if (b->pos_min <= r->pos_max ||
            (b->state != RECORD_COMMITTING && b->row.number < r->ahead_above))
            break; /* after a restart: one that it went ahead of has failed */
        at = at->prev;
    }
    queue_insert(&l->lines, at, r);
}

static struct edge_mark *edge_find(struct stream *s, uint64_t edge)
{
    struct edge_mark *m = s->edges;
    size_t i;

    for (i = 0; i < STREAM_EDGES; i++) {
        if (s->edges[i].edge == edge)
            return &s->edges[i];
        if (s->edges[i].life < m->life)
            m = &s->edges[i]; /* the one not heard of for longest */
    }
    *m = (struct edge_mark){.edge = edge};
    return m;
}

/* Has the edge's record been accepted before? One that is far behind the newest has. */
static bool edge_seen(const struct edge_mark *m, uint64_t life, uint64_t number)
{
    if (life != m->life || number > m->last)
        return false;
    return m->last - number >= 64 || (m->seen & (1ULL << (m->last - number)));
}

void edge_accepted(struct stream *s, uint64_t edge, uint64_t life, uint64_t number)
{
    struct edge_mark *m = edge_find(s, edge);

    s->marks_dirty = true;
    if (life != m->life) {
        *m = (struct edge_mark){edge, life, number, 1};
    } else if (number > m->last) {
        uint64_t step = number - m->last;

        m->seen = (step < 64 ? m->seen << step : 0) | 1;
        m->last = number;
    } else if (m->last - number < 64) {
        m->seen |= 1ULL << (m->last - number);
    }
}

/* Drop what the edge sent before and we have; its answer was lost. */
static void drop_repeated_parts(struct stream *s, struct call *call)
{
    const struct edge_mark *m = edge_find(s, call->edge);
    struct list *it, *tmp;
    size_t i = 0;

    list_each (it, tmp, &call->records) {
        struct record *r = list_entry(it, struct record, link);

        ASSERT(i < call->n_parts);
        r->edge = call->edge;
        r->edge_life = call->edge_life;
        r->edge_number = call->parts[i++].number;
        if (edge_seen(m, r->edge_life, r->edge_number)) {
            call->lines -= r->row.lines;
            list_remove(it);
            s->env->note(s->env, s, NOTE_REPLAYED, r->row.lines);
            s->env->release(s->env, r);
        }
    }
}

static bool edge_is_busy(const struct stream *s, const struct call *call)
{
    const struct list *it;

    for (it = s->edge_calls.next; it != &s->edge_calls; it = it->next) {
        if (list_entry(it, struct call, link)->edge == call->edge)
            return true;
    }
    return false;
}

/*
 * A delivery from an edge. False if it is taken care of: an edge sends one at a time, so this one
 * repeats one whose answer it did not wait for, and whether that is durable will be known in a
 * moment. "Not now" is the only true answer.
 */
static bool edge_may_call(struct stream *s, struct call *call)
{
    if (edge_is_busy(s, call)) {
        release_records(s, call);
        s->env->answer(s->env, call, false);
        return false;
    }
    drop_repeated_parts(s, call);
    list_append(&s->edge_calls, &call->link);
    return true;
}

static void call_lines(struct stream *s, struct call *call, struct stream_now now)
{
    struct commit *c;
    struct life *l;
    struct list *it, *tmp;

    if (call->edge && !edge_may_call(s, call))
        return;
    if (list_empty(&call->records)) {
        answer_in_order(s, call);
        return;
    }
    if (!call->edge && replayed(s, call, NULL))
        return;
    l = life_for_lines(s, now);
    if (!l) {
        take_late(s, call);
        return;
    }
    if (!l->lines_seen) {
        l->lines_seen = true;
        stream_mark_dirty(s);
    }
    c = commit_new(s);
    list_each (it, tmp, &call->records) {
        struct record *r = list_entry(it, struct record, link);
        bool alone = call->records.next == it && call->records.prev == it;

        list_remove(it);
        r->life = l->id;
        r->cred = call->cred;
        r->start_ns = call->start_ns;
        if (alone)
            set_ahead(s, l, r);
        r->state = RECORD_COMMITTING;
        r->maybe_sent = direct_lost(s, call->hash);
        if (r->hashed)
            recent_add(s, r->hash, r);
        record_encode(r);
        life_queue_lines(l, r);
        list_append(&c->records, &r->commit_link);
    }
    c->ledger[LEDGER_LINES_ACCEPTED] = (int64_t)call->lines;
    c->ledger[LEDGER_LINES_SPOOLED] = (int64_t)call->lines;
    c->call = call;
    commit_send(c);
}

/* --- blobs -------------------------------------------------------------------------------- */

/* An upload that cannot be the whole log: the second try of a client that had sent part of its
 * buffer (HP §2.6, §9.2). Lines need not have been seen for that: a short step may upload its
 * log without ever having flushed (HP §2.2). */
bool blob_is_broken(const struct stream *s, const struct life *l, bool empty, bool begins_line)
{
    const struct list *it;
    bool full, log;

    if (!l || (!empty && begins_line))
        return false;
    full = l->lines_seen || l->blob_full;
    log = l->lines_seen || l->blob_log;
    for (it = s->blobs.next; it != &s->blobs; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        full |= r->life == l->id && r->blob_size > 0;
        log |= r->life == l->id && r->log;
    }
    return empty ? full : log;
}

static void take_broken(struct stream *s, struct call *call, struct life *l)
{
    struct record *r = only_record(call);
    struct commit *c = commit_new(s);

    s->env->note(s->env, s, NOTE_BROKEN_BLOB, 0);
    if (!l->broken) {
        l->broken = true;
        stream_mark_dirty(s);
    }
    c->drop_blob = r->row.blob;
    c->ledger[LEDGER_BLOBS_ACCEPTED] = 1;
    c->ledger[LEDGER_BLOBS_BROKEN] = 1;
    release_records(s, call);
    c->call = call;
    commit_send(c);
}

static void call_blob(struct stream *s, struct call *call, struct stream_now now)
{
    struct record *r = only_record(call);
    struct life *l = resumed(s);
    struct recent *seen;
    struct commit *c;

    if (blob_is_broken(s, l, call->empty, call->begins_line)) {
        take_broken(s, call, l);
        return;
    }
    c = commit_new(s);
    seen = call->empty ? NULL : recent_find(s, call->hash);
    if (seen && !(seen->record && seen->record->state == RECORD_COMMITTING)) {
        c->drop_blob = r->row.blob;
        c->ledger[LEDGER_BLOBS_ACCEPTED] = 1;
        c->ledger[LEDGER_BLOBS_REPEATED] = 1;
        replayed(s, call, c);
        return;
    }
    if (!l)
        l = life_new(s, OPEN_NONE, now);
    list_remove(&r->link);
    r->life = l->id;
    r->cred = call->cred;
    r->state = RECORD_COMMITTING;
    if (r->hashed)
        recent_add(s, r->hash, r);
    r->start_ns = call->start_ns;
    r->log = call->begins_line;
    record_encode(r);
    list_append(&s->blobs, &r->link);
    list_append(&c->records, &r->commit_link);
    c->ledger[LEDGER_BLOBS_ACCEPTED] = 1;
    c->ledger[LEDGER_BLOBS_SPOOLED] = 1;
    c->call = call;
    commit_send(c);
}

/* --- close -------------------------------------------------------------------------------- */

static void call_close(struct stream *s, struct call *call, struct stream_now now)
{
    struct record *r = only_record(call);
    struct life *l = resumed(s);
    struct commit *c;

    if (s->held) {
        s->held = false;
        stream_mark_dirty(s);
    }
    if (l && l->closed_wall) {
        if (!r->covers || !l->ended) {
            answer_in_order(s, call);
            return;
        }
        l = NULL; /* a close of a whole prefix may be meant again */
    }
    if (!l)
        l = life_new(s, OPEN_NONE, now);
    list_remove(&r->link);
    r->life = l->id;
    r->cred = call->cred;
    r->state = RECORD_COMMITTING;
    l->close = r;
    l->closed_wall = now.wall;
    l->close_snapshot = r->snapshot;
    stream_mark_dirty(s);
    record_encode(r);
    c = commit_new(s);
    list_append(&c->records, &r->commit_link);
    c->call = call;
    commit_send(c);
}

void stream_call(struct stream *s, struct call *call, struct stream_now now)
{
    s->last_call = now.mono;
    if (s->forgetting) {
        s->forgetting = false;     /* its row is on the way out: store it again */
        s->forget->forget = false; /* ... and should it have to be asked for again, not any more */
        stream_begin_anew(s);
        stream_mark_dirty(s);
    }
    if (call->cred && call->cred != s->cred) {
        s->cred = call->cred;
        stream_mark_dirty(s);
    }
    if (call->query.n && !view_eq(str_view(&s->query), call->query)) {
        str_clear(&s->query);
        str_addv(&s->query, call->query);
        str_clear(&s->prefix);
        str_addv(&s->prefix, call->prefix);
        stream_mark_dirty(s);
    }
    switch (call->kind) {
    case CALL_OPEN:
        call_open(s, call, now);
        break;
    case CALL_LINES:
        call_lines(s, call, now);
        break;
    case CALL_BLOB:
        call_blob(s, call, now);
        break;
    case CALL_CLOSE:
        call_close(s, call, now);
        break;
    }
}
