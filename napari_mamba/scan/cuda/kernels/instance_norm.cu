// Instance norm with scale, offset, a residual and leaky ReLU: forward and backward, channels first.
//
// A row is one channel of one batch element, `size` contiguous elements. Rows are cut into `splits` runs of `tiles`
// tiles, one block a run, so that few channels at high resolution fill the device as well as many small ones. The first
// launch writes every run's sums, the second begins by merging those of its row, in a fixed order; where a row is one
// run there is no first launch. Arithmetic is float32 on x minus the row's first element, as means and sums of squares
// about the mean (Chan, Golub and LeVeque, doi:10.1080/00031305.1983.10483115): a mean that is large against the spread
// costs no digits. Macros beside common.cuh's IO:
//   WIO   type of weight and bias, as IO
#include "common.cuh"

#define THREADS 256
#define WARPS (THREADS / 32)
#define ITEMS 16  // of a thread in a tile
#define VEC (16 / (int)sizeof(io_t))
#define TILE (THREADS * ITEMS)

struct alignas(16) Elements { io_t at[VEC]; };
struct Items { float at[ITEMS]; };

// A run of a row, in tiles.
struct Run {
    long long first, end;
    int row, split;
    bool aligned;  // rows begin at multiples of 16 bytes

    DEVICE Run(unsigned int block, long long size, int splits, int tiles, bool aligned)
        : row((int)(block / (unsigned int)splits)), split((int)(block % (unsigned int)splits)), aligned(aligned) {
        first = (long long)split * tiles * TILE;
        end = first + (long long)tiles * TILE < size ? first + (long long)tiles * TILE : size;
    }
    DEVICE bool whole(long long tile) const { return aligned && tile + TILE <= end; }
};

// The items of a thread are vectors in a WHOLE tile, loaded without a branch between them, so that all are on their way
// at once; else every THREADS-th element, where there is one.
template <bool WHOLE> DEVICE bool has(long long tile, const Run &run, int i) {
    return WHOLE || tile + i * THREADS + threadIdx.x < run.end;
}

template <bool WHOLE> DEVICE Items load(const io_t *row, long long tile, const Run &run) {
    Items items;
    if (WHOLE) {
        const Elements *from = reinterpret_cast<const Elements *>(row + tile) + threadIdx.x;
        Elements raw[ITEMS / VEC];
#pragma unroll
        for (int i = 0; i < ITEMS / VEC; ++i) raw[i] = from[i * THREADS];
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) items.at[i] = to_float(raw[i / VEC].at[i % VEC]);
    } else {
        const io_t *from = row + tile + threadIdx.x;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) items.at[i] = has<false>(tile, run, i) ? to_float(from[i * THREADS]) : 0.0f;
    }
    return items;
}

template <bool WHOLE> DEVICE void store(io_t *row, long long tile, const Run &run, const Items &items) {
    if (WHOLE) {
        Elements *to = reinterpret_cast<Elements *>(row + tile) + threadIdx.x;
#pragma unroll
        for (int i = 0; i < ITEMS / VEC; ++i) {
            Elements raw;
#pragma unroll
            for (int j = 0; j < VEC; ++j) raw.at[j] = from_float(items.at[i * VEC + j]);
            to[i * THREADS] = raw;
        }
    } else {
        io_t *to = row + tile + threadIdx.x;
#pragma unroll
        for (int i = 0; i < ITEMS; ++i)
            if (has<false>(tile, run, i)) to[i * THREADS] = from_float(items.at[i]);
    }
}

// ------------------------------------------------------------------------------------------------------------- sums

// Sums of the gradient before the activation, and of it times the normalised input.
struct Sums {
    float plain, scaled;

    DEVICE void add(const Sums &other) {
        plain += other.plain;
        scaled += other.scaled;
    }
    DEVICE Sums lower(int lanes) const {
        return {__shfl_down_sync(FULL_WARP, plain, lanes), __shfl_down_sync(FULL_WARP, scaled, lanes)};
    }
};

// Gives every thread the block's total, added in one order whatever the threads' timing.
template <class T> DEVICE T block_total(T mine, T *shared) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) mine.add(mine.lower(lanes));
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = mine;
    __syncthreads();
    T total = shared[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) total.add(shared[warp]);
    return total;
}

// ---------------------------------------------------------------------------------------------------------- forward

struct Forward {
    const io_t *x;  // (rows, size) contiguous
    const weight_t *weight, *bias;  // (channels) or null
    const io_t *residual;  // as x, or null
    io_t *y;  // as x; may be x
    // (rows, splits, 2): each run's mean and squares, then (rows): the first elements, which a y over x may have
    // replaced before the last run reads them; null where splits is 1
    float *partial;
    float *saved;  // (rows, 2): mean, less the row's first element, and 1 / standard deviation; or null
    long long size;
    int channels, splits, tiles, aligned;
    float eps, slope;  // of the activation below 0; 1: no activation
};

template <bool WHOLE> DEVICE Moments tile_moments(const io_t *row, long long tile, const Run &run, float shift) {
    const Items items = load<WHOLE>(row, tile, run);
    Moments here = {0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < ITEMS; ++i)
        if (has<WHOLE>(tile, run, i)) {
            here.count += 1.0f;
            here.mean += items.at[i] - shift;
        }
    here.mean *= here.count > 0.0f ? 1.0f / here.count : 0.0f;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i)
        if (has<WHOLE>(tile, run, i)) {
            const float apart = items.at[i] - shift - here.mean;
            here.squares = fmaf(apart, apart, here.squares);
        }
    return here;
}

DEVICE Moments run_moments(const io_t *row, const Run &run, float shift) {
    Moments sum = {0.0f, 0.0f, 0.0f};
    for (long long tile = run.first; tile < run.end; tile += TILE)
        sum.add(run.whole(tile) ? tile_moments<true>(row, tile, run, shift)
                                : tile_moments<false>(row, tile, run, shift));
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) norm_statistics(const Forward p) {
    __shared__ Moments shared[WARPS];
    const Run run(blockIdx.x, p.size, p.splits, p.tiles, p.aligned);
    const io_t *row = p.x + run.row * p.size;
    const float shift = to_float(row[0]);
    const Moments total = block_total(run_moments(row, run, shift), shared);
    if (threadIdx.x == 0) {
        if (run.split == 0) p.partial[2 * (long long)gridDim.x + run.row] = shift;
        p.partial[2 * (long long)blockIdx.x] = total.mean;
        p.partial[2 * (long long)blockIdx.x + 1] = total.squares;
    }
}

// The moments of a row from those of its runs, one a thread.
DEVICE Moments row_moments(const Forward &p, int row) {
    const int split = threadIdx.x;
    if (split >= p.splits) return {0.0f, 0.0f, 0.0f};
    const long long whole = (long long)p.tiles * TILE, left = p.size - split * whole;
    const float *at = p.partial + 2 * ((long long)row * p.splits + split);
    return {(float)(left < whole ? left : whole), at[0], at[1]};
}

struct Affine { float centre, scale, offset, slope; };

template <bool WHOLE>
DEVICE void tile_apply(const io_t *row, const io_t *residual, io_t *y, long long tile, const Run &run, float shift,
                       const Affine &affine) {
    Items items = load<WHOLE>(row, tile, run);
    Items more;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) more.at[i] = 0.0f;
    if (residual) more = load<WHOLE>(residual, tile, run);
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        const float value = fmaf(items.at[i] - shift - affine.centre, affine.scale, affine.offset) + more.at[i];
        items.at[i] = value > 0.0f ? value : value * affine.slope;
    }
    store<WHOLE>(y, tile, run, items);
}

// Blocks go backwards: what the first launch read last is still in the L2 cache.
extern "C" __global__ void __launch_bounds__(THREADS) norm_apply(const Forward p) {
    __shared__ Moments shared[WARPS];
    const Run run(gridDim.x - 1 - blockIdx.x, p.size, p.splits, p.tiles, p.aligned);
    const long long at = run.row * p.size;
    const float shift = p.partial ? p.partial[2 * (long long)gridDim.x + run.row] : to_float(p.x[at]);
    const Moments all = block_total(p.partial ? row_moments(p, run.row) : run_moments(p.x + at, run, shift), shared);
    const float inverse = 1.0f / sqrtf(all.squares / (float)p.size + p.eps);
    if (p.saved && threadIdx.x == 0 && run.split == 0) {
        p.saved[2 * run.row] = all.mean;
        p.saved[2 * run.row + 1] = inverse;
    }
    const int channel = run.row % p.channels;
    const Affine affine = {all.mean, p.weight ? weight_to_float(p.weight[channel]) * inverse : inverse,
                           p.bias ? weight_to_float(p.bias[channel]) : 0.0f, p.slope};
    const io_t *residual = p.residual ? p.residual + at : nullptr;
    for (long long tile = run.first; tile < run.end; tile += TILE) {
        if (run.whole(tile)) tile_apply<true>(p.x + at, residual, p.y + at, tile, run, shift, affine);
        else
            tile_apply<false>(p.x + at, residual, p.y + at, tile, run, shift, affine);
    }
}

// --------------------------------------------------------------------------------------------------------- backward

struct Backward {
    const io_t *x, *grad;  // grad is of y
    const io_t *y;  // where a residual was added: its sign is that of the activation's argument; else null
    const weight_t *weight, *bias;
    const float *saved;
    io_t *dx, *dresidual;  // or null
    float *partial;  // (rows, splits, 2): each run's Sums; null where splits is 1
    float *sums;  // (2, rows): each row's Sums
    long long size;
    int rows, channels, splits, tiles, aligned;
    float slope;
};

// What a block knows of its row.
struct Channel {
    const io_t *x, *grad, *y;
    float shift, mean, inverse, weight, bias, slope;

    DEVICE Channel(const Backward &p, int row) {
        const long long at = row * p.size;
        const int channel = row % p.channels;
        x = p.x + at;
        grad = p.grad + at;
        y = p.y ? p.y + at : nullptr;
        shift = to_float(x[0]);
        mean = p.saved[2 * row];
        inverse = p.saved[2 * row + 1];
        weight = p.weight ? weight_to_float(p.weight[channel]) : 1.0f;
        bias = p.bias ? weight_to_float(p.bias[channel]) : 0.0f;
        slope = p.slope;
    }
    // The normalised input and the gradient before the activation; beyond the row's end that is 0, and adds nothing.
    template <bool WHOLE> DEVICE void read(long long tile, const Run &run, Items &normal, Items &slopes) const {
        normal = load<WHOLE>(x, tile, run);
        slopes = load<WHOLE>(grad, tile, run);
#pragma unroll
        for (int i = 0; i < ITEMS; ++i) normal.at[i] = (normal.at[i] - shift - mean) * inverse;
        if (y) {
            const Items result = load<WHOLE>(y, tile, run);
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) slopes.at[i] *= result.at[i] > 0.0f ? 1.0f : slope;
        } else {
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) slopes.at[i] *= fmaf(normal.at[i], weight, bias) > 0.0f ? 1.0f : slope;
        }
    }
};

template <bool WHOLE> DEVICE Sums tile_sums(const Channel &channel, long long tile, const Run &run) {
    Items normal, slopes;
    channel.read<WHOLE>(tile, run, normal, slopes);
    Sums sum = {0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < ITEMS; ++i) {
        sum.plain += slopes.at[i];
        sum.scaled = fmaf(slopes.at[i], normal.at[i], sum.scaled);
    }
    return sum;
}

DEVICE Sums run_sums(const Channel &channel, const Run &run) {
    Sums sum = {0.0f, 0.0f};
    for (long long tile = run.first; tile < run.end; tile += TILE)
        sum.add(run.whole(tile) ? tile_sums<true>(channel, tile, run) : tile_sums<false>(channel, tile, run));
    return sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) norm_sums(const Backward p) {
    __shared__ Sums shared[WARPS];
    const Run run(blockIdx.x, p.size, p.splits, p.tiles, p.aligned);
    const Sums total = block_total(run_sums(Channel(p, run.row), run), shared);
    if (threadIdx.x == 0) {
        p.partial[2 * (long long)blockIdx.x] = total.plain;
        p.partial[2 * (long long)blockIdx.x + 1] = total.scaled;
    }
}

DEVICE Sums row_sums(const Backward &p, int row) {
    const int split = threadIdx.x;
    if (split >= p.splits) return {0.0f, 0.0f};
    const float *at = p.partial + 2 * ((long long)row * p.splits + split);
    return {at[0], at[1]};
}

// dx and the residual's gradient of a tile; `mean` is of the row's Sums.
template <bool WHOLE>
DEVICE void tile_gradient(const Channel &channel, io_t *dx, io_t *dresidual, long long tile, const Run &run,
                          const Sums &mean) {
    Items normal, slopes;
    channel.read<WHOLE>(tile, run, normal, slopes);
    if (dresidual) store<WHOLE>(dresidual, tile, run, slopes);
    if (!dx) return;
    const float scale = channel.weight * channel.inverse;
#pragma unroll
    for (int i = 0; i < ITEMS; ++i)
        normal.at[i] = scale * (slopes.at[i] - mean.plain - normal.at[i] * mean.scaled);
    store<WHOLE>(dx, tile, run, normal);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4) norm_gradient(const Backward p) {
    __shared__ Sums shared[WARPS];
    const Run run(gridDim.x - 1 - blockIdx.x, p.size, p.splits, p.tiles, p.aligned);
    const Channel channel(p, run.row);
    const Sums all = block_total(p.partial ? row_sums(p, run.row) : run_sums(channel, run), shared);
    if (threadIdx.x == 0 && run.split == 0) {
        p.sums[run.row] = all.plain;
        p.sums[p.rows + run.row] = all.scaled;
    }
    if (!p.dx && !p.dresidual) return;
    const Sums mean = {all.plain / (float)p.size, all.scaled / (float)p.size};
    const long long at = run.row * p.size;
    io_t *dx = p.dx ? p.dx + at : nullptr, *dresidual = p.dresidual ? p.dresidual + at : nullptr;
    for (long long tile = run.first; tile < run.end; tile += TILE) {
        if (run.whole(tile)) tile_gradient<true>(channel, dx, dresidual, tile, run, mean);
        else
            tile_gradient<false>(channel, dx, dresidual, tile, run, mean);
    }
}
