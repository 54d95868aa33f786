#include "net/addr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void addresses_are_read_and_written(void **state)
{
    static const char *const good[] = {"192.0.2.1:80",          "0.0.0.0:0",
                                       "255.255.255.255:65535", "[::1]:443",
                                       "[2001:db8::a]:8443",    "[::]:0"};
    char text[NET_ADDR_TEXT];
    struct net_addr a;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_int_equal(net_addr_parse(view_str(good[i]), &a, &e), 0);
        assert_string_equal(net_addr_text(&a, text), good[i]);
    }
    assert_int_equal(net_addr_parse(VIEW_LIT("[::ffff:192.0.2.1]:1"), &a, &e), 0);
    assert_string_equal(net_addr_ip(&a, text), "::ffff:192.0.2.1");
    net_addr_set_port(&a, 99);
    assert_int_equal(net_addr_port(&a), 99);
    assert_int_equal(net_addr_literal(VIEW_LIT("192.0.2.7"), 5, &a), 0);
    assert_string_equal(net_addr_text(&a, text), "192.0.2.7:5");
    assert_string_equal(net_addr_ip(&a, text), "192.0.2.7");
}

static void other_spellings_are_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "192.0.2.1",
                                      ":80",
                                      "192.0.2.1:",
                                      "192.0.2.1:080",
                                      "192.0.2.1:65536",
                                      "192.0.2.1:-1",
                                      "192.0.2.1: 1",
                                      "192.0.2.1:1 ",
                                      "192.0.2:1",
                                      "127.1:1",
                                      "0x7f.0.0.1:1",
                                      "192.0.2.01:1",
                                      "::1:80",
                                      "[::1]",
                                      "[::1:80",
                                      "::1]:80",
                                      "[192.0.2.1]:80",
                                      "[fe80::1%lo]:1",
                                      "host:80",
                                      "[]:1",
                                      "192.0.2.1:+1",
                                      "[[::1]]:1",
                                      "192.0.2.1:999999"};
    struct net_addr a;
    struct err e;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        if (net_addr_parse(view_str(bad[i]), &a, &e) == 0)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_int_equal(e.code, ERR_INVALID);
    }
    assert_int_equal(net_addr_parse(view_of("192.0.2.1\0:80", 13), &a, &e), -1);
    assert_int_equal(net_addr_parse(VIEW_LIT("x"), &a, NULL), -1);
}

static void other_families_have_some_text(void **state)
{
    struct net_addr a = {.len = sizeof(sa_family_t)};
    char text[NET_ADDR_TEXT];

    (void)state;
    a.ss.ss_family = AF_UNIX;
    assert_string_equal(net_addr_text(&a, text), "local");
    assert_int_equal(net_addr_port(&a), 0);
    a.ss.ss_family = AF_UNSPEC;
    assert_string_equal(net_addr_text(&a, text), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_read_and_written),
        cmocka_unit_test(other_spellings_are_refused),
        cmocka_unit_test(other_families_have_some_text),
    };

    return cmocka_run_group_tests_name("net/addr", tests, NULL, NULL);
}
