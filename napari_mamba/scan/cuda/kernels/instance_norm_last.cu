// Instance norm with scale, offset, a residual and leaky ReLU of channels-last maps, forward only.
//
// A map is (batch, voxels, channels), channels contiguous. A thread always has the same V channels, of every `rows`-th
// voxel of its block's run, so neighbours read neighbouring 16 bytes. Three launches: every run's moments, every
// channel's from them, the outputs. Arithmetic is float32 on x minus the channel's first element, as means and sums of
// squares about the mean, merged in a fixed order (see instance_norm.cu). Macros as there.
#include "common.cuh"

#define THREADS 256
#define ITEMS 8  // voxels of a thread under way at once
#define V (16 / (int)sizeof(io_t))

struct alignas(16) Elements { io_t at[V]; };

struct Last {
    const io_t *x;  // (B, voxels, channels) contiguous
    const weight_t *weight, *bias;  // (channels) or null
    const io_t *residual;  // as x, or null
    io_t *y;  // as x; may be x
    float *partial;  // (B, splits, channels, 2): each run's mean and squares
    float *channel;  // (B, 4, channels): the first element, the mean less that, scale, offset
    long long voxels;
    int channels, splits, run;  // run: voxels of one
    float eps, slope;
};

// A thread's place: its channels, its first voxel and how many voxels lie between its own.
struct Place {
    int groups, rows, group, row;
    long long first, end, base;
    bool mine;

    DEVICE Place(const Last &p, unsigned int split) {
        groups = p.channels / V;
        rows = THREADS / groups;
        group = threadIdx.x % groups;
        row = threadIdx.x / groups;
        mine = row < rows;
        first = (long long)split * p.run;
        end = first + p.run < p.voxels ? first + p.run : p.voxels;
        base = blockIdx.y * p.voxels * p.channels + group * V;
    }
};

// Grid (splits, B).
extern "C" __global__ void __launch_bounds__(THREADS) norm_last_statistics(const Last p) {
    __shared__ float counts[THREADS], means[THREADS * V], squares[THREADS * V];
    const Place at(p, blockIdx.x);
    const io_t *x = p.x + at.base;
    float shift[V];
    Moments all[V];
    const Elements one = *reinterpret_cast<const Elements *>(x);
#pragma unroll
    for (int j = 0; j < V; ++j) {
        shift[j] = to_float(one.at[j]);
        all[j] = {0.0f, 0.0f, 0.0f};
    }
    if (at.mine) {
        for (long long v = at.first + at.row; v < at.end; v += ITEMS * at.rows) {
            Elements raw[ITEMS];
            int count = 0;
#pragma unroll
            for (int i = 0; i < ITEMS; ++i) {
                const long long voxel = v + i * at.rows;
                count += voxel < at.end;
                raw[i] = *reinterpret_cast<const Elements *>(x + (voxel < at.end ? voxel : v) * p.channels);
            }
#pragma unroll
            for (int j = 0; j < V; ++j) {
                Moments here = {(float)count, 0.0f, 0.0f};
#pragma unroll
                for (int i = 0; i < ITEMS; ++i) here.mean += i < count ? to_float(raw[i].at[j]) - shift[j] : 0.0f;
                here.mean /= here.count;
#pragma unroll
                for (int i = 0; i < ITEMS; ++i) {
                    const float apart = to_float(raw[i].at[j]) - shift[j] - here.mean;
                    here.squares += i < count ? apart * apart : 0.0f;
                }
                all[j].add(here);
            }
        }
    }
    counts[threadIdx.x] = all[0].count;
#pragma unroll
    for (int j = 0; j < V; ++j) {
        means[threadIdx.x * V + j] = all[j].mean;
        squares[threadIdx.x * V + j] = all[j].squares;
    }
    __syncthreads();
    for (int n = at.rows; n > 1;) {
        const int half = (n + 1) / 2, other = threadIdx.x + half * at.groups;
        if (at.row < n - half) {
#pragma unroll
            for (int j = 0; j < V; ++j) {
                all[j].add({counts[other], means[other * V + j], squares[other * V + j]});
                means[threadIdx.x * V + j] = all[j].mean;
                squares[threadIdx.x * V + j] = all[j].squares;
            }
            counts[threadIdx.x] = all[0].count;
        }
        __syncthreads();
        n = half;
    }
    if (at.row > 0) return;
    float *to = p.partial + 2 * (((long long)blockIdx.y * p.splits + blockIdx.x) * p.channels + at.group * V);
#pragma unroll
    for (int j = 0; j < V; ++j) {
        to[2 * j] = all[j].mean;
        to[2 * j + 1] = all[j].squares;
    }
}

// Grid (channels / warps of a block, B): a warp merges the runs of one channel.
extern "C" __global__ void __launch_bounds__(THREADS) norm_last_merge(const Last p) {
    const int lane = threadIdx.x % 32, c = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    if (c >= p.channels) return;
    Moments all = {0.0f, 0.0f, 0.0f};
    for (int split = lane; split < p.splits; split += 32) {
        const long long left = p.voxels - (long long)split * p.run;
        const float *from = p.partial + 2 * (((long long)blockIdx.y * p.splits + split) * p.channels + c);
        all.add({(float)(left < p.run ? left : p.run), from[0], from[1]});
    }
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) all.add(all.lower(lanes));
    if (lane > 0) return;
    const float inverse = 1.0f / sqrtf(all.squares / (float)p.voxels + p.eps);
    float *to = p.channel + (long long)blockIdx.y * 4 * p.channels + c;
    to[0] = to_float(p.x[blockIdx.y * p.voxels * p.channels + c]);
    to[p.channels] = all.mean;
    to[2 * p.channels] = p.weight ? weight_to_float(p.weight[c]) * inverse : inverse;
    to[3 * p.channels] = p.bias ? weight_to_float(p.bias[c]) : 0.0f;
}

// Grid (splits, B); blocks go backwards: what the first launch read last is still in the L2 cache.
extern "C" __global__ void __launch_bounds__(THREADS) norm_last_apply(const Last p) {
    const Place at(p, gridDim.x - 1 - blockIdx.x);
    if (!at.mine) return;
    const float *channel = p.channel + (long long)blockIdx.y * 4 * p.channels + at.group * V;
    float shift[V], mean[V], scale[V], offset[V];
#pragma unroll
    for (int j = 0; j < V; ++j) {
        shift[j] = channel[j];
        mean[j] = channel[p.channels + j];
        scale[j] = channel[2 * p.channels + j];
        offset[j] = channel[3 * p.channels + j];
    }
    for (long long v = at.first + at.row; v < at.end; v += ITEMS / 2 * at.rows) {
        Elements raw[ITEMS / 2], more[ITEMS / 2];
#pragma unroll
        for (int i = 0; i < ITEMS / 2; ++i) {
            const long long voxel = v + i * at.rows < at.end ? v + i * at.rows : v;
            raw[i] = *reinterpret_cast<const Elements *>(p.x + at.base + voxel * p.channels);
            if (p.residual) more[i] = *reinterpret_cast<const Elements *>(p.residual + at.base + voxel * p.channels);
        }
#pragma unroll
        for (int i = 0; i < ITEMS / 2; ++i) {
            if (v + i * at.rows >= at.end) break;
#pragma unroll
            for (int j = 0; j < V; ++j) {
                float value = fmaf(to_float(raw[i].at[j]) - shift[j] - mean[j], scale[j], offset[j]);
                if (p.residual) value += to_float(more[i].at[j]);
                raw[i].at[j] = from_float(value > 0.0f ? value : value * p.slope);
            }
            *reinterpret_cast<Elements *>(p.y + at.base + (v + i * at.rows) * p.channels) = raw[i];
        }
    }
}
