/*
 * Certificates and keys as the interception's CA reads them: the first two bytes say how long the
 * certificates' file is, the rest is the key's.
 *
 * Oracle: what is taken can make a certificate, and a refusal says why.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "crypto/mint.h"
#include "fuzz/target.h"

static int put(struct view text, char path[40])
{
    int fd = memfd_create("pem", MFD_CLOEXEC);

    ASSERT(fd >= 0 && write(fd, text.p, text.n) == (ssize_t)text.n);
    snprintf(path, 40, "/proc/self/fd/%d", fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const hosts[] = {"app.example", "*.b.example", "192.0.2.1"};
    struct view in = view_of(data, n);
    size_t high = fuzz_byte(&in), len = high << 8 | fuzz_byte(&in);
    struct view ca = view_of(in.p, TR_MIN(len, in.n));
    char ca_path[40], key_path[40];
    int ca_fd = put(ca, ca_path), key_fd = put(view_from(in, ca.n), key_path);
    struct err e = {0};
    struct mint *m = mint_new(ca_path, key_path, hosts, ARRAY_LEN(hosts), &e);

    if (m) {
        struct tls_ctx *ctx = mint_server_ctx(m, "app.example", &e);

        ASSERT(ctx || e.text[0]);
        tls_ctx_unref(&ctx);
    } else {
        ASSERT(e.text[0]);
    }
    mint_unref(&m);
    close(ca_fd);
    close(key_fd);
    return 0;
}
