// The part of CUDA's bfloat16 header that kernels for float32 arithmetic need: storage and conversions.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

struct alignas(2) __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    // Rounds to nearest, ties to even.
    __nv_bfloat16(float v) {
        uint32_t whole;
        memcpy(&whole, &v, 4);
        bits = std::isnan(v) ? 0x7FFF : uint16_t((whole + 0x7FFF + (whole >> 16 & 1)) >> 16);
    }
    operator float() const {
        const uint32_t whole = uint32_t(bits) << 16;
        float v;
        memcpy(&v, &whole, 4);
        return v;
    }
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };

inline float __bfloat162float(__nv_bfloat16 v) { return float(v); }
inline __nv_bfloat16 __float2bfloat16(float v) { return __nv_bfloat16(v); }
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __nv_bfloat16(v); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {__nv_bfloat16(v.x), __nv_bfloat16(v.y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {float(v.x), float(v.y)}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline float __low2float(__nv_bfloat162 v) { return float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return float(v.y); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short v) { __nv_bfloat16 h; h.bits = v; return h; }
