/*
 * What a process that takes over, or hands over, reads from the other one: messages with
 * descriptors, and what stands in them. The first byte says how the bytes are cut, the second how
 * many descriptors come along.
 *
 * Oracle: messages are bounded, and every descriptor that came is closed by us or handed out.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "app/onward.h"
#include "app/passing.h"
#include "fuzz/turns.h"
#include "rt/fdx.h"

enum { FDS = 8 };

/* The number that the next descriptor gets: the same before and after, if none was lost. */
static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    ASSERT(fd >= 0);
    close(fd);
    return fd;
}

static void send_with(int to, struct view piece, size_t n)
{
    union {
        struct cmsghdr head;
        char room[CMSG_SPACE(FDS * sizeof(int))];
    } room = {0};
    struct iovec v = {(char *)(uintptr_t)piece.p, piece.n};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    int fds[FDS];
    size_t i;

    for (i = 0; i < n; i++) {
        fds[i] = dup(to);
        ASSERT(fds[i] >= 0);
    }
    if (n) {
        m.msg_control = &room;
        m.msg_controllen = CMSG_SPACE(n * sizeof(int));
        room.head.cmsg_level = SOL_SOCKET;
        room.head.cmsg_type = SCM_RIGHTS;
        room.head.cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(&room.head), fds, n * sizeof(int));
    }
    ASSERT(sendmsg(to, &m, MSG_NOSIGNAL) == (ssize_t)piece.n);
    for (i = 0; i < n; i++)
        close(fds[i]);
}

static void look(struct passing_message *m)
{
    struct passing_hello hello;
    struct onward_from from;
    struct wire rest;
    struct err e;

    ASSERT(m->payload.n <= PASSING_PAYLOAD && m->n_fds <= PASSING_FDS);
    if (passing_get_hello(m->payload, &hello, &rest, &e) == 0) {
        ASSERT(hello.program.n <= m->payload.n && rest.left.n <= m->payload.n);
        wire_view(&rest);
    } else {
        ASSERT(e.text[0]);
    }
    if (onward_decode(m->payload, &from) == 0)
        ASSERT(from.listener.n + from.peer.n + from.identity.n <= m->payload.n);
    passing_close_fds(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t cut = fuzz_byte(&in), with = fuzz_byte(&in);
    static struct passing_message m;
    struct passing_in got = {0};
    int before = next_fd(), fd[2], rc = 1;
    struct err e;

    turns_pair(fd);
    while (in.n && rc >= 0) {
        struct view piece = turns_piece(&in, cut);

        send_with(fd[1], view_of(piece.p, TR_MIN(piece.n, (size_t)4096)), with % (FDS + 1));
        in = piece.n > 4096 ? view_of(piece.p + 4096, piece.n - 4096 + in.n) : in;
        rc = passing_read(&got, fd[0], &e);
        while (rc >= 0 && (rc = passing_next(&got, &m, &e)) > 0)
            look(&m);
    }
    passing_fini(&got);
    close(fd[0]);
    close(fd[1]);
    ASSERT(next_fd() == before);
    return 0;
}
