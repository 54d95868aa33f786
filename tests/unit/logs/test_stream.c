/* The rules of the stream machine, one by one. HP is docs/harness-protocol.md; the invariants
 * are architecture.md §4's. */
#include "words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* --- opens ---------------------------------------------------------------------------------- */

static void test_open_waits_for_its_commit(void **state)
{
    int c = begin('o', "");

    (void)state;
    nothing_ready();
    assert_false(answered(c));
    world_commit(w, true);
    assert_true(w->calls[c].ok);
    request(OP_OPEN, END_WELL);
    nothing_ready();
    upstream(".", "");
}

static void test_open_that_failed_is_not_sent(void **state)
{
    int c = begin('o', "");

    (void)state;
    world_commit(w, false);
    assert_false(w->calls[c].ok);
    nothing_ready();
    call('l', "a");
    assert_int_equal(world_take(w, 0, LANE_LINES)->kind, OP_LINES);
}

static void test_failed_open_again(void **state)
{
    (void)state;
    begin('o', "");
    world_commit(w, false);
    call('o', "");
    request(OP_OPEN, END_WELL);
    assert_int_equal(w->notes[NOTE_JOINED], 0);
}

static void test_second_open_saves_the_first(void **state)
{
    (void)state;
    begin('o', "");
    begin('o', "");
    world_commit(w, false);
    nothing_ready();
    world_commit(w, true);
    request(OP_OPEN, END_WELL);
}

static void test_open_joins(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('l', "a");
    call('o', "");
    assert_int_equal(w->notes[NOTE_JOINED], 1);
    world_run(w);
    upstream(".a", "");
}

static void test_open_unknown_then_204(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_LOST);
    nothing_ready();
    call('l', "a");
    request(OP_LINES, END_WELL);
    upstream(".a", "");
    assert_int_equal(w->notes[NOTE_REOPENED], 0);
}

static void test_open_unknown_then_not_there(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_UNSENT);
    call('l', "a");
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    assert_int_equal(w->notes[NOTE_REOPENED], 1);
    request(OP_OPEN, END_UNSENT); /* once more, and never again */
    request_times(OP_LINES, END_WELL, STREAM_ABSENT_TRIES);
    nothing_ready();
    assert_int_equal(w->notes[NOTE_REOPENED], 1);
    assert_int_equal(w->notes[NOTE_ABSENT], 1);
    ledger(LEDGER_LINES_SPOOLED, 1);
}

static void test_open_is_unknown_after_a_restart(void **state)
{
    (void)state;
    call('o', "");
    world_take(w, 0, LANE_LINES);
    world_crash(w, 0, 1);
    nothing_ready(); /* it was executed: never again */
    call('l', "a");
    request(OP_LINES, END_WELL);
    upstream(".a", "");
}

static void test_open_refused(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_REJECTED);
    request(OP_CHECK, END_WELL);
    request(OP_OPEN, END_REJECTED);
    nothing_ready();
    w->up[0].exists = true; /* somebody else's */
    call('l', "a");
    request(OP_LINES, END_WELL);
    upstream("a", "");
}

static void test_open_retried_when_not_executed(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_NOT_SENT);
    request(OP_OPEN, END_BUSY);
    request(OP_OPEN, END_WELL);
    nothing_ready();
}

static void test_never_opened_here(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    request(OP_LINES, END_WELL);
    upstream("a", "");
}

/* --- held, late and lives ------------------------------------------------------------------- */

static void one_life(const char *text)
{
    call('o', "");
    call('l', text);
    call('s', "");
    world_run(w);
}

static void test_open_after_close_is_held(void **state)
{
    (void)state;
    one_life("a");
    call('o', "");
    assert_int_equal(w->notes[NOTE_HELD], 1);
    nothing_ready();
    call('l', "b");
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    upstream(".b", "a");
}

static void test_held_open_survives_a_restart(void **state)
{
    (void)state;
    one_life("a");
    call('o', "");
    restart();
    nothing_ready();
    call('l', "b");
    world_run(w);
    assert_true(w->up[0].exists);
}

static void test_held_open_without_lines_is_forgotten(void **state)
{
    (void)state;
    one_life("a");
    call('o', "");
    call('c', "");
    restart();
    nothing_ready();
    call('l', "b");
    assert_int_equal(w->notes[NOTE_LATE], 1);
    nothing_ready();
}

static void test_held_open_outlasts_silence(void **state)
{
    (void)state;
    one_life("a");
    call('o', "");
    world_advance(w, 2 * W_IDLE);
    world_commit_all(w);
    call('l', "b");
    request(OP_OPEN, END_WELL);
}

static void test_open_after_the_hold_time(void **state)
{
    (void)state;
    one_life("a");
    world_advance(w, W_HOLD);
    call('o', "");
    request(OP_OPEN, END_WELL);
    assert_int_equal(w->notes[NOTE_HELD], 0);
}

static void test_lines_of_a_held_open_that_fail(void **state)
{
    (void)state;
    one_life("a");
    call('o', "");
    begin('l', "b");
    world_commit(w, false);
    nothing_ready();
    call('l', "b");
    request(OP_OPEN, END_WELL);
    request(OP_LINES, END_WELL);
    upstream(".b", "a");
}

static void test_late_lines(void **state)
{
    (void)state;
    one_life("a");
    call('l', "bc");
    assert_int_equal(w->notes[NOTE_LATE], 1);
    ledger(LEDGER_LINES_LATE, 2);
    ledger(LEDGER_LINES_ACCEPTED, 3);
    nothing_ready();
}

static void test_lines_after_close_go_before_it(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('s', "");
    call('l', "b");
    assert_int_equal(w->notes[NOTE_LATE], 0);
    world_run(w);
    upstream("", "ab");
}

static void test_lines_after_the_closing_mark_are_late(void **state)
{
    (void)state;
    call('o', "");
    request(OP_OPEN, END_WELL);
    call('s', "");
    call('l', "b");
    assert_int_equal(w->notes[NOTE_LATE], 1);
    request(OP_CLOSE, END_WELL);
}

static void test_lives_go_one_after_the_other(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    call('b', "a");
    call('c', "");
    world_advance(w, W_HOLD);
    call('o', "");
    call('l', "b");
    call('b', "b");
    call('c', "");
    assert_int_equal(count_lives(), 2);
    world_run(w);
    upstream("", "b");
    assert_int_equal(w->lives[0].opens, 1);
    assert_int_equal(w->lives[1].opens, 1);
    assert_int_equal(count_lives(), 1);
}

static void test_lives_are_bounded(void **state)
{
    unsigned i;

    (void)state;
    for (i = 0; i < STREAM_MAX_LIVES + 2; i++) {
        call('o', "");
        call('c', "");
        world_advance(w, W_HOLD);
    }
    assert_int_equal(count_lives(), STREAM_MAX_LIVES);
    assert_int_equal(w->notes[NOTE_HELD], 2);
    world_finish(w);
}

static void test_open_after_silence_begins_anew(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    world_run(w);
    world_advance(w, W_IDLE);
    world_foreign(w, 0, FOREIGN_SNAPSHOT);
    call('o', "");
    call('l', "b");
    world_run(w);
    upstream(".b", "a");
}

static void test_lines_after_silence_go_on(void **state)
{
    (void)state;
    call('o', "");
    call('l', "a");
    world_run(w);
    world_advance(w, W_IDLE);
    call('l', "b");
    call('s', "");
    world_run(w);
    upstream("", "ab");
    assert_int_equal(w->lives[0].opens, 1);
}

/* --- order ---------------------------------------------------------------------------------- */

static void overlapped(const char *first, const char *second, bool zeros, const char *sent)
{
    int64_t before;

    w->up[0].exists = true;
    world_call(w, &(struct spec){.kind = 'l', .text = first, .zeros = zeros});
    before = w->now.mono - 1;
    world_call(w, &(struct spec){.kind = 'l', .text = second, .zeros = zeros, .start_ns = before});
    world_commit_all(w);
    take_lines(sent);
}

static void test_overlapping_calls_swap_by_pos(void **state)
{
    (void)state;
    overlapped("cd", "ab", false, "abcd");
}

static void test_overlapping_calls_in_order_stay(void **state)
{
    (void)state;
    overlapped("ab", "cd", false, "abcd");
}

static void test_ranges_that_meet_do_not_swap(void **state)
{
    (void)state;
    overlapped("bd", "ac", false, "bdac");
}

static void test_zeros_do_not_swap(void **state)
{
    (void)state;
    overlapped("cd", "ab", true, "cdab");
}

static void test_single_zeros_do_not_swap(void **state)
{
    (void)state;
    overlapped("c", "a", true, "ca");
}

static void test_calls_one_after_the_other_do_not_swap(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "cd");
    call('l', "ab");
    take_lines("cdab");
}

static void test_no_swap_with_what_is_under_way(void **state)
{
    (void)state;
    w->up[0].exists = true;
    begin('l', "d");
    world_commit_all(w);
    take_lines("d");
    world_call(w, &(struct spec){.kind = 'l', .text = "a", .start_ns = w->now.mono - 1});
    world_commit_all(w);
    ends(END_UNSENT);
    take_lines("d");
    ends(END_WELL);
    take_lines("a");
}

static void test_swap_survives_a_restart(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "b");
    begin('l', "ef");
    world_call(w, &(struct spec){.kind = 'l', .text = "cd", .start_ns = w->now.mono - 1});
    world_commit_all(w);
    restart();
    take_lines("bcdef");
}

static void test_no_swap_over_a_restart(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "z");
    restart();
    call('l', "a"); /* a client that counts anew */
    take_lines("za");
}

static void test_few_go_ahead_of_one(void **state)
{
    const char *text = "zyxwvutsrqponmlkjihgfedcba";
    int64_t before = w->now.mono;
    char one[2] = "";

    (void)state;
    w->up[0].exists = true;
    for (; *text > 'a'; text++) {
        one[0] = *text;
        world_call(w, &(struct spec){.kind = 'l', .text = one, .start_ns = before});
        world_commit_all(w);
        w->calls[--w->n_calls].used = false; /* they all overlap */
    }
    assert_true(world_ready(w, 0, LANE_LINES));
    assert_string_equal(str_c(&world_take(w, 0, LANE_LINES)->records[STREAM_MAX_AHEAD]->text), "z");
}

static void test_gap_is_not_waited_for(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    call('l', "z");
    take_lines("az");
}

/* --- repetitions ---------------------------------------------------------------------------- */

static void test_same_body_is_taken_once(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "ab");
    call('l', "ab");
    assert_int_equal(w->notes[NOTE_REPLAYED], 1);
    world_run(w);
    call('l', "ab");
    world_run(w);
    upstream("ab", "");
    ledger(LEDGER_LINES_ACCEPTED, 2);
}

static void test_repetition_waits_for_the_first(void **state)
{
    int first = begin('l', "a"), second = begin('l', "a");

    (void)state;
    assert_false(answered(second));
    world_commit(w, true);
    assert_true(w->calls[first].ok);
    assert_true(w->calls[second].ok);
    assert_int_equal(w->n_pending, 0);
}

static void test_repetition_of_a_failed_call(void **state)
{
    int first = begin('l', "a"), second = begin('l', "a");

    (void)state;
    world_commit(w, false);
    assert_true(answered(first) && !w->calls[first].ok);
    assert_true(answered(second) && !w->calls[second].ok);
    call('l', "a");
    ledger(LEDGER_LINES_ACCEPTED, 1);
}

static void test_repetition_after_restart(void **state)
{
    (void)state;
    w->up[0].exists = true;
    call('l', "a");
    restart();
    world_run(w); /* delivered, and gone from the spool */
    restart();
    call('l', "a");
    world_run(w);
    upstream("a", "");
}

static void test_another_generation_repeats_nothing(void **state)
{
    struct spec again = {.kind = 'l', .text = "a"};
    int c;

    (void)state;
    call('o', "");
    call('l', "a");
    call('c', "");
    world_advance(w, W_HOLD);
    call('o', "");
    restart();
    w->durable = 0; /* the same bytes, and other lines for all we know */
    c = world_call(w, &again);
    world_commit_all(w);
    assert_true(w->calls[c].ok);
    assert_int_equal(w->notes[NOTE_REPLAYED], 0);
    ledger(LEDGER_LINES_ACCEPTED, 2);
}

/* --- edges ---------------------------------------------------------------------------------- */

static int from_edge(const char *text, uint64_t edge, uint64_t number)
{
    return world_call(
        w,
        &(struct spec){
            .kind = 'l', .text = text, .split = 1, .edge = edge, .edge_life = 1, .number = number});
}

static void test_edge_repeats_in_part(void **state)
{
    (void)state;
    w->up[0].exists = true;
    from_edge("ab", 7, 1);
    world_commit_all(w);
    from_edge("abc", 7, 1);
    world_commit_all(w);
    assert_int_equal(w->notes[NOTE_REPLAYED], 2);
    world_run(w);
    upstream("abc", "");
    from_edge("bc", 7, 2);
    world_commit_all(w);
    ledger(LEDGER_LINES_ACCEPTED, 3);
    restart();
    from_edge("bc", 7, 2);
    world_commit_all(w);
    ledger(LEDGER_LINES_ACCEPTED, 3);
}

static void test_edge_whose_commit_fails(void **state)
{
    int c = from_edge("ab", 7, 1);

    (void)state;
    world_commit(w, false);
    assert_false(w->calls[c].ok);
    c = from_edge("ab", 7, 1);
    world_commit_all(w);
    assert_true(w->calls[c].ok);
    ledger(LEDGER_LINES_ACCEPTED, 2);
}

static void test_edge_that_does_not_wait(void **state)
{
    int first = from_edge("ab", 7, 1), second = from_edge("ab", 7, 1),
        other = from_edge("cd", 8, 1);

    (void)state;
    assert_true(answered(second));
    assert_false(w->calls[second].ok);
    world_commit_all(w);
    assert_true(w->calls[first].ok);
    assert_true(w->calls[other].ok);
    ledger(LEDGER_LINES_ACCEPTED, 4);
}

static void test_edge_numbers_out_of_order(void **state)
{
    (void)state;
    from_edge("b", 7, 2);
    world_commit_all(w);
    from_edge("a", 7, 1); /* swapped at the edge */
    world_commit_all(w);
    ledger(LEDGER_LINES_ACCEPTED, 2);
    from_edge("a", 7, 1);
    world_commit_all(w);
    ledger(LEDGER_LINES_ACCEPTED, 2);
}

static void test_more_edges_than_are_remembered(void **state)
{
    const char *const text[] = {"a", "b", "c", "d", "e", "f"};
    uint64_t i;

    (void)state;
    for (i = 0; i < 6; i++) {
        world_call(w, &(struct spec){.kind = 'l',
                                     .text = text[i],
                                     .split = 1,
                                     .edge = i + 1,
                                     .edge_life = i + 1,
                                     .number = 1});
        world_commit_all(w);
    }
    ledger(LEDGER_LINES_ACCEPTED, 6);
    world_call(w,
               &(struct spec){
                   .kind = 'l', .text = "f", .split = 1, .edge = 6, .edge_life = 6, .number = 1});
    world_commit_all(w);
    ledger(LEDGER_LINES_ACCEPTED, 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_open_waits_for_its_commit),
        TEST(test_open_that_failed_is_not_sent),
        TEST(test_failed_open_again),
        TEST(test_second_open_saves_the_first),
        TEST(test_open_joins),
        TEST(test_open_unknown_then_204),
        TEST(test_open_unknown_then_not_there),
        TEST(test_open_is_unknown_after_a_restart),
        TEST(test_open_refused),
        TEST(test_open_retried_when_not_executed),
        TEST(test_never_opened_here),
        TEST(test_open_after_close_is_held),
        TEST(test_held_open_survives_a_restart),
        TEST(test_held_open_without_lines_is_forgotten),
        TEST(test_held_open_outlasts_silence),
        TEST(test_open_after_the_hold_time),
        TEST(test_lines_of_a_held_open_that_fail),
        TEST(test_late_lines),
        TEST(test_lines_after_close_go_before_it),
        TEST(test_lines_after_the_closing_mark_are_late),
        TEST(test_lives_go_one_after_the_other),
        TEST(test_lives_are_bounded),
        TEST(test_open_after_silence_begins_anew),
        TEST(test_lines_after_silence_go_on),
        TEST(test_overlapping_calls_swap_by_pos),
        TEST(test_overlapping_calls_in_order_stay),
        TEST(test_ranges_that_meet_do_not_swap),
        TEST(test_zeros_do_not_swap),
        TEST(test_single_zeros_do_not_swap),
        TEST(test_calls_one_after_the_other_do_not_swap),
        TEST(test_no_swap_with_what_is_under_way),
        TEST(test_swap_survives_a_restart),
        TEST(test_no_swap_over_a_restart),
        TEST(test_gap_is_not_waited_for),
        TEST(test_few_go_ahead_of_one),
        TEST(test_same_body_is_taken_once),
        TEST(test_repetition_waits_for_the_first),
        TEST(test_repetition_of_a_failed_call),
        TEST(test_repetition_after_restart),
        TEST(test_another_generation_repeats_nothing),
        TEST(test_edge_repeats_in_part),
        TEST(test_edge_whose_commit_fails),
        TEST(test_edge_that_does_not_wait),
        TEST(test_edge_numbers_out_of_order),
        TEST(test_more_edges_than_are_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
