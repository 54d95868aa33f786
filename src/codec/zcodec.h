/* zstd and gzip, in pieces and at once, with limits on what may come out. */
#ifndef TR_CODEC_ZCODEC_H
#define TR_CODEC_ZCODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/err.h"
#include "base/str.h"
#include "base/view.h"

enum zcoding { Z_IDENTITY, Z_GZIP, Z_ZSTD };

/*
 * Content-Encoding (RFC 9110 §8.4) to a coding: "", "identity", "gzip", "x-gzip", "zstd", case does
 * not matter. -1: any other, also lists.
 */
int zcoding_parse(struct view name, enum zcoding *out) TR_MUST_USE;
const char *zcoding_name(enum zcoding c);

/*
 * Streaming decoder. Feeding past `max_out` bytes in all is ERR_LIMIT (a compression bomb).
 * Z_IDENTITY passes bytes on, with the same limit.
 */
struct zdecoder;
struct zdecoder *zdecoder_new(enum zcoding c, uint64_t max_out);
void zdecoder_free(struct zdecoder **d);
/*
 * Append what `in` decodes to. Output of one call is bounded by max_piece (0: no bound): returns 1
 * if more output is waiting (call again with empty input), 0 when all of `in` was used, -1 with
 * `e`: ERR_INVALID (broken), ERR_LIMIT.
 */
int zdecoder_feed(struct zdecoder *d, struct view in, size_t max_piece, struct str *out,
                  struct err *e) TR_MUST_USE;
/* The coding's end was seen (true from the start for Z_IDENTITY); more bytes are an error in feed.
 */
bool zdecoder_complete(const struct zdecoder *d);

/*
 * Streaming encoder, for bodies that are produced in pieces (gzip level 1..9, zstd level 1..19).
 * Each feed appends what is ready; `end` finishes, and nothing may be fed after it.
 */
struct zencoder;
struct zencoder *zencoder_new(enum zcoding c, int level);
void zencoder_free(struct zencoder **z);
void zencoder_feed(struct zencoder *z, struct view in, bool end, struct str *out);

/*
 * One-shot frames for the spool: zstd at level 1 with the built-in dictionary trained on build
 * logs, and a checksum. Contexts are per thread and reused. zframe_pack appends a frame: what is no
 * smaller packed is kept as it is, behind a marker and a CRC-32. zframe_unpack appends the
 * original; -1 and nothing appended if the frame is damaged or cut (ERR_INVALID) or its content
 * larger than max (ERR_LIMIT). A frame is at most ZFRAME_OVERHEAD bytes larger than its content.
 */
enum { ZFRAME_OVERHEAD = 5 };
void zframe_pack(struct view plain, struct str *out);
int zframe_unpack(struct view frame, size_t max, struct str *out, struct err *e) TR_MUST_USE;

#endif
