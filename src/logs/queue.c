#include "logs/queue.h"

#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"

/* --- pages -------------------------------------------------------------------------------- */

enum { VARINT_MAX = 10 };

static size_t put_varint(unsigned char *out, int64_t v)
{
    uint64_t z = ((uint64_t)v << 1) ^ (v < 0 ? UINT64_MAX : 0);
    size_t n = 0;

    for (; z >= 0x80; z >>= 7)
        out[n++] = (unsigned char)(z | 0x80);
    out[n++] = (unsigned char)z;
    return n;
}

static size_t take_varint(const unsigned char *in, int64_t *v)
{
    uint64_t z = 0;
    size_t n = 0;

    do
        z |= (uint64_t)(in[n] & 0x7f) << (7 * n);
    while (in[n++] & 0x80);
    *v = (int64_t)(z >> 1) ^ -(int64_t)(z & 1);
    return n;
}

struct page *page_of_ids(const int64_t *ids, uint32_t n)
{
    unsigned char *bytes = xmalloc((size_t)n * VARINT_MAX);
    int64_t low = ids[0], at;
    struct page *p;
    size_t used = 0;
    uint32_t i;

    for (i = 1; i < n; i++)
        low = TR_MIN(low, ids[i]);
    for (at = low, i = 0; i < n; i++) {
        used += put_varint(bytes + used, ids[i] - at);
        at = ids[i];
    }
    p = xcalloc(1, offsetof(struct page, ids) + used);
    list_init(&p->link);
    p->n = n;
    p->low_id = low;
    memcpy(p->ids, bytes, used);
    xfree(bytes);
    return p;
}

void page_free(struct page *p)
{
    if (!p)
        return;
    list_remove(&p->link);
    xfree(p);
}

void page_ids(const struct page *p, int64_t *out)
{
    const unsigned char *in = p->ids;
    int64_t at = p->low_id, step;
    uint32_t i;

    for (i = 0; i < p->n; i++) {
        in += take_varint(in, &step);
        at += step;
        out[i] = at;
    }
}

static void page_count(struct page *p, const struct record *r)
{
    p->low = p->lines ? TR_MIN(p->low, r->row.number) : r->row.number;
    p->high = TR_MAX(p->high, r->row.number);
    p->oldest_ns = p->lines ? TR_MIN(p->oldest_ns, r->row.at_ns) : r->row.at_ns;
    p->lines += r->row.lines;
    p->bytes += r->size;
    p->unproven += r->unproven;
    p->maybe_sent |= r->maybe_sent;
}

/* --- the queue ---------------------------------------------------------------------------- */

void queue_init(struct queue *q)
{
    *q = (struct queue){0};
    list_init(&q->front);
    list_init(&q->pages);
    list_init(&q->tail);
}

static void free_records(struct list *head)
{
    struct list *it, *tmp;

    list_each (it, tmp, head)
        record_free(list_entry(it, struct record, link));
}

void queue_fini(struct queue *q)
{
    struct list *it, *tmp;

    free_records(&q->front);
    free_records(&q->tail);
    list_each (it, tmp, &q->pages)
        page_free(list_entry(it, struct page, link));
}

bool queue_empty(const struct queue *q)
{
    return list_empty(&q->front) && !queue_paged(q) && list_empty(&q->tail);
}

size_t queue_count(const struct queue *q)
{
    return q->n_front + q->n_paged + q->n_tail;
}

static uint64_t count_lines(const struct list *head)
{
    const struct list *it;
    uint64_t n = 0;

    for (it = head->next; it != head; it = it->next)
        n += list_entry(it, struct record, link)->row.lines;
    return n;
}

uint64_t queue_lines(const struct queue *q)
{
    const struct list *it;
    uint64_t n = count_lines(&q->front) + count_lines(&q->tail);

    for (it = q->pages.next; it != &q->pages; it = it->next)
        n += list_entry(it, struct page, link)->lines;
    return n;
}

int64_t queue_oldest_ns(const struct queue *q)
{
    const struct record *r = list_first(&q->front, struct record, link);
    const struct page *p = list_first(&q->pages, struct page, link);

    if (r)
        return r->row.at_ns;
    if (p)
        return p->oldest_ns;
    r = list_first(&q->tail, struct record, link);
    return r ? r->row.at_ns : 0;
}

static bool older_in(const struct list *head, int64_t id)
{
    const struct list *it;

    for (it = head->next; it != head; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        if (r->state != RECORD_COMMITTING && r->row.id < id)
            return true;
    }
    return false;
}

bool queue_older(const struct queue *q, int64_t id)
{
    const struct list *it;

    if (older_in(&q->front, id))
        return true;
    for (it = q->pages.next; it != &q->pages; it = it->next) {
        if (list_entry(it, struct page, link)->low_id < id)
            return true;
    }
    return older_in(&q->tail, id);
}

struct list *queue_end(struct queue *q)
{
    return queue_paged(q) ? &q->tail : &q->front;
}

void queue_insert(struct queue *q, struct list *at, struct record *r)
{
    r->in_tail = queue_paged(q);
    q->n_tail += r->in_tail;
    q->n_front += !r->in_tail;
    list_insert_before(at, &r->link);
}

void queue_append(struct queue *q, struct record *r)
{
    queue_insert(q, queue_end(q), r);
}

void queue_remove(struct queue *q, struct record *r)
{
    ASSERT(r->in_tail ? q->n_tail > 0 : q->n_front > 0);
    list_remove(&r->link);
    q->n_tail -= r->in_tail;
    q->n_front -= !r->in_tail;
    r->in_tail = false;
}

/* What is behind the first page is the tail. */
static void begin_tail(struct queue *q, struct list *from)
{
    while (from != &q->front) {
        struct list *next = from->next;
        struct record *r = list_entry(from, struct record, link);

        queue_remove(q, r);
        list_append(&q->tail, &r->link);
        r->in_tail = true;
        q->n_tail++;
        from = next;
    }
}

static void end_tail(struct queue *q)
{
    struct list *it, *tmp;

    list_each (it, tmp, &q->tail)
        list_entry(it, struct record, link)->in_tail = false;
    list_move_all(&q->front, &q->tail);
    q->n_front += q->n_tail;
    q->n_tail = 0;
}

void queue_page_out(struct queue *q, struct record *first, uint32_t n, struct list *out)
{
    int64_t *ids = xmalloc(n * sizeof(*ids));
    struct list *it = &first->link;
    struct page *p;
    uint32_t i;

    for (i = 0; i < n; i++, it = it->next)
        ids[i] = list_entry(it, struct record, link)->row.id;
    p = page_of_ids(ids, n);
    xfree(ids);
    for (it = &first->link, i = 0; i < n; i++) {
        struct record *r = list_entry(it, struct record, link);

        it = it->next;
        page_count(p, r);
        queue_remove(q, r);
        list_append(out, &r->link);
    }
    if (!queue_paged(q))
        begin_tail(q, it);
    list_append(&q->pages, &p->link);
    q->n_paged += n;
}

void queue_page_in(struct queue *q, struct record *r)
{
    r->in_tail = false;
    list_append(&q->front, &r->link);
    q->n_front++;
}

void queue_drop_page(struct queue *q, struct page *p)
{
    list_remove(&p->link);
    q->n_paged -= p->n;
    if (!queue_paged(q))
        end_tail(q);
}

static void move_page(struct queue *to, struct queue *from)
{
    struct page *p = list_first(&from->pages, struct page, link);

    ASSERT(!to->n_tail && !p->loading);
    queue_drop_page(from, p);
    list_append(&to->pages, &p->link);
    to->n_paged += p->n;
}

void queue_move(struct queue *to, struct queue *from, size_t n)
{
    while (n > 0 && !queue_empty(from)) {
        struct record *r = list_first(&from->front, struct record, link);

        if (!r) {
            const struct page *p = list_first(&from->pages, struct page, link);

            ASSERT(p);
            n -= TR_MIN(n, p->n);
            move_page(to, from);
            continue;
        }
        n--;
        queue_remove(from, r);
        queue_append(to, r);
    }
}
