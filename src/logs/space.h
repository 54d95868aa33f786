/*
 * Who may have what is left of the spool. Lines yield first (architecture.md, invariant 10): from
 * eight tenths on their calls are answered later and later, up to SPACE_SLOW_MS, which clients bear
 * (HP §2.4: 10 s) and which slows those that send one call after the other; from nine tenths on
 * they are refused with 503. The last tenth is for opens, closes, links and blobs. What counts is
 * the limit, or what the disk still has if that is less.
 */
#ifndef TR_LOGS_SPACE_H
#define TR_LOGS_SPACE_H

#include <stdbool.h>
#include <stdint.h>
#include "spool/spool.h"

struct logs;

enum { SPACE_SLOW_MS = 2000 };

enum space_level { SPACE_ENOUGH, SPACE_SLOW, SPACE_REFUSED };

enum space_level space_level(const struct spool_stats *st);
int64_t
space_wait_ms(const struct spool_stats *st); /* how long lines' answers wait; 0: they don't */

/* One shard's thread, about once a second: log when the level changes, with what to do. */
void space_watch(struct logs *logs);

#endif
