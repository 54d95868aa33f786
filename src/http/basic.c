#include "http/basic.h"

#include <crypt.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/str.h"
#include "base/xmem.h"
#include "crypto/digest.h"
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/rng.h"

enum {
    FILE_MAX = 4 * 1024 * 1024,
    USER_MAX = 128,
    HASH_MAX = 384,       /* CRYPT_OUTPUT_SIZE */
    CREDENTIAL_MAX = 512, /* user and password: a longer one is wrong without being looked at */
    FIELD_MAX = 1024,
    BCRYPT_COST_MAX = 14,     /* a second or so; more would let one client hold the pool */
    SHA_ROUNDS_MAX = 1000000, /* the same */
    KNOWN_SETS = 256,
    KNOWN_WAYS = 4, /* with a keyed tag nobody can aim at a set */
    TAG = 16,
    GOOD_S = 300,
    WRONG_S = 60,
    JOBS_MAX = 8, /* for a worker: what else the pool does must go on */
    FAILURE_SLOTS = 256,
    FAILURES_MAX = 10, /* in FAILURE_S */
    FAILURE_S = 60,
};

struct basic_user {
    char *name, *hash;
};

struct basic_users {
    struct basic_user *list; /* by name */
    size_t n;
    uint8_t digest[32]; /* of the file, to see whether another is the same */
};

/* A credential that was computed before. */
struct known {
    uint8_t tag[TAG];
    int64_t until_ns; /* 0: free */
    bool good;
};

struct failures {
    int64_t since_ns;
    unsigned n;
};

struct basic {
    struct ev_loop *loop;
    struct ev_pool *pool;
    basic_fn fn;
    const struct basic_users *users;
    uint8_t key[32];
    struct known known[KNOWN_SETS][KNOWN_WAYS];
    struct failures failures[FAILURE_SLOTS]; /* by address; some share one, which costs little */
    struct list jobs;
    size_t n_jobs;
    char user[USER_MAX + 1];
};

/* One computation, and all who wait for it. */
struct basic_job {
    struct ev_job job;
    struct list link;
    struct basic *b; /* NULL: nobody wants to know any more */
    struct list asks;
    const struct basic_users *users;
    uint8_t tag[TAG];
    uint64_t from;
    bool exists; /* the user does; else a stranger's hash is computed in vain, to take as long */
    bool good;
    char user[USER_MAX + 1];
    char password[CREDENTIAL_MAX + 1];
    char hash[HASH_MAX];
    struct crypt_data data;
};

struct basic_ask {
    struct list link;
    void *ctx;
};

/* --- the file ----------------------------------------------------------------------------- */

/* Does a computation with that hash take a time that we can give it? The library has checked the
 * format's head. */
static bool bounded(const char *hash)
{
    const char *rounds = strstr(hash, "$rounds=");

    if (strncmp(hash, "$2", 2) == 0)
        return strtoul(hash + 4, NULL, 10) <= BCRYPT_COST_MAX;
    if (rounds)
        return strtoul(rounds + 8, NULL, 10) <= SHA_ROUNDS_MAX;
    /* yescrypt and gost-yescrypt: "$y$jCT$": the second letter doubles memory and time. */
    if (strncmp(hash, "$y$", 3) == 0 || strncmp(hash, "$gy$", 4) == 0) {
        const char *p = strchr(hash + 1, '$') + 1;

        return p[0] == 'j' && p[1] >= '.' && p[1] <= 'C';
    }
    return strncmp(hash, "$6$", 3) == 0;
}

static const char *bad_line(struct view user, const char *hash)
{
    size_t i;

    if (user.n == 0 || user.n > USER_MAX)
        return "use user:hash";
    for (i = 0; i < user.n; i++) {
        if ((unsigned char)user.p[i] <= 0x20 || user.p[i] == 0x7f)
            return "a user's name has no blanks or control characters";
    }
    if (strlen(hash) >= HASH_MAX || crypt_checksalt(hash) != CRYPT_SALT_OK)
        return "the hash is of no format that is safe; use yescrypt, bcrypt or sha512crypt";
    if (!bounded(hash))
        return "the hash is of another format than yescrypt, bcrypt or sha512crypt, or costs too "
               "much to check";
    return NULL;
}

static int add_line(struct basic_users *u, char *line, struct err *e)
{
    char *colon = strchr(line, ':');
    const char *why = "use user:hash";

    if (colon) {
        *colon = '\0';
        why = bad_line(view_str(line), colon + 1);
    }
    if (why)
        return err_set(e, ERR_INVALID, "%s", why);
    u->list = xrealloc(u->list, (u->n + 1) * sizeof(*u->list));
    u->list[u->n].name = xstrdup(line);
    u->list[u->n++].hash = xstrdup(colon + 1);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct basic_user *)a)->name, ((const struct basic_user *)b)->name);
}

static int parse(struct basic_users *u, char *text, struct err *e)
{
    unsigned at = 0;
    char *line, *next;
    size_t i;

    for (line = text; line; line = next) {
        size_t n = strcspn(line, "\n");

        next = line[n] ? line + n + 1 : NULL;
        line[n] = '\0';
        if (n && line[n - 1] == '\r')
            line[n - 1] = '\0';
        at++;
        if (line[0] && line[0] != '#' && add_line(u, line, e) < 0)
            return err_prefix(e, "line %u", at);
    }
    if (u->n == 0)
        return err_set(e, ERR_INVALID, "has no users");
    qsort(u->list, u->n, sizeof(*u->list), by_name);
    for (i = 1; i < u->n; i++) {
        if (by_name(&u->list[i - 1], &u->list[i]) == 0)
            return err_set(e, ERR_INVALID, "a user stands twice");
    }
    return 0;
}

static int read_users(const char *path, struct str *text, struct err *e)
{
    struct stat st;

    if (file_read(path, FILE_MAX, text, e) < 0)
        return -1;
    /* Hashes can be guessed at offline by whoever reads them. */
    if (stat(path, &st) < 0 || (st.st_mode & (S_IROTH | S_IWOTH | S_IWGRP)))
        return err_set(e, ERR_DENIED, "%s: others may read or change it: use chmod 640", path);
    return 0;
}

struct basic_users *basic_users_parse(struct view text, struct err *e)
{
    struct basic_users *u = XNEW(struct basic_users);
    char *copy = xmemdup0(text.n ? text.p : "", text.n);
    int rc = memchr(copy, '\0', text.n) ? err_set(e, ERR_INVALID, "is not a text") : 0;

    sha256(text.p, text.n, u->digest);
    if (rc == 0)
        rc = parse(u, copy, e);
    xfree_secret(copy, text.n);
    if (rc < 0)
        basic_users_free(&u);
    return u;
}

struct basic_users *basic_users_load(const char *path, struct err *e)
{
    struct basic_users *u = NULL;
    struct str text = STR_INIT;

    if (read_users(path, &text, e) == 0) {
        u = basic_users_parse(str_view(&text), e);
        if (!u)
            err_prefix(e, "%s", path);
    }
    if (text.p)
        explicit_bzero(text.p, text.n);
    str_fini(&text);
    return u;
}

void basic_users_free(struct basic_users **up)
{
    struct basic_users *u = *up;
    size_t i;

    *up = NULL;
    if (!u)
        return;
    for (i = 0; i < u->n; i++) {
        xfree(u->list[i].name);
        xfree_secret(u->list[i].hash, strlen(u->list[i].hash));
    }
    xfree(u->list);
    xfree(u);
}

static const struct basic_user *find_user(const struct basic_users *u, const char *name)
{
    const struct basic_user key = {.name = (char *)(uintptr_t)name};

    return bsearch(&key, u->list, u->n, sizeof(*u->list), by_name);
}

/* --- what is known ------------------------------------------------------------------------ */

static struct known *set_of(struct basic *b, const uint8_t tag[TAG])
{
    return b->known[(tag[0] | (unsigned)tag[1] << 8) % KNOWN_SETS];
}

static const struct known *look_up(struct basic *b, const uint8_t tag[TAG])
{
    struct known *set = set_of(b, tag);
    int64_t now = clock_mono_ns();
    size_t i;

    for (i = 0; i < KNOWN_WAYS; i++) {
        if (set[i].until_ns > now && memcmp(set[i].tag, tag, TAG) == 0)
            return &set[i];
    }
    return NULL;
}

/* In the place of the one that is the first to be forgotten; good ones last longer, so guesses do
 * not drive them out before their time. */
static void keep(struct basic *b, const uint8_t tag[TAG], bool good)
{
    struct known *set = set_of(b, tag), *k = set;
    size_t i;

    for (i = 1; i < KNOWN_WAYS; i++) {
        if (set[i].until_ns < k->until_ns)
            k = &set[i];
    }
    memcpy(k->tag, tag, TAG);
    k->good = good;
    k->until_ns = clock_mono_ns() + (good ? GOOD_S : WRONG_S) * NS_PER_SEC;
}

/* Of the address without its port; of IPv6 the network that one subscriber has. */
static uint64_t address_key(const struct net_addr *a)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->ss;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->ss;

    if (a->ss.ss_family == AF_INET6)
        return hash_bytes(&v6->sin6_addr, 8);
    return a->ss.ss_family == AF_INET ? hash_bytes(&v4->sin_addr, 4) : 0;
}

static struct failures *failures_of(struct basic *b, uint64_t from)
{
    struct failures *f = &b->failures[from % FAILURE_SLOTS];
    int64_t now = clock_mono_ns();

    if (now - f->since_ns > FAILURE_S * NS_PER_SEC) {
        f->since_ns = now;
        f->n = 0;
    }
    return f;
}

/* --- computing ---------------------------------------------------------------------------- */

/* In a time that says nothing about where they differ. */
static bool same_text(const char *a, const char *b)
{
    size_t n = strlen(a), i;
    unsigned char diff = 0;

    if (strlen(b) != n)
        return false;
    for (i = 0; i < n; i++)
        diff |= (unsigned char)(a[i] ^ b[i]);
    return diff == 0;
}

static void job_work(struct ev_job *job)
{
    struct basic_job *j = container_of(job, struct basic_job, job);
    const char *got = crypt_r(j->password, j->hash, &j->data);

    j->good = got && got[0] != '*' && same_text(got, j->hash) && j->exists;
    explicit_bzero(&j->data, sizeof(j->data));
    explicit_bzero(j->password, sizeof(j->password));
}

static void job_done(struct ev_job *job)
{
    struct basic_job *j = container_of(job, struct basic_job, job);
    enum basic_result result = j->good ? BASIC_GOOD : BASIC_WRONG;
    struct basic *b = j->b;
    basic_fn fn = b ? b->fn : NULL; /* who may be gone after a call */
    struct basic_ask *ask;

    if (b) {
        list_remove(&j->link);
        b->n_jobs--;
        if (j->users != b->users) /* meanwhile others count */
            result = BASIC_BUSY;
        else
            keep(b, j->tag, j->good);
        if (result == BASIC_WRONG)
            failures_of(b, j->from)->n++;
    }
    while (fn && (ask = list_first(&j->asks, struct basic_ask, link))) {
        list_remove(&ask->link);
        fn(ask->ctx, result, view_str(j->user));
        xfree(ask);
    }
    xfree(j);
}

static struct basic_job *job_for(struct basic *b, const uint8_t tag[TAG])
{
    struct list *it, *tmp;

    list_each (it, tmp, &b->jobs) {
        struct basic_job *j = list_entry(it, struct basic_job, link);

        if (memcmp(j->tag, tag, TAG) == 0 && j->users == b->users)
            return j;
    }
    return NULL;
}

static struct basic_job *job_start(struct basic *b, const uint8_t tag[TAG], const char *user,
                                   const char *password)
{
    const struct basic_user *u = find_user(b->users, user);
    struct basic_job *j;

    if (b->n_jobs >= JOBS_MAX)
        return NULL;
    j = XNEW(struct basic_job);
    j->job.work = job_work;
    j->job.done = job_done;
    j->b = b;
    j->users = b->users;
    j->exists = u != NULL;
    list_init(&j->asks);
    memcpy(j->tag, tag, TAG);
    memcpy(j->user, user, strlen(user) + 1);
    memcpy(j->password, password, strlen(password) + 1);
    u = u ? u : &b->users->list[0];
    memcpy(j->hash, u->hash, strlen(u->hash) + 1);
    if (ev_pool_submit(b->pool, b->loop, &j->job) < 0) {
        xfree_secret(j, sizeof(*j));
        return NULL;
    }
    list_append(&b->jobs, &j->link);
    b->n_jobs++;
    return j;
}

/* --- questions ---------------------------------------------------------------------------- */

int basic_decode(struct view field, struct str *out)
{
    static const struct view scheme = VIEW_LIT("basic ");

    if (field.n <= scheme.n || field.n > FIELD_MAX || strncasecmp(field.p, scheme.p, scheme.n) != 0)
        return -1;
    for (field = view_from(field, scheme.n); field.n && field.p[0] == ' ';)
        field = view_from(field, 1);
    if (base64_decode(field, out) < 0 || memchr(out->p, '\0', out->n) ||
        !memchr(out->p, ':', out->n))
        return -1;
    return 0;
}

static enum basic_result ask_pool(struct basic *b, const uint8_t tag[TAG], const char *user,
                                  const char *password, uint64_t from, struct basic_ask *ask)
{
    struct basic_job *j = job_for(b, tag);

    if (!j && failures_of(b, from)->n >= FAILURES_MAX)
        return BASIC_BUSY;
    if (!j)
        j = job_start(b, tag, user, password);
    if (!j)
        return BASIC_BUSY;
    j->from = from;
    list_append(&j->asks, &ask->link);
    return BASIC_ASKED;
}

static enum basic_result check_text(struct basic *b, struct str *text, uint64_t from,
                                    struct basic_ask *ask)
{
    char *colon = strchr(text->p, ':');
    const struct known *k;
    uint8_t tag[32];

    if (text->n > CREDENTIAL_MAX || colon - text->p > USER_MAX)
        return BASIC_WRONG;
    hmac_sha256(b->key, sizeof(b->key), text->p, text->n, tag);
    *colon = '\0';
    k = look_up(b, tag);
    if (!k)
        return ask_pool(b, tag, text->p, colon + 1, from, ask);
    if (!k->good)
        return BASIC_WRONG;
    memcpy(b->user, text->p, (size_t)(colon - text->p) + 1);
    return BASIC_GOOD;
}

enum basic_result basic_check(struct basic *b, struct view field, const struct net_addr *from,
                              struct view *user, struct basic_ask **ask, void *ctx)
{
    enum basic_result result = BASIC_MISSING;
    struct str text = STR_INIT;
    struct basic_ask *a;

    if (basic_decode(field, &text) == 0) {
        a = XNEW(struct basic_ask);
        list_init(&a->link);
        a->ctx = ctx;
        (void)str_c(&text); /* ends with a NUL */
        result = check_text(b, &text, address_key(from), a);
        if (result == BASIC_ASKED)
            *ask = a;
        else
            xfree(a);
        *user = view_str(b->user);
    }
    if (text.p)
        explicit_bzero(text.p, text.n);
    str_fini(&text);
    return result;
}

void basic_cancel(struct basic_ask **ask)
{
    if (!*ask)
        return;
    list_remove(&(*ask)->link);
    XFREE(*ask);
}

struct basic *basic_new(struct ev_loop *loop, struct ev_pool *pool, const struct basic_users *u,
                        basic_fn fn)
{
    struct basic *b = XNEW(struct basic);

    b->loop = loop;
    b->pool = pool;
    b->users = u;
    b->fn = fn;
    rng_bytes(b->key, sizeof(b->key));
    list_init(&b->jobs);
    return b;
}

void basic_configure(struct basic *b, const struct basic_users *u)
{
    if (memcmp(b->users->digest, u->digest, sizeof(u->digest)) != 0) {
        memset(b->known, 0, sizeof(b->known));
        memset(b->failures, 0, sizeof(b->failures));
    }
    b->users = u;
}

void basic_free(struct basic **bp)
{
    struct basic *b = *bp;
    struct list *it, *tmp;
    struct basic_ask *ask;

    *bp = NULL;
    if (!b)
        return;
    list_each (it, tmp, &b->jobs) {
        struct basic_job *j = list_entry(it, struct basic_job, link);

        list_remove(&j->link);
        j->b = NULL;
        while ((ask = list_first(&j->asks, struct basic_ask, link))) {
            list_remove(&ask->link);
            xfree(ask);
        }
    }
    xfree_secret(b, sizeof(*b));
}
