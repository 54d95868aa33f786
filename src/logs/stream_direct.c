/*
 * Direct calls, as the machine sees them: while the spool cannot commit, a call may go upstream as
 * it is, if nothing of its stream waits. What came of it is remembered here, in memory, and stored
 * with the stream's next commit; so an open is not sent twice, also not when its outcome is unknown
 * (a second one would wipe the stream, HP §1.5), a body that came before is not sent again, and
 * what may be there twice is counted. A crash forgets it: what it leaves is what a restart finds of
 * a stream that others opened, and the lines are in neither side of the ledger.
 */
#include "logs/stream_priv.h"

#include "base/bug.h"
#include "base/xmem.h"

static bool is_live(const struct life *l)
{
    return l && !l->closed_wall && !l->ended;
}

/* Was it accepted before, for good? */
static bool came_before(struct stream *s, const struct direct_call *c)
{
    const struct recent *seen = recent_find(s, c->hash);

    return seen && !seen->record;
}

bool direct_lost(const struct stream *s, struct body_hash h)
{
    unsigned i;

    for (i = 0; s->direct && i < TR_MIN(s->direct->n_lost, (unsigned)STREAM_DIRECT_LOST); i++) {
        if (body_hash_eq(s->direct->lost[i], h))
            return true;
    }
    return false;
}

/* Lives that are over stay until the next one is stored, which must wait: opening and closing for
 * ever must not pile them up. */
static bool too_many_lives(const struct stream *s)
{
    const struct list *it;
    unsigned n = 0;

    for (it = s->lives.next; it != &s->lives; it = it->next)
        n++;
    return n >= STREAM_MAX_LIVES;
}

/* --- may it? ------------------------------------------------------------------------------ */

/* An open that upstream has, or that a client was promised, needs no other: it joins. One of
 * unknown outcome that nobody was promised must not be followed by a second: the first lines will
 * tell. */
static enum direct_way open_way(const struct stream *s, struct stream_now now)
{
    const struct life *l = stream_last(s);

    if (is_live(l))
        return l->open_acked || l->open == OPEN_NONE || l->open == OPEN_DONE ? DIRECT_DONE
                                                                             : DIRECT_NO;
    if (s->held || (l && l->closed_wall && now.wall - l->closed_wall < s->env->rules->hold_ns))
        return DIRECT_NO; /* it would be held until lines come */
    return DIRECT_SEND;
}

static enum direct_way lines_way(struct stream *s, const struct direct_call *c)
{
    const struct life *l = stream_last(s);

    if (came_before(s, c))
        return DIRECT_DONE;
    return s->held || (l && l->closed_wall) ? DIRECT_NO : DIRECT_SEND;
}

static enum direct_way blob_way(struct stream *s, const struct direct_call *c, int64_t *ledger)
{
    if (blob_is_broken(s, stream_last(s), c->empty, c->begins_line))
        return DIRECT_NO; /* it would replace a whole one */
    if (c->empty || !came_before(s, c))
        return DIRECT_SEND;
    ledger[LEDGER_BLOBS_ACCEPTED] = ledger[LEDGER_BLOBS_REPEATED] = 1;
    return DIRECT_DONE;
}

static enum direct_way close_way(const struct stream *s, const struct direct_call *c)
{
    const struct life *l = stream_last(s);

    if (c->covers)
        return DIRECT_NO; /* of the other streams something may wait */
    if (l && l->closed_wall)
        return l->close && l->close->state == RECORD_COMMITTING ? DIRECT_NO : DIRECT_DONE;
    return l && l->broken && !life_has_blob(s, l) ? DIRECT_NO : DIRECT_SEND;
}

enum direct_way stream_direct_begin(struct stream *s, const struct direct_call *c,
                                    struct stream_now now, int64_t ledger[LEDGER_N])
{
    enum direct_way way = DIRECT_NO;

    switch (c->kind) {
    case CALL_OPEN:
        way = open_way(s, now);
        break;
    case CALL_LINES:
        way = lines_way(s, c);
        break;
    case CALL_BLOB:
        way = blob_way(s, c, ledger);
        break;
    case CALL_CLOSE:
        way = close_way(s, c);
        break;
    }
    if (way != DIRECT_SEND)
        return way;
    if (s->forgetting || s->forgotten || !stream_nothing_waits(s) ||
        (!is_live(stream_last(s)) && too_many_lives(s)))
        return DIRECT_NO;
    if (!s->direct)
        s->direct = XNEW(struct direct_marks);
    s->direct->busy = true;
    s->direct->below = s->next_number;
    return DIRECT_SEND;
}

/* --- how it ended ------------------------------------------------------------------------- */

/* The life that what went directly belongs to. It cannot be taken back, as one whose first call
 * failed would be. */
static struct life *direct_life(struct stream *s, bool fresh, struct stream_now now)
{
    struct life *l = stream_last(s);

    if (!l || (fresh && !is_live(l)))
        l = life_new(s, OPEN_NONE, now);
    else if (l->ended && !l->closed_wall)
        l->ended = l->done = false; /* it goes on */
    l->durable = true;
    stream_mark_dirty(s);
    return l;
}

/* A call that came meanwhile, and was committed, may have begun the life: its open is this one. */
static void open_end(struct stream *s, enum op_outcome outcome, struct stream_now now)
{
    struct life *l;

    if (outcome != OUT_OK && outcome != OUT_UNKNOWN && outcome != OUT_PARTIAL)
        return;
    l = direct_life(s, true, now);
    if (outcome == OUT_OK) {
        l->open = OPEN_DONE;
        l->open_acked = true;
    } else if (l->open != OPEN_DONE) {
        l->open = OPEN_UNKNOWN;
    }
}

static void lines_end(struct stream *s, const struct direct_call *c, enum op_outcome outcome,
                      struct stream_now now, int64_t *ledger)
{
    struct life *l;

    if (outcome != OUT_OK && outcome != OUT_UNKNOWN && outcome != OUT_PARTIAL)
        return;
    if (direct_lost(s, c->hash))
        ledger[LEDGER_LINES_RESENT] = (int64_t)c->lines;
    if (outcome != OUT_OK) {
        if (!direct_lost(s, c->hash))
            s->direct->lost[s->direct->n_lost++ % STREAM_DIRECT_LOST] = c->hash;
        return;
    }
    ledger[LEDGER_LINES_ACCEPTED] = ledger[LEDGER_LINES_DELIVERED] = (int64_t)c->lines;
    l = direct_life(s, false, now);
    l->lines_seen = true;
    l->absent = 0;
    l->n_delivered += c->lines;
    if (l->open != OPEN_NONE)
        l->open = OPEN_DONE;
    recent_add(s, c->hash, NULL);
}

static void blob_end(struct stream *s, const struct direct_call *c, enum op_outcome outcome,
                     struct stream_now now, int64_t *ledger)
{
    struct life *l;

    if (outcome != OUT_OK)
        return;
    ledger[LEDGER_BLOBS_ACCEPTED] = ledger[LEDGER_BLOBS_DELIVERED] = 1;
    l = direct_life(s, false, now);
    l->blob_below = TR_MAX(l->blob_below, s->direct->below);
    l->blob_start = TR_MAX(l->blob_start, c->start_ns);
    l->blob_full |= !c->empty;
    l->blob_log |= c->begins_line;
    if (!c->empty)
        recent_add(s, c->hash, NULL);
}

static void close_end(struct stream *s, const struct direct_call *c, enum op_outcome outcome,
                      struct stream_now now)
{
    struct life *l;

    if (outcome != OUT_OK)
        return; /* it may come again, which does no harm */
    l = direct_life(s, false, now);
    if (l->closed_wall || !queue_empty(&l->lines))
        return; /* the machine has work of its own there: it will close once more */
    l->closed_wall = now.wall;
    l->close_snapshot = l->snapshot_taken = c->snapshot;
    if (c->snapshot)
        l->blob_below = 0;
    l->ended = true;
}

void stream_direct_end(struct stream *s, const struct direct_call *c, enum op_outcome outcome,
                       struct stream_now now, int64_t ledger[LEDGER_N])
{
    ASSERT(s->direct && s->direct->busy);
    s->direct->busy = false;
    switch (c->kind) {
    case CALL_OPEN:
        open_end(s, outcome, now);
        break;
    case CALL_LINES:
        lines_end(s, c, outcome, now, ledger);
        break;
    case CALL_BLOB:
        blob_end(s, c, outcome, now, ledger);
        break;
    case CALL_CLOSE:
        close_end(s, c, outcome, now);
        break;
    }
    stream_tidy(s, now);
}
