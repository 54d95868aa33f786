#include "net/seats.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>
#include "base/hash.h"
#include "base/hmap.h"
#include "base/xmem.h"
#include "rt/metric.h"
#include "rt/overload.h"

enum { ASKED_MAX = 64 };

struct client {
    struct hnode node;
    uint8_t address[9]; /* family and address */
    size_t seats;
};

static struct {
    pthread_mutex_t lock;
    size_t max, taken;
    unsigned share, asked;
    struct seat {
        struct client *client; /* NULL: no seat */
        struct metric *gauge;
    } * by_fd;
    size_t n;
    struct hmap clients;
} seats = {.lock = PTHREAD_MUTEX_INITIALIZER, .max = SIZE_MAX, .share = 100};

void seats_configure(size_t max, unsigned share)
{
    pthread_mutex_lock(&seats.lock);
    seats.max = max;
    seats.share = share;
    pthread_mutex_unlock(&seats.lock);
}

static void address_of(const struct net_addr *a, uint8_t out[9])
{
    memset(out, 0, 9);
    out[0] = (uint8_t)a->ss.ss_family;
    if (a->ss.ss_family == AF_INET)
        memcpy(out + 1, &a->ss.in.sin_addr, 4);
    else if (a->ss.ss_family == AF_INET6)
        memcpy(out + 1, &a->ss.in6.sin6_addr, 8);
}

static struct client *client_get(const struct net_addr *peer)
{
    uint8_t address[9];
    struct client *c;
    struct hnode *n;
    uint64_t h;

    address_of(peer, address);
    h = hash_bytes(address, sizeof(address));
    for (n = hmap_first(&seats.clients, h); n; n = hmap_next(n, h)) {
        c = hmap_entry(n, struct client, node);
        if (memcmp(c->address, address, sizeof(address)) == 0)
            return c;
    }
    c = XNEW(struct client);
    memcpy(c->address, address, sizeof(address));
    hmap_insert(&seats.clients, &c->node, h);
    return c;
}

static void client_put(struct client *c)
{
    if (c->seats)
        return;
    hmap_remove(&seats.clients, &c->node);
    xfree(c);
}

static struct seat *seat_of(int fd)
{
    size_t n = seats.n ? seats.n : 256;

    while (n <= (size_t)fd)
        n *= 2;
    if (n > seats.n) {
        seats.by_fd = xrealloc(seats.by_fd, n * sizeof(*seats.by_fd));
        memset(seats.by_fd + seats.n, 0, (n - seats.n) * sizeof(*seats.by_fd));
        seats.n = n;
    }
    return &seats.by_fd[fd];
}

static struct metric *gauge_of(const char *listener)
{
    return metric_series(metric_family(METRIC_GAUGE, "connections", "listener",
                                       "Client connections open, tunnels included, by listener."),
                         listener);
}

static enum seat_verdict take(int fd, const struct net_addr *peer, struct metric *gauge)
{
    struct client *c;
    struct seat *s;

    if (seats.taken >= seats.max)
        return SEAT_NONE;
    c = client_get(peer);
    if (!overload_admits(seats.taken, c->seats, seats.max, seats.share)) {
        client_put(c);
        return SEAT_CLIENT_FULL;
    }
    s = seat_of(fd);
    s->client = c;
    s->gauge = gauge;
    c->seats++;
    seats.taken++;
    metric_shift(gauge, 1);
    return SEAT_TAKEN;
}

enum seat_verdict seat_take(int fd, const struct net_addr *peer, const char *listener)
{
    struct metric *gauge = gauge_of(listener);
    enum seat_verdict v;

    pthread_mutex_lock(&seats.lock);
    v = take(fd, peer, gauge);
    pthread_mutex_unlock(&seats.lock);
    return v;
}

void seat_give_back(int fd)
{
    struct seat *s;

    pthread_mutex_lock(&seats.lock);
    if (fd >= 0 && (size_t)fd < seats.n && seats.by_fd[fd].client) {
        s = &seats.by_fd[fd];
        s->client->seats--;
        client_put(s->client);
        s->client = NULL;
        seats.taken--;
        metric_shift(s->gauge, -1);
    }
    pthread_mutex_unlock(&seats.lock);
}

void seat_refuse(int fd)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};

    seat_give_back(fd);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(fd);
}

size_t seats_taken(void)
{
    size_t n;

    pthread_mutex_lock(&seats.lock);
    n = seats.taken;
    pthread_mutex_unlock(&seats.lock);
    return n;
}

void seats_ask_room(void)
{
    __atomic_fetch_add(&seats.asked, 1, __ATOMIC_RELAXED);
}

unsigned seats_room_asked(void)
{
    unsigned n = __atomic_exchange_n(&seats.asked, 0, __ATOMIC_RELAXED);

    return n < ASKED_MAX ? n : ASKED_MAX;
}
