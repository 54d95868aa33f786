/*
 * Dead letters: records that upstream refused for good, or that cannot be read. What is known of
 * one besides its row (spool.h) is in its note; what can be asked of them and done with them are
 * commands (rt/command.h): list, explain, export, replay (replay.c), drop.
 */
#ifndef TR_LOGS_DEAD_H
#define TR_LOGS_DEAD_H

#include <stdbool.h>
#include <stdint.h>
#include "base/attrs.h"
#include "base/str.h"
#include "base/view.h"
#include "logs/stream.h"
#include "rt/command.h"
#include "spool/spool.h"

struct logs;

/* Views are the caller's. Nothing in it is a credential, a line of a log or upstream's own words:
 * `said` is one of a few texts of ours. */
struct dead_note {
    int status;                /* that upstream answered; 0: none */
    struct view said;          /* what that meant, as far as it is known; may be empty */
    struct view prefix, query; /* of its stream, to send it by; empty: not known */
    /* Upstream had taken its sender's credential: another of the account may stand in for it. One
     * who had none that is good must not borrow one by being refused. */
    bool proven;
    uint32_t replays;    /* so often it was sent again, and when and how that ended last */
    int64_t replayed_ns; /* wall time */
    int replay_status;
    struct view replay_said;
};

/* The stored form, and back. -1: not understood (or empty); `n` is all zero then. */
void dead_note_encode(const struct dead_note *n, struct str *out);
int dead_note_decode(struct view text, struct dead_note *n);

/* What an answer means, from its status and its error_msg (HP section 1.4), in words of ours.
 * Static. */
const char *dead_meaning(int status, struct view body);

/* One letter is replayed or dropped by one call at a time. Any thread. */
bool dead_claim(struct logs *l, int64_t id);
void dead_release(struct logs *l, int64_t id);

/* The id in part 1 of the path. 0: there is none, and the call is answered. */
int64_t dead_id(struct command_call *call);

/* Register the commands, and take them back. In the thread that serves commands. */
void dead_commands_add(struct logs *l);
void dead_commands_remove(struct logs *l); /* once the spool is another process's */
void dead_fini(struct logs *l);

#endif
