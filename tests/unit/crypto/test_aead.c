#include "crypto/aead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static const struct aead_key key = {{1, 2, 3}};
static const struct aead_key other_key = {{1, 2, 4}};

static void what_is_sealed_opens(void **state)
{
    static const char text[] = "attack at dawn";

    (void)state;
    for (size_t n = 0; n < sizeof(text); n++) {
        struct str sealed = STR_INIT, plain = STR_INIT;

        str_adds(&sealed, "head");
        str_adds(&plain, "head");
        aead_seal(&key, VIEW_LIT("aad"), view_of(text, n), &sealed);
        assert_int_equal(sealed.n, 4 + n + AEAD_OVERHEAD);
        assert_int_equal(aead_open(&key, VIEW_LIT("aad"), view_from(str_view(&sealed), 4), &plain),
                         0);
        assert_int_equal(plain.n, 4 + n);
        assert_memory_equal(plain.p + 4, text, n);
        assert_int_equal(plain.p[plain.n], '\0');
        str_fini(&sealed);
        str_fini(&plain);
    }
}

static void a_changed_bit_anywhere_is_noticed(void **state)
{
    struct str sealed = STR_INIT, plain = STR_INIT;

    (void)state;
    str_adds(&plain, "kept");
    aead_seal(&key, VIEW_NONE, VIEW_LIT("secret"), &sealed);
    for (size_t bit = 0; bit < sealed.n * 8; bit++) {
        sealed.p[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(aead_open(&key, VIEW_NONE, str_view(&sealed), &plain), -1);
        sealed.p[bit / 8] ^= (char)(1 << bit % 8);
    }
    for (size_t n = 0; n < sealed.n; n++)
        assert_int_equal(aead_open(&key, VIEW_NONE, view_of(sealed.p, n), &plain), -1);
    assert_string_equal(str_c(&plain), "kept");
    assert_int_equal(aead_open(&key, VIEW_NONE, str_view(&sealed), &plain), 0);
    assert_string_equal(str_c(&plain), "keptsecret");
    str_fini(&sealed);
    str_fini(&plain);
}

static void key_and_aad_must_be_the_same(void **state)
{
    struct str sealed = STR_INIT, plain = STR_INIT;

    (void)state;
    aead_seal(&key, VIEW_LIT("a"), VIEW_LIT("secret"), &sealed);
    assert_int_equal(aead_open(&other_key, VIEW_LIT("a"), str_view(&sealed), &plain), -1);
    assert_int_equal(aead_open(&key, VIEW_LIT("b"), str_view(&sealed), &plain), -1);
    assert_int_equal(aead_open(&key, VIEW_NONE, str_view(&sealed), &plain), -1);
    assert_int_equal(plain.n, 0);
    assert_int_equal(aead_open(&key, VIEW_LIT("a"), str_view(&sealed), &plain), 0);
    str_fini(&sealed);
    str_fini(&plain);
}

static void nonces_differ(void **state)
{
    struct str a = STR_INIT, b = STR_INIT;

    (void)state;
    aead_seal(&key, VIEW_NONE, VIEW_LIT("same"), &a);
    aead_seal(&key, VIEW_NONE, VIEW_LIT("same"), &b);
    assert_memory_not_equal(a.p, b.p, AEAD_NONCE_SIZE);
    str_fini(&a);
    str_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_opens),
        cmocka_unit_test(a_changed_bit_anywhere_is_noticed),
        cmocka_unit_test(key_and_aad_must_be_the_same),
        cmocka_unit_test(nonces_differ),
    };

    return cmocka_run_group_tests_name("crypto/aead", tests, NULL, NULL);
}
