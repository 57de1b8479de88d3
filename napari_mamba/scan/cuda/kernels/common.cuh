// What every kernel of the CUDA backend shares: element types, exponentials, row addresses.
//
// Sources are compiled by NVRTC with no header but this one, and by g++ through the tests' emulator, so inline PTX has a
// plain C++ fallback where __CUDA_ARCH__ is not defined. Each kernel is `extern "C" __global__`, takes ONE struct by
// value (host side: the struct's `layout` for Python's struct module, native alignment), and is made for a problem by
// macros:
//   IO       type of u, delta, B, C, z and of 16-bit outputs: 0 float, 1 half, 2 bfloat16
//   WIO      type of weights, where they have one of their own, as IO
//   STATES   N, 1..64
//   POLY     every POLY-th state's exponential is a polynomial on the FMA units; 0: all on the special-function unit
#pragma once

#ifndef IO
#define IO 0
#endif
#ifndef POLY
#define POLY 0
#endif

#if IO == 0
typedef float io_t;
#else
typedef unsigned short io_t;
#endif

#define LOG2E 1.4426950408889634f
#define LN2 0.6931471805599453f
#define FULL_WARP 0xffffffffu
#define DEVICE __device__ __forceinline__

// ---------------------------------------------------------------------------------------------------- element types

DEVICE float bits_to_float(unsigned int bits) { return __int_as_float((int)bits); }
DEVICE unsigned int float_to_bits(float x) { return (unsigned int)__float_as_int(x); }

// Half and bfloat16 travel as their 16 bits.
DEVICE float half_to_float(unsigned short bits) {
#ifdef __CUDA_ARCH__
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
#else
    unsigned int sign = (unsigned int)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, mantissa = bits & 1023u;
    if (exponent == 0) return bits_to_float(sign | 0x3f800000u) * (float)mantissa * 5.9604644775390625e-8f;
    return bits_to_float(sign | (exponent == 31 ? 0x7f800000u : (exponent + 112u) << 23) | mantissa << 13);
#endif
}

DEVICE unsigned short float_to_half(float x) {
#ifdef __CUDA_ARCH__
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
#else
    unsigned int bits = float_to_bits(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return (unsigned short)(sign | 0x7e00u);
    if (size >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
    if (size < 0x38800000u) {  // subnormal: adding 0.5 leaves the half's bits at the end of the mantissa, rounded
        return (unsigned short)(sign | (float_to_bits(bits_to_float(size) + 0.5f) - 0x3f000000u));
    }
    return (unsigned short)(sign | ((size + 0xc8000fffu + (size >> 13 & 1u)) >> 13));
#endif
}

DEVICE float bfloat_to_float(unsigned short bits) { return bits_to_float((unsigned int)bits << 16); }

DEVICE unsigned short float_to_bfloat(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    unsigned short rounded;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
    return rounded;
#else
    unsigned int bits = float_to_bits(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)(bits >> 16 | 0x40u);
    return (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);  // to nearest, ties to even
#endif
}

#if IO == 0
DEVICE float to_float(io_t x) { return x; }
DEVICE io_t from_float(float x) { return x; }
#elif IO == 1
DEVICE float to_float(io_t x) { return half_to_float(x); }
DEVICE io_t from_float(float x) { return float_to_half(x); }
#else
DEVICE float to_float(io_t x) { return bfloat_to_float(x); }
DEVICE io_t from_float(float x) { return float_to_bfloat(x); }
#endif

// Weights may have another type than the maps: WIO, as IO.
#ifndef WIO
#define WIO 0
#endif
#if WIO == 0
typedef float weight_t;
DEVICE float weight_to_float(weight_t x) { return x; }
#elif WIO == 1
typedef unsigned short weight_t;
DEVICE float weight_to_float(weight_t x) { return half_to_float(x); }
#else
typedef unsigned short weight_t;
DEVICE float weight_to_float(weight_t x) { return bfloat_to_float(x); }
#endif

// ----------------------------------------------------------------------------------------------------- exponentials

// 2^x on the special-function unit, 16 a clock and multiprocessor; relative error 2^-22, subnormals flushed to 0.
DEVICE float exp2_special(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return exp2f(x);
#endif
}

// 2^x for x <= 127 on the FMA units: x = n + f with |f| <= 1/2, a minimax polynomial of degree 5 for 2^f, n added to the
// exponent. Relative error 2e-7; the constant term is exactly 1, so that a decay near 1, which acts over thousands of
// steps, has no bias. Adding 1.5·2^23 rounds to an integer, which is then in the low bits. Below -126: 2^-126.
DEVICE float exp2_fma(float x) {
    x = fmaxf(x, -126.0f);
    float shifted = x + 12582912.0f;
    float f = x - (shifted - 12582912.0f);
    float p = 1.326472614891827e-3f;
    p = fmaf(p, f, 9.671512991189957e-3f);
    p = fmaf(p, f, 5.550733581185341e-2f);
    p = fmaf(p, f, 2.402224242687225e-1f);
    p = fmaf(p, f, 6.931470036506653e-1f);
    p = fmaf(p, f, 1.0f);
    return __int_as_float(__float_as_int(p) + (int)(float_to_bits(shifted) << 23));
}

// 2^x for state n (a constant after unrolling).
DEVICE float exp2_state(int n, float x) { return POLY > 0 && n % (POLY > 0 ? POLY : 1) == POLY - 1 ? exp2_fma(x) : exp2_special(x); }

DEVICE float log2_special(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return log2f(x);
#endif
}

DEVICE float reciprocal(float x) {
#ifdef __CUDA_ARCH__
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1.0f / x;
#endif
}

// log(1 + exp(x)); above 20 it is x. Below -4 the sum loses exp(x)'s low bits, so a series takes over there: the step
// sizes of a trained network are small, and their relative error is the output's.
DEVICE float softplus(float x) {
    float e = exp2_special(x * LOG2E);
    float y = log2_special(1.0f + e) * LN2;
    float series = e * fmaf(e, fmaf(e, fmaf(e, -0.25f, 0.33333334f), -0.5f), 1.0f);
    y = e < 0.03f ? series : y;
    return x > 20.0f ? x : y;
}

DEVICE float sigmoid(float x) { return reciprocal(1.0f + exp2_special(-x * LOG2E)); }
DEVICE float silu(float x) { return x * sigmoid(x); }

// ---------------------------------------------------------------------------------------------------------- moments

// How many numbers, their mean, the sum of their squares about it.
struct Moments {
    float count, mean, squares;

    DEVICE void add(const Moments &other) {
        const float total = count + other.count;
        const float share = total > 0.0f ? other.count / total : 0.0f, apart = other.mean - mean;
        mean = fmaf(apart, share, mean);
        squares += fmaf(apart * apart * count, share, other.squares);
        count = total;
    }
    DEVICE Moments lower(int lanes) const {
        return {__shfl_down_sync(FULL_WARP, count, lanes), __shfl_down_sync(FULL_WARP, mean, lanes),
                __shfl_down_sync(FULL_WARP, squares, lanes)};
    }
};

// ------------------------------------------------------------------------------------- launches that overlap, copies

// Programmatic dependent launch (compute capability 9.0 and later): a kernel may start before the one ahead of it has
// ended, where the host allows it. What it reads of the earlier ones, or writes where these read, comes after
// `wait_for_earlier`; `let_later_start` in the earlier one says that the later may take the multiprocessors it leaves.
// Every thread of a kernel that is launched so waits, so that a kernel's end is the end of all before it.
DEVICE void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
DEVICE void let_later_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// 16 bytes from global to shared memory, past the registers; done for this thread after `copies_done`.
DEVICE void copy_16(void* to, const void* from) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    const unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(at), "l"(from) : "memory");
#else
    struct alignas(16) Sixteen {
        unsigned int w[4];
    };
    *(Sixteen*)to = *(const Sixteen*)from;
#endif
}
DEVICE void copies_done() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
