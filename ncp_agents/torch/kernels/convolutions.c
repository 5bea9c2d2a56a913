/* Convolutions one after another on standardised frames, each followed by ReLU, forward and
   backward: one frame after another, each from its pixels to the last map with everything in cache.

   A map is the output of a convolution: (rows, columns) positions of `wide` filters, padded to whole
   vectors, in this order of memory. So a position's window in the map before is `kernel` pieces, one
   a row, of neighbouring floats, and all passes are products with gathered rows:

   forward    a position's sum over its window, the same weights for all positions;
   weights    backward: a weight's sum over all positions of what it multiplied there;
   inputs     backward: the forward pass again, on the gradient with zeros around it and the weights
              turned round; with stride s, once for each of the s x s places within a stride.

   The backward computes the maps again, which takes less time than to keep them.

   Axes: B frames, C channels, H, W pixels, F filters. */

#include <math.h>

#include "simd.h"

/* One convolution, what it reads and what it makes of it. */
typedef struct {
    const Convolution *is;
    int height, width, channels; /* channels are padded, except a frame's */
    int rows, columns, positions, wide;
    float *map;     /* (rows, columns, wide) */
    int *from;      /* (positions): where their windows begin in the map before */
    int *to;        /* (positions): where the map has them */
    float *weights; /* (kernel, kernel, channels, wide) */
    float *bias;    /* (wide) */
    /* For the backward: */
    float *dweights; /* as weights, then as bias */
    int reach;       /* most windows that hold a pixel, each way */
    int around;      /* columns of dmap */
    float *dmap;     /* before ReLU: `reach - 1` zeros, then as map, then zeros */
    size_t dmap_size;
    int *at;         /* (positions): where dmap has them */
    /* For a layer that reads a map, one place within a stride after the other: */
    float *turned;   /* (taps, taps, wide, channels), or null */
    int *back_from;  /* (height, width): where in dmap the windows begin that hold a pixel */
    int *back_to;    /* (height, width): where the dmap before has the pixel */
} Layer;

INLINE int least(int a, int b) { return a < b ? a : b; }

static size_t weights_of(const Layer *l) {
    return (size_t)l->is->kernel * l->is->kernel * l->channels * l->wide;
}

/* How many of 0 ... size - 1 lie `place` after a multiple of the stride. */
static int places(int size, int stride, int place) {
    return place < size ? (size - place + stride - 1) / stride : 0;
}

/* How many windows, one way, hold a pixel that lies `place` pixels into a stride. */
static int taps(const Layer *l, int place) { return places(l->is->kernel, l->is->stride, place); }

/* The next `count` floats of `room`, in whole cache lines; null where there is none yet. */
static float *take(float *room, size_t *used, size_t count) {
    float *taken = room ? room + *used : NULL;
    *used += (count + 15) / 16 * 16;
    return taken;
}

/* out[to[r]] (width) = bias + in[from[r]] (pieces, length) @ weights (pieces, length, width), and
   ReLU where there is a bias; pieces are `pitch` floats apart. */
INLINE void gathered_tile(const int rows, const int columns, const float *in, const int *from,
                          int pieces, int pitch, int length, const float *weights, int width,
                          const float *bias, float *out, const int *to) {
    vec sum[MAX_ROWS][MAX_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sum[r][c] = bias ? load(bias + c * V) : all(0.0f);
    for (int piece = 0; piece < pieces; piece++) {
        const float *read[MAX_ROWS];
        for (int r = 0; r < rows; r++) read[r] = in + from[r] + piece * pitch;
        for (int k = 0; k < length; k++, weights += width) {
            vec weight[MAX_COLUMNS];
            for (int c = 0; c < columns; c++) weight[c] = load(weights + c * V);
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < columns; c++) sum[r][c] += read[r][k] * weight[c];
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            const vec value = sum[r][c];
            store(out + to[r] + c * V, bias ? choose(value < 0.0f, all(0.0f), value) : value);
        }
}

/* dweights (rows, width) += the sum over positions of in[from] (rows) times dmap[at] (width). */
INLINE void outer_tile(const int rows, const int columns, int positions, const float *in,
                       const int *from, const float *dmap, const int *at, float *dweights,
                       int width) {
    vec sum[MAX_ROWS][MAX_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) sum[r][c] = load(dweights + r * width + c * V);
    for (int p = 0; p < positions; p++) {
        const float *read = in + from[p];
        vec given[MAX_COLUMNS];
        for (int c = 0; c < columns; c++) given[c] = load(dmap + at[p] + c * V);
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < columns; c++) sum[r][c] += read[r] * given[c];
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) store(dweights + r * width + c * V, sum[r][c]);
}

/* `TILE(rows, columns)` with constants: for all `width` columns from `c` on, two vectors at a time,
   and for `rows` up to MAX_ROWS. */
#define EACH_COLUMN(rows)                                      \
    case rows:                                                 \
        for (; c + 2 * V <= width; c += 2 * V) TILE(rows, 2);  \
        for (; c < width; c += V) TILE(rows, 1);               \
        break;
#if MAX_ROWS == 8
#define EACH_TILE                                                                  \
    EACH_COLUMN(1) EACH_COLUMN(2) EACH_COLUMN(3) EACH_COLUMN(4) EACH_COLUMN(5)     \
    EACH_COLUMN(6) EACH_COLUMN(7) EACH_COLUMN(8)
#else
#define EACH_TILE EACH_COLUMN(1) EACH_COLUMN(2) EACH_COLUMN(3) EACH_COLUMN(4)
#endif

static void gathered(int positions, const float *in, const int *from, int pieces, int pitch,
                     int length, const float *weights, int width, const float *bias, float *out,
                     const int *to) {
#define TILE(rows, columns)                                                                   \
    gathered_tile(rows, columns, in, from + p, pieces, pitch, length, weights + c, width,     \
                  bias ? bias + c : NULL, out + c, to + p)
    for (int p = 0; p < positions; p += MAX_ROWS) {
        int c = 0;
        switch (least(MAX_ROWS, positions - p)) { EACH_TILE }
    }
#undef TILE
}

static void outer(int length, int positions, const float *in, const int *from, const float *dmap,
                  const int *at, float *dweights, int width) {
#define TILE(rows, columns)                                                                   \
    outer_tile(rows, columns, positions, in + k, from, dmap + c, at,                          \
               dweights + (size_t)k * width + c, width)
    for (int k = 0; k < length; k += MAX_ROWS) {
        int c = 0;
        switch (least(MAX_ROWS, length - k)) { EACH_TILE }
    }
#undef TILE
}

/* The weights, of `given` channels, with channels and filters last. */
static void pack(const Layer *l, int given) {
    const int area = l->is->kernel * l->is->kernel;
    memset(l->weights, 0, sizeof(float) * weights_of(l));
    memset(l->bias, 0, sizeof(float) * l->wide);
    memcpy(l->bias, l->is->bias, sizeof(float) * l->is->filters);
    for (int f = 0; f < l->is->filters; f++)
        for (int c = 0; c < given; c++)
            for (int tap = 0; tap < area; tap++)
                l->weights[((size_t)tap * l->channels + c) * l->wide + f] =
                    l->is->weight[((size_t)f * given + c) * area + tap];
}

/* `turned`, `back_from` and `back_to`, from the packed weights; `before` made what is read. */
static void turn(const Layer *l, const Layer *before) {
    const int kernel = l->is->kernel, stride = l->is->stride;
    float *turned = l->turned;
    int *from = l->back_from, *to = l->back_to;
    for (int y = 0; y < stride; y++)
        for (int x = 0; x < stride; x++) {
            const int down = taps(l, y), across = taps(l, x);
            for (int m = down - 1; m >= 0; m--)
                for (int n = across - 1; n >= 0; n--) {
                    const int tap = (y + m * stride) * kernel + x + n * stride;
                    for (int f = 0; f < l->wide; f++)
                        for (int c = 0; c < l->channels; c++)
                            *turned++ = l->weights[((size_t)tap * l->channels + c) * l->wide + f];
                }
            for (int row = y; row < l->height; row += stride)
                for (int column = x; column < l->width; column += stride) {
                    const int first = (row / stride + l->reach - down) * l->around +
                                      column / stride + l->reach - across;
                    *from++ = first * l->wide;
                    *to++ = before->at[row * l->width + column];
                }
        }
}

/* The layers, in `room` for all they hold, or without where it is null. Returns the floats that
   takes, with `frame` for a frame and `given` for its pixels as they came. */
static size_t lay_out(const ConvolutionsCall *call, Layer *layers, int backward, float *room, float **frame,
                      float **given) {
    int height = call->height, width = call->width, channels = call->channels;
    size_t used = 0;
    *frame = take(room, &used, (size_t)channels * height * width);
    *given = take(room, &used, (size_t)channels * height * width);
    for (int i = 0; i < call->maps; i++) {
        const Convolution *is = &call->convolutions[i];
        Layer *l = &layers[i];
        *l = (Layer){.is = is, .height = height, .width = width, .channels = channels};
        l->rows = height = (height - is->kernel) / is->stride + 1;
        l->columns = width = (width - is->kernel) / is->stride + 1;
        l->positions = l->rows * l->columns;
        l->wide = channels = padded(is->filters);
        l->map = take(room, &used, (size_t)l->positions * l->wide);
        l->from = (int *)take(room, &used, l->positions);
        l->to = (int *)take(room, &used, l->positions);
        l->weights = take(room, &used, weights_of(l));
        l->bias = take(room, &used, l->wide);
        if (!backward) continue;
        l->reach = taps(l, 0);
        l->around = (l->width - 1) / is->stride + l->reach;
        l->dmap_size = (size_t)((l->height - 1) / is->stride + l->reach) * l->around * l->wide;
        l->dmap = take(room, &used, l->dmap_size);
        l->at = (int *)take(room, &used, l->positions);
        if (!i) continue;
        l->turned = take(room, &used, weights_of(l));
        l->back_from = (int *)take(room, &used, (size_t)l->height * l->width);
        l->back_to = (int *)take(room, &used, (size_t)l->height * l->width);
    }
    return used;
}

/* What does not change from frame to frame: where everything is, and the weights. */
static void prepare(const ConvolutionsCall *call, Layer *layers, int backward, int part) {
    size_t size = 0;
    for (int i = 0; i < call->maps; i++) {
        const Layer *l = &layers[i];
        for (int p = 0; p < l->positions; p++) {
            const int y = p / l->columns, x = p % l->columns, before = l->reach - 1;
            l->from[p] = (y * l->width + x) * l->is->stride * l->channels;
            l->to[p] = p * l->wide;
            if (backward) l->at[p] = ((y + before) * l->around + x + before) * l->wide;
        }
        pack(l, i ? layers[i - 1].is->filters : l->channels);
        if (!backward) continue;
        memset(l->dmap, 0, sizeof(float) * l->dmap_size);
        if (i) turn(l, &layers[i - 1]);
        size += weights_of(l) + l->wide;
    }
    if (!backward) return;
    float *dweights = call->dweights + part * size;
    for (int i = 0; i < call->maps; i++) {
        layers[i].dweights = dweights;
        dweights += weights_of(&layers[i]) + layers[i].wide;
    }
}

/* The layers, ready for frames, in room that the caller frees; null where memory is short. */
static float *prepared(const ConvolutionsCall *call, Layer *layers, int backward, int part, float **frame,
                       float **given) {
    float *room = floats(lay_out(call, layers, backward, NULL, frame, given));
    if (!room) return NULL;
    lay_out(call, layers, backward, room, frame, given);
    prepare(call, layers, backward, part);
    return room;
}

/* The frame with mean 0 and variance 1, channels last; `given` is room for its pixels. */
static void standardise(const ConvolutionsCall *call, int index, float *given, float *frame) {
    const int channels = call->channels, pixels = call->height * call->width;
    const int size = channels * pixels, whole = size / V * V;
    if (call->bytes)
        for (int i = 0; i < size; i++)
            given[i] = (float)call->bytes[(size_t)index * size + i] * (1.0f / 255.0f);
    else
        memcpy(given, call->pixels + (size_t)index * size, sizeof(float) * size);
    /* Away from the first pixel's value, so that a frame of one colour has a variance of 0. */
    const float about = given[0];
    vec sums = all(0.0f), squares = all(0.0f);
    for (int i = 0; i < whole; i += V) sums += load(given + i) - about;
    float sum = sum_of_lanes(sums), square = 0.0f;
    for (int i = whole; i < size; i++) sum += given[i] - about;
    const float mean = about + sum / size;
    for (int i = 0; i < whole; i += V)
        squares += (load(given + i) - mean) * (load(given + i) - mean);
    for (int i = whole; i < size; i++) square += (given[i] - mean) * (given[i] - mean);
    square += sum_of_lanes(squares);
    const float scale = 1.0f / sqrtf(square / size + call->epsilon);
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < pixels; i++)
            frame[i * channels + c] = (given[c * pixels + i] - mean) * scale;
}

/* The maps of the first `maps` layers. */
static void see(const Layer *layers, int maps, const float *frame) {
    for (int i = 0; i < maps; i++) {
        const Layer *l = &layers[i];
        gathered(l->positions, i ? layers[i - 1].map : frame, l->from, l->is->kernel,
                 l->width * l->channels, l->is->kernel * l->channels, l->weights, l->wide, l->bias,
                 l->map, l->to);
    }
}

/* dweights of a layer that read `in`, from its dmap. */
static void learn(const Layer *l, const float *in) {
    const int length = l->is->kernel * l->channels;
    for (int row = 0; row < l->is->kernel; row++)
        outer(length, l->positions, in + row * l->width * l->channels, l->from, l->dmap, l->at,
              l->dweights + (size_t)row * length * l->wide, l->wide);
    float *dbias = l->dweights + weights_of(l);
    for (int c = 0; c < l->wide; c += V) {
        vec sum = load(dbias + c);
        for (int p = 0; p < l->positions; p++) sum += load(l->dmap + l->at[p] + c);
        store(dbias + c, sum);
    }
}

/* The dmap of the layer before, from that of `l`. */
static void turn_back(const Layer *l, const Layer *before) {
    const int stride = l->is->stride;
    const float *turned = l->turned;
    const int *from = l->back_from, *to = l->back_to;
    for (int y = 0; y < stride; y++)
        for (int x = 0; x < stride; x++) {
            const int down = taps(l, y), across = taps(l, x);
            const int pixels = places(l->height, stride, y) * places(l->width, stride, x);
            gathered(pixels, l->dmap, from, down, l->around * l->wide, across * l->wide, turned,
                     l->channels, NULL, before->dmap, to);
            turned += (size_t)down * across * l->wide * l->channels;
            from += pixels;
            to += pixels;
        }
    for (int p = 0; p < before->positions; p++)
        for (int c = 0; c < before->wide; c += V) {
            float *dmap = before->dmap + before->at[p] + c;
            const vec map = load(before->map + before->to[p] + c);
            store(dmap, choose(map > 0.0f, load(dmap), all(0.0f)));
        }
}

/* Frames [begin, end). Returns 0, or 1 where memory is short. */
int convolutions_forward(const void *argument, int begin, int end, int part) {
    const ConvolutionsCall *call = argument;
    Layer layers[MAX_MAPS];
    float *frame, *given, *room = prepared(call, layers, 0, part, &frame, &given);
    if (!room) return 1;
    const Layer *last = &layers[call->maps - 1];
    const int filters = last->is->filters;
    for (int index = begin; index < end; index++) {
        standardise(call, index, given, frame);
        see(layers, call->maps, frame);
        float *out = call->out + (size_t)index * filters * last->positions;
        for (int f = 0; f < filters; f++)
            for (int p = 0; p < last->positions; p++) *out++ = last->map[last->to[p] + f];
    }
    free(room);
    return 0;
}

/* Frames [begin, end). Returns 0, or 1 where memory is short. */
int convolutions_backward(const void *argument, int begin, int end, int part) {
    const ConvolutionsCall *call = argument;
    Layer layers[MAX_MAPS];
    float *frame, *given, *room = prepared(call, layers, 1, part, &frame, &given);
    if (!room) return 1;
    const Layer *last = &layers[call->maps - 1];
    const int filters = last->is->filters;
    for (int index = begin; index < end; index++) {
        standardise(call, index, given, frame);
        see(layers, call->maps - 1, frame);
        const size_t at = (size_t)index * filters * last->positions;
        const float *out = call->out + at, *dout = call->dout + at;
        for (int f = 0; f < filters; f++)
            for (int p = 0; p < last->positions; p++, out++, dout++)
                last->dmap[last->at[p] + f] = *out > 0.0f ? *dout : 0.0f;
        for (int i = call->maps - 1; i > 0; i--) {
            learn(&layers[i], layers[i - 1].map);
            turn_back(&layers[i], &layers[i - 1]);
        }
        learn(&layers[0], frame);
    }
    free(room);
    return 0;
}
