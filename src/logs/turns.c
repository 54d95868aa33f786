#include "logs/turns.h"

#include "base/bug.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum {
    SHARD_UNDER_WAY = 16 * 1024 * 1024, /* bytes of lines: a group that commits in time */
    STREAM_UNDER_WAY = 4 * 1024 * 1024,
    SMALL = 64 * 1024, /* a stream that has nothing under way may always have so much */
    WAITING_PART = 8,  /* of memory.limit, for the calls of one stream that wait */
};

#define WAIT_NS (6 * NS_PER_SEC) /* of the 10 s that clients wait (HP §2.4) */

void turns_init(struct turns *t)
{
    list_init(&t->streams);
}

void stream_turns_init(struct stream_turns *t)
{
    list_init(&t->link);
    list_init(&t->calls);
}

static bool has_room(const struct shard *sh, const struct stream_turns *st, size_t bytes)
{
    if (sh->stopping || (st->bytes == 0 && (bytes <= SMALL || sh->turns.bytes < SHARD_UNDER_WAY)))
        return true;
    return st->bytes + bytes <= STREAM_UNDER_WAY && sh->turns.bytes + bytes <= SHARD_UNDER_WAY;
}

static void begin(struct shard *sh, struct stream_turns *st, struct submission *sub)
{
    st->bytes += sub->bytes;
    sh->turns.bytes += sub->bytes;
    sub->under_way = true;
}

bool turn_take(struct shard *sh, struct stream *s, struct submission *sub)
{
    struct stream_turns *st = &s->place.turns;

    if (list_empty(&st->calls) && has_room(sh, st, sub->bytes)) {
        begin(sh, st, sub);
        return true;
    }
    if (st->waiting + sub->bytes > sh->settings->memory / WAITING_PART && st->waiting) {
        submission_refuse(sub, OVERLOAD_QUEUE);
        return false;
    }
    list_append(&st->calls, &sub->turn);
    st->waiting += sub->bytes;
    if (list_empty(&st->link))
        list_append(&sh->turns.streams, &st->link);
    return false;
}

static struct submission *take_waiting(struct stream_turns *st)
{
    struct submission *sub = list_first(&st->calls, struct submission, turn);

    list_remove(&sub->turn);
    st->waiting -= sub->bytes;
    if (list_empty(&st->calls))
        list_remove(&st->link);
    return sub;
}

/* One call of each stream that has room, round after round. */
static void run(struct ev_task *task)
{
    struct shard *sh = container_of(task, struct shard, turns.task);
    bool some = true;

    sh->turns.due = false;
    while (some) {
        struct list now;

        some = false;
        list_init(&now);
        list_move_all(&now, &sh->turns.streams);
        while (!list_empty(&now)) {
            struct stream_turns *st = list_entry(now.next, struct stream_turns, link);
            struct submission *sub = list_first(&st->calls, struct submission, turn);

            list_remove(&st->link);
            list_append(&sh->turns.streams, &st->link);
            if (!has_room(sh, st, sub->bytes))
                continue;
            begin(sh, st, take_waiting(st));
            some = true;
            submission_go(sub);
        }
    }
}

void turn_over(struct shard *sh, struct submission *sub)
{
    struct stream_turns *st;

    if (!sub->under_way)
        return;
    sub->under_way = false;
    st = &sub->stream->place.turns;
    ASSERT(st->bytes >= sub->bytes && sh->turns.bytes >= sub->bytes);
    st->bytes -= sub->bytes;
    sh->turns.bytes -= sub->bytes;
    if (list_empty(&sh->turns.streams) || sh->turns.due)
        return;
    sh->turns.due = true;
    sh->turns.task.run = run;
    ev_defer(sh->loop, &sh->turns.task);
}

void turns_leave(struct stream_turns *st)
{
    while (!list_empty(&st->calls))
        submission_again(take_waiting(st));
}

/* Calls wait in the order they came in. */
static void refuse_late(struct stream_turns *st, int64_t before)
{
    const struct submission *first;

    while ((first = list_first(&st->calls, struct submission, turn)) &&
           first->call.start_ns < before)
        submission_refuse(take_waiting(st), OVERLOAD_QUEUE);
}

void turns_sweep(struct shard *sh)
{
    int64_t before = ev_now_ns(sh->loop) - WAIT_NS;
    struct list *it, *tmp;

    list_each (it, tmp, &sh->turns.streams)
        refuse_late(list_entry(it, struct stream_turns, link), before);
}

void turns_end(struct shard *sh)
{
    struct list *it, *tmp;

    list_each (it, tmp, &sh->turns.streams)
        refuse_late(list_entry(it, struct stream_turns, link), INT64_MAX);
}
