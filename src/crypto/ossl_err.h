/* OpenSSL's error queue as texts. */
#ifndef TR_CRYPTO_OSSL_ERR_H
#define TR_CRYPTO_OSSL_ERR_H

#include "base/err.h"

/* Fill `e` with "fmt...: what OpenSSL says" and empty the thread's queue. Returns -1. */
int ossl_err(struct err *e, enum err_code code, const char *fmt, ...) TR_PRINTF(3, 4);

/* The reason in words of the first error of the thread's queue (what set off the others), which is
 * left as it is. The text lives until the next call in this thread. */
const char *ossl_reason(void);

#endif
