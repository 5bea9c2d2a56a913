/* LTC neurons over a whole sequence, forward and backward.

   One step, for a neuron j, `unfolds` times with dt = timespan / unfolds (`ltc_step` of
   layers/reference.py):

       act_s = w_s sigmoid(slope_s v_source - offset_s)      slope = sigma, offset = sigma mu
       conductance_j = leak_j + epsilon + sum act_s          over the synapses s into j
       pull_j = leak_j rest_j + sum act_s erev_s
       v_j' = v_j + dt (pull_j - conductance_j v_j) / (cm_j + dt conductance_j)

   The vector lanes are rows of the batch, so a synapse is a handful of scalars and only synapses that
   exist cost anything. They are sorted by their target, whose sums stay in registers. What the
   sensory synapses add is the same for all unfolds of a step, and does not wait for the step before:
   it is worked out for a CHUNK of steps at once. For the backward, the forward keeps v before each
   unfold and what it divided by; sigmoids are computed again.

   Axes: T steps, I inputs, N neurons, S synapses, U unfolds, B rows. Rows of x and states stand
   `time_stride` and `row_stride` rows apart, so that a batch may come first or the time. */

#include "simd.h"

enum { CHUNK = 8 };

/* Rows (rows, count), `stride` floats apart, to lanes (count, V), and back. */
INLINE void to_lanes(const float *from, size_t stride, int rows, int count, float *to) {
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < count; k++) to[k * V + r] = from[r * stride + k];
}

INLINE void from_lanes(const float *from, int rows, int count, float *to, size_t stride) {
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < count; k++) to[r * stride + k] = from[k * V + r];
}

/* Adds what the synapses into neuron j contribute at some steps, from the potentials of their
   sources (steps, ·, V), `stride` floats apart. */
INLINE void receive(const Synapses *s, int j, const int steps, const float *sources, size_t stride,
                    vec *conductance, vec *pull) {
    vec c[CHUNK], p[CHUNK];
    for (int q = 0; q < steps; q++) c[q] = conductance[q], p[q] = pull[q];
    for (int k = s->first[j]; k < s->first[j + 1]; k++) {
        const float *source = sources + s->source[k] * V;
        for (int q = 0; q < steps; q++) {
            vec act = logistic(load(source + q * stride) * s->slope[k] - s->offset[k]);
            c[q] += act * s->weight[k];
            p[q] += act * s->pull[k];
        }
    }
    for (int q = 0; q < steps; q++) conductance[q] = c[q], pull[q] = p[q];
}

/* The same backwards: adds to the gradients of the sources, if wanted, and of the synapses
   (S, 4, V). */
INLINE void receive_back(const Synapses *s, int j, const int steps, const float *sources,
                         size_t stride, const vec *dconductance, const vec *dpull, float *dsources,
                         float *dsynapses) {
    for (int k = s->first[j]; k < s->first[j + 1]; k++) {
        const size_t source = s->source[k] * V;
        float *to = dsynapses + (size_t)k * 4 * V;
        vec dslope = load(to), doffset = load(to + V);
        vec dweight = load(to + 2 * V), dreversal = load(to + 3 * V);
        for (int q = 0; q < steps; q++) {
            vec v = load(sources + q * stride + source);
            vec act = logistic(v * s->slope[k] - s->offset[k]);
            vec dargument =
                (dpull[q] * s->pull[k] + dconductance[q] * s->weight[k]) * act * (1.0f - act);
            dslope += dargument * v;
            doffset -= dargument;
            dweight += dconductance[q] * act;
            dreversal += dpull[q] * act;
            if (dsources) {
                float *into = dsources + q * stride + source;
                store(into, load(into) + dargument * s->slope[k]);
            }
        }
        store(to, dslope);
        store(to + V, doffset);
        store(to + 2 * V, dweight);
        store(to + 3 * V, dreversal);
    }
}

/* What stays the same within each of some steps: base (steps, N, 2, V), conductance and pull. */
INLINE void receive_inputs(const LtcCall *c, const int steps, const float *x, float *base) {
    const int N = c->neurons;
    for (int j = 0; j < N; j++) {
        vec conductance[CHUNK], pull[CHUNK];
        for (int q = 0; q < steps; q++) {
            conductance[q] = all(c->leak[j] + c->epsilon);
            pull[q] = all(c->leak[j] * c->rest[j]);
        }
        receive(&c->sensory, j, steps, x, (size_t)c->inputs * V, conductance, pull);
        for (int q = 0; q < steps; q++) {
            store(base + ((size_t)q * N + j) * 2 * V, conductance[q]);
            store(base + (((size_t)q * N + j) * 2 + 1) * V, pull[q]);
        }
    }
}

INLINE void receive_inputs_back(const LtcCall *c, const int steps, const float *x, const float *dbase,
                                float *dx, float *dsensory) {
    const int N = c->neurons;
    for (int j = 0; j < N; j++) {
        vec dconductance[CHUNK], dpull[CHUNK];
        for (int q = 0; q < steps; q++) {
            dconductance[q] = load(dbase + ((size_t)q * N + j) * 2 * V);
            dpull[q] = load(dbase + (((size_t)q * N + j) * 2 + 1) * V);
        }
        receive_back(&c->sensory, j, steps, x, (size_t)c->inputs * V, dconductance, dpull, dx,
                     dsensory);
    }
}

/* dt of these rows at one step. */
INLINE vec timestep(const LtcCall *c, size_t here, int rows) {
    vec timespan = c->timespans ? load_some(c->timespans + here, rows) : all(c->timespan);
    return timespan / (float)c->unfolds;
}

/* Lanes of the rows that are reset before a step: all bits set. */
INLINE ints forgotten(const LtcCall *c, size_t here, int rows) {
    ints mask = {0};
    if (c->resets)
        for (int r = 0; r < rows; r++) mask[r] = c->resets[here + r] ? -1 : 0;
    return mask;
}

/* Rows [begin, end) of the batch. Returns 0, or 1 where memory is short. */
int ltc_forward(const void *call, int begin, int end, int part) {
    const LtcCall *c = call;
    (void)part;
    const int N = c->neurons, I = c->inputs, U = c->unfolds;
    const size_t B = c->rows;
    float *x = floats(CHUNK * I * V), *base = floats(CHUNK * 2 * N * V);
    float *v = floats(N * V), *next = floats(N * V);
    const int short_of_memory = !x || !v || !next || !base;

    for (int row = begin; row < end && !short_of_memory; row += V) {
        const int rows = end - row < V ? end - row : V;
        memset(x, 0, sizeof(float) * CHUNK * I * V); /* lanes without a row stay zero */
        memset(v, 0, sizeof(float) * N * V);
        to_lanes(c->start + (size_t)row * N, N, rows, N, v);
        for (int t = 0; t < c->steps; t++) {
            const size_t here = (size_t)t * c->time_stride + (size_t)row * c->row_stride;
            const int q = t % CHUNK;
            if (q == 0) {
                const int steps = c->steps - t < CHUNK ? c->steps - t : CHUNK;
                for (int k = 0; k < steps; k++)
                    to_lanes(c->x + (here + (size_t)k * c->time_stride) * I,
                             (size_t)c->row_stride * I, rows, I, x + k * I * V);
                if (steps == CHUNK)
                    receive_inputs(c, CHUNK, x, base);
                else
                    for (int k = 0; k < steps; k++)
                        receive_inputs(c, 1, x + k * I * V, base + k * 2 * N * V);
            }
            const vec dt = timestep(c, t * B + row, rows);
            const ints moves = dt > 0.0f, reset = forgotten(c, t * B + row, rows);
            for (int j = 0; j < N; j++)
                store(v + j * V, choose(reset, all(0.0f), load(v + j * V)));
            for (int u = 0; u < U; u++) {
                for (int j = 0; j < N; j++) {
                    const size_t place = (((size_t)t * U + u) * N + j) * B + row;
                    const float *given = base + (q * N + j) * 2 * V;
                    vec conductance = load(given), pull = load(given + V);
                    receive(&c->internal, j, 1, v, 0, &conductance, &pull);
                    const vec before = load(v + j * V);
                    const vec divisor = choose(moves, c->cm[j] + dt * conductance, all(1.0f));
                    const vec imbalance = pull - conductance * before;
                    store(next + j * V, before + dt * imbalance / divisor);
                    if (c->unfolded) {
                        store_some(c->unfolded + place, before, rows);
                        store_some(c->divisors + place, choose(moves, divisor, imbalance), rows);
                    }
                }
                float *other = v;
                v = next;
                next = other;
            }
            from_lanes(v, rows, N, c->states + here * N, (size_t)c->row_stride * N);
        }
    }
    free(x);
    free(base);
    free(v);
    free(next);
    return short_of_memory;
}

/* Rows [begin, end) of the batch; gradients of the parameters go to the given part. Returns 0, or 1
   where memory is short. */
int ltc_backward(const void *call, int begin, int end, int part) {
    const LtcCall *c = call;
    const int N = c->neurons, I = c->inputs, U = c->unfolds;
    const int sensory = c->sensory.count, internal = c->internal.count;
    const size_t B = c->rows;
    float *x = floats(CHUNK * I * V), *dx = floats(CHUNK * I * V);
    float *dbase = floats(CHUNK * 2 * N * V), *v = floats(N * V), *after = floats(N * V);
    float *dv = floats(N * V), *dbefore = floats(N * V);
    float *dsensory = floats(4 * V * (size_t)sensory), *dinternal = floats(4 * V * (size_t)internal);
    float *dneurons = floats(3 * N * V);
    const int short_of_memory = !x || !dx || !dbase || !v || !after || !dv || !dbefore ||
                                !dsensory || !dinternal || !dneurons;
    if (!short_of_memory) {
        memset(dsensory, 0, sizeof(float) * V * 4 * sensory);
        memset(dinternal, 0, sizeof(float) * V * 4 * internal);
        memset(dneurons, 0, sizeof(float) * V * 3 * N);
    }
    for (int row = begin; row < end && !short_of_memory; row += V) {
        const int rows = end - row < V ? end - row : V;
        memset(x, 0, sizeof(float) * CHUNK * I * V);
        memset(dv, 0, sizeof(float) * V * N);
        memset(v, 0, sizeof(float) * V * N);
        memset(after, 0, sizeof(float) * V * N);
        for (int t = c->steps - 1; t >= 0; t--) {
            const size_t here = (size_t)t * c->time_stride + (size_t)row * c->row_stride;
            const int q = t % CHUNK;
            const vec dt = timestep(c, t * B + row, rows);
            const ints moves = dt > 0.0f, reset = forgotten(c, t * B + row, rows);
            vec dtimestep = all(0.0f);
            float *dgiven = dbase + q * 2 * N * V;
            memset(dgiven, 0, sizeof(float) * 2 * N * V);
            to_lanes(c->dstates + here * N, (size_t)c->row_stride * N, rows, N, dbefore);
            for (int j = 0; j < N; j++)
                store(dv + j * V, load(dv + j * V) +
                                      (rows == V ? load(dbefore + j * V)
                                                 : load_some(dbefore + j * V, rows)));
            to_lanes(c->states + here * N, (size_t)c->row_stride * N, rows, N, after);
            for (int u = U - 1; u >= 0; u--) {
                const size_t place = ((size_t)t * U + u) * N;
                for (int j = 0; j < N; j++) {
                    store(v + j * V, load_some(c->unfolded + (place + j) * B + row, rows));
                    store(dbefore + j * V, all(0.0f));
                }
                for (int j = 0; j < N; j++) {
                    const vec before = load(v + j * V);
                    const vec stored = load_some(c->divisors + (place + j) * B + row, rows);
                    vec divisor = choose(moves, stored, all(1.0f));
                    if (rows < V) divisor = choose(divisor == 0.0f, all(1.0f), divisor);
                    const vec grad = load(dv + j * V), share = grad / divisor;
                    const vec dpull = share * dt, dconductance = -dpull * load(after + j * V);
                    const vec moved = load(after + j * V) - before;
                    const vec kept = choose(moves, share * c->cm[j], grad);
                    float *own = dneurons + 3 * j * V;
                    store(own, load(own) - choose(moves, share * moved, all(0.0f)));
                    store(own + V, load(own + V) + dconductance + dpull * c->rest[j]);
                    store(own + 2 * V, load(own + 2 * V) + dpull * c->leak[j]);
                    if (c->dtimespans)
                        dtimestep += choose(moves, share * moved * c->cm[j] / dt,
                                            grad * stored / c->cm[j]);
                    float *into = dgiven + 2 * j * V;
                    store(into, load(into) + dconductance);
                    store(into + V, load(into + V) + dpull);
                    store(dbefore + j * V, load(dbefore + j * V) + kept);
                    receive_back(&c->internal, j, 1, v, 0, &dconductance, &dpull, dbefore,
                                 dinternal);
                }
                float *other = dv;
                dv = dbefore;
                dbefore = other;
                other = after;
                after = v;
                v = other;
            }
            for (int j = 0; j < N; j++)
                store(dv + j * V, choose(reset, all(0.0f), load(dv + j * V)));
            if (c->dtimespans)
                store_some(c->dtimespans + t * B + row, dtimestep / (float)U, rows);
            if (q) continue;

            /* The sensory synapses of the steps from this one on. */
            const int steps = c->steps - t < CHUNK ? c->steps - t : CHUNK;
            for (int k = 0; k < steps; k++)
                to_lanes(c->x + (here + (size_t)k * c->time_stride) * I, (size_t)c->row_stride * I,
                         rows, I, x + k * I * V);
            float *wanted = c->dx ? dx : NULL;
            if (wanted) memset(dx, 0, sizeof(float) * CHUNK * I * V);
            if (steps == CHUNK)
                receive_inputs_back(c, CHUNK, x, dbase, wanted, dsensory);
            else
                for (int k = 0; k < steps; k++)
                    receive_inputs_back(c, 1, x + k * I * V, dbase + k * 2 * N * V,
                                        wanted ? dx + k * I * V : NULL, dsensory);
            for (int k = 0; wanted && k < steps; k++)
                from_lanes(dx + k * I * V, rows, I, c->dx + (here + (size_t)k * c->time_stride) * I,
                           (size_t)c->row_stride * I);
        }
        from_lanes(dv, rows, N, c->dstart + (size_t)row * N, N);
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
    free(dbase);
    free(v);
    free(after);
    free(dv);
    free(dbefore);
    free(dsensory);
    free(dinternal);
    free(dneurons);
    return short_of_memory;
}
