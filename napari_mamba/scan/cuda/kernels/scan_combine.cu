// Between the chunks: end states become start states, in place, and the last state is written; and the merge of paths.
#include "scan_forward.cuh"

#ifndef WARPS
#define WARPS 32
#endif
#define BATCH 8  // chunks whose loads are under way together

// A lane is one (state, channel), a warp a run of chunks. Every warp folds its run, then the runs before it, and goes over
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
    fold(false);
    run_state[warp][lane] = h;
    run_steps[warp][lane] = total;
    __syncthreads();
    h = 0.0f;
    for (int w = 0; w < warp; w++) h = fmaf(h, exp2_special(A2 * run_steps[w][lane]), run_state[w][lane]);
    fold(true);
    if (warp == WARPS - 1 && index < size) p.last[b * p.last_b + (k * p.width + d) * STATES + n] = h;
}

// The state before every piece: what mode 1 left of it, and the decayed start state of its chunk. A thread is one
// (state, channel), a block 256 of one piece.
extern "C" __global__ void __launch_bounds__(256) scan_keep(const Scan p) {
    const int size = STATES * p.width, blocks = (size + 255) / 256;
    const int piece = blockIdx.x / blocks, at = blockIdx.x % blocks * 256 + threadIdx.x;
    if (at >= size) return;
    const int n = at / p.width, d = at % p.width, ratio = p.chunk / PIECE;
    const long long k = blockIdx.y, b = blockIdx.z;
    float* kept = p.kept + kept_at(p, b, k, piece) + at;
    const float state = p.state[b * p.state_b + k * p.state_k + (long long)(piece / ratio) * size + at];
    if (piece % ratio == 0) {
        *kept = state;
    } else {
        const float A2 = p.A[(k * p.width + d) * STATES + n] * LOG2E;
        *kept = fmaf(state, exp2_special(A2 * p.kept_steps[kept_steps_at(p, b, k, piece) + d]), *kept);
    }
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
