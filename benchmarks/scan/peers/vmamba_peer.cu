// VMamba's selective scan ("oflex") for callers without PyTorch's C++: plain C functions on device addresses, for float32
// and bfloat16 and sequences above 1024 positions, where VMamba has blocks of 128 threads with 16 positions each. Built by
// build_vmamba.sh against a clone of github.com/MzeroMiko/VMamba (Liu et al., arXiv:2401.10166), of which nothing is here.
#include "cusoflex/selective_scan_bwd_kernel_oflex.cuh"
#include "cusoflex/selective_scan_fwd_kernel_oflex.cuh"

// u, delta, y, their gradients: (batch, channels, length); B, C: (batch, 1, states, length); A: (channels, states). All
// contiguous; gradients of B and C float32, zeroed before, as those of A, D and the bias.
struct Problem {
    int batch, channels, length, states;
    void *u, *delta, *A, *B, *C, *D, *bias, *y, *ends;  // ends: (batch, channels, length / 2048 up, 2 * states) float32
    void *dy, *du, *ddelta, *dA, *dB, *dC, *dD, *dbias;
};

static void fill(SSMParamsBase &p, const Problem &x, void *out) {
    p.batch = x.batch, p.dim = x.channels, p.seqlen = x.length, p.dstate = x.states, p.n_groups = 1;
    p.n_chunks = (x.length + 2047) / 2048, p.dim_ngroups_ratio = x.channels, p.dim_deltagroups_ratio = 1;
    p.delta_softplus = true;
    p.A_d_stride = x.states, p.A_dstate_stride = 1;
    p.B_batch_stride = p.B_group_stride = p.C_batch_stride = p.C_group_stride = x.states * x.length;
    p.B_dstate_stride = p.C_dstate_stride = x.length;
    p.u_batch_stride = p.delta_batch_stride = p.out_batch_stride = x.channels * x.length;
    p.u_d_stride = p.delta_d_stride = p.out_d_stride = x.length;
    p.A_ptr = x.A, p.B_ptr = x.B, p.C_ptr = x.C, p.D_ptr = x.D, p.u_ptr = x.u, p.delta_ptr = x.delta;
    p.delta_bias_ptr = x.bias, p.out_ptr = out, p.x_ptr = x.ends;
}

template <class T>
static void forward(const Problem &x, cudaStream_t stream) {
    SSMParamsBase p = {};
    fill(p, x, x.y);
    selective_scan_fwd_launch<128, 16, T, float, T>(p, stream);
}

template <class T>
static void backward(const Problem &x, cudaStream_t stream) {
    SSMParamsBwd p = {};
    fill(p, x, x.dy);
    p.dout_ptr = x.dy, p.du_ptr = x.du, p.ddelta_ptr = x.ddelta, p.dA_ptr = x.dA, p.dB_ptr = x.dB, p.dC_ptr = x.dC;
    p.dD_ptr = x.dD, p.ddelta_bias_ptr = x.dbias;
    p.dout_batch_stride = p.du_batch_stride = p.ddelta_batch_stride = x.channels * x.length;
    p.dout_d_stride = p.du_d_stride = p.ddelta_d_stride = x.length;
    p.dA_d_stride = x.states, p.dA_dstate_stride = 1;
    p.dB_batch_stride = p.dB_group_stride = p.dC_batch_stride = p.dC_group_stride = x.states * x.length;
    p.dB_dstate_stride = p.dC_dstate_stride = x.length;
    selective_scan_bwd_launch<128, 16, T, float, T>(p, stream);
}

// Return the runtime's error, 0 for none.
extern "C" int vmamba_forward(const Problem *x, int half, void *stream) {
    if (half) forward<c10::BFloat16>(*x, (cudaStream_t)stream);
    else forward<float>(*x, (cudaStream_t)stream);
    return (int)cudaGetLastError();
}

extern "C" int vmamba_backward(const Problem *x, int half, void *stream) {
    if (half) backward<c10::BFloat16>(*x, (cudaStream_t)stream);
    else backward<float>(*x, (cudaStream_t)stream);
    return (int)cudaGetLastError();
}
