/* The world: clients, the store and the environment of the machine. */
#include "model.h"

#include <stdio.h>
#include "base/bug.h"
#include "base/xmem.h"

uint32_t letters(const char *text)
{
    uint32_t bits = 0;

    for (; *text; text++) {
        if (*text >= 'a' && *text <= 'z')
            bits |= 1u << (*text - 'a');
    }
    return bits;
}

int stream_index(const struct world *w, const struct stream *s)
{
    int i;

    for (i = 0; i < W_STREAMS; i++) {
        if (w->s[i] == s)
            return i;
    }
    BUG("a stream that is not of this world");
}

struct life_facts *facts_of(struct world *w, int stream, uint64_t life)
{
    struct life_facts *f;
    unsigned i;

    for (i = 0; i < w->n_lives; i++) {
        if (w->lives[i].stream == stream && w->lives[i].id == life)
            return &w->lives[i];
    }
    ASSERT(w->n_lives < W_LIVES);
    f = &w->lives[w->n_lives++];
    memset(f, 0, sizeof(*f)); /* with its padding: it is hashed */
    f->id = life;
    f->stream = stream;
    return f;
}

/* --- the environment ------------------------------------------------------------------------ */

static struct world *world_of(struct stream_env *env)
{
    return container_of(env, struct world, env);
}

/* The row is encoded when the commit is asked for, as the environment does it. */
static void pending_fill(struct world *w, struct pending *p)
{
    struct stream *s = p->c->stream;
    struct list *it, *tmp;

    str_clear(&p->row.state);
    p->row.exists = false;
    p->row.n_lives = 0;
    p->row.closing = 0;
    p->forget = p->c->forget;
    if (!p->c->state && w->store.streams[p->stream].exists)
        return;
    p->row.exists = true;
    stream_encode(s, &p->row.state);
    list_each (it, tmp, &s->lives) {
        const struct life *l = list_entry(it, struct life, link);

        ASSERT(p->row.n_lives < W_LIVES);
        p->row.closing |= (unsigned)l->closing << p->row.n_lives;
        p->row.lives[p->row.n_lives++] = l->id;
    }
}

static void env_commit(struct stream_env *env, struct commit *c)
{
    struct world *w = world_of(env);
    struct pending *p;

    ASSERT(w->n_pending < W_PENDING);
    p = &w->pending[w->n_pending++];
    *p = (struct pending){.c = c, .stream = stream_index(w, c->stream)};
    p->life = stream_last(c->stream) ? stream_last(c->stream)->id : 0;
    pending_fill(w, p);
}

static void check_answer(struct world *w, const struct client_call *c)
{
    uint32_t bits = letters(c->text);

    switch (c->kind) {
    case 'l':
        RULE(w, !(bits & ~(w->durable | w->late_lines)), "lines are acknowledged and not durable");
        w->acked |= bits;
        break;
    default:
        break;
    }
}

static void env_answer(struct stream_env *env, struct call *call, bool ok)
{
    struct world *w = world_of(env);
    struct client_call *c = container_of(call, struct client_call, call);

    RULE(w, c->used && !c->answered, "a call is answered twice");
    RULE(w, list_empty(&call->records), "records are left in a call that is answered");
    c->answered = true;
    c->answered_at = w->now.mono;
    c->ok = ok;
    if (ok)
        check_answer(w, c);
}

static void env_release(struct stream_env *env, struct record *r)
{
    struct world *w = world_of(env);

    RULE(w, w->unproven >= r->unproven, "more bytes are given back than were taken");
    w->unproven -= r->unproven;
    record_free(r);
}

static void env_discharge(struct stream_env *env, uint64_t unproven)
{
    struct world *w = world_of(env);

    RULE(w, w->unproven >= unproven, "more bytes are given back than were taken");
    w->unproven -= unproven;
}

static void env_load(struct stream_env *env, struct reload *l)
{
    struct world *w = world_of(env);
    int i = stream_index(w, l->stream);

    RULE(w, !w->reload[i], "records are read twice at a time");
    w->reload[i] = l;
}

static void env_wake(struct stream_env *env, struct stream *s)
{
    (void)s;
    world_of(env)->wakes++;
}

static void env_barrier(struct stream_env *env, struct stream *s, struct record *close)
{
    struct world *w = world_of(env);

    w->barrier[stream_index(w, s)] = close;
}

static void env_note(struct stream_env *env, struct stream *s, enum stream_note what,
                     uint64_t lines)
{
    struct world *w = world_of(env);

    (void)s;
    w->notes[what]++;
    w->note_lines[what] += lines;
}

static struct stream *open_stream(struct world *w, int i)
{
    if (!w->s[i]) {
        char key[] = {'k', (char)('0' + i)};

        w->s[i] = stream_new(&w->env, VIEW_LIT("acc"), view_of(key, sizeof(key)));
    }
    return w->s[i];
}

struct world *world_new(void)
{
    struct world *w = XNEW(struct world);

    w->rules = (struct stream_rules){
        .hold_ns = W_HOLD,
        .idle_ns = W_IDLE,
        .close_retry_ns = 0,
        .batch_lines = 1000,
        .batch_bytes = 65536,
        .snapshot_lines = 5000,
        .expiry_ns = W_EXPIRY,
        .failed_alone_ns = W_EXPIRY,
        .max_ahead = STREAM_MAX_AHEAD,
    };
    w->env = (struct stream_env){
        .rules = &w->rules,
        .rng = &w->rng,
        .commit = env_commit,
        .answer = env_answer,
        .load = env_load,
        .release = env_release,
        .discharge = env_discharge,
        .wake = env_wake,
        .barrier = env_barrier,
        .note = env_note,
    };
    rng_seed(&w->rng, 1);
    w->now = (struct stream_now){10 * W_EXPIRY, 1000LL * W_EXPIRY};
    w->store.next_id = 1;
    return w;
}

/* --- clients -------------------------------------------------------------------------------- */

static struct record *new_lines(const struct spec *spec, const char *text, size_t n,
                                uint64_t number)
{
    struct record *r = record_new(RECORD_LINES);
    size_t i;

    str_add(&r->text, text, n);
    r->size = (uint32_t)n;
    r->unproven = (uint32_t)n;
    r->row.lines = n;
    r->pos_min = r->pos_max = spec->zeros ? 0 : text[0] - 'a';
    for (i = 0; i < n && !spec->zeros; i++) {
        r->pos_min = TR_MIN(r->pos_min, text[i] - 'a');
        r->pos_max = TR_MAX(r->pos_max, text[i] - 'a');
    }
    (void)number;
    return r;
}

static void fill_lines(struct client_call *c, const struct spec *spec)
{
    size_t n = strlen(spec->text), step = spec->split ? spec->split : n, at;

    c->call.lines = n;
    for (at = 0; at < n; at += step) {
        struct record *r = new_lines(spec, spec->text + at, TR_MIN(step, n - at), 0);

        if (at == 0) {
            r->hashed = true;
            r->hash = c->call.hash;
        }
        list_append(&c->call.records, &r->link);
        c->parts[c->call.n_parts] =
            (struct call_part){spec->number + c->call.n_parts, r->row.lines};
        c->call.n_parts++;
    }
    c->call.parts = c->parts;
}

static void fill_blob(struct client_call *c, const struct spec *spec)
{
    struct record *r = record_new(RECORD_BLOB);

    r->blob_size = strlen(spec->text);
    str_adds(&r->text, spec->text);
    r->hashed = true;
    r->hash = c->call.hash;
    c->call.empty = r->blob_size == 0;
    c->call.begins_line = spec->text[0] != '~' && !c->call.empty;
    list_append(&c->call.records, &r->link);
}

static void fill_close(struct client_call *c, const struct spec *spec)
{
    struct record *r = record_new(RECORD_CLOSE);

    r->snapshot = spec->kind == 's' || spec->kind == 'q';
    r->covers = spec->kind == 'p' || spec->kind == 'q';
    list_append(&c->call.records, &r->link);
}

static void fill_call(struct client_call *c, const struct spec *spec)
{
    const char *at;

    c->call.hash = (struct body_hash){0x100, (uint64_t)spec->kind};
    for (at = c->text; *at; at++)
        c->call.hash.lo = c->call.hash.lo * 131 + (uint64_t)*at;
    switch (spec->kind) {
    case 'o':
        c->call.kind = CALL_OPEN;
        break;
    case 'l':
        c->call.kind = CALL_LINES;
        fill_lines(c, spec);
        break;
    case 'b':
    case 'e':
    case 'h':
        c->call.kind = CALL_BLOB;
        fill_blob(c, spec);
        break;
    default:
        c->call.kind = CALL_CLOSE;
        fill_close(c, spec);
        break;
    }
}

static bool reversed(const char *first, const char *second)
{
    for (; *first; first++) {
        const char *at;

        for (at = second; *at; at++) {
            if (*at >= *first)
                return false;
        }
    }
    return true;
}

/* How this call may change places with those before it: they overlap, and its lines all come
 * first. */
static void note_overlap(struct world *w, const struct client_call *c)
{
    const char *at;
    unsigned i;

    for (i = 0; i < w->n_calls; i++) {
        const struct client_call *b = &w->calls[i];

        if (b == c || b->kind != 'l' || b->stream != c->stream || c->zeros || b->zeros ||
            (b->answered && b->answered_at <= c->call.start_ns) || !reversed(b->text, c->text))
            continue;
        for (at = c->text; *at; at++)
            w->may_swap[*at - 'a'] |= letters(b->text);
    }
}

int world_call(struct world *w, const struct spec *spec)
{
    struct stream *s = open_stream(w, spec->stream);
    struct client_call *c;
    struct list *it, *tmp;
    int index = 0;

    if (w->n_calls < W_CALLS) {
        index = (int)w->n_calls++;
    } else {
        while (index < W_CALLS && !w->calls[index].answered)
            index++;
        ASSERT(index < W_CALLS);
    }
    c = &w->calls[index];
    *c = (struct client_call){
        .used = true, .stream = spec->stream, .kind = spec->kind, .zeros = spec->zeros};
    snprintf(c->text, sizeof(c->text), "%s", spec->text ? spec->text : "");
    w->now.mono++;
    w->now.wall++;
    list_init(&c->call.link);
    list_init(&c->call.records);
    c->call.cred = spec->cred;
    c->call.start_ns = spec->start_ns ? spec->start_ns : w->now.mono;
    c->call.query = VIEW_LIT("accountID=acc&key=k");
    c->call.prefix = VIEW_LIT("/log-service");
    c->call.edge = spec->edge;
    c->call.edge_life = spec->edge_life;
    fill_call(c, spec);
    list_each (it, tmp, &c->call.records)
        list_entry(it, struct record, link)->row.at_ns = w->now.wall;
    if (c->kind == 'l') {
        note_overlap(w, c);
        w->unproven += c->call.lines;
    }
    stream_call(s, &c->call, w->now);
    return index;
}

/* --- the store ------------------------------------------------------------------------------ */

static int store_slot(struct world *w)
{
    int i = 0;

    while (i < W_RECORDS && w->store.records[i].used)
        i++;
    ASSERT(i < W_RECORDS);
    return i;
}

static void store_record(struct world *w, const struct pending *p, struct record *r)
{
    struct stored_record *to = &w->store.records[store_slot(w)];
    struct life_facts *f = facts_of(w, p->stream, r->life);
    const char *at;

    RULE(w, w->store.streams[p->stream].exists, "a record of a stream that is not stored");
    *to = (struct stored_record){.used = true, .stream = p->stream, .kind = r->row.kind};
    to->id = r->row.id = w->store.next_id++;
    to->number = r->row.number = w->store.streams[p->stream].next++;
    to->at_ns = r->row.at_ns;
    to->lines = r->row.lines;
    str_addv(&to->meta, r->row.meta);
    snprintf(to->text, sizeof(to->text), "%s", str_c(&r->text));
    switch (r->kind) {
    case RECORD_LINES:
        f->lines = true;
        RULE(w, !(w->durable & letters(to->text)), "lines are stored twice");
        w->durable |= letters(to->text);
        for (at = to->text; *at; at++) {
            w->seq[*at - 'a'] = ++w->next_seq;
            w->life_of[*at - 'a'] = r->life;
        }
        break;
    case RECORD_BLOB:
        RULE(w, (to->text[0] && to->text[0] != '~') || !f->lines,
             "an empty or headless blob is taken although lines were accepted");
        f->wholes++;
        break;
    case RECORD_CLOSE:
        f->close_durable = true;
        f->snapshot = r->snapshot;
        break;
    }
}

static struct stored_record *store_find(struct world *w, int64_t id)
{
    int i;

    for (i = 0; i < W_RECORDS; i++) {
        if (w->store.records[i].used && w->store.records[i].id == id)
            return &w->store.records[i];
    }
    return NULL;
}

/* Lines leave the spool for one reason only, and the reason is true. */
static void check_gone(struct world *w, const struct commit *c, int stream, uint32_t bits)
{
    const struct up_stream *up = &w->up[stream];

    if (c->ledger[LEDGER_LINES_DELIVERED]) {
        RULE(w, !(bits & ~letters(up->history)),
             "lines are called delivered that upstream never got");
        w->delivered |= bits;
    } else if (c->ledger[LEDGER_LINES_SUPERSEDED]) {
        RULE(w, !(bits & ~w->in_whole_blob),
             "lines are called superseded that are in no stored blob");
        w->superseded |= bits;
    } else if (c->ledger[LEDGER_LINES_SETTLED]) {
        RULE(w, !(bits & ~letters(up->content) & ~w->excused),
             "lines are called settled that are not in the blob");
        w->settled |= bits;
    } else if (c->dead) {
        w->dead |= bits;
    } else {
        RULE(w, !bits, "lines leave the spool without an account");
    }
}

static bool close_due(const struct world *w, int stream, uint64_t life)
{
    const struct life *l = stream_life(w->s[stream], life);

    return !l || l->closing || l->ended;
}

static void blob_refused(struct world *w, int stream, const struct record *r)
{
    struct life_facts *f = facts_of(w, stream, r->life);

    if (f->wholes > 0 && --f->wholes == 0 && !close_due(w, stream, r->life))
        f->broken = true;
}

static void leave_store(struct stored_record *r, bool dead)
{
    if (dead) {
        r->dead = true;
    } else {
        str_fini(&r->meta);
        r->used = false;
    }
}

static void store_page_gone(struct world *w, const struct commit *c, const struct page *p,
                            int stream)
{
    int64_t ids[W_RECORDS];
    uint32_t i;

    ASSERT(p->n <= W_RECORDS);
    page_ids(p, ids);
    for (i = 0; i < p->n; i++) {
        struct stored_record *r = store_find(w, ids[i]);

        RULE(w, r && !r->dead && r->stream == stream, "a paged record leaves the spool twice");
        check_gone(w, c, stream, letters(r->text));
        leave_store(r, c->dead != NULL);
    }
}

static void store_gone(struct world *w, const struct commit *c, int stream)
{
    const struct list *it;
    size_t i;

    for (it = c->pages.next; it != &c->pages; it = it->next)
        store_page_gone(w, c, list_entry(it, struct page, link), stream);

    for (i = 0; i < c->n_gone; i++) {
        struct stored_record *r = store_find(w, c->gone[i]->row.id);

        RULE(w, r && !r->dead, "a record leaves the spool twice");
        if (r->kind == RECORD_LINES)
            check_gone(w, c, stream, letters(r->text));
        if (r->kind == RECORD_BLOB && c->dead)
            blob_refused(w, stream, c->gone[i]);
        leave_store(r, c->dead != NULL);
    }
}

static void store_row(struct world *w, struct pending *p)
{
    struct stored_stream *to = &w->store.streams[p->stream];
    uint64_t next = to->next;
    unsigned i;

    if (!p->row.exists)
        return;
    str_fini(&to->state);
    *to = p->row;
    to->next = next;
    to->state = STR_INIT;
    str_addv(&to->state, str_view(&p->row.state));
    for (i = 0; i < to->n_lives; i++)
        facts_of(w, p->stream, to->lives[i])->closing_durable |= (to->closing >> i) & 1;
}

static void store_apply(struct world *w, struct pending *p)
{
    const struct commit *c = p->c;
    struct list *it, *tmp;
    int i;

    store_row(w, p);
    list_each (it, tmp, &c->records)
        store_record(w, p, list_entry(it, struct record, commit_link));
    store_gone(w, c, p->stream);
    for (i = 0; i < LEDGER_N; i++)
        w->store.ledger[i] += c->ledger[i];
    if (c->call && c->ledger[LEDGER_LINES_LATE]) {
        struct client_call *call = container_of(c->call, struct client_call, call);

        w->late_lines |= letters(call->text);
    }
    if (c->call && c->ledger[LEDGER_BLOBS_BROKEN] && p->life && !close_due(w, p->stream, p->life))
        facts_of(w, p->stream, p->life)->broken = true;
    if (p->forget) {
        for (i = 0; i < W_RECORDS; i++)
            RULE(w,
                 !w->store.records[i].used || w->store.records[i].dead ||
                     w->store.records[i].stream != p->stream,
                 "a stream with records is forgotten");
        str_fini(&w->store.streams[p->stream].state);
        w->store.streams[p->stream] = (struct stored_stream){0};
    }
    oracle_store(w);
}

static struct pending take_pending(struct world *w)
{
    struct pending p = w->pending[0];
    unsigned i;

    ASSERT(w->n_pending > 0);
    w->n_pending--;
    for (i = 0; i < w->n_pending; i++)
        w->pending[i] = w->pending[i + 1];
    w->pending[w->n_pending] = (struct pending){0};
    return p;
}

void world_commit(struct world *w, bool ok)
{
    struct pending p = take_pending(w);
    struct commit *c = p.c;

    if (!ok && !c->call) {
        pending_fill(w, &p);
        w->pending[w->n_pending++] = p;
        return;
    }
    if (ok)
        store_apply(w, &p);
    str_fini(&p.row.state);
    stream_committed(w->s[p.stream], c, ok, w->now);
    if (stream_unused(w->s[p.stream])) {
        stream_free(w->s[p.stream]);
        w->s[p.stream] = NULL;
    }
}

void world_commit_all(struct world *w)
{
    while (w->n_pending)
        world_commit(w, true);
}

/* --- requests ------------------------------------------------------------------------------- */

bool world_ready(struct world *w, int stream, enum stream_lane lane)
{
    return w->s[stream] && !w->busy[stream][lane] && stream_ready(w->s[stream], lane, w->now) == 0;
}

struct op *world_take(struct world *w, int stream, enum stream_lane lane)
{
    struct op *op = &w->inflight[stream][lane];

    ASSERT(world_ready(w, stream, lane));
    stream_take(w->s[stream], lane, op);
    w->busy[stream][lane] = true;
    oracle_taken(w, stream, op);
    return op;
}

/* Lines that may be there twice when this request is executed: their records were in one whose
 * answer was lost. */
static uint64_t resent_lines(const struct world *w, const struct op *op)
{
    uint64_t lines = 0;
    size_t i;

    for (i = 0; op->kind == OP_LINES && i < op->n_records; i++) {
        if (letters(str_c(&op->records[i]->text)) & w->unsure)
            lines += op->records[i]->row.lines;
    }
    return lines;
}

void world_result(struct world *w, int stream, enum stream_lane lane, enum op_outcome outcome)
{
    struct op op = w->inflight[stream][lane];
    struct op_result r = {
        .outcome = outcome,
        .failed = outcome == OUT_PARTIAL || (outcome == OUT_BUSY && w->failing),
        .others_at = w->others_at,
    };

    if (outcome == OUT_OK || outcome == OUT_UNKNOWN || outcome == OUT_PARTIAL)
        w->resent_most += resent_lines(w, &op);
    if (op.kind == OP_LINES && (outcome == OUT_UNKNOWN || outcome == OUT_PARTIAL)) {
        char text[W_TEXT];

        op_text(&op, text);
        w->unsure |= letters(text);
    }
    w->busy[stream][lane] = false;
    w->inflight[stream][lane] = (struct op){0};
    stream_result(w->s[stream], lane, &r, w->now);
}

void world_end(struct world *w, int stream, enum stream_lane lane, enum ending how)
{
    struct op op = w->inflight[stream][lane];
    enum op_outcome outcome;

    ASSERT(w->busy[stream][lane]);
    switch (how) {
    case END_WELL:
    case END_LOST:
    case END_HALF:
        outcome = up_execute(w, stream, &op, how);
        break;
    case END_NOT_SENT:
        outcome = OUT_NOT_SENT;
        break;
    case END_BUSY:
        outcome = OUT_BUSY;
        break;
    case END_LATE:
        up_postpone(w, stream, &op);
        outcome = OUT_UNKNOWN;
        break;
    case END_UNSENT:
        outcome = OUT_UNKNOWN;
        break;
    case END_LIE:
        outcome = OUT_ABSENT;
        break;
    case END_REJECTED:
        outcome = OUT_REJECTED;
        break;
    default:
        outcome = OUT_TOO_LARGE;
        break;
    }
    world_result(w, stream, lane, outcome);
}

static bool others_quiet(const struct world *w, int stream)
{
    int i;

    for (i = 0; i < W_STREAMS; i++) {
        if (i != stream && w->s[i] && !stream_quiet(w->s[i]))
            return false;
    }
    return true;
}

bool world_barrier_ready(const struct world *w, int stream)
{
    return w->barrier[stream] && others_quiet(w, stream);
}

void world_barrier(struct world *w, int stream)
{
    w->barrier[stream] = NULL;
    stream_barrier_passed(w->s[stream], w->now);
}

/* --- crash and recovery ---------------------------------------------------------------------- */

static void drop_waiters(struct list *head)
{
    struct list *it, *tmp;

    list_each (it, tmp, head) {
        struct record *r = list_entry(it, struct record, link);

        while (!list_empty(&r->waiters))
            list_remove(r->waiters.next);
    }
}

static void drop_machine(struct world *w, int i)
{
    struct stream *s = w->s[i];
    struct list *it, *tmp;

    if (!s)
        return;
    drop_waiters(&s->blobs);
    list_each (it, tmp, &s->lives) {
        struct life *l = list_entry(it, struct life, link);

        drop_waiters(&l->lines.front);
        drop_waiters(&l->lines.tail);
    }
    s->commits = 0;
    while (!list_empty(&s->edge_calls))
        list_remove(s->edge_calls.next);
    stream_free(s);
    reload_free(w->reload[i]);
    w->reload[i] = NULL;
    w->s[i] = NULL;
    w->barrier[i] = NULL;
    memset(w->busy[i], 0, sizeof(w->busy[i]));
    memset(w->inflight[i], 0, sizeof(w->inflight[i]));
}

static void drop_pending(struct world *w)
{
    while (w->n_pending) {
        struct pending p = take_pending(w);
        struct list *it, *tmp;
        size_t i;

        list_each (it, tmp, &p.c->records)
            list_remove(it);
        for (i = 0; i < p.c->n_gone; i++)
            record_free(p.c->gone[i]);
        while (!list_empty(&p.c->pages))
            page_free(list_first(&p.c->pages, struct page, link));
        xfree(p.c->gone);
        xfree(p.c);
        str_fini(&p.row.state);
    }
}

static struct record *load_record(const struct stored_record *from)
{
    struct record *r = record_new((enum record_kind)from->kind);

    r->row.id = from->id;
    r->row.number = from->number;
    r->row.lines = from->lines;
    r->row.at_ns = from->at_ns;
    if (record_decode(r, str_view(&from->meta)) < 0)
        BUG("a record is not understood");
    str_adds(&r->text, from->text);
    return r;
}

void world_reload(struct world *w, int stream, bool ok)
{
    struct reload *l = w->reload[stream];
    size_t i;

    for (i = 0; ok && i < l->n; i++) {
        const struct stored_record *r = store_find(w, l->ids[i]);

        if (r && !r->dead)
            l->records[i] = load_record(r);
    }
    w->reload[stream] = NULL;
    stream_loaded(w->s[stream], l, ok, w->now);
}

void world_page(struct world *w, unsigned records, unsigned keep, unsigned ahead)
{
    w->rules.page_records = records;
    w->rules.page_keep = keep;
    w->rules.max_ahead = ahead;
    w->rules.load_records = records;
}

static void load_records(struct world *w, int stream)
{
    int64_t after = 0;

    for (;;) {
        const struct stored_record *best = NULL;
        int i;

        for (i = 0; i < W_RECORDS; i++) {
            const struct stored_record *r = &w->store.records[i];

            if (r->used && !r->dead && r->stream == stream && r->id > after &&
                (!best || r->id < best->id))
                best = r;
        }
        if (!best)
            return;
        after = best->id;
        stream_recover_record(w->s[stream], load_record(best));
    }
}

static void recover(struct world *w)
{
    int i;

    for (i = 0; i < W_STREAMS; i++) {
        struct stored_stream *from = &w->store.streams[i];
        struct spool_stream_row row = {
            .id = i + 1, .next = from->next, .state = str_view(&from->state)};

        if (!from->exists)
            continue;
        if (stream_decode(open_stream(w, i), &row) < 0)
            world_broken(w, __FILE__, __LINE__, "the stored state is not understood");
        load_records(w, i);
        stream_recovered(w->s[i], w->now);
    }
}

void world_crash(struct world *w, unsigned applied, unsigned executed)
{
    uint64_t dups = w->dups;
    unsigned i;
    int s, lane;

    for (s = 0; s < W_STREAMS; s++) {
        for (lane = 0; lane < LANE_COUNT; lane++) {
            struct op *op = &w->inflight[s][lane];
            char text[W_TEXT];

            if (!w->busy[s][lane])
                continue;
            op_text(op, text);
            if (op->kind == OP_LINES)
                w->unsure |= letters(text);
            if (executed & (1u << (s * LANE_COUNT + lane)))
                up_execute(w, s, op, END_LOST);
        }
    }
    for (i = 0; i < applied; i++)
        store_apply(w, &w->pending[i]);
    /* what upstream has, and the store still calls waiting */
    for (i = 0; i < W_RECORDS; i++) {
        const struct stored_record *r = &w->store.records[i];

        if (r->used && !r->dead && r->kind == RECORD_LINES)
            w->unsure |= letters(r->text) & letters(w->up[r->stream].history);
    }
    w->dups_uncounted += w->dups - dups;
    for (i = applied; i < w->n_pending; i++)
        w->dups_uncounted += (uint64_t)w->pending[i].c->ledger[LEDGER_LINES_RESENT];
    drop_pending(w);
    for (s = 0; s < W_STREAMS; s++)
        drop_machine(w, s);
    for (i = 0; i < w->n_calls; i++) {
        if (w->calls[i].used && !w->calls[i].answered) {
            w->calls[i].answered = true;
            w->calls[i].ok = false;
        }
    }
    w->crashed = true;
    w->unproven = 0;
    w->now.mono += 1;
    w->now.wall += 1;
    recover(w);
}

void world_free(struct world *w)
{
    int i;

    drop_pending(w);
    for (i = 0; i < W_STREAMS; i++) {
        drop_machine(w, i);
        str_fini(&w->store.streams[i].state);
    }
    for (i = 0; i < W_RECORDS; i++)
        str_fini(&w->store.records[i].meta);
    xfree(w);
}

/* --- time ----------------------------------------------------------------------------------- */

void world_sweep(struct world *w)
{
    int i;

    for (i = 0; i < W_STREAMS; i++) {
        if (w->s[i])
            stream_sweep(w->s[i], w->now);
    }
}

void world_advance(struct world *w, int64_t by)
{
    w->now.mono += by;
    w->now.wall += by;
    w->idled |= by >= W_IDLE;
    world_sweep(w);
}

static bool run_once(struct world *w)
{
    int s, lane;

    if (w->n_pending) {
        world_commit(w, true);
        return true;
    }
    for (s = 0; s < W_STREAMS; s++) {
        if (w->reload[s]) {
            world_reload(w, s, true);
            return true;
        }
        if (w->s[s] && w->s[s]->load_failed) {
            world_sweep(w);
            return true;
        }
        for (lane = LANE_COUNT - 1; lane >= 0; lane--) {
            if (!w->busy[s][lane] && world_ready(w, s, (enum stream_lane)lane))
                world_take(w, s, (enum stream_lane)lane);
            if (w->busy[s][lane]) {
                world_end(w, s, (enum stream_lane)lane, END_WELL);
                return true;
            }
        }
        if (world_barrier_ready(w, s)) {
            world_barrier(w, s);
            return true;
        }
    }
    return false;
}

void world_run(struct world *w)
{
    unsigned steps = 0;

    for (;;) {
        int64_t earliest = INT64_MAX;
        int s, lane;

        while (run_once(w)) {
            if (++steps > 2000)
                world_broken(w, __FILE__, __LINE__, "it does not come to rest");
        }
        for (s = 0; s < W_STREAMS; s++) {
            for (lane = 0; w->s[s] && lane < LANE_COUNT; lane++)
                earliest = TR_MIN(earliest, stream_ready(w->s[s], (enum stream_lane)lane, w->now));
        }
        if (earliest == INT64_MAX || earliest > w->now.mono + W_IDLE / 2)
            return;
        world_advance(w, earliest - w->now.mono);
    }
}
