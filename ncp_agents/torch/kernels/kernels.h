/* What Python calls. The compiler reads this file through simd.h, and cffi reads the same text, so
   that no structure is written down twice: declarations only, nothing for the preprocessor.

   Axes: T steps, B rows, I inputs, N neurons, D heads, S synapses, U units or unfolds, C channels,
   H, W pixels, F filters. */

enum { MAX_LAYERS = 16, MAX_MAPS = 4 };

/* Rows [begin, end) of what `call` describes, as part number `part` → 0, or 1 where memory is
   short. */
typedef int (*Kernel)(const void *call, int begin, int end, int part);

/* Run a kernel on all rows, in `parts` that as many `threads` share; `parallel` is GOMP_parallel, or
   null for one thread → 0, or 1 where memory was short. */
int run_rows(Kernel kernel, const void *call, int32_t rows, int32_t parts, int32_t threads,
             void *parallel);

/* One kernel of a pipeline. */
typedef struct {
    Kernel kernel;
    const void *call;
} KernelCall;

/* A kernel whose `call` is an array of KernelCall, up to one without a kernel: each reads what the
   one before made of the same rows. */
int run_pipeline(const void *calls, int begin, int end, int part);

/* Floats in a vector of this library. */
int vector_width(void);

/* ---- cfc.c */

/* `groups` times n outputs (heads of n neurons, or one group of U) of `skip` inputs x and as many
   sources. */
typedef struct {
    const float *weight; /* (groups n, skip + sources) */
    const float *bias;   /* (groups n) */
    int32_t groups, n, skip, sources;
} LinearMap;

typedef struct {
    int32_t steps, rows;  /* T, B */
    int32_t time_stride, row_stride;
    int32_t heads;        /* D: 3, or 4 with timespans */
    int32_t no_gate;
    int32_t layers;       /* of neurons: 1 with a backbone */
    int32_t depth;        /* layers of the backbone, 0 for none */
    int32_t relu;         /* what the backbone's layers apply: relu, or else sigmoid */
    LinearMap linears[MAX_LAYERS];
    const float *packed;     /* what cfc_pack made of the linear maps */
    const float *x;          /* (T, B, I), or null where there is drive */
    const float *drive;      /* (T, B, groups wide) of the first map: its weights times x */
    const float *start;      /* (B, N) */
    const float *timespans;  /* (T, B) or null, dense */
    const uint8_t *resets;   /* (T, B) or null, dense */
    float *states;           /* (T, B, N) */
    /* For the backward, or null: */
    float *activity;         /* (T, B, wide heads): layer after layer, in each head after head */
    float *sources;          /* (T, B, ·): what the maps read, map after map; of the first N with a
                                backbone */
    float *backbone[MAX_LAYERS];  /* (T, B, U) of each of its layers after phi */
    /* Backward only. */
    const float *dstates;          /* (T, B, N) */
    float *dheads;                 /* (T, B, D N): as activity, but dense */
    float *dbackbone[MAX_LAYERS]; /* (T, B, U) before phi */
    float *dstart;                 /* (B, N) */
    float *dtimespans;             /* (T, B) or null, dense */
} CfcCall;

/* Floats of `packed`, and filling it. */
int64_t cfc_packed_size(const CfcCall *c, int backward);
void cfc_pack(const CfcCall *c, int backward);
int cfc_forward(const void *call, int begin, int end, int part);
int cfc_backward(const void *call, int begin, int end, int part);

/* ---- ltc.c */

typedef struct {
    int32_t count;         /* S */
    const int32_t *source; /* (S) */
    const int32_t *first;  /* (N + 1): the synapses into neuron j are first[j] ... first[j + 1] - 1 */
    const float *slope, *offset, *weight, *pull; /* (S) each; pull is w times erev */
} Synapses;

typedef struct {
    int32_t steps, inputs, neurons, unfolds, rows; /* T, I, N, U, B */
    int32_t time_stride, row_stride;
    float epsilon, timespan;                       /* the constant one */
    Synapses sensory, internal;
    const float *cm, *leak, *rest; /* (N) */
    const float *x;                /* (T, B, I) */
    const float *start;            /* (B, N) */
    const float *timespans;        /* (T, B) or null, dense */
    const uint8_t *resets;         /* (T, B) or null, dense */
    float *states;                 /* (T, B, N) */
    float *unfolded;               /* (T, U, N, B): v before each unfold; or null */
    float *divisors;               /* (T, U, N, B): cm + dt conductance; where dt is 0, pull - conductance v */
    /* Backward only. */
    const float *dstates;  /* (T, B, N) */
    float *dx;             /* (T, B, I) or null */
    float *dstart;         /* (B, N) */
    float *dtimespans;     /* (T, B) or null */
    float *dsensory;       /* (parts, 4, S): of slope, offset, weight and pull */
    float *dinternal;      /* (parts, 4, S) */
    float *dneurons;       /* (parts, 3, N): of cm, leak and rest */
} LtcCall;

int ltc_forward(const void *call, int begin, int end, int part);
int ltc_backward(const void *call, int begin, int end, int part);

/* ---- convolutions.c */

typedef struct {
    const float *weight; /* (F, channels, kernel, kernel) */
    const float *bias;   /* (F) */
    int32_t filters, kernel, stride;
} Convolution;

typedef struct {
    int32_t channels, height, width, maps;
    float epsilon;           /* added to the variance, of pixels in 0 ... 1 */
    Convolution convolutions[MAX_MAPS];
    const uint8_t *bytes;    /* (B, C, H, W) in 0 ... 255, or null where there are pixels */
    const float *pixels;     /* (B, C, H, W) in 0 ... 1 */
    float *out;              /* (B, F, rows, columns) of the last map */
    /* For the backward: */
    const float *dout;
    float *dweights;         /* (parts, ·): for each map (kernel, kernel, channels, wide), (wide) */
} ConvolutionsCall;

int convolutions_forward(const void *call, int begin, int end, int part);
int convolutions_backward(const void *call, int begin, int end, int part);

/* ---- linear.c */

typedef struct {
    const float *weight; /* (I, padded O) */
    const float *bias;   /* (padded O) */
    const float *in;     /* (B, I) */
    float *out;          /* (B, O) */
    int32_t inputs, outputs, relu;
} LinearCall;

int linear_forward(const void *call, int begin, int end, int part);
