/*
 * Memory that connections hold for peers who do not keep up: heads and pipelined requests that came
 * before their turn, bodies that upstream does not take, answers that the client does not read, and
 * what is between the two ends of a tunnel. One budget for the process (memory.connections). Who
 * holds memory counts it here; when the budget is used up less is read ahead, and those whose peers
 * take nothing are ended. Any thread.
 */
#ifndef TR_NET_BUFFERS_H
#define TR_NET_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void buffers_configure(size_t limit);
void buffers_shift(int64_t bytes); /* so many more, or less, are held */
size_t buffers_used(void);
bool buffers_short(void); /* the budget is used up */
bool buffers_eased(void); /* an eighth of it is free again */

#endif
