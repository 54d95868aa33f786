#include "egress/intercept.h"

bool intercept_wants(const struct intercept *i, const struct dest *d)
{
    (void)i;
    (void)d;
    return false;
}

void intercept_take(struct intercept *i, struct net_stream *client, struct buf *early,
                    struct passage *passage)
{
    (void)i;
    (void)early;
    net_stream_close(&client, true);
    passage_end(&passage, "refused");
}
