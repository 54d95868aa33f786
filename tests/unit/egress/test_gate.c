/* Passages whose policy is replaced at the worst moment. Dialling is the test's. */
#include "egress/gate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/bug.h"
#include "base/xmem.h"

static struct ev_loop *loop;
static struct gate *gate;

/* --- dialling ----------------------------------------------------------------------------- */

static struct {
    struct net_connect_opts o;
    net_connected_fn fn;
    void *ctx;
} dial;

static char dialling;

struct net_connect *net_connect_start(struct net_resolver *r, struct ev_loop *l,
                                      const struct net_connect_opts *o, net_connected_fn fn,
                                      void *ctx)
{
    (void)r;
    (void)l;
    dial.o = *o;
    dial.fn = fn;
    dial.ctx = ctx;
    return (struct net_connect *)(void *)&dialling;
}

void net_connect_cancel(struct net_connect **c)
{
    *c = NULL;
}

static bool allowed(const char *ip)
{
    struct net_addr a;
    struct err e;

    assert_int_equal(net_addr_parse(view_str(ip), &a, &e), 0);
    return dial.o.allow(dial.o.allow_ctx, &a);
}

/* The dial comes to a connection that stands, of which the other end is returned. */
static int connected(const char *ip)
{
    struct net_addr peer;
    struct err e;
    int fds[2];

    assert_int_equal(net_addr_parse(view_str(ip), &peer, &e), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    dial.fn(dial.ctx, net_stream_connected(loop, fds[0], NULL, NULL, VIEW_NONE, &peer), NULL);
    return fds[1];
}

/* --- policies ----------------------------------------------------------------------------- */

enum { MANY = 50 };

/* `n` rules that are about nothing, then one that allows `host`, at `addresses` too. */
static struct policy *policy_of(size_t n, const char *host, const char *addresses,
                                enum policy_mode mode)
{
    static const char *const nothing[] = {"nothing.example"};
    struct policy_rule_opts rules[MANY + 1];
    struct policy *p;
    struct err e;
    size_t i;

    for (i = 0; i < n; i++)
        rules[i] = (struct policy_rule_opts){.name = "none", .hosts = nothing, .n_hosts = 1};
    rules[n] = (struct policy_rule_opts){.name = "last",
                                         .hosts = &host,
                                         .n_hosts = 1,
                                         .addresses = &addresses,
                                         .n_addresses = addresses ? 1 : 0};
    p = policy_new(&(struct policy_opts){.mode = mode, .rules = rules, .n_rules = n + 1}, &e);
    assert_non_null(p);
    return p;
}

static void use(const struct policy *p)
{
    gate_configure(gate, &(struct gate_settings){.policy = p});
}

static struct passage *ask(const char *where)
{
    struct passage *p = passage_open(
        gate, &(struct passage_opts){
                  .kind = "tunnel", .listener = "l", .from = NULL, .authority = view_str(where)});

    assert_true(passage_verdict(p)->allow);
    return p;
}

/* What the owner was told. */
static struct {
    int calls;
    struct net_stream *s;
    enum err_code code;
} told;

static void on_told(void *ctx, struct net_stream *s, const struct err *e)
{
    (void)ctx;
    told.calls++;
    told.s = s;
    told.code = e ? e->code : ERR_NONE;
    if (s)
        net_stream_bind(s, NULL, NULL);
}

static int set_up(void **state)
{
    const struct audit_opts audit = {.to = AUDIT_NONE};
    struct err e;

    (void)state;
    assert_int_equal(audit_open(&audit, &e), 0);
    loop = ev_loop_new("test");
    gate = gate_new(loop, NULL, &(struct gate_settings){.policy = NULL});
    memset(&told, 0, sizeof(told));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    gate_free(&gate);
    ev_loop_free(&loop);
    return 0;
}

static void end_all(int fd, struct passage **p)
{
    net_stream_close(&told.s, true);
    if (fd >= 0)
        close(fd);
    passage_end(p, "client");
}

/* --- tests -------------------------------------------------------------------------------- */

/* A verdict counts the rules of its own policy: of another they are others, or none at all. */
static void test_resolved_after_a_reload(void **state)
{
    struct policy *before = policy_of(MANY, "a.example", "10.0.0.0/8", POLICY_ENFORCE);
    struct policy *after = policy_of(0, "a.example", "192.168.0.0/16", POLICY_ENFORCE);
    struct passage *p;

    (void)state;
    use(before);
    p = ask("a.example:443");
    passage_dial(p, NULL, VIEW_NONE, on_told, NULL);
    use(after);
    assert_false(allowed("10.1.1.1:443"));
    assert_true(allowed("192.168.1.1:443"));
    assert_true(passage_verdict(p)->allow);
    assert_string_equal(passage_verdict(p)->rule, "last");
    end_all(-1, &p);
    policy_free(&before);
    policy_free(&after);
}

static void test_denied_by_a_reload_before_it_was_resolved(void **state)
{
    struct policy *before = policy_of(0, "a.example", NULL, POLICY_ENFORCE);
    struct policy *after = policy_of(0, "b.example", NULL, POLICY_ENFORCE);
    struct passage *p;
    struct err e;

    (void)state;
    use(before);
    p = ask("a.example:443");
    passage_dial(p, NULL, VIEW_NONE, on_told, NULL);
    use(after);
    assert_false(allowed("93.184.216.34:443"));
    err_set(&e, ERR_DENIED, "none");
    dial.fn(dial.ctx, NULL, &e);
    assert_int_equal(told.calls, 1);
    assert_false(passage_verdict(p)->allow);
    assert_string_equal(passage_verdict(p)->rule, "default");
    end_all(-1, &p);
    policy_free(&before);
    policy_free(&after);
}

/* Nobody looks for it among the tunnels yet, and in a moment nobody would look again. */
static void test_denied_by_a_reload_while_dialled(void **state)
{
    struct policy *before = policy_of(0, "a.example", NULL, POLICY_ENFORCE);
    struct policy *after = policy_of(0, "b.example", NULL, POLICY_ENFORCE);
    struct passage *p;
    int fd;

    (void)state;
    use(before);
    p = ask("a.example:443");
    passage_dial(p, NULL, VIEW_NONE, on_told, NULL);
    assert_true(allowed("93.184.216.34:443"));
    use(after);
    fd = connected("93.184.216.34:443");
    assert_int_equal(told.calls, 1);
    assert_null(told.s);
    assert_int_equal(told.code, ERR_DENIED);
    assert_false(passage_verdict(p)->allow);
    end_all(fd, &p);
    policy_free(&before);
    policy_free(&after);
}

static void test_its_address_denied_by_a_reload_while_dialled(void **state)
{
    struct policy *before = policy_of(0, "a.example", "10.0.0.0/8", POLICY_ENFORCE);
    struct policy *after = policy_of(0, "a.example", NULL, POLICY_ENFORCE);
    struct passage *p;
    int fd;

    (void)state;
    use(before);
    p = ask("a.example:443");
    passage_dial(p, NULL, VIEW_NONE, on_told, NULL);
    assert_true(allowed("10.1.1.1:443"));
    use(after);
    fd = connected("10.1.1.1:443");
    assert_null(told.s);
    assert_string_equal(passage_verdict(p)->rule, "address");
    end_all(fd, &p);
    policy_free(&before);
    policy_free(&after);
}

static void test_a_reload_that_changes_nothing_for_it(void **state)
{
    struct policy *before = policy_of(3, "a.example", "10.0.0.0/8", POLICY_ENFORCE);
    struct policy *after = policy_of(MANY, "a.example", "10.0.0.0/8", POLICY_ENFORCE);
    struct passage *p;
    int fd;

    (void)state;
    use(before);
    p = ask("a.example:443");
    passage_dial(p, NULL, VIEW_NONE, on_told, NULL);
    assert_true(allowed("10.1.1.1:443"));
    use(after);
    fd = connected("10.1.1.1:443");
    assert_non_null(told.s);
    assert_true(passage_verdict(p)->allow);
    end_all(fd, &p);
    policy_free(&before);
    policy_free(&after);
}

static void on_revoked(void *ctx)
{
    passage_end(ctx, "policy");
}

static void test_revoked(void **state)
{
    struct policy *before = policy_of(0, "*.example", NULL, POLICY_ENFORCE);
    struct policy *after = policy_of(0, "b.example", NULL, POLICY_ENFORCE);
    struct passage *a, *b, *c;

    (void)state;
    use(before);
    a = ask("a.example:443");
    b = ask("b.example:443");
    c = ask("c.example:443");
    passage_on_revoked(a, on_revoked, &a);
    passage_on_revoked(b, on_revoked, &b);
    passage_on_revoked(c, on_revoked, &c);
    passage_started(c);
    gate_recheck(gate);
    assert_int_equal(gate_passages(gate), 3);
    use(after);
    gate_recheck(gate);
    assert_null(a);
    assert_non_null(b);
    assert_null(c);
    assert_int_equal(gate_passages(gate), 1);
    passage_end(&b, "client");
    policy_free(&before);
    policy_free(&after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_resolved_after_a_reload, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_denied_by_a_reload_before_it_was_resolved, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_denied_by_a_reload_while_dialled, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_its_address_denied_by_a_reload_while_dialled, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_reload_that_changes_nothing_for_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_revoked, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
