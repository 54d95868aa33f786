/* What a fuzz target is: one function that takes any bytes, and aborts when its oracle is wrong. */
#ifndef TR_FUZZ_TARGET_H
#define TR_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>
#include "base/bug.h"
#include "base/str.h"
#include "base/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Bytes that steer the target, taken off the front of the input; 0 when there are none left. */
static inline uint8_t fuzz_byte(struct view *in)
{
    uint8_t b = 0;

    if (in->n) {
        b = (uint8_t)in->p[0];
        *in = view_from(*in, 1);
    }
    return b;
}

#endif
