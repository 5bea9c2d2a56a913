/* A kernel's rows, shared among the threads of a team: every thread runs `take_parts` on the same
   work and takes parts until none are left, however many threads there are. */

#include <stdatomic.h>

#include "simd.h"

typedef struct {
    int (*kernel)(const void *call, int begin, int end, int part); /* 0, or 1: out of memory */
    const void *call;
    int32_t rows, parts;
    atomic_int next, failed;
} Work;

EXPORT void take_parts(void *argument) {
    Work *work = argument;
    int part;
    while ((part = atomic_fetch_add(&work->next, 1)) < work->parts) {
        const int begin = (int)((int64_t)work->rows * part / work->parts);
        const int end = (int)((int64_t)work->rows * (part + 1) / work->parts);
        if (work->kernel(work->call, begin, end, part)) atomic_store(&work->failed, 1);
    }
}

EXPORT int vector_width(void) { return V; }
