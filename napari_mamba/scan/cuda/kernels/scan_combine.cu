// Between the chunks: end states become start states, in place; and the merge of paths.
#include "scan_forward.cuh"

#ifndef WARPS
#define WARPS 32
#endif
#define BATCH 8  // chunks whose loads are under way together

// A lane is one (state, channel), a warp a run of chunks; nobody made an end state of the last chunk, nor is it used. Every warp folds its run, then the runs before it, and goes over
// its run again, which is in the cache by now. sum of steps -> decay: one exponential for a chunk and state.
extern "C" __global__ void __launch_bounds__(32 * WARPS) scan_combine(const Scan p) {
    __shared__ float run_state[WARPS][32], run_steps[WARPS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, size = STATES * p.width;
    const long long k = blockIdx.y, b = blockIdx.z;
    const int index = blockIdx.x * 32 + lane, at = min(index, size - 1), n = at / p.width, d = at % p.width;
    const float A2 = p.A[(k * p.width + d) * STATES + n] * LOG2E;
    float* state = p.state + b * p.state_b + k * p.state_k + at;
    const float* steps = p.steps + b * p.steps_b + k * p.steps_k + d;
    const int each = (p.chunks + WARPS - 1) / WARPS;
    const int from = min(p.chunks, warp * each), to = min(p.chunks, from + each);

    float h = 0.0f, total = 0.0f;
    auto fold = [&](bool write) {
        for (int c = from; c < to; c += BATCH) {
            float ends[BATCH], sums[BATCH];
#pragma unroll
            for (int j = 0; j < BATCH; j++) {
                const long long chunk = min(c + j, to - 1);
                ends[j] = state[chunk * size];
                sums[j] = steps[chunk * p.width];
            }
#pragma unroll
            for (int j = 0; j < BATCH; j++) {
                if (c + j < to) {
                    if (write && index < size) state[(long long)(c + j) * size] = h;
                    h = fmaf(h, exp2_special(A2 * sums[j]), ends[j]);
                    total += sums[j];
                }
            }
        }
    };
    let_later_start();
    wait_for_earlier();
    fold(false);
    run_state[warp][lane] = h;
    run_steps[warp][lane] = total;
    __syncthreads();
    h = 0.0f;
    for (int w = 0; w < warp; w++) h = fmaf(h, exp2_special(A2 * run_steps[w][lane]), run_state[w][lane]);
    fold(true);
}

// out = sum over paths of `sum` (float, (B, K, L, D), strides out_b, out_k) times silu(z). A thread is one element.
extern "C" __global__ void __launch_bounds__(256) merge_paths(const Scan p) {
    const long long i = blockIdx.x * 256LL + threadIdx.x, b = blockIdx.z;
    if (i >= (long long)p.length * p.width) return;
    float y = 0.0f;
    for (int k = 0; k < p.chunks; k++) y += p.sum[b * p.out_b + k * p.out_k + i];
#if HAS_Z
    y *= silu(to_float(p.z[b * p.z_b + i / p.width * p.z_l + i % p.width]));
#endif
    p.out[b * p.length * p.width + i] = to_out(y);
}
