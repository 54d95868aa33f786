/* What to send upstream, and what its outcome means (HP §1.5, §7a). */
#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

/* --- when --------------------------------------------------------------------------------- */

static struct record *first_waiting(const struct life *l)
{
    struct record *r = list_first(&l->lines.front, struct record, link);

    return r && r->state != RECORD_COMMITTING ? r : NULL;
}

/* Lines that upstream would not take, at the end of their life, when no blob has them. */
static bool wants_settling(const struct stream *s, const struct life *l)
{
    return l->ended && !list_empty(&l->stuck.front) && !life_blobs_waiting(s, l) && !s->load &&
           !life_stuck_wanted(s, l); /* parts are the same when they are sent again */
}

/* While a mark is under way nothing more is sent, on either lane. What a crash makes arrive twice
 * is one batch then, and it is the first that is sent after the restart, so that it can be counted.
 * And no restart stores an older blob over a newer one, or settles lines into a later generation's.
 */
static enum op_kind next_for_lines(const struct stream *s)
{
    const struct life *l = stream_head(s);

    if (!l || s->own_commits)
        return OP_NONE;
    if (s->lanes[LANE_LINES].check)
        return OP_CHECK;
    if (l->open == OPEN_PENDING) /* only once the spool says that it may have been sent */
        return l->open_acked && l->id <= s->stored_life ? OP_OPEN : OP_NONE;
    if (!l->ended && first_waiting(l))
        return OP_LINES;
    if (l->closing_durable && !l->ended) /* its snapshot and a blob are the same object */
        return s->lanes[LANE_BLOBS].busy ? OP_NONE : OP_CLOSE;
    if (wants_settling(s, l))
        return OP_SETTLE;
    return OP_NONE;
}

static enum op_kind next_for_blobs(const struct stream *s)
{
    const struct record *r = list_first(&s->blobs, struct record, link);
    const struct life *l = stream_head(s);
    const struct lane *lines = &s->lanes[LANE_LINES];

    if (!r || r->state == RECORD_COMMITTING || s->own_commits)
        return OP_NONE;
    if (l && r->life > l->id)
        return OP_NONE; /* a later generation waits until the earlier one is through */
    if (lines->busy && (lines->op == OP_CLOSE || lines->op == OP_SETTLE))
        return OP_NONE; /* both may write the same object */
    return s->lanes[LANE_BLOBS].check ? OP_CHECK : OP_BLOB;
}

static enum op_kind next_op(const struct stream *s, enum stream_lane lane)
{
    return lane == LANE_LINES ? next_for_lines(s) : next_for_blobs(s);
}

static bool fills_batch(const struct life *l, const struct stream_rules *rules)
{
    const struct list *it;
    uint64_t lines = 0, bytes = 0;

    for (it = l->lines.front.next; it != &l->lines.front; it = it->next) {
        const struct record *r = list_entry(it, struct record, link);

        lines += r->row.lines;
        bytes += r->size;
        if (lines >= rules->batch_lines || bytes >= rules->batch_bytes)
            return true;
    }
    return false;
}

/* Lines of a quiet stream go at once; those of a busy one gather for a moment, but never once
 * its end is known. */
static int64_t gather_until(const struct stream *s, const struct life *l, int64_t now)
{
    if (l->next_lines <= now || s->n_batch || l->closed_wall || l->blob_log ||
        queue_paged(&l->lines) || fills_batch(l, s->env->rules))
        return 0;
    return l->next_lines;
}

int64_t stream_ready(struct stream *s, enum stream_lane lane, struct stream_now now)
{
    const struct lane *l = &s->lanes[lane];
    int64_t at = TR_MAX(l->not_before, s->held_until);
    enum op_kind kind;

    if (l->busy || s->forgotten || (s->direct && s->direct->busy))
        return INT64_MAX;
    kind = next_op(s, lane);
    if (kind == OP_NONE)
        return INT64_MAX;
    if (kind == OP_SETTLE && s->lanes[LANE_BLOBS].busy)
        return INT64_MAX;
    if (kind == OP_LINES && s->load && !s->n_batch && !s->singly_left &&
        !fills_batch(stream_head(s), s->env->rules))
        return INT64_MAX; /* more comes in a moment */
    if (kind == OP_LINES)
        at = TR_MAX(at, gather_until(s, stream_head(s), now.mono));
    s->asked = now.mono;
    return at > now.mono ? at : 0;
}

/* --- what --------------------------------------------------------------------------------- */

static void batch_add(struct stream *s, struct record *r)
{
    if (s->n_batch == s->cap_batch) {
        s->cap_batch = s->cap_batch ? 2 * s->cap_batch : 8;
        s->batch = xrealloc(s->batch, s->cap_batch * sizeof(struct record *));
    }
    s->batch[s->n_batch++] = r;
}

bool batch_takes(const struct stream *s, size_t n, uint64_t lines, uint64_t bytes,
                 const struct record *r)
{
    const struct stream_rules *rules = s->env->rules;

    return n == 0 || (!s->singly_left && lines + r->row.lines <= rules->batch_lines &&
                      bytes + r->size <= rules->batch_bytes);
}

/* A batch that failed is sent again as it was: what may arrive twice is then that batch only. */
static void fill_batch(struct stream *s, struct life *l)
{
    struct record *r;
    uint64_t lines = 0, bytes = 0;

    if (s->n_batch)
        return;
    for (r = first_waiting(l); r && r->state != RECORD_COMMITTING;
         r = list_next(&l->lines.front, r, struct record, link)) {
        if (!batch_takes(s, s->n_batch, lines, bytes, r))
            break;
        lines += r->row.lines;
        bytes += r->size;
        r->state = RECORD_SENDING;
        batch_add(s, r);
    }
}

static void fill_settling(struct stream *s, struct life *l)
{
    const struct list *it;
    uint64_t bytes = 0;

    s->n_batch = 0;
    for (it = l->stuck.front.next; it != &l->stuck.front; it = it->next) {
        struct record *r = list_entry(it, struct record, link);

        if (s->n_batch == STREAM_SETTLE_RECORDS ||
            (s->n_batch && bytes + r->size > STREAM_SETTLE_BYTES))
            break; /* the rest follows as another part */
        bytes += r->size;
        batch_add(s, r);
    }
}

void stream_take(struct stream *s, enum stream_lane lane, struct op *op)
{
    struct life *l = stream_head(s);
    size_t i;

    ASSERT(!s->lanes[lane].busy);
    *op = (struct op){.kind = next_op(s, lane), .lane = lane, .life = l ? l->id : 0};
    ASSERT(op->kind != OP_NONE);
    s->lanes[lane].busy = true;
    s->lanes[lane].op = op->kind;
    switch (op->kind) {
    case OP_OPEN:
        ASSERT(l);
        l->durable = true; /* its row is; from now on it cannot be taken back */
        break;
    case OP_LINES:
        ASSERT(l);
        fill_batch(s, l);
        l->next_lines = s->asked + s->env->rules->batch_delay_ns;
        break;
    case OP_SETTLE:
        ASSERT(l);
        fill_settling(s, l);
        break;
    case OP_CLOSE:
        ASSERT(l);
        op->close = l->close;
        op->snapshot = l->broken && l->lines_seen && !l->close_snapshot && !l->close->covers &&
                       !life_has_blob(s, l);
        break;
    case OP_BLOB:
        op->blob = list_first(&s->blobs, struct record, link);
        break;
    default:
        break;
    }
    if (op->kind == OP_LINES || op->kind == OP_SETTLE) {
        op->records = s->batch;
        op->n_records = s->n_batch;
        for (i = 0; i < s->n_batch; i++) {
            op->lines += s->batch[i]->row.lines;
            op->again |= s->batch[i]->maybe_sent;
        }
        stream_read_on(s);
    }
}

/* --- how it ended ------------------------------------------------------------------------- */

static void note(struct stream *s, enum stream_note what, uint64_t lines)
{
    s->env->note(s->env, s, what, lines);
}

/* Exponential backoff with full jitter; a connection that could not be made is the host's
 * affair, not this stream's. */
static void back_off(struct stream *s, struct lane *lane, const struct op_result *r, int64_t now)
{
    const struct stream_rules *rules = s->env->rules;
    int64_t ceiling = rules->backoff_ns;
    unsigned i, step = lane->attempts++;

    if (r->outcome == OUT_NOT_SENT)
        step = 0;
    for (i = 0; i < step && ceiling < rules->backoff_max_ns; i++)
        ceiling *= 2;
    ceiling = TR_MIN(ceiling, rules->backoff_max_ns);
    lane->not_before = now + (int64_t)rng_below(s->env->rng, (uint64_t)ceiling + 1);
    if (r->retry_after_ns)
        lane->not_before = TR_MAX(lane->not_before, now + r->retry_after_ns);
}

/* The service itself failed at this request once more. While it does the same for others, the
 * request is at fault and not the service. Which, and for how long one is patient, is the caller's
 * affair: `tries`, and `alone_ns` for when no others are served. */
static bool fails_for_good(struct lane *lane, const struct op_result *r, unsigned tries,
                           int64_t alone_ns, int64_t now)
{
    if (lane->failed++ == 0)
        lane->failed_since = now;
    return lane->failed >= tries &&
           (r->others_at > lane->failed_since || now - lane->failed_since >= alone_ns);
}

static void went_well(struct lane *lane)
{
    lane->attempts = 0;
    lane->not_before = 0;
    lane->check = false;
    lane->credential_good = false;
    lane->failed = 0;
}

static void opened(struct stream *s, struct life *l)
{
    l->absent = 0;
    if (l->open != OPEN_DONE && l->open != OPEN_NONE) {
        l->open = OPEN_DONE;
        stream_mark_dirty(s);
    }
}

static void open_result(struct stream *s, struct life *l, const struct op_result *r, int64_t now)
{
    struct lane *lane = &s->lanes[LANE_LINES];

    switch (r->outcome) {
    case OUT_OK:
        went_well(lane);
        opened(s, l);
        stream_save(s);
        break;
    case OUT_UNKNOWN:
    case OUT_PARTIAL:
        /* It may have taken effect, and a second open would wipe the stream (HP §1.5): the first
         * lines will tell. */
        l->open = OPEN_UNKNOWN;
        back_off(s, lane, r, now);
        break;
    case OUT_REJECTED:
    case OUT_ABSENT:
    case OUT_TOO_LARGE:
        if (lane->credential_good)
            l->open = OPEN_NONE; /* the request itself is refused: go on without it */
        lane->check = !lane->credential_good;
        back_off(s, lane, r, now);
        break;
    default:
        if (r->failed && fails_for_good(lane, r, STREAM_FAILED_TRIES, INT64_MAX, now)) {
            went_well(lane);
            l->open = OPEN_NONE; /* its lines will be kept for the finished log */
            note(s, NOTE_ASIDE, 0);
            stream_mark_dirty(s);
            stream_save(s);
            break;
        }
        back_off(s, lane, r, now);
        break;
    }
}

/* Take the batch out of its queue and ask for its rows to go. */
static struct commit *batch_gone(struct stream *s)
{
    struct life *l = stream_head(s);
    struct commit *c = commit_new(s);
    size_t i;

    for (i = 0; i < s->n_batch; i++) {
        queue_remove(s->batch[i]->state == RECORD_STUCK ? &l->stuck : &l->lines, s->batch[i]);
        commit_gone(c, s->batch[i]);
        c->ledger[LEDGER_LINES_SPOOLED] -= (int64_t)s->batch[i]->row.lines;
    }
    if (s->singly_left)
        s->singly_left -= TR_MIN(s->singly_left, s->n_batch);
    batch_clear(s);
    return c;
}

static void lines_delivered(struct stream *s, struct life *l)
{
    struct commit *c;
    uint64_t lines;

    went_well(&s->lanes[LANE_LINES]);
    opened(s, l);
    c = batch_gone(s);
    lines = (uint64_t)-c->ledger[LEDGER_LINES_SPOOLED];
    c->ledger[LEDGER_LINES_DELIVERED] = (int64_t)lines;
    l->n_delivered += lines;
    commit_send(c);
}

/* Upstream does not take this batch: it waits for the end of its life, when the finished log has it
 * or is completed with it, and what is behind it goes on. */
static uint64_t set_aside(struct stream *s, struct life *l)
{
    uint64_t lines = 0;
    size_t i;

    for (i = 0; i < s->n_batch; i++) {
        struct record *rec = s->batch[i];

        lines += rec->row.lines;
        rec->state = RECORD_STUCK;
        rec->loaded = false;
        queue_remove(&l->lines, rec);
        queue_append(&l->stuck, rec);
    }
    s->singly_left -= TR_MIN(s->singly_left, s->n_batch);
    batch_clear(s);
    stream_mark_dirty(s);
    /* before anything else is sent: they must not go after what comes behind them, or after the
     * close */
    stream_save(s);
    return lines;
}

/* Upstream says 200: the stream is not there, or its backend is in trouble (HP §7a). */
static void lines_absent(struct stream *s, struct life *l, const struct op_result *r,
                         struct stream_now now)
{
    struct lane *lane = &s->lanes[LANE_LINES];

    l->absent++;
    if (l->absent < STREAM_ABSENT_TRIES) {
        back_off(s, lane, r, now.mono);
        return;
    }
    went_well(lane);
    if (l->open == OPEN_UNKNOWN && !l->reopened) {
        note(s, NOTE_REOPENED, 0);
        l->reopened = true;
        l->open = OPEN_PENDING;
        l->absent = 0;
        stream_mark_dirty(s);
        stream_save(s);
        return;
    }
    l->absent = STREAM_ABSENT_TRIES - 1; /* what follows is offered once; a 204 resets */
    note(s, now.wall - l->since_wall > s->env->rules->expiry_ns ? NOTE_EXPIRED : NOTE_ABSENT,
         set_aside(s, l));
}

static void bury(struct commit *c, const char *reason, const struct op_result *r)
{
    c->dead = reason;
    c->dead_status = r->status;
    c->dead_said = r->said;
}

static void lines_dead(struct stream *s, const struct op_result *r)
{
    struct commit *c = batch_gone(s);

    bury(c, "upstream refused the lines", r);
    c->ledger[LEDGER_LINES_DEAD] = -c->ledger[LEDGER_LINES_SPOOLED];
    note(s, NOTE_DEAD, (uint64_t)c->ledger[LEDGER_LINES_DEAD]);
    went_well(&s->lanes[LANE_LINES]);
    stream_mark_dirty(s);
    commit_send(c);
}

static void send_singly(struct stream *s)
{
    size_t i;

    for (i = 0; i < s->n_batch; i++)
        s->batch[i]->state = RECORD_WAITING;
    s->singly_left = s->n_batch;
    batch_clear(s);
    went_well(&s->lanes[LANE_LINES]);
}

/* A batch is refused for what is in it: send its records one by one, and bury the one that is at
 * fault. */
static void lines_refused(struct stream *s, const struct op_result *r)
{
    if (s->n_batch == 1)
        lines_dead(s, r);
    else
        send_singly(s);
}

/* A 500 is no refusal: the record at fault is not buried but kept for the finished log. */
static void lines_failed(struct stream *s, struct life *l, const struct op_result *r, int64_t now)
{
    struct lane *lane = &s->lanes[LANE_LINES];
    unsigned most = s->n_batch > 1 ? STREAM_FAILED_SPLIT : STREAM_FAILED_TRIES;

    if (!fails_for_good(lane, r, most, s->env->rules->failed_alone_ns, now)) {
        back_off(s, lane, r, now);
    } else if (s->n_batch > 1) {
        send_singly(s);
    } else {
        went_well(lane);
        note(s, NOTE_ASIDE, set_aside(s, l));
    }
}

/* The batch may be stored now. What of it may have been stored before is there twice, and
 * counted. */
static void count_resent(struct stream *s)
{
    int64_t lines = 0;
    size_t i;

    for (i = 0; i < s->n_batch; i++) {
        if (s->batch[i]->maybe_sent)
            lines += (int64_t)s->batch[i]->row.lines;
        s->batch[i]->maybe_sent = true;
    }
    if (lines) {
        struct commit *c = commit_new(s);

        c->ledger[LEDGER_LINES_RESENT] = lines;
        commit_send(c);
    }
}

static void lines_result(struct stream *s, struct life *l, const struct op_result *r,
                         struct stream_now now)
{
    struct lane *lane = &s->lanes[LANE_LINES];

    l->flows = r->outcome == OUT_OK;
    if (r->outcome == OUT_OK || r->outcome == OUT_UNKNOWN || r->outcome == OUT_PARTIAL)
        count_resent(s);
    switch (r->outcome) {
    case OUT_OK:
        lines_delivered(s, l);
        break;
    case OUT_ABSENT:
        lines_absent(s, l, r, now);
        break;
    case OUT_TOO_LARGE:
        lines_refused(s, r);
        break;
    case OUT_REJECTED:
        if (lane->credential_good) {
            lines_refused(s, r);
            break;
        }
        lane->check = true;
        break;
    default:
        if (r->outcome == OUT_PARTIAL && r->failed)
            lines_failed(s, l, r, now.mono);
        else
            back_off(s, lane, r, now.mono);
        break;
    }
}

static void close_over(struct stream *s, struct life *l)
{
    struct commit *c = commit_new(s);

    went_well(&s->lanes[LANE_LINES]);
    if (l->n_delivered > s->env->rules->snapshot_lines &&
        (l->close_snapshot || (l->broken && !life_has_blob(s, l))))
        note(s, NOTE_TRUNCATED, l->n_delivered - s->env->rules->snapshot_lines);
    if (l->snapshot_taken)
        /* the stream's own end took the blob's place: it has only what was delivered */
        l->blob_below = 0;
    commit_gone(c, l->close);
    l->close = NULL;
    l->ended = true;
    stream_mark_dirty(s);
    commit_send(c);
}

static void close_result(struct stream *s, struct life *l, const struct op_result *r, int64_t now)
{
    struct lane *lane = &s->lanes[LANE_LINES];

    if (r->outcome == OUT_OK || r->outcome == OUT_UNKNOWN || r->outcome == OUT_PARTIAL)
        l->snapshot_taken |= l->close_snapshot;
    switch (r->outcome) {
    case OUT_OK:
        close_over(s, l);
        break;
    case OUT_ABSENT:
        /* "Not found" is both "closed already" and "backend trouble" (HP §7a): ask again for a
         * while. */
        if (++l->close_absent >= STREAM_CLOSE_TRIES)
            close_over(s, l);
        else
            lane->not_before = now + s->env->rules->close_retry_ns;
        break;
    case OUT_REJECTED:
    case OUT_TOO_LARGE:
        if (lane->credential_good) {
            note(s, NOTE_DEAD, 0);
            close_over(s, l);
            break;
        }
        lane->check = true;
        break;
    default:
        back_off(s, lane, r, now);
        break;
    }
}

static void settle_result(struct stream *s, const struct op_result *r, int64_t now)
{
    struct lane *lane = &s->lanes[LANE_LINES];
    struct commit *c;

    switch (r->outcome) {
    case OUT_OK:
        went_well(lane);
        c = batch_gone(s);
        c->ledger[LEDGER_LINES_SETTLED] = -c->ledger[LEDGER_LINES_SPOOLED];
        stream_mark_dirty(s);
        commit_send(c);
        return;
    case OUT_REJECTED:
    case OUT_TOO_LARGE:
        if (lane->credential_good) {
            lines_dead(s, r);
            return;
        }
        lane->check = true;
        break;
    default:
        back_off(s, lane, r, now);
        break;
    }
    batch_clear(s);
}

static void blob_over(struct stream *s, const struct op_result *result)
{
    bool stored = result->outcome == OUT_OK;
    struct record *r = list_first(&s->blobs, struct record, link);
    struct life *l = stream_life(s, r->life);
    struct commit *c = commit_new(s);

    went_well(&s->lanes[LANE_BLOBS]);
    list_remove(&r->link);
    commit_gone(c, r);
    c->ledger[LEDGER_BLOBS_SPOOLED] = -1;
    c->ledger[stored ? LEDGER_BLOBS_DELIVERED : LEDGER_BLOBS_DEAD] = 1;
    if (!stored) {
        bury(c, "upstream refused the blob", result);
        note(s, NOTE_DEAD, 0);
    }
    if (l && stored) {
        l->blob_below = TR_MAX(l->blob_below, r->row.number + 1);
        l->blob_start = TR_MAX(l->blob_start, r->start_ns);
        l->blob_full |= r->blob_size > 0;
        l->blob_log |= r->log;
        if (life_superseding(l))
            life_supersede_into(s, l, c); /* in the very transaction that marks the blob stored */
    } else if (l) {
        l->broken = true;
    }
    stream_mark_dirty(s);
    commit_send(c);
}

static void blob_result(struct stream *s, const struct op_result *r, int64_t now)
{
    struct lane *lane = &s->lanes[LANE_BLOBS];

    switch (r->outcome) {
    case OUT_OK:
        blob_over(s, r);
        break;
    case OUT_REJECTED:
    case OUT_TOO_LARGE:
        if (lane->credential_good || r->outcome == OUT_TOO_LARGE) {
            blob_over(s, r);
            break;
        }
        lane->check = true;
        break;
    default:
        /* A blob that holds its stream's close for ever goes to the dead letters; not in an outage,
         * however long, and not in haste. */
        if (r->failed && fails_for_good(lane, r, STREAM_FAILED_BLOB, INT64_MAX, now) &&
            now - lane->failed_since >= s->env->rules->failed_blob_ns)
            blob_over(s, r);
        else
            back_off(s, lane, r, now);
        break;
    }
}

/* After a 4xx: is it the credential? If it is the environment holds the stream (stream_hold)
 * before it reports. */
static void check_result(struct stream *s, struct lane *lane, const struct op_result *r,
                         int64_t now)
{
    switch (r->outcome) {
    case OUT_OK:
        lane->check = false;
        lane->credential_good = true;
        break;
    case OUT_REJECTED:
        lane->check = false;
        back_off(s, lane, r, now);
        break;
    default:
        back_off(s, lane, r, now);
        break;
    }
}

void stream_result(struct stream *s, enum stream_lane which, const struct op_result *r,
                   struct stream_now now)
{
    struct lane *lane = &s->lanes[which];
    struct life *l = stream_head(s);

    ASSERT(lane->busy);
    lane->busy = false;
    if (lane->op != OP_CHECK && r->outcome != OUT_REJECTED && r->outcome != OUT_TOO_LARGE)
        lane->credential_good = false; /* a later refusal asks again: credentials expire */
    switch (lane->op) {
    case OP_OPEN:
        open_result(s, l, r, now.mono);
        break;
    case OP_LINES:
        lines_result(s, l, r, now);
        break;
    case OP_CLOSE:
        close_result(s, l, r, now.mono);
        break;
    case OP_SETTLE:
        settle_result(s, r, now.mono);
        break;
    case OP_BLOB:
        blob_result(s, r, now.mono);
        break;
    case OP_CHECK:
        check_result(s, lane, r, now.mono);
        break;
    case OP_NONE:
        BUG("a result without a request");
    }
    stream_tidy(s, now);
}
