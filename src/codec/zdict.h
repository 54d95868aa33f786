/* The dictionary of zframe_pack; made by scripts/make-dictionary.py. */
#ifndef TR_CODEC_ZDICT_H
#define TR_CODEC_ZDICT_H

enum {
    ZDICT_SIZE = 16384,
    ZDICT_ID = 40193, /* as frames name it */
};

extern const unsigned char zdict_bytes[ZDICT_SIZE];

#endif
