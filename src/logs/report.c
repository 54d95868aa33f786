#include "logs/report.h"

#include <stdlib.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "logs/logs_priv.h"
#include "logs/report_stream.h"
#include "logs/tail.h"
#include "logs/upstreams.h"
#include "rt/clock.h"
#include "rt/json.h"

enum {
    TURN_COST = 4096, /* of one look: streams, and records of theirs that are walked over */
    LIMIT_USUAL = 100,
    LIMIT_MAX = 1000,
    SEARCH_MAX = 256,
    /* What one worker keeps for one listing: keys may be long, and each may take six times as much
     * when it is escaped. Pages are shorter then. */
    PART_BYTES = 4 * 1024 * 1024,
    LISTINGS_MAX = 8, /* under way: each walks over all streams, and anybody may ask */
};

/* --- what is noted for reports ------------------------------------------------------------ */

static const char *meaning_of(const struct op_result *r)
{
    static const char *const meanings[] = {
        [OUT_OK] = "",
        [OUT_NOT_SENT] = "it could not be reached",
        [OUT_UNKNOWN] = "no answer came",
        [OUT_BUSY] = "it asked to be left alone for now",
        [OUT_PARTIAL] = "it was in trouble itself",
        [OUT_ABSENT] = "it does not know the stream",
        [OUT_REJECTED] = "it refused",
        [OUT_TOO_LARGE] = "it is too large",
    };

    return r->said && *r->said ? r->said : meanings[r->outcome];
}

void report_note_result(struct stream *s, const struct op_result *r, int64_t wall)
{
    struct stream_story *st = &s->place.story;

    if (r->outcome == OUT_OK)
        return;
    st->failed_at = wall;
    st->status = r->status;
    st->said = meaning_of(r);
}

void report_note_commit(const struct commit *c)
{
    struct stream_story *st = &c->stream->place.story;
    const struct record *r = list_first(&c->records, struct record, commit_link);

    if (!c->call || !r || r->kind != RECORD_LINES)
        return;
    if (st->life != r->life)
        st->lines = 0;
    st->life = r->life;
    st->lines += (uint64_t)c->ledger[LEDGER_LINES_SPOOLED];
}

void report_note_event(struct stream *s, enum stream_note what)
{
    s->place.story.events |= 1u << what;
    s->place.story.dead += what == NOTE_DEAD;
}

/* --- what is asked for -------------------------------------------------------------------- */

/* A place in the order: that of a stream, or where to go on from. */
struct place {
    uint64_t rank;
    struct str account, key;
};

struct query {
    struct str search; /* in small letters */
    enum report_state state;
    enum report_sort sort;
    size_t limit;
    bool goes_on; /* after `from` */
    struct place from;
};

static int compare_texts(struct view a, struct view b)
{
    int order = a.n && b.n ? memcmp(a.p, b.p, TR_MIN(a.n, b.n)) : 0;

    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int compare_places(uint64_t rank, struct view account, struct view key,
                          const struct place *b)
{
    int order = (rank > b->rank) - (rank < b->rank);

    if (!order)
        order = compare_texts(account, str_view(&b->account));
    return order ? order : compare_texts(key, str_view(&b->key));
}

static void place_fini(struct place *p)
{
    str_fini(&p->account);
    str_fini(&p->key);
}

static int find_word(const char *const *words, size_t n, const char *text)
{
    size_t i;

    for (i = 0; i < n; i++) {
        if (strcmp(words[i], text) == 0)
            return (int)i;
    }
    return -1;
}

/* "RANK-ACCOUNT-KEY", the names in hexadecimal: they may be any bytes. */
static void add_hex(struct str *out, struct view v)
{
    size_t i;

    str_addc(out, '-');
    for (i = 0; i < v.n; i++)
        str_addf(out, "%02x", (unsigned char)v.p[i]);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static const char *read_hex(const char *at, struct str *out)
{
    if (*at++ != '-')
        return NULL;
    for (; *at && *at != '-'; at += 2) {
        int high = hex_digit(at[0]), low = high < 0 ? -1 : hex_digit(at[1]);

        if (low < 0)
            return NULL;
        str_addc(out, (char)(high * 16 + low));
    }
    return at;
}

static bool read_cursor(const char *text, struct place *p)
{
    char *end;

    p->rank = strtoull(text, &end, 16);
    text = end == text ? NULL : read_hex(end, &p->account);
    text = text ? read_hex(text, &p->key) : NULL;
    return text && *text == '\0';
}

static const char *read_query(struct command_call *call, struct query *q)
{
    static const char *const states[] = {"all", "waiting", "open", "closed", "held", "dead"};
    static const char *const sorts[] = {"age", "backlog", "name", "idle", "recent"};
    const char *search = command_arg(call, "search"), *state = command_arg(call, "state");
    const char *sort = command_arg(call, "sort"), *from = command_arg(call, "from");
    int word;

    for (; search && *search; search++)
        str_addc(&q->search, (char)(*search >= 'A' && *search <= 'Z' ? *search + 32 : *search));
    if (q->search.n > SEARCH_MAX)
        return "search is too long";
    word = state ? find_word(states, ARRAY_LEN(states), state) : REPORT_ALL;
    if (word < 0)
        return "state is one of all, waiting, open, closed, held, dead";
    q->state = (enum report_state)word;
    word = sort ? find_word(sorts, ARRAY_LEN(sorts), sort) : REPORT_AGE;
    if (word < 0)
        return "sort is one of age, backlog, name, idle, recent";
    q->sort = (enum report_sort)word;
    q->goes_on = from && *from;
    if (q->goes_on && !read_cursor(from, &q->from))
        return "from is what an earlier answer gave as next";
    return NULL;
}

/* --- one worker's part -------------------------------------------------------------------- */

struct found {
    struct place at;
    struct str json;
    bool last; /* of its worker's, which had no room for those that come next */
};

struct listing;

struct part {
    struct ev_task task;
    struct listing *listing;
    struct shard *sh;
    size_t slot, n_slots; /* where it goes on, in a table of that size */
    bool begun;
    size_t matched, known;
    size_t limit, bytes; /* how many are kept, and what they take */
    bool more;           /* than are kept */
    struct found *found; /* in order after a cut: room for twice the limit */
    size_t n;
};

struct listing {
    struct logs *logs;
    struct command_call *call;
    struct query query;
    atomic_uint left; /* parts */
    unsigned n_parts;
    struct part parts[];
};

static void found_fini(struct found *f)
{
    place_fini(&f->at);
    str_fini(&f->json);
}

static int compare_found(const void *a, const void *b)
{
    const struct found *f = a, *g = b;

    return compare_places(f->at.rank, str_view(&f->at.account), str_view(&f->at.key), &g->at);
}

static size_t found_bytes(const struct found *f)
{
    return f->json.n + f->at.account.n + f->at.key.n;
}

static void drop_last(struct part *p)
{
    p->bytes -= found_bytes(&p->found[--p->n]);
    found_fini(&p->found[p->n]);
    p->more = true;
}

/* Keep the first ones only. */
static void cut(struct part *p, size_t limit)
{
    qsort(p->found, p->n, sizeof(*p->found), compare_found);
    while (p->n > limit)
        drop_last(p);
}

/* Half of the room is free afterwards, or only one is left. */
static void cut_bytes(struct part *p)
{
    cut(p, p->limit);
    while (p->bytes > PART_BYTES / 2 && p->n > 1)
        drop_last(p);
    p->limit = p->n;
}

/* Once it has been cut what comes after its last one need not be kept. */
static bool is_behind(const struct part *p, const struct stream *s, uint64_t rank)
{
    return p->more && compare_places(rank, s->account_v, s->key_v, &p->found[p->limit - 1].at) > 0;
}

static void keep(struct part *p, const struct stream *s, uint64_t rank, struct stream_now now)
{
    struct found *f = &p->found[p->n++];

    *f = (struct found){.at = {.rank = rank}};
    str_addv(&f->at.account, s->account_v);
    str_addv(&f->at.key, s->key_v);
    report_stream_json(s, now, false, &f->json);
    p->bytes += found_bytes(f);
    if (p->bytes > PART_BYTES)
        cut_bytes(p);
    else if (p->n == 2 * p->limit)
        cut(p, p->limit);
}

static void look_at(struct part *p, const struct stream *s, struct stream_now now)
{
    const struct query *q = &p->listing->query;
    uint64_t rank;

    p->known++;
    if (!report_stream_wanted(s, q->state, str_view(&q->search), now.mono))
        return;
    p->matched++;
    rank = report_stream_rank(s, q->sort);
    if (q->goes_on && compare_places(rank, s->account_v, s->key_v, &q->from) <= 0)
        return;
    if (!is_behind(p, s, rank))
        keep(p, s, rank, now);
}

static size_t cost_of(const struct stream *s)
{
    const struct list *it;
    size_t cost = 1;

    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        cost += (queue_count(&l->lines) + queue_count(&l->stuck)) / 16;
    }
    return cost;
}

static void part_clear(struct part *p)
{
    while (p->n)
        found_fini(&p->found[--p->n]);
    p->matched = p->known = p->slot = p->bytes = 0;
    p->limit = p->listing->query.limit;
    p->more = false;
}

/* As much as one turn may cost; whole slots, so that the next turn can go on behind them. The table
 * grows now and then, and its streams change places: then it begins again. True: all were seen. */
static bool part_look(struct part *p)
{
    const struct hmap *map = &p->sh->streams;
    struct stream_now now = shard_now(p->sh);
    size_t cost = 0;

    if (p->n_slots != map->n_slots)
        part_clear(p);
    p->n_slots = map->n_slots;
    for (; p->slot < map->n_slots && cost < TURN_COST; p->slot++, cost++) {
        const struct hnode *n;

        for (n = map->slots[p->slot]; n; n = n->next) {
            const struct stream *s = hmap_entry(n, struct stream, place.node);

            look_at(p, s, now);
            cost += 8 * cost_of(s);
        }
    }
    return p->slot >= map->n_slots;
}

/* --- together ----------------------------------------------------------------------------- */

static void add_next(const struct found *last, struct str *out)
{
    str_addf(out, "\"%llx", (unsigned long long)last->at.rank);
    add_hex(out, str_view(&last->at.account));
    add_hex(out, str_view(&last->at.key));
    str_addc(out, '"');
}

static void add_head(const struct listing *l, struct json *j)
{
    size_t matched = 0, known = 0;
    unsigned i;

    for (i = 0; i < l->n_parts; i++) {
        matched += l->parts[i].matched;
        known += l->parts[i].known;
    }
    json_open(j, NULL, '{');
    json_uint(j, "matched", matched);
    json_uint(j, "known", known);
}

/* Those of a part that had no room end there. */
static void mark_last(struct part *p, size_t limit)
{
    if (p->limit == limit)
        return;
    cut(p, p->limit);
    p->found[p->n - 1].last = true;
}

/* What comes behind the last one of a part may be behind others that it had no room for. */
static size_t sure_ones(const struct part *all)
{
    size_t i;

    for (i = 0; i < all->n; i++) {
        if (all->found[i].last)
            return i + 1;
    }
    return all->n;
}

/* Into the first part's array, which has room for all. */
static struct part *together(struct listing *l)
{
    struct part *all = &l->parts[0];
    unsigned i;

    for (i = 0; i < l->n_parts; i++)
        mark_last(&l->parts[i], l->query.limit);

    for (i = 1; i < l->n_parts; i++) {
        struct part *p = &l->parts[i];

        all->found = xrealloc(all->found, (all->n + p->n + 1) * sizeof(*all->found));
        if (p->n)
            memcpy(all->found + all->n, p->found, p->n * sizeof(*p->found));
        all->n += p->n;
        all->bytes += p->bytes;
        all->more |= p->more;
        p->n = 0;
    }
    cut(all, l->query.limit);
    cut(all, sure_ones(all));
    return all;
}

static void listing_free(struct listing *l)
{
    unsigned i;

    atomic_fetch_sub(&l->logs->n_listings, 1);
    for (i = 0; i < l->n_parts; i++) {
        part_clear(&l->parts[i]);
        xfree(l->parts[i].found);
    }
    str_fini(&l->query.search);
    place_fini(&l->query.from);
    xfree(l);
}

static void listing_answer(struct listing *l)
{
    struct str out = STR_INIT;
    struct json j = json_to(&out);
    struct part *all;
    size_t i;

    add_head(l, &j);
    all = together(l);
    json_name(&j, "next");
    if (all->more && all->n)
        add_next(&all->found[all->n - 1], &out);
    else
        str_adds(&out, "null");
    json_open(&j, "streams", '[');
    for (i = 0; i < all->n; i++) {
        json_name(&j, NULL);
        str_adds(&out, "\n");
        str_addv(&out, str_view(&all->found[i].json));
    }
    json_close(&j, ']');
    json_close(&j, '}');
    str_addc(&out, '\n');
    command_reply(l->call, 200, str_view(&out));
    str_fini(&out);
    listing_free(l);
}

/* In the shard's loop, again and again until all was seen. */
static void part_run(struct ev_task *task)
{
    struct part *p = container_of(task, struct part, task);

    if (!p->begun)
        p->sh->reports++;
    p->begun = true;
    if (!command_abandoned(p->listing->call) && !part_look(p)) {
        ev_post(p->sh->loop, &p->task);
        return;
    }
    p->sh->reports--;
    if (atomic_fetch_sub(&p->listing->left, 1) == 1)
        listing_answer(p->listing);
}

static void listing_start(struct listing *l)
{
    unsigned i, n = l->n_parts;

    atomic_store(&l->left, n);
    for (i = 0; i < n; i++) {
        struct part *p = &l->parts[i];

        p->listing = l;
        p->sh = l->logs->shards[i];
        p->limit = l->query.limit;
        p->found = xcalloc(2 * l->query.limit, sizeof(*p->found));
    }
    for (i = 0; i < n; i++) { /* the last one may free it all */
        l->parts[i].task.run = part_run;
        ev_post(l->logs->shards[i]->loop, &l->parts[i].task);
    }
}

static void run_streams(void *ctx, struct command_call *call)
{
    struct logs *l = ctx;
    struct listing *list = xcalloc(1, sizeof(*list) + l->n_shards * sizeof(list->parts[0]));
    bool many = atomic_fetch_add(&l->n_listings, 1) >= LISTINGS_MAX;
    const char *wrong = many ? NULL : read_query(call, &list->query);
    int64_t limit = many || wrong ? 0 : command_number(call, "limit", LIMIT_USUAL, LIMIT_MAX);

    list->logs = l;
    list->call = call;
    if (!limit) {
        listing_free(list);
        if (many)
            command_fail(call, 503, "streams are being listed for others: try again in a moment");
        else if (wrong)
            command_fail(call, 400, "%s", wrong);
        return;
    }
    list->query.limit = (size_t)limit;
    list->n_parts = l->n_shards;
    listing_start(list);
}

/* --- one stream --------------------------------------------------------------------------- */

struct one {
    struct ev_task task;
    struct shard *sh;
    struct command_call *call;
};

static void one_run(struct ev_task *task)
{
    struct one *o = container_of(task, struct one, task);
    const struct stream *s = shard_find(o->sh, view_str(command_arg(o->call, "account")),
                                        view_str(command_arg(o->call, "key")));
    struct str out = STR_INIT;

    if (s) {
        report_stream_json(s, shard_now(o->sh), true, &out);
        str_addc(&out, '\n');
        command_reply(o->call, 200, str_view(&out));
    } else {
        command_fail(o->call, 404, "there is no such stream, or it is long over");
    }
    str_fini(&out);
    xfree(o);
}

static void run_stream(void *ctx, struct command_call *call)
{
    const char *account = command_arg(call, "account"), *key = command_arg(call, "key");
    struct one *o;

    if (!account || !key) {
        command_fail(call, 400, "which one? account and key are wanted");
        return;
    }
    o = XNEW(struct one);
    o->call = call;
    o->sh = shard_owner(ctx, view_str(account), view_str(key));
    o->task.run = one_run;
    ev_post(o->sh->loop, &o->task);
}

/* --- upstreams, registration -------------------------------------------------------------- */

static void run_upstreams(void *ctx, struct command_call *call)
{
    struct str out = STR_INIT;

    str_adds(&out, "{\"upstreams\":");
    upstreams_json(ctx, &out);
    str_adds(&out, "}\n");
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

void report_commands_add(struct logs *l)
{
    static const struct command commands[REPORT_COMMANDS] = {
        {.path = "streams",
         .text = "streams known: search, state, sort, limit, from",
         .run = run_streams},
        {.path = "stream", .text = "one stream: account, key", .run = run_stream},
        {.path = "upstreams",
         .text = "the log service and object stores, with their limiters",
         .run = run_upstreams},
        {.path = "tail",
         .text = "the lines of a stream as they pass: account, key, last",
         .private = true,
         .run = tail_run},
    };
    size_t i;

    for (i = 0; i < REPORT_COMMANDS; i++) {
        l->reports[i] = commands[i];
        l->reports[i].ctx = l;
        command_add(&l->reports[i]);
    }
    l->reports_added = true;
}

void report_commands_remove(struct logs *l)
{
    size_t i;

    for (i = 0; l->reports_added && i < REPORT_COMMANDS; i++)
        command_remove(&l->reports[i]);
}
