/*
 * Replay of a dead letter: lines are settled (settle.c), a blob is uploaded again by its route;
 * nothing is opened or closed. It happens at the shard that owns the stream, once the stream has
 * ended, and nothing else of the stream is sent meanwhile. What was stored leaves the dead letters
 * in the transaction that moves it in the ledger; a crash between the two, or a lost answer, leaves
 * a letter whose lines the next replay finds in the blob.
 */
#ifndef TR_LOGS_REPLAY_H
#define TR_LOGS_REPLAY_H

#include <stdbool.h>
#include "rt/command.h"

struct shard;
struct stream;

/* The command dead/ID/replay; `logs` is a struct logs. Answers {"result": ...}: "settled",
 * "delivered", "superseded" (a later blob has the lines), or "failed" with the status and what it
 * meant. */
void replay_run(void *logs, struct command_call *call);

/* Is a letter of this stream being replayed? Then nothing else of it may be sent. Own thread. */
bool replay_holds(const struct shard *sh, const struct stream *s);

#endif
