/* A linear layer of a few rows, with ReLU after it where asked.

   Axes: B rows, I inputs, O outputs. */

#include "simd.h"

/* Rows [begin, end). Returns 0, or 1 where memory is short. */
int linear_forward(const void *call, int begin, int end, int part) {
    (void)part;
    const LinearCall *l = call;
    const int wide = padded(l->outputs);
    float *z = floats(MAX_ROWS * (size_t)wide);
    if (!z) return 1;
    for (int row = begin; row < end; row += MAX_ROWS) {
        const int rows = end - row < MAX_ROWS ? end - row : MAX_ROWS;
        product(rows, wide, l->inputs, l->in + (size_t)row * l->inputs, l->inputs, l->weight,
                l->bias, 0, z, wide);
        for (int r = 0; r < rows; r++)
            for (int j = 0; j < l->outputs; j += V) {
                const vec value = load(z + r * wide + j);
                store_some(l->out + (size_t)(row + r) * l->outputs + j,
                           l->relu ? choose(value < 0.0f, all(0.0f), value) : value,
                           l->outputs - j);
            }
    }
    free(z);
    return 0;
}
