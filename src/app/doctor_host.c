#include "app/doctor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/url.h"
#include "crypto/tls.h"
#include "doctor/papers.h"
#include "rt/fdx.h"
#include "spool/inspect.h"

/* ---- spool -------------------------------------------------------------------------------- */

enum { SLOW_AT = 8, REFUSED_AT = 9, TENTHS = 10 };

static uint64_t be32(const unsigned char *p)
{
    return (uint64_t)p[0] << 24 | (uint64_t)p[1] << 16 | (uint64_t)p[2] << 8 | p[3];
}

/* Bytes of the database that are in use, by its header (sqlite.org/fileformat2.html §1.3), and of
 * its log: no lock is taken for that. */
static uint64_t spool_used(const char *directory)
{
    struct str path = STR_INIT;
    unsigned char head[100];
    uint64_t used = 0, page;
    struct stat st;
    int fd;

    str_addf(&path, "%s/spool.db", directory);
    fd = open(str_c(&path), O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && pread(fd, head, sizeof(head), 0) == (ssize_t)sizeof(head)) {
        page = (uint64_t)head[16] << 8 | head[17];
        used = (page == 1 ? 65536 : page) * (be32(head + 28) - be32(head + 36));
    }
    fd_close(&fd);
    str_adds(&path, "-wal");
    if (stat(str_c(&path), &st) == 0)
        used += (uint64_t)st.st_size;
    str_fini(&path);
    return used;
}

static void check_room(const struct config *c, struct findings *r)
{
    const char *dir = c->spool_directory;
    struct finding f = {.cause = CAUSE_SPOOL_FULL, .flow = "spool", .step = "room"};
    uint64_t used = spool_used(dir), free_bytes, left, room;
    struct statvfs fs;

    if (statvfs(dir, &fs) < 0)
        return;
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    left = c->spool_limit > used ? c->spool_limit - used : 0;
    room = TR_MIN(left, free_bytes);
    if (room > (used + room) / TENTHS * (TENTHS - SLOW_AT)) {
        findings_ok(r, "spool", "room", "%llu MiB used of %llu, %llu MiB free on the disk",
                    (unsigned long long)used >> 20, (unsigned long long)c->spool_limit >> 20,
                    (unsigned long long)free_bytes >> 20);
        return;
    }
    f.verdict = room > (used + room) / TENTHS * (TENTHS - REFUSED_AT) ? VERDICT_WARN : VERDICT_FAIL;
    findings_add(r, &f, "%llu KiB used of %llu, %llu KiB free on the disk: %s",
                 (unsigned long long)used >> 10, (unsigned long long)c->spool_limit >> 10,
                 (unsigned long long)free_bytes >> 10,
                 f.verdict == VERDICT_FAIL ? "lines are refused" : "lines are slowed down");
    if (left <= free_bytes)
        findings_do(r,
                    "mend the way upstream, so that what waits is delivered; or raise spool.limit");
    else
        findings_do(r, "free space on the file system of %s, or move spool.directory", dir);
}

/* As far as it can be told from here: what runs as another user may have other rights. */
static void check_writable(const struct config *c, struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_SPOOL_NOT_WRITABLE, "spool", "directory"};
    const struct finding odd = {VERDICT_WARN, CAUSE_SPOOL_NOT_WRITABLE, "spool", "directory"};
    const char *dir = c->spool_directory;
    struct statvfs fs;
    struct stat st;

    if (stat(dir, &st) < 0) {
        findings_add(r, errno == ENOENT ? &odd : &f, "%s: %s", dir, strerror(errno));
        findings_do(r,
                    "it is made at the start if the directory above may be written to; else: "
                    "install -d -m 0700 -o USER %s",
                    dir);
        return;
    }
    if (!S_ISDIR(st.st_mode) || (statvfs(dir, &fs) == 0 && (fs.f_flag & ST_RDONLY))) {
        findings_add(r, &f, "%s is %s", dir,
                     S_ISDIR(st.st_mode) ? "mounted read-only" : "no directory");
        findings_do(r, "mount it for writing, or choose another spool.directory");
        return;
    }
    if (geteuid() != 0 && access(dir, W_OK | X_OK) < 0) {
        findings_add(r, st.st_uid == geteuid() ? &f : &odd,
                     "%s belongs to user %u, and user %u may not "
                     "write there",
                     dir, (unsigned)st.st_uid, (unsigned)geteuid());
        findings_do(r, "run this as root or as whom tailrace runs as, which must own %s", dir);
        return;
    }
    findings_ok(r, "spool", "directory", "%s can be written to", dir);
}

static void check_spool(const struct doctor *d, struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_SPOOL_ON_NETWORK, "spool", "disk"};
    struct err e;

    check_writable(d->config, r);
    if (access(d->config->spool_directory, F_OK) < 0)
        return;
    if (spool_place_check(d->config->spool_directory, &e) < 0) {
        findings_add(r, &f, "%s", e.text);
        findings_do(r,
                    "move spool.directory to a local disk (in Kubernetes: a volume that one node "
                    "has, ReadWriteOnce)");
    }
    check_room(d->config, r);
}

/* ---- descriptors -------------------------------------------------------------------------- */

/* What the gateway may have, or, if none runs, what this process may. 0: not known. */
static uint64_t descriptors(const struct doctor *d)
{
    static const char row[] = "Max open files";
    struct str path = STR_INIT, text = STR_INIT;
    struct rlimit have;
    uint64_t n = 0;
    char *at, *end;

    str_addf(&path, "/proc/%ld/limits", (long)d->pid);
    if (d->pid && file_read(str_c(&path), 16 << 10, &text, NULL) == 0 &&
        (at = strstr(str_c(&text), row))) {
        (void)strtoull(at + sizeof(row) - 1, &end, 10); /* the soft one: raised at the start */
        n = strtoull(end, NULL, 10);
    } else if (!d->pid && getrlimit(RLIMIT_NOFILE, &have) == 0) {
        n = have.rlim_max;
    }
    str_fini(&path);
    str_fini(&text);
    return n;
}

static void check_descriptors(const struct doctor *d, struct findings *r)
{
    const struct finding f = {VERDICT_WARN, CAUSE_DESCRIPTORS_FEW, "host", "limits"};
    const char *who = d->pid ? "the gateway" : "a process of this shell";
    uint64_t want = (uint64_t)d->config->limit_connections * 2 + 256;
    uint64_t have = descriptors(d);

    if (have == 0)
        return;
    if (have >= want) {
        findings_ok(r, "host", "limits", "%s may have %llu descriptors open", who,
                    (unsigned long long)have);
        return;
    }
    findings_add(r, &f, "%s may have %llu descriptors open, limits.connections %lld wants %llu",
                 who, (unsigned long long)have, (long long)d->config->limit_connections,
                 (unsigned long long)want);
    findings_do(r, "LimitNOFILE=%llu in the unit, or lower limits.connections",
                (unsigned long long)want);
}

/* ---- listeners ---------------------------------------------------------------------------- */

static char *host_of(const char *text)
{
    struct url url;

    return text && url_parse(view_str(text), &url, NULL) == 0 ? xmemdup0(url.host.p, url.host.n)
                                                              : NULL;
}

/* What a start would say of the files, as far as this user may read them. */
static void check_tls(const struct config_listen *l, const char *flow, struct findings *r)
{
    const struct finding f = {VERDICT_FAIL, CAUSE_CONFIG_BROKEN, flow, "certificate"};
    const struct tls_server_opts o = {
        .certificate = l->certificate, .key = l->key, .client_ca = l->client_ca};
    struct tls_ctx *ctx;
    struct err e;

    if (access(l->key ? l->key : l->certificate, R_OK) < 0 && geteuid() != 0)
        return;
    ctx = tls_ctx_server(&o, &e);
    if (!ctx) {
        findings_add(r, &f, "%s", e.text);
        findings_do(r, "correct listen.%s.certificate, .key or .client-ca", l->name);
    }
    tls_ctx_unref(&ctx);
}

static void check_listener(const struct doctor *d, const struct config_listen *l,
                           struct findings *r)
{
    struct papers p = {.path = l->certificate, .trust = d->trust};
    struct str flow = STR_INIT, setting = STR_INIT;
    char *host = host_of(l->public_url);

    str_addf(&flow, "listen.%s", l->name);
    str_addf(&setting, "listen.%s.certificate", l->name);
    p.flow = str_c(&flow);
    p.setting = str_c(&setting);
    p.host = host;
    if (!d->running)
        doctor_check_port(l, p.flow, r);
    if (l->certificate) {
        check_tls(l, p.flow, r);
        papers_check(r, &p);
    }
    xfree(host);
    str_fini(&flow);
    str_fini(&setting);
}

static void check_listeners(const struct doctor *d, struct findings *r)
{
    const struct config *c = d->config;
    struct papers ca = {.flow = "intercept",
                        .setting = "intercept.ca",
                        .path = c->intercept_ca,
                        .trust = d->trust,
                        .is_ca = true};
    struct papers own = {
        .flow = "upstream", .setting = "upstream.certificate", .path = c->upstream_certificate};

    for (size_t i = 0; i < c->n_listen; i++)
        check_listener(d, &c->listen[i], r);
    if (c->intercept_ca)
        papers_check(r, &ca);
    if (c->upstream_certificate)
        papers_check(r, &own);
}

void doctor_check_host(const struct doctor *d, struct findings *r)
{
    if (doctor_wants(d, "spool"))
        check_spool(d, r);
    if (doctor_wants(d, "host"))
        check_descriptors(d, r);
    if (doctor_wants(d, "listen"))
        check_listeners(d, r);
}
