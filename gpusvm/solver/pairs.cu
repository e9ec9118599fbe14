// What the lockstep solver does with the problems of a group: a block of threads, or a row of blocks, for each.
//
// Arrays have a row for each problem. `live` lists the problems of a launch; `action` says what a problem does in
// this round, and a kernel passes over a problem that does something else. `member` (n_problems, n) gives the column of
// each variable in `rows` (capacity, n_columns), whose row slot_of[column] holds that sample's kernel values.
//
// The host gives the constants: VALUE, the type of kernel values; THREADS and ITEMS of `smo`; how SMO ends (REACHED,
// CUT_SHORT, STUCK); the actions; CURVATURE_FLOOR. See cuda_kernels.py.

#ifndef SHARED
#define SHARED(type, name, size) __shared__ type name size
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned char u8;

#define ALL_LANES 0xffffffffu
#define INFINITE __longlong_as_double(0x7ff0000000000000ll)

// -- reductions --------------------------------------------------------------------------------------------------

__device__ __forceinline__ unsigned larger(unsigned a, unsigned b) { return a > b ? a : b; }

__device__ __forceinline__ unsigned warp_largest(unsigned x) {
#if __CUDA_ARCH__ >= 800
    return __reduce_max_sync(ALL_LANES, x);
#else
    for (int bits = 16; bits > 0; bits /= 2) {
        unsigned other = __shfl_xor_sync(ALL_LANES, x, bits);
        x = larger(x, other);
    }
    return x;
#endif
}

// A number as an unsigned one of the same order.
__device__ __forceinline__ unsigned key_of(float x) {
    unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ u64 key_of(double x) {
    u64 bits = (u64)__double_as_longlong(x + 0.0); // of zeros there is one
    return bits >> 63 ? ~bits : bits | 0x8000000000000000ull;
}

// The larger key, and of equal ones the later place. Places count from 1; 0 is none.
__device__ __forceinline__ uint2 warp_best(unsigned key, unsigned place) {
    unsigned best = warp_largest(key);
    return make_uint2(best, warp_largest(key == best ? place : 0u));
}

__device__ __forceinline__ uint2 best_of(const uint2 *slots, int n_warps) {
    int lane = threadIdx.x & 31;
    uint2 mine = lane < n_warps ? slots[lane] : make_uint2(0u, 0u);
    return warp_best(mine.x, mine.y);
}

struct Extreme {
    double value;
    int place;
};

// The block's largest value; of equal ones the last place. For what is rarely asked.
__device__ Extreme block_largest(double value, int place, Extreme *slots) {
    for (int bits = 16; bits > 0; bits /= 2) {
        double other = __shfl_xor_sync(ALL_LANES, value, bits);
        int there = __shfl_xor_sync(ALL_LANES, place, bits);
        if (other > value || (other == value && there > place)) value = other, place = there;
    }
    __syncthreads(); // the slots may still be read
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32] = Extreme{value, place};
    __syncthreads();
    Extreme best = slots[0];
    for (int w = 1; w < (int)blockDim.x / 32; w++) {
        Extreme other = slots[w];
        if (other.value > best.value || (other.value == best.value && other.place > best.place)) best = other;
    }
    return best;
}

// -- kernel values of the working sets ---------------------------------------------------------------------------

#define TILE 32
#define TILE_ROWS 8

// Complete K (n_problems, ld, ld), the kernel values of the working sets, for members from position n_old on.
// Blocks of 32 x 8 threads; a block for each tile, whose mirror image goes through shared memory.
extern "C" __global__ void __launch_bounds__(TILE * TILE_ROWS)
gather(const int *live, const int *action, const VALUE *rows, int n_columns, const int *slot_of, const int *member,
       int n, const int *members, int width, const int *n_old, const int *n_members, VALUE *K, int ld)
{
    SHARED(VALUE, tile, [TILE][TILE + 1]);
    const int k = live[blockIdx.z];
    if (action[k] != RUN) return;
    const int q = n_members[k], old = n_old[k];
    const int first_row = old + blockIdx.y * TILE, first_column = blockIdx.x * TILE;
    if (first_row >= q || first_column >= q) return;
    const int *mine = members + (i64)k * width, *columns = member + (i64)k * n;
    VALUE *out = K + (i64)k * ld * ld;
    const int c = first_column + threadIdx.x;
    const int column = c < q ? columns[mine[c]] : 0;
    for (int y = threadIdx.y; y < TILE; y += TILE_ROWS) {
        int r = first_row + y;
        if (r < q && c < q) {
            VALUE value = rows[(i64)slot_of[columns[mine[r]]] * n_columns + column];
            out[(i64)r * ld + c] = value;
            tile[y][threadIdx.x] = value;
        }
    }
    __syncthreads();
    const int r = first_row + threadIdx.x;
    for (int x = threadIdx.y; x < TILE; x += TILE_ROWS) {
        int above = first_column + x;
        if (above < old && r < q) out[(i64)above * ld + r] = tile[threadIdx.x][x];
    }
}

// -- SMO ---------------------------------------------------------------------------------------------------------

#define WARPS (THREADS / 32)

// SMO on each working set until its gap is at most target[k]: two reductions and three barriers a step.
//
// A step is that of smo.py, second-order selection and of equals the last. The search for a maximum compares
// floats; gradients are counted from the middle of the gap, which moves along, so that floats resolve the gap. Of
// gradients or gains that only a double tells apart it may so take another than smo.py. Whether the target is reached is
// decided in float64. The members' bounds are copied to `bounds` (n_problems, 2, width), where their place finds them.
extern "C" __global__ void __launch_bounds__(THREADS)
smo(const int *live, const int *action, const VALUE *K, int ld, const int *members, int width, const int *n_members,
    const double *lower, const double *upper, const double *v, int n, const double *target, int at_once, double *b,
    double *change, double *bounds, i64 *steps_left, i64 *moved, int *status)
{
    DYNAMIC_SHARED(double, sb); // coefficients, then gradients
    double *sg = sb + THREADS * ITEMS;
    SHARED(uint2, most, [WARPS]);
    SHARED(uint2, least, [WARPS]);
    SHARED(uint2, gains, [WARPS]);
    SHARED(Extreme, extremes, [WARPS]);
    const int k = live[blockIdx.x], t = threadIdx.x, q = n_members[k];
    if (action[k] != RUN && action[k] != CONTINUE) return;
    const i64 allowed = steps_left[k];
    const int most_steps = allowed < at_once ? (int)allowed : at_once;
    const double goal = target[k];
    const VALUE *values = K + (i64)k * ld * ld;
    const int *mine = members + (i64)k * width;
    const i64 start = (i64)k * n;
    double *low_of = bounds + (i64)k * 2 * width, *high_of = low_of + width;
    double low[ITEMS], high[ITEMS];
    VALUE diagonal[ITEMS];
#pragma unroll
    for (int m = 0; m < ITEMS; m++) {
        int c = t + m * THREADS;
        low[m] = high[m] = 0.0, diagonal[m] = 0;
        if (c < q) {
            i64 at = start + mine[c];
            sb[c] = b[at], sg[c] = v[at];
            low_of[c] = low[m] = lower[at], high_of[c] = high[m] = upper[at];
            diagonal[m] = values[(i64)c * ld + c];
        }
    }
    int done = 0, ended = CUT_SHORT;
    double fine = INFINITE; // gap below which floats no longer resolve it
    for (; done < most_steps; done++) {
        unsigned up = 0, up_place = 0, down = 0, down_place = 0;
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            if (c < q) {
                unsigned key = key_of((float)sg[c]);
                if (sb[c] < high[m] && key >= up) up = key, up_place = c + 1;
                if (sb[c] > low[m] && ~key >= down) down = ~key, down_place = c + 1;
            }
        }
        uint2 mine_up = warp_best(up, up_place), mine_down = warp_best(down, down_place);
        if (t % 32 == 0) most[t / 32] = mine_up, least[t / 32] = mine_down;
        __syncthreads();
        uint2 best = best_of(most, WARPS), lowest = best_of(least, WARPS);
        if (best.y == 0 || lowest.y == 0) {
            ended = REACHED;
            break;
        }
        int i = (int)best.y - 1;
        double gap = sg[i] - sg[lowest.y - 1];
        if (gap <= goal || gap < fine) { // the same for all threads
            Extreme top = {-INFINITE, -1}, bottom = {-INFINITE, -1};
            for (int m = 0; m < ITEMS; m++) {
                int c = t + m * THREADS;
                if (c < q && sb[c] < high[m] && sg[c] >= top.value) top = Extreme{sg[c], c};
                if (c < q && sb[c] > low[m] && -sg[c] >= bottom.value) bottom = Extreme{-sg[c], c};
            }
            top = block_largest(top.value, top.place, extremes);
            bottom = block_largest(bottom.value, bottom.place, extremes);
            gap = top.value + bottom.value;
            if (gap <= goal) {
                ended = REACHED;
                break;
            }
            i = top.place;
            if (i < 0) { // gradients that are not numbers
                ended = STUCK;
                break;
            }
            double centre = (top.value - bottom.value) / 2;
            for (int m = 0; m < ITEMS; m++) {
                int c = t + m * THREADS;
                if (c < q) sg[c] -= centre;
            }
            fine = 0.1 * gap;
            __syncthreads(); // everyone sees gradients from the new middle
        }
        const double g_i = sg[i], b_i = sb[i];
        const VALUE *row_i = values + (i64)i * ld;
        const VALUE K_ii = row_i[i];
        const double room_i = high_of[i] - b_i;
        VALUE K_i[ITEMS];
        unsigned gain = 0, gain_place = 0;
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            K_i[m] = c < q ? row_i[c] : (VALUE)0;
        }
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            if (c < q && sb[c] > low[m]) {
                float difference = (float)(g_i - sg[c]);
                VALUE a = K_ii + diagonal[m] - 2 * K_i[m];
                if (a <= 0) a = (VALUE)CURVATURE_FLOOR;
                float found = difference * difference / (float)a;
                if (difference > 0.0f && found > 0.0f && __float_as_uint(found) >= gain)
                    gain = __float_as_uint(found), gain_place = c + 1;
            }
        }
        uint2 mine_gain = warp_best(gain, gain_place);
        if (t % 32 == 0) gains[t / 32] = mine_gain;
        __syncthreads();
        uint2 most_gaining = best_of(gains, WARPS);
        if (most_gaining.y == 0) { // kernel values that are not numbers
            ended = STUCK;
            break;
        }
        const int j = (int)most_gaining.y - 1;
        const VALUE *row_j = values + (i64)j * ld;
        VALUE K_j[ITEMS];
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            K_j[m] = c < q ? row_j[c] : (VALUE)0;
        }
        const double b_j = sb[j], room_j = b_j - low_of[j];
        double a = (double)K_ii + (double)row_j[j] - 2.0 * (double)row_i[j];
        if (a <= 0.0) a = CURVATURE_FLOOR;
        double step = (g_i - sg[j]) / a;
        if (step >= room_i || step >= room_j) step = room_i < room_j ? room_i : room_j;
        // A variable that reaches its bound is put on it exactly, whatever the rounding.
        const double new_i = step == room_i ? high_of[i] : b_i + step;
        const double new_j = step == room_j ? low_of[j] : b_j - step;
        if (new_i == b_i && new_j == b_j) { // a tolerance finer than float64 can follow
            ended = STUCK;
            break;
        }
        __syncthreads(); // everyone has read what i and j were
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            if (c < q) {
                sg[c] -= step * ((double)K_i[m] - (double)K_j[m]);
                if (c == i) sb[c] = new_i;
                if (c == j) sb[c] = new_j;
            }
        }
    }
#pragma unroll
    for (int m = 0; m < ITEMS; m++) {
        int c = t + m * THREADS;
        if (c < q) {
            i64 at = start + mine[c];
            change[(i64)k * width + c] = sb[c] - b[at];
            b[at] = sb[c];
        }
    }
    if (t == 0) steps_left[k] = allowed - done, moved[k] += done, status[k] = ended;
}

// -- gradients ---------------------------------------------------------------------------------------------------

#define PORTION 256

// v -= K[:, moved] change in float64: of the members by what SMO changed them, or, where gradients are computed from
// scratch, of the variables that are not zero by their coefficients. A thread for each variable, PORTION of them a block.
// `begin` and `end` are places in the list: of a long one only a part may have its rows at hand.
extern "C" __global__ void __launch_bounds__(PORTION)
subtract(const int *live, const int *action, const VALUE *rows, int n_columns, const int *slot_of, const int *member,
         int n, const int *members, int width, const int *n_members, const double *change, const int *support,
         const int *n_support, int begin, int end, const double *b, double *v)
{
    SHARED(double, coefficients, [PORTION]);
    SHARED(int, slots, [PORTION]);
    const int k = live[blockIdx.y], t = threadIdx.x, variable = blockIdx.x * PORTION + t;
    const bool moves = action[k] == RUN || action[k] == CONTINUE;
    if (!moves && action[k] != CHECK && action[k] != GRADIENT) return;
    const int *list = moves ? members + (i64)k * width : support + (i64)k * n;
    const int listed = moves ? n_members[k] : n_support[k];
    const int last = listed < end ? listed : end;
    const int *columns = member + (i64)k * n;
    const VALUE *mine = rows + (variable < n ? columns[variable] : 0);
    double sum = 0.0;
    for (int first = begin; first < last; first += PORTION) {
        int place = first + t;
        double coefficient = 0.0;
        if (place < last) {
            int sample = list[place];
            coefficient = moves ? change[(i64)k * width + place] : b[(i64)k * n + sample];
            slots[t] = slot_of[columns[sample]];
        }
        coefficients[t] = coefficient;
        __syncthreads();
        int count = last - first < PORTION ? last - first : PORTION;
#pragma unroll 4
        for (int s = 0; s < count; s++)
            if (coefficients[s] != 0.0) sum += coefficients[s] * (double)mine[(i64)slots[s] * n_columns];
        __syncthreads();
    }
    if (variable < n) v[(i64)k * n + variable] -= sum;
}

// -- what a probe runs ---------------------------------------------------------------------------------------------

extern "C" __global__ void twice(float *values, int n)
{
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < n) values[k] *= 2.0f;
}
