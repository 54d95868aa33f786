#include "rt/overload.h"

#include "rt/log.h"
#include "rt/metric.h"

static const char *const names[OVERLOAD_REASONS] = {
    [OVERLOAD_CONNECTIONS] = "connections",
    [OVERLOAD_CLIENT] = "client_share",
    [OVERLOAD_DESCRIPTORS] = "descriptors",
    [OVERLOAD_MEMORY] = "memory",
    [OVERLOAD_BUFFERS] = "buffers",
    [OVERLOAD_STREAMS] = "streams",
    [OVERLOAD_STREAMS_SHARE] = "streams_share",
    [OVERLOAD_SPOOL] = "spool",
    [OVERLOAD_SPOOL_SHARE] = "spool_share",
    [OVERLOAD_SPOOL_UNPROVEN] = "spool_unproven",
    [OVERLOAD_QUEUE] = "stream_queue",
};

void overload_refused(enum overload_reason reason, const char *who, struct view account)
{
    static struct log_rate rates[OVERLOAD_REASONS];
    uint64_t more;

    metric_add(metric_series(metric_family(METRIC_COUNTER, "overload_refused", "reason",
                                           "Connections and calls refused since a budget was used "
                                           "up, by reason."),
                             names[reason]),
               1);
    if (log_rate_ok(&rates[reason], 10, &more))
        log_event(LOG_WARN, "overload", "refused", LF_STR("reason", names[reason]),
                  LF_STR("client", who), LF_VIEW("account", account), LF_UINT("suppressed", more));
}

bool overload_admits(uint64_t used, uint64_t mine, uint64_t limit, unsigned percent)
{
    if (used >= limit)
        return false;
    return used < limit - limit / 10 || percent >= 100 || mine < limit / 100.0 * percent;
}
