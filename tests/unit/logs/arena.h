/* All memory of a world in one block at a fixed place, so that a state can be saved and restored
 * by copying it. */
#ifndef TESTS_LOGS_ARENA_H
#define TESTS_LOGS_ARENA_H

#include <stddef.h>

enum { ARENA_SIZE = 256 * 1024 };

void arena_reset(void);
size_t arena_used(void);
void arena_save(void *to);            /* arena_used() bytes */
void arena_restore(const void *from); /* what arena_save stored */

#endif
