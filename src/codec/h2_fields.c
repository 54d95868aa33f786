#include "codec/h2_priv.h"

#include "base/xmem.h"

enum { PSEUDO_MAX = 4 }; /* of a head that we send */

/* ---- fields out ---- */

/* RFC 9113 §8.2.2 */
static bool is_connection_field(struct view name)
{
    static const struct view names[] = {VIEW_LIT("connection"), VIEW_LIT("keep-alive"),
                                        VIEW_LIT("proxy-connection"), VIEW_LIT("transfer-encoding"),
                                        VIEW_LIT("upgrade")};
    size_t i;

    for (i = 0; i < ARRAY_LEN(names); i++)
        if (view_ieq(name, names[i]))
            return true;
    return false;
}

void h2_fields_init(struct h2_fields *f, const struct h1_field *fields, size_t n, size_t extra)
{
    size_t i, room = extra;

    for (i = 0; i < n; i++)
        room += fields[i].name.n + fields[i].value.n;
    *f = (struct h2_fields){.text = STR_INIT};
    str_reserve(&f->text, room);
    f->nv = xcalloc(n + PSEUDO_MAX, sizeof(*f->nv));
}

void h2_fields_add(struct h2_fields *f, struct view name, struct view value)
{
    nghttp2_nv *nv = &f->nv[f->n++];
    size_t i, at = f->text.n;

    str_addv(&f->text, name); /* there is room: it does not move */
    for (i = at; i < f->text.n; i++)
        if (f->text.p[i] >= 'A' && f->text.p[i] <= 'Z')
            f->text.p[i] |= 0x20;
    str_addv(&f->text, value);
    nv->name = (uint8_t *)f->text.p + at;
    nv->namelen = name.n;
    nv->value = (uint8_t *)f->text.p + at + name.n;
    nv->valuelen = value.n;
    nv->flags = NGHTTP2_NV_FLAG_NONE;
}

void h2_fields_add_all(struct h2_fields *f, const struct h1_field *fields, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        ASSERT(h1_is_token(fields[i].name) && h1_is_field_value(fields[i].value));
        if (!is_connection_field(fields[i].name))
            h2_fields_add(f, fields[i].name, fields[i].value);
    }
}

void h2_fields_fini(struct h2_fields *f)
{
    str_fini(&f->text);
    xfree(f->nv);
}

/* ---- heads in ---- */

struct h2_head_in *h2_head_new(bool request)
{
    struct h2_head_in *h = XNEW(struct h2_head_in);

    h->content_length = -1;
    h->request = request;
    return h;
}

void h2_head_drop(struct h2_stream *st)
{
    if (st->head)
        str_fini(&st->head->text);
    XFREE(st->head);
}

static struct view text_at(const struct h2_head_in *h, uint32_t at, uint32_t n)
{
    return view_of(h->text.p ? h->text.p + at : "", n);
}

struct view h2_head_pseudo(const struct h2_head_in *h, enum h2_pseudo which)
{
    return text_at(h, h->pseudo[which].value, h->pseudo[which].value_n);
}

size_t h2_head_fields(const struct h2_head_in *h, struct h1_field *out)
{
    size_t i;

    for (i = 0; i < h->n_fields; i++) {
        const struct h2_part *p = &h->fields[i];

        out[i].name = text_at(h, p->name, p->name_n);
        out[i].value = text_at(h, p->value, p->value_n);
    }
    return h->n_fields;
}

static bool take_pseudo(struct h2_head_in *h, struct view name, struct h2_part part)
{
    static const struct view names[N_PSEUDO] = {
        [P_METHOD] = VIEW_LIT(":method"),       [P_SCHEME] = VIEW_LIT(":scheme"),
        [P_AUTHORITY] = VIEW_LIT(":authority"), [P_PATH] = VIEW_LIT(":path"),
        [P_PROTOCOL] = VIEW_LIT(":protocol"),   [P_STATUS] = VIEW_LIT(":status"),
    };
    size_t i;

    for (i = 0; i < N_PSEUDO; i++)
        if (view_eq(name, names[i])) {
            h->pseudo[i] = part;
            return true;
        }
    return false;
}

/* RFC 9113 §8.3.1: Host stands in for :authority, and must not differ from it. */
static void take_host(struct h2_head_in *h, struct view value, struct h2_part part)
{
    if (h->host ||
        (h->pseudo[P_AUTHORITY].name_n && !view_ieq(h2_head_pseudo(h, P_AUTHORITY), value)))
        h->bad = true;
    h->host = true;
    if (!h->pseudo[P_AUTHORITY].name_n)
        h->pseudo[P_AUTHORITY] = part;
}

/* Digits: the library checked them. */
static int64_t parse_length(struct view v)
{
    int64_t n = 0;
    size_t i;

    if (v.n > 18)
        return INT64_MAX;
    for (i = 0; i < v.n; i++)
        n = n * 10 + (v.p[i] - '0');
    return n;
}

void h2_head_take(struct h2_head_in *h, struct view name, struct view value)
{
    struct h2_part part = {(uint32_t)h->text.n, (uint32_t)name.n, (uint32_t)(h->text.n + name.n),
                           (uint32_t)value.n};

    if (h->too_large)
        return;
    if (h->n_fields == H1_MAX_FIELDS || h->text.n + name.n + value.n > H2_MAX_HEADER_BYTES) {
        h->too_large = true;
        str_fini(&h->text);
        return;
    }
    str_addv(&h->text, name);
    str_addv(&h->text, value);
    if (name.n && name.p[0] == ':') {
        if (!take_pseudo(h, name, part))
            h->bad = true;
        return;
    }
    if (h->request && view_is(name, "host")) {
        take_host(h, value, part);
        return;
    }
    if (view_is(name, "content-length"))
        h->content_length = parse_length(value);
    if (!h1_is_token(name) || !h1_is_field_value(value))
        h->bad = true;
    h->fields[h->n_fields++] = part;
}
