#include "policy/dest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

struct row {
    const char *in;
    const char *want; /* host:port; NULL: refused */
    bool literal;
};

static void check(const struct row *r, uint16_t def)
{
    struct dest d;
    struct err e = {0};
    char text[DEST_TEXT_MAX];

    if (dest_parse(view_str(r->in), def, &d, &e) < 0) {
        if (r->want)
            fail_msg("\"%s\": refused: %s", r->in, e.text);
        assert_int_equal(e.code, ERR_INVALID);
        return;
    }
    if (!r->want)
        fail_msg("\"%s\": taken as %s", r->in, dest_text(&d, text));
    if (strcmp(dest_text(&d, text), r->want) != 0)
        fail_msg("\"%s\": got %s, wanted %s", r->in, text, r->want);
    if (d.literal != r->literal)
        fail_msg("\"%s\": literal %d", r->in, d.literal);
}

#define CHECK_ALL(rows, def)                                                                       \
    do {                                                                                           \
        size_t i_;                                                                                 \
        for (i_ = 0; i_ < ARRAY_LEN(rows); i_++)                                                   \
            check(&(rows)[i_], def);                                                               \
    } while (0)

static void test_names(void **state)
{
    static const struct row rows[] = {
        {"github.com:443", "github.com:443", false},
        {"GitHub.COM:443", "github.com:443", false},
        {"github.com.:443", "github.com:443", false},
        {"GITHUB.com.:8443", "github.com:8443", false},
        {"localhost:80", "localhost:80", false},
        {"_dmarc.corp.example:80", "_dmarc.corp.example:80", false},
        {"r1---sn-x.example:80", "r1---sn-x.example:80", false},
        {"1.2.3.4.example:80", "1.2.3.4.example:80", false},
        {"0x7f.example:1", "0x7f.example:1", false},
        {"github.com..:443", NULL, false},
        {".github.com:443", NULL, false},
        {"git..hub:443", NULL, false},
        {".:443", NULL, false},
        {":443", NULL, false},
        {"", NULL, false},
        {"git hub:443", NULL, false},
        {"github.com\t:443", NULL, false},
        {"github.com/x:443", NULL, false},
        {"github.com%2e:443", NULL, false},
        {"*.github.com:443", NULL, false},
        {"github.com\\evil:443", NULL, false},
        {"github.com#:443", NULL, false},
        {"github.com?x:443", NULL, false},
    };

    CHECK_ALL(rows, 0);
}

static void test_ports(void **state)
{
    static const struct row rows[] = {
        {"a.example:1", "a.example:1", false},
        {"a.example:65535", "a.example:65535", false},
        {"a.example", NULL, false},
        {"a.example:", NULL, false},
        {"a.example:0", NULL, false},
        {"a.example:65536", NULL, false},
        {"a.example:0443", NULL, false},
        {"a.example:+443", NULL, false},
        {"a.example: 443", NULL, false},
        {"a.example:443 ", NULL, false},
        {"a.example:443:443", NULL, false},
        {"a.example:99999999999999999999", NULL, false},
        {"a.example:443/", NULL, false},
        {"a.example:0x1bb", NULL, false},
    };
    static const struct row with_default[] = {
        {"a.example", "a.example:443", false},
        {"[2001:db8::1]", "[2001:db8::1]:443", true},
        {"a.example:", NULL, false},
    };

    CHECK_ALL(rows, 0);
    CHECK_ALL(with_default, 443);
}

/* What inet_aton takes, a resolver or a parent proxy may take. */
static void test_odd_ipv4(void **state)
{
    static const struct row rows[] = {
        {"127.0.0.1:80", "127.0.0.1:80", true},
        {"127.0.0.1.:80", "127.0.0.1:80", true},
        {"2130706433:80", "127.0.0.1:80", true},
        {"0x7f000001:80", "127.0.0.1:80", true},
        {"0X7F000001:80", "127.0.0.1:80", true},
        {"0x7f.1:80", "127.0.0.1:80", true},
        {"0177.0.0.1:80", "127.0.0.1:80", true},
        {"017700000001:80", "127.0.0.1:80", true},
        {"127.1:80", "127.0.0.1:80", true},
        {"127.0.1:80", "127.0.0.1:80", true},
        {"169.16689662:80", "169.254.169.254:80", true},
        {"0:80", "0.0.0.0:80", true},
        {"4294967295:80", "255.255.255.255:80", true},
        {"4294967296:80", NULL, false},
        {"256.0.0.1:80", NULL, false},
        {"127.0.0.256:80", NULL, false},
        {"127.0.65536:80", NULL, false},
        {"127.16777216:80", NULL, false},
        {"1.2.3.4.5:80", NULL, false},
        {"1.2.3.08:80", NULL, false},
        {"1.2.3.0x:80", NULL, false},
        {"0x:80", NULL, false},
        {"host.127:80", NULL, false},
        {"1..2:80", NULL, false},
        {"99999999999999999999999:80", NULL, false},
    };

    CHECK_ALL(rows, 0);
}

static void test_ipv6(void **state)
{
    static const struct row rows[] = {
        {"[::1]:80", "[::1]:80", true},
        {"[0:0:0:0:0:0:0:1]:80", "[::1]:80", true},
        {"[2001:DB8::0001]:80", "[2001:db8::1]:80", true},
        {"[::ffff:127.0.0.1]:80", "127.0.0.1:80", true},
        {"[::ffff:7f00:1]:80", "127.0.0.1:80", true},
        {"[64:ff9b::7f00:1]:80", "[64:ff9b::7f00:1]:80", true},
        {"::1:80", NULL, false},
        {"2001:db8::1", NULL, false},
        {"[fe80::1%eth0]:80", NULL, false},
        {"[fe80::1%25eth0]:80", NULL, false},
        {"[::1]80", NULL, false},
        {"[::1", NULL, false},
        {"[]:80", NULL, false},
        {"[[::1]]:80", NULL, false},
        {"[github.com]:443", NULL, false},
        {"[127.0.0.1]:80", NULL, false},
        {"[::1]:", NULL, false},
        {"[:::1]:80", NULL, false},
        {"x[::1]:80", NULL, false},
    };

    CHECK_ALL(rows, 0);
}

static void test_idna(void **state)
{
    static const struct row rows[] = {
        {"b\xc3\xbc\x63her.example:443", "xn--bcher-kva.example:443", false},
        {"B\xc3\x9c\x43HER.example:443", "xn--bcher-kva.example:443", false},
        {"XN--BCHER-KVA.example:443", "xn--bcher-kva.example:443", false},
        /* IDNA 2008 keeps the sharp s; IDNA 2003 made it ss, another host. */
        {"stra\xc3\x9f\x65.example:443", "xn--strae-oqa.example:443", false},
        /* Full-width letters, digits and dots, as the first SSRF filters missed them. */
        {"\xef\xbd\x87ithub.com:443", "github.com:443", false},
        {"\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97.0.0.1:80", "127.0.0.1:80", true},
        {"127\xe3\x80\x82\x30\xe3\x80\x82\x30\xe3\x80\x82\x31:80", "127.0.0.1:80", true},
        {"github\xe3\x80\x82\x63om:443", "github.com:443", false},
        {"\xe2\x84\x80.example:443", NULL, false},     /* a/c in one character */
        {"evil\xef\xbc\x8f.example:443", NULL, false}, /* full-width slash */
        {"evil\xef\xbc\xa0.example:443", NULL, false}, /* full-width @ */
        {"xn--a\xc3\xbc.example:443", NULL, false},    /* Punycode that is none */
        {"xn--.example:443", NULL, false},
        {"xn--github-.com:443", NULL, false},  /* ASCII dressed as Punycode */
        {"\xff\xfe.example:443", NULL, false}, /* no UTF-8 */
        {"a\xe2\x80\x8b.example:443", "a.example:443",
         false}, /* zero width space: ignored by UTS 46 */
    };

    CHECK_ALL(rows, 0);
}

static void test_userinfo(void **state)
{
    struct dest d;
    struct err e = {0};

    assert_int_equal(dest_parse(VIEW_LIT("user:hunter2@github.com:443"), 0, &d, &e), -1);
    assert_null(strstr(e.text, "hunter2"));
    assert_int_equal(dest_parse(VIEW_LIT("github.com@127.0.0.1:443"), 0, &d, &e), -1);
    assert_int_equal(dest_parse(VIEW_LIT("a@[::1]:443"), 0, &d, &e), -1);
}

static void test_bytes(void **state)
{
    struct dest d;

    assert_int_equal(dest_parse(VIEW_LIT("github.com\0.evil.example:443"), 0, &d, NULL), -1);
    assert_int_equal(dest_parse(VIEW_LIT("[::1\0]:443"), 0, &d, NULL), -1);
    assert_int_equal(dest_parse(VIEW_LIT("a.example:44\0"), 0, &d, NULL), -1);
    assert_int_equal(dest_parse(VIEW_NONE, 443, &d, NULL), -1);
}

static void test_lengths(void **state)
{
    char name[400];
    struct dest d;
    size_t i;

    memset(name, 'a', sizeof(name));
    assert_int_equal(dest_parse(view_of(name, 63), 443, &d, NULL), 0);
    assert_int_equal(dest_parse(view_of(name, 64), 443, &d, NULL), -1);
    for (i = 49; i < sizeof(name); i += 50)
        name[i] = '.';
    assert_int_equal(dest_parse(view_of(name, 253), 443, &d, NULL), 0);
    assert_int_equal(strlen(d.host), 253);
    assert_int_equal(dest_parse(view_of(name, 254), 443, &d, NULL), -1);
    name[253] = '.'; /* the root does not count */
    assert_int_equal(dest_parse(view_of(name, 254), 443, &d, NULL), 0);
    assert_int_equal(strlen(d.host), 253);
    assert_int_equal(dest_parse(view_of(name, 300), 443, &d, NULL), -1);
    name[0] = '\xc3';
    name[1] = '\xbc';
    assert_int_equal(dest_parse(view_of(name, 300), 443, &d, NULL), -1);
}

/* What was made is taken again, as it is. */
static void test_fixed_point(void **state)
{
    static const char *const in[] = {"GitHub.com.:1", "0x7f.1:2", "[::FFFF:1.2.3.4]:3",
                                     "B\xc3\x9c\x43HER.example:4", "[2001:DB8:0::1]:5"};
    char first[DEST_TEXT_MAX], second[DEST_TEXT_MAX];
    struct dest a, b;
    size_t i;

    for (i = 0; i < ARRAY_LEN(in); i++) {
        assert_int_equal(dest_parse(view_str(in[i]), 0, &a, NULL), 0);
        dest_text(&a, first);
        assert_int_equal(dest_parse(view_str(first), 0, &b, NULL), 0);
        assert_string_equal(dest_text(&b, second), first);
        assert_int_equal(a.literal, b.literal);
        assert_memory_equal(&a.addr, &b.addr, sizeof(a.addr));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),       cmocka_unit_test(test_ports),
        cmocka_unit_test(test_odd_ipv4),    cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_idna),        cmocka_unit_test(test_userinfo),
        cmocka_unit_test(test_bytes),       cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_fixed_point),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
