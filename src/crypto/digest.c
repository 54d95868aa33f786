#include "crypto/digest.h"

#include <pthread.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include "base/bug.h"

static pthread_once_t fetch_once = PTHREAD_ONCE_INIT;
static EVP_MD *md_sha256, *md_md5;

static void fetch(void)
{
    md_sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (!md_sha256)
        BUG("OpenSSL has no SHA-256");
    md_md5 = EVP_MD_fetch(NULL, "MD5", NULL);
}

void sha256(const void *p, size_t n, uint8_t out[32])
{
    pthread_once(&fetch_once, fetch);
    if (EVP_Digest(p, n, out, NULL, md_sha256, NULL) != 1)
        BUG("SHA-256 failed");
}

void hmac_sha256(const void *key, size_t key_n, const void *p, size_t n, uint8_t out[32])
{
    unsigned len = 32;

    pthread_once(&fetch_once, fetch);
    if (!HMAC(md_sha256, key, (int)key_n, p, n, out, &len))
        BUG("HMAC failed");
}

int md5(const void *p, size_t n, uint8_t out[16])
{
    pthread_once(&fetch_once, fetch);
    return md_md5 && EVP_Digest(p, n, out, NULL, md_md5, NULL) == 1 ? 0 : -1;
}

static const char std_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void encode(const char *alphabet, bool pad, const uint8_t *p, size_t n, struct str *out)
{
    if (n == 0)
        return;
    str_reserve(out, (n / 3 + 1) * 4);
    while (n) {
        uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0) | (n > 2 ? p[2] : 0);
        char four[4] = {alphabet[v >> 18], alphabet[v >> 12 & 63], alphabet[v >> 6 & 63],
                        alphabet[v & 63]};

        if (n < 3) {
            four[3] = '=';
            if (n < 2)
                four[2] = '=';
            str_add(out, four, pad ? 4 : n + 1);
            return;
        }
        str_add(out, four, 4);
        p += 3;
        n -= 3;
    }
}

/* The value of a character, or -1. `c62` and `c63` are the last two of the alphabet. */
static int value(char c, char c62, char c63)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == c62 ? 62 : c == c63 ? 63 : -1;
}

/* `in` has no padding any more. The bits that do not fill a byte must be zero, as the encoder
 * writes them: otherwise several texts would mean the same bytes. */
static int decode(struct view in, char c62, char c63, struct str *out)
{
    size_t start = out->n;
    uint32_t acc = 0;
    unsigned bits = 0;

    if (in.n % 4 == 1)
        return -1;
    str_reserve(out, in.n / 4 * 3 + 3);
    for (size_t i = 0; i < in.n; i++) {
        int v = value(in.p[i], c62, c63);

        if (v < 0)
            goto fail;
        acc = acc << 6 | (uint32_t)v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out->p[out->n++] = (char)(acc >> bits & 0xff);
        }
    }
    if (acc & ((1u << bits) - 1))
        goto fail;
    out->p[out->n] = '\0';
    return 0;
fail:
    out->n = start;
    out->p[start] = '\0';
    return -1;
}

void base64_encode(const void *p, size_t n, struct str *out)
{
    encode(std_alphabet, true, p, n, out);
}

int base64_decode(struct view in, struct str *out)
{
    if (in.n % 4 != 0)
        return -1;
    for (int i = 0; i < 2 && in.n && in.p[in.n - 1] == '='; i++)
        in.n--;
    return decode(in, '+', '/', out);
}

void base64url_encode(const void *p, size_t n, struct str *out)
{
    encode(url_alphabet, false, p, n, out);
}

int base64url_decode(struct view in, struct str *out)
{
    return decode(in, '-', '_', out);
}
