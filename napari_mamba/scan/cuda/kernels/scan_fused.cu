// The scan over chunks in one launch: a block finds its chunk's end state, tells of it, gathers its start state from the
// chunks before it, and scans. So no block waits for the last one of a pass, and two launches are saved.
//
// A chunk's block is started after those of the chunks before it, which never wait for it: a grid's blocks start in the
// order of their numbers. What was told is gathered in an order that depends on the steps alone, so that a call gives
// the same bits again. Where steps are small many chunks matter, so GROUP chunks are told of together as well, by the
// block of the last of them: their end states lie in `state` behind those of the chunks.
//
// A block is told of by TAG in `told`, whose memory holds anything but TAG before a launch (a NaN that no arithmetic
// makes), and zeros after it. Source: the decoupled look-back of Merrill and Garland (NVR-2016-002), without its
// prefixes, which make the order of a sum depend on time.
#include "scan_forward.cuh"

#ifndef BLOCKS
#define BLOCKS (512 / THREADS)
#endif
#ifndef CHANNELS
#define CHANNELS 1
#endif
#ifndef STAGED
#define STAGED 0
#endif
#define GROUP 16  // chunks
#define TAG 0x7fa5c3e1u
#define MATTERS (IO == 0 ? -24.0f : -16.0f)  // DEAD of scan_chunks.cuh
#define SPACING (STAGED ? 1 : THREADS)

typedef float States[CHANNELS][STATES];

DEVICE int parts_of(const Scan& p) { return p.width / p.group_width * p.group_blocks; }
DEVICE int slots_of(const Scan& p) { return p.chunks + p.chunks / GROUP; }

// `told` begins with the count of blocks that have ended.
DEVICE unsigned int* told_at(const Scan& p, int slot, int part) {
    const long long sequence = (long long)blockIdx.z * gridDim.y + blockIdx.y;
    return (unsigned int*)p.told + 2 + (sequence * slots_of(p) + slot) * parts_of(p) + part;
}

// By the whole block, once its threads have written what is told of.
DEVICE void tell(unsigned int* at) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) atomicExch(at, TAG);
}

DEVICE unsigned int acquired(const unsigned int* at) {
#ifdef __CUDA_ARCH__
    unsigned int value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
    return value;
#else
    return *at;
#endif
}

// Add to `h` what a slot's end state leaves after the steps of `total`; whether what lies before it may still matter.
DEVICE bool add_slot(const Scan& p, int part, int slot, int d, const States& A2, const float (&slowest)[CHANNELS],
                     States& h, float (&total)[CHANNELS]) {
    const long long k = blockIdx.y, b = blockIdx.z;
    const float* from = p.state + b * p.state_b + k * p.state_k + (long long)slot * STATES * p.width + d;
    const float* steps = p.steps + b * p.steps_b + k * p.steps_k + (long long)slot * p.width + d;
    while (acquired(told_at(p, slot, part)) != TAG) __nanosleep(20);
    bool matters = false;
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        const float sum = __ldcg(steps + c * SPACING);
#pragma unroll
        for (int n = 0; n < STATES; n++) {
            const float end = __ldcg(from + (long long)n * p.width + c * SPACING);
            h[c][n] = fmaf(exp2_special(A2[c][n] * total[c]), end, h[c][n]);
        }
        total[c] += sum;
        matters = matters || slowest[c] * total[c] > MATTERS;
    }
    return __any_sync(FULL_WARP, matters);
}

DEVICE void slowest_of(const States& A2, float (&slowest)[CHANNELS]) {
#pragma unroll
    for (int c = 0; c < CHANNELS; c++) {
        slowest[c] = A2[c][0];
#pragma unroll
        for (int n = 1; n < STATES; n++) slowest[c] = fmaxf(slowest[c], A2[c][n]);
    }
}

// The state before a chunk: what the chunks before it left, from the last one back until nothing more matters.
DEVICE void look_back(const Scan& p, int part, int chunk, int d, const States& A2, States& h) {
    float slowest[CHANNELS], total[CHANNELS] = {};
    slowest_of(A2, slowest);
    bool more = true;
    for (int c = chunk; c > 0 && more;) {
        const bool group = c % GROUP == 0;
        c -= group ? GROUP : 1;
        more = add_slot(p, part, group ? p.chunks + c / GROUP : c, d, A2, slowest, h, total);
    }
}

// Tell of a chunk, whose end state is written, and of the group that it ends.
DEVICE void tell_group(const Scan& p, int part, int chunk, int d, bool mine, const States& A2, States& h,
                       float (&total)[CHANNELS]) {
    tell(told_at(p, chunk, part));
    if ((chunk + 1) % GROUP) return;
    const int slot = p.chunks + chunk / GROUP;
    const long long k = blockIdx.y, b = blockIdx.z;
    float slowest[CHANNELS];
    slowest_of(A2, slowest);
    bool more = true;
    for (int c = chunk - 1; c > chunk - GROUP && more; c--) more = add_slot(p, part, c, d, A2, slowest, h, total);
    if (mine) {
        float* to = p.state + b * p.state_b + k * p.state_k + (long long)slot * STATES * p.width + d;
        float* steps = p.steps + b * p.steps_b + k * p.steps_k + (long long)slot * p.width + d;
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
#pragma unroll
            for (int n = 0; n < STATES; n++) to[(long long)n * p.width + c * SPACING] = h[c][n];
            steps[c * SPACING] = total[c];
        }
    }
    tell(told_at(p, slot, part));
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

// The last block to end leaves zeros.
DEVICE void leave_zeros(const Scan& p) {
    __shared__ bool last;
    unsigned int* told = (unsigned int*)p.told;
    const unsigned int blocks = gridDim.x * gridDim.y * gridDim.z;
    __syncthreads();
    if (threadIdx.x == 0) {
        while (acquired(told + 1) != TAG) __nanosleep(20);
        __threadfence();
        last = atomicAdd(told, 1u) == blocks - 1;
    }
    __syncthreads();
    if (!last) return;
    const long long flags = 2 + (long long)slots_of(p) * parts_of(p) * gridDim.y * gridDim.z;
    for (long long i = threadIdx.x; i < flags; i += THREADS) told[i] = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) scan_fused(const Scan p) {
    __shared__ Rooms room;
    const int parts = parts_of(p), chunk = (int)(blockIdx.x / parts);
    if (threadIdx.x == 0 && blockIdx.x == 0 && blockIdx.y == 0 && blockIdx.z == 0) {
        p.told[0] = 0;
        __threadfence();
        atomicExch((unsigned int*)p.told + 1, TAG);
    }
    if (chunk + 1 < p.chunks) tails::run(p, room.first);
    __syncthreads();
    outputs::run(p, room.second);
    leave_zeros(p);
}
