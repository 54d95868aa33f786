/* Tickets: what is sealed comes out again, nothing else opens, and the key outlives the process. */
#include "logs/ticket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static char path[64];
static struct aead_key key;

static const struct ticket sample = {
    .account = VIEW_LIT("acct"),
    .key = VIEW_LIT("a/b/c d"),
    .prefix = VIEW_LIT("/gateway/log-service"),
    .query = VIEW_LIT("accountID=acct&key=a/b/c%20d"),
    .kind = CRED_API_KEY,
    .secret = VIEW_LIT("pat.acct.secret"),
};

static int make_key(void **state)
{
    struct err e;

    snprintf(path, sizeof(path), "/tmp/tr-ticket-%d.key", (int)getpid());
    unlink(path);
    return ticket_key_load(path, &key, &e);
}

static int drop_key(void **state)
{
    return unlink(path);
}

static void assert_view(struct view got, struct view want)
{
    assert_int_equal(got.n, want.n);
    assert_memory_equal(got.p, want.p, want.n);
}

static void test_what_is_sealed_comes_out(void **state)
{
    struct str text = STR_INIT, plain = STR_INIT;
    struct ticket t;
    size_t i;

    ticket_seal(&key, &sample, &text);
    for (i = 0; i < text.n; i++)
        assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", text.p[i]));
    assert_null(memmem(text.p, text.n, "secret", 6));
    assert_int_equal(ticket_open(&key, str_view(&text), &plain, &t), 0);
    assert_view(t.account, sample.account);
    assert_view(t.key, sample.key);
    assert_view(t.prefix, sample.prefix);
    assert_view(t.query, sample.query);
    assert_view(t.secret, sample.secret);
    assert_int_equal(t.kind, sample.kind);
    str_fini(&text);
    str_fini(&plain);
}

static void assert_closed(const struct aead_key *k, struct view text)
{
    struct str plain = STR_INIT;
    struct ticket t;

    assert_int_equal(ticket_open(k, text, &plain, &t), -1);
    str_fini(&plain);
}

static void test_nothing_else_opens(void **state)
{
    struct aead_key other = key;
    struct str text = STR_INIT, more = STR_INIT;
    size_t i;

    ticket_seal(&key, &sample, &text);
    other.bytes[0] ^= 1;
    assert_closed(&other, str_view(&text));
    for (i = 0; i < text.n; i++) {
        char was = text.p[i];

        text.p[i] = was == 'A' ? 'B' : 'A';
        if (i + 1 < text.n) /* the last character may have bits that mean nothing */
            assert_closed(&key, str_view(&text));
        text.p[i] = was;
        assert_closed(&key, view_of(text.p, i));
    }
    str_addv(&more, str_view(&text));
    while (more.n <= TICKET_MAX)
        str_addc(&more, 'A');
    assert_closed(&key, str_view(&more));
    assert_closed(&key, VIEW_LIT(""));
    assert_closed(&key, VIEW_LIT("not base64!"));
    str_fini(&text);
    str_fini(&more);
}

static void test_the_key_is_kept_and_private(void **state)
{
    struct aead_key again;
    struct stat st;
    struct err e;

    assert_int_equal(ticket_key_load(path, &again, &e), 0);
    assert_memory_equal(again.bytes, key.bytes, sizeof(key.bytes));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_a_key_of_another_size_is_refused(void **state)
{
    struct aead_key again;
    struct err e;

    assert_int_equal(truncate(path, 7), 0);
    assert_int_equal(ticket_key_load(path, &again, &e), -1);
    assert_int_equal(e.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_is_sealed_comes_out, make_key, drop_key),
        cmocka_unit_test_setup_teardown(test_nothing_else_opens, make_key, drop_key),
        cmocka_unit_test_setup_teardown(test_the_key_is_kept_and_private, make_key, drop_key),
        cmocka_unit_test_setup_teardown(test_a_key_of_another_size_is_refused, make_key, drop_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
