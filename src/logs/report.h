/*
 * Reports on streams and upstreams: the commands `streams`, `stream`, `upstreams` and `tail`
 * (tail.h). What a worker knows of its streams is looked at by that worker, a part in each turn of
 * its loop, so that no number of streams holds it up; what all workers found is put together by the
 * last one.
 */
#ifndef TR_LOGS_REPORT_H
#define TR_LOGS_REPORT_H

#include "logs/shard.h"

struct logs;

void report_commands_add(struct logs *l);
void report_commands_remove(struct logs *l);

/* To be told what is not kept for its own sake; the owner's thread. A delivery ended, at this wall
 * time; a commit is durable; something out of the ordinary. */
void report_note_result(struct stream *s, const struct op_result *r, int64_t wall);
void report_note_commit(const struct commit *c);
void report_note_event(struct stream *s, enum stream_note what);

#endif
