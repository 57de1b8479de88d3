// Layer norm of the voxels of a channels-first map, written as tokens: both in one pass over the map.
//
// PyTorch makes the map channels-last first, and then gives each row of a few dozen channels a block of its own. Here a
// block takes VOXELS neighbours with all their channels through shared memory, so reads and writes are both of whole
// lines. Statistics are float32, squares about the mean. IO is the map's type; weights and tokens are float.
#include "common.cuh"

#define VOXELS 32
#define WARPS 8

struct TokenNorm {
    const io_t *x;  // (B, channels, voxels) contiguous
    const float *weight, *bias;  // (channels)
    float *y;  // (B, voxels, channels)
    long long voxels;
    int channels;
    float eps;
};

extern __shared__ __align__(16) float tile[];  // [channel][voxel], a column between them for the banks

// The sum over the warps of a voxel's shares, to every thread of its lane.
DEVICE float total(float share, float (&shares)[WARPS][VOXELS], int warp, int lane) {
    __syncthreads();
    shares[warp][lane] = share;
    __syncthreads();
    float sum = shares[0][lane];
#pragma unroll
    for (int w = 1; w < WARPS; ++w) sum += shares[w][lane];
    return sum;
}

// Grid (runs of VOXELS, B), block 32 * WARPS.
extern "C" __global__ void __launch_bounds__(32 * WARPS) token_norm(const TokenNorm p) {
    __shared__ float shares[WARPS][VOXELS], means[VOXELS], scales[VOXELS];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, row = VOXELS + 1;
    const long long first = (long long)blockIdx.x * VOXELS, b = blockIdx.y;
    const long long voxel = first + lane < p.voxels ? first + lane : p.voxels - 1;
    const io_t *x = p.x + b * p.channels * p.voxels + voxel;
    float sum = 0.0f;
    for (int c = warp; c < p.channels; c += WARPS) {
        const float value = to_float(x[c * p.voxels]);
        tile[c * row + lane] = value;
        sum += value;
    }
    const float mean = total(sum, shares, warp, lane) / (float)p.channels;
    float squares = 0.0f;
    for (int c = warp; c < p.channels; c += WARPS) {
        const float apart = tile[c * row + lane] - mean;
        squares = fmaf(apart, apart, squares);
    }
    const float variance = total(squares, shares, warp, lane) / (float)p.channels;
    if (warp == 0) {
        means[lane] = mean;
        scales[lane] = 1.0f / sqrtf(variance + p.eps);
    }
    __syncthreads();
    float *y = p.y + (b * p.voxels + first) * p.channels;
    const int count = (int)(p.voxels - first < VOXELS ? p.voxels - first : VOXELS) * p.channels;
    for (int i = threadIdx.x; i < count; i += 32 * WARPS) {
        const int v = i / p.channels, c = i % p.channels;
        y[i] = fmaf((tile[c * row + v] - means[v]) * scales[v], p.weight[c], p.bias[c]);
    }
}
