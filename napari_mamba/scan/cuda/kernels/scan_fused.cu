// The scan over chunks in one launch: a block finds its chunk's end state, tells of it, gathers its start state from the
// chunks before it, and scans. A chunk's block is started after those of the chunks before it, which never wait for it.
//
// `sum` is where the blocks tell of their chunks, (B, K, chunks, parts) ints and a count, all 0 before a launch and after.
#include "scan_forward.cuh"

#ifndef BLOCKS
#define BLOCKS (512 / THREADS)
#endif
#define CHANNELS 1

DEVICE int* told_at(const Scan& p, int chunk, int part) {
    const int parts = p.width / p.group_width * p.group_blocks;
    const long long sequence = (long long)blockIdx.z * gridDim.y + blockIdx.y;
    return (int*)p.sum + (sequence * p.chunks + chunk) * parts + part;
}

DEVICE void tell(int* at) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) atomicExch(at, 1);
}

DEVICE void wait_for(int* at) {
#ifdef __CUDA_ARCH__
    int there = 0;
    while (!there) asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(there) : "l"(at) : "memory");
#endif
}

// The state before a chunk: what the chunks before it left, from the last one back until nothing more matters.
DEVICE void look_back(const Scan& p, int part, int chunk, int d, const float (&A2)[STATES], float (&h)[STATES]) {
    const long long k = blockIdx.y, b = blockIdx.z;
    const float* state = p.state + b * p.state_b + k * p.state_k + d;
    const float* steps = p.steps + b * p.steps_b + k * p.steps_k + d;
    float slowest = A2[0], total = 0.0f;
#pragma unroll
    for (int n = 1; n < STATES; n++) slowest = fmaxf(slowest, A2[n]);
    for (int c = chunk - 1; c >= 0; c--) {
        wait_for(told_at(p, c, part));
        const float* from = state + (long long)c * STATES * p.width;
        const float sum = __ldcg(steps + (long long)c * p.width);
#pragma unroll
        for (int n = 0; n < STATES; n++) {
            h[n] = fmaf(exp2_special(A2[n] * total), __ldcg(from + (long long)n * p.width), h[n]);
        }
        total += sum;
        if (!__any_sync(FULL_WARP, slowest * total > (IO == 0 ? -24.0f : -16.0f))) break;
    }
}

#define PASS tails
#define MODE 0
#include "scan_chunks.cuh"
#undef PASS
#undef MODE
#define PASS outputs
#define MODE 2
#include "scan_chunks.cuh"

union Rooms {
    tails::Room first;
    outputs::Room second;
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_fused(const Scan p) {
    __shared__ Rooms room;
    const int parts = p.width / p.group_width * p.group_blocks, chunk = (int)(blockIdx.x / parts), part = blockIdx.x % parts;
    if (chunk + 1 < p.chunks) {
        tails::run(p, room.first);
        tell(told_at(p, chunk, part));
    }
    outputs::run(p, room.second);
    // The last block to end leaves zeros.
    __shared__ int last;
    const int blocks = gridDim.x * gridDim.y * gridDim.z;
    int* told = (int*)p.sum;
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(told + blocks, 1) == blocks - 1;
    __syncthreads();
    if (!last) return;
    for (int i = threadIdx.x; i <= blocks; i += THREADS) told[i] = 0;
}
