/* The control socket over the real HTTP server: calls, streams, upgrades, and whose name it is. */
#include "admin/control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/buf.h"
#include "base/str.h"
#include "net/listen_unix.h"
#include "net/stream.h"
#include "rt/command.h"

enum { PIECE = 100 * 1000, PIECES = 40, GIVE_UP_MS = 10 * 1000 };

static char dir[64];
static struct str path;
static struct ev_loop *loop;
static struct control *control;
static struct command_call *kept; /* a call that a test answers itself */

/* --- commands of the tests -------------------------------------------------------------------- */

static void run_show(void *ctx, struct command_call *call)
{
    struct str out = STR_INIT;
    const char *arg = command_arg(call, "x");

    (void)ctx;
    assert_null(command_part(call, 9));
    assert_null(command_arg(call, "y"));
    str_addf(&out, "[\"%s\",\"%s\"]", command_part(call, 1), arg ? arg : "none");
    assert_true(strncmp(command_by(call), "uid=", 4) == 0);
    command_reply(call, 200, str_view(&out));
    str_fini(&out);
}

static void run_keep(void *ctx, struct command_call *call)
{
    (void)ctx;
    kept = call;
}

static void *answer(void *arg)
{
    command_reply(arg, 200, VIEW_LIT("\"late\""));
    return NULL;
}

/* Joined before the loop goes: who answers still has it in hand. */
static pthread_t late[16];
static size_t n_late;

/* From a thread of its own, as the spool's reader would. */
static void run_late(void *ctx, struct command_call *call)
{
    (void)ctx;
    assert_true(n_late < ARRAY_LEN(late));
    assert_int_equal(pthread_create(&late[n_late++], NULL, answer, call), 0);
}

static struct {
    struct command_call *call;
    unsigned sent, rooms;
    bool over, whole, inside;
    char piece[PIECE];
} flow;

static void next_piece(void *ctx)
{
    (void)ctx;
    assert_false(flow.inside);
    if (flow.sent == PIECES || command_abandoned(flow.call)) {
        flow.over = true;
        command_end(flow.call, flow.whole);
        return;
    }
    flow.inside = true;
    flow.sent++;
    command_write(flow.call, view_of(flow.piece, PIECE));
    flow.inside = false;
}

static void run_stream(void *ctx, struct command_call *call)
{
    (void)ctx;
    memset(&flow, 0, sizeof(flow));
    memset(flow.piece, 'p', PIECE);
    flow.call = call;
    flow.whole = command_arg(call, "cut") == NULL;
    command_stream(call, "application/octet-stream", next_piece, NULL);
    next_piece(NULL);
}

static struct command commands[] = {
    {.path = "show/*", .text = "say \"it\"", .run = run_show},
    {.path = "show/*/more", .run = run_show, .text = "more"},
    {.path = "act", .kind = COMMAND_ACTION, .run = run_keep, .text = "act"},
    {.path = "late", .run = run_late, .text = "late"},
    {.path = "stream", .run = run_stream, .text = "stream"},
};

static void upgrade(void *ctx, struct http_exchange *ex, const struct control_peer *peer)
{
    struct buf early = BUF_INIT;
    struct net_stream *s = http_detach(ex, 101, NULL, 0, &early);
    int fd;

    (void)ctx;
    assert_int_equal(peer->pid, getpid());
    assert_int_equal(peer->uid, getuid());
    assert_non_null(s);
    fd = net_stream_release(&s);
    assert_int_equal(write(fd, buf_data(&early), buf_len(&early)), buf_len(&early));
    close(fd);
    buf_fini(&early);
}

/* --- set-up ----------------------------------------------------------------------------------- */

static struct control *open_at(const char *at, bool replace, struct err *e)
{
    const struct control_opts o = {.path = at, .replace = replace, .upgrade = upgrade};

    return control_open(loop, &o, e);
}

static int setup(void **state)
{
    struct err e;
    size_t i;

    (void)state;
    strcpy(dir, "/tmp/tailrace-control-XXXXXX");
    assert_non_null(mkdtemp(dir));
    str_addf(&path, "%s/control.sock", dir);
    loop = ev_loop_new("test");
    control = open_at(str_c(&path), false, &e);
    assert_non_null(control);
    for (i = 0; i < ARRAY_LEN(commands); i++)
        command_add(&commands[i]);
    kept = NULL;
    return 0;
}

static int teardown(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(commands); i++)
        command_remove(&commands[i]);
    control_close(&control);
    while (n_late)
        assert_int_equal(pthread_join(late[--n_late], NULL), 0);
    ev_loop_free(&loop);
    assert_int_equal(access(str_c(&path), F_OK), -1);
    assert_int_equal(rmdir(dir), 0);
    str_fini(&path);
    return 0;
}

static void on_time(void *ctx)
{
    (void)ctx;
    fail_msg("it took too long");
}

static void on_tick(void *ctx)
{
    ev_loop_stop(ctx);
}

/* Serve until `until()` holds. */
static void run_until(bool (*until)(void))
{
    struct ev_timer *limit = ev_timer_new(loop, on_time, NULL);
    struct ev_timer *tick = ev_timer_new(loop, on_tick, loop);

    ev_timer_arm(limit, GIVE_UP_MS);
    while (!until()) {
        ev_timer_arm(tick, 1);
        ev_loop_run(loop);
    }
    ev_timer_free(&limit);
    ev_timer_free(&tick);
}

static struct {
    int fd;
    struct str in;
    bool end;
} client;

static bool client_is_done(void)
{
    char bytes[65536];
    ssize_t n;

    while ((n = recv(client.fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        str_add(&client.in, bytes, (size_t)n);
    client.end = n == 0 || (n < 0 && errno != EAGAIN);
    return client.end;
}

static void client_send(const char *head)
{
    struct err e;

    str_clear(&client.in);
    client.fd = net_connect_unix(str_c(&path), &e);
    assert_true(client.fd >= 0);
    assert_int_equal(write(client.fd, head, strlen(head)), strlen(head));
}

static const char *ask(const char *head)
{
    struct str text = STR_INIT;

    str_addf(&text, "%s HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", head);
    client_send(str_c(&text));
    str_fini(&text);
    run_until(client_is_done);
    close(client.fd);
    return str_c(&client.in);
}

static void expect(const char *head, int status, const char *part)
{
    const char *got = ask(head);

    if (atoi(got + 9) != status || !strstr(got, part))
        fail_msg("%s: wanted %d and \"%s\", got: %s", head, status, part, got);
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_calls(void **state)
{
    (void)state;
    expect("GET /api/v1/show/a%2Fb?x=1+2%26", 200, "\r\n\r\n[\"a/b\",\"1 2&\"]");
    expect("GET /api/v1/show/a/more", 200, "[\"a\",\"none\"]");
    expect("GET /api/v1/show/a/less", 404, "{\"error\":\"there is no such command\"}");
    expect("GET /api/v1/show", 404, "no such command");
    expect("GET /api/v1/show/", 404, "no such command");
    expect("GET /api/v1/show//more", 400, "cannot be understood");
    expect("GET /api/v1/show/%zz", 400, "cannot be understood");
    expect("GET /api/v1/show/%00", 400, "cannot be understood");
    expect("GET /api/v1/1/2/3/4/5/6/7/8/9", 400, "cannot be understood");
    expect("POST /api/v1/show/a", 405, "use GET");
    expect("GET /api/v1/act", 405, "use POST");
    expect("DELETE /api/v1/act", 405, "use GET or POST");
    expect("GET /api/v1/", 200, "\"show/*\",\"kind\":\"read\",\"text\":\"say \\\"it\\\"\"}");
    expect("GET /api/v1/late", 200, "\"late\"");
    expect("GET /api/v1/access", 200, "{\"listener\":null,\"actions\":true}");
    expect("GET /healthz", 200, "ok\n");
    str_fini(&client.in);
}

static bool is_kept(void)
{
    return kept != NULL;
}

static bool is_abandoned(void)
{
    return command_abandoned(kept);
}

/* The client leaves before the answer; the answer is given nevertheless, and harms nobody. */
static void test_abandoned(void **state)
{
    (void)state;
    client_send("POST /api/v1/act HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc");
    run_until(is_kept);
    assert_false(command_abandoned(kept));
    close(client.fd);
    run_until(is_abandoned);
    command_reply(kept, 200, VIEW_LIT("1"));
}

/* The socket is closed while a call waits: its answer comes when nobody is there at all. */
static void test_closed_meanwhile(void **state)
{
    (void)state;
    client_send("POST /api/v1/act HTTP/1.1\r\nhost: x\r\n\r\n");
    run_until(is_kept);
    control_close(&control);
    assert_true(command_abandoned(kept));
    command_fail(kept, 500, "too late");
    close(client.fd);
}

static bool flow_stands(void)
{
    static unsigned last, same;

    same = flow.sent && flow.sent == last ? same + 1 : 0;
    last = flow.sent;
    return same > 20;
}

static bool flow_is_over(void)
{
    return flow.over;
}

static void test_stream(void **state)
{
    const char *body;
    size_t n = 0;

    (void)state;
    /* A client that does not read holds the stream, not our memory. */
    client_send("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    run_until(flow_stands);
    assert_true(flow.sent < PIECES);
    run_until(client_is_done);
    assert_true(flow.over);
    for (body = strstr(str_c(&client.in), "\r\n\r\n"); *body; body++)
        n += *body == 'p';
    assert_int_equal(n, (size_t)PIECE * PIECES);
    assert_memory_equal(client.in.p + client.in.n - 5, "0\r\n\r\n", 5);
    close(client.fd);
    /* One that leaves in the middle ends it. */
    client_send("GET /api/v1/stream HTTP/1.1\r\nhost: x\r\n\r\n");
    run_until(flow_stands);
    close(client.fd);
    run_until(flow_is_over);
    assert_true(flow.sent < PIECES);
    /* One that is not whole is cut: no last chunk. */
    ask("GET /api/v1/stream?cut=1");
    assert_true(flow.over);
    assert_memory_not_equal(client.in.p + client.in.n - 5, "0\r\n\r\n", 5);
    str_fini(&client.in);
}

static void test_upgrade(void **state)
{
    (void)state;
    client_send("GET /takeover HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n"
                "upgrade: tailrace-takeover/1\r\n\r\nbehind it");
    run_until(client_is_done);
    assert_memory_equal(client.in.p, "HTTP/1.1 101 ", 13);
    assert_non_null(strstr(str_c(&client.in), "\r\n\r\nbehind it"));
    close(client.fd);
    str_fini(&client.in);
}

/* --- the name --------------------------------------------------------------------------------- */

static void test_in_use(void **state)
{
    struct str pid = STR_INIT;
    struct err e;
    struct control *other;
    struct stat st;

    (void)state;
    assert_int_equal(stat(str_c(&path), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_null(open_at(str_c(&path), false, &e));
    assert_int_equal(e.code, ERR_UNAVAIL);
    str_addf(&pid, "is in use by process %ld", (long)getpid());
    assert_non_null(strstr(e.text, str_c(&pid)));
    str_fini(&pid);
    /* Taken over: the old one neither answers nor removes the name. */
    other = open_at(str_c(&path), true, &e);
    assert_non_null(other);
    control_close(&control);
    control = other;
    expect("GET /healthz", 200, "ok\n");
    str_fini(&client.in);
}

static void test_stale(void **state)
{
    struct err e;
    pid_t child;
    int status;

    (void)state;
    control_close(&control);
    child = fork();
    if (child == 0)
        _exit(net_listen_unix(str_c(&path), 1, false, &e) < 0); /* leaves it behind, as a crash */
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(access(str_c(&path), F_OK), 0);
    control = open_at(str_c(&path), false, &e);
    assert_non_null(control);
    expect("GET /healthz", 200, "ok\n");
    str_fini(&client.in);
}

static void test_not_a_socket(void **state)
{
    struct err e;
    int fd;

    (void)state;
    control_close(&control);
    fd = open(str_c(&path), O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_null(open_at(str_c(&path), false, &e));
    assert_non_null(strstr(e.text, "no socket"));
    assert_null(open_at(str_c(&path), true, &e));
    assert_int_equal(unlink(str_c(&path)), 0);
}

static void test_long_path(void **state)
{
    struct str deep = STR_INIT, at = STR_INIT, keep = path;
    struct control *long_one;
    struct err e;

    (void)state;
    str_addf(&deep, "%s/%0120d", dir, 7);
    assert_int_equal(mkdir(str_c(&deep), 0700), 0);
    str_addf(&at, "%s/control.sock", str_c(&deep));
    long_one = open_at(str_c(&at), false, &e);
    assert_non_null(long_one);
    path = at;
    expect("GET /healthz", 200, "ok\n");
    path = keep;
    control_close(&long_one);
    assert_int_equal(access(str_c(&at), F_OK), -1);
    assert_int_equal(rmdir(str_c(&deep)), 0);
    assert_null(open_at(str_c(&at), false, &e));
    assert_int_equal(e.code, ERR_NOTFOUND);
    str_fini(&at);
    str_fini(&deep);
    str_fini(&client.in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abandoned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closed_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stream, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upgrade, setup, teardown),
        cmocka_unit_test_setup_teardown(test_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_a_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_path, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
