#include "logs/link.h"

#include <jansson.h>
#include "codec/url.h"
#include "crypto/digest.h"

static bool link_is_clean(struct view link)
{
    struct url url;
    size_t i;

    for (i = 0; i < link.n; i++) {
        unsigned char c = (unsigned char)link.p[i];

        if (c <= 0x20 || c >= 0x7f)
            return false;
    }
    return link.n <= LINK_MAX && url_parse(link, &url, NULL) == 0;
}

int link_of_answer(struct view body, struct str *out)
{
    json_t *json = json_loadb(body.p ? body.p : "", body.n, 0, NULL);
    const char *text = json_string_value(json_object_get(json, "link"));
    int rc = -1;

    if (text && link_is_clean(view_str(text))) {
        str_adds(out, text);
        rc = 0;
    }
    json_decref(json);
    return rc;
}

bool link_same_place(struct view a, struct view b)
{
    struct url x, y;

    return url_parse(a, &x, NULL) == 0 && url_parse(b, &y, NULL) == 0 && x.https == y.https &&
           x.port == y.port && view_ieq(x.host, y.host);
}

bool link_is_refused(int status, struct view body)
{
    static const char word[] = "expired";
    size_t i, n = sizeof(word) - 1;

    for (i = 0; status == 400 && i + n <= body.n; i++) {
        if (strncasecmp(body.p + i, word, n) == 0)
            return true;
    }
    return status == 401 || status == 403;
}

static struct view trim(struct view v)
{
    while (v.n && *v.p == ' ')
        v = view_from(v, 1);
    while (v.n && v.p[v.n - 1] == ' ')
        v.n--;
    return v;
}

/* The value of `name` in "crc32c=AAAAAA==,md5=...", decoded. */
static bool hash_named(struct view field, const char *name, size_t n, struct str *out)
{
    while (field.n) {
        const char *comma = memchr(field.p, ',', field.n);
        size_t len = comma ? (size_t)(comma - field.p) : field.n;
        struct view one = trim(view_of(field.p, len));
        const char *eq = one.n ? memchr(one.p, '=', one.n) : NULL;

        field = view_from(field, comma ? len + 1 : len);
        if (!eq || !view_ieq(view_of(one.p, (size_t)(eq - one.p)), view_str(name)))
            continue;
        str_clear(out);
        if (base64_decode(view_from(one, (size_t)(eq - one.p) + 1), out) == 0 && out->n == n)
            return true;
    }
    return false;
}

bool goog_hash_agrees(struct view field, uint32_t crc, struct view whole)
{
    const uint8_t ours[4] = {(uint8_t)(crc >> 24), (uint8_t)(crc >> 16), (uint8_t)(crc >> 8),
                             (uint8_t)crc};
    struct str theirs = STR_INIT;
    uint8_t sum[16];
    bool agrees = true;

    if (hash_named(field, "crc32c", sizeof(ours), &theirs))
        agrees = memcmp(theirs.p, ours, sizeof(ours)) == 0;
    else if (whole.p && hash_named(field, "md5", sizeof(sum), &theirs) &&
             md5(whole.p, whole.n, sum) == 0)
        agrees = memcmp(theirs.p, sum, sizeof(sum)) == 0;
    str_fini(&theirs);
    return agrees;
}
