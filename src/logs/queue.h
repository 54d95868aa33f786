/*
 * A queue of records of which the middle may be in the spool only. An outage of hours leaves
 * thousands of records for each stream; what lies between those that are sent next and those that
 * came last is kept as *pages*, two or three bytes for each record, and read again when its turn
 * comes.
 *
 *     front (in memory) | pages (in the spool only) | tail (in memory)
 *
 * The tail is used while there are pages, and becomes the front's end when there are none left.
 * What to page and when to read is decided in stream_page.c. One thread at a time.
 */
#ifndef TR_LOGS_QUEUE_H
#define TR_LOGS_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/list.h"
#include "logs/record.h"

/* Records that follow each other in a queue and are durable. */
struct page {
    struct list link;
    uint32_t n;
    uint32_t unproven;     /* as in struct record, of all */
    bool loading;          /* being read: it stays until its records are there */
    bool maybe_sent;       /* as in struct record, of each */
    uint64_t lines, bytes; /* of all */
    uint64_t low, high;    /* numbers */
    int64_t low_id;
    int64_t oldest_ns;   /* wall time */
    unsigned char ids[]; /* in order: differences as zigzag varints, beginning at low_id */
};

struct queue {
    struct list front; /* struct record.link */
    struct list pages; /* struct page.link */
    struct list tail;  /* struct record.link */
    size_t n_front, n_tail;
    size_t n_paged; /* records in pages */
};

void queue_init(struct queue *q);
void queue_fini(struct queue *q); /* frees what is in it */

static inline bool queue_paged(const struct queue *q)
{
    return !list_empty(&q->pages);
}
bool queue_empty(const struct queue *q);
size_t queue_count(const struct queue *q);
uint64_t queue_lines(const struct queue *q);
int64_t queue_oldest_ns(const struct queue *q); /* wall time, 0: empty */
/* Has it a durable record with a lower id? In a page one that is not there any more may count. */
bool queue_older(const struct queue *q, int64_t id);

/* The list in which the newest records are. */
struct list *queue_end(struct queue *q);
/* Insert before `at`, which is in queue_end() or is its head (then at the end). */
void queue_insert(struct queue *q, struct list *at, struct record *r);
void queue_append(struct queue *q, struct record *r);
void queue_remove(struct queue *q, struct record *r);

/* The `n` records from `first` on, which follow each other in memory, become a page behind those
 * that are there; what comes after them is the tail from now on. They are the caller's afterwards,
 * in `out`. */
void queue_page_out(struct queue *q, struct record *first, uint32_t n, struct list *out);
/* Records of the first pages are here: at the end of the front. */
void queue_page_in(struct queue *q, struct record *r);
/* Take a page out. The caller's. */
void queue_drop_page(struct queue *q, struct page *p);
/* Move the first `n` records of one to the end of another, whole pages as they are: the last one
 * must not reach beyond. */
void queue_move(struct queue *to, struct queue *from, size_t n);

/* A page of nothing but ids, which are `n` > 0. */
struct page *page_of_ids(const int64_t *ids, uint32_t n);
void page_free(struct page *p);
void page_ids(const struct page *p, int64_t *out); /* p->n of them, in order */

#endif
