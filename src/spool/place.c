#include "spool/spool_priv.h"

#include "base/xmem.h"
#include "rt/fdx.h"
#include "spool/inspect.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

/* File systems on which locks, shared memory or fsync do not mean what SQLite's log needs. */
static const struct {
    unsigned long type;
    const char *name;
} refused_types[] = {
    {0x6969, "NFS"},        {0x517b, "SMB"},        {0xfe534d42, "SMB2"},  {0xff534d42, "CIFS"},
    {0x5346414f, "AFS"},    {0x73757245, "Coda"},   {0x564c, "NCP"},       {0x00c36400, "Ceph"},
    {0x0bd00bd0, "Lustre"}, {0x19830326, "BeeGFS"}, {0x7461636f, "OCFS2"}, {0x01161970, "GFS2"},
    {0x47504653, "GPFS"},
};
enum { FUSE_TYPE = 0x65735546 };

/* FUSE carries local and remote file systems; these two names (from mountinfo) are local. */
static bool fuse_is_local(const char *type)
{
    return strcmp(type, "fuseblk") == 0 || strcmp(type, "fuse.fuse-overlayfs") == 0 ||
           strcmp(type, "virtiofs") == 0;
}

/* The type of the mount that holds device `dev`, as /proc/self/mountinfo says it: proc(5). */
static bool mount_type(dev_t dev, char out[64])
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[4096];
    bool found = false;

    if (!f)
        return false;
    while (!found && fgets(line, sizeof(line), f)) {
        unsigned major_n, minor_n;
        const char *dash = strstr(line, " - ");

        /* NOLINTNEXTLINE(cert-err34-c): the kernel wrote it */
        if (dash && sscanf(line, "%*d %*d %u:%u", &major_n, &minor_n) == 2 &&
            makedev(major_n, minor_n) == dev)
            found = sscanf(dash + 3, "%63s", out) == 1;
    }
    fclose(f);
    return found;
}

int spool_place_check(const char *dir, struct err *e)
{
    struct statfs fs;
    struct stat st;
    char type[64] = "";
    size_t i;

    if (statfs(dir, &fs) < 0 || stat(dir, &st) < 0)
        return err_errno(e, ERR_IO, errno, "spool: cannot look at %s", dir);
    for (i = 0; i < ARRAY_LEN(refused_types); i++)
        if ((unsigned long)(uint32_t)fs.f_type == refused_types[i].type)
            return err_set(e, ERR_INVALID,
                           "spool: %s is on a network file system (%s): use a local disk", dir,
                           refused_types[i].name);
    if ((uint32_t)fs.f_type == FUSE_TYPE && mount_type(st.st_dev, type) && !fuse_is_local(type))
        return err_set(e, ERR_INVALID, "spool: %s is on %s, which may be remote: use a local disk",
                       dir, type);
    return 0;
}

static int take_lock(struct spool *s, struct err *e)
{
    char pid[32] = "";
    ssize_t n;

    s->lock_fd = open(s->lock_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->lock_fd < 0)
        return err_errno(e, ERR_IO, errno, "spool: cannot open %s", s->lock_path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        int errnum = errno;

        n = pread(s->lock_fd, pid, sizeof(pid) - 1, 0);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
        fd_close(&s->lock_fd);
        if (errnum != EWOULDBLOCK)
            return err_errno(e, ERR_IO, errnum, "spool: cannot lock %s", s->lock_path);
        return err_set(e, ERR_UNAVAIL, "spool: %s is in use by process %s", s->dir,
                       pid[0] ? pid : "(unknown)");
    }
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* The pid is for people; the lock also holds without it, as on a full disk. */
    if (ftruncate(s->lock_fd, 0) == 0 && pwrite(s->lock_fd, pid, (size_t)n, 0) != n)
        return 0;
    return 0;
}

static char *path_in(const char *dir, const char *name)
{
    struct str p = STR_INIT;

    str_addf(&p, "%s/%s", dir, name);
    return str_take(&p);
}

int place_take(struct spool *s, struct err *e)
{
    s->path = path_in(s->dir, "spool.db");
    s->lock_path = path_in(s->dir, "spool.lock");
    s->reserve_path = path_in(s->dir, "spool.reserve");
    if (dir_make(s->dir, 0700, e) < 0)
        return err_prefix(e, "spool");
    if (spool_place_check(s->dir, e) < 0)
        return -1;
    return take_lock(s, e);
}

void place_leave(struct spool *s)
{
    /* The file stays: removing it would let two processes lock two files of one name. */
    fd_close(&s->lock_fd);
    XFREE(s->path);
    XFREE(s->lock_path);
    XFREE(s->reserve_path);
}

/* The fixed part of a database's head (SQLite's file format, section 1.3): without it SQLite says
 * anything from "not a database" to "read only". */
static bool is_head(const uint8_t *p)
{
    static const uint8_t payload[] = {0, 64, 32, 32};

    return memcmp(p, "SQLite format 3", 16) == 0 && p[16] == SPOOL_PAGE >> 8 &&
           p[17] == (SPOOL_PAGE & 0xff) && (p[18] == 1 || p[18] == 2) &&
           (p[19] == 1 || p[19] == 2) && memcmp(p + 20, payload, sizeof(payload)) == 0;
}

int place_look(struct spool *s, struct err *e)
{
    uint8_t head[100];
    int fd = open(s->path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0 && errno == ENOENT)
        return 0;
    /* What cannot be opened is for SQLite to report; it is no damage. */
    if (fd < 0)
        return 1;
    n = read(fd, head, sizeof(head));
    fd_close(&fd);
    if (n == 0)
        return 0;
    if (n > 0 && (n < (ssize_t)sizeof(head) || !is_head(head)))
        return err_set(e, ERR_IO, "spool: %s is no SQLite database of ours", s->path);
    return 1;
}

int place_create(struct spool *s, struct err *e)
{
    int fd = open(s->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_errno(e, ERR_IO, errno, "spool: cannot create %s", s->path);
    fd_close(&fd);
    return 0;
}

static int move_aside(struct spool *s, const char *end, const char *stamp, struct err *e)
{
    struct str from = STR_INIT, to = STR_INIT;
    int rc = 0;

    str_addf(&from, "%s%s", s->path, end);
    str_addf(&to, "%s.damaged-%s%s", s->path, stamp, end);
    if (rename(str_c(&from), str_c(&to)) < 0 && errno != ENOENT)
        rc = err_errno(e, ERR_IO, errno, "spool: cannot set %s aside", str_c(&from));
    str_fini(&from);
    str_fini(&to);
    return rc;
}

/*
 * The database first: what is left after a crash in between is a log without its database, which
 * the next start sets aside too. The other way round the database would be opened without its log.
 */
int place_set_aside(struct spool *s, struct str *name, struct err *e)
{
    char stamp[25], unique[64], taken[4300];
    struct stat st;
    unsigned n = 0;

    clock_format(clock_wall_ns(), stamp);
    stamp[19] = '\0';
    do {
        snprintf(unique, sizeof(unique), n ? "%sZ-%u" : "%sZ", stamp, n);
        snprintf(taken, sizeof(taken), "%s.damaged-%s", s->path, unique);
        n++;
    } while (stat(taken, &st) == 0 && n < 1000);
    if (move_aside(s, "", unique, e) < 0 || move_aside(s, "-wal", unique, e) < 0 ||
        move_aside(s, "-shm", unique, e) < 0 || move_aside(s, "-journal", unique, e) < 0)
        return -1;
    if (name)
        str_adds(name, taken);
    return 0;
}

void place_count(struct spool *s, const char *name)
{
    struct stat st;

    pthread_mutex_lock(&s->pub_lock);
    s->pub.set_aside++;
    if (stat(name, &st) == 0)
        s->pub.set_aside_bytes += (uint64_t)st.st_blocks * 512;
    pthread_mutex_unlock(&s->pub_lock);
}

void place_count_all(struct spool *s)
{
    static const char start[] = "spool.db.damaged-";
    DIR *d = opendir(s->dir);
    struct dirent *ent;

    s->pub.set_aside = 0;
    s->pub.set_aside_bytes = 0;
    while (d && (ent = readdir(d)) != NULL) {
        struct str p = STR_INIT;

        /* Not the logs and indexes that go with them. */
        if (strncmp(ent->d_name, start, sizeof(start) - 1) != 0 ||
            strrchr(ent->d_name, 'Z') == NULL)
            continue;
        str_addf(&p, "%s/%s", s->dir, ent->d_name);
        if (!strstr(ent->d_name, "-wal") && !strstr(ent->d_name, "-shm"))
            place_count(s, str_c(&p));
        str_fini(&p);
    }
    if (d)
        closedir(d);
}

uint64_t place_free(const struct spool *s)
{
    struct statvfs fs;

    return fstatvfs(s->lock_fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX;
}

int place_clear(struct spool *s, struct err *e)
{
    static const char *const ends[] = {"-wal", "-journal"};
    struct str p = STR_INIT;
    bool left = false;
    size_t i;

    for (i = 0; i < ARRAY_LEN(ends); i++) {
        str_clear(&p);
        str_addf(&p, "%s%s", s->path, ends[i]);
        left = left || access(str_c(&p), F_OK) == 0;
    }
    str_fini(&p);
    return left ? place_set_aside(s, NULL, e) : 0;
}

void place_reserve(struct spool *s)
{
    off_t size = (off_t)TR_MIN((uint64_t)RESERVE_BYTES, s->limit / 8);
    struct stat st;
    int fd;

    s->reserve_there = stat(s->reserve_path, &st) == 0 && st.st_blocks * 512 >= size;
    if (s->reserve_there)
        return;
    fd = open(s->reserve_path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    s->reserve_there = posix_fallocate(fd, 0, size) == 0;
    fd_close(&fd);
    if (!s->reserve_there)
        unlink(s->reserve_path);
}

bool place_give_reserve(struct spool *s)
{
    /* Also one of an earlier process, when there is no room to start. */
    s->reserve_there = false;
    s->reserve_tried_ns = clock_mono_ns();
    return unlink(s->reserve_path) == 0;
}
