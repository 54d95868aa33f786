#include "app/sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/xmem.h"
#include "net/listen.h"
#include "rt/fdx.h"
#include "rt/log.h"

enum {
    BACKLOG = 1024,
    FIRST_FD = 3,     /* SD_LISTEN_FDS_START */
    GIVEN_MAX = 4096, /* more is no number of descriptors but a mistake */
};

int sockets_add(struct sockets *s, struct view name, struct view address, int fd, bool only,
                struct err *e)
{
    struct socket_had h = {.fd = fd, .only = only};

    if (net_listen_adopt(fd, &h.at, e) < 0)
        return -1;
    h.name = xmemdup0(name.p ? name.p : "", name.n);
    h.address = xmemdup0(address.p ? address.p : "", address.n);
    s->had = xrealloc(s->had, (s->n + 1) * sizeof(*s->had));
    s->had[s->n++] = h;
    return 0;
}

/* --- from the supervisor ------------------------------------------------------------------ */

static struct view next_name(struct view *names)
{
    const char *colon = names->n ? memchr(names->p, ':', names->n) : NULL;
    struct view name = *names;

    if (colon)
        name.n = (size_t)(colon - names->p);
    *names = view_from(*names, name.n + (colon != NULL));
    return name;
}

void sockets_from_supervisor(struct sockets *s)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS"),
               *names = getenv("LISTEN_FDNAMES");
    const bool ours = pid && count && strtol(pid, NULL, 10) == (long)getpid();
    const long n = ours ? strtol(count, NULL, 10) : 0;
    struct view left = names ? view_str(names) : VIEW_NONE;
    struct err e = {0};
    int fd;

    for (fd = FIRST_FD; n <= GIVEN_MAX && fd < FIRST_FD + (int)n; fd++) {
        struct view name = next_name(&left);
        int taken = fd;

        if (sockets_add(s, name, VIEW_NONE, fd, true, &e) == 0)
            continue;
        log_event(LOG_WARN, "app", "a descriptor of the supervisor is of no use; closed",
                  LF_VIEW("name", name), LF_ERR(&e));
        fd_close(&taken);
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

/* --- by listener -------------------------------------------------------------------------- */

static bool same_address(const struct net_addr *a, const struct net_addr *b)
{
    char x[NET_ADDR_TEXT], y[NET_ADDR_TEXT];

    return strcmp(net_addr_text(a, x), net_addr_text(b, y)) == 0;
}

/* The supervisor's name is enough: the admin gave it. Of another process, the listener must not
 * have moved meanwhile; with port 0 only its configuration tells. */
static bool by_name(const struct socket_had *h, const struct config_listen *l)
{
    return strcmp(h->name, l->name) == 0 && (h->only || strcmp(h->address, l->address) == 0);
}

static void take(struct sockets *s, const struct config_listen *l, bool named,
                 struct sockets_found *out)
{
    size_t i;

    for (i = 0; i < s->n; i++) {
        struct socket_had *h = &s->had[i];

        if (h->fd < 0 || !(named ? by_name(h, l) : same_address(&h->at, &out->at)))
            continue;
        out->fds[out->n++] = h->fd;
        out->only = out->only || h->only;
        h->fd = -1;
    }
}

void sockets_found_fini(struct sockets_found *f)
{
    while (f->n)
        fd_close(&f->fds[--f->n]);
    XFREE(f->fds);
}

int sockets_open(struct sockets *s, const struct config_listen *l, struct sockets_found *out,
                 struct err *e)
{
    *out = (struct sockets_found){.fds = xcalloc(s->n + 1, sizeof(*out->fds))};
    if (net_addr_parse(view_str(l->address), &out->at, e) < 0)
        goto fail;
    take(s, l, true, out);
    if (!out->n && net_addr_port(&out->at))
        take(s, l, false, out);
    out->had = out->n;
    if (!out->n) {
        out->fds[0] = net_listen_fd(&out->at, BACKLOG, NULL, e);
        out->n = out->fds[0] >= 0;
    }
    /* With port 0 all take the port that the first was given. */
    if (out->n && net_listen_adopt(out->fds[0], &out->at, e) == 0)
        return 0;
fail:
    sockets_found_fini(out);
    return -1;
}

static int one_more(const struct sockets_found *f, struct err *e)
{
    int fd = f->only ? -1 : net_listen_fd(&f->at, BACKLOG, NULL, e);

    if (fd < 0 && f->had)
        fd = fcntl(f->fds[f->n % f->had], F_DUPFD_CLOEXEC, 0);
    return fd;
}

int sockets_widen(struct sockets_found *f, size_t want, struct err *e)
{
    f->fds = xrealloc(f->fds, TR_MAX(want, f->n) * sizeof(*f->fds));
    while (f->n < want) {
        int fd = one_more(f, e);

        if (fd < 0)
            return -1;
        f->fds[f->n++] = fd;
    }
    return 0;
}

void sockets_fini(struct sockets *s, bool say)
{
    char text[NET_ADDR_TEXT];
    size_t i;

    for (i = 0; i < s->n; i++) {
        struct socket_had *h = &s->had[i];

        if (h->fd >= 0 && say)
            log_event(LOG_WARN, "app", "no listener is for this descriptor; closed",
                      LF_STR("name", h->name), LF_STR("address", net_addr_text(&h->at, text)));
        fd_close(&h->fd);
        xfree(h->name);
        xfree(h->address);
    }
    xfree(s->had);
    *s = (struct sockets){0};
}
