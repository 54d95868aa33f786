/* The rules of delivery, one by one: blobs, closes, settling, retries, and what is stored. HP is
 * docs/harness-protocol.md. */
#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* --- uploads -------------------------------------------------------------------------------- */

static void open_with(const char *text)
{
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', text);
    request(OP_LINES, END_WELL);
}

static void test_blob_is_stored(void **state)
{
    (void)state;
    open_with("a");
    call('b', "a");
    request(OP_BLOB, END_WELL);
    call('c', "");
    request(OP_CLOSE, END_WELL);
    upstream("", "a");
    ledger(LEDGER_BLOBS_DELIVERED, 1);
}

static void test_empty_blob_without_lines_is_stored(void **state)
{
    (void)state;
    call('o', "");
    call('e', "");
    call('c', "");
    world_run(w);
    assert_true(w->up[0].blob);
    ledger(LEDGER_BLOBS_DELIVERED, 1);
    ledger(LEDGER_BLOBS_BROKEN, 0);
}

static void broken(char kind, const char *text)
{
    open_with("a");
    call(kind, text);
    assert_int_equal(w->notes[NOTE_BROKEN_BLOB], 1);
    nothing_ready();
    call('c', "");
    assert_true(world_ready(w, 0, LANE_LINES));
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
    world_end(w, 0, LANE_LINES, END_WELL);
    upstream("", "a");
}

static void test_empty_upload_is_broken(void **state)
{
    (void)state;
    broken('e', "");
    ledger(LEDGER_BLOBS_BROKEN, 1);
    ledger(LEDGER_BLOBS_ACCEPTED, 1);
}

static void test_headless_upload_is_broken(void **state)
{
    (void)state;
    broken('h', "~");
}

static void test_broken_upload_is_remembered(void **state)
{
    (void)state;
    open_with("a");
    restart(); /* that lines were seen, too */
    call('e', "");
    restart();
    call('c', "");
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_broken_then_whole(void **state)
{
    (void)state;
    open_with("a");
    call('e', "");
    call('b', "a");
    call('c', "");
    request(OP_BLOB, END_WELL);
    assert_false(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_whole_then_broken(void **state)
{
    (void)state;
    open_with("a");
    call('b', "a");
    request(OP_BLOB, END_WELL);
    call('e', "");
    call('c', "");
    assert_false(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_whole_then_empty_without_lines(void **state)
{
    (void)state;
    call('b', "a"); /* a short step: its open has not returned, its lines were never flushed */
    call('e', "");
    call('h', "~");
    world_run(w);
    restart();
    call('e', "");
    world_run(w);
    upstream("", "a");
    ledger(LEDGER_BLOBS_BROKEN, 3);
}

static void test_whole_fails_then_empty(void **state)
{
    (void)state;
    open_with("a");
    begin('b', "a");
    world_commit(w, false);
    call('e', "");
    call('c', "");
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_a_whole_one_that_may_fail_saves_nothing(void **state)
{
    (void)state;
    open_with("a");
    call('e', "");
    call('c', "");
    begin('b', "a");
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_no_snapshot_is_added_to_a_prefix(void **state)
{
    (void)state;
    open_with("a");
    call('e', "");
    call('p', "");
    assert_true(world_barrier_ready(w, 0));
    world_barrier(w, 0);
    world_commit_all(w);
    assert_false(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_something_else_than_a_log(void **state)
{
    struct spec tar = {.kind = 'h', .text = "~"};

    (void)state;
    world_call(w, &tar); /* a support bundle under a key of its own (HP §1.8) */
    world_commit_all(w);
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_BLOBS_DELIVERED, 1);
}

static void test_same_upload_again(void **state)
{
    (void)state;
    open_with("a");
    call('b', "a");
    call('b', "a");
    ledger(LEDGER_BLOBS_REPEATED, 1);
    request(OP_BLOB, END_WELL);
    nothing_ready();
    call('b', "a");
    nothing_ready();
    ledger(LEDGER_BLOBS_REPEATED, 2);
}

static void test_refused_blob(void **state)
{
    (void)state;
    w->refuse_blobs = true;
    call('o', "");
    call('l', "a");
    call('b', "a");
    call('c', "");
    request(OP_BLOB, END_REJECTED);
    request(OP_OPEN, END_WELL);
    world_take(w, 0, LANE_BLOBS);
    assert_int_equal(w->inflight[0][LANE_BLOBS].kind, OP_CHECK);
    world_end(w, 0, LANE_BLOBS, END_WELL);
    request(OP_BLOB, END_REJECTED);
    ledger(LEDGER_BLOBS_DEAD, 1);
    assert_int_equal(w->notes[NOTE_DEAD], 1);
    request(OP_LINES, END_WELL);
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
    world_end(w, 0, LANE_LINES, END_WELL);
    upstream("", "a");
}

static void test_blob_refused_before_there_were_lines(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('b', "a");
    request(OP_BLOB, END_TOO_LARGE);
    call('l', "a");
    request(OP_LINES, END_WELL);
    call('b', "a"); /* the same again: it would be refused again */
    ledger(LEDGER_BLOBS_REPEATED, 1);
    call('c', "");
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_blob_refused_and_no_lines(void **state)
{
    (void)state;
    call('b', "a");
    request(OP_BLOB, END_TOO_LARGE);
    call('c', "");
    assert_false(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_blob_too_large(void **state)
{
    (void)state;
    open_with("a");
    call('b', "a");
    request(OP_BLOB, END_TOO_LARGE);
    ledger(LEDGER_BLOBS_DEAD, 1);
    call('c', "");
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
}

static void test_blob_goes_beside_lines(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    assert_true(world_ready(w, 0, LANE_LINES));
    assert_true(world_ready(w, 0, LANE_BLOBS));
}

static void test_blob_after_the_close(void **state)
{
    (void)state;
    open_with("a");
    call('c', "");
    request(OP_CLOSE, END_WELL);
    call('b', "a");
    request(OP_BLOB, END_WELL);
    upstream("", "a");
}

static void test_close_and_blob_take_turns(void **state)
{
    (void)state;
    open_with("a");
    call('c', "");
    call('b', "a");
    world_take(w, 0, LANE_BLOBS);
    assert_false(world_ready(w, 0, LANE_LINES));
    world_end(w, 0, LANE_BLOBS, END_LOST);
    world_take(w, 0, LANE_LINES);
    assert_int_equal(w->inflight[0][LANE_LINES].kind, OP_CLOSE);
    assert_false(world_ready(w, 0, LANE_BLOBS));
}

/* --- superseded ----------------------------------------------------------------------------- */

static void test_blob_then_close_supersedes(void **state)
{
    (void)state;
    call('o', "");
    call('l', "ab");
    call('b', "ab");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 0);
    call('c', "");
    ledger(LEDGER_LINES_SUPERSEDED, 2);
    world_run(w);
    upstream("", "ab");
    assert_string_equal(w->up[0].history, "");
}

static void test_close_then_blob_supersedes_in_one_transaction(void **state)
{
    (void)state;
    call('o', "");
    call('l', "ab");
    call('b', "ab");
    call('c', "");
    world_take(w, 0, LANE_BLOBS);
    world_end(w, 0, LANE_BLOBS, END_WELL);
    assert_int_equal(w->n_pending, 1);
    assert_int_equal(w->pending[0].c->ledger[LEDGER_LINES_SUPERSEDED], 2);
    assert_int_equal(w->pending[0].c->ledger[LEDGER_BLOBS_DELIVERED], 1);
}

static void test_a_close_that_may_fail_supersedes_nothing(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    begin('c', "");
    world_take(w, 0, LANE_BLOBS);
    world_end(w, 0, LANE_BLOBS, END_WELL);
    world_commit(w, false);
    world_commit_all(w);
    ledger(LEDGER_LINES_SUPERSEDED, 0);
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
}

static void test_lines_under_way_are_not_superseded(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    take_lines("a");
    call('l', "b");
    call('b', "ab");
    call('c', "");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 1);
    ends(END_WELL);
    ledger(LEDGER_LINES_DELIVERED, 1);
    request(OP_CLOSE, END_WELL);
}

static void test_lines_under_way_that_fail_are_superseded(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    take_lines("a");
    call('b', "a");
    call('c', "");
    request(OP_BLOB, END_WELL);
    ends(END_UNSENT);
    ledger(LEDGER_LINES_SUPERSEDED, 1);
    request(OP_CLOSE, END_WELL);
}

static void test_superseded_after_a_restart(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    request(OP_BLOB, END_WELL);
    restart();
    call('c', "");
    ledger(LEDGER_LINES_SUPERSEDED, 1);
}

static void test_a_snapshot_close_supersedes_nothing(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    request(OP_BLOB, END_WELL);
    call('s', "");
    ledger(LEDGER_LINES_SUPERSEDED, 0);
    world_run(w);
    ledger(LEDGER_LINES_DELIVERED, 1);
}

static void test_lines_after_the_blob_are_delivered(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    call('l', "b");
    call('c', "");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 1);
    request(OP_OPEN, END_WELL);
    take_lines("b");
    ends(END_WELL);
    request(OP_CLOSE, END_WELL);
}

static void test_lines_that_overlap_the_blob_are_in_it(void **state)
{
    int64_t before;

    (void)state;
    call('o', "");
    call('l', "a");
    before = w->now.mono;
    call('b', "ab");
    /* its last flush (HP §2.2) */
    world_call(w, &(struct spec){.kind = 'l', .text = "b", .start_ns = before});
    call('c', "");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 2);
}

/* --- not there, and settling ---------------------------------------------------------------- */

static void test_absent_lines_are_settled_at_the_close(void **state)
{
    (void)state;
    call('l', "ab");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    nothing_ready();
    assert_int_equal(w->note_lines[NOTE_ABSENT], 2);
    call('l', "c");
    request(OP_LINES, END_WELL); /* what follows is offered once */
    nothing_ready();
    call('s', "");
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    request(OP_SETTLE, END_WELL);
    upstream("", "abc");
    ledger(LEDGER_LINES_SETTLED, 3);
}

static void test_absent_lines_are_settled_after_silence(void **state)
{
    (void)state;
    open_with("a");
    world_foreign(w, 0, FOREIGN_SNAPSHOT);
    call('l', "b");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    nothing_ready();
    world_advance(w, W_IDLE);
    world_commit_all(w);
    request(OP_SETTLE, END_LOST);
    request(OP_SETTLE, END_WELL);
    upstream("", "ab");
}

static void test_absent_lines_in_a_blob_are_superseded(void **state)
{
    (void)state;
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    call('b', "a");
    call('c', "");
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_LINES_SUPERSEDED, 1);
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    nothing_ready();
}

static void test_a_blob_on_the_way_is_waited_for(void **state)
{
    (void)state;
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    world_advance(w, W_IDLE);
    world_commit_all(w);
    call('b', "a");
    assert_false(world_ready(w, 0, LANE_LINES));
    request(OP_BLOB, END_WELL);
    world_advance(w, W_IDLE);
    world_commit_all(w);
    ledger(LEDGER_LINES_SUPERSEDED, 1);
}

static void test_a_lie_now_and_then_does_no_harm(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    request_times(OP_LINES, END_LIE, STREAM_ABSENT_TRIES - 1);
    request(OP_LINES, END_WELL);
    upstream(".a", "");
    call('l', "b");
    request_times(OP_LINES, END_LIE, STREAM_ABSENT_TRIES - 1);
    request(OP_LINES, END_WELL);
    upstream(".ab", "");
    ledger(LEDGER_LINES_RESENT, 0);
}

static void test_absent_lines_stay_so_over_a_restart(void **state)
{
    (void)state;
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    restart();
    nothing_ready();
    w->up[0].exists = true; /* somebody opens it */
    call('l', "b");
    take_lines("b");
    ends(END_WELL);
    call('s', "");
    world_run(w);
    upstream("", "ba");
}

static void test_expired_stream_is_reported(void **state)
{
    (void)state;
    open_with("a");
    w->now.wall += W_EXPIRY + 10;
    world_foreign(w, 0, FOREIGN_EXPIRE);
    call('l', "b");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    assert_int_equal(w->notes[NOTE_EXPIRED], 1);
    assert_int_equal(w->notes[NOTE_ABSENT], 0);
}

static void test_settling_waits_for_an_answer(void **state)
{
    (void)state;
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    call('s', "");
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    request(OP_SETTLE, END_BUSY);
    request(OP_SETTLE, END_LIE);
    request(OP_SETTLE, END_WELL);
    ledger(LEDGER_LINES_SETTLED, 1);
}

static void test_settling_refused_for_good(void **state)
{
    (void)state;
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    call('s', "");
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    request(OP_SETTLE, END_REJECTED);
    request(OP_CHECK, END_WELL);
    request(OP_SETTLE, END_REJECTED);
    ledger(LEDGER_LINES_DEAD, 1);
    nothing_ready();
}

/* --- closes --------------------------------------------------------------------------------- */

static void test_second_close_is_answered_only(void **state)
{
    (void)state;
    open_with("a");
    call('s', "");
    call('s', "");
    request(OP_CLOSE, END_WELL);
    call('s', "");
    nothing_ready();
}

static void test_close_not_found_is_repeated(void **state)
{
    (void)state;
    w->rules.close_retry_ns = W_RETRY;
    open_with("a");
    call('s', "");
    request(OP_CLOSE, END_LIE);
    nothing_ready();
    assert_true(stream_ready(w->s[0], LANE_LINES, w->now) == w->now.mono + W_RETRY);
    world_advance(w, W_RETRY);
    request(OP_CLOSE, END_WELL);
    nothing_ready();
    upstream("", "a");
}

static void test_close_of_unknown_outcome(void **state)
{
    (void)state;
    open_with("a");
    call('s', "");
    request(OP_CLOSE, END_LOST);
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    nothing_ready();
    upstream("", "a");
}

static void test_only_the_close_after_a_restart_in_closing(void **state)
{
    (void)state;
    open_with("a");
    call('s', "");
    world_take(w, 0, LANE_LINES);
    world_crash(w, 0, 1);
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES);
    nothing_ready();
}

static void test_close_waits_for_lines_and_blobs(void **state)
{
    (void)state;
    open_with("a");
    call('l', "b");
    call('b', "ab");
    call('s', "");
    take_lines("b");
    ends(END_WELL);
    assert_false(world_ready(w, 0, LANE_LINES));
    request(OP_BLOB, END_WELL);
    request(OP_CLOSE, END_WELL);
}

static void test_close_waits_for_the_marks(void **state)
{
    (void)state;
    open_with("a");
    call('l', "b");
    call('s', "");
    take_lines("b");
    world_end(w, 0, LANE_LINES, END_WELL);
    assert_int_equal(w->n_pending, 1); /* no closing mark behind it yet */
    world_commit(w, true);
    assert_true(w->pending[0].c->closing);
    nothing_ready();
    world_commit(w, true);
    request(OP_CLOSE, END_WELL);
}

static void test_barrier(void **state)
{
    (void)state;
    world_call(w, &(struct spec){.kind = 'o'});
    world_call(w, &(struct spec){.kind = 'l', .text = "a"});
    world_call(w, &(struct spec){.kind = 'q', .stream = 1});
    world_commit_all(w);
    assert_false(world_barrier_ready(w, 1));
    assert_false(world_ready(w, 1, LANE_LINES));
    request(OP_OPEN, END_WELL);
    assert_false(world_barrier_ready(w, 1));
    request(OP_LINES, END_WELL);
    assert_true(world_barrier_ready(w, 1));
    world_run(w);
    upstream("", "a");
}

static void test_barrier_waits_for_an_open(void **state)
{
    (void)state;
    world_call(w, &(struct spec){.kind = 'o'});
    world_call(w, &(struct spec){.kind = 'p', .stream = 1});
    world_commit_all(w);
    assert_false(world_barrier_ready(w, 1));
    request(OP_OPEN, END_WELL);
    assert_true(world_barrier_ready(w, 1));
}

static void test_prefix_may_be_closed_again(void **state)
{
    (void)state;
    call('p', "");
    world_run(w);
    call('p', "");
    assert_true(world_barrier_ready(w, 0));
}

static void test_close_refused(void **state)
{
    (void)state;
    open_with("a");
    call('s', "");
    request(OP_CLOSE, END_REJECTED);
    request(OP_CHECK, END_WELL);
    request(OP_CLOSE, END_REJECTED);
    nothing_ready();
    assert_int_equal(w->notes[NOTE_DEAD], 1);
}

static void test_close_that_failed_is_none(void **state)
{
    (void)state;
    open_with("a");
    begin('c', "");
    begin('l', "b"); /* stores the row while the close is under way */
    world_commit(w, false);
    world_commit(w, true);
    restart();
    call('l', "c");
    world_run(w);
    upstream(".abc", "");
}

static void test_truncation_is_reported(void **state)
{
    (void)state;
    w->rules.snapshot_lines = 2;
    open_with("abc");
    call('s', "");
    request(OP_CLOSE, END_WELL);
    assert_int_equal(w->note_lines[NOTE_TRUNCATED], 1);
}

/* --- refusals ------------------------------------------------------------------------------- */

static void test_refused_batch_goes_one_by_one(void **state)
{
    (void)state;
    w->up[0].exists = true;
    w->poison = 'b';
    call('l', "a");
    call('l', "b");
    call('l', "c");
    request(OP_LINES, END_WELL);
    request(OP_CHECK, END_WELL);
    request(OP_LINES, END_WELL); /* the request is at fault */
    take_lines("a");
    ends(END_WELL);
    take_lines("b");
    ends(END_WELL);
    request(OP_CHECK, END_WELL);
    take_lines("b");
    ends(END_WELL);
    ledger(LEDGER_LINES_DEAD, 1);
    take_lines("c");
    ends(END_WELL);
    upstream("ac", "");
}

static void test_too_large_batch_goes_one_by_one(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    call('l', "b");
    request(OP_LINES, END_TOO_LARGE);
    take_lines("a");
    ends(END_TOO_LARGE);
    ledger(LEDGER_LINES_DEAD, 1);
    take_lines("b");
    ends(END_WELL);
    call('l', "c");
    call('l', "d");
    take_lines("cd");
}

/* Answered 500 for ever, while the lines of others are taken. */
static void test_lines_that_fail_for_ever_are_set_aside(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    call('l', "b");
    w->others_at = INT64_MAX;
    request_times(OP_LINES, END_HALF, STREAM_FAILED_SPLIT);
    take_lines("a");
    ends(END_WELL);
    call('l', "c");
    request_times(OP_LINES, END_HALF, STREAM_FAILED_TRIES - 1);
    assert_int_equal(w->notes[NOTE_ASIDE], 0);
    take_lines("b");
    ends(END_HALF);
    assert_int_equal(w->notes[NOTE_ASIDE], 1);
    ledger(LEDGER_LINES_DEAD, 0);
    take_lines("c");
    ends(END_WELL);
    call('c', "");
    request(OP_CLOSE, END_WELL);
    request(OP_SETTLE, END_WELL);
    ledger(LEDGER_LINES_SETTLED, 1);
    ledger(LEDGER_LINES_SPOOLED, 0);
    assert_non_null(strchr(w->up[0].content, 'b'));
}

/* A blob at which the service or the store fails for ever would hold the close of its stream. */
static void test_a_blob_that_fails_for_ever_is_buried(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    request(OP_LINES, END_WELL);
    w->failing = true;
    w->rules.failed_blob_ns = 1000;
    call('b', "a");
    call('c', "");
    request_times(OP_BLOB, END_BUSY, 5 * STREAM_FAILED_BLOB); /* an outage */
    w->others_at = w->now.mono + 1;
    request(OP_BLOB, END_BUSY); /* not in haste */
    w->now.mono += 1001;
    assert_false(world_ready(w, 0, LANE_LINES));
    request(OP_BLOB, END_BUSY);
    ledger(LEDGER_BLOBS_DEAD, 1);
    assert_true(world_take(w, 0, LANE_LINES)->snapshot);
    assert_int_equal(w->inflight[0][LANE_LINES].kind, OP_CLOSE);
    ends(END_WELL);
    ledger(LEDGER_BLOBS_SPOOLED, 0);
    upstream("", "a");
}

static void test_a_blob_that_fails_with_all_others_waits(void **state)
{
    (void)state;
    w->failing = true;
    call('b', "a");
    request_times(OP_BLOB, END_BUSY, 5 * STREAM_FAILED_BLOB);
    w->now.mono += 48 * 3600 * INT64_C(1000000000);
    request(OP_BLOB, END_BUSY);
    ledger(LEDGER_BLOBS_DEAD, 0);
    request(OP_BLOB, END_WELL);
    ledger(LEDGER_BLOBS_DELIVERED, 1);
}

/* Then its lines are kept for the finished log. */
static void test_an_open_that_fails_for_ever_is_left_out(void **state)
{
    (void)state;
    w->failing = true;
    call('o', "");
    call('l', "a");
    request_times(OP_OPEN, END_BUSY, 5 * STREAM_FAILED_TRIES);
    w->others_at = INT64_MAX;
    request(OP_OPEN, END_BUSY);
    assert_int_equal(w->notes[NOTE_ASIDE], 1);
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    call('c', "");
    request(OP_CLOSE, END_WELL);
    request_times(OP_CLOSE, END_WELL, STREAM_CLOSE_TRIES - 1);
    request(OP_SETTLE, END_WELL);
    ledger(LEDGER_LINES_SETTLED, 1);
}

/* When nobody's lines are taken, it is the service: patience, for as long as the rules say. */
static void test_lines_that_fail_with_all_others_wait(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    call('l', "b");
    request_times(OP_LINES, END_HALF, 5 * STREAM_FAILED_TRIES);
    take_lines("ab");
    w->now.mono += w->rules.failed_alone_ns;
    ends(END_HALF);
    take_lines("a");
    ends(END_WELL);
    request_times(OP_LINES, END_HALF, 5 * STREAM_FAILED_TRIES);
    assert_int_equal(w->notes[NOTE_ASIDE], 0);
    w->now.mono += w->rules.failed_alone_ns;
    request(OP_LINES, END_HALF);
    assert_int_equal(w->notes[NOTE_ASIDE], 1);
}

static void test_refused_credential_buries_nothing(void **state)
{
    (void)state;
    w->up[0].exists = true;
    w->bad_credential = true;
    call('l', "a");
    request(OP_LINES, END_WELL);
    world_take(w, 0, LANE_LINES);
    assert_int_equal(w->inflight[0][LANE_LINES].kind, OP_CHECK);
    stream_hold(w->s[0], INT64_MAX - 1);
    world_end(w, 0, LANE_LINES, END_WELL);
    nothing_ready();
    w->bad_credential = false;
    stream_hold(w->s[0], 0);
    request(OP_LINES, END_WELL);
    ledger(LEDGER_LINES_DELIVERED, 1);
}

static void test_a_credential_is_asked_for_again(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    request(OP_LINES, END_REJECTED);
    request(OP_CHECK, END_WELL);
    request(OP_LINES, END_BUSY); /* for two days */
    request(OP_LINES, END_REJECTED);
    request(OP_CHECK, END_WELL);
    ledger(LEDGER_LINES_DEAD, 0);
}

/* --- retries -------------------------------------------------------------------------------- */

static void test_retry_keeps_the_batch(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    call('l', "b");
    take_lines("ab");
    call('l', "c");
    ends(END_HALF);
    take_lines("ab");
    assert_true(w->inflight[0][LANE_LINES].again);
    ends(END_WELL);
    ledger(LEDGER_LINES_RESENT, 2);
    take_lines("c");
    assert_false(w->inflight[0][LANE_LINES].again);
    ends(END_WELL);
    upstream("aabc", "");
}

static void test_what_was_not_executed_is_not_resent(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    request(OP_LINES, END_NOT_SENT);
    request(OP_LINES, END_BUSY);
    request(OP_LINES, END_WELL);
    ledger(LEDGER_LINES_RESENT, 0);
}

static void test_resent_is_counted_though_a_try_was_refused(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    request(OP_LINES, END_LOST);
    request(OP_LINES, END_BUSY);
    request(OP_LINES, END_NOT_SENT);
    request(OP_LINES, END_WELL);
    ledger(LEDGER_LINES_RESENT, 1);
    upstream("aa", "");
}

static void test_one_batch_is_resent_after_a_crash(void **state)
{
    (void)state;
    w->up[0].exists = true;
    w->rules.batch_lines = 1;
    call('l', "a");
    call('l', "b");
    take_lines("a");
    world_end(w, 0, LANE_LINES, END_WELL);
    assert_false(world_ready(w, 0, LANE_LINES)); /* its mark is not durable */
    world_crash(w, 0, 0);
    take_lines("a");
    ends(END_WELL);
    ledger(LEDGER_LINES_RESENT, 1);
    take_lines("b");
    ends(END_WELL);
    ledger(LEDGER_LINES_RESENT, 1);
    upstream("aab", "");
}

static void test_batch_limits(void **state)
{
    (void)state;
    w->up[0].exists = true;
    w->rules.batch_lines = 4;
    w->rules.batch_bytes = 3;
    call('l', "ab");
    call('l', "c");
    call('l', "d");
    call('l', "efghi"); /* alone it goes all the same */
    take_lines("abc");
    ends(END_WELL);
    take_lines("d");
    ends(END_WELL);
    take_lines("efghi");
}

static void test_lines_of_a_busy_stream_gather(void **state)
{
    int64_t sent;

    (void)state;
    w->up[0].exists = true;
    w->rules.batch_delay_ns = 50;
    w->rules.batch_lines = 3;
    call('l', "a"); /* a quiet stream's go at once */
    sent = w->now.mono;
    request(OP_LINES, END_WELL);
    call('l', "b");
    nothing_ready();
    assert_true(stream_ready(w->s[0], LANE_LINES, w->now) == sent + 50);
    call('l', "cd"); /* a full batch does not wait */
    take_lines("bcd");
    ends(END_WELL);
    call('l', "e");
    nothing_ready();
    call('s', ""); /* nor do the last ones */
    take_lines("e");
}

static void test_backoff(void **state)
{
    int64_t most = 0, at;
    int i;

    (void)state;
    w->up[0].exists = true;
    w->rules.backoff_ns = 100;
    w->rules.backoff_max_ns = 1000;
    call('l', "a");
    for (i = 0; i < 200; i++) {
        world_take(w, 0, LANE_LINES);
        world_end(w, 0, LANE_LINES, END_BUSY);
        at = stream_ready(w->s[0], LANE_LINES, w->now);
        at = at ? at - w->now.mono : 0;
        assert_in_range(at, 0, i == 0 ? 100 : i == 1 ? 200 : i == 2 ? 400 : 1000);
        most = TR_MAX(most, at);
        world_advance(w, at);
    }
    assert_in_range(most, 800, 1000);
}

static void test_retry_after(void **state)
{
    struct op_result r = {.outcome = OUT_BUSY, .retry_after_ns = 777};

    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    world_take(w, 0, LANE_LINES);
    w->busy[0][LANE_LINES] = false;
    stream_result(w->s[0], LANE_LINES, &r, w->now);
    assert_true(stream_ready(w->s[0], LANE_LINES, w->now) == w->now.mono + 777);
}

/* --- forgetting and storing ----------------------------------------------------------------- */

static void test_forgotten_when_nothing_is_left(void **state)
{
    (void)state;
    open_with("a");
    call('c', "");
    request(OP_CLOSE, END_WELL);
    world_advance(w, W_IDLE - 10);
    assert_int_equal(w->n_pending, 0);
    world_advance(w, 10);
    world_commit_all(w);
    assert_null(w->s[0]);
    assert_false(w->store.streams[0].exists);
}

static void test_ended_by_silence_is_remembered_longer(void **state)
{
    (void)state;
    open_with("a");
    world_advance(w, W_IDLE);
    world_commit_all(w);
    world_advance(w, W_IDLE);
    world_commit_all(w);
    assert_non_null(w->s[0]);
    world_advance(w, W_EXPIRY);
    world_commit_all(w);
    assert_null(w->s[0]);
}

static void test_call_while_being_forgotten(void **state)
{
    (void)state;
    open_with("a");
    call('c', "");
    request(OP_CLOSE, END_WELL);
    world_advance(w, W_IDLE);
    assert_int_equal(w->n_pending, 1);
    call('l', "b"); /* as if it had come a moment later */
    assert_int_equal(w->notes[NOTE_LATE], 0);
    assert_non_null(w->s[0]);
    assert_true(w->store.streams[0].exists);
    restart();
    take_lines("b");
}

static void test_numbers_begin_again_with_the_row(void **state)
{
    (void)state;
    call('l', "a");
    call('b', "a");
    w->up[0].exists = true;
    world_run(w);
    world_advance(w, W_IDLE);
    world_run(w);
    world_advance(w, W_EXPIRY);
    assert_int_equal(w->n_pending, 1);
    begin('l', "b");
    world_commit_all(w); /* its number is below the old blob's */
    world_foreign(w, 0, FOREIGN_EXPIRE);
    world_run(w);
    world_advance(w, W_IDLE);
    world_run(w);
    upstream("", "ab");
    ledger(LEDGER_LINES_SETTLED, 1);
    ledger(LEDGER_LINES_SUPERSEDED, 0);
}

static void test_forgetting_that_is_repeated_after_a_call(void **state)
{
    (void)state;
    open_with("a");
    call('c', "");
    request(OP_CLOSE, END_WELL);
    world_advance(w, W_IDLE);
    begin('o', "");
    begin('l', "b");
    world_commit(w, false); /* the forgetting: it goes behind */
    world_commit_all(w);
    assert_true(w->store.streams[0].exists);
    restart();
    world_run(w);
    upstream(".b", "");
}

static void test_questions(void **state)
{
    (void)state;
    call('l', "abc");
    assert_int_equal(stream_backlog_lines(w->s[0]), 3);
    assert_true(stream_oldest_ns(w->s[0]) == w->now.wall);
    assert_false(stream_quiet(w->s[0]));
    w->up[0].exists = true;
    world_run(w);
    assert_int_equal(stream_backlog_lines(w->s[0]), 0);
    assert_true(stream_oldest_ns(w->s[0]) == 0);
    assert_true(stream_quiet(w->s[0]));
}

static void crowded(void)
{
    call('o', "");
    call('l', "ab");
    call('b', "ab");
    call('c', "");
    world_advance(w, W_HOLD);
    call('o', "");
    call('l', "c");
    world_call(w,
               &(struct spec){
                   .kind = 'l', .text = "d", .split = 1, .edge = 9, .edge_life = 3, .number = 5});
    call('e', "");
    call('s', "");
    call('o', "");
}

static void test_state_round_trip(void **state)
{
    struct stream *copy = stream_new(&w->env, VIEW_LIT("acc"), VIEW_LIT("k0"));
    struct spool_stream_row row = {.id = 1, .next = 9};
    struct str first = STR_INIT, second = STR_INIT;

    (void)state;
    crowded();
    stream_encode(w->s[0], &first);
    row.state = str_view(&first);
    assert_int_equal(stream_decode(copy, &row), 0);
    stream_encode(copy, &second);
    assert_true(view_eq(str_view(&first), str_view(&second)));
    stream_free(copy);
    str_fini(&first);
    str_fini(&second);
}

static void test_cut_state_is_not_understood(void **state)
{
    struct spool_stream_row row = {.id = 1, .next = 9};
    struct str whole = STR_INIT;
    size_t n;

    (void)state;
    crowded();
    stream_encode(w->s[0], &whole);
    for (n = 0; n < whole.n; n++) {
        struct stream *s = stream_new(&w->env, VIEW_LIT("acc"), VIEW_LIT("k0"));

        row.state = view_of(whole.p, n);
        assert_int_equal(stream_decode(s, &row), -1);
        stream_free(s);
    }
    str_fini(&whole);
}

static void test_records_of_a_state_that_is_not_understood(void **state)
{
    struct stream *s = stream_new(&w->env, VIEW_LIT("acc"), VIEW_LIT("k0"));
    struct spool_stream_row row = {.id = 1, .next = 3, .state = VIEW_LIT("\377")};
    enum record_kind kinds[] = {RECORD_BLOB, RECORD_LINES, RECORD_CLOSE};
    struct op op;
    size_t i;

    (void)state;
    assert_int_equal(stream_decode(s, &row), -1);
    for (i = 0; i < ARRAY_LEN(kinds); i++) {
        struct record *r = record_new(kinds[i]);

        r->life = 77;
        r->row.number = i;
        r->row.id = (int64_t)i + 1;
        r->row.lines = kinds[i] == RECORD_LINES;
        stream_recover_record(s, r);
    }
    w->s[0] = s;
    stream_recovered(s, w->now);
    assert_true(stream_ready(s, LANE_BLOBS, w->now) == 0);
    assert_true(stream_ready(s, LANE_LINES, w->now) == 0);
    stream_take(s, LANE_LINES, &op);
    assert_int_equal(op.kind, OP_LINES); /* and no open */
    stream_take(s, LANE_BLOBS, &op);
    assert_int_equal(op.kind, OP_BLOB);
}

static void fill_by_kind(struct record *r)
{
    if (r->kind == RECORD_LINES) {
        r->edge = 10;
        r->edge_life = 11;
        r->edge_number = 12;
        r->size = 13;
        r->pos_min = -14;
        r->pos_max = 15;
    } else if (r->kind == RECORD_BLOB) {
        r->blob_size = 16;
        r->pieces = 17;
    } else {
        str_adds(&r->query, "accountID=x&key=y");
    }
}

static void test_record_round_trip(void **state)
{
    enum record_kind kinds[] = {RECORD_LINES, RECORD_BLOB, RECORD_CLOSE};
    size_t i, n;

    (void)state;
    for (i = 0; i < ARRAY_LEN(kinds); i++) {
        struct record *a = record_new(kinds[i]), *b = record_new(kinds[i]);

        a->life = 5;
        a->cred = 6;
        a->ahead = 7;
        a->ahead_above = 70;
        a->hashed = a->by_link = a->compressed = a->snapshot = a->covers = a->log = true;
        a->hash = (struct body_hash){8, 9};
        fill_by_kind(a);
        record_encode(a);
        assert_int_equal(record_decode(b, a->row.meta), 0);
        record_encode(b);
        assert_true(view_eq(a->row.meta, b->row.meta));
        assert_true(b->life == 5 && b->cred == 6 && b->ahead == 7 && b->hash.hi == 9);
        assert_true(a->kind != RECORD_LINES || (b->edge_number == 12 && b->pos_max == 15));
        assert_true(a->kind != RECORD_BLOB || (b->blob_size == 16 && b->pieces == 17));
        assert_true(a->kind != RECORD_CLOSE || b->query.n == 17);
        assert_true(b->hashed && b->by_link && b->compressed && b->snapshot && b->covers && b->log);
        for (n = 0; n < a->row.meta.n; n++) {
            struct record *cut = record_new(kinds[i]);

            assert_int_equal(record_decode(cut, view_of(a->row.meta.p, n)), -1);
            record_free(cut);
        }
        record_free(a);
        record_free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_blob_is_stored),
        TEST(test_empty_blob_without_lines_is_stored),
        TEST(test_empty_upload_is_broken),
        TEST(test_headless_upload_is_broken),
        TEST(test_broken_upload_is_remembered),
        TEST(test_broken_then_whole),
        TEST(test_whole_then_broken),
        TEST(test_whole_then_empty_without_lines),
        TEST(test_whole_fails_then_empty),
        TEST(test_a_whole_one_that_may_fail_saves_nothing),
        TEST(test_no_snapshot_is_added_to_a_prefix),
        TEST(test_something_else_than_a_log),
        TEST(test_same_upload_again),
        TEST(test_refused_blob),
        TEST(test_blob_refused_before_there_were_lines),
        TEST(test_blob_refused_and_no_lines),
        TEST(test_blob_too_large),
        TEST(test_blob_goes_beside_lines),
        TEST(test_blob_after_the_close),
        TEST(test_close_and_blob_take_turns),
        TEST(test_blob_then_close_supersedes),
        TEST(test_close_then_blob_supersedes_in_one_transaction),
        TEST(test_a_close_that_may_fail_supersedes_nothing),
        TEST(test_lines_under_way_are_not_superseded),
        TEST(test_lines_under_way_that_fail_are_superseded),
        TEST(test_superseded_after_a_restart),
        TEST(test_a_snapshot_close_supersedes_nothing),
        TEST(test_lines_after_the_blob_are_delivered),
        TEST(test_lines_that_overlap_the_blob_are_in_it),
        TEST(test_absent_lines_are_settled_at_the_close),
        TEST(test_absent_lines_are_settled_after_silence),
        TEST(test_absent_lines_in_a_blob_are_superseded),
        TEST(test_a_blob_on_the_way_is_waited_for),
        TEST(test_a_lie_now_and_then_does_no_harm),
        TEST(test_absent_lines_stay_so_over_a_restart),
        TEST(test_expired_stream_is_reported),
        TEST(test_settling_waits_for_an_answer),
        TEST(test_settling_refused_for_good),
        TEST(test_second_close_is_answered_only),
        TEST(test_close_not_found_is_repeated),
        TEST(test_close_of_unknown_outcome),
        TEST(test_only_the_close_after_a_restart_in_closing),
        TEST(test_close_waits_for_lines_and_blobs),
        TEST(test_close_waits_for_the_marks),
        TEST(test_barrier),
        TEST(test_barrier_waits_for_an_open),
        TEST(test_prefix_may_be_closed_again),
        TEST(test_close_refused),
        TEST(test_close_that_failed_is_none),
        TEST(test_truncation_is_reported),
        TEST(test_refused_batch_goes_one_by_one),
        TEST(test_too_large_batch_goes_one_by_one),
        TEST(test_lines_that_fail_for_ever_are_set_aside),
        TEST(test_lines_that_fail_with_all_others_wait),
        TEST(test_a_blob_that_fails_for_ever_is_buried),
        TEST(test_a_blob_that_fails_with_all_others_waits),
        TEST(test_an_open_that_fails_for_ever_is_left_out),
        TEST(test_refused_credential_buries_nothing),
        TEST(test_a_credential_is_asked_for_again),
        TEST(test_retry_keeps_the_batch),
        TEST(test_what_was_not_executed_is_not_resent),
        TEST(test_resent_is_counted_though_a_try_was_refused),
        TEST(test_one_batch_is_resent_after_a_crash),
        TEST(test_batch_limits),
        TEST(test_lines_of_a_busy_stream_gather),
        TEST(test_backoff),
        TEST(test_retry_after),
        TEST(test_forgotten_when_nothing_is_left),
        TEST(test_ended_by_silence_is_remembered_longer),
        TEST(test_call_while_being_forgotten),
        TEST(test_numbers_begin_again_with_the_row),
        TEST(test_forgetting_that_is_repeated_after_a_call),
        TEST(test_questions),
        TEST(test_state_round_trip),
        TEST(test_cut_state_is_not_understood),
        TEST(test_records_of_a_state_that_is_not_understood),
        TEST(test_record_round_trip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
