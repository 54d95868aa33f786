#include "logs/dead.h"

#include <stdlib.h>
#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "codec/zcodec.h"
#include "logs/blob_body.h"
#include "logs/logs_priv.h"
#include "logs/readback.h"
#include "logs/replay.h"
#include "rt/clock.h"
#include "rt/json.h"
#include "rt/log.h"

enum {
    NOTE_VERSION = 1,
    LIST_USUAL = 100,
    LIST_MAX = 1000,   /* letters looked at for one answer: it holds the reader up */
    CLAIMS_MAX = 1024, /* letters being replayed or dropped at a time */
};

/* --- notes ------------------------------------------------------------------------------------ */

void dead_note_encode(const struct dead_note *n, struct str *out)
{
    wire_put_u8(out, NOTE_VERSION);
    wire_put_u32(out, (uint32_t)n->status);
    wire_put_view(out, n->said);
    wire_put_view(out, n->prefix);
    wire_put_view(out, n->query);
    wire_put_u8(out, n->proven);
    wire_put_u32(out, n->replays);
    wire_put_u64(out, (uint64_t)n->replayed_ns);
    wire_put_u32(out, (uint32_t)n->replay_status);
    wire_put_view(out, n->replay_said);
}

int dead_note_decode(struct view text, struct dead_note *n)
{
    struct wire w = wire_of(text);

    *n = (struct dead_note){0};
    if (wire_u8(&w) != NOTE_VERSION)
        return -1;
    n->status = (int)wire_u32(&w);
    n->said = wire_view(&w);
    n->prefix = wire_view(&w);
    n->query = wire_view(&w);
    n->proven = wire_u8(&w) != 0;
    n->replays = wire_u32(&w);
    n->replayed_ns = (int64_t)wire_u64(&w);
    n->replay_status = (int)wire_u32(&w);
    n->replay_said = wire_view(&w);
    if (!w.failed)
        return 0;
    *n = (struct dead_note){0};
    return -1;
}

static const char said_credential[] = "the credential was not accepted";
static const char said_body[] = "the body was not understood";
static const char said_size[] = "it is too large";

const char *dead_meaning(int status, struct view body)
{
    static const struct {
        const char *word, *meaning;
    } words[] = {
        {"JSON", said_body},
        {"json", said_body},
        {"invalid character", said_body},
        {"cannot unmarshal", said_body},
        {"EOF", said_body},
        {"oken", said_credential},
        {"uthoriz", said_credential},
        {"api key", said_credential},
        {"too large", said_size},
        {"not found", "the stream was not found"},
    };
    size_t i;

    if (status < 300)
        return "";
    if (status == 413)
        return said_size;
    if (status == 401 || status == 403 || status == 407)
        return said_credential;
    for (i = 0; i < ARRAY_LEN(words); i++) {
        if (body.n && memmem(body.p, body.n, words[i].word, strlen(words[i].word)))
            return words[i].meaning;
    }
    return status >= 500 ? "it was in trouble itself" : "";
}

/* --- claims ----------------------------------------------------------------------------------- */

bool dead_claim(struct logs *l, int64_t id)
{
    bool ok = true;
    size_t i;

    pthread_mutex_lock(&l->dead.lock);
    for (i = 0; i < l->dead.n_claims; i++)
        ok = ok && l->dead.claims[i] != id;
    if (ok && l->dead.n_claims < CLAIMS_MAX) {
        if (!l->dead.claims)
            l->dead.claims = xcalloc(CLAIMS_MAX, sizeof(*l->dead.claims));
        l->dead.claims[l->dead.n_claims++] = id;
    } else {
        ok = false;
    }
    pthread_mutex_unlock(&l->dead.lock);
    return ok;
}

void dead_release(struct logs *l, int64_t id)
{
    size_t i;

    pthread_mutex_lock(&l->dead.lock);
    for (i = 0; i < l->dead.n_claims; i++) {
        if (l->dead.claims[i] == id) {
            l->dead.claims[i] = l->dead.claims[--l->dead.n_claims];
            break;
        }
    }
    pthread_mutex_unlock(&l->dead.lock);
}

int64_t dead_id(struct command_call *call)
{
    const char *text = command_part(call, 1);
    char *end;
    long long id = text ? strtoll(text, &end, 10) : 0;

    if (text && *end == '\0' && id > 0 && id < INT64_MAX)
        return id;
    command_fail(call, 400, "a dead letter's id is a number");
    return 0;
}

/* --- one letter as JSON ----------------------------------------------------------------------- */

static const char *kind_name(int kind)
{
    return kind == RECORD_LINES ? "lines" : kind == RECORD_BLOB ? "blob" : "close";
}

/* Of the text, not of what it takes in the spool. */
static uint64_t text_bytes(const struct spool_record_row *row)
{
    struct record *r = record_from_row(row);
    uint64_t bytes = row->size;

    if (r && r->kind == RECORD_LINES)
        bytes = r->size;
    else if (r && r->kind == RECORD_BLOB)
        bytes = r->blob_size;
    record_free(r);
    return bytes;
}

static void add_status(struct json *j, const char *name, int status)
{
    if (status)
        json_int(j, name, status);
    else
        json_nothing(j, name);
}

static void add_letter(struct str *out, const struct spool_dead_row *row, const struct dead_note *n)
{
    const struct spool_record_row *r = &row->record;
    struct json j = json_to(out);

    json_open(&j, NULL, '{');
    json_int(&j, "id", r->id);
    json_text(&j, "account", row->account);
    json_text(&j, "key", row->key);
    json_text(&j, "kind", view_str(kind_name(r->kind)));
    json_uint(&j, "lines", r->lines);
    json_uint(&j, "bytes", text_bytes(r));
    json_text(&j, "reason", row->reason);
    add_status(&j, "status", n->status);
    json_text(&j, "said", n->said.n ? n->said : VIEW_LIT(""));
    json_time(&j, "accepted", r->at_ns);
    json_time(&j, "buried", row->buried_ns);
    json_uint(&j, "replays", n->replays);
    json_time(&j, "replayed", n->replays ? n->replayed_ns : 0);
    add_status(&j, "replay_status", n->replays ? n->replay_status : 0);
    json_text(&j, "replay_said", n->replays && n->replay_said.n ? n->replay_said : VIEW_NONE);
    json_close(&j, '}');
}

/* --- dead: the list --------------------------------------------------------------------------- */

/* Reads one letter or a page of them for a call, and answers in the reader's thread. */
struct dead_read {
    struct spool_read read;
    struct logs *logs;
    struct command_call *call;
    struct str out;
    size_t seen, shown;
    int64_t id; /* the one that is wanted, or the last that was seen */
    bool found;
};

static struct dead_read *dead_read_new(struct logs *l, struct command_call *call)
{
    struct dead_read *d = XNEW(struct dead_read);

    d->logs = l;
    d->call = call;
    return d;
}

static void dead_read_free(struct dead_read *d)
{
    str_fini(&d->read.data);
    str_fini(&d->out);
    xfree(d);
}

static bool is_wanted(struct command_call *call, const char *name, struct view value, bool whole)
{
    const char *want = command_arg(call, name);

    if (!want)
        return true;
    if (whole)
        return view_is(value, want);
    return value.n && memmem(value.p, value.n, want, strlen(want)) != NULL;
}

static void list_row(struct spool_read *read, const struct spool_dead_row *row)
{
    struct dead_read *d = container_of(read, struct dead_read, read);
    struct dead_note n;

    d->seen++;
    d->id = row->record.id;
    dead_note_decode(row->note, &n);
    if (!is_wanted(d->call, "stream", row->key, true) ||
        !is_wanted(d->call, "account", row->account, true) ||
        !(is_wanted(d->call, "reason", row->reason, false) ||
          is_wanted(d->call, "reason", n.said, false)))
        return;
    str_adds(&d->out, d->shown++ ? ",\n" : "{\"letters\":[\n");
    add_letter(&d->out, row, &n);
}

static void list_done(struct spool_read *read)
{
    struct dead_read *d = container_of(read, struct dead_read, read);
    bool more = d->seen == read->dead_max;

    if (read->err.code != ERR_NONE) {
        command_fail(d->call, 500, "%s", read->err.text);
    } else {
        str_adds(&d->out, d->shown ? "],\n\"next\":" : "{\"letters\":[],\n\"next\":");
        if (more)
            str_addf(&d->out, "%lld}\n", (long long)d->id + 1);
        else
            str_adds(&d->out, "null}\n");
        command_reply(d->call, 200, str_view(&d->out));
    }
    dead_read_free(d);
}

static void run_list(void *ctx, struct command_call *call)
{
    struct logs *l = ctx;
    int64_t from = command_number(call, "from", 1, INT64_MAX);
    int64_t max = from ? command_number(call, "limit", LIST_USUAL, LIST_MAX) : 0;
    struct dead_read *d;

    if (!max)
        return;
    d = dead_read_new(l, call);
    d->read.dead_from = from;
    d->read.dead_max = (size_t)max;
    d->read.dead = list_row;
    d->read.done = list_done;
    spool_read(l->spool, &d->read);
}

/* --- explain ---------------------------------------------------------------------------------- */

static void sentence(struct str *out, const struct str *text, bool first)
{
    str_adds(out, first ? "\"" : ",\n\"");
    str_add_json(out, str_view(text));
    str_addc(out, '"');
}

static void add_time(struct str *out, int64_t ns)
{
    char text[25];

    clock_format(ns, text);
    str_adds(out, text);
}

static void say_what(const struct spool_dead_row *row, struct str *s)
{
    const struct spool_record_row *r = &row->record;

    if (r->kind == RECORD_BLOB)
        str_addf(s, "A finished log of %llu bytes", (unsigned long long)text_bytes(r));
    else
        str_addf(s, "%llu line%s (%llu bytes)", (unsigned long long)r->lines,
                 r->lines == 1 ? "" : "s", (unsigned long long)text_bytes(r));
    str_adds(s, " of the stream ");
    str_addv(s, row->key);
    str_adds(s, " of account ");
    str_addv(s, row->account);
    str_adds(s, " was accepted and acknowledged at ");
    add_time(s, r->at_ns);
    str_adds(s, ".");
}

static void say_why(const struct spool_dead_row *row, const struct dead_note *n, struct str *s)
{
    if (n->status) {
        str_addf(s, "Upstream answered %d", n->status);
        if (n->said.n) {
            str_adds(s, " (");
            str_addv(s, n->said);
            str_adds(s, ")");
        }
        str_adds(s, row->record.kind == RECORD_LINES
                        ? " to these lines sent alone, with a credential that it takes"
                        : " to it");
    } else {
        str_adds(s, "It was given up: ");
        str_addv(s, n->said.n ? n->said : row->reason);
    }
    str_adds(s, "; so it was put aside at ");
    add_time(s, row->buried_ns);
    str_adds(s, ", that what came behind it could go on. Nothing was sent of it since");
    if (n->replays) {
        str_addf(s, " but by %u replay%s, the last at ", n->replays, n->replays > 1 ? "s" : "");
        add_time(s, n->replayed_ns);
        if (n->replay_status)
            str_addf(s, ", answered %d", n->replay_status);
        if (n->replay_said.n) {
            str_adds(s, ": ");
            str_addv(s, n->replay_said);
        }
    }
    str_adds(s, ".");
}

static void say_advice(const struct spool_dead_row *row, const struct dead_note *n, struct str *s)
{
    long long id = (long long)row->record.id;
    struct view said = n->replays ? n->replay_said : n->said;

    if (!n->status && !n->replays)
        str_addf(s,
                 "It is damaged. Try tailracectl dead export %lld; then tailracectl dead drop "
                 "%lld --yes.",
                 id, id);
    else if (view_is(said, said_credential))
        str_addf(s,
                 "When a build of this account has brought a credential that upstream takes: "
                 "tailracectl dead replay %lld.",
                 id);
    else if (view_is(said, said_size))
        str_addf(s,
                 "Something on the way has a limit on size. When it is raised: tailracectl dead "
                 "replay %lld; or keep it elsewhere: tailracectl dead export %lld.",
                 id, id);
    else
        str_addf(s,
                 "Look at it: tailracectl dead export %lld. When upstream takes it: tailracectl "
                 "dead replay %lld, which adds it to the stream's stored log and neither opens "
                 "nor closes the stream.",
                 id, id);
}

static void explain_row(struct spool_read *read, const struct spool_dead_row *row)
{
    struct dead_read *d = container_of(read, struct dead_read, read);
    struct str s = STR_INIT;
    struct dead_note n;

    if (row->record.id != d->id)
        return;
    d->found = true;
    dead_note_decode(row->note, &n);
    str_adds(&d->out, "{\"letter\":");
    add_letter(&d->out, row, &n);
    str_adds(&d->out, ",\n\"explanation\":[");
    say_what(row, &s);
    sentence(&d->out, &s, true);
    str_clear(&s);
    say_why(row, &n, &s);
    sentence(&d->out, &s, false);
    str_adds(&d->out, "],\n\"advice\":");
    str_clear(&s);
    say_advice(row, &n, &s);
    sentence(&d->out, &s, true);
    str_adds(&d->out, "}\n");
    str_fini(&s);
}

/* True: it is not there, or could not be read; the call is answered. */
static bool is_missing(const struct dead_read *d, struct command_call *call)
{
    if (d->read.err.code != ERR_NONE)
        command_fail(call, 500, "%s", d->read.err.text);
    else if (!d->found)
        command_fail(call, 404, "there is no dead letter %lld", (long long)d->id);
    else
        return false;
    return true;
}

static void explain_done(struct spool_read *read)
{
    struct dead_read *d = container_of(read, struct dead_read, read);

    if (!is_missing(d, d->call))
        command_reply(d->call, 200, str_view(&d->out));
    dead_read_free(d);
}

static void read_one(struct dead_read *d, int64_t id,
                     void (*row)(struct spool_read *r, const struct spool_dead_row *row),
                     void (*done)(struct spool_read *r))
{
    d->id = id;
    d->read.dead_from = id;
    d->read.dead_max = 1;
    d->read.dead = row;
    d->read.done = done;
    spool_read(d->logs->spool, &d->read);
}

static void run_explain(void *ctx, struct command_call *call)
{
    int64_t id = dead_id(call);

    if (id)
        read_one(dead_read_new(ctx, call), id, explain_row, explain_done);
}

/* --- export ----------------------------------------------------------------------------------- */

/* A letter on its way out: its row, then its body, or its blob piece by piece. */
struct dead_export {
    struct dead_read d;
    struct record *r;
    uint32_t piece; /* the next one */
    bool streaming;
};

static void export_end(struct dead_export *x, bool whole)
{
    command_end(x->d.call, whole);
    record_free(x->r);
    dead_read_free(&x->d); /* the first member */
}

static void export_fail(struct dead_export *x, const char *why)
{
    if (x->streaming) {
        export_end(x, false);
        return;
    }
    command_fail(x->d.call, 500, "%s", why);
    record_free(x->r);
    dead_read_free(&x->d);
}

static void export_read(struct spool_read *read);

static void export_room(void *ctx)
{
    struct dead_export *x = ctx;
    bool lines = x->r->kind == RECORD_LINES;

    if (command_abandoned(x->d.call)) {
        export_end(x, false);
    } else if (lines || x->piece == x->r->pieces) {
        export_end(x, true);
    } else {
        str_fini(&x->d.read.data);
        x->d.read =
            (struct spool_read){.blob = x->r->row.blob, .seq = x->piece++, .done = export_read};
        spool_read(x->d.logs->spool, &x->d.read);
    }
}

static void export_write(struct dead_export *x)
{
    bool lines = x->r->kind == RECORD_LINES;

    if (!x->streaming)
        command_stream(x->d.call, lines ? "application/json" : "application/octet-stream",
                       export_room, x);
    x->streaming = true;
    command_write(x->d.call, str_view(&x->d.out));
}

/* The array that was sent, or what is here of it: a large one is cut into several records. */
static int unpack(struct dead_export *x, struct err *e)
{
    bool lines = x->r->kind == RECORD_LINES;
    size_t max = lines ? (size_t)x->r->size + 2 : BLOB_PIECE_MAX;
    struct str *out = &x->d.out;

    str_clear(out);
    if (lines)
        str_addc(out, '[');
    if (zframe_unpack(str_view(&x->d.read.data), max, out, e) < 0)
        return -1;
    if (lines)
        str_adds(out, "]\n");
    return 0;
}

static void export_read(struct spool_read *read)
{
    struct dead_export *x = container_of(read, struct dead_export, d.read);
    struct err e = read->err;

    if (e.code != ERR_NONE || unpack(x, &e) < 0)
        export_fail(x, e.text);
    else
        export_write(x);
}

static void export_row(struct spool_read *read, const struct spool_dead_row *row)
{
    struct dead_export *x = container_of(read, struct dead_export, d.read);

    if (row->record.id != x->d.id)
        return;
    x->d.found = true;
    x->r = record_from_row(&row->record);
}

static void export_found(struct spool_read *read)
{
    struct dead_export *x = container_of(read, struct dead_export, d.read);

    if (is_missing(&x->d, x->d.call)) {
        dead_read_free(&x->d);
    } else if (!x->r || x->r->kind == RECORD_CLOSE) {
        export_fail(x, "it cannot be understood");
    } else if (x->r->kind == RECORD_BLOB && x->r->pieces == 0) {
        export_write(x);
    } else {
        x->d.read = x->r->kind == RECORD_LINES
                        ? (struct spool_read){.record = x->d.id, .done = export_read}
                        : (struct spool_read){.blob = x->r->row.blob, .done = export_read};
        x->piece = 1;
        spool_read(x->d.logs->spool, &x->d.read);
    }
}

static void run_export(void *ctx, struct command_call *call)
{
    int64_t id = dead_id(call);
    struct dead_export *x;

    if (!id)
        return;
    x = XNEW(struct dead_export);
    x->d.logs = ctx;
    x->d.call = call;
    read_one(&x->d, id, export_row, export_found);
}

/* --- drop ------------------------------------------------------------------------------------- */

static void dropped(void *ctx, const struct err *err)
{
    struct dead_read *d = ctx;

    if (err) {
        command_fail(d->call, 503, "%s", err->text);
    } else {
        log_event(LOG_NOTICE, "spool", "a dead letter was dropped", LF_INT("letter", d->id));
        command_reply(d->call, 200, VIEW_LIT("{\"result\":\"dropped\"}\n"));
    }
    dead_release(d->logs, d->id);
    dead_read_free(d);
}

static void drop_row(struct spool_read *read, const struct spool_dead_row *row)
{
    struct dead_read *d = container_of(read, struct dead_read, read);

    d->found = d->found || row->record.id == d->id;
}

/* The ledger goes on counting it as dead: that is what became of it. */
static void drop_found(struct spool_read *read)
{
    struct dead_read *d = container_of(read, struct dead_read, read);
    struct spool_txn *t;

    if (is_missing(d, d->call)) {
        dead_release(d->logs, d->id);
        dead_read_free(d);
        return;
    }
    t = spool_txn_new();
    spool_txn_delete(t, d->id);
    spool_submit(d->logs->spool, t, dropped, d);
}

static void run_drop(void *ctx, struct command_call *call)
{
    struct logs *l = ctx;
    int64_t id = dead_id(call);

    if (!id)
        return;
    if (!dead_claim(l, id))
        command_fail(call, 409, "the dead letter is being replayed or dropped");
    else
        read_one(dead_read_new(l, call), id, drop_row, drop_found);
}

/* --- registration ----------------------------------------------------------------------------- */

void dead_commands_add(struct logs *l)
{
    static const struct command commands[DEAD_COMMANDS] = {
        {.path = "dead",
         .text = "dead letters: from, limit, stream, account, reason",
         .run = run_list},
        {.path = "dead/*", .text = "one dead letter, explained", .run = run_explain},
        {.path = "dead/*/export",
         .text = "its lines or log, as they came",
         .private = true,
         .run = run_export},
        {.path = "dead/*/replay",
         .kind = COMMAND_ACTION,
         .text = "send it again",
         .run = replay_run},
        {.path = "dead/*/drop", .kind = COMMAND_ACTION, .text = "give it up", .run = run_drop},
    };
    size_t i;

    pthread_mutex_init(&l->dead.lock, NULL);
    for (i = 0; i < DEAD_COMMANDS; i++) {
        l->dead.commands[i] = commands[i];
        l->dead.commands[i].ctx = l;
        command_add(&l->dead.commands[i]);
    }
    l->dead.added = true;
}

void dead_commands_remove(struct logs *l)
{
    size_t i;

    for (i = 0; l->dead.added && i < DEAD_COMMANDS; i++)
        command_remove(&l->dead.commands[i]);
}

void dead_fini(struct logs *l)
{
    dead_commands_remove(l);
    if (!l->dead.added)
        return;
    pthread_mutex_destroy(&l->dead.lock);
    xfree(l->dead.claims);
}
