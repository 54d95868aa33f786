#include "codec/h2_meter.h"

#include "codec/h2.h"

enum {
    MAGIC = 24, /* "PRI * HTTP/2.0..." */
    INTERVAL_S = 10,
    /* A header block is bounded as a whole: CONTINUATION without end (CVE-2024-27316). What it
     * unpacks to is bounded where it is collected. */
    MAX_BLOCK = H2_MAX_HEADER_BYTES,
    /* Clients update the stream and the connection, some for every 4 KiB of a 16 KiB frame. */
    UPDATES_PER_DATA = 8,
    MAX_UPDATES = 100000,
    /* gRPC's clients measure the round trip by a PING whenever data comes and none is under way. */
    MAX_PINGS = 10000,
};

enum {
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION
};

enum { END_STREAM = 0x1, ACK = 0x1, END_HEADERS = 0x4 };

static int check_counts(const struct h2_meter *m, struct err *e)
{
    unsigned resets = m->max_resets ? m->max_resets : H2_MAX_RESETS;

    if (m->resets > resets)
        return err_set(e, ERR_LIMIT, "more than %u resets in %d s", resets, INTERVAL_S);
    if (m->control > H2_MAX_CONTROL)
        return err_set(e, ERR_LIMIT, "more than %d control frames in %d s", H2_MAX_CONTROL,
                       INTERVAL_S);
    if (m->block > MAX_BLOCK)
        return err_set(e, ERR_LIMIT, "a header block longer than %d bytes", MAX_BLOCK);
    return 0;
}

/* The head of a frame is complete. */
static void on_head(struct h2_meter *m)
{
    uint32_t length = (uint32_t)m->head[0] << 16 | (uint32_t)m->head[1] << 8 | m->head[2];
    uint8_t flags = m->head[4];

    m->left = length;
    switch (m->head[3]) {
    case DATA:
        if (length == 0 && !(flags & END_STREAM))
            m->control++;
        break;
    case HEADERS:
        m->block = length;
        break;
    case CONTINUATION:
        m->block += length;
        if (length == 0 || !(flags & END_HEADERS))
            m->control++;
        break;
    case RST_STREAM:
        m->resets++;
        break;
    case WINDOW_UPDATE:
        if (m->updates)
            m->updates--;
        else
            m->control++;
        break;
    case PING:
        if (m->pings && !(flags & ACK))
            m->pings--;
        else
            m->control++;
        break;
    default:
        /* SETTINGS, PRIORITY, GOAWAY, and kinds that nobody knows. */
        m->control++;
        break;
    }
}

int h2_meter_feed(struct h2_meter *m, struct view in, int64_t now_ns, struct err *e)
{
    size_t n;

    if (now_ns - m->since >= INTERVAL_S * (int64_t)1000000000) {
        m->since = now_ns;
        m->resets = m->control = 0;
    }
    n = TR_MIN(in.n, MAGIC - m->magic);
    m->magic += (unsigned)n;
    while (n < in.n) {
        size_t part;

        if (m->left) {
            part = TR_MIN(in.n - n, m->left);
            m->left -= (uint32_t)part;
        } else {
            part = TR_MIN(in.n - n, sizeof(m->head) - m->have);
            memcpy(m->head + m->have, in.p + n, part);
            m->have += (unsigned)part;
            if (m->have == sizeof(m->head)) {
                m->have = 0;
                on_head(m);
                if (check_counts(m, e) != 0)
                    return -1;
            }
        }
        n += part;
    }
    return check_counts(m, e);
}

void h2_meter_reset(struct h2_meter *m)
{
    m->resets++;
}

void h2_meter_control(struct h2_meter *m)
{
    m->control++;
}

void h2_meter_data_sent(struct h2_meter *m)
{
    m->updates = TR_MIN(m->updates + UPDATES_PER_DATA, (unsigned)MAX_UPDATES);
    m->pings = TR_MIN(m->pings + 1, (unsigned)MAX_PINGS);
}
