/*
 * Compressed data. The first byte says which coding or what else to do, the second how the input is
 * cut, the third how much may come out.
 *
 * Oracle: no more comes out than may, of one call and in all; how it is cut changes nothing; what
 * was packed unpacks to the same.
 */
#include "fuzz/target.h"

#include "codec/zcodec.h"

static int decode(enum zcoding c, struct view in, size_t step, size_t piece, uint64_t max,
                  struct str *out, bool *complete)
{
    struct zdecoder *d = zdecoder_new(c, max);
    int r = 0;

    do {
        struct view part = view_of(in.p, TR_MIN(step, in.n));

        in = view_from(in, part.n);
        do {
            size_t before = out->n;

            r = zdecoder_feed(d, part, piece, out, NULL);
            ASSERT(piece == 0 || out->n - before <= piece);
            ASSERT(out->n <= max);
            part = VIEW_NONE;
        } while (r == 1);
    } while (r == 0 && in.n);
    *complete = r == 0 && zdecoder_complete(d);
    zdecoder_free(&d);
    return r;
}

static void check_decode(enum zcoding c, struct view in, uint8_t cut, uint8_t limit)
{
    uint64_t max = (uint64_t)limit * limit * 16;
    struct str whole = STR_INIT, pieces = STR_INIT;
    bool done, done2;
    int r = decode(c, in, in.n, 0, max, &whole, &done);
    int r2 = decode(c, in, cut + 1u, cut * 5u, max, &pieces, &done2);

    ASSERT(r == r2 && done == done2);
    if (r == 0)
        ASSERT(view_eq(str_view(&whole), str_view(&pieces)));
    str_fini(&whole);
    str_fini(&pieces);
}

static void check_encode(enum zcoding c, struct view in, uint8_t cut)
{
    struct zencoder *z = zencoder_new(c, 1 + cut % 5);
    struct str coded = STR_INIT, back = STR_INIT;
    struct view rest = in;
    bool done;

    do {
        struct view part = view_of(rest.p, TR_MIN((size_t)cut + 1, rest.n));

        rest = view_from(rest, part.n);
        zencoder_feed(z, part, rest.n == 0, &coded);
    } while (rest.n);
    zencoder_free(&z);
    ASSERT(decode(c, str_view(&coded), cut * 3u + 1, 0, in.n, &back, &done) == 0 && done);
    ASSERT(view_eq(str_view(&back), in));
    str_fini(&coded);
    str_fini(&back);
}

static void check_frame(struct view in)
{
    struct str frame = STR_INIT, back = STR_INIT;

    zframe_pack(in, &frame);
    ASSERT(frame.n <= in.n + ZFRAME_OVERHEAD);
    ASSERT(zframe_unpack(str_view(&frame), in.n, &back, NULL) == 0);
    ASSERT(view_eq(str_view(&back), in));
    str_fini(&frame);
    str_fini(&back);
}

static void check_unpack(struct view in, uint8_t limit)
{
    size_t max = (size_t)limit * 64;
    struct str out = STR_INIT;

    if (zframe_unpack(in, max, &out, NULL) == 0) {
        ASSERT(out.n <= max);
        check_frame(str_view(&out));
    } else {
        ASSERT(out.n == 0);
    }
    str_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct view in = view_of(data, n);
    uint8_t what = fuzz_byte(&in), cut = fuzz_byte(&in), limit = fuzz_byte(&in);

    switch (what % 8) {
    case 0:
    case 1:
    case 2:
        check_decode((enum zcoding)(what % 8), in, cut, limit);
        break;
    case 3:
    case 4:
    case 5:
        check_encode((enum zcoding)(what % 8 - 3), in, cut);
        break;
    case 6:
        check_frame(in);
        break;
    default:
        check_unpack(in, limit);
        break;
    }
    return 0;
}
