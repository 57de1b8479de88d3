// Kernels that are right and kernels that are wrong in one way each; built by test_cuda_emulator.py alone.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

struct Shape { int count; float scale; };

template <int warps> __device__ __forceinline__ float total(float v) {
    __shared__ float parts[warps];
#pragma unroll
    for (int by = 16; by; by >>= 1) v += __shfl_xor_sync(0xFFFFFFFFu, v, by);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < warps; ++i) v += parts[i];
    return v;
}

extern "C" __global__ void __launch_bounds__(128, 2) block_sums(const float *__restrict__ x, float *y, Shape shape) {
    extern __shared__ __align__(16) float stage[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    stage[threadIdx.x] = i < shape.count ? x[i] : 0.0f;
    __syncthreads();
    const float sum = total<4>(stage[127 - threadIdx.x]);
    if (threadIdx.x == 0) y[blockIdx.x] = sum * shape.scale;
}

extern "C" __global__ void shuffles(int *out) {
    const int i = threadIdx.x;
    out[i] = __shfl_up_sync(0xFFFFFFFFu, i, 3);
    out[32 + i] = __shfl_down_sync(0xFFFFFFFFu, i, 5, 16);
    out[64 + i] = __shfl_sync(0xFFFFFFFFu, i, 7, 8);
    out[96 + i] = int(__ballot_sync(0xFFFFFFFFu, i % 3 == 0));
    if (i < 16) out[128 + i] = __shfl_sync(0x0000FFFFu, i, 20);  // lane 20 does not take part
    __syncwarp();
    out[144 + i] = __syncthreads_count(i < 9);
}

extern "C" __global__ void rounds(const float *x, unsigned short *halves, unsigned short *brains) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    halves[i] = __half_as_ushort(__float2half_rn(x[i]));
    brains[i] = __bfloat16_as_ushort(__float2bfloat16_rn(x[i]));
}

extern "C" __global__ void widens(const __half *halves, const __nv_bfloat16 *brains, float *x, float *y) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = __half2float(halves[i]);
    y[i] = __bfloat162float(brains[i]);
}

extern "C" __global__ void unset_shared(float *out) {
    __shared__ float never_set[32];
    out[threadIdx.x] = never_set[threadIdx.x];
}

extern "C" __global__ void missing_barrier(int *out) {
    __shared__ int values[64];
    values[threadIdx.x] = 7;
    out[threadIdx.x] = values[63 - threadIdx.x];
}

extern "C" __global__ void split_barrier() {
    if (threadIdx.x < 32) __syncthreads();
    else
        __syncthreads();
}

extern "C" __global__ void lane_elsewhere(int *out) {
    if (threadIdx.x == 3) __syncthreads();
    out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);
    if (threadIdx.x != 3) __syncthreads();
}

extern "C" __global__ void foreign_mask() { __syncwarp(0x0000FFFFu); }

extern "C" __global__ void misaligned(float *x) { *reinterpret_cast<float4 *>(x + 1) = make_float4(0, 0, 0, 0); }

extern "C" __global__ void outside(int *out, int i) {
    __shared__ int values[8];
    values[i] = 1;
    out[0] = values[i];
}

extern "C" __global__ void beyond_dynamic(int i) {
    extern __shared__ int dynamic[];
    dynamic[i] = 1;
}

extern "C" __global__ void spins(volatile int *flag) {
    while (*flag == 0) {}
}

extern "C" __global__ void hands_over(volatile int *flag) {
    __shared__ int seen;
    if (threadIdx.x == 0) {
        while (atomicAdd(const_cast<int *>(flag), 0) == 0) __nanosleep(20);
        seen = 1;
    }
    if (threadIdx.x == blockDim.x - 1) *flag = 1;
    __syncthreads();
    if (threadIdx.x == 1) flag[1] = seen;
}
