/* SipHash-1-3 (Aumasson, Bernstein) with a random key of the process: for tables whose keys peers
 * choose. */
#ifndef TR_BASE_HASH_H
#define TR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* Keyed with `key`: the same bytes give the same value wherever the key is the same. */
uint64_t hash_keyed(const uint64_t key[2], const void *p, size_t n);

/* Keyed with a value drawn at the first use in this process. Any thread. */
uint64_t hash_bytes(const void *p, size_t n);

#endif
