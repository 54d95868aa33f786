#include "logs/logs_priv.h"
#include "logs/report.h"
#include "rt/log.h"

/* What is out of the ordinary in a stream's life: counted, and said in the log. */
static const struct {
    const char *event, *message;
    enum log_level level;
} notes[NOTE_N] = {
    [NOTE_JOINED] = {"joined", "an open joined a stream that is open", LOG_DEBUG},
    [NOTE_HELD] = {"held", "an open just after a close is held until lines come", LOG_DEBUG},
    [NOTE_REPLAYED] = {"replayed", "a body came again and was not taken twice", LOG_INFO},
    [NOTE_BROKEN_BLOB] = {"broken_upload",
                          "a client's broken retry of an upload was not stored; the stream "
                          "is closed with a snapshot unless its whole log is here",
                          LOG_WARN},
    [NOTE_ABSENT] = {"absent",
                     "the log service does not know the stream; its lines are kept for the end "
                     "of the stream",
                     LOG_WARN},
    [NOTE_EXPIRED] = {"expired",
                      "the stream is older than the log service keeps one (5 h); its lines are "
                      "kept for the end of the stream",
                      LOG_WARN},
    [NOTE_TRUNCATED] = {"truncated",
                        "closed by snapshot with more lines than the log service keeps; the "
                        "stored log lacks the oldest",
                        LOG_WARN},
    [NOTE_DEAD] = {"dead",
                   "refused by the log service for good; kept as a dead letter, see tailracectl "
                   "dead list",
                   LOG_ERROR},
    [NOTE_REOPENED] = {"reopened",
                       "an open whose outcome was unknown had not taken effect and is sent now",
                       LOG_NOTICE},
    [NOTE_ASIDE] = {"set_aside",
                    "the log service fails at lines of this stream, and not at others'; they are "
                    "kept for the end of the stream",
                    LOG_WARN},
    [NOTE_LATE] = {"late", "lines came after their stream's close was sent", LOG_INFO},
};

const char *shard_note_event(enum stream_note what)
{
    return notes[what].event;
}

void shard_note(struct stream_env *env, struct stream *s, enum stream_note what, uint64_t lines)
{
    struct shard *sh = container_of(env, struct shard, env);

    metric_add(sh->logs->metrics.note[what], 1);
    report_note_event(s, what);
    log_event(notes[what].level, "stream", notes[what].message, LF_VIEW("account", s->account_v),
              LF_VIEW("key", s->key_v), LF_UINT("lines", lines));
}
