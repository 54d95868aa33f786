/*
 * What the log service and the stores behind signed links answer, as the log path reads it: links,
 * checksums, what an error means; and the notes of dead letters in the spool, which may be damaged.
 * The first byte chooses.
 */
#include <string.h>
#include "fuzz/target.h"
#include "codec/url.h"
#include "logs/dead.h"
#include "logs/link.h"
#include "logs/shapes.h"

/* A link that is taken can be followed: it is a URL, and nothing in it ends a line or a field. */
static void try_link(struct view in)
{
    struct str link = STR_INIT;
    struct url url;
    struct err e;
    size_t i;

    str_adds(&link, "x");
    if (link_of_answer(in, &link) < 0) {
        ASSERT(link.n == 1);
    } else {
        struct view v = view_from(str_view(&link), 1);

        ASSERT(v.n <= LINK_MAX && url_parse(v, &url, &e) == 0);
        for (i = 0; i < v.n; i++)
            ASSERT(v.p[i] > ' ' && v.p[i] < 0x7f);
        ASSERT(link_same_place(v, v));
    }
    str_fini(&link);
}

static void try_shape(struct view in)
{
    struct str shape = STR_INIT, again = STR_INIT;

    if (shape_of_link(in, &shape) < 0) {
        ASSERT(shape.n == 0);
    } else {
        ASSERT(shape.n > 0 && !memchr(shape.p, '\n', shape.n));
        ASSERT(shape_of_link(in, &again) == 0 && view_eq(str_view(&shape), str_view(&again)));
    }
    str_fini(&shape);
    str_fini(&again);
}

static void try_places(struct view in)
{
    const char *nl = in.n ? memchr(in.p, '\n', in.n) : NULL;
    struct view a = nl ? view_of(in.p, (size_t)(nl - in.p)) : in;
    struct view b = nl ? view_from(in, a.n + 1) : in;

    ASSERT(link_same_place(a, b) == link_same_place(b, a));
}

static void try_checksum(struct view in)
{
    uint32_t crc = 0;
    int i;

    for (i = 0; i < 4; i++)
        crc = crc << 8 | fuzz_byte(&in);
    goog_hash_agrees(in, crc, VIEW_NONE);
    goog_hash_agrees(in, crc, VIEW_LIT("hello"));
}

/* The text is ours, whatever upstream says. */
static void try_meaning(struct view in)
{
    int status = 200 + fuzz_byte(&in) * 2;
    const char *text = dead_meaning(status, in);

    ASSERT(text && strlen(text) < 200);
    link_is_refused(status, in);
}

static bool same_note(const struct dead_note *a, const struct dead_note *b)
{
    return a->status == b->status && view_eq(a->said, b->said) && view_eq(a->prefix, b->prefix) &&
           view_eq(a->query, b->query) && a->proven == b->proven && a->replays == b->replays &&
           a->replayed_ns == b->replayed_ns && a->replay_status == b->replay_status &&
           view_eq(a->replay_said, b->replay_said);
}

static void try_note(struct view in)
{
    static const struct dead_note none;
    struct dead_note note, again;
    struct str text = STR_INIT;

    if (dead_note_decode(in, &note) < 0) {
        ASSERT(same_note(&note, &none));
        return;
    }
    dead_note_encode(&note, &text);
    ASSERT(dead_note_decode(str_view(&text), &again) == 0 && same_note(&note, &again));
    str_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static void (*const tries[])(struct view) = {try_link,     try_shape,   try_places,
                                                 try_checksum, try_meaning, try_note};
    struct view in = view_of(data, n);
    uint8_t which = fuzz_byte(&in);

    tries[which % ARRAY_LEN(tries)](in);
    return 0;
}
