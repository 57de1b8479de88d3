// What the kernels of the scan's gradients share: their arguments, sums over lanes, and how rows are read and written.
#pragma once
#include "common.cuh"

typedef long long wide;

// Members are 8 bytes each; `backward.py` packs them in this order.
struct Backward {
    const io_t *u, *delta, *B, *C, *z, *grad;  // z may be null
    const float *A, *D, *bias;                 // (K, D, N), (K, D), (K, D); D and bias may be null
    const int *table;                          // (K, L), or null for the raster
    const float *kept;                         // (B, K, segments / ratio, N, D): h before what the forward kept
    float *starts;                             // (B, K, segments, N, D): h before each segment; kept, where ratio is 1
    // (B, K, chunks, N + 2, D): R at the chunk's start, then R at its end, then its shares of dA, of dD and of d bias
    float *adjoints;
    float *sums;                 // (B, K, chunks, D): the chunk's sum of dt
    float *totals;               // (K, N + 2, D): the chunks' shares, added up
    io_t *dBC;                   // (2, B, K, L, G, N): the splits' shares of dB and dC, added up; null where splits is 1
    io_t *du, *ddelta, *dz;      // (B, 1 or K, L, D), (B, K, L, D), (B, L, D)
    float *du_sum, *dz_sum;      // sums over the paths so far, where they share u or z, else null
    void *dB, *dC;               // (splits, B, K, L, G, N): io_t where splits is 1, else float
    wide batch, paths, length, width, groups, segment, segments, chunk, chunks, splits;
    wide first_path, launch_paths, softplus, ratio, vector;  // vector: rows are aligned to four elements
    wide u_b, u_k, u_l, delta_b, delta_k, delta_l, B_b, B_k, B_l, B_g, C_b, C_k, C_l, C_g;
    wide z_b, z_l, grad_b, grad_k, grad_l;
};

constexpr int SHARES = STATES + 2;  // rows of `adjoints` for each chunk

__host__ __device__ constexpr int power_of_two(int x) {
    int p = 1;
    while (p < x) p *= 2;
    return p;
}

__host__ __device__ constexpr int lowest(int a, int b) { return a < b ? a : b; }

DEVICE int row_of(const Backward &p, wide path, wide t) { return p.table ? p.table[path * p.length + t] : (int)t; }

DEVICE float step_size(float raw, float bias, bool soft) { return soft ? softplus(raw + bias) : raw + bias; }

// Sum V values over the LANE_COUNT lanes whose numbers differ in the bits from LOW up, leaving each of them with its
// share of the sums: a butterfly that halves the values as it goes, V shuffles in place of V log2(lanes).
template <int V, int LANE_COUNT, int LOW>
DEVICE void scatter_sum(float *v, int lane) {
    if constexpr (LANE_COUNT > 1) {
        constexpr int mask = LOW * LANE_COUNT / 2;
        if constexpr (V > 1) {
            const bool upper = lane & mask;
#pragma unroll
            for (int i = 0; i < V / 2; ++i) {
                const float send = upper ? v[i] : v[i + V / 2], keep = upper ? v[i + V / 2] : v[i];
                v[i] = keep + __shfl_xor_sync(FULL_WARP, send, mask);
            }
            scatter_sum<V / 2, LANE_COUNT / 2, LOW>(v, lane);
        } else {
            v[0] += __shfl_xor_sync(FULL_WARP, v[0], mask);
            scatter_sum<1, LANE_COUNT / 2, LOW>(v, lane);
        }
    }
}

// V neighbouring elements of memory, in one load or store: 4 where `vector` says that rows allow it, else 1.
template <class T, int V>
struct alignas(sizeof(T) * V) Few {
    T v[V];
};

template <int V>
DEVICE void read(float (&v)[V], const io_t *from) {
    const Few<io_t, V> few = *(const Few<io_t, V> *)from;
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = to_float(few.v[i]);
}

template <int V>
DEVICE void write(io_t *to, const float (&v)[V]) {
    Few<io_t, V> few;
#pragma unroll
    for (int i = 0; i < V; ++i) few.v[i] = from_float(v[i]);
    *(Few<io_t, V> *)to = few;
}

// Write values that the paths share: add what the earlier paths left, and keep the sum for the later ones.
template <int V>
DEVICE void store_shared(const Backward &p, wide k, float (&x)[V], float *sum, io_t *out) {
    if (k > 0) {
        const Few<float, V> before = *(const Few<float, V> *)sum;
#pragma unroll
        for (int i = 0; i < V; ++i) x[i] += before.v[i];
    }
    if (k == p.paths - 1) {
        write<V>(out, x);
        return;
    }
    Few<float, V> now;
#pragma unroll
    for (int i = 0; i < V; ++i) now.v[i] = x[i];
    *(Few<float, V> *)sum = now;
}

// 1 - exp(-x) for x >= 0, the derivative of a softplus whose value is x; its small values need all their digits.
DEVICE float softplus_slope(float x) {
    const float series = x * fmaf(x, fmaf(x, fmaf(x, fmaf(x, 8.3333333e-3f, -4.1666667e-2f), 0.16666667f), -0.5f), 1.0f);
    return x < 0.125f ? series : 1.0f - exp2_special(-x * LOG2E);
}
