#include "codec/client_hello.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include "base/str.h"

#include "hellos.inc"

#define ALPN_BOTH "\x02h2\x08http/1.1"

struct real {
    const char *who;
    struct view bytes;
    const char *name;
    const char *alpn;
    bool tls13;
};

#define BYTES(a)                                                                                   \
    {                                                                                              \
        (const char *)(a), sizeof(a)                                                               \
    }
static const struct real reals[] = {
    {"openssl s_client", BYTES(hello_s_client), "app.harness.io", "", true},
    {"without a name", BYTES(hello_s_client_noname), "", "", true},
    {"TLS 1.2", BYTES(hello_s_client_tls12), "app.harness.io", "\x08http/1.1", false},
    {"curl", BYTES(hello_curl), "storage.googleapis.com", ALPN_BOTH, true},
    {"python", BYTES(hello_python), "app.harness.io", "", true},
    {"python with ALPN", BYTES(hello_python_alpn), "app.harness.io", ALPN_BOTH, true},
    {"java", BYTES(hello_java), "app.harness.io", ALPN_BOTH, true},
    {"go", BYTES(hello_go), "app.harness.io", ALPN_BOTH, true},
};

static void check_real(const struct real *r, const struct client_hello *h)
{
    if (!view_is(h->server_name, r->name))
        fail_msg("%s: name \"%.*s\"", r->who, (int)h->server_name.n, h->server_name.p);
    if (!view_is(h->alpn, r->alpn))
        fail_msg("%s: ALPN of %zu bytes", r->who, h->alpn.n);
    assert_int_equal(h->tls13, r->tls13);
}

static enum client_hello_result parse(struct view in, struct client_hello *h)
{
    char *copy = malloc(in.n ? in.n : 1); /* of just that size, for the sanitizer */
    enum client_hello_result result;

    assert_non_null(copy);
    if (in.n)
        memcpy(copy, in.p, in.n);
    result = client_hello_parse(view_of(copy, in.n), h);
    free(copy);
    return result;
}

static void real_clients_are_understood(void **state)
{
    struct client_hello h;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reals); i++) {
        const struct real *r = &reals[i];

        assert_int_equal(client_hello_parse(r->bytes, &h), CLIENT_HELLO_OK);
        check_real(r, &h);
    }
}

static void every_cut_asks_for_more(void **state)
{
    struct client_hello h;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reals); i++)
        for (size_t n = 0; n < reals[i].bytes.n; n++)
            assert_int_equal(parse(view_of(reals[i].bytes.p, n), &h), CLIENT_HELLO_MORE);
}

static void add_record(struct str *out, struct view content)
{
    char header[5] = {22, 3, 1, (char)(content.n >> 8), (char)content.n};

    str_add(out, header, sizeof(header));
    str_addv(out, content);
}

/* The hello's record, cut into records of at most `piece` bytes, the first of `first`. */
static void recut(struct str *out, struct view hello, size_t first, size_t piece)
{
    struct view body = view_from(hello, 5);

    out->n = 0;
    while (body.n) {
        size_t n = TR_MIN(out->n ? piece : first, body.n);

        add_record(out, view_of(body.p, n));
        body = view_from(body, n);
    }
}

static void records_may_cut_it_anywhere(void **state)
{
    struct str s = STR_INIT;
    struct client_hello h;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reals); i++) {
        for (size_t first = 1; first < reals[i].bytes.n - 5; first++) {
            recut(&s, reals[i].bytes, first, 16384);
            assert_int_equal(client_hello_parse(str_view(&s), &h), CLIENT_HELLO_OK);
            check_real(&reals[i], &h);
        }
        recut(&s, reals[i].bytes, 1, 1);
        assert_int_equal(client_hello_parse(str_view(&s), &h), CLIENT_HELLO_OK);
        check_real(&reals[i], &h);
        for (size_t n = 0; n < s.n; n++)
            assert_int_equal(parse(view_of(s.p, n), &h), CLIENT_HELLO_MORE);
    }
    str_fini(&s);
}

static void what_follows_does_not_matter(void **state)
{
    struct str s = STR_INIT;
    struct client_hello h;

    (void)state;
    str_addv(&s, reals[0].bytes);
    str_adds(&s, "early data, or whatever it is");
    assert_int_equal(client_hello_parse(str_view(&s), &h), CLIENT_HELLO_OK);
    assert_true(view_is(h.server_name, "app.harness.io"));
    str_fini(&s);
}

/* --- hellos made here --- */

static void put16(struct str *s, size_t x)
{
    char b[2] = {(char)(x >> 8), (char)x};

    str_add(s, b, 2);
}

static void add_ext(struct str *exts, unsigned type, struct view content)
{
    put16(exts, type);
    put16(exts, content.n);
    str_addv(exts, content);
}

static void add_name(struct str *exts, struct view name)
{
    struct str s = STR_INIT;

    put16(&s, name.n + 3);
    str_add(&s, "\0", 1);
    put16(&s, name.n);
    str_addv(&s, name);
    add_ext(exts, 0, str_view(&s));
    str_fini(&s);
}

/* One record with a hello of these extensions (NULL: without the field); ciphers with GREASE. */
static void make(struct str *out, const struct str *exts)
{
    struct str s = STR_INIT, m = STR_INIT;
    size_t n;

    str_add(&s, "\x03\x03", 2);
    for (int i = 0; i < 32; i++)
        str_add(&s, "r", 1);
    str_add(&s, "\0\0\x06\x3a\x3a\x13\x01\xc0\x2f\x01\0", 11);
    if (exts) {
        put16(&s, exts->n);
        str_addv(&s, str_view(exts));
    }
    n = s.n;
    str_add(&m, (char[4]){1, 0, (char)(n >> 8), (char)n}, 4);
    str_addv(&m, str_view(&s));
    out->n = 0;
    for (struct view left = str_view(&m); left.n; left = view_from(left, TR_MIN(left.n, 16384u)))
        add_record(out, view_of(left.p, TR_MIN(left.n, 16384u)));
    str_fini(&s);
    str_fini(&m);
}

static enum client_hello_result made(const struct str *exts, struct client_hello *h)
{
    static struct str out = STR_INIT; /* the name points into it */

    str_fini(&out);
    make(&out, exts);
    return client_hello_parse(str_view(&out), h);
}

static void grease_and_encrypted_hello_pass(void **state)
{
    struct str exts = STR_INIT;
    struct client_hello h;

    (void)state;
    add_ext(&exts, 0x4a4a, VIEW_NONE);
    add_ext(&exts, 0xfe0d, VIEW_LIT("\0\0\x01\0\x01\x55\0\x02xx\0\x03yyy"));
    add_name(&exts, VIEW_LIT("outer.example"));
    add_ext(&exts, 43, VIEW_LIT("\x06\xaa\xaa\x03\x04\x03\x03"));
    add_ext(&exts, 0x4a4a, VIEW_LIT("\0"));
    assert_int_equal(made(&exts, &h), CLIENT_HELLO_OK);
    assert_true(view_is(h.server_name, "outer.example"));
    assert_true(h.tls13);
    str_fini(&exts);
}

static void extensions_may_be_missing(void **state)
{
    struct str none = STR_INIT;
    struct client_hello h;

    (void)state;
    assert_int_equal(made(NULL, &h), CLIENT_HELLO_OK);
    assert_int_equal(h.server_name.n + h.alpn.n + h.tls13, 0);
    assert_int_equal(made(&none, &h), CLIENT_HELLO_OK);
    assert_int_equal(h.server_name.n + h.alpn.n + h.tls13, 0);
}

static void named(struct view name, enum client_hello_result want)
{
    struct str exts = STR_INIT;
    struct client_hello h;

    add_name(&exts, name);
    assert_int_equal(made(&exts, &h), want);
    if (want == CLIENT_HELLO_OK)
        assert_true(view_eq(h.server_name, name));
    str_fini(&exts);
}

static void names_are_strict(void **state)
{
    char longest[256];

    (void)state;
    memset(longest, 'a', sizeof(longest));
    named(VIEW_LIT("App_1.Harness-x.io."), CLIENT_HELLO_OK);
    named(VIEW_LIT("192.0.2.1"), CLIENT_HELLO_OK);
    named(view_of(longest, 255), CLIENT_HELLO_OK);
    named(view_of(longest, 256), CLIENT_HELLO_BAD);
    named(VIEW_NONE, CLIENT_HELLO_BAD);
    named(VIEW_LIT("good.example\0.evil.example"), CLIENT_HELLO_BAD);
    named(VIEW_LIT("good.example "), CLIENT_HELLO_BAD);
    named(VIEW_LIT("good.example:22"), CLIENT_HELLO_BAD);
    named(VIEW_LIT("good@example"), CLIENT_HELLO_BAD);
    named(VIEW_LIT("m\xc3\xbcnchen.example"), CLIENT_HELLO_BAD);
    named(VIEW_LIT("*.example"), CLIENT_HELLO_BAD);
    named(VIEW_LIT("a/b"), CLIENT_HELLO_BAD);
}

static void one_ext(unsigned type, struct view content, enum client_hello_result want)
{
    struct str exts = STR_INIT;
    struct client_hello h;

    add_ext(&exts, type, content);
    assert_int_equal(made(&exts, &h), want);
    str_fini(&exts);
}

static void broken_extensions_are_refused(void **state)
{
    struct str exts = STR_INIT;
    struct client_hello h;

    (void)state;
    add_name(&exts, VIEW_LIT("a.example"));
    add_name(&exts, VIEW_LIT("b.example"));
    assert_int_equal(made(&exts, &h), CLIENT_HELLO_BAD); /* the extension twice */
    str_fini(&exts);
    one_ext(0,
            VIEW_LIT("\0\x08\0\0\x01"
                     "a\0\0\x01"
                     "b"),
            CLIENT_HELLO_BAD);                                   /* two names in one */
    one_ext(0, VIEW_LIT("\0\x04\x01\0\x01x"), CLIENT_HELLO_BAD); /* another type */
    one_ext(0, VIEW_LIT("\0\x04\0\0\x02x"), CLIENT_HELLO_BAD);   /* a name beyond the list */
    one_ext(0, VIEW_LIT("\0\x05\0\0\x01x"), CLIENT_HELLO_BAD);   /* a list beyond the end */
    one_ext(0, VIEW_LIT("\0\x04\0\0\x01xy"), CLIENT_HELLO_BAD);  /* bytes behind the list */
    one_ext(0, VIEW_NONE, CLIENT_HELLO_BAD);
    one_ext(16, VIEW_LIT("\0\x03\x02h2"), CLIENT_HELLO_OK);
    one_ext(16, VIEW_LIT("\0\x03\x03h2"), CLIENT_HELLO_BAD);
    one_ext(16, VIEW_LIT("\0\x04\x02h2\0"), CLIENT_HELLO_BAD);
    one_ext(16, VIEW_LIT("\0\0"), CLIENT_HELLO_BAD);
    one_ext(43, VIEW_LIT("\x02\x03\x04"), CLIENT_HELLO_OK);
    one_ext(43, VIEW_LIT("\x01\x03"), CLIENT_HELLO_BAD);
    one_ext(43, VIEW_LIT("\x04\x03\x04"), CLIENT_HELLO_BAD);
    add_ext(&exts, 10, VIEW_LIT("abc"));
    exts.n--; /* an extension beyond the end */
    assert_int_equal(made(&exts, &h), CLIENT_HELLO_BAD);
    str_fini(&exts);
}

static void a_long_list_that_is_cut_is_refused(void **state)
{
    struct str exts = STR_INIT, list = STR_INIT, whole = STR_INIT, cut = STR_INIT;
    struct client_hello h;

    (void)state;
    put16(&list, 300);
    for (int i = 0; i < 100; i++)
        str_add(&list, "\x02h2", 3);
    add_ext(&exts, 16, str_view(&list));
    make(&whole, &exts);
    assert_int_equal(client_hello_parse(str_view(&whole), &h), CLIENT_HELLO_OK);
    assert_int_equal(h.alpn.n, 300);
    recut(&cut, str_view(&whole), 200, 16384);
    assert_int_equal(client_hello_parse(str_view(&cut), &h), CLIENT_HELLO_BAD);
    str_fini(&exts);
    str_fini(&list);
    str_fini(&whole);
    str_fini(&cut);
}

static void result_of(struct view in, enum client_hello_result want)
{
    struct client_hello h;

    assert_int_equal(parse(in, &h), want);
}

static void other_protocols_are_told_apart(void **state)
{
    (void)state;
    result_of(VIEW_NONE, CLIENT_HELLO_MORE);
    result_of(VIEW_LIT("GET / HTTP/1.1\r\n"), CLIENT_HELLO_NOT_TLS);
    result_of(VIEW_LIT("SSH-2.0-x\r\n"), CLIENT_HELLO_NOT_TLS);
    result_of(VIEW_LIT("\x80\x2e\x01\x03\x01"), CLIENT_HELLO_NOT_TLS); /* SSL 2 */
    result_of(VIEW_LIT("\x16\x02"), CLIENT_HELLO_NOT_TLS);
    result_of(VIEW_LIT("\x16\x03"), CLIENT_HELLO_MORE);
    result_of(VIEW_LIT("\x15\x03\x01\0\x02\x02\x28"), CLIENT_HELLO_NOT_TLS); /* an alert */
}

static void broken_records_are_refused(void **state)
{
    struct str s = STR_INIT;

    (void)state;
    result_of(VIEW_LIT("\x16\x03\x01\0\0"), CLIENT_HELLO_BAD);
    result_of(VIEW_LIT("\x16\x03\x01\x40\x01"), CLIENT_HELLO_BAD);
    result_of(VIEW_LIT("\x16\x03\x01\0\x05\x02"), CLIENT_HELLO_BAD);         /* a ServerHello */
    result_of(VIEW_LIT("\x16\x03\x01\0\x05\x01\x01\0\0"), CLIENT_HELLO_BAD); /* 64 KiB */
    recut(&s, reals[0].bytes, 20, 16384);
    s.p[25] = 21; /* an alert in the middle */
    result_of(str_view(&s), CLIENT_HELLO_BAD);
    s.n = 0;
    str_addv(&s, reals[0].bytes);
    s.p[4]++; /* a byte behind the hello, in its record */
    str_add(&s, "x", 1);
    result_of(str_view(&s), CLIENT_HELLO_BAD);
    str_fini(&s);
}

static void nobody_makes_us_wait_for_ever(void **state)
{
    struct str exts = STR_INIT, whole = STR_INIT, cut = STR_INIT;
    static char padding[16000];
    struct client_hello h;

    (void)state;
    add_ext(&exts, 21, view_of(padding, sizeof(padding)));
    assert_int_equal(made(&exts, &h), CLIENT_HELLO_OK);
    make(&whole, &exts);
    recut(&cut, str_view(&whole), 1, 1); /* six bytes for each */
    assert_int_equal(client_hello_parse(view_of(cut.p, CLIENT_HELLO_MAX - 1), &h),
                     CLIENT_HELLO_MORE);
    assert_int_equal(client_hello_parse(view_of(cut.p, CLIENT_HELLO_MAX), &h), CLIENT_HELLO_BAD);
    assert_int_equal(client_hello_parse(str_view(&cut), &h), CLIENT_HELLO_BAD);
    str_fini(&exts);
    str_fini(&whole);
    str_fini(&cut);
}

/* Whatever byte is wrong, the answer is an answer, and what was understood is a name. */
static void any_byte_may_be_wrong(void **state)
{
    struct client_hello h;
    char copy[600];
    struct view in = reals[3].bytes;

    (void)state;
    assert_true(in.n <= sizeof(copy));
    for (size_t i = 0; i < in.n * 8; i++) {
        memcpy(copy, in.p, in.n);
        copy[i / 8] ^= (char)(1 << i % 8);
        if (client_hello_parse(view_of(copy, in.n), &h) == CLIENT_HELLO_OK)
            assert_true(h.server_name.n <= 255);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_clients_are_understood),
        cmocka_unit_test(every_cut_asks_for_more),
        cmocka_unit_test(records_may_cut_it_anywhere),
        cmocka_unit_test(what_follows_does_not_matter),
        cmocka_unit_test(grease_and_encrypted_hello_pass),
        cmocka_unit_test(extensions_may_be_missing),
        cmocka_unit_test(names_are_strict),
        cmocka_unit_test(broken_extensions_are_refused),
        cmocka_unit_test(a_long_list_that_is_cut_is_refused),
        cmocka_unit_test(other_protocols_are_told_apart),
        cmocka_unit_test(broken_records_are_refused),
        cmocka_unit_test(nobody_makes_us_wait_for_ever),
        cmocka_unit_test(any_byte_may_be_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
