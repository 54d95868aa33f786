#include "net/self.h"

#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include "base/xmem.h"
#include "rt/fdx.h"

/* Of all workers that listen there. */
struct place {
    struct net_addr at;
    unsigned n;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct place *places;
static size_t n_places;

/* The bytes of its address; NULL: another family. */
static const void *ip_of(const struct net_addr *a, size_t *n)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): with places there is an array of them */
    *n = a->ss.ss_family == AF_INET6 ? 16 : 4;
    if (a->ss.ss_family == AF_INET6)
        return &((const struct sockaddr_in6 *)&a->ss)->sin6_addr;
    return a->ss.ss_family == AF_INET ? &((const struct sockaddr_in *)&a->ss)->sin_addr : NULL;
}

static bool same_ip(const struct net_addr *a, const struct net_addr *b)
{
    size_t na, nb;
    const void *pa = ip_of(a, &na), *pb = ip_of(b, &nb);

    return pa && pb && na == nb && memcmp(pa, pb, na) == 0;
}

static bool is_any(const struct net_addr *a)
{
    static const unsigned char zero[16];
    size_t n;
    const void *p = ip_of(a, &n);

    return p && memcmp(p, zero, n) == 0;
}

static bool address_of(int fd, struct net_addr *out)
{
    memset(out, 0, sizeof(*out));
    out->len = sizeof(out->ss);
    return getsockname(fd, (struct sockaddr *)&out->ss, &out->len) == 0;
}

static struct place *find(const struct net_addr *at)
{
    size_t i;

    for (i = 0; i < n_places; i++) {
        if (same_ip(&places[i].at, at) && net_addr_port(&places[i].at) == net_addr_port(at))
            return &places[i];
    }
    return NULL;
}

void net_self_add(int fd)
{
    struct net_addr at;
    struct place *p;
    size_t n;

    if (!address_of(fd, &at) || !ip_of(&at, &n))
        return;
    pthread_mutex_lock(&lock);
    p = find(&at);
    if (!p) {
        places = xrealloc(places, (n_places + 1) * sizeof(*places));
        p = &places[n_places++];
        *p = (struct place){.at = at};
    }
    p->n++;
    pthread_mutex_unlock(&lock);
}

void net_self_remove(int fd)
{
    struct net_addr at;
    struct place *p;

    if (!address_of(fd, &at))
        return;
    pthread_mutex_lock(&lock);
    p = find(&at);
    if (p && --p->n == 0)
        *p = places[--n_places];
    if (n_places == 0)
        XFREE(places);
    pthread_mutex_unlock(&lock);
}

/* Whoever sends to an address of this machine sends from it; asked without a packet. */
static bool is_ours(const struct net_addr *a)
{
    int fd = socket(a->ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct net_addr from;
    bool ours = fd >= 0 && connect(fd, (const struct sockaddr *)&a->ss, a->len) == 0 &&
                address_of(fd, &from) && same_ip(&from, a);

    fd_close(&fd);
    return ours;
}

bool net_leads_back(const struct net_addr *to)
{
    bool exact, any = false;
    size_t i;

    pthread_mutex_lock(&lock);
    exact = find(to) != NULL;
    for (i = 0; i < n_places && !exact; i++)
        any = any || (is_any(&places[i].at) && places[i].at.ss.ss_family == to->ss.ss_family &&
                      net_addr_port(&places[i].at) == net_addr_port(to));
    pthread_mutex_unlock(&lock);
    return exact || (any && (is_any(to) || is_ours(to)));
}
