#include "egress/denials.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/hash.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/json.h"

enum { TEXTS = 7 };

/* A denial's texts, in the order of the struct. */
static const char *const names[TEXTS] = {
    "client", "identity", "listener", "kind", "destination", "rule", "reason",
};

struct kept {
    uint64_t hash, client_hash;
    uint64_t seq; /* rises with each that is noted; 0: empty */
    uint64_t count;
    int64_t wall_ns;
    bool would;
    char *texts[TEXTS]; /* or NULL */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept all[DENIALS_KEPT];
static uint64_t last_seq, n_denied, n_would;

static void texts_of(const struct denial *d, const char *out[TEXTS])
{
    const char *const texts[TEXTS] = {d->client,      d->identity, d->listener, d->kind,
                                      d->destination, d->rule,     d->reason};

    memcpy(out, texts, sizeof(texts));
}

static uint64_t hash_of(const struct denial *d)
{
    const char *texts[TEXTS];
    struct str key = STR_INIT;
    uint64_t hash;
    size_t i;

    texts_of(d, texts);
    str_addc(&key, d->would ? 'w' : 'd');
    for (i = 0; i < TEXTS; i++) {
        str_adds(&key, texts[i] ? texts[i] : "");
        str_addc(&key, '\0');
    }
    hash = hash_bytes(key.p, key.n);
    str_fini(&key);
    return hash;
}

static void forget(struct kept *k)
{
    size_t i;

    for (i = 0; i < TEXTS; i++)
        xfree(k->texts[i]);
    *k = (struct kept){0};
}

/* The oldest one; of that client's if it has more than its part. */
static struct kept *place_for(uint64_t client_hash)
{
    struct kept *oldest = &all[0], *own = NULL;
    size_t i, n = 0;

    for (i = 0; i < DENIALS_KEPT; i++) {
        struct kept *k = &all[i];

        if (k->seq < oldest->seq)
            oldest = k;
        if (k->seq == 0 || k->client_hash != client_hash)
            continue;
        n++;
        if (!own || k->seq < own->seq)
            own = k;
    }
    return n >= DENIALS_OF_CLIENT ? own : oldest;
}

static struct kept *find(uint64_t hash)
{
    size_t i;

    for (i = 0; i < DENIALS_KEPT; i++) {
        if (all[i].seq && all[i].hash == hash)
            return &all[i];
    }
    return NULL;
}

static struct kept *take_place(const struct denial *d, uint64_t hash)
{
    const char *client = d->client ? d->client : "";
    uint64_t client_hash = hash_bytes(client, strlen(client));
    struct kept *k = place_for(client_hash);
    const char *texts[TEXTS];
    size_t i;

    forget(k);
    texts_of(d, texts);
    for (i = 0; i < TEXTS; i++)
        k->texts[i] = texts[i] ? xstrdup(texts[i]) : NULL;
    k->hash = hash;
    k->client_hash = client_hash;
    k->would = d->would;
    return k;
}

void denials_note(const struct denial *d)
{
    uint64_t hash = hash_of(d);
    struct kept *k;

    pthread_mutex_lock(&lock);
    k = find(hash);
    if (!k)
        k = take_place(d, hash);
    k->seq = ++last_seq;
    k->count++;
    k->wall_ns = clock_wall_ns();
    if (d->would)
        n_would++;
    else
        n_denied++;
    pthread_mutex_unlock(&lock);
}

void denials_clear(void)
{
    size_t i;

    pthread_mutex_lock(&lock);
    for (i = 0; i < DENIALS_KEPT; i++)
        forget(&all[i]);
    last_seq = n_denied = n_would = 0;
    pthread_mutex_unlock(&lock);
}

/* --- telling ------------------------------------------------------------------------------ */

static int newest_first(const void *a, const void *b)
{
    const struct kept *ka = *(struct kept *const *)a, *kb = *(struct kept *const *)b;

    return ka->seq < kb->seq ? 1 : ka->seq > kb->seq ? -1 : 0;
}

static bool is_wanted(const struct kept *k, const char *search)
{
    size_t i;

    for (i = 0; i < TEXTS; i++) {
        if (str_found(k->texts[i], search))
            return true;
    }
    return false;
}

static void tell(struct json *j, const struct kept *k)
{
    size_t i;

    json_open(j, NULL, '{');
    json_time(j, "time", k->wall_ns);
    for (i = 0; i < TEXTS; i++)
        json_text(j, names[i], view_str(k->texts[i]));
    json_text(j, "verdict", view_str(k->would ? "would-deny" : "deny"));
    json_uint(j, "count", k->count);
    json_close(j, '}');
}

void denials_report(struct str *out, const char *search, size_t limit)
{
    struct kept *sorted[DENIALS_KEPT];
    struct json j = json_to(out);
    size_t i, n = 0;

    pthread_mutex_lock(&lock);
    for (i = 0; i < DENIALS_KEPT; i++) {
        if (all[i].seq && is_wanted(&all[i], search))
            sorted[n++] = &all[i];
    }
    qsort(sorted, n, sizeof(sorted[0]), newest_first);
    json_open(&j, NULL, '{');
    json_uint(&j, "denied", n_denied);
    json_uint(&j, "would_deny", n_would);
    json_open(&j, "denials", '[');
    for (i = 0; i < TR_MIN(n, limit); i++)
        tell(&j, sorted[i]);
    json_close(&j, ']');
    json_close(&j, '}');
    pthread_mutex_unlock(&lock);
}
