/*
 * Arrays of log lines.
 *
 * Oracle: the walk finds as many elements as were counted; elements taken apart and put together
 * again, and two arrays made one, are accepted with the same numbers; bytes behind the array do not
 * matter.
 */
#include "fuzz/target.h"

#include "codec/lines.h"

static void check_same(struct view text, uint64_t count, const struct lines_info *want)
{
    struct lines_info got;

    ASSERT(lines_scan(text, &got, NULL) == 0);
    ASSERT(got.count == count);
    ASSERT(got.pos_min == want->pos_min && got.pos_max == want->pos_max);
}

static void check_walk(const struct lines_info *info)
{
    struct view rest = info->inner, element;
    struct str again = STR_INIT;
    uint64_t n = 0;

    str_addc(&again, '[');
    while (lines_next(&rest, &element)) {
        struct lines_info one;
        struct str alone = STR_INIT;

        ASSERT(element.n > 0);
        str_addc(&alone, '[');
        str_addv(&alone, element);
        str_addc(&alone, ']');
        ASSERT(lines_scan(str_view(&alone), &one, NULL) == 0 && one.count == 1);
        ASSERT(view_eq(one.inner, element));
        str_fini(&alone);
        if (n++)
            str_addc(&again, ',');
        str_addv(&again, element);
    }
    ASSERT(rest.n == 0 && n == info->count);
    str_addc(&again, ']');
    check_same(str_view(&again), n, info);
    str_fini(&again);
}

static void check_splice(const struct lines_info *info)
{
    struct str twice = STR_INIT;

    str_addc(&twice, '[');
    str_addv(&twice, info->inner);
    if (info->count)
        str_addc(&twice, ',');
    str_addv(&twice, info->inner);
    str_adds(&twice, "]}{\"");
    check_same(str_view(&twice), info->count * 2, info);
    str_fini(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    struct lines_info info;
    struct err e = {ERR_NONE, ""};

    if (lines_scan(in, &info, &e) != 0) {
        ASSERT(e.code == ERR_INVALID || e.code == ERR_LIMIT);
        ASSERT(strstr(e.text, " at byte ") != NULL);
        return 0;
    }
    ASSERT(info.inner.p >= in.p && info.inner.p + info.inner.n <= in.p + in.n);
    ASSERT(info.pos_min <= info.pos_max);
    ASSERT((info.count == 0) == (info.inner.n == 0));
    check_walk(&info);
    check_splice(&info);
    return 0;
}
