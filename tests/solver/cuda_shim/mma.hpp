// The instructions of tensor cores and of asynchronous copies, for shim.hpp: what `rows.cu` writes in PTX.
#pragma once
#include <deque>
#include <vector>

namespace shim {

inline float truncated_tf32(unsigned bits) { return std::bit_cast<float>(bits & 0xffffe000u); }

// What tensor cores make of a sum: cut off, not rounded.
inline float cut_off(double sum) {
    float nearest = (float)sum;
    return std::fabs((double)nearest) > std::fabs(sum) ? std::nextafterf(nearest, 0.0f) : nearest;
}

struct Copy { uint4 *into; const uint4 *from; };
inline std::vector<Copy> on_their_way[MOST_THREADS];
inline std::deque<std::vector<Copy>> copies[MOST_THREADS];

} // namespace shim

inline void load_matrices(unsigned (&into)[4], const uint4 *row) {
    int lane = shim::lane();
    const uint4 *const *rows = shim::warp_exchange(row);
    for (int m = 0; m < 4; m++) into[m] = reinterpret_cast<const unsigned *>(rows[8 * m + lane / 4])[lane % 4];
}

#if __CUDA_ARCH__ >= 800

inline void multiply_bytes_16(int (&c)[4], const unsigned (&a)[4], const unsigned *b) {
    struct Own { int8_t a[4][4], b[2][4]; } own;
    memcpy(own.a, a, 16), memcpy(own.b, b, 8);
    int lane = shim::lane();
    const Own *all = shim::warp_exchange(own);
    for (int k = 0; k < 4; k++)
        for (int word = 0; word < 8; word++) {
            const int8_t *left = all[lane / 4 * 4 + word % 4].a[k / 2 + word / 4 * 2];
            const int8_t *right = all[(lane % 4 * 2 + k % 2) * 4 + word % 4].b[word / 4];
            for (int byte = 0; byte < 4; byte++) c[k] += left[byte] * right[byte];
        }
}

inline void multiply_tf32(float (&c)[4], const unsigned (&a)[4], const unsigned *b) {
    struct Own { unsigned a[4], b[2]; } own;
    memcpy(own.a, a, 16), memcpy(own.b, b, 8);
    int lane = shim::lane();
    const Own *all = shim::warp_exchange(own);
    for (int k = 0; k < 4; k++) {
        double sum = c[k];
        for (int word = 0; word < 8; word++)
            sum += (double)shim::truncated_tf32(all[lane / 4 * 4 + word % 4].a[k / 2 + word / 4 * 2]) *
                   shim::truncated_tf32(all[(lane % 4 * 2 + k % 2) * 4 + word % 4].b[word / 4]);
        c[k] = shim::cut_off(sum);
    }
}

inline void multiply_doubles_8(double (&c)[2], double a, double b) {
    struct Own { double a, b; };
    int lane = shim::lane();
    const Own *all = shim::warp_exchange(Own{a, b});
    for (int k = 0; k < 2; k++)
        for (int word = 0; word < 4; word++)
            c[k] = std::fma(all[lane / 4 * 4 + word].a, all[(lane % 4 * 2 + k) * 4 + word].b, c[k]);
}

// A copy arrives when it is waited for; until then there is rubbish.
inline void copy_chunk(uint4 *into, const uint4 *from) {
    memset(into, 0xa5, sizeof *into);
    shim::on_their_way[shim::current].push_back({into, from});
}

inline void end_of_stage() {
    auto &group = shim::on_their_way[shim::current];
    shim::copies[shim::current].push_back(group);
    group.clear();
}

template <int LATER> void wait_for_stage() {
    auto &groups = shim::copies[shim::current];
    for (; groups.size() > LATER; groups.pop_front())
        for (auto [into, from] : groups.front()) *into = *from;
}

#else

inline void multiply_bytes_8(int &c0, int &c1, unsigned a, unsigned b) {
    struct Own { int8_t a[4], b[4]; } own;
    memcpy(own.a, &a, 4), memcpy(own.b, &b, 4);
    int lane = shim::lane();
    const Own *all = shim::warp_exchange(own);
    for (int k = 0; k < 2; k++)
        for (int word = 0; word < 4; word++)
            for (int byte = 0; byte < 4; byte++)
                (k ? c1 : c0) += all[lane / 4 * 4 + word].a[byte] * all[(lane % 4 * 2 + k) * 4 + word].b[byte];
}

#endif
