/*
 * Basic credentials: the field that a client sends, and the file of users it is looked up in.
 *
 * The first byte says which. Oracle: a field that is taken is "basic", blanks and base64 of what
 * came out (RFC 7617 §2); a file that is taken is taken again, and one with a NUL never is.
 */
#include "fuzz/target.h"

#include <strings.h>
#include "base/err.h"
#include "crypto/digest.h"
#include "http/basic.h"

static void check_field(struct view in)
{
    struct str plain = STR_INIT, coded = STR_INIT, again = STR_INIT;

    if (basic_decode(in, &plain) == 0) {
        ASSERT(strncasecmp(in.p, "basic ", 6) == 0);
        ASSERT(plain.n > 0 && plain.n < in.n);
        ASSERT(memchr(plain.p, ':', plain.n) && !memchr(plain.p, '\0', plain.n));
        str_adds(&coded, "bAsIc ");
        base64_encode(plain.p, plain.n, &coded);
        ASSERT(basic_decode(str_view(&coded), &again) == 0);
        ASSERT(view_eq(str_view(&plain), str_view(&again)));
    }
    str_fini(&plain);
    str_fini(&coded);
    str_fini(&again);
}

static void check_file(struct view in)
{
    struct err e = {0};
    struct basic_users *u = basic_users_parse(in, &e);

    if (u) {
        ASSERT(!memchr(in.p, '\0', in.n) && memchr(in.p, ':', in.n));
        basic_users_free(&u);
        u = basic_users_parse(in, &e);
        ASSERT(u);
    } else {
        ASSERT(e.text[0]);
        /* Nothing of a hash shows up: only our own words do, and the number of a line. */
        ASSERT(!strchr(e.text, '$'));
    }
    basic_users_free(&u);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of((const char *)data, n);

    if (fuzz_byte(&in) & 1)
        check_file(in);
    else
        check_field(in);
    return 0;
}
