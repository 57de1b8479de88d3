// The selective scan's gradients, parallel over chunks of the sequence.
//
// With a[t] = exp(dt[t] A), G[t] = dL/dh[t] = C[t] dy[t] + a[t+1] G[t+1], and R[t] = a[t] G[t] what t hands to t-1:
//   dC[t] = sum over channels of dy h[t]           dB[t] = sum over channels of G dt u
//   du[t] = D dy + dt sum over states of G B       dA   += R h[t-1] dt
//   ddt[t] = sum over states of (R h[t-1] A + G B u)
// Four kernels: R at every chunk's start as if the chunk were the last (scan_adjoint_chunks), R as it arrives at every
// chunk's end (scan_adjoint_combine), the gradients (scan_gradients), and what they leave for each chunk of the gradients
// of A, D and the bias added up (scan_sum_shares). A chunk is one segment or several; h is recomputed forwards from the
// state that the forward pass kept before each segment, never backwards by dividing by a, which loses everything where a
// is small.
#include "scan_backward.cuh"

#ifndef WARPS  // of a block of scan_gradients
#define WARPS 2
#endif
#ifndef GRADIENTS  // 0: without scan_gradients, where scan_gradients_few takes its place
#define GRADIENTS 1
#endif

extern __shared__ __align__(16) float shared[];

// ------------------------------------------------------------------------------------------- a walk over each chunk

// Lanes of a channel, and states of a lane: no history is kept here, so that 16 states fit.
constexpr int A_LANES = power_of_two((STATES + 15) / 16), A_STATES = (STATES + A_LANES - 1) / A_LANES;
constexpr int A_ROW = A_LANES * ((A_STATES + 3) / 4 * 4);  // floats of a row of B or C; each lane's are aligned
constexpr int A_BATCH = 4;                                 // positions whose loads are under way together
constexpr int A_STEP = 32;                                 // positions staged at once

// Where a thread is: grid (chunks from `first` on, groups * tiles of blockDim.x / A_LANES channels, B * K).
struct Walker {
    wide b, k, c, d, slot, start;
    int group, part, count;  // the chunk's first position is start, and it has count
    bool live;
    float A2[A_STATES], bias;
    int *rows;
};

DEVICE Walker walker_of(const Backward &p, wide chunk, wide chunks, int first = 0) {
    Walker me;
    me.b = blockIdx.z / p.paths, me.k = blockIdx.z % p.paths, me.c = blockIdx.x + first;
    const int per_group = (int)(p.width / p.groups), tile = blockDim.x / A_LANES, tiles = (per_group + tile - 1) / tile;
    const int within = (int)(blockIdx.y % tiles) * tile + (int)threadIdx.x / A_LANES;
    me.group = blockIdx.y / tiles;
    me.part = threadIdx.x % A_LANES;
    me.live = within < per_group;
    me.d = (wide)me.group * per_group + (me.live ? within : 0);
    me.slot = (me.b * p.paths + me.k) * chunks + me.c;
    me.start = me.c * chunk;
    me.count = (int)(p.length - me.start < chunk ? p.length - me.start : chunk);
    me.rows = (int *)(shared + A_STEP * A_ROW);
    me.bias = p.bias ? p.bias[me.k * p.width + me.d] : 0.0f;
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        const int n = me.part * A_STATES + i;
        me.A2[i] = n < STATES ? p.A[(me.k * p.width + me.d) * STATES + n] * LOG2E : 0.0f;
    }
    return me;
}

// The rows of `count` positions, in shared memory; then what B or C has there: A_STEP * (A_ROW + 1) words in all.
DEVICE void stage_rows(const Backward &p, const Walker &me, int first, int count) {
    __syncthreads();
    for (int t = threadIdx.x; t < count; t += blockDim.x) me.rows[t] = row_of(p, me.k, me.start + first + t);
    __syncthreads();
}
DEVICE void stage_values(const Walker &me, int count, const io_t *from, wide row_stride) {
    const int stride = (int)row_stride;
#pragma unroll 4
    for (int i = threadIdx.x; i < count * A_LANES * A_STATES; i += blockDim.x) {
        const int t = i / (A_LANES * A_STATES), n = i % (A_LANES * A_STATES);
        const int to = t * A_ROW + n / A_STATES * (A_ROW / A_LANES) + n % A_STATES;
        shared[to] = n < STATES ? to_float(from[(wide)me.rows[t] * stride + n]) : 0.0f;
    }
    __syncthreads();
}

DEVICE void store_states(const Backward &p, const Walker &me, float *to, const float (&v)[A_STATES]) {
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        const int n = me.part * A_STATES + i;
        if (n < STATES) to[n * p.width + me.d] = v[i];
    }
}

// log2 of the decay at which a later step no longer matters, as in scan_chunks.cu.
constexpr float DEAD = IO == 0 ? -24.0f : -16.0f;
constexpr int A_QUADS = (A_STATES + 3) / 4;

// What a walk has loaded of A_BATCH positions.
struct Batch {
    float dt[A_BATCH], dy[A_BATCH], gate[A_BATCH];
};

// R at every chunk's start, as if no step followed the chunk: the sum over its positions t of exp(A S_t) C dy, S_t the
// sum of the steps up to t. No term waits for another, and the walk ends where the slowest state of a warp's channels has
// decayed to DEAD: of the steps it then has a part of the sum, whose decay is below DEAD as well. Nothing comes before the
// first chunk: grid (chunks - 1, ...).
extern "C" __global__ void __launch_bounds__(128, 6) scan_adjoint_chunks(const Backward p) {
    let_later_start();
    wait_for_earlier();
    const Walker me = walker_of(p, p.chunk, p.chunks, 1);
    float R[A_STATES], slowest[A_QUADS], total = 0.0f;
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        R[i] = 0.0f;
        slowest[i / 4] = i % 4 ? fmaxf(slowest[i / 4], me.A2[i]) : me.A2[i];
    }
    const io_t *delta = p.delta + me.b * p.delta_b + me.k * p.delta_k + me.d;
    const io_t *grad = p.grad + me.b * p.grad_b + me.k * p.grad_k + me.d;
    const io_t *z = p.z ? p.z + me.b * p.z_b + me.d : nullptr;
    const io_t *C = p.C + me.b * p.C_b + me.k * p.C_k + me.group * p.C_g;
    constexpr int size = sizeof(io_t);
    const int delta_row = (int)p.delta_l * size, grad_row = (int)p.grad_l * size, z_row = (int)p.z_l * size;
    auto at_row = [](const io_t *from, int row, int bytes) {
        return to_float(*(const io_t *)((const char *)from + (wide)row * bytes));
    };
    auto fetch = [&](int first, int count) {
        Batch batch;
#pragma unroll
        for (int j = 0; j < A_BATCH; ++j) {
            const int row = me.rows[lowest(first + j, count - 1)];
            batch.dt[j] = at_row(delta, row, delta_row);
            batch.dy[j] = at_row(grad, row, grad_row);
            batch.gate[j] = z ? at_row(z, row, z_row) : 0.0f;
        }
        return batch;
    };
    bool living[A_QUADS], alive = true;
    auto look = [&] {
        alive = false;
#pragma unroll
        for (int q = 0; q < A_QUADS; ++q) {
            living[q] = __any_sync(FULL_WARP, slowest[q] * total > DEAD);
            alive = alive || living[q];
        }
    };
    for (int first = 0; first < me.count; first += A_STEP) {
        const int count = lowest(A_STEP, me.count - first);
        stage_rows(p, me, first, count);
        Batch next = fetch(0, count);
        stage_values(me, count, C, p.C_l);
        for (int t = 0; t < count; t += A_BATCH) {
            const Batch now = next;
            look();
            if (!alive) break;
            if (t + A_BATCH < count) next = fetch(t + A_BATCH, count);
            float g[A_BATCH], passed[A_BATCH];
#pragma unroll
            for (int j = 0; j < A_BATCH; ++j) {
                const bool inside = t + j < count;  // a step of size 0 changes nothing
                g[j] = inside ? (z ? now.dy[j] * silu(now.gate[j]) : now.dy[j]) : 0.0f;
                total += inside ? step_size(now.dt[j], me.bias, p.softplus) : 0.0f;
                passed[j] = total;
            }
#pragma unroll
            for (int q = 0; q < A_QUADS; ++q) {
                if (!living[q]) continue;
#pragma unroll
                for (int j = 0; j < A_BATCH; ++j) {
                    const float *Ct = shared + lowest(t + j, count - 1) * A_ROW + me.part * (A_ROW / A_LANES);
#pragma unroll
                    for (int i = 4 * q; i < lowest(4 * q + 4, A_STATES); ++i)
                        R[i] = fmaf(exp2_special(passed[j] * me.A2[i]), Ct[i] * g[j], R[i]);
                }
            }
        }
        look();
        if (!__syncthreads_or(alive)) break;
    }
    if (!me.live) return;
    if (me.part == 0) p.sums[me.slot * p.width + me.d] = total;
    store_states(p, me, p.adjoints + me.slot * SHARES * p.width, R);
}

// h before every segment, from h before every `ratio` of them: where the forward kept too few for shared memory.
extern "C" __global__ void scan_refine_starts(const Backward p) {
    let_later_start();
    wait_for_earlier();
    const Walker me = walker_of(p, p.segment * p.ratio, (p.segments + p.ratio - 1) / p.ratio);
    const io_t *B = p.B + me.b * p.B_b + me.k * p.B_k + me.group * p.B_g;
    float h[A_STATES];
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        const int n = me.part * A_STATES + i;
        h[i] = n < STATES ? p.kept[(me.slot * STATES + n) * p.width + me.d] : 0.0f;
    }
    const io_t *delta = p.delta + me.b * p.delta_b + me.k * p.delta_k + me.d;
    const io_t *u = p.u + me.b * p.u_b + me.k * p.u_k + me.d;
    float *starts = p.starts + ((me.b * p.paths + me.k) * p.segments + me.c * p.ratio) * STATES * p.width;
    for (int first = 0; first < me.count; first += (int)p.segment, starts += STATES * p.width) {
        const int count = lowest((int)p.segment, me.count - first);
        stage_rows(p, me, first, count);
        stage_values(me, count, B, p.B_l);
        if (!me.live) continue;
        store_states(p, me, starts, h);
#pragma unroll 4
        for (int t = 0; t < count; ++t) {
            const wide row = me.rows[t];
            const float step = step_size(to_float(delta[row * p.delta_l]), me.bias, p.softplus);
            const float x = step * to_float(u[row * p.u_l]), *Bt = shared + t * A_ROW + me.part * (A_ROW / A_LANES);
#pragma unroll
            for (int i = 0; i < A_STATES; ++i) h[i] = fmaf(exp2_special(step * me.A2[i]), h[i], x * Bt[i]);
        }
    }
}

// ------------------------------------------------------------------------------------------- adjoints across chunks

constexpr int COMBINE_PARTS = 32, COMBINE_BATCH = 8;

// Walk chunks [first, end) backwards from the R that arrives at their end; with STORE, leave it at each.
template <bool STORE>
DEVICE float walk_chunks(const Backward &p, float *adjoints, const float *sums, float A2, int first, int end, float R,
                         float &total) {
    const wide stride = p.width * SHARES;
    for (int last = end - 1; last >= first; last -= COMBINE_BATCH) {
        float own[COMBINE_BATCH], sum[COMBINE_BATCH];
#pragma unroll
        for (int q = 0; q < COMBINE_BATCH; ++q) {
            const int c = last - q < first ? first : last - q;
            own[q] = adjoints[c * stride];
            sum[q] = sums[c * p.width];
        }
#pragma unroll
        for (int q = 0; q < COMBINE_BATCH; ++q) {
            if (last - q < first) break;
            if (STORE) adjoints[(last - q) * stride] = R;
            R = fmaf(exp2_special(A2 * sum[q]), R, own[q]);
            total += sum[q];
        }
    }
    return R;
}

// Grid (tiles of 32 channels, N, B * K), block 32 * COMBINE_PARTS: a warp walks one part of the chunks, twice.
extern "C" __global__ void __launch_bounds__(32 * COMBINE_PARTS) scan_adjoint_combine(const Backward p) {
    __shared__ float ends[COMBINE_PARTS][32], totals[COMBINE_PARTS][32];
    const int lane = threadIdx.x % 32, part = threadIdx.x / 32, n = blockIdx.y;
    const wide b = blockIdx.z / p.paths, k = blockIdx.z % p.paths, d = (wide)blockIdx.x * 32 + lane;
    const bool live = d < p.width;
    const int each = (int)((p.chunks + COMBINE_PARTS - 1) / COMBINE_PARTS), chunks = (int)p.chunks;
    const int first = lowest(part * each, chunks), end = lowest(first + each, chunks);
    const wide at = (b * p.paths + k) * p.chunks;
    float *adjoints = p.adjoints + (at * SHARES + n) * p.width + d;
    const float *sums = p.sums + at * p.width + d;
    const float A2 = live ? p.A[(k * p.width + d) * STATES + n] * LOG2E : 0.0f;
    float total = 0.0f;
    let_later_start();
    wait_for_earlier();
    ends[part][lane] = live ? walk_chunks<false>(p, adjoints, sums, A2, first, end, 0.0f, total) : 0.0f;
    totals[part][lane] = total;
    __syncthreads();
    float R = 0.0f;
    for (int i = COMBINE_PARTS - 1; i > part; --i) R = fmaf(exp2_special(A2 * totals[i][lane]), R, ends[i][lane]);
    if (live) walk_chunks<true>(p, adjoints, sums, A2, first, end, R, total);
}

// ------------------------------------------------------------------------------------------------------- gradients

#if GRADIENTS

// A warp has a tile of TILE channels: LANES lanes share PD channels, each with PER states of all of them, so that what is
// summed over channels and what is summed over states both start within a lane.
constexpr int LANES = power_of_two((STATES + 3) / 4), PER = (STATES + LANES - 1) / LANES, ROW = LANES * PER;
constexpr int PD = lowest(4, LANES), ACROSS = 32 / LANES, TILE = ACROSS * PD;
constexpr int BLOCK = 4;                      // positions whose h and a are in registers
constexpr int PAIRS = power_of_two(2 * PER);  // a lane's values of dB and dC
constexpr int STATE_FLOATS = PER * PD * 32, SUM_FLOATS = BLOCK * 2 * ROW;  // of a warp and a BLOCK
static_assert(SUM_FLOATS <= STATE_FLOATS, "the sums of a BLOCK take the place of the states before it");

// N neighbouring floats of shared memory, in the widest loads that their alignment allows.
template <int N>
DEVICE void load_floats(float (&v)[N], const float *from) {
    if constexpr (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const float4 x = *(const float4 *)(from + i);
            v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
        }
    } else if constexpr (N == 2) {
        const float2 x = *(const float2 *)from;
        v[0] = x.x, v[1] = x.y;
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = from[i];
    }
}

// Where a warp is, and its shared memory (`gradients_shared` in backward_plan.py adds up the same sizes).
struct Place {
    wide b, k, c, slot, first;  // slot: (b * K + k) * chunks + c; first: the tile's first channel
    int group, channels;        // of the tile; none where the warp has no tile
    int start, count, blocks;   // of a segment: first position, positions, and blocks of BLOCK that cover them
    int padded;                 // positions that a segment has room for
    float *BC;                  // [position][B's row, C's row]
    int *rows;
    float *dt, *u, *dy;         // the warp's, [position][channel of the tile]; become d delta, d u and y
    float *states;              // [block - 1][quarter][lane][4]: h before every BLOCK but the first and the last
    float *edge;                // sums of the last BLOCK and the first

    // d B and d C of a BLOCK's positions, summed over the tile: they take the place of the states before it.
    DEVICE float *block_sums(int block) const {
        if (block == blocks - 1) return edge;
        return block == 0 ? edge + SUM_FLOATS : states + (block - 1) * STATE_FLOATS;
    }
};

// Floats of shared memory of one warp.
DEVICE int warp_floats(int padded) {
    const int between = padded / BLOCK - 2;
    return 3 * padded * TILE + (between > 0 ? between : 0) * STATE_FLOATS + 2 * SUM_FLOATS;
}

DEVICE Place place_of(const Backward &p) {
    Place at;
    at.b = blockIdx.z / p.launch_paths;
    at.k = p.first_path + blockIdx.z % p.launch_paths;
    at.c = blockIdx.x;
    at.slot = (at.b * p.paths + at.k) * p.chunks + at.c;
    at.group = (int)(blockIdx.y / p.splits);
    const int per_group = (int)(p.width / p.groups), warp = threadIdx.x / 32;
    const int tile = ((int)(blockIdx.y % p.splits) * WARPS + warp) * TILE;
    at.first = (wide)at.group * per_group + tile;
    at.channels = per_group - tile < 0 ? 0 : lowest(per_group - tile, TILE);
    at.padded = (int)(p.segment + BLOCK - 1) / BLOCK * BLOCK;
    at.BC = shared;
    at.rows = (int *)(at.BC + at.padded * 2 * ROW);
    at.dt = (float *)(at.rows + at.padded) + warp * warp_floats(at.padded);
    at.u = at.dt + at.padded * TILE;
    at.dy = at.u + at.padded * TILE;
    at.edge = at.dy + at.padded * TILE;
    at.states = at.edge + 2 * SUM_FLOATS;
    return at;
}

// B and C of a segment, by the whole block; 0 after its end.
DEVICE void load_rows(const Backward &p, const Place &at) {
    for (int t = threadIdx.x; t < at.count; t += 32 * WARPS) at.rows[t] = row_of(p, at.k, at.start + t);
    __syncthreads();
    const io_t *B = p.B + at.b * p.B_b + at.k * p.B_k + at.group * p.B_g;
    const io_t *C = p.C + at.b * p.C_b + at.k * p.C_k + at.group * p.C_g;
    const int B_l = (int)p.B_l, C_l = (int)p.C_l;
#pragma unroll 8
    for (int i = threadIdx.x; i < at.blocks * BLOCK * ROW; i += 32 * WARPS) {
        const int t = i / ROW, n = i % ROW;
        const bool inside = t < at.count && n < STATES;
        const wide row = inside ? at.rows[t] : 0;
        at.BC[t * 2 * ROW + n] = inside ? to_float(B[row * B_l + n]) : 0.0f;
        at.BC[t * 2 * ROW + ROW + n] = inside ? to_float(C[row * C_l + n]) : 0.0f;
    }
}

// A lane's way through a warp's tile: always the same V channels, of every `stride`-th position.
template <int V>
struct Way {
    static constexpr int stride = 32 * V / TILE;
    const int d, first;
    DEVICE Way() : d((int)threadIdx.x % (TILE / V) * V), first((int)threadIdx.x % 32 / (TILE / V)) {}
};

// dt, u and dy of a warp's tile; 0 after the segment's end and beyond the group, which then add nothing to any sum.
template <int V>
DEVICE void load_tile(const Backward &p, const Place &at) {
    const Way<V> way;
    const wide first = at.first + way.d;
    const io_t *u = p.u + at.b * p.u_b + at.k * p.u_k + first;
    const io_t *delta = p.delta + at.b * p.delta_b + at.k * p.delta_k + first;
    const io_t *grad = p.grad + at.b * p.grad_b + at.k * p.grad_k + first;
    const io_t *z = p.z ? p.z + at.b * p.z_b + first : nullptr;
    const int u_l = (int)p.u_l, delta_l = (int)p.delta_l, grad_l = (int)p.grad_l, z_l = (int)p.z_l;
    const bool mine = way.d < at.channels;
    float bias[V];
#pragma unroll
    for (int i = 0; i < V; ++i) bias[i] = p.bias && mine ? p.bias[at.k * p.width + first + i] : 0.0f;
#pragma unroll 4
    for (int t = way.first; t < at.blocks * BLOCK; t += Way<V>::stride) {
        Few<float, V> dt, x, dy;
        if (mine && t < at.count) {
            const wide row = at.rows[t];
            read<V>(dt.v, delta + row * delta_l);
            read<V>(x.v, u + row * u_l);
            read<V>(dy.v, grad + row * grad_l);
            float gate[V];
            if (z) read<V>(gate, z + row * z_l);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                dt.v[i] = step_size(dt.v[i], bias[i], p.softplus);
                if (z) dy.v[i] *= silu(gate[i]);
            }
        } else {
#pragma unroll
            for (int i = 0; i < V; ++i) dt.v[i] = x.v[i] = dy.v[i] = 0.0f;
        }
        const int to = t * TILE + way.d;
        *(Few<float, V> *)(at.dt + to) = dt, *(Few<float, V> *)(at.u + to) = x, *(Few<float, V> *)(at.dy + to) = dy;
    }
}

// d u, d delta and d z of a warp's tile to their rows.
template <int V>
DEVICE void store_tile(const Backward &p, const Place &at) {
    const Way<V> way;
    if (way.d >= at.channels) return;
    const wide first = at.first + way.d, shared_at = at.b * p.length * p.width + first;
    const wide path_at = (at.b * p.paths + at.k) * p.length * p.width + first;
    const io_t *grad = p.grad + at.b * p.grad_b + at.k * p.grad_k + first;
    const io_t *z = p.z ? p.z + at.b * p.z_b + first : nullptr;
    const int width = (int)p.width, grad_l = (int)p.grad_l, z_l = (int)p.z_l;
#pragma unroll 2
    for (int t = way.first; t < at.count; t += Way<V>::stride) {
        const wide row = at.rows[t], to = row * width;
        Few<float, V> dt = *(const Few<float, V> *)(at.dt + t * TILE + way.d);
        Few<float, V> x = *(const Few<float, V> *)(at.u + t * TILE + way.d);
        write<V>(p.ddelta + path_at + to, dt.v);
        if (p.du_sum) store_shared<V>(p, at.k, x.v, p.du_sum + shared_at + to, p.du + shared_at + to);
        else write<V>(p.du + path_at + to, x.v);
        if (z) {
            float gate[V], dy[V];
            read<V>(gate, z + row * z_l);
            read<V>(dy, grad + row * grad_l);
            const Few<float, V> y = *(const Few<float, V> *)(at.dy + t * TILE + way.d);
#pragma unroll
            for (int i = 0; i < V; ++i) {
                const float s = sigmoid(gate[i]);
                dy[i] *= y.v[i] * s * fmaf(gate[i], 1.0f - s, 1.0f);
            }
            store_shared<V>(p, at.k, dy, p.dz_sum + shared_at + to, p.dz + shared_at + to);
        }
    }
}

// The warps' sums to d B and d C, in the warps' order; float shares where several blocks divide a group's channels.
DEVICE void store_rows(const Backward &p, const Place &at) {
    const wide split = blockIdx.y % p.splits, path = (split * p.batch + at.b) * p.paths + at.k;
    const int mine = (int)threadIdx.x / 32 * warp_floats(at.padded), each = warp_floats(at.padded);
    for (int i = threadIdx.x; i < at.count * 2 * ROW; i += 32 * WARPS) {
        const int t = i / (2 * ROW), n = i % ROW;
        if (n >= STATES) continue;
        const float *from = at.block_sums(t / BLOCK) + t % BLOCK * 2 * ROW + i % (2 * ROW) - mine;
        float sum = from[0];
#pragma unroll
        for (int w = 1; w < WARPS; ++w) sum += from[w * each];
        const wide to = ((path * p.length + at.rows[t]) * p.groups + at.group) * STATES + n;
        void *out = i % (2 * ROW) < ROW ? p.dB : p.dC;
        if (p.splits == 1) ((io_t *)out)[to] = from_float(sum);
        else ((float *)out)[to] = sum;
    }
}

// One lane: PER states of PD channels, walked over one chunk.
struct Lane {
    int lane, part, left;  // of the warp, the part of the states, the first of the channels
    float A2[PD][PER], R[PD][PER], dA[PD][PER];
    // The one channel whose gradients this lane finishes, of those lanes that have one.
    int finishes;
    float D, dD, dbias;
};

constexpr int SAME = LANES / PD;  // lanes that come to hold the same sums over states

// h over one BLOCK: `h` goes from before it to after it. With KEEP, every h[t-1] and a[t] stays.
template <bool KEEP>
DEVICE void walk_block(const Place &at, const Lane &me, int block, float (&h)[PD][PER], float (&before)[BLOCK][PD][PER],
                       float (&a)[BLOCK][PD][PER]) {
#pragma unroll
    for (int j = 0; j < BLOCK; ++j) {
        const int t = block * BLOCK + j;
        float dt[PD], u[PD], B[PER];
        load_floats(dt, at.dt + t * TILE + me.left);
        load_floats(u, at.u + t * TILE + me.left);
        load_floats(B, at.BC + t * 2 * ROW + me.part * PER);
#pragma unroll
        for (int c = 0; c < PD; ++c) {
            const float x = dt[c] * u[c];
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const float decay = exp2_special(dt[c] * me.A2[c][i]);  // here other instructions are the limit
                if (KEEP) before[j][c][i] = h[c][i], a[j][c][i] = decay;
                h[c][i] = fmaf(decay, h[c][i], x * B[i]);
            }
        }
    }
}

// The sums of a position over its channel's states are complete in this lane: finish the position's gradients.
DEVICE void finish_position(const Backward &p, const Place &at, Lane &me, int t, float GB, float RhA, float y) {
    const int i = t * TILE + me.finishes;
    const float dt = at.dt[i], x = at.u[i], dy = at.dy[i];
    float ddt = fmaf(x, GB, LN2 * RhA);
    if (p.softplus) ddt *= softplus_slope(dt);
    me.dD = fmaf(dy, x, me.dD);
    me.dbias += ddt;
    at.dt[i] = ddt;
    at.u[i] = fmaf(me.D, dy, dt * GB);
    at.dy[i] = fmaf(me.D, x, y);
}

// Sums over the tile's channels of a position's d B and d C: each ends in one lane, or in several that hold the same.
constexpr int COPIES = PAIRS < ACROSS ? ACROSS / PAIRS : 1, HELD = PAIRS > ACROSS ? PAIRS / ACROSS : 1;

DEVICE void store_pairs(const Place &at, const Lane &me, int block, int j, const float (&pairs)[HELD]) {
    const int place = me.lane % ACROSS;
    float *sums = at.block_sums(block) + j * 2 * ROW + me.part * PER;
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        const int v = place / COPIES * HELD + i;
        if (v < 2 * PER && place % COPIES == 0) sums[v < PER ? v : ROW + v - PER] = pairs[i];
    }
}

// Gradients of one BLOCK, from h before it; R goes from after it to before it. Nothing is written to shared memory before
// its last position is computed, so that loads and shuffles of one overlap with the arithmetic of another.
template <bool GATED>
DEVICE void reverse_block(const Backward &p, const Place &at, Lane &me, int block, float (&h)[PD][PER]) {
    float before[BLOCK][PD][PER], a[BLOCK][PD][PER];
    walk_block<true>(at, me, block, h, before, a);
    float sums[BLOCK][HELD], GBs[BLOCK], RhAs[BLOCK], ys[BLOCK];
#pragma unroll
    for (int j = BLOCK - 1; j >= 0; --j) {
        const int t = block * BLOCK + j;
        float dt[PD], u[PD], dy[PD], B[PER], C[PER], pairs[PAIRS], GB[PD], RhA[PD], y[PD];
        load_floats(dt, at.dt + t * TILE + me.left);
        load_floats(u, at.u + t * TILE + me.left);
        load_floats(dy, at.dy + t * TILE + me.left);
        load_floats(B, at.BC + t * 2 * ROW + me.part * PER);
        load_floats(C, at.BC + t * 2 * ROW + ROW + me.part * PER);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) pairs[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < PD; ++c) {
            const float x = dt[c] * u[c];
            GB[c] = RhA[c] = y[c] = 0.0f;
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const float after = j + 1 < BLOCK ? before[lowest(j + 1, BLOCK - 1)][c][i] : h[c][i];
                const float G = fmaf(C[i], dy[c], me.R[c][i]);
                pairs[i] = fmaf(G, x, pairs[i]);
                pairs[PER + i] = fmaf(dy[c], after, pairs[PER + i]);
                GB[c] = fmaf(G, B[i], GB[c]);
                if (GATED) y[c] = fmaf(C[i], after, y[c]);
                me.R[c][i] = a[j][c][i] * G;
                const float Rh = me.R[c][i] * before[j][c][i];
                RhA[c] = fmaf(Rh, me.A2[c][i], RhA[c]);
                me.dA[c][i] = fmaf(Rh, dt[c], me.dA[c][i]);
            }
        }
        scatter_sum<PAIRS, ACROSS, 1>(pairs, me.lane);
        scatter_sum<PD, LANES, ACROSS>(GB, me.lane);
        scatter_sum<PD, LANES, ACROSS>(RhA, me.lane);
        if (GATED) scatter_sum<PD, LANES, ACROSS>(y, me.lane);
#pragma unroll
        for (int i = 0; i < HELD; ++i) sums[j][i] = pairs[i];
        GBs[j] = GB[0], RhAs[j] = RhA[0], ys[j] = y[0];
    }
    __syncwarp();  // all lanes have read what the results take the place of
#pragma unroll
    for (int j = BLOCK - 1; j >= 0; --j) store_pairs(at, me, block, j, sums[j]);
    if (me.part % SAME) return;
#pragma unroll
    for (int j = BLOCK - 1; j >= 0; --j) finish_position(p, at, me, block * BLOCK + j, GBs[j], RhAs[j], ys[j]);
}

// h before a BLOCK, in shared memory between the walks.
DEVICE void store_walk(const Place &at, int lane, int block, const float (&h)[PD][PER]) {
    float *to = at.states + (block - 1) * STATE_FLOATS + lane * PD;
#pragma unroll
    for (int i = 0; i < PER; ++i, to += PD * 32) {
        if constexpr (PD == 4) *(float4 *)to = make_float4(h[0][i], h[1][i], h[2][i], h[3][i]);
        else if constexpr (PD == 2) *(float2 *)to = make_float2(h[0][i], h[1][i]);
        else {
#pragma unroll
            for (int c = 0; c < PD; ++c) to[c] = h[c][i];
        }
    }
}

DEVICE void fetch_walk(const Place &at, int lane, int block, float (&h)[PD][PER]) {
    const float *from = at.states + (block - 1) * STATE_FLOATS + lane * PD;
#pragma unroll
    for (int i = 0; i < PER; ++i) {
        float one[PD];
        load_floats(one, from + i * PD * 32);
#pragma unroll
        for (int c = 0; c < PD; ++c) h[c][i] = one[c];
    }
}

// Whether state i of channel c of a lane is one that there is, its state, and where it lies in a (N, D) array.
DEVICE bool exists(const Place &at, const Lane &me, int c, int i) {
    return me.left + c < at.channels && me.part * PER + i < STATES;
}
DEVICE wide state_at(const Backward &p, const Place &at, const Lane &me, int c, int i) {
    return (wide)(me.part * PER + i) * p.width + at.first + me.left + c;
}

// h before a segment, as it was kept.
DEVICE void load_start(const Backward &p, const Place &at, const Lane &me, float (&h)[PD][PER]) {
    const wide segment = (at.b * p.paths + at.k) * p.segments + at.start / p.segment;
    const float *starts = p.starts + segment * STATES * p.width;
#pragma unroll
    for (int c = 0; c < PD; ++c)
#pragma unroll
        for (int i = 0; i < PER; ++i) h[c][i] = exists(at, me, c, i) ? starts[state_at(p, at, me, c, i)] : 0.0f;
}

// All gradients of the warp's tile over one segment, which take the place of what the tile has in shared memory.
template <bool GATED>
DEVICE void reverse_segment(const Backward &p, const Place &at, Lane &me) {
    float h[PD][PER];
    load_start(p, at, me, h);
    for (int block = 0; block < at.blocks - 1; ++block) {
        float unused[BLOCK][PD][PER];
        walk_block<false>(at, me, block, h, unused, unused);
        if (block < at.blocks - 2) store_walk(at, me.lane, block + 1, h);
    }
    for (int block = at.blocks - 1; block >= 0; --block) {
        if (block == 0 && at.blocks > 1) load_start(p, at, me, h);
        else if (block < at.blocks - 1)
            fetch_walk(at, me.lane, block, h);
        reverse_block<GATED>(p, at, me, block, h);
    }
}

DEVICE Lane lane_of(const Backward &p, const Place &at) {
    Lane me;
    me.lane = threadIdx.x % 32;
    me.part = me.lane / ACROSS;
    me.left = me.lane % ACROSS * PD;
    me.finishes = me.left + me.part / SAME;
    const float *adjoints = p.adjoints + at.slot * SHARES * p.width;
#pragma unroll
    for (int c = 0; c < PD; ++c)
#pragma unroll
        for (int i = 0; i < PER; ++i) {
            const bool there = exists(at, me, c, i);
            const wide d = at.k * p.width + at.first + me.left + c;
            me.A2[c][i] = there ? p.A[d * STATES + me.part * PER + i] * LOG2E : 0.0f;
            me.R[c][i] = there ? adjoints[state_at(p, at, me, c, i)] : 0.0f;
            me.dA[c][i] = 0.0f;
        }
    me.D = p.D && me.finishes < at.channels ? p.D[at.k * p.width + at.first + me.finishes] : 0.0f;
    me.dD = me.dbias = 0.0f;
    return me;
}

// The chunk's shares of what is summed over the sequence.
DEVICE void store_chunk_shares(const Backward &p, const Place &at, const Lane &me) {
    float *shares = p.adjoints + at.slot * SHARES * p.width;
#pragma unroll
    for (int c = 0; c < PD; ++c)
#pragma unroll
        for (int i = 0; i < PER; ++i)
            if (exists(at, me, c, i)) shares[state_at(p, at, me, c, i)] = me.dA[c][i];
    if (me.part % SAME == 0 && me.finishes < at.channels) {
        shares[STATES * p.width + at.first + me.finishes] = me.dD;
        shares[(STATES + 1) * p.width + at.first + me.finishes] = me.dbias;
    }
}

template <bool GATED>
DEVICE void gradients(const Backward &p) {
    Place at = place_of(p);
    const wide first = at.c * p.chunk, end = first + p.chunk < p.length ? first + p.chunk : p.length;
    let_later_start();
    wait_for_earlier();
    Lane me = lane_of(p, at);
    for (wide start = first + (end - first - 1) / p.segment * p.segment; start >= first; start -= p.segment) {
        at.start = (int)start;
        at.count = lowest((int)p.segment, (int)(end - start));
        at.blocks = (at.count + BLOCK - 1) / BLOCK;
        load_rows(p, at);
        if (p.vector) load_tile<4>(p, at);
        else load_tile<1>(p, at);
        __syncthreads();
        reverse_segment<GATED>(p, at, me);
        __syncwarp();
        if (p.vector) store_tile<4>(p, at);
        else store_tile<1>(p, at);
        __syncthreads();
        store_rows(p, at);
        __syncthreads();
    }
    store_chunk_shares(p, at, me);
}

// Grid (chunks, groups * splits, B * paths of the launch), block 32 * WARPS. GATED: with z. Registers for 8 warps of a
// multiprocessor: 16 values of each lane at 4 positions are what there is room for.
#define BOUNDS __launch_bounds__(32 * WARPS, 8 / WARPS)
extern "C" __global__ void BOUNDS scan_gradients(const Backward p) { gradients<false>(p); }
extern "C" __global__ void BOUNDS scan_gradients_gated(const Backward p) { gradients<true>(p); }

#endif  // GRADIENTS

// ------------------------------------------------------------------------------------------- sums over the sequence

constexpr int SUM_WARPS = 32;

// The splits' shares of one element of d B or d C.
DEVICE void sum_splits(const Backward &p, wide i) {
    const wide count = p.batch * p.paths * p.length * p.groups * STATES;
    if (i >= 2 * count) return;
    const float *from = (const float *)(i < count ? p.dB : p.dC) + (i < count ? i : i - count);
    float sum = from[0];
    for (wide split = 1; split < p.splits; ++split) sum += from[split * count];
    p.dBC[i] = from_float(sum);
}

// Grid (tiles of 32 of (N + 2) * D, then runs of as many elements of d B and d C as a block has threads where they are
// split, K), block 32 * SUM_WARPS: the chunks' shares and the splits' added up, in one order.
extern "C" __global__ void __launch_bounds__(32 * SUM_WARPS) scan_sum_shares(const Backward p) {
    __shared__ float parts[SUM_WARPS][32];
    wait_for_earlier();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, columns = SHARES * (int)p.width;
    const int tiles = (columns + 31) / 32;
    if (blockIdx.x >= tiles) {
        if (blockIdx.y == 0) sum_splits(p, (wide)(blockIdx.x - tiles) * 32 * SUM_WARPS + threadIdx.x);
        return;
    }
    const int column = blockIdx.x * 32 + lane, chunks = (int)p.chunks;
    const bool live = column < columns;
    float sum = 0.0f;
    for (wide b = 0; b < p.batch; ++b) {
        const float *from = p.adjoints + (b * p.paths + blockIdx.y) * p.chunks * columns + (live ? column : 0);
#pragma unroll 8
        for (int c = warp; c < chunks; c += SUM_WARPS) sum += from[(wide)c * columns];
    }
    parts[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || !live) return;
    for (int w = 1; w < SUM_WARPS; ++w) sum += parts[w][lane];
    p.totals[(wide)blockIdx.y * columns + column] = sum;
}
