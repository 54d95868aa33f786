#include "logs/cred.h"

#include <pthread.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/hmap.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "rt/clock.h"

enum { CREDS_MAX = 100000 }; /* a client that invents tokens: past this many new ones are refused */

#define PROVEN_FOR_NS (600 * NS_PER_SEC)

struct cred {
    struct hnode by_value;
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
    struct hmap by_value;
    struct cred **by_id; /* index id - 1 */
    uint32_t n, cap;
};

struct creds *creds_new(void)
{
    struct creds *c = XNEW(struct creds);

    pthread_mutex_init(&c->lock, NULL);
    return c;
}

void creds_free(struct creds **cp)
{
    struct creds *c = *cp;
    uint32_t i;

    if (!c)
        return;
    for (i = 0; i < c->n; i++) {
        if (!c->by_id[i])
            continue;
        xfree_secret(c->by_id[i]->value, c->by_id[i]->value_n);
        xfree(c->by_id[i]->account);
        xfree(c->by_id[i]);
    }
    hmap_fini(&c->by_value);
    xfree(c->by_id);
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

static void place(struct creds *c, struct cred *cr)
{
    if (cr->id > c->cap) {
        uint32_t cap = c->cap ? c->cap : 64;

        while (cap < cr->id)
            cap *= 2;
        c->by_id = xrealloc(c->by_id, cap * sizeof(struct cred *));
        memset(c->by_id + c->cap, 0, (cap - c->cap) * sizeof(struct cred *));
        c->cap = cap;
    }
    c->by_id[cr->id - 1] = cr;
    c->n = TR_MAX(c->n, cr->id);
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
    place(c, cr);
    hmap_insert(&c->by_value, &cr->by_value, hash_of(account, kind, value));
    return cr;
}

uint32_t cred_intern(struct creds *c, struct view account, enum cred_kind kind, struct view value,
                     bool *fresh)
{
    uint64_t h = hash_of(account, kind, value);
    struct cred *cr;
    uint32_t id = 0;

    pthread_mutex_lock(&c->lock);
    cr = find(c, h, account, kind, value);
    if (!cr && c->n < CREDS_MAX)
        cr = add(c, c->n + 1, account, kind, value);
    if (cr) {
        id = cr->id;
        *fresh = !cr->stored;
    }
    pthread_mutex_unlock(&c->lock);
    return id;
}

static struct cred *get(struct creds *c, uint32_t id)
{
    return id && id <= c->n ? c->by_id[id - 1] : NULL;
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
        cr->stored = true;
        spool_txn_value(t, "cred", str_view(&name), str_view(&value));
    }
    pthread_mutex_unlock(&c->lock);
    explicit_bzero(value.p, value.n);
    str_fini(&value);
    str_fini(&name);
}

static int recover_one(void *ctx, struct view name, struct view value)
{
    struct creds *c = ctx;
    struct wire n = wire_of(name), v = wire_of(value);
    uint32_t id = wire_u32(&n);
    enum cred_kind kind = (enum cred_kind)wire_u8(&v);
    struct view account = wire_view(&v), secret = wire_view(&v);
    bool known_good = wire_u8(&v) != 0;

    if (!n.failed && !v.failed && id && id <= CREDS_MAX) {
        struct cred *cr = add(c, id, account, kind, secret);

        cr->stored = true;
        cr->known_good = known_good;
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
        news = cr->stored && !cr->known_good;
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

/* A once-proven token that was refused has expired (48 h, HP §1.3): another of the account may do.
 */
static uint32_t newest_proven(const struct creds *c, const struct cred *like)
{
    const struct cred *best = NULL;
    uint32_t i;

    for (i = 0; i < c->n; i++) {
        const struct cred *cr = c->by_id[i];

        if (cr && cr->known_good && !cr->refused_at &&
            (!best || cr->proven_at >= best->proven_at) &&
            view_eq(view_of(cr->account, cr->account_n), view_of(like->account, like->account_n)))
            best = cr;
    }
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

size_t creds_refused_count(struct creds *c)
{
    size_t n = 0;
    uint32_t i;

    pthread_mutex_lock(&c->lock);
    for (i = 0; i < c->n; i++)
        n += c->by_id[i] && c->by_id[i]->refused_at;
    pthread_mutex_unlock(&c->lock);
    return n;
}
