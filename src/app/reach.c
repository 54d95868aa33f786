#include "app/reach.h"

#include <libgen.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include "base/xmem.h"

/* Directories in which files of all kinds lie side by side: none is opened for the sake of one. */
static const char *const shared[] = {
    "/",          "/boot",      "/dev",     "/dev/shm", "/etc",           "/home",
    "/media",     "/mnt",       "/opt",     "/proc",    "/root",          "/run",
    "/srv",       "/sys",       "/tmp",     "/usr",     "/var",           "/usr/lib",
    "/usr/local", "/usr/share", "/var/lib", "/var/tmp", "/usr/local/etc",
};

/* What the system's libraries read by themselves: names, certificates, and themselves, for the
 * program that takes over from this one. */
static const char *const read_always[] = {
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/dev/urandom",
    "/lib",
    "/lib64",
    "/proc", /* of itself, and of who takes over; what others keep secret there is not ours to see
              */
    "/sys/devices/system/cpu",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
};

/* The same, by environment variables. */
static const char *const read_by_name[] = {"CREDENTIALS_DIRECTORY", "SSL_CERT_DIR"};

/* ---- places ------------------------------------------------------------------------------- */

static char *real_of(const char *path)
{
    char found[PATH_MAX];

    return realpath(path, found) ? xstrdup(found) : NULL;
}

static char *directory_of(const char *path)
{
    char *copy = xstrdup(path), *dir = real_of(dirname(copy));

    xfree(copy);
    return dir;
}

static bool is_shared(const char *dir)
{
    size_t i;

    for (i = 0; i < ARRAY_LEN(shared); i++) {
        if (strcmp(dir, shared[i]) == 0)
            return true;
    }
    return false;
}

/* Takes `real`, which may be NULL. */
static void put(struct reach *r, char *real, unsigned how)
{
    size_t i;

    if (!real)
        return;
    for (i = 0; i < r->n; i++) {
        if (strcmp(r->places[i].path, real) == 0) {
            r->places[i].how |= how;
            xfree(real);
            return;
        }
    }
    r->places = xrealloc(r->places, (r->n + 1) * sizeof(*r->places));
    r->places[r->n++] = (struct reach_place){real, how};
}

static void put_file(struct reach *r, const char *path, unsigned how)
{
    char *dir = directory_of(path), *real = real_of(path);
    char *real_dir = real ? directory_of(real) : NULL;

    if (dir && !is_shared(dir))
        put(r, xstrdup(dir), how);
    if (real_dir && !is_shared(real_dir))
        put(r, xstrdup(real_dir), how);
    else
        put(r, real ? xstrdup(real) : NULL, how);
    xfree(dir);
    xfree(real);
    xfree(real_dir);
}

bool reach_covers(const struct reach *r, const char *real, unsigned how)
{
    size_t i;

    for (i = 0; i < r->n; i++) {
        const char *place = r->places[i].path;
        size_t n = strcmp(place, "/") == 0 ? 0 : strlen(place);

        if (strncmp(real, place, n) != 0 || (real[n] != '\0' && real[n] != '/'))
            continue;
        how &= ~r->places[i].how;
    }
    return how == 0;
}

void reach_fini(struct reach *r)
{
    size_t i;

    for (i = 0; i < r->n; i++)
        xfree(r->places[i].path);
    xfree(r->places);
    *r = REACH_INIT;
}

/* ---- what a configuration needs ----------------------------------------------------------- */

static void add_path(void *ctx, const char *setting, enum conf_use use, const char *path)
{
    struct reach *r = ctx;

    (void)setting;
    switch (use) {
    case CONF_USE_READ:
        put_file(r, path, REACH_READ);
        break;
    case CONF_USE_APPEND:
        put_file(r, path, REACH_WRITE);
        break;
    case CONF_USE_DIRECTORY:
        put(r, real_of(path), REACH_READ | REACH_WRITE | REACH_SOCKET);
        break;
    case CONF_USE_SOCKET:
        put(r, directory_of(path), REACH_SOCKET);
        break;
    }
}

/* The path of the dynamic loader, which the kernel opens to start this program again. */
static int find_loader(struct dl_phdr_info *info, size_t size, void *out)
{
    size_t i;

    (void)size;
    for (i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_INTERP)
            *(const char **)out = (const char *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    }
    return 1; /* the first one is the program */
}

/* An upgrade replaces the program, and perhaps the loader. */
static void add_program(struct reach *r)
{
    const char *loader = NULL;
    char *self = real_of("/proc/self/exe");

    dl_iterate_phdr(find_loader, (void *)&loader);
    if (self)
        put(r, directory_of(self), REACH_READ | REACH_EXECUTE);
    if (loader) {
        char *real = real_of(loader);

        put(r, real ? directory_of(real) : NULL, REACH_READ | REACH_EXECUTE);
        xfree(real);
    }
    xfree(self);
}

static void add_system(struct reach *r, bool root)
{
    size_t i;

    if (!root)
        put(r, real_of("/etc"), REACH_READ);
    put_file(r, "/etc/resolv.conf", REACH_READ);
    for (i = 0; i < ARRAY_LEN(read_always); i++)
        put(r, real_of(read_always[i]), REACH_READ);
    for (i = 0; i < ARRAY_LEN(read_by_name); i++) {
        const char *dir = getenv(read_by_name[i]);

        put(r, dir ? real_of(dir) : NULL, REACH_READ);
    }
    if (getenv("SSL_CERT_FILE"))
        put_file(r, getenv("SSL_CERT_FILE"), REACH_READ);
    put(r, real_of("/dev/null"), REACH_READ | REACH_WRITE);
}

void reach_add(struct reach *r, const struct config *c, bool root)
{
    size_t i;

    for (i = 0; i < c->files.n; i++)
        put_file(r, c->files.items[i], REACH_READ);
    conf_each_path(&config_spec, c, add_path, r);
    add_system(r, root);
    add_program(r);
}

/* ---- does it suffice for another? --------------------------------------------------------- */

struct missing {
    const struct reach *r;
    const struct config *c;
    struct err *e;
    int rc;
};

static bool is_special(const char *path)
{
    return strncmp(path, "/dev/", 5) == 0 || strncmp(path, "/proc/", 6) == 0;
}

/* For a file that is made: by its directory. */
static bool can_reach(const struct reach *r, enum conf_use use, const char *path, char **real)
{
    const unsigned how = use == CONF_USE_APPEND ? REACH_WRITE : REACH_READ;

    *real = real_of(path);
    if (!*real && use == CONF_USE_APPEND)
        *real = directory_of(path);
    return !*real || reach_covers(r, *real, how);
}

static void check_path(void *ctx, const char *setting, enum conf_use use, const char *path)
{
    struct missing *m = ctx;
    char *real = NULL;

    if (m->rc < 0 || (use != CONF_USE_READ && use != CONF_USE_APPEND) || is_special(path))
        return;
    if (strcmp(setting, "audit.file") == 0 && m->c->audit_to == AUDIT_SYSLOG)
        return; /* a socket to connect to, not a file to open */
    if (!can_reach(m->r, use, path, &real))
        m->rc = err_set(m->e, ERR_DENIED,
                        "%s: outside of what this process may reach since it started; restart, "
                        "or let another take over: %s",
                        setting, real); /* the text may be cut at its end */
    xfree(real);
}

int reach_check(const struct reach *r, const struct config *c, struct err *e)
{
    struct missing m = {.r = r, .c = c, .e = e};

    conf_each_path(&config_spec, c, check_path, &m);
    return m.rc;
}
