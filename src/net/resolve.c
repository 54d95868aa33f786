#include "net/resolve.h"

#include <ares.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include "base/bug.h"
#include "base/hash.h"
#include "base/hmap.h"
#include "base/list.h"
#include "base/xmem.h"
#include "rt/clock.h"
#include "rt/fdx.h"
#include "rt/log.h"

#define RESOLVER_MAGIC 0x4e507e11u
#define LOOKUP_MAGIC   0x4e50100cu

enum {
    TTL_MIN_S = 1,   /* an answer serves at least those who ask at the same time */
    TTL_MAX_S = 300, /* an address that moved is noticed, whatever its TTL said */
    FAILED_S = 1,
    /* Clients choose what is looked up: names kept at most, the oldest answer makes room. */
    CACHE_MAX = 4096,
    NAME_MAX_BYTES = 253, /* RFC 1035 §2.3.4, in text form without the last dot */
    /* A server that does not answer: the first try, and how often. Each try waits longer. */
    TRY_MS = 1000,
    TRIES = 3,
    RESOLV_CONF_CHECK_S = 5,
};

/* What was found out about a name. Shared by the cache and the lookups it is being told to. */
struct answer {
    unsigned refs;
    size_t n;
    struct err err;
    struct net_addr addrs[NET_RESOLVE_MAX]; /* port 0 */
};

/* Name servers, and what they are being asked. */
struct channel {
    struct list link; /* in net_resolver.old once there is a newer one */
    struct net_resolver *r;
    ares_channel ares;
    struct ev_timer *timer;
    struct list sockets;
    size_t asking; /* entries that wait for it */
};

/* A name in the cache, or being asked for. */
struct entry {
    struct hnode node;
    struct list order;   /* in net_resolver.order while it has an answer: oldest first */
    struct list waiting; /* net_lookup.link */
    struct net_resolver *r;
    struct channel *channel; /* that was asked last; gone once there is an answer */
    struct answer *answer;   /* NULL: being asked for */
    int64_t until_ns;
    char name[]; /* lower case, no dot at the end */
};

struct net_lookup {
    uint32_t magic;
    struct list link; /* in entry.waiting or net_resolver.telling */
    struct net_resolver *r;
    struct answer *answer;
    uint16_t port;
    net_resolved_fn fn; /* NULL: cancelled */
    void *ctx;
    struct ev_task task;
};

struct socket_watch {
    struct list link;
    struct channel *ch;
    ares_socket_t fd;
    struct ev_io *io;
};

/* Which version of a file was read; all zero: there was none. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec modified, changed;
};

struct net_resolver {
    uint32_t magic;
    struct ev_loop *loop;
    struct channel *channel; /* what new questions go to */
    struct list old;         /* channels that have questions left */
    char *resolv_conf;       /* NULL: servers were given, there is nothing to look for */
    uint16_t port;           /* of those in the file; 0: 53 */
    struct stamp stamp;
    int64_t check_ns; /* when to look at the file again */
    struct hmap names;
    struct list order;
    struct list telling; /* lookups whose task is posted */
    bool closing;
};

static struct answer *answer_new(void)
{
    struct answer *a = XNEW(struct answer);

    a->refs = 1;
    return a;
}

static struct answer *answer_ref(struct answer *a)
{
    a->refs++;
    return a;
}

static void answer_unref(struct answer *a)
{
    if (a && --a->refs == 0)
        xfree(a);
}

/* --- c-ares on the loop -------------------------------------------------------------------- */

/* c-ares says how long it can wait; ask again after everything that may have changed it. */
static void update_timer(struct channel *ch)
{
    struct timeval tv, *wait;

    ASSERT(ch);
    wait = ares_timeout(ch->ares, NULL, &tv);
    if (!wait)
        ev_timer_disarm(ch->timer);
    else /* rounded up, or the last fraction would be spent in turns that come too early */
        ev_timer_arm(ch->timer, (int64_t)wait->tv_sec * 1000 + wait->tv_usec / 1000 + 1);
}

static void channel_free(struct channel *ch)
{
    ASSERT(ch);
    ares_destroy(ch->ares); /* closes its sockets: on_socket_state removes the watches */
    ASSERT(list_empty(&ch->sockets));
    ev_timer_free(&ch->timer);
    list_remove(&ch->link);
    xfree(ch);
}

/* Not from within c-ares: an old channel that has answered all goes. */
static void channel_settle(struct channel *ch)
{
    if (ch != ch->r->channel && ch->asking == 0)
        channel_free(ch);
    else
        update_timer(ch);
}

static void on_timer(void *ctx)
{
    struct channel *ch = ctx;

    OBJ_CHECK(ch->r, RESOLVER_MAGIC);
    ares_process_fd(ch->ares, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    channel_settle(ch);
}

static void on_socket_io(void *ctx, unsigned can)
{
    struct socket_watch *w = ctx;
    struct channel *ch = w->ch; /* the watch may go in the call */
    ares_socket_t fd = w->fd;

    ares_process_fd(ch->ares, can & EV_CAN_READ ? fd : ARES_SOCKET_BAD,
                    can & EV_CAN_WRITE ? fd : ARES_SOCKET_BAD);
    channel_settle(ch);
}

static struct socket_watch *watch_find(struct channel *ch, ares_socket_t fd)
{
    struct list *it, *tmp;

    list_each (it, tmp, &ch->sockets) {
        struct socket_watch *w = list_entry(it, struct socket_watch, link);

        if (w->fd == fd)
            return w;
    }
    return NULL;
}

/* c-ares opened a socket, wants something else of it, or is about to close it. */
static void on_socket_state(void *ctx, ares_socket_t fd, int readable, int writable)
{
    struct channel *ch = ctx;
    struct socket_watch *w = watch_find(ch, fd);

    if (!readable && !writable) {
        if (!w)
            return;
        ev_io_free(&w->io);
        list_remove(&w->link);
        xfree(w);
        return;
    }
    if (!w) {
        w = XNEW(struct socket_watch);
        w->ch = ch;
        w->fd = fd;
        w->io = ev_io_new(ch->r->loop, fd, on_socket_io, w);
        list_append(&ch->sockets, &w->link);
    }
    ev_io_want(w->io, (readable ? EV_CAN_READ : 0) | (writable ? EV_CAN_WRITE : 0));
}

static void library_init(void)
{
    if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
        BUG("c-ares cannot be used");
}

/* c-ares takes much for a server that is none: check first. */
static bool are_servers(struct view list)
{
    while (list.n) {
        const char *comma = memchr(list.p, ',', list.n);
        struct view one = view_of(list.p, comma ? (size_t)(comma - list.p) : list.n);
        struct net_addr a;

        if (net_addr_literal(one, 0, &a) < 0 && net_addr_parse(one, &a, NULL) < 0)
            return false;
        if (!comma)
            return true;
        list = view_from(list, one.n + 1);
    }
    return false; /* nothing, or a comma with nothing behind it */
}

/* NULL and `e` on failure. `servers` NULL: as r->resolv_conf has them. */
static struct channel *channel_new(struct net_resolver *r, const char *servers, struct err *e)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    /* A name with a dot is asked for as it is before any search domain is tried, whatever the file
     * says (Kubernetes: ndots:5): it was judged as it is, and who can make names in a search domain
     * must not answer for it. */
    struct ares_options o = {.timeout = TRY_MS, .tries = TRIES, .ndots = 1};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB | ARES_OPT_NDOTS;
    struct channel *ch = XNEW(struct channel);
    int rc;

    pthread_once(&once, library_init);
    ch->r = r;
    list_init(&ch->link);
    list_init(&ch->sockets);
    o.sock_state_cb = on_socket_state;
    o.sock_state_cb_data = ch;
    o.resolvconf_path = r->resolv_conf;
    o.udp_port = o.tcp_port = r->port;
    if (r->resolv_conf)
        mask |= ARES_OPT_RESOLVCONF;
    if (r->port)
        mask |= ARES_OPT_UDP_PORT | ARES_OPT_TCP_PORT;
    rc = ares_init_options(&ch->ares, &o, mask);
    if (rc != ARES_SUCCESS) {
        err_set(e, ERR_IO, "the resolver cannot start: %s", ares_strerror(rc));
        xfree(ch);
        return NULL;
    }
    ch->timer = ev_timer_new(r->loop, on_timer, ch);
    if (!servers || (are_servers(view_str(servers)) &&
                     ares_set_servers_ports_csv(ch->ares, servers) == ARES_SUCCESS))
        return ch;
    err_set(e, ERR_INVALID, "\"%.100s\" is no list of name server addresses", servers);
    channel_free(ch);
    return NULL;
}

/* --- cache --------------------------------------------------------------------------------- */

static struct entry *entry_find(struct net_resolver *r, const char *name, uint64_t hash)
{
    struct hnode *n;

    for (n = hmap_first(&r->names, hash); n; n = hmap_next(n, hash)) {
        struct entry *en = hmap_entry(n, struct entry, node);

        if (strcmp(en->name, name) == 0)
            return en;
    }
    return NULL;
}

static void entry_free(struct entry *en)
{
    ASSERT(en);
    hmap_remove(&en->r->names, &en->node);
    list_remove(&en->order);
    answer_unref(en->answer);
    xfree(en);
}

static struct entry *entry_new(struct net_resolver *r, const char *name, uint64_t hash)
{
    size_t n = strlen(name);
    struct entry *en;

    if (r->names.count >= CACHE_MAX && !list_empty(&r->order))
        entry_free(list_first(&r->order, struct entry, order));
    en = xcalloc(1, sizeof(*en) + n + 1);
    memcpy(en->name, name, n);
    en->r = r;
    list_init(&en->order);
    list_init(&en->waiting);
    hmap_insert(&r->names, &en->node, hash);
    return en;
}

/* Tell a lookup its answer, not before the caller is back in the loop. */
static void tell_later(struct net_lookup *l, struct answer *a)
{
    ASSERT(l);
    l->answer = answer_ref(a);
    list_remove(&l->link);
    list_append(&l->r->telling, &l->link);
    ev_post(l->r->loop, &l->task);
}

static void lookup_free(struct net_lookup *l)
{
    ASSERT(l);
    list_remove(&l->link);
    answer_unref(l->answer);
    OBJ_FINI(l);
    xfree(l);
}

static void on_tell(struct ev_task *task)
{
    struct net_lookup *l = container_of(task, struct net_lookup, task);
    struct net_addr addrs[NET_RESOLVE_MAX];
    struct answer *a = l->answer;
    net_resolved_fn fn = l->fn;
    void *ctx = l->ctx;

    OBJ_CHECK(l, LOOKUP_MAGIC);
    if (!fn) {
        lookup_free(l);
        return;
    }
    for (size_t i = 0; i < a->n; i++) {
        addrs[i] = a->addrs[i];
        net_addr_set_port(&addrs[i], l->port);
    }
    answer_ref(a); /* its error is passed on; the cache may drop it meanwhile */
    lookup_free(l);
    fn(ctx, addrs, a->n, a->n ? NULL : &a->err);
    answer_unref(a);
}

static void entry_answered(struct entry *en, struct answer *a, int64_t ttl_s)
{
    struct net_resolver *r = en->r;

    en->answer = a;
    en->until_ns = clock_mono_ns() + ttl_s * NS_PER_SEC;
    list_append(&r->order, &en->order);
    while (!list_empty(&en->waiting))
        tell_later(list_first(&en->waiting, struct net_lookup, link), a);
}

/* --- answers ------------------------------------------------------------------------------- */

static enum err_code code_of(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
    case ARES_ENODATA:
        return ERR_NOTFOUND;
    case ARES_ETIMEOUT:
        return ERR_TIMEOUT;
    case ARES_EBADNAME:
        return ERR_INVALID;
    default:
        return ERR_UNAVAIL;
    }
}

static const char *words_of(int status)
{
    switch (status) {
    case ARES_ENOTFOUND:
        return "no such name";
    case ARES_ENODATA:
        return "the name has no address";
    case ARES_ETIMEOUT:
        return "no name server answered in time";
    case ARES_ECONNREFUSED:
        return "no name server can be reached";
    case ARES_ESERVFAIL:
        return "the name server failed";
    case ARES_EREFUSED:
        return "the name server refused to answer";
    default:
        return ares_strerror(status);
    }
}

/* Copy the addresses; returns the least TTL, in the bounds for keeping. */
static int64_t take_addresses(const struct ares_addrinfo *ai, struct answer *a)
{
    int64_t ttl = TTL_MAX_S;

    for (const struct ares_addrinfo_node *n = ai->nodes; n && a->n < NET_RESOLVE_MAX;
         n = n->ai_next) {
        struct net_addr *to = &a->addrs[a->n];

        if ((n->ai_family != AF_INET && n->ai_family != AF_INET6) || n->ai_addrlen > sizeof(to->ss))
            continue;
        memcpy(&to->ss, n->ai_addr, n->ai_addrlen);
        to->len = n->ai_addrlen;
        net_addr_set_port(to, 0);
        a->n++;
        ttl = TR_MIN(ttl, (int64_t)n->ai_ttl);
    }
    for (const struct ares_addrinfo_cname *c = ai->cnames; c; c = c->next)
        ttl = TR_MIN(ttl, (int64_t)c->ttl);
    return TR_MAX(ttl, (int64_t)TTL_MIN_S);
}

static void on_addrinfo(void *ctx, int status, int timeouts, struct ares_addrinfo *ai)
{
    struct entry *en = ctx;
    struct answer *a;
    int64_t ttl = FAILED_S;

    (void)timeouts;
    en->channel->asking--;
    if (en->r->closing) {
        if (ai)
            ares_freeaddrinfo(ai);
        return;
    }
    a = answer_new();
    if (status == ARES_SUCCESS && ai)
        ttl = take_addresses(ai, a);
    if (a->n == 0) {
        if (status == ARES_SUCCESS)
            status = ARES_ENODATA;
        err_set(&a->err, code_of(status), "cannot resolve %s: %s", en->name, words_of(status));
        ttl = FAILED_S;
    }
    if (ai)
        ares_freeaddrinfo(ai);
    entry_answered(en, a, ttl);
}

static void ask(struct entry *en)
{
    /* Either family, in the order of RFC 6724. */
    static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC,
                                                     .ai_socktype = SOCK_STREAM};
    struct net_resolver *r = en->r;

    en->channel = r->channel;
    en->channel->asking++;
    ares_getaddrinfo(r->channel->ares, en->name, NULL, &hints, on_addrinfo, en);
    update_timer(r->channel);
}

/* --- names --------------------------------------------------------------------------------- */

/* Would inet_aton take the last label, and so the whole, for a number? "127.1", "0x7f000001" are no
 * names, and as addresses they are a way around rules: so they are neither (WHATWG URL, "ends in a
 * number"). */
static bool ends_in_number(struct view name)
{
    const char *dot = memrchr(name.p, '.', name.n);
    struct view last = dot ? view_from(name, (size_t)(dot - name.p) + 1) : name;
    bool hex = last.n >= 2 && last.p[0] == '0' && (last.p[1] == 'x' || last.p[1] == 'X');

    for (size_t i = hex ? 2 : 0; i < last.n; i++)
        if (hex ? !isxdigit((unsigned char)last.p[i]) : !isdigit((unsigned char)last.p[i]))
            return false;
    return true;
}

/* Letters, digits, "-" and "_" in labels of 1 to 63: nothing else reaches a name server. */
static bool is_name(struct view name)
{
    size_t label = 0;

    if (name.n == 0 || name.n > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = (unsigned char)name.p[i];

        if (c == '.' ? label == 0 : !(isalnum(c) && c < 0x80) && c != '-' && c != '_')
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label > 0 && !ends_in_number(name);
}

/* The name in the form it is asked and kept in. False: it is none. */
static bool name_canonical(const char *host, char out[NAME_MAX_BYTES + 1])
{
    struct view name = view_str(host);

    if (name.n > 1 && name.p[name.n - 1] == '.')
        name.n--;
    if (!is_name(name))
        return false;
    for (size_t i = 0; i < name.n; i++)
        out[i] = (char)tolower((unsigned char)name.p[i]);
    out[name.n] = '\0';
    return true;
}

/* --- resolv.conf --------------------------------------------------------------------------- */

static struct stamp stamp_of(const char *path)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return (struct stamp){0};
    return (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim, st.st_ctim};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           same_time(&a->modified, &b->modified) && same_time(&a->changed, &b->changed);
}

/* It is there, but not for us, as when root's file was replaced by another (app/sandbox.h). */
static bool may_not_be_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), why = errno;

    if (fd < 0)
        return why != ENOENT;
    fd_close(&fd);
    return false;
}

static void forget_answers(struct net_resolver *r)
{
    while (!list_empty(&r->order))
        entry_free(list_first(&r->order, struct entry, order));
}

/* c-ares reads the file when a channel is made, and never again: so another one is made. The old
 * one finishes what it was asked. */
static void check_servers(struct net_resolver *r)
{
    int64_t now = clock_mono_ns();
    struct stamp stamp;
    struct channel *before = r->channel, *ch;
    struct err e;

    if (!r->resolv_conf || now < r->check_ns)
        return;
    r->check_ns = now + RESOLV_CONF_CHECK_S * NS_PER_SEC;
    stamp = stamp_of(r->resolv_conf);
    if (same_stamp(&stamp, &r->stamp))
        return;
    if (may_not_be_read(r->resolv_conf)) { /* c-ares would take 127.0.0.1 for its name server */
        r->stamp = stamp;
        log_event(LOG_WARN, "resolver",
                  "the name servers stay as they were: their file may not be read any more",
                  LF_STR("file", r->resolv_conf));
        return;
    }
    ch = channel_new(r, NULL, &e);
    if (!ch) { /* the stamp stays: tried again at the next check */
        log_event(LOG_WARN, "resolver", "the name servers stay as they were", LF_ERR(&e));
        return;
    }
    r->stamp = stamp;
    r->channel = ch;
    list_append(&r->old, &before->link);
    channel_settle(before);
    forget_answers(r); /* another network may have other answers */
    log_event(LOG_INFO, "resolver", "the name servers were read again",
              LF_STR("file", r->resolv_conf));
}

/* --- calls --------------------------------------------------------------------------------- */

static struct net_resolver *resolver_new(struct ev_loop *loop, const char *servers,
                                         const char *resolv_conf, uint16_t port, struct err *e)
{
    struct net_resolver *r = XNEW(struct net_resolver);

    OBJ_INIT(r, RESOLVER_MAGIC);
    r->loop = loop;
    list_init(&r->old);
    list_init(&r->order);
    list_init(&r->telling);
    if (!servers) {
        r->resolv_conf = xstrdup(resolv_conf);
        r->port = port;
        r->stamp = stamp_of(resolv_conf); /* before it is read: a change meanwhile is seen later */
        r->check_ns = clock_mono_ns() + RESOLV_CONF_CHECK_S * NS_PER_SEC;
    }
    r->channel = channel_new(r, servers, e);
    if (!r->channel) {
        xfree(r->resolv_conf);
        xfree(r);
        return NULL;
    }
    return r;
}

struct net_resolver *net_resolver_new(struct ev_loop *loop, const char *servers, struct err *e)
{
    return resolver_new(loop, servers, "/etc/resolv.conf", 0, e);
}

struct net_resolver *net_resolver_new_file(struct ev_loop *loop, const char *resolv_conf,
                                           uint16_t port, struct err *e)
{
    return resolver_new(loop, NULL, resolv_conf, port, e);
}

void net_resolver_reload(struct net_resolver *r)
{
    OBJ_CHECK(r, RESOLVER_MAGIC);
    forget_answers(r);
    r->check_ns = 0;
    check_servers(r);
}

static void drop_waiting(struct entry *en)
{
    while (!list_empty(&en->waiting))
        lookup_free(list_first(&en->waiting, struct net_lookup, link));
}

void net_resolver_free(struct net_resolver **rp)
{
    struct net_resolver *r = *rp;
    struct list *it, *tmp;
    struct hnode *n;
    size_t slot = 0;

    *rp = NULL;
    if (!r)
        return;
    OBJ_CHECK(r, RESOLVER_MAGIC);
    r->closing = true;
    while (!list_empty(&r->old))
        channel_free(list_first(&r->old, struct channel, link));
    channel_free(r->channel);
    while ((n = hmap_walk(&r->names, &slot, NULL)) != NULL) {
        struct entry *en = hmap_entry(n, struct entry, node);

        drop_waiting(en);
        entry_free(en);
        slot = 0;
    }
    list_each (it, tmp, &r->telling) { /* their tasks are posted: they free themselves */
        list_entry(it, struct net_lookup, link)->fn = NULL;
        list_remove(it);
    }
    hmap_fini(&r->names);
    xfree(r->resolv_conf);
    OBJ_FINI(r);
    xfree(r);
}

static struct net_lookup *lookup_new(struct net_resolver *r, uint16_t port, net_resolved_fn fn,
                                     void *ctx)
{
    struct net_lookup *l = XNEW(struct net_lookup);

    OBJ_INIT(l, LOOKUP_MAGIC);
    list_init(&l->link);
    l->r = r;
    l->port = port;
    l->fn = fn;
    l->ctx = ctx;
    l->task.run = on_tell;
    return l;
}

/* An answer that needs no asking. */
static void tell_made(struct net_lookup *l, struct answer *a)
{
    tell_later(l, a);
    answer_unref(a);
}

static void look_up_name(struct net_lookup *l, const char *name)
{
    struct net_resolver *r = l->r;
    uint64_t hash = hash_bytes(name, strlen(name));
    struct entry *en;

    check_servers(r);
    en = entry_find(r, name, hash);
    if (en && en->answer && en->until_ns <= clock_mono_ns()) {
        entry_free(en);
        en = NULL;
    }
    if (en && en->answer) {
        tell_later(l, en->answer);
        return;
    }
    if (en) { /* asked for already */
        list_append(&en->waiting, &l->link);
        return;
    }
    en = entry_new(r, name, hash);
    list_append(&en->waiting, &l->link);
    ask(en); /* /etc/hosts may answer at once; the lookup is told later all the same */
}

struct net_lookup *net_resolve(struct net_resolver *r, const char *host, uint16_t port,
                               net_resolved_fn fn, void *ctx)
{
    struct net_lookup *l = lookup_new(r, port, fn, ctx);
    char name[NAME_MAX_BYTES + 1];
    struct answer *a;

    OBJ_CHECK(r, RESOLVER_MAGIC);
    if (name_canonical(host, name)) {
        look_up_name(l, name);
        return l;
    }
    a = answer_new();
    if (net_addr_literal(view_str(host), 0, &a->addrs[0]) == 0)
        a->n = 1;
    else
        err_set(&a->err, ERR_INVALID, "this is neither a host name nor an address");
    tell_made(l, a);
    return l;
}

void net_lookup_cancel(struct net_lookup **lp)
{
    struct net_lookup *l = *lp;

    *lp = NULL;
    if (!l)
        return;
    OBJ_CHECK(l, LOOKUP_MAGIC);
    l->fn = NULL;
    if (!l->answer) /* else its task is posted and frees it */
        lookup_free(l);
}
