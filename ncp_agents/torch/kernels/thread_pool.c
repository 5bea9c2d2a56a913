/* How kernels are run, each of them a function of this type.

   A kernel's rows are shared among the threads of a team: every thread runs `take_parts` on the same
   work and takes parts until none are left, however many threads there are. */

#include <stdatomic.h>

#include "simd.h"

typedef int Kernel(const void *call, int begin, int end, int part); /* 0, or 1: out of memory */

typedef struct {
    Kernel *kernel;
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

/* Kernels one after the other, each reading what the one before made of the same rows: itself a
   kernel, whose argument is the links, up to one without a kernel. */
typedef struct {
    Kernel *kernel;
    const void *call;
} Link;

EXPORT int chain(const void *links, int begin, int end, int part) {
    for (const Link *link = links; link->kernel; link++)
        if (link->kernel(link->call, begin, end, part)) return 1;
    return 0;
}

EXPORT int vector_width(void) { return V; }
