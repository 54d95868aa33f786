#include "net/buffers.h"

#include <stdatomic.h>

static atomic_int_fast64_t used;
static atomic_int_fast64_t limit = INT64_MAX;

void buffers_configure(size_t bytes)
{
    atomic_store(&limit, (int64_t)bytes);
}

void buffers_shift(int64_t bytes)
{
    atomic_fetch_add_explicit(&used, bytes, memory_order_relaxed);
}

size_t buffers_used(void)
{
    int64_t n = atomic_load_explicit(&used, memory_order_relaxed);

    return n > 0 ? (size_t)n : 0;
}

bool buffers_short(void)
{
    return atomic_load_explicit(&used, memory_order_relaxed) >=
           atomic_load_explicit(&limit, memory_order_relaxed);
}

bool buffers_eased(void)
{
    int64_t all = atomic_load_explicit(&limit, memory_order_relaxed);

    return atomic_load_explicit(&used, memory_order_relaxed) < all - all / 8;
}
