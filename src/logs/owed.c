/* What went directly is in no spool: its account is made durable as soon as the spool commits
 * again. */
#include "base/xmem.h"
#include "logs/logs_priv.h"

struct owed_commit {
    struct ev_task task;
    struct shard *sh;
    int64_t ledger[LEDGER_N];
    bool ok;
};

static void owed_back(struct ev_task *task)
{
    struct owed_commit *oc = container_of(task, struct owed_commit, task);
    struct shard *sh = oc->sh;
    int i;

    sh->commits--;
    sh->paying = NULL;
    for (i = 0; oc->ok && i < LEDGER_N; i++)
        sh->owed[i] -= oc->ledger[i];
    xfree(oc);
}

/* The spool's thread. */
static void owed_done(void *ctx, const struct err *err)
{
    struct owed_commit *oc = ctx;

    oc->ok = !err;
    oc->task.run = owed_back;
    ev_post(oc->sh->loop, &oc->task);
}

static bool owes(const struct shard *sh)
{
    int i;

    for (i = 0; i < LEDGER_N; i++) {
        if (sh->owed[i])
            return true;
    }
    return false;
}

void shard_pay_owed(struct shard *sh)
{
    struct spool_txn *t;
    int i;

    if (sh->paying || !owes(sh))
        return;
    sh->paying = XNEW(struct owed_commit);
    sh->paying->sh = sh;
    memcpy(sh->paying->ledger, sh->owed, sizeof(sh->owed));
    t = spool_txn_new();
    for (i = 0; i < LEDGER_N; i++) {
        if (sh->owed[i])
            spool_txn_ledger(t, (enum ledger_row)i, sh->owed[i]);
    }
    sh->commits++;
    spool_submit(sh->logs->spool, t, owed_done, sh->paying);
}

void shard_owe(struct shard *sh, const int64_t ledger[LEDGER_N])
{
    int i;

    for (i = 0; i < LEDGER_N; i++)
        sh->owed[i] += ledger[i];
}
