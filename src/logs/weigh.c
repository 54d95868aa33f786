#include "logs/accounts.h"
#include "logs/queue.h"
#include "logs/shard.h"

/* What waits for delivery, as clients sent it. */
static int64_t weight(const struct record *r)
{
    return r->kind == RECORD_LINES ? r->size : r->kind == RECORD_BLOB ? (int64_t)r->blob_size : 0;
}

void shard_weigh(struct stream *s, const struct record *r)
{
    account_shift_waiting(s->place.account, weight(r));
}

void shard_weigh_commit(const struct commit *c)
{
    int64_t bytes = 0;
    struct list *it, *tmp;
    size_t i;

    list_each (it, tmp, &c->records)
        bytes += weight(list_entry(it, struct record, commit_link));
    for (i = 0; i < c->n_gone; i++)
        bytes -= weight(c->gone[i]);
    list_each (it, tmp, &c->pages)
        bytes -= (int64_t)list_entry(it, struct page, link)->bytes;
    if (bytes)
        account_shift_waiting(c->stream->place.account, bytes);
}
