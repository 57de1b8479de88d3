// The scan of a short sequence in one launch, as scan_short.cu, with everything loaded once, at the start: a lane's own
// rows of all its rounds into registers, B and C of a warp's chunk into shared memory. The GPU waits for memory once
// rather than twice for every SPLIT positions.
//
// SPLIT lanes share a channel, each with STATES / SPLIT states; a round is SPLIT positions, one of each of these lanes; a
// warp has a chunk of ROUNDS rounds, a block the whole sequence of 32 / SPLIT channels.
#include "scan_forward.cuh"

#ifndef SPLIT
#define SPLIT 4
#endif
#ifndef WARPS
#define WARPS 16
#endif
#ifndef ROUNDS
#define ROUNDS 8
#endif

constexpr int CHANNELS = 32 / SPLIT, EACH = STATES / SPLIT, CHUNK = ROUNDS * SPLIT;
constexpr int ROW = 2 * STATES;                      // floats of a position in shared memory: B, then C
constexpr int LOADS = CHUNK * (STATES / VEC) / 32;   // of B, and of C, by each lane; the rest by some
constexpr bool REST = CHUNK * (STATES / VEC) % 32;
static_assert(STATES % SPLIT == 0, "lanes have as many states each");

struct alignas(EACH % 4 == 0 ? 16 : EACH % 2 == 0 ? 8 : 4) Share {
    float v[EACH];
};

extern __shared__ __align__(16) float staged[];

extern "C" __global__ void __launch_bounds__(32 * WARPS) scan_rounds(const Scan p) {
    __shared__ float ends[WARPS][STATES * CHANNELS], totals[WARPS][CHANNELS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = lane % CHANNELS, own = lane / CHANNELS;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int group = blockIdx.x / p.group_blocks, first = (blockIdx.x % p.group_blocks) * CHANNELS;
    const bool mine = first + channel < p.group_width;
    const int d = group * p.group_width + (mine ? first + channel : p.group_width - 1);
    const int start = min(p.length, warp * CHUNK), end = min(p.length, start + CHUNK);

    // Positions past the end repeat the last one, with a step of 0.
    auto row_of = [&](int t) -> int {
        t = min(start + t, end - 1);
#if ORDERED
        return p.table[k * p.length + t];
#else
        return t;
#endif
    };
    const io_t* u = p.u + b * p.u_b + k * p.u_k + d;
    const io_t* delta = p.delta + b * p.delta_b + k * p.delta_k + d;
    [[maybe_unused]] const io_t* z = p.z + b * p.z_b + d;
    const io_t* B = p.B + b * p.B_b + k * p.B_k + group * p.B_g;
    const io_t* C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    float* mine_staged = staged + warp * CHUNK * ROW;

    int rows[ROUNDS];
    io_t raw_delta[ROUNDS], raw_u[ROUNDS];
    [[maybe_unused]] io_t raw_z[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) rows[r] = row_of(r * SPLIT + own);
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        raw_delta[r] = *row_at(delta, rows[r], p.delta_row);
        raw_u[r] = *row_at(u, rows[r], p.u_row);
#if HAS_Z
        raw_z[r] = *row_at(z, rows[r], p.z_row);
#endif
    }
    {
        Raw raw_B[LOADS + REST], raw_C[LOADS + REST];
#pragma unroll
        for (int j = 0; j < LOADS + REST; j++) {
            const int i = lane + 32 * j;
            if (j == LOADS && i >= CHUNK * (STATES / VEC)) break;
            const int row = row_of(i / (STATES / VEC)), n = i % (STATES / VEC) * VEC;
            raw_B[j] = *(const Raw*)(row_at(B, row, p.B_row) + n);
            raw_C[j] = *(const Raw*)(row_at(C, row, p.C_row) + n);
        }
#pragma unroll
        for (int j = 0; j < LOADS + REST; j++) {
            const int i = lane + 32 * j;
            if (j == LOADS && i >= CHUNK * (STATES / VEC)) break;
            float* to = mine_staged + i / (STATES / VEC) * ROW + i % (STATES / VEC) * VEC;
            store_elements(to, raw_B[j]);
            store_elements(to + STATES, raw_C[j]);
        }
    }

    const float bias = p.bias ? p.bias[k * p.width + d] : 0.0f, skip = p.D ? p.D[k * p.width + d] : 0.0f;
    float A2[EACH], h[EACH], total = 0.0f;
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        A2[m] = p.A[(k * p.width + d) * STATES + own * EACH + m] * LOG2E;
        h[m] = 0.0f;
    }
    float dt[ROUNDS], value[ROUNDS];
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const float step = to_float(raw_delta[r]) + bias;
        dt[r] = SOFTPLUS ? softplus(step) : step;
        dt[r] = start + r * SPLIT + own < end ? dt[r] : 0.0f;
        value[r] = to_float(raw_u[r]);
        total += dt[r];
    }
    __syncwarp();

    // One round: the states go on by SPLIT positions; parts[i]: this lane's part of the output of position i.
    auto walk = [&](int r, float (&parts)[SPLIT], bool outputs) {
        const float scaled = dt[r] * value[r];
#pragma unroll
        for (int i = 0; i < SPLIT; i++) {
            const float step = __shfl_sync(FULL_WARP, dt[r], i * CHANNELS + channel);
            const float input = __shfl_sync(FULL_WARP, scaled, i * CHANNELS + channel);
            const float* from = mine_staged + (r * SPLIT + i) * ROW + own * EACH;
            const Share beta = *(const Share*)from;
            Share gamma = {};
            if (outputs) gamma = *(const Share*)(from + STATES);
            parts[i] = 0.0f;
#pragma unroll
            for (int m = 0; m < EACH; m++) {
                h[m] = fmaf(h[m], exp2_special(A2[m] * step), input * beta.v[m]);
                if (outputs) parts[i] = fmaf(h[m], gamma.v[m], parts[i]);
            }
        }
    };
    float parts[SPLIT];
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) walk(r, parts, false);

    // Steps of a channel: the sum over its lanes' positions.
    for (int by = CHANNELS; by < 32; by *= 2) total += __shfl_xor_sync(FULL_WARP, total, by);
    if (own == 0) totals[warp][channel] = total;
#pragma unroll
    for (int m = 0; m < EACH; m++) ends[warp][(own * EACH + m) * CHANNELS + channel] = h[m];
    __syncthreads();
    // Start states: every lane folds its states over the warps before its own.
#pragma unroll
    for (int m = 0; m < EACH; m++) h[m] = 0.0f;
    for (int w = 0; w < warp; w++) {
        const float steps = totals[w][channel];
#pragma unroll
        for (int m = 0; m < EACH; m++) {
            h[m] = fmaf(h[m], exp2_special(A2[m] * steps), ends[w][(own * EACH + m) * CHANNELS + channel]);
        }
    }
    if (p.keep && mine && warp < p.chunks) {
        float* kept = p.state + b * p.state_b + k * p.state_k + (long long)warp * STATES * p.width + d;
#pragma unroll
        for (int m = 0; m < EACH; m++) kept[(long long)(own * EACH + m) * p.width] = h[m];
    }

    out_t* out = p.out + b * p.out_b + k * p.out_k + d;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        walk(r, parts, true);
        float y = fmaf(skip, value[r], sum_over_lanes(parts, own));
#if ADD
        y += *row_at(p.sum + b * p.out_b + k * p.out_k + d, rows[r], p.sum_row);
#endif
#if HAS_Z
        y *= silu(to_float(raw_z[r]));
#endif
        if (mine && start + r * SPLIT + own < end) *row_at(out, rows[r], p.out_row) = to_out(y);
    }
    if (mine && p.last && warp == WARPS - 1) {
#pragma unroll
        for (int m = 0; m < EACH; m++) p.last[b * p.last_b + (k * p.width + d) * STATES + own * EACH + m] = h[m];
    }
}
