/* CfC neurons over a whole sequence, forward and backward: one group of rows after another, each
   from the first step to the last with everything in cache.

   A step is a chain of linear maps. Without a backbone, map l makes the heads of layer l of neurons
   from layer l - 1, now, and layer l, one step ago; both stand next to each other in a row of the
   state. With a backbone, its layers are the maps, the last one makes the heads of the only layer of
   neurons, and the first reads the state. The first map also reads the inputs x.

   The heads are those of fused_weights.py: sigmoids s of [f1, f2, gate], or of [-, f1, f2, a * timespan + b]
   where timespans vary, and h = 2 (s1 + gate (s2 - s1)) - 1.

   Axes: T steps, B rows, I inputs, N neurons, D heads, n neurons of one layer, U units of a layer of
   the backbone. Rows of x, states and what is as long stand `time_stride` and `row_stride` rows
   apart, so that a batch may come first or the time. `wide` sizes are padded to whole vectors. */

#include "simd.h"

static int maps(const CfcCall *c) { return c->depth ? c->depth + 1 : c->layers; }

static int columns(const LinearMap *map) { return map->groups * padded(map->n); }

/* Where the parts of `packed` are: for the forward, of each map its weights towards the sources
   (sources, columns) and its bias (columns), and of the first those towards x (I, columns); for the
   backward the weights (groups n, padded sources). */
typedef struct {
    const float *weight[MAX_LAYERS], *bias[MAX_LAYERS], *first;
    size_t size;
} Packing;

static Packing packing(const CfcCall *c, int backward) {
    Packing p = {.size = 0};
    for (int i = 0; i < maps(c); i++) {
        const LinearMap *map = &c->linears[i];
        p.weight[i] = c->packed + p.size;
        if (backward) {
            p.size += (size_t)map->groups * map->n * padded(map->sources);
            continue;
        }
        p.size += (size_t)map->sources * columns(map);
        p.bias[i] = c->packed + p.size;
        p.size += columns(map);
    }
    p.first = c->packed + p.size;
    if (!backward && c->x) p.size += (size_t)c->linears[0].skip * columns(&c->linears[0]);
    return p;
}

int64_t cfc_packed_size(const CfcCall *c, int backward) {
    return (int64_t)packing(c, backward).size;
}

/* Columns [from, from + count) of a map's weights → (count, columns). */
static void turn(const LinearMap *map, int from, int count, float *to) {
    const int wide = padded(map->n), stride = map->skip + map->sources;
    memset(to, 0, sizeof(float) * count * columns(map));
    for (int g = 0; g < map->groups; g++)
        for (int j = 0; j < map->n; j++)
            for (int k = 0; k < count; k++)
                to[k * columns(map) + g * wide + j] =
                    map->weight[(size_t)(g * map->n + j) * stride + from + k];
}

/* Fills `packed`, which has room for `cfc_packed_size` floats. */
void cfc_pack(const CfcCall *c, int backward) {
    const Packing p = packing(c, backward);
    for (int i = 0; i < maps(c); i++) {
        const LinearMap *map = &c->linears[i];
        float *weight = (float *)p.weight[i], *bias = (float *)p.bias[i];
        const int rows = map->groups * map->n, wide = padded(map->sources);
        if (backward) {
            memset(weight, 0, sizeof(float) * rows * wide);
            for (int row = 0; row < rows; row++)
                memcpy(weight + row * wide,
                       map->weight + (size_t)row * (map->skip + map->sources) + map->skip,
                       map->sources * sizeof(float));
            continue;
        }
        turn(map, map->skip, map->sources, weight);
        memset(bias, 0, sizeof(float) * columns(map));
        for (int g = 0; g < map->groups; g++)
            memcpy(bias + g * padded(map->n), map->bias + g * map->n, map->n * sizeof(float));
    }
    if (!backward && c->x)
        turn(&c->linears[0], 0, c->linears[0].skip, (float *)p.first);
}

/* The new state h (n) of one layer's neurons in one row, from its heads without their bias
   (D, wide); their sigmoids go to s (D, wide). */
INLINE void mix(const CfcCall *c, const float *z, const float *bias, float *s, float *h, int n,
                float timespan) {
    const int wide = padded(n), f1 = (c->heads - 3) * wide, f2 = f1 + wide, gate = f2 + wide;
    for (int j = 0; j < wide; j += V) {
        vec g = load(z + gate + j) + load(bias + gate + j);
        if (c->heads == 4) {
            vec a = load(z + j) + load(bias + j);
            store(s + j, a);
            g += a * timespan;
        }
        vec s1 = logistic(load(z + f1 + j) + load(bias + f1 + j));
        vec s2 = logistic(load(z + f2 + j) + load(bias + f2 + j));
        g = logistic(g);
        store(s + f1 + j, s1);
        store(s + f2 + j, s2);
        store(s + gate + j, g);
        store_some(h + j, 2.0f * (s1 + g * (s2 - (c->no_gate ? all(0.5f) : s1))) - 1.0f, n - j);
    }
}

/* The gradients of one layer's heads in one row, dz (D, n), from that of its new state, dh (n); the
   gradient of the timespan is returned. */
INLINE float unmix(const CfcCall *c, const float *s, const float *dh, float *dz, int n,
                   float timespan) {
    const int wide = padded(n), extra = c->heads - 3;
    const float *f1 = s + extra * wide, *f2 = f1 + wide, *gate = f2 + wide;
    float *d1 = dz + extra * n;
    vec dtimespan = all(0.0f);
    for (int j = 0; j < wide; j += V) {
        vec s1 = load(f1 + j), s2 = load(f2 + j), g = load(gate + j);
        vec grad = 2.0f * load_some(dh + j, n - j);
        vec first = grad * s1 * (1.0f - s1);
        vec slope = grad * g * (1.0f - g) * (s2 - (c->no_gate ? all(0.5f) : s1));
        store_some(d1 + j, c->no_gate ? first : first * (1.0f - g), n - j);
        store_some(d1 + n + j, grad * g * s2 * (1.0f - s2), n - j);
        store_some(d1 + 2 * n + j, slope, n - j);
        if (extra) {
            store_some(dz + j, slope * timespan, n - j);
            dtimespan += slope * load(s + j);
        }
    }
    return extra ? sum_of_lanes(dtimespan) : 0.0f;
}

/* One row of a layer of the backbone, z without its bias (wide), through phi: to a (wide). */
INLINE void phi(const CfcCall *c, const float *z, const float *bias, float *a, int wide) {
    for (int j = 0; j < wide; j += V) {
        vec value = load(z + j) + load(bias + j);
        store(a + j, c->relu ? choose(value < 0.0f, all(0.0f), value) : logistic(value));
    }
}

/* The gradient before phi (n) from that after it (wide). */
INLINE void unphi(const CfcCall *c, const float *a, const float *da, float *dz, int n) {
    for (int j = 0; j < n; j += V) {
        vec value = load_some(a + j, n - j), grad = load(da + j);
        grad = c->relu ? choose(value > 0.0f, grad, all(0.0f)) : grad * value * (1.0f - value);
        store_some(dz + j, grad, n - j);
    }
}

static int most(int a, int b) { return a > b ? a : b; }

INLINE void copy(float *to, const float *from, int n) { memcpy(to, from, n * sizeof(float)); }

/* z (rows, columns) = map i of `from` and, if it is the first, of x, without its bias. */
INLINE void apply(const CfcCall *c, const Packing *p, int i, int rows, const float *from, int stride,
                  size_t here, float *z) {
    const LinearMap *map = &c->linears[i];
    const int wide = columns(map);
    const float *before = NULL;
    int before_stride = 0;
    if (i == 0 && !c->x) {
        before = c->drive + here * wide;
        before_stride = c->row_stride * wide;
    } else if (i == 0) {
        product(rows, wide, map->skip, c->x + here * map->skip, c->row_stride * map->skip, p->first,
                NULL, 0, z, wide);
        before = z;
        before_stride = wide;
    }
    product(rows, wide, map->sources, from, stride, p->weight[i], before, before_stride, z, wide);
}

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
int cfc_forward(const void *call, int begin, int end, int part) {
    (void)part;
    const CfcCall *c = call;
    const Packing p = packing(c, 0);
    int N = 0, active = 0, read = 0, widest = 0;
    for (int l = 0; l < c->layers; l++) {
        const LinearMap *heads = &c->linears[c->depth + l];
        N += heads->n;
        active += columns(heads);
        read += heads->sources;
    }
    if (c->depth) read = N;
    for (int i = 0; i < maps(c); i++) widest = most(widest, columns(&c->linears[i]));

    float *h = floats(MAX_ROWS * N), *z = floats(MAX_ROWS * widest);
    float *a = floats(MAX_ROWS * widest), *s = floats(widest);
    const int short_of_memory = !h || !z || !a || !s;

    for (int row = begin; row < end && !short_of_memory; row += MAX_ROWS) {
        const int rows = end - row < MAX_ROWS ? end - row : MAX_ROWS;
        memcpy(h, c->start + (size_t)row * N, sizeof(float) * rows * N);
        for (int t = 0; t < c->steps; t++) {
            /* Of the first of these rows at this step, in the arrays with strides. */
            const size_t here = (size_t)t * c->time_stride + (size_t)row * c->row_stride;
            const size_t dense = (size_t)t * c->rows + row;
            if (c->resets)
                for (int r = 0; r < rows; r++)
                    if (c->resets[dense + r]) memset(h + r * N, 0, sizeof(float) * N);
            if (c->sources && c->depth)
                for (int r = 0; r < rows; r++)
                    copy(c->sources + (here + r * c->row_stride) * read, h + r * N, N);
            const float *from = h;
            int stride = N;
            for (int b = 0; b < c->depth; b++) {
                const int u = c->linears[b].n, wide = padded(u);
                apply(c, &p, b, rows, from, stride, here, z);
                for (int r = 0; r < rows; r++) {
                    phi(c, z + r * wide, p.bias[b], a + r * wide, wide);
                    if (c->activity)
                        copy(c->backbone[b] + (here + r * c->row_stride) * u, a + r * wide, u);
                }
                from = a;
                stride = wide;
            }
            int first = 0, first_active = 0, first_read = 0; /* of this layer */
            for (int l = 0; l < c->layers; l++) {
                const LinearMap *map = &c->linears[c->depth + l];
                if (!c->depth) {
                    from = l ? h + first - c->linears[l - 1].n : h;
                    if (c->sources)
                        for (int r = 0; r < rows; r++)
                            copy(c->sources + (here + r * c->row_stride) * read + first_read,
                                 from + r * N, map->sources);
                }
                apply(c, &p, c->depth + l, rows, from, stride, here, z);
                for (int r = 0; r < rows; r++) {
                    const size_t place = here + r * c->row_stride;
                    float *sigmoids = c->activity ? c->activity + place * active + first_active : s;
                    mix(c, z + r * columns(map), p.bias[c->depth + l], sigmoids, h + r * N + first,
                        map->n, c->timespans ? c->timespans[dense + r] : 0.0f);
                }
                first += map->n;
                first_active += columns(map);
                first_read += map->sources;
            }
            for (int r = 0; r < rows; r++)
                copy(c->states + (here + r * c->row_stride) * N, h + r * N, N);
        }
    }
    free(h);
    free(z);
    free(a);
    free(s);
    return short_of_memory;
}

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
int cfc_backward(const void *call, int begin, int end, int part) {
    (void)part;
    const CfcCall *c = call;
    const Packing p = packing(c, 1);
    int N = 0, active = 0, widest = 0;
    for (int l = 0; l < c->layers; l++) {
        N += c->linears[c->depth + l].n;
        active += columns(&c->linears[c->depth + l]);
    }
    for (int i = 0; i < maps(c); i++) widest = most(widest, padded(c->linears[i].sources));
    const int all_outputs = c->heads * N;
    /* Gradients: of the states, now and one step before, and of what a map reads. */
    float *now = floats(MAX_ROWS * N), *before = floats(MAX_ROWS * N);
    float *da = floats(MAX_ROWS * widest);
    const int short_of_memory = !now || !before || !da;

    for (int row = begin; row < end && !short_of_memory; row += MAX_ROWS) {
        const int rows = end - row < MAX_ROWS ? end - row : MAX_ROWS;
        memset(before, 0, sizeof(float) * MAX_ROWS * N);
        for (int t = c->steps - 1; t >= 0; t--) {
            const size_t here = (size_t)t * c->time_stride + (size_t)row * c->row_stride;
            const size_t dense = (size_t)t * c->rows + row;
            for (int r = 0; r < rows; r++) {
                const float *from = c->dstates + (here + r * c->row_stride) * N;
                for (int j = 0; j < N; j++) now[r * N + j] = from[j] + before[r * N + j];
                if (c->dtimespans) c->dtimespans[dense + r] = 0.0f;
            }
            memset(before, 0, sizeof(float) * MAX_ROWS * N);
            int first = N, first_active = active;
            for (int l = c->layers - 1; l >= 0; l--) {
                const LinearMap *map = &c->linears[c->depth + l];
                const int n = map->n, wide = padded(map->sources);
                first -= n;
                first_active -= columns(map);
                float *dz = c->dheads + here * all_outputs + c->heads * first;
                for (int r = 0; r < rows; r++) {
                    float dtimespan = unmix(
                        c, c->activity + (here + r * c->row_stride) * active + first_active,
                        now + r * N + first, dz + r * c->row_stride * all_outputs, n,
                        c->timespans ? c->timespans[dense + r] : 0.0f);
                    if (c->dtimespans) c->dtimespans[dense + r] += dtimespan;
                }
                product(rows, wide, c->heads * n, dz, c->row_stride * all_outputs,
                        p.weight[c->depth + l], NULL, 0, da, wide);
                if (c->depth) continue;
                const int above = map->sources - n; /* neurons of the layer before */
                for (int r = 0; r < rows; r++) {
                    for (int j = 0; j < above; j++)
                        now[r * N + first - above + j] += da[r * wide + j];
                    copy(before + r * N + first, da + r * wide + above, n);
                }
            }
            for (int b = c->depth - 1; b >= 0; b--) {
                const LinearMap *map = &c->linears[b];
                const int u = map->n, given = padded(u), wide = padded(map->sources);
                float *dz = c->dbackbone[b] + here * u;
                for (int r = 0; r < rows; r++)
                    unphi(c, c->backbone[b] + (here + r * c->row_stride) * u, da + r * given,
                          dz + (size_t)r * c->row_stride * u, u);
                product(rows, wide, u, dz, c->row_stride * u, p.weight[b], NULL, 0, da, wide);
                if (b == 0)
                    for (int r = 0; r < rows; r++) copy(before + r * N, da + r * wide, N);
            }
            if (c->resets)
                for (int r = 0; r < rows; r++)
                    if (c->resets[dense + r]) memset(before + r * N, 0, sizeof(float) * N);
        }
        memcpy(c->dstart + (size_t)row * N, before, sizeof(float) * rows * N);
    }
    free(now);
    free(before);
    free(da);
    return short_of_memory;
}
