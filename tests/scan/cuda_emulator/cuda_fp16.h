// The part of CUDA's half-precision header that kernels for float32 arithmetic need: storage and conversions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

inline float emulator_half_to_float(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16;
    const int exponent = bits >> 10 & 31;
    const uint32_t mantissa = bits & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf(float(mantissa), -24);
    const uint32_t out = sign | (exponent == 31 ? 0x7F800000u : uint32_t(exponent + 112) << 23) | mantissa << 13;
    float value;
    memcpy(&value, &out, 4);
    return value;
}

// Rounds to nearest, ties to even.
inline uint16_t emulator_float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    const uint16_t sign = bits >> 16 & 0x8000;
    if (std::isnan(value)) return 0x7FFF;
    const float size = fabsf(value);
    if (size >= 65520.0f) return sign | 0x7C00;
    if (size < 6.103515625e-05f) return sign | uint16_t(lrintf(ldexpf(size, 24)));
    bits &= 0x7FFFFFFF;
    bits += 0xFFF + (bits >> 13 & 1);
    return sign | uint16_t((bits >> 13) - (112 << 10));
}

struct alignas(2) __half {
    uint16_t bits;
    __half() = default;
    __half(float v) : bits(emulator_float_to_half(v)) {}
    operator float() const { return emulator_half_to_float(bits); }
};
struct alignas(4) __half2 { __half x, y; };
using half = __half;
using half2 = __half2;

inline float __half2float(__half v) { return float(v); }
inline __half __float2half(float v) { return __half(v); }
inline __half __float2half_rn(float v) { return __half(v); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return {__half(v.x), __half(v.y)}; }
inline float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float __low2float(__half2 v) { return float(v.x); }
inline float __high2float(__half2 v) { return float(v.y); }
inline unsigned short __half_as_ushort(__half v) { return v.bits; }
inline __half __ushort_as_half(unsigned short v) { __half h; h.bits = v; return h; }
