// What the lockstep solver does with the problems of a group: a block of threads, or a row of
// blocks, for each.
//
// Arrays have a row for each problem. `live` lists the problems of a launch; `action` says what a
// problem does in this round, and a kernel passes over a problem that does something else.
// `member` (n_problems, n) gives the column of each variable in `rows` (capacity, n_columns),
// whose row slot_of[column] holds that sample's kernel values. v is the gradient p - K b; a
// positive epsilon[k], a regression's, makes the objective's slope another: see
// working_set.slopes.
//
// The host gives the constants: threads of a block; ITEMS of each in `smo`; how SMO ends (REACHED,
// CUT_SHORT, STUCK); the actions; CURVATURE_FLOOR. See cuda_kernels.py. Compiled without VALUE,
// here are the kernels that see no kernel values; with VALUE, the type of those, the others.

#ifndef SHARED
#define SHARED(type, name, size) __shared__ type name size
#define DYNAMIC_SHARED(type, name) extern __shared__ type name[]
#endif

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned char u8;

#define ALL_LANES 0xffffffffu
#define INFINITE __longlong_as_double(0x7ff0000000000000ll)

// -- reductions ----------------------------------------------------------------------------------

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

__device__ double block_sum(double value, Extreme *slots) {
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL_LANES, value, bits);
    __syncthreads(); // the slots may still be read
    if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32].value = value;
    __syncthreads();
    double sum = 0.0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) sum += slots[w].value;
    return sum;
}

// What the threads before this one have together, and what all have.
__device__ int block_before(int mine, int *slots, int *all) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = mine;
    for (int by = 1; by < 32; by *= 2) {
        int other = __shfl_up_sync(ALL_LANES, sum, by);
        if (lane >= by) sum += other;
    }
    __syncthreads(); // the slots may still be read
    if (lane == 31) slots[warp] = sum;
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < (int)blockDim.x / 32; w++) {
        if (w < warp) before += slots[w];
        total += slots[w];
    }
    *all = total;
    return before + sum - mine;
}

// -- slopes --------------------------------------------------------------------------------------

// The objective's slope where a variable grows from b, and where it shrinks: working_set.slopes.
__device__ __forceinline__ double slope_up(double v, double b, double epsilon) {
    return v + (b < 0.0 ? epsilon : -epsilon);
}

__device__ __forceinline__ double slope_down(double v, double b, double epsilon) {
    return v + (b > 0.0 ? -epsilon : epsilon);
}

#ifndef VALUE

// -- the problems --------------------------------------------------------------------------------

// The numbers of all problems into arrays that have a row for each; v = p, and zeros where a
// shorter problem has no variables. `at` (4, n_problems) says where those of each begin in what is
// given, which some may share. A problem is of the blocks first[k], each a run of columns;
// `begins` says with which variable each block begins, and is beyond all variables for blocks that
// the problem does not have. Without `begun`, all b are 0, and given_b is not read.
extern "C" __global__ void
place(const int *sizes, const i64 *at, const int *first, const int *begins, int n_blocks, const double *given_p,
      const double *given_lower, const double *given_upper, const double *given_b, int begun, int n, double *p,
      double *lower, double *upper, double *b, double *v, int *member)
{
    const int k = blockIdx.y, c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n) return;
    const i64 to = (i64)k * n + c, count = gridDim.y;
    const bool is_there = c < sizes[k];
    p[to] = v[to] = is_there ? given_p[at[k] + c] : 0.0;
    lower[to] = is_there ? given_lower[at[count + k] + c] : 0.0;
    upper[to] = is_there ? given_upper[at[2 * count + k] + c] : 0.0;
    b[to] = is_there && begun ? given_b[at[3 * count + k] + c] : 0.0;
    first += (i64)k * n_blocks, begins += (i64)k * n_blocks;
    int block = 0;
    while (block + 1 < n_blocks && c >= begins[block + 1]) block++;
    member[to] = is_there ? first[block] + c - begins[block] : 0;
}

// -- the policy of working_set.py ----------------------------------------------------------------

#define MOST_WARPS 32

struct Scratch { // of a block that selects
    Extreme extremes[MOST_WARPS];
    int slots[MOST_WARPS];
    int counts[256];
    int found[2];
};

// Of some keys, those above `key`, and of those that equal it the first `equal`.
struct Cut {
    u64 key;
    int equal;
};

// The `most` largest keys of those above `floor`: working_set.worst, by their digits, the highest
// first. At first a thread looks at the keys t, t + step and so on, which it may just have
// written.
__device__ Cut largest_keys(const u64 *keys, int n, int most, u64 floor, Scratch &scratch) {
    const int t = threadIdx.x, step = blockDim.x;
    int above = 0, total;
#pragma unroll 1
    for (int c = t; c < n; c += step) above += keys[c] > floor;
    block_before(above, scratch.slots, &total);
    if (total <= most) return Cut{floor, 0};
    u64 prefix = 0;
    int left = most;
#pragma unroll 1
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int d = t; d < 256; d += step) scratch.counts[d] = 0;
        __syncthreads();
#pragma unroll 1
        for (int c = t; c < n; c += step) {
            u64 key = keys[c];
            bool fits = shift == 56 || (key ^ prefix) >> (shift + 8) == 0;
            if (key > floor && fits) atomicAdd(&scratch.counts[key >> shift & 255], 1);
        }
        __syncthreads();
        if (t < 32) { // a lane for eight digits, the largest first
            int own = 0, digit = 255 - 8 * t;
            for (int d = 0; d < 8; d++) own += scratch.counts[digit - d];
            int upto = own;
            for (int by = 1; by < 32; by *= 2) {
                int other = __shfl_up_sync(ALL_LANES, upto, by);
                if (t >= by) upto += other;
            }
            if (upto >= left && upto - own < left) {
                int rest = left - (upto - own);
                while (scratch.counts[digit] < rest) rest -= scratch.counts[digit--];
                scratch.found[0] = digit, scratch.found[1] = rest;
            }
        }
        __syncthreads();
        prefix |= (u64)scratch.found[0] << shift;
        left = scratch.found[1];
    }
    return Cut{prefix, left};
}

// Which of the variables begin..end, this thread's, are taken; they follow each other, so that the
// order is kept.
struct Taking {
    Cut cut;
    int equal_before, before, total;

    __device__ Taking(const u64 *keys, int begin, int end, Cut at, Scratch &scratch) : cut(at) {
        int above = 0, equal = 0, all;
#pragma unroll 1
        for (int c = begin; c < end; c++) above += keys[c] > cut.key, equal += keys[c] == cut.key;
        equal_before = block_before(equal, scratch.slots, &all);
        int left = cut.equal - equal_before;
        before = block_before(above + (left < 0 ? 0 : left < equal ? left : equal), scratch.slots, &total);
    }

    __device__ bool takes(u64 key) { return key > cut.key || (key == cut.key && equal_before++ < cut.equal); }
};

// One problem, as a block that selects sees it.
struct Selection {
    const double *b, *v, *lower, *upper;
    int size;
    double epsilon, middle;

    __device__ bool may_grow(int c) const { return b[c] < upper[c]; }
    __device__ bool may_shrink(int c) const { return b[c] > lower[c]; }
    __device__ bool is_free(int c) const { return may_grow(c) && may_shrink(c) && (epsilon == 0.0 || b[c] != 0.0); }
    // How far a variable is on the wrong side of the middle of the gap: working_set.violations.
    __device__ double grows(int c) const { return may_grow(c) ? slope_up(v[c], b[c], epsilon) - middle : -INFINITE; }
    __device__ double shrinks(int c) const { return may_shrink(c) ? middle - slope_down(v[c], b[c], epsilon) : -INFINITE; }
    __device__ double worse(int c) const {
        double grow = grows(c), shrink = shrinks(c);
        return grow > shrink ? grow : shrink;
    }
};

#define MEMBER 1
#define FORCED 2
#define WANTED 4

// working_set.exchanged, and what of the set stays moved to its front. Returns how many stay, and
// how many come.
__device__ int exchange(const Selection &problem, u64 *keys, u8 *is_member, int *mine, int n_mine, int *kept, int most,
                        double tol, int *n_coming, Scratch &scratch)
{
    const int t = threadIdx.x, step = blockDim.x, size = problem.size;
    const int span = (size + step - 1) / step, begin = min(t * span, size), end = min(begin + span, size);
    const u64 floor = key_of(0.5 * tol);
#pragma unroll 1
    // However many violations are equal, SMO finds two to exchange.
    for (int kind = 0; kind < 2; kind++) {
#pragma unroll 1
        for (int c = t; c < size; c += step) keys[c] = key_of(kind == 0 ? problem.grows(c) : problem.shrinks(c));
        Cut cut = largest_keys(keys, size, max(1, most / 4), floor, scratch);
        Taking taking(keys, begin, end, cut, scratch);
#pragma unroll 1
        for (int c = begin; c < end; c++)
            if (taking.takes(keys[c])) is_member[c] |= FORCED;
        __syncthreads();
    }
#pragma unroll 1
    for (int c = t; c < size; c += step) {
        double rank = -INFINITE;
        if (is_member[c] & MEMBER) rank = problem.is_free(c) ? 1e300 : problem.worse(c);
        if (is_member[c] & FORCED) rank = INFINITE;
        keys[c] = key_of(rank);
    }
    Cut cut = largest_keys(keys, size, most, key_of(-INFINITE), scratch);
    Taking taking(keys, begin, end, cut, scratch);
#pragma unroll 1
    for (int c = begin; c < end; c++) is_member[c] = (is_member[c] & MEMBER) | (taking.takes(keys[c]) ? WANTED : 0);
    __syncthreads();
    // Members that stay, in their order.
    const int part = (n_mine + step - 1) / step, first = min(t * part, n_mine), last = min(first + part, n_mine);
    int stay = 0, n_staying;
#pragma unroll 1
    for (int place = first; place < last; place++) stay += (is_member[mine[place]] & WANTED) != 0;
    int at = block_before(stay, scratch.slots, &n_staying);
#pragma unroll 1
    for (int place = first; place < last; place++)
        if (is_member[mine[place]] & WANTED) kept[at++] = mine[place];
    __syncthreads();
#pragma unroll 1
    for (int place = t; place < n_staying; place += step) mine[place] = kept[place];
    int come = 0;
#pragma unroll 1
    for (int c = begin; c < end; c++) come += is_member[c] == WANTED;
    at = n_staying + block_before(come, scratch.slots, n_coming);
#pragma unroll 1
    for (int c = begin; c < end; c++) {
        if (is_member[c] == WANTED) mine[at++] = c;
        is_member[c] = (is_member[c] & WANTED) ? MEMBER : 0;
    }
    return n_staying;
}

// What each problem does in this round; a block a problem.
//
// After SMO: it goes on if it was cut short; else the worst violators join the working set
// (working_set.joining), or half of it is exchanged; where the gap is closed, steps are spent or
// nothing moves, the gradient is to be computed from scratch: v = p, and the variables that are
// not zero are listed in `support`. After that a problem is FINISHED, or violators join. The
// target of SMO is working_set.target, no less than working_set.rounding.
extern "C" __global__ void __launch_bounds__(SELECTING, 1)
select_variables(const int *live, const int *sizes, int n, const double *p, const double *lower, const double *upper,
                 const double *epsilon, const double *b, double *v, int largest, int most_joining, int changing,
                 double tol, double largest_value, u8 *is_member, int *members, int width, int *n_members, int *n_old,
                 int *growing, int *action, double *target, double *gaps, double *norms, const int *status,
                 const i64 *steps_left, i64 *moved, int *support, int *n_support, u64 *keys)
{
    SHARED(Scratch, scratch, );
    const int k = live[blockIdx.x], t = threadIdx.x, step = blockDim.x, size = sizes[k], was = action[k];
    if (was == FINISHED) return;
    const int limit = min(largest, size), n_mine = n_members[k];
    const i64 start = (i64)k * n;
    p += start, v += start, is_member += start, support += start, keys += start;
    Selection problem = {b + start, v, lower + start, upper + start, size, epsilon[k], 0.0};
    const int span = (size + step - 1) / step, begin = min(t * span, size), end = min(begin + span, size);

    double most = -INFINITE, least = -INFINITE, largest_b = 0.0, squares = 0.0;
#pragma unroll 1
    for (int c = t; c < size; c += step) {
        double coefficient = problem.b[c];
        double up = slope_up(v[c], coefficient, problem.epsilon), down = slope_down(v[c], coefficient, problem.epsilon);
        if (problem.may_grow(c) && up > most) most = up;
        if (problem.may_shrink(c) && -down > least) least = -down;
        double absolute = coefficient < 0.0 ? -coefficient : coefficient;
        if (absolute > largest_b) largest_b = absolute;
        squares += coefficient * coefficient;
    }
    most = block_largest(most, 0, scratch.extremes).value;
    least = -block_largest(least, 0, scratch.extremes).value;
    largest_b = block_largest(largest_b, 0, scratch.extremes).value;
    squares = block_sum(squares, scratch.extremes);
    const double gap = most - least;
    problem.middle = (most + least) / 2;
    if (t == 0) gaps[k] = gap, norms[k] = sqrt(squares);

    const bool has_moved = was == RUN || was == CONTINUE, begins = was == START || was == GRADIENT;
    if (has_moved && status[k] == CUT_SHORT && steps_left[k] > 0) {
        if (t == 0) action[k] = CONTINUE;
        return;
    }
    Cut cut = {0, 0};
    int n_joining = 0;
    bool lists = was == WARM;
    if (!begins && !lists) {
#pragma unroll 1
        for (int c = t; c < size; c += step) keys[c] = key_of(is_member[c] ? -INFINITE : problem.worse(c));
        cut = largest_keys(keys, size, min(most_joining, max(1, limit / 2)), key_of(0.5 * tol), scratch);
        Taking taking(keys, begin, end, cut, scratch);
        n_joining = taking.total;
        const bool stuck = (moved[k] == 0 || status[k] == STUCK) && !(growing[k] && n_joining > 0);
        if (has_moved)
            lists = gap <= tol || steps_left[k] <= 0 || stuck;
        else if (gap <= tol || steps_left[k] <= 0) {
            if (t == 0) action[k] = FINISHED;
            return;
        }
    }
    if (lists) {
        int own = 0, total;
#pragma unroll 1
        for (int c = begin; c < end; c++) own += problem.b[c] != 0.0;
        int at = block_before(own, scratch.slots, &total);
#pragma unroll 1
        for (int c = begin; c < end; c++) {
            if (problem.b[c] != 0.0) support[at++] = c;
            v[c] = p[c];
        }
        if (t == 0) n_support[k] = total, action[k] = was == WARM ? GRADIENT : CHECK;
        return;
    }
    int old = begins ? 0 : n_mine, count = n_mine;
    if (!begins) {
        const bool grows = growing[k] && n_mine + n_joining <= limit;
        int *mine = members + (i64)k * width;
        if (grows) {
            Taking taking(keys, begin, end, cut, scratch);
            int at = n_mine + taking.before;
#pragma unroll 1
            for (int c = begin; c < end; c++)
                if (taking.takes(keys[c])) mine[at++] = c, is_member[c] = MEMBER;
            count = n_mine + taking.total;
        } else {
            int n_coming;
            count = exchange(problem, keys, is_member, mine, n_mine, support, min(changing, limit), tol, &n_coming, scratch);
            count += n_coming;
            old = 0;
        }
        if (t == 0) growing[k] = grows;
    }
    if (t == 0) {
        double goal = count == size ? tol : fmax(0.1 * gap, 0.5 * tol);
        target[k] = fmax(goal, 2.220446049250313e-16 * (1.0 + largest_b * largest_value));
        n_members[k] = count, n_old[k] = old, moved[k] = 0, action[k] = RUN;
    }
}

// -- which kernel rows are missing ---------------------------------------------------------------

// Mark the columns whose rows this round needs: of all members, or of the variables that are not
// zero, from place `begin` of the list to `end`.
extern "C" __global__ void
want(const int *live, const int *action, const int *member, int n, const int *members, int width, const int *n_members,
     const int *support, const int *n_support, int begin, int end, u8 *wanted)
{
    const int k = live[blockIdx.y];
    const bool moves = action[k] == RUN || action[k] == CONTINUE;
    if (!moves && action[k] != CHECK && action[k] != GRADIENT) return;
    const int *list = moves ? members + (i64)k * width : support + (i64)k * n;
    const int last = min(end, moves ? n_members[k] : n_support[k]);
    for (int place = begin + blockIdx.x * blockDim.x + threadIdx.x; place < last; place += gridDim.x * blockDim.x)
        wanted[member[(i64)k * n + list[place]]] = 1;
}

#define FIELDS 8

// Give the columns that are wanted and have no row a slot each, in their order, and list both; one
// block.
//
// Where they do not fit beside those that are there, all others are given up. `held` is how many
// slots are taken. What the host must know of the round goes into `report` (n_problems + 1,
// FIELDS), so that one copy brings it: each problem's gap, norm of b, members, how many of them
// came, action, steps left, variables that are not zero; then the numbers of columns that are
// missing and that are wanted. If more are wanted than there are slots, nothing else changes.
extern "C" __global__ void __launch_bounds__(ALLOCATING)
allocate(u8 *wanted, int *slot_of, int n_columns, int capacity, int *held, int *missing, int *slots, int n_problems,
         const double *gaps, const double *norms, const int *n_members, const int *n_old, const int *action,
         const i64 *steps_left, const int *n_support, double *report)
{
    SHARED(int, sums, [MOST_WARPS]);
    const int t = threadIdx.x, step = blockDim.x;
    for (int k = t; k < n_problems; k += step) {
        double *line = report + (i64)k * FIELDS;
        line[0] = gaps[k], line[1] = norms[k], line[2] = n_members[k], line[3] = n_members[k] - n_old[k];
        line[4] = action[k], line[5] = (double)steps_left[k], line[6] = n_support[k], line[7] = 0.0;
    }
    const int span = (n_columns + step - 1) / step, begin = min(t * span, n_columns), end = min(begin + span, n_columns);
    int own = 0, lacking = 0, n_wanted, n_missing;
    for (int c = begin; c < end; c++) own += wanted[c], lacking += wanted[c] && slot_of[c] < 0;
    int wanted_before = block_before(own, sums, &n_wanted), at = block_before(lacking, sums, &n_missing);
    int first = *held;
    const bool anew = first + n_missing > capacity, fits = n_wanted <= capacity;
    if (anew) n_missing = n_wanted, at = wanted_before, first = 0;
    for (int c = begin; c < end; c++) {
        bool is_wanted = wanted[c];
        wanted[c] = 0;
        if (!fits) continue;
        if (anew) slot_of[c] = -1;
        if (is_wanted && slot_of[c] < 0) {
            missing[at] = c, slots[at] = slot_of[c] = first + at;
            at++;
        }
    }
    __syncthreads(); // all have read how many slots are taken
    if (t == 0) {
        double *line = report + (i64)n_problems * FIELDS;
        line[0] = fits ? n_missing : 0, line[1] = n_wanted;
        if (fits) *held = first + n_missing;
    }
}

// -- what has come of a problem ------------------------------------------------------------------

#define FIGURES 5

// Of each problem of a list, a line of `found` (n_listed, FIGURES + vectors n): what
// iterate.Figures says of it, then its b and its v, as many of them as `vectors` says. A block a
// problem.
extern "C" __global__ void __launch_bounds__(SELECTING, 1)
outcome(const int *listed, const int *sizes, int n, const double *p, const double *lower, const double *upper,
        const double *epsilon, const double *b, const double *v, int vectors, double *found)
{
    SHARED(Extreme, extremes, [MOST_WARPS]);
    const int k = listed[blockIdx.x], t = threadIdx.x, step = blockDim.x;
    const i64 start = (i64)k * n;
    Selection problem = {b + start, v + start, lower + start, upper + start, sizes[k], epsilon[k], 0.0};
    double *line = found + (i64)blockIdx.x * (FIGURES + vectors * (i64)n);
    double most = -INFINITE, least = -INFINITE, sum = 0.0, count = 0.0, objective = 0.0;
    for (int c = t; c < n; c += step) {
        double coefficient = problem.b[c], gradient = problem.v[c];
        if (vectors > 0) line[FIGURES + c] = coefficient;
        if (vectors > 1) line[FIGURES + n + c] = gradient;
        if (c >= problem.size) continue;
        double up = slope_up(gradient, coefficient, problem.epsilon);
        double down = slope_down(gradient, coefficient, problem.epsilon);
        if (problem.may_grow(c) && up > most) most = up;
        if (problem.may_shrink(c) && -down > least) least = -down;
        if (problem.is_free(c)) sum += up, count += 1.0;
        double absolute = coefficient < 0.0 ? -coefficient : coefficient;
        objective += coefficient * (p[start + c] + gradient) / 2 - problem.epsilon * absolute;
    }
    most = block_largest(most, 0, extremes).value;
    least = -block_largest(least, 0, extremes).value;
    sum = block_sum(sum, extremes), count = block_sum(count, extremes), objective = block_sum(objective, extremes);
    if (t > 0) return;
    // Comparisons pass over gradients that are not numbers, the objective does not.
    line[0] = objective == objective ? most : objective, line[1] = least;
    line[2] = sum, line[3] = count, line[4] = objective;
}

// -- what a probe runs ---------------------------------------------------------------------------

extern "C" __global__ void twice(float *values, int n)
{
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < n) values[k] *= 2.0f;
}

#else

// -- kernel values of the working sets -----------------------------------------------------------

#define TILE 32
#define TILE_ROWS 8

// Complete K (n_problems, ld, ld), the kernel values of the working sets, for members from
// position n_old on. Blocks of 32 x 8 threads; a block for each tile, whose mirror image goes
// through shared memory.
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

// -- SMO -----------------------------------------------------------------------------------------

#define WARPS (THREADS / 32)

struct Reduced { // what the warps of a block have found
    uint2 most[WARPS], least[WARPS], gains[WARPS];
    Extreme extremes[WARPS];
};

// A working set of q members. A thread has the members t, t + THREADS and so on: their bounds and
// diagonal are in its registers; coefficients sb and gradients sg are shared.
struct Members {
    int q, ld;
    const VALUE *values;
    double *sb, *sg;
    const double *low_of, *high_of;
    double epsilon;
    double low[ITEMS], high[ITEMS];
    VALUE diagonal[ITEMS];
};

// SMO until the gap is at most `goal`, or for so many steps. KINK is whether epsilon is positive:
// then a variable's slope is not its gradient, and a step ends at zero, as in smo.py. Returns how
// it ended; `done` counts the steps.
template <bool KINK>
__device__ __forceinline__ int take_steps(Members &set, double goal, int most_steps, Reduced &found, int &done)
{
    const int t = threadIdx.x, q = set.q, ld = set.ld;
    double *sb = set.sb, *sg = set.sg;
    auto up_of = [&](int c) { return KINK ? slope_up(sg[c], sb[c], set.epsilon) : sg[c]; };
    auto down_of = [&](int c) { return KINK ? slope_down(sg[c], sb[c], set.epsilon) : sg[c]; };
    double fine = INFINITE; // gap below which floats no longer resolve it
    for (done = 0; done < most_steps; done++) {
        unsigned up = 0, up_place = 0, down = 0, down_place = 0;
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            if (c < q) {
                unsigned grows = key_of((float)up_of(c)), shrinks = KINK ? key_of((float)down_of(c)) : grows;
                if (sb[c] < set.high[m] && grows >= up) up = grows, up_place = c + 1;
                if (sb[c] > set.low[m] && ~shrinks >= down) down = ~shrinks, down_place = c + 1;
            }
        }
        uint2 mine_up = warp_best(up, up_place), mine_down = warp_best(down, down_place);
        if (t % 32 == 0) found.most[t / 32] = mine_up, found.least[t / 32] = mine_down;
        __syncthreads();
        uint2 best = best_of(found.most, WARPS), lowest = best_of(found.least, WARPS);
        if (best.y == 0 || lowest.y == 0) return REACHED;
        int i = (int)best.y - 1;
        double gap = up_of(i) - down_of(lowest.y - 1);
        if (gap <= goal || gap < fine) { // the same for all threads
            Extreme top = {-INFINITE, -1}, bottom = {-INFINITE, -1};
            for (int m = 0; m < ITEMS; m++) {
                int c = t + m * THREADS;
                if (c < q && sb[c] < set.high[m] && up_of(c) >= top.value) top = Extreme{up_of(c), c};
                if (c < q && sb[c] > set.low[m] && -down_of(c) >= bottom.value) bottom = Extreme{-down_of(c), c};
            }
            top = block_largest(top.value, top.place, found.extremes);
            bottom = block_largest(bottom.value, bottom.place, found.extremes);
            gap = top.value + bottom.value;
            if (gap <= goal) return REACHED;
            i = top.place;
            if (i < 0) return STUCK; // gradients that are not numbers
            double centre = (top.value - bottom.value) / 2;
            for (int m = 0; m < ITEMS; m++) {
                int c = t + m * THREADS;
                if (c < q) sg[c] -= centre;
            }
            fine = 0.1 * gap;
            __syncthreads(); // everyone sees gradients from the new middle
        }
        const double up_i = up_of(i), b_i = sb[i];
        const VALUE *row_i = set.values + (i64)i * ld;
        const VALUE K_ii = row_i[i];
        const double highest = KINK && b_i < 0.0 && set.high_of[i] > 0.0 ? 0.0 : set.high_of[i], room_i = highest - b_i;
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
            if (c < q && sb[c] > set.low[m]) {
                float difference = (float)(up_i - down_of(c));
                VALUE a = K_ii + set.diagonal[m] - 2 * K_i[m];
                if (a <= 0) a = (VALUE)CURVATURE_FLOOR;
                float gained = difference * difference / (float)a;
                if (difference > 0.0f && gained > 0.0f && __float_as_uint(gained) >= gain)
                    gain = __float_as_uint(gained), gain_place = c + 1;
            }
        }
        uint2 mine_gain = warp_best(gain, gain_place);
        if (t % 32 == 0) found.gains[t / 32] = mine_gain;
        __syncthreads();
        uint2 most_gaining = best_of(found.gains, WARPS);
        if (most_gaining.y == 0) return STUCK; // kernel values that are not numbers
        const int j = (int)most_gaining.y - 1;
        const VALUE *row_j = set.values + (i64)j * ld;
        VALUE K_j[ITEMS];
#pragma unroll
        for (int m = 0; m < ITEMS; m++) {
            int c = t + m * THREADS;
            K_j[m] = c < q ? row_j[c] : (VALUE)0;
        }
        const double b_j = sb[j];
        const double least = KINK && b_j > 0.0 && set.low_of[j] < 0.0 ? 0.0 : set.low_of[j], room_j = b_j - least;
        double a = (double)K_ii + (double)row_j[j] - 2.0 * (double)row_i[j];
        if (a <= 0.0) a = CURVATURE_FLOOR;
        double step = (up_i - down_of(j)) / a;
        if (step >= room_i || step >= room_j) step = room_i < room_j ? room_i : room_j;
        // A variable that reaches its bound is put on it exactly, whatever the rounding.
        const double new_i = step == room_i ? highest : b_i + step;
        const double new_j = step == room_j ? least : b_j - step;
        // A tolerance finer than float64 can follow.
        if (new_i == b_i && new_j == b_j) return STUCK;
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
    return CUT_SHORT;
}

// SMO on each working set until its gap is at most target[k]: two reductions and three barriers a
// step.
//
// A step is that of smo.py, second-order selection and of equals the last. The search for a
// maximum compares floats; gradients are counted from the middle of the gap, which moves along, so
// that floats resolve the gap. Of slopes or gains that only a double tells apart it may so take
// another than smo.py. Whether the target is reached is decided in float64. The members' bounds
// are copied to `bounds` (n_problems, 2, width), where their place finds them.
extern "C" __global__ void __launch_bounds__(THREADS)
smo(const int *live, const int *action, const VALUE *K, int ld, const int *members, int width, const int *n_members,
    const double *lower, const double *upper, const double *epsilon, const double *v, int n, const double *target,
    int at_once, double *b, double *change, double *bounds, i64 *steps_left, i64 *moved, int *status)
{
    DYNAMIC_SHARED(double, sb); // coefficients, then gradients
    SHARED(Reduced, found, );
    const int k = live[blockIdx.x], t = threadIdx.x, q = n_members[k];
    if (action[k] != RUN && action[k] != CONTINUE) return;
    const i64 allowed = steps_left[k], start = (i64)k * n;
    const int most_steps = allowed < at_once ? (int)allowed : at_once, *mine = members + (i64)k * width;
    double *low_of = bounds + (i64)k * 2 * width, *high_of = low_of + width;
    Members set = {q, ld, K + (i64)k * ld * ld, sb, sb + THREADS * ITEMS, low_of, high_of, epsilon[k]};
#pragma unroll
    for (int m = 0; m < ITEMS; m++) {
        int c = t + m * THREADS;
        set.low[m] = set.high[m] = 0.0, set.diagonal[m] = 0;
        if (c < q) {
            i64 at = start + mine[c];
            set.sb[c] = b[at], set.sg[c] = v[at];
            low_of[c] = set.low[m] = lower[at], high_of[c] = set.high[m] = upper[at];
            set.diagonal[m] = set.values[(i64)c * ld + c];
        }
    }
    int done = 0;
    const int ended = set.epsilon > 0.0 ? take_steps<true>(set, target[k], most_steps, found, done)
                                        : take_steps<false>(set, target[k], most_steps, found, done);
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

// -- gradients -----------------------------------------------------------------------------------

#define PORTION 256

// v -= K[:, moved] change in float64: of the members by what SMO changed them, or, where gradients
// are computed from scratch, of the variables that are not zero by their coefficients. A thread
// for each variable, PORTION of them a block. `begin` and `end` are places in the list: of a long
// one only a part may have its rows at hand. What has no row is passed over.
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
            int sample = list[place], slot = slot_of[columns[sample]];
            coefficient = slot < 0 ? 0.0 : moves ? change[(i64)k * width + place] : b[(i64)k * n + sample];
            slots[t] = slot;
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

#endif
