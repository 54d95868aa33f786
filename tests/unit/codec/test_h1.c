#include "codec/h1.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"

/* ---- running input through the parser and writing down what it says ---- */

struct run {
    struct h1_parser p;
    struct buf in;  /* given and not used yet */
    struct str log; /* events as text; pieces of a body are joined */
    bool in_body;
    bool dead;
};

static void log_head(struct run *r)
{
    const struct h1_head *h = &r->p.head;
    size_t i;

    if (r->p.kind == H1_REQUEST)
        str_addf(&r->log, "<%.*s %.*s", (int)h->method.n, h->method.p, (int)h->target.n,
                 h->target.p);
    else
        str_addf(&r->log, "<%d %.*s", h->status, (int)h->reason.n, h->reason.p);
    str_addf(&r->log, " 1.%d", h->minor);
    for (i = 0; i < h->n_fields; i++)
        str_addf(&r->log, "|%.*s=%.*s", (int)h->fields[i].name.n, h->fields[i].name.p,
                 (int)h->fields[i].value.n, h->fields[i].value.p);
    str_adds(&r->log, ">");
    if (h->host.p)
        str_addf(&r->log, " host=%.*s", (int)h->host.n, h->host.p);
    if (h->content_length >= 0)
        str_addf(&r->log, " length=%lld", (long long)h->content_length);
    str_adds(&r->log, h->chunked ? " chunked" : "");
    str_adds(&r->log, h->keep_alive ? "" : " close");
    if (h->upgrade)
        str_addf(&r->log, " upgrade=%.*s", (int)h->upgrade_to.n, h->upgrade_to.p);
    str_adds(&r->log, h->expect_continue ? " expect" : "");
    str_adds(&r->log, "\n");
}

static void log_event(struct run *r, enum h1_event ev, struct view body, const struct err *e)
{
    if (r->in_body && ev != H1_BODY && ev != H1_MORE) {
        str_adds(&r->log, "\n");
        r->in_body = false;
    }
    switch (ev) {
    case H1_HEAD:
        log_head(r);
        break;
    case H1_BODY:
        assert_true(body.n > 0);
        if (!r->in_body)
            str_adds(&r->log, "body ");
        r->in_body = true;
        str_addv(&r->log, body);
        break;
    case H1_END:
        str_adds(&r->log, "end\n");
        break;
    case H1_ERROR:
        assert_true(r->p.status >= 400);
        assert_string_not_equal(e->text, "");
        str_addf(&r->log, "error %d\n", r->p.status);
        r->dead = true;
        break;
    case H1_MORE:
        break;
    }
}

static void run_feed(struct run *r, struct view piece)
{
    /* Given at the end of a block of its own, so that a sanitizer sees a read beyond it. */
    char *copy;
    size_t n, off = 0;

    buf_add(&r->in, piece.p, piece.n);
    n = buf_len(&r->in);
    copy = malloc(n ? n : 1);
    if (n)
        memcpy(copy, buf_data(&r->in), n);
    while (!r->dead) {
        struct err e = {ERR_NONE, ""};
        struct view body;
        size_t used;
        enum h1_event ev = h1_next(&r->p, view_of(copy + off, n - off), &used, &body, &e);

        assert_true(used <= n - off);
        off += used;
        log_event(r, ev, body, &e);
        if (ev == H1_MORE)
            break;
    }
    buf_consume(&r->in, off);
    free(copy);
}

static void run_begin(struct run *r, enum h1_kind kind, bool head_only)
{
    h1_init(&r->p, kind);
    r->p.head_only = head_only;
    r->in = BUF_INIT;
    r->log = STR_INIT;
    r->in_body = r->dead = false;
}

static void run_end(struct run *r)
{
    if (r->in_body)
        str_adds(&r->log, "\n");
    if (!r->dead)
        str_adds(&r->log, h1_eof_ok(&r->p) ? "eof\n" : "cut\n");
    buf_fini(&r->in);
}

struct row {
    const char *name;
    const char *in;
    const char *want;
    bool head_only;
};

/* Every way to cut the input in two, whole and byte by byte: the same events. */
static void check_row(enum h1_kind kind, const struct row *row)
{
    struct view in = view_str(row->in);
    size_t cut, i;

    for (cut = 0; cut <= in.n + 1; cut++) {
        struct run r;

        run_begin(&r, kind, row->head_only);
        if (cut <= in.n) {
            run_feed(&r, view_of(in.p, cut));
            run_feed(&r, view_from(in, cut));
        } else {
            for (i = 0; i < in.n; i++)
                run_feed(&r, view_of(in.p + i, 1));
        }
        run_end(&r);
        if (strcmp(str_c(&r.log), row->want) != 0)
            fail_msg("%s, cut at %zu of %zu:\n%s--- wanted:\n%s", row->name, cut, in.n,
                     str_c(&r.log), row->want);
        str_fini(&r.log);
    }
}

#define REQ(fields) "PUT /s HTTP/1.1\r\nHost: h\r\n" fields "\r\n"

static void test_requests(void **state)
{
    static const struct row rows[] = {
        {"plain", "GET /a?b=c HTTP/1.1\r\nHost: h:80\r\n\r\n",
         "<GET /a?b=c 1.1|Host=h:80> host=h:80\nend\neof\n", 0},
        {"lite-engine",
         "PUT /stream?accountID=a&key=accountId:a/orgId:default HTTP/1.1\r\n"
         "Host: 127.9.0.15:8079\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: 2\r\n"
         "X-Harness-Token: t=\r\nAccept-Encoding: gzip\r\n\r\n[]",
         "<PUT /stream?accountID=a&key=accountId:a/orgId:default 1.1|Host=127.9.0.15:8079|"
         "User-Agent=Go-http-client/1.1|Content-Length=2|X-Harness-Token=t=|Accept-Encoding=gzip>"
         " host=127.9.0.15:8079 length=2\nbody []\nend\neof\n",
         0},
        {"two in a row", REQ("Content-Length: 3\r\n") "abc" REQ("Content-Length: 0\r\n") "GET",
         "<PUT /s 1.1|Host=h|Content-Length=3> host=h length=3\nbody abc\nend\n"
         "<PUT /s 1.1|Host=h|Content-Length=0> host=h length=0\nend\ncut\n",
         0},
        {"empty line in front", "\r\nGET / HTTP/1.1\r\nHost:h\r\n\r\n\r\n",
         "<GET / 1.1|Host=h> host=h\nend\neof\n", 0},
        {"white space around values", REQ("A: \t b c\t \r\nB:\r\nC:   \r\n"),
         "<PUT /s 1.1|Host=h|A=b c|B=|C=> host=h\nend\neof\n", 0},
        {"high bytes", "GET /\xc3\xa4 HTTP/1.1\r\nhOsT: h\r\nA: \xff\r\n\r\n",
         "<GET /\xc3\xa4 1.1|hOsT=h|A=\xff> host=h\nend\neof\n", 0},
        {"1.0", "GET / HTTP/1.0\r\n\r\n", "<GET / 1.0> close\nend\neof\n", 0},
        {"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
         "<GET / 1.0|Connection=Keep-Alive>\nend\neof\n", 0},
        {"close in a list", REQ("Connection: x , CLOSE,y\r\n"),
         "<PUT /s 1.1|Host=h|Connection=x , CLOSE,y> host=h close\nend\neof\n", 0},
        {"close beats keep-alive", REQ("Connection: keep-alive\r\nConnection: close\r\n"),
         "<PUT /s 1.1|Host=h|Connection=keep-alive|Connection=close> host=h close\nend\neof\n", 0},
        {"upgrade", REQ("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
         "<PUT /s 1.1|Host=h|Connection=keep-alive, Upgrade|Upgrade=websocket> host=h"
         " upgrade=websocket\nend\neof\n",
         0},
        {"upgrade not in Connection", REQ("Upgrade: websocket\r\n"),
         "<PUT /s 1.1|Host=h|Upgrade=websocket> host=h\nend\neof\n", 0},
        {"upgrade in 1.0", "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: w\r\n\r\n",
         "<GET / 1.0|Connection=upgrade|Upgrade=w> close\nend\neof\n", 0},
        {"expect", REQ("Expect: 100-Continue\r\nContent-Length: 1\r\n") "x",
         "<PUT /s 1.1|Host=h|Expect=100-Continue|Content-Length=1> host=h length=1 expect\n"
         "body x\nend\neof\n",
         0},
        {"CONNECT", "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n",
         "<CONNECT h:443 1.1|Host=h:443> host=h:443\nend\neof\n", 0},
        {"CONNECT with an empty body",
         "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
         "<CONNECT h:1 1.1|Host=h|Content-Length=0> host=h length=0\nend\neof\n", 0},
        {"chunked",
         REQ("Transfer-Encoding: chunked\r\n") "5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nbody hello0123456789\n"
         "end\neof\n",
         0},
        {"chunk extensions",
         REQ("Transfer-Encoding: Chunked\r\n") "001;a=\"b\"\r\nx\r\n0;z\r\n\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=Chunked> host=h chunked\nbody x\nend\neof\n", 0},
        {"trailers",
         REQ("Transfer-Encoding: chunked\r\n") "1\r\nx\r\n0\r\nA: b\r\nC: d\r\n\r\n"
                                               "GET / HTTP/1.0\r\n\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nbody x\nend\n"
         "<GET / 1.0> close\nend\neof\n",
         0},
        {"empty chunked", REQ("Transfer-Encoding: chunked\r\n") "0\r\n\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nend\neof\n", 0},
        {"cut in a body", REQ("Content-Length: 3\r\n") "ab",
         "<PUT /s 1.1|Host=h|Content-Length=3> host=h length=3\nbody ab\ncut\n", 0},
        {"cut in the last chunk", REQ("Transfer-Encoding: chunked\r\n") "0\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\ncut\n", 0},
        {"largest length", REQ("Content-Length: 999999999999999999\r\n"),
         "<PUT /s 1.1|Host=h|Content-Length=999999999999999999> host=h length=999999999999999999\n"
         "cut\n",
         0},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++)
        check_row(H1_REQUEST, &rows[i]);
}

#define BAD_CHUNK(text)                                                                            \
    {                                                                                              \
        text, REQ("Transfer-Encoding: chunked\r\n") text,                                          \
            "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nerror 400\n", 0         \
    }
#define BAD(status, text)                                                                          \
    {                                                                                              \
        text, text, "error " #status "\n", 0                                                       \
    }
#define BAD_FIELDS(status, text)                                                                   \
    {                                                                                              \
        text, REQ(text), "error " #status "\n", 0                                                  \
    }

/* Where two parsers could disagree, this one refuses. */
static void test_bad_requests(void **state)
{
    static const struct row rows[] = {
        BAD_FIELDS(400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        BAD_FIELDS(400, "Content-Length: 5\r\nContent-Length: 5\r\n"),
        BAD_FIELDS(400, "Content-Length: 5\r\nContent-Length: 6\r\n"),
        BAD_FIELDS(400, "Content-Length: 5, 5\r\n"),
        BAD_FIELDS(400, "Content-Length: +5\r\n"),
        BAD_FIELDS(400, "Content-Length: -5\r\n"),
        BAD_FIELDS(400, "Content-Length: 0x5\r\n"),
        BAD_FIELDS(400, "Content-Length: 5 5\r\n"),
        BAD_FIELDS(400, "Content-Length:\r\n"),
        BAD_FIELDS(400, "Content-Length: 9223372036854775808\r\n"),
        BAD_FIELDS(400, "Content-Length: 18446744073709551617\r\n"),
        BAD_FIELDS(400, "Content-Length : 5\r\n"),
        BAD_FIELDS(400, "Content-Length\t: 5\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked, chunked\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: gzip, chunked\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked,\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding:\r\n"),
        BAD_FIELDS(501, "Transfer-Encoding: identity\r\n"),
        BAD_FIELDS(501, "Transfer-Encoding: xchunked\r\n"),
        BAD_FIELDS(501, "Transfer-Encoding: \"chunked\"\r\n"),
        BAD_FIELDS(501, "Transfer-Encoding: chunked;q=1\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding: chunked\x0b\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding : chunked\r\n"),
        BAD_FIELDS(400, "Transfer-Encoding\r\n : chunked\r\n"),
        BAD_FIELDS(400, "A: b\r\n c\r\n"),
        BAD_FIELDS(400, "A: b\r\n\tc: d\r\n"),
        BAD_FIELDS(400, " A: b\r\n"),
        BAD_FIELDS(400, "A: b\rc\r\n"),
        BAD_FIELDS(400, "A: b\r\r\n"),
        BAD_FIELDS(400, "A: b\nC: d\r\n"),
        BAD_FIELDS(400, "A: b\x7f\r\n"),
        BAD_FIELDS(400, "A: b\x01\r\n"),
        BAD_FIELDS(400, "A\r\n"),
        BAD_FIELDS(400, ": b\r\n"),
        BAD_FIELDS(400, "A b: c\r\n"),
        BAD_FIELDS(400, "A\xc3\xa4: c\r\n"),
        BAD_FIELDS(400, "A(b): c\r\n"),
        BAD_FIELDS(400, "Host: h\r\n"),
        BAD_FIELDS(417, "Expect: 200-ok\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"),
        BAD(400, "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"),
        BAD(400, "CONNECT h:1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, "GET /\r\n\r\n"),
        BAD(400, "GET\r\n\r\n"),
        BAD(400, " GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /\t HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET /#f HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "G@T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        BAD(400, "GET / http/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/11\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
        BAD(505, "GET / HTTP/0.9\r\nHost: h\r\n\r\n"),
        BAD(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        BAD(400, "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "\rGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\nHost: h\n\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: h\n\r\n"),
        BAD(400, "\x16\x03\x01\x02\n"),
        BAD_CHUNK("-1\r\n"),
        BAD_CHUNK("+1\r\nx\r\n"),
        BAD_CHUNK("0x1\r\nx\r\n"),
        BAD_CHUNK("\r\n"),
        BAD_CHUNK("g\r\n"),
        BAD_CHUNK(" 1\r\nx\r\n"),
        BAD_CHUNK("1 \r\nx\r\n"),
        BAD_CHUNK("1 ;a\r\nx\r\n"),
        BAD_CHUNK("1\nx\r\n"),
        BAD_CHUNK("1;a\rb\r\nx\r\n"),
        BAD_CHUNK("1,\r\nx\r\n"),
        BAD_CHUNK("8000000000000000\r\n"),
        BAD_CHUNK("ffffffffffffffff\r\n"),
        BAD_CHUNK("10000000000000000\r\n"),
        BAD_CHUNK("00000000000000001\r\nx\r\n"),
        BAD_CHUNK("0\r\nContent-Length: 1\r\n\r\n"),
        BAD_CHUNK("0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD_CHUNK("0\r\nA : b\r\n\r\n"),
        BAD_CHUNK("0\r\n A: b\r\n\r\n"),
        BAD_CHUNK("0\r\nA: b\n\r\n"),
        {"chunk longer than it says", REQ("Transfer-Encoding: chunked\r\n") "1\r\nxyz",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nbody x\nerror 400\n", 0},
        {"chunk ended by LF", REQ("Transfer-Encoding: chunked\r\n") "1\r\nx\n0\r\n\r\n",
         "<PUT /s 1.1|Host=h|Transfer-Encoding=chunked> host=h chunked\nbody x\nerror 400\n", 0},
        {"second one bad", REQ("") "X\r\n\r\n", "<PUT /s 1.1|Host=h> host=h\nend\nerror 400\n", 0},
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++)
        check_row(H1_REQUEST, &rows[i]);
}

static void test_nul_bytes(void **state)
{
    static const struct view rows[] = {
        VIEW_LIT("GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n"),
        VIEW_LIT("GET / HTTP/1.1\r\nHost: h\r\nA: \0\r\n\r\n"),
        VIEW_LIT("GET / HTTP/1.1\r\nHost: h\r\nA\0: b\r\n\r\n"),
        VIEW_LIT("\0GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++) {
        struct run r;

        run_begin(&r, H1_REQUEST, false);
        run_feed(&r, rows[i]);
        run_end(&r);
        assert_string_equal(str_c(&r.log), "error 400\n");
        str_fini(&r.log);
    }
}

static void test_responses(void **state)
{
    static const struct row rows[] = {
        {"204",
         "HTTP/1.1 204 No Content\r\nDate: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
         "<204 No Content 1.1|Date=x>\nend\n<200 OK 1.1|Content-Length=2> length=2\nbody hi\n"
         "end\neof\n",
         0},
        {"no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n",
         "<200  1.1|Content-Length=0> length=0\nend\neof\n", 0},
        {"not even a space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
         "<200  1.1|Content-Length=0> length=0\nend\neof\n", 0},
        {"until close", "HTTP/1.0 200 OK\r\n\r\nabc", "<200 OK 1.0> close\nbody abc\neof\n", 0},
        {"interim",
         "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
         "1\r\nx\r\n0\r\n\r\n",
         "<100 Continue 1.1>\nend\n<200 OK 1.1|Transfer-Encoding=chunked> chunked\nbody x\nend\n"
         "eof\n",
         0},
        {"to HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 404 No\r\n\r\n",
         "<200 OK 1.1|Content-Length=9> length=9\nend\n<404 No 1.1>\nend\neof\n", 1},
        {"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
         "<304 Not Modified 1.1|Content-Length=9> length=9\nend\neof\n", 0},
        {"101",
         "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "<101 Switching Protocols 1.1|Connection=Upgrade|Upgrade=websocket> upgrade=websocket\n"
         "end\neof\n",
         0},
        {"Host means nothing", "HTTP/1.1 204 x\r\nHost: a\r\nHost: b c\r\nExpect: y\r\n\r\n",
         "<204 x 1.1|Host=a|Host=b c|Expect=y>\nend\neof\n", 0},
        {"cut body", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
         "<200 OK 1.1|Content-Length=2> length=2\nbody x\ncut\n", 0},
        {"both lengths",
         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
         "error 400\n", 0},
        BAD(400, "HTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, "HTTP/1.1 20 OK\r\n\r\n"),
        BAD(400, "HTTP/1.1 2000 OK\r\n\r\n"),
        BAD(400, "HTTP/1.1 099 OK\r\n\r\n"),
        BAD(400, "HTTP/1.1  200 OK\r\n\r\n"),
        BAD(400, "HTTP/1.1 200 a\x01\r\n\r\n"),
        BAD(505, "HTTP/2.0 200 OK\r\n\r\n"),
        BAD(400, "ICY 200 OKAY xx\r\n\r\n"),
        BAD(400, "\r\nHTTP/1.1 200 OK\r\n\r\n"),
        BAD(400, "SSH-2.0-OpenSSH\r\n\r\n"),
        BAD(501, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    };
    size_t i;

    for (i = 0; i < ARRAY_LEN(rows); i++)
        check_row(H1_RESPONSE, &rows[i]);
}

/* The caller knows only from the status whether CONNECT worked: head_only may be set after HEAD. */
static void test_head_only_after_head(void **state)
{
    struct view in = VIEW_LIT("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntunnel"), body;
    struct h1_parser p;
    size_t used;

    h1_init(&p, H1_RESPONSE);
    assert_int_equal(h1_next(&p, in, &used, &body, NULL), H1_HEAD);
    assert_int_equal(used, in.n - 6);
    p.head_only = true;
    assert_int_equal(h1_next(&p, view_from(in, used), &used, &body, NULL), H1_END);
    assert_int_equal(used, 0);
}

/* ---- limits ---- */

static int status_of(enum h1_kind kind, const struct str *text, size_t piece)
{
    struct h1_parser p;
    struct view body;
    size_t used, n;
    enum h1_event ev = H1_MORE;

    h1_init(&p, kind);
    for (n = TR_MIN(piece, text->n); ev == H1_MORE; n = TR_MIN(n + piece, text->n)) {
        ev = h1_next(&p, view_of(text->p, n), &used, &body, NULL);
        if (ev == H1_MORE && n == text->n)
            return 0;
    }
    return ev == H1_ERROR ? p.status : 200;
}

static void add_times(struct str *s, char c, size_t n)
{
    while (n--)
        str_addc(s, c);
}

static void check_status(const struct str *text, int want)
{
    static const size_t pieces[] = {1, 7, 4096, 1 << 20};
    size_t i;

    for (i = 0; i < ARRAY_LEN(pieces); i++) {
        if (pieces[i] == 1 && text->n > 20000)
            continue;
        assert_int_equal(status_of(H1_REQUEST, text, pieces[i]), want);
    }
}

static void test_start_line_limit(void **state)
{
    struct str s = STR_INIT;
    size_t over;

    for (over = 0; over < 2; over++) {
        str_clear(&s);
        str_adds(&s, "GET /");
        add_times(&s, 'a', H1_MAX_START_LINE - 14 + over);
        str_adds(&s, " HTTP/1.1\r\nHost: h\r\n\r\n");
        check_status(&s, over ? 414 : 200);
    }
    str_clear(&s);
    add_times(&s, 'a', H1_MAX_START_LINE + 2); /* refused before its end is seen */
    check_status(&s, 414);
    str_fini(&s);
}

static void test_head_limit(void **state)
{
    struct str s = STR_INIT;
    size_t over;

    for (over = 0; over < 2; over++) {
        str_clear(&s);
        str_adds(&s, "GET / HTTP/1.1\r\nHost: h\r\nA: ");
        add_times(&s, 'b', H1_MAX_HEAD - s.n - 4 + over);
        str_adds(&s, "\r\n\r\n");
        check_status(&s, over ? 431 : 200);
    }
    str_fini(&s);
}

static void test_field_limit(void **state)
{
    struct str s = STR_INIT;
    int over, i;

    for (over = 0; over < 2; over++) {
        str_clear(&s);
        str_adds(&s, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (i = 1; i < H1_MAX_FIELDS + over; i++)
            str_adds(&s, "A:\r\n");
        str_adds(&s, "\r\n");
        check_status(&s, over ? 431 : 200);
    }
    str_fini(&s);
}

static void test_chunk_limits(void **state)
{
    struct str s = STR_INIT;
    struct run r;
    int i;

    str_adds(&s, REQ("Transfer-Encoding: chunked\r\n") "1;");
    add_times(&s, 'x', H1_MAX_CHUNK_LINE - 1);
    run_begin(&r, H1_REQUEST, false);
    run_feed(&r, str_view(&s));
    assert_false(r.dead);
    run_feed(&r, VIEW_LIT("x"));
    assert_true(r.dead);
    assert_int_equal(r.p.status, 400);
    run_end(&r);
    str_fini(&r.log);

    str_clear(&s);
    str_adds(&s, REQ("Transfer-Encoding: chunked\r\n") "0\r\n");
    for (i = 0; i < 2000; i++)
        str_adds(&s, "Abc: d\r\n");
    run_begin(&r, H1_REQUEST, false);
    run_feed(&r, str_view(&s));
    assert_true(r.dead);
    assert_int_equal(r.p.status, 431);
    run_end(&r);
    str_fini(&r.log);
    str_fini(&s);
}

/* A dead parser stays dead and says the same. */
static void test_dead(void **state)
{
    struct h1_parser p;
    struct view body;
    struct err e;
    size_t used;

    h1_init(&p, H1_REQUEST);
    assert_int_equal(h1_next(&p, VIEW_LIT("\n"), &used, &body, &e), H1_ERROR);
    assert_int_equal(h1_next(&p, VIEW_LIT("GET / HTTP/1.0\r\n\r\n"), &used, &body, &e), H1_ERROR);
    assert_int_equal(used, 0);
    assert_int_equal(p.status, 400);
    assert_false(h1_eof_ok(&p));
}

/* ---- writers ---- */

static void test_writers(void **state)
{
    struct str s = STR_INIT;

    h1_write_request(&s, VIEW_LIT("PUT"), VIEW_LIT("/s?k=\xc3\xa4"));
    h1_write_field(&s, VIEW_LIT("Host"), VIEW_LIT("h:1"));
    h1_write_field(&s, VIEW_LIT("Empty"), VIEW_LIT(""));
    h1_write_end(&s);
    assert_string_equal(str_c(&s), "PUT /s?k=\xc3\xa4 HTTP/1.1\r\nHost: h:1\r\nEmpty: \r\n\r\n");
    assert_int_equal(status_of(H1_REQUEST, &s, 1), 200);
    str_clear(&s);
    h1_write_status(&s, 204);
    h1_write_status(&s, 599);
    h1_write_chunk_head(&s, 255);
    str_addv(&s, h1_last_chunk);
    assert_string_equal(str_c(&s), "HTTP/1.1 204 No Content\r\nHTTP/1.1 599 \r\nff\r\n0\r\n\r\n");
    str_fini(&s);
}

static void test_field_lookup(void **state)
{
    static const struct view in = VIEW_LIT("GET / HTTP/1.0\r\nA: 1\r\nB:\r\na: 2\r\n\r\n");
    struct h1_parser p;
    struct view body;
    size_t used;

    h1_init(&p, H1_REQUEST);
    assert_int_equal(h1_next(&p, in, &used, &body, NULL), H1_HEAD);
    assert_true(view_is(h1_field(&p.head, "a"), "1"));
    assert_non_null(h1_field(&p.head, "b").p);
    assert_int_equal(h1_field(&p.head, "b").n, 0);
    assert_null(h1_field(&p.head, "c").p);
}

static void write_bad_name(void)
{
    struct str s = STR_INIT;

    h1_write_field(&s, VIEW_LIT("a:b"), VIEW_LIT("c"));
}

static void write_bad_value(void)
{
    struct str s = STR_INIT;

    h1_write_field(&s, VIEW_LIT("a"), VIEW_LIT("c\r\nd: e"));
}

static void write_bad_target(void)
{
    struct str s = STR_INIT;

    h1_write_request(&s, VIEW_LIT("GET"), VIEW_LIT("/a HTTP/1.1\r\n"));
}

static void write_empty_chunk(void)
{
    struct str s = STR_INIT;

    h1_write_chunk_head(&s, 0);
}

/* What would not parse is a bug of ours: it ends the program before it reaches the wire. */
static void test_writers_abort(void **state)
{
    static void (*const fns[])(void) = {write_bad_name, write_bad_value, write_bad_target,
                                        write_empty_chunk};
    size_t i;

    for (i = 0; i < ARRAY_LEN(fns); i++) {
        int status;
        pid_t pid = fork();

        if (pid == 0) {
            signal(SIGABRT, SIG_DFL);
            if (!freopen("/dev/null", "w", stderr))
                _exit(2);
            fns[i]();
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_bad_requests),
        cmocka_unit_test(test_nul_bytes),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_head_only_after_head),
        cmocka_unit_test(test_start_line_limit),
        cmocka_unit_test(test_head_limit),
        cmocka_unit_test(test_field_limit),
        cmocka_unit_test(test_chunk_limits),
        cmocka_unit_test(test_dead),
        cmocka_unit_test(test_writers),
        cmocka_unit_test(test_field_lookup),
        cmocka_unit_test(test_writers_abort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
