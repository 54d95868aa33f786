#include "app/doctor_priv.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "rt/fdx.h"

/* ---- who has it --------------------------------------------------------------------------- */

enum { INODES = 16, STATE_LISTEN = 0x0a };

struct inodes {
    unsigned long items[INODES];
    size_t n;
};

/* Sockets that listen at that port, as proc(5) lists them. */
static void find_listeners(const char *table, unsigned port, struct inodes *out)
{
    FILE *f = fopen(table, "re");
    char line[512];

    while (f && out->n < INODES && fgets(line, sizeof(line), f)) {
        unsigned at, state;
        unsigned long inode;

        /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
        if (sscanf(line, " %*d: %*[0-9A-F]:%x %*s %x %*s %*s %*s %*s %*s %lu", &at, &state,
                   &inode) == 3 &&
            at == port && state == STATE_LISTEN)
            out->items[out->n++] = inode;
    }
    if (f)
        fclose(f);
}

static bool has_one(const char *directory, const struct inodes *inodes)
{
    struct str path = STR_INIT;
    struct dirent *at;
    DIR *dir = opendir(directory);
    char link[64], want[64];
    bool found = false;

    while (dir && !found && (at = readdir(dir))) {
        ssize_t n;

        str_clear(&path);
        str_addf(&path, "%s/%s", directory, at->d_name);
        n = readlink(str_c(&path), link, sizeof(link) - 1);
        link[n > 0 ? n : 0] = '\0';
        for (size_t i = 0; i < inodes->n && !found; i++) {
            snprintf(want, sizeof(want), "socket:[%lu]", inodes->items[i]);
            found = strcmp(link, want) == 0;
        }
    }
    if (dir)
        closedir(dir);
    str_fini(&path);
    return found;
}

/* The process that has one of them, as far as this user may see. "": not known. */
static long find_owner(const struct inodes *inodes, char name[64])
{
    DIR *dir = opendir("/proc");
    struct str path = STR_INIT, text = STR_INIT;
    struct dirent *at;
    long pid = 0;

    name[0] = '\0';
    while (dir && inodes->n && !pid && (at = readdir(dir))) {
        if (!isdigit((unsigned char)at->d_name[0]))
            continue;
        str_clear(&path);
        str_addf(&path, "/proc/%s/fd", at->d_name);
        if (!has_one(str_c(&path), inodes))
            continue;
        pid = strtol(at->d_name, NULL, 10);
        str_clear(&path);
        str_addf(&path, "/proc/%s/comm", at->d_name);
        if (file_read(str_c(&path), 64, &text, NULL) == 0)
            snprintf(name, 64, "%.*s", (int)strcspn(str_c(&text), "\n"), str_c(&text));
    }
    if (dir)
        closedir(dir);
    str_fini(&path);
    str_fini(&text);
    return pid;
}

/* ---- what can be had ---------------------------------------------------------------------- */

static void tell_taken(const struct config_listen *l, const char *flow, unsigned port,
                       struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_PORT_TAKEN, flow, "port"};
    struct inodes inodes = {.n = 0};
    char name[64];
    long pid;

    find_listeners("/proc/net/tcp", port, &inodes);
    find_listeners("/proc/net/tcp6", port, &inodes);
    pid = find_owner(&inodes, name);
    if (pid == 1 || strcmp(name, "tailrace") == 0) {
        findings_ok(r, flow, "port", "%s is held by %s", l->address,
                    pid == 1 ? "the service manager" : "a tailrace that runs");
        return;
    }
    if (pid)
        findings_add(r, &f, "%s is taken by process %ld (%s)", l->address, pid, name);
    else
        findings_add(r, &f, "%s is taken by another user's process", l->address);
    findings_do(r,
                "end that process (ss -ltnp 'sport = :%u' names it), or choose another port: "
                "listen.%s.address",
                port, l->name);
}

static void tell_forbidden(const struct config_listen *l, const char *flow, int errnum,
                           struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_PORT_NOT_ALLOWED, flow, "port"};

    findings_add(r, &f, "cannot listen at %s: %s", l->address, strerror(errnum));
    if (errnum == EACCES)
        findings_do(r, "run it by its unit, which may (CAP_NET_BIND_SERVICE); as another user: "
                       "sysctl net.ipv4.ip_unprivileged_port_start, or a port from 1024 on");
    else
        findings_do(r, "use an address of this host, or [::] or 0.0.0.0: listen.%s.address",
                    l->name);
}

void doctor_check_port(const struct config_listen *l, const char *flow, struct findings *r)
{
    const int on = 1;
    struct net_addr at;
    int fd, rc;

    if (net_addr_parse(view_str(l->address), &at, NULL) < 0 || net_addr_port(&at) == 0)
        return;
    fd = socket(at.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* Bound for a moment, never listened at: nobody can connect. */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (at.ss.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    rc = bind(fd, &at.ss.sa, at.len) == 0 ? 0 : errno;
    fd_close(&fd);
    if (rc == 0)
        findings_ok(r, flow, "port", "%s is free", l->address);
    else if (rc == EADDRINUSE)
        tell_taken(l, flow, net_addr_port(&at), r);
    else
        tell_forbidden(l, flow, rc, r);
}
