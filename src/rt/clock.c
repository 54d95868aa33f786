#include "rt/clock.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

static _Atomic int64_t fake_mono = -1;
static _Atomic int64_t fake_wall = -1;

static int64_t now(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

int64_t clock_mono_ns(void)
{
    int64_t fake = atomic_load_explicit(&fake_mono, memory_order_relaxed);

    return fake >= 0 ? fake : now(CLOCK_MONOTONIC);
}

int64_t clock_wall_ns(void)
{
    int64_t fake = atomic_load_explicit(&fake_wall, memory_order_relaxed);

    return fake >= 0 ? fake : now(CLOCK_REALTIME);
}

void clock_fake(int64_t mono_ns, int64_t wall_ns)
{
    atomic_store(&fake_mono, mono_ns);
    atomic_store(&fake_wall, wall_ns);
}

void clock_format(int64_t wall_ns, char out[25])
{
    time_t sec = (time_t)(wall_ns / NS_PER_SEC);
    struct tm tm;
    char day[20];

    gmtime_r(&sec, &tm);
    strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out, 25, "%s.%03dZ", day, (int)((unsigned)(wall_ns / NS_PER_MS % 1000) % 1000));
}
