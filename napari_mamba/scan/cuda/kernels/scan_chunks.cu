// The scan over chunks of the sequence: a thread is a channel with its STATES states in registers, a block is THREADS
// channels of one chunk. B and C of TILE positions are staged in shared memory as floats, twice buffered; u, delta, z of
// AHEAD positions are under way while as many are computed. Rows are channels-last, so a warp reads 32 neighbours.
//
// Why three launches, and no exponential twice: with chunks scanned from a zero state, y = C·h is short of
// C[t]·exp(A S_t)·h0 only, where S_t is the sum of the steps since the chunk began and h0 its true start state. That
// term dies out, within a few positions for fast states, so MODE 1 writes finished outputs and MODE 3 corrects the head
// of each chunk until the slowest state of a warp's channels has decayed to DEAD. MODES 0 and 2 are the plain way:
// end states first, then the scan proper from the start states.
//   MODE 0: end states;  1: outputs from a zero state, and end states;  2: outputs from start states;  3: correction
// The decay over a chunk is exp2(A2·S): the sum of steps is all that the combination needs beside the end state.
#include "scan_forward.cuh"

#ifndef MODE
#define MODE 1
#endif
#ifndef BLOCKS  // blocks a multiprocessor should hold; bounds the registers
#define BLOCKS ((STATES > 16 ? 256 : 512) / THREADS)
#endif
#define NEED_B (MODE != 3)
#define NEED_Y (MODE != 0)
#define NEED_Z (HAS_Z && NEED_Y)
#define NEED_SUM (ADD && MODE != 0 && MODE != 3)
// log2 of the decay at which a start state no longer matters: the error it leaves is far below the outputs' rounding,
// 2^-24 in float and 2^-9 or 2^-11 in 16 bits. A head is as long as this says, and costs as much traffic as a scan.
#ifndef DEAD
#define DEAD (IO == 0 ? -24.0f : -16.0f)
#endif

struct Tile {
    float B[NEED_B ? TILE * PADDED : 4];
    float C[NEED_Y ? TILE * PADDED : 4];
};

// What a thread has loaded for AHEAD positions.
struct Ahead {
    io_t delta[AHEAD];
    io_t u[NEED_B ? AHEAD : 1];
    io_t z[NEED_Z ? AHEAD : 1];
    float sum[NEED_SUM ? AHEAD : 1];
    out_t out[MODE == 3 ? AHEAD : 1];
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_chunks(const Scan p) {
    __shared__ Tile tiles[2];
#if ORDERED
    __shared__ int rows[3][TILE];
#endif
    const int tid = threadIdx.x;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int blocks = p.width / p.group_width * p.group_blocks;
    const int chunk = (int)(blockIdx.x / blocks) + (MODE == 3 ? 1 : 0), part = blockIdx.x % blocks;
    const int group = part / p.group_blocks, first = (part % p.group_blocks) * THREADS;
    const bool mine = first + tid < p.group_width;
    // Threads past the last channel repeat it and write nothing.
    const int d = group * p.group_width + (mine ? first + tid : p.group_width - 1);
    const int start = chunk * p.chunk, end = min(p.length, start + p.chunk);

    const io_t* u = p.u + b * p.u_b + k * p.u_k + d;
    const io_t* delta = p.delta + b * p.delta_b + k * p.delta_k + d;
    const io_t* z = p.z + b * p.z_b + d;
    const io_t* B = p.B + b * p.B_b + k * p.B_k + group * p.B_g;
    const io_t* C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    const long long out_at = b * p.out_b + k * p.out_k + d;
    out_t* out = p.out + out_at;
    const float* sum = p.sum + out_at;
    float* state = p.state + b * p.state_b + k * p.state_k + (long long)chunk * STATES * p.width + d;
    [[maybe_unused]] const float skip = p.D ? p.D[k * p.width + d] : 0.0f;
    const float bias = p.bias ? p.bias[k * p.width + d] : 0.0f;

    float A2[STATES], h[STATES];
#pragma unroll
    for (int n = 0; n < STATES; n++) {
        A2[n] = p.A[(k * p.width + d) * STATES + n] * LOG2E;
        h[n] = MODE >= 2 && p.state ? state[(long long)n * p.width] : 0.0f;
    }
#if MODE == 3
    float slowest[PADDED / 4];
#pragma unroll
    for (int n = 0; n < STATES; n++) slowest[n / 4] = n % 4 ? fmaxf(slowest[n / 4], A2[n]) : A2[n];
#endif

    // Positions past the end repeat the last one, with a step of 0.
    [[maybe_unused]] auto visited = [&](int t) -> int {
        t = min(t, end - 1);
#if ORDERED
        return p.table[k * p.length + t];
#else
        return t;
#endif
    };
    auto row_of = [&](int tile, int i) -> int {
#if ORDERED
        return rows[tile % 3][i];
#else
        return min(start + tile * TILE + i, end - 1);
#endif
    };
    Raw raw_B[SHARE], raw_C[SHARE];
    auto fetch_tile = [&](int tile) {
#pragma unroll
        for (int j = 0; j < SHARE; j++) {
            const int i = tid + j * THREADS;
            if (TILE_LOADS % THREADS && i >= TILE_LOADS) break;
            const int row = row_of(tile, i / (STATES / VEC));
            const int n = i % (STATES / VEC) * VEC;
            if (NEED_B) raw_B[j] = *(const Raw*)(row_at(B, row, p.B_row) + n);
            if (NEED_Y) raw_C[j] = *(const Raw*)(row_at(C, row, p.C_row) + n);
        }
    };
    auto store_tile = [&](Tile& tile) {
#pragma unroll
        for (int j = 0; j < SHARE; j++) {
            const int i = tid + j * THREADS;
            if (TILE_LOADS % THREADS && i >= TILE_LOADS) break;
            const int at = i / (STATES / VEC) * PADDED + i % (STATES / VEC) * VEC;
#pragma unroll
            for (int e = 0; e < VEC; e++) {
                if (NEED_B) tile.B[at + e] = element(raw_B[j], e);
                if (NEED_Y) tile.C[at + e] = element(raw_C[j], e);
            }
        }
    };
    Ahead ahead;
    auto fetch_rows = [&](int tile, int i) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int row = row_of(tile, i + j);
            ahead.delta[j] = *row_at(delta, row, p.delta_row);
            if (NEED_B) ahead.u[j] = *row_at(u, row, p.u_row);
            if (NEED_Z) ahead.z[j] = *row_at(z, row, p.z_row);
            if (NEED_SUM) ahead.sum[j] = *row_at(sum, row, p.sum_row);
            if (MODE == 3) ahead.out[j] = *row_at(out, row, p.out_row);
        }
    };

#if ORDERED
    if (tid < TILE) {
        rows[0][tid] = visited(start + tid);
        rows[1][tid] = visited(start + TILE + tid);
    }
    __syncthreads();
#endif
    fetch_tile(0);
    fetch_rows(0, 0);
    store_tile(tiles[0]);
    __syncthreads();

    float total = 0.0f;
    bool alive = true;
    for (int tile = 0, t0 = start; t0 < end; tile++, t0 += TILE) {
        const bool more = t0 + TILE < end;
        const Tile& now = tiles[tile % 2];
        if (more) fetch_tile(tile + 1);
#if ORDERED
        int next_row = 0;
        if (tid < TILE) next_row = visited(t0 + 2 * TILE + tid);
#endif
#pragma unroll 1
        for (int i = 0; i < TILE && t0 + i < end; i += AHEAD) {
            const Ahead loaded = ahead;
            if (alive && t0 + i + AHEAD < end) {
                const bool same = i + AHEAD < TILE;
                fetch_rows(same ? tile : tile + 1, same ? i + AHEAD : 0);
            }
#if MODE == 3
            bool living[PADDED / 4];
            alive = false;
#pragma unroll
            for (int q = 0; q < PADDED / 4; q++) {
                living[q] = __any_sync(FULL_WARP, slowest[q] * total > DEAD);
                alive = alive || living[q];
            }
            if (!alive) break;
#endif
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const bool inside = t0 + i + j < end;
                float dt = to_float(loaded.delta[j]) + bias;
                if (SOFTPLUS) dt = softplus(dt);
                dt = inside ? dt : 0.0f;
                total += dt;
                float y0 = 0.0f, y1 = 0.0f;
#if MODE == 3
#pragma unroll
                for (int q = 0; q < PADDED / 4; q++) {
                    if (!living[q]) continue;
                    const Four c = *(const Four*)(now.C + (i + j) * PADDED + 4 * q);
#pragma unroll
                    for (int m = 0; m < 4; m++) {
                        const int n = 4 * q + m;
                        if (n < STATES) {
                            float& y = m % 2 ? y1 : y0;
                            y = fmaf(exp2_state(n, A2[n < STATES ? n : 0] * total) * c.v[m], h[n < STATES ? n : 0], y);
                        }
                    }
                }
#else
                const float value = to_float(loaded.u[j]), scaled = dt * value;
#pragma unroll
                for (int q = 0; q < PADDED / 4; q++) {
                    const Four beta = *(const Four*)(now.B + (i + j) * PADDED + 4 * q);
                    Four c = {};
                    if (NEED_Y) c = *(const Four*)(now.C + (i + j) * PADDED + 4 * q);
#pragma unroll
                    for (int m = 0; m < 4; m++) {
                        const int n = 4 * q + m;
                        if (n < STATES) {
                            float& y = m % 2 ? y1 : y0;
                            h[n] = fmaf(h[n], exp2_state(n, A2[n] * dt), scaled * beta.v[m]);
                            if (NEED_Y) y = fmaf(h[n], c.v[m], y);
                        }
                    }
                }
                y0 = fmaf(skip, value, y0);
#endif
                if (NEED_Y) {
                    float y = y0 + y1;
                    if (NEED_SUM) y += loaded.sum[j];
                    if (NEED_Z) y *= silu(to_float(loaded.z[j]));
                    if (MODE == 3) y += out_to_float(loaded.out[j]);
                    if (inside && mine) *row_at(out, row_of(tile, i + j), p.out_row) = to_out(y);
                }
            }
        }
        if (more) store_tile(tiles[(tile + 1) % 2]);
#if ORDERED
        if (tid < TILE) rows[(tile + 2) % 3][tid] = next_row;
#endif
#if MODE == 3
        if (!__syncthreads_or(alive)) break;
#else
        __syncthreads();
#endif
    }

#if MODE < 2
    if (mine) {
#pragma unroll
        for (int n = 0; n < STATES; n++) state[(long long)n * p.width] = h[n];
        p.steps[b * p.steps_b + k * p.steps_k + (long long)chunk * p.width + d] = total;
    }
#elif MODE == 2
    if (mine && chunk == p.chunks - 1) {
#pragma unroll
        for (int n = 0; n < STATES; n++) p.last[b * p.last_b + (k * p.width + d) * STATES + n] = h[n];
    }
#endif
}
