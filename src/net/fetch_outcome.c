/* What the end of a transfer means: answered, certainly not sent, or unknown; and why, in words. */
#include "net/fetch_priv.h"
#include "base/bug.h"

static const struct reason {
    CURLcode curl;
    enum err_code code;
    const char *text;
    bool detail; /* curl's own words are safe (no URL, no header) and say more */
} reasons[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ERR_UNAVAIL, "its name cannot be resolved", false},
    {CURLE_COULDNT_RESOLVE_PROXY, ERR_UNAVAIL, "the parent's name cannot be resolved", false},
    {CURLE_COULDNT_CONNECT, ERR_UNAVAIL, "cannot connect", false},
    {CURLE_SSL_CONNECT_ERROR, ERR_UNAVAIL, "the TLS handshake failed", true},
    {CURLE_PEER_FAILED_VERIFICATION, ERR_DENIED, "its certificate is not trusted", true},
    {CURLE_SSL_CACERT_BADFILE, ERR_INVALID, "the CA file cannot be used", true},
    {CURLE_SSL_CERTPROBLEM, ERR_INVALID, "the client certificate cannot be used", true},
    {CURLE_SSL_CIPHER, ERR_UNAVAIL, "no TLS cipher in common", false},
    {CURLE_SSL_ISSUER_ERROR, ERR_DENIED, "the issuer of its certificate is wrong", false},
    {CURLE_SEND_ERROR, ERR_CLOSED, "the connection broke while sending", false},
    {CURLE_RECV_ERROR, ERR_CLOSED, "the connection broke before the answer was complete", false},
    {CURLE_GOT_NOTHING, ERR_CLOSED, "the connection was closed without an answer", false},
    {CURLE_PARTIAL_FILE, ERR_CLOSED, "the connection was closed within the answer", false},
    {CURLE_HTTP2, ERR_CLOSED, "the HTTP/2 connection failed", true},
    {CURLE_HTTP2_STREAM, ERR_CLOSED, "the HTTP/2 stream was reset", true},
    {CURLE_UNSUPPORTED_PROTOCOL, ERR_UNAVAIL, "the answer is not HTTP", false},
    {CURLE_WEIRD_SERVER_REPLY, ERR_UNAVAIL, "the answer is not valid HTTP", false},
    {CURLE_BAD_CONTENT_ENCODING, ERR_UNAVAIL, "the answer is not valid HTTP", false},
};

/* curl's words may quote what a peer sent, such as names in a certificate: printable, and short. */
static void add_detail(struct err *e, const char *detail)
{
    size_t n = strlen(e->text);

    if (!*detail || n + 4 >= sizeof(e->text))
        return;
    e->text[n++] = ':';
    e->text[n++] = ' ';
    for (; *detail && n + 1 < sizeof(e->text); detail++)
        e->text[n++] = *detail >= 0x20 && *detail < 0x7f ? *detail : '.';
    e->text[n] = '\0';
}

static void say_timeout(struct fetch *f)
{
    const char *text = f->host->text;

    if (f->r.outcome == FETCH_NOT_SENT)
        err_set(&f->r.err, ERR_TIMEOUT, "%s: no connection within %u ms", text,
                TR_MIN(f->o.connect_ms, f->o.timeout_ms));
    else
        err_set(&f->r.err, ERR_TIMEOUT, "%s: no complete answer within %u ms", text,
                f->o.timeout_ms);
}

/* Ends that we caused. */
static bool say_own(struct fetch *f)
{
    const char *text = f->host->text;
    char addr[NET_ADDR_TEXT];

    if (f->again)
        err_set(&f->r.err, ERR_CLOSED,
                "%s: the connection broke before an answer; the request is not repeated", text);
    else if (f->unfit)
        err_set(&f->r.err, ERR_UNAVAIL, "%s: the connection may not carry this request", text);
    else if (f->gave_up_reading)
        err_set(&f->r.err, ERR_CLOSED, "%s: the body could not be sent to its end", text);
    else if (f->gave_up_writing)
        err_set(&f->r.err, ERR_CLOSED, "%s: the answer was not wanted to its end", text);
    else if (f->denied && f->r.outcome == FETCH_NOT_SENT)
        err_set(&f->r.err, ERR_DENIED, "%s: it may not be reached at address %s", text,
                net_addr_text(&f->denied_addr, addr));
    else
        return false;
    return true;
}

static void say_connect(struct fetch *f, CURLcode code)
{
    long number = 0, status = 0;

    curl_easy_getinfo(f->easy->h, CURLINFO_HTTP_CONNECTCODE, &status);
    if (status >= 300 && code != CURLE_COULDNT_CONNECT) {
        err_set(&f->r.err, ERR_DENIED, "%s: the parent answered CONNECT with status %ld",
                f->host->text, status);
        return;
    }
    curl_easy_getinfo(f->easy->h, CURLINFO_OS_ERRNO, &number);
    if (code == CURLE_COULDNT_CONNECT && number)
        err_errno(&f->r.err, ERR_UNAVAIL, (int)number, "%s: cannot connect", f->host->text);
}

static void say(struct fetch *f, CURLcode code)
{
    if (say_own(f))
        return;
    if (code == CURLE_OPERATION_TIMEDOUT) {
        say_timeout(f);
        return;
    }
    if (f->r.outcome == FETCH_NOT_SENT)
        say_connect(f, code);
    for (size_t i = 0; i < ARRAY_LEN(reasons) && f->r.err.code == ERR_NONE; i++) {
        const struct reason *r = &reasons[i];

        if (r->curl != code)
            continue;
        err_set(&f->r.err, r->code, "%s: %s", f->host->text, r->text);
        if (r->detail)
            add_detail(&f->r.err, f->easy->errbuf);
    }
    if (f->r.err.code == ERR_NONE)
        err_set(&f->r.err, ERR_UNAVAIL, "%s: %s", f->host->text,
                code == CURLE_OK ? "the answer has no final status" : curl_easy_strerror(code));
}

/*
 * Is the answer whole although the transfer failed? So it is when the peer answers early and
 * then closes, which breaks the sending, or when we cut a body that is far over the limit.
 */
static bool answer_is_whole(const struct fetch *f)
{
    curl_off_t length = -1;

    if (f->head != HEAD_DONE)
        return false;
    if (f->cut || f->status == 204 || f->status == 304)
        return true;
    curl_easy_getinfo(f->easy->h, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    return length >= 0 && f->received >= length && !f->gave_up_writing;
}

static int http_version_of(CURL *h)
{
    long version = 0;

    curl_easy_getinfo(h, CURLINFO_HTTP_VERSION, &version);
    switch (version) {
    case CURL_HTTP_VERSION_1_0:
        return 10;
    case CURL_HTTP_VERSION_1_1:
        return 11;
    case CURL_HTTP_VERSION_NONE:
        return 0;
    default:
        return 20;
    }
}

/* Before the easy is stopped. */
void fetch_outcome_set(struct fetch *f, CURLcode code)
{
    if (f->head == HEAD_DONE && (code == CURLE_OK || answer_is_whole(f)))
        f->r.outcome = FETCH_ANSWERED;
    else
        f->r.outcome = f->sent ? FETCH_UNKNOWN : FETCH_NOT_SENT;
    f->r.status = f->head == HEAD_DONE ? f->status : 0;
    f->r.http_version = http_version_of(f->easy->h);
    f->clean = code == CURLE_OK;
    if (f->r.outcome != FETCH_ANSWERED)
        say(f, code);
}
