#include "logs/cred.h"

#include <pthread.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "rt/clock.h"

/* A client that invents tokens. Past either bound the one that was used longest ago makes room;
 * only if all are in use are new ones refused. */
enum { CREDS_MAX = 100000, CREDS_MAX_BYTES = 64 * 1024 * 1024 };

#define PROVEN_FOR_NS    (600 * NS_PER_SEC)
#define PASSING_FOR_NS   (60 * NS_PER_SEC)    /* not in the spool: no longer than its request */
#define IN_USE_FOR_NS    (2 * CREDS_TOUCH_NS) /* streams that name it say so more often */
#define UNPROVEN_KEEP_NS (3600 * NS_PER_SEC)
#define PROVEN_KEEP_NS   (INT64_C(48) * 3600 * NS_PER_SEC) /* a token lasts so long (HP §1.3) */

struct cred {
    struct hnode by_value, by_id;
    struct list link; /* creds.passing or creds.kept, the one used last at the end */
    int64_t used_at;
    uint32_t id;
    enum cred_kind kind;
    char *account, *value;
    size_t account_n, value_n;
    int64_t proven_at, refused_at; /* monotonic; 0: never */
    bool stored;
    bool known_good; /* upstream took it once, perhaps before a restart */
};

struct creds {
    pthread_mutex_t lock;
    struct hmap by_value, by_id;
    struct list passing, kept; /* struct cred.link: not in the spool, and those that are */
    size_t n, bytes;
    uint32_t last_id;   /* numbers are never given out again */
    struct str dropped; /* numbers (uint32_t) that are to leave the spool */
};

struct creds *creds_new(void)
{
    struct creds *c = XNEW(struct creds);

    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->passing);
    list_init(&c->kept);
    return c;
}

static size_t size_of(struct view account, struct view value)
{
    return sizeof(struct cred) + account.n + value.n + 2;
}

static void drop(struct creds *c, struct cred *cr)
{
    if (cr->stored)
        str_add(&c->dropped, &cr->id, sizeof(cr->id));
    hmap_remove(&c->by_value, &cr->by_value);
    hmap_remove(&c->by_id, &cr->by_id);
    list_remove(&cr->link);
    c->n--;
    c->bytes -= size_of(view_of(cr->account, cr->account_n), view_of(cr->value, cr->value_n));
    xfree_secret(cr->value, cr->value_n);
    xfree(cr->account);
    xfree(cr);
}

static void drop_all(struct creds *c, struct list *from)
{
    struct list *it, *tmp;

    list_each (it, tmp, from)
        drop(c, list_entry(it, struct cred, link));
}

void creds_free(struct creds **cp)
{
    struct creds *c = *cp;

    if (!c)
        return;
    drop_all(c, &c->passing);
    drop_all(c, &c->kept);
    hmap_fini(&c->by_value);
    hmap_fini(&c->by_id);
    str_fini(&c->dropped);
    pthread_mutex_destroy(&c->lock);
    XFREE(*cp);
}

static uint64_t hash_of(struct view account, enum cred_kind kind, struct view value)
{
    return hash_bytes(account.p, account.n) * 31 + hash_bytes(value.p, value.n) + (uint64_t)kind;
}

static struct cred *find(struct creds *c, uint64_t h, struct view account, enum cred_kind kind,
                         struct view value)
{
    struct hnode *n;

    for (n = hmap_first(&c->by_value, h); n; n = hmap_next(n, h)) {
        struct cred *cr = hmap_entry(n, struct cred, by_value);

        if (cr->kind == kind && view_eq(view_of(cr->account, cr->account_n), account) &&
            view_eq(view_of(cr->value, cr->value_n), value))
            return cr;
    }
    return NULL;
}

static uint64_t id_hash(uint32_t id)
{
    return (uint64_t)id * 0x9e3779b97f4a7c15ULL;
}

static struct cred *get(const struct creds *c, uint32_t id)
{
    struct hnode *n;

    for (n = hmap_first(&c->by_id, id_hash(id)); n; n = hmap_next(n, id_hash(id))) {
        if (hmap_entry(n, struct cred, by_id)->id == id)
            return hmap_entry(n, struct cred, by_id);
    }
    return NULL;
}

static struct cred *add(struct creds *c, uint32_t id, struct view account, enum cred_kind kind,
                        struct view value)
{
    struct cred *cr = XNEW(struct cred);

    cr->id = id;
    cr->kind = kind;
    cr->account = xmemdup0(account.p, account.n);
    cr->account_n = account.n;
    cr->value = xmemdup0(value.p, value.n);
    cr->value_n = value.n;
    list_init(&cr->link);
    hmap_insert(&c->by_id, &cr->by_id, id_hash(id));
    hmap_insert(&c->by_value, &cr->by_value, hash_of(account, kind, value));
    c->n++;
    c->bytes += size_of(account, value);
    c->last_id = TR_MAX(c->last_id, id);
    return cr;
}

static void use(struct creds *c, struct cred *cr, int64_t now)
{
    cr->used_at = now;
    list_remove(&cr->link);
    list_append(cr->stored ? &c->kept : &c->passing, &cr->link);
}

static bool drop_oldest(struct creds *c, struct list *of, int64_t before)
{
    struct cred *cr = list_first(of, struct cred, link);

    if (!cr || cr->used_at >= before)
        return false;
    drop(c, cr);
    return true;
}

static bool make_room(struct creds *c, size_t size, int64_t now)
{
    while (c->n >= CREDS_MAX || c->bytes + size > CREDS_MAX_BYTES) {
        if (!drop_oldest(c, &c->passing, now - PASSING_FOR_NS) &&
            !drop_oldest(c, &c->kept, now - IN_USE_FOR_NS))
            return false;
    }
    return true;
}

uint32_t cred_intern(struct creds *c, struct view account, enum cred_kind kind, struct view value,
                     int64_t now, bool *fresh)
{
    uint64_t h = hash_of(account, kind, value);
    struct cred *cr;
    uint32_t id = 0;

    pthread_mutex_lock(&c->lock);
    cr = find(c, h, account, kind, value);
    if (!cr && make_room(c, size_of(account, value), now))
        cr = add(c, c->last_id + 1, account, kind, value);
    if (cr) {
        use(c, cr, now);
        id = cr->id;
        *fresh = !cr->stored;
    }
    pthread_mutex_unlock(&c->lock);
    return id;
}

void cred_touch(struct creds *c, uint32_t id, int64_t now)
{
    struct cred *cr;

    pthread_mutex_lock(&c->lock);
    if ((cr = get(c, id)) != NULL)
        use(c, cr, now);
    pthread_mutex_unlock(&c->lock);
}

static bool outlived(const struct cred *cr, int64_t now)
{
    int64_t keep = !cr->stored      ? PASSING_FOR_NS
                   : cr->known_good ? PROVEN_KEEP_NS
                                    : UNPROVEN_KEEP_NS;

    return now - cr->used_at > keep;
}

static void drop_outlived(struct creds *c, struct list *of, int64_t now)
{
    struct list *it, *tmp;

    list_each (it, tmp, of) {
        struct cred *cr = list_entry(it, struct cred, link);

        if (outlived(cr, now))
            drop(c, cr);
    }
}

void creds_sweep(struct creds *c, int64_t now, struct spool_txn *t)
{
    struct str name = STR_INIT;
    size_t at;
    uint32_t id;

    pthread_mutex_lock(&c->lock);
    drop_outlived(c, &c->passing, now);
    drop_outlived(c, &c->kept, now);
    for (at = 0; at < c->dropped.n; at += sizeof(id)) {
        memcpy(&id, c->dropped.p + at, sizeof(id));
        str_clear(&name);
        wire_put_u32(&name, id);
        spool_txn_value(t, "cred", str_view(&name), VIEW_NONE);
    }
    str_fini(&c->dropped);
    pthread_mutex_unlock(&c->lock);
    str_fini(&name);
}

void cred_store(struct creds *c, uint32_t id, struct spool_txn *t)
{
    struct str name = STR_INIT, value = STR_INIT;
    struct cred *cr;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    if (cr) {
        wire_put_u32(&name, id);
        wire_put_u8(&value, (uint8_t)cr->kind);
        wire_put_view(&value, view_of(cr->account, cr->account_n));
        wire_put_view(&value, view_of(cr->value, cr->value_n));
        wire_put_u8(&value, cr->known_good);
        spool_txn_value(t, "cred", str_view(&name), str_view(&value));
    }
    pthread_mutex_unlock(&c->lock);
    if (value.p)
        explicit_bzero(value.p, value.n);
    str_fini(&value);
    str_fini(&name);
}

void cred_stored(struct creds *c, uint32_t id)
{
    struct cred *cr;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    if (cr && !cr->stored) {
        cr->stored = true;
        use(c, cr, cr->used_at);
    }
    pthread_mutex_unlock(&c->lock);
}

static int recover_one(void *ctx, struct view name, struct view value)
{
    struct creds *c = ctx;
    struct wire n = wire_of(name), v = wire_of(value);
    uint32_t id = wire_u32(&n);
    enum cred_kind kind = (enum cred_kind)wire_u8(&v);
    struct view account = wire_view(&v), secret = wire_view(&v);
    bool known_good = wire_u8(&v) != 0;

    if (!n.failed && !v.failed && id && !get(c, id)) {
        struct cred *cr = add(c, id, account, kind, secret);

        cr->stored = true;
        cr->known_good = known_good;
        use(c, cr, clock_mono_ns());
    }
    return 0;
}

int creds_recover(struct creds *c, struct spool *spool, struct err *e)
{
    return spool_each_value(spool, "cred", recover_one, c, e);
}

bool cred_proven(struct creds *c, uint32_t id, int64_t now)
{
    struct cred *cr;
    bool news = false;

    pthread_mutex_lock(&c->lock);
    if ((cr = get(c, id)) != NULL) {
        news = !cr->known_good;
        cr->proven_at = now;
        cr->refused_at = 0;
        cr->known_good = true;
    }
    pthread_mutex_unlock(&c->lock);
    return news;
}

bool cred_known_good(struct creds *c, uint32_t id)
{
    struct cred *cr;
    bool yes;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    yes = cr && cr->known_good && !cr->refused_at;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

void cred_refused(struct creds *c, uint32_t id, int64_t now)
{
    struct cred *cr;

    pthread_mutex_lock(&c->lock);
    if ((cr = get(c, id)) != NULL)
        cr->refused_at = now;
    pthread_mutex_unlock(&c->lock);
}

bool cred_is_proven(struct creds *c, uint32_t id, int64_t now)
{
    struct cred *cr;
    bool yes;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    yes = cr && cr->proven_at && !cr->refused_at && now - cr->proven_at < PROVEN_FOR_NS;
    pthread_mutex_unlock(&c->lock);
    return yes;
}

/* The better one of `best` and those in the list. */
static const struct cred *newest_in(const struct list *of, const struct cred *like,
                                    const struct cred *best)
{
    const struct list *it;

    for (it = of->next; it != of; it = it->next) {
        const struct cred *cr = list_entry(it, struct cred, link);

        if (cr->known_good && !cr->refused_at && (!best || cr->proven_at >= best->proven_at) &&
            view_eq(view_of(cr->account, cr->account_n), view_of(like->account, like->account_n)))
            best = cr;
    }
    return best;
}

/* A once-proven token that was refused has expired (48 h, HP §1.3): another of the account may do.
 */
static uint32_t newest_proven(const struct creds *c, const struct cred *like)
{
    const struct cred *best = newest_in(&c->kept, like, newest_in(&c->passing, like, NULL));

    return best ? best->id : 0;
}

uint32_t cred_usable(struct creds *c, uint32_t id)
{
    const struct cred *cr;
    uint32_t out = id;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    if (cr && cr->refused_at)
        out = cr->known_good ? newest_proven(c, cr) : 0;
    pthread_mutex_unlock(&c->lock);
    return out;
}

uint32_t cred_for(struct creds *c, uint32_t id, struct view account)
{
    const struct cred like = {.account = (char *)account.p, .account_n = account.n};
    const struct cred *cr;
    uint32_t best;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    best = cr && !cr->refused_at ? id : newest_proven(c, &like);
    pthread_mutex_unlock(&c->lock);
    return best ? best : id;
}

void cred_apply(struct creds *c, uint32_t id, struct str *field, struct str *query)
{
    const struct cred *cr;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    if (cr) {
        struct str *out = cr->kind == CRED_TOKEN_QUERY ? query : field;

        str_adds(out, cr->kind == CRED_TOKEN_QUERY ? "&X-Harness-Token="
                      : cr->kind == CRED_API_KEY   ? "x-api-key: "
                                                   : "X-Harness-Token: ");
        str_add(out, cr->value, cr->value_n);
    }
    pthread_mutex_unlock(&c->lock);
}

int cred_read(struct creds *c, uint32_t id, enum cred_kind *kind, struct str *value)
{
    const struct cred *cr;

    pthread_mutex_lock(&c->lock);
    cr = get(c, id);
    if (cr) {
        *kind = cr->kind;
        str_add(value, cr->value, cr->value_n);
    }
    pthread_mutex_unlock(&c->lock);
    return cr ? 0 : -1;
}

static size_t refused_in(const struct list *of)
{
    const struct list *it;
    size_t n = 0;

    for (it = of->next; it != of; it = it->next)
        n += list_entry(it, struct cred, link)->refused_at != 0;
    return n;
}

size_t creds_refused_count(struct creds *c)
{
    size_t n;

    pthread_mutex_lock(&c->lock);
    n = refused_in(&c->passing) + refused_in(&c->kept);
    pthread_mutex_unlock(&c->lock);
    return n;
}

size_t creds_count(struct creds *c)
{
    size_t n;

    pthread_mutex_lock(&c->lock);
    n = c->n;
    pthread_mutex_unlock(&c->lock);
    return n;
}
