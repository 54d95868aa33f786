/* Ingest: log calls as HTTP exchanges, from their head to their answer. Everything here runs in the
 * worker that has the connection. */
#ifndef TR_LOGS_INGEST_H
#define TR_LOGS_INGEST_H

#include "http/server.h"
#include "logs/shard.h"

/* One for each worker: takes log calls, hands everything else to `fallback`. */
struct ingest_service;
struct ingest_service *ingest_service_new(struct shard *sh, const struct http_service *fallback);
const struct http_service *ingest_http(struct ingest_service *s);
void ingest_service_free(struct ingest_service **s);

#endif
