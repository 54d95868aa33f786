#include "logs/intake.h"

#include "logs/ingest_priv.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"

enum { TICK_MS = 5 };

#define LATE_NS (8 * NS_PER_SEC)  /* of the 10 s that clients wait (HP §2.4) */
#define SLOW_NS (15 * NS_PER_SEC) /* the one that goes on while others wait may take so long */

void intake_init(struct ingest *in, void (*late)(struct ingest *in))
{
    in->intake.late = late;
    list_init(&in->intake.link);
}

void intake_charge(struct ingest *in, size_t bytes)
{
    struct intake *t = &in->intake;

    if (bytes == t->charged)
        return;
    if (!in->account)
        in->account = account_get(in->sh->logs->accounts, str_view(&in->target.account));
    account_shift_intake(in->account, (int64_t)bytes - (int64_t)t->charged);
    if (bytes > t->charged)
        t->since = 0;
    t->charged = bytes;
}

bool intake_is_short(const struct ingest *in)
{
    const uint64_t memory = in->sh->settings->memory;

    if (in->account)
        return !account_may_take_in(in->account, memory);
    return accounts_intake(in->sh->logs->accounts) >= memory;
}

bool intake_may_grow(struct ingest *in)
{
    struct shard *sh = in->sh;

    if (!intake_is_short(in) || sh->intake_first == in)
        return true;
    if (sh->intake_first)
        return false;
    sh->intake_first = in;
    sh->intake_first_at = ev_now_ns(sh->loop);
    return true;
}

void intake_wait(struct ingest *in, void (*resume)(struct ingest *in))
{
    struct shard *sh = in->sh;

    in->intake.resume = resume;
    if (!in->intake.since)
        in->intake.since = ev_now_ns(sh->loop);
    list_remove(&in->intake.link);
    list_append(&sh->intake_waiting, &in->intake.link);
    if (!ev_timer_armed(sh->intake_timer))
        ev_timer_arm(sh->intake_timer, TICK_MS);
}

void intake_wait_no_more(struct ingest *in)
{
    list_remove(&in->intake.link);
}

/* The one that goes on whatever the budget says has had its time: its place is for others. */
static void hurry_first(struct shard *sh, int64_t now)
{
    struct ingest *in = sh->intake_first;

    if (!in || list_empty(&sh->intake_waiting) || now - sh->intake_first_at < SLOW_NS ||
        !intake_is_short(in))
        return;
    sh->intake_first = NULL;
    if (in->intake.late)
        in->intake.late(in);
}

static void look(struct ingest *in, int64_t now)
{
    if (now - in->intake.since > LATE_NS)
        in->intake.late(in);
    else if (intake_may_grow(in))
        in->intake.resume(in);
    else
        list_append(&in->sh->intake_waiting, &in->intake.link);
}

static void tick(void *ctx)
{
    struct shard *sh = ctx;
    int64_t now = ev_now_ns(sh->loop);
    struct list all;

    hurry_first(sh, now);
    list_init(&all);
    list_move_all(&all, &sh->intake_waiting);
    while (!list_empty(&all)) {
        struct ingest *in = list_entry(all.next, struct ingest, intake.link);

        list_remove(&in->intake.link);
        look(in, now);
    }
    if (!list_empty(&sh->intake_waiting))
        ev_timer_arm(sh->intake_timer, TICK_MS);
}

void intake_fini(struct ingest *in)
{
    list_remove(&in->intake.link);
    intake_charge(in, 0);
    account_put(&in->account);
    if (in->sh->intake_first == in)
        in->sh->intake_first = NULL;
}

void intake_shard_init(struct shard *sh)
{
    list_init(&sh->intake_waiting);
    sh->intake_timer = ev_timer_new(sh->loop, tick, sh);
}

void intake_shard_fini(struct shard *sh)
{
    ev_timer_free(&sh->intake_timer);
}
