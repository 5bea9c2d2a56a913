/* Kernels on all their rows, shared among threads, and kernels one after the other. */

#include <stdatomic.h>

#include "simd.h"

typedef struct {
    Kernel kernel;
    const void *call;
    int32_t rows, parts;
    atomic_int next, failed;
} Work;

/* Every thread takes parts of the same work until none are left, however many threads there are. */
static void take_parts(void *argument) {
    Work *work = argument;
    int part;
    while ((part = atomic_fetch_add(&work->next, 1)) < work->parts) {
        const int begin = (int)((int64_t)work->rows * part / work->parts);
        const int end = (int)((int64_t)work->rows * (part + 1) / work->parts);
        if (work->kernel(work->call, begin, end, part)) atomic_store(&work->failed, 1);
    }
}

typedef void Parallel(void (*function)(void *), void *data, unsigned threads, unsigned flags);

int run_rows(Kernel kernel, const void *call, int32_t rows, int32_t parts, int32_t threads,
             void *parallel) {
    Work work = {.kernel = kernel, .call = call, .rows = rows, .parts = parts};
    if (parts > 1 && parallel)
        ((Parallel *)parallel)(take_parts, &work, (unsigned)threads, 0);
    else
        take_parts(&work);
    return work.failed;
}

int run_pipeline(const void *calls, int begin, int end, int part) {
    for (const KernelCall *one = calls; one->kernel; one++)
        if (one->kernel(one->call, begin, end, part)) return 1;
    return 0;
}

int vector_width(void) { return V; }
