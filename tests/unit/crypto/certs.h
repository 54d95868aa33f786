/* Certificates for tests, made when they run: nothing in the tree can expire. */
#ifndef TR_TEST_CERTS_H
#define TR_TEST_CERTS_H

#include <time.h>

/* A directory of the test's own under $TMPDIR or /tmp; certs_remove takes it and its files away. */
struct certs {
    char dir[128];
    char path[16][192]; /* certs_path's results, used in turn */
    unsigned turn;
};

void certs_init(struct certs *c);
void certs_remove(struct certs *c);

/* "<dir>/<file>"; good for sixteen further calls. */
const char *certs_path(struct certs *c, const char *file);

/* Make <name>.pem and <name>.key: a P-256 key and a certificate for it.
 * issuer: name of one made before, or NULL: self-signed. ca: may sign others.
 * san: OpenSSL's notation ("DNS:a.example,IP:127.0.0.1") or NULL. Valid in [from, until) seconds
 * from now. */
struct cert_spec {
    const char *name;
    const char *issuer;
    int ca;
    const char *san;
    long from;
    long until;
};
void certs_make(struct certs *c, const struct cert_spec *spec);

/* The usual: "ca" (self-signed), "server" for localhost, a.example, *.wild.example, 127.0.0.1 and
 * ::1, and "client". */
void certs_make_usual(struct certs *c);

#endif
