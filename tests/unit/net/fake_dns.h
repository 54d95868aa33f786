/* A small DNS server on the test's own loop: answers A and AAAA from a table. */
#ifndef TR_TEST_FAKE_DNS_H
#define TR_TEST_FAKE_DNS_H

#include <stddef.h>
#include <stdint.h>
#include "ev/loop.h"

struct dns_row {
    const char *name;
    const char *addrs; /* "192.0.2.1 2001:db8::1": each goes to the question it fits */
    unsigned ttl;
    int rcode;      /* 2 SERVFAIL, 3 NXDOMAIN, ... */
    bool silent;    /* no answer at all */
    bool garbage;   /* records that are none */
    unsigned asked; /* questions seen */
};

struct fake_dns {
    struct ev_io *io;
    int fd;
    uint16_t port;
    char server[32]; /* "127.0.0.1:port" for net_resolver_new */
    struct dns_row *rows;
    size_t n_rows;
    unsigned asked;
};

void fake_dns_start(struct fake_dns *d, struct ev_loop *loop, struct dns_row *rows, size_t n);
/* At this address; `port` 0: any. */
void fake_dns_start_at(struct fake_dns *d, struct ev_loop *loop, const char *ip, uint16_t port,
                       struct dns_row *rows, size_t n);
void fake_dns_stop(struct fake_dns *d);

#endif
