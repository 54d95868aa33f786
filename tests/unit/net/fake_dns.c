#include "fake_dns.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"

enum { TYPE_A = 1, TYPE_AAAA = 28, HEAD = 12 };

/* The name of the question as text; returns the offset behind the question, or 0. */
static size_t question(const uint8_t *q, size_t n, char name[256], unsigned *type)
{
    size_t at = HEAD, out = 0;

    while (at < n && q[at]) {
        size_t label = q[at++];

        if (label > 63 || at + label > n || out + label + 2 > 256)
            return 0;
        memcpy(name + out, q + at, label);
        out += label;
        name[out++] = '.';
        at += label;
    }
    if (at + 5 > n)
        return 0;
    name[out ? out - 1 : 0] = '\0';
    *type = (unsigned)q[at + 1] << 8 | q[at + 2];
    return at + 5;
}

static struct dns_row *find(struct fake_dns *d, const char *name)
{
    for (size_t i = 0; i < d->n_rows; i++)
        if (strcasecmp(d->rows[i].name, name) == 0)
            return &d->rows[i];
    return NULL;
}

static size_t add_record(uint8_t *out, unsigned type, unsigned ttl, const void *data, unsigned len)
{
    const uint8_t head[] = {0xc0,
                            HEAD,
                            0,
                            (uint8_t)type,
                            0,
                            1,
                            (uint8_t)(ttl >> 24),
                            (uint8_t)(ttl >> 16),
                            (uint8_t)(ttl >> 8),
                            (uint8_t)ttl,
                            0,
                            (uint8_t)len};

    memcpy(out, head, sizeof(head));
    memcpy(out + sizeof(head), data, len);
    return sizeof(head) + len;
}

/* Add the addresses of the type; returns bytes written. */
static size_t add_addresses(uint8_t *out, const struct dns_row *row, unsigned type, unsigned *count)
{
    char text[512], *at = text, *word;
    size_t n = 0;

    snprintf(text, sizeof(text), "%s", row->addrs ? row->addrs : "");
    while ((word = strsep(&at, " ")) != NULL) {
        uint8_t bytes[16];

        if (type == TYPE_A && inet_pton(AF_INET, word, bytes) == 1)
            n += add_record(out + n, type, row->ttl, bytes, 4);
        else if (type == TYPE_AAAA && inet_pton(AF_INET6, word, bytes) == 1)
            n += add_record(out + n, type, row->ttl, bytes, 16);
        else
            continue;
        ++*count;
    }
    return n;
}

static void on_question(void *ctx, unsigned can)
{
    struct fake_dns *d = ctx;
    struct sockaddr_in from;
    socklen_t from_len = sizeof(from);
    uint8_t buf[4096];
    char name[256];
    unsigned type, count = 0;
    ssize_t got = recvfrom(d->fd, buf, 512, 0, (struct sockaddr *)&from, &from_len);
    struct dns_row *row;
    size_t n, asked_n;

    (void)can;
    if (got < HEAD || !(n = question(buf, (size_t)got, name, &type)))
        return;
    asked_n = n;
    d->asked++;
    row = find(d, name);
    if (row)
        row->asked++;
    if (row && row->silent)
        return;
    if (row && row->rcode == 0)
        n += add_addresses(buf + n, row, type, &count);
    if (row && row->garbage)
        memset(buf + asked_n, 0xff, n - asked_n);
    buf[2] = 0x81;
    buf[3] = (uint8_t)(0x80 | (row ? row->rcode : 3));
    memset(buf + 6, 0, 6); /* no other sections, EDNS neither */
    buf[7] = (uint8_t)count;
    sendto(d->fd, buf, n, 0, (struct sockaddr *)&from, from_len);
}

void fake_dns_start(struct fake_dns *d, struct ev_loop *loop, struct dns_row *rows, size_t n)
{
    fake_dns_start_at(d, loop, "127.0.0.1", 0, rows, n);
}

void fake_dns_start_at(struct fake_dns *d, struct ev_loop *loop, const char *ip, uint16_t port,
                       struct dns_row *rows, size_t n)
{
    struct sockaddr_in sin = {
        .sin_family = AF_INET, .sin_addr.s_addr = inet_addr(ip), .sin_port = htons(port)};
    socklen_t len = sizeof(sin);
    int rc;

    memset(d, 0, sizeof(*d));
    d->rows = rows;
    d->n_rows = n;
    d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    rc = bind(d->fd, (struct sockaddr *)&sin, len);
    ASSERT(rc == 0);
    rc = getsockname(d->fd, (struct sockaddr *)&sin, &len);
    ASSERT(rc == 0);
    d->port = ntohs(sin.sin_port);
    snprintf(d->server, sizeof(d->server), "%s:%u", ip, d->port);
    d->io = ev_io_new(loop, d->fd, on_question, d);
    ev_io_want(d->io, EV_CAN_READ);
}

void fake_dns_stop(struct fake_dns *d)
{
    ev_io_free(&d->io);
    close(d->fd);
}
