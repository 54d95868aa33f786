/* What is in the spool only, one rule after the other. The explorer and the walks page too. */
#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static int set_up_paged(void **state)
{
    set_up(state);
    world_page(w, 2, 1, 1);
    return 0;
}

static const struct life *life(void)
{
    return stream_last(w->s[0]);
}

static void reload(bool ok)
{
    assert_non_null(w->reload[0]);
    world_reload(w, 0, ok);
    world_commit_all(w);
}

/* Upstream is away, and lines of one letter come. */
static void outage(const char *text)
{
    char one[2] = "";

    for (; *text; text++) {
        one[0] = *text;
        call('l', one);
    }
}

static void in_memory(size_t front, size_t paged, size_t tail)
{
    assert_int_equal(life()->lines.n_front, front);
    assert_int_equal(life()->lines.n_paged, paged);
    assert_int_equal(life()->lines.n_tail, tail);
}

static struct stored_record *stored_text(const char *text)
{
    int i = 0;

    while (!w->store.records[i].used || w->store.records[i].dead ||
           strcmp(w->store.records[i].text, text) != 0)
        i++;
    assert_true(i < W_RECORDS);
    return &w->store.records[i];
}

static void test_first_and_last_stay_in_memory(void **state)
{
    (void)state;
    outage("abcdefgh");
    in_memory(1, 6, 1);
    assert_null(w->reload[0]);
    assert_int_equal(stream_backlog_lines(w->s[0]), 8);
    assert_false(stream_quiet(w->s[0]));
    restart();
    in_memory(1, 6, 1);
    assert_int_equal(stream_backlog_lines(w->s[0]), 8);
}

static void test_what_is_new_is_not_paged(void **state)
{
    (void)state;
    w->rules.page_after_ns = 100;
    outage("abcdefgh");
    in_memory(8, 0, 0);
    world_advance(w, 100);
    in_memory(1, 6, 1);
}

static void test_it_is_read_when_lines_flow(void **state)
{
    (void)state;
    call('o', "");
    outage("abcdefgh");
    request(OP_OPEN, END_WELL);
    assert_null(w->reload[0]);
    take_lines("a");
    ends(END_WELL);
    nothing_ready();
    reload(true);
    take_lines("bc");
    assert_non_null(w->reload[0]); /* ahead of its turn, since upstream takes lines */
    ends(END_WELL);
    reload(true);
    world_finish(w);
    ledger(LEDGER_LINES_DELIVERED, 8);
}

static void test_nothing_is_read_while_upstream_is_away(void **state)
{
    (void)state;
    call('o', "");
    outage("abcdefgh");
    request(OP_OPEN, END_WELL);
    take_lines("a");
    ends(END_NOT_SENT);
    assert_null(w->reload[0]);
    in_memory(1, 6, 1);
}

static void test_a_failed_read_is_repeated(void **state)
{
    (void)state;
    call('o', "");
    outage("abcdefgh");
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    reload(false);
    nothing_ready();
    assert_null(w->reload[0]);
    world_sweep(w);
    reload(false);
    world_sweep(w);
    reload(true);
    take_lines("bc");
    ends(END_WELL);
    world_finish(w);
    ledger(LEDGER_LINES_DELIVERED, 8);
}

static void test_a_row_that_is_gone_is_accounted(void **state)
{
    struct stored_record *r;

    (void)state;
    call('o', "");
    outage("abcdef");
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    r = stored_text("c");
    r->used = false; /* as damage would do; the commit that says so must find it again */
    assert_non_null(w->reload[0]);
    world_reload(w, 0, true);
    r->used = true;
    world_commit_all(w);
    ledger(LEDGER_LINES_DEAD, 1);
    assert_int_equal(w->notes[NOTE_DEAD], 1);
    take_lines("b");
    ends(END_WELL);
    world_run(w);
    upstream(".abdef", "");
    ledger(LEDGER_LINES_DELIVERED, 5);
    ledger(LEDGER_LINES_SPOOLED, 0);
}

static void test_a_whole_page_that_is_gone(void **state)
{
    struct stored_record *c, *b;

    (void)state;
    call('o', "");
    outage("abcdef");
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    b = stored_text("b");
    c = stored_text("c");
    b->used = c->used = false;
    world_reload(w, 0, true);
    b->used = c->used = true;
    world_commit_all(w);
    world_run(w);
    upstream(".adef", "");
    ledger(LEDGER_LINES_DEAD, 2);
    ledger(LEDGER_LINES_SPOOLED, 0);
    assert_int_equal(w->unproven, 0);
}

static void test_pages_are_superseded_unread(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    outage("abcdefgh");
    call('b', "abcdefgh");
    call('c', "");
    request(OP_BLOB, END_WELL);
    assert_null(w->reload[0]);
    ledger(LEDGER_LINES_SUPERSEDED, 8);
    ledger(LEDGER_LINES_SPOOLED, 0);
    assert_int_equal(w->unproven, 0);
    request(OP_CLOSE, END_WELL);
    world_finish(w);
}

/* What came behind the blob is not in it. */
static void test_a_page_around_a_blob(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    outage("abc");
    call('b', "abc");
    outage("defghi");
    in_memory(9, 0, 0); /* with a blob there, nothing is paged */
    restart();
    in_memory(1, 6, 2); /* after a restart the numbers say it all */
    call('c', "");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 3);
    world_run(w);
    upstream("", "abc");
    ledger(LEDGER_LINES_SUPERSEDED, 3);
    ledger(LEDGER_LINES_DELIVERED, 6);
}

static void test_stuck_lines_are_paged_and_settled(void **state)
{
    (void)state;
    w->rules.batch_lines = 1;
    outage("abcdefgh");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    world_run(w);
    assert_true(queue_empty(&life()->lines));
    assert_int_equal(queue_count(&life()->stuck), 8);
    assert_int_equal(life()->stuck.n_front, 1);
    restart();
    assert_true(queue_empty(&life()->lines));
    assert_int_equal(queue_count(&life()->stuck), 8);
    assert_true(queue_paged(&life()->stuck));
    call('s', "");
    world_run(w);
    upstream("", "abcdefgh");
    ledger(LEDGER_LINES_SETTLED, 8);
}

/* Some of the records are stuck and the others are not: no page has both. */
static void test_stuck_lines_and_others_after_a_restart(void **state)
{
    (void)state;
    w->rules.batch_lines = 1;
    outage("abcdefghi");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    reload(true);
    request(OP_LINES, END_WELL);
    assert_int_equal(queue_count(&life()->stuck), 2);
    restart();
    assert_int_equal(queue_count(&life()->stuck), 2);
    assert_int_equal(queue_count(&life()->lines), 7);
    restart();
    assert_int_equal(queue_count(&life()->stuck), 2);
    call('s', "");
    world_run(w);
    upstream("", "abcdefghi");
    ledger(LEDGER_LINES_SETTLED, 9);
}

/* The records that stay behind a page are those that a call may go ahead of. */
static void test_a_call_goes_ahead_of_none_that_is_paged(void **state)
{
    int64_t before = w->now.mono;

    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    outage("abcdegh");
    assert_true(queue_paged(&life()->lines));
    world_call(w, &(struct spec){.kind = 'l', .text = "f", .start_ns = before + 1});
    world_commit_all(w);
    restart();
    world_run(w);
    ledger(LEDGER_LINES_DELIVERED, 8);
}

static void test_a_barrier_sees_pages(void **state)
{
    int64_t first;

    (void)state;
    outage("abcdefgh");
    first = stored_text("a")->id;
    assert_false(queue_older(&life()->lines, first));
    assert_true(queue_older(&life()->lines, first + 3));
    assert_true(stream_oldest_ns(w->s[0]) == stored_text("a")->at_ns);
}

int main(void)
{
#define PAGED(f) cmocka_unit_test_setup_teardown(f, set_up_paged, tear_down)
    const struct CMUnitTest tests[] = {
        PAGED(test_first_and_last_stay_in_memory),
        PAGED(test_what_is_new_is_not_paged),
        PAGED(test_it_is_read_when_lines_flow),
        PAGED(test_nothing_is_read_while_upstream_is_away),
        PAGED(test_a_failed_read_is_repeated),
        PAGED(test_a_row_that_is_gone_is_accounted),
        PAGED(test_a_whole_page_that_is_gone),
        PAGED(test_pages_are_superseded_unread),
        PAGED(test_a_page_around_a_blob),
        PAGED(test_stuck_lines_are_paged_and_settled),
        PAGED(test_stuck_lines_and_others_after_a_restart),
        PAGED(test_a_call_goes_ahead_of_none_that_is_paged),
        PAGED(test_a_barrier_sees_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
