/*
 * Does a blob that was stored as gzip read back as it was? Asked in every way that readers have
 * (HP §1.10): GET /blob, and a download link with and without `Accept-Encoding: gzip`.
 */
#ifndef TR_LOGS_BLOB_CHECK_H
#define TR_LOGS_BLOB_CHECK_H

#include "ev/pool.h"
#include "logs/shapes.h"
#include "logs/upload.h"

/* Embed it, zeroed; it must stay until `done`. */
struct blob_check {
    struct upload *u; /* whose delivery it is; nothing else of it may be under way */
    struct view want; /* the blob's bytes; valid until `done` */
    /* SHAPE_EQUAL, SHAPE_DIFFERENT, or SHAPE_UNSURE: it could not be found out. Never called from
     * within blob_check_start. */
    void (*done)(struct blob_check *c, enum shape_verdict v);

    /* Internal. */
    struct str link;
    struct str got;
    bool asked_gzip;
    bool equal;
    struct ev_job job;
};

void blob_check_start(struct blob_check *c);

#endif
