#include "corpus.h"

#include <stdio.h>
#include "base/attrs.h"

/*
 * Lines keep the look of their program for some hundred lines, names come back, and numbers, hashes and
 * times do not: that is what makes real logs compress as they do. zstd -1 gets about 4.5 out of
 * 4 KiB of it and 7 out of 64 KiB, which is what it got out of recorded builds.
 */

static const char *const nouns[] = {
    "account", "adapter", "archive", "balance", "billing", "bucket", "cache", "catalog", "channel", "client",
    "cluster", "codec", "config", "context", "cursor", "decoder", "digest", "dispatch", "driver", "encoder",
    "engine", "event", "export", "factory", "filter", "gateway", "handler", "header", "history", "image",
    "index", "invoice", "journal", "kernel", "ledger", "loader", "locale", "manager", "mapper", "metric",
    "module", "monitor", "network", "notify", "object", "order", "packet", "parser", "payment", "plugin",
    "policy", "process", "profile", "proxy", "query", "queue", "reader", "record", "registry", "report",
    "request", "resolver", "router", "scanner", "schema", "search", "sender", "server", "session", "signal",
    "socket", "source", "storage", "stream", "support", "symbol", "table", "tenant", "thread", "ticket",
    "token", "tracker", "transfer", "update", "upload", "usage", "vector", "vendor", "version", "worker",
};

static uint64_t next(struct corpus *c)
{
    c->rng ^= c->rng << 13;
    c->rng ^= c->rng >> 7;
    c->rng ^= c->rng << 17;
    return c->rng;
}

static unsigned below(struct corpus *c, unsigned n)
{
    return (unsigned)(next(c) >> 33) % n;
}

static const char *noun(struct corpus *c)
{
    return nouns[below(c, ARRAY_LEN(nouns))];
}

/* A compiler's run: the same long line over and over with another file. */
static void compile_line(struct corpus *c, struct str *out)
{
    const char *file = noun(c);

    if (below(c, 12) == 0) {
        str_addf(out, "src/%s/%s.c:%u:%u: warning: unused variable '%s' [-Wunused-variable]", c->module, file,
                 below(c, 900) + 1, below(c, 60) + 1, noun(c));
        return;
    }
    str_addf(out, "gcc -DHAVE_CONFIG_H -I. -I./src -I./src/%s -D_GNU_SOURCE -Wall -Wextra -O2 -g -fPIC -MT "
             "src/%s/%s_%s.o -MD -MP -MF src/%s/.deps/%s_%s.Tpo -c -o src/%s/%s_%s.o src/%s/%s_%s.c", c->other,
             c->module, file, c->other, c->module, file, c->other, c->module, file, c->other, c->module, file,
             c->other);
}

static void maven_line(struct corpus *c, struct str *out)
{
    const char *what = noun(c);

    switch (below(c, 4)) {
    case 0:
        str_addf(out, "[INFO] Downloaded from central: https://repo.example.org/maven2/org/%s/%s-%s/%u.%u.%u/"
                 "%s-%s-%u.jar (%u kB at %u.%u MB/s)", c->module, c->module, what, below(c, 9), below(c, 20),
                 below(c, 9), c->module, what, below(c, 9), below(c, 900), below(c, 9), below(c, 9));
        break;
    case 1:
        str_addf(out, "[INFO] Running org.example.%s.%s.%sTest", c->module, c->other, what);
        break;
    case 2:
        str_addf(out, "[INFO] Tests run: %u, Failures: 0, Errors: 0, Skipped: %u, Time elapsed: %u.%03u s - in "
                 "org.example.%s.%s.%sTest", below(c, 40) + 1, below(c, 3), below(c, 5), below(c, 1000), c->module,
                 c->other, what);
        break;
    default:
        str_addf(out, "2026-05-11 12:%02u:%02u.%03u  INFO %u --- [exec-%u] org.example.%s.%s : Finished id=%08x "
                 "took %ums", c->n / 60 % 60, c->n % 60, below(c, 1000), below(c, 4000), below(c, 8), c->module,
                 what, (unsigned)next(c), below(c, 2000));
    }
}

static void pytest_line(struct corpus *c, struct str *out)
{
    str_addf(out, "tests/%s/test_%s.py::Test%s::test_%s_%s[%s-%u] PASSED%*s[%3u%%]", c->module, c->other,
             c->module, noun(c), noun(c), noun(c), below(c, 20), (int)below(c, 12) + 1, "",
             c->n % 100);
}

static void docker_line(struct corpus *c, struct str *out)
{
    if (below(c, 3) == 0)
        str_addf(out, "#%u sha256:%016llx%016llx %u.%02uMB / 90.40MB %u.%us", c->n % 30,
                 (unsigned long long)next(c), (unsigned long long)next(c), below(c, 90), below(c, 100),
                 below(c, 20), below(c, 9));
    else
        str_addf(out, "#%u %u.%03u   Downloading %s_%s-%u.%u.%u-cp311-manylinux_2_17_x86_64.whl (%u kB)",
                 c->n % 30, c->n / 7, below(c, 1000), noun(c), c->module, below(c, 9), below(c, 30), below(c, 9),
                 below(c, 9000));
}

static void package_line(struct corpus *c, struct str *out)
{
    const char *what = noun(c);

    switch (below(c, 3)) {
    case 0:
        str_addf(out, "Get:%u http://deb.example.org/debian stable/main amd64 lib%s-%s%u amd64 %u.%u-%u [%u kB]",
                 c->n, what, c->module, below(c, 9), below(c, 9), below(c, 30), below(c, 9), below(c, 900));
        break;
    case 1:
        str_addf(out, "Preparing to unpack .../%03u-lib%s-%s_%u.%u_amd64.deb ...", c->n % 1000, what, c->module,
                 below(c, 9), below(c, 30));
        break;
    default:
        str_addf(out, "Setting up lib%s-%s:amd64 (%u.%u-%u) ...", what, c->module, below(c, 9), below(c, 30),
                 below(c, 9));
    }
}

static void gotest_line(struct corpus *c, struct str *out)
{
    if (below(c, 2))
        str_addf(out, "=== RUN   Test%s/%s_%s", c->module, noun(c), noun(c));
    else
        str_addf(out, "    --- PASS: Test%s/%s_%s (%u.%02us)", c->module, noun(c), noun(c), below(c, 3),
                 below(c, 100));
}

static void (*const programs[])(struct corpus *c, struct str *out) = {
    compile_line, maven_line, pytest_line, docker_line, package_line, gotest_line,
};

static void begin_program(struct corpus *c)
{
    c->program = below(c, ARRAY_LEN(programs));
    c->left = 200 + below(c, 800);
    snprintf(c->module, sizeof(c->module), "%s", noun(c));
    snprintf(c->other, sizeof(c->other), "%s", noun(c));
}

void corpus_init(struct corpus *c, uint64_t seed)
{
    *c = (struct corpus){.rng = seed * 0x9e3779b97f4a7c15ULL + 0x632be59bd9b4e019ULL};
    begin_program(c);
}

void corpus_line(struct corpus *c, struct str *out)
{
    if (c->left-- == 0)
        begin_program(c);
    c->n++;
    programs[c->program](c, out);
}
