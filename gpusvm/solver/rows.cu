// Rows of the kernel matrix: the kernel values of some samples with all others, made where their
// inner products are summed, so that a product never goes to memory.
//
// Compiled with -DREAL, what products are taken in (float or double), and -DVALUE, what kernel
// values are kept in. A sample is a row of `pitch` bytes, a multiple of 32, zeros behind its
// features. `columns` are the samples that have a column, `samples` the places among them of those
// whose rows are wanted, `slots` the rows of `out` to write:
//
//     out[slots[i], c] = kernel(X[columns[samples[i]]], X[columns[c]])    for i < m, c < n
//
// A block computes a tile of `out`. Tiles of the same columns follow one another in x, so that
// these are read once; columns go on in y, and where a grid is not that high, in z.

#ifndef REAL
#define REAL float
#endif
#ifndef VALUE
#define VALUE float
#endif
#ifndef SHARED
#define SHARED(type, name, dimensions) __shared__ type name dimensions
#endif

enum { LINEAR, RBF, POLY, SIGMOID };

#define THREADS 256
#define LINE 136  // columns of a tile, and what keeps its lines in different banks
#define DEPTH 64  // bytes of each sample in a stage: 4 chunks of 16 bytes, 2 steps of 32
#define CHUNKS (DEPTH / 16)

// Copies go past the registers where the device can do that; else what is on its way is in them.
#if __CUDA_ARCH__ >= 800
#define COPIES_ASYNCHRONOUSLY 1
#define STAGES 3
#else
#define COPIES_ASYNCHRONOUSLY 0
#define STAGES 2
#endif

// -- instructions, each of which a host must imitate ---------------------------------------------

#ifndef GPUSVM_SHIM

// Four 8 x 8 matrices of 4-byte words, each row of 16 bytes given by a lane: lane l receives word
// l % 4 of row l / 4.
__device__ __forceinline__ void load_matrices(unsigned (&into)[4], const uint4 *row) {
    unsigned address = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(into[0]), "=r"(into[1]), "=r"(into[2]), "=r"(into[3])
                 : "r"(address)
                 : "memory");
}

#if __CUDA_ARCH__ >= 800

// c (16 x 8) += a (16 x 32) b (32 x 8), of signed bytes.
__device__ __forceinline__ void multiply_bytes_16(int (&c)[4], const unsigned (&a)[4], const unsigned *b) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c (16 x 8) += a (16 x 8) b (8 x 8), of TF32: float32 with 11 bits.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned *b) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// c (8 x 8) += a (8 x 4) b (4 x 8), of doubles.
__device__ __forceinline__ void multiply_doubles_8(double (&c)[2], double a, double b) {
    asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+d"(c[0]), "+d"(c[1])
        : "d"(a), "d"(b));
}

__device__ __forceinline__ void copy_chunk(uint4 *into, const uint4 *from) {
    unsigned address = (unsigned)__cvta_generic_to_shared(into);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
}

__device__ __forceinline__ void end_of_stage() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the last `LATER` stages have arrived.
template <int LATER>
__device__ __forceinline__ void wait_for_stage() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
}

#else

// c (8 x 8) += a (8 x 16) b (16 x 8), of signed bytes.
__device__ __forceinline__ void multiply_bytes_8(int &c0, int &c1, unsigned a, unsigned b) {
    asm("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
        : "+r"(c0), "+r"(c1)
        : "r"(a), "r"(b));
}

#endif
#endif

// -- the same on every device --------------------------------------------------------------------

// c (16 x 8) += a (16 x 32) b (32 x 8), of signed bytes. Lane l has
// a[l / 4 + 0, 8; 4 (l % 4) + 0, 16 and the 3 after it], b the same turned around,
// c[l / 4 + 0, 8; 2 (l % 4) + 0, 1].
__device__ __forceinline__ void multiply_bytes(int (&c)[4], const unsigned (&a)[4], const unsigned *b) {
#if __CUDA_ARCH__ >= 800
    multiply_bytes_16(c, a, b);
#else
#pragma unroll
    for (int half = 0; half < 2; half++)
#pragma unroll
        for (int k = 0; k < 2; k++) multiply_bytes_8(c[2 * half], c[2 * half + 1], a[half + 2 * k], b[k]);
#endif
}

// c (8 x 8) += a (8 x 4) b (4 x 8), of doubles. Lane l has a[l / 4, l % 4], b[l % 4, l / 4],
// c[l / 4, 2 (l % 4) + 0, 1].
__device__ __forceinline__ void multiply_doubles(double (&c)[2], double a, double b) {
#if __CUDA_ARCH__ >= 800
    multiply_doubles_8(c, a, b);
#else
    const int lane = threadIdx.x & 31;
#pragma unroll 1  // such devices have few units for doubles: registers are worth more than order
    for (int k = 0; k < 4; k++) {
        double left = __shfl_sync(0xffffffffu, a, (lane & ~3) + k);
        c[0] = fma(left, __shfl_sync(0xffffffffu, b, 8 * (lane & 3) + k), c[0]);
        c[1] = fma(left, __shfl_sync(0xffffffffu, b, 8 * (lane & 3) + 4 + k), c[1]);
    }
#endif
}

#if __CUDA_ARCH__ < 800
__device__ __forceinline__ void end_of_stage() {}
template <int LATER>
__device__ __forceinline__ void wait_for_stage() {}
#endif

// -- from products to kernel values --------------------------------------------------------------

struct Function {
    int kind, degree;
    double slope, coef0;  // of unit products: the scale of pixels is in the slope
};

template <class A, class B> struct Wider { typedef double type; };
template <> struct Wider<float, float> { typedef float type; };
template <> struct Wider<int, float> { typedef float type; };

// What follows a product of type P is float64 where it or the kernel value is, else float32.
template <class P> struct Arithmetic { typedef typename Wider<P, VALUE>::type type; };

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double tangent(double x) { return tanh(x); }

// ||x - y||^2 for RBF, else <x, y>, of the terms of both samples. An int may overflow on the way;
// the result fits.
__device__ __forceinline__ int argument(bool is_rbf, int product, int left, int right) {
    unsigned sum = (unsigned)left + (unsigned)right;
    return (int)(is_rbf ? sum - 2u * (unsigned)product : sum + (unsigned)product);
}
__device__ __forceinline__ float argument(bool is_rbf, float product, float left, float right) {
    return is_rbf ? left + right - 2.0f * product : product;
}
__device__ __forceinline__ double argument(bool is_rbf, double product, double left, double right) {
    return is_rbf ? left + right - 2.0 * product : product;
}

// Kernel values of the arguments x, several at once so that they are computed side by side.
template <int COUNT, class A>
__device__ __forceinline__ void apply(const Function &function, A (&x)[COUNT]) {
    const A factor = (A)(function.kind == RBF ? -function.slope : function.slope), coef0 = (A)function.coef0;
#pragma unroll
    for (int k = 0; k < COUNT; k++) x[k] *= factor;
    if (function.kind == RBF) {
#pragma unroll
        for (int k = 0; k < COUNT; k++) x[k] = exponential(x[k] < (A)0 ? x[k] : (A)0);
    } else if (function.kind == SIGMOID) {
#pragma unroll
        for (int k = 0; k < COUNT; k++) x[k] = tangent(x[k] + coef0);
    } else if (function.kind == POLY) {
        A base[COUNT];
#pragma unroll
        for (int k = 0; k < COUNT; k++) base[k] = x[k] + coef0, x[k] = (A)1;
#pragma unroll 1
        for (int d = 0; d < function.degree; d++)
#pragma unroll
            for (int k = 0; k < COUNT; k++) x[k] *= base[k];
    }
}

// Where rows come from and go to; `terms` holds a number for each sample: see `measure_pixels` and
// `measure_reals`.
template <class P>
struct Rows {
    const int *samples, *columns, *slots;
    const P *terms;
    VALUE *out;
    long long stride;
    int m, n;

    __device__ __forceinline__ long long left(int i) const { return columns[samples[i < m ? i : m - 1]]; }
    __device__ __forceinline__ long long right(int c) const { return columns[c < n ? c : n - 1]; }
    __device__ __forceinline__ VALUE *row(int i) const { return out + slots[i] * stride; }
};

// -- a tile's samples in shared memory -----------------------------------------------------------

// Where a chunk is, counted in chunks. In different banks are the same chunk of 8 neighbours, the
// first or last two of 4 neighbours, and all of 2.
__device__ __forceinline__ int place_of(int sample, int chunk) {
    return sample * CHUNKS + (chunk ^ ((sample & 2) | ((sample >> 2) & 1)));
}

// Brings a stage of COUNT samples after the other; each thread a chunk of every 64th sample.
template <int COUNT>
struct Carrier {
    enum { EACH = COUNT * CHUNKS / THREADS };
    unsigned from[EACH];  // chunks into X
#if !COPIES_ASYNCHRONOUSLY
    uint4 held[EACH];
#endif

    // The sample that `from[e]` is for.
    static __device__ __forceinline__ int sample(int e) { return threadIdx.x / CHUNKS + e * (THREADS / CHUNKS); }

    __device__ __forceinline__ void start(const uint4 *X, uint4 *stage, int depth_left) {
        const int chunk = threadIdx.x % CHUNKS;
        if (16 * chunk < depth_left) {
#pragma unroll
            for (int e = 0; e < EACH; e++) {
#if COPIES_ASYNCHRONOUSLY
                copy_chunk(stage + place_of(sample(e), chunk), X + from[e]);
#else
                held[e] = X[from[e]];
#endif
                from[e] += CHUNKS;
            }
        }
    }

    __device__ __forceinline__ void finish(uint4 *stage, int depth_left) {
#if !COPIES_ASYNCHRONOUSLY
        const int chunk = threadIdx.x % CHUNKS;
        if (16 * chunk < depth_left) {
#pragma unroll
            for (int e = 0; e < EACH; e++) stage[place_of(sample(e), chunk)] = held[e];
        }
#endif
    }
};

// Sums the products of a tile: `product` is given each step of 32 bytes of the left and right
// samples.
template <int ROWS, int COLUMNS, class P, class Product>
__device__ __forceinline__ void multiply_tile(
    const Rows<P> &rows, const uint4 *X, long long pitch, int first_row, int first_column, uint4 *stages,
    Product &product
) {
    const int SIZE = (ROWS + COLUMNS) * CHUNKS, depth = (int)pitch;
    Carrier<ROWS> left;
    Carrier<COLUMNS> right;
#pragma unroll
    for (int e = 0; e < Carrier<ROWS>::EACH; e++)
        left.from[e] = rows.left(first_row + left.sample(e)) * (pitch / 16) + threadIdx.x % CHUNKS;
#pragma unroll
    for (int e = 0; e < Carrier<COLUMNS>::EACH; e++)
        right.from[e] = rows.right(first_column + right.sample(e)) * (pitch / 16) + threadIdx.x % CHUNKS;

#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        uint4 *into = stages + s * SIZE;
        left.start(X, into, depth - s * DEPTH), right.start(X, into + ROWS * CHUNKS, depth - s * DEPTH);
        left.finish(into, depth - s * DEPTH), right.finish(into + ROWS * CHUNKS, depth - s * DEPTH);
        end_of_stage();
    }
    int used = 0;  // the stage to read; the one before it is written to
    for (int left_over = depth; left_over > 0; left_over -= DEPTH) {
        wait_for_stage<STAGES - 2>();
        // What has arrived is seen by all, and nobody reads any more what is written to next.
        __syncthreads();
        uint4 *into = stages + (used == 0 ? STAGES - 1 : used - 1) * SIZE;
        const uint4 *from = stages + used * SIZE;
        // Bytes of each sample that are not on their way.
        const int ahead = left_over - (STAGES - 1) * DEPTH;
        left.start(X, into, ahead), right.start(X, into + ROWS * CHUNKS, ahead);
        end_of_stage();
#pragma unroll 1  // two steps at once want more registers than there are
        for (int step = 0; step < 2 && step * (DEPTH / 2) < left_over; step++)
            product.step(from, from + ROWS * CHUNKS, step);
        left.finish(into, ahead), right.finish(into + ROWS * CHUNKS, ahead);
        used = used + 1 == STAGES ? 0 : used + 1;
    }
}

// A tile becomes kernel values in two halves: the warps that have its rows put them in shared
// memory, and each warp then writes whole lines. Lines there are as far apart as keeps what a warp
// stores at once in different banks.
template <int ROWS, class P, class Product>
__device__ __forceinline__ void write_tile(
    const Rows<P> &rows, const Function &function, int first_row, int first_column, P *half, const Product &product
) {
    typedef typename Arithmetic<P>::type A;
    // Rows of a warp in each half, every 8th; values computed side by side, of which registers
    // hold fewer doubles.
    enum { EACH = ROWS / 16, AT_ONCE = sizeof(A) == 4 ? 4 : 1 };
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, column = first_column + lane;
    // A lane asks after a row of its warp: one by one, the warp would wait for each.
    const int own = first_row + lane / EACH * (ROWS / 2) + lane % EACH * 8 + warp;
    const P own_term = rows.terms[rows.left(own)];
    const int own_slot = rows.slots[own < rows.m ? own : rows.m - 1];
    P *right = half + ROWS / 2 * LINE;  // the terms of columns
    for (int pass = 0; pass < 2; pass++) {
        __syncthreads();
        if (warp / 4 == pass) product.put(half);
        if (pass == 0 && threadIdx.x < 128) right[threadIdx.x] = rows.terms[rows.right(first_column + threadIdx.x)];
        __syncthreads();
        for (int r = 0; r < EACH && first_row + pass * (ROWS / 2) + r * 8 + warp < rows.m; r++) {
            const P left = __shfl_sync(0xffffffffu, own_term, pass * EACH + r);
            const int slot = __shfl_sync(0xffffffffu, own_slot, pass * EACH + r);
            const P *from = half + (r * 8 + warp) * LINE + lane;
            VALUE *into = rows.out + slot * rows.stride + column;
#pragma unroll 1
            for (int k = 0; k < 4; k += AT_ONCE) {
                A x[AT_ONCE];
#pragma unroll
                for (int e = 0; e < AT_ONCE; e++)
                    x[e] = argument(function.kind == RBF, from[32 * (k + e)], left, right[lane + 32 * (k + e)]);
                apply(function, x);
#pragma unroll
                for (int e = 0; e < AT_ONCE; e++)
                    if (column + 32 * (k + e) < rows.n) into[32 * (k + e)] = (VALUE)x[e];
            }
        }
    }
}

template <class Product>
struct Tile {
    typedef typename Product::Sum P;
    enum {
        ROWS = Product::ROWS,
        IN_STAGES = STAGES * (ROWS + 128) * CHUNKS,
        IN_HALF = (ROWS / 2 * LINE + 128) * sizeof(P) / sizeof(uint4),
        SIZE = IN_STAGES > IN_HALF ? IN_STAGES : IN_HALF
    };

    static __device__ __forceinline__ void compute(
        const Rows<P> &rows, const Function &function, const uint4 *X, long long pitch, uint4 *shared
    ) {
        const int first_row = blockIdx.x * ROWS, first_column = (blockIdx.z * gridDim.y + blockIdx.y) * 128;
        if (first_column >= rows.n) return;
        Product product = {};
        multiply_tile<ROWS, 128>(rows, X, pitch, first_row, first_column, shared, product);
        write_tile<ROWS>(rows, function, first_row, first_column, (P *)shared, product);
    }
};

// -- products by matrix instructions: tiles of 128 x 128, of which a warp has 64 x 32 ------------

// Where a lane's rows of the matrices are that a warp multiplies: 4 blocks of 16 rows, 4 of 8
// columns.
struct Matrices {
    const uint4 *rows, *columns;
    int step;

    // Of block i: the upper and lower 8 rows of the first 16 bytes, then of the last.
    __device__ __forceinline__ void load_rows(int i, unsigned (&into)[4]) const {
        const int lane = threadIdx.x & 31, row = 64 * (threadIdx.x >> 7) + 16 * i + (lane & 15);
        load_matrices(into, rows + place_of(row, 2 * step + (lane >> 4)));
    }

    // Of blocks 2 j and 2 j + 1: the first and the last 16 bytes of one, then of the other.
    __device__ __forceinline__ void load_columns(int j, unsigned (&into)[4]) const {
        const int lane = threadIdx.x & 31, column = 32 * ((threadIdx.x >> 5) & 3) + 16 * j + (lane & 7) + (lane & 16) / 2;
        load_matrices(into, columns + place_of(column, 2 * step + ((lane >> 3) & 1)));
    }
};

// Lane l has rows l / 4 and l / 4 + 8 of each block, columns 2 (l % 4) + 0, 1.
template <class P>
__device__ __forceinline__ void put_blocks(const P (&sums)[4][4][4], P *half) {
    const int lane = threadIdx.x & 31;
    P *into = half + (lane >> 2) * LINE + 32 * ((threadIdx.x >> 5) & 3) + 2 * (lane & 3);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
#pragma unroll
            for (int k = 0; k < 4; k++) into[(16 * i + 8 * (k / 2)) * LINE + 8 * j + k % 2] = sums[i][j][k];
}

struct ByteProducts {
    typedef int Sum;
    enum { ROWS = 128 };
    int sums[4][4][4];

    __device__ __forceinline__ void step(const uint4 *rows, const uint4 *columns, int step) {
        const Matrices matrices{rows, columns, step};
        unsigned left[4], right[2][4];
        matrices.load_columns(0, right[0]);
        matrices.load_columns(1, right[1]);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            matrices.load_rows(i, left);
#pragma unroll
            for (int j = 0; j < 4; j++) multiply_bytes(sums[i][j], left, right[j / 2] + 2 * (j % 2));
        }
    }

    __device__ __forceinline__ void put(int *half) const { put_blocks(sums, half); }
};

// Rows of pixels, kept as signed bytes of 128 less. Sums are exact.
extern "C" __global__ void __launch_bounds__(THREADS, 2) rows_of_pixels(
    int m, int n, const int *samples, const int *columns, const int *slots, const signed char *X, long long pitch,
    const int *terms, int kind, int degree, double slope, double coef0, VALUE *out, long long stride
) {
    SHARED(uint4, shared, [Tile<ByteProducts>::SIZE]);
    const Rows<int> rows{samples, columns, slots, terms, out, stride, m, n};
    Tile<ByteProducts>::compute(rows, Function{kind, degree, slope, coef0}, (const uint4 *)X, pitch, shared);
}

#if __CUDA_ARCH__ >= 800

// A float32 as the sum of two TF32, but for a rest of 2^-24 of it: rounded to the nearest, then
// what is left cut off. In integers, since cvt.rna takes five instructions for infinities that are
// not here.
__device__ __forceinline__ void split(unsigned x, unsigned &high, unsigned &low) {
    high = (x + 0x1000u) & 0xffffe000u;
    low = __float_as_uint(__uint_as_float(x) - __uint_as_float(high)) & 0xffffe000u;
}

// A product is three of TF32, without that of both rests. Tensor cores cut off what they
// sum instead of rounding it, so only 8 products are summed there, and float32 adds that up.
struct SplitProducts {
    typedef float Sum;
    enum { ROWS = 128 };
    float sums[4][4][4];

    __device__ __forceinline__ void step(const uint4 *rows, const uint4 *columns, int step) {
        const Matrices matrices{rows, columns, step};
        unsigned left[4], left_high[4], left_low[4], right[4], right_high[8], right_low[8];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            matrices.load_columns(j, right);
#pragma unroll
            for (int k = 0; k < 4; k++) split(right[k], right_high[4 * j + k], right_low[4 * j + k]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            matrices.load_rows(i, left);
#pragma unroll
            for (int k = 0; k < 4; k++) split(left[k], left_high[k], left_low[k]);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float sum[4] = {};
                multiply_tf32(sum, left_low, right_high + 2 * j);
                multiply_tf32(sum, left_high, right_low + 2 * j);
                multiply_tf32(sum, left_high, right_high + 2 * j);
#pragma unroll
                for (int k = 0; k < 4; k++) sums[i][j][k] += sum[k];
            }
        }
    }

    __device__ __forceinline__ void put(float *half) const { put_blocks(sums, half); }
};

#endif

// Rows of float32 samples, their products on tensor cores: from sm_80 on, before that nothing.
extern "C" __global__ void __launch_bounds__(THREADS, 2) rows_by_tf32(
    int m, int n, const int *samples, const int *columns, const int *slots, const float *X, long long pitch,
    const float *terms, int kind, int degree, double slope, double coef0, VALUE *out, long long stride
) {
#if __CUDA_ARCH__ >= 800
    SHARED(uint4, shared, [Tile<SplitProducts>::SIZE]);
    const Rows<float> rows{samples, columns, slots, terms, out, stride, m, n};
    Tile<SplitProducts>::compute(rows, Function{kind, degree, slope, coef0}, (const uint4 *)X, pitch, shared);
#endif
}

// -- products one by one -------------------------------------------------------------------------

// float32: tiles of 128 x 128, of which a warp has 32 x 64 and a lane every 4th row and every 8th
// column.
struct FloatProducts {
    typedef float Sum;
    // Features at once: what copies past the registers leave free is enough for four.
    enum { ROWS = 128, WIDTH = COPIES_ASYNCHRONOUSLY ? 4 : 2 };
    struct alignas(4 * WIDTH) Portion { float at[WIDTH]; };
    float sums[8][8];

    static __device__ __forceinline__ Portion portion(const uint4 *samples, int sample, int chunk, int at) {
        return *(const Portion *)((const float *)(samples + place_of(sample, chunk)) + at);
    }

    __device__ __forceinline__ int row() const { return 32 * (threadIdx.x >> 6) + ((threadIdx.x & 31) >> 3); }
    __device__ __forceinline__ int column() const { return 64 * ((threadIdx.x >> 5) & 1) + (threadIdx.x & 7); }

    __device__ __forceinline__ void step(const uint4 *rows, const uint4 *columns, int step) {
#pragma unroll 1
        for (int part = 0; part < 8 / WIDTH; part++) {
            const int chunk = 2 * step + part * WIDTH / 4, at = part * WIDTH % 4;
            Portion left[8];
#pragma unroll
            for (int i = 0; i < 8; i++) left[i] = portion(rows, row() + 4 * i, chunk, at);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const Portion right = portion(columns, column() + 8 * j, chunk, at);
#pragma unroll
                for (int i = 0; i < 8; i++)
#pragma unroll
                    for (int f = 0; f < WIDTH; f++) sums[i][j] = fmaf(left[i].at[f], right.at[f], sums[i][j]);
            }
        }
    }

    __device__ __forceinline__ void put(float *half) const {
        float *into = half + row() % 64 * LINE + column();
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
            for (int j = 0; j < 8; j++) into[4 * i * LINE + 8 * j] = sums[i][j];
    }
};

// float64: tiles of 64 x 128, of which a warp has 32 x 32.
struct DoubleProducts {
    typedef double Sum;
    enum { ROWS = 64 };
    double sums[4][4][2];

    __device__ __forceinline__ int row() const { return 32 * (threadIdx.x >> 7) + ((threadIdx.x & 31) >> 2); }
    __device__ __forceinline__ int column() const { return 32 * ((threadIdx.x >> 5) & 3); }

    __device__ __forceinline__ void step(const uint4 *rows, const uint4 *columns, int step) {
        const int lane = threadIdx.x & 31, chunk = 2 * step + (lane & 3) / 2, odd = lane & 1;
        double left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; i++) left[i] = ((const double *)(rows + place_of(row() + 8 * i, chunk)))[odd];
#pragma unroll
        for (int j = 0; j < 4; j++)
            right[j] = ((const double *)(columns + place_of(column() + (lane >> 2) + 8 * j, chunk)))[odd];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) multiply_doubles(sums[i][j], left[i], right[j]);
    }

    __device__ __forceinline__ void put(double *half) const {
        double *into = half + row() % 32 * LINE + column() + 2 * (threadIdx.x & 3);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
#pragma unroll
                for (int k = 0; k < 2; k++) into[8 * i * LINE + 8 * j + k] = sums[i][j][k];
    }
};

template <class R> struct ProductsOf;
template <> struct ProductsOf<float> { typedef FloatProducts type; };
template <> struct ProductsOf<double> { typedef DoubleProducts type; };

// Rows of float32 or float64 samples.
extern "C" __global__ void __launch_bounds__(THREADS, 2) rows_of_reals(
    int m, int n, const int *samples, const int *columns, const int *slots, const REAL *X, long long pitch,
    const REAL *terms, int kind, int degree, double slope, double coef0, VALUE *out, long long stride
) {
    SHARED(uint4, shared, [Tile<ProductsOf<REAL>::type>::SIZE]);
    const Rows<REAL> rows{samples, columns, slots, terms, out, stride, m, n};
    Tile<ProductsOf<REAL>::type>::compute(rows, Function{kind, degree, slope, coef0}, (const uint4 *)X, pitch, shared);
}

// -- sparse samples ------------------------------------------------------------------------------

#define TOGETHER 8  // rows that are multiplied at once

// Spreads the non-zeros of `samples` over `dense` (groups of TOGETHER rows, n_features, TOGETHER),
// which is zero; or makes it zero again. A block for each row.
extern "C" __global__ void __launch_bounds__(THREADS) spread_nonzeros(
    const int *samples, const int *columns, const long long *starts, const int *features, const REAL *X,
    long long n_features, int clear, REAL *dense
) {
    const int i = blockIdx.x, row = columns[samples[i]];
    REAL *into = dense + i / TOGETHER * n_features * TOGETHER + i % TOGETHER;
    for (long long k = starts[row] + threadIdx.x; k < starts[row + 1]; k += THREADS)
        into[(long long)features[k] * TOGETHER] = clear ? (REAL)0 : X[k];
}

// Of 8 sums of each of 8 lanes, lane l receives the total of sum l.
template <class R>
__device__ __forceinline__ R total_of_lane(R (&sums)[TOGETHER]) {
    const int lane = threadIdx.x & 31;
#pragma unroll
    for (int width = TOGETHER / 2; width > 0; width /= 2) {
#pragma unroll
        for (int k = 0; k < width; k++) {
            const R low = sums[k], high = sums[k + width];
            const bool upper = lane & width;
            sums[k] = (upper ? high : low) + __shfl_xor_sync(0xffffffffu, upper ? low : high, width);
        }
    }
    return sums[0];
}

// Rows of sparse samples. A block has 256 columns and TOGETHER rows, a warp 32 columns, 8 lanes
// one at a time: each takes every 8th non-zero of it.
extern "C" __global__ void __launch_bounds__(THREADS) rows_of_nonzeros(
    int m, int n, const int *samples, const int *columns, const int *slots, const long long *starts,
    const int *features, const REAL *X, long long n_features, const REAL *dense, const REAL *terms, int kind,
    int degree, double slope, double coef0, VALUE *out, long long stride
) {
    SHARED(VALUE, values, [THREADS / 32][TOGETHER][33]);
    const Rows<REAL> rows{samples, columns, slots, terms, out, stride, m, n};
    const Function function{kind, degree, slope, coef0};
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, own = lane % TOGETHER;
    const int blocks = (n - 1) / THREADS + 1, group = blockIdx.x / blocks;
    const int first_column = (int)(blockIdx.x % blocks) * THREADS + 32 * warp;
    const REAL *left = dense + group * n_features * TOGETHER;
    const REAL left_term = terms[rows.left(group * TOGETHER + own)];
    for (int round = 0; round < TOGETHER; round++) {
        const int at = 4 * round + lane / TOGETHER;
        const long long sample = rows.right(first_column + at);
        REAL sums[TOGETHER] = {};
        for (long long k = starts[sample] + own; k < starts[sample + 1]; k += TOGETHER) {
            const REAL x = X[k], *factors = left + (long long)features[k] * TOGETHER;
#pragma unroll
            for (int r = 0; r < TOGETHER; r++) sums[r] = fma(x, factors[r], sums[r]);
        }
        typename Arithmetic<REAL>::type x[1] = {
            argument(function.kind == RBF, total_of_lane(sums), left_term, terms[sample])};
        apply(function, x);
        values[warp][own][at] = (VALUE)x[0];
    }
    __syncwarp();
    for (int r = 0; r < TOGETHER && group * TOGETHER + r < m; r++)
        if (first_column + lane < n) rows.row(group * TOGETHER + r)[first_column + lane] = values[warp][r][lane];
}

// -- kernel values that were given, and what is known of each sample -----------------------------

#define COPIED 1024  // columns that a block copies

extern "C" __global__ void __launch_bounds__(THREADS) rows_as_given(
    int n, const int *samples, const int *columns, const int *slots, const REAL *K, long long n_samples, VALUE *out,
    long long stride
) {
    const int blocks = (n - 1) / COPIED + 1, i = blockIdx.x / blocks;
    const REAL *from = K + columns[samples[i]] * n_samples;
    VALUE *into = out + slots[i] * stride;
    const long long first = (long long)(blockIdx.x % blocks) * COPIED;
    for (long long c = first + threadIdx.x; c < n && c < first + COPIED; c += THREADS)
        into[c] = (VALUE)from[columns[c]];
}

// The sum of x over a warp, in lane 0 and in every other.
template <class R>
__device__ __forceinline__ R sum_of_warp(R x) {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) x += __shfl_xor_sync(0xffffffffu, x, width);
    return x;
}

// Squared norms (n,) of pixels, exact, and the terms for their kernel: with s = p - 128 and
// t = q - 128, of d features,
//     ||p - q||^2 = ||s||^2 + ||t||^2 - 2 <s, t>
//     <p, q> = <s, t> + sum(128 p - 8192) + sum(128 q - 8192)
// A warp for each sample.
extern "C" __global__ void __launch_bounds__(THREADS) measure_pixels(
    int n, int n_features, const signed char *X, long long pitch, int is_rbf, int *terms, double *norms
) {
    const long long i = blockIdx.x * (THREADS / 32LL) + threadIdx.x / 32;
    const int lane = threadIdx.x & 31;
    int sum = 0, own_norm = 0, norm = 0;
    for (int f = lane; i < n && f < n_features; f += 32) {
        const int s = X[i * pitch + f], p = s + 128;
        sum += p, own_norm += s * s, norm += p * p;
    }
    sum = sum_of_warp(sum), own_norm = sum_of_warp(own_norm), norm = sum_of_warp(norm);
    if (lane == 0 && i < n) {
        terms[i] = is_rbf ? own_norm : 128 * (sum - 64 * n_features);
        norms[i] = norm;
    }
}

// Squared norms (n,) of real samples, summed in float64; the terms are the same, as wide as
// products.
extern "C" __global__ void __launch_bounds__(THREADS) measure_reals(
    int n, int n_features, const REAL *X, long long pitch, REAL *terms, double *norms
) {
    const long long i = blockIdx.x * (THREADS / 32LL) + threadIdx.x / 32;
    const int lane = threadIdx.x & 31;
    const REAL *sample = X + i * (pitch / (long long)sizeof(REAL));
    double norm = 0;
    for (int f = lane; i < n && f < n_features; f += 32) norm += (double)sample[f] * sample[f];
    norm = sum_of_warp(norm);
    if (lane == 0 && i < n) terms[i] = (REAL)norm, norms[i] = norm;
}
