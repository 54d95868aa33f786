#include "codec/zcodec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <pthread.h>
#include <cmocka.h>
#include <zlib.h>
#include <zstd.h>
#include "base/bug.h"
#include "base/xmem.h"

static const enum zcoding all[] = {Z_IDENTITY, Z_GZIP, Z_ZSTD};

/* Text that packs somewhat, the same each time. */
static void add_text(struct str *s, size_t n, uint32_t seed)
{
    while (s->n < n) {
        seed = seed * 1664525 + 1013904223;
        str_addf(s, "%s %u\n", seed & 0x10000 ? "+ make test" : "[INFO] built target", seed >> 20);
    }
    s->n = n;
    s->p[n] = '\0';
}

static void add_noise(struct str *s, size_t n)
{
    uint32_t x = 1;

    while (n--) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        str_addc(s, (char)(x >> 11));
    }
}

static void encode(enum zcoding c, int level, struct view in, size_t piece, struct str *out)
{
    struct zencoder *z = zencoder_new(c, level);

    while (in.n > piece) {
        zencoder_feed(z, view_of(in.p, piece), false, out);
        in = view_from(in, piece);
    }
    zencoder_feed(z, in, true, out);
    zencoder_free(&z);
    assert_null(z);
    zencoder_free(&z);
}

/* What zdecoder_feed last said, the input given in pieces and the output taken in pieces. */
static int decode(struct zdecoder *d, struct view in, size_t piece, size_t max_piece,
                  struct str *out, struct err *e)
{
    int r = 0;

    do {
        size_t n = TR_MIN(piece, in.n);
        struct view part = view_of(in.p, n);

        in = view_from(in, n);
        do {
            size_t before = out->n;

            r = zdecoder_feed(d, part, max_piece, out, e);
            assert_true(max_piece == 0 || out->n - before <= max_piece);
            part = VIEW_NONE;
        } while (r == 1);
    } while (r == 0 && in.n);
    return r;
}

static void test_names(void **state)
{
    static const struct {
        const char *name;
        int want; /* -1: refused */
    } rows[] = {
        {"", Z_IDENTITY},   {"identity", Z_IDENTITY},
        {"gzip", Z_GZIP},   {"GZip", Z_GZIP},
        {"x-gzip", Z_GZIP}, {"zstd", Z_ZSTD},
        {"br", -1},         {"deflate", -1},
        {"gzip, zstd", -1}, {"gzip ", -1},
        {"*", -1},          {"gzi", -1},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        enum zcoding c = Z_ZSTD;

        assert_int_equal(zcoding_parse(view_str(rows[i].name), &c), rows[i].want < 0 ? -1 : 0);
        if (rows[i].want >= 0)
            assert_int_equal(c, rows[i].want);
    }
    assert_string_equal(zcoding_name(Z_IDENTITY), "identity");
    assert_string_equal(zcoding_name(Z_GZIP), "gzip");
    assert_string_equal(zcoding_name(Z_ZSTD), "zstd");
}

static void test_round_trips(void **state)
{
    static const size_t sizes[] = {0, 1, 100, 32768, 32769, 300000};
    static const size_t pieces[] = {1, 7, 4096, SIZE_MAX};
    size_t c, i, k;

    for (c = 0; c < ARRAY_LEN(all); c++)
        for (i = 0; i < ARRAY_LEN(sizes); i++)
            for (k = 0; k < ARRAY_LEN(pieces); k++) {
                struct str plain = STR_INIT, coded = STR_INIT, back = STR_INIT;
                struct zdecoder *d = zdecoder_new(all[c], sizes[i]);
                struct err e = {ERR_NONE, ""};

                add_text(&plain, sizes[i] ? sizes[i] : 1, 1);
                plain.n = sizes[i];
                encode(all[c], 3, str_view(&plain), pieces[k], &coded);
                if (all[c] != Z_IDENTITY && sizes[i] > 1000)
                    assert_true(coded.n < plain.n / 3);
                assert_true(zdecoder_complete(d) == (all[c] == Z_IDENTITY));
                assert_int_equal(decode(d, str_view(&coded), pieces[k],
                                        pieces[(k + 1) % 4] == 1 ? 50 : pieces[(k + 1) % 4], &back,
                                        &e),
                                 0);
                assert_true(zdecoder_complete(d));
                assert_true(view_eq(str_view(&back), str_view(&plain)));
                zdecoder_free(&d);
                assert_null(d);
                str_fini(&plain);
                str_fini(&coded);
                str_fini(&back);
            }
}

/* Others can read what we write. */
static void test_gzip_is_gzip(void **state)
{
    struct str plain = STR_INIT, coded = STR_INIT;
    unsigned char back[1000];
    z_stream z = {.next_in = NULL};

    add_text(&plain, 1000, 2);
    encode(Z_GZIP, 9, str_view(&plain), 100, &coded);
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_in = (Bytef *)coded.p;
    z.avail_in = (uInt)coded.n;
    z.next_out = back;
    z.avail_out = sizeof(back);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_memory_equal(back, plain.p, 1000);
    inflateEnd(&z);
    str_fini(&plain);
    str_fini(&coded);
}

/* A little that becomes much: it ends at the limit, and no more memory is used than that. */
static void test_bombs(void **state)
{
    enum { SIZE = 20 * 1024 * 1024, LIMIT = 100000 };
    size_t c;

    for (c = 1; c < ARRAY_LEN(all); c++) {
        struct str plain = STR_INIT, bomb = STR_INIT, out = STR_INIT;
        struct zdecoder *d = zdecoder_new(all[c], LIMIT);
        struct err e = {ERR_NONE, ""};

        str_reserve(&plain, SIZE);
        memset(plain.p, 0, SIZE);
        plain.n = SIZE;
        encode(all[c], 9, str_view(&plain), SIZE_MAX, &bomb);
        assert_true(bomb.n < SIZE / 500);
        assert_int_equal(zdecoder_feed(d, str_view(&bomb), 0, &out, &e), -1);
        assert_int_equal(e.code, ERR_LIMIT);
        assert_int_equal(out.n, LIMIT);
        assert_true(out.cap <= 4 * LIMIT);
        assert_false(zdecoder_complete(d));
        zdecoder_free(&d);
        str_fini(&plain);
        str_fini(&bomb);
        str_fini(&out);
    }
}

/* The limit itself may come out, one more may not. */
static void test_limit_exactly(void **state)
{
    size_t c, over;

    for (c = 0; c < ARRAY_LEN(all); c++)
        for (over = 0; over < 2; over++) {
            struct str plain = STR_INIT, coded = STR_INIT, out = STR_INIT;
            struct zdecoder *d = zdecoder_new(all[c], 5000);
            struct err e = {ERR_NONE, ""};

            add_text(&plain, 5000 + over, 3);
            encode(all[c], 1, str_view(&plain), SIZE_MAX, &coded);
            assert_int_equal(decode(d, str_view(&coded), 10, 33, &out, &e), over ? -1 : 0);
            assert_int_equal(e.code, over ? ERR_LIMIT : ERR_NONE);
            assert_true(out.n <= 5000);
            zdecoder_free(&d);
            str_fini(&plain);
            str_fini(&coded);
            str_fini(&out);
        }
}

static void test_damage(void **state)
{
    size_t c, i;

    for (c = 1; c < ARRAY_LEN(all); c++) {
        struct str plain = STR_INIT, coded = STR_INIT, out = STR_INIT;

        add_text(&plain, 3000, 4);
        encode(all[c], 6, str_view(&plain), SIZE_MAX, &coded);
        for (i = 0; i < coded.n; i++) {
            struct zdecoder *d = zdecoder_new(all[c], 1 << 20);
            struct err e = {ERR_NONE, ""};
            int r;

            /* Cut: no error, and not complete either. */
            str_clear(&out);
            assert_int_equal(zdecoder_feed(d, view_of(coded.p, i), 0, &out, &e), 0);
            assert_false(zdecoder_complete(d));
            zdecoder_free(&d);

            /* A bit turned over: an error, or at least never other text passed as complete. */
            d = zdecoder_new(all[c], 1 << 20);
            str_clear(&out);
            coded.p[i] ^= 0x10;
            r = zdecoder_feed(d, str_view(&coded), 0, &out, &e);
            coded.p[i] ^= 0x10;
            if (r == 0 && zdecoder_complete(d))
                assert_true(view_eq(str_view(&out), str_view(&plain)));
            zdecoder_free(&d);
        }
        str_fini(&plain);
        str_fini(&coded);
        str_fini(&out);
    }
}

static void test_trailing_bytes(void **state)
{
    size_t c, apart;

    for (c = 1; c < ARRAY_LEN(all); c++)
        for (apart = 0; apart < 2; apart++) {
            struct str coded = STR_INIT, out = STR_INIT;
            struct zdecoder *d = zdecoder_new(all[c], 1000);
            struct err e = {ERR_NONE, ""};

            encode(all[c], 1, VIEW_LIT("hello"), SIZE_MAX, &coded);
            if (!apart)
                str_addc(&coded, 'x');
            assert_int_equal(zdecoder_feed(d, str_view(&coded), 0, &out, &e), apart ? 0 : -1);
            if (apart)
                assert_int_equal(zdecoder_feed(d, VIEW_LIT("x"), 0, &out, &e), -1);
            assert_int_equal(e.code, ERR_INVALID);
            assert_string_equal(str_c(&out), "hello");
            zdecoder_free(&d);
            str_fini(&coded);
            str_fini(&out);
        }
}

/* A frame whose reader would need 128 MiB of memory. */
static void test_large_window(void **state)
{
    static const struct view frame = VIEW_LIT("\x28\xb5\x2f\xfd\x00\x88\x01\x00\x00");
    struct zdecoder *d = zdecoder_new(Z_ZSTD, 1000);
    struct str out = STR_INIT;
    struct err e = {ERR_NONE, ""};

    assert_int_equal(zdecoder_feed(d, frame, 0, &out, &e), -1);
    assert_int_equal(e.code, ERR_LIMIT);
    zdecoder_free(&d);
    str_fini(&out);
}

/* A frame that says it holds a byte, and holds none; an old format; a frame to skip. */
static void test_odd_zstd(void **state)
{
    static const struct view rows[] = {
        VIEW_LIT("\x28\xb5\x2f\xfd\x20\x01\x01\x00\x00"),
        VIEW_LIT("\x26\xb5\x2f\xfd\x00\x00"),
        VIEW_LIT("\x50\x2a\x4d\x18\x00\x00\x00\x00"),
    };
    size_t i, piece;

    for (i = 0; i < ARRAY_LEN(rows); i++)
        for (piece = 1; piece <= rows[i].n; piece++) {
            struct zdecoder *d = zdecoder_new(Z_ZSTD, 1000);
            struct str out = STR_INIT;
            struct err e = {ERR_NONE, ""};

            assert_int_equal(decode(d, rows[i], piece, 0, &out, &e), -1);
            assert_int_equal(e.code, ERR_INVALID);
            zdecoder_free(&d);
            str_fini(&out);
        }
}

/* ---- frames of the spool ---- */

#define LINE(pos, text)                                                                            \
    "{\"level\":\"info\",\"pos\":" pos ",\"out\":\"" text "\\n\","                                 \
    "\"time\":\"2026-08-21T09:56:10.123456789Z\",\"args\":null}"
#define BODY                                                                                       \
    "[" LINE("7", "go: downloading github.com/pkg/errors v0.9.1") "," LINE(                        \
        "8",                                                                                       \
        "[INFO] Compiling 12 source files to /harness/target/classes") "," LINE("9",               \
                                                                                "npm warn "        \
                                                                                "deprecated "      \
                                                                                "rimraf@3.0.2: "   \
                                                                                "no longer "       \
                                                                                "supported") "]\n"

static void check_frame(struct view plain)
{
    struct str frame = STR_INIT, back = STR_INIT;
    struct err e = {ERR_NONE, ""};

    str_adds(&frame, "before");
    zframe_pack(plain, &frame);
    assert_true(frame.n - 6 <= plain.n + ZFRAME_OVERHEAD);
    assert_memory_equal(frame.p, "before", 6);
    str_adds(&back, "front");
    assert_int_equal(zframe_unpack(view_from(str_view(&frame), 6), plain.n, &back, &e), 0);
    assert_int_equal(back.n, plain.n + 5);
    assert_true(view_eq(view_from(str_view(&back), 5), plain));
    if (plain.n) {
        assert_int_equal(zframe_unpack(view_from(str_view(&frame), 6), plain.n - 1, &back, &e), -1);
        assert_int_equal(e.code, ERR_LIMIT);
        assert_int_equal(back.n, plain.n + 5);
    }
    str_fini(&frame);
    str_fini(&back);
}

static void test_frames(void **state)
{
    static const size_t sizes[] = {1, 10, 100, 4096, 70000, 2000000};
    size_t i;

    check_frame(VIEW_NONE);
    check_frame(VIEW_LIT(""));
    check_frame(VIEW_LIT("\0"));
    check_frame(VIEW_LIT(BODY));
    for (i = 0; i < ARRAY_LEN(sizes); i++) {
        struct str s = STR_INIT;

        add_text(&s, sizes[i], (uint32_t)i);
        check_frame(str_view(&s));
        str_clear(&s);
        add_noise(&s, sizes[i]);
        check_frame(str_view(&s));
        str_fini(&s);
    }
}

/* What the dictionary is for: a short body, of which nothing repeats but its shape. */
static void test_dictionary_helps(void **state)
{
    struct view body = VIEW_LIT(BODY);
    struct str frame = STR_INIT;
    char alone[1024];
    size_t without = ZSTD_compress(alone, sizeof(alone), body.p, body.n, 1);

    assert_false(ZSTD_isError(without));
    zframe_pack(body, &frame);
    assert_true(frame.n < body.n / 3);
    assert_true(frame.n < without * 2 / 3);
    str_fini(&frame);
}

/* A frame that an earlier build packed must be read by every later one. */
static void test_old_frame(void **state)
{
    static const unsigned char frame[] = {
#include "zframe_v1.inc"
    };
    struct str back = STR_INIT;

    assert_int_equal(zframe_unpack(view_of(frame, sizeof(frame)), 4096, &back, NULL), 0);
    assert_true(view_is(str_view(&back), BODY));
    str_fini(&back);
}

static void damage_all(struct view plain)
{
    struct str frame = STR_INIT, out = STR_INIT;
    size_t i;
    int bit;

    zframe_pack(plain, &frame);
    for (i = 0; i < frame.n; i++) {
        struct err e = {ERR_NONE, ""};

        assert_int_equal(zframe_unpack(view_of(frame.p, i), 1 << 20, &out, &e), -1);
        assert_int_equal(e.code, ERR_INVALID);
        for (bit = 0; bit < 8; bit++) {
            str_clear(&out);
            frame.p[i] ^= (char)(1 << bit);
            if (zframe_unpack(str_view(&frame), 1 << 20, &out, NULL) == 0)
                assert_true(view_eq(str_view(&out), plain)); /* a bit that means nothing */
            else
                assert_int_equal(out.n, 0);
            frame.p[i] ^= (char)(1 << bit);
        }
    }
    str_add(&frame, "\x50\x2a\x4d\x18\0\0\0\0", 8); /* which zstd would skip */
    assert_int_equal(zframe_unpack(str_view(&frame), 1 << 20, &out, NULL), -1);
    assert_int_equal(out.n, 0);
    str_fini(&frame);
    str_fini(&out);
}

static void test_damaged_frames(void **state)
{
    struct str noise = STR_INIT;

    add_noise(&noise, 200);
    damage_all(VIEW_LIT(BODY));
    damage_all(str_view(&noise));
    str_fini(&noise);
}

/* Frames that zframe_pack never makes. */
static void test_odd_frames(void **state)
{
    static const struct view rows[] = {
        VIEW_LIT(""),
        VIEW_LIT("\x50\x2a\x4d\x18\x00\x00\x00\x00"),     /* skippable */
        VIEW_LIT("\x28\xb5\x2f\xfd\x00\x48\x01\x00\x00"), /* size not said */
        VIEW_LIT("\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x00\x00"),
        VIEW_LIT("\x28\xb5\x2f\xfd\x23\x01\x00\x00\x00\x05\x01\x00\x00"), /* another dictionary */
        VIEW_LIT("\x01hello"),
        VIEW_LIT("\x00\x00\x00\x00"),
    };
    struct str out = STR_INIT;
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(zframe_unpack(rows[i], 1 << 20, &out, NULL), -1);
        assert_int_equal(out.n, 0);
    }
    str_fini(&out);
}

static void *pack_in_thread(void *arg)
{
    int i;

    for (i = 0; i < 100; i++) {
        struct str frame = STR_INIT, back = STR_INIT;

        zframe_pack(VIEW_LIT(BODY), &frame);
        if (zframe_unpack(str_view(&frame), 4096, &back, NULL) != 0 ||
            !view_is(str_view(&back), BODY))
            *(int *)arg = 1;
        str_fini(&frame);
        str_fini(&back);
    }
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[4];
    int bad[4] = {0};
    size_t i;

    for (i = 0; i < ARRAY_LEN(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, pack_in_thread, &bad[i]), 0);
    for (i = 0; i < ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(bad[i], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads), /* first: the dictionary is digested by several at once */
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_gzip_is_gzip),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_limit_exactly),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_trailing_bytes),
        cmocka_unit_test(test_large_window),
        cmocka_unit_test(test_odd_zstd),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_dictionary_helps),
        cmocka_unit_test(test_old_frame),
        cmocka_unit_test(test_damaged_frames),
        cmocka_unit_test(test_odd_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
