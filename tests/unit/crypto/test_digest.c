#include "crypto/digest.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "rt/rng.h"

/* RFC 3720 §B.4 and the usual check value. */
static void crc32c_has_the_published_values(void **state)
{
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];

    (void)state;
    for (int i = 0; i < 32; i++) {
        ones[i] = 0xff;
        up[i] = (uint8_t)i;
        down[i] = (uint8_t)(31 - i);
    }
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(crc32c(0, up, 32), 0x46dd794e);
    assert_int_equal(crc32c(0, down, 32), 0x113fdb5c);
    assert_int_equal(crc32c(0, NULL, 0), 0);
    assert_int_equal(crc32c_portable(0, up, 32), 0x46dd794e);
    assert_int_equal(crc32c_portable(0, "123456789", 9), 0xe3069283);
}

static void crc32c_is_the_same_in_pieces_and_without_instructions(void **state)
{
    uint8_t bytes[1031];
    struct rng rng;
    uint32_t whole;

    (void)state;
    rng_seed(&rng, 7);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)rng_next(&rng);
    whole = crc32c_portable(0, bytes, sizeof(bytes));
    assert_int_equal(crc32c(0, bytes, sizeof(bytes)), whole);
    for (size_t cut = 0; cut <= sizeof(bytes); cut++) {
        uint32_t c = crc32c(0, bytes, cut);

        assert_int_equal(crc32c(c, bytes + cut, sizeof(bytes) - cut), whole);
        assert_int_equal(c, crc32c_portable(0, bytes, cut));
    }
}

static void sha256_has_the_published_value(void **state)
{
    static const uint8_t abc[32] = {0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
                                    0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
                                    0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
                                    0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad};
    uint8_t out[32];

    (void)state;
    sha256("abc", 3, out);
    assert_memory_equal(out, abc, 32);
    sha256(NULL, 0, out);
    assert_int_equal(out[0], 0xe3);
    assert_int_equal(out[31], 0x55);
}

/* RFC 4648 §10. */
static void base64_has_the_published_values(void **state)
{
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct str out = STR_INIT, back = STR_INIT;

        base64_encode(pairs[i][0], strlen(pairs[i][0]), &out);
        assert_string_equal(str_c(&out), pairs[i][1]);
        assert_int_equal(base64_decode(str_view(&out), &back), 0);
        assert_string_equal(str_c(&back), pairs[i][0]);
        str_fini(&out);
        str_fini(&back);
    }
}

static void base64url_round_trips_all_bytes(void **state)
{
    uint8_t all[256];

    (void)state;
    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)(255 - i);
    for (size_t n = 0; n <= sizeof(all); n++) {
        struct str out = STR_INIT, back = STR_INIT;

        base64url_encode(all, n, &out);
        assert_null(memchr(str_c(&out), '+', out.n));
        assert_null(memchr(str_c(&out), '/', out.n));
        assert_null(memchr(str_c(&out), '=', out.n));
        assert_int_equal(base64url_decode(str_view(&out), &back), 0);
        assert_true(view_eq(str_view(&back), view_of(all, n)));
        str_fini(&out);
        str_fini(&back);
    }
}

static void base64_refuses_what_the_encoder_does_not_write(void **state)
{
    static const char *const bad[] = {"A",    "AA",   "AAA",      "A===",   "====",
                                      "AA=A", "Zh==", "Zm9=",     "Zm9v\n", "Zm 9",
                                      "Zm9-", "Zm9_", "Zg==Zg==", "Zg==="};
    static const char *const bad_url[] = {"A", "Zh", "Zm9=", "Zg==", "Zm9+", "Zm9/", "Zm9v\n"};
    struct str out = STR_INIT;

    (void)state;
    str_adds(&out, "kept");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        assert_int_equal(base64_decode(view_str(bad[i]), &out), -1);
    for (size_t i = 0; i < ARRAY_LEN(bad_url); i++)
        assert_int_equal(base64url_decode(view_str(bad_url[i]), &out), -1);
    assert_int_equal(base64_decode(view_of("Zm\0v", 4), &out), -1);
    assert_string_equal(str_c(&out), "kept");
    str_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_has_the_published_values),
        cmocka_unit_test(crc32c_is_the_same_in_pieces_and_without_instructions),
        cmocka_unit_test(sha256_has_the_published_value),
        cmocka_unit_test(base64_has_the_published_values),
        cmocka_unit_test(base64url_round_trips_all_bytes),
        cmocka_unit_test(base64_refuses_what_the_encoder_does_not_write),
    };

    return cmocka_run_group_tests_name("crypto/digest", tests, NULL, NULL);
}
