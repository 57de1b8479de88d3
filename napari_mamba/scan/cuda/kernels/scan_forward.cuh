// The forward scan's arguments and the pieces its kernels share: rows of an order, vector loads, staging.
#pragma once
#include "common.cuh"

#ifndef STATES
#define STATES 16
#endif
#ifndef THREADS  // channels of a block
#define THREADS 64
#endif
#ifndef TILE  // positions staged at once
#define TILE 16
#endif
#ifndef AHEAD  // positions whose rows are loaded while as many before them are computed
#define AHEAD 4
#endif
#ifndef VEC  // elements of B and C in one load
#define VEC 1
#endif
#ifndef SOFTPLUS
#define SOFTPLUS 1
#endif
#ifndef HAS_Z
#define HAS_Z 0
#endif
#ifndef ORDERED  // rows come from a table
#define ORDERED 0
#endif
#ifndef ADD  // what earlier paths left in `sum` is added
#define ADD 0
#endif
#ifndef OUT_FLOAT  // the output is float whatever IO is
#define OUT_FLOAT 0
#endif

#if OUT_FLOAT || IO == 0
typedef float out_t;
DEVICE out_t to_out(float x) { return x; }
DEVICE float out_to_float(out_t x) { return x; }
#else
typedef io_t out_t;
DEVICE out_t to_out(float x) { return from_float(x); }
DEVICE float out_to_float(out_t x) { return to_float(x); }
#endif

#ifndef KEEP  // the states within a chunk are kept for a backward pass
#define KEEP 0
#endif
#ifndef PIECE  // positions between them: TILEs
#define PIECE 32
#endif
#define PADDED ((STATES + 3) / 4 * 4)

// Strides in elements; *_l is from row to row, the last axis is contiguous. out and sum: rows of `width`.
struct Scan {
    const io_t *u, *delta, *B, *C, *z;
    const float *A, *D, *bias;
    const int* table;
    const float* sum;
    out_t* out;
    float *state, *steps, *last;
    float* kept;  // (B, K, pieces, N, D) for pieces of PIECE positions, where KEEP
    long long u_b, u_k, u_l, delta_b, delta_k, delta_l, B_b, B_k, B_l, B_g, C_b, C_k, C_l, C_g, z_b, z_l, out_b, out_k,
        state_b, state_k, steps_b, steps_k, last_b;
    int length, width, chunk, chunks, group_width, group_blocks, keep;
    // Bytes from row to row, for row_at: the product of a stride and a size would cost every address two instructions.
    int u_row, delta_row, B_row, C_row, z_row, out_row, sum_row;
};

// Where the states before a piece lie, (b, k, piece, 0, 0); strides as those of `state`.
DEVICE long long kept_at(const Scan& p, long long b, long long k, int piece) {
    return ((b * (p.state_b / p.state_k) + k) * ((p.length + PIECE - 1) / PIECE) + piece) * STATES * p.width;
}

struct alignas(16) Four {
    float v[4];
};

// The row of a tensor whose rows are `bytes` apart: one multiply-add of 32 by 32 bits to a 64-bit address.
template <class T>
DEVICE T* row_at(T* base, int row, int bytes) {
    return (T*)((char*)base + (long long)row * bytes);
}
template <class T>
DEVICE const T* row_at(const T* base, int row, int bytes) {
    return (const T*)((const char*)base + (long long)row * bytes);
}

// VEC elements as they are in memory.
#if IO == 0
#define WORDS VEC
#else
#define WORDS ((VEC + 1) / 2)
#endif
#if IO != 0 && VEC == 1
struct Raw {
    io_t bits;
};
DEVICE float element(const Raw& raw, int) { return to_float(raw.bits); }
#else
struct alignas(4 * WORDS) Raw {
    unsigned int w[WORDS];
};
DEVICE float element(const Raw& raw, int i) {
#if IO == 0
    return bits_to_float(raw.w[i]);
#else
    return to_float((io_t)(raw.w[i / 2] >> (16 * (i % 2)) & 0xffffu));
#endif
}
#endif

// VEC elements as floats to shared memory; in fours where they come in fours, whose banks then do not collide.
DEVICE void store_elements(float* to, const Raw& raw) {
#if VEC % 4 == 0
#pragma unroll
    for (int i = 0; i < VEC; i += 4) {
        *(Four*)(to + i) = {element(raw, i), element(raw, i + 1), element(raw, i + 2), element(raw, i + 3)};
    }
#else
#pragma unroll
    for (int i = 0; i < VEC; i++) to[i] = element(raw, i);
#endif
}

// A block's share of a (rows, STATES) tile of B or C, in registers between its loads and its stores to shared memory.
#define TILE_LOADS (TILE * (STATES / VEC))
#define SHARE ((TILE_LOADS + THREADS - 1) / THREADS)

// Sum parts[i] over the lanes of a channel, which are 32 / LANE_COUNT apart; the lane of number i gets sum i.
template <int LANE_COUNT>
DEVICE float sum_over_lanes(float (&parts)[LANE_COUNT], int number) {
#pragma unroll
    for (int half = LANE_COUNT / 2; half > 0; half /= 2) {
        const bool upper = number & half;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const float give = upper ? parts[i] : parts[i + half];
            const float keep = upper ? parts[i + half] : parts[i];
            parts[i] = keep + __shfl_xor_sync(FULL_WARP, give, half * (32 / LANE_COUNT));
        }
    }
    return parts[0];
}
