/* Credentials: numbers, what is proven, which one may take another's place, and being forgotten. */
#include "logs/cred.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define HOUR (3600 * NS_PER_SEC)

static struct creds *c;
static bool fresh;
static char root[64];

static int make(void **state)
{
    c = creds_new();
    return 0;
}

static int drop(void **state)
{
    creds_free(&c);
    return 0;
}

static uint32_t intern(const char *account, const char *value, int64_t now)
{
    return cred_intern(c, view_str(account), CRED_TOKEN_HEADER, view_str(value), now, &fresh);
}

static void assert_applied(uint32_t id, const char *field, const char *query)
{
    struct str f = STR_INIT, q = STR_INIT;

    cred_apply(c, id, &f, &q);
    assert_string_equal(str_c(&f), field);
    assert_string_equal(str_c(&q), query);
    str_fini(&f);
    str_fini(&q);
}

static void sweep(int64_t now, bool news)
{
    struct spool_txn *t = spool_txn_new();

    creds_sweep(c, now, t);
    assert_int_equal(spool_txn_empty(t), !news);
    spool_txn_free(&t);
}

static void test_one_number_for_each(void **state)
{
    uint32_t a = intern("acct", "one", 1), b;

    assert_int_not_equal(a, 0);
    assert_true(fresh);
    assert_int_equal(intern("acct", "one", 2), a);
    assert_true(fresh); /* until it is stored */
    cred_stored(c, a);
    assert_int_equal(intern("acct", "one", 3), a);
    assert_false(fresh);
    b = intern("other", "one", 4);
    assert_int_not_equal(b, a);
    assert_int_not_equal(cred_intern(c, VIEW_LIT("acct"), CRED_API_KEY, VIEW_LIT("one"), 5, &fresh),
                         a);
    assert_applied(a, "X-Harness-Token: one", "");
    assert_applied(cred_intern(c, VIEW_LIT("acct"), CRED_API_KEY, VIEW_LIT("k"), 5, &fresh),
                   "x-api-key: k", "");
    assert_applied(cred_intern(c, VIEW_LIT("acct"), CRED_TOKEN_QUERY, VIEW_LIT("q%20"), 5, &fresh),
                   "", "&X-Harness-Token=q%20");
    assert_applied(0, "", "");
    assert_applied(99, "", "");
}

static void test_proven_for_ten_minutes(void **state)
{
    uint32_t a = intern("acct", "one", 1);

    assert_false(cred_is_proven(c, a, 1));
    assert_false(cred_known_good(c, a));
    assert_true(cred_proven(c, a, NS_PER_SEC));
    assert_false(cred_proven(c, a, NS_PER_SEC));
    assert_true(cred_is_proven(c, a, 600 * NS_PER_SEC));
    assert_false(cred_is_proven(c, a, 602 * NS_PER_SEC));
    assert_true(cred_known_good(c, a));
    cred_refused(c, a, 3 * NS_PER_SEC);
    assert_false(cred_is_proven(c, a, 4 * NS_PER_SEC));
    assert_false(cred_known_good(c, a));
    assert_int_equal(creds_refused_count(c), 1);
}

static void test_an_expired_one_is_replaced(void **state)
{
    uint32_t old = intern("acct", "old", 1), stranger = intern("other", "x", 1),
             never = intern("acct", "never", 1);
    uint32_t newer, newest;

    cred_proven(c, old, 10);
    cred_proven(c, stranger, 20);
    assert_int_equal(cred_usable(c, old), old);
    cred_refused(c, old, 30);
    assert_int_equal(cred_usable(c, old), 0); /* another account's is none of ours */
    newer = intern("acct", "newer", 1);
    newest = intern("acct", "newest", 1);
    cred_proven(c, newest, 50);
    cred_proven(c, newer, 40);
    assert_int_equal(cred_usable(c, old), newest);
    assert_int_equal(cred_for(c, old, VIEW_LIT("acct")), newest);
    assert_int_equal(cred_for(c, newer, VIEW_LIT("acct")), newer);
    assert_int_equal(cred_for(c, 4711, VIEW_LIT("acct")), newest); /* forgotten */
    assert_int_equal(cred_for(c, 4711, VIEW_LIT("third")), 4711);
    cred_refused(c, never, 60); /* never proven: a wrong token must not borrow a good one */
    assert_int_equal(cred_usable(c, never), 0);
}

static void test_what_is_not_used_is_forgotten(void **state)
{
    uint32_t passing = intern("a", "passing", 0), unproven = intern("a", "unproven", 0);
    uint32_t proven = intern("a", "proven", 0), in_use = intern("a", "in use", 0);
    int64_t now;

    cred_stored(c, unproven);
    cred_stored(c, proven);
    cred_stored(c, in_use);
    cred_proven(c, proven, 1);
    sweep(30 * NS_PER_SEC, false);
    assert_int_equal(creds_count(c), 4);
    for (now = 0; now < 2 * HOUR; now += CREDS_TOUCH_NS) {
        cred_touch(c, in_use, now);
        sweep(now, now > HOUR && now <= HOUR + CREDS_TOUCH_NS);
    }
    assert_int_equal(creds_count(c), 2);
    assert_applied(passing, "", "");
    assert_applied(unproven, "", "");
    assert_applied(proven, "X-Harness-Token: proven", "");
    assert_applied(in_use, "X-Harness-Token: in use", "");
    cred_touch(c, in_use, 49 * HOUR);
    sweep(49 * HOUR, true);
    assert_int_equal(creds_count(c), 1);
    assert_true(intern("a", "again", 49 * HOUR) > in_use); /* numbers are not given out again */
}

/* The places in our own heap where `word` stands. */
static int in_memory(const char *word)
{
    static char data[64 << 20];
    FILE *maps = fopen("/proc/self/maps", "r"), *mem = fopen("/proc/self/mem", "r");
    unsigned long start, end;
    char line[512];
    size_t n, at;
    int found = 0;

    assert_non_null(maps);
    assert_non_null(mem);
    setvbuf(mem, NULL, _IONBF, 0); /* its buffer would be one more place */
    while (fgets(line, sizeof(line), maps)) {
        if (!strstr(line, "[heap]") || sscanf(line, "%lx-%lx", &start, &end) != 2)
            continue;
        assert_int_equal(fseek(mem, (long)start, SEEK_SET), 0);
        n = fread(data, 1, TR_MIN((size_t)(end - start), sizeof(data)), mem);
        for (at = 0; at + strlen(word) <= n; at++)
            found += memcmp(data + at, word, strlen(word)) == 0;
    }
    fclose(mem);
    fclose(maps);
    return found;
}

static bool is_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true; /* its allocator has no [heap], and keeps what is freed for a while */
#else
    return false;
#endif
}

static void test_what_is_forgotten_is_wiped(void **state)
{
    struct spool_txn *t;
    uint32_t id;

    if (is_sanitized())
        skip();
    t = spool_txn_new();
    id = intern("acct", "a-token-that-nobody-knows", 0);
    cred_store(c, id, t);
    cred_stored(c, id);
    assert_true(in_memory("a-token-that-nobody-knows") >= 2); /* in the table, on its way out */
    spool_txn_free(&t);
    assert_int_equal(in_memory("a-token-that-nobody-knows"), 1);
    sweep(2 * HOUR, true);
    assert_int_equal(in_memory("a-token-that-nobody-knows"), 0);
}

static void test_the_table_is_bounded(void **state)
{
    int64_t now = HOUR;
    uint32_t good = intern("a", "good", now), id;
    char text[32];
    int i;

    cred_stored(c, good);
    for (i = 0; i < 150000; i++) {
        snprintf(text, sizeof(text), "invented-%d", i);
        id = intern("a", text, now);
        if (!id)
            break;
    }
    assert_int_equal(id, 0); /* all came at once: any may still be in use */
    assert_in_range(creds_count(c), 50000, 100000);
    assert_int_equal(intern("a", "good", now), good);
    now += 120 * NS_PER_SEC; /* their requests are over */
    assert_int_not_equal(intern("a", "newcomer", now), 0);
    assert_int_equal(intern("a", "good", now), good);
    assert_in_range(creds_count(c), 50000, 100000);
}

static void test_large_ones_are_bounded_by_bytes(void **state)
{
    static char value[CRED_MAX_SIZE + 1];
    int64_t now = HOUR;
    int i;

    memset(value, 'x', CRED_MAX_SIZE);
    for (i = 0; i < 20000; i++) {
        snprintf(value, 10, "%09u", (unsigned)i % 1000000000u);
        value[9] = 'x';
        if (!intern("a", value, now))
            break;
    }
    assert_in_range(i, 1000, 9000); /* 64 MiB */
}

static struct spool *open_spool(void)
{
    struct spool_opts o = {.directory = root, .limit = 64 << 20};
    struct err e;
    struct spool *spool = spool_open(&o, NULL, &e);

    assert_non_null(spool);
    return spool;
}

static int make_root(void **state)
{
    snprintf(root, sizeof(root), "/tmp/tr-cred-%d", (int)getpid());
    return make(state);
}

static int drop_root(void **state)
{
    char command[96];

    drop(state);
    snprintf(command, sizeof(command), "rm -rf %s", root);
    return system(command);
}

static void test_kept_over_a_restart(void **state)
{
    struct spool *spool = open_spool();
    struct spool_txn *t = spool_txn_new();
    uint32_t a = intern("acct", "kept", 1), b = intern("acct", "swept", 1),
             lost = intern("acct", "lost", 1);
    struct err e;

    assert_int_equal(spool_start(spool, &e), 0);
    cred_proven(c, a, 2);
    cred_store(c, a, t);
    cred_store(c, b, t);
    spool_submit(spool, t, NULL, NULL);
    cred_stored(c, a);
    cred_stored(c, b);
    t = spool_txn_new();
    creds_sweep(c, 2 * HOUR, t);
    spool_submit(spool, t, NULL, NULL);
    spool_close(&spool);
    creds_free(&c);

    spool = open_spool();
    c = creds_new();
    assert_int_equal(creds_recover(c, spool, &e), 0);
    assert_int_equal(creds_count(c), 1);
    assert_true(cred_known_good(c, a));
    assert_int_equal(intern("acct", "kept", 1), a);
    assert_false(fresh);
    assert_int_not_equal(intern("acct", "lost", 1), a);
    assert_true(fresh);
    (void)lost;
    spool_close(&spool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_number_for_each, make, drop),
        cmocka_unit_test_setup_teardown(test_proven_for_ten_minutes, make, drop),
        cmocka_unit_test_setup_teardown(test_an_expired_one_is_replaced, make, drop),
        cmocka_unit_test_setup_teardown(test_what_is_not_used_is_forgotten, make, drop),
        cmocka_unit_test_setup_teardown(test_what_is_forgotten_is_wiped, make, drop),
        cmocka_unit_test_setup_teardown(test_the_table_is_bounded, make, drop),
        cmocka_unit_test_setup_teardown(test_large_ones_are_bounded_by_bytes, make, drop),
        cmocka_unit_test_setup_teardown(test_kept_over_a_restart, make_root, drop_root),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
