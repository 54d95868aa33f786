#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "rt/clock.h"

struct stream *stream_new(struct stream_env *env, struct view account, struct view key)
{
    struct stream *s = XNEW(struct stream);
    int i;

    s->env = env;
    s->account = xmemdup0(account.p, account.n);
    s->key = xmemdup0(key.p, key.n);
    s->account_v = view_of(s->account, account.n);
    s->key_v = view_of(s->key, key.n);
    list_init(&s->lives);
    list_init(&s->blobs);
    list_init(&s->edge_calls);
    for (i = 0; i < LANE_COUNT; i++)
        list_init(&s->place.ready[i]);
    return s;
}

void life_free(struct life *l)
{
    queue_fini(&l->lines);
    queue_fini(&l->stuck);
    record_free(l->close);
    list_remove(&l->link);
    xfree(l);
}

void stream_free(struct stream *s)
{
    struct list *it, *tmp;

    ASSERT(s->commits == 0);
    list_each (it, tmp, &s->lives)
        life_free(list_entry(it, struct life, link));
    list_each (it, tmp, &s->blobs)
        record_free(list_entry(it, struct record, link));
    xfree(s->batch);
    xfree(s->recent);
    xfree(s->direct);
    str_fini(&s->prefix);
    str_fini(&s->query);
    xfree(s->account);
    xfree(s->key);
    xfree(s);
}

/* --- commits ------------------------------------------------------------------------------ */

struct commit *commit_new(struct stream *s)
{
    struct commit *c = XNEW(struct commit);

    c->stream = s;
    list_init(&c->records);
    list_init(&c->pages);
    return c;
}

void commit_gone(struct commit *c, struct record *r)
{
    if ((c->n_gone & (c->n_gone + 1)) == 0)
        c->gone = xrealloc(c->gone, (2 * c->n_gone + 1) * sizeof(*c->gone));
    c->gone[c->n_gone++] = r;
}

void commit_send(struct commit *c)
{
    struct stream *s = c->stream;

    if ((s->dirty || s->unsure_states || (s->marks_dirty && c->n_gone)) && !c->forget) {
        c->state = true;
        s->dirty = s->marks_dirty = false;
    }
    if (c->state) {
        c->newest_life = stream_last(s) ? stream_last(s)->id : 0;
        s->unsure_states++;
    }
    s->commits++;
    s->own_commits += !c->call;
    s->env->commit(s->env, c);
}

void stream_mark_dirty(struct stream *s)
{
    s->dirty = true;
}

void stream_begin_anew(struct stream *s)
{
    struct list *it, *tmp;

    ASSERT(!stream_head(s) && list_empty(&s->blobs));
    list_each (it, tmp, &s->lives)
        life_free(list_entry(it, struct life, link));
    recent_clear(s);
    memset(s->edges, 0, sizeof(s->edges));
    s->held = false;
    s->next_number = 0;
}

void stream_save(struct stream *s)
{
    if (s->dirty)
        commit_send(commit_new(s));
}

/* Records that wait for a request's outcome no more: their rows are to go with `c`. */
static void free_gone(struct commit *c)
{
    struct stream *s = c->stream;
    struct list *it, *tmp;
    size_t i;

    for (i = 0; i < c->n_gone; i++)
        s->env->release(s->env, c->gone[i]);
    list_each (it, tmp, &c->pages) {
        struct page *p = list_entry(it, struct page, link);

        if (p->unproven)
            s->env->discharge(s->env, p->unproven);
        page_free(p);
    }
}

static void record_committed(struct stream *s, struct record *r, struct stream_now now)
{
    struct list *it, *tmp;

    struct life *l = stream_life(s, r->life);

    if (l)
        l->durable = true;
    if (r->hashed)
        recent_settle(s, r, true);
    r->acked_ns = now.mono;
    s->next_number = TR_MAX(s->next_number, r->row.number + 1);
    r->state = RECORD_WAITING;
    str_fini(&r->frame);
    str_fini(&r->meta);
    if (r->kind == RECORD_BLOB)
        str_fini(&r->piece);
    list_each (it, tmp, &r->waiters) {
        list_remove(it);
        s->env->answer(s->env, list_entry(it, struct call, link), true);
    }
}

static void record_refused(struct stream *s, struct record *r)
{
    struct life *l = stream_life(s, r->life);
    struct list *it, *tmp;

    list_each (it, tmp, &r->waiters) {
        list_remove(it);
        s->env->answer(s->env, list_entry(it, struct call, link), false);
    }
    recent_settle(s, r, false);
    if (l && l->close == r) {
        l->close = NULL;
        l->closed_wall = 0;
        l->close_snapshot = false;
        stream_mark_dirty(s);
    }
    if (l && r->kind == RECORD_LINES)
        queue_remove(&l->lines, r);
    s->env->release(s->env, r);
}

static bool life_empty(const struct stream *s, const struct life *l)
{
    return !l->durable && !l->opens && queue_empty(&l->lines) && queue_empty(&l->stuck) &&
           !l->close && !life_blobs_waiting(s, l);
}

/* The call that was to begin the newest life has failed, and nothing else came: it has not
 * begun. An open that was never acknowledged must not go upstream, or it might wipe what its
 * client does without us meanwhile. */
static void take_back_life(struct stream *s)
{
    struct life *l = stream_last(s);

    if (!l)
        return;
    if (life_empty(s, l)) {
        s->held |= l->open_acked;
        life_free(l);
        stream_mark_dirty(s);
    } else if (!l->open_acked && !l->opens && l->open == OPEN_PENDING) {
        l->open = OPEN_NONE;
        stream_mark_dirty(s);
    }
}

static void open_committed(struct stream *s, const struct commit *c, bool ok)
{
    struct life *l = c->open_life ? stream_life(s, c->open_life) : NULL;

    if (!l)
        return;
    l->opens--;
    if (ok)
        l->open_acked = l->durable = true;
}

static void state_committed(struct stream *s, const struct commit *c, bool ok)
{
    if (!c->state)
        return;
    s->unsure_states--;
    if (ok)
        s->stored_life = TR_MAX(s->stored_life, c->newest_life);
    else
        s->dirty = s->marks_dirty = true;
}

/* An edge's call: what it brought is known from now on, or may come again. */
static void edge_committed(struct stream *s, struct call *call, bool ok)
{
    size_t i;

    if (!call || !call->edge)
        return;
    list_remove(&call->link);
    for (i = 0; ok && i < call->n_parts; i++)
        edge_accepted(s, call->edge, call->edge_life, call->parts[i].number);
}

static void records_committed(struct stream *s, struct commit *c, bool ok, struct stream_now now)
{
    struct list *it, *tmp;

    list_each (it, tmp, &c->records) {
        struct record *r = list_entry(it, struct record, commit_link);

        list_remove(it);
        if (ok)
            record_committed(s, r, now);
        else
            record_refused(s, r);
    }
}

void stream_committed(struct stream *s, struct commit *c, bool ok, struct stream_now now)
{
    ASSERT(s->commits > 0);
    ASSERT(ok || c->call); /* what no client waits for is repeated until it succeeds */
    s->commits--;
    s->own_commits -= !c->call;
    records_committed(s, c, ok, now);
    edge_committed(s, c->call, ok);
    open_committed(s, c, ok);
    state_committed(s, c, ok);
    if (!ok)
        take_back_life(s);
    if (c->closing && stream_head(s))
        stream_head(s)->closing_durable = true;
    if (c == s->forget) {
        s->forget = NULL;
        s->forgotten = s->forgetting; /* unless a call came meanwhile */
    }
    free_gone(c);
    if (c->call)
        s->env->answer(s->env, c->call, ok);
    xfree(c->gone);
    xfree(c);
    if (!s->forgotten)
        stream_tidy(s, now);
}

/* --- lives -------------------------------------------------------------------------------- */

struct life *life_new(struct stream *s, enum open_state open, struct stream_now now)
{
    struct life *last = stream_last(s);
    struct life *l = XNEW(struct life);

    queue_init(&l->lines);
    queue_init(&l->stuck);
    l->id = (uint64_t)now.wall;
    if (last && l->id <= last->id)
        l->id = last->id + 1;
    l->open = open;
    l->since_wall = now.wall;
    ASSERT(s->lives.prev && s->lives.next);
    list_append(&s->lives, &l->link);
    recent_clear(s);
    stream_mark_dirty(s);
    return l;
}

struct life *stream_last(const struct stream *s)
{
    return list_last(&s->lives, struct life, link);
}

struct life *stream_head(const struct stream *s)
{
    struct life *l = list_first(&s->lives, struct life, link);

    while (l && l->done)
        l = list_next(&s->lives, l, struct life, link);
    return l;
}

struct life *stream_life(const struct stream *s, uint64_t id)
{
    struct life *l = list_first(&s->lives, struct life, link);

    while (l && l->id != id)
        l = list_next(&s->lives, l, struct life, link);
    return l;
}

/* The blob has all lines, and the close will take the display away: live lines need not go any
 * more. */
bool life_superseding(const struct life *l)
{
    if (!l->blob_below)
        return false;
    return l->ended || (l->close && l->close->state != RECORD_COMMITTING && !l->close_snapshot);
}

bool life_has_blob(const struct stream *s, const struct life *l)
{
    const struct list *it;

    for (it = s->blobs.next; it != &s->blobs; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        if (r->life == l->id && r->state != RECORD_COMMITTING)
            return true;
    }
    return l->blob_below != 0 || l->blob_full; /* one that went directly may be below nothing */
}

/* The stored blob has what was accepted before it, or was on the way when its upload began; not
 * what came later. */
static bool in_blob(const struct life *l, const struct record *r)
{
    return r->row.number < l->blob_below || (r->start_ns && r->start_ns < l->blob_start);
}

/* Need it not go any more, and can it leave now? */
static bool may_supersede(const struct stream *s, const struct life *l, const struct record *r)
{
    const struct lane *lane = &s->lanes[LANE_LINES];

    if (lane->busy && (r->state == RECORD_SENDING || lane->op == OP_SETTLE))
        return false; /* in a request */
    return r->state != RECORD_COMMITTING && in_blob(l, r);
}

/* A batch that waits for its next try has lost records: what is left of it forms a new one. */
static void batch_drop_gone(struct stream *s, struct life *l)
{
    struct list *it, *tmp;

    if (s->lanes[LANE_LINES].busy)
        return;
    list_each (it, tmp, &l->lines.front) {
        struct record *r = list_entry(it, struct record, link);

        if (r->state == RECORD_SENDING)
            r->state = RECORD_WAITING;
    }
    batch_clear(s);
}

static uint64_t supersede_in(struct stream *s, struct life *l, struct queue *q, struct list *head,
                             struct commit *c)
{
    struct list *it, *tmp;
    uint64_t lines = 0;

    list_each (it, tmp, head) {
        struct record *r = list_entry(it, struct record, link);

        if (!may_supersede(s, l, r))
            continue;
        queue_remove(q, r);
        lines += r->row.lines;
        commit_gone(c, r);
    }
    return lines;
}

uint64_t life_supersede_into(struct stream *s, struct life *l, struct commit *c)
{
    struct queue *queues[] = {&l->lines, &l->stuck};
    uint64_t lines = 0;
    size_t i, before = c->n_gone;

    for (i = 0; i < ARRAY_LEN(queues); i++) {
        lines += supersede_in(s, l, queues[i], &queues[i]->front, c);
        lines += supersede_in(s, l, queues[i], &queues[i]->tail, c);
    }
    if (c->n_gone > before)
        batch_drop_gone(s, l);
    lines += life_supersede_pages(s, l, c);
    if (lines)
        stream_mark_dirty(s);
    c->ledger[LEDGER_LINES_SPOOLED] -= (int64_t)lines;
    c->ledger[LEDGER_LINES_SUPERSEDED] += (int64_t)lines;
    return lines;
}

static bool any_in(const struct stream *s, const struct life *l, const struct list *head)
{
    const struct list *it;

    for (it = head->next; it != head; it = it->next) {
        if (may_supersede(s, l, list_entry(it, struct record, link)))
            return true;
    }
    return false;
}

static bool any_to_supersede(const struct stream *s, const struct life *l)
{
    return any_in(s, l, &l->lines.front) || any_in(s, l, &l->lines.tail) ||
           any_in(s, l, &l->stuck.front) || any_in(s, l, &l->stuck.tail) ||
           /* many pages go one commit after the other */
           (!s->own_commits && life_pages_superseded(s, l));
}

static void life_supersede(struct stream *s, struct life *l)
{
    struct commit *c;

    if (!any_to_supersede(s, l))
        return;
    c = commit_new(s);
    life_supersede_into(s, l, c);
    commit_send(c);
}

bool life_blobs_waiting(const struct stream *s, const struct life *l)
{
    const struct record *r = list_first(&s->blobs, struct record, link);

    return r && r->life <= l->id;
}

void batch_clear(struct stream *s)
{
    s->n_batch = 0;
}

static void wake_if_ready(struct stream *s, struct stream_now now)
{
    int lane;

    for (lane = 0; lane < LANE_COUNT; lane++) {
        if (stream_ready(s, (enum stream_lane)lane, now) != INT64_MAX) {
            s->env->wake(s->env, s);
            return;
        }
    }
}

/* The close may go as soon as everything before it has gone: mark it first. */
static void prepare_close(struct stream *s, struct life *l)
{
    struct commit *c;

    if (!l->close || l->close->state == RECORD_COMMITTING || l->closing ||
        !queue_empty(&l->lines) || life_blobs_waiting(s, l) || l->open == OPEN_PENDING ||
        s->lanes[LANE_LINES].busy || s->own_commits)
        /* not while marks are under way: one that fails is repeated later, after the closing
         * mark */
        return;
    if (l->close->covers && l->barrier != BARRIER_PASSED) {
        if (l->barrier == BARRIER_NEEDED) {
            l->barrier = BARRIER_ASKED;
            s->env->barrier(s->env, s, l->close);
        }
        return;
    }
    l->closing = true;
    stream_mark_dirty(s);
    c = commit_new(s);
    c->closing = true;
    commit_send(c);
}

/* A life that is over is remembered until the next one has begun for certain. */
static void drop_done(struct stream *s)
{
    struct life *l = list_first(&s->lives, struct life, link);

    while (l && l->done && l != stream_last(s) && !s->own_commits) {
        struct life *next = list_next(&s->lives, l, struct life, link);

        if (!next || next->id > s->stored_life || !next->durable)
            return;
        life_free(l);
        stream_mark_dirty(s);
        l = next;
    }
}

static void page_out(struct stream *s, int64_t now)
{
    struct list *it, *tmp;

    list_each (it, tmp, &s->lives)
        life_page_out(s, list_entry(it, struct life, link), now);
}

void stream_tidy(struct stream *s, struct stream_now now)
{
    struct life *l;

    drop_done(s);
    page_out(s, now.mono);
    while ((l = stream_head(s)) != NULL) {
        if (life_superseding(l))
            life_supersede(s, l);
        prepare_close(s, l);
        if (!l->ended || !queue_empty(&l->lines) || !queue_empty(&l->stuck))
            break;
        l->done = true;
        stream_mark_dirty(s);
    }
    stream_read_on(s);
    wake_if_ready(s, now);
}

void stream_barrier_passed(struct stream *s, struct stream_now now)
{
    struct life *l = stream_head(s);

    if (l && l->barrier == BARRIER_ASKED)
        l->barrier = BARRIER_PASSED;
    stream_tidy(s, now);
}

/* --- the end of a stream ------------------------------------------------------------------ */

static bool lanes_idle(const struct stream *s)
{
    return !s->lanes[LANE_LINES].busy && !s->lanes[LANE_BLOBS].busy;
}

/* A life without calls for so long has ended: SaaS closes many streams itself (HP §7a). */
static void end_if_idle(struct stream *s, struct stream_now now)
{
    struct life *l = stream_head(s);

    if (!l || l->closed_wall || l->ended || !queue_empty(&l->lines) || life_blobs_waiting(s, l) ||
        l->open == OPEN_PENDING || !lanes_idle(s))
        return;
    l->ended = true;
    recent_clear(s);
    stream_mark_dirty(s);
    stream_tidy(s, now);
    stream_save(s);
}

/* A closed stream is remembered for the idle time, so that a second close is known as such; one
 * that ended by itself for as long as it may live upstream, since its client may only be silent,
 * and so one with an open that is held: its client was told that it is open. */
static bool may_forget(const struct stream *s, struct stream_now now)
{
    const struct life *l = stream_last(s);
    int64_t idle = now.mono - s->last_call;

    if (s->forgetting || s->commits || s->load || !lanes_idle(s) ||
        (s->direct && s->direct->busy) || !list_empty(&s->blobs) || stream_head(s))
        return false;
    if (idle >= s->env->rules->expiry_ns || !l)
        return true;
    return !s->held && (l->closed_wall || !l->lines_seen);
}

void stream_sweep(struct stream *s, struct stream_now now)
{
    struct commit *c;

    if (s->load_failed) {
        s->load_failed = false;
        stream_read_on(s);
    }
    page_out(s, now.mono);
    if (s->commits)
        return;
    if (now.mono - s->last_call >= s->env->rules->idle_ns)
        end_if_idle(s, now);
    else if (!s->env->crowded || now.mono - s->last_call < s->env->rules->hold_ns)
        return;
    if (!may_forget(s, now))
        return;
    s->forgetting = true;
    c = s->forget = commit_new(s);
    c->forget = true;
    commit_send(c);
}

void stream_hold(struct stream *s, int64_t until)
{
    s->held_until = until;
    if (!until)
        s->env->wake(s->env, s);
}

/* --- questions ---------------------------------------------------------------------------- */

bool stream_nothing_waits(const struct stream *s)
{
    const struct list *it;

    if (!list_empty(&s->blobs) || !lanes_idle(s) || (s->direct && s->direct->busy))
        return false;
    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        if (!queue_empty(&l->lines) || l->open == OPEN_PENDING)
            return false;
    }
    return true;
}

bool stream_quiet(const struct stream *s)
{
    const struct list *it;

    for (it = s->lives.next; it != &s->lives; it = it->next) {
        if (list_entry(it, struct life, link)->open == OPEN_UNKNOWN)
            return false;
    }
    return stream_nothing_waits(s);
}

bool stream_unused(const struct stream *s)
{
    return s->forgotten && s->commits == 0 && !s->load;
}

bool stream_goes_on(struct stream *s, struct stream_now now, int64_t until)
{
    int lane;

    if (s->load || !lanes_idle(s) || (s->direct && s->direct->busy))
        return true;
    if (s->held_until > now.mono)
        return false;
    for (lane = 0; lane < LANE_COUNT; lane++) {
        if (stream_ready(s, (enum stream_lane)lane, now) <= until)
            return true;
    }
    return false;
}

bool stream_waits(const struct stream *s)
{
    const struct list *it;

    if (!list_empty(&s->blobs))
        return true;
    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        if (!queue_empty(&l->lines) || !queue_empty(&l->stuck) || (l->close && !l->ended))
            return true;
    }
    return false;
}

uint64_t stream_backlog_lines(const struct stream *s)
{
    const struct list *it;
    uint64_t n = 0;

    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        n += queue_lines(&l->lines) + queue_lines(&l->stuck);
    }
    return n;
}

static int64_t older(int64_t at, int64_t other)
{
    return other && (at == 0 || other < at) ? other : at;
}

int64_t stream_oldest_ns(const struct stream *s)
{
    const struct record *blob = list_first(&s->blobs, struct record, link);
    int64_t at = blob ? blob->row.at_ns : 0;
    const struct list *it;

    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        at = older(older(at, queue_oldest_ns(&l->lines)), queue_oldest_ns(&l->stuck));
    }
    return at;
}
