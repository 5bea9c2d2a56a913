/* What both kernels are made of: vectors of floats, the logistic function, small matrix products.

   Vectors are GCC's and Clang's vector extension, as wide as the instruction set that the file is
   compiled for, so there is one source for AVX-512, AVX2, NEON and the rest. */

#ifndef NCP_SIMD_H
#define NCP_SIMD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define V 16         /* floats in a vector */
#define MOST_ROWS 8  /* rows of a product kept in registers, times MOST_COLUMNS vectors */
#else
#define V 8
#define MOST_ROWS 4
#endif
#define MOST_COLUMNS 3

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

typedef float vec __attribute__((vector_size(4 * V)));
typedef int32_t ints __attribute__((vector_size(4 * V)));
typedef float unaligned __attribute__((vector_size(4 * V), aligned(4), may_alias));

INLINE vec load(const float *from) { return *(const unaligned *)from; }
INLINE void store(float *to, vec value) { *(unaligned *)to = value; }
INLINE vec all(float value) { return (vec){0} + value; }

/* `yes` where `mask` is set, `no` elsewhere. */
INLINE vec choose(ints mask, vec yes, vec no) {
    return (vec)((mask & (ints)yes) | (~mask & (ints)no));
}

/* The multiple of V that holds `n` floats. */
INLINE int padded(int n) { return (n + V - 1) / V * V; }

/* e^x with a relative error of 2e-7, for x up to 88; 0 from -87 down. NaN stays NaN.
   x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor series to the sixth power. */
INLINE vec exponential(vec x) {
    const vec least = all(-87.0f), most = all(88.0f);
    ints low = x < least;
    x = choose(low, least, x);
    x = choose(x > most, most, x);
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds */
    vec shifted = x * 1.44269504f + to_integer;
    vec n = shifted - to_integer;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec series = all(1.0f / 720);
    series = series * r + 1.0f / 120;
    series = series * r + 1.0f / 24;
    series = series * r + 1.0f / 6;
    series = series * r + 0.5f;
    series = series * r + 1.0f;
    series = series * r + 1.0f;
    ints exponent = (ints)shifted << 23; /* the low bits of `shifted` are n */
    vec result = (vec)((ints)series + exponent);
    return choose(low, all(0.0f), result);
}

INLINE vec logistic(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* out (rows, columns V) += in (rows, depth) @ weights (depth, columns V), in registers. */
INLINE void product_tile(const int rows, const int columns, int depth, const float *in,
                         int in_stride, const float *weights, int weights_stride, float *out,
                         int out_stride) {
    vec sum[MOST_ROWS][MOST_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sum[r][c] = load(out + r * out_stride + c * V);
    for (int k = 0; k < depth; k++) {
        vec weight[MOST_COLUMNS];
        for (int c = 0; c < columns; c++) weight[c] = load(weights + k * weights_stride + c * V);
        for (int r = 0; r < rows; r++) {
            vec value = all(in[r * in_stride + k]);
            for (int c = 0; c < columns; c++) sum[r][c] += value * weight[c];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) store(out + r * out_stride + c * V, sum[r][c]);
}

INLINE void product_rows(const int rows, int width, int depth, const float *in, int in_stride,
                         const float *weights, float *out, int out_stride) {
    int c = 0;
    for (; c + 3 * V <= width; c += 3 * V)
        product_tile(rows, 3, depth, in, in_stride, weights + c, width, out + c, out_stride);
    if (c + 2 * V <= width)
        product_tile(rows, 2, depth, in, in_stride, weights + c, width, out + c, out_stride);
    else if (c + V <= width)
        product_tile(rows, 1, depth, in, in_stride, weights + c, width, out + c, out_stride);
}

/* out (rows, width) += in (rows, depth) @ weights (depth, width); width is a multiple of V and
   `rows` at most MOST_ROWS. */
__attribute__((unused)) static void product(int rows, int width, int depth, const float *in, int in_stride,
                    const float *weights, float *out, int out_stride) {
#define ROWS(n) \
    case n: product_rows(n, width, depth, in, in_stride, weights, out, out_stride); break;
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4)
#if MOST_ROWS == 8
        ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#endif
    }
#undef ROWS
}

#endif
