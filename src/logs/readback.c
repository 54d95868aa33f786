#include "logs/readback.h"

#include "base/xmem.h"
#include "logs/logs_priv.h"
#include "rt/log.h"

struct readback {
    struct list link; /* shard.readbacks */
    struct ev_task task;
    struct spool_read read;
    struct shard *sh;
    struct reload *load;
    bool asked; /* the spool, for it */
};

struct record *record_from_row(const struct spool_record_row *row)
{
    struct record *r = record_new((enum record_kind)row->kind);

    r->row.id = row->id;
    r->row.number = row->number;
    r->row.lines = row->lines;
    r->row.at_ns = row->at_ns;
    r->row.blob = row->blob;
    if (record_decode(r, row->meta) < 0) {
        record_free(r);
        return NULL;
    }
    return r;
}

/* The spool's reader. */
static void take_row(struct spool_read *read, size_t i, const struct spool_record_row *row)
{
    struct readback *b = container_of(read, struct readback, read);

    b->load->records[i] = record_from_row(row);
}

static void report_lost(const struct readback *b)
{
    const struct stream *s = b->load->stream;
    size_t i, n = 0;

    for (i = 0; i < b->load->n; i++)
        n += !b->load->records[i];
    if (n)
        log_event(LOG_ERROR, "spool", "waiting records cannot be read any more",
                  LF_VIEW("account", s->account_v), LF_VIEW("key", s->key_v),
                  LF_UINT("records", n));
}

/* The shard's loop. */
static void back(struct ev_task *task)
{
    struct readback *b = container_of(task, struct readback, task);
    struct shard *sh = b->sh;
    bool ok = b->read.err.code == ERR_NONE;

    if (ok) {
        report_lost(b);
    } else {
        static struct log_rate rate;
        uint64_t left_out;

        if (log_rate_ok(&rate, 10, &left_out))
            log_event(LOG_ERROR, "spool", "cannot read waiting records; trying again",
                      LF_ERR(&b->read.err), LF_UINT("suppressed", left_out));
    }
    list_remove(&b->link);
    sh->n_readbacks--;
    shard_loaded(sh, b->load, ok);
    xfree(b);
}

/* The spool's reader. */
static void read_done(struct spool_read *read)
{
    struct readback *b = container_of(read, struct readback, read);

    b->task.run = back;
    ev_post(b->sh->loop, &b->task);
}

static void ask(struct readback *b)
{
    struct shard *sh = b->sh;
    struct reload *l = b->load;

    sh->n_readbacks++;
    b->asked = true;
    b->read.ids = l->ids;
    b->read.n_ids = l->n;
    b->read.row = take_row;
    b->read.done = read_done;
    spool_read(sh->logs->spool, &b->read);
}

void readback_start(struct stream_env *env, struct reload *l)
{
    struct shard *sh = container_of(env, struct shard, env);
    struct readback *b = XNEW(struct readback);

    b->sh = sh;
    b->load = l;
    list_append(&sh->readbacks, &b->link);
    if (!sh->stopping) /* else nothing more is sent: it goes with all the rest */
        ask(b);
}

void readback_resume(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->readbacks) {
        struct readback *b = list_entry(it, struct readback, link);

        if (!b->asked)
            ask(b);
    }
}

void readback_free_all(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->readbacks) {
        struct readback *b = list_entry(it, struct readback, link);

        list_remove(it);
        reload_free(b->load);
        xfree(b);
    }
}
