/* LTC neurons over a whole sequence, forward and backward.

   One step, for a neuron j, `unfolds` times with dt = timespan / unfolds (equations.py, ltc_step):

       act_s = w_s sigmoid(slope_s v_source - offset_s)      slope = sigma, offset = sigma mu
       conductance_j = leak_j + epsilon + sum act_s          over the synapses s into j
       pull_j = leak_j rest_j + sum act_s erev_s
       v_j' = v_j + dt (pull_j - conductance_j v_j) / (cm_j + dt conductance_j)

   The vector lanes are rows of the batch, so a synapse is a handful of scalars and only synapses that
   exist cost anything. They are sorted by their target, whose sums stay in registers. What the
   sensory synapses add is the same for all unfolds of a step. For the backward, the forward keeps v
   before each unfold and what it divided by; sigmoids are computed again.

   Arrays are dense, time first and rows last. Axes: T steps, I inputs, N neurons, S synapses, U
   unfolds, B rows. */

#include "simd.h"

typedef struct {
    int32_t count;         /* S */
    const int32_t *source; /* (S) */
    const int32_t *first;  /* (N + 1): the synapses into neuron j are first[j] ... first[j + 1] - 1 */
    const float *slope, *offset, *weight, *pull; /* (S) each; pull is w times erev */
} Synapses;

typedef struct {
    int32_t steps, inputs, neurons, unfolds, rows; /* T, I, N, U, B */
    float epsilon, timespan;                       /* the constant one */
    Synapses sensory, internal;
    const float *cm, *leak, *rest; /* (N) */
    const float *x;                /* (T, I, B) */
    const float *start;            /* (N, B) */
    const float *timespans;        /* (T, B) or null */
    const uint8_t *resets;         /* (T, B) or null */
    float *states;                 /* (T, N, B) */
    float *unfolded;               /* (T, U, N, B): v before each unfold; or null */
    float *divisors;               /* (T, U, N, B): cm + dt conductance, or 1 where dt is 0 */
    /* Backward only. */
    const float *dstates;  /* (T, N, B) */
    float *dx;             /* (T, I, B) or null */
    float *dstart;         /* (N, B) */
    float *dtimespans;     /* (T, B) or null */
    float *dsensory;       /* (parts, 4, S): of slope, offset, weight and pull */
    float *dinternal;      /* (parts, 4, S) */
    float *dneurons;       /* (parts, 3, N): of cm, leak and rest */
} Ltc;

/* Up to V rows of a dense array → lanes, zeros in those left over; and back. */
INLINE vec gather(const float *from, int rows) {
    if (rows == V) return load(from);
    float lanes[V] = {0};
    memcpy(lanes, from, rows * sizeof(float));
    return load(lanes);
}

INLINE void scatter(float *to, vec value, int rows) {
    if (rows == V) {
        store(to, value);
        return;
    }
    float lanes[V];
    store(lanes, value);
    memcpy(to, lanes, rows * sizeof(float));
}

INLINE float sum_of_lanes(vec value) {
    float sum = 0.0f;
    for (int lane = 0; lane < V; lane++) sum += value[lane];
    return sum;
}

/* Adds what the synapses into neuron j contribute, from the potentials of their sources (·, V). */
INLINE void receive(const Synapses *s, int j, const float *sources, vec *conductance, vec *pull) {
    vec c = *conductance, p = *pull;
    for (int k = s->first[j]; k < s->first[j + 1]; k++) {
        vec v = load(sources + s->source[k] * V);
        vec act = logistic(v * s->slope[k] - s->offset[k]);
        c += act * s->weight[k];
        p += act * s->pull[k];
    }
    *conductance = c;
    *pull = p;
}

/* The same backwards: adds to the gradients of the sources (·, V), if wanted, and of the synapses
   (S, 4, V). */
INLINE void receive_back(const Synapses *s, int j, const float *sources, vec dconductance, vec dpull,
                         float *dsources, float *dsynapses) {
    for (int k = s->first[j]; k < s->first[j + 1]; k++) {
        vec v = load(sources + s->source[k] * V);
        vec act = logistic(v * s->slope[k] - s->offset[k]);
        vec dargument = (dpull * s->pull[k] + dconductance * s->weight[k]) * act * (1.0f - act);
        float *to = dsynapses + (size_t)k * 4 * V;
        store(to, load(to) + dargument * v);
        store(to + V, load(to + V) - dargument);
        store(to + 2 * V, load(to + 2 * V) + dconductance * act);
        store(to + 3 * V, load(to + 3 * V) + dpull * act);
        if (dsources) {
            float *source = dsources + s->source[k] * V;
            store(source, load(source) + dargument * s->slope[k]);
        }
    }
}

/* Room for `count` vectors, and never for none, so that NULL means a lack of memory. */
static float *lanes(size_t count) {
    return aligned_alloc(64, ((count + 1) * V * sizeof(float) + 63) / 64 * 64);
}

/* dt of these rows at one step. */
INLINE vec timestep(const Ltc *c, size_t here, int rows) {
    vec timespan = c->timespans ? gather(c->timespans + here, rows) : all(c->timespan);
    return timespan / (float)c->unfolds;
}

/* Lanes of the rows that are reset before a step: all bits set. */
INLINE ints forgotten(const Ltc *c, size_t here, int rows) {
    ints mask = {0};
    if (c->resets)
        for (int r = 0; r < rows; r++) mask[r] = c->resets[here + r] ? -1 : 0;
    return mask;
}

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
EXPORT int ltc_forward(const Ltc *c, int begin, int end, int part) {
    (void)part;
    const int N = c->neurons, I = c->inputs, U = c->unfolds;
    const size_t B = c->rows;
    float *x = lanes(I), *v = lanes(N), *next = lanes(N), *base = lanes(2 * N);
    const int short_of_memory = !x || !v || !next || !base;

    for (int row = begin; row < end && !short_of_memory; row += V) {
        const int rows = end - row < V ? end - row : V;
        for (int j = 0; j < N; j++) store(v + j * V, gather(c->start + j * B + row, rows));
        for (int t = 0; t < c->steps; t++) {
            const vec dt = timestep(c, t * B + row, rows);
            const ints moves = dt > 0.0f, reset = forgotten(c, t * B + row, rows);
            for (int i = 0; i < I; i++)
                store(x + i * V, gather(c->x + ((size_t)t * I + i) * B + row, rows));
            for (int j = 0; j < N; j++) {
                vec conductance = all(c->leak[j] + c->epsilon);
                vec pull = all(c->leak[j] * c->rest[j]);
                receive(&c->sensory, j, x, &conductance, &pull);
                store(base + 2 * j * V, conductance);
                store(base + (2 * j + 1) * V, pull);
                store(v + j * V, choose(reset, all(0.0f), load(v + j * V)));
            }
            for (int u = 0; u < U; u++) {
                for (int j = 0; j < N; j++) {
                    const size_t place = (((size_t)t * U + u) * N + j) * B + row;
                    vec conductance = load(base + 2 * j * V), pull = load(base + (2 * j + 1) * V);
                    receive(&c->internal, j, v, &conductance, &pull);
                    const vec before = load(v + j * V);
                    const vec divisor = choose(moves, c->cm[j] + dt * conductance, all(1.0f));
                    store(next + j * V, before + dt * (pull - conductance * before) / divisor);
                    if (c->unfolded) {
                        scatter(c->unfolded + place, before, rows);
                        scatter(c->divisors + place, divisor, rows);
                    }
                }
                float *other = v;
                v = next;
                next = other;
            }
            for (int j = 0; j < N; j++)
                scatter(c->states + ((size_t)t * N + j) * B + row, load(v + j * V), rows);
        }
    }
    free(x);
    free(v);
    free(next);
    free(base);
    return short_of_memory;
}

/* Rows [begin, end) of the batch; gradients of the parameters go to the given part. Returns 0, or 1
   where memory is short. */
EXPORT int ltc_backward(const Ltc *c, int begin, int end, int part) {
    const int N = c->neurons, I = c->inputs, U = c->unfolds;
    const int sensory = c->sensory.count, internal = c->internal.count;
    const size_t B = c->rows;
    float *x = lanes(I), *dx = lanes(I), *v = lanes(N), *base = lanes(2 * N);
    float *dv = lanes(N), *dbefore = lanes(N);
    float *dsensory = lanes(4 * sensory), *dinternal = lanes(4 * internal);
    float *dneurons = lanes(3 * N);
    const int short_of_memory = !x || !dx || !v || !base || !dv || !dbefore || !dsensory ||
                                !dinternal || !dneurons;
    if (!short_of_memory) {
        memset(dsensory, 0, sizeof(float) * V * 4 * sensory);
        memset(dinternal, 0, sizeof(float) * V * 4 * internal);
        memset(dneurons, 0, sizeof(float) * V * 3 * N);
    }
    for (int row = begin; row < end && !short_of_memory; row += V) {
        const int rows = end - row < V ? end - row : V;
        memset(dv, 0, sizeof(float) * V * N);
        for (int t = c->steps - 1; t >= 0; t--) {
            const vec dt = timestep(c, t * B + row, rows);
            const ints moves = dt > 0.0f, reset = forgotten(c, t * B + row, rows);
            vec dtimestep = all(0.0f);
            for (int i = 0; i < I; i++)
                store(x + i * V, gather(c->x + ((size_t)t * I + i) * B + row, rows));
            for (int j = 0; j < N; j++)
                store(dv + j * V,
                      load(dv + j * V) + gather(c->dstates + ((size_t)t * N + j) * B + row, rows));
            memset(base, 0, sizeof(float) * V * 2 * N); /* d conductance, d pull of the sensory */
            for (int u = U - 1; u >= 0; u--) {
                const size_t place = ((size_t)t * U + u) * N;
                for (int j = 0; j < N; j++) {
                    store(v + j * V, gather(c->unfolded + (place + j) * B + row, rows));
                    store(dbefore + j * V, all(0.0f));
                }
                for (int j = 0; j < N; j++) {
                    const float *later = u + 1 < U ? c->unfolded + (place + N + j) * B + row
                                                   : c->states + ((size_t)t * N + j) * B + row;
                    const vec after = gather(later, rows), before = load(v + j * V);
                    vec divisor = gather(c->divisors + (place + j) * B + row, rows);
                    if (rows < V) divisor = choose(divisor == 0.0f, all(1.0f), divisor);
                    const vec grad = load(dv + j * V), share = grad / divisor;
                    const vec dpull = share * dt, dconductance = -dpull * after;
                    const vec moved = after - before;
                    const vec kept = choose(moves, share * c->cm[j], grad);
                    float *own = dneurons + 3 * j * V;
                    store(own, load(own) - choose(moves, share * moved, all(0.0f)));
                    store(own + V, load(own + V) + dconductance + dpull * c->rest[j]);
                    store(own + 2 * V, load(own + 2 * V) + dpull * c->leak[j]);
                    if (c->dtimespans)
                        dtimestep += choose(moves, share * moved * c->cm[j] / dt, all(0.0f));
                    store(base + 2 * j * V, load(base + 2 * j * V) + dconductance);
                    store(base + (2 * j + 1) * V, load(base + (2 * j + 1) * V) + dpull);
                    store(dbefore + j * V, load(dbefore + j * V) + kept);
                    receive_back(&c->internal, j, v, dconductance, dpull, dbefore, dinternal);
                }
                float *other = dv;
                dv = dbefore;
                dbefore = other;
            }
            memset(dx, 0, sizeof(float) * V * I);
            for (int j = 0; j < N; j++) {
                receive_back(&c->sensory, j, x, load(base + 2 * j * V), load(base + (2 * j + 1) * V),
                             c->dx ? dx : NULL, dsensory);
                store(dv + j * V, choose(reset, all(0.0f), load(dv + j * V)));
            }
            if (c->dx)
                for (int i = 0; i < I; i++)
                    scatter(c->dx + ((size_t)t * I + i) * B + row, load(dx + i * V), rows);
            if (c->dtimespans)
                scatter(c->dtimespans + t * B + row, dtimestep / (float)U, rows);
        }
        for (int j = 0; j < N; j++) scatter(c->dstart + j * B + row, load(dv + j * V), rows);
    }
    if (!short_of_memory) {
        for (int k = 0; k < sensory; k++)
            for (int q = 0; q < 4; q++)
                c->dsensory[((size_t)part * 4 + q) * sensory + k] =
                    sum_of_lanes(load(dsensory + ((size_t)k * 4 + q) * V));
        for (int k = 0; k < internal; k++)
            for (int q = 0; q < 4; q++)
                c->dinternal[((size_t)part * 4 + q) * internal + k] =
                    sum_of_lanes(load(dinternal + ((size_t)k * 4 + q) * V));
        for (int j = 0; j < N; j++)
            for (int q = 0; q < 3; q++)
                c->dneurons[(part * 3 + q) * N + j] = sum_of_lanes(load(dneurons + (3 * j + q) * V));
    }
    free(x);
    free(dx);
    free(v);
    free(base);
    free(dv);
    free(dbefore);
    free(dsensory);
    free(dinternal);
    free(dneurons);
    return short_of_memory;
}
