/* A state of the world as one number. Whatever can make a difference later goes in; where things
 * lie in memory, what only counts (attempts, wakes, notes) and the generator of the jitter
 * (which is zero here) do not. */
#include "model.h"

struct mix {
    uint64_t a, b;
};

static void add(struct mix *m, uint64_t v)
{
    unsigned __int128 p =
        (unsigned __int128)(m->a ^ v ^ 0x9e3779b97f4a7c15ULL) * (m->b ^ 0xbf58476d1ce4e5b9ULL);

    m->a = (uint64_t)p ^ (uint64_t)(p >> 64) ^ m->b;
    m->b = m->b * 0xd6e8feb86659fd93ULL + v + 1;
}

static void add_bytes(struct mix *m, const void *p, size_t n)
{
    const unsigned char *at = p;
    uint64_t word;

    add(m, n);
    for (; n >= 8; n -= 8, at += 8) {
        memcpy(&word, at, 8);
        add(m, word);
    }
    word = 0;
    if (n)
        memcpy(&word, at, n);
    add(m, word);
}

static void add_text(struct mix *m, const char *text)
{
    add_bytes(m, text, strlen(text));
}

static void add_record(struct mix *m, const struct record *r)
{
    const struct list *it;

    add(m, (uint64_t)r->kind * 16 + r->state);
    add(m, (uint64_t)r->row.id);
    add(m, (uint64_t)r->row.number);
    add_text(m, str_c(&r->text));
    add(m, r->life);
    add(m, (uint64_t)r->start_ns);
    add(m, (uint64_t)r->acked_ns);
    add(m, (uint64_t)r->ahead * 4 + r->maybe_sent + 2 * (uint64_t)r->loaded);
    add(m, r->unproven);
    add(m, (r->ahead ? r->ahead_above : 0) * 64 + r->passed);
    for (it = r->waiters.next; it != &r->waiters; it = it->next)
        add_text(m, list_entry(it, struct client_call, call.link)->text);
}

static void add_records(struct mix *m, const struct list *head)
{
    const struct list *it;

    for (it = head->next; it != head; it = it->next)
        add_record(m, list_entry(it, struct record, link));
    add(m, 0xfffe);
}

static void add_queue(struct mix *m, const struct queue *q)
{
    const struct list *it;
    int64_t ids[W_RECORDS];

    add_records(m, &q->front);
    for (it = q->pages.next; it != &q->pages; it = it->next) {
        const struct page *p = list_entry(it, struct page, link);

        page_ids(p, ids);
        add_bytes(m, ids, p->n * sizeof(ids[0]));
        add(m, p->unproven * 4ULL + p->loading + 2 * (uint64_t)p->maybe_sent);
    }
    add_records(m, &q->tail);
}

static void add_life(struct mix *m, const struct life *l)
{
    add(m, l->id);
    add(m, (uint64_t)l->open);
    add(m, (uint64_t)l->since_wall);
    add_queue(m, &l->lines);
    add_queue(m, &l->stuck);
    if (l->close)
        add_record(m, l->close);
    add(m, (uint64_t)l->closed_wall);
    add(m, (uint64_t)l->barrier);
    add(m, (uint64_t)(l->closing | l->closing_durable << 1 | l->ended << 2 | l->done << 3 |
                      l->reopened << 4 | l->lines_seen << 5 | l->blob_full << 6 | l->blob_log << 7 |
                      l->broken << 8 | l->close_snapshot << 9 | l->open_acked << 10 |
                      l->durable << 11 | l->snapshot_taken << 12 | l->flows << 13) +
               ((uint64_t)l->opens << 16));
    add(m, l->absent);
    add(m, l->close_absent);
    add(m, l->n_delivered);
    add(m, l->blob_below);
    add(m, (uint64_t)l->blob_start);
}

static void add_recent(struct mix *m, const struct stream *s)
{
    unsigned i;

    add(m, s->n_recent);
    for (i = 0; i < s->n_recent; i++) {
        unsigned at = (s->recent_at + s->cap_recent - s->n_recent + i) % s->cap_recent;

        add(m, s->recent[at].hash.lo ^ s->recent[at].hash.hi);
        add(m, s->recent[at].record ? (uint64_t)s->recent[at].record->state + 1 : 0);
    }
}

static void add_stream(struct mix *m, const struct world *w, const struct stream *s)
{
    const struct list *it;
    size_t i;

    for (it = s->lives.next; it != &s->lives; it = it->next)
        add_life(m, list_entry(it, struct life, link));
    add_records(m, &s->blobs);
    add_recent(m, s);
    add_bytes(m, s->edges, sizeof(s->edges));
    for (i = 0; i < LANE_COUNT; i++) {
        const struct lane *lane = &s->lanes[i];

        add(m, (uint64_t)(lane->busy | lane->check << 1 | lane->credential_good << 2) +
                   (uint64_t)lane->op * 8);
        add(m, lane->not_before > w->now.mono ? (uint64_t)lane->not_before : 0);
    }
    for (i = 0; i < s->n_batch; i++)
        add(m, (uint64_t)s->batch[i]->row.id);
    add(m, (uint64_t)s->held_until);
    add(m, s->held | s->marks_dirty << 1 | s->dirty << 3 | s->forgetting << 4 | s->forgotten << 5);
    add(m, s->singly_left);
    add(m, (uint64_t)(s->load != NULL) * 2 + s->load_failed);
    add(m, s->commits + 64 * s->own_commits + 4096 * s->unsure_states + (s->forget ? 1 << 20 : 0));
    add(m, s->stored_life);
    add(m, s->next_number);
    add(m, (uint64_t)s->last_call);
}

static void add_pending(struct mix *m, const struct pending *p)
{
    const struct commit *c = p->c;
    const struct list *it;
    size_t i;

    add(m, (uint64_t)p->stream);
    add_bytes(m, c->ledger, sizeof(c->ledger));
    for (it = c->records.next; it != &c->records; it = it->next)
        add_text(m, str_c(&list_entry(it, struct record, commit_link)->text));
    for (i = 0; i < c->n_gone; i++)
        add(m, (uint64_t)c->gone[i]->row.id);
    for (it = c->pages.next; it != &c->pages; it = it->next)
        add(m, (uint64_t)list_entry(it, struct page, link)->low_id);
    add(m, (uint64_t)(c->state | c->forget << 1 | c->closing << 2 | (c->dead != NULL) << 3) +
               (c->n_gone << 8));
    add(m, c->open_life);
    add(m, c->newest_life);
    if (c->call)
        add_text(m, container_of(c->call, struct client_call, call)->text);
    add_bytes(m, p->row.state.p, p->row.state.n);
}

static void add_store(struct mix *m, const struct world *w)
{
    int i;

    add(m, (uint64_t)w->store.next_id);
    for (i = 0; i < W_RECORDS; i++) {
        const struct stored_record *r = &w->store.records[i];

        if (!r->used)
            continue;
        add(m, (uint64_t)r->id * 4 + (uint64_t)r->dead);
        add_text(m, r->text);
        add_bytes(m, r->meta.p, r->meta.n);
    }
    for (i = 0; i < W_STREAMS; i++) {
        add(m, w->store.streams[i].next);
        add_bytes(m, w->store.streams[i].state.p, w->store.streams[i].state.n);
    }
    add_bytes(m, w->store.ledger, sizeof(w->store.ledger));
}

static void add_upstream(struct mix *m, const struct world *w)
{
    int i;

    for (i = 0; i < W_STREAMS; i++) {
        const struct up_stream *up = &w->up[i];

        add(m, (uint64_t)(up->exists | up->blob << 1 | (up->exists && up->foreign) << 2));
        add_text(m, up->entries);
        add_text(m, up->history);
        add_text(m, up->content);
        add(m, up->blob_life);
        add(m, w->newest_taken[i]);
    }
    for (i = 0; i < W_LATE; i++) {
        add(m, (uint64_t)w->late[i].kind);
        add_text(m, w->late[i].text);
    }
}

static void add_oracle(struct mix *m, const struct world *w)
{
    add_bytes(m, &w->durable, 4);
    add(m, (uint64_t)w->acked << 32 | w->late_lines);
    add(m, (uint64_t)w->delivered << 32 | w->superseded);
    add(m, (uint64_t)w->settled << 32 | w->dead);
    add(m, (uint64_t)w->excused << 32 | w->unsure);
    add(m, (uint64_t)w->in_whole_blob << 32 | w->scrambled);
    add_bytes(m, w->seq, sizeof(w->seq));
    add_bytes(m, w->may_swap, sizeof(w->may_swap));
    add_bytes(m, w->life_of, sizeof(w->life_of));
    add_bytes(m, w->lives, w->n_lives * sizeof(w->lives[0]));
    add(m, w->resent_most * 2 + (uint64_t)w->crashed + ((uint64_t)w->idled << 60) +
               (w->dups << 20) + (w->dups_uncounted << 40));
}

uint64_t world_hash(const struct world *w)
{
    struct mix m = {1, 2};
    unsigned i;
    int s, lane;

    add(&m, (uint64_t)w->now.mono);
    for (s = 0; s < W_STREAMS; s++) {
        add(&m, w->s[s] != NULL);
        if (w->s[s])
            add_stream(&m, w, w->s[s]);
        for (lane = 0; lane < LANE_COUNT; lane++) {
            add(&m, (uint64_t)w->busy[s][lane] + 2 * (uint64_t)w->inflight[s][lane].kind);
            add(&m, (uint64_t)(w->inflight[s][lane].again | w->inflight[s][lane].snapshot << 1));
        }
        add(&m, w->barrier[s] != NULL);
    }
    for (i = 0; i < w->n_pending; i++)
        add_pending(&m, &w->pending[i]);
    for (i = 0; i < w->n_calls; i++)
        add(&m, (uint64_t)(w->calls[i].used | w->calls[i].answered << 1 | w->calls[i].ok << 2) |
                    (uint64_t)w->calls[i].answered_at << 3);
    add_store(&m, w);
    add_upstream(&m, w);
    add_oracle(&m, w);
    return m.a ^ m.b;
}
