/*
 * Inside of the delivery client; for fetch*.c only.
 *
 * A *fetch* is one request. It waits in the queue of its *host* (one authority as seen through one
 * peer description) until the host's *name* has addresses and a slot is free, and is then run on
 * an *easy*, a curl handle that keeps what is the same for all requests to that host. Two curl
 * multis carry the easies, one for each *way*: WAY_SHARED puts many requests on one HTTP/2
 * connection, WAY_SINGLE has one request at a time on each connection.
 *
 * curl never queues by itself: it forgets the timeouts of what it queues.
 */
#ifndef TR_NET_FETCH_PRIV_H
#define TR_NET_FETCH_PRIV_H

#include "net/fetch.h"
#include "base/hmap.h"
#include "base/list.h"
#include <curl/curl.h>

enum fetch_way { WAY_SINGLE, WAY_SHARED, WAYS };

enum {
    FETCH_SINGLE_MAX = 16,     /* connections to a host with one request each */
    FETCH_SHARED_MAX = 2,      /* connections to a host that are shared */
    FETCH_STREAMS_MAX = 100,   /* requests at once on a shared connection */
    FETCH_TOTAL_MAX = 256,     /* connections of one multi, idle ones included */
    FETCH_IDLE_MS = 20 * 1000, /* idle connections go before upstream ends them */
    FETCH_LIFE_S = 600,        /* then a connection is replaced: names move */
    FETCH_TIMEOUT_MS = 30 * 1000,
    FETCH_CONNECT_MS = 5 * 1000,
    FETCH_ANSWER_MAX = 64 * 1024,
    FETCH_ANSWER_SLACK = 1024 * 1024, /* read past the limit to keep the connection; then it is cut:
                                         an endless answer must not hold a slot until the timeout */
    FETCH_HEADS = 2048,               /* all wanted fields of an answer together */
    FETCH_HEAD_MAX = 512,             /* one of them; a hostile answer cannot make us keep more */
    FETCH_HOSTS_MAX = 64,             /* hosts remembered; signed links may name any number */
    FETCH_EASY_IDLE = 32,             /* unused curl handles kept for a host */
    FETCH_NAME_MS = 1000,             /* then the resolver is asked again; it caches by TTL */
    FETCH_LEARNED_MS = 600 * 1000,    /* how long "this host speaks HTTP/1.1 only" is believed */
    FETCH_SWEEP_MS = 100,             /* stalls and deadlines of what curl does not time */
    FETCH_REST_MS = 1000,             /* over the time that a connection may be idle */
    FETCH_CA_S = 300,                 /* a changed CA file is noticed after that */
};

#define FETCH_NS(ms) ((int64_t)(ms)*1000 * 1000)

struct fetch_multi {
    struct fetch_pool *pool;
    CURLM *h;
    struct ev_timer *timer;
    int64_t armed_ns;  /* when `timer` fires, 0: not armed */
    int64_t wanted_ns; /* when curl wants to be called, 0: never */
    bool due;          /* curl wants to be called now */
};

struct fetch_sock {
    struct fetch_multi *multi;
    struct ev_io *io;
    int fd;
    bool parked; /* an idle connection: the interest stays, so that reuse costs no system call */
};

#define FETCH_POOL_MAGIC 0x46504f4cu
#define FETCH_MAGIC      0x46455443u

struct fetch_pool {
    uint32_t magic;
    struct ev_loop *loop;
    struct fetch_pool_opts o;
    CURLSH *share;
    struct fetch_multi multi[WAYS];
    struct fetch_sock **socks; /* by descriptor */
    size_t n_socks;
    struct hmap hosts;
    struct hmap names;
    struct list incoming; /* fetches not yet looked at */
    struct list queued;   /* in a host's queue (all hosts); `link` */
    struct list running;  /* in curl */
    struct list dropped;  /* cancelled from within curl */
    struct list failed;   /* ended before they came to curl; told at the next pump */
    struct ev_task task;
    struct ev_timer *sweep;
    struct ev_timer *rest; /* closes idle connections */
    unsigned rested;       /* times it did since something was under way */
    bool posted;
    bool working; /* in the pump: what comes due is seen to before it ends */
    bool resumed; /* some fetch has `resume` set */
    bool cut;     /* nobody has time any more */
    bool freed;   /* only the task is left to end */
    int in_curl;
    size_t active;
    size_t opened;
    uint32_t *conns; /* by local port: the connection's number; libcurl 7.88 has no ids */
    uint32_t n_conns;
};

/* A name and its addresses, as curl is told them. */
struct fetch_name {
    struct hnode node;
    struct fetch_pool *pool;
    char *host;
    uint16_t port;
    struct net_addr addr[NET_RESOLVE_MAX];
    size_t n;
    int64_t good_until_ns;
    struct net_lookup *lookup;
    char *pin;        /* for CURLOPT_RESOLVE */
    unsigned changes; /* of `addr` and `pin` */
    bool pinned;      /* curl has taken `pin` in */
    unsigned users;   /* hosts */
};

enum fetch_speaks { SPEAKS_UNKNOWN, SPEAKS_H1, SPEAKS_H2 };

struct fetch_host {
    struct hnode node;
    struct fetch_pool *pool;
    const struct fetch_peer *peer;
    char *url;    /* scheme://authority/ */
    char *text;   /* host:port, and the parent if there is one: for errors */
    char *parent; /* its URL with its port spelled out, or NULL */
    bool https;
    struct fetch_name *name; /* of the host or the parent; NULL for a literal address */
    struct list queue[WAYS]; /* fetches by `wait` */
    unsigned inflight[WAYS];
    unsigned users; /* fetches queued or running */
    enum fetch_speaks speaks;
    int64_t learned_ns;
    bool h2c;            /* led_h2c of fetch_easy.c applies */
    bool h2c_up;         /* there is a connection to follow on */
    unsigned h2c_epochs; /* times that one came up */
    struct list idle;    /* easies */
    unsigned n_idle;
};

struct fetch_easy {
    struct list link;
    CURL *h;
    struct fetch_host *host;
    struct fetch *f;
    long version; /* as set; -1 before */
    bool fresh;
    bool forbid;
    struct curl_slist *pin; /* addresses this request brings to curl */
    unsigned pin_change;
    char errbuf[CURL_ERROR_SIZE];
};

enum fetch_state {
    FETCH_S_INCOMING,
    FETCH_S_QUEUED,
    FETCH_S_RUNNING,
    FETCH_S_FAILED,
    FETCH_S_DONE,
};
enum fetch_head { HEAD_STATUS, HEAD_FIELDS, HEAD_DONE };

struct fetch {
    uint32_t magic;
    enum fetch_state state;
    struct list link; /* a list of the pool's, by state */
    struct list wait; /* the host's queue */
    struct fetch_pool *pool;
    struct fetch_host *host;
    struct fetch_easy *easy;
    struct fetch_opts o; /* method, url and fields point to copies below, body is borrowed */
    enum fetch_way way;
    char *method;
    char *url;
    char *target; /* path and query, sent as they are */
    struct curl_slist *fields;
    int64_t started_ns;
    int64_t deadline_ns;
    /* sending */
    int64_t body_sent; /* of `read` */
    bool sent;         /* curl has begun to send: from here on it may have been executed */
    bool lead;         /* opens the connection that others follow on (led_h2c) */
    bool lost;         /* there was none to follow on */
    unsigned epoch;    /* of the host's at the start */
    bool again;        /* curl wanted to send it a second time */
    bool paused;
    bool resume;  /* fetch_resume from within curl */
    bool dropped; /* fetch_cancel from within curl */
    bool unfit;   /* `connection_ok` said no */
    bool gave_up_reading;
    bool gave_up_writing;
    /* receiving */
    enum fetch_head head;
    int status;
    size_t heads_n;
    struct str body;
    int64_t received;
    bool cut;   /* over the limit and the slack */
    bool clean; /* curl ended it without an error: its handle may be used again */
    bool denied;
    struct net_addr denied_addr;
    struct err early; /* failed before curl */
    int64_t stall_ns; /* last time that `stall_bytes` changed */
    int64_t stall_bytes;
    struct fetch_result r;
    char heads[FETCH_HEADS];
};

/* fetch_pool.c: curl's multis on the loop. */
long fetch_idle_seconds(const struct fetch_pool *p); /* as curl wants it */
int fetch_multi_init(struct fetch_multi *m, struct fetch_pool *p, long host_max);
void fetch_multi_fini(struct fetch_multi *m);
void fetch_multi_run(struct fetch_multi *m); /* if due */
void fetch_sock_drop(struct fetch_pool *p, int fd);
void fetch_pool_post(struct fetch_pool *p); /* pump at the end of this turn */
void fetch_pool_pump(struct fetch_pool *p);

/* fetch_host.c: queues, names and slots. */
void fetch_host_take(struct fetch *f); /* find or make its host and queue it, or fail it */
void fetch_host_pump(struct fetch_host *host);
void fetch_host_requeue(struct fetch *f); /* back to the head of its queue; nothing was sent */
void fetch_host_release(struct fetch_host *host);
void fetch_host_learn(struct fetch_host *host, const struct fetch *f);
void fetch_host_free_all(struct fetch_pool *p);

/* fetch_outcome.c: what a curl code means for the request. */
void fetch_outcome_set(struct fetch *f, CURLcode code);

/* fetch_easy.c: one request on one curl handle. */
bool fetch_led_h2c(const struct fetch_host *host);
struct fetch_easy *fetch_easy_new(struct fetch_host *host);
void fetch_easy_free(struct fetch_easy *e);
int fetch_easy_start(struct fetch_easy *e, struct fetch *f, struct err *err);
void fetch_easy_stop(struct fetch *f); /* out of the multi; the easy is kept or freed */

/* fetch.c */
void fetch_fail(struct fetch *f); /* with f->early; told from the pump */
void fetch_finish(struct fetch *f);
void fetch_free(struct fetch *f);

#endif
