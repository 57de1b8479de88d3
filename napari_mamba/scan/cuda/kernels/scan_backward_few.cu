// The selective scan's gradients for 1 to 4 states, as VMamba's networks have them; scan_backward.cu has the equations and
// the launches before and after this one.
//
// With so few states the traffic of u, delta and the gradients should be the limit, so nothing goes through shared memory:
// a lane is a channel, a warp 32 of them over one chunk. Inputs, states and decays of SPAN positions are in registers.
// What is summed over channels is summed for GROUP positions at once: 32 values over 32 lanes, each of which is left with
// one, by 31 shuffles. Rows, B and C of a segment's positions are in the lanes of their number. The warps of a group are
// shares of d B and d C, which scan_sum_shares adds up.
// SPAN is a multiple of GROUP; a segment's spans before its last are walked once more.
//   ORDERED  1: rows come from a table
//   GATED    1: with z
//   SOFTPLUS 1: step sizes are softplus of delta and the bias
//   SHARED   1: paths share u, and each adds to what the earlier ones left
#include "scan_backward.cuh"

#ifndef WARPS
#define WARPS 2
#endif
#ifndef RESIDENT  // warps of a multiprocessor; bounds the registers
#define RESIDENT 16
#endif
#ifndef ORDERED
#define ORDERED 0
#endif
#ifndef GATED
#define GATED 0
#endif
#ifndef SOFTPLUS
#define SOFTPLUS 1
#endif
#ifndef SHARED
#define SHARED 0
#endif

constexpr int SEGMENT = 32;  // the most positions of a segment: one for each lane
constexpr int VALUES = 2 * power_of_two(STATES), GROUP = 32 / VALUES;
constexpr int SPAN = STATES == 1 ? 16 : 8, SPANS = SEGMENT / SPAN;
static_assert(SPAN % GROUP == 0 && SEGMENT % SPAN == 0, "whole groups, whole spans");

// A lane's channel over one chunk.
struct Channel {
    int lane, start, count;  // the segment's first position, and how many it has
    bool live;               // there is such a channel; others repeat the last one, and add nothing
    int row;                 // of the position whose number in the segment is the lane's; so are B and C
    float B[STATES], C[STATES];
    float A2[STATES], R[STATES], dA[STATES];
    float bias, D, dD, dbias;
    const io_t *u, *delta, *grad, *z;
    int u_row, delta_row, grad_row, z_row;  // bytes from row to row

    DEVICE int row_at(int t) const {
        if (ORDERED) return __shfl_sync(FULL_WARP, row, t);
        return start + lowest(t, count - 1);
    }
};

DEVICE float load(const io_t *from, int row, int bytes) {
    return to_float(*(const io_t *)((const char *)from + (wide)row * bytes));
}

// What is known of SPAN positions; z and the gradient of the gated output only where GATED.
struct Span {
    float dt[SPAN], u[SPAN], dy[SPAN], z[GATED ? SPAN : 1], out[GATED ? SPAN : 1];
};

// Step sizes and u of the span's positions: a step of size 0 after the segment's end changes nothing.
DEVICE void load_steps(const Channel &me, int first, Span &span) {
#pragma unroll
    for (int j = 0; j < SPAN; ++j) {
        const int row = me.row_at(first + j);
        span.dt[j] = load(me.delta, row, me.delta_row);
        span.u[j] = load(me.u, row, me.u_row);
    }
#pragma unroll
    for (int j = 0; j < SPAN; ++j) {
        const float dt = step_size(span.dt[j], me.bias, SOFTPLUS);
        span.dt[j] = me.live && first + j < me.count ? dt : 0.0f;
    }
}

DEVICE void load_gradients(const Channel &me, int first, Span &span) {
#pragma unroll
    for (int j = 0; j < SPAN; ++j) {
        const int row = me.row_at(first + j);
        span.dy[j] = load(me.grad, row, me.grad_row);
        if (GATED) span.z[GATED ? j : 0] = load(me.z, row, me.z_row);
    }
#pragma unroll
    for (int j = 0; j < SPAN; ++j) {
        span.dy[j] = me.live && first + j < me.count ? span.dy[j] : 0.0f;
        if (GATED) {
            span.out[GATED ? j : 0] = span.dy[j];
            span.dy[j] *= silu(span.z[GATED ? j : 0]);
        }
    }
}

// h over a span: from before it to after it. With KEEP, every h[t-1] and a[t] stays.
template <bool KEEP>
DEVICE void walk(const Channel &me, int first, const Span &span, float (&h)[STATES], float (&before)[SPAN][STATES],
                 float (&a)[SPAN][STATES]) {
#pragma unroll
    for (int j = 0; j < SPAN; ++j) {
        const float x = span.dt[j] * span.u[j];
#pragma unroll
        for (int n = 0; n < STATES; ++n) {
            const float decay = exp2_special(span.dt[j] * me.A2[n]);
            if (KEEP) before[j][n] = h[n], a[j][n] = decay;
            h[n] = fmaf(decay, h[n], x * __shfl_sync(FULL_WARP, me.B[n], first + j));
        }
    }
}

// Where a lane's results go.
struct Results {
    io_t *ddelta, *du, *dz;
    float *du_sum, *dz_sum;  // of the paths so far
    void *dB, *dC;           // this warp's share; row 0 of the group
    wide row_BC;             // elements from row to row
};

DEVICE void store_channel(const Backward &p, const Results &to, wide k, wide at, float ddelta, float du, float dz) {
    to.ddelta[at] = from_float(ddelta);
    float one[1] = {du};
    if (SHARED) store_shared<1>(p, k, one, to.du_sum + at, to.du + at);
    else to.du[at] = from_float(du);
    if (GATED) {
        one[0] = dz;
        store_shared<1>(p, k, one, to.dz_sum + at, to.dz + at);
    }
}

// The sums over channels of GROUP positions, from each lane's own; lane l is left with value l.
DEVICE void store_sums(const Backward &p, const Channel &me, const Results &to, int first, float (&values)[32]) {
    scatter_sum<32, 32, 1>(values, me.lane);
    const int t = first + me.lane / VALUES, value = me.lane % VALUES, n = value % (VALUES / 2);
    const wide row = __shfl_sync(FULL_WARP, me.row, t);
    if (t >= me.count || n >= STATES) return;
    void *out = value < VALUES / 2 ? to.dB : to.dC;
    if (p.splits == 1) ((io_t *)out)[row * to.row_BC + n] = from_float(values[0]);
    else ((float *)out)[row * to.row_BC + n] = values[0];
}

// Gradients of a span, from h before it; R goes from after it to before it.
DEVICE void reverse(const Backward &p, Channel &me, const Results &to, wide k, int first, const Span &span,
                    float (&h)[STATES]) {
    float before[SPAN][STATES], a[SPAN][STATES];
    walk<true>(me, first, span, h, before, a);
#pragma unroll
    for (int group = SPAN - GROUP; group >= 0; group -= GROUP) {
        float values[32];
#pragma unroll
        for (int i = 0; i < 32; ++i) values[i] = 0.0f;
#pragma unroll
        for (int j = group + GROUP - 1; j >= group; --j) {
            const float dt = span.dt[j], u = span.u[j], dy = span.dy[j], x = dt * u;
            float GB = 0.0f, RhA = 0.0f, y = me.D * u;
#pragma unroll
            for (int n = 0; n < STATES; ++n) {
                const float after = j + 1 < SPAN ? before[lowest(j + 1, SPAN - 1)][n] : h[n];
                const float C = __shfl_sync(FULL_WARP, me.C[n], first + j);
                const float G = fmaf(C, dy, me.R[n]);
                values[(j - group) * VALUES + n] = G * x;
                values[(j - group) * VALUES + VALUES / 2 + n] = dy * after;
                GB = fmaf(G, __shfl_sync(FULL_WARP, me.B[n], first + j), GB);
                if (GATED) y = fmaf(C, after, y);
                me.R[n] = a[j][n] * G;
                const float Rh = me.R[n] * before[j][n];
                RhA = fmaf(Rh, me.A2[n], RhA);
                me.dA[n] = fmaf(Rh, dt, me.dA[n]);
            }
            float ddt = fmaf(u, GB, LN2 * RhA), dz = 0.0f;
            if (SOFTPLUS) ddt *= softplus_slope(dt);
            if (GATED) {
                const float z = span.z[GATED ? j : 0], gate = sigmoid(z);
                dz = span.out[GATED ? j : 0] * y * gate * fmaf(z, 1.0f - gate, 1.0f);
            }
            me.dD = fmaf(dy, u, me.dD);
            me.dbias += ddt;
            const wide at = (wide)me.row_at(first + j) * (int)p.width;
            if (me.live && first + j < me.count) store_channel(p, to, k, at, ddt, fmaf(me.D, dy, dt * GB), dz);
        }
        store_sums(p, me, to, first + group, values);
    }
}

// Rows, B and C of a segment, one position a lane; after its end the last row, without effect.
DEVICE void begin_segment(const Backward &p, Channel &me, wide k, const io_t *B, const io_t *C) {
    const int t = me.start + lowest(me.lane, me.count - 1);
    me.row = ORDERED ? p.table[k * p.length + t] : t;
#pragma unroll
    for (int n = 0; n < STATES; ++n) {
        me.B[n] = to_float(B[(wide)me.row * (int)p.B_l + n]);
        me.C[n] = to_float(C[(wide)me.row * (int)p.C_l + n]);
    }
}

// All gradients of a segment.
DEVICE void reverse_segment(const Backward &p, Channel &me, const Results &to, wide k, const float *start) {
    float h[SPANS][STATES];  // before each span
    Span span;
#pragma unroll
    for (int n = 0; n < STATES; ++n) h[0][n] = start[n * p.width];
#pragma unroll
    for (int s = 0; s + 1 < SPANS; ++s) {
#pragma unroll
        for (int n = 0; n < STATES; ++n) h[s + 1][n] = h[s][n];
        if ((s + 1) * SPAN >= me.count) continue;
        float unused[SPAN][STATES];
        load_steps(me, s * SPAN, span);
        walk<false>(me, s * SPAN, span, h[s + 1], unused, unused);
    }
#pragma unroll
    for (int s = SPANS - 1; s >= 0; --s) {
        if (s * SPAN >= me.count) continue;
        load_steps(me, s * SPAN, span);
        load_gradients(me, s * SPAN, span);
        reverse(p, me, to, k, s * SPAN, span, h[s]);
    }
}

// Grid (chunks, groups * blocks of WARPS tiles of 32 channels, B * paths of the launch), block 32 * WARPS; no barrier, so
// that the warps past the last tile may leave.
extern "C" __global__ void __launch_bounds__(32 * WARPS, RESIDENT / WARPS) scan_gradients_few(const Backward p) {
    const wide b = blockIdx.z / p.launch_paths, k = p.first_path + blockIdx.z % p.launch_paths, c = blockIdx.x;
    const int per_group = (int)(p.width / p.groups), tiles = (per_group + 31) / 32, blocks = (tiles + WARPS - 1) / WARPS;
    const int group = blockIdx.y / blocks, tile = blockIdx.y % blocks * WARPS + threadIdx.x / 32;
    if (tile >= tiles) return;
    Channel me;
    me.lane = threadIdx.x % 32;
    me.live = tile * 32 + me.lane < per_group;
    const wide d = (wide)group * per_group + lowest(tile * 32 + me.lane, per_group - 1), at = k * p.width + d;
    me.u = p.u + b * p.u_b + k * p.u_k + d, me.u_row = (int)(p.u_l * sizeof(io_t));
    me.delta = p.delta + b * p.delta_b + k * p.delta_k + d, me.delta_row = (int)(p.delta_l * sizeof(io_t));
    me.grad = p.grad + b * p.grad_b + k * p.grad_k + d, me.grad_row = (int)(p.grad_l * sizeof(io_t));
    me.z = p.z + b * p.z_b + d, me.z_row = (int)(p.z_l * sizeof(io_t));
    me.bias = p.bias ? p.bias[at] : 0.0f;
    me.D = p.D ? p.D[at] : 0.0f;
    me.dD = me.dbias = 0.0f;
    let_later_start();
    wait_for_earlier();
    const wide slot = (b * p.paths + k) * p.chunks + c;
    float *shares = p.adjoints + slot * SHARES * p.width + d;
#pragma unroll
    for (int n = 0; n < STATES; ++n) {
        me.A2[n] = p.A[at * STATES + n] * LOG2E;
        me.R[n] = me.live ? shares[n * p.width] : 0.0f;
        me.dA[n] = 0.0f;
    }
    const io_t *B = p.B + b * p.B_b + k * p.B_k + group * p.B_g, *C = p.C + b * p.C_b + k * p.C_k + group * p.C_g;
    const wide shared_at = b * p.length * p.width + d, path_at = (b * p.paths + k) * p.length * p.width + d;
    const wide BC = ((p.splits == 1 ? 0 : tile * p.batch * p.paths) + b * p.paths + k) * p.length * p.groups * STATES +
                    group * STATES;
    const wide size = p.splits == 1 ? sizeof(io_t) : sizeof(float);
    const Results to = {
        p.ddelta + path_at, p.du + (SHARED ? shared_at : path_at), p.dz + shared_at,
        p.du_sum + shared_at, p.dz_sum + shared_at,
        (char *)p.dB + BC * size, (char *)p.dC + BC * size, p.groups * STATES,
    };
    const float *starts = p.starts + (b * p.paths + k) * p.segments * STATES * p.width + d;
    const wide first = c * p.chunk, end = first + p.chunk < p.length ? first + p.chunk : p.length;
    for (wide start = first + (end - first - 1) / p.segment * p.segment; start >= first; start -= p.segment) {
        me.start = (int)start;
        me.count = lowest((int)p.segment, (int)(end - start));
        begin_segment(p, me, k, B, C);
        reverse_segment(p, me, to, k, starts + start / p.segment * STATES * p.width);
    }
    if (!me.live) return;
#pragma unroll
    for (int n = 0; n < STATES; ++n) shares[n * p.width] = me.dA[n];
    shares[STATES * p.width] = me.dD;
    shares[(STATES + 1) * p.width] = me.dbias;
}
