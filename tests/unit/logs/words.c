#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct world *w;

int set_up(void **state)
{
    (void)state;
    w = world_new();
    return 0;
}

int tear_down(void **state)
{
    (void)state;
    world_free(w);
    return 0;
}

void world_broken(const struct world *at, const char *file, int line, const char *what)
{
    world_print(at);
    print_error("%s:%d: %s\n", file, line, what);
    fail();
    abort();
}

int begin(char kind, const char *text)
{
    return world_call(w, &(struct spec){.kind = kind, .text = text});
}

bool answered(int call)
{
    return w->calls[call].answered;
}

/* A call that is accepted. */
void call(char kind, const char *text)
{
    int c = begin(kind, text);

    world_commit_all(w);
    assert_true(answered(c));
    assert_true(w->calls[c].ok);
}

/* One request, of that kind, and its end. */
void request(enum op_kind kind, enum ending how)
{
    enum stream_lane lane = kind == OP_BLOB ? LANE_BLOBS : LANE_LINES;

    assert_true(world_ready(w, 0, lane));
    assert_int_equal(world_take(w, 0, lane)->kind, kind);
    world_end(w, 0, lane, how);
    world_commit_all(w);
}

void request_times(enum op_kind kind, enum ending how, unsigned n)
{
    while (n--)
        request(kind, how);
}

void nothing_ready(void)
{
    assert_false(world_ready(w, 0, LANE_LINES));
    assert_false(world_ready(w, 0, LANE_BLOBS));
}

void take_lines(const char *text)
{
    char got[W_TEXT];

    assert_true(world_ready(w, 0, LANE_LINES));
    op_text(world_take(w, 0, LANE_LINES), got);
    assert_int_equal(w->inflight[0][LANE_LINES].kind, OP_LINES);
    assert_string_equal(got, text);
}

void ends(enum ending how)
{
    world_end(w, 0, LANE_LINES, how);
    world_commit_all(w);
}

void ledger(enum ledger_row row, int64_t n)
{
    assert_int_equal(w->store.ledger[row], n);
}

void upstream(const char *entries, const char *content)
{
    assert_string_equal(w->up[0].entries, entries);
    assert_string_equal(w->up[0].content, content);
}

void restart(void)
{
    world_crash(w, w->n_pending, 0);
    world_commit_all(w);
}

unsigned count_lives(void)
{
    const struct list *it;
    unsigned n = 0;

    for (it = w->s[0]->lives.next; it != &w->s[0]->lives; it = it->next)
        n++;
    return n;
}
