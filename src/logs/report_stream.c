#include "logs/report_stream.h"

#include <stdio.h>
#include "base/bug.h"
#include "logs/cred.h"
#include "logs/logs_priv.h"
#include "rt/clock.h"
#include "rt/json.h"

enum { LIVES_SHOWN = STREAM_MAX_LIVES + 1, BLOBS_COUNTED = 1000 };

/* --- questions ---------------------------------------------------------------------------- */

static unsigned char small(char c)
{
    return (unsigned char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool report_holds(struct view text, struct view part)
{
    size_t at, i;

    for (at = 0; at + part.n <= text.n; at++) {
        for (i = 0; i < part.n && small(text.p[at + i]) == (unsigned char)part.p[i]; i++)
            ;
        if (i == part.n)
            return true;
    }
    return false;
}

const char *report_stream_state(const struct stream *s, int64_t mono)
{
    const struct life *l = stream_last(s);

    if (s->held_until > mono)
        return "held";
    if (!l)
        return "open"; /* its first call is on its way to the disk */
    if (l->closed_wall)
        return l->done ? "closed" : "closing";
    return l->ended ? "ended" : "open";
}

bool report_stream_wanted(const struct stream *s, enum report_state state, struct view search,
                          int64_t mono)
{
    const struct life *l = stream_last(s);
    bool closed = l && (l->closed_wall || l->ended);

    if ((state == REPORT_WAITING && !stream_waits(s)) || (state == REPORT_OPEN && closed) ||
        (state == REPORT_CLOSED && !closed) || (state == REPORT_HELD && s->held_until <= mono) ||
        (state == REPORT_DEAD && !s->place.story.dead))
        return false;
    return !search.n || report_holds(s->key_v, search) || report_holds(s->account_v, search);
}

uint64_t report_stream_rank(const struct stream *s, enum report_sort sort)
{
    int64_t oldest;

    switch (sort) {
    case REPORT_AGE:
        oldest = stream_oldest_ns(s);
        return oldest ? (uint64_t)oldest : UINT64_MAX;
    case REPORT_BACKLOG:
        return UINT64_MAX - stream_backlog_lines(s);
    case REPORT_IDLE:
        return (uint64_t)s->last_call;
    case REPORT_RECENT:
        return UINT64_MAX - (uint64_t)s->last_call;
    case REPORT_NAME:
        return 0;
    }
    BUG("unknown order");
}

/* --- one stream --------------------------------------------------------------------------- */

struct backlog {
    uint64_t lines, records, bytes;
};

static void add_list(const struct list *head, struct backlog *b)
{
    const struct list *it;

    for (it = head->next; it != head; it = it->next)
        b->bytes += list_entry(it, struct record, link)->size;
}

static void add_queue(const struct queue *q, struct backlog *b)
{
    const struct list *it;

    b->records += queue_count(q);
    b->lines += queue_lines(q);
    add_list(&q->front, b);
    add_list(&q->tail, b);
    for (it = q->pages.next; it != &q->pages; it = it->next)
        b->bytes += list_entry(it, struct page, link)->bytes;
}

static struct backlog backlog_of(const struct stream *s)
{
    struct backlog b = {0};
    const struct list *it;

    for (it = s->lives.next; it != &s->lives; it = it->next) {
        const struct life *l = list_entry(it, struct life, link);

        add_queue(&l->lines, &b);
        add_queue(&l->stuck, &b);
    }
    return b;
}

static uint64_t blobs_of(const struct stream *s)
{
    const struct list *it;
    uint64_t n = 0;

    for (it = s->blobs.next; it != &s->blobs && n < BLOBS_COUNTED; it = it->next)
        n++;
    return n;
}

static const char *route_of(const struct stream *s)
{
    const struct shard *sh = s->place.owner;

    if (atomic_load(&sh->logs->hub))
        return "hub";
    if (sh->settings->upload == UPLOAD_GOOGLEAPIS ||
        (sh->settings->upload == UPLOAD_FOLLOW && s->place.story.by_link))
        return "object-store";
    return "log-service";
}

/* When something is tried again that has failed, or -1. */
static int64_t retry_in(const struct stream *s, int64_t mono)
{
    int64_t at = INT64_MAX;
    int lane;

    for (lane = 0; lane < LANE_COUNT; lane++) {
        const struct lane *l = &s->lanes[lane];

        if (!l->busy && l->not_before > mono)
            at = TR_MIN(at, l->not_before);
    }
    if (s->held_until > mono)
        at = at == INT64_MAX ? s->held_until : TR_MAX(at, s->held_until);
    return at == INT64_MAX || !stream_waits(s) ? -1 : at - mono;
}

static void add_error(struct json *j, const struct stream_story *st)
{
    if (!st->failed_at) {
        json_nothing(j, "last_error");
        return;
    }
    json_open(j, "last_error", '{');
    json_time(j, "time", st->failed_at);
    if (st->status)
        json_int(j, "status", st->status);
    else
        json_nothing(j, "status");
    json_text(j, "text", view_str(st->said));
    json_close(j, '}');
}

/* --- detail ------------------------------------------------------------------------------- */

static const char *open_name(enum open_state o)
{
    static const char *const names[] = {[OPEN_NONE] = "not through here",
                                        [OPEN_PENDING] = "to be sent",
                                        [OPEN_UNKNOWN] = "unknown",
                                        [OPEN_DONE] = "done"};

    return names[o];
}

static void add_life(struct json *j, const struct life *l)
{
    struct backlog waiting = {0}, stuck = {0};

    add_queue(&l->lines, &waiting);
    add_queue(&l->stuck, &stuck);
    json_open(j, NULL, '{');
    json_time(j, "since", l->since_wall);
    json_time(j, "closed", l->closed_wall);
    json_text(j, "open_upstream", view_str(open_name(l->open)));
    json_bool(j, "closing", l->closing);
    json_bool(j, "ended", l->ended);
    json_bool(j, "done", l->done);
    json_uint(j, "lines_waiting", waiting.lines);
    json_uint(j, "lines_kept_for_the_end", stuck.lines);
    json_uint(j, "lines_delivered", l->n_delivered);
    json_bool(j, "log_stored", l->blob_full);
    json_bool(j, "upload_broken", l->broken);
    json_close(j, '}');
}

static void add_lives(struct json *j, const struct stream *s)
{
    const struct list *it;
    size_t n = 0;

    json_open(j, "lives", '[');
    for (it = s->lives.next; it != &s->lives && n < LIVES_SHOWN; it = it->next, n++)
        add_life(j, list_entry(it, struct life, link));
    json_close(j, ']');
}

static void add_edges(struct json *j, const struct stream *s)
{
    char text[20];
    size_t i;

    json_open(j, "edges", '[');
    for (i = 0; i < STREAM_EDGES; i++) {
        if (!s->edges[i].edge)
            continue;
        snprintf(text, sizeof(text), "%016llx", (unsigned long long)s->edges[i].edge);
        json_open(j, NULL, '{');
        json_text(j, "edge", view_str(text));
        json_uint(j, "last_record", s->edges[i].last);
        json_close(j, '}');
    }
    json_close(j, ']');
}

static void add_detail(struct json *j, const struct stream *s, struct stream_now now)
{
    struct creds *creds = ((const struct shard *)s->place.owner)->logs->creds;
    int i;

    json_text(j, "credential",
              view_str(!s->cred                          ? "none"
                       : s->held_until > now.mono        ? "refused"
                       : cred_known_good(creds, s->cred) ? "accepted"
                       : cred_usable(creds, s->cred)     ? "not known yet"
                                                         : "refused"));
    add_lives(j, s);
    json_open(j, "events", '[');
    for (i = 0; i < NOTE_N; i++) {
        if (s->place.story.events & (1u << i))
            json_text(j, NULL, view_str(shard_note_event((enum stream_note)i)));
    }
    json_close(j, ']');
    add_edges(j, s);
}

void report_stream_json(const struct stream *s, struct stream_now now, bool detail, struct str *out)
{
    const struct life *l = stream_last(s);
    const struct stream_story *st = &s->place.story;
    const struct shard *sh = s->place.owner;
    struct backlog b = backlog_of(s);
    struct json j = json_to(out);

    json_open(&j, NULL, '{');
    json_text(&j, "account", s->account_v);
    json_text(&j, "key", s->key_v);
    json_text(&j, "state", view_str(report_stream_state(s, now.mono)));
    json_text(&j, "route", view_str(route_of(s)));
    json_time(&j, "opened", l ? l->since_wall : 0);
    json_time(&j, "last_call", s->last_call ? now.wall - (now.mono - s->last_call) : 0);
    json_time(&j, "oldest", stream_oldest_ns(s));
    json_uint(&j, "backlog_lines", b.lines);
    json_uint(&j, "backlog_records", b.records);
    json_uint(&j, "backlog_bytes", b.bytes);
    json_uint(&j, "lines", l && l->id == st->life ? st->lines : 0);
    json_uint(&j, "blobs_waiting", blobs_of(s));
    json_uint(&j, "dead", st->dead);
    json_uint(&j, "worker", sh->index);
    json_bool(&j, "in_flight", s->lanes[LANE_LINES].busy || s->lanes[LANE_BLOBS].busy);
    json_seconds(&j, "retry_in_seconds", retry_in(s, now.mono));
    add_error(&j, st);
    if (detail)
        add_detail(&j, s, now);
    json_close(&j, '}');
}
