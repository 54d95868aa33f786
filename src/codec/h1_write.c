#include "codec/h1.h"

#include "base/bug.h"

const struct view h1_last_chunk = VIEW_LIT("0\r\n\r\n");

/* RFC 9110 §15, RFC 6585, and what Harness and its front ends send. */
const char *h1_reason(int status)
{
    switch (status) {
#define REASON(code, text)                                                                         \
    case code:                                                                                     \
        return text
        REASON(100, "Continue");
        REASON(101, "Switching Protocols");
        REASON(200, "OK");
        REASON(201, "Created");
        REASON(202, "Accepted");
        REASON(203, "Non-Authoritative Information");
        REASON(204, "No Content");
        REASON(205, "Reset Content");
        REASON(206, "Partial Content");
        REASON(300, "Multiple Choices");
        REASON(301, "Moved Permanently");
        REASON(302, "Found");
        REASON(303, "See Other");
        REASON(304, "Not Modified");
        REASON(307, "Temporary Redirect");
        REASON(308, "Permanent Redirect");
        REASON(400, "Bad Request");
        REASON(401, "Unauthorized");
        REASON(402, "Payment Required");
        REASON(403, "Forbidden");
        REASON(404, "Not Found");
        REASON(405, "Method Not Allowed");
        REASON(406, "Not Acceptable");
        REASON(407, "Proxy Authentication Required");
        REASON(408, "Request Timeout");
        REASON(409, "Conflict");
        REASON(410, "Gone");
        REASON(411, "Length Required");
        REASON(412, "Precondition Failed");
        REASON(413, "Content Too Large");
        REASON(414, "URI Too Long");
        REASON(415, "Unsupported Media Type");
        REASON(416, "Range Not Satisfiable");
        REASON(417, "Expectation Failed");
        REASON(421, "Misdirected Request");
        REASON(422, "Unprocessable Content");
        REASON(425, "Too Early");
        REASON(426, "Upgrade Required");
        REASON(428, "Precondition Required");
        REASON(429, "Too Many Requests");
        REASON(431, "Request Header Fields Too Large");
        REASON(500, "Internal Server Error");
        REASON(501, "Not Implemented");
        REASON(502, "Bad Gateway");
        REASON(503, "Service Unavailable");
        REASON(504, "Gateway Timeout");
        REASON(505, "HTTP Version Not Supported");
        REASON(507, "Insufficient Storage");
        REASON(511, "Network Authentication Required");
#undef REASON
    default:
        return "";
    }
}

void h1_write_request(struct str *out, struct view method, struct view target)
{
    ASSERT(h1_is_token(method) && h1_is_target(target));
    str_reserve(out, method.n + target.n + 12);
    str_addv(out, method);
    str_addc(out, ' ');
    str_addv(out, target);
    str_addv(out, VIEW_LIT(" HTTP/1.1\r\n"));
}

void h1_write_status(struct str *out, int status)
{
    char line[] = "HTTP/1.1 000 ";

    ASSERT(status >= 100 && status <= 999);
    line[9] = (char)('0' + status / 100);
    line[10] = (char)('0' + status / 10 % 10);
    line[11] = (char)('0' + status % 10);
    str_add(out, line, sizeof(line) - 1);
    str_adds(out, h1_reason(status));
    str_addv(out, VIEW_LIT("\r\n"));
}

void h1_write_field(struct str *out, struct view name, struct view value)
{
    ASSERT(h1_is_token(name) && h1_is_field_value(value));
    str_reserve(out, name.n + value.n + 4);
    str_addv(out, name);
    str_addv(out, VIEW_LIT(": "));
    str_addv(out, value);
    str_addv(out, VIEW_LIT("\r\n"));
}

void h1_write_end(struct str *out)
{
    str_addv(out, VIEW_LIT("\r\n"));
}

void h1_write_chunk_head(struct str *out, size_t n)
{
    ASSERT(n > 0); /* an empty chunk would end the body */
    str_addf(out, "%zx\r\n", n);
}
