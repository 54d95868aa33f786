/* A run of a scenario: its clients, what can happen next, and the trace of a run that breaks a
 * rule. */
#include "explore_priv.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/bug.h"
#include "base/xmem.h"

struct path explore_path;

static void skip_to_own(struct run *r, unsigned client)
{
    struct client *c = &r->clients[client];

    while (r->sc->steps[c->next].kind && r->sc->steps[c->next].client != client)
        c->next++;
}

struct run *run_new(const struct scenario *sc)
{
    struct run *r = XNEW(struct run);
    unsigned i;

    r->sc = sc;
    r->w = world_new();
    r->w->refuse_blobs = sc->refuse_blobs;
    r->w->poison = sc->poison;
    if (sc->batch_lines)
        r->w->rules.batch_lines = sc->batch_lines;
    if (sc->page)
        world_page(r->w, sc->page, sc->keep, sc->ahead);
    r->faults = sc->faults + (getenv("EXPLORE_MORE") != NULL); /* by hand, for an hour or so */
    r->crashes = sc->crashes;
    r->holds = sc->holds;
    r->idles = sc->idles;
    for (i = 0; i < RUN_CLIENTS; i++) {
        r->clients[i].call = -1;
        skip_to_own(r, i);
    }
    return r;
}

void run_free(struct run *r)
{
    world_free(r->w);
    xfree(r);
}

uint64_t run_hash(const struct run *r)
{
    uint64_t h = world_hash(r->w);
    unsigned i;

    for (i = 0; i < RUN_CLIENTS; i++) {
        const struct client *c = &r->clients[i];

        h = (h ^ (c->next + 64 * (unsigned)(c->call + 1) + 8192 * (unsigned)c->again +
                  16384 * (unsigned)c->stopped)) *
            0x9e3779b97f4a7c15ULL;
        h ^= h >> 29;
    }
    h = (h ^ (65536 * r->lies + r->faults + 16 * r->crashes + 256 * r->holds + 4096 * r->idles)) *
        0xd6e8feb86659fd93ULL;
    return h ^ (uint64_t)r->last_begun;
}

/* --- clients -------------------------------------------------------------------------------- */

static bool may_call(const struct run *r, unsigned client)
{
    const struct client *c = &r->clients[client];
    const struct step *step = &r->sc->steps[c->next];

    return !c->stopped && c->call < 0 && step->kind && r->begun >= step->after;
}

static void client_call(struct run *r, unsigned client)
{
    struct client *c = &r->clients[client];
    const struct step *step = &r->sc->steps[c->next];
    struct spec spec = {
        .kind = step->kind,
        .text = step->text,
        .stream = step->stream,
        .start_ns = step->early ? r->last_begun : 0,
        .zeros = step->zeros,
        .split = step->split,
        .edge = step->edge,
        .edge_life = step->life,
        .number = step->number,
    };

    if (c->again && step->fail == FAIL_EMPTY) {
        spec.kind = 'e';
        spec.text = "";
    } else if (c->again && step->fail == FAIL_CUT) {
        spec.kind = 'h';
        spec.text = "~";
    }
    if (!c->again)
        r->begun++;
    r->last_begun = r->w->now.mono;
    c->call = world_call(r->w, &spec);
}

/* Clients see their answers at once. */
static void clients_see(struct run *r)
{
    unsigned i;

    for (i = 0; i < RUN_CLIENTS; i++) {
        struct client *c = &r->clients[i];
        const struct step *step = &r->sc->steps[c->next];

        if (c->call < 0 || !r->w->calls[c->call].answered)
            continue;
        if (!r->w->calls[c->call].ok && !c->again && step->fail != FAIL_GO_ON &&
            step->fail != FAIL_STOP) {
            c->again = true;
        } else {
            if (!r->w->calls[c->call].ok && step->fail == FAIL_STOP)
                c->stopped = true;
            c->again = false;
            c->next++;
            skip_to_own(r, i);
        }
        c->call = -1;
    }
}

/* --- what can happen ------------------------------------------------------------------------ */

struct events {
    struct event *out;
    unsigned n;
};

static void add(struct events *e, enum event_type type, int a, int b, int c)
{
    ASSERT(e->n < RUN_EVENTS);
    e->out[e->n++] = (struct event){(uint8_t)type, (uint8_t)a, (uint8_t)b, (uint8_t)c};
}

static void add_endings(const struct run *r, struct events *e, int s, int lane)
{
    const struct op *op = &r->w->inflight[s][lane];
    unsigned may = r->faults ? r->sc->may : 0;

    add(e, EV_END, s, lane, END_WELL);
    if (may & MAY_REFUSE)
        add(e, EV_END, s, lane, END_NOT_SENT);
    if (op->kind == OP_CHECK)
        return;
    if (may & MAY_LOSE) {
        add(e, EV_END, s, lane, END_LOST);
        add(e, EV_END, s, lane, END_UNSENT);
    }
    if ((may & MAY_DELAY) && op->kind != OP_SETTLE)
        add(e, EV_END, s, lane, END_LATE);
    /* as many as are believed make an absence, and nobody can tell it from a true one */
    if ((may & MAY_LIE) && r->lies < STREAM_ABSENT_TRIES - 1 &&
        (op->kind == OP_LINES || op->kind == OP_CLOSE) && r->w->up[s].exists)
        add(e, EV_END, s, lane, END_LIE);
    if ((may & MAY_HALVE) && op->kind == OP_LINES && op->lines > 1 && r->w->up[s].exists)
        add(e, EV_END, s, lane, END_HALF);
}

static void add_crashes(const struct run *r, struct events *e)
{
    unsigned busy = 0, mask, applied;
    int s, lane;

    for (s = 0; s < W_STREAMS; s++) {
        for (lane = 0; lane < LANE_COUNT; lane++) {
            if (r->w->busy[s][lane])
                busy |= 1u << (s * LANE_COUNT + lane);
        }
    }
    for (applied = 0; applied <= r->w->n_pending; applied++) {
        for (mask = busy;; mask = (mask - 1) & busy) {
            add(e, EV_CRASH, (int)applied, (int)mask, 0);
            if (!mask)
                break;
        }
    }
}

static void add_foreign(const struct run *r, struct events *e)
{
    unsigned may = r->sc->may;
    const struct up_stream *up = &r->w->up[0];

    if (may & MAY_OPEN)
        add(e, EV_FOREIGN, FOREIGN_OPEN, 0, 0);
    if (!up->exists)
        return;
    if (may & MAY_WRITE)
        add(e, EV_FOREIGN, FOREIGN_WRITE, 0, 0);
    if (may & MAY_CLOSE)
        add(e, EV_FOREIGN, FOREIGN_CLOSE, 0, 0);
    if (may & MAY_SNAPSHOT)
        add(e, EV_FOREIGN, FOREIGN_SNAPSHOT, 0, 0);
    if (may & MAY_EXPIRE)
        add(e, EV_FOREIGN, FOREIGN_EXPIRE, 0, 0);
}

static void add_requests(const struct run *r, struct events *e)
{
    int s, lane;

    for (s = 0; s < W_STREAMS; s++) {
        for (lane = 0; lane < LANE_COUNT; lane++) {
            if (world_ready(r->w, s, (enum stream_lane)lane))
                add(e, EV_TAKE, s, lane, 0);
            if (r->w->busy[s][lane])
                add_endings(r, e, s, lane);
        }
        if (world_barrier_ready(r->w, s))
            add(e, EV_BARRIER, s, 0, 0);
        if (r->w->reload[s])
            add(e, EV_RELOAD, s, 0, 0);
        if (r->w->reload[s] && r->faults && (r->sc->may & MAY_FAIL_READ))
            add(e, EV_RELOAD, s, 1, 0);
        if (r->w->s[s] && r->w->s[s]->load_failed)
            add(e, EV_SWEEP, 0, 0, 0);
    }
}

/* Clients try again within seconds, not after the idle time (HP §2.6). */
static bool client_retries(const struct run *r)
{
    return r->clients[0].again || r->clients[1].again;
}

unsigned run_events(const struct run *r, struct event out[RUN_EVENTS], bool *progress)
{
    struct events e = {out, 0};
    unsigned i;

    for (i = 0; i < RUN_CLIENTS; i++) {
        if (may_call(r, i))
            add(&e, EV_CALL, (int)i, 0, 0);
    }
    if (r->w->n_pending)
        add(&e, EV_COMMIT, 0, 0, 0);
    add_requests(r, &e);
    for (i = 0; i < W_LATE; i++) {
        if (r->w->late[i].kind != OP_NONE)
            add(&e, EV_LATE, (int)i, 0, 0);
    }
    *progress = e.n > 0;
    if (r->faults && (r->sc->may & MAY_FAIL_COMMIT) && r->w->n_pending &&
        (r->w->pending[0].c->call || r->w->n_pending > 1))
        add(&e, EV_COMMIT, 1, 0, 0);
    if (r->faults)
        add_foreign(r, &e);
    if (r->holds && !r->w->n_pending)
        add(&e, EV_HOLD, 0, 0, 0);
    if (r->idles && !r->w->n_pending && !client_retries(r))
        add(&e, EV_IDLE, 0, 0, 0);
    if (r->crashes)
        add_crashes(r, &e);
    return e.n;
}

void run_apply(struct run *r, struct event e)
{
    switch (e.type) {
    case EV_CALL:
        client_call(r, e.a);
        break;
    case EV_COMMIT:
        r->faults -= e.a;
        world_commit(r->w, !e.a);
        break;
    case EV_TAKE:
        world_take(r->w, e.a, (enum stream_lane)e.b);
        break;
    case EV_END:
        r->faults -= e.c != END_WELL;
        r->lies += e.c == END_LIE;
        world_end(r->w, e.a, (enum stream_lane)e.b, (enum ending)e.c);
        break;
    case EV_LATE:
        world_late(r->w, e.a);
        break;
    case EV_BARRIER:
        world_barrier(r->w, e.a);
        break;
    case EV_RELOAD:
        r->faults -= e.b;
        world_reload(r->w, e.a, !e.b);
        break;
    case EV_SWEEP:
        world_sweep(r->w);
        break;
    case EV_CRASH:
        r->crashes--;
        world_crash(r->w, e.a, e.b);
        r->last_begun = r->w->now.mono; /* no call lives through it */
        break;
    case EV_HOLD:
        r->holds--;
        world_advance(r->w, W_HOLD);
        break;
    case EV_IDLE:
        r->idles--;
        world_advance(r->w, W_IDLE);
        break;
    default:
        r->faults--;
        world_foreign(r->w, 0, (enum foreign)e.a);
        break;
    }
    clients_see(r);
}

/* --- for people ----------------------------------------------------------------------------- */

static const char *const op_names[] = {
    [OP_NONE] = "nothing", [OP_OPEN] = "open",     [OP_LINES] = "lines", [OP_CLOSE] = "close",
    [OP_BLOB] = "blob",    [OP_SETTLE] = "settle", [OP_CHECK] = "check",
};

static const char *const end_names[END_N] = {
    [END_WELL] = "well",
    [END_NOT_SENT] = "not sent",
    [END_BUSY] = "busy",
    [END_LOST] = "executed, answer lost",
    [END_UNSENT] = "not executed, answer lost",
    [END_LATE] = "answer lost, executed later",
    [END_LIE] = "not there (a lie)",
    [END_HALF] = "half stored",
    [END_REJECTED] = "rejected",
    [END_TOO_LARGE] = "too large",
};

void run_describe(const struct run *r, struct event e)
{
    char text[W_TEXT];

    switch (e.type) {
    case EV_CALL:
        printf("call %c '%s'%s by client %u\n", r->sc->steps[r->clients[e.a].next].kind,
               r->sc->steps[r->clients[e.a].next].text ? r->sc->steps[r->clients[e.a].next].text
                                                       : "",
               r->clients[e.a].again ? " again" : "", e.a);
        break;
    case EV_COMMIT:
        printf("commit %s%s\n", e.a ? "fails" : "succeeds",
               r->w->pending[0].c->call ? " (a client waits)" : "");
        break;
    case EV_TAKE:
        printf("take, stream %u lane %u\n", e.a, e.b);
        break;
    case EV_END:
        op_text(&r->w->inflight[e.a][e.b], text);
        printf("%s '%s' of stream %u ends: %s\n", op_names[r->w->inflight[e.a][e.b].kind], text,
               e.a, end_names[e.c]);
        break;
    case EV_LATE:
        printf("late %s '%s' is executed\n", op_names[r->w->late[e.a].kind], r->w->late[e.a].text);
        break;
    case EV_BARRIER:
        printf("barrier of stream %u passed\n", e.a);
        break;
    case EV_RELOAD:
        printf("reading of %u records of stream %u %s\n", (unsigned)r->w->reload[e.a]->n, e.a,
               e.b ? "fails" : "succeeds");
        break;
    case EV_SWEEP:
        printf("sweep\n");
        break;
    case EV_CRASH:
        printf("crash after %u of %u commits, requests executed %x\n", e.a, r->w->n_pending, e.b);
        break;
    case EV_HOLD:
    case EV_IDLE:
        printf("%s time passes\n", e.type == EV_HOLD ? "hold" : "idle");
        break;
    default:
        printf("foreign %u\n", e.a);
        break;
    }
}

static bool replaying;

/* The way to the broken rule once more, aloud. */
static void replay(void)
{
    struct path path = explore_path;
    struct run *r;
    unsigned i;

    if (!path.begin)
        return;
    replaying = true; /* world_broken ends the second time */
    printf("  scenario: %s\n", path.sc->name);
    r = path.begin(path.sc);
    for (i = 0; i < path.n; i++) {
        printf("%3u: ", i);
        run_describe(r, path.events[i]);
        fflush(stdout);
        run_apply(r, path.events[i]);
        if (getenv("EXPLORE_VERBOSE"))
            world_print(r->w);
    }
    world_print(r->w);
    fflush(stdout);
    if (path.finish)
        world_finish(r->w);
    printf("  (it did not happen again)\n");
}

void world_broken(const struct world *w, const char *file, int line, const char *what)
{
    if (!replaying)
        replay();
    replaying = false;
    explore_path.begin = NULL;
    printf("BROKEN: %s (%s:%d)\n", what, file, line);
    world_print(w);
    fflush(stdout);
    fail();
    abort();
}
