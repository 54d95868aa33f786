#include "logs/ticket.h"

#include "base/wire.h"
#include "base/xmem.h"
#include "crypto/digest.h"
#include "rt/fdx.h"
#include "rt/rng.h"

enum { TICKET_VERSION = 1 };

static const char aad[] = "tailrace ticket 1";

int ticket_key_load(const char *path, struct aead_key *key, struct err *e)
{
    struct str bytes = STR_INIT;
    int rc = file_read(path, 4096, &bytes, e);

    if (rc < 0 && e->code == ERR_NOTFOUND) {
        rng_bytes(key->bytes, sizeof(key->bytes));
        rc = file_write_durable(path, key->bytes, sizeof(key->bytes), 0600, e);
    } else if (rc == 0 && file_check_private(path, e) < 0) {
        rc = -1;
    } else if (rc == 0 && bytes.n != sizeof(key->bytes)) {
        rc = err_set(e, ERR_INVALID, "%s is %zu bytes long, a ticket key has %zu", path, bytes.n,
                     sizeof(key->bytes));
    } else if (rc == 0) {
        memcpy(key->bytes, bytes.p, sizeof(key->bytes));
    }
    if (bytes.p)
        explicit_bzero(bytes.p, bytes.n);
    str_fini(&bytes);
    return rc;
}

void ticket_seal(const struct aead_key *key, const struct ticket *t, struct str *out)
{
    struct str plain = STR_INIT, sealed = STR_INIT;

    wire_put_u8(&plain, TICKET_VERSION);
    wire_put_u8(&plain, (uint8_t)t->kind);
    wire_put_view(&plain, t->account);
    wire_put_view(&plain, t->key);
    wire_put_view(&plain, t->prefix);
    wire_put_view(&plain, t->query);
    wire_put_view(&plain, t->secret);
    aead_seal(key, VIEW_LIT(aad), str_view(&plain), &sealed);
    base64url_encode(sealed.p, sealed.n, out);
    explicit_bzero(plain.p, plain.n);
    str_fini(&plain);
    str_fini(&sealed);
}

int ticket_open(const struct aead_key *key, struct view text, struct str *plain, struct ticket *t)
{
    struct str sealed = STR_INIT;
    struct wire w;
    int rc = -1;

    if (text.n <= TICKET_MAX && base64url_decode(text, &sealed) == 0)
        rc = aead_open(key, VIEW_LIT(aad), str_view(&sealed), plain);
    str_fini(&sealed);
    if (rc < 0)
        return -1;
    w = wire_of(str_view(plain));
    if (wire_u8(&w) != TICKET_VERSION)
        return -1;
    t->kind = (enum cred_kind)wire_u8(&w);
    t->account = wire_view(&w);
    t->key = wire_view(&w);
    t->prefix = wire_view(&w);
    t->query = wire_view(&w);
    t->secret = wire_view(&w);
    return w.failed ? -1 : 0;
}
