#include "app/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "app/reach.h"
#include "base/xmem.h"
#include "rt/fdx.h"
#include "rt/log.h"
#include "rt/metric.h"

enum { CAPABILITIES_MAX = 63, PATH_FD = O_PATH | O_CLOEXEC };

/* What of it could be had, for those who look. */
static struct {
    struct reach reach;
    bool tight;         /* the kernel keeps us to `reach` */
    int landlock;       /* version of its interface; 0: none */
    int landlock_errno; /* why there is none */
    bool no_capabilities, no_new_privileges;
} now;

/* --- capabilities ------------------------------------------------------------------------- */

/* Keep those of `mask` at most, of what we have. */
static int capabilities_limit(uint64_t mask)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    int i;

    if (syscall(SYS_capget, &head, data) < 0)
        return -1;
    for (i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(mask >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, data) < 0 ? -1 : 0;
}

static bool has_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};

    return syscall(SYS_capget, &head, data) < 0 || data[0].permitted || data[1].permitted;
}

/* So that no program that is run gets any, root's among them. Needs CAP_SETPCAP; who has it not,
 * has been given his bounds by whoever started him. */
static void bounding_drop(void)
{
    int i;

    for (i = 0; i <= CAPABILITIES_MAX; i++) {
        if (prctl(PR_CAPBSET_DROP, i, 0, 0, 0) < 0 && errno == EINVAL)
            return; /* the kernel knows no more */
    }
}

/* --- the user ----------------------------------------------------------------------------- */

struct who {
    char *name; /* NULL: a number without a name */
    uid_t uid;
    gid_t gid;
};

static bool is_number(const char *text, unsigned *out)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);

    if (text[0] < '0' || text[0] > '9' || *end != '\0' || n >= UINT32_MAX)
        return false;
    *out = (unsigned)n;
    return true;
}

static int find_group(const char *text, struct who *w, struct err *e)
{
    struct group *gr = getgrnam(text);
    unsigned n = 0;

    if (!gr && !is_number(text, &n))
        return err_set(e, ERR_INVALID, "user: there is no group \"%s\"", text);
    w->gid = gr ? gr->gr_gid : n;
    return 0;
}

/* "NAME", "NAME:GROUP", or numbers. */
static int find_user(const char *text, struct who *w, struct err *e)
{
    char *name = xstrdup(text), *colon = strchr(name, ':');
    struct passwd *pw;
    unsigned n;
    int rc = 0;

    *w = (struct who){0};
    if (colon)
        *colon = '\0';
    pw = getpwnam(name);
    if (!pw && is_number(name, &n)) {
        w->uid = w->gid = n;
        pw = getpwuid(n);
    } else if (!pw) {
        rc = err_set(e, ERR_INVALID, "user: there is no user \"%s\"", name);
    }
    if (pw) {
        w->name = xstrdup(pw->pw_name);
        w->uid = pw->pw_uid;
        w->gid = pw->pw_gid;
    }
    if (rc == 0 && colon)
        rc = find_group(colon + 1, w, e);
    xfree(name);
    return rc;
}

/* Capabilities outlive the change of user, for the one that is needed still. */
static int become(const struct who *w, struct err *e)
{
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 ||
        (w->name ? initgroups(w->name, w->gid) : setgroups(1, &w->gid)) < 0 ||
        setresgid(w->gid, w->gid, w->gid) < 0 || setresuid(w->uid, w->uid, w->uid) < 0)
        return err_errno(e, ERR_IO, errno, "user: cannot become %s", w->name ? w->name : "it");
    (void)prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
    return 0;
}

static int change_user(const char *text, struct err *e)
{
    struct who w;
    int rc = find_user(text, &w, e);

    if (rc == 0 && geteuid() == 0)
        rc = become(&w, e);
    else if (rc == 0 && (geteuid() != w.uid || getegid() != w.gid))
        rc = err_set(e, ERR_DENIED, "user: only root can become \"%s\"", text);
    xfree(w.name);
    return rc;
}

int sandbox_become(const struct config *c, struct err *e)
{
    const bool root = geteuid() == 0;

    umask(077);
    if (root && c->sandbox != CONFIG_SANDBOX_OFF)
        bounding_drop();
    if (c->user && change_user(c->user, e) < 0)
        return -1;
    if (c->sandbox == CONFIG_SANDBOX_OFF && !c->user)
        return 0;
    if (capabilities_limit(UINT64_C(1) << CAP_NET_BIND_SERVICE) < 0)
        return err_errno(e, ERR_IO, errno, "cannot give up capabilities");
    return 0;
}

/* --- Landlock ----------------------------------------------------------------------------- */

/* The kernel's interface as it is by now; the headers that we are built with may be older. */
struct ruleset_attr {
    uint64_t fs, net, scoped;
};

struct path_attr {
    uint64_t allowed;
    int32_t fd;
} __attribute__((packed));

enum { CREATE_VERSION = 1, RULE_PATH = 1 };

enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE = 1 << 1,
    FS_READ = 1 << 2,
    FS_LIST = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE = 1 << 5,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_FILE = 1 << 8,
    FS_MAKE_SOCKET = 1 << 9,
    FS_VERSION_1 = (1 << 13) - 1,
    FS_REFER = 1 << 13,     /* version 2: rename between directories */
    FS_TRUNCATE = 1 << 14,  /* 3 */
    FS_IOCTL_DEV = 1 << 15, /* 5 */
    FS_OF_FILES = FS_EXECUTE | FS_WRITE | FS_READ | FS_TRUNCATE,
    SCOPE_SIGNALS = 1 << 1, /* 6: none to processes outside */
};

#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif

static struct ruleset_attr handled_by(int version)
{
    struct ruleset_attr a = {.fs = FS_VERSION_1};

    a.fs |= version >= 2 ? FS_REFER : 0;
    a.fs |= version >= 3 ? FS_TRUNCATE : 0;
    a.fs |= version >= 5 ? FS_IOCTL_DEV : 0;
    a.scoped = version >= 6 ? SCOPE_SIGNALS : 0;
    return a;
}

static uint64_t rights_of(unsigned how)
{
    uint64_t rights = 0;

    if (how & REACH_READ)
        rights |= FS_READ | FS_LIST;
    if (how & REACH_WRITE)
        rights |= FS_WRITE | FS_TRUNCATE | FS_MAKE_FILE | FS_MAKE_DIR | FS_REMOVE | FS_REMOVE_DIR |
                  FS_REFER;
    if (how & REACH_SOCKET)
        rights |= FS_MAKE_SOCKET | FS_REMOVE;
    if (how & REACH_EXECUTE)
        rights |= FS_EXECUTE;
    return rights;
}

/* A place that has gone meanwhile needs no rule. */
static int add_rule(int ruleset, const struct reach_place *p, uint64_t handled)
{
    struct path_attr rule = {.allowed = rights_of(p->how) & handled};
    struct stat st;
    int fd = open(p->path, PATH_FD), rc = 0;

    if (fd < 0)
        return 0;
    if (fstat(fd, &st) == 0 && !S_ISDIR(st.st_mode))
        rule.allowed &= FS_OF_FILES;
    rule.fd = fd;
    if (rule.allowed && syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &rule, 0) < 0)
        rc = -1;
    fd_close(&fd);
    return rc;
}

/* 0, or -1 and errno. Sixteen rulesets can lie on top of one another (a gateway that was taken over
 * from by its own child so often): E2BIG, and those hold already. */
static int landlock_restrict(const struct reach *r, int version)
{
    const struct ruleset_attr attr = handled_by(version);
    const size_t size = version >= 6   ? sizeof(attr)
                        : version >= 4 ? 2 * sizeof(uint64_t)
                                       : sizeof(uint64_t);
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0), rc = 0;
    size_t i;

    if (fd < 0)
        return -1;
    for (i = 0; i < r->n && rc == 0; i++)
        rc = add_rule(fd, &r->places[i], attr.fs);
    if (rc == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
        rc = errno == E2BIG ? 0 : -1;
    fd_close(&fd);
    return rc;
}

static void landlock_enter(const struct config *c)
{
    int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);

    reach_fini(&now.reach);
    reach_add(&now.reach, c, geteuid() == 0);
    if (version <= 0 || landlock_restrict(&now.reach, version) < 0) {
        now.landlock_errno = errno;
        return;
    }
    now.landlock = version;
    now.tight = true;
}

/* --- the whole ---------------------------------------------------------------------------- */

static void show(void)
{
    struct metric_family *f = metric_family(
        METRIC_GAUGE, "sandbox", "feature",
        "What this process has given up: 1; landlock: the version of the kernel's interface");

    metric_set(metric_series(f, "landlock"), now.landlock);
    metric_set(metric_series(f, "no_capabilities"), now.no_capabilities);
    metric_set(metric_series(f, "no_new_privileges"), now.no_new_privileges);
    metric_set(metric_series(f, "not_root"), geteuid() != 0);
}

static void tell(const struct config *c)
{
    log_event(LOG_NOTICE, "app", "sandbox",
              LF_STR("files", now.tight ? "only those of the configuration" : "any"),
              LF_INT("landlock", now.landlock), LF_BOOL("capabilities", !now.no_capabilities),
              LF_BOOL("new_privileges", !now.no_new_privileges), LF_UINT("user", geteuid()));
    if (!now.landlock && c->sandbox != CONFIG_SANDBOX_OFF)
        log_event(LOG_NOTICE, "app",
                  "this kernel has no Landlock: only permissions decide which files are reached",
                  LF_STR("error", strerror(now.landlock_errno)));
    if (geteuid() == 0)
        log_event(LOG_WARN, "app", "running as root: set `user`, or start it as another");
}

int sandbox_enter(const struct config *c, struct err *e)
{
    if (c->sandbox != CONFIG_SANDBOX_OFF) {
        now.no_new_privileges = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        (void)capabilities_limit(0);
        landlock_enter(c);
    }
    now.no_capabilities = !has_capabilities();
    show();
    tell(c);
    if (c->sandbox != CONFIG_SANDBOX_REQUIRED ||
        (now.tight && now.no_capabilities && now.no_new_privileges))
        return 0;
    if (!now.tight)
        return err_errno(e, ERR_UNAVAIL, now.landlock_errno,
                         "sandbox: required, but the kernel has no Landlock");
    return err_set(e, ERR_UNAVAIL, "sandbox: required, but privileges could not be given up");
}

int sandbox_check(const struct config *c, struct err *e)
{
    return now.tight ? reach_check(&now.reach, c, e) : 0;
}

bool sandbox_is_tight(void)
{
    return now.tight;
}
