// The scan of a short sequence in one launch: a block is a few channels over the whole sequence, a warp one chunk of it.
//
// SPLIT lanes share a channel, each with STATES / SPLIT states, so that a few hundred channels fill the card's warps.
// SPLIT positions are loaded at once, one by each of the lanes of a channel, which computes the step, the gate and the
// skip of its position alone and hands the step around by shuffles; the outputs of SPLIT positions are summed over the
// lanes by halving (each lane ends with the sum of its own position); VEC divides a lane's states. Chunk states meet in shared memory, and every warp
// scans its chunk again from its start state: its rows are in the cache by then.
#include "scan_forward.cuh"

#ifndef SPLIT
#define SPLIT 8
#endif
#ifndef WARPS
#define WARPS 32
#endif
#define CHANNELS (32 / SPLIT)
#define EACH ((STATES + SPLIT - 1) / SPLIT)
#define LOADS ((EACH + VEC - 1) / VEC)

#ifndef PIPELINE  // 1: rows of the next SPLIT positions are under way while these are computed
#define PIPELINE 0
#endif

// Row `t` of the path, the last one after its end.
DEVICE int visited(const Scan& p, long long k, int t, int end) {
    t = min(t, end - 1);
#if ORDERED
    return p.table[k * p.length + t];
#else
    return t;
#endif
}

extern "C" __global__ void __launch_bounds__(32 * WARPS) scan_short(const Scan p) {
    __shared__ float ends[WARPS][STATES * CHANNELS], totals[WARPS][CHANNELS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = lane % CHANNELS, position = lane / CHANNELS;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int group = blockIdx.x / p.group_blocks, first = (blockIdx.x % p.group_blocks) * CHANNELS;
    const bool mine = first + channel < p.group_width;
    const int d = group * p.group_width + (mine ? first + channel : p.group_width - 1);
    const int start = min(p.length, warp * p.chunk), end = min(p.length, start + p.chunk);

    const io_t* u = p.u + b * p.u_b + k * p.u_k + d;
    const io_t* delta = p.delta + b * p.delta_b + k * p.delta_k + d;
    [[maybe_unused]] const io_t* z = p.z + b * p.z_b + d;
    const io_t* B = p.B + b * p.B_b + k * p.B_k + group * p.B_g;
    const io_t* C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    out_t* out = p.out + b * p.out_b + k * p.out_k + d;
    [[maybe_unused]] const float* sum = p.sum + b * p.out_b + k * p.out_k + d;
    const float skip = p.D ? p.D[k * p.width + d] : 0.0f;
    const float bias = p.bias ? p.bias[k * p.width + d] : 0.0f;

    // This lane's states; those past STATES stay zero.
    int states[EACH];
    float A2[EACH], h[EACH];
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        const int n = position * EACH + m;
        states[m] = min(n, STATES - 1);
        A2[m] = n < STATES ? p.A[(k * p.width + d) * STATES + n] * LOG2E : 0.0f;
        h[m] = 0.0f;
    }

    // What a lane has loaded of SPLIT positions: its own one's step size, u and z, and its states' B and C of all of them.
    struct Loaded {
        io_t delta, u, z;
        float sum;
        int row;
        Raw B[SPLIT][LOADS], C[SPLIT][LOADS];
    };
    float total = 0.0f;
    auto load = [&](bool last, int t0) {
        Loaded now;
        now.row = visited(p, k, t0 + position, end);
        now.delta = *row_at(delta, now.row, p.delta_row);
        now.u = *row_at(u, now.row, p.u_row);
        if (HAS_Z && last) now.z = *row_at(z, now.row, p.z_row);
        if (ADD && last) now.sum = *row_at(sum, now.row, p.sum_row);
#pragma unroll
        for (int i = 0; i < SPLIT; i++) {
            const int other = visited(p, k, t0 + i, end);
            const io_t *row_B = row_at(B, other, p.B_row), *row_C = row_at(C, other, p.C_row);
#pragma unroll
            for (int m = 0; m < EACH; m += VEC) {
                now.B[i][m / VEC] = *(const Raw*)(row_B + states[m]);
                if (last) now.C[i][m / VEC] = *(const Raw*)(row_C + states[m]);
            }
        }
        return now;
    };
    auto step_over = [&](bool last, int t0, const Loaded& now) {
        const bool inside = t0 + position < end;
        float dt = to_float(now.delta) + bias;
        const float value = to_float(now.u);
        if (SOFTPLUS) dt = softplus(dt);
        dt = inside ? dt : 0.0f;
        const float scaled = dt * value;
        if (!last) total += dt;
        float parts[SPLIT];
#pragma unroll
        for (int i = 0; i < SPLIT; i++) {
            const float step = __shfl_sync(FULL_WARP, dt, i * CHANNELS + channel);
            const float input = __shfl_sync(FULL_WARP, scaled, i * CHANNELS + channel);
            parts[i] = 0.0f;
#pragma unroll
            for (int m = 0; m < EACH; m++) {
                const bool real = STATES % SPLIT == 0 || position * EACH + m < STATES;
                const float beta = real ? element(now.B[i][m / VEC], m % VEC) : 0.0f;
                h[m] = fmaf(h[m], exp2_special(A2[m] * step), input * beta);
                if (last) parts[i] = fmaf(h[m], real ? element(now.C[i][m / VEC], m % VEC) : 0.0f, parts[i]);
            }
        }
        if (last) {
            float y = fmaf(skip, value, sum_over_lanes(parts, position));
            if (ADD) y += now.sum;
            if (HAS_Z) y *= silu(to_float(now.z));
            if (inside && mine) *row_at(out, now.row, p.out_row) = to_out(y);
        }
    };
    auto walk = [&](bool last) {
#if PIPELINE
        Loaded next;
        if (start < end) next = load(last, start);
        for (int t0 = start; t0 < end; t0 += SPLIT) {
            const Loaded now = next;
            if (t0 + SPLIT < end) next = load(last, t0 + SPLIT);
            step_over(last, t0, now);
        }
#else
        for (int t0 = start; t0 < end; t0 += SPLIT) step_over(last, t0, load(last, t0));
#endif
    };
    walk(false);
    // Steps of a channel: the sum over its lanes' positions.
    for (int by = CHANNELS; by < 32; by *= 2) total += __shfl_xor_sync(FULL_WARP, total, by);
    if (position == 0) totals[warp][channel] = total;
#pragma unroll
    for (int m = 0; m < EACH; m++) {
        const int n = position * EACH + m;
        if (n < STATES) ends[warp][n * CHANNELS + channel] = h[m];
    }
    __syncthreads();
    // Start states: every lane folds its states over the warps before its own.
#pragma unroll
    for (int m = 0; m < EACH; m++) h[m] = 0.0f;
    for (int w = 0; w < warp; w++) {
        const float steps = totals[w][channel];
#pragma unroll
        for (int m = 0; m < EACH; m++) {
            const float end_state = position * EACH + m < STATES ? ends[w][states[m] * CHANNELS + channel] : 0.0f;
            h[m] = fmaf(h[m], exp2_special(A2[m] * steps), end_state);
        }
    }
    if (p.keep && mine && warp < p.chunks) {
        float* kept = p.state + b * p.state_b + k * p.state_k + (long long)warp * STATES * p.width + d;
#pragma unroll
        for (int m = 0; m < EACH; m++) {
            if (position * EACH + m < STATES) kept[(long long)states[m] * p.width] = h[m];
        }
    }
    walk(true);
    if (mine && p.last && warp == WARPS - 1) {
#pragma unroll
        for (int m = 0; m < EACH; m++) {
            if (position * EACH + m < STATES) p.last[b * p.last_b + (k * p.width + d) * STATES + states[m]] = h[m];
        }
    }
}
