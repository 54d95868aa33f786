#include "logs/accounts.h"

#include <pthread.h>
#include <stdatomic.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/hmap.h"
#include "base/xmem.h"

struct account {
    struct hnode node;
    struct accounts *all;
    char *name;
    size_t name_n;
    size_t refs;
    atomic_uint_fast64_t streams, intake;
    atomic_int_fast64_t waiting;
};

struct accounts {
    pthread_mutex_t lock; /* of the map and of references */
    struct hmap map;
    atomic_size_t known;
    uint64_t streams_max;
    unsigned share;
    atomic_uint_fast64_t streams, intake;
    atomic_int_fast64_t waiting;
};

struct accounts *accounts_new(uint64_t streams_max, unsigned share)
{
    struct accounts *as = XNEW(struct accounts);

    pthread_mutex_init(&as->lock, NULL);
    as->streams_max = streams_max;
    as->share = share;
    return as;
}

void accounts_free(struct accounts **asp)
{
    struct accounts *as = *asp;

    *asp = NULL;
    if (!as)
        return;
    ASSERT(as->map.count == 0);
    hmap_fini(&as->map);
    pthread_mutex_destroy(&as->lock);
    xfree(as);
}

static struct account *find(struct accounts *as, struct view name, uint64_t h)
{
    struct hnode *n;

    for (n = hmap_first(&as->map, h); n; n = hmap_next(n, h)) {
        struct account *a = hmap_entry(n, struct account, node);

        if (view_eq(view_of(a->name, a->name_n), name))
            return a;
    }
    return NULL;
}

struct account *account_get(struct accounts *as, struct view name)
{
    uint64_t h = hash_bytes(name.p, name.n);
    struct account *a;

    pthread_mutex_lock(&as->lock);
    a = find(as, name, h);
    if (!a) {
        a = XNEW(struct account);
        a->all = as;
        a->name = xmemdup0(name.p, name.n);
        a->name_n = name.n;
        hmap_insert(&as->map, &a->node, h);
    }
    a->refs++;
    pthread_mutex_unlock(&as->lock);
    return a;
}

void account_put(struct account **ap)
{
    struct account *a = *ap;
    struct accounts *as;

    *ap = NULL;
    if (!a)
        return;
    as = a->all;
    pthread_mutex_lock(&as->lock);
    if (--a->refs == 0)
        hmap_remove(&as->map, &a->node);
    else
        a = NULL;
    pthread_mutex_unlock(&as->lock);
    if (!a)
        return;
    xfree(a->name);
    xfree(a);
}

/* Accounts that have a stream: without another one there is nobody to share with. */
static bool is_alone(const struct account *a)
{
    return atomic_load(&a->all->known) <= (atomic_load(&a->streams) ? 1 : 0);
}

void account_keep_stream(struct account *a)
{
    if (atomic_fetch_add(&a->streams, 1) == 0)
        atomic_fetch_add(&a->all->known, 1);
    atomic_fetch_add(&a->all->streams, 1);
}

bool account_add_stream(struct account *a, bool beyond, enum overload_reason *why)
{
    uint64_t used = atomic_load(&a->all->streams), max = a->all->streams_max;
    uint64_t mine = is_alone(a) ? 0 : atomic_load(&a->streams);

    if (beyond ? used >= max + max / 8 : !overload_admits(used, mine, max, a->all->share)) {
        *why = used >= max ? OVERLOAD_STREAMS : OVERLOAD_STREAMS_SHARE;
        return false;
    }
    account_keep_stream(a);
    return true;
}

void account_drop_stream(struct account *a)
{
    atomic_fetch_sub(&a->all->streams, 1);
    if (atomic_fetch_sub(&a->streams, 1) == 1)
        atomic_fetch_sub(&a->all->known, 1);
}

uint64_t accounts_streams(const struct accounts *as)
{
    return atomic_load(&as->streams);
}

bool accounts_crowded(const struct accounts *as)
{
    return atomic_load(&as->streams) >= as->streams_max / 4 * 3;
}

void account_shift_waiting(struct account *a, int64_t bytes)
{
    atomic_fetch_add(&a->waiting, bytes);
    atomic_fetch_add(&a->all->waiting, bytes);
}

bool account_spool_share_used(const struct account *a)
{
    double mine = (double)atomic_load(&a->waiting), all = (double)atomic_load(&a->all->waiting);

    return a->all->share < 100 && !is_alone(a) && mine > 0 &&
           mine * 100 >= all * a->all->share;
}

void account_shift_intake(struct account *a, int64_t bytes)
{
    atomic_fetch_add(&a->intake, (uint_fast64_t)bytes);
    atomic_fetch_add(&a->all->intake, (uint_fast64_t)bytes);
}

bool account_may_take_in(const struct account *a, uint64_t limit)
{
    uint64_t mine = is_alone(a) ? 0 : atomic_load(&a->intake);

    return overload_admits(atomic_load(&a->all->intake), mine, limit, a->all->share);
}

uint64_t accounts_intake(const struct accounts *as)
{
    return atomic_load(&as->intake);
}
