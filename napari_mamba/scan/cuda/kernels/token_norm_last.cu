// Layer norm of tokens that already lie channels-last: LANES neighbouring lanes share a row, EACH loads of 16 bytes each.
//
// PyTorch gives each row of a few dozen channels a block of its own. Statistics are float32, squares about the mean. IO is
// the input's type; weights and outputs are float. Macros: LANES a power of two up to 32, EACH.
#include "common.cuh"

#ifndef LANES
#define LANES 8
#endif
#ifndef EACH
#define EACH 1
#endif
#define THREADS 256
#define V (16 / (int)sizeof(io_t))

struct alignas(16) Elements { io_t at[V]; };
struct alignas(16) Four { float at[4]; };

struct TokenNormLast {
    const io_t *x;  // (rows, channels) contiguous
    const float *weight, *bias;  // (channels)
    float *y;  // as x
    long long rows;
    int channels;
    float eps;
};

// The sum over the lanes of a row, in all of them.
DEVICE float total(float share) {
#pragma unroll
    for (int lanes = LANES / 2; lanes > 0; lanes /= 2) share += __shfl_xor_sync(FULL_WARP, share, lanes);
    return share;
}

// Grid (runs of THREADS / LANES rows).
extern "C" __global__ void __launch_bounds__(THREADS) token_norm_last(const TokenNormLast p) {
    const int part = threadIdx.x % LANES;
    const long long row = (long long)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES;
    const io_t *x = p.x + (row < p.rows ? row : p.rows - 1) * p.channels;
    float value[EACH][V], sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int c = (part + e * LANES) * V;
        if (c < p.channels) {
            const Elements raw = *reinterpret_cast<const Elements *>(x + c);
#pragma unroll
            for (int j = 0; j < V; ++j) sum += value[e][j] = to_float(raw.at[j]);
        }
    }
    const float mean = total(sum) / (float)p.channels;
#pragma unroll
    for (int e = 0; e < EACH; ++e)
#pragma unroll
        for (int j = 0; j < V; ++j) {
            value[e][j] -= mean;
            if ((part + e * LANES) * V < p.channels) squares = fmaf(value[e][j], value[e][j], squares);
        }
    const float scale = 1.0f / sqrtf(total(squares) / (float)p.channels + p.eps);
    if (row >= p.rows) return;
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int c = (part + e * LANES) * V;
        if (c >= p.channels) break;
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            Four out;
#pragma unroll
            for (int i = 0; i < 4; ++i)
                out.at[i] = fmaf(value[e][j + i] * scale, p.weight[c + j + i], p.bias[c + j + i]);
            *reinterpret_cast<Four *>(p.y + row * p.channels + c + j) = out;
        }
    }
}
