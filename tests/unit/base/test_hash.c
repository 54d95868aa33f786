#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

/* SipHash-1-3 of 0, 1, 2... under the key 00 01 .. 0f, worked out with another program,
 * which gives the published value for SipHash-2-4. */
static void test_keyed(void **state)
{
    static const uint64_t want[] = {
        0xabac0158050fc4dcULL, 0xc9f49bf37d57ca93ULL, 0x82cb9b024dc7d44dULL,
        0x8bf80ab8e7ddf7fbULL, 0xcf75576088d38328ULL, 0xdef9d52f49533b67ULL,
        0xc50d2b50c59f22a7ULL, 0xd3927d989bb11140ULL, 0x369095118d299a8eULL,
        0x25a48eb36c063de4ULL, 0x79de85ee92ff097fULL, 0x70c118c1f94dc352ULL,
        0x78a384b157b4d9a2ULL, 0x306f760c1229ffa7ULL, 0x605aa111c0f95d34ULL,
        0xd320d86d2a519956ULL, 0xcc4fdd1a7d908b66ULL, 0x9cf2689063dbd80cULL,
    };
    static const uint64_t key[2] = {0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL};
    unsigned char in[64];
    size_t n;

    (void)state;
    for (n = 0; n < sizeof(want) / sizeof(want[0]); n++) {
        in[n] = (unsigned char)n;
        assert_true(hash_keyed(key, in, n) == want[n]);
    }
}

static void test_process_key(void **state)
{
    (void)state;
    assert_true(hash_bytes("abc", 3) == hash_bytes("abc", 3));
    assert_false(hash_bytes("abc", 3) == hash_bytes("abd", 3));
    assert_false(hash_bytes("", 0) == hash_bytes("\0", 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keyed),
        cmocka_unit_test(test_process_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
