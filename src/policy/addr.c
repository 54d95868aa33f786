/* Classes of addresses and ranges of them. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/xmem.h"
#include "policy/policy_priv.h"

/* An address as it is compared: IPv4 mapped into IPv6 is IPv4. */
struct bits {
    int family; /* AF_INET, AF_INET6; 0: another one */
    bool mapped;
    unsigned char b[16];
};

static const unsigned char mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static struct bits bits_of(const struct sockaddr *a)
{
    struct bits out = {0};

    if (a->sa_family == AF_INET) {
        out.family = AF_INET;
        memcpy(out.b, &((const struct sockaddr_in *)(const void *)a)->sin_addr, 4);
    } else if (a->sa_family == AF_INET6) {
        out.family = AF_INET6;
        memcpy(out.b, &((const struct sockaddr_in6 *)(const void *)a)->sin6_addr, 16);
        if (memcmp(out.b, mapped_prefix, 12) == 0) {
            out.family = AF_INET;
            out.mapped = true;
            memmove(out.b, out.b + 12, 4);
            memset(out.b + 4, 0, 12);
        }
    }
    return out;
}

static bool prefix_equal(const unsigned char *a, const unsigned char *b, unsigned prefix)
{
    unsigned whole = prefix / 8, rest = prefix % 8;

    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

/* ---- this machine's own ------------------------------------------------------------------- */

struct own {
    unsigned char family6;
    unsigned char b[16];
};

static pthread_rwlock_t own_lock = PTHREAD_RWLOCK_INITIALIZER;
static struct own *own_list; /* sorted */
static size_t own_n;

static int own_compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct own));
}

static struct own own_of(const struct bits *bits)
{
    struct own o = {.family6 = bits->family == AF_INET6};

    memcpy(o.b, bits->b, 16);
    return o;
}

void policy_own_addresses(const struct sockaddr *const *addrs, size_t n)
{
    struct own *list = n ? xcalloc(n, sizeof(*list)) : NULL, *old;
    size_t i, used = 0;

    for (i = 0; i < n; i++) {
        struct bits bits = bits_of(addrs[i]);

        if (bits.family)
            list[used++] = own_of(&bits);
    }
    if (used)
        qsort(list, used, sizeof(*list), own_compare);
    pthread_rwlock_wrlock(&own_lock);
    old = own_list;
    own_list = list;
    own_n = used;
    pthread_rwlock_unlock(&own_lock);
    xfree(old);
}

static bool is_own(const struct bits *bits)
{
    struct own o = own_of(bits);
    bool found;

    pthread_rwlock_rdlock(&own_lock);
    found = own_n && bsearch(&o, own_list, own_n, sizeof(o), own_compare) != NULL;
    pthread_rwlock_unlock(&own_lock);
    return found;
}

/* ---- blocks ------------------------------------------------------------------------------- */

struct block4 {
    unsigned char net[4];
    unsigned prefix;
    enum addr_class kind;
};

/* IANA's registry of special addresses (RFC 6890 and its updates), and what clouds answer secrets
 * from. The first that fits counts. */
static const struct block4 blocks4[] = {
    {{169, 254, 169, 254}, 32, ADDR_METADATA}, /* AWS, Azure, Google, OpenStack, Oracle, ... */
    {{169, 254, 170, 2}, 32, ADDR_METADATA},   /* AWS: credentials of an ECS task */
    {{169, 254, 170, 23}, 32, ADDR_METADATA},  /* AWS: credentials of an EKS pod */
    {{169, 254, 0, 23}, 32, ADDR_METADATA},    /* Tencent */
    {{100, 100, 100, 200}, 32, ADDR_METADATA}, /* Alibaba */
    {{192, 0, 0, 192}, 32, ADDR_METADATA},     /* Oracle, older */
    {{168, 63, 129, 16}, 32, ADDR_METADATA},   /* Azure: the host's agent, in public space */
    {{0, 0, 0, 0}, 8, ADDR_UNSPECIFIED},       /* 0.0.0.0 reaches this machine on Linux */
    {{10, 0, 0, 0}, 8, ADDR_PRIVATE},           {{100, 64, 0, 0}, 10, ADDR_CGNAT},
    {{127, 0, 0, 0}, 8, ADDR_LOOPBACK},         {{169, 254, 0, 0}, 16, ADDR_LINK_LOCAL},
    {{172, 16, 0, 0}, 12, ADDR_PRIVATE},        {{192, 168, 0, 0}, 16, ADDR_PRIVATE},
    {{192, 0, 0, 0}, 24, ADDR_RESERVED},    /* protocol assignments */
    {{192, 0, 2, 0}, 24, ADDR_RESERVED},    /* documentation */
    {{192, 88, 99, 0}, 24, ADDR_RESERVED},  /* 6to4 relays */
    {{198, 18, 0, 0}, 15, ADDR_RESERVED},   /* benchmarks */
    {{198, 51, 100, 0}, 24, ADDR_RESERVED}, /* documentation */
    {{203, 0, 113, 0}, 24, ADDR_RESERVED},  /* documentation */
    {{255, 255, 255, 255}, 32, ADDR_MULTICAST}, {{224, 0, 0, 0}, 4, ADDR_MULTICAST},
    {{240, 0, 0, 0}, 4, ADDR_RESERVED},
};

/* Where an address of IPv6 holds one of IPv4. */
enum embed { EMBED_NONE, EMBED_LAST, EMBED_6TO4, EMBED_TEREDO, EMBED_NAT64_LOCAL };

struct block6 {
    unsigned char net[16];
    unsigned prefix;
    enum addr_class kind;
    enum embed embed;
};

static const struct block6 blocks6[] = {
    /* fd00:ec2::254, ::23: AWS. fd20:ce::254: Google. fd00:c1::a9fe:a9fe: Oracle. fd00:42::42:
     * Scaleway. fe80::a9fe:a9fe: OpenStack. */
    {{0xfd, 0, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}, 128, ADDR_METADATA, EMBED_NONE},
    {{0xfd, 0, 0x0e, 0xc2, [15] = 0x23}, 128, ADDR_METADATA, EMBED_NONE},
    {{0xfd, 0x20, 0, 0xce, [14] = 0x02, [15] = 0x54}, 128, ADDR_METADATA, EMBED_NONE},
    {{0xfd, 0, 0, 0xc1, [12] = 0xa9, 0xfe, 0xa9, 0xfe}, 128, ADDR_METADATA, EMBED_NONE},
    {{0xfd, 0, 0, 0x42, [15] = 0x42}, 128, ADDR_METADATA, EMBED_NONE},
    {{0xfe, 0x80, [12] = 0xa9, 0xfe, 0xa9, 0xfe}, 128, ADDR_METADATA, EMBED_NONE},
    {{0}, 128, ADDR_UNSPECIFIED, EMBED_NONE},
    {{[15] = 1}, 128, ADDR_LOOPBACK, EMBED_NONE},
    {{0}, 96, ADDR_PUBLIC, EMBED_LAST},                                /* IPv4-compatible */
    {{[8] = 0xff, 0xff, 0, 0}, 96, ADDR_PUBLIC, EMBED_LAST},           /* translated, RFC 7915 */
    {{0, 0x64, 0xff, 0x9b}, 96, ADDR_PUBLIC, EMBED_LAST},              /* NAT64, RFC 6052 */
    {{0, 0x64, 0xff, 0x9b, 0, 1}, 48, ADDR_PUBLIC, EMBED_NAT64_LOCAL}, /* RFC 8215 */
    {{0x20, 0x02}, 16, ADDR_PUBLIC, EMBED_6TO4},                       /* RFC 3056 */
    {{0x20, 0x01}, 32, ADDR_PUBLIC, EMBED_TEREDO},                     /* RFC 4380 */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, ADDR_RESERVED, EMBED_NONE},         /* documentation */
    {{0x20, 0x01}, 23, ADDR_RESERVED, EMBED_NONE},                     /* protocol assignments */
    {{0x3f, 0xff}, 20, ADDR_RESERVED, EMBED_NONE},                     /* documentation */
    {{0x20}, 3, ADDR_PUBLIC, EMBED_NONE},
    {{0xfc}, 7, ADDR_PRIVATE, EMBED_NONE},
    {{0xfe, 0x80}, 10, ADDR_LINK_LOCAL, EMBED_NONE},
    {{0xfe, 0xc0}, 10, ADDR_PRIVATE, EMBED_NONE}, /* site-local, RFC 3879 */
    {{0xff}, 8, ADDR_MULTICAST, EMBED_NONE},
};

/* No range of use is so wide: what is in no block is opened by nothing wider than this. */
enum { UNKNOWN_PREFIX = 16 };

static struct addr_place place4(const unsigned char b[4])
{
    struct bits bits = {.family = AF_INET};
    struct addr_place place = {ADDR_PUBLIC, false, 0};
    size_t i;

    for (i = 0; i < ARRAY_LEN(blocks4); i++) {
        if (prefix_equal(b, blocks4[i].net, blocks4[i].prefix)) {
            place = (struct addr_place){blocks4[i].kind, false, blocks4[i].prefix};
            break;
        }
    }
    memcpy(bits.b, b, 4);
    if (place.kind != ADDR_LOOPBACK && place.kind != ADDR_METADATA && is_own(&bits))
        place = (struct addr_place){ADDR_OWN, false, 32};
    return place;
}

/* IPv4 found inside: special if that is; `at` bits stand before it, in one piece if `whole`. */
static struct addr_place embedded(const unsigned char b[4], unsigned at, bool whole)
{
    struct addr_place place = place4(b);

    place.embedded = true;
    if (place.kind == ADDR_PUBLIC)
        place.prefix = at;
    else
        place.prefix = whole ? at + place.prefix : 128;
    return place;
}

/* RFC 4380 §4: the client's address is inverted; its server's stands before. */
static struct addr_place teredo(const unsigned char b[16])
{
    unsigned char client[4];
    struct addr_place place;
    size_t i;

    for (i = 0; i < 4; i++)
        client[i] = (unsigned char)~b[12 + i];
    place = embedded(client, 32, false);
    return place.kind == ADDR_PUBLIC ? embedded(b + 4, 32, true) : place;
}

/* RFC 6052 §2.2: behind a prefix of 96 bits, or split around the byte of zeros behind 48. */
static struct addr_place nat64_local(const unsigned char b[16])
{
    static const unsigned char none[4];
    const unsigned char split[4] = {b[6], b[7], b[9], b[10]};
    struct addr_place place = embedded(b + 12, 48, false);

    if ((place.kind == ADDR_PUBLIC || memcmp(b + 12, none, 4) == 0) && memcmp(split, none, 4) != 0)
        return embedded(split, 48, false);
    return place;
}

static struct addr_place unpack(enum embed embed, const unsigned char b[16])
{
    switch (embed) {
    case EMBED_LAST:
        return embedded(b + 12, 96, true);
    case EMBED_6TO4:
        return embedded(b + 2, 16, true);
    case EMBED_TEREDO:
        return teredo(b);
    case EMBED_NAT64_LOCAL:
        return nat64_local(b);
    case EMBED_NONE:
        break;
    }
    return (struct addr_place){ADDR_PUBLIC, false, 0};
}

/* RFC 5214 §6.1: in the last 64 bits of an address of any prefix. */
static bool is_isatap(const unsigned char b[16])
{
    return (b[8] & 0xfd) == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe;
}

static struct addr_place place6(const struct bits *bits)
{
    struct addr_place place = {ADDR_RESERVED, false, UNKNOWN_PREFIX};
    size_t i;

    for (i = 0; i < ARRAY_LEN(blocks6); i++) {
        const struct block6 *bl = &blocks6[i];

        if (!prefix_equal(bits->b, bl->net, bl->prefix))
            continue;
        if (bl->embed != EMBED_NONE)
            return unpack(bl->embed, bits->b);
        place = (struct addr_place){bl->kind, false, bl->kind == ADDR_PUBLIC ? 0 : bl->prefix};
        break;
    }
    if (place.kind == ADDR_PUBLIC && is_isatap(bits->b))
        place = embedded(bits->b + 12, 96, false);
    if (place.kind != ADDR_LOOPBACK && place.kind != ADDR_METADATA && is_own(bits))
        place = (struct addr_place){ADDR_OWN, false, 128};
    return place;
}

static struct addr_place place_of(const struct bits *bits)
{
    struct addr_place place = {ADDR_RESERVED, false, 128};

    if (bits->family == AF_INET6)
        return place6(bits);
    if (bits->family == AF_INET) {
        place = place4(bits->b);
        place.embedded = bits->mapped;
    }
    return place;
}

struct addr_place addr_place(const struct sockaddr *a)
{
    struct bits bits = bits_of(a);

    return place_of(&bits);
}

enum addr_class addr_class(const struct sockaddr *a, bool *embedded)
{
    struct addr_place place = addr_place(a);

    if (embedded)
        *embedded = place.embedded;
    return place.kind;
}

const char *addr_class_name(enum addr_class c)
{
    static const char *const names[ADDR_CLASSES] = {
        [ADDR_PUBLIC] = "public",         [ADDR_UNSPECIFIED] = "unspecified",
        [ADDR_LOOPBACK] = "loopback",     [ADDR_PRIVATE] = "private",
        [ADDR_LINK_LOCAL] = "link-local", [ADDR_METADATA] = "metadata",
        [ADDR_CGNAT] = "cgnat",           [ADDR_MULTICAST] = "multicast",
        [ADDR_RESERVED] = "reserved",     [ADDR_OWN] = "own",
    };

    return c < ADDR_CLASSES ? names[c] : "unknown";
}

/* ---- ranges ------------------------------------------------------------------------------- */

static const char range_hint[] = "use a range of addresses, such as 10.0.0.0/8";

/* The number behind the slash. */
static int parse_prefix(const char *text, unsigned max, unsigned *out)
{
    unsigned long v = 0;
    size_t i;

    for (i = 0; i < 3 && text[i] >= '0' && text[i] <= '9'; i++)
        v = v * 10 + (unsigned long)(text[i] - '0');
    if (i == 0 || text[i] != '\0' || v > max || (i > 1 && text[0] == '0'))
        return -1;
    *out = (unsigned)v;
    return 0;
}

static void clear_behind(unsigned char *b, unsigned prefix)
{
    unsigned i;

    for (i = prefix; i < 128; i++)
        b[i / 8] &= (unsigned char)~(0x80u >> (i % 8));
}

/* A range of mapped addresses is one of IPv4. */
static void unmap(struct addr_range *r)
{
    if (r->family != AF_INET6 || r->prefix < 96 || memcmp(r->bits, mapped_prefix, 12) != 0)
        return;
    r->family = AF_INET;
    r->prefix -= 96;
    memmove(r->bits, r->bits + 12, 4);
    memset(r->bits + 4, 0, 12);
}

int addr_range_parse(struct view text, struct addr_range *out, struct err *e)
{
    char copy[INET6_ADDRSTRLEN + 5], shown[INET6_ADDRSTRLEN];
    unsigned char given[16];
    char *slash;
    unsigned max;

    memset(out, 0, sizeof(*out));
    if (text.n == 0 || text.n >= sizeof(copy) || memchr(text.p, '\0', text.n))
        return err_set(e, ERR_INVALID, "%s", range_hint);
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    slash = strchr(copy, '/');
    if (slash)
        *slash = '\0';
    out->family = strchr(copy, ':') ? AF_INET6 : AF_INET;
    max = out->prefix = out->family == AF_INET6 ? 128 : 32;
    if (inet_pton(out->family, copy, out->bits) != 1 ||
        (slash && parse_prefix(slash + 1, max, &out->prefix) < 0))
        return err_set(e, ERR_INVALID, "%s", range_hint);
    memcpy(given, out->bits, sizeof(given));
    clear_behind(out->bits, out->prefix);
    if (memcmp(given, out->bits, sizeof(given)) != 0) {
        inet_ntop(out->family, out->bits, shown, sizeof(shown));
        return err_set(e, ERR_INVALID, "use %s/%u, or a longer prefix", shown, out->prefix);
    }
    unmap(out);
    return 0;
}

static bool range_has(const struct addr_range *r, const struct bits *bits)
{
    return r->family == bits->family && prefix_equal(r->bits, bits->b, r->prefix);
}

bool addr_range_has(const struct addr_range *r, const struct sockaddr *a)
{
    struct bits bits = bits_of(a);

    return range_has(r, &bits);
}

bool addr_range_opens(const struct addr_range *r, const struct sockaddr *a)
{
    struct bits bits = bits_of(a);

    return range_has(r, &bits) && r->prefix >= place_of(&bits).prefix;
}

struct addr_range addr_range_of(const struct sockaddr *a)
{
    struct bits bits = bits_of(a);
    struct addr_range r = {.family = bits.family, .prefix = bits.family == AF_INET6 ? 128 : 32};

    memcpy(r.bits, bits.b, sizeof(r.bits));
    return r;
}

void addr_range_widen(struct addr_range *r)
{
    r->prefix--;
    r->bits[r->prefix / 8] &= (unsigned char)~(0x80u >> (r->prefix % 8));
}

bool addr_same(const struct sockaddr *a, const struct sockaddr *b)
{
    struct bits x = bits_of(a), y = bits_of(b);

    return x.family && x.family == y.family && memcmp(x.b, y.b, sizeof(x.b)) == 0;
}
