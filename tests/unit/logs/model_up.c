/* The Harness log service as HP §1.5 and §7a describe it, and the rules that every request and
 * every commit must keep. */
#include "model.h"

#include <stdio.h>
#include "base/bug.h"

static void add_char(char *text, char c)
{
    size_t n = strlen(text);

    ASSERT(n + 1 < W_TEXT);
    text[n] = c;
    text[n + 1] = '\0';
}

void op_text(const struct op *op, char out[W_TEXT])
{
    size_t i;

    out[0] = '\0';
    if (op->kind == OP_BLOB)
        snprintf(out, W_TEXT, "%s", str_c(&op->blob->text));
    for (i = 0; i < op->n_records; i++) {
        const char *at = str_c(&op->records[i]->text);

        for (; *at; at++)
            add_char(out, *at);
    }
}

/* --- what upstream does --------------------------------------------------------------------- */

/* The rule on opens (invariant 5): an open never destroys what its own generation has written.
 * An open that upstream executes after it let its caller believe it had not cannot be told from
 * one that was lost: after STREAM_ABSENT_TRIES honest answers "not there" the machine sends the
 * open again, and whichever of the two comes second wipes. Nothing on the wire can prevent that,
 * so what a *late* open wipes is excused, and so is a second execution while the stream is
 * absent (there is nothing to wipe: it was executed, somebody closed it, and the answers say
 * what a lost open says), or while it is what a foreigner opened since: he may do so between the
 * answers that say it is not there and the open that follows from them. */
static void execute_open(struct world *w, int stream, uint64_t life, bool late)
{
    struct up_stream *up = &w->up[stream];
    struct life_facts *f = facts_of(w, stream, life);
    uint32_t wiped = up->exists ? letters(up->entries) : 0;
    const char *at;

    f->opens++;
    f->late_open |= late;
    RULE(w, !up->exists || up->foreign || f->opens == 1 || f->late_open,
         "an open is executed twice in a generation");
    for (at = up->entries; up->exists && *at && !f->late_open; at++)
        RULE(w, *at < 'a' || w->life_of[*at - 'a'] < life, "an open wipes its own generation");
    w->excused |= wiped;
    up->exists = true;
    up->foreign = false;
    snprintf(up->entries, W_TEXT, ".");
}

static void check_place(struct world *w, const struct up_stream *up, char c, bool late)
{
    const char *at;

    for (at = up->history; *at; at++) {
        int y = *at - 'a';

        if (*at < 'a' || late ||
            (w->scrambled & (letters((char[]){c, 0}) | letters((char[]){*at, 0}))))
            continue;
        RULE(w, w->seq[y] < w->seq[c - 'a'] || (w->may_swap[y] & (1u << (c - 'a'))),
             "lines arrive upstream in another order than they were acknowledged in");
    }
}

static void append_line(struct world *w, struct up_stream *up, char c, bool again, bool late)
{
    if (strchr(up->history, c)) {
        RULE(w, late || (again && (w->unsure & letters((char[]){c, 0}))),
             "a line is sent twice although its first answer was not lost");
        w->dups += !late;
    } else {
        check_place(w, up, c, late);
        add_char(up->history, c);
    }
    if (late)
        w->scrambled |= 1u << (c - 'a');
    add_char(up->entries, c);
}

static enum op_outcome execute_lines(struct world *w, int stream, const struct op *op, bool half)
{
    struct up_stream *up = &w->up[stream];
    char text[W_TEXT];
    size_t i, n;

    op_text(op, text);
    n = strlen(text);
    if (w->poison && strchr(text, w->poison))
        return OUT_REJECTED;
    if (!up->exists)
        return OUT_ABSENT;
    if (half)
        n = n / 2;
    for (i = 0; i < n; i++)
        append_line(w, up, text[i], op->again, false);
    return half ? OUT_PARTIAL : OUT_OK;
}

static void add_letters(char *to, const char *from)
{
    for (; *from; from++) {
        if (*from != '.')
            add_char(to, *from);
    }
}

/* A blob is replaced. What it loses may only be of older lives, or what the client itself put there
 * and replaces.
 *
 * One thing more is let pass: lines that were settled because their stream had been silent for
 * so long that it counted as ended, and whose client then comes back and closes it with a
 * snapshot, while upstream has a stream again. The records are gone by then, and the snapshot is
 * the client's own wish. */
static void replace_blob(struct world *w, int stream, const char *text, uint64_t life, bool client)
{
    struct up_stream *up = &w->up[stream];
    uint32_t lost = up->blob ? letters(up->content) & ~letters(text) : 0;
    int i;

    for (i = 0; i < 26; i++) {
        if ((lost & (1u << i)) && w->life_of[i] >= life)
            RULE(w, client && (w->idled || !(w->settled & (1u << i))),
                 "a stored blob loses lines of its own generation");
    }
    w->excused |= lost;
    up->blob = true;
    up->content[0] = '\0';
    add_letters(up->content, text);
}

static enum op_outcome close_one(struct world *w, int stream, const struct op *op, bool snapshot)
{
    struct up_stream *up = &w->up[stream];
    uint64_t life = op->life;

    if (!up->exists)
        return OUT_ABSENT;
    if (snapshot) {
        const struct life *l = w->s[stream] ? stream_head(w->s[stream]) : NULL;

        if (op->close->covers)
            life = l ? l->id : 0;
        replace_blob(w, stream, up->entries, life, op->close->snapshot);
    } else {
        w->excused |= letters(up->entries);
    }
    up->exists = false;
    up->entries[0] = '\0';
    return OUT_OK;
}

static enum op_outcome execute_close(struct world *w, int stream, const struct op *op)
{
    bool snapshot = op->close->snapshot || op->snapshot;
    int i;

    if (!op->close->covers)
        return close_one(w, stream, op, snapshot);
    for (i = 0; i < W_STREAMS; i++)
        close_one(w, i, op, snapshot);
    return OUT_OK;
}

static enum op_outcome execute_blob(struct world *w, int stream, const struct op *op)
{
    struct up_stream *up = &w->up[stream];
    const char *text = str_c(&op->blob->text);

    if (w->refuse_blobs)
        return OUT_REJECTED;
    if (!text[0] || text[0] == '~') {
        RULE(w, !up->blob || !letters(up->content) || up->blob_life < op->blob->life,
             "an empty or headless blob replaces a full one of its generation");
    }
    RULE(w, op->blob->life >= up->blob_life, "a blob of an older generation replaces a newer one");
    replace_blob(w, stream, text, op->blob->life, true);
    up->blob_life = op->blob->life;
    w->in_whole_blob |= letters(text);
    return OUT_OK;
}

/* What the environment is to do: read the blob, add what is not at its end already, store it. */
static enum op_outcome execute_settle(struct world *w, int stream, const struct op *op)
{
    const struct life_facts *f = facts_of(w, stream, op->life);
    struct up_stream *up = &w->up[stream];
    char text[W_TEXT];
    size_t k, n;

    op_text(op, text);
    n = strlen(up->content);
    for (k = strlen(text); k > 0; k--) {
        if (k <= n && memcmp(up->content + n - k, text, k) == 0)
            break;
    }
    /* A snapshot whose outcome a crash hid may have replaced the blob: then better twice than
     * not at all. */
    RULE(w,
         (w->crashed && f->snapshot && f->wholes) ||
             !(letters(text + k) & letters(up->content) & ~w->unsure & ~w->scrambled),
         "lines are settled that the blob has");
    up->blob = true;
    add_letters(up->content, text + k);
    return OUT_OK;
}

enum op_outcome up_execute(struct world *w, int stream, const struct op *op, enum ending how)
{
    enum op_outcome outcome = OUT_OK;

    if (w->bad_credential)
        return how == END_LOST ? OUT_UNKNOWN : OUT_REJECTED;
    switch (op->kind) {
    case OP_OPEN:
        execute_open(w, stream, op->life, false);
        break;
    case OP_LINES:
        outcome = execute_lines(w, stream, op, how == END_HALF);
        break;
    case OP_CLOSE:
        outcome = execute_close(w, stream, op);
        break;
    case OP_BLOB:
        outcome = execute_blob(w, stream, op);
        break;
    case OP_SETTLE:
        outcome = execute_settle(w, stream, op);
        break;
    default:
        break;
    }
    return how == END_LOST ? OUT_UNKNOWN : outcome;
}

/* --- late execution, and others ------------------------------------------------------------- */

void up_postpone(struct world *w, int stream, const struct op *op)
{
    struct late_request *l = w->late;

    while (l < w->late + W_LATE && l->kind != OP_NONE)
        l++;
    ASSERT(l < w->late + W_LATE);
    *l = (struct late_request){.kind = op->kind, .stream = stream, .life = op->life};
    if (op->kind == OP_CLOSE)
        l->snapshot = op->close->snapshot || op->snapshot;
    op_text(op, l->text);
}

static void late_close(struct world *w, struct up_stream *up, bool snapshot)
{
    if (!up->exists)
        return;
    w->excused |= letters(up->entries);
    if (snapshot) {
        w->excused |= letters(up->content);
        up->blob = true;
        up->content[0] = '\0';
        add_letters(up->content, up->entries);
    }
    up->exists = false;
    up->entries[0] = '\0';
}

void world_late(struct world *w, unsigned i)
{
    struct late_request l = w->late[i];
    struct up_stream *up = &w->up[l.stream];
    const char *at;

    w->late[i] = (struct late_request){0};
    switch (l.kind) {
    case OP_OPEN:
        execute_open(w, l.stream, l.life, true);
        break;
    case OP_LINES:
        for (at = l.text; up->exists && *at; at++)
            append_line(w, up, *at, true, true);
        break;
    case OP_CLOSE:
        late_close(w, up, l.snapshot);
        break;
    case OP_BLOB:
        w->excused |= letters(up->content) & ~letters(l.text);
        up->blob = true;
        up->content[0] = '\0';
        add_letters(up->content, l.text);
        w->in_whole_blob |= letters(l.text);
        break;
    default:
        break;
    }
}

void world_foreign(struct world *w, int stream, enum foreign what)
{
    struct up_stream *up = &w->up[stream];

    switch (what) {
    case FOREIGN_OPEN:
        w->excused |= letters(up->entries);
        up->exists = up->foreign = true;
        snprintf(up->entries, W_TEXT, ".");
        break;
    case FOREIGN_WRITE:
        if (up->exists)
            add_char(up->entries, '#');
        break;
    case FOREIGN_SNAPSHOT:
        late_close(w, up, true);
        break;
    case FOREIGN_CLOSE:
        late_close(w, up, false);
        break;
    case FOREIGN_EXPIRE:
        w->excused |= letters(up->entries);
        up->exists = false;
        up->entries[0] = '\0';
        break;
    }
}

/* --- rules on what is sent ------------------------------------------------------------------ */

static const struct stored_record *stored(const struct world *w, int64_t id)
{
    int i;

    for (i = 0; i < W_RECORDS; i++) {
        if (w->store.records[i].used && !w->store.records[i].dead && w->store.records[i].id == id)
            return &w->store.records[i];
    }
    return NULL;
}

static bool row_names(const struct stored_stream *row, uint64_t life)
{
    unsigned i;

    for (i = 0; row->exists && i < row->n_lives; i++) {
        if (row->lives[i] == life)
            return true;
    }
    return false;
}

static void taken_lines(struct world *w, const struct op *op)
{
    char text[W_TEXT];
    size_t i;

    op_text(op, text);
    RULE(w, !op->again || w->crashed || (letters(text) & w->unsure),
         "a batch is called repeated and is not");
    for (i = 0; i < op->n_records; i++) {
        RULE(w, stored(w, op->records[i]->row.id),
             "lines are sent that are not durable, or not any more");
        RULE(w, op->records[i]->life == op->life, "lines of another generation are sent");
    }
}

static bool is_stuck(const struct life *l, int64_t id)
{
    const struct list *heads[] = {&l->stuck.front, &l->stuck.tail};
    const struct list *it;
    int64_t ids[W_RECORDS];
    size_t i;

    for (i = 0; i < ARRAY_LEN(heads); i++) {
        for (it = heads[i]->next; it != heads[i]; it = it->next) {
            if (list_entry(it, struct record, link)->row.id == id)
                return true;
        }
    }
    for (it = l->stuck.pages.next; it != &l->stuck.pages; it = it->next) {
        const struct page *p = list_entry(it, struct page, link);

        page_ids(p, ids);
        for (i = 0; i < p->n; i++) {
            if (ids[i] == id)
                return true;
        }
    }
    return false;
}

static void taken_close(struct world *w, int stream, const struct op *op, struct life_facts *f)
{
    const struct life *l = stream_life(w->s[stream], op->life);
    int i;

    RULE(w, f->closing_durable, "a close is sent before its mark is durable");
    RULE(w, stored(w, op->close->row.id), "a close is sent that is not durable");
    for (i = 0; i < W_RECORDS; i++) {
        const struct stored_record *r = &w->store.records[i];

        if (!r->used || r->dead || r->stream != stream || r->kind != RECORD_LINES ||
            r->id > op->close->row.id)
            continue;
        RULE(w, is_stuck(l, r->id), "a close is sent while lines before it still wait");
    }
    RULE(w,
         op->snapshot || op->close->snapshot || op->close->covers || !f->broken || f->wholes ||
             !f->lines,
         "the close after a broken upload has no snapshot");
    RULE(w, !op->snapshot || !f->wholes, "a snapshot is asked for over a whole blob");
    f->close_taken = true;
}

void oracle_taken(struct world *w, int stream, const struct op *op)
{
    struct life_facts *f;

    if (op->kind == OP_BLOB) {
        RULE(w, stored(w, op->blob->row.id), "a blob is sent that is not durable");
        return;
    }
    if (op->kind == OP_CHECK)
        return;
    RULE(w, op->life >= w->newest_taken[stream], "a generation is gone back to");
    w->newest_taken[stream] = op->life;
    f = facts_of(w, stream, op->life);
    if (op->kind == OP_OPEN || op->kind == OP_LINES)
        RULE(w, !f->close_taken && !f->closing_durable, "something is sent after the close");
    switch (op->kind) {
    case OP_OPEN:
        RULE(w, row_names(&w->store.streams[stream], op->life),
             "an open is sent that is not durable");
        break;
    case OP_LINES:
        taken_lines(w, op);
        break;
    case OP_CLOSE:
        taken_close(w, stream, op, f);
        break;
    default:
        break;
    }
}

/* --- rules on the store --------------------------------------------------------------------- */

/* Conservation (invariant 9), at every durable point. */
void oracle_store(struct world *w)
{
    const int64_t *n = w->store.ledger;
    int64_t lines = 0, blobs = 0;
    int i;

    for (i = 0; i < W_RECORDS; i++) {
        const struct stored_record *r = &w->store.records[i];

        if (!r->used || r->dead)
            continue;
        if (r->kind == RECORD_LINES)
            lines += (int64_t)r->lines;
        blobs += r->kind == RECORD_BLOB;
    }
    RULE(w, n[LEDGER_LINES_SPOOLED] == lines,
         "the ledger's spooled lines are not those in the store");
    RULE(w, n[LEDGER_BLOBS_SPOOLED] == blobs,
         "the ledger's spooled blobs are not those in the store");
    RULE(w,
         n[LEDGER_LINES_ACCEPTED] == n[LEDGER_LINES_DELIVERED] + n[LEDGER_LINES_SPOOLED] +
                                         n[LEDGER_LINES_SUPERSEDED] + n[LEDGER_LINES_SETTLED] +
                                         n[LEDGER_LINES_LATE] + n[LEDGER_LINES_REFUSED] +
                                         n[LEDGER_LINES_DEAD],
         "the ledger of lines does not balance");
    RULE(w,
         n[LEDGER_BLOBS_ACCEPTED] == n[LEDGER_BLOBS_DELIVERED] + n[LEDGER_BLOBS_SPOOLED] +
                                         n[LEDGER_BLOBS_REPEATED] + n[LEDGER_BLOBS_BROKEN] +
                                         n[LEDGER_BLOBS_DEAD],
         "the ledger of blobs does not balance");
    for (i = 0; i < LEDGER_N; i++)
        RULE(w, n[i] >= 0, "a ledger row is below nothing");
}

/* --- the end -------------------------------------------------------------------------------- */

static int count(uint32_t bits)
{
    return __builtin_popcount(bits);
}

static void check_left_over(const struct world *w)
{
    int i;

    for (i = 0; i < W_RECORDS; i++)
        RULE(w, !w->store.records[i].used || w->store.records[i].dead,
             "a record is left in the store for ever");
    for (i = 0; i < W_STREAMS; i++)
        RULE(w, !w->store.streams[i].exists, "a stream is remembered for ever");
    for (i = 0; i < (int)w->n_calls; i++)
        RULE(w, !w->calls[i].used || w->calls[i].answered, "a call is never answered");
    RULE(w, w->unproven == 0, "bytes that nobody can prove are left over");
}

static void check_lines(const struct world *w)
{
    uint32_t all = w->delivered | w->superseded | w->settled | w->dead,
             there = w->excused | w->dead;
    const int64_t *n = w->store.ledger;
    int i;

    for (i = 0; i < W_STREAMS; i++)
        there |= letters(w->up[i].entries) | letters(w->up[i].content);
    RULE(w,
         count(all) ==
             count(w->delivered) + count(w->superseded) + count(w->settled) + count(w->dead),
         "a line is accounted for twice");
    RULE(w, all == w->durable, "an accepted line is not accounted for");
    RULE(w, !(w->acked & ~(all | w->late_lines)), "an acknowledged line is lost");
    RULE(w, !(all & ~there), "a line is accounted for and upstream does not have it");
    RULE(w,
         n[LEDGER_LINES_DELIVERED] == count(w->delivered) &&
             n[LEDGER_LINES_SETTLED] == count(w->settled) &&
             n[LEDGER_LINES_SUPERSEDED] == count(w->superseded) &&
             n[LEDGER_LINES_DEAD] == count(w->dead),
         "the ledger says something else than what happened");
    RULE(w, (uint64_t)n[LEDGER_LINES_RESENT] + w->dups_uncounted >= w->dups,
         "lines were sent again and not counted");
    RULE(w, w->crashed || (uint64_t)n[LEDGER_LINES_RESENT] <= w->resent_most,
         "lines are counted as sent again that were not");
}

void world_finish(struct world *w)
{
    w->bad_credential = false;
    world_run(w);
    world_advance(w, W_IDLE);
    world_run(w);
    world_advance(w, W_EXPIRY);
    world_run(w);
    world_advance(w, W_EXPIRY);
    world_run(w);
    check_left_over(w);
    check_lines(w);
}

/* --- for people ----------------------------------------------------------------------------- */

static void print_letters(const char *name, uint32_t bits)
{
    char c;

    printf(" %s=", name);
    for (c = 'a'; c <= 'z'; c++) {
        if (bits & (1u << (c - 'a')))
            putchar(c);
    }
}

static void print_queue(const struct queue *q)
{
    const struct list *it;
    int64_t ids[W_RECORDS];
    uint32_t i;

    for (it = q->front.next; it != &q->front; it = it->next)
        printf(" %s/%d", str_c(&list_entry(it, struct record, link)->text),
               list_entry(it, struct record, link)->state);
    for (it = q->pages.next; it != &q->pages; it = it->next) {
        const struct page *p = list_entry(it, struct page, link);

        page_ids(p, ids);
        printf(" [");
        for (i = 0; i < p->n; i++)
            printf("%s%lld", i ? " " : "", (long long)ids[i]);
        printf("]%s", p->loading ? "..." : "");
    }
    if (queue_paged(q))
        printf(" |");
    for (it = q->tail.next; it != &q->tail; it = it->next)
        printf(" %s/%d", str_c(&list_entry(it, struct record, link)->text),
               list_entry(it, struct record, link)->state);
}

static void print_life(const struct life *l)
{

    printf("    life %llu: open %d%s%s%s%s lines", (unsigned long long)(l->id % 100000), l->open,
           l->close ? " close" : "", l->closing ? " closing" : "", l->ended ? " ended" : "",
           l->done ? " done" : "");
    print_queue(&l->lines);
    printf(" stuck");
    print_queue(&l->stuck);
    printf("\n");
}

void world_print(const struct world *w)
{
    const struct list *it;
    int i;

    printf("  world:");
    print_letters("durable", w->durable);
    print_letters("acked", w->acked);
    print_letters("delivered", w->delivered);
    print_letters("superseded", w->superseded);
    print_letters("settled", w->settled);
    print_letters("late", w->late_lines);
    print_letters("dead", w->dead);
    print_letters("excused", w->excused);
    printf(" pending=%u\n", w->n_pending);
    for (i = 0; i < W_STREAMS; i++) {
        printf("  upstream %d: %s entries '%s' blob %s '%s'\n", i,
               w->up[i].exists ? "open" : "absent", w->up[i].entries,
               w->up[i].blob ? "stored" : "none", w->up[i].content);
        for (it = w->s[i] ? w->s[i]->lives.next : NULL; it && it != &w->s[i]->lives; it = it->next)
            print_life(list_entry(it, struct life, link));
    }
    for (i = 0; i < W_RECORDS; i++) {
        const struct stored_record *r = &w->store.records[i];

        if (r->used)
            printf("  stored %lld: stream %d kind %d '%s'%s\n", (long long)r->id, r->stream,
                   r->kind, r->text, r->dead ? " dead" : "");
    }
}
