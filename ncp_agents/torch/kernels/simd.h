/* What the kernels are made of: vectors of floats, the logistic function, small matrix products.

   Vectors are GCC's and Clang's vector extension, as wide as the instruction set that the file is
   compiled for, so there is one source for AVX-512, AVX2, NEON and the rest. */

#ifndef NCP_SIMD_H
#define NCP_SIMD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default)
#include "kernels.h"
#pragma GCC visibility pop

#if defined(__AVX512F__)
#include <immintrin.h>
#define V 16         /* floats in a vector */
#define MAX_ROWS 8  /* rows of a product kept in registers, times MAX_COLUMNS vectors */
#else
#define V 8
#define MAX_ROWS 4
#endif
#define MAX_COLUMNS 3

#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(4 * V)));
typedef int32_t ints __attribute__((vector_size(4 * V)));
typedef float unaligned __attribute__((vector_size(4 * V), aligned(4), may_alias));

INLINE vec load(const float *from) { return *(const unaligned *)from; }
INLINE void store(float *to, vec value) { *(unaligned *)to = value; }
INLINE vec all(float value) { return (vec){0} + value; }

/* The first `count` floats of a vector, or all where there are more; the other lanes are zero. */
INLINE vec load_some(const float *from, int count) {
    if (count >= V) return load(from);
#if defined(__AVX512F__)
    return (vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#else
    float lanes[V] = {0};
    memcpy(lanes, from, count * sizeof(float));
    return load(lanes);
#endif
}

INLINE void store_some(float *to, vec value, int count) {
    if (count >= V) {
        store(to, value);
        return;
    }
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)value);
#else
    float lanes[V];
    store(lanes, value);
    memcpy(to, lanes, count * sizeof(float));
#endif
}

INLINE float sum_of_lanes(vec value) {
    float sum = 0.0f;
    for (int lane = 0; lane < V; lane++) sum += value[lane];
    return sum;
}

/* Room for `count` floats and one more vector, in whole cache lines. */
__attribute__((unused)) static float *floats(size_t count) {
    return aligned_alloc(64, ((count + V) * sizeof(float) + 63) / 64 * 64);
}

/* `yes` where `mask` is set, `no` elsewhere. */
INLINE vec choose(ints mask, vec yes, vec no) {
    return (vec)((mask & (ints)yes) | (~mask & (ints)no));
}

/* The multiple of V that holds `n` floats. */
INLINE int padded(int n) { return (n + V - 1) / V * V; }

/* 2^y with a relative error of 2e-7, for y up to 126; 0, or next to it, from -126 down. NaN stays
   NaN. y = n + r with |r| <= 1/2; the polynomial has the least relative error for 2^r. */
INLINE vec power_of_2(vec y) {
#if defined(__AVX512F__)
    const vec n = (vec)_mm512_roundscale_ps((__m512)y, 0);
#else
    y = choose(y < -126.0f, all(-126.0f), choose(y > 126.0f, all(126.0f), y));
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds */
    const vec shifted = y + to_integer, n = shifted - to_integer;
#endif
    const vec r = y - n;
    vec result = r * 1.326472731e-3f + 9.671512991e-3f;
    result = result * r + 5.550733581e-2f;
    result = result * r + 0.2402224243f;
    result = result * r + 0.6931470037f;
    result = result * r + 1.0f;
#if defined(__AVX512F__)
    return (vec)_mm512_scalef_ps((__m512)result, (__m512)n);
#else
    return (vec)((ints)result + ((ints)shifted << 23)); /* the low bits of `shifted` are n */
#endif
}

INLINE vec logistic(vec x) {
    vec y = x * -1.44269504f; /* e^-x = 2^y */
#if defined(__AVX512F__)
    y = (vec)_mm512_min_ps((__m512)all(126.0f), (__m512)y); /* this way round NaN stays */
    const vec divisor = 1.0f + power_of_2(y);
    const vec guess = (vec)_mm512_rcp14_ps((__m512)divisor);
    return guess * (2.0f - divisor * guess); /* a Newton step: a third of a division's time */
#else
    return 1.0f / (1.0f + power_of_2(y));
#endif
}

/* out (rows, columns V) = before + in (rows, depth) @ weights (depth, columns V), in registers;
   `before` may be null, for zeros, or `out`. */
INLINE void product_tile(const int rows, const int columns, int depth, const float *in,
                         int in_stride, const float *weights, int weights_stride,
                         const float *before, int before_stride, float *out, int out_stride) {
    vec sum[MAX_ROWS][MAX_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            sum[r][c] = before ? load(before + r * before_stride + c * V) : all(0.0f);
    for (int k = 0; k < depth; k++) {
        vec weight[MAX_COLUMNS];
        for (int c = 0; c < columns; c++) weight[c] = load(weights + k * weights_stride + c * V);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) sum[r][c] += in[r * in_stride + k] * weight[c];
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) store(out + r * out_stride + c * V, sum[r][c]);
}

INLINE void product_rows(const int rows, int width, int depth, const float *in, int in_stride,
                         const float *weights, const float *before, int before_stride, float *out,
                         int out_stride) {
#define TILE(columns)                                                                           \
    product_tile(rows, columns, depth, in, in_stride, weights + c, width,                       \
                 before ? before + c : NULL, before_stride, out + c, out_stride)
    int c = 0;
    for (; c + 3 * V <= width; c += 3 * V) TILE(3);
    if (c + 2 * V <= width)
        TILE(2);
    else if (c + V <= width)
        TILE(1);
#undef TILE
}

/* out (rows, width) = before + in (rows, depth) @ weights (depth, width); width is a multiple of V
   and `rows` at most MAX_ROWS. `before` may be null, for zeros, or `out`. */
__attribute__((unused)) static void product(int rows, int width, int depth, const float *in,
                                            int in_stride, const float *weights,
                                            const float *before, int before_stride, float *out,
                                            int out_stride) {
#define ROWS(n)                                                                                 \
    case n:                                                                                     \
        product_rows(n, width, depth, in, in_stride, weights, before, before_stride, out,       \
                     out_stride);                                                               \
        break;
    switch (rows) {
        ROWS(1) ROWS(2) ROWS(3) ROWS(4)
#if MAX_ROWS == 8
        ROWS(5) ROWS(6) ROWS(7) ROWS(8)
#endif
    }
#undef ROWS
}

#endif
