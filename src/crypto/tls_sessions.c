#include "crypto/tls_sessions.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include "base/attrs.h"
#include "base/xmem.h"
#include "rt/clock.h"

enum {
    /* One context talks to a few names only; no peer can make the table grow. */
    NAMES_MAX = 16,
    EACH_MAX = 4,
    /* A certificate is verified in full handshakes only: one that was revoked or has expired is
     * noticed at least so soon. */
    KEPT_MAX_S = 3600,
};

struct kept {
    SSL_SESSION *s;
    int64_t until_ns;
};

struct named {
    char *name; /* NULL: free */
    uint64_t used;
    size_t n;
    struct kept kept[EACH_MAX]; /* oldest first */
};

struct tls_sessions {
    pthread_mutex_t lock;
    uint64_t uses;
    struct named names[NAMES_MAX];
};

struct tls_sessions *tls_sessions_new(void)
{
    struct tls_sessions *t = XNEW(struct tls_sessions);

    pthread_mutex_init(&t->lock, NULL);
    return t;
}

static void drop_oldest(struct named *of)
{
    SSL_SESSION_free(of->kept[0].s);
    of->n--;
    memmove(&of->kept[0], &of->kept[1], of->n * sizeof(of->kept[0]));
}

static void empty(struct named *of)
{
    while (of->n)
        drop_oldest(of);
    XFREE(of->name);
}

void tls_sessions_free(struct tls_sessions **tp)
{
    struct tls_sessions *t = *tp;

    *tp = NULL;
    if (!t)
        return;
    for (size_t i = 0; i < NAMES_MAX; i++)
        empty(&t->names[i]);
    pthread_mutex_destroy(&t->lock);
    xfree(t);
}

static struct named *find(struct tls_sessions *t, const char *name)
{
    for (size_t i = 0; i < NAMES_MAX; i++)
        if (t->names[i].name && strcmp(t->names[i].name, name) == 0)
            return &t->names[i];
    return NULL;
}

static struct named *find_or_make(struct tls_sessions *t, const char *name)
{
    struct named *of = find(t, name);

    if (of)
        return of;
    of = &t->names[0];
    for (size_t i = 0; i < NAMES_MAX && of->name; i++)
        if (!t->names[i].name || t->names[i].used < of->used)
            of = &t->names[i];
    empty(of);
    of->name = xstrdup(name);
    return of;
}

void tls_sessions_put(struct tls_sessions *t, const char *name, SSL_SESSION *s)
{
    int64_t life_s = TR_MIN((int64_t)SSL_SESSION_get_timeout(s), (int64_t)KEPT_MAX_S);
    struct named *of;

    if (life_s <= 0 || !SSL_SESSION_is_resumable(s)) {
        SSL_SESSION_free(s);
        return;
    }
    pthread_mutex_lock(&t->lock);
    of = find_or_make(t, name);
    of->used = ++t->uses;
    if (of->n == EACH_MAX)
        drop_oldest(of);
    of->kept[of->n++] = (struct kept){s, clock_mono_ns() + life_s * NS_PER_SEC};
    pthread_mutex_unlock(&t->lock);
}

static SSL_SESSION *take_newest(struct named *of)
{
    SSL_SESSION *s;

    while (of->n && of->kept[of->n - 1].until_ns <= clock_mono_ns())
        SSL_SESSION_free(of->kept[--of->n].s);
    if (!of->n)
        return NULL;
    s = of->kept[of->n - 1].s;
    if (SSL_SESSION_get_protocol_version(s) < TLS1_3_VERSION)
        return SSL_SESSION_dup(s); /* good for any number of connections, in any thread */
    of->n--;
    return s;
}

SSL_SESSION *tls_sessions_take(struct tls_sessions *t, const char *name)
{
    struct named *of;
    SSL_SESSION *s = NULL;

    pthread_mutex_lock(&t->lock);
    of = find(t, name);
    if (of) {
        of->used = ++t->uses;
        s = take_newest(of);
    }
    pthread_mutex_unlock(&t->lock);
    return s;
}

void tls_sessions_forget(struct tls_sessions *t, const char *name)
{
    struct named *of;

    pthread_mutex_lock(&t->lock);
    of = find(t, name);
    if (of)
        empty(of);
    pthread_mutex_unlock(&t->lock);
}
