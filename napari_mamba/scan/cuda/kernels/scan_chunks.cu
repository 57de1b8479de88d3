// The scan over chunks of the sequence: a thread is a channel with its STATES states in registers (or CHANNELS of them,
// THREADS apart, that share what it reads of B and C), a block is THREADS * CHANNELS channels of one chunk. B and C of TILE positions are staged in shared memory as floats, twice buffered; u, delta, z of
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
#ifndef CHANNELS  // of a thread; where it is not 1, it and THREADS divide the channels of a group
#define CHANNELS 1
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
    io_t delta[AHEAD][CHANNELS];
    io_t u[NEED_B ? AHEAD : 1][CHANNELS];
    io_t z[NEED_Z ? AHEAD : 1][CHANNELS];
    float sum[NEED_SUM ? AHEAD : 1][CHANNELS];
    out_t out[MODE == 3 ? AHEAD : 1][CHANNELS];
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
    const int group = part / p.group_blocks, first = (part % p.group_blocks) * THREADS * CHANNELS;
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

    [[maybe_unused]] float skip[CHANNELS];
    float bias[CHANNELS], A2[CHANNELS][STATES], h[CHANNELS][STATES], total[CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        const long long at = k * p.width + d + c * THREADS;
        skip[c] = p.D ? p.D[at] : 0.0f;
        bias[c] = p.bias ? p.bias[at] : 0.0f;
        total[c] = 0.0f;
#pragma unroll
        for (int n = 0; n < STATES; n++) {
            A2[c][n] = p.A[at * STATES + n] * LOG2E;
            h[c][n] = MODE >= 2 && p.state ? state[(long long)n * p.width + c * THREADS] : 0.0f;
        }
    }
#if MODE == 3
    float slowest[CHANNELS][PADDED / 4];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
        for (int n = 0; n < STATES; n++) slowest[c][n / 4] = n % 4 ? fmaxf(slowest[c][n / 4], A2[c][n]) : A2[c][n];
    }
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
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
                ahead.delta[j][c] = row_at(delta, row, p.delta_row)[c * THREADS];
                if (NEED_B) ahead.u[j][c] = row_at(u, row, p.u_row)[c * THREADS];
                if (NEED_Z) ahead.z[j][c] = row_at(z, row, p.z_row)[c * THREADS];
                if (NEED_SUM) ahead.sum[j][c] = row_at(sum, row, p.sum_row)[c * THREADS];
                if (MODE == 3) ahead.out[j][c] = row_at(out, row, p.out_row)[c * THREADS];
            }
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

    bool alive = true;
    for (int tile = 0, t0 = start; t0 < end; tile++, t0 += TILE) {
        const bool more = t0 + TILE < end;
#if KEEP && MODE == 1
        // A piece's state, short of what the chunk's start state leaves there; scan_keep adds that.
        if (mine && t0 > start && t0 % PIECE == 0) {
            float* kept = p.kept + kept_at(p, b, k, t0 / PIECE) + d;
            float* steps = p.kept_steps + kept_steps_at(p, b, k, t0 / PIECE) + d;
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
                for (int n = 0; n < STATES; n++) kept[(long long)n * p.width + c * THREADS] = h[c][n];
                steps[c * THREADS] = total[c];
            }
        }
#endif
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
                bool one = false;
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) one = one || slowest[c][q] * total[c] > DEAD;
                living[q] = __any_sync(FULL_WARP, one);
                alive = alive || living[q];
            }
            if (!alive) break;
#endif
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const bool inside = t0 + i + j < end;
                float dt[CHANNELS], y0[CHANNELS], y1[CHANNELS];
                [[maybe_unused]] float value[CHANNELS], scaled[CHANNELS];
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) {
                    dt[c] = to_float(loaded.delta[j][c]) + bias[c];
                    if (SOFTPLUS) dt[c] = softplus(dt[c]);
                    dt[c] = inside ? dt[c] : 0.0f;
                    total[c] += dt[c];
                    y0[c] = y1[c] = 0.0f;
                    if (NEED_B) value[c] = to_float(loaded.u[j][c]);
                    if (NEED_B) scaled[c] = dt[c] * value[c];
                }
#pragma unroll
                for (int q = 0; q < PADDED / 4; q++) {
#if MODE == 3
                    if (!living[q]) continue;
#endif
                    [[maybe_unused]] Four beta = {}, gamma = {};
                    if (NEED_B) beta = *(const Four*)(now.B + (i + j) * PADDED + 4 * q);
                    if (NEED_Y) gamma = *(const Four*)(now.C + (i + j) * PADDED + 4 * q);
#pragma unroll
                    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
                        for (int m = 0; m < 4; m++) {
                            const int n = 4 * q + m;
                            if (n < STATES) {
                                float& y = m % 2 ? y1[c] : y0[c];
#if MODE == 3
                                y = fmaf(exp2_state(n, A2[c][n < STATES ? n : 0] * total[c]) * gamma.v[m],
                                         h[c][n < STATES ? n : 0], y);
#else
                                h[c][n] = fmaf(h[c][n], exp2_state(n, A2[c][n] * dt[c]), scaled[c] * beta.v[m]);
                                if (NEED_Y) y = fmaf(h[c][n], gamma.v[m], y);
#endif
                            }
                        }
                    }
                }
#if NEED_Y
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) {
                    if (NEED_B) y0[c] = fmaf(skip[c], value[c], y0[c]);
                    float y = y0[c] + y1[c];
                    if (NEED_SUM) y += loaded.sum[j][c];
                    if (NEED_Z) y *= silu(to_float(loaded.z[j][c]));
                    if (MODE == 3) y += out_to_float(loaded.out[j][c]);
                    if (inside && mine) row_at(out, row_of(tile, i + j), p.out_row)[c * THREADS] = to_out(y);
                }
#endif
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
        for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
            for (int n = 0; n < STATES; n++) state[(long long)n * p.width + c * THREADS] = h[c][n];
            p.steps[b * p.steps_b + k * p.steps_k + (long long)chunk * p.width + d + c * THREADS] = total[c];
        }
    }
#elif MODE == 2
    if (mine && chunk == p.chunks - 1) {
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
            const long long at = k * p.width + d + c * THREADS;
#pragma unroll
            for (int n = 0; n < STATES; n++) p.last[b * p.last_b + at * STATES + n] = h[c][n];
        }
    }
#endif
}
