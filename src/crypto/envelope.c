#include "crypto/envelope.h"

#include <pthread.h>
#include <string.h>
#include "base/bug.h"
#include "base/wire.h"
#include "base/xmem.h"
#include "crypto/digest.h"
#include "rt/fdx.h"
#include "rt/rng.h"

_Static_assert((int)BOX_OVERHEAD == AEAD_OVERHEAD && (int)BOX_NONCE == AEAD_NONCE_SIZE,
               "a sealed value is nonce, ciphertext, tag");

enum { KEY_FILE_MAX = 256 };

struct epoch {
    uint32_t number;
    struct aead_key key;
    struct aead *opener; /* made at first use */
};

struct envelope {
    struct box box;
    struct aead_key current;
    struct aead_key *old;
    size_t n_old;
    bool settled;
    /* sealing: one thread */
    struct aead *sealer;
    uint32_t epoch;
    uint64_t counter;
    /* opening */
    pthread_mutex_t lock;
    struct epoch *epochs;
    size_t n;
};

/* --- data keys ------------------------------------------------------------------------------ */

/* What a data key's seal is bound to. */
static void key_aad(uint32_t epoch, struct str *out)
{
    str_adds(out, "tailrace spool epoch");
    wire_put_u32(out, epoch);
}

static struct epoch *find(struct envelope *e, uint32_t number)
{
    size_t i;

    /* The newest is asked for most, and there are few. */
    for (i = e->n; i > 0; i--) {
        if (e->epochs[i - 1].number == number)
            return &e->epochs[i - 1];
    }
    return NULL;
}

/* Also in place of one of that number: a fresh spool counts from the start again. */
static void remember(struct envelope *e, uint32_t number, const struct aead_key *key)
{
    struct epoch *ep;

    pthread_mutex_lock(&e->lock);
    ep = find(e, number);
    if (!ep) {
        struct epoch *more = xcalloc(e->n + 1, sizeof(*more));

        if (e->n)
            memcpy(more, e->epochs, e->n * sizeof(*more));
        xfree_secret(e->epochs, e->n * sizeof(*more));
        e->epochs = more;
        ep = &more[e->n++];
    }
    aead_free(&ep->opener);
    ep->number = number;
    ep->key = *key;
    pthread_mutex_unlock(&e->lock);
}

static void wrap(const struct envelope *e, uint32_t epoch, const struct aead_key *key,
                 struct str *out)
{
    struct str aad = STR_INIT;

    key_aad(epoch, &aad);
    aead_seal(&e->current, str_view(&aad), view_of(key->bytes, sizeof(key->bytes)), out);
    str_fini(&aad);
}

static void make(void *ctx, uint32_t epoch, struct str *out)
{
    struct envelope *e = ctx;
    struct aead_key key;

    ASSERT(e->box.seals && !e->settled);
    rng_bytes(key.bytes, sizeof(key.bytes));
    wrap(e, epoch, &key, out);
    remember(e, epoch, &key);
    aead_free(&e->sealer);
    e->sealer = aead_new(&key);
    e->epoch = epoch;
    e->counter = 0;
    explicit_bzero(&key, sizeof(key));
}

static int unwrap(const struct aead_key *with, uint32_t epoch, struct view sealed,
                  struct aead_key *key)
{
    struct str aad = STR_INIT, plain = STR_INIT;
    int rc;

    key_aad(epoch, &aad);
    rc = aead_open(with, str_view(&aad), sealed, &plain);
    if (rc == 0 && plain.n != sizeof(key->bytes))
        rc = -1;
    if (rc == 0)
        memcpy(key->bytes, plain.p, sizeof(key->bytes));
    str_wipe(&plain);
    str_fini(&aad);
    return rc;
}

static int take(void *ctx, uint32_t epoch, struct view sealed, struct str *renewed)
{
    struct envelope *e = ctx;
    struct aead_key key;
    bool opened;
    size_t i;

    ASSERT(!e->settled);
    opened = e->box.seals && unwrap(&e->current, epoch, sealed, &key) == 0;
    for (i = 0; i < e->n_old && !opened; i++) {
        opened = unwrap(&e->old[i], epoch, sealed, &key) == 0;
        if (opened && e->box.seals)
            wrap(e, epoch, &key, renewed);
    }
    if (opened)
        remember(e, epoch, &key);
    explicit_bzero(&key, sizeof(key));
    return opened ? 0 : -1;
}

/* --- values --------------------------------------------------------------------------------- */

static void put_le(uint8_t *p, uint64_t v, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static void seal(void *ctx, struct view aad, struct view plain, struct str *out)
{
    struct envelope *e = ctx;
    uint8_t nonce[BOX_NONCE];

    ASSERT(e->sealer);
    put_le(nonce, e->epoch, 4);
    put_le(nonce + 4, e->counter++, 8);
    aead_seal_at(e->sealer, nonce, aad, plain, out);
}

static int open_value(void *ctx, struct view aad, struct view sealed, struct str *out)
{
    struct envelope *e = ctx;
    struct wire w = wire_of(sealed);
    uint32_t number = wire_u32(&w);
    struct epoch *ep;
    int rc = -1;

    pthread_mutex_lock(&e->lock);
    ep = w.failed ? NULL : find(e, number);
    if (ep) {
        if (!ep->opener)
            ep->opener = aead_new(&ep->key);
        rc = aead_open_at(ep->opener, aad, sealed, out);
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

/* --- life ----------------------------------------------------------------------------------- */

struct envelope *envelope_new(const struct aead_key *current, const struct aead_key *old,
                              size_t n_old)
{
    struct envelope *e = XNEW(struct envelope);

    pthread_mutex_init(&e->lock, NULL);
    e->box = (struct box){e, current != NULL, make, take, seal, open_value};
    if (current)
        e->current = *current;
    e->old = xcalloc(n_old + 1, sizeof(*e->old));
    if (n_old)
        memcpy(e->old, old, n_old * sizeof(*old));
    e->n_old = n_old;
    return e;
}

const struct box *envelope_box(const struct envelope *e)
{
    return &e->box;
}

void envelope_settle(struct envelope *e)
{
    explicit_bzero(&e->current, sizeof(e->current));
    explicit_bzero(e->old, e->n_old * sizeof(*e->old));
    e->settled = true;
}

void envelope_free(struct envelope **ep)
{
    struct envelope *e = *ep;
    size_t i;

    *ep = NULL;
    if (!e)
        return;
    envelope_settle(e);
    aead_free(&e->sealer);
    for (i = 0; i < e->n; i++)
        aead_free(&e->epochs[i].opener);
    xfree_secret(e->epochs, e->n * sizeof(*e->epochs));
    xfree(e->old);
    pthread_mutex_destroy(&e->lock);
    xfree(e);
}

/* --- the key's file ------------------------------------------------------------------------- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int from_hex(struct view text, uint8_t *out)
{
    size_t i;

    if (text.n != 2 * (size_t)AEAD_KEY_SIZE)
        return -1;
    for (i = 0; i < AEAD_KEY_SIZE; i++) {
        int high = hex_digit(text.p[2 * i]), low = hex_digit(text.p[2 * i + 1]);

        if (high < 0 || low < 0)
            return -1;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

static int from_base64(struct view text, uint8_t *out)
{
    struct str bytes = STR_INIT;
    int rc = base64_decode(text, &bytes);

    if (rc == 0 && bytes.n == AEAD_KEY_SIZE)
        memcpy(out, bytes.p, AEAD_KEY_SIZE);
    else
        rc = -1;
    str_wipe(&bytes);
    return rc;
}

int envelope_key_load(const char *path, struct aead_key *key, struct err *e)
{
    struct str text = STR_INIT;
    struct view v;
    int rc = secret_read(path, KEY_FILE_MAX, &text, e);

    if (rc == 0) {
        while (text.n && strchr("\r\n", text.p[text.n - 1]))
            text.p[--text.n] = '\0';
        v = str_view(&text);
        if (from_hex(v, key->bytes) < 0 && from_base64(v, key->bytes) < 0)
            rc = err_set(e, ERR_INVALID,
                         "%s: holds no key: use 32 random bytes as 64 hex digits "
                         "(openssl rand -hex 32) or in base64",
                         path);
    }
    str_wipe(&text);
    return rc;
}
