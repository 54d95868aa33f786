#include "logs/replay.h"

#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "logs/dead.h"
#include "logs/deliver.h"
#include "logs/logs_priv.h"
#include "logs/readback.h"
#include "rt/clock.h"
#include "rt/fault.h"
#include "rt/json.h"
#include "rt/log.h"

/* Where the log service is for clients that were never told otherwise: for letters without a note.
 */
#define USUAL_PREFIX "/gateway/log-service"

static const char said_end[] = "the gateway ends";
/* Nothing may be on its way upstream when the spool changes hands. */
static const char said_handing_over[] =
    "the gateway is about to hand over to a new process: try again in a moment";

struct replay {
    struct list link; /* shard.replays, while it is sent */
    struct ev_task task;
    struct spool_read read;
    struct logs *logs;
    struct shard *sh; /* whose loop it is in */
    struct command_call *call;
    int64_t id;
    bool found;
    /* of the letter */
    struct record *r;
    int64_t stream_id;
    struct str account, key, note_text;
    struct dead_note note;
    /* It is sent as of a stream of its own, which is in no table; see deliver_replay. */
    struct stream *s;
    struct op_result result;
    const char *outcome; /* for the answer */
    struct err err;      /* of the commit */
};

/* --- ends ------------------------------------------------------------------------------------- */

/* Answered. What waited for it goes on. */
static void replay_end(struct replay *rp)
{
    struct shard *sh = rp->sh;
    struct stream *live;

    if (!list_empty(&rp->link)) {
        list_remove(&rp->link);
        live = shard_find(sh, str_view(&rp->account), str_view(&rp->key));
        if (live)
            sh->env.wake(&sh->env, live);
    }
    dead_release(rp->logs, rp->id);
    if (rp->s)
        stream_free(rp->s);
    if (rp->r)
        sh->env.release(&sh->env, rp->r);
    str_fini(&rp->account);
    str_fini(&rp->key);
    str_fini(&rp->note_text);
    str_fini(&rp->read.data);
    xfree(rp);
}

static void refuse(struct replay *rp, int status, const char *why)
{
    command_fail(rp->call, status, "%s", why);
    replay_end(rp);
}

static void answer(struct replay *rp)
{
    struct str out = STR_INIT;
    struct json j = json_to(&out);

    json_open(&j, NULL, '{');
    json_text(&j, "result", view_str(rp->outcome));
    if (rp->result.status)
        json_int(&j, "status", rp->result.status);
    else
        json_nothing(&j, "status");
    json_text(&j, "said", view_str(rp->result.said ? rp->result.said : ""));
    json_close(&j, '}');
    str_addc(&out, '\n');
    command_reply(rp->call, 200, str_view(&out));
    str_fini(&out);
}

/* --- the mark --------------------------------------------------------------------------------- */

static void committed(struct ev_task *task)
{
    struct replay *rp = container_of(task, struct replay, task);

    rp->sh->commits--;
    if (rp->err.code != ERR_NONE) {
        refuse(rp, 503, rp->err.text);
        return;
    }
    log_event(LOG_NOTICE, "delivery", "a dead letter was replayed", LF_INT("letter", rp->id),
              LF_STR("result", rp->outcome), LF_INT("status", rp->result.status),
              LF_VIEW("account", str_view(&rp->account)), LF_VIEW("key", str_view(&rp->key)));
    answer(rp);
    replay_end(rp);
}

/* The spool's thread. */
static void commit_done(void *ctx, const struct err *err)
{
    struct replay *rp = ctx;

    if (err)
        rp->err = *err;
    rp->task.run = committed;
    ev_post(rp->sh->loop, &rp->task);
}

/* Out of the dead letters and into another account, in one transaction. */
static void settle_up(struct replay *rp, struct spool_txn *t, enum ledger_row to)
{
    bool lines = rp->r->kind == RECORD_LINES;
    int64_t n = lines ? (int64_t)rp->r->row.lines : 1;

    spool_txn_delete(t, rp->id);
    spool_txn_ledger(t, lines ? LEDGER_LINES_DEAD : LEDGER_BLOBS_DEAD, -n);
    spool_txn_ledger(t, to, n);
}

static void note_failure(struct replay *rp, struct spool_txn *t)
{
    struct str text = STR_INIT;

    rp->note.replays++;
    rp->note.replayed_ns = clock_wall_ns();
    rp->note.replay_status = rp->result.status;
    rp->note.replay_said = view_str(rp->result.said ? rp->result.said : "");
    dead_note_encode(&rp->note, &text);
    spool_txn_dead_note(t, rp->id, str_view(&text));
    str_fini(&text);
}

static void mark(struct replay *rp, bool stored, enum ledger_row to)
{
    struct spool_txn *t = spool_txn_new();

    if (stored)
        settle_up(rp, t, to);
    else
        note_failure(rp, t);
    rp->sh->commits++;
    spool_submit(rp->logs->spool, t, commit_done, rp);
}

/* --- sending ---------------------------------------------------------------------------------- */

static const char *why_it_failed(const struct op_result *r)
{
    if (r->said && *r->said)
        return r->said;
    switch (r->outcome) {
    case OUT_NOT_SENT:
        return "upstream cannot be reached, or it cannot be read from the spool";
    case OUT_UNKNOWN:
        return "the answer was lost: it may be stored, which the next replay will see";
    case OUT_BUSY:
        return "upstream does not take it now";
    default:
        return "";
    }
}

static void ended(void *ctx, const struct op_result *r)
{
    struct replay *rp = ctx;
    bool lines = rp->r->kind == RECORD_LINES;
    bool stored = r->outcome == OUT_OK;

    rp->sh->deliveries--;
    rp->result = *r;
    if (!stored)
        rp->result.said = why_it_failed(r);
    rp->outcome = !stored ? "failed" : lines ? "settled" : "delivered";
    fault_point("logs-after-replay");
    if (rp->sh->stopping)
        refuse(rp, 503, said_end);
    else
        mark(rp, stored, lines ? LEDGER_LINES_SETTLED : LEDGER_BLOBS_DELIVERED);
}

static void send_letter(struct replay *rp)
{
    struct shard *sh = rp->sh;
    struct op op = {.kind = OP_SETTLE, .lane = LANE_LINES, .records = &rp->r, .n_records = 1};

    rp->s = stream_new(&sh->env, str_view(&rp->account), str_view(&rp->key));
    str_addv(&rp->s->prefix, rp->note.prefix.n ? rp->note.prefix : VIEW_LIT(USUAL_PREFIX));
    if (rp->note.query.n) {
        str_addv(&rp->s->query, rp->note.query);
    } else {
        str_adds(&rp->s->query, "accountID=");
        url_encode(str_view(&rp->account), &rp->s->query);
        str_adds(&rp->s->query, "&key=");
        url_encode(str_view(&rp->key), &rp->s->query);
    }
    rp->s->cred = rp->r->cred;
    if (rp->note.proven)
        rp->s->cred = cred_for(rp->logs->creds, rp->r->cred, str_view(&rp->account));
    op.life = rp->r->life;
    op.lines = rp->r->row.lines;
    if (rp->r->kind == RECORD_BLOB)
        op = (struct op){.kind = OP_BLOB, .lane = LANE_BLOBS, .blob = rp->r};
    list_append(&sh->replays, &rp->link);
    sh->deliveries++;
    deliver_replay(sh, rp->s, &op, ended, rp);
}

/* --- may it go? ------------------------------------------------------------------------------- */

bool replay_holds(const struct shard *sh, const struct stream *s)
{
    const struct list *it;

    for (it = sh->replays.next; it != &sh->replays; it = it->next) {
        const struct replay *rp = list_entry(it, struct replay, link);

        if (view_eq(str_view(&rp->account), s->account_v) && view_eq(str_view(&rp->key), s->key_v))
            return true;
    }
    return false;
}

/* What the stream that is here now says of it; NULL: it may go. `*have` is set if a later blob has
 * the lines. */
static const char *objection(const struct replay *rp, const struct stream *s, bool *have)
{
    const struct life *last = stream_last(s), *own = stream_life(s, rp->r->life);

    if (replay_holds(rp->sh, s))
        return "another dead letter of its stream is being replayed";
    if (s->lanes[LANE_LINES].busy || s->lanes[LANE_BLOBS].busy || s->commits ||
        !stream_nothing_waits(s) || stream_head(s))
        return "its stream has not ended yet, and its end would take the place of what is replayed "
               "now: replay it after that";
    if (s->row.id != rp->stream_id || (last && last->id > rp->r->life))
        return "its stream was opened again since, and what is stored is of that one: export it";
    *have = own && own->blob_below > rp->r->row.number;
    if (*have && rp->r->kind == RECORD_BLOB)
        return "a later upload of the same log is stored in its place: drop it";
    return NULL;
}

static void begin(struct replay *rp)
{
    const struct stream *live = shard_find(rp->sh, str_view(&rp->account), str_view(&rp->key));
    const char *why = NULL;
    bool have = false;

    if (rp->sh->stopping || rp->sh->holding) {
        refuse(rp, 503, rp->sh->holding ? said_handing_over : said_end);
        return;
    }
    if (live)
        why = objection(rp, live, &have);
    if (why) {
        refuse(rp, 409, why);
    } else if (have) {
        rp->outcome = "superseded";
        mark(rp, true, LEDGER_LINES_SUPERSEDED);
    } else {
        send_letter(rp);
    }
}

static void begin_task(struct ev_task *task)
{
    begin(container_of(task, struct replay, task));
}

/* --- the letter ------------------------------------------------------------------------------- */

/* The spool's reader. */
static void take_row(struct spool_read *read, const struct spool_dead_row *row)
{
    struct replay *rp = container_of(read, struct replay, read);

    if (row->record.id != rp->id)
        return;
    rp->found = true;
    rp->r = record_from_row(&row->record);
    rp->stream_id = row->record.stream;
    str_addv(&rp->account, row->account);
    str_addv(&rp->key, row->key);
    str_addv(&rp->note_text, row->note);
    dead_note_decode(str_view(&rp->note_text), &rp->note);
}

/* In the loop that waited for the reading; from there to the stream's own. */
static void have_row(struct ev_task *task)
{
    struct replay *rp = container_of(task, struct replay, task);
    struct shard *owner;

    rp->sh->n_readbacks--;
    if (rp->read.err.code != ERR_NONE) {
        refuse(rp, 500, rp->read.err.text);
    } else if (!rp->found) {
        refuse(rp, 404, "there is no such dead letter");
    } else if (!rp->r || rp->r->kind == RECORD_CLOSE) {
        refuse(rp, 409, "it cannot be understood");
    } else if (rp->sh->stopping) {
        refuse(rp, 503, said_end);
    } else {
        owner = shard_owner(rp->logs, str_view(&rp->account), str_view(&rp->key));
        rp->sh = owner;
        rp->task.run = begin_task;
        ev_post(owner->loop, &rp->task);
    }
}

/* The spool's reader. */
static void row_read(struct spool_read *read)
{
    struct replay *rp = container_of(read, struct replay, read);

    rp->task.run = have_row;
    ev_post(rp->sh->loop, &rp->task);
}

static void read_row(struct ev_task *task)
{
    struct replay *rp = container_of(task, struct replay, task);

    if (rp->sh->stopping) {
        refuse(rp, 503, said_end);
        return;
    }
    rp->sh->n_readbacks++; /* the shard does not end before it is back */
    rp->read.dead_from = rp->id;
    rp->read.dead_max = 1;
    rp->read.dead = take_row;
    rp->read.done = row_read;
    spool_read(rp->logs->spool, &rp->read);
}

void replay_run(void *ctx, struct command_call *call)
{
    struct logs *l = ctx;
    int64_t id = dead_id(call);
    struct replay *rp;

    if (!id)
        return;
    if (!dead_claim(l, id)) {
        command_fail(call, 409, "the dead letter is being replayed or dropped");
        return;
    }
    rp = XNEW(struct replay);
    list_init(&rp->link);
    rp->logs = l;
    rp->call = call;
    rp->id = id;
    rp->sh = l->shards[0]; /* whose stream it is stands in the spool */
    rp->task.run = read_row;
    ev_post(rp->sh->loop, &rp->task);
}
