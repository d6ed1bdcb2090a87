// Elements of half precision, one at a time, rounded to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

#include "request.hpp"

namespace sightline {

ALWAYS_INLINE float from_bf16(uint16_t x) {
    uint32_t bits = uint32_t{x} << 16;
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

ALWAYS_INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
    return static_cast<uint16_t>(x != x ? 0x7FC0 : rounded);
}

ALWAYS_INLINE float from_f16(uint16_t x) {
    uint32_t sign = uint32_t(x & 0x8000) << 16, rest = x & 0x7FFF;
    float f;
    if (rest >= 0x7C00) {  // infinite, or not a number
        rest = sign | 0x7F800000 | (rest & 0x3FF) << 13;
        std::memcpy(&f, &rest, 4);
        return f;
    }
    uint32_t wide = rest << 13;  // as if the exponent had its bias of 127: 2^112 too small
    std::memcpy(&f, &wide, 4);
    f *= 0x1p112f;
    return sign ? -f : f;
}

ALWAYS_INLINE uint16_t to_f16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    bits &= 0x7FFFFFFF;
    if (bits > 0x7F800000) return sign | 0x7E00;
    if (bits >= 0x477FF000) return sign | 0x7C00;
    if (bits < 0x38800000) {  // subnormal: let an addition round it
        float f;
        std::memcpy(&f, &bits, 4);
        f += 0.5f;
        std::memcpy(&bits, &f, 4);
        return static_cast<uint16_t>(sign | (bits - 0x3F000000));
    }
    return static_cast<uint16_t>(sign | (bits - 0x38000000 + 0xFFF + (bits >> 13 & 1)) >> 13);
}

// Element `at` of a floating view's data.
ALWAYS_INLINE float element(const void* data, Kind kind, long at) {
    switch (kind) {
        case Kind::bf16:
            return from_bf16(static_cast<const uint16_t*>(data)[at]);
        case Kind::f16:
            return from_f16(static_cast<const uint16_t*>(data)[at]);
        case Kind::f64:
            return static_cast<float>(static_cast<const double*>(data)[at]);
        default:
            return static_cast<const float*>(data)[at];
    }
}

ALWAYS_INLINE void put_element(void* data, Kind kind, long at, float x) {
    switch (kind) {
        case Kind::bf16:
            static_cast<uint16_t*>(data)[at] = to_bf16(x);
            break;
        case Kind::f16:
            static_cast<uint16_t*>(data)[at] = to_f16(x);
            break;
        case Kind::f64:
            static_cast<double*>(data)[at] = x;
            break;
        default:
            static_cast<float*>(data)[at] = x;
    }
}

}  // namespace sightline
