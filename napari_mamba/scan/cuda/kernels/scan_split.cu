// The scan over chunks of the sequence, as scan_chunks.cu, with LANES lanes for a channel: each has STATES / LANES states,
// so that a multiprocessor holds more warps to wait for one another. LANES positions are taken at once: each lane loads
// one of them, computes its step, gate and skip, and hands the step to the channel's other lanes; what is summed over
// states ends in the lane whose position it is. Modes, chunks, staging and the early end of MODE 0 are scan_chunks.cu's.
#include "scan_forward.cuh"

#ifndef MODE
#define MODE 2
#endif
#ifndef LANES  // 2 or 4; STATES is a multiple of 4 * LANES
#define LANES 2
#endif
#ifndef BLOCKS  // blocks a multiprocessor should hold; bounds the registers
#define BLOCKS (768 / THREADS)
#endif
#define NEED_Y (MODE == 2)
#define NEED_Z (HAS_Z && NEED_Y)
#define NEED_SUM (ADD && NEED_Y)
#ifndef DEAD
#define DEAD (IO == 0 ? -24.0f : -16.0f)
#endif

constexpr int ACROSS = 32 / LANES, QUADS = STATES / (4 * LANES);  // channels of a warp; fours of states of a lane
constexpr int OWN = AHEAD / LANES;                                // positions that a lane loads at once
static_assert(STATES % (4 * LANES) == 0 && AHEAD % LANES == 0, "whole fours, whole turns");

struct Tile {
    float B[TILE * STATES];
    float C[NEED_Y ? TILE * STATES : 4];
};

// What a lane has loaded of its own positions.
struct Ahead {
    io_t delta[OWN];
    io_t u[OWN];
    io_t z[NEED_Z ? OWN : 1];
    float sum[NEED_SUM ? OWN : 1];
};

// A channel's values of the LANES positions that its lanes have: two lanes swap theirs, more of them ask one another.
DEVICE void gather(float mine, float (&all)[LANES], int part, int lane) {
    if (LANES == 2) {
        const float other = __shfl_xor_sync(FULL_WARP, mine, 16);
        all[0] = part ? other : mine;
        all[1] = part ? mine : other;
    } else {
#pragma unroll
        for (int s = 0; s < LANES; s++) all[s] = __shfl_sync(FULL_WARP, mine, s * ACROSS + lane % ACROSS);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_split(const Scan p) {
    __shared__ Tile tiles[2];
#if ORDERED
    __shared__ int rows[3][TILE];
#endif
    const int tid = threadIdx.x, lane = tid % 32, part = lane / ACROSS;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int blocks = p.width / p.group_width * p.group_blocks;
    const int chunk = (int)(blockIdx.x / blocks), block = blockIdx.x % blocks;
    const int group = block / p.group_blocks;
    const int within = (block % p.group_blocks) * (THREADS / LANES) + tid / 32 * ACROSS + lane % ACROSS;
    const bool mine = within < p.group_width;
    // Lanes past the last channel repeat it and write nothing.
    const int d = group * p.group_width + (mine ? within : p.group_width - 1);
    const int start = chunk * p.chunk, end = min(p.length, start + p.chunk), count = end - start;

    const io_t* u = p.u + b * p.u_b + k * p.u_k + d;
    const io_t* delta = p.delta + b * p.delta_b + k * p.delta_k + d;
    [[maybe_unused]] const io_t* z = p.z + b * p.z_b + d;
    const io_t* B = p.B + b * p.B_b + k * p.B_k + group * p.B_g;
    [[maybe_unused]] const io_t* C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    const long long out_at = b * p.out_b + k * p.out_k + d;
    [[maybe_unused]] out_t* out = p.out + out_at;
    [[maybe_unused]] const float* sum = p.sum + out_at;
    float* state = p.state + b * p.state_b + k * p.state_k + (long long)chunk * STATES * p.width + d;

    // Fours of states go around the lanes, so that those that decay alike die together.
    auto number = [&](int q, int m) -> int { return 4 * (q * LANES + part) + m; };
    const long long at = k * p.width + d;
    [[maybe_unused]] const float skip = p.D ? p.D[at] : 0.0f;
    const float bias = p.bias ? p.bias[at] : 0.0f;
    [[maybe_unused]] float total = 0.0f;
    float A2[QUADS][4], h[QUADS][4];
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
#pragma unroll
        for (int m = 0; m < 4; m++) {
            const int n = number(q, m);
            A2[q][m] = p.A[at * STATES + n] * LOG2E;
            h[q][m] = MODE == 2 && chunk > 0 ? state[(long long)n * p.width] : 0.0f;
        }
    }
#if MODE == 0
    float slowest[QUADS];
#pragma unroll
    for (int q = 0; q < QUADS; q++) slowest[q] = fmaxf(fmaxf(A2[q][0], A2[q][1]), fmaxf(A2[q][2], A2[q][3]));
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
            store_elements(tile.B + i * VEC, raw_B[j]);
            if (NEED_Y) store_elements(tile.C + i * VEC, raw_C[j]);
        }
    };
    Ahead ahead;
    auto fetch_rows = [&](int tile, int i) {
#pragma unroll
        for (int j = 0; j < OWN; j++) {
            const int row = row_of(tile, i + j * LANES + part);
            ahead.delta[j] = *row_at(delta, row, p.delta_row);
            ahead.u[j] = *row_at(u, row, p.u_row);
            if (NEED_Z) ahead.z[j] = *row_at(z, row, p.z_row);
            if (NEED_SUM) ahead.sum[j] = *row_at(sum, row, p.sum_row);
        }
    };

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
    __syncthreads();

    bool alive = true;
    for (int tile = 0, w0 = 0; w0 < count; tile++, w0 += TILE) {
        const bool more = w0 + TILE < count;
#if KEEP && NEED_Y
        if (mine && w0 % PIECE == 0) {
            float* kept = p.kept + kept_at(p, b, k, (start + w0) / PIECE) + d;
#pragma unroll
            for (int q = 0; q < QUADS; q++) {
#pragma unroll
                for (int m = 0; m < 4; m++) kept[(long long)number(q, m) * p.width] = h[q][m];
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
            const Ahead loaded = ahead;
            if (alive && w0 + i + AHEAD < count) {
                const bool same = i + AHEAD < TILE;
                fetch_rows(same ? tile : tile + 1, same ? i + AHEAD : 0);
            }
#if MODE == 0
            bool living[QUADS];
            alive = false;
#pragma unroll
            for (int q = 0; q < QUADS; q++) {
                living[q] = __any_sync(FULL_WARP, slowest[q] * total > DEAD);
                alive = alive || living[q];
            }
            if (!alive) break;
#endif
            // The lane's own positions.
            float dt[OWN], value[OWN], scaled[OWN];
#pragma unroll
            for (int j = 0; j < OWN; j++) {
                // Chunks that MODE 0 walks are whole tiles.
                const bool inside = MODE == 0 || w0 + i + j * LANES + part < count;
                dt[j] = to_float(loaded.delta[j]) + bias;
                if (SOFTPLUS) dt[j] = softplus(dt[j]);
                dt[j] = inside ? dt[j] : 0.0f;
                value[j] = to_float(loaded.u[j]);
                scaled[j] = dt[j] * value[j];
            }
#pragma unroll
            for (int j = 0; j < OWN; j++) {
                float steps[LANES], inputs[LANES];
                gather(dt[j], steps, part, lane);
                gather(scaled[j], inputs, part, lane);
                [[maybe_unused]] float parts[LANES];
#pragma unroll
                for (int s = 0; s < LANES; s++) {
                    [[maybe_unused]] const float step = steps[s], input = inputs[s];
                    [[maybe_unused]] float y0 = 0.0f, y1 = 0.0f;
#pragma unroll
                    for (int q = 0; q < QUADS; q++) {
#if MODE == 0
                        if (!living[q]) continue;
#endif
                        const int where = (i + j * LANES + s) * STATES + 4 * (q * LANES + part);
                        const Four beta = *(const Four*)(now.B + where);
                        [[maybe_unused]] Four gamma = {};
                        if (NEED_Y) gamma = *(const Four*)(now.C + where);
#pragma unroll
                        for (int m = 0; m < 4; m++) {
#if MODE == 0
                            h[q][m] = fmaf(exp2_special(A2[q][m] * total), input * beta.v[m], h[q][m]);
#else
                            h[q][m] = fmaf(h[q][m], exp2_special(A2[q][m] * step), input * beta.v[m]);
                            float& y = m % 2 ? y1 : y0;
                            y = fmaf(h[q][m], gamma.v[m], y);
#endif
                        }
                    }
#if MODE == 0
                    total += step;
#else
                    parts[s] = y0 + y1;
#endif
                }
#if NEED_Y
                float y = fmaf(skip, value[j], sum_over_lanes(parts, part));
                if (NEED_SUM) y += loaded.sum[j];
                if (NEED_Z) y *= silu(to_float(loaded.z[j]));
                const int own = i + j * LANES + part;
                if (mine && w0 + own < count) *row_at(out, row_of(tile, own), p.out_row) = to_out(y);
#endif
            }
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

    if (!mine) return;
#if MODE == 0
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
#pragma unroll
        for (int m = 0; m < 4; m++) state[(long long)number(q, m) * p.width] = h[q][m];
    }
    if (part == 0) p.steps[b * p.steps_b + k * p.steps_k + (long long)chunk * p.width + d] = total;
#else
    if (p.last && chunk == p.chunks - 1) {
#pragma unroll
        for (int q = 0; q < QUADS; q++) {
#pragma unroll
            for (int m = 0; m < 4; m++) p.last[b * p.last_b + at * STATES + number(q, m)] = h[q][m];
        }
    }
#endif
}
