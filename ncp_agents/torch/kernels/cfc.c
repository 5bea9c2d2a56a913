/* CfC neurons over a whole sequence, forward and backward: what recurrence.py does, one group of
   rows after another, each from the first step to the last with everything in cache.

   The heads are those of fused.py: sigmoids s of [f1, f2, gate], or of [-, f1, f2, a * timespan + b]
   where timespans vary, and h = 2 (s1 + gate (s2 - s1)) - 1. Layers follow one
   another within a step: each reads the layer before it, now, and itself, one step ago. With a
   backbone there is one layer of neurons, which reads the last layer of the backbone instead.

   Arrays that the caller sees are dense, time first, without padding. In here, rows of scratch are
   padded to whole vectors.

   Axes: T steps, B rows, N neurons, D heads, n neurons of one layer, U units of the backbone. */

#include "simd.h"

enum { MOST_LAYERS = 16 };

typedef struct {
    int32_t steps, rows;          /* T, B */
    int32_t heads;                /* D: 3, or 4 with timespans */
    int32_t no_gate;
    int32_t layers;               /* of neurons: 1 with a backbone */
    int32_t depth;                /* layers of the backbone, 0 for none */
    int32_t relu;                 /* what the backbone's layers apply: relu, or else sigmoid */
    int32_t sizes[MOST_LAYERS];   /* n of each layer */
    int32_t widths[MOST_LAYERS];  /* U of each layer of the backbone */
    const float *drive;      /* (T, B, D n0), or (T, B, U0) with a backbone: inputs and biases */
    const float *start;      /* (B, N) */
    const float *recurrent;  /* (N, D N), or (N, U0) with a backbone */
    const float *bias;       /* (D N) */
    const float *hidden[MOST_LAYERS];       /* after each layer of the backbone (U, U') or (U, D N) */
    const float *hidden_bias[MOST_LAYERS];  /* (U') or (D N) */
    const float *timespans;  /* (T, B) or null */
    const uint8_t *resets;   /* (T, B) or null */
    float *states;           /* (T, B, N) */
    float *activity;         /* (T, B, D N): layer after layer, in each head after head; or null */
    float *backbone[MOST_LAYERS];  /* (T, B, U) of each of its layers after phi, or null */
    /* Backward only. */
    const float *dstates;          /* (T, B, N) */
    float *dheads;                 /* (T, B, D N), as activity */
    float *dbackbone[MOST_LAYERS]; /* (T, B, U) before phi */
    float *dstart;                 /* (B, N) */
    float *dtimespans;             /* (T, B) or null */
} Cfc;

/* A matrix whose rows are padded to whole vectors. */
typedef struct {
    float *values;
    int width; /* padded */
} Matrix;

static Matrix matrix(int rows, int width) {
    Matrix m = {NULL, width};
    /* Room for one more vector, because a copy of a row may be read a vector at a time. */
    m.values = calloc((size_t)rows * width + V, sizeof(float));
    return m;
}


/* Rows [from, from + rows) of `recurrent` for the heads of one layer → (rows, D * padded n). */
static Matrix heads_of(const float *weights, int columns, int neurons, int heads, int from,
                       int rows, int target, int n) {
    int wide = padded(n);
    Matrix m = matrix(rows, heads * wide);
    for (int k = 0; m.values && k < rows; k++)
        for (int d = 0; d < heads; d++)
            memcpy(m.values + k * m.width + d * wide,
                   weights + (size_t)(from + k) * columns + d * neurons + target,
                   n * sizeof(float));
    return m;
}

/* The transpose of the same: head after head of the layer, towards the rows. (D n, padded rows) */
static Matrix heads_back(const float *weights, int columns, int neurons, int heads, int from,
                         int rows, int target, int n) {
    Matrix m = matrix(heads * n, padded(rows));
    for (int d = 0; m.values && d < heads; d++)
        for (int j = 0; j < n; j++)
            for (int k = 0; k < rows; k++)
                m.values[(d * n + j) * m.width + k] =
                    weights[(size_t)(from + k) * columns + d * neurons + target + j];
    return m;
}

static Matrix copied(const float *weights, int rows, int columns) {
    return heads_of(weights, columns, columns, 1, 0, rows, 0, columns);
}

static Matrix transposed(const float *weights, int rows, int columns) {
    return heads_back(weights, columns, columns, 1, 0, rows, 0, columns);
}

/* `n` floats that need not fill whole vectors; what follows in `to` is scratch, in `from` not. */
INLINE void copy(float *to, const float *from, int n) { memcpy(to, from, n * sizeof(float)); }

/* The new state of one layer's neurons in one row, from its heads (D, wide), which become their
   sigmoids. */
INLINE void mix(const Cfc *c, float *z, float *h, int wide, float timespan) {
    float *f1 = z + (c->heads - 3) * wide, *f2 = f1 + wide, *gate = f2 + wide;
    for (int j = 0; j < wide; j += V) {
        vec g = load(gate + j);
        if (c->heads == 4) g += load(z + j) * timespan;
        vec s1 = logistic(load(f1 + j)), s2 = logistic(load(f2 + j));
        g = logistic(g);
        store(f1 + j, s1);
        store(f2 + j, s2);
        store(gate + j, g);
        store(h + j, 2.0f * (s1 + g * (s2 - (c->no_gate ? all(0.5f) : s1))) - 1.0f);
    }
}

/* The gradients of one layer's heads in one row from that of its new state: heads (D, n) without
   padding to dz (D, n); the gradient of the timespan is returned. The vectors may run over the end
   of a head into the next, which is written after it. */
INLINE float unmix(const Cfc *c, const float *s, const float *dh, float *dz, int n,
                   float timespan) {
    const float *f1 = s + (c->heads - 3) * n, *f2 = f1 + n, *gate = f2 + n;
    float *d1 = dz + (c->heads - 3) * n;
    float dtimespan = 0.0f;
    for (int j = 0; j < n; j += V) {
        vec s1 = load(f1 + j), g = load(gate + j), grad = 2.0f * load(dh + j);
        vec first = grad * s1 * (1.0f - s1);
        store(d1 + j, c->no_gate ? first : first * (1.0f - g));
    }
    for (int j = 0; j < n; j += V) {
        vec s2 = load(f2 + j), g = load(gate + j), grad = 2.0f * load(dh + j);
        store(d1 + n + j, grad * g * s2 * (1.0f - s2));
    }
    for (int j = 0; j < n; j += V) {
        vec s1 = load(f1 + j), s2 = load(f2 + j), g = load(gate + j), grad = 2.0f * load(dh + j);
        store(d1 + 2 * n + j, grad * g * (1.0f - g) * (s2 - (c->no_gate ? all(0.5f) : s1)));
    }
    if (c->heads == 4)
        for (int j = 0; j < n; j++) {
            dtimespan += d1[2 * n + j] * s[j];
            dz[j] = d1[2 * n + j] * timespan;
        }
    return dtimespan;
}

INLINE void phi(const Cfc *c, float *z, int wide) {
    for (int j = 0; j < wide; j += V) {
        vec value = load(z + j);
        store(z + j, c->relu ? choose(value < 0.0f, all(0.0f), value) : logistic(value));
    }
}

INLINE void unphi(const Cfc *c, const float *a, float *dz, int n) {
    for (int j = 0; j < n; j++) dz[j] *= c->relu ? (a[j] > 0.0f) : a[j] * (1.0f - a[j]);
}

/* Where each layer's neurons stand: in rows of the caller's arrays, and in padded ones. */
typedef struct {
    int first[MOST_LAYERS], padded_first[MOST_LAYERS], neurons, padded_neurons;
} Places;

static Places places(const Cfc *c) {
    Places where = {{0}, {0}, 0, 0};
    for (int l = 0; l < c->layers; l++) {
        where.first[l] = where.neurons;
        where.padded_first[l] = where.padded_neurons;
        where.neurons += c->sizes[l];
        where.padded_neurons += padded(c->sizes[l]);
    }
    return where;
}

static int most(int a, int b) { return a > b ? a : b; }

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
EXPORT int cfc_forward(const Cfc *c, int begin, int end, int part) {
    (void)part;
    const Places at = places(c);
    const int N = at.neurons, D = c->heads, T = c->steps, B = c->rows;
    const int first = c->depth ? c->widths[0] : D * c->sizes[0];
    Matrix before[MOST_LAYERS] = {{0}}, own[MOST_LAYERS] = {{0}}, hidden[MOST_LAYERS] = {{0}};
    int widest = 0, short_of_memory = 0;

    if (c->depth) {
        own[0] = copied(c->recurrent, N, c->widths[0]);
        short_of_memory |= !own[0].values;
        for (int b = 0; b < c->depth; b++) {
            int last = b + 1 == c->depth;
            hidden[b] = last ? heads_of(c->hidden[b], D * N, N, D, 0, c->widths[b], 0, N)
                             : copied(c->hidden[b], c->widths[b], c->widths[b + 1]);
            short_of_memory |= !hidden[b].values;
            widest = most(widest, most(own[0].width, hidden[b].width));
        }
    } else {
        for (int l = 0; l < c->layers; l++) {
            int n = c->sizes[l];
            own[l] = heads_of(c->recurrent, D * N, N, D, at.first[l], n, at.first[l], n);
            short_of_memory |= !own[l].values;
            if (l) {
                before[l] = heads_of(c->recurrent, D * N, N, D, at.first[l - 1], c->sizes[l - 1],
                                     at.first[l], n);
                short_of_memory |= !before[l].values;
            }
            widest = most(widest, own[l].width);
        }
    }
    Matrix h = matrix(MOST_ROWS, at.padded_neurons);
    Matrix z = matrix(MOST_ROWS, widest), a = matrix(MOST_ROWS, widest);
    short_of_memory |= !h.values || !z.values || !a.values;

    for (int row = begin; row < end && !short_of_memory; row += MOST_ROWS) {
        const int rows = end - row < MOST_ROWS ? end - row : MOST_ROWS;
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < c->layers; l++)
                copy(h.values + r * h.width + at.padded_first[l],
                     c->start + (size_t)(row + r) * N + at.first[l], c->sizes[l]);
        for (int t = 0; t < T; t++) {
            const size_t here = (size_t)t * B + row; /* the first of these rows at this step */
            if (c->resets)
                for (int r = 0; r < rows; r++)
                    if (c->resets[here + r])
                        memset(h.values + r * h.width, 0, sizeof(float) * h.width);
            const float *source = NULL;
            if (c->depth) {
                for (int b = 0; b < c->depth; b++) {
                    float *out = (b % 2 ? z : a).values;
                    const int wide = padded(c->widths[b]);
                    for (int r = 0; r < rows; r++)
                        copy(out + r * widest,
                             b ? c->hidden_bias[b - 1] : c->drive + (here + r) * first,
                             c->widths[b]);
                    if (b == 0)
                        product(rows, wide, N, h.values, h.width, own[0].values, out, widest);
                    else
                        product(rows, wide, c->widths[b - 1], source, widest,
                                hidden[b - 1].values, out, widest);
                    for (int r = 0; r < rows; r++) {
                        phi(c, out + r * widest, wide);
                        if (c->activity)
                            copy(c->backbone[b] + (here + r) * c->widths[b], out + r * widest,
                                 c->widths[b]);
                    }
                    source = out;
                }
            }
            float *heads = source == z.values ? a.values : z.values;
            for (int l = 0; l < c->layers; l++) {
                const int n = c->sizes[l], wide = padded(n);
                float *now = h.values + at.padded_first[l];
                for (int r = 0; r < rows; r++) {
                    const float *from = c->depth ? c->hidden_bias[c->depth - 1]
                                        : l      ? c->bias + at.first[l]
                                                 : c->drive + (here + r) * first;
                    const int apart = c->depth || l ? N : n;
                    for (int d = 0; d < D; d++)
                        copy(heads + r * widest + d * wide, from + d * apart, n);
                }
                if (c->depth) {
                    product(rows, D * wide, c->widths[c->depth - 1], source, widest,
                            hidden[c->depth - 1].values, heads, widest);
                } else {
                    if (l)
                        product(rows, D * wide, c->sizes[l - 1],
                                h.values + at.padded_first[l - 1], h.width, before[l].values,
                                heads, widest);
                    product(rows, D * wide, n, now, h.width, own[l].values, heads, widest);
                }
                for (int r = 0; r < rows; r++) {
                    mix(c, heads + r * widest, now + r * h.width, wide,
                        c->timespans ? c->timespans[here + r] : 0.0f);
                    copy(c->states + (here + r) * N + at.first[l], now + r * h.width, n);
                    if (c->activity)
                        for (int d = 0; d < D; d++)
                            copy(c->activity + (here + r) * D * N + D * at.first[l] + d * n,
                                 heads + r * widest + d * wide, n);
                }
            }
        }
    }
    for (int l = 0; l < MOST_LAYERS; l++) {
        free(before[l].values);
        free(own[l].values);
        free(hidden[l].values);
    }
    free(h.values);
    free(z.values);
    free(a.values);
    return short_of_memory;
}

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
EXPORT int cfc_backward(const Cfc *c, int begin, int end, int part) {
    (void)part;
    const Places at = places(c);
    const int N = at.neurons, D = c->heads, T = c->steps, B = c->rows;
    Matrix before[MOST_LAYERS] = {{0}}, own[MOST_LAYERS] = {{0}}, hidden[MOST_LAYERS] = {{0}};
    int widest = D * N, short_of_memory = 0;

    if (c->depth) {
        own[0] = transposed(c->recurrent, N, c->widths[0]);
        short_of_memory |= !own[0].values;
        for (int b = 0; b < c->depth; b++) {
            int columns = b + 1 == c->depth ? D * N : c->widths[b + 1];
            hidden[b] = transposed(c->hidden[b], c->widths[b], columns);
            short_of_memory |= !hidden[b].values;
            widest = most(widest, hidden[b].width);
        }
    } else {
        for (int l = 0; l < c->layers; l++) {
            int n = c->sizes[l];
            own[l] = heads_back(c->recurrent, D * N, N, D, at.first[l], n, at.first[l], n);
            short_of_memory |= !own[l].values;
            if (l) {
                before[l] = heads_back(c->recurrent, D * N, N, D, at.first[l - 1],
                                       c->sizes[l - 1], at.first[l], n);
                short_of_memory |= !before[l].values;
            }
        }
    }
    widest = padded(widest) + V; /* unmix runs over the end of the last head */
    Matrix carried = matrix(MOST_ROWS, at.padded_neurons), now = matrix(MOST_ROWS, at.padded_neurons);
    Matrix dz = matrix(MOST_ROWS, widest), da = matrix(MOST_ROWS, widest);
    Matrix s = matrix(1, widest);
    short_of_memory |= !carried.values || !now.values || !dz.values || !da.values || !s.values;

    for (int row = begin; row < end && !short_of_memory; row += MOST_ROWS) {
        const int rows = end - row < MOST_ROWS ? end - row : MOST_ROWS;
        memset(carried.values, 0, sizeof(float) * MOST_ROWS * carried.width);
        for (int t = T - 1; t >= 0; t--) {
            const size_t here = (size_t)t * B + row;
            /* now: the gradient of this step's states; carried: of the states one step before. */
            for (int r = 0; r < rows; r++) {
                if (c->dtimespans) c->dtimespans[here + r] = 0.0f;
                for (int l = 0; l < c->layers; l++) {
                    float *to = now.values + r * now.width + at.padded_first[l];
                    const float *later = carried.values + r * now.width + at.padded_first[l];
                    const float *from = c->dstates + (here + r) * N + at.first[l];
                    for (int j = 0; j < c->sizes[l]; j++) to[j] = from[j] + later[j];
                }
            }
            memset(carried.values, 0, sizeof(float) * MOST_ROWS * carried.width);
            for (int l = c->layers - 1; l >= 0; l--) {
                const int n = c->sizes[l];
                for (int r = 0; r < rows; r++) {
                    const size_t place = (here + r) * D * N + D * at.first[l];
                    float *to = dz.values + r * widest;
                    copy(s.values, c->activity + place, D * n);
                    float dtimespan =
                        unmix(c, s.values, now.values + r * now.width + at.padded_first[l], to, n,
                              c->timespans ? c->timespans[here + r] : 0.0f);
                    if (c->dtimespans) c->dtimespans[here + r] += dtimespan;
                    copy(c->dheads + place, to, D * n);
                }
                if (c->depth) continue;
                product(rows, padded(n), D * n, dz.values, widest, own[l].values,
                        carried.values + at.padded_first[l], carried.width);
                if (l)
                    product(rows, padded(c->sizes[l - 1]), D * n, dz.values, widest,
                            before[l].values, now.values + at.padded_first[l - 1], now.width);
            }
            float *from = dz.values, *to = da.values;
            for (int b = c->depth - 1; b >= 0; b--) {
                const int columns = b + 1 == c->depth ? D * N : c->widths[b + 1];
                const int u = c->widths[b];
                for (int r = 0; r < rows; r++)
                    memset(to + r * widest, 0, sizeof(float) * hidden[b].width);
                product(rows, hidden[b].width, columns, from, widest, hidden[b].values, to,
                        widest);
                for (int r = 0; r < rows; r++) {
                    const size_t place = (here + r) * u;
                    unphi(c, c->backbone[b] + place, to + r * widest, u);
                    copy(c->dbackbone[b] + place, to + r * widest, u);
                }
                float *other = from;
                from = to;
                to = other;
            }
            if (c->depth)
                product(rows, own[0].width, c->widths[0], from, widest, own[0].values,
                        carried.values, carried.width);
            if (c->resets)
                for (int r = 0; r < rows; r++)
                    if (c->resets[here + r])
                        memset(carried.values + r * carried.width, 0,
                               sizeof(float) * carried.width);
        }
        for (int r = 0; r < rows; r++)
            for (int l = 0; l < c->layers; l++)
                copy(c->dstart + (size_t)(row + r) * N + at.first[l],
                     carried.values + r * carried.width + at.padded_first[l], c->sizes[l]);
    }
    for (int l = 0; l < MOST_LAYERS; l++) {
        free(before[l].values);
        free(own[l].values);
        free(hidden[l].values);
    }
    free(carried.values);
    free(now.values);
    free(dz.values);
    free(da.values);
    free(s.values);
    return short_of_memory;
}
