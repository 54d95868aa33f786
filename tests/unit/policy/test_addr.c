#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "policy/policy.h"

static const struct sockaddr *at(const char *text)
{
    static struct sockaddr_storage ss;

    memset(&ss, 0, sizeof(ss));
    if (strchr(text, ':')) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;

        in6->sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
    } else {
        struct sockaddr_in *in = (struct sockaddr_in *)&ss;

        in->sin_family = AF_INET;
        assert_int_equal(inet_pton(AF_INET, text, &in->sin_addr), 1);
    }
    return (const struct sockaddr *)&ss;
}

struct row {
    const char *addr;
    enum addr_class kind;
    bool embedded;
};

static void check_all(const struct row *rows, size_t n)
{
    bool embedded;
    size_t i;

    for (i = 0; i < n; i++) {
        enum addr_class got = addr_class(at(rows[i].addr), &embedded);

        if (got != rows[i].kind || embedded != rows[i].embedded)
            fail_msg("%s: %s%s, wanted %s%s", rows[i].addr, addr_class_name(got),
                     embedded ? " (embedded)" : "", addr_class_name(rows[i].kind),
                     rows[i].embedded ? " (embedded)" : "");
    }
}

static void test_ipv4(void **state)
{
    static const struct row rows[] = {
        {"8.8.8.8", ADDR_PUBLIC, false},           {"1.1.1.1", ADDR_PUBLIC, false},
        {"0.0.0.0", ADDR_UNSPECIFIED, false},      {"0.255.1.2", ADDR_UNSPECIFIED, false},
        {"9.255.255.255", ADDR_PUBLIC, false},     {"10.0.0.0", ADDR_PRIVATE, false},
        {"10.255.255.255", ADDR_PRIVATE, false},   {"11.0.0.0", ADDR_PUBLIC, false},
        {"100.63.255.255", ADDR_PUBLIC, false},    {"100.64.0.0", ADDR_CGNAT, false},
        {"100.127.255.255", ADDR_CGNAT, false},    {"100.128.0.0", ADDR_PUBLIC, false},
        {"127.0.0.1", ADDR_LOOPBACK, false},       {"127.255.255.255", ADDR_LOOPBACK, false},
        {"128.0.0.0", ADDR_PUBLIC, false},         {"169.253.255.255", ADDR_PUBLIC, false},
        {"169.254.0.0", ADDR_LINK_LOCAL, false},   {"169.254.255.255", ADDR_LINK_LOCAL, false},
        {"172.15.255.255", ADDR_PUBLIC, false},    {"172.16.0.0", ADDR_PRIVATE, false},
        {"172.31.255.255", ADDR_PRIVATE, false},   {"172.32.0.0", ADDR_PUBLIC, false},
        {"192.0.0.1", ADDR_RESERVED, false},       {"192.0.1.0", ADDR_PUBLIC, false},
        {"192.0.2.1", ADDR_RESERVED, false},       {"192.88.99.1", ADDR_RESERVED, false},
        {"192.168.0.0", ADDR_PRIVATE, false},      {"192.169.0.0", ADDR_PUBLIC, false},
        {"198.17.255.255", ADDR_PUBLIC, false},    {"198.18.0.0", ADDR_RESERVED, false},
        {"198.19.255.255", ADDR_RESERVED, false},  {"198.51.100.1", ADDR_RESERVED, false},
        {"203.0.113.9", ADDR_RESERVED, false},     {"223.255.255.255", ADDR_PUBLIC, false},
        {"224.0.0.1", ADDR_MULTICAST, false},      {"239.255.255.255", ADDR_MULTICAST, false},
        {"240.0.0.1", ADDR_RESERVED, false},       {"255.255.255.255", ADDR_MULTICAST, false},
        {"169.254.169.254", ADDR_METADATA, false}, {"169.254.170.2", ADDR_METADATA, false},
        {"169.254.170.23", ADDR_METADATA, false},  {"100.100.100.200", ADDR_METADATA, false},
        {"168.63.129.16", ADDR_METADATA, false},   {"192.0.0.192", ADDR_METADATA, false},
        {"169.254.0.23", ADDR_METADATA, false},    {"168.63.129.17", ADDR_PUBLIC, false},
    };

    check_all(rows, ARRAY_LEN(rows));
}

static void test_ipv6(void **state)
{
    static const struct row rows[] = {
        {"2606:4700::1111", ADDR_PUBLIC, false},   {"2a00:1450::1", ADDR_PUBLIC, false},
        {"::", ADDR_UNSPECIFIED, false},           {"::1", ADDR_LOOPBACK, false},
        {"fc00::1", ADDR_PRIVATE, false},          {"fdff::1", ADDR_PRIVATE, false},
        {"fe80::1", ADDR_LINK_LOCAL, false},       {"febf::1", ADDR_LINK_LOCAL, false},
        {"fec0::1", ADDR_PRIVATE, false},          {"ff02::1", ADDR_MULTICAST, false},
        {"2001:db8::1", ADDR_RESERVED, false},     {"2001:2::1", ADDR_RESERVED, false},
        {"2001:10::1", ADDR_RESERVED, false},      {"2001:200::1", ADDR_PUBLIC, false},
        {"3fff::1", ADDR_RESERVED, false},         {"100::1", ADDR_RESERVED, false},
        {"5f00::1", ADDR_RESERVED, false},         {"4000::1", ADDR_RESERVED, false},
        {"fd00:ec2::254", ADDR_METADATA, false},   {"fd00:ec2::23", ADDR_METADATA, false},
        {"fd20:ce::254", ADDR_METADATA, false},    {"fd00:c1::a9fe:a9fe", ADDR_METADATA, false},
        {"fe80::a9fe:a9fe", ADDR_METADATA, false}, {"fd00:42::42", ADDR_METADATA, false},
        {"fd00:ec2::255", ADDR_PRIVATE, false},
    };

    check_all(rows, ARRAY_LEN(rows));
}

static void test_embedded(void **state)
{
    static const struct row rows[] = {
        {"::ffff:8.8.8.8", ADDR_PUBLIC, true}, /* mapped */
        {"::ffff:127.0.0.1", ADDR_LOOPBACK, true},
        {"::ffff:169.254.169.254", ADDR_METADATA, true},
        {"::8.8.8.8", ADDR_PUBLIC, true}, /* compatible */
        {"::10.0.0.1", ADDR_PRIVATE, true},
        {"::ffff:0:10.0.0.1", ADDR_PRIVATE, true}, /* translated */
        {"64:ff9b::8.8.8.8", ADDR_PUBLIC, true},   /* NAT64 */
        {"64:ff9b::169.254.169.254", ADDR_METADATA, true},
        {"64:ff9b::100.64.0.1", ADDR_CGNAT, true},
        {"64:ff9b:1::8.8.8.8", ADDR_PUBLIC, true}, /* NAT64 of a network */
        {"64:ff9b:1::10.0.0.1", ADDR_PRIVATE, true},
        {"64:ff9b:1:7f00:0:100::", ADDR_LOOPBACK, true}, /* behind 48 bits */
        {"64:ff9b:1:a00:0:100:808:808", ADDR_PRIVATE, true},
        {"64:ff9b:2::1", ADDR_RESERVED, false},
        {"2002:808:808::1", ADDR_PUBLIC, true}, /* 6to4 */
        {"2002:7f00:1::1", ADDR_LOOPBACK, true},
        {"2002:a9fe:a9fe::1", ADDR_METADATA, true},
        {"2001:0:808:808::f7f7:f7f7", ADDR_PUBLIC, true}, /* Teredo: client 8.8.8.8 inverted */
        {"2001:0:808:808::80ff:fffe", ADDR_LOOPBACK, true},
        {"2001:0:a00:1::f7f7:f7f7", ADDR_PRIVATE, true}, /* its server is private */
        {"2a00::5efe:10.0.0.1", ADDR_PRIVATE, true},     /* ISATAP */
        {"2a00::200:5efe:127.0.0.1", ADDR_LOOPBACK, true},
        {"2a00::200:5efe:8.8.8.8", ADDR_PUBLIC, true},
        {"2a00::300:5eff:8.8.8.8", ADDR_PUBLIC, false},
        {"fe80::5efe:8.8.8.8", ADDR_LINK_LOCAL, false},
    };

    check_all(rows, ARRAY_LEN(rows));
}

static void test_own(void **state)
{
    struct sockaddr_storage a[3];
    const struct sockaddr *list[3];
    struct sockaddr local = {.sa_family = AF_UNIX};
    size_t i;

    for (i = 0; i < 3; i++)
        list[i] = (const struct sockaddr *)&a[i];
    memcpy(&a[0], at("10.1.2.3"), sizeof(a[0]));
    memcpy(&a[1], at("2a00::77"), sizeof(a[1]));
    memcpy(&a[2], at("127.0.0.1"), sizeof(a[2]));
    policy_own_addresses(list, 3);
    assert_int_equal(addr_class(at("10.1.2.3"), NULL), ADDR_OWN);
    assert_int_equal(addr_class(at("::ffff:10.1.2.3"), NULL), ADDR_OWN);
    assert_int_equal(addr_class(at("64:ff9b::10.1.2.3"), NULL), ADDR_OWN);
    assert_int_equal(addr_class(at("2a00::77"), NULL), ADDR_OWN);
    assert_int_equal(addr_class(at("127.0.0.1"), NULL), ADDR_LOOPBACK);
    assert_int_equal(addr_class(at("10.1.2.4"), NULL), ADDR_PRIVATE);
    policy_own_addresses(list + 1, 1);
    assert_int_equal(addr_class(at("10.1.2.3"), NULL), ADDR_PRIVATE);
    policy_own_addresses(NULL, 0);
    assert_int_equal(addr_class(at("2a00::77"), NULL), ADDR_PUBLIC);
    assert_int_equal(addr_class(&local, NULL), ADDR_RESERVED);
}

/* ---- ranges ------------------------------------------------------------------------------- */

static void test_range_parse(void **state)
{
    static const struct {
        const char *text;
        const char *wrong; /* NULL: good */
    } rows[] = {
        {"10.0.0.0/8", NULL},
        {"192.0.2.7", NULL},
        {"2001:db8::/32", NULL},
        {"::1", NULL},
        {"0.0.0.0/0", NULL},
        {"::/0", NULL},
        {"10.0.0.1/8", "use 10.0.0.0/8, or a longer prefix"},
        {"2001:db8::1/32", "use 2001:db8::/32, or a longer prefix"},
        {"10.0.0.0/33", "use a range of addresses, such as 10.0.0.0/8"},
        {"::/129", "use a range of addresses, such as 10.0.0.0/8"},
        {"10.0.0.0/", "use a range of addresses, such as 10.0.0.0/8"},
        {"10.0.0.0/08", "use a range of addresses, such as 10.0.0.0/8"},
        {"10.0.0.0/8/8", "use a range of addresses, such as 10.0.0.0/8"},
        {"10.0.0/8", "use a range of addresses, such as 10.0.0.0/8"},
        {"010.0.0.0/8", "use a range of addresses, such as 10.0.0.0/8"},
        {"fe80::1%1", "use a range of addresses, such as 10.0.0.0/8"},
        {"corp.example", "use a range of addresses, such as 10.0.0.0/8"},
        {"", "use a range of addresses, such as 10.0.0.0/8"},
    };
    struct addr_range r;
    struct err e;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        int rc = addr_range_parse(view_str(rows[i].text), &r, &e);

        assert_int_equal(rc, rows[i].wrong ? -1 : 0);
        if (rc < 0)
            assert_string_equal(e.text, rows[i].wrong);
    }
    assert_int_equal(addr_range_parse(VIEW_LIT("10.0.0.0\0/8"), &r, &e), -1);
}

static bool has(const char *range, const char *addr)
{
    struct addr_range r;

    assert_int_equal(addr_range_parse(view_str(range), &r, NULL), 0);
    return addr_range_has(&r, at(addr));
}

static bool opens(const char *range, const char *addr)
{
    struct addr_range r;

    assert_int_equal(addr_range_parse(view_str(range), &r, NULL), 0);
    return addr_range_opens(&r, at(addr));
}

static void test_range_has(void **state)
{
    assert_true(has("10.0.0.0/8", "10.255.0.1"));
    assert_false(has("10.0.0.0/8", "11.0.0.1"));
    assert_true(has("10.0.0.0/8", "::ffff:10.0.0.1"));
    assert_true(has("::ffff:10.0.0.0/104", "10.0.0.1"));
    assert_false(has("::/0", "10.0.0.1"));
    assert_false(has("0.0.0.0/0", "::1"));
    assert_true(has("0.0.0.0/0", "203.0.113.1"));
    assert_true(has("192.0.2.128/25", "192.0.2.200"));
    assert_false(has("192.0.2.128/25", "192.0.2.100"));
    assert_true(has("192.0.2.7", "192.0.2.7"));
    assert_false(has("192.0.2.7", "192.0.2.6"));
    assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
    assert_false(has("2001:db8::/33", "2001:db8:8000::1"));
}

static void test_range_opens(void **state)
{
    assert_true(opens("0.0.0.0/0", "8.8.8.8"));
    assert_false(opens("0.0.0.0/0", "10.0.0.1"));
    assert_false(opens("0.0.0.0/0", "127.0.0.1"));
    assert_false(opens("8.0.0.0/6", "10.0.0.1"));
    assert_true(opens("10.0.0.0/8", "10.0.0.1"));
    assert_true(opens("10.0.0.0/24", "10.0.0.1"));
    assert_false(opens("10.0.1.0/24", "10.0.0.1"));
    assert_false(opens("169.254.0.0/16", "169.254.169.254"));
    assert_true(opens("169.254.169.254", "169.254.169.254"));
    assert_false(opens("100.64.0.0/10", "100.100.100.200"));
    assert_true(opens("64:ff9b::/96", "64:ff9b::8.8.8.8"));
    assert_false(opens("64:ff9b::/96", "64:ff9b::10.0.0.1"));
    assert_true(opens("64:ff9b::a00:0/104", "64:ff9b::10.0.0.1"));
    assert_false(opens("::/0", "64:ff9b::8.8.8.8"));
    assert_false(opens("2000::/3", "2002:a00::1"));
    assert_true(opens("2002:a00::/24", "2002:a00::1"));
    assert_false(opens("2a00::/64", "2a00::5efe:10.0.0.1"));
    assert_true(opens("10.0.0.0/8", "::ffff:10.0.0.1"));
}

static void test_range_opens_own(void **state)
{
    struct sockaddr_storage own;
    const struct sockaddr *list[] = {(const struct sockaddr *)&own};

    memcpy(&own, at("10.1.2.3"), sizeof(own));
    policy_own_addresses(list, 1);
    assert_false(opens("10.0.0.0/8", "10.1.2.3"));
    assert_true(opens("10.1.2.3", "10.1.2.3"));
    assert_true(opens("10.0.0.0/8", "10.1.2.4"));
    policy_own_addresses(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ipv4),        cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_embedded),    cmocka_unit_test(test_own),
        cmocka_unit_test(test_range_parse), cmocka_unit_test(test_range_has),
        cmocka_unit_test(test_range_opens), cmocka_unit_test(test_range_opens_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
