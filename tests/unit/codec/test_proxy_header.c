#include "codec/proxy_header.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/str.h"

static enum proxy_header_result parse(struct view in, struct proxy_header *h)
{
    char *copy = malloc(in.n ? in.n : 1); /* of just that size, for the sanitizer */
    enum proxy_header_result result;

    assert_non_null(copy);
    if (in.n)
        memcpy(copy, in.p, in.n);
    result = proxy_header_parse(view_of(copy, in.n), h);
    free(copy);
    return result;
}

static void source_text(const struct proxy_header *h, char *out, size_t n)
{
    char ip[INET6_ADDRSTRLEN];
    const void *at;
    uint16_t port;

    if (h->source.ss_family == AF_INET) {
        const struct sockaddr_in *sin = (const void *)&h->source;

        assert_int_equal(h->source_len, sizeof(*sin));
        at = &sin->sin_addr;
        port = ntohs(sin->sin_port);
    } else {
        const struct sockaddr_in6 *sin6 = (const void *)&h->source;

        assert_int_equal(h->source.ss_family, AF_INET6);
        assert_int_equal(h->source_len, sizeof(*sin6));
        at = &sin6->sin6_addr;
        port = ntohs(sin6->sin6_port);
    }
    inet_ntop(h->source.ss_family, at, ip, sizeof(ip));
    snprintf(out, n, "%s %u", ip, port);
}

/* Understood as `source` (NULL: local) at its whole length, with and without bytes behind it, and
 * at no cut before. */
static void good(struct view in, const char *source)
{
    struct str s = STR_INIT;
    struct proxy_header h;
    char text[80];

    for (size_t n = 0; n < in.n; n++)
        if (parse(view_of(in.p, n), &h) != PROXY_HEADER_MORE)
            fail_msg("cut at %zu of %zu", n, in.n);
    str_addv(&s, in);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(parse(str_view(&s), &h), PROXY_HEADER_OK);
        assert_int_equal(h.length, in.n);
        assert_int_equal(h.local, source == NULL);
        if (source) {
            source_text(&h, text, sizeof(text));
            assert_string_equal(text, source);
        }
        str_adds(&s, "PROXY the client's bytes\r\n");
    }
    str_fini(&s);
}

static void bad(struct view in)
{
    struct proxy_header h;

    if (parse(in, &h) != PROXY_HEADER_BAD)
        fail_msg("not refused: %.*s", (int)in.n, in.p);
}

static void more(struct view in)
{
    struct proxy_header h;

    assert_int_equal(parse(in, &h), PROXY_HEADER_MORE);
}

static void lines_are_understood(void **state)
{
    (void)state;
    good(VIEW_LIT("PROXY TCP4 192.0.2.1 198.51.100.2 51000 443\r\n"), "192.0.2.1 51000");
    good(VIEW_LIT("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n"), "0.0.0.0 0");
    good(VIEW_LIT("PROXY TCP6 2001:db8::1 2001:db8::2 51000 443\r\n"), "2001:db8::1 51000");
    good(VIEW_LIT("PROXY TCP6 ::ffff:10.0.0.1 ::1 1 2\r\n"), "10.0.0.1 1");
    good(VIEW_LIT("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535");
    good(VIEW_LIT("PROXY UNKNOWN\r\n"), NULL);
    good(VIEW_LIT("PROXY UNKNOWN ffff:f... whatever 1 2\r\n"), NULL);
}

static void odd_lines_are_refused(void **state)
{
    static const char *const lines[] = {
        "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2\r\n",
        "PROXY TCP4 192.0.2.1  1 2\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1x 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 000001 2\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY \r\n",
        "PROXY TCP4\t192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXX",
        "GET / HTTP/1.1\r\n",
        "\r\n\r\nx",
        "\x16\x03\x01",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        bad(view_str(lines[i]));
    bad(VIEW_LIT("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\0\r\n"));
}

static void a_line_has_an_end(void **state)
{
    char line[200];

    (void)state;
    memset(line, 'x', sizeof(line));
    memcpy(line, "PROXY UNKNOWN ", 14);
    more(view_of(line, 106));
    bad(view_of(line, 107));
    memcpy(line + 105, "\r\n", 2);
    good(view_of(line, 107), NULL);
    line[105] = 'x';
    memcpy(line + 106, "\r\n", 2);
    bad(view_of(line, 107));
    bad(view_of(line, 108));
}

/* --- version 2 --- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void v2(struct str *s, int command, int family, struct view block)
{
    char rest[4] = {(char)command, (char)family, (char)(block.n >> 8), (char)block.n};

    s->n = 0;
    str_addv(s, VIEW_LIT(SIGNATURE));
    str_add(s, rest, 4);
    str_addv(s, block);
}

#define V4_BLOCK  "\xc0\0\x02\x01\xc6\x33\x64\x02\xc7\x38\x01\xbb"
#define V6_REST   "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\xc7\x38\x01\xbb"
#define V6_BLOCK  "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01" V6_REST
#define V46_BLOCK "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\x01" V6_REST

static void good2(int command, int family, struct view block, const char *source)
{
    struct str s = STR_INIT;

    v2(&s, command, family, block);
    good(str_view(&s), source);
    str_fini(&s);
}

static void bad2(int command, int family, struct view block)
{
    struct str s = STR_INIT;

    v2(&s, command, family, block);
    bad(str_view(&s));
    str_fini(&s);
}

static void binary_headers_are_understood(void **state)
{
    char unix_block[216] = "/run/x";

    (void)state;
    good2(0x21, 0x11, VIEW_LIT(V4_BLOCK), "192.0.2.1 51000");
    good2(0x21, 0x21, VIEW_LIT(V6_BLOCK), "2001:db8::1 51000");
    good2(0x21, 0x21, VIEW_LIT(V46_BLOCK), "10.0.0.1 51000");
    good2(0x21, 0x31, view_of(unix_block, 216), NULL);
    good2(0x21, 0x00, VIEW_NONE, NULL);
    good2(0x21, 0x00, VIEW_LIT("whatever"), NULL);
    good2(0x20, 0x00, VIEW_NONE, NULL);
    good2(0x20, 0x11, VIEW_LIT(V4_BLOCK), NULL);
    good2(0x20, 0x77, VIEW_LIT("x"), NULL); /* a local one's family is to be ignored */
    good2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x01\0\x02h2\xe0\0\0"), "192.0.2.1 51000");
}

static void odd_binary_headers_are_refused(void **state)
{
    char unix_block[216] = "/run/x";
    static char large[2049];

    (void)state;
    bad2(0x11, 0x11, VIEW_LIT(V4_BLOCK)); /* version 1 in binary, version 3, another command */
    bad2(0x31, 0x11, VIEW_LIT(V4_BLOCK));
    bad2(0x22, 0x11, VIEW_LIT(V4_BLOCK));
    bad2(0x21, 0x10, VIEW_LIT(V4_BLOCK));
    bad2(0x21, 0x12, VIEW_LIT(V4_BLOCK)); /* datagrams */
    bad2(0x21, 0x22, VIEW_LIT(V6_BLOCK));
    bad2(0x21, 0x41, VIEW_LIT(V4_BLOCK));
    bad2(0x21, 0x32, view_of(unix_block, 216));
    bad2(0x21, 0x11, view_of(V4_BLOCK, 11)); /* too short for their family */
    bad2(0x21, 0x21, view_of(V6_BLOCK, 35));
    bad2(0x21, 0x31, view_of(unix_block, 215));
    bad2(0x20, 0x00, view_of(large, 2049));
    good2(0x20, 0x00, view_of(large, 2048), NULL);
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x01"));
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x01\0"));
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x01\0\x03h2"));
}

#define CRC_ALONE "\x9b\xb9\xb1\x02"
#define CRC_AMONG "\xe5\xed\x99\x78"

/* The sums were made with another implementation (Python, table-driven). */
static void sums_are_checked(void **state)
{
    struct str s = STR_INIT;

    (void)state;
    v2(&s, 0x21, 0x11, VIEW_LIT(V4_BLOCK "\x03\0\x04" CRC_ALONE));
    good(str_view(&s), "192.0.2.1 51000");
    for (size_t bit = 0; bit < s.n * 8; bit++) { /* nothing may be changed unnoticed */
        struct proxy_header h;

        if (bit / 8 == 12 || bit / 8 == 28) /* a local header, or without a sum then */
            continue;
        s.p[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_not_equal(parse(str_view(&s), &h), PROXY_HEADER_OK);
        s.p[bit / 8] ^= (char)(1 << bit % 8);
    }
    good2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x01\0\x02h2\x03\0\x04" CRC_AMONG "\x04\0\x01\0"),
          "192.0.2.1 51000");
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x03\0\x03xyz"));
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x03\0\0"));
    bad2(0x21, 0x11, VIEW_LIT(V4_BLOCK "\x03\0\x04\0\0\0\0"));
    str_fini(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_understood),
        cmocka_unit_test(odd_lines_are_refused),
        cmocka_unit_test(a_line_has_an_end),
        cmocka_unit_test(binary_headers_are_understood),
        cmocka_unit_test(odd_binary_headers_are_refused),
        cmocka_unit_test(sums_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
