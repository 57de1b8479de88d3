// The selective scan's gradients, parallel over chunks of the sequence.
//
// With a[t] = exp(dt[t] A), G[t] = dL/dh[t] = C[t] dy[t] + a[t+1] G[t+1], and R[t] = a[t] G[t] what t hands to t-1:
//   dC[t] = sum over channels of dy h[t]           dB[t] = sum over channels of G dt u
//   du[t] = D dy + dt sum over states of G B       dA   += R h[t-1] dt
//   ddt[t] = sum over states of (R h[t-1] A + G B u)
// Three kernels: R at every chunk's start as if the chunk were the last (scan_adjoint_chunks), R as it arrives at every
// chunk's end (scan_adjoint_combine), the gradients (scan_gradients). h is recomputed forwards from the states that the
// forward pass kept, never backwards by dividing by a, which loses everything where a is small.
#include "common.cuh"

typedef long long wide;

// Members are 8 bytes each; `backward.py` packs them in this order.
struct Backward {
    const io_t *u, *delta, *B, *C, *z, *grad;  // z may be null
    const float *A, *D, *bias;                 // (K, D, N), (K, D), (K, D); D and bias may be null
    const int *table;                          // (K, L), or null for the raster
    const float *kept;                         // (B, K, chunks / ratio, N, D): h before each chunk of the forward
    float *starts;                             // (B, K, chunks, N, D): h before each chunk; kept, where ratio is 1
    float *adjoints;  // (B, K, chunks, N, D): R at the chunk's start, then R at its end, then its share of dA
    float *sums;      // (B, K, chunks, D): the chunk's sum of dt
    io_t *du, *ddelta, *dz;      // (B, 1 or K, L, D), (B, K, L, D), (B, L, D)
    float *du_sum, *dz_sum;      // sums over the paths so far, where they share u or z, else null
    void *dB, *dC;               // (splits, B, K, L, G, N): io_t where splits is 1, else float
    float *ddirect;              // (2, B, K, chunks, D): shares of dD and of d bias
    wide batch, paths, length, width, groups, chunk, chunks, splits;
    wide first_path, launch_paths, softplus, ratio;
    wide u_b, u_k, u_l, delta_b, delta_k, delta_l, B_b, B_k, B_l, B_g, C_b, C_k, C_l, C_g;
    wide z_b, z_l, grad_b, grad_k, grad_l;
};

extern __shared__ __align__(16) float shared[];

__host__ __device__ constexpr int power_of_two(int x) {
    int p = 1;
    while (p < x) p *= 2;
    return p;
}

__host__ __device__ constexpr int lowest(int a, int b) { return a < b ? a : b; }

DEVICE int row_of(const Backward &p, wide path, wide t) { return p.table ? p.table[path * p.length + t] : (int)t; }

DEVICE float step_size(float raw, float bias, bool soft) { return soft ? softplus(raw + bias) : raw + bias; }

// ------------------------------------------------------------------------------------------- a walk over each chunk

// Lanes of a channel, and states of a lane: no history is kept here, so that 16 states fit.
constexpr int A_LANES = power_of_two((STATES + 15) / 16), A_STATES = (STATES + A_LANES - 1) / A_LANES;
constexpr int A_ROW = A_LANES * ((A_STATES + 3) / 4 * 4);  // floats of a row of B or C; each lane's are aligned
constexpr int A_BATCH = 4;                                 // positions whose loads are under way together

// Where a thread is: grid (chunks, groups * tiles of blockDim.x / A_LANES channels, B * K).
struct Walker {
    wide b, k, c, d, slot, start;
    int group, part, count;  // the chunk's first position is start, and it has count
    bool live;
    float A2[A_STATES], bias;
    int *rows;
};

DEVICE Walker walker_of(const Backward &p, wide chunk, wide chunks) {
    Walker me;
    me.b = blockIdx.z / p.paths, me.k = blockIdx.z % p.paths, me.c = blockIdx.x;
    const int per_group = (int)(p.width / p.groups), tile = blockDim.x / A_LANES, tiles = (per_group + tile - 1) / tile;
    const int within = (int)(blockIdx.y % tiles) * tile + (int)threadIdx.x / A_LANES;
    me.group = blockIdx.y / tiles;
    me.part = threadIdx.x % A_LANES;
    me.live = within < per_group;
    me.d = (wide)me.group * per_group + (me.live ? within : 0);
    me.slot = (me.b * p.paths + me.k) * chunks + me.c;
    me.start = me.c * chunk;
    me.count = (int)(p.length - me.start < chunk ? p.length - me.start : chunk);
    me.rows = (int *)(shared + p.chunk * A_ROW);
    me.bias = p.bias ? p.bias[me.k * p.width + me.d] : 0.0f;
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        const int n = me.part * A_STATES + i;
        me.A2[i] = n < STATES ? p.A[(me.k * p.width + me.d) * STATES + n] * LOG2E : 0.0f;
    }
    return me;
}

// Bring the rows of `count` positions, and what B or C has there, to shared memory: p.chunk * (A_ROW + 1) words.
DEVICE void stage_rows(const Backward &p, const Walker &me, int first, int count, const io_t *from, wide row_stride) {
    __syncthreads();
    for (int t = threadIdx.x; t < count; t += blockDim.x) me.rows[t] = row_of(p, me.k, me.start + first + t);
    __syncthreads();
    for (int i = threadIdx.x; i < count * A_LANES * A_STATES; i += blockDim.x) {
        const int t = i / (A_LANES * A_STATES), n = i % (A_LANES * A_STATES);
        const int to = t * A_ROW + n / A_STATES * (A_ROW / A_LANES) + n % A_STATES;
        shared[to] = n < STATES ? to_float(from[me.rows[t] * row_stride + n]) : 0.0f;
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

// R at every chunk's start, as if no step followed the chunk: the sum over its positions t of exp(A S_t) C dy, S_t the
// sum of the steps up to t. No term waits for another, and the walk ends where the slowest state of a warp's channels has
// decayed to DEAD: of the steps it then has a part of the sum, whose decay is below DEAD as well.
extern "C" __global__ void scan_adjoint_chunks(const Backward p) {
    const Walker me = walker_of(p, p.chunk, p.chunks);
    stage_rows(p, me, 0, me.count, p.C + me.b * p.C_b + me.k * p.C_k + me.group * p.C_g, p.C_l);
    float R[A_STATES], slowest[A_QUADS], total = 0.0f;
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        R[i] = 0.0f;
        slowest[i / 4] = i % 4 ? fmaxf(slowest[i / 4], me.A2[i]) : me.A2[i];
    }
    const io_t *delta = p.delta + me.b * p.delta_b + me.k * p.delta_k + me.d;
    const io_t *grad = p.grad + me.b * p.grad_b + me.k * p.grad_k + me.d;
    const io_t *z = p.z ? p.z + me.b * p.z_b + me.d : nullptr;
    for (int first = 0; first < me.count; first += A_BATCH) {
        bool living[A_QUADS], alive = false;
#pragma unroll
        for (int q = 0; q < A_QUADS; ++q) {
            living[q] = __any_sync(FULL_WARP, slowest[q] * total > DEAD);
            alive = alive || living[q];
        }
        if (!alive) break;
        float dt[A_BATCH], dy[A_BATCH], gate[A_BATCH];
#pragma unroll
        for (int j = 0; j < A_BATCH; ++j) {
            const wide row = me.rows[lowest(first + j, me.count - 1)];
            dt[j] = to_float(delta[row * p.delta_l]);
            dy[j] = to_float(grad[row * p.grad_l]);
            gate[j] = z ? to_float(z[row * p.z_l]) : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < A_BATCH; ++j) {
            const bool inside = first + j < me.count;  // a step of size 0 changes nothing
            const float g = inside ? (z ? dy[j] * silu(gate[j]) : dy[j]) : 0.0f;
            const float *C = shared + (inside ? first + j : 0) * A_ROW + me.part * (A_ROW / A_LANES);
            total += inside ? step_size(dt[j], me.bias, p.softplus) : 0.0f;
#pragma unroll
            for (int i = 0; i < A_STATES; ++i) {
                if (living[i / 4]) R[i] = fmaf(exp2_state(i, total * me.A2[i]), C[i] * g, R[i]);
            }
        }
    }
    if (!me.live) return;
    if (me.part == 0) p.sums[me.slot * p.width + me.d] = total;
    store_states(p, me, p.adjoints + me.slot * STATES * p.width, R);
}

// h before every chunk, from h before every `ratio` chunks: where the forward kept too few for shared memory.
extern "C" __global__ void scan_refine_starts(const Backward p) {
    const wide chunks = (p.chunks + p.ratio - 1) / p.ratio;
    const Walker me = walker_of(p, p.chunk * p.ratio, chunks);
    const io_t *B = p.B + me.b * p.B_b + me.k * p.B_k + me.group * p.B_g;
    float h[A_STATES];
#pragma unroll
    for (int i = 0; i < A_STATES; ++i) {
        const int n = me.part * A_STATES + i;
        h[i] = n < STATES ? p.kept[(me.slot * STATES + n) * p.width + me.d] : 0.0f;
    }
    const io_t *delta = p.delta + me.b * p.delta_b + me.k * p.delta_k + me.d;
    const io_t *u = p.u + me.b * p.u_b + me.k * p.u_k + me.d;
    float *starts = p.starts + ((me.b * p.paths + me.k) * p.chunks + me.c * p.ratio) * STATES * p.width;
    for (int first = 0; first < me.count; first += (int)p.chunk, starts += STATES * p.width) {
        const int count = lowest((int)p.chunk, me.count - first);
        stage_rows(p, me, first, count, B, p.B_l);
        if (!me.live) continue;
        store_states(p, me, starts, h);
#pragma unroll 4
        for (int t = 0; t < count; ++t) {
            const wide row = me.rows[t];
            const float step = step_size(to_float(delta[row * p.delta_l]), me.bias, p.softplus);
            const float x = step * to_float(u[row * p.u_l]), *Bt = shared + t * A_ROW + me.part * (A_ROW / A_LANES);
#pragma unroll
            for (int i = 0; i < A_STATES; ++i) h[i] = fmaf(exp2_state(i, step * me.A2[i]), h[i], x * Bt[i]);
        }
    }
}

// ------------------------------------------------------------------------------------------- adjoints across chunks

constexpr int COMBINE_PARTS = 32, COMBINE_BATCH = 8;

// Walk chunks [first, end) backwards from the R that arrives at their end; with STORE, leave it at each.
template <bool STORE>
DEVICE float walk_chunks(const Backward &p, float *adjoints, const float *sums, float A2, int first, int end, float R,
                         float &total) {
    const wide stride = p.width * STATES;
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
    float *adjoints = p.adjoints + (at * STATES + n) * p.width + d;
    const float *sums = p.sums + at * p.width + d;
    const float A2 = live ? p.A[(k * p.width + d) * STATES + n] * LOG2E : 0.0f;
    float total = 0.0f;
    ends[part][lane] = live ? walk_chunks<false>(p, adjoints, sums, A2, first, end, 0.0f, total) : 0.0f;
    totals[part][lane] = total;
    __syncthreads();
    float R = 0.0f;
    for (int i = COMBINE_PARTS - 1; i > part; --i) R = fmaf(exp2_special(A2 * totals[i][lane]), R, ends[i][lane]);
    if (live) walk_chunks<true>(p, adjoints, sums, A2, first, end, R, total);
}

// ------------------------------------------------------------------------------------------------------- gradients

// LANES lanes share a channel, PER states each, so that h and a of BLOCK positions stay in registers.
constexpr int LANES = power_of_two((STATES + 3) / 4), PER = (STATES + LANES - 1) / LANES, ROW = LANES * PER;
constexpr int CHANNELS = 32 / LANES;  // of a warp
constexpr int BLOCK = 8;              // positions between kept states
constexpr int THREADS = LANES == 1 ? 64 : 128, WARPS = THREADS / 32, TILE = THREADS / LANES;
constexpr int PAIRS = power_of_two(2 * PER);    // a lane's values of dB and dC
constexpr int TURN = lowest(LANES, BLOCK);      // positions whose sums over states are taken together

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

// A lane's PER floats of a row of B or C.
DEVICE void load_states(float (&v)[PER], const float *from) {
    if constexpr (PER == 4) {
        const float4 x = *(const float4 *)from;
        v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
    } else {
#pragma unroll
        for (int i = 0; i < PER; ++i) v[i] = from[i];
    }
}

// Where a block of threads is, and its shared memory (`gradients_shared` in backward_plan.py adds up the same sizes).
struct Place {
    wide b, k, c, start, slot;  // slot: (b * K + k) * chunks + c
    int group, count, blocks;   // positions of this chunk, and blocks of BLOCK that cover them
    float *dt, *u, *dy;         // [position][channel of the tile]; become d delta, d u and y
    float *BC, *dBC;            // [position][B's row, C's row]; gradients summed over the block's channels
    float *shares;              // [warp - 1][position of a BLOCK][2 ROW]
    float *states;              // [blocks - 2][state][thread]: h before every BLOCK but the first and the last
    int *rows;
};

DEVICE Place place_of(const Backward &p) {
    Place at;
    at.b = blockIdx.z / p.launch_paths;
    at.k = p.first_path + blockIdx.z % p.launch_paths;
    at.c = blockIdx.x;
    at.start = at.c * p.chunk;
    at.slot = (at.b * p.paths + at.k) * p.chunks + at.c;
    at.group = (int)(blockIdx.y / p.splits);
    at.count = (int)(p.length - at.start < p.chunk ? p.length - at.start : p.chunk);
    at.blocks = (at.count + BLOCK - 1) / BLOCK;
    const int padded = (int)(p.chunk + BLOCK - 1) / BLOCK * BLOCK;
    at.BC = shared;
    at.dBC = at.BC + padded * 2 * ROW;
    at.shares = at.dBC + padded * 2 * ROW;
    at.dt = at.shares + (WARPS - 1) * BLOCK * 2 * ROW;
    at.u = at.dt + padded * TILE;
    at.dy = at.u + padded * TILE;
    at.rows = (int *)(at.dy + padded * TILE);
    at.states = (float *)(at.rows + padded);
    return at;
}

// B and C of the chunk; rows after its end are 0.
DEVICE void load_rows(const Backward &p, const Place &at) {
    const int padded = at.blocks * BLOCK;
    for (int t = threadIdx.x; t < at.count; t += THREADS) at.rows[t] = row_of(p, at.k, at.start + t);
    __syncthreads();
    const io_t *B = p.B + at.b * p.B_b + at.k * p.B_k + at.group * p.B_g;
    const io_t *C = p.C + at.b * p.C_b + at.k * p.C_k + at.group * p.C_g;
#pragma unroll 4
    for (int i = threadIdx.x; i < padded * ROW; i += THREADS) {
        const int t = i / ROW, n = i % ROW;
        const bool inside = t < at.count && n < STATES;
        const wide row = inside ? at.rows[t] : 0;
        at.BC[t * 2 * ROW + n] = inside ? to_float(B[row * p.B_l + n]) : 0.0f;
        at.BC[t * 2 * ROW + ROW + n] = inside ? to_float(C[row * p.C_l + n]) : 0.0f;
    }
    for (int i = threadIdx.x; i < padded * 2 * ROW; i += THREADS) at.dBC[i] = 0.0f;
}

// dt, u and dy of a tile of channels; 0 after the chunk's end and beyond the group, which then add nothing to any sum.
DEVICE void load_tile(const Backward &p, const Place &at, wide first, int channels) {
    const int padded = at.blocks * BLOCK;
    const io_t *u = p.u + at.b * p.u_b + at.k * p.u_k + first;
    const io_t *delta = p.delta + at.b * p.delta_b + at.k * p.delta_k + first;
    const io_t *grad = p.grad + at.b * p.grad_b + at.k * p.grad_k + first;
    const io_t *z = p.z ? p.z + at.b * p.z_b + first : nullptr;
    const float *bias = p.bias ? p.bias + at.k * p.width + first : nullptr;
#pragma unroll 4
    for (int i = threadIdx.x; i < padded * TILE; i += THREADS) {
        const int t = i / TILE, d = i % TILE;
        float dt = 0.0f, x = 0.0f, dy = 0.0f;
        if (t < at.count && d < channels) {
            const wide row = at.rows[t];
            dt = step_size(to_float(delta[row * p.delta_l + d]), bias ? bias[d] : 0.0f, p.softplus);
            x = to_float(u[row * p.u_l + d]);
            dy = to_float(grad[row * p.grad_l + d]);
            if (z) dy *= silu(to_float(z[row * p.z_l + d]));
        }
        at.dt[i] = dt, at.u[i] = x, at.dy[i] = dy;
    }
}

// Write a value that the paths share: add what the earlier paths left, and keep the sum for the later ones.
DEVICE void store_shared(const Backward &p, wide k, float x, float *sum, io_t *out) {
    if (k > 0) x += *sum;
    if (k < p.paths - 1) *sum = x;
    else *out = from_float(x);
}

// d u, d delta and d z of a tile to their rows.
DEVICE void store_tile(const Backward &p, const Place &at, wide first, int channels) {
    const io_t *grad = p.grad + at.b * p.grad_b + at.k * p.grad_k + first;
    const io_t *z = p.z ? p.z + at.b * p.z_b + first : nullptr;
#pragma unroll 4
    for (int i = threadIdx.x; i < at.count * TILE; i += THREADS) {
        const int d = i % TILE;
        if (d >= channels) continue;
        const wide row = at.rows[i / TILE], to = (at.b * p.length + row) * p.width + first + d;
        const wide path_to = ((at.b * p.paths + at.k) * p.length + row) * p.width + first + d;
        p.ddelta[path_to] = from_float(at.dt[i]);
        if (p.du_sum) store_shared(p, at.k, at.u[i], p.du_sum + to, p.du + to);
        else p.du[path_to] = from_float(at.u[i]);
        if (z) {
            const float gate = to_float(z[row * p.z_l + d]), s = sigmoid(gate);
            const float dz = to_float(grad[row * p.grad_l + d]) * at.dy[i] * s * fmaf(gate, 1.0f - s, 1.0f);
            store_shared(p, at.k, dz, p.dz_sum + to, p.dz + to);
        }
    }
}

// The sums over a block's channels to d B and d C; float shares where several blocks divide a group's channels.
DEVICE void store_rows(const Backward &p, const Place &at) {
    const wide split = blockIdx.y % p.splits;
    for (int i = threadIdx.x; i < at.count * 2 * ROW; i += THREADS) {
        const int t = i / (2 * ROW), n = i % ROW;
        if (n >= STATES) continue;
        const wide path = (split * p.batch + at.b) * p.paths + at.k;
        const wide to = ((path * p.length + at.rows[t]) * p.groups + at.group) * STATES + n;
        void *out = i % (2 * ROW) < ROW ? p.dB : p.dC;
        if (p.splits == 1) ((io_t *)out)[to] = from_float(at.dBC[i]);
        else ((float *)out)[to] = at.dBC[i];
    }
}

// One lane: PER states of one channel, walked over one chunk.
struct Lane {
    int lane, part, channel;  // of the warp, the part of the states, the channel of the tile
    float A2[PER], R[PER], dA[PER], D, dD, dbias;
};

// h over one BLOCK: `h` goes from before it to after it. With KEEP, every h[t-1] and a[t] stays.
template <bool KEEP>
DEVICE void walk_block(const Place &at, const Lane &me, int block, float (&h)[PER], float (&before)[BLOCK][PER],
                       float (&a)[BLOCK][PER]) {
#pragma unroll
    for (int j = 0; j < BLOCK; ++j) {
        const int t = block * BLOCK + j;
        const float dt = at.dt[t * TILE + me.channel], x = dt * at.u[t * TILE + me.channel];
        float B[PER];
        load_states(B, at.BC + t * 2 * ROW + me.part * PER);
#pragma unroll
        for (int i = 0; i < PER; ++i) {
            const float decay = exp2_special(dt * me.A2[i]);  // here other instructions are the limit
            if (KEEP) before[j][i] = h[i], a[j][i] = decay;
            h[i] = fmaf(decay, h[i], x * B[i]);
        }
    }
}

// The sums of a position over its channel's states are complete in this lane: finish the position's gradients.
DEVICE void finish_position(const Backward &p, const Place &at, Lane &me, int t, float GB, float RhA, float y) {
    const int i = t * TILE + me.channel;
    const float dt = at.dt[i], x = at.u[i], dy = at.dy[i];
    float ddt = fmaf(x, GB, LN2 * RhA);
    if (p.softplus) ddt *= -expm1f(-dt);  // the sigmoid of what dt is the softplus of
    me.dD = fmaf(dy, x, me.dD);
    me.dbias += ddt;
    at.dt[i] = ddt;
    at.u[i] = fmaf(me.D, dy, dt * GB);
    at.dy[i] = fmaf(me.D, x, y);
}

// Gradients of one BLOCK, from h before it; R goes from after it to before it.
template <bool GATED>
DEVICE void reverse_block(const Backward &p, const Place &at, Lane &me, int block, float (&h)[PER]) {
    float before[BLOCK][PER], a[BLOCK][PER];
    walk_block<true>(at, me, block, h, before, a);
    const int warp = threadIdx.x / 32;
#pragma unroll
    for (int turn = BLOCK / TURN - 1; turn >= 0; --turn) {
        float GB[TURN], RhA[TURN], y[TURN];
#pragma unroll
        for (int q = TURN - 1; q >= 0; --q) {
            const int j = turn * TURN + q, t = block * BLOCK + j;
            const float dt = at.dt[t * TILE + me.channel], dy = at.dy[t * TILE + me.channel];
            const float x = dt * at.u[t * TILE + me.channel];
            float B[PER], C[PER], pairs[PAIRS];
            load_states(B, at.BC + t * 2 * ROW + me.part * PER);
            load_states(C, at.BC + t * 2 * ROW + ROW + me.part * PER);
            GB[q] = RhA[q] = y[q] = 0.0f;
#pragma unroll
            for (int i = 0; i < PAIRS; ++i) pairs[i] = 0.0f;
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const float after = j + 1 < BLOCK ? before[lowest(j + 1, BLOCK - 1)][i] : h[i];
                const float G = fmaf(C[i], dy, me.R[i]);
                pairs[i] = G * x;
                pairs[PER + i] = dy * after;
                GB[q] = fmaf(G, B[i], GB[q]);
                if (GATED) y[q] = fmaf(C[i], after, y[q]);
                me.R[i] = a[j][i] * G;
                const float Rh = me.R[i] * before[j][i];
                RhA[q] = fmaf(Rh, me.A2[i], RhA[q]);
                me.dA[i] = fmaf(Rh, dt, me.dA[i]);
            }
            scatter_sum<PAIRS, CHANNELS, 1>(pairs, me.lane);
            // Lanes that hold the same sums: CHANNELS / PAIRS, the first of them writes.
            constexpr int same = PAIRS < CHANNELS ? CHANNELS / PAIRS : 1;
            constexpr int held = PAIRS > CHANNELS ? PAIRS / CHANNELS : 1;
            const int channel = me.lane % CHANNELS;
#pragma unroll
            for (int i = 0; i < held; ++i) {
                const int v = channel / same * held + i, n = me.part * PER + (v < PER ? v : ROW + v - PER);
                if (v >= 2 * PER || channel % same) continue;
                if (warp == 0) at.dBC[t * 2 * ROW + n] += pairs[i];
                else at.shares[((warp - 1) * BLOCK + j) * 2 * ROW + n] = pairs[i];
            }
        }
        scatter_sum<TURN, LANES, CHANNELS>(GB, me.lane);
        scatter_sum<TURN, LANES, CHANNELS>(RhA, me.lane);
        if (GATED) scatter_sum<TURN, LANES, CHANNELS>(y, me.lane);
        __syncwarp();  // the other lanes have read what finish_position overwrites
        constexpr int same = LANES / TURN;
        const int mine = block * BLOCK + turn * TURN + me.part / same;
        if (me.part % same == 0) finish_position(p, at, me, mine, GB[0], RhA[0], y[0]);
    }
}

// The other warps' shares of one BLOCK's d B and d C, added in their order.
DEVICE void add_shares(const Place &at, int block) {
    for (int i = threadIdx.x; i < BLOCK * 2 * ROW; i += THREADS) {
        float sum = at.dBC[block * BLOCK * 2 * ROW + i];
#pragma unroll
        for (int w = 0; w < WARPS - 1; ++w) sum += at.shares[w * BLOCK * 2 * ROW + i];
        at.dBC[block * BLOCK * 2 * ROW + i] = sum;
    }
}

// All gradients of TILE channels over the chunk; the tile is in shared memory, and its gradients take its place.
template <bool GATED>
DEVICE void reverse_chunk(const Backward &p, const Place &at, wide first, int channels) {
    Lane me;
    me.lane = threadIdx.x % 32;
    me.part = me.lane / CHANNELS;
    me.channel = (int)threadIdx.x / 32 * CHANNELS + me.lane % CHANNELS;
    const bool live = me.channel < channels;
    const wide d = first + (live ? me.channel : 0), state = at.slot * STATES * p.width + d;
    float h[PER];
#pragma unroll
    for (int i = 0; i < PER; ++i) {
        const int n = me.part * PER + i;
        const bool mine = live && n < STATES;
        me.A2[i] = mine ? p.A[(at.k * p.width + d) * STATES + n] * LOG2E : 0.0f;
        me.R[i] = mine ? p.adjoints[state + n * p.width] : 0.0f;
        h[i] = mine ? p.starts[state + n * p.width] : 0.0f;
        me.dA[i] = 0.0f;
    }
    me.D = live && p.D ? p.D[at.k * p.width + d] : 0.0f;
    me.dD = me.dbias = 0.0f;
    for (int block = 0; block < at.blocks - 1; ++block) {
        float unused[BLOCK][PER];
        walk_block<false>(at, me, block, h, unused, unused);
#pragma unroll
        for (int i = 0; i < PER; ++i)
            if (block < at.blocks - 2) at.states[(block * PER + i) * THREADS + threadIdx.x] = h[i];
    }
    for (int block = at.blocks - 1; block >= 0; --block) {
        if (block < at.blocks - 1) {
#pragma unroll
            for (int i = 0; i < PER; ++i) {
                const int n = me.part * PER + i;
                if (block > 0) h[i] = at.states[((block - 1) * PER + i) * THREADS + threadIdx.x];
                else h[i] = live && n < STATES ? p.starts[state + n * p.width] : 0.0f;
            }
        }
        reverse_block<GATED>(p, at, me, block, h);
        __syncthreads();
        add_shares(at, block);
        __syncthreads();
    }
#pragma unroll
    for (int mask = CHANNELS; mask < 32; mask *= 2) {
        me.dD += __shfl_xor_sync(FULL_WARP, me.dD, mask);
        me.dbias += __shfl_xor_sync(FULL_WARP, me.dbias, mask);
    }
    if (!live) return;
#pragma unroll
    for (int i = 0; i < PER; ++i) {
        const int n = me.part * PER + i;
        if (n < STATES) p.adjoints[state + n * p.width] = me.dA[i];
    }
    if (me.part == 0) {
        p.ddirect[at.slot * p.width + d] = me.dD;
        p.ddirect[(p.batch * p.paths * p.chunks + at.slot) * p.width + d] = me.dbias;
    }
}

template <bool GATED>
DEVICE void gradients(const Backward &p) {
    const Place at = place_of(p);
    load_rows(p, at);
    const int per_group = (int)(p.width / p.groups), splits = (int)p.splits;
    for (int tile = (int)blockIdx.y % splits * TILE; tile < per_group; tile += splits * TILE) {
        const wide first = (wide)at.group * per_group + tile;
        const int channels = lowest(per_group - tile, TILE);
        load_tile(p, at, first, channels);
        __syncthreads();
        reverse_chunk<GATED>(p, at, first, channels);
        store_tile(p, at, first, channels);  // reverse_chunk ends behind a barrier
        __syncthreads();
    }
    store_rows(p, at);
}

// Grid (chunks, groups * splits, B * paths of the launch), block THREADS. GATED: with z.
#define BOUNDS __launch_bounds__(THREADS, 512 / THREADS)
extern "C" __global__ void BOUNDS scan_gradients(const Backward p) { gradients<false>(p); }
extern "C" __global__ void BOUNDS scan_gradients_gated(const Backward p) { gradients<true>(p); }
