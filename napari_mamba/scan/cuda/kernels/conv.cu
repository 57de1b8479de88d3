// Causal depth-wise convolution along a scan order, with bias and SiLU: forward and backward, channels-last.
//
// A thread owns VEC neighbouring channels and a run of consecutive steps of one path. Step t reads row table[t], so along
// the run it keeps the last TAPS - 1 inputs in registers and every input is loaded once (and TAPS - 1 more at the start
// of the run, which a neighbour has in cache). Arithmetic is float32. Macros beside common.cuh's IO:
//   WIO   type of weight and bias, as IO
//   TAPS  width of the convolution, 1..8
//   VEC   channels of a thread: D, the strides and the addresses are multiples of it
//   STEPS steps whose loads are in flight together
//   BACKWARD  1 for the gradients' kernel, 0 for the other one
#include "common.cuh"

#define THREADS 256
#define PAST (TAPS - 1)

// One load or store of the device: at most 16 bytes of elements, or twice that of float32 sums.
struct alignas(sizeof(io_t) * VEC) Elements { io_t at[VEC]; };
struct alignas(sizeof(float) * VEC) Sums { float at[VEC]; };

struct Values { float at[VEC]; };

DEVICE Values zeros() {
    Values v;
#pragma unroll
    for (int i = 0; i < VEC; ++i) v.at[i] = 0.0f;
    return v;
}

DEVICE Values load(const io_t *from) {
    const Elements raw = *reinterpret_cast<const Elements *>(from);
    Values v;
#pragma unroll
    for (int i = 0; i < VEC; ++i) v.at[i] = to_float(raw.at[i]);
    return v;
}

DEVICE void store(io_t *to, const Values &v) {
    Elements raw;
#pragma unroll
    for (int i = 0; i < VEC; ++i) raw.at[i] = from_float(v.at[i]);
    *reinterpret_cast<Elements *>(to) = raw;
}

DEVICE void store_sums(float *to, const Values &v) {
    Sums raw;
#pragma unroll
    for (int i = 0; i < VEC; ++i) raw.at[i] = v.at[i];
    *reinterpret_cast<Sums *>(to) = raw;
}

// The kernel of a thread's channels; tap[w] multiplies the input of PAST - w steps before.
struct Kernel {
    Values tap[TAPS], bias;

    DEVICE Kernel(const weight_t *weight, const weight_t *offset) {
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
#pragma unroll
            for (int w = 0; w < TAPS; ++w) tap[w].at[i] = weight_to_float(weight[i * TAPS + w]);
            bias.at[i] = offset ? weight_to_float(offset[i]) : 0.0f;
        }
    }

    // The sum before the activation; inputs[0] is the oldest.
    DEVICE Values apply(const Values *inputs) const {
        Values sum = bias;
#pragma unroll
        for (int w = 0; w < TAPS; ++w)
#pragma unroll
            for (int i = 0; i < VEC; ++i) sum.at[i] = fmaf(tap[w].at[i], inputs[w].at[i], sum.at[i]);
        return sum;
    }
};

// Where a thread works: block x is (batch element, block of runs), y the path, z the block of channels; a block's
// threads are lanes along the channels, then runs.
struct Place {
    int batch, path, channel, first, end;
    bool active;

    DEVICE Place(int length, int width, int blocks, int lanes, int run, int path) : path(path) {
        const int lane = threadIdx.x % lanes, mine = threadIdx.x / lanes, runs = blockDim.x / lanes;
        batch = blockIdx.x / blocks;
        channel = (blockIdx.z * lanes + lane) * VEC;
        const long long from = ((long long)(blockIdx.x % blocks) * runs + mine) * run;
        first = from < length ? (int)from : length;
        end = length - first < run ? length : first + run;
        active = channel < width && first < end;
    }
};

// Rows along the path, by step.
struct Path {
    const int *table;
    int length;
    DEVICE int row(int step) const { return table ? table[step] : step; }
    DEVICE bool has(int step) const { return step >= 0 && step < length; }
};

#if !BACKWARD

struct Forward {
    const io_t *x;  // rows of any stride, channels contiguous
    const weight_t *weight;  // (K or 1, D, TAPS), the last two axes contiguous
    const weight_t *bias;  // (K or 1, D) or null
    const int *table;  // (K, L) or null
    io_t *y;  // (B, K, L, D) contiguous
    long long x_batch, x_row, weight_path, bias_path;
    int length, width, paths, blocks, lanes, run, silu;
};

extern "C" __global__ void __launch_bounds__(THREADS) conv_forward(const Forward p) {
    const Place me(p.length, p.width, p.blocks, p.lanes, p.run, blockIdx.y);
    if (!me.active) return;
    const Kernel kernel(p.weight + me.path * p.weight_path + (long long)me.channel * TAPS,
                        p.bias ? p.bias + me.path * p.bias_path + me.channel : nullptr);
    const Path path = {p.table ? p.table + (long long)me.path * p.length : nullptr, p.length};
    const io_t *x = p.x + me.batch * p.x_batch + me.channel;
    io_t *y = p.y + ((long long)me.batch * p.paths + me.path) * p.length * p.width + me.channel;

    Values inputs[PAST + STEPS];
#pragma unroll
    for (int j = 0; j < PAST; ++j) {
        const int t = me.first - PAST + j;
        inputs[j] = t >= 0 ? load(x + path.row(t) * p.x_row) : zeros();
    }
    for (int t = me.first; t < me.end; t += STEPS) {
        int rows[STEPS];
#pragma unroll
        for (int s = 0; s < STEPS; ++s) rows[s] = t + s < me.end ? path.row(t + s) : 0;
#pragma unroll
        for (int s = 0; s < STEPS; ++s) inputs[PAST + s] = t + s < me.end ? load(x + rows[s] * p.x_row) : zeros();
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            if (t + s >= me.end) break;
            Values sum = kernel.apply(inputs + s);
            if (p.silu) {
#pragma unroll
                for (int i = 0; i < VEC; ++i) sum.at[i] = silu(sum.at[i]);
            }
            store(y + (long long)rows[s] * p.width, sum);
        }
#pragma unroll
        for (int j = 0; j < PAST; ++j) inputs[j] = inputs[j + STEPS];
    }
}

#else

struct Backward {
    const io_t *x;
    const weight_t *weight, *bias;
    const int *table;
    const io_t *grad;  // of y; rows of any stride, channels contiguous
    const float *dx_before;  // (B, L, D): the sum over the paths before this one, or null
    float *dx_sum;  // (B, L, D), may be dx_before: the sum so far; null for the last path
    io_t *dx;  // (B, L, D): the sum over all paths; null before the last path, or where x needs no gradient
    float *partial;  // (B * blocks, K, TAPS + 1, D): every block's sums for weight, then bias; null where not needed
    long long x_batch, x_row, weight_path, bias_path, grad_batch, grad_path, grad_row;
    int length, width, paths, path, blocks, lanes, run, silu;
};

// The gradient before the activation, from the activation's argument and the gradient behind it.
DEVICE Values slope_of(const Values &grad, const Values &sum, bool silu) {
    Values slope = grad;
    if (silu) {
#pragma unroll
        for (int i = 0; i < VEC; ++i) {
            const float gate = sigmoid(sum.at[i]);
            slope.at[i] *= gate * fmaf(sum.at[i], 1.0f - gate, 1.0f);
        }
    }
    return slope;
}

// Adds up a block's runs, in a fixed order, and writes the sum of the block.
DEVICE void store_partial(const Values &mine, float *to, float *shared, int lanes) {
    store_sums(shared + threadIdx.x * VEC, mine);
    __syncthreads();
    if (to) {
        Values sum = mine;
        for (int other = threadIdx.x + lanes; other < blockDim.x; other += lanes)
#pragma unroll
            for (int i = 0; i < VEC; ++i) sum.at[i] += shared[other * VEC + i];
        store_sums(to, sum);
    }
    __syncthreads();
}

// The gradients of one path: paths run one after another, so that a row of dx has one writer at a time and the sums have
// one order. A step's slope reaches dx of the PAST steps before it, so that a run goes PAST steps beyond its end.
extern "C" __global__ void __launch_bounds__(THREADS) conv_backward(const Backward p) {
    __shared__ Sums shared[THREADS];
    const Place me(p.length, p.width, p.blocks, p.lanes, p.run, p.path);
    Values dweight[TAPS], dbias = zeros();
#pragma unroll
    for (int w = 0; w < TAPS; ++w) dweight[w] = zeros();
    if (me.active) {
        const Kernel kernel(p.weight + me.path * p.weight_path + (long long)me.channel * TAPS,
                            p.bias ? p.bias + me.path * p.bias_path + me.channel : nullptr);
        const Path path = {p.table ? p.table + (long long)me.path * p.length : nullptr, p.length};
        const io_t *x = p.x + me.batch * p.x_batch + me.channel;
        const io_t *grad = p.grad + me.batch * p.grad_batch + me.path * p.grad_path + me.channel;
        const long long out = (long long)me.batch * p.length * p.width + me.channel;
        const bool wants_dx = p.dx || p.dx_sum;
        Values inputs[PAST + STEPS], slopes[PAST + STEPS];
#pragma unroll
        for (int j = 0; j < PAST; ++j) {
            const int t = me.first - PAST + j;
            inputs[j] = t >= 0 ? load(x + path.row(t) * p.x_row) : zeros();
            slopes[j] = zeros();
        }
        const int last = wants_dx ? me.end + PAST : me.end;
        for (int t = me.first; t < last; t += STEPS) {
#pragma unroll
            for (int s = 0; s < STEPS; ++s) {
                const bool there = t + s < last && t + s < p.length;
                const long long row = there ? path.row(t + s) : 0;
                inputs[PAST + s] = there ? load(x + row * p.x_row) : zeros();
                slopes[PAST + s] = there ? load(grad + row * p.grad_row) : zeros();
            }
#pragma unroll
            for (int s = 0; s < STEPS; ++s) {
                const Values slope = slope_of(slopes[PAST + s], kernel.apply(inputs + s), p.silu);
                slopes[PAST + s] = slope;
                if (t + s < me.end) {
#pragma unroll
                    for (int i = 0; i < VEC; ++i) {
                        dbias.at[i] += slope.at[i];
#pragma unroll
                        for (int w = 0; w < TAPS; ++w)
                            dweight[w].at[i] = fmaf(slope.at[i], inputs[s + w].at[i], dweight[w].at[i]);
                    }
                }
                const int q = t + s - PAST;  // all slopes that reach step q are known now: slopes[s] is q's own
                if (!wants_dx || q < me.first || q >= me.end) continue;
                const long long at = out + (long long)path.row(q) * p.width;
                Values sum = zeros();
                if (p.dx_before) {
                    const Sums before = *reinterpret_cast<const Sums *>(p.dx_before + at);
#pragma unroll
                    for (int i = 0; i < VEC; ++i) sum.at[i] = before.at[i];
                }
#pragma unroll
                for (int j = 0; j < TAPS; ++j)
#pragma unroll
                    for (int i = 0; i < VEC; ++i)
                        sum.at[i] = fmaf(kernel.tap[PAST - j].at[i], slopes[s + j].at[i], sum.at[i]);
                if (p.dx_sum) store_sums(p.dx_sum + at, sum);
                else
                    store(p.dx + at, sum);
            }
#pragma unroll
            for (int j = 0; j < PAST; ++j) {
                inputs[j] = inputs[j + STEPS];
                slopes[j] = slopes[j + STEPS];
            }
        }
    }
    if (!p.partial) return;
    const bool writes = threadIdx.x < p.lanes && me.channel < p.width;
    float *to = p.partial + ((long long)blockIdx.x * p.paths + p.path) * (TAPS + 1) * p.width + me.channel;
#pragma unroll
    for (int w = 0; w <= TAPS; ++w)
        store_partial(w < TAPS ? dweight[w < TAPS ? w : 0] : dbias, writes ? to + (long long)w * p.width : nullptr,
                      shared[0].at, p.lanes);
}

#endif
