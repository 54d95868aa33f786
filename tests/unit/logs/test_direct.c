/* What may go directly while the spool cannot commit, and what the machine makes of it. */
#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include "logs/stream_priv.h"

static int64_t owed[LEDGER_N];
static struct direct_call under_way;

static enum direct_way asks(struct direct_call c)
{
    c.start_ns = w->now.mono;
    under_way = c;
    return stream_direct_begin(w->s[0], &c, w->now, owed);
}

static enum direct_way asks_open(void)
{
    return asks((struct direct_call){.kind = CALL_OPEN});
}

/* Bodies with the same number are the same. */
static enum direct_way asks_lines(uint64_t body, uint64_t lines)
{
    return asks((struct direct_call){.kind = CALL_LINES, .hash = {body, 1}, .lines = lines});
}

static enum direct_way asks_blob(uint64_t body, bool begins_line)
{
    return asks((struct direct_call){
        .kind = CALL_BLOB, .hash = {body, 2}, .begins_line = begins_line, .empty = !body});
}

static enum direct_way asks_close(bool covers)
{
    return asks((struct direct_call){.kind = CALL_CLOSE, .covers = covers});
}

static void over(enum op_outcome outcome)
{
    stream_direct_end(w->s[0], &under_way, outcome, w->now, owed);
}

static void went(enum direct_way way, enum op_outcome outcome)
{
    assert_int_equal(way, DIRECT_SEND);
    over(outcome);
}

static int set_up_direct(void **state)
{
    memset(owed, 0, sizeof(owed));
    set_up(state);
    begin('o', "");
    world_commit(w, false); /* the stream is known by a call that failed */
    return 0;
}

static void opens_join_one_that_went_directly(void **state)
{
    (void)state;
    assert_int_equal(asks_open(), DIRECT_SEND);
    assert_int_equal(asks((struct direct_call){.kind = CALL_LINES}), DIRECT_NO); /* one at a time */
    under_way = (struct direct_call){.kind = CALL_OPEN};
    over(OUT_OK);
    assert_int_equal(asks_open(), DIRECT_DONE);
    call('o', "");
    nothing_ready();
    restart();
    call('o', "");
    nothing_ready();
}

static void an_open_that_was_not_executed_may_go_again(void **state)
{
    (void)state;
    went(asks_open(), OUT_BUSY);
    went(asks_open(), OUT_NOT_SENT);
    went(asks_open(), OUT_REJECTED);
    assert_int_equal(asks_open(), DIRECT_SEND);
}

static void lines_tell_of_an_open_of_unknown_outcome(void **state)
{
    (void)state;
    went(asks_open(), OUT_UNKNOWN);
    assert_int_equal(asks_open(), DIRECT_NO);
    went(asks_lines(1, 1), OUT_ABSENT);
    assert_int_equal(asks_open(), DIRECT_NO);
    went(asks_lines(1, 1), OUT_OK);
    assert_int_equal(asks_open(), DIRECT_DONE);
}

/* It had not: the machine finds out by its lines, and opens the stream once. */
static void the_machine_goes_on_from_an_open_of_unknown_outcome(void **state)
{
    (void)state;
    went(asks_open(), OUT_PARTIAL);
    call('o', "");
    nothing_ready();
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    upstream(".a", "");
}

static void nothing_goes_past_what_waits(void **state)
{
    (void)state;
    call('o', "");
    assert_int_equal(asks_lines(1, 1), DIRECT_NO);
    request(OP_OPEN, END_WELL);
    call('l', "a");
    assert_int_equal(asks_lines(1, 1), DIRECT_NO);
    assert_int_equal(asks_close(false), DIRECT_NO);
    request(OP_LINES, END_WELL);
    assert_int_equal(asks_close(true), DIRECT_NO); /* others' lines may wait */
    assert_int_equal(asks_lines(1, 1), DIRECT_SEND);
}

static void the_machine_waits_for_what_goes_directly(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    assert_int_equal(asks_lines(1, 2), DIRECT_SEND);
    call('l', "a");
    nothing_ready();
    assert_true(stream_goes_on(w->s[0], w->now, w->now.mono));
    over(OUT_OK);
    assert_int_equal(owed[LEDGER_LINES_ACCEPTED], 2);
    assert_int_equal(owed[LEDGER_LINES_DELIVERED], 2);
    request(OP_LINES, END_WELL);
}

static void lost_lines_are_counted_when_they_come_again(void **state)
{
    (void)state;
    went(asks_lines(1, 3), OUT_UNKNOWN);
    assert_int_equal(owed[LEDGER_LINES_RESENT], 0);
    went(asks_lines(2, 1), OUT_OK);
    assert_int_equal(owed[LEDGER_LINES_RESENT], 0);
    went(asks_lines(1, 3), OUT_OK);
    assert_int_equal(owed[LEDGER_LINES_RESENT], 3);
    assert_int_equal(asks_lines(1, 3), DIRECT_DONE);
    assert_int_equal(asks_lines(2, 1), DIRECT_DONE);
}

static void a_broken_upload_replaces_nothing(void **state)
{
    (void)state;
    went(asks_blob(1, true), OUT_OK);
    assert_int_equal(owed[LEDGER_BLOBS_DELIVERED], 1);
    assert_int_equal(asks_blob(2, false), DIRECT_NO);
    assert_int_equal(asks_blob(0, false), DIRECT_NO);
    assert_int_equal(asks_blob(1, true), DIRECT_DONE);
    assert_int_equal(owed[LEDGER_BLOBS_REPEATED], 1);
    went(asks_blob(3, true), OUT_OK);
}

static void a_closed_stream_stays_closed(void **state)
{
    (void)state;
    went(asks_open(), OUT_OK);
    went(asks_close(false), OUT_OK);
    assert_int_equal(asks_close(false), DIRECT_DONE);
    assert_int_equal(asks_lines(1, 1), DIRECT_NO);
    assert_int_equal(asks_open(), DIRECT_NO); /* it would be held */
    restart();
    nothing_ready();
}

static void lives_do_not_pile_up(void **state)
{
    unsigned n = 0;

    (void)state;
    while (asks_open() == DIRECT_SEND) {
        assert_true(n++ < STREAM_MAX_LIVES);
        over(OUT_OK);
        went(asks_close(false), OUT_OK);
        w->now.wall += w->rules.hold_ns + 1;
    }
    assert_in_range(n, 2, STREAM_MAX_LIVES);
    call('l', "a"); /* late: its stream is closed */
    assert_true(count_lives() <= STREAM_MAX_LIVES);
}

int main(void)
{
#define DIRECT(f) cmocka_unit_test_setup_teardown(f, set_up_direct, tear_down)
    const struct CMUnitTest tests[] = {
        DIRECT(opens_join_one_that_went_directly),
        DIRECT(an_open_that_was_not_executed_may_go_again),
        DIRECT(lines_tell_of_an_open_of_unknown_outcome),
        DIRECT(the_machine_goes_on_from_an_open_of_unknown_outcome),
        DIRECT(nothing_goes_past_what_waits),
        DIRECT(the_machine_waits_for_what_goes_directly),
        DIRECT(lost_lines_are_counted_when_they_come_again),
        DIRECT(a_broken_upload_replaces_nothing),
        DIRECT(a_closed_stream_stays_closed),
        DIRECT(lives_do_not_pile_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
