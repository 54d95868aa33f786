/* File descriptor and file helpers. */
#ifndef TR_RT_FDX_H
#define TR_RT_FDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"

int fd_set_nonblock(int fd, bool on, struct err *e) TR_MUST_USE;
/* TCP keepalive after a minute of silence, so that neither a firewall forgets an idle tunnel
 * (the system's default of two hours is longer than theirs) nor a dead peer stays. 0, or -1 with
 * errno. */
int fd_keepalive(int fd);
/* Bytes that a TCP connection has taken in and sent (once; repetitions not counted) since it
 * stands. -1: it is none, or the system does not tell. */
int fd_tcp_bytes(int fd, uint64_t *in, uint64_t *out);
/* Allow this process as many descriptors as the system lets it have (the soft limit is 1,024 by
 * tradition, for programs that use select(2)). The number. */
size_t fd_limit_raise(void);
/* Keep the last descriptors that the process may have for its own files and deliveries: `n`, or a
 * quarter if it may have few. Once, at start; the number that is kept. */
size_t fd_reserve(size_t n);
/* Is this one of those that are kept? The system gives out the lowest that is free, so it tells
 * that the others are in use. Any thread. */
bool fd_is_reserved(int fd);
void fd_close(int *fd); /* closes if >= 0 and sets it to -1; keeps errno */

/* Read a whole file of at most `max` bytes into `out` (appended). A larger one is ERR_LIMIT. */
int file_read(const char *path, size_t max, struct str *out, struct err *e) TR_MUST_USE;

/* Does nobody but its owner, and its group for reading, get at that file? -1: ERR_DENIED, or it
 * cannot be looked at. For keys and passwords. */
int file_check_private(const char *path, struct err *e) TR_MUST_USE;

/* The same for a file that holds a secret: a regular one that nobody but its owner can get at, or
 * ERR_DENIED; in $CREDENTIALS_DIRECTORY, where the service manager puts them, its group may read
 * too. No copy stays behind but `out`, for str_wipe. */
int secret_read(const char *path, size_t max, struct str *out, struct err *e) TR_MUST_USE;

/* Write a file so that after a crash it holds either the old or the new bytes: temporary file in
 * the same directory, fsync, rename, fsync of the directory. */
int file_write_durable(const char *path, const void *p, size_t n, mode_t mode,
                       struct err *e) TR_MUST_USE;

/* Make the directory and its missing parents, so that they survive a loss of power. Existing is
 * fine. */
int dir_make(const char *path, mode_t mode, struct err *e) TR_MUST_USE;

#endif
