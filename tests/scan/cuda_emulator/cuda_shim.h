// CUDA C++ as g++ sees it: the built-in variables, types and functions that the kernels of this project use.
#pragma once
#include <climits>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "fibers.h"

#define __global__ __attribute__((used))
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __grid_constant__
#define __syncthreads() ((void)emulator::barrier(false, __FILE__, __LINE__))
#define __syncthreads_count(p) emulator::barrier((p) != 0, __FILE__, __LINE__)
#define __syncthreads_or(p) (emulator::barrier((p) != 0, __FILE__, __LINE__) != 0)
#define __syncthreads_and(p) (emulator::barrier((p) == 0, __FILE__, __LINE__) == 0)
#define EMULATOR_MASK(first, ...) first
#define __syncwarp(...) ((void)emulator::collective(EMULATOR_MASK(__VA_OPT__(__VA_ARGS__, ) 0xFFFFFFFFu), 0, __FILE__, __LINE__))
#define __shfl_sync(...) emulator::shuffle(__FILE__, __LINE__, emulator::from_lane, __VA_ARGS__)
#define __shfl_xor_sync(...) emulator::shuffle(__FILE__, __LINE__, emulator::from_xor, __VA_ARGS__)
#define __shfl_up_sync(...) emulator::shuffle(__FILE__, __LINE__, emulator::from_up, __VA_ARGS__)
#define __shfl_down_sync(...) emulator::shuffle(__FILE__, __LINE__, emulator::from_down, __VA_ARGS__)
#define __ballot_sync(mask, p) emulator::ballot(mask, p, __FILE__, __LINE__)
#define __any_sync(mask, p) (emulator::ballot(mask, p, __FILE__, __LINE__) != 0)
#define __all_sync(mask, p) (emulator::ballot(mask, !(p), __FILE__, __LINE__) == 0)
#define __activemask() emulator::no_activemask()

namespace emulator {

inline int lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

enum Source { from_lane, from_xor, from_up, from_down };

template <class T>
T shuffle(const char *file, int line, Source source, unsigned mask, T value, int by, int width = 32) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    const uint64_t *all = collective(mask, bits, file, line);
    const int me = lane(), start = me / width * width;
    int other = me;
    if (source == from_lane) other = start + (by & (width - 1));
    if (source == from_xor && (me ^ by) < start + width) other = me ^ by;
    if (source == from_up && me - by >= start) other = me - by;
    if (source == from_down && me + by < start + width) other = me + by;
    memcpy(&value, &all[other], sizeof(T));  // poison where that lane did not take part
    return value;
}

inline unsigned ballot(unsigned mask, int predicate, const char *file, int line) {
    const uint64_t *all = collective(mask, predicate != 0, file, line);
    unsigned votes = 0;
    for (int i = 0; i < 32; ++i) votes |= unsigned(all[i] == 1) << i;
    return votes;
}

inline unsigned no_activemask() { fail("__activemask() depends on the device's scheduling; name the lanes"); }

}  // namespace emulator

#define EMULATOR_VECTOR(T, name, bytes2, bytes4)                                                   \
    struct name##1 { T x; };                                                                       \
    struct alignas(bytes2) name##2 { T x, y; };                                                    \
    struct name##3 { T x, y, z; };                                                                 \
    struct alignas(bytes4) name##4 { T x, y, z, w; };                                              \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                             \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define uint3 emulator_uint3  // fibers.h has it
EMULATOR_VECTOR(unsigned, uint, 8, 16)
#undef uint3
EMULATOR_VECTOR(float, float, 8, 16)
EMULATOR_VECTOR(int, int, 8, 16)
EMULATOR_VECTOR(double, double, 16, 16)
EMULATOR_VECTOR(short, short, 4, 8)
EMULATOR_VECTOR(unsigned short, ushort, 4, 8)
EMULATOR_VECTOR(signed char, char, 2, 4)
EMULATOR_VECTOR(unsigned char, uchar, 2, 4)
EMULATOR_VECTOR(long long, longlong, 16, 16)
EMULATOR_VECTOR(unsigned long long, ulonglong, 16, 16)

// Every atomic gives the old value; one thread runs at a time, so a plain update is atomic.
template <class T, class U> T emulator_update(T *at, U next) { const T old = *at; *at = next(old); return old; }
template <class T> T atomicAdd(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return T(o + v); }); }
template <class T> T atomicSub(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return T(o - v); }); }
template <class T> T atomicExch(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T) { return v; }); }
template <class T> T atomicMax(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return o > v ? o : v; }); }
template <class T> T atomicMin(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return o < v ? o : v; }); }
template <class T> T atomicOr(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return o | v; }); }
template <class T> T atomicAnd(T *at, std::common_type_t<T> v) { return emulator_update(at, [=](T o) { return o & v; }); }
template <class T> T atomicCAS(T *at, std::common_type_t<T> old, std::common_type_t<T> v) {
    return emulator_update(at, [=](T o) { return o == old ? v : o; });
}
inline unsigned atomicInc(unsigned *at, unsigned top) {
    return emulator_update(at, [=](unsigned o) { return o >= top ? 0u : o + 1; });
}

inline void __threadfence() { __asm__ volatile("" ::: "memory"); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __nanosleep(unsigned) { emulator::pause(); }
[[noreturn]] inline void __trap() { emulator::fail("the kernel trapped"); }
inline long long clock64() { return 0; }
inline int clock() { return 0; }

template <class T> T __ldg(const T *at) { return *at; }
template <class T> T __ldcg(const T *at) { return *at; }
template <class T> T __ldcs(const T *at) { return *at; }
template <class T> T __ldca(const T *at) { return *at; }
template <class T> T __ldcv(const T *at) { return *const_cast<const volatile T *>(at); }
template <class T> void __stcg(T *at, std::common_type_t<T> v) { *at = v; }
template <class T> void __stcs(T *at, std::common_type_t<T> v) { *at = v; }
template <class T> void __stwb(T *at, std::common_type_t<T> v) { *at = v; }
template <class T> void __stwt(T *at, std::common_type_t<T> v) { *at = v; }

template <class To, class From> To emulator_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline int __float_as_int(float v) { return emulator_bits<int>(v); }
inline unsigned __float_as_uint(float v) { return emulator_bits<unsigned>(v); }
inline float __int_as_float(int v) { return emulator_bits<float>(v); }
inline float __uint_as_float(unsigned v) { return emulator_bits<float>(v); }
inline long long __double_as_longlong(double v) { return emulator_bits<long long>(v); }
inline double __longlong_as_double(long long v) { return emulator_bits<double>(v); }
inline int __float2int_rn(float v) { return int(rintf(v)); }
inline int __float2int_rd(float v) { return int(floorf(v)); }
inline int __float2int_rz(float v) { return int(v); }
inline float __int2float_rn(int v) { return float(v); }
inline float __uint2float_rn(unsigned v) { return float(v); }

inline float __expf(float v) { return expf(v); }
inline float __exp10f(float v) { return powf(10.0f, v); }
inline float __logf(float v) { return logf(v); }
inline float __log2f(float v) { return log2f(v); }
inline float __sinf(float v) { return sinf(v); }
inline float __cosf(float v) { return cosf(v); }
inline float __powf(float v, float p) { return powf(v, p); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fsqrt_rn(float v) { return sqrtf(v); }
inline float __frsqrt_rn(float v) { return 1.0f / sqrtf(v); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float v) { return v > 0.0f ? (v < 1.0f ? v : 1.0f) : 0.0f; }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz(unsigned(v)) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    const uint64_t both = uint64_t(b) << 32 | a;
    unsigned out = 0;
    for (int i = 0; i < 4; ++i) out |= unsigned((both >> (8 * (select >> (4 * i) & 7))) & 0xFF) << (8 * i);
    return out;
}

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(a) < T(b) ? T(b) : T(a);
}

// Called by the launchers that emulator.py adds below the kernels.
namespace emulator {

template <class Kernel> struct Signature;
template <class... P> struct Signature<void (*)(P...)> {
    template <void (*kernel)(P...), size_t... I> static void call_with(void **p, std::index_sequence<I...>) {
        kernel(*static_cast<std::remove_const_t<P> *>(p[I])...);
    }
    template <void (*kernel)(P...)> static void call(void **p) { call_with<kernel>(p, std::index_sequence_for<P...>()); }
    // Of every parameter, ended by 0.
    static const unsigned *sizes() {
        static const unsigned all[] = {unsigned(sizeof(P))..., 0};
        return all;
    }
    static const unsigned *alignments() {
        static const unsigned all[] = {unsigned(alignof(P))..., 0};
        return all;
    }
};

}  // namespace emulator
