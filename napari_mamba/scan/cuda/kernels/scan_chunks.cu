// The scan over chunks of the sequence: a thread is a channel with its STATES states in registers (or CHANNELS of them,
// THREADS apart, that share what it reads of B and C), a block is THREADS * CHANNELS channels of one chunk. B and C of
// TILE positions are staged in shared memory as floats, twice buffered; u, delta, z of AHEAD positions are under way
// while as many are computed. Rows are channels-last, so a warp reads 32 neighbours.
//
//   MODE 0: the end state of every chunk but the last, had it begun from zero
//   MODE 2: outputs from the start states that scan_combine made of those
//
// An end state is the sum over positions t of exp(A S_t)·dt u B, where S_t is the sum of the steps after t, so MODE 0
// walks a chunk backwards from its end, until the slowest state of a warp's channels has decayed to DEAD: what lies
// before no longer matters. It reads u, delta and B of these tails alone, and no term waits for the one before it.
// (Outputs from a zero state, corrected afterwards, evaluate as many exponentials and move twice the bytes.)
// The decay over a chunk is exp2(A2·S): the sum of steps is all that the combination needs beside the end state. Of a
// walk that ended early it has a part of the sum, whose decay is below DEAD as well.
#include "scan_forward.cuh"

#ifndef MODE
#define MODE 2
#endif
#ifndef BLOCKS  // blocks a multiprocessor should hold; bounds the registers
#define BLOCKS ((STATES > 16 ? 256 : 512) / THREADS)
#endif
#ifndef CHANNELS  // of a thread; where it is not 1, it and THREADS divide the channels of a group
#define CHANNELS 1
#endif
#ifndef STAGED  // rows go by way of shared memory, by copies of 16 bytes: CHANNELS is 1, and 32 divides a group's channels
#define STAGED 0
#endif
#define NEED_Y (MODE == 2)
#define NEED_Z (HAS_Z && NEED_Y)
#define NEED_SUM (ADD && NEED_Y)
// log2 of the decay at which an earlier input no longer matters: the error it leaves is far below the outputs' rounding,
// 2^-24 in float and 2^-9 or 2^-11 in 16 bits.
#ifndef DEAD
#define DEAD (IO == 0 ? -24.0f : -16.0f)
#endif

struct alignas(16) Tile {
    float B[TILE * PADDED];
    float C[NEED_Y ? TILE * PADDED : 4];
};

#if STAGED
#define STREAMS (2 + NEED_Z)
// What a warp has copied for AHEAD positions.
struct alignas(16) Stage {
    io_t rows[STREAMS][AHEAD][32];
};
#endif

// What a thread has loaded for AHEAD positions.
struct Ahead {
    io_t delta[AHEAD][CHANNELS];
    io_t u[AHEAD][CHANNELS];
    io_t z[NEED_Z ? AHEAD : 1][CHANNELS];
    float sum[NEED_SUM ? AHEAD : 1][CHANNELS];
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_chunks(const Scan p) {
    __shared__ Tile tiles[2];
#if STAGED
    __shared__ Stage stages[THREADS / 32][2];
#endif
#if ORDERED
    __shared__ int rows[3][TILE];
#endif
    const int tid = threadIdx.x;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int blocks = p.width / p.group_width * p.group_blocks;
    const int chunk = (int)(blockIdx.x / blocks), part = blockIdx.x % blocks;
    const int group = part / p.group_blocks, first = (part % p.group_blocks) * THREADS * CHANNELS;
    const bool mine = first + tid < p.group_width;
    // Threads past the last channel repeat it and write nothing.
    const int d = group * p.group_width + (mine ? first + tid : p.group_width - 1);
    const int start = chunk * p.chunk, end = min(p.length, start + p.chunk), count = end - start;

#if STAGED
    // A lane copies 16 bytes of every ROWS_EACH-th row; warps past the last channel copy the last ones.
    constexpr int WIDE = 16 / sizeof(io_t), PARTS = 32 / WIDE, ROWS_EACH = WIDE;
    const int lane = tid % 32, lane_row = lane / PARTS, lane_column = lane % PARTS * WIDE;
    Stage(&mine_staged)[2] = stages[tid / 32];
    const int column = group * p.group_width + min(first + tid / 32 * 32, p.group_width - 32) + lane_column;
#else
    const int column = d;
#endif
    const io_t* u = p.u + b * p.u_b + k * p.u_k + column;
    const io_t* delta = p.delta + b * p.delta_b + k * p.delta_k + column;
    [[maybe_unused]] const io_t* z = p.z + b * p.z_b + column;
    const io_t* B = p.B + b * p.B_b + k * p.B_k + group * p.B_g;
    [[maybe_unused]] const io_t* C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    const long long out_at = b * p.out_b + k * p.out_k + d;
    [[maybe_unused]] out_t* out = p.out + out_at;
    [[maybe_unused]] const float* sum = p.sum + out_at;
    [[maybe_unused]] float* state = p.state + b * p.state_b + k * p.state_k + (long long)chunk * STATES * p.width + d;

    [[maybe_unused]] float skip[CHANNELS];
    [[maybe_unused]] float total[CHANNELS];
    float bias[CHANNELS], A2[CHANNELS][STATES], h[CHANNELS][STATES];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        const long long at = k * p.width + d + c * THREADS;
        skip[c] = p.D ? p.D[at] : 0.0f;
        bias[c] = p.bias ? p.bias[at] : 0.0f;
        total[c] = 0.0f;
#pragma unroll
        for (int n = 0; n < STATES; n++) A2[c][n] = p.A[at * STATES + n] * LOG2E;
    }
#if MODE == 0
    float slowest[CHANNELS][PADDED / 4];
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
        for (int n = 0; n < STATES; n++) slowest[c][n / 4] = n % 4 ? fmaxf(slowest[c][n / 4], A2[c][n]) : A2[c][n];
    }
#endif

    // The position of step `w` of the walk; steps past its end repeat the last one, and have a size of 0 in MODE 2.
    auto position = [&](int w) -> int { return MODE == 0 ? max(end - 1 - w, start) : min(start + w, end - 1); };
    [[maybe_unused]] auto visited = [&](int w) -> int {
#if ORDERED
        return p.table[k * p.length + position(w)];
#else
        return position(w);
#endif
    };
    auto row_of = [&](int tile, int i) -> int {
#if ORDERED
        return rows[tile % 3][i];
#else
        return position(tile * TILE + i);
#endif
    };
    [[maybe_unused]] auto row_of_out = [&](int tile, int i) -> out_t* {
#if ORDERED
        return row_at(out, row_of(tile, i), p.out_row);
#else
        return out;
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
            raw_B[j] = *(const Raw*)(row_at(B, row, p.B_row) + n);
            if (NEED_Y) raw_C[j] = *(const Raw*)(row_at(C, row, p.C_row) + n);
        }
    };
    auto store_tile = [&](Tile& tile) {
#pragma unroll
        for (int j = 0; j < SHARE; j++) {
            const int i = tid + j * THREADS;
            if (TILE_LOADS % THREADS && i >= TILE_LOADS) break;
            const int at = i / (STATES / VEC) * PADDED + i % (STATES / VEC) * VEC;
            store_elements(tile.B + at, raw_B[j]);
            if (NEED_Y) store_elements(tile.C + at, raw_C[j]);
        }
    };
#if STAGED
    auto stage_of = [&](int tile, int i) { return (tile * (TILE / AHEAD) + i / AHEAD) % 2; };
    auto fetch_rows = [&](int tile, int i) {
        Stage& to = mine_staged[stage_of(tile, i)];
#pragma unroll
        for (int j = 0; j < AHEAD; j += ROWS_EACH) {
            if (AHEAD % ROWS_EACH && j + lane_row >= AHEAD) break;
            const int row = row_of(tile, i + j + lane_row);
            copy_16(&to.rows[0][j + lane_row][lane_column], row_at(delta, row, p.delta_row));
            copy_16(&to.rows[1][j + lane_row][lane_column], row_at(u, row, p.u_row));
            if (NEED_Z) copy_16(&to.rows[STREAMS - 1][j + lane_row][lane_column], row_at(z, row, p.z_row));
        }
    };
    // What was copied for these positions is there, and every lane is done with the positions before them.
    auto rows_there = [&](int tile, int i) {
        copies_done();
        __syncwarp();
    };
#else
    Ahead ahead;
    auto fetch_rows = [&](int tile, int i) {
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int row = row_of(tile, i + j);
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
                ahead.delta[j][c] = row_at(delta, row, p.delta_row)[c * THREADS];
                ahead.u[j][c] = row_at(u, row, p.u_row)[c * THREADS];
                if (NEED_Z) ahead.z[j][c] = row_at(z, row, p.z_row)[c * THREADS];
                if (NEED_SUM) ahead.sum[j][c] = row_at(sum, row, p.sum_row)[c * THREADS];
            }
        }
    };
#endif

#if ORDERED
    if (tid < TILE) {
        rows[0][tid] = visited(tid);
        rows[1][tid] = visited(TILE + tid);
    }
    __syncthreads();
#endif
    fetch_tile(0);
    fetch_rows(0, 0);
    store_tile(tiles[0]);
#if MODE == 0
    let_later_start();
#else
    wait_for_earlier();
#endif
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
        for (int n = 0; n < STATES; n++) {
            h[c][n] = MODE == 2 && chunk > 0 ? state[(long long)n * p.width + c * THREADS] : 0.0f;
        }
    }
    __syncthreads();

    bool alive = true;
#if NEED_Y && !ORDERED
    out = row_at(out, start, p.out_row);  // of the position at hand
#endif
    for (int tile = 0, w0 = 0; w0 < count; tile++, w0 += TILE) {
        const bool more = w0 + TILE < count;
#if KEEP && NEED_Y
        if (mine && w0 % PIECE == 0) {
            float* kept = p.kept + kept_at(p, b, k, (start + w0) / PIECE) + d;
#pragma unroll
            for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
                for (int n = 0; n < STATES; n++) kept[(long long)n * p.width + c * THREADS] = h[c][n];
            }
        }
#endif
        const Tile& now = tiles[tile % 2];
        if (more) fetch_tile(tile + 1);
#if ORDERED
        int next_row = 0;
        if (tid < TILE) next_row = visited(w0 + 2 * TILE + tid);
#endif
#pragma unroll 1
        for (int i = 0; i < TILE && w0 + i < count; i += AHEAD) {
#if STAGED
            if (MODE == 0 && !alive) break;
            rows_there(tile, i);
            const Stage& staged = mine_staged[stage_of(tile, i)];
#if NEED_SUM
            float earlier[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) earlier[j] = *row_at(sum, row_of(tile, i + j), p.sum_row);
#endif
#else
            const Ahead loaded = ahead;
#endif
            if (alive && w0 + i + AHEAD < count) {
                const bool same = i + AHEAD < TILE;
                fetch_rows(same ? tile : tile + 1, same ? i + AHEAD : 0);
            }
#if MODE == 0
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
            // Chunks that are walked here are whole tiles.
            float behind[AHEAD][CHANNELS], inputs[AHEAD][CHANNELS];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) {
#if STAGED
                    const io_t delta_j = staged.rows[0][j][lane], u_j = staged.rows[1][j][lane];
#else
                    const io_t delta_j = loaded.delta[j][c], u_j = loaded.u[j][c];
#endif
                    float dt = to_float(delta_j) + bias[c];
                    if (SOFTPLUS) dt = softplus(dt);
                    behind[j][c] = total[c];
                    inputs[j][c] = dt * to_float(u_j);
                    total[c] += dt;
                }
            }
#pragma unroll
            for (int q = 0; q < PADDED / 4; q++) {
                if (!living[q]) continue;
#pragma unroll
                for (int j = 0; j < AHEAD; j++) {
                    const Four beta = *(const Four*)(now.B + (i + j) * PADDED + 4 * q);
#pragma unroll
                    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
                        for (int m = 0; m < 4; m++) {
                            const int n = 4 * q + m;
                            if (n >= STATES) continue;
                            h[c][n] = fmaf(exp2_state(n, A2[c][n] * behind[j][c]), inputs[j][c] * beta.v[m], h[c][n]);
                        }
                    }
                }
            }
#else
#pragma unroll
            for (int j = 0; j < AHEAD; j++) {
                const bool inside = w0 + i + j < count;
                float dt[CHANNELS], value[CHANNELS], scaled[CHANNELS];
                float y0[CHANNELS], y1[CHANNELS];
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) {
#if STAGED
                    const io_t delta_j = staged.rows[0][j][lane], u_j = staged.rows[1][j][lane];
#else
                    const io_t delta_j = loaded.delta[j][c], u_j = loaded.u[j][c];
#endif
                    dt[c] = to_float(delta_j) + bias[c];
                    if (SOFTPLUS) dt[c] = softplus(dt[c]);
                    dt[c] = inside ? dt[c] : 0.0f;
                    y0[c] = y1[c] = 0.0f;
                    value[c] = to_float(u_j);
                    scaled[c] = dt[c] * value[c];
                }
#pragma unroll
                for (int q = 0; q < PADDED / 4; q++) {
                    const Four beta = *(const Four*)(now.B + (i + j) * PADDED + 4 * q);
                    const Four gamma = *(const Four*)(now.C + (i + j) * PADDED + 4 * q);
#pragma unroll
                    for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
                        for (int m = 0; m < 4; m++) {
                            const int n = 4 * q + m;
                            if (n < STATES) {
                                h[c][n] = fmaf(h[c][n], exp2_state(n, A2[c][n] * dt[c]), scaled[c] * beta.v[m]);
                                float& y = m % 2 ? y1[c] : y0[c];
                                y = fmaf(h[c][n], gamma.v[m], y);
                            }
                        }
                    }
                }
#pragma unroll
                for (int c = 0; c < CHANNELS; c++) {
                    float y = fmaf(skip[c], value[c], y0[c]) + y1[c];
#if STAGED
#if NEED_SUM
                    y += earlier[j];
#endif
                    if (NEED_Z) y *= silu(to_float(staged.rows[STREAMS - 1][j][lane]));
#else
                    if (NEED_SUM) y += loaded.sum[j][c];
                    if (NEED_Z) y *= silu(to_float(loaded.z[j][c]));
#endif
                    if (inside && mine) row_of_out(tile, i + j)[c * THREADS] = to_out(y);
                }
#if !ORDERED
                out = row_at(out, 1, p.out_row);
#endif
            }
#endif
        }
        if (more) store_tile(tiles[(tile + 1) % 2]);
#if ORDERED
        if (tid < TILE) rows[(tile + 2) % 3][tid] = next_row;
#endif
#if MODE == 0
        if (!__syncthreads_or(alive)) break;
#else
        __syncthreads();
#endif
    }

#if MODE == 0
    if (mine) {
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
            for (int n = 0; n < STATES; n++) state[(long long)n * p.width + c * THREADS] = h[c][n];
            p.steps[b * p.steps_b + k * p.steps_k + (long long)chunk * p.width + d + c * THREADS] = total[c];
        }
    }
#else
    if (mine && p.last && chunk == p.chunks - 1) {
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
            const long long at = k * p.width + d + c * THREADS;
#pragma unroll
            for (int n = 0; n < STATES; n++) p.last[b * p.last_b + at * STATES + n] = h[c][n];
        }
    }
#endif
}
