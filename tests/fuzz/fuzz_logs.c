/*
 * What the log path reads of strangers: request targets and fields, tickets, delivery ids, bodies; and of its own spool, which may
 * be damaged: records and stream states. The first byte chooses.
 */
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "fuzz/target.h"
#include "logs/body.h"
#include "logs/stream_priv.h"
#include "logs/target.h"
#include "logs/ticket.h"

static void try_target(struct view in)
{
    const struct h1_field fields[] = {{VIEW_LIT("X-Harness-Token"), VIEW_LIT("t")}};
    struct http_request req = {.method = VIEW_LIT("PUT"), .target = in, .fields = fields, .n_fields = 1};
    struct view prefix = VIEW_NONE, ticket = VIEW_NONE;
    struct target t = {0};
    struct err e = {0};

    target_kind(req.method, in, &prefix, &ticket);
    ASSERT(prefix.n <= in.n && ticket.n <= in.n);
    if (target_parse(&req, &t, &e) == 0) {
        ASSERT(t.account.n > 0 && t.account.n <= TARGET_MAX_ACCOUNT && t.key.n > 0 && t.key.n <= TARGET_MAX_KEY);
        ASSERT(!memchr(t.account.p, '/', t.account.n) && !memchr(t.key.p, '\0', t.key.n));
        ASSERT(!t.query.n || !memchr(t.query.p, ';', t.query.n));
    } else {
        ASSERT(e.text[0]);
    }
    target_fini(&t);
}

static void try_ticket(struct view in)
{
    static const struct aead_key key = {{1, 2, 3}};
    struct str plain = STR_INIT;
    struct ticket t;

    ASSERT(ticket_open(&key, in, &plain, &t) < 0); /* nobody guesses a tag */
    str_fini(&plain);
}

static void free_records(struct list *records)
{
    struct list *it, *tmp;

    list_each (it, tmp, records)
        record_free(list_entry(it, struct record, link));
}

static void try_body(struct view in)
{
    const struct body_rules rules = {.lines = 3, .bytes = 64, .keep_text = true};
    struct list records;
    struct list *it, *tmp;
    uint64_t lines, sum = 0;
    struct err e;

    list_init(&records);
    if (body_to_records(in, &rules, &records, &lines, &e) == 0) {
        list_each (it, tmp, &records) {
            const struct record *r = list_entry(it, struct record, link);

            ASSERT(r->row.lines > 0 && r->row.lines <= rules.lines && r->text.n == r->size);
            sum += r->row.lines;
        }
        ASSERT(sum == lines);
    }
    free_records(&records);
}

static void try_delivery(struct view in)
{
    struct call_part *parts = NULL;
    uint64_t edge, life;
    size_t n = 0;

    if (body_parse_delivery(in, &edge, &life, &parts, &n) < 0)
        return;
    ASSERT(edge && n);
    xfree(parts);
}

static void try_record(struct view in, enum record_kind kind)
{
    struct record *r = record_new(kind);

    if (record_decode(r, in) == 0)
        record_encode(r);
    record_free(r);
}

static void try_state(struct view in)
{
    struct stream_env env = {0};
    struct stream *s = stream_new(&env, VIEW_LIT("a"), VIEW_LIT("k"));
    const struct spool_stream_row row = {.id = 1, .state = in};

    if (stream_decode(s, &row) < 0) {
        stream_free(s);
        return;
    }
    stream_free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct view in;

    if (!size)
        return 0;
    in = view_of(data + 1, size - 1);
    switch (data[0] % 7) {
    case 0:
        try_target(in);
        break;
    case 1:
        try_ticket(in);
        break;
    case 2:
        try_body(in);
        break;
    case 3:
        try_delivery(in);
        break;
    case 4:
        try_record(in, RECORD_LINES);
        break;
    case 5:
        try_record(in, RECORD_CLOSE);
        break;
    default:
        try_state(in);
        break;
    }
    return 0;
}
