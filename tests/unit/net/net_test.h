/* What the tests of src/net share: a loop with a deadline, TCP pairs, contexts, and an end of a
 * stream that notes what happens to it. */
#ifndef TR_TEST_NET_H
#define TR_TEST_NET_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/str.h"
#include "crypto/tls.h"
#include "ev/loop.h"
#include "net/stream.h"
#include "../crypto/certs.h"

extern struct ev_loop *loop;
extern struct certs certs;
extern struct tls_ctx *client_tls, *server_tls;

int nt_group_setup(void **state);
int nt_group_teardown(void **state);
int nt_setup(void **state); /* a new loop for each test */
int nt_teardown(void **state);

/* Run the loop until `cond(ctx)` holds; the test fails after ten seconds. */
typedef bool (*nt_cond)(void *ctx);
void nt_run_until(nt_cond cond, void *ctx);
void nt_run_ms(int64_t ms);
bool nt_flag(void *ctx); /* a condition: *(bool *)ctx */

/* Two ends of a TCP connection over loopback, non-blocking. [0] has connected, [1] was accepted. */
void nt_tcp_pair(int fd[2]);

void nt_assert_contains(const char *text, const char *part);

/* An end. By default it reads all that comes and writes what is in `out`. */
struct nt_end {
    struct net_stream *s;
    struct str in;
    const uint8_t *out;
    size_t out_n;
    size_t out_at;
    size_t piece;       /* bytes read or written at most in one call; 0: 16384 */
    bool one_read;      /* one read in each call-back instead of all that is there */
    bool fin_after_out; /* net_shutdown_write when all is written */
    bool toggle;        /* reading is switched off and on again after each call-back */
    bool ready, ended, failed, read_failed, write_failed;
    struct err e;
    unsigned ready_calls, readable_calls, writable_calls;
    /* Close at the n-th (1 is the first) call-back of that kind. */
    unsigned close_at_ready, close_at_readable, close_at_writable;
    bool close_at_failed;
    bool close_hard;
};

void nt_end_accept(struct nt_end *x, int fd, struct tls_ctx *tls);
void nt_end_connect(struct nt_end *x, int fd, struct tls_ctx *tls, const char *name,
                    struct view alpn);
void nt_end_bind(struct nt_end *x, struct net_stream *s);
void nt_end_write(struct nt_end *x); /* go on writing `out` */
void nt_end_fini(struct nt_end *x);

#endif
