/* The admin listener over the real HTTP server: who may read, who may act, and what is sent each
 * second. */
#include "admin/listener.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <crypt.h>
#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "admin/events.h"
#include "base/str.h"
#include "crypto/digest.h"
#include "rt/command.h"

enum { GIVE_UP_MS = 10 * 1000, CLIENTS = EVENTS_CLIENTS_MAX + 1 };

static struct ev_loop *loop;
static struct ev_pool *pool;
static struct basic_users *users;
static struct admin_listener *listener;
static struct http_server *server;
static struct events *events;
static unsigned acted, asked;
static char acted_by[128];
static struct str in; /* what the client got */

/* --- commands of the tests -------------------------------------------------------------------- */

static void run_status(void *ctx, struct command_call *call)
{
    (void)ctx;
    asked++;
    command_reply(call, 200, VIEW_LIT("{\"a\":\n1}\n"));
}

static void run_act(void *ctx, struct command_call *call)
{
    (void)ctx;
    acted++;
    strncpy(acted_by, command_by(call), sizeof(acted_by) - 1);
    command_reply(call, 200, VIEW_LIT("{}\n"));
}

static void run_history(void *ctx, struct command_call *call)
{
    const char *last = command_arg(call, "last");

    (void)ctx;
    assert_string_equal(last, "1");
    command_reply(call, 200, VIEW_LIT("[2]"));
}

enum { WAITING = 32 };

static struct command_call *waiting[WAITING];
static size_t n_waiting;

static void run_wait(void *ctx, struct command_call *call)
{
    (void)ctx;
    assert_true(n_waiting < WAITING);
    waiting[n_waiting++] = call;
}

static struct command commands[] = {
    {.path = "wait", .text = "answered some time", .run = run_wait},
    {.path = "history", .text = "history", .run = run_history},
    {.path = "status", .text = "status", .run = run_status},
    {.path = "act", .kind = COMMAND_ACTION, .text = "act", .run = run_act},
    {.path = "text", .private = true, .text = "text of logs", .run = run_status},
};

/* --- set-up ----------------------------------------------------------------------------------- */

static struct basic_users *make_users(void)
{
    struct crypt_data data = {0};
    struct str line = STR_INIT;
    struct basic_users *u;
    struct err e;

    str_addf(&line, "anna:%s\n", crypt_r("secret", "$6$rounds=1000$abcdefgh", &data));
    u = basic_users_parse(str_view(&line), &e);
    assert_non_null(u);
    str_fini(&line);
    return u;
}

static int setup(void **state)
{
    struct admin_listener_opts o = {.name = "admin", .public_url = "https://gate.corp.example"};
    struct http_server_opts so = {.max_connections = 64};
    size_t i;

    (void)state;
    o.loop = loop = ev_loop_new("test");
    o.pool = pool = ev_pool_new(1, 8);
    o.users = users = make_users();
    listener = admin_listener_new(&o);
    so.service = admin_listener_service(listener);
    server = http_server_new(loop, &so);
    events = events_new(loop);
    for (i = 0; i < ARRAY_LEN(commands); i++)
        command_add(&commands[i]);
    acted = asked = 0;
    return 0;
}

static int teardown(void **state)
{
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(commands); i++)
        command_remove(&commands[i]);
    events_free(&events);
    http_server_free(&server);
    admin_listener_free(&listener);
    if (pool)
        ev_pool_free(&pool);
    ev_loop_free(&loop);
    basic_users_free(&users);
    str_fini(&in);
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

static bool has_come(int fd, const char *what)
{
    char bytes[4096];
    ssize_t n;

    while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
        str_add(&in, bytes, (size_t)n);
    return what ? strstr(str_c(&in), what) != NULL : n == 0 || errno != EAGAIN;
}

/* Serve until the client got `what`, or, NULL, its connection is closed. */
static void run_until(int fd, const char *what)
{
    struct ev_timer *limit = ev_timer_new(loop, on_time, NULL);
    struct ev_timer *tick = ev_timer_new(loop, on_tick, loop);

    ev_timer_arm(limit, GIVE_UP_MS);
    while (!has_come(fd, what)) {
        ev_timer_arm(tick, 1);
        ev_loop_run(loop);
    }
    ev_timer_free(&limit);
    ev_timer_free(&tick);
}

static int client(const char *head)
{
    static const struct net_addr from = {.ss.in = {.sin_family = AF_INET},
                                         .len = sizeof(struct sockaddr_in)};
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(write(fds[1], head, strlen(head)), strlen(head));
    http_server_accepted(server, fds[0], &from);
    str_clear(&in);
    return fds[1];
}

static void expect(const char *head, const char *fields, int status, const char *part)
{
    struct str text = STR_INIT;
    int fd;

    str_addf(&text, "%s HTTP/1.1\r\n%sConnection: close\r\n\r\n", head, fields);
    fd = client(str_c(&text));
    str_fini(&text);
    run_until(fd, NULL);
    close(fd);
    if (strtol(str_c(&in) + 9, NULL, 10) != status || !strstr(str_c(&in), part))
        fail_msg("%s %s: wanted %d and \"%s\", got: %s", head, fields, status, part, str_c(&in));
}

/* --- reads ------------------------------------------------------------------------------------ */

#define HERE "Host: 127.0.0.1:9180\r\n"

static void test_reads(void **state)
{
    (void)state;
    expect("GET /api/v1/status", HERE, 200, "{\"a\":");
    expect("GET /api/v1/status", HERE, 200, "nosniff");
    expect("GET /api/v1/status", "Host: tailrace.attacker.example:9180\r\n", 421, "public-url");
    expect("GET /api/v1/status", "Host: Gate.Corp.Example\r\n", 200, "{\"a\":");
    expect("GET /api/v1/text", HERE, 404, "there is no such command");
    expect("GET /api/v1/act", HERE, 405, "use POST");
    expect("PUT /api/v1/status", HERE, 405, "use GET or POST");
    expect("OPTIONS /api/v1/act", HERE, 405, "use GET or POST");
    expect("GET /api/v1/act", HERE, 405, "\r\nallow: POST\r\n");
    expect("PUT /api/v1/status", HERE, 405, "\r\nallow: GET, POST\r\n");
    expect("GET /api/v1/access", HERE, 200, "{\"listener\":\"admin\",\"actions\":true}");
    expect("GET /healthz", "Host: tailrace.attacker.example\r\n", 200, "ok\n");
    expect("GET /api/v1/", HERE, 200, "\"act\"");
    assert_null(strstr(str_c(&in), "text of logs"));
    /* Our own pages are sent to nobody's else's frame or script. */
    expect("GET /", HERE "Accept: text/html\r\n", 200, "script-src 'self'");
}

static void test_hosts(void **state)
{
    static const char *const good[] = {
        "",        "10.1.2.3",     "10.1.2.3:9180", "[::1]:9180", "localhost", "a.localhost:80",
        "gateway", "gateway:9180", "x.corp:1",      "X.CORP.:1"};
    static const char *const bad[] = {
        "evil.example", "10.1.2.3.evil.example:9180", "x.corp.evil",
        "127.1.evil",   "localhost.evil.example",     "[::1].evil.example"};
    char own[256] = "";
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(good); i++) {
        if (!admin_listener_knows_host(view_str(good[i]), "http://x.corp:9180"))
            fail_msg("%s", good[i]);
    }
    for (i = 0; i < ARRAY_LEN(bad); i++) {
        if (admin_listener_knows_host(view_str(bad[i]), "http://x.corp:9180"))
            fail_msg("%s", bad[i]);
    }
    assert_false(admin_listener_knows_host(VIEW_LIT("evil.example"), NULL));
    assert_int_equal(gethostname(own, sizeof(own) - 1), 0);
    assert_true(admin_listener_knows_host(view_str(own), NULL));
}

/* Who asks and goes again leaves the work here: there is an end to that. */
static void test_so_many_calls(void **state)
{
    size_t i;
    int fd;

    (void)state;
    for (i = 0; i < WAITING; i++) {
        fd = client("GET /api/v1/wait HTTP/1.1\r\n" HERE "\r\n");
        expect("GET /healthz", HERE, 200, "ok\n"); /* so it was read */
        close(fd);
    }
    assert_int_equal(n_waiting, WAITING);
    expect("GET /api/v1/wait", HERE, 503, "too many calls");
    expect("GET /api/v1/status", HERE, 503, "too many calls");
    while (n_waiting)
        command_reply(waiting[--n_waiting], 200, VIEW_LIT("{}\n"));
    expect("GET /api/v1/status", HERE, 200, "{\"a\":");
}

/* --- actions ---------------------------------------------------------------------------------- */

#define ACTION HERE "X-Tailrace-Action: 1\r\nContent-Length: 0\r\n"

static const char *with(const char *credential)
{
    static struct str text;

    str_clear(&text);
    str_adds(&text, ACTION "Authorization: Basic ");
    base64_encode(credential, strlen(credential), &text);
    str_adds(&text, "\r\n");
    return str_c(&text);
}

static void test_actions(void **state)
{
    unsigned i;

    (void)state;
    expect("POST /api/v1/act", HERE "Content-Length: 0\r\n", 403, "X-Tailrace-Action");
    expect("POST /api/v1/act", ACTION, 401, "www-authenticate: Basic realm=\"tailrace\"");
    expect("POST /api/v1/act", with("anna:wrong"), 401, "wrong credentials");
    expect("POST /api/v1/act", with("berta:secret"), 401, "wrong credentials");
    assert_int_equal(acted, 0);
    expect("POST /api/v1/act", with("anna:secret"), 200, "{}");
    expect("POST /api/v1/act", with("anna:secret"), 200, "{}"); /* known by now */
    assert_int_equal(acted, 2);
    assert_non_null(strstr(acted_by, "user=anna from="));
    assert_non_null(strstr(acted_by, "listener=admin"));
    expect("POST /api/v1/status", with("anna:secret"), 405, "use GET");
    /* Nobody guesses for long, and who knows is not shut out. */
    for (i = 0; i < 8; i++) {
        char guess[16] = "anna:0";

        guess[5] = (char)('0' + i);
        expect("POST /api/v1/act", with(guess), 401, "wrong");
    }
    expect("POST /api/v1/act", with("anna:guess"), 429, "too many attempts");
    expect("POST /api/v1/act", with("anna:secret"), 200, "{}");
    assert_int_equal(acted, 3);
}

static void test_no_users(void **state)
{
    (void)state;
    admin_listener_configure(listener, NULL, NULL);
    expect("POST /api/v1/act", with("anna:secret"), 403, "set listen.NAME.users");
    expect("GET /api/v1/access", HERE, 200, "\"actions\":false");
    expect("GET /api/v1/status", "Host: gate.corp.example\r\n", 421, "public-url");
    admin_listener_configure(listener, users, NULL);
    expect("POST /api/v1/act", with("anna:secret"), 200, "{}");
    assert_int_equal(acted, 1);
}

static sem_t busy;

static void wait_busy(struct ev_job *job)
{
    (void)job;
    while (sem_wait(&busy) < 0)
        ;
}

static void busy_done(struct ev_job *job)
{
    (void)job;
}

/* The users go while a password waits to be looked at: whoever sent it is to come again. */
static void test_users_leave(void **state)
{
    static struct ev_job job = {.work = wait_busy, .done = busy_done}; /* the loop sees its end */
    struct str text = STR_INIT;
    int fd, other;

    (void)state;
    sem_init(&busy, 0, 0);
    assert_int_equal(ev_pool_submit(pool, loop, &job), 0);
    str_addf(&text, "POST /api/v1/act HTTP/1.1\r\n%s\r\n", with("anna:secret"));
    fd = client(str_c(&text));
    other = client("GET /healthz HTTP/1.1\r\n" HERE "\r\n");
    run_until(other, "ok\n"); /* so the first was read, too */
    str_clear(&in);
    assert_false(has_come(fd, "HTTP"));
    admin_listener_configure(listener, NULL, NULL);
    run_until(fd, NULL);
    assert_int_equal(in.n, 0);
    assert_int_equal(acted, 0);
    sem_post(&busy);
    ev_pool_free(&pool);
    sem_destroy(&busy);
    close(fd);
    close(other);
    str_fini(&text);
}

/* --- events ----------------------------------------------------------------------------------- */

#define LISTEN "GET /api/v1/events HTTP/1.1\r\n" HERE "\r\n"

static void test_events(void **state)
{
    unsigned i, before;
    int fds[3];

    (void)state;
    for (i = 0; i < ARRAY_LEN(fds); i++) {
        fds[i] = client(LISTEN);
        run_until(fds[i], "event: status\ndata: {\"a\": 1} \n\n");
        assert_int_equal(strstr(str_c(&in), "event: history\ndata: [2]\n\n") != NULL, i == 0);
        assert_non_null(strstr(str_c(&in), "content-type: text/event-stream\r\n"));
    }
    /* Several who listen cost one look. */
    has_come(fds[0], ""); /* what came meanwhile */
    before = asked;
    str_clear(&in);
    run_until(fds[0], "event: status");
    assert_int_equal(asked, before + 1);
    /* Ended by us: all are. */
    events_free(&events);
    run_until(fds[1], "\r\n0\r\n\r\n");
    for (i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    events = events_new(loop);
}

static void test_so_many_listen(void **state)
{
    int fds[CLIENTS];
    unsigned i;

    (void)state;
    for (i = 0; i < CLIENTS; i++) {
        fds[i] = client(LISTEN);
        run_until(fds[i], i < EVENTS_CLIENTS_MAX ? "retry: 2000\n\n" : "listen already");
    }
    assert_non_null(strstr(str_c(&in), "HTTP/1.1 503 "));
    /* Who goes makes room. */
    close(fds[0]);
    close(fds[CLIENTS - 1]);
    do {
        fds[0] = client(LISTEN);
        run_until(fds[0], "\n\n");
        if (!strstr(str_c(&in), "retry"))
            close(fds[0]);
    } while (!strstr(str_c(&in), "retry"));
    for (i = 0; i < CLIENTS - 1; i++)
        close(fds[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test_setup_teardown(test_so_many_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_actions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_users, setup, teardown),
        cmocka_unit_test_setup_teardown(test_users_leave, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events, setup, teardown),
        cmocka_unit_test_setup_teardown(test_so_many_listen, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
