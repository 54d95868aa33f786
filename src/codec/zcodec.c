#include "codec/zcodec.h"

#include "base/buf.h"
#include "base/bug.h"
#include "base/xmem.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    STEP = 32 * 1024, /* room made for output at a time */
    GZIP_WRAPPER = 16,
    GZIP_WINDOW = 15,
    GZIP_MEMORY = 8, /* zlib's default */
    /* A frame may ask its reader for memory: 8 MiB is what RFC 8878 §3.1.1.1.2 asks for, and
     * RFC 9659 allows in a Content-Encoding. */
    ZSTD_WINDOW_LOG = 23,
    ZSTD_HEAD_MAX = 18, /* RFC 8878 §3.1.1: magic number and frame header */
};

static const struct {
    const char *name;
    enum zcoding coding;
} codings[] = {
    {"identity", Z_IDENTITY}, {"gzip", Z_GZIP},   {"zstd", Z_ZSTD},
    {"", Z_IDENTITY},         {"x-gzip", Z_GZIP},
};

int zcoding_parse(struct view name, enum zcoding *out)
{
    size_t i;

    for (i = 0; i < ARRAY_LEN(codings); i++)
        if (view_ieq(name, view_str(codings[i].name))) {
            *out = codings[i].coding;
            return 0;
        }
    return -1;
}

const char *zcoding_name(enum zcoding c)
{
    return codings[c].name;
}

/* ---- decoding ---- */

struct zdecoder {
    enum zcoding coding;
    uint64_t left;   /* that may still come out */
    struct buf rest; /* input that was given and not used */
    bool ended;
    z_stream gzip;
    ZSTD_DCtx *zstd;
    char head[ZSTD_HEAD_MAX]; /* of the zstd frame */
    size_t head_n;
    uint64_t made;
};

/* One call of a library: both are counted up. */
struct progress {
    struct view in;
    size_t used;
    char *to;
    size_t room;
    size_t made;
};

struct zdecoder *zdecoder_new(enum zcoding c, uint64_t max_out)
{
    struct zdecoder *d = XNEW(struct zdecoder);

    d->coding = c;
    d->left = max_out;
    if (c == Z_GZIP) {
        ASSERT(inflateInit2(&d->gzip, GZIP_WINDOW + GZIP_WRAPPER) == Z_OK);
    } else if (c == Z_ZSTD) {
        d->zstd = ZSTD_createDCtx();
        ASSERT(d->zstd != NULL);
        ASSERT(
            !ZSTD_isError(ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG)));
    }
    return d;
}

void zdecoder_free(struct zdecoder **dp)
{
    struct zdecoder *d = *dp;

    if (!d)
        return;
    *dp = NULL;
    if (d->coding == Z_GZIP)
        inflateEnd(&d->gzip);
    ZSTD_freeDCtx(d->zstd);
    buf_fini(&d->rest);
    xfree(d);
}

bool zdecoder_complete(const struct zdecoder *d)
{
    return d->ended || d->coding == Z_IDENTITY;
}

static int step_identity(struct zdecoder *d, struct progress *p, struct err *e)
{
    size_t n = TR_MIN(p->in.n - p->used, p->room);

    ASSERT(n == 0 || p->in.p);
    if (n)
        memcpy(p->to, p->in.p + p->used, n);
    p->used += n;
    p->made = n;
    return 0;
}

static int step_gzip(struct zdecoder *d, struct progress *p, struct err *e)
{
    uInt in = (uInt)TR_MIN(p->in.n - p->used, (size_t)UINT32_MAX / 2);
    int r;

    d->gzip.next_in = (Bytef *)(uintptr_t)(p->in.p + p->used);
    d->gzip.avail_in = in;
    d->gzip.next_out = (Bytef *)p->to;
    d->gzip.avail_out = (uInt)p->room;
    r = inflate(&d->gzip, Z_NO_FLUSH);
    p->used += in - d->gzip.avail_in;
    p->made = p->room - d->gzip.avail_out;
    if (r == Z_STREAM_END)
        d->ended = true;
    else if (r != Z_OK && r != Z_BUF_ERROR)
        return err_set(e, ERR_INVALID, "the gzip data is damaged");
    return 0;
}

static int step_zstd(struct zdecoder *d, struct progress *p, struct err *e)
{
    ZSTD_inBuffer in = {p->in.p, p->in.n, p->used};
    ZSTD_outBuffer out = {p->to, p->room, 0};
    size_t r = ZSTD_decompressStream(d->zstd, &out, &in);

    p->used = in.pos;
    p->made = out.pos;
    if (ZSTD_isError(r)) {
        if (ZSTD_getErrorCode(r) == ZSTD_error_frameParameter_windowTooLarge)
            return err_set(e, ERR_LIMIT, "the zstd data asks for more than %d MiB of memory",
                           1 << (ZSTD_WINDOW_LOG - 20));
        return err_set(e, ERR_INVALID, "the zstd data is damaged");
    }
    d->ended = r == 0;
    return 0;
}

/* Room at the end of `out`, or a byte of our own when nothing more may come out. */
static int step(struct zdecoder *d, struct progress *p, struct str *out, struct err *e)
{
    char over = 0;
    bool last = d->left == 0;
    int r;

    p->room = last ? 1 : (size_t)TR_MIN((uint64_t)p->room, d->left);
    if (!last)
        str_reserve(out, p->room);
    p->to = last ? &over : out->p + out->n;
    p->made = 0;
    if (d->coding == Z_GZIP)
        r = step_gzip(d, p, e);
    else if (d->coding == Z_ZSTD)
        r = step_zstd(d, p, e);
    else
        r = step_identity(d, p, e);
    p->to = NULL;
    if (r != 0)
        return -1;
    if (last)
        return p->made ? err_set(e, ERR_LIMIT, "more comes out than may") : 0;
    out->n += p->made;
    out->p[out->n] = '\0';
    d->left -= p->made;
    d->made += p->made;
    return 0;
}

/* Neither frames to skip nor the formats before RFC 8878, which some builds of the library read. */
static bool magic_ok(const struct zdecoder *d)
{
    return d->coding != Z_ZSTD || memcmp(d->head, "\x28\xb5\x2f\xfd", TR_MIN(d->head_n, 4u)) == 0;
}

/*
 * A frame that ends with less than it says. The library sees that when it is given all at once, but
 * in pieces not always.
 */
static int check_size(const struct zdecoder *d, struct err *e)
{
    unsigned long long size;

    if (d->coding != Z_ZSTD)
        return 0;
    size = ZSTD_getFrameContentSize(d->head, d->head_n);
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == d->made)
        return 0;
    return err_set(e, ERR_INVALID, "the zstd data is damaged");
}

/* Decode `p->in` until it is used up or `max` bytes came out: 1 if there is more, 0, or -1. */
static int run(struct zdecoder *d, struct progress *p, size_t max, struct str *out, struct err *e)
{
    size_t made = 0;

    for (;;) {
        size_t before = p->used;

        if (d->ended)
            return p->used == p->in.n
                       ? 0
                       : err_set(e, ERR_INVALID, "there is something behind the end of the data");
        if (max && made == max)
            return 1;
        p->room = max ? TR_MIN(max - made, (size_t)STEP) : STEP;
        if (step(d, p, out, e) != 0 || (d->ended && check_size(d, e) != 0))
            return -1;
        made += p->made;
        if (p->made == 0 && p->used == before && !d->ended)
            return 0;
    }
}

/* What is not coded needs no room but its own. */
static int feed_plainly(struct zdecoder *d, struct view in, struct str *out, struct err *e)
{
    if (in.n > d->left)
        return err_set(e, ERR_LIMIT, "more comes out than may");
    str_addv(out, in);
    d->left -= in.n;
    d->made += in.n;
    return 0;
}

int zdecoder_feed(struct zdecoder *d, struct view in, size_t max_piece, struct str *out,
                  struct err *e)
{
    struct progress p = {.in = in.n ? in : VIEW_LIT("")};
    bool kept = buf_len(&d->rest) > 0;
    size_t head_n = TR_MIN(in.n, ZSTD_HEAD_MAX - d->head_n);
    int r;

    if (d->coding == Z_IDENTITY && !kept && (!max_piece || in.n <= max_piece))
        return feed_plainly(d, in, out, e);
    if (head_n)
        memcpy(d->head + d->head_n, in.p, head_n);
    d->head_n += head_n;
    if (!magic_ok(d))
        return err_set(e, ERR_INVALID, "the data is not zstd");
    if (kept) {
        if (in.n)
            buf_add(&d->rest, in.p, in.n);
        p.in = buf_view(&d->rest);
    }
    r = run(d, &p, max_piece, out, e);
    if (kept)
        buf_consume(&d->rest, p.used);
    else if (r == 1 && p.used < in.n)
        buf_add(&d->rest, in.p + p.used, in.n - p.used);
    buf_release_if_empty(&d->rest);
    return r;
}

/* ---- encoding ---- */

struct zencoder {
    enum zcoding coding;
    bool ended;
    z_stream gzip;
    ZSTD_CCtx *zstd;
};

struct zencoder *zencoder_new(enum zcoding c, int level)
{
    struct zencoder *z = XNEW(struct zencoder);

    z->coding = c;
    if (c == Z_GZIP) {
        ASSERT(deflateInit2(&z->gzip, level, Z_DEFLATED, GZIP_WINDOW + GZIP_WRAPPER, GZIP_MEMORY,
                            Z_DEFAULT_STRATEGY) == Z_OK);
    } else if (c == Z_ZSTD) {
        z->zstd = ZSTD_createCCtx();
        ASSERT(z->zstd != NULL);
        ASSERT(!ZSTD_isError(ZSTD_CCtx_setParameter(z->zstd, ZSTD_c_compressionLevel, level)));
        ASSERT(!ZSTD_isError(ZSTD_CCtx_setParameter(z->zstd, ZSTD_c_checksumFlag, 1)));
    }
    return z;
}

void zencoder_free(struct zencoder **zp)
{
    struct zencoder *z = *zp;

    if (!z)
        return;
    *zp = NULL;
    if (z->coding == Z_GZIP)
        deflateEnd(&z->gzip);
    ZSTD_freeCCtx(z->zstd);
    xfree(z);
}

static void feed_gzip(struct zencoder *z, struct view in, bool end, struct str *out)
{
    int r;

    do {
        uInt part = (uInt)TR_MIN(in.n, (size_t)UINT32_MAX / 2);

        z->gzip.next_in = (Bytef *)(uintptr_t)in.p;
        z->gzip.avail_in = part;
        str_reserve(out, STEP);
        z->gzip.next_out = (Bytef *)out->p + out->n;
        z->gzip.avail_out = STEP;
        r = deflate(&z->gzip, end && part == in.n ? Z_FINISH : Z_NO_FLUSH);
        ASSERT(r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR);
        out->n += STEP - z->gzip.avail_out;
        part -= z->gzip.avail_in;
        if (part)
            in = view_from(in, part);
    } while (in.n || z->gzip.avail_out == 0 || (end && r != Z_STREAM_END));
    out->p[out->n] = '\0';
}

static void feed_zstd(struct zencoder *z, struct view in, bool end, struct str *out)
{
    ZSTD_inBuffer from = {in.p, in.n, 0};
    size_t r;

    do {
        ZSTD_outBuffer to;

        str_reserve(out, STEP);
        to = (ZSTD_outBuffer){out->p + out->n, STEP, 0};
        r = ZSTD_compressStream2(z->zstd, &to, &from, end ? ZSTD_e_end : ZSTD_e_continue);
        ASSERT(!ZSTD_isError(r));
        out->n += to.pos;
    } while (from.pos < from.size || (end && r != 0));
    out->p[out->n] = '\0';
}

void zencoder_feed(struct zencoder *z, struct view in, bool end, struct str *out)
{
    ASSERT(!z->ended);
    z->ended = end;
    if (z->coding == Z_GZIP)
        feed_gzip(z, in, end, out);
    else if (z->coding == Z_ZSTD)
        feed_zstd(z, in, end, out);
    else
        str_addv(out, in);
}
