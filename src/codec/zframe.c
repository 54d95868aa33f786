#include "codec/zcodec.h"

#include <pthread.h>
#include <string.h>
#include "base/bug.h"
#include "base/xmem.h"
#include "codec/zdict.h"

#include <zlib.h>
#include <zstd.h>

/*
 *     zstd frame                     its magic is 28 b5 2f fd
 *     00 | CRC-32, low byte first | content as it is
 */
enum {
    STORED = 0x00,
    STORED_HEAD = ZFRAME_OVERHEAD,
    LEVEL = 1,
    /* Smaller frames are made here and copied, so that a record's memory is what it needs and not
     * the several times as much that it could have needed. */
    SCRATCH = 80 << 10,
};

/* The dictionary, digested once for all threads. */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static ZSTD_CDict *pack_dict;
static ZSTD_DDict *unpack_dict;
static pthread_key_t key;

struct contexts {
    ZSTD_CCtx *pack;
    ZSTD_DCtx *unpack;
    char scratch[SCRATCH];
};

static _Thread_local struct contexts *mine;

static void contexts_free(void *p)
{
    struct contexts *c = p;

    ZSTD_freeCCtx(c->pack);
    ZSTD_freeDCtx(c->unpack);
    xfree(c);
}

static void digest(void)
{
    pack_dict = ZSTD_createCDict(zdict_bytes, ZDICT_SIZE, LEVEL);
    unpack_dict = ZSTD_createDDict(zdict_bytes, ZDICT_SIZE);
    ASSERT(pack_dict && unpack_dict);
    ASSERT(ZSTD_getDictID_fromDDict(unpack_dict) == ZDICT_ID);
    ASSERT(pthread_key_create(&key, contexts_free) == 0);
}

/* Those of this thread; freed when it ends. */
static struct contexts *contexts(void)
{
    if (TR_LIKELY(mine != NULL))
        return mine;
    ASSERT(pthread_once(&once, digest) == 0);
    mine = XNEW(struct contexts);
    mine->pack = ZSTD_createCCtx();
    mine->unpack = ZSTD_createDCtx();
    ASSERT(mine->pack && mine->unpack);
    ASSERT(!ZSTD_isError(ZSTD_CCtx_refCDict(mine->pack, pack_dict)));
    ASSERT(!ZSTD_isError(ZSTD_CCtx_setParameter(mine->pack, ZSTD_c_checksumFlag, 1)));
    ASSERT(!ZSTD_isError(ZSTD_DCtx_refDDict(mine->unpack, unpack_dict)));
    ASSERT(pthread_setspecific(key, mine) == 0);
    return mine;
}

static uint32_t crc_of(struct view v)
{
    return (uint32_t)crc32_z(crc32_z(0, NULL, 0), (const Bytef *)v.p, v.n);
}

static void store(struct view plain, struct str *out)
{
    uint32_t crc = crc_of(plain);
    const unsigned char head[STORED_HEAD] = {STORED, (unsigned char)crc, (unsigned char)(crc >> 8),
                                             (unsigned char)(crc >> 16),
                                             (unsigned char)(crc >> 24)};

    str_add(out, head, sizeof(head));
    str_addv(out, plain);
}

void zframe_pack(struct view plain, struct str *out)
{
    struct contexts *c = contexts();
    size_t room = ZSTD_compressBound(plain.n), n;
    char *to = c->scratch;

    if (room > SCRATCH) {
        str_reserve(out, room);
        to = out->p + out->n;
    }
    n = ZSTD_compress2(c->pack, to, room, plain.p, plain.n);
    ASSERT(!ZSTD_isError(n));
    if (n >= plain.n + STORED_HEAD) {
        store(plain, out);
        return;
    }
    if (to == c->scratch) {
        str_add(out, to, n);
        return;
    }
    out->n += n;
    out->p[out->n] = '\0';
}

static int damaged(struct err *e)
{
    return err_set(e, ERR_INVALID, "the frame is damaged");
}

static int too_large(size_t max, struct err *e)
{
    return err_set(e, ERR_LIMIT, "the frame holds more than %zu bytes", max);
}

static int unstore(struct view frame, size_t max, struct str *out, struct err *e)
{
    const unsigned char *p = (const unsigned char *)frame.p;
    struct view plain;

    if (frame.n < STORED_HEAD)
        return damaged(e);
    plain = view_from(frame, STORED_HEAD);
    if (plain.n > max)
        return too_large(max, e);
    if (crc_of(plain) !=
        ((uint32_t)p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24))
        return damaged(e);
    str_addv(out, plain);
    return 0;
}

int zframe_unpack(struct view frame, size_t max, struct str *out, struct err *e)
{
    static const struct view magic = VIEW_LIT("\x28\xb5\x2f\xfd");
    unsigned long long size;
    size_t n;

    if (frame.n == 0)
        return damaged(e);
    if (frame.p[0] == STORED)
        return unstore(frame, max, out, e);
    size = ZSTD_getFrameContentSize(frame.p, frame.n);
    if (!view_starts(frame, magic) || size == ZSTD_CONTENTSIZE_UNKNOWN ||
        size == ZSTD_CONTENTSIZE_ERROR || ZSTD_findFrameCompressedSize(frame.p, frame.n) != frame.n)
        return damaged(e);
    if (size > max)
        return too_large(max, e);
    str_reserve(out, (size_t)size);
    n = ZSTD_decompressDCtx(contexts()->unpack, out->p + out->n, (size_t)size, frame.p, frame.n);
    if (n != size) {
        out->p[out->n] = '\0';
        return damaged(e);
    }
    out->n += n;
    out->p[out->n] = '\0';
    return 0;
}
