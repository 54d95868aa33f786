#include "admin/admin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include "rt/metric.h"
#include "rt/ready.h"

/* ---- a fake of the HTTP server: what the service answers an exchange with ----------------- */

static struct {
    int status;
    struct str fields;
    struct str body;
    int replies;
} sent;

void http_reply(struct http_exchange *ex, int status, const struct h1_field *fields, size_t n,
                struct view body)
{
    size_t i;

    (void)ex;
    sent.replies++;
    sent.status = status;
    str_clear(&sent.fields);
    str_clear(&sent.body);
    for (i = 0; i < n; i++) {
        str_addv(&sent.fields, fields[i].name);
        str_adds(&sent.fields, ": ");
        str_addv(&sent.fields, fields[i].value);
        str_addc(&sent.fields, '\n');
    }
    str_addv(&sent.body, body);
}

static void test_service(void **state)
{
    const struct h1_field accept[] = {
        {VIEW_LIT("ACCEPT"), VIEW_LIT("text/plain;q=0.5")},
        {VIEW_LIT("host"), VIEW_LIT("x")},
        {VIEW_LIT("Accept"), VIEW_LIT("application/openmetrics-text; version=1.0.0")},
    };
    struct http_request req = {
        .method = VIEW_LIT("GET"),
        .target = VIEW_LIT("/metrics"),
        .fields = accept,
        .n_fields = 3,
    };
    const struct http_service *s = admin_service();

    (void)state;
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 200);
    assert_string_equal(str_c(&sent.fields),
                        "cache-control: no-store\ncontent-type: application/openmetrics-text; "
                        "version=1.0.0; charset=utf-8\n");
    assert_string_equal(str_c(&sent.body) + sent.body.n - 6, "# EOF\n");
    req.method = VIEW_LIT("DELETE");
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 405);
    assert_non_null(strstr(str_c(&sent.fields), "\nallow: GET, HEAD\n"));
    assert_int_equal(sent.replies, 2);
    str_fini(&sent.fields);
    str_fini(&sent.body);
}

static void test_page(void **state)
{
    const struct h1_field browser[] = {
        {VIEW_LIT("Accept"), VIEW_LIT("text/html,application/xhtml+xml,*/*;q=0.8")}};
    struct http_request req = {
        .method = VIEW_LIT("GET"), .target = VIEW_LIT("/"), .fields = browser, .n_fields = 1};
    const struct http_service *s = admin_service();
    struct h1_field again[2] = {browser[0]};
    char tag[64] = "";

    (void)state;
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 200);
    assert_non_null(strstr(str_c(&sent.fields), "content-type: text/html; charset=utf-8\n"));
    assert_non_null(strstr(str_c(&sent.fields), "frame-ancestors 'none'"));
    assert_memory_equal(str_c(&sent.body), "<!doctype html>", 15);
    assert_int_equal(sscanf(strstr(str_c(&sent.fields), "etag: "), "etag: %60s", tag), 1);
    again[1] = (struct h1_field){VIEW_LIT("if-none-match"), view_str(tag)};
    req.fields = again;
    req.n_fields = 2;
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 304);
    assert_int_equal(sent.body.n, 0);
    req.n_fields = 0;
    req.target = VIEW_LIT("/page.js?x");
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 200);
    assert_non_null(strstr(str_c(&sent.fields), "content-type: text/javascript;"));
    req.target = VIEW_LIT("/index.html");
    s->take(s->ctx, NULL, &req);
    assert_int_equal(sent.status, 404);
    req.target = VIEW_LIT("/"); /* curl and the like */
    s->take(s->ctx, NULL, &req);
    assert_non_null(strstr(str_c(&sent.fields), "content-type: text/plain;"));
    str_fini(&sent.fields);
    str_fini(&sent.body);
}

static void test_prefers_html(void **state)
{
    (void)state;
    assert_true(admin_wants_html(VIEW_LIT("text/html")));
    assert_true(admin_wants_html(VIEW_LIT("text/plain;q=0.5, TEXT/HTML;q=0.5")));
    assert_false(admin_wants_html(VIEW_LIT("*/*")));
    assert_false(admin_wants_html(VIEW_LIT("")));
    assert_false(admin_wants_html(VIEW_LIT("text/html;q=0")));
    assert_false(admin_wants_html(VIEW_LIT("text/plain, text/html;q=0.9")));
}

/* ---- pages -------------------------------------------------------------------------------- */

static struct admin_response r;

static void get(const char *method, const char *target, const char *accept)
{
    str_fini(&r.body);
    admin_respond(view_str(method), view_str(target), view_str(accept), &r);
}

static int teardown(void **state)
{
    (void)state;
    str_fini(&r.body);
    return 0;
}

static bool not_ready(void *ctx, struct err *why)
{
    err_set(why, ERR_FULL, "%s", (const char *)ctx);
    return false;
}

static void test_health_and_readiness(void **state)
{
    static char reason[] = "disk is full";

    (void)state;
    get("GET", "/healthz", "");
    assert_int_equal(r.status, 200);
    assert_string_equal(str_c(&r.body), "ok\n");
    get("GET", "/readyz", "");
    assert_int_equal(r.status, 200);
    assert_string_equal(str_c(&r.body), "ready\n");
    ready_add("spool", not_ready, reason);
    get("GET", "/readyz?verbose", "");
    assert_int_equal(r.status, 503);
    assert_string_equal(str_c(&r.body), "spool: disk is full\n");
    assert_string_equal(r.content_type, "text/plain; charset=utf-8");
    get("GET", "/healthz", "");
    assert_int_equal(r.status, 200);
    ready_remove(not_ready, reason);
}

static void test_metrics(void **state)
{
    (void)state;
    metric_add(metric_series(metric_family(METRIC_COUNTER, "tests", "", "Tests.")), 3);
    get("GET", "/metrics", "");
    assert_int_equal(r.status, 200);
    assert_string_equal(r.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert_non_null(strstr(str_c(&r.body), "# TYPE tailrace_tests_total counter\n"
                                           "tailrace_tests_total 3\n"));
    assert_null(strstr(str_c(&r.body), "# EOF"));
    get("HEAD", "/metrics", "application/openmetrics-text");
    assert_non_null(strstr(str_c(&r.body), "# TYPE tailrace_tests counter\n"));
}

static void test_index_and_others(void **state)
{
    (void)state;
    get("GET", "/", "");
    assert_int_equal(r.status, 200);
    assert_non_null(strstr(str_c(&r.body), "\n/readyz "));
    get("GET", "/metric", "");
    assert_int_equal(r.status, 404);
    get("GET", "/metrics/", "");
    assert_int_equal(r.status, 404);
    get("POST", "/nothing", "");
    assert_int_equal(r.status, 404);
    get("POST", "/readyz", "");
    assert_int_equal(r.status, 405);
    assert_string_equal(r.allow, "GET, HEAD");
    get("GET", "", "");
    assert_int_equal(r.status, 404);
    get("GET", "http://x/metrics", "");
    assert_int_equal(r.status, 404);
}

static void test_accept(void **state)
{
    static const struct {
        const char *accept;
        bool open;
    } rows[] = {
        {"", false},
        {"*/*", false},
        {"text/plain", false},
        {"application/openmetrics-text", true},
        {"Application/OpenMetrics-Text;Version=1.0.0", true},
        {"application/openmetrics-text; version=\"1.0.0\"", true},
        {"application/openmetrics-text;version=0.0.1", false},
        {"application/openmetrics-text;version=2.0.0,text/plain;q=0.1", false},
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
         "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         true},
        {"application/openmetrics-text;q=0", false},
        {"application/openmetrics-text;q=0.000", false},
        {"application/openmetrics-text;q=0.5, text/plain", false},
        {"application/openmetrics-text ; q=0.5 , text/plain;q=0.5", true},
        {"text/plain;q=0.9,application/openmetrics-text;q=0.901", true},
        {"application/openmetrics-text;q=2", false},
        {"application/openmetrics-text;q=0.5x", false},
        {"application/openmetrics-text;q=", false},
        {"text/html;x=\"a,application/openmetrics-text\"", false},
        {"text/html;x=\"unclosed,application/openmetrics-text", false},
        {"text/html;x=\"\\", false},
        {",;,;=,application/openmetrics-text;;", true},
    };
    size_t i;

    (void)state;
    for (i = 0; i < ARRAY_LEN(rows); i++) {
        if (admin_wants_openmetrics(view_str(rows[i].accept)) != rows[i].open)
            fail_msg("%s", rows[i].accept);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_health_and_readiness, teardown),
        cmocka_unit_test_teardown(test_metrics, teardown),
        cmocka_unit_test_teardown(test_index_and_others, teardown),
        cmocka_unit_test(test_accept),
        cmocka_unit_test(test_service),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_prefers_html),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
