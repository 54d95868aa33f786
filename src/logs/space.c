#include "logs/space.h"

#include "logs/logs_priv.h"
#include "rt/log.h"

/* Capacity is what is used and what may still be. Tenths of it: */
enum { SLOW_AT = 8, REFUSED_AT = 9, TENTHS = 10 };

static uint64_t tenth(const struct spool_stats *st)
{
    return (st->used_bytes + st->room_bytes) / TENTHS;
}

enum space_level space_level(const struct spool_stats *st)
{
    uint64_t part = tenth(st);

    return st->room_bytes <= part * (TENTHS - REFUSED_AT) ? SPACE_REFUSED
           : st->room_bytes <= part * (TENTHS - SLOW_AT)  ? SPACE_SLOW
                                                          : SPACE_ENOUGH;
}

int64_t space_wait_ms(const struct spool_stats *st)
{
    uint64_t part = tenth(st), left;

    if (space_level(st) != SPACE_SLOW)
        return 0;
    left = st->room_bytes - part * (TENTHS - REFUSED_AT);
    return TR_MAX((int64_t)(SPACE_SLOW_MS * (part - TR_MIN(left, part)) / TR_MAX(part, 1u)), 1);
}

void space_watch(struct logs *logs)
{
    static const char *const words[] = {
        [SPACE_ENOUGH] = "the spool has room again",
        [SPACE_SLOW] = "the spool is eight tenths full: lines are answered later and later",
        [SPACE_REFUSED] = "the spool is nine tenths full: lines are refused with 503; opens, "
                          "closes, links and finished logs have what is left",
    };
    struct spool_stats st;
    enum space_level level;

    spool_stats(logs->spool, &st);
    level = atomic_exchange(&logs->space_refused, false) ? SPACE_REFUSED : space_level(&st);
    /* Once in trouble it is over with some room to spare, not at every record that leaves. */
    if (level < logs->space && st.room_bytes < tenth(&st) * (TENTHS - SLOW_AT) * 5 / 4)
        return;
    if (level == logs->space)
        return;
    logs->space = level;
    log_event(level == SPACE_ENOUGH ? LOG_NOTICE
              : level == SPACE_SLOW ? LOG_WARN
                                    : LOG_ERROR,
              "spool", words[level], LF_UINT("used_bytes", st.used_bytes),
              LF_UINT("room_bytes", st.room_bytes), LF_UINT("limit_bytes", st.limit_bytes),
              LF_UINT("disk_free_bytes", st.free_bytes),
              LF_STR("remedy", level == SPACE_ENOUGH ? "none is needed"
                               : st.free_bytes <= st.room_bytes
                                   ? "free space on the file system of spool.directory"
                                   : "see why upstream does not take what waits (upstream_state), "
                                     "or raise spool.limit and restart"));
}
