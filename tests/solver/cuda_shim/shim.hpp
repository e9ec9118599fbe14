// CUDA C on a CPU: the threads of a block are fibers of one thread, which change at barriers and warp operations.
//
// Between two barriers the order of threads is drawn from a seed, so a result that depends on a missing barrier
// changes with the seed. A barrier that only some threads reach, or that threads reach at different lines, is an error.
#pragma once
#include <bit>
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>

#define GPUSVM_SHIM 1
#define SEEN __attribute__((visibility("default")))
#ifndef __CUDA_ARCH__
#define __CUDA_ARCH__ 900
#endif
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static
#define __launch_bounds__(...)
#define SHARED(type, name, size) static type name size
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(shim::dynamic)
#define __syncthreads() shim::block_barrier(__LINE__)
#define __syncwarp(...) shim::warp_barrier(__LINE__)

struct dim3 { unsigned x, y, z; };
extern "C" dim3 threadIdx, blockIdx, blockDim, gridDim;
dim3 threadIdx, blockIdx, blockDim, gridDim;

struct int2 { int x, y; };
struct uint2 { unsigned x, y; };
struct float2 { float x, y; };
struct double2 { double x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace shim {

constexpr int MOST_THREADS = 1024, STACK = 256 * 1024, MOST_DYNAMIC = 228 * 1024, GUARD = 64;
enum State : char { READY, AT_BLOCK, AT_WARP, DONE };
enum Error { NONE, DIVERGED, OVERRUN };

struct Fiber {
    jmp_buf where;
    State state;
    bool begun;
    int line;       // of the barrier it waits at
    unsigned count; // warp operations so far
};

inline Fiber fibers[MOST_THREADS];
inline char *stacks;
inline jmp_buf scheduler;
inline int current, n_threads, order[MOST_THREADS], warp_order[MOST_THREADS / 32], n_warps;
inline int skipped_line; // a barrier that is left out, to see whether a test notices
inline uint64_t drawn;
inline bool shuffles;
inline void (*body)(void **);
inline void **arguments;
inline uint64_t lanes[MOST_THREADS / 32][2][32];
struct Reduction { // what the first lane to look made of them all, in which operation
    unsigned operation, value;
};
inline Reduction reductions[MOST_THREADS / 32][2];
alignas(128) inline unsigned char dynamic[MOST_DYNAMIC + GUARD];

inline unsigned draw(unsigned below) {
    drawn = drawn * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)((drawn >> 33) % below);
}

inline int smaller(int a, int b) { return a < b ? a : b; }

inline void shuffle(int *items, int n) {
    for (int k = n - 1; k > 0; k--) {
        int other = draw(k + 1), item = items[k];
        items[k] = items[other], items[other] = item;
    }
}

__attribute__((noinline)) inline void leave(State state, int line) {
    Fiber &mine = fibers[current];
    mine.state = state, mine.line = line;
    if (!_setjmp(mine.where)) _longjmp(scheduler, 1);
}

inline void fiber_main() {
    for (;;) {
        body(arguments);
        leave(DONE, 0);
    }
}

__attribute__((noinline)) inline void enter(int t) {
    current = t;
    threadIdx = {t % blockDim.x, t / blockDim.x % blockDim.y, t / (blockDim.x * blockDim.y)};
    if (_setjmp(scheduler)) return;
    if (fibers[t].begun) _longjmp(fibers[t].where, 1);
    fibers[t].begun = true;
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + (size_t)t * STACK;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, fiber_main, 0);
    setcontext(&context);
}

inline void block_barrier(int line) {
    if (line != skipped_line) leave(AT_BLOCK, line);
}

inline void warp_barrier(int line) {
    if (line != skipped_line) leave(AT_WARP, line);
}

// Let the waiting threads begin..end go on if all that have not ended wait in the same place. Returns whether they do.
inline bool release(int begin, int end, State state, bool &same) {
    int line = 0, n_waiting = 0;
    for (int t = begin; t < end; t++) {
        if (fibers[t].state == DONE) continue;
        if (fibers[t].state != state) return false;
        if (n_waiting++ == 0) line = fibers[t].line;
        same = same && fibers[t].line == line;
    }
    for (int t = begin; t < end; t++)
        if (fibers[t].state == state) fibers[t].state = READY;
    return n_waiting > 0;
}

inline int run_block(int shared) {
    for (int t = 0; t < n_threads; t++) fibers[t].state = READY, fibers[t].count = 0;
    memset(dynamic, 0xff, shared + GUARD);
    memset(reductions, 0, sizeof reductions);
    bool same = true;
    for (;;) {
        if (shuffles) {
            shuffle(warp_order, n_warps);
            for (int w = 0; w < n_warps; w++) shuffle(order + 32 * w, smaller(32, n_threads - 32 * w));
        }
        for (int w = 0; w < n_warps; w++) {
            int begin = 32 * warp_order[w], end = smaller(begin + 32, n_threads);
            do
                for (int t = begin; t < end; t++)
                    if (fibers[order[t]].state == READY) enter(order[t]);
            while (release(begin, end, AT_WARP, same));
        }
        if (!same) return DIVERGED;
        if (release(0, n_threads, AT_BLOCK, same)) {
            if (!same) return DIVERGED;
            continue;
        }
        for (int t = 0; t < n_threads; t++)
            if (fibers[t].state != DONE) return DIVERGED;
        return NONE;
    }
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*static_cast<A *>(args[I])...);
}

inline int launch(void (*call_kernel)(void **), const int *grid, const int *block, int shared, void **args,
                  unsigned seed, int skip) {
    if (!stacks) stacks = static_cast<char *>(malloc((size_t)MOST_THREADS * STACK));
    body = call_kernel, arguments = args, skipped_line = skip, drawn = seed, shuffles = seed != 0;
    gridDim = {(unsigned)grid[0], (unsigned)grid[1], (unsigned)grid[2]};
    blockDim = {(unsigned)block[0], (unsigned)block[1], (unsigned)block[2]};
    n_threads = block[0] * block[1] * block[2];
    if (n_threads > MOST_THREADS || shared > MOST_DYNAMIC) return OVERRUN;
    n_warps = (n_threads + 31) / 32;
    for (int t = 0; t < n_threads; t++) order[t] = t;
    for (int w = 0; w < n_warps; w++) warp_order[w] = w;
    unsigned n_blocks = gridDim.x * gridDim.y * gridDim.z;
    for (unsigned i = 0; i < n_blocks; i++) {
        unsigned k = shuffles && seed % 2 ? n_blocks - 1 - i : i;
        blockIdx = {k % gridDim.x, k / gridDim.x % gridDim.y, k / (gridDim.x * gridDim.y)};
        int error = run_block(shared);
        if (error) {
            for (auto &fiber : fibers) fiber.begun = false; // those that wait are given up
            return error;
        }
        for (int g = 0; g < GUARD; g++)
            if (dynamic[shared + g] != 0xff) return OVERRUN;
    }
    return NONE;
}

// What a parameter of a kernel is, as NumPy says it: "*" for a pointer, then the type's character code and size.
template <class T> const char *type_name() {
    using Value = std::remove_cv_t<std::remove_pointer_t<T>>;
    constexpr bool p = std::is_pointer_v<T>;
    if constexpr (std::is_same_v<Value, float>) return p ? "*f4 " : "f4 ";
    else if constexpr (std::is_same_v<Value, double>) return p ? "*f8 " : "f8 ";
    else if constexpr (std::is_signed_v<Value>) return sizeof(Value) == 1 ? (p ? "*i1 " : "i1 ") : sizeof(Value) == 2 ? (p ? "*i2 " : "i2 ") : sizeof(Value) == 4 ? (p ? "*i4 " : "i4 ") : (p ? "*i8 " : "i8 ");
    else if constexpr (std::is_unsigned_v<Value>) return sizeof(Value) == 1 ? (p ? "*u1 " : "u1 ") : sizeof(Value) == 2 ? (p ? "*u2 " : "u2 ") : sizeof(Value) == 4 ? (p ? "*u4 " : "u4 ") : (p ? "*u8 " : "u8 ");
    else return p ? "*? " : "? ";
}
template <class... A> void type_names(void (*)(A...), char *out) {
    *out = 0;
    (strcat(out, type_name<A>()), ...);
}
template <class... A> void call_with(void (*kernel)(A...), void **args) {
    call(kernel, args, std::index_sequence_for<A...>{});
}

// -- warp operations: every lane leaves its value, and sees those of all once all have come ----------------------------

inline const uint64_t *exchanged(uint64_t value, int line) {
    Fiber &mine = fibers[current];
    int t = current;
    uint64_t *slots = lanes[t / 32][mine.count++ & 1];
    slots[t % 32] = value;
    leave(AT_WARP, line);
    return slots;
}

template <class T> uint64_t bits_of(T value) {
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T> T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
// What all lanes hand in, up to 32 bytes each: as for the operands of a tensor core instruction.
template <class T> const T *warp_exchange(const T &value, int line = __builtin_LINE()) {
    static_assert(sizeof(T) <= 32);
    static T slots[MOST_THREADS / 32][2][32];
    Fiber &mine = fibers[current];
    T *all = slots[current / 32][mine.count++ & 1];
    all[current % 32] = value;
    leave(AT_WARP, line);
    return all;
}
inline int lane() { return current % 32; }
template <class T> T from_lane(T value, int source, int line) {
    int mine = lane();
    const uint64_t *all = exchanged(bits_of(value), line);
    return from_bits<T>(all[source < 0 || source > 31 ? mine : source]);
}
template <class F> unsigned reduced(unsigned value, int line, F join) {
    const uint64_t *all = exchanged(value, line);
    const unsigned operation = fibers[current].count;
    Reduction &known = reductions[current / 32][operation & 1];
    if (known.operation != operation) {
        unsigned result = (unsigned)all[0];
        for (int l = 1; l < 32; l++) result = join(result, (unsigned)all[l]);
        known = {operation, result};
    }
    return known.value;
}
inline unsigned ballot(bool vote, int line) {
    const uint64_t *all = exchanged(vote, line);
    unsigned result = 0;
    for (int l = 0; l < 32; l++) result |= (unsigned)(all[l] != 0) << l;
    return result;
}

} // namespace shim

#define __shfl_sync(mask, value, source) shim::from_lane(value, source, __LINE__)
#define __shfl_xor_sync(mask, value, bits) shim::from_lane(value, shim::lane() ^ (bits), __LINE__)
#define __shfl_up_sync(mask, value, by) shim::from_lane(value, shim::lane() - (int)(by), __LINE__)
#define __shfl_down_sync(mask, value, by) shim::from_lane(value, shim::lane() + (int)(by), __LINE__)
#define __ballot_sync(mask, vote) shim::ballot(vote, __LINE__)
#define __any_sync(mask, vote) (shim::ballot(vote, __LINE__) != 0)
#define __all_sync(mask, vote) (shim::ballot(!(vote), __LINE__) == 0)
#define __reduce_max_sync(mask, value) shim::reduced(value, __LINE__, [](unsigned a, unsigned b) { return a > b ? a : b; })
#define __reduce_min_sync(mask, value) shim::reduced(value, __LINE__, [](unsigned a, unsigned b) { return a < b ? a : b; })
#define __reduce_add_sync(mask, value) shim::reduced(value, __LINE__, [](unsigned a, unsigned b) { return a + b; })

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero((unsigned)x); }
inline int __ffs(int x) { return x ? std::countr_zero((unsigned)x) + 1 : 0; }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }
template <class T> T __ldg(const T *p) { return *p; }
template <class T> T atomicAdd(T *p, T x) { T old = *p; *p = old + x; return old; }
template <class T> T atomicMax(T *p, T x) { T old = *p; *p = old > x ? old : x; return old; }
template <class T> T atomicExch(T *p, T x) { T old = *p; *p = x; return old; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline int __dp4a(int a, int b, int c) {
    for (int k = 0; k < 32; k += 8) c += (int)(int8_t)(a >> k) * (int)(int8_t)(b >> k);
    return c;
}
inline float __expf(float x) { return std::exp(x); }
using std::fmax, std::fmin, std::exp, std::tanh, std::pow, std::sqrt, std::isnan;
