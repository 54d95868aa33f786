/*
 * What is in the spool only (queue.h): which records leave memory while they wait, and when they
 * are read again.
 *
 * Only what is durable is paged, and what nothing needs to know more of than a page keeps:
 *   - nothing that has been in a request, which is repeated as it was;
 *   - nothing that a call may still go ahead of: rules.max_ahead records stay behind it;
 *   - nothing of a life that has a blob, unless it came before a restart: when the call began
 *     decides whether the blob has its lines, and a page does not know that. A blob that comes
 * later has a higher number than all that is paged. What was read again stays until it is sent.
 */
#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "rt/fault.h"

/* --- out ---------------------------------------------------------------------------------- */

static bool has_any_blob(const struct stream *s, const struct life *l)
{
    const struct list *it;

    for (it = s->blobs.next; it != &s->blobs; it = it->next) {
        if (list_entry(it, struct record, link)->life == l->id)
            return true;
    }
    return l->blob_below != 0;
}

struct paging {
    struct stream *s;
    struct queue *q;
    size_t keep; /* at the front */
    size_t behind;
    uint32_t n; /* records of a page */
    bool blob;
    int64_t since; /* what was durable then */
};

static bool may_page(const struct paging *p, const struct record *r)
{
    return (r->state == RECORD_WAITING || r->state == RECORD_STUCK) && !r->loaded &&
           !(p->blob && r->start_ns) && r->acked_ns <= p->since;
}

/* One that is sent soon, or has been. */
static bool stays(const struct record *r)
{
    return r->loaded || r->state == RECORD_SENDING || (r->state == RECORD_WAITING && r->maybe_sent);
}

/* The oldest that may leave, and how many are in memory from there on. */
static struct record *first_to_page(const struct paging *p, size_t *left)
{
    struct queue *q = p->q;
    struct record *r;
    size_t kept = 0;

    *left = queue_paged(q) ? q->n_tail : q->n_front;
    if (queue_paged(q))
        return list_first(&q->tail, struct record, link);
    if (*left < p->keep + p->n + p->behind)
        return NULL;
    r = list_first(&q->front, struct record, link);
    while (r && (kept < p->keep || stays(r))) {
        r = list_next(&q->front, r, struct record, link);
        kept++;
    }
    *left -= kept;
    return r;
}

/* Forget what `n` records from `first` on say beyond their page. */
static bool page_one(const struct paging *p, uint32_t n)
{
    struct list *it, *tmp, out;
    struct record *first, *r;
    size_t left;
    uint32_t i;

    r = first = first_to_page(p, &left);
    if (!r || left < p->n + p->behind)
        return false;
    for (i = 0; i < n; i++) {
        if (!may_page(p, r))
            return false;
        r = list_entry(r->link.next, struct record, link); /* of n there are more than n */
    }
    fault_point("logs-page-out");
    list_init(&out);
    queue_page_out(p->q, first, n, &out);
    list_each (it, tmp, &out) {
        r = list_entry(it, struct record, link);
        r->unproven = 0; /* the page's now */
        p->s->env->release(p->s->env, r);
    }
    return true;
}

/* A quick answer: for most streams it is no. */
static bool may_be_long(const struct queue *q, const struct stream_rules *rules)
{
    return queue_paged(q) ? q->n_tail >= rules->page_records
                          : q->n_front >= rules->page_keep + rules->page_records;
}

static void page_queue(struct paging *p, const struct life *l)
{
    uint32_t n;

    do {
        size_t before = queue_paged(p->q) ? p->q->n_front + p->q->n_paged : p->keep;

        n = p->n;
        if (p->q == &l->lines && l->were_stuck > before)
            n = (uint32_t)TR_MIN(n, l->were_stuck - before); /* it will be moved as a whole */
    } while (page_one(p, n));
}

void life_page_out(struct stream *s, struct life *l, int64_t now)
{
    const struct stream_rules *rules = s->env->rules;
    struct paging p = {.s = s, .n = rules->page_records, .keep = rules->page_keep};

    if (!p.n || (!may_be_long(&l->lines, rules) && !may_be_long(&l->stuck, rules)))
        return;
    p.blob = has_any_blob(s, l);
    p.since = now == INT64_MAX ? now : now - rules->page_after_ns;
    p.behind = rules->max_ahead;
    p.q = &l->lines;
    page_queue(&p, l);
    p.behind = 0;
    p.q = &l->stuck;
    if (!l->ended && !(s->lanes[LANE_LINES].busy && s->lanes[LANE_LINES].op == OP_SETTLE))
        page_queue(&p, l);
}

/* --- in ----------------------------------------------------------------------------------- */

/* More of it at a time than is settled together need not be here. */
static bool stuck_enough(const struct life *l)
{
    const struct list *it;
    uint64_t bytes = 0;

    if (l->stuck.n_front >= STREAM_SETTLE_RECORDS)
        return true;
    for (it = l->stuck.front.next; it != &l->stuck.front; it = it->next)
        bytes += list_entry(it, struct record, link)->size;
    return bytes > STREAM_SETTLE_BYTES;
}

bool life_stuck_wanted(const struct stream *s, const struct life *l)
{
    return l->ended && queue_paged(&l->stuck) && !life_blobs_waiting(s, l) && !stuck_enough(l);
}

/* Nothing is left to send, or soon nothing will be. What is read too early would only take the
 * memory again, so that upstream must be seen to take lines first. */
static bool lines_wanted(const struct stream *s, const struct life *l)
{
    const struct queue *q = &l->lines;

    if (l->ended || !queue_paged(q))
        return false;
    return !q->n_front || (l->flows && q->n_front < s->n_batch + s->env->rules->load_records / 2);
}

static struct reload *reload_new(struct stream *s, struct life *l, struct queue *q)
{
    struct reload *ld = XNEW(struct reload);
    const struct list *it;

    ld->stream = s;
    ld->life = l->id;
    ld->stuck = q == &l->stuck;
    for (it = q->pages.next; it != &q->pages && ld->n < s->env->rules->load_records;
         it = it->next) {
        struct page *p = list_entry(it, struct page, link);

        ld->ids = xrealloc(ld->ids, (ld->n + p->n) * sizeof(*ld->ids));
        page_ids(p, ld->ids + ld->n);
        ld->n += p->n;
        p->loading = true;
    }
    ld->records = xcalloc(ld->n, sizeof(*ld->records));
    return ld;
}

void reload_free(struct reload *ld)
{
    size_t i;

    if (!ld)
        return;
    for (i = 0; i < ld->n; i++)
        record_free(ld->records[i]);
    xfree(ld->records);
    xfree(ld->ids);
    xfree(ld);
}

void stream_read_on(struct stream *s)
{
    struct life *l = stream_head(s);
    struct queue *q = NULL;

    if (!l || s->load || s->load_failed)
        return;
    if (lines_wanted(s, l))
        q = &l->lines;
    else if (life_stuck_wanted(s, l))
        q = &l->stuck;
    if (!q || life_pages_superseded(s, l))
        return;
    s->load = reload_new(s, l, q);
    s->env->load(s->env, s->load);
}

/* A row that is not there or says nonsense: its lines are lost, and counted. */
static void rows_lost(struct stream *s, const int64_t *ids, uint32_t n, int64_t lines)
{
    struct commit *c = commit_new(s);

    list_append(&c->pages, &page_of_ids(ids, n)->link);
    c->dead = "the record cannot be read";
    c->ledger[LEDGER_LINES_SPOOLED] = -lines;
    c->ledger[LEDGER_LINES_DEAD] = lines;
    s->env->note(s->env, s, NOTE_DEAD, (uint64_t)lines);
    stream_mark_dirty(s);
    commit_send(c);
}

/* Its record is here, in the place of its page. */
static bool take_record(struct reload *ld, size_t i, struct queue *q, const struct page *p)
{
    struct record *r = ld->records[i];

    if (!r || r->kind != RECORD_LINES || r->life != ld->life || r->row.lines > p->lines)
        return false;
    ld->records[i] = NULL;
    r->state = ld->stuck ? RECORD_STUCK : RECORD_WAITING;
    r->loaded = true;
    r->acked_ns = 1; /* long ago: no call goes ahead of it any more */
    r->maybe_sent = p->maybe_sent;
    queue_page_in(q, r);
    return true;
}

/* Takes its part of what was read, which begins at `at`; a part that cannot be used is put
 * together in `lost`, and its lines are returned. */
static int64_t take_page(struct stream *s, struct reload *ld, size_t at, struct queue *q,
                         int64_t *lost, uint32_t *n_lost)
{
    struct page *p = list_first(&q->pages, struct page, link);
    int64_t lines = (int64_t)p->lines;
    uint32_t i, unproven = p->unproven;

    for (i = 0; i < p->n; i++) {
        if (take_record(ld, at + i, q, p)) {
            struct record *r = list_last(&q->front, struct record, link);

            r->unproven = unproven; /* all of it leaves with the first */
            unproven = 0;
            lines -= (int64_t)r->row.lines;
        } else {
            lost[(*n_lost)++] = ld->ids[at + i];
        }
    }
    if (unproven)
        s->env->discharge(s->env, unproven);
    queue_drop_page(q, p);
    page_free(p);
    return lines;
}

static void take_load(struct stream *s, struct reload *ld, struct queue *q)
{
    int64_t *lost = xmalloc(ld->n * sizeof(*lost)), lines = 0;
    uint32_t n_lost = 0;
    size_t at = 0;

    while (at < ld->n) {
        const struct page *p = list_first(&q->pages, struct page, link);
        uint32_t n = p->n;

        lines += take_page(s, ld, at, q, lost, &n_lost);
        at += n;
    }
    if (n_lost)
        rows_lost(s, lost, n_lost, lines);
    xfree(lost);
}

void stream_loaded(struct stream *s, struct reload *ld, bool ok, struct stream_now now)
{
    struct life *l = stream_life(s, ld->life);
    struct queue *q = ld->stuck ? &l->stuck : &l->lines;
    struct list *it;

    ASSERT(s->load == ld);
    s->load = NULL;
    if (ok) {
        take_load(s, ld, q);
    } else {
        s->load_failed = true;
        for (it = q->pages.next; it != &q->pages; it = it->next)
            list_entry(it, struct page, link)->loading = false;
    }
    reload_free(ld);
    stream_tidy(s, now);
}

/* --- superseding -------------------------------------------------------------------------- */

/* All of it is in the blob, and nothing is being done with it. Of one that began before the blob
 * and goes on behind it the records are looked at one by one when they have been read. */
static bool page_superseded(const struct stream *s, const struct life *l, const struct page *p)
{
    const struct lane *lane = &s->lanes[LANE_LINES];

    return !p->loading && p->high < l->blob_below && !(lane->busy && lane->op == OP_SETTLE);
}

bool life_pages_superseded(const struct stream *s, const struct life *l)
{
    const struct queue *queues[] = {&l->lines, &l->stuck};
    const struct list *it;
    size_t i;

    if (!life_superseding(l))
        return false;
    for (i = 0; i < ARRAY_LEN(queues); i++) {
        for (it = queues[i]->pages.next; it != &queues[i]->pages; it = it->next) {
            if (page_superseded(s, l, list_entry(it, struct page, link)))
                return true;
        }
    }
    return false;
}

uint64_t life_supersede_pages(struct stream *s, struct life *l, struct commit *c)
{
    struct queue *queues[] = {&l->lines, &l->stuck};
    struct list *it, *tmp;
    uint64_t lines = 0;
    size_t i, n = 0;

    for (i = 0; i < ARRAY_LEN(queues); i++) {
        list_each (it, tmp, &queues[i]->pages) {
            struct page *p = list_entry(it, struct page, link);

            if (n == STREAM_SUPERSEDE_PAGES || !page_superseded(s, l, p))
                continue;
            queue_drop_page(queues[i], p);
            list_append(&c->pages, &p->link);
            lines += p->lines;
            n++;
        }
    }
    return lines;
}
